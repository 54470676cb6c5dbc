//! Opening the journal on disk, or making it.
//!
//! Promises:
//! - What is there is not touched until it is known to be a whole journal of this version and key:
//!   every error leaves the files as they were.
//! - A journal is made under another name and renamed when it is complete and synced, so that what
//!   a crash leaves is either a journal or none. A file that is empty was one, and is not made
//!   anew.
//! - One process has it: a lock of the operating system, which ends with the process however that
//!   ends, and SQLite's own against other programs.
//!
//! Beside `journal.db` stand its log `journal.db-wal`, its lock `journal.lock` and the number of
//! its commits `journal.count`.

use super::count::{self, Beside, Count};
use super::rows::{self, SCHEMA, complete};
use crate::journal::Key;
use crate::private_file;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Says that a file is a journal: "SGJl".
const APPLICATION: i64 = 0x5347_4A6C;
/// The version of the format.
pub(in crate::journal) const VERSION: i64 = 1;
/// Bytes of a page.
const PAGE: u64 = 4_096;
/// Where the check of the key is, and that of the key of the credential hashes.
const KEY_CHECK: &str = "key_check";
const CREDENTIALS_CHECK: &str = "credentials_check";

/// Why the journal cannot be opened; `Display` says what to do. Nothing was changed.
#[derive(Debug)]
pub enum OpenError {
    /// The directory or a file cannot be read and written.
    Denied(PathBuf, String),
    /// Another process has it.
    InUse(PathBuf),
    /// It is not a journal, or one that was damaged; how it shows.
    Damaged(PathBuf, String),
    /// Transactions that it had kept are missing, so many: its log is gone, or was cut or damaged.
    Lost(PathBuf, u64),
    /// It was written by a newer gateway, with this version.
    Newer(PathBuf, i64),
    /// It was sealed under another key.
    WrongKey(PathBuf),
    /// The credentials in it were hashed under another key.
    OtherCredentials(PathBuf),
    /// There is no room to make it.
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

/// The open journal, the number of its commits, and the lock on it.
pub(super) fn open(path: &Path, key: &Key) -> Result<(Connection, Count, File), OpenError> {
    let lock = lock(path)?;
    if !is_there(path)? {
        make(path, key)?;
        forget_count(path);
    }
    let connection = connect(path).map_err(|error| said(path, &error))?;
    check(&connection, path, key)?;
    let commits = check_count(&connection, path)?;
    set_checks(&connection, key)
        .and_then(|()| settle(&connection))
        .and_then(|()| complete(&connection))
        .map_err(|error| said(path, &error))?;
    let count = Count::open(&path.with_extension("count"), commits);
    Ok((connection, count, lock))
}

/// Finds what would keep a journal that is there from being opened, or one from being made. Changes
/// nothing.
pub(super) fn inspect(path: &Path, key: Option<&Key>) -> Result<(), OpenError> {
    let _lock = lock(path)?;
    let is_there = is_there(path)?;
    if let Some(key) = key.filter(|_| is_there) {
        let connection = connect(path).map_err(|error| said(path, &error))?;
        check(&connection, path, key)?;
        check_count(&connection, path)?;
    }
    Ok(())
}

/// Whether there is a file that may be a journal; `false` if one is to be made.
pub(super) fn is_there(path: &Path) -> Result<bool, OpenError> {
    let damaged = |how: &str| Err(OpenError::Damaged(path.to_owned(), how.into()));
    match std::fs::metadata(path) {
        Ok(there) if !there.is_file() => damaged("it is not a file"),
        // SQLite would take it for a new one and throw its log away.
        Ok(there) if there.len() == 0 => damaged("it is empty"),
        // A crash may leave a part of a page only while the log has the whole of it.
        Ok(there) if there.len() % PAGE != 0 && !has_log(path) => damaged("its end is missing"),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // SQLite would write the old log into the new file.
            if has_log(path) {
                return damaged("it is gone, and its -wal file is there");
            }
            Ok(false)
        }
        Err(error) => Err(OpenError::Denied(path.to_owned(), error.to_string())),
    }
}

/// Seals everything anew under another key; how many writes that were.
pub(in crate::journal) fn rekey(path: &Path, old: &Key, new: &Key) -> Result<usize, OpenError> {
    let said = |error| said(path, &error);
    let (mut connection, _count, _lock) = open(path, old)?;
    let transaction = connection.transaction().map_err(said)?;
    let writes = rows::seal_anew(&transaction, old, new)
        .map_err(|_| OpenError::Damaged(path.to_owned(), "a write does not open".into()))?;
    set_checks(&transaction, new).map_err(said)?;
    transaction.commit().map_err(said)?;
    super::truncate_log(&connection).map_err(said)?;
    Ok(writes)
}

/// The names and values by which a journal knows its keys.
fn checks(key: &Key) -> impl Iterator<Item = (&'static str, &[u8])> {
    let credentials = key
        .credentials()
        .map(|check| (CREDENTIALS_CHECK, &check[..]));
    [(KEY_CHECK, &key.check()[..])]
        .into_iter()
        .chain(credentials)
}

/// Makes it a journal of this key.
fn set_checks(connection: &Connection, key: &Key) -> rusqlite::Result<()> {
    for (name, check) in checks(key) {
        if kept_check(connection, name)?.as_deref() != Some(check) {
            let sql = "INSERT OR REPLACE INTO about (name, value) VALUES (?1, ?2)";
            connection.execute(sql, params![name, check])?;
        }
    }
    Ok(())
}

fn kept_check(connection: &Connection, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    let sql = "SELECT value FROM about WHERE name = ?1";
    let kept = connection.query_row(sql, [name], |row| row.get(0));
    kept.optional()
}

/// A journal that is gone begins anew, and so does the number of its commits.
fn forget_count(path: &Path) {
    let beside = path.with_extension("count");
    if let Ok(Beside::Commits(commits @ 1..)) = count::read(&beside) {
        tracing::error!(
            journal = %path.display(),
            commits,
            "the journal is missing, and so are its writes; a new one is created"
        );
    }
    let _ = std::fs::remove_file(beside);
}

/// How many commits the journal has, if it has all that were kept.
fn check_count(connection: &Connection, path: &Path) -> Result<u64, OpenError> {
    let commits = rows::commits(connection).map_err(|error| said(path, &error))?;
    let beside = path.with_extension("count");
    let found = count::read(&beside);
    match found.map_err(|error| OpenError::Denied(beside.clone(), error.to_string()))? {
        Beside::Commits(kept) if kept > commits => {
            return Err(OpenError::Lost(path.to_owned(), kept - commits));
        }
        Beside::Damaged => tracing::error!(
            file = %beside.display(),
            "journal.count is damaged: whether the journal is complete is unknown"
        ),
        Beside::Commits(_) | Beside::Nothing => {}
    }
    Ok(commits)
}

/// Takes the journal for this process, whether or not it is there.
pub(in crate::journal) fn lock(path: &Path) -> Result<File, OpenError> {
    let denied = |error: io::Error| OpenError::Denied(path.to_owned(), error.to_string());
    let lock = private(&path.with_extension("lock")).map_err(denied)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(denied(error)),
    }
}

/// Makes a journal under another name, and gives it its own when it is complete.
fn make(path: &Path, key: &Key) -> Result<(), OpenError> {
    let denied = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull => OpenError::Full(path.to_owned()),
        _ => OpenError::Denied(path.to_owned(), error.to_string()),
    };
    let new = path.with_extension("new");
    // What a crash has left of an earlier attempt.
    for tail in ["-wal", "-journal"] {
        let _ = private_file::remove(&beside(&new, tail));
    }
    private_file::create(&new).map_err(denied)?;
    let fill = || -> rusqlite::Result<()> {
        let connection = connect(&new)?;
        connection.pragma_update(None, "page_size", PAGE as i64)?;
        settle(&connection)?;
        connection.execute_batch(&format!(
            "BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
        ))?;
        set_checks(&connection, key)?;
        connection.execute_batch("COMMIT")?;
        // Closing it moves the log into the file, and syncs that.
        connection.close().map_err(|(_, error)| error)
    };
    fill().map_err(|error| said(path, &error))?;
    std::fs::rename(&new, path)
        .and_then(|()| sync_folder(path))
        .map_err(denied)
}

/// Opens a file that is there. Until it is settled, closing it leaves file and log as they are.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // Without a log there is nothing to keep, and the empty one that is made is to go again.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_log(path))?;
    connection.busy_timeout(Duration::ZERO)?;
    // Exclusive before the first use: then the index of the log is in memory, not in a mapped file.
    for (name, value) in [
        ("locking_mode", "EXCLUSIVE"),
        ("mmap_size", "0"),
        ("temp_store", "MEMORY"),
        ("trusted_schema", "OFF"),
        ("cell_size_check", "ON"),
    ] {
        connection.pragma_update(None, name, value)?;
    }
    Ok(connection)
}

/// That it is a whole journal of this version and these keys. One without writes takes any keys.
fn check(connection: &Connection, path: &Path, key: &Key) -> Result<(), OpenError> {
    let said = |error| said(path, &error);
    let damaged = |how: String| OpenError::Damaged(path.to_owned(), how);
    if connection.is_readonly("main").map_err(said)? {
        return Err(OpenError::Denied(
            path.to_owned(),
            "it may not be written".into(),
        ));
    }
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    if number("application_id").map_err(said)? != APPLICATION {
        return Err(damaged("it is not a journal of this gateway".into()));
    }
    match number("user_version").map_err(said)? {
        VERSION => {}
        newer if newer > VERSION => return Err(OpenError::Newer(path.to_owned(), newer)),
        other => return Err(damaged(format!("its version is {other}"))),
    }
    let verdict = connection
        .pragma_query_value(None, "quick_check", |row| row.get::<_, String>(0))
        .map_err(said)?;
    if verdict != "ok" {
        return Err(damaged(verdict.replace('\n', " ")));
    }
    for (name, check) in checks(key) {
        let is_other = match kept_check(connection, name).map_err(said)? {
            Some(kept) => kept != check,
            // Earlier versions did not keep that of the credentials.
            None => name == KEY_CHECK,
        };
        if is_other && !rows::is_empty(connection).map_err(said)? {
            let path = path.to_owned();
            return Err(match name {
                KEY_CHECK => OpenError::WrongKey(path),
                _ => OpenError::OtherCredentials(path),
            });
        }
    }
    Ok(())
}

/// How a journal is written.
fn settle(connection: &Connection) -> rusqlite::Result<()> {
    for (name, value) in [
        ("journal_mode", "WAL"),
        ("synchronous", "FULL"),
        ("secure_delete", "ON"),
        // What a long transaction left of the log is given back.
        ("journal_size_limit", "16777216"),
    ] {
        connection.pragma_update(None, name, value)?;
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(())
}

/// What an error of SQLite means at opening. Its messages have no values in them.
fn said(path: &Path, error: &rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse(path),
        Some(ErrorCode::DiskFull) => OpenError::Full(path),
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::SystemIoFailure,
        ) => OpenError::Denied(path, error.to_string()),
        // Among them a table that is not there.
        _ => OpenError::Damaged(path, error.to_string().replace('\n', " ")),
    }
}

fn has_log(path: &Path) -> bool {
    std::fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

fn beside(path: &Path, tail: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(tail);
    name.into()
}

fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes the new name outlast the machine; that of a key which was made beside it, too.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
