//! Opening a journal, making one, and checking one.
//!
//! Promises:
//! - A file is not touched until it is known to be a whole journal of this version and key: every
//!   error leaves the files as they were.
//! - A journal is made under another name and renamed when it is complete and synced, so a crash
//!   leaves either a journal or none. An empty file was a journal once and is not made again.
//! - One process has it: by a lock of the operating system, and by SQLite's own against other
//!   programs.
//!
//! Beside `journal.db` are its log `journal.db-wal`, its lock `journal.lock` and the number of its
//! commits `journal.count`.

use super::commit_count::{self, CommitCount, StoredCount};
use super::error::{OpenError, VERSION, beside};
use super::lock::lock;
use super::query;
use super::rows::{SCHEMA, complete, reseal};
use super::seal::SealingKey;
use super::writer::truncate_log;
use crate::private_file;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

/// The mark of a journal in the file: "SGJl".
const APPLICATION: i64 = 0x5347_4A6C;
/// The size of a page, in bytes.
const PAGE: u64 = 4_096;
/// Where the table `about` has the check of the key, and that of the key of the credential hashes.
const KEY_CHECK: &str = "key_check";
const CREDENTIALS_CHECK: &str = "credentials_check";

/// Opens the journal, or makes it.
///
/// The order matters: the lock first, then everything that may find a fault, and only then what
/// changes the file. Returns the connection, the number of its commits, and the lock.
pub(super) fn open(
    path: &Path,
    key: &SealingKey,
) -> Result<(Connection, CommitCount, File), OpenError> {
    let lock = lock(path)?;
    if !exists(path)? {
        make(path, key)?;
        forget_count(path);
    }
    let connection = connect(path).map_err(|error| OpenError::of_sqlite(path, &error))?;
    check(&connection, path, key)?;
    let commits = check_count(&connection, path)?;
    set_checks(&connection, key)
        .and_then(|()| settle(&connection))
        .and_then(|()| complete(&connection))
        .map_err(|error| OpenError::of_sqlite(path, &error))?;
    let count = CommitCount::open(&path.with_extension("count"), commits);
    Ok((connection, count, lock))
}

/// Opens a journal in memory. It has no lock, no count and no check of its key, because no other
/// process ever sees it.
pub(super) fn in_memory() -> rusqlite::Result<Connection> {
    let connection = Connection::open_in_memory()?;
    // Memory shrinks with the journal, and an erased request is overwritten, as in a file.
    connection.execute_batch("PRAGMA auto_vacuum = FULL; PRAGMA secure_delete = ON;")?;
    connection.execute_batch(SCHEMA)?;
    complete(&connection)?;
    Ok(connection)
}

/// Checks that a journal could be opened, or made if none exists, without changing anything. Holds
/// its lock meanwhile, blocks, and reads the whole file once. Without a key, only finds a file that
/// is no journal.
///
/// # Errors
/// The reason why it could not be opened.
pub fn inspect(path: &Path, key: Option<&SealingKey>) -> Result<(), OpenError> {
    let _lock = lock(path)?;
    let exists = exists(path)?;
    if let Some(key) = key.filter(|_| exists) {
        let connection = connect(path).map_err(|error| OpenError::of_sqlite(path, &error))?;
        check(&connection, path, key)?;
        check_count(&connection, path)?;
    }
    Ok(())
}

/// Returns whether a journal exists; `false` if one is to be made.
///
/// # Errors
/// If the file is no journal.
pub fn exists(path: &Path) -> Result<bool, OpenError> {
    let damaged = |how: &str| Err(OpenError::Damaged(path.to_owned(), how.into()));
    match std::fs::metadata(path) {
        Ok(there) if !there.is_file() => damaged("it is not a file"),
        // SQLite would take it for a new one and discard its log.
        Ok(there) if there.len() == 0 => damaged("it is empty"),
        // A crash may leave a part of a page only while the log has all of it.
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

/// Seals the journal at `path` under another key, in one transaction. No process may have it open.
/// Returns the number of writes.
///
/// # Errors
/// If it cannot be opened under the old key. Nothing was changed.
pub fn rekey(path: &Path, old: &SealingKey, new: &SealingKey) -> Result<usize, OpenError> {
    let failed = |error| OpenError::of_sqlite(path, &error);
    let (mut connection, _count, _lock) = open(path, old)?;
    let transaction = connection.transaction().map_err(failed)?;
    let writes = reseal(&transaction, old, new)
        .map_err(|_| OpenError::Damaged(path.to_owned(), "a write does not open".into()))?;
    set_checks(&transaction, new).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    truncate_log(&connection).map_err(failed)?;
    Ok(writes)
}

/// Returns the names and values by which a journal recognises its keys.
fn checks(key: &SealingKey) -> impl Iterator<Item = (&'static str, &[u8])> {
    let credentials = key
        .credentials()
        .map(|check| (CREDENTIALS_CHECK, &check[..]));
    [(KEY_CHECK, &key.check()[..])]
        .into_iter()
        .chain(credentials)
}

/// Records the keys of the journal, where they differ from the recorded ones.
fn set_checks(connection: &Connection, key: &SealingKey) -> rusqlite::Result<()> {
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

/// Removes the number of commits of a journal that is gone, and reports that it is. A new journal
/// begins with none.
fn forget_count(path: &Path) {
    let beside = path.with_extension("count");
    if let Ok(StoredCount::Commits(commits @ 1..)) = commit_count::read(&beside) {
        tracing::error!(
            journal = %path.display(),
            commits,
            "the journal is missing, and so are its writes; a new one is created"
        );
    }
    let _ = std::fs::remove_file(beside);
}

/// Returns the number of commits of the journal, if none that was kept is missing.
fn check_count(connection: &Connection, path: &Path) -> Result<u64, OpenError> {
    let commits = query::commits(connection).map_err(|error| OpenError::of_sqlite(path, &error))?;
    let beside = path.with_extension("count");
    let found = commit_count::read(&beside);
    match found.map_err(|error| OpenError::Denied(beside.clone(), error.to_string()))? {
        StoredCount::Commits(kept) if kept > commits => {
            return Err(OpenError::Lost(path.to_owned(), kept - commits));
        }
        StoredCount::Damaged => tracing::error!(
            file = %beside.display(),
            "journal.count is damaged: whether the journal is complete is unknown"
        ),
        StoredCount::Commits(_) | StoredCount::Nothing => {}
    }
    Ok(commits)
}

/// Makes a journal under another name, and renames it when it is complete. The lock keeps other
/// processes from that name.
fn make(path: &Path, key: &SealingKey) -> Result<(), OpenError> {
    let denied = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull => OpenError::Full(path.to_owned()),
        _ => OpenError::Denied(path.to_owned(), error.to_string()),
    };
    let new = path.with_extension("new");
    // What an earlier attempt left in a crash.
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
        // Closing moves the log into the file and syncs that.
        connection.close().map_err(|(_, error)| error)
    };
    fill().map_err(|error| OpenError::of_sqlite(path, &error))?;
    std::fs::rename(&new, path)
        .and_then(|()| sync_folder(path))
        .map_err(denied)
}

/// Opens a file. Until it is [settled](settle), closing it leaves file and log as they are.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // Without a log there is nothing to keep, and the empty one that opening makes is to go again.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_log(path))?;
    connection.busy_timeout(Duration::ZERO)?;
    // Exclusive before the first use, so that the index of the log is in memory and not in a mapped
    // file.
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

/// Checks that it is a whole journal of this version and these keys. Reads every page, because a
/// damaged one that is found later would be found in the middle of a write.
/// One without writes takes any
/// keys.
fn check(connection: &Connection, path: &Path, key: &SealingKey) -> Result<(), OpenError> {
    let failed = |error| OpenError::of_sqlite(path, &error);
    let damaged = |how: String| OpenError::Damaged(path.to_owned(), how);
    if connection.is_readonly("main").map_err(failed)? {
        return Err(OpenError::Denied(
            path.to_owned(),
            "it may not be written".into(),
        ));
    }
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    if number("application_id").map_err(failed)? != APPLICATION {
        return Err(damaged("it is not a journal of this gateway".into()));
    }
    match number("user_version").map_err(failed)? {
        VERSION => {}
        newer if newer > VERSION => return Err(OpenError::Newer(path.to_owned(), newer)),
        other => return Err(damaged(format!("its version is {other}"))),
    }
    let verdict = connection
        .pragma_query_value(None, "quick_check", |row| row.get::<_, String>(0))
        .map_err(failed)?;
    if verdict != "ok" {
        return Err(damaged(verdict.replace('\n', " ")));
    }
    for (name, check) in checks(key) {
        let is_other = match kept_check(connection, name).map_err(failed)? {
            Some(kept) => kept != check,
            // Earlier versions did not record that of the credentials.
            None => name == KEY_CHECK,
        };
        if is_other && !query::is_empty(connection).map_err(failed)? {
            let path = path.to_owned();
            return Err(match name {
                KEY_CHECK => OpenError::WrongKey(path),
                _ => OpenError::OtherCredentials(path),
            });
        }
    }
    Ok(())
}

/// Sets how the journal is written: with a log, synced at each commit, erasing what is deleted.
fn settle(connection: &Connection) -> rusqlite::Result<()> {
    for (name, value) in [
        ("journal_mode", "WAL"),
        ("synchronous", "FULL"),
        ("secure_delete", "ON"),
        // Gives back the room that a long transaction made the log take.
        ("journal_size_limit", "16777216"),
    ] {
        connection.pragma_update(None, name, value)?;
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(())
}

/// Returns whether SQLite's log has anything in it. A journal that was closed leaves none, or an
/// empty one.
fn has_log(path: &Path) -> bool {
    std::fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

/// Makes the new name survive the machine, and that of a key which was made beside it.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
