//! Keys of clients: their form, and what the gateway keeps of one.
//!
//! ```text
//! sgw_<id: 6>_<secret: 43>_<checksum: 6>      each of 0-9, A-Z, a-z
//! ```
//!
//! The prefix lets scanners of secrets find a key that was published. The id names the key in files
//! and logs. The secret has 256 random bits, so one round of SHA-256 hides it as well as a slow
//! hash would. The checksum is the CRC-32 of all that precedes it: a mistyped or shortened key is
//! malformed, and no look-up is needed to see it. It proves nothing, because anybody can compute
//! it.

use super::digest::KeyDigest;
use sha2::{Digest, Sha256};
use std::fmt;

/// The beginning of every key.
pub const PREFIX: &[u8] = b"sgw_";

/// The length of an id.
const ID: usize = 6;
/// Digits of base 62 that hold 256 bits.
const SECRET: usize = 43;
/// Digits of base 62 that hold 32 bits.
const CHECKSUM: usize = 6;

const ID_AT: usize = PREFIX.len();
const SECRET_AT: usize = ID_AT + ID + 1;
const CHECKSUM_AT: usize = SECRET_AT + SECRET + 1;
/// The length of a key.
const LENGTH: usize = CHECKSUM_AT + CHECKSUM;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Returns whether a text is meant as a key. Such a text is never forwarded, well-formed or not.
pub fn is_key(text: &[u8]) -> bool {
    text.starts_with(PREFIX)
}

/// A well-formed key. `Debug` shows its id alone.
#[derive(Clone, Copy)]
pub struct ClientKey([u8; LENGTH]);

/// A text that is no key. Says nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedKey;

impl fmt::Display for MalformedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not a key of a client: a key has {LENGTH} characters, begins with `sgw_` and ends in a \
             checksum, so one that was shortened or mistyped is not accepted"
        )
    }
}

impl std::error::Error for MalformedKey {}

impl ClientKey {
    /// Reads a key.
    ///
    /// # Errors
    /// If the text has another form, or its checksum is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, MalformedKey> {
        let key = Self(text.try_into().map_err(|_| MalformedKey)?);
        let parts = [key.id_digits(), key.secret_digits()];
        let has_digits = parts.iter().all(|part| part.iter().all(is_digit));
        let is_divided = [SECRET_AT, CHECKSUM_AT].map(|at| key.0[at - 1]) == [b'_'; 2];
        let is_whole = key.0[CHECKSUM_AT..] == checksum(&key.0[..CHECKSUM_AT - 1]);
        (is_key(&key.0) && has_digits && is_divided && is_whole)
            .then_some(key)
            .ok_or(MalformedKey)
    }

    /// Makes a key of random bytes of the system.
    ///
    /// # Errors
    /// If the system has none.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut text = [b'_'; LENGTH];
        text[..ID_AT].copy_from_slice(PREFIX);
        fill(&mut text[ID_AT..ID_AT + ID])?;
        fill(&mut text[SECRET_AT..SECRET_AT + SECRET])?;
        let checksum = checksum(&text[..CHECKSUM_AT - 1]);
        text[CHECKSUM_AT..].copy_from_slice(&checksum);
        Ok(Self(text))
    }

    /// Returns the id, which is no secret.
    pub fn id(&self) -> KeyId {
        let mut id = [0; ID];
        id.copy_from_slice(self.id_digits());
        KeyId(id)
    }

    /// Returns what the gateway keeps of the key.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest::new(Sha256::digest(self.0).into())
    }

    /// Returns the key itself, for the one time that it is shown.
    pub fn reveal(&self) -> &str {
        // All of it is ASCII, so there is no other case.
        str::from_utf8(&self.0).unwrap_or_default()
    }

    fn id_digits(&self) -> &[u8] {
        &self.0[ID_AT..ID_AT + ID]
    }

    fn secret_digits(&self) -> &[u8] {
        &self.0[SECRET_AT..SECRET_AT + SECRET]
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKey({})", self.id())
    }
}

fn is_digit(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric()
}

/// Returns the CRC-32 of a text in base 62, with leading zeros.
fn checksum(text: &[u8]) -> [u8; CHECKSUM] {
    let mut rest = crc32fast::hash(text);
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

/// Fills a text with digits, each of them equally likely.
fn fill(digits: &mut [u8]) -> Result<(), getrandom::Error> {
    /// The largest multiple of 62 in a byte. Bytes from it on would favour the first digits.
    const FAIR: u8 = 248;
    for digit in digits {
        let mut byte = [u8::MAX];
        while byte[0] >= FAIR {
            getrandom::fill(&mut byte)?;
        }
        *digit = DIGITS[usize::from(byte[0] % 62)];
    }
    Ok(())
}

/// The id of a key. It is in files, logs and lists.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; ID]);

impl KeyId {
    /// The form of an id, for messages.
    pub const FORM: &str = "6 letters or digits";

    /// Reads an id; `None` if the text has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let id: [u8; ID] = text.as_bytes().try_into().ok()?;
        id.iter().all(is_digit).then_some(Self(id))
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        // All of it is ASCII, so there is no other case.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A key whose checksum was computed with another program (Python's `zlib.crc32`).
    const KNOWN: &str = "sgw_k7Qm2x_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg_2lyCRD";

    #[test]
    fn the_form_of_a_key_is_fixed() {
        let key = ClientKey::parse(KNOWN.as_bytes()).unwrap();
        assert_eq!(key.id().as_str(), "k7Qm2x");
        assert_eq!(key.reveal(), KNOWN);
        assert_eq!(
            key.digest().to_string(),
            "7fd13ffbf33f01ac0a6ebeb8c12baaa40af550ca0d259e747131a39dc147f631"
        );
    }

    #[test]
    fn a_table_of_malformed_keys() {
        for text in [
            "",
            "sgw_",
            "sgp_k7Qm2x_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg_2lyCRD",
            &KNOWN[..KNOWN.len() - 1],
            &format!("{KNOWN}0"),
            &format!(" {KNOWN}"),
            &KNOWN.to_uppercase(),
            &KNOWN.replace('_', "-"),
            &KNOWN.replace("k7Qm2x", "k7Qm2y"),
            &KNOWN.replace("2lyCRD", "zzzzzz"),
        ] {
            assert!(ClientKey::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn keys_differ_and_nothing_shows_their_secret() {
        let (a, b) = (
            ClientKey::generate().unwrap(),
            ClientKey::generate().unwrap(),
        );
        assert_ne!(a.reveal(), b.reveal());
        assert!(!a.digest().matches(&b.digest()));
        let shown = format!("{a:?} {:?} {}", a.id(), MalformedKey);
        let secret = str::from_utf8(a.secret_digits()).unwrap();
        assert!(!shown.contains(secret), "{shown}");
    }

    #[test]
    fn a_table_of_digests_and_ids() {
        let digest = KeyDigest::new([0xab; 32]);
        assert_eq!(KeyDigest::parse(&digest.to_string()), Some(digest));
        for text in ["", "ab", &"AB".repeat(32), &"ag".repeat(32), KNOWN] {
            assert_eq!(KeyDigest::parse(text), None, "{text:?}");
        }
        assert!(KeyId::parse("k7Qm2x").is_some());
        for text in ["", "k7Qm2", "k7Qm2xx", "k7Qm_x", "k7Qm2\u{e9}"] {
            assert_eq!(KeyId::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_key_reads_back_and_one_changed_character_does_not(
            at in 0..LENGTH,
            other in proptest::sample::select(&b"0Aaz_-~ "[..]),
        ) {
            let key = ClientKey::generate().unwrap();
            let text = key.reveal().to_owned();
            let read = ClientKey::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(read.reveal(), &text);
            prop_assert!(is_key(text.as_bytes()) && read.digest().matches(&key.digest()));
            let mut changed = text.clone().into_bytes();
            changed[at] = other;
            let is_same = changed == text.as_bytes();
            prop_assert_eq!(ClientKey::parse(&changed).is_ok(), is_same);
        }

        #[test]
        fn any_bytes_are_read_or_refused(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = ClientKey::parse(&text);
        }
    }
}
