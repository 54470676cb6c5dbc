//! Pure. How the journal keeps a request and an answer: versioned bytes, which it encrypts.
//!
//! ```text
//! version (1) | fields, each behind its length (4, little endian) | body, to the end
//! ```
//!
//! The fields of a request are method, target, sender, `deferred` or nothing, and the names and
//! values of its header; those of an answer are its status, whether the body is whole, and the
//! same. The sender is an address and, after a space, the client that was known there. A field that
//! is added later gets another version, and what is older stays readable.

use crate::write::answer::{AnswerContent, WriteAnswer};
use crate::write::durable::fields::{Reader, Writer};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode};
use std::net::IpAddr;
use std::sync::Arc;

/// A request as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRequest {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: PathAndQuery,
    /// The address of the sender.
    pub peer: IpAddr,
    /// The client that sent it, if its key or certificate named one.
    pub client: Option<Arc<str>>,
    /// Whether its caller does not wait for it.
    pub deferred: bool,
    /// The whole header, with the token if the caller sent its own.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// The API's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The status.
    pub status: StatusCode,
    /// The header, without the fields of the hop.
    pub headers: HeaderMap,
    /// The body; `None` if it broke off or was too long to be kept.
    pub body: Option<Bytes>,
}

impl KeptRequest {
    /// Returns its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new(self.body.len() + 512);
        out.field(self.method.as_str().as_bytes());
        out.field(self.target.as_str().as_bytes());
        out.field(sender(self.peer, self.client.as_deref()).as_bytes());
        out.field(if self.deferred { b"deferred" } else { b"" });
        out.headers(&self.headers);
        out.end(&self.body)
    }

    /// Reads the bytes of a request; `None` if they are of another version, or damaged.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let mut reader = Reader::new(bytes)?;
        let method = Method::from_bytes(reader.field()?).ok()?;
        let target = PathAndQuery::try_from(reader.field()?).ok()?;
        let (peer, client) = read_sender(reader.field()?)?;
        let deferred = match reader.field()? {
            b"deferred" => true,
            b"" => false,
            _ => return None,
        };
        let headers = reader.headers()?;
        Some(Self {
            method,
            target,
            peer,
            client,
            deferred,
            headers,
            body: reader.rest(),
        })
    }
}

/// Returns the text of a sender: the address, and after a space the client, if one is known.
fn sender(peer: IpAddr, client: Option<&str>) -> String {
    match client {
        None => peer.to_string(),
        Some(client) => format!("{peer} {client}"),
    }
}

/// Reads the text of a sender. A record of an earlier version has the address alone.
fn read_sender(field: &[u8]) -> Option<(IpAddr, Option<Arc<str>>)> {
    let text = std::str::from_utf8(field).ok()?;
    match text.split_once(' ') {
        None => Some((text.parse().ok()?, None)),
        Some((peer, client)) => Some((peer.parse().ok()?, Some(client.into()))),
    }
}

impl From<WriteAnswer> for KeptAnswer {
    /// Keeps a body that was read to its end.
    fn from(answer: WriteAnswer) -> Self {
        let (head, content) = answer.response.into_parts();
        Self {
            status: head.status,
            headers: head.headers,
            body: match content {
                AnswerContent::Whole(bytes) => Some(bytes),
                AnswerContent::Streamed(_) | AnswerContent::Lost => None,
            },
        }
    }
}

impl KeptAnswer {
    /// Returns the answer without its body, for which there is no room.
    pub fn without_body(&self) -> Self {
        Self {
            body: None,
            ..self.clone()
        }
    }

    /// Returns its bytes; see [`KeptRequest::encode`].
    pub fn encode(&self) -> Bytes {
        let body = self.body.as_ref();
        let mut out = Writer::new(body.map_or(0, Bytes::len) + 512);
        out.field(self.status.as_str().as_bytes());
        out.field(if body.is_some() { b"whole" } else { b"" });
        out.headers(&self.headers);
        out.end(body.unwrap_or(&Bytes::new()))
    }

    /// Reads the bytes of an answer; see [`KeptRequest::decode`].
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let mut reader = Reader::new(bytes)?;
        let status = StatusCode::from_bytes(reader.field()?).ok()?;
        let is_whole = match reader.field()? {
            b"whole" => true,
            b"" => false,
            _ => return None,
        };
        Some(Self {
            status,
            headers: reader.headers()?,
            body: is_whole.then(|| reader.rest()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn request() -> KeptRequest {
        let mut headers = HeaderMap::new();
        headers.append("authorization", "Bearer t".parse().unwrap());
        headers.append("x-many", "1".parse().unwrap());
        headers.append("x-many", HeaderValue::from_bytes(b"\xff").unwrap());
        KeptRequest {
            method: Method::DELETE,
            target: PathAndQuery::from_static("/invites?emails.0=a%40b.c"),
            peer: "::1".parse().unwrap(),
            client: Some("hr-sync".into()),
            deferred: true,
            headers,
            body: Bytes::from_static(b"{}"),
        }
    }

    #[test]
    fn what_is_kept_is_what_came() {
        let request = request();
        assert_eq!(KeptRequest::decode(&request.encode()), Some(request));
        for body in [None, Some(Bytes::new()), Some(Bytes::from_static(b"[]"))] {
            let answer = KeptAnswer {
                status: StatusCode::IM_A_TEAPOT,
                headers: HeaderMap::new(),
                body,
            };
            assert_eq!(KeptAnswer::decode(&answer.encode()), Some(answer));
        }
    }

    #[test]
    fn what_is_read_back_shows_no_token() {
        let mut request = request();
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "x-api-key",
        ] {
            request.headers.insert(name, "sgp_secret".parse().unwrap());
        }
        let decoded = KeptRequest::decode(&request.encode()).unwrap();
        assert!(format!("{request:?}").contains("sgp_secret"));
        let shown = format!("{decoded:?}");
        assert!(!shown.contains("sgp_secret"), "{shown}");
    }

    #[test]
    fn another_version_is_not_guessed_at() {
        let mut bytes = request().encode().to_vec();
        bytes[0] = 2;
        assert_eq!(KeptRequest::decode(&bytes.into()), None);
    }

    proptest! {
        /// Nothing panics, and what has lost its end is not taken for whole before its body begins.
        #[test]
        fn damaged_bytes_do_no_harm(at in 0usize..200, to in any::<u8>(), end in 0usize..200) {
            let whole = request().encode();
            let cut = whole.slice(..end.min(whole.len()));
            if cut.len() < whole.len() - 2 {
                prop_assert_eq!(KeptRequest::decode(&cut), None);
            }
            let mut bytes = whole.to_vec();
            let place = at % bytes.len();
            bytes[place] = to;
            let bytes = Bytes::from(bytes);
            let _ = KeptRequest::decode(&bytes);
            let _ = KeptAnswer::decode(&bytes);
        }
    }
}
