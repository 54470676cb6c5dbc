//! Errors of the journal, with what to do about them.

use super::write_id::WriteId;
use rusqlite::ErrorCode;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// The version of the format.
pub(super) const VERSION: i64 = 1;

/// The reason why the journal did nothing. See the module for the one exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalError {
    /// The disk has no room. Worth another try once the operator has made some.
    Full,
    /// A write of this id, or of this key and credential, exists already.
    Taken,
    /// The write to change does not exist or has ended.
    Absent,
    /// A fault of the journal itself. The text says what happened and names a remedy.
    Broken(String),
}

impl JournalError {
    /// Returns the error of what was given to a journal that stopped meanwhile.
    pub(super) fn stopped() -> Self {
        Self::Broken("the journal was stopped before it could do it".into())
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the journal's disk is full"),
            Self::Taken => f.write_str("a write of this name is there already"),
            Self::Absent => f.write_str("there is no such write, or it has ended"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for JournalError {}

/// The reason why a statement has no result.
pub(super) enum Fault {
    /// [`JournalError::Taken`] or [`JournalError::Absent`]: undoes one commit, not the others that
    /// share its transaction.
    Refused(JournalError),
    /// An error of SQLite.
    Sqlite(rusqlite::Error),
    /// The row of this write makes no sense; `None` if its id does not either.
    Damaged(Option<WriteId>),
    /// A bug of the gateway, or of its cipher.
    Bug(JournalError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Fault {
    /// Returns the error for a caller. Neither SQLite's messages nor these have values in them.
    pub(super) fn at(self, path: &Path) -> JournalError {
        let path = path.display();
        let remedy = "stop, put back a copy or move it away, and start again";
        match self {
            Self::Refused(error) | Self::Bug(error) => error,
            Self::Damaged(Some(id)) => {
                JournalError::Broken(format!("journal {path}: write {id} is damaged; {remedy}"))
            }
            Self::Damaged(None) => {
                JournalError::Broken(format!("journal {path}: a write is damaged; {remedy}"))
            }
            Self::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => JournalError::Full,
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                    JournalError::Broken(format!("journal {path} is damaged ({error}); {remedy}"))
                }
                _ => JournalError::Broken(format!(
                    "journal {path}: {error}; see to its disk and its permissions"
                )),
            },
        }
    }
}

/// The reason why the journal cannot be opened. `Display` names a remedy. Nothing was changed.
#[derive(Debug)]
pub enum OpenError {
    /// The directory or a file cannot be read and written.
    Denied(PathBuf, String),
    /// Another process has it open.
    InUse(PathBuf),
    /// Not a journal, or a damaged one; the text says how that shows.
    Damaged(PathBuf, String),
    /// So many committed transactions are missing: the log is gone, or was cut or damaged.
    Lost(PathBuf, u64),
    /// Written by a newer gateway, in this version of the format.
    Newer(PathBuf, i64),
    /// Sealed under another key.
    WrongKey(PathBuf),
    /// The credentials in it were hashed under another key.
    OtherCredentials(PathBuf),
    /// The disk has no room to make it.
    Full(PathBuf),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(path, why) => write!(
                f,
                "journal {}: {why}; let this user read and write the file and its directory",
                path.display()
            ),
            Self::InUse(path) => write!(
                f,
                "journal {}: another process uses it; stop that one first, or give this one a \
                 journal of its own",
                path.display()
            ),
            Self::Damaged(path, how) => write!(
                f,
                "journal {}: it is damaged ({how}); put back a copy, or move it and its -wal file \
                 away to begin a new one, which loses the writes in it",
                path.display()
            ),
            Self::Lost(path, commits) => write!(
                f,
                "journal {}: its last {commits} commits are missing, and with them writes that were \
                 acknowledged: {} is gone, or was cut or damaged; put back both files as they were, \
                 or, to go on without those writes, remove {}",
                path.display(),
                beside(path, "-wal").display(),
                path.with_extension("count").display()
            ),
            Self::Newer(path, version) => write!(
                f,
                "journal {}: it has version {version} of the format, and this gateway knows \
                 {VERSION}; start the newer one, or move the journal away",
                path.display()
            ),
            Self::WrongKey(path) => write!(
                f,
                "journal {}: it was sealed under another key; put that key back, seal it anew under \
                 the configured one with `segment-gateway journal rekey`, or move the journal away \
                 to begin a new one, which loses the writes in it",
                path.display()
            ),
            Self::OtherCredentials(path) => write!(
                f,
                "journal {}: the credentials in it were hashed under another key, and under this one \
                 neither the Idempotency-Keys nor the owners of its writes are known; put back \
                 credential-hash.key, or the file that credentials.key_file names, or, to go on \
                 without those writes, move the journal and its -wal file away",
                path.display()
            ),
            Self::Full(path) => write!(
                f,
                "journal {}: there is no room on its disk; make some",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {}

impl OpenError {
    /// Returns the meaning of an error of SQLite at opening. Its messages have no values in them.
    pub(super) fn of_sqlite(path: &Path, error: &rusqlite::Error) -> Self {
        let path = path.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse(path),
            Some(ErrorCode::DiskFull) => Self::Full(path),
            Some(
                ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure,
            ) => Self::Denied(path, error.to_string()),
            // Among them a missing table.
            _ => Self::Damaged(path, error.to_string().replace('\n', " ")),
        }
    }
}

/// Returns the path with something appended to its name, such as that of SQLite's log.
pub(super) fn beside(path: &Path, tail: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(tail);
    name.into()
}
