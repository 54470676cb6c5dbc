//! Pure. The headers of a stored response.
//!
//! Promises that nothing is stored that belongs to one exchange: rate limits, ids, cookies and
//! hop-by-hop fields are left out. So are `Age` and `Content-Length`, which are computed when the
//! response is served. The copy keeps no larger buffer alive than its own values need.

use super::coding::Coding;
use super::conditional::own_tag;
use super::control::{is_hop_by_hop, lists_token, tokens};
use bytes::BytesMut;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// A response as received from the API.
#[derive(Clone, Debug)]
pub struct ReceivedResponse<'a> {
    /// The status.
    pub status: StatusCode,
    /// All headers, unfiltered.
    pub headers: &'a HeaderMap,
    /// The complete body.
    pub body: &'a [u8],
}

/// The fields that the gateway adds to a stored response: an `ETag` if there is none, and a `Vary`
/// if the stored coding is not the only one that readers get.
pub(super) fn own_fields(answer: &ReceivedResponse<'_>, coding: Coding) -> HeaderMap {
    let mut own = HeaderMap::new();
    let whole = matches!(answer.status.as_u16(), 200 | 203);
    if whole && !answer.headers.contains_key(header::ETAG) {
        own.insert(header::ETAG, own_tag(answer.body));
    }
    let said = lists_token(answer.headers.get_all(header::VARY), "accept-encoding");
    if coding != Coding::Plain && !said {
        own.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    own
}

/// Copies the headers that are stored and the gateway's `own`, with all values in one buffer of
/// exactly their length. Rate limits describe one moment, so a stored response loses them
/// (`without_limits`). The map has
/// room for `spare` more.
pub(super) fn compact(
    headers: &HeaderMap,
    own: &HeaderMap,
    without_limits: bool,
    spare: usize,
) -> HeaderMap {
    let kept = || {
        let of_the_answer = headers
            .iter()
            .filter(|(name, _)| is_kept(name, headers) && !(without_limits && is_of_limits(name)));
        of_the_answer.chain(own)
    };
    let mut buffer = BytesMut::with_capacity(kept().map(|(_, value)| value.len()).sum());
    for (_, value) in kept() {
        buffer.extend_from_slice(value.as_bytes());
    }
    let mut buffer = buffer.freeze();
    let mut copy = HeaderMap::with_capacity(kept().count() + spare);
    for (name, value) in kept() {
        let bytes = buffer.split_to(value.len());
        // Both were valid before the copy, so nothing is left out here.
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_maybe_shared(bytes)) {
            copy.append(name, value);
        }
    }
    copy
}

fn is_kept(name: &HeaderName, headers: &HeaderMap) -> bool {
    !is_of_exchange(name) && !is_hop_by_hop(name) && !is_named_by_connection(name, headers)
}

fn is_of_limits(name: &HeaderName) -> bool {
    let name = name.as_str();
    name == "retry-after" || name.starts_with("x-ratelimit") || name.starts_with("ratelimit")
}

/// Whether a field belongs to one exchange (ids, timing, cookies), or is computed when the copy is
/// served.
fn is_of_exchange(name: &HeaderName) -> bool {
    const NAMES: [&str; 14] = [
        "age",
        "cf-ray",
        "content-length",
        "request-id",
        "server-timing",
        "set-cookie",
        "set-cookie2",
        "traceparent",
        "tracestate",
        "x-amz-cf-id",
        "x-amzn-requestid",
        "x-amzn-trace-id",
        "x-correlation-id",
        "x-request-id",
    ];
    NAMES.contains(&name.as_str())
}

fn is_named_by_connection(name: &HeaderName, headers: &HeaderMap) -> bool {
    tokens(headers.get_all(header::CONNECTION))
        .any(|named| named.eq_ignore_ascii_case(name.as_str().as_bytes()))
}
