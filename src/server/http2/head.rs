//! Pure. Heads of HTTP/2: of a request as HTTP/1.1 has it, and of a response as HTTP/2 wants it.
//!
//! Behind the connection a request looks the same over both protocols, so that every rule about
//! requests holds for both. The HTTP library rejects malformed heads before: fields of a single
//! connection (RFC 9113, section 8.2.2) and pseudo-header fields that are missing, repeated or
//! unknown (section 8.3).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, request, response};

/// Fields that no response of HTTP/2 may have (RFC 9113, section 8.2.2).
const OF_CONNECTION: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Turns the target into a path, `:authority` into `Host` and the crumbs of `Cookie` into one field
/// (RFC 9113, sections 8.3.1 and 8.2.3).
///
/// A `Host` that differs from `:authority` is kept beside it. Every service rejects a request with
/// two of them.
pub(super) fn to_http1(head: &mut request::Parts) {
    join_cookies(&mut head.headers);
    let (scheme, authority) = (head.uri.scheme_str(), head.uri.authority());
    let is_usual = matches!(scheme, Some("http" | "https"))
        && authority.is_some_and(|authority| !authority.as_str().contains('@'));
    // Left as it is, so that the rules about targets see it.
    if !is_usual || head.method == Method::CONNECT {
        return;
    }
    let mut target = std::mem::take(&mut head.uri).into_parts();
    let authority = target.authority.take();
    target.scheme = None;
    // A path alone is always a target. `*` would be rejected, and that is safe.
    head.uri = Uri::from_parts(target).unwrap_or_else(|_| Uri::from_static("*"));
    let authority = authority.and_then(|name| HeaderValue::from_str(name.as_str()).ok());
    if let Some(authority) = authority
        && !is_host(&head.headers, &authority)
    {
        head.headers.append(header::HOST, authority);
    }
}

/// Returns whether `Host` occurs and is this one.
fn is_host(headers: &HeaderMap, authority: &HeaderValue) -> bool {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    host.is_some_and(|host| host.eq_ignore_ascii_case(authority.as_bytes()))
}

/// Joins several `Cookie` fields into one. Clients split them to compress them better.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs = headers.get_all(header::COOKIE).iter();
    let crumbs: Vec<&[u8]> = crumbs.map(HeaderValue::as_bytes).collect();
    // What joins values is a value.
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, cookie);
    }
}

/// Removes the fields of a single connection, and adds `Content-Length` and `Date` where hyper adds
/// them to a response of HTTP/1.1. `length` is that of the body, if it is known.
pub(super) fn complete(
    head: &mut response::Parts,
    is_head: bool,
    length: Option<u64>,
    date: impl FnOnce() -> String,
) {
    let headers = &mut head.headers;
    for name in OF_CONNECTION {
        headers.remove(name);
    }
    // Nothing is known of the length of a response to `HEAD` without a body.
    let has_length = has_body(head.status, false) && (!is_head || length != Some(0));
    if let Some(length) = length.filter(|_| has_length) {
        let length = || HeaderValue::from(length);
        headers.entry(header::CONTENT_LENGTH).or_insert_with(length);
    }
    if !headers.contains_key(header::DATE)
        && let Ok(date) = HeaderValue::try_from(date())
    {
        headers.insert(header::DATE, date);
    }
}

/// Returns whether a response with this status to this method has a body (RFC 9110, section 6.4.1).
pub(super) fn has_body(status: StatusCode, is_head: bool) -> bool {
    !is_head && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
