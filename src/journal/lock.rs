//! The lock on a journal: one process has it, until that process ends however it ends.

use super::error::OpenError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

/// Locks the journal for this process, whether or not it exists.
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let denied = |error: io::Error| OpenError::Denied(path.to_owned(), error.to_string());
    let lock = private(&path.with_extension("lock")).map_err(denied)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(denied(error)),
    }
}

fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
