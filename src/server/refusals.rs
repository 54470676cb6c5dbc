//! Responses to bytes that are not a request. The stream writes them itself, because hyper shows
//! such bytes to no service.

use crate::clock::Clock;
use crate::error::GatewayError;
use crate::exchange::error_response;
use crate::exchange::request_id::{REQUEST_ID, RequestIds};
use crate::metrics::Malformed;
use bytes::Bytes;
use http::{HeaderValue, Response};

/// Creates the responses of one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MalformedReplies {
    ids: RequestIds,
    clock: Clock,
    head_bytes: usize,
}

/// A response as it is written, and its id.
#[derive(Debug)]
pub(super) struct MalformedReply {
    pub(super) bytes: Vec<u8>,
    pub(super) id: HeaderValue,
}

impl MalformedReplies {
    /// Creates them for a listener that accepts heads of up to `head_bytes`.
    pub fn new(head_bytes: usize) -> Self {
        Self {
            ids: RequestIds::new(),
            clock: Clock::system(),
            head_bytes,
        }
    }

    /// Returns the response to a request without TLS on a listener that has TLS. The connection is
    /// closed after it.
    pub(super) fn plain_http(&self) -> Vec<u8> {
        let error = GatewayError::BadRequest(
            "This listener speaks TLS, and what came is a request without. Use https:// in the URL",
        );
        self.reply(&error).bytes
    }

    /// Returns the response for this reason. The connection is closed after it.
    pub(super) fn answer(&self, why: Malformed) -> MalformedReply {
        let error = match why {
            Malformed::Head => GatewayError::BadRequest(
                "What came is no request, or its head is malformed. This listener takes requests of \
                HTTP/1.1, and of HTTP/2 over TLS. It is without TLS unless [tls] is configured",
            ),
            Malformed::Http2 => GatewayError::BadRequest(
                "What came is the preface of HTTP/2, which this listener speaks only over TLS, by \
                ALPN. Configure [tls], or let the client use HTTP/1.1, not h2c",
            ),
            Malformed::TooLarge => GatewayError::HeadTooLarge(self.head_bytes),
            Malformed::Timeout => GatewayError::HeadTimeout,
        };
        self.reply(&error)
    }

    /// Returns an error as it is written.
    fn reply(&self, error: &GatewayError) -> MalformedReply {
        let mut answer = error_response::error_held(error);
        let id = self.ids.next();
        answer.headers_mut().insert(REQUEST_ID, id.clone());
        MalformedReply {
            bytes: written(&answer, &httpdate::fmt_http_date(self.clock.wall())),
            id,
        }
    }
}

/// Returns the reason for which hyper would send this response.
pub(super) fn reason_of(answer: &[u8]) -> Malformed {
    match answer.get(9..12) {
        Some(b"431" | b"414") => Malformed::TooLarge,
        _ => Malformed::Head,
    }
}

/// Returns a response in the syntax of HTTP/1.1.
fn written(answer: &Response<Bytes>, date: &str) -> Vec<u8> {
    let (status, body) = (answer.status(), answer.body());
    let reason = status.canonical_reason().unwrap_or_default();
    let mut bytes = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-length: {}\r\ndate: {date}\r\n",
        status.as_u16(),
        body.len(),
    )
    .into_bytes();
    for (name, value) in answer.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}
