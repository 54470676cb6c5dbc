//! Why the state directory or a key cannot be used, in sentences for operators.
//!
//! Each names the path and says what to do. Nothing is opened or decided here.

use super::names::JOURNAL;
use std::io;
use std::path::PathBuf;

/// The shortest key file that is accepted, in bytes.
pub(super) const SHORTEST_KEY: usize = 16;

/// Why the state directory or the key cannot be used. `Display` names the path and says what to do.
#[derive(Debug)]
pub enum StateError {
    /// The directory cannot be made or written.
    Directory(PathBuf, io::Error),
    /// Another user can change the directory or a file in it: why, and what to do.
    Unsafe(PathBuf, String),
    /// Another process owns it.
    Locked(PathBuf),
    /// The key file cannot be read.
    KeyUnreadable(PathBuf, io::Error),
    /// The key file is too short to be a key.
    KeyShort(PathBuf),
    /// The key of the directory is gone, or is not whole, and there is a journal.
    KeyLost(PathBuf),
    /// The system gives no randomness.
    Random,
}

impl std::fmt::Display for StateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path, error) => write!(
                f,
                "state.directory {}: {error}; name a directory that this user may write, or \"\" \
                 to keep no state",
                path.display()
            ),
            Self::Unsafe(path, why) => {
                write!(f, "state.directory {}: {why}", path.display())
            }
            Self::Locked(path) => write!(
                f,
                "state.directory {}: another segment-gateway uses it; stop that one first, or \
                 give this one a directory and tokens of its own",
                path.display()
            ),
            Self::KeyUnreadable(path, error) => {
                write!(f, "credentials.key_file {}: {error}", path.display())
            }
            Self::KeyShort(path) => write!(
                f,
                "credentials.key_file {}: shorter than {SHORTEST_KEY} bytes; fill it with e.g. \
                 `head -c 32 /dev/urandom`",
                path.display()
            ),
            Self::KeyLost(path) => write!(
                f,
                "{}: it is gone or not whole, and without it neither the Idempotency-Keys nor the \
                 owners of the writes in the journal are known; put back a copy, or name the file of \
                 the key in credentials.key_file, or, to go on without those writes, move {JOURNAL} \
                 and its -wal file away",
                path.display()
            ),
            Self::Random => write!(f, "the system gives no random bytes"),
        }
    }
}

impl std::error::Error for StateError {}
