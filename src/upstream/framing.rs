//! Pure. The framing fields of requests and responses. Each message states its length in one way,
//! and the length is that of the actual bytes.
//!
//! hyper determines the end of a response (RFC 9112, section 6.3) but leaves its fields unchanged.
//! A length beside chunked coding, or a malformed one, could make the next recipient see another
//! end.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

/// Sets the length of a request from its body. A stale length or coding would make the API see
/// another request than the one that was sent (RFC 9112, section 11.2).
pub(super) fn of_request(headers: &mut HeaderMap, method: &Method, length: usize) {
    headers.remove(TRANSFER_ENCODING);
    headers.remove(CONTENT_LENGTH);
    // RFC 9110, section 8.6: methods that expect a body state its length even if it is zero.
    let expected = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    if length > 0 || expected {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// Leaves a response with at most one length, and with none beside `Transfer-Encoding`. The coding
/// overrides the length (RFC 9112, section 6.3) and ends with this hop. Returns whether the
/// response had both.
///
/// A list of equal lengths counts as one (RFC 9110, section 8.6). A malformed length is dropped. It
/// occurs only in a response without a body, such as one to HEAD, because hyper rejects all others.
/// 204 and 205 keep no length: RFC 9110 forbids it for 204 (section 8.6), and a body, which the
/// client drops, for 205 (section 15.3.6).
pub(super) fn of_answer(status: StatusCode, headers: &mut HeaderMap) -> bool {
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT) {
        headers.remove(CONTENT_LENGTH);
    }
    if headers.remove(TRANSFER_ENCODING).is_some() {
        return headers.remove(CONTENT_LENGTH).is_some();
    }
    if headers.contains_key(CONTENT_LENGTH) {
        match length(headers) {
            Some(length) => drop(headers.insert(CONTENT_LENGTH, HeaderValue::from(length))),
            None => drop(headers.remove(CONTENT_LENGTH)),
        }
    }
    false
}

/// The single length that all fields agree on.
fn length(headers: &HeaderMap) -> Option<u64> {
    let fields = headers.get_all(CONTENT_LENGTH).iter();
    let mut lengths = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
    let first = digits(lengths.next()?)?;
    lengths
        .all(|other| digits(other) == Some(first))
        .then_some(first)
}

fn digits(text: &[u8]) -> Option<u64> {
    let text = str::from_utf8(text.trim_ascii()).ok()?;
    // `parse` would accept a sign.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// Whether a response has a transfer coding other than `chunked` (RFC 9112, section 6.1). The
/// gateway requests none, and the coded bytes would be mistaken for the body.
pub(super) fn has_unknown_coding(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut codings = codings.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    codings.any(|coding| !coding.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_one_length_or_none() {
        for (lengths, expected) in [
            (&["5"][..], Some("5")),
            (&["0"], Some("0")),
            (&["5", "5"], Some("5")),
            (&["5, 5"], Some("5")),
            (&[" 5 ,5"], Some("5")),
            (&["5", "6"], None),
            (&["5, 6"], None),
            (&["5,"], None),
            (&[""], None),
            (&["abc"], None),
            (&["-1"], None),
            (&["+1"], None),
            (&["1.0"], None),
            (&["0x5"], None),
            (&["18446744073709551616"], None),
        ] {
            let mut headers = HeaderMap::new();
            for length in lengths {
                headers.append(CONTENT_LENGTH, length.parse().unwrap());
            }
            let mut chunked = headers.clone();
            for status in [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT] {
                let mut headers = headers.clone();
                assert!(!of_answer(status, &mut headers), "{lengths:?}");
                assert!(headers.is_empty(), "{status} {lengths:?}");
            }
            assert!(!of_answer(StatusCode::OK, &mut headers), "{lengths:?}");
            let left: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
            assert_eq!(left, Vec::from_iter(expected), "{lengths:?}");
            chunked.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            assert!(of_answer(StatusCode::OK, &mut chunked), "{lengths:?}");
            assert!(chunked.is_empty(), "{lengths:?}");
        }
    }
}
