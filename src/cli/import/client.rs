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
use crate::upstream::{Attempt, Base, Client};
use bytes::Bytes;
use http::Request;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::request::Builder;

/// The largest reply that is read, in bytes: a write with its answer.
const LARGEST_REPLY: usize = 16 * 1024 * 1024;
/// The shortest token that is looked for in replies. A shorter one is made up for a trial, and
/// could be any word.
const SHORTEST_SECRET: usize = 8;

/// The path of the writes of a token.
pub(super) const WRITES: &str = "/_gateway/writes";

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
/// What is expected.
pub(super) fn checked_url(url: &str) -> Result<String, String> {
    match Base::parse(url) {
        Ok(_) => Ok(url.trim_end_matches('/').to_owned()),
        Err(_) => Err(
            "expected scheme, host and perhaps a port, such as http://127.0.0.1:8080".to_owned(),
        ),
    }
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

    /// Checks that a gateway is at the address, before anything is sent: an API in its place would
    /// carry the first row out. Only a gateway lists writes.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(super) async fn recognise(&self, url: &str) -> Result<(), String> {
        match self.get(&format!("{WRITES}?limit=1")).await {
            Ok(reply) if reply.status == 200 && reply.body["data"]["writes"].is_array() => Ok(()),
            Ok(reply) => Err(format!(
                "there is no segment-gateway for callers at {url}, or it does not accept the request: \
                 it answers {}; nothing was sent. Is this its address for callers, and not that of \
                 the API or the admin listener?",
                reply.in_words()
            )),
            Err(silence) => Err(format!(
                "cannot reach the gateway at {url}: {}; nothing was sent. Is it running, and is \
                 --gateway right?",
                silence.why
            )),
        }
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
            .header(CONTENT_TYPE, "application/json")
            .header("prefer", "respond-async")
            .header("idempotency-key", key)
            // Where the gateway trusts it, other programs of this machine keep their turns.
            .header("x-gateway-caller", "import");
        self.ask(request, row.body.clone().into()).await
    }

    async fn ask(&self, request: Builder, body: Bytes) -> Result<GatewayReply, NoReply> {
        let no_reply = |may_have_arrived, why| NoReply {
            may_have_arrived,
            why,
        };
        let request = request
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, self.token.clone())
            .body(body)
            .map_err(|error| no_reply(false, error.to_string()))?;
        let answer = match self.client.send(request).await {
            Attempt::Answered(answer) => answer,
            Attempt::NotSent(why) => {
                return Err(no_reply(false, format!("no connection ({})", why.as_str())));
            }
            Attempt::Unknown(why) => {
                return Err(no_reply(true, format!("no answer ({})", why.as_str())));
            }
        };
        let (head, body) = answer.into_parts();
        let Read::Whole(body) = body::read(body, LARGEST_REPLY).await else {
            return Err(no_reply(true, "no whole answer".to_owned()));
        };
        let body = without_secret(body, &self.secret);
        let status = head.status.as_u16();
        Ok(GatewayReply::new(status, &head.headers, &body))
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
