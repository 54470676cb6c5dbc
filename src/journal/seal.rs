//! What a request and an answer say, sealed so that the file tells nothing of it.
//!
//! Promises:
//! - AES-256-GCM: what was not sealed under this key does not open.
//! - A seal belongs to one write and one kind: it does not open in another place.
//! - The key is never shown, and neither the file nor [`Key::check`] tells anything of it.
//!
//! ```text
//! version (1) | nonce (12) | ciphertext | tag (16)
//! ```
//!
//! Nonces are random, which is safe for 2^32 seals under one key: twenty a second for six years.

use super::WriteId;
use super::disk::{OpenError, lock};
use crate::private_file;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The first byte of what is sealed in this way.
const VERSION: u8 = 1;
/// Version and nonce.
const HEAD: usize = 1 + NONCE_LEN;
/// The shortest key file that is accepted, in bytes, and the most that is read of one.
const SHORTEST: usize = 16;
const LONGEST: u64 = 64 * 1024;
/// The length of a key that is made here.
const MADE: usize = 32;

/// What is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Request = 1,
    Answer = 2,
    Summary = 3,
}

/// It cannot be sealed or opened. There is nothing more to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsealed;

/// The key under which a journal is sealed. Its `Debug` shows nothing.
pub struct Key {
    seal: RandomizedNonceKey,
    check: [u8; 32],
    /// Tells the key of the credential hashes from another one, where it is known.
    credentials: Option<[u8; 16]>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Why there is no key; `Display` says what to do.
#[derive(Debug)]
pub enum KeyError {
    /// The key file cannot be read or made.
    Unusable(PathBuf, io::Error),
    /// The key file is not one.
    NotAKey(PathBuf),
    /// What is to make a key is too short.
    Short,
    /// There is a journal, but its key is gone.
    Lost(PathBuf),
    /// The journal for which it is to be made cannot be taken.
    Journal(OpenError),
    /// The system gives no randomness, or the cipher refuses the key.
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

impl Key {
    /// The key that is derived from this secret.
    pub fn new(secret: &[u8; 32]) -> Result<Self, KeyError> {
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

    /// The key of a journal whose credentials are hashed under the key that this value tells from
    /// others.
    pub fn with_credentials(self, check: [u8; 16]) -> Self {
        Self {
            credentials: Some(check),
            ..self
        }
    }

    /// The key in an operator's file: all of its bytes count.
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

    /// The key that all of these bytes make, which are at least 16.
    pub fn from_secret(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() < SHORTEST {
            return Err(KeyError::Short);
        }
        let mut secret = [0; 32];
        secret.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Self::new(&secret)
    }

    /// The key beside this journal, in a file that ends in `.key`; made with mode 0600 if there is
    /// no journal yet.
    pub fn beside(journal: &Path) -> Result<Self, KeyError> {
        let path = journal.with_extension("key");
        if let Ok(secret) = <[u8; MADE]>::try_from(read(&path)?) {
            return Self::new(&secret);
        }
        // Two that start at once must not make two keys and seal under the one that is lost.
        let _lock = lock(journal).map_err(KeyError::Journal)?;
        match found(journal, &path)? {
            Some(secret) => Self::new(&secret),
            None => make(&path),
        }
    }

    /// Says why there would be no key beside this journal, which is to be made.
    pub fn may_be_made(journal: &Path) -> Result<(), KeyError> {
        found(journal, &journal.with_extension("key")).map(drop)
    }

    /// Tells the key of the credential hashes from another one.
    pub(super) fn credentials(&self) -> Option<&[u8; 16]> {
        self.credentials.as_ref()
    }

    /// Tells this key from another one.
    pub(super) fn check(&self) -> &[u8; 32] {
        &self.check
    }

    pub(super) fn seal(&self, id: WriteId, kind: Kind, plain: &[u8]) -> Result<Vec<u8>, Unsealed> {
        let mut sealed = vec![VERSION; HEAD];
        sealed.extend_from_slice(plain);
        let body = sealed.get_mut(HEAD..).ok_or(Unsealed)?;
        let (nonce, tag) = self
            .seal
            .seal_in_place_separate_tag(place(id, kind), body)
            .map_err(|_| Unsealed)?;
        sealed
            .get_mut(1..HEAD)
            .ok_or(Unsealed)?
            .copy_from_slice(nonce.as_ref());
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    pub(super) fn open(&self, id: WriteId, kind: Kind, sealed: &[u8]) -> Result<Bytes, Unsealed> {
        let (head, body) = sealed.split_at_checked(HEAD).ok_or(Unsealed)?;
        let (&[VERSION], nonce) = head.split_at(1) else {
            return Err(Unsealed);
        };
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unsealed)?;
        let mut body = body.to_vec();
        let plain = self
            .seal
            .open_in_place(nonce, place(id, kind), &mut body)
            .map_err(|_| Unsealed)?
            .len();
        body.truncate(plain);
        Ok(body.into())
    }
}

/// Where a seal belongs: the write, the kind, and the way it was sealed.
fn place(id: WriteId, kind: Kind) -> Aad<[u8; 18]> {
    let mut place = [VERSION; 18];
    place[..16].copy_from_slice(id.bytes());
    place[16] = kind as u8;
    Aad::from(place)
}

/// The secret beside this journal; `None` if it is to be made.
fn found(journal: &Path, path: &Path) -> Result<Option<[u8; MADE]>, KeyError> {
    let found = read(path)?;
    match <[u8; MADE]>::try_from(found.as_slice()) {
        Ok(secret) => Ok(Some(secret)),
        // A kill of an earlier version may leave a part of it, which nothing used yet.
        Err(_) if !journal.exists() && found.len() < MADE => Ok(None),
        Err(_) if found.is_empty() => Err(KeyError::Lost(path.to_owned())),
        Err(_) => Err(KeyError::NotAKey(path.to_owned())),
    }
}

/// What is in the key file; nothing if there is none.
fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(KeyError::Unusable(path.to_owned(), error)),
    }
}

fn make(path: &Path) -> Result<Key, KeyError> {
    let mut secret = [0; MADE];
    getrandom::fill(&mut secret).map_err(|_| KeyError::Random)?;
    private_file::replace(path, &secret)
        .map_err(|error| KeyError::Unusable(path.to_owned(), error))?;
    Key::new(&secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    const ID: &str = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";

    fn key(byte: u8) -> Key {
        Key::new(&[byte; 32]).unwrap()
    }

    #[test]
    fn a_seal_opens_in_its_place_alone() {
        let id: WriteId = ID.parse().unwrap();
        let other: WriteId = ID.replace('8', "9").parse().unwrap();
        for plain in [&b""[..], b"secret", &[7; 100_000]] {
            let sealed = key(1).seal(id, Kind::Request, plain).unwrap();
            assert_eq!(sealed.len(), HEAD + plain.len() + 16);
            assert_eq!(key(1).open(id, Kind::Request, &sealed).unwrap(), plain);
            assert_eq!(key(1).open(other, Kind::Request, &sealed), Err(Unsealed));
            assert_eq!(key(1).open(id, Kind::Answer, &sealed), Err(Unsealed));
            assert_eq!(key(2).open(id, Kind::Request, &sealed), Err(Unsealed));
            let again = key(1).seal(id, Kind::Request, plain).unwrap();
            assert_ne!(again, sealed, "a nonce is never used twice");
        }
    }

    #[test]
    fn what_was_changed_does_not_open() {
        let id: WriteId = ID.parse().unwrap();
        let sealed = key(1).seal(id, Kind::Answer, b"secret").unwrap();
        for place in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[place] ^= 1;
            let opened = key(1).open(id, Kind::Answer, &bad);
            assert_eq!(opened, Err(Unsealed), "byte {place}");
            let opened = key(1).open(id, Kind::Answer, &sealed[..place]);
            assert_eq!(opened, Err(Unsealed), "cut at {place}");
        }
    }

    #[test]
    fn nothing_shows_the_key() {
        let key = key(0x41);
        assert_eq!(format!("{key:?}"), "Key");
        assert_ne!(key.check(), &[0x41; 32]);
    }

    #[test]
    fn a_key_beside_the_journal_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal.db");
        let file = folder.path().join("journal.key");
        let made = Key::beside(&journal).unwrap();
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let secret = std::fs::read(&file).unwrap();
        let lock = lock(&journal).unwrap();
        std::fs::write(&file, "").unwrap();
        let error = Key::beside(&journal).unwrap_err();
        assert!(matches!(error, KeyError::Journal(OpenError::InUse(_))));
        std::fs::write(&file, &secret).unwrap();
        assert_eq!(Key::beside(&journal).unwrap().check(), made.check());
        drop(lock);
        assert_eq!(Key::beside(&journal).unwrap().check(), made.check());

        // Another name leads to it, and everybody can read it.
        std::fs::write(&file, "torn").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        let other = folder.path().join("other");
        std::fs::hard_link(&file, &other).unwrap();
        assert_ne!(Key::beside(&journal).unwrap().check(), made.check());
        assert_eq!(std::fs::read(&other).unwrap(), b"torn");
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&file, [1; 64]).unwrap();
        assert!(matches!(Key::beside(&journal), Err(KeyError::NotAKey(_))));

        std::fs::write(&journal, "").unwrap();
        std::fs::write(&file, "torn").unwrap();
        assert!(matches!(Key::beside(&journal), Err(KeyError::NotAKey(_))));
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(Key::beside(&journal), Err(KeyError::Lost(_))));
        assert!(!file.exists(), "no other key takes its place");
        std::fs::write(&file, secret).unwrap();
        assert_eq!(Key::beside(&journal).unwrap().check(), made.check());
    }

    #[test]
    fn a_key_file_must_be_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(matches!(Key::from_file(&path), Err(KeyError::Unusable(..))));
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(Key::from_file(&path), Err(KeyError::NotAKey(_))));
        std::fs::write(&path, "long enough to be a key").unwrap();
        let key = Key::from_file(&path).unwrap();
        std::fs::write(&path, "long enough to be another key").unwrap();
        assert_ne!(key.check(), Key::from_file(&path).unwrap().check());
    }
}
