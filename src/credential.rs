//! The bearer token a request travels with, known only by a keyed hash.
//!
//! The hash is keyed so that one seen in a log cannot be checked against a guessed token off-line.
//! 128 bits of HMAC-SHA256: two tokens never share a cache entry or a budget. The key outlives
//! the process (a file) wherever hashes do: the ledger of the state directory names budgets by it.

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::Sha256;
use std::fmt;

/// Names one credential. Two requests have equal ones exactly if their `Authorization` is equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Credential([u8; 16]);

impl Credential {
    /// The hash itself.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Credential {
    /// The first 64 bits in hexadecimal: enough to tell credentials apart in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({self})")
    }
}

/// Hashes credentials with one key. Cheap to clone; its `Debug` shows nothing.
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
    /// A hasher with this key.
    pub fn new(key: &[u8; 32]) -> Self {
        // A key of 32 bytes fits the block of SHA-256, so it is used as it is (RFC 2104, 2).
        let mut block = hmac::digest::common::Key::<Hmac<Sha256>>::default();
        block[..32].copy_from_slice(key);
        Self {
            keyed: Hmac::new(&block),
        }
    }

    /// The credential of a request; requests without `Authorization` share one.
    pub fn credential(&self, headers: &HeaderMap) -> Credential {
        let value = headers.get(http::header::AUTHORIZATION);
        Credential(self.hash(&[b"credential", value.map_or(&[], |v| v.as_bytes())]))
    }

    /// A stable name of some parts under this key; each part is framed by its length.
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
    fn nothing_shows_the_token() {
        let hasher = Hasher::new(&[1; 32]);
        let shown = format!("{hasher:?} {:?}", hasher.credential(&with("Bearer secret")));
        assert!(!shown.contains("secret"));
    }
}
