//! The bearer token of a request, known only as a keyed hash.
//!
//! The hash is keyed so that a hash from a log cannot be checked against guessed tokens off-line.
//! It has 128 bits of HMAC-SHA256, so two tokens never share a cache entry or a budget. The key is
//! kept in a file wherever hashes are: the ledger in the state directory names budgets by hash.

pub mod names;

pub use names::CredentialNames;

use hmac::{Hmac, KeyInit, Mac};
use http::header::{
    AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION,
};
use sha2::Sha256;
use std::fmt;

/// Headers that may carry a secret. Their values are marked as sensitive wherever a request is
/// read, so that `Debug` never shows them. A header that must stay secret as well belongs here.
pub static SECRET_HEADERS: [HeaderName; 5] = [
    AUTHORIZATION,
    PROXY_AUTHORIZATION,
    COOKIE,
    HeaderName::from_static("x-api-key"),
    GATEWAY_KEY,
];

/// The header with the key of a client, beside a token of its own.
pub const GATEWAY_KEY: HeaderName = HeaderName::from_static("x-gateway-key");

/// The hash of a credential. Two requests have equal ones exactly if the API sees the same token in
/// both, however the scheme is spelled, or no token in either.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Credential([u8; 16]);

impl Credential {
    /// Restores a credential from a stored hash.
    pub fn from_bytes(hash: [u8; 16]) -> Self {
        Self(hash)
    }

    /// Returns the hash.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Credential {
    /// Writes the first 64 bits in hexadecimal, which suffices to tell credentials apart in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
        let mut text = [0; 16];
        for (pair, byte) in text.chunks_exact_mut(2).zip(&self.0) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({self})")
    }
}

/// Hashes credentials with one key. Cheap to clone. `Debug` shows nothing.
#[derive(Clone)]
pub struct Hasher {
    keyed: Hmac<Sha256>,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

impl Hasher {
    /// Creates a hasher with this key.
    pub fn new(key: &[u8; 32]) -> Self {
        // A key of 32 bytes fits the block of SHA-256 and is used as it is (RFC 2104, section 2).
        let mut block = hmac::digest::common::Key::<Hmac<Sha256>>::default();
        block[..32].copy_from_slice(key);
        Self {
            keyed: Hmac::new(&block),
        }
    }

    /// Returns the credential of a request. Requests without one share a value.
    pub fn credential(&self, headers: &HeaderMap) -> Credential {
        self.credential_of(headers.get(AUTHORIZATION))
    }

    /// Returns the credential of a value of `Authorization`.
    pub fn credential_of(&self, authorization: Option<&HeaderValue>) -> Credential {
        let (scheme, secret) = shown(authorization);
        Credential(self.hash(&[b"credential", scheme, secret]))
    }

    /// Returns a stable name of some parts under this key. Each part is framed by its length, so
    /// that different parts never hash alike.
    pub fn hash(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut mac = self.keyed.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let whole = mac.finalize().into_bytes();
        let mut short = [0; 16];
        short.copy_from_slice(&whole[..16]);
        short
    }
}

/// Returns whether the request has a credential: an authentication scheme and something after it.
/// An empty `Authorization`, a scheme alone or a token alone identifies no one. The API knows only
/// the scheme `Bearer`; any other scheme is forwarded, as a credential of its own.
pub fn is_named(headers: &HeaderMap) -> bool {
    !shown(headers.get(AUTHORIZATION)).1.is_empty()
}

/// Returns the token of a value of `Authorization` with the scheme `Bearer`, or the whole value if
/// it has another scheme or none.
pub fn token(authorization: &HeaderValue) -> &[u8] {
    match shown(Some(authorization)) {
        (BEARER, token) => token,
        _ => authorization.as_bytes().trim_ascii(),
    }
}

/// Returns scheme and token of `Authorization`, normalised so that one token is one credential.
///
/// Schemes are compared without regard to case, and any number of spaces follows them (RFC 9110,
/// section 11.4). For a scheme other than `bearer`, the value is taken as it stands. Both parts are
/// empty if the value identifies no one.
fn shown(authorization: Option<&HeaderValue>) -> (&'static [u8], &[u8]) {
    let value = authorization.map_or(&[][..], |value| value.as_bytes().trim_ascii());
    let end = value.iter().position(u8::is_ascii_whitespace);
    let (scheme, rest) = value.split_at(end.unwrap_or(value.len()));
    match rest.trim_ascii_start() {
        b"" => (b"", b""),
        token if scheme.eq_ignore_ascii_case(BEARER) => (BEARER, token),
        _ => (b"", value),
    }
}

const BEARER: &[u8] = b"bearer";

#[cfg(test)]
mod tests {
    use super::*;

    fn with(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", token.parse().unwrap());
        headers
    }

    #[test]
    fn equal_tokens_and_only_they_have_equal_hashes() {
        let hasher = Hasher::new(&[1; 32]);
        let a = hasher.credential(&with("Bearer a"));
        assert_eq!(a, hasher.credential(&with("Bearer a")));
        assert_ne!(a, hasher.credential(&with("Bearer b")));
        assert_ne!(a, hasher.credential(&HeaderMap::new()));
        assert_ne!(a, Hasher::new(&[2; 32]).credential(&with("Bearer a")));
    }

    #[test]
    fn one_token_is_one_credential_in_every_spelling() {
        let hasher = Hasher::new(&[1; 32]);
        let hash = |value: &str| hasher.credential(&with(value));
        for same in ["bearer T", "BEARER  T", "Bearer\tT", " Bearer T "] {
            assert_eq!(hash(same), hash("Bearer T"), "{same:?}");
        }
        for other in ["Bearer t", "Bearer T T", "Basic T", "Basic Bearer T", "T"] {
            assert_ne!(hash(other), hash("Bearer T"), "{other:?}");
        }
        assert_ne!(hash("basic T"), hash("Basic T"), "nothing is known of it");
    }

    #[test]
    fn what_names_nobody_is_no_credential() {
        let hasher = Hasher::new(&[1; 32]);
        let none = HeaderMap::new();
        assert!(!is_named(&none));
        for empty in [
            "",
            "Bearer",
            "bearer ",
            " Bearer\t ",
            "  ",
            "T",
            "Basic",
            "BearerT",
        ] {
            assert!(!is_named(&with(empty)), "{empty:?}");
            assert_eq!(hasher.credential(&with(empty)), hasher.credential(&none));
        }
        for named in ["Bearer T", "bearer\tT ", "Basic T", "Bearer T T"] {
            assert!(is_named(&with(named)), "{named:?}");
        }
    }

    #[test]
    fn nothing_shows_the_token() {
        let hasher = Hasher::new(&[1; 32]);
        let shown = format!("{hasher:?} {:?}", hasher.credential(&with("Bearer secret")));
        assert!(!shown.contains("secret"));
    }
}
