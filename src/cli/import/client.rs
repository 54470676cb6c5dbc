//! The requests of an import: a row to hand over, and the questions about writes.
//!
//! Each method sends one request and retries nothing. The token is in the `Authorization` of each
//! request and nowhere else: a reply that repeats it loses it here.

use super::reply::{GatewayReply, NoReply};
use super::row::ImportRow;
use crate::app;
use crate::clock::Clock;
use crate::config::Config;
use crate::exchange::body::{self, Read};
use crate::upstream::{Attempt, Base, Client, NotSent, Unknown};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::request::Builder;
use http::{HeaderName, Request};

/// The largest reply that is read, in bytes: a page of writes with their answers.
const LARGEST_REPLY: usize = 16 * 1024 * 1024;
/// The shortest token that is looked for in replies. A shorter one is made up for a trial, and
/// could be any word.
const SHORTEST_SECRET: usize = 8;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The name under which the import takes its turn, where the gateway trusts it: half of the quota
/// of this machine is left to its other programs.
const CALLER: HeaderName = HeaderName::from_static("x-gateway-caller");
const CALLER_NAME: HeaderValue = HeaderValue::from_static("import");

/// The connections to a gateway, and the token that it passes on.
pub(super) struct GatewayClient {
    client: Client,
    token: HeaderValue,
    /// The token without its scheme.
    secret: String,
}

/// Checks the URL of a gateway.
///
/// # Errors
/// What is wrong with it, and what is expected.
pub(super) fn checked_url(url: &str) -> Result<String, String> {
    let checked = Base::parse(url).map_err(|error| {
        format!("{error}; expected scheme, host and perhaps a port, such as http://127.0.0.1:8080")
    });
    checked.map(|_| url.trim_end_matches('/').to_owned())
}

impl GatewayClient {
    /// Creates the client. It opens no connection yet.
    ///
    /// # Errors
    /// If the URL or a proxy that the environment names cannot be used.
    pub(super) fn new(url: &str, token: HeaderValue, clock: &Clock) -> Result<Self, String> {
        let mut config = Config::default();
        url.clone_into(&mut config.upstream.url);
        let client = app::client(&config, clock).map_err(|error| error.0)?;
        let secret = token.to_str().unwrap_or_default();
        let secret = secret.strip_prefix("Bearer ").unwrap_or(secret).to_owned();
        Ok(Self {
            client,
            token,
            secret,
        })
    }

    /// Asks for one of the gateway's own resources.
    ///
    /// # Errors
    /// If there is no reply, or it breaks off.
    pub(super) async fn get(&self, target: &str) -> Result<GatewayReply, NoReply> {
        self.ask(Request::get(target), Bytes::new()).await
    }

    /// Hands a row over as a deferred write under this key.
    ///
    /// # Errors
    /// If there is no reply, or it breaks off.
    pub(super) async fn hand_over(
        &self,
        row: &ImportRow,
        key: &str,
    ) -> Result<GatewayReply, NoReply> {
        let request = Request::post(row.path())
            .header(CONTENT_TYPE, JSON)
            .header(PREFER, "respond-async")
            .header(IDEMPOTENCY_KEY, key)
            .header(CALLER, CALLER_NAME);
        self.ask(request, row.body.clone().into()).await
    }

    async fn ask(&self, request: Builder, body: Bytes) -> Result<GatewayReply, NoReply> {
        let request = request
            .header(ACCEPT, JSON)
            .header(AUTHORIZATION, self.token.clone())
            .body(body)
            .map_err(|error| NoReply {
                may_have_arrived: false,
                why: error.to_string(),
            })?;
        let answer = match self.client.send(request).await {
            Attempt::Answered(answer) => answer,
            Attempt::NotSent(why) => {
                return Err(NoReply {
                    may_have_arrived: false,
                    why: not_sent(why).to_owned(),
                });
            }
            Attempt::Unknown(why) => return Err(lost(unknown(why))),
        };
        let (head, body) = answer.into_parts();
        match body::read(body, LARGEST_REPLY).await {
            Read::Whole(bytes) => {
                let bytes = without_secret(bytes, &self.secret);
                Ok(GatewayReply::new(
                    head.status.as_u16(),
                    &head.headers,
                    &bytes,
                ))
            }
            Read::Longer(..) => Err(lost("its answer is too long")),
            Read::Broken(_) => Err(lost("its answer broke off")),
        }
    }
}

/// Returns the reason for which there is no reply to a request that may have arrived.
fn lost(why: &str) -> NoReply {
    NoReply {
        may_have_arrived: true,
        why: why.to_owned(),
    }
}

/// Returns a body in which the secret does not occur.
fn without_secret(body: Bytes, secret: &str) -> Bytes {
    if secret.len() < SHORTEST_SECRET {
        return body;
    }
    match std::str::from_utf8(&body) {
        Ok(text) if text.contains(secret) => text.replace(secret, "[token]").into(),
        _ => body,
    }
}

fn not_sent(why: NotSent) -> &'static str {
    match why {
        NotSent::Unresolved => "its name has no address",
        NotSent::Refused => "it accepts no connection",
        NotSent::ConnectTimeout => "no connection was ready in time",
        NotSent::Certificate => "its certificate is not trusted, or is for another name",
        NotSent::Tls => "the TLS handshake failed",
        NotSent::Proxy => "the proxy that the environment names opens no way to it",
        NotSent::ClosedBeforeSending | NotSent::Unprocessed => "it closed the connection",
    }
}

fn unknown(why: Unknown) -> &'static str {
    match why {
        Unknown::HeadTimeout | Unknown::TotalTimeout => "it did not answer in time",
        Unknown::Broken | Unknown::StaleConnection => "the connection broke",
        Unknown::Malformed => "its answer is not HTTP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_that_of_a_server_and_nothing_below_it() {
        assert_eq!(
            checked_url("http://127.0.0.1:8080/").unwrap(),
            "http://127.0.0.1:8080"
        );
        assert!(checked_url("https://gateway.example").is_ok());
        for wrong in ["127.0.0.1:8080", "ftp://a", "http://a/b", "http://a@b", ""] {
            let error = checked_url(wrong).unwrap_err();
            assert!(
                error.contains("such as http://127.0.0.1:8080"),
                "{wrong}: {error}"
            );
        }
    }

    #[test]
    fn a_reply_that_repeats_the_token_loses_it() {
        let of = |body: &'static str, secret| {
            without_secret(Bytes::from_static(body.as_bytes()), secret)
        };
        assert_eq!(of("no tok-en-1 here", "tok-en-1"), "no [token] here");
        assert_eq!(of("demo", "demo"), "demo");
        assert_eq!(of("other", "tok-en-1"), "other");
    }
}
