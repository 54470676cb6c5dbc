//! The encryption of the contents of requests, responses and summaries.
//!
//! Promises:
//! - AES-256-GCM: what was not sealed under this key does not open.
//! - A seal belongs to one write and one part of it: it does not open in another place.
//! - The key is never shown, and neither the file nor [`SealingKey::check`] reveals anything of it.
//!
//! ```text
//! version (1) | nonce (12) | ciphertext | tag (16)
//! ```
//!
//! Nonces are random, which is safe for 2^32 seals under one key (NIST SP 800-38D, section 8.3):
//! twenty a second for six years.

use super::error::OpenError;
use super::lock::lock;
use super::write_id::WriteId;
use crate::private_file;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The version of the form above, the first byte of every seal.
const VERSION: u8 = 1;
/// The length of version and nonce.
const HEAD: usize = 1 + NONCE_LEN;
/// The shortest key file that is accepted and the most that is read of one, in bytes.
const SHORTEST: usize = 16;
const LONGEST: u64 = 64 * 1024;
/// The length of a generated secret, in bytes.
const MADE: usize = 32;

/// The part of a write that a seal holds. Its number is authenticated with the seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SealedPart {
    Request = 1,
    Answer = 2,
    Summary = 3,
}

/// The failure to seal or open, of which the cipher says nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsealed;

/// The key under which a journal is sealed. `Debug` shows nothing of it.
pub struct SealingKey {
    seal: RandomizedNonceKey,
    check: [u8; 32],
    /// A value that differs for another key of the credential hashes, if that is known.
    credentials: Option<[u8; 16]>,
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey")
    }
}

/// The reason why there is no key. `Display` names a remedy.
#[derive(Debug)]
pub enum KeyError {
    /// The key file cannot be read or made.
    Unusable(PathBuf, io::Error),
    /// The file has no key.
    NotAKey(PathBuf),
    /// The secret for a key is too short.
    Short,
    /// A journal exists, but its key is missing.
    Lost(PathBuf),
    /// The journal that it is for cannot be locked.
    Journal(OpenError),
    /// The system has no randomness, or the cipher rejects the key.
    Random,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(path, error) => write!(
                f,
                "the journal's key {}: {error}; let this user read it, or write its directory",
                path.display()
            ),
            Self::NotAKey(path) => write!(
                f,
                "the journal's key {}: it is not one; put the right one back, or fill a file of \
                 your own with at least {SHORTEST} bytes, e.g. `head -c 32 /dev/urandom`",
                path.display()
            ),
            Self::Short => write!(
                f,
                "the journal's key: it is shorter than {SHORTEST} bytes; take random ones"
            ),
            Self::Lost(path) => write!(
                f,
                "the journal's key {}: it is gone, and the journal cannot be read without it; put \
                 it back, or move the journal away to begin a new one",
                path.display()
            ),
            Self::Journal(error) => error.fmt(f),
            Self::Random => f.write_str("the system gives no random bytes for the journal's key"),
        }
    }
}

impl std::error::Error for KeyError {}

impl SealingKey {
    /// Derives the key from this secret.
    pub fn new(secret: &[u8; 32]) -> Result<Self, KeyError> {
        // Two labels give two independent values, so that the check reveals nothing of the key.
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derive = |label: &[u8]| hmac::sign(&secret, label);
        let seal = derive(b"segment-gateway journal seal");
        let mut check = [0; 32];
        check.copy_from_slice(derive(b"segment-gateway journal check").as_ref());
        Ok(Self {
            seal: RandomizedNonceKey::new(&AES_256_GCM, seal.as_ref())
                .map_err(|_| KeyError::Random)?,
            check,
            credentials: None,
        })
    }

    /// Adds a value that differs for another key of the credential hashes. A journal opens only
    /// under the value that it was made with.
    pub fn with_credentials(self, check: [u8; 16]) -> Self {
        Self {
            credentials: Some(check),
            ..self
        }
    }

    /// Reads the key in an operator's file, all of whose bytes count.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(LONGEST).read_to_end(&mut bytes))
            .map_err(|error| KeyError::Unusable(path.to_owned(), error))?;
        Self::from_secret(&bytes).map_err(|error| match error {
            KeyError::Short => KeyError::NotAKey(path.to_owned()),
            other => other,
        })
    }

    /// Derives the key from all of these bytes, at least 16. Each of them counts, also a newline
    /// at the end of a file.
    pub fn from_secret(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() < SHORTEST {
            return Err(KeyError::Short);
        }
        let mut secret = [0; 32];
        secret.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Self::new(&secret)
    }

    /// Reads the key beside this journal. Locks the journal if it has to make one.
    ///
    /// The key is in a file that ends in `.key`. Makes it, with mode 0600, if
    /// there is no journal yet.
    pub fn beside(journal: &Path) -> Result<Self, KeyError> {
        let path = journal.with_extension("key");
        if let Ok(secret) = <[u8; MADE]>::try_from(read(&path)?) {
            return Self::new(&secret);
        }
        // Two processes that start at once must not make two keys and seal under the lost one.
        let _lock = lock(journal).map_err(KeyError::Journal)?;
        match found(journal, &path)? {
            Some(secret) => Self::new(&secret),
            None => make(&path),
        }
    }

    /// Checks that a key could be made beside a journal that does not exist yet.
    pub fn may_be_made(journal: &Path) -> Result<(), KeyError> {
        found(journal, &journal.with_extension("key")).map(drop)
    }

    /// Returns the value that differs for another key of the credential hashes.
    pub(super) fn credentials(&self) -> Option<&[u8; 16]> {
        self.credentials.as_ref()
    }

    /// Returns a value that differs for another key.
    pub(super) fn check(&self) -> &[u8; 32] {
        &self.check
    }

    /// Encrypts a part of a write with a new random nonce.
    pub(super) fn seal(
        &self,
        id: WriteId,
        part: SealedPart,
        plain: &[u8],
    ) -> Result<Vec<u8>, Unsealed> {
        let mut sealed = vec![VERSION; HEAD];
        sealed.extend_from_slice(plain);
        let body = sealed.get_mut(HEAD..).ok_or(Unsealed)?;
        let (nonce, tag) = self
            .seal
            .seal_in_place_separate_tag(place(id, part), body)
            .map_err(|_| Unsealed)?;
        sealed
            .get_mut(1..HEAD)
            .ok_or(Unsealed)?
            .copy_from_slice(nonce.as_ref());
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Decrypts what [`Self::seal`] returned for the same write and part. Any change of it, another
    /// place or another key is an error.
    pub(super) fn open(
        &self,
        id: WriteId,
        part: SealedPart,
        sealed: &[u8],
    ) -> Result<Bytes, Unsealed> {
        let (head, body) = sealed.split_at_checked(HEAD).ok_or(Unsealed)?;
        let (&[VERSION], nonce) = head.split_at(1) else {
            return Err(Unsealed);
        };
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unsealed)?;
        // Decrypted in a copy of its own: the row stays as it is.
        let mut body = body.to_vec();
        let plain = self
            .seal
            .open_in_place(nonce, place(id, part), &mut body)
            .map_err(|_| Unsealed)?
            .len();
        body.truncate(plain);
        Ok(body.into())
    }
}

/// Returns what is authenticated with a seal: the write, the part of it, and the version.
fn place(id: WriteId, part: SealedPart) -> Aad<[u8; 18]> {
    let mut place = [VERSION; 18];
    place[..16].copy_from_slice(id.bytes());
    place[16] = part as u8;
    Aad::from(place)
}

/// Returns the secret beside this journal, or `None` if it is to be made.
fn found(journal: &Path, path: &Path) -> Result<Option<[u8; MADE]>, KeyError> {
    let found = read(path)?;
    match <[u8; MADE]>::try_from(found.as_slice()) {
        Ok(secret) => Ok(Some(secret)),
        // An earlier version that was killed may have left a part of it, which nothing used yet.
        Err(_) if !journal.exists() && found.len() < MADE => Ok(None),
        // With a journal, a missing secret is never replaced: what it sealed would be lost.
        Err(_) if found.is_empty() => Err(KeyError::Lost(path.to_owned())),
        Err(_) => Err(KeyError::NotAKey(path.to_owned())),
    }
}

/// Returns the content of the key file, of any length, or nothing if it does not exist.
///
/// # Errors
/// If it exists and cannot be read.
fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(KeyError::Unusable(path.to_owned(), error)),
    }
}

/// Makes a secret and its file, which is written as a whole or not at all: a torn one would lose
/// the journal.
fn make(path: &Path) -> Result<SealingKey, KeyError> {
    let mut secret = [0; MADE];
    getrandom::fill(&mut secret).map_err(|_| KeyError::Random)?;
    private_file::replace(path, &secret)
        .map_err(|error| KeyError::Unusable(path.to_owned(), error))?;
    SealingKey::new(&secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    const ID: &str = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";

    fn key(byte: u8) -> SealingKey {
        SealingKey::new(&[byte; 32]).unwrap()
    }

    #[test]
    fn a_seal_opens_in_its_place_alone() {
        let id: WriteId = ID.parse().unwrap();
        let other: WriteId = ID.replace('8', "9").parse().unwrap();
        for plain in [&b""[..], b"secret", &[7; 100_000]] {
            let sealed = key(1).seal(id, SealedPart::Request, plain).unwrap();
            assert_eq!(sealed.len(), HEAD + plain.len() + 16);
            assert_eq!(
                key(1).open(id, SealedPart::Request, &sealed).unwrap(),
                plain
            );
            assert_eq!(
                key(1).open(other, SealedPart::Request, &sealed),
                Err(Unsealed)
            );
            assert_eq!(key(1).open(id, SealedPart::Answer, &sealed), Err(Unsealed));
            assert_eq!(key(2).open(id, SealedPart::Request, &sealed), Err(Unsealed));
            let again = key(1).seal(id, SealedPart::Request, plain).unwrap();
            assert_ne!(again, sealed, "a nonce is never used twice");
        }
    }

    #[test]
    fn what_was_changed_does_not_open() {
        let id: WriteId = ID.parse().unwrap();
        let sealed = key(1).seal(id, SealedPart::Answer, b"secret").unwrap();
        for place in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[place] ^= 1;
            let opened = key(1).open(id, SealedPart::Answer, &bad);
            assert_eq!(opened, Err(Unsealed), "byte {place}");
            let opened = key(1).open(id, SealedPart::Answer, &sealed[..place]);
            assert_eq!(opened, Err(Unsealed), "cut at {place}");
        }
    }

    #[test]
    fn nothing_shows_the_key() {
        let key = key(0x41);
        assert_eq!(format!("{key:?}"), "SealingKey");
        assert_ne!(key.check(), &[0x41; 32]);
    }

    #[test]
    fn a_key_beside_the_journal_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal.db");
        let file = folder.path().join("journal.key");
        let made = SealingKey::beside(&journal).unwrap();
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let secret = std::fs::read(&file).unwrap();
        let lock = lock(&journal).unwrap();
        std::fs::write(&file, "").unwrap();
        let error = SealingKey::beside(&journal).unwrap_err();
        assert!(matches!(error, KeyError::Journal(OpenError::InUse(_))));
        std::fs::write(&file, &secret).unwrap();
        assert_eq!(SealingKey::beside(&journal).unwrap().check(), made.check());
        drop(lock);
        assert_eq!(SealingKey::beside(&journal).unwrap().check(), made.check());

        // Another name leads to it, and everybody can read it.
        std::fs::write(&file, "torn").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        let other = folder.path().join("other");
        std::fs::hard_link(&file, &other).unwrap();
        assert_ne!(SealingKey::beside(&journal).unwrap().check(), made.check());
        assert_eq!(std::fs::read(&other).unwrap(), b"torn");
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&file, [1; 64]).unwrap();
        assert!(matches!(
            SealingKey::beside(&journal),
            Err(KeyError::NotAKey(_))
        ));

        std::fs::write(&journal, "").unwrap();
        std::fs::write(&file, "torn").unwrap();
        assert!(matches!(
            SealingKey::beside(&journal),
            Err(KeyError::NotAKey(_))
        ));
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(
            SealingKey::beside(&journal),
            Err(KeyError::Lost(_))
        ));
        assert!(!file.exists(), "no other key takes its place");
        std::fs::write(&file, secret).unwrap();
        assert_eq!(SealingKey::beside(&journal).unwrap().check(), made.check());
    }

    #[test]
    fn a_key_file_must_be_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(matches!(
            SealingKey::from_file(&path),
            Err(KeyError::Unusable(..))
        ));
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(
            SealingKey::from_file(&path),
            Err(KeyError::NotAKey(_))
        ));
        std::fs::write(&path, "long enough to be a key").unwrap();
        let key = SealingKey::from_file(&path).unwrap();
        std::fs::write(&path, "long enough to be another key").unwrap();
        assert_ne!(key.check(), SealingKey::from_file(&path).unwrap().check());
    }
}
