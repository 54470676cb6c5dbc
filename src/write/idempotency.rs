//! Pure. `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): the key of a request,
//! and the fingerprint that tells another request under it apart.
//!
//! The draft's value is a quoted string (RFC 9651, section 3.3.3); most clients send it bare, so
//! both are read, and `"a"` and `a` are one key. A field that is neither is refused: a client that
//! sends a key relies on it.

use crate::error::GatewayError;
use http::{HeaderMap, HeaderName, Method, header};
use sha2::{Digest, Sha256};

/// The field. The gateway honours it itself and does not send it on, so that writes with different
/// keys may be batched.
pub const FIELD: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key, in bytes; the API's ids are shorter, and so are those of all usual generators.
pub const LONGEST: usize = 255;

/// Returns the key of a request, without its quotes.
///
/// # Errors
/// If there are several, or it is empty, too long, or of characters that a key cannot have.
pub fn key(headers: &HeaderMap) -> Result<Option<Vec<u8>>, GatewayError> {
    let mut values = headers.get_all(FIELD).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(GatewayError::BadRequest(
            "The request has more than one Idempotency-Key",
        ));
    }
    let key = unquoted(value.as_bytes().trim_ascii()).ok_or(GatewayError::BadRequest(
        "Idempotency-Key is neither a quoted string nor a plain one of printable ASCII characters",
    ))?;
    match key.len() {
        0 => Err(GatewayError::BadRequest("Idempotency-Key is empty")),
        1..=LONGEST => Ok(Some(key)),
        _ => Err(GatewayError::BadRequest(
            "Idempotency-Key is longer than 255 bytes",
        )),
    }
}

fn unquoted(value: &[u8]) -> Option<Vec<u8>> {
    let printable = |byte: &u8| matches!(byte, b' '..=b'~');
    let Some(quoted) = value.strip_prefix(b"\"") else {
        let plain = value
            .iter()
            .all(|byte| printable(byte) && !matches!(byte, b'"' | b'\\'));
        return plain.then(|| value.to_vec());
    };
    let mut key = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    loop {
        match bytes.next()? {
            b'"' => break,
            b'\\' => match bytes.next()? {
                escaped @ (b'"' | b'\\') => key.push(*escaped),
                _ => return None,
            },
            byte if printable(byte) => key.push(*byte),
            _ => return None,
        }
    }
    bytes.next().is_none().then_some(key)
}

/// Returns the fingerprint of a request: of its method, target, media type and body.
pub fn fingerprint(method: &Method, target: &str, headers: &HeaderMap, body: &[u8]) -> [u8; 32] {
    let media_type = headers.get(header::CONTENT_TYPE);
    let media_type = media_type.map_or(&b""[..], |value| value.as_bytes());
    let mut hash = Sha256::new();
    for part in [
        method.as_str().as_bytes(),
        target.as_bytes(),
        media_type,
        body,
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(FIELD, http::HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_key_is_read_in_both_spellings_and_what_is_none_is_refused() {
        let long = [b'k'; LONGEST];
        let longer = [b'k'; LONGEST + 1];
        type Case<'c> = (&'c [&'c [u8]], Option<&'c [u8]>);
        let cases: &[Case<'_>] = &[
            (&[b"8e03978e"], Some(b"8e03978e")),
            (&[b"\"8e03978e\""], Some(b"8e03978e")),
            (&[b" \"a \\\" b \\\\\" "], Some(b"a \" b \\")),
            (&[&long], Some(&long)),
            (&[&longer], None),
            (&[b""], None),
            (&[b"\"\""], None),
            (&[b"\"a"], None),
            (&[b"a\""], None),
            (&[b"\"a\" b"], None),
            (&[b"\"a\\n\""], None),
            (&[b"caf\xe9"], None),
            (&[b"a", b"a"], None),
        ];
        for (values, expected) in cases {
            match (key(&headers(values)), expected) {
                (Ok(Some(found)), Some(expected)) => assert_eq!(&found, expected),
                (Err(GatewayError::BadRequest(_)), None) => {}
                (found, _) => panic!("{values:?}: {found:?}"),
            }
        }
        assert_eq!(key(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn whatever_the_api_would_read_differently_is_another_request() {
        let mut json = HeaderMap::new();
        json.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        let of = |method, target, headers: &HeaderMap, body: &str| {
            fingerprint(&method, target, headers, body.as_bytes())
        };
        let first = of(Method::POST, "/invites", &json, "{}");
        assert_eq!(first, of(Method::POST, "/invites", &json, "{}"));
        for other in [
            of(Method::PUT, "/invites", &json, "{}"),
            of(Method::POST, "/invites?a", &json, "{}"),
            of(Method::POST, "/invites", &HeaderMap::new(), "{}"),
            of(Method::POST, "/invites", &json, "{ }"),
        ] {
            assert_ne!(first, other);
        }
    }
}
