//! The journal: one SQLite database, in a file with a write-ahead log or in memory.
//!
//! Promises:
//! - Nothing here blocks the runtime for a disk: a file is read and written by blocking tasks, one
//!   at a time. A read waits for the transaction that is being written. A journal in memory answers
//!   at once.
//! - A disk without room rejects commits ([`JournalError::Full`]) and can still be read.
//! - The request of a write is gone from the files a few seconds after its end: its page is
//!   overwritten, and the log is emptied once it is quiet. The log that a kill left is emptied at
//!   the start.
//!
//! A change of the unsealed columns by another program is not noticed: who may write the file is
//! trusted.

use super::error::{JournalError, OpenError};
use super::record::{Change, Filter, KeyHash, Record, Remembered, WorkspaceHash, millis};
use super::seal::SealingKey;
use super::write_id::WriteId;
use super::writer::Database;
use super::{open, query, rows};
use crate::credential::Credential;
use crate::tasks;
use parking_lot::Mutex;
use rusqlite::Connection;
use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};
use tokio::task::spawn_blocking;

/// The log is emptied when nothing was written for this long after a write has ended, and at the
/// latest after so many such times.
const QUIET: Duration = Duration::from_secs(1);
const MOST_QUIETS: u32 = 10;
/// The most rows forgotten in one transaction, or counted in one go, so that commits get in
/// between.
const FORGET_TOGETHER: u32 = 1_000;

/// A result that comes later.
pub(super) type Later<T> = Pin<Box<dyn Future<Output = Result<T, JournalError>> + Send>>;

/// The journal. Clones share it. The file is closed, and free for another process, once the last
/// clone is gone and no task uses it.
#[derive(Clone)]
pub struct Journal {
    database: Arc<Database>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("path", &self.database.path)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the journal at `path`, or makes it. Blocks, and reads the whole file once.
    ///
    /// # Errors
    /// If it cannot be opened. Nothing was changed.
    pub fn open(path: &Path, key: SealingKey) -> Result<Self, OpenError> {
        let (connection, count, lock) = open::open(path, &key)?;
        let journal = Self::over(Database {
            count: Some(Mutex::new(count)),
            _lock: Some(lock),
            ..database(path.to_owned(), Arc::new(key), connection)
        });
        journal.database.empty_log();
        Ok(journal)
    }

    /// Creates a journal in memory, which ends with the process. It is the same database as a file
    /// has, sealed under a random key, so that both behave alike.
    ///
    /// # Errors
    /// If there is no memory or no randomness.
    pub fn in_memory() -> Result<Self, JournalError> {
        let broken = |error: &dyn fmt::Display| JournalError::Broken(error.to_string());
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| broken(&error))?;
        let key = SealingKey::new(&secret).map_err(|error| broken(&error))?;
        let connection = open::in_memory().map_err(|error| broken(&error))?;
        Ok(Self::over(database(
            PathBuf::new(),
            Arc::new(key),
            connection,
        )))
    }

    fn over(database: Database) -> Self {
        Self {
            database: Arc::new(database),
        }
    }

    /// Returns whether the journal ends with the process.
    ///
    /// Then it waits for no disk, and its statements run at once instead of in a blocking task.
    /// What touches many rows goes in pieces of [`FORGET_TOGETHER`]. Commits and other tasks run
    /// in between, so no piece holds a thread of the runtime for long.
    fn is_in_memory(&self) -> bool {
        self.database.count.is_none()
    }

    /// Rejects all commits. A gateway that starts without room for its journal does so: reads and
    /// held writes go on.
    pub(crate) fn reject_all(&self) {
        self.fail_next(usize::MAX);
    }

    /// Rejects the next commits as if the disk were full. For tests.
    pub fn fail_next(&self, commits: usize) {
        self.database.failing.store(commits, Ordering::Relaxed);
    }

    /// Returns the number of transactions that have kept commits: less than one per commit under
    /// load. For tests and benchmarks.
    pub fn transactions(&self) -> u64 {
        self.database.transactions.load(Ordering::Relaxed)
    }

    /// Keeps everything else from the file.
    #[cfg(test)]
    pub(super) fn hold(&self) -> parking_lot::MutexGuard<'_, Connection> {
        self.database.connection.lock()
    }

    /// Keeps all of these changes, in this order, or none. Begins with this call, and commits take
    /// effect in the order of the calls: dropping the future takes nothing back.
    pub fn commit(&self, changes: Vec<Change>) -> Later<()> {
        let failing = &self.database.failing;
        let take_one = |left: usize| left.checked_sub(1);
        if failing
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one)
            .is_ok()
        {
            return Box::pin(ready(Err(JournalError::Full)));
        }
        if self.is_in_memory() {
            return Box::pin(ready(self.database.commit_now(changes)));
        }
        // Announced before the commit: a kill in between leaves the log to the next start.
        if changes.iter().any(erases) {
            self.empty_log_later();
        }
        let result = self.database.enqueue(changes);
        Box::pin(async move {
            result
                .await
                .unwrap_or_else(|_| Err(JournalError::stopped()))
        })
    }

    /// Returns a write.
    pub fn get(&self, id: WriteId) -> Later<Option<Record>> {
        self.ask(move |database| database.read(|connection, key| query::get(connection, key, id)))
    }

    /// Returns the write of this credential that was accepted under this key.
    pub fn find(&self, credential: Credential, key: KeyHash) -> Later<Option<Record>> {
        self.ask(move |database| {
            database.read(|connection, seal| query::find(connection, seal, credential, key))
        })
    }

    /// Returns at most `most` writes, with their summaries but without requests and responses, in
    /// the order of acceptance.
    pub fn list(&self, filter: Filter, most: usize) -> Later<Vec<Record>> {
        self.ask(move |database| {
            database.read(|connection, key| query::list(connection, key, filter, most))
        })
    }

    /// Returns all writes that have not ended, in the order of acceptance.
    pub fn unfinished(&self) -> Later<Vec<Record>> {
        self.ask(|database| database.read(query::unfinished))
    }

    /// Returns the newest of all ids.
    pub fn newest(&self) -> Later<Option<WriteId>> {
        self.ask(|database| database.read(|connection, _| query::newest(connection)))
    }

    /// Returns the workspace of a credential, if it was recorded. Kept after its writes have
    /// ended, until a sweep finds none of them.
    pub fn workspace(&self, credential: Credential) -> Later<Option<WorkspaceHash>> {
        self.ask(move |database| {
            database.read(|connection, _| query::workspace(connection, credential))
        })
    }

    /// Returns the credentials that the API rejects, and since when. Recorded, so that their writes
    /// wait in the next process as well.
    pub fn refused(&self) -> Later<Vec<(Credential, SystemTime)>> {
        self.ask(|database| database.read(|connection, _| query::refused(connection)))
    }

    /// Returns how much is kept of the writes that have ended, by credential. A lower bound if
    /// writes end meanwhile, because commits get in between.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn remembered(&self) -> Result<HashMap<Credential, Remembered>, JournalError> {
        let mut remembered = HashMap::new();
        let mut after = Some(i64::MIN);
        while let Some(row) = after {
            let counted = self.ask(move |database| {
                database.read(|connection, _| {
                    let row =
                        query::count_ended(connection, row, FORGET_TOGETHER, &mut remembered)?;
                    Ok((row, remembered))
                })
            });
            (after, remembered) = counted.await?;
            if after.is_some() {
                tokio::task::yield_now().await;
            }
        }
        Ok(remembered)
    }

    /// Forgets writes that ended before this, of one credential or of all, until that is at least
    /// `least`. The first that ended is forgotten first. Returns how much that was.
    ///
    /// # Errors
    /// If the file cannot be read or written. What was forgotten by then stays forgotten.
    pub async fn forget_oldest(
        &self,
        of: Option<Credential>,
        least: Remembered,
        ended_before: SystemTime,
    ) -> Result<Remembered, JournalError> {
        let before = millis(ended_before);
        let mut forgotten = Remembered::default();
        loop {
            let some = self.ask(move |database| {
                database.read(|connection, _| {
                    let oldest = query::oldest(connection, of, before, FORGET_TOGETHER)?;
                    let is_over = rows::forget_these(connection, &oldest, &least, &mut forgotten)?;
                    Ok((is_over, forgotten))
                })
            });
            let is_over;
            (is_over, forgotten) = some.await?;
            if is_over {
                return Ok(forgotten);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Forgets writes that ended before this, and what is known of credentials without any. Returns
    /// the number of writes.
    ///
    /// # Errors
    /// If the file cannot be read or written. What was forgotten by then stays forgotten.
    pub async fn forget(&self, ended_before: SystemTime) -> Result<u64, JournalError> {
        let before = millis(ended_before);
        let mut all = 0;
        loop {
            let some = self.ask(move |database| {
                database.read(|connection, _| rows::forget(connection, before, FORGET_TOGETHER))
            });
            let some = some.await?;
            all += some;
            // None is left, so what is known of credentials without writes can go as well.
            if some < u64::from(FORGET_TOGETHER) {
                let rest = self.ask(|database| database.read(|c, _| rows::forget_credentials(c)));
                rest.await?;
                return Ok(all);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Reads or forgets: by a blocking task for a file, at once in memory. Such tasks get the
    /// connection in no particular order.
    fn ask<T, F>(&self, question: F) -> Later<T>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<T, JournalError> + Send + 'static,
    {
        if self.is_in_memory() {
            return Box::pin(ready(question(&self.database)));
        }
        let database = Arc::clone(&self.database);
        Box::pin(async move {
            let answer = spawn_blocking(move || question(&database)).await;
            answer.unwrap_or_else(|_| Err(JournalError::stopped()))
        })
    }

    /// Empties the log once it has been quiet for a while, or at last although it is not.
    ///
    /// At most one task does this at a time. Commits only start it, so a burst of ends costs one
    /// emptying and not one each.
    fn empty_log_later(&self) {
        if self.database.will_empty.swap(true, Ordering::AcqRel) {
            return;
        }
        let database = Arc::downgrade(&self.database);
        // The task does not keep the journal open: closing it empties the log as well.
        tasks::detached(async move {
            let mut before = None;
            for _ in 0..MOST_QUIETS {
                tokio::time::sleep(QUIET).await;
                let Some(database) = database.upgrade() else {
                    return;
                };
                let now = database.transactions.load(Ordering::Relaxed);
                if before.replace(now) == Some(now) {
                    break;
                }
            }
            if let Some(database) = database.upgrade() {
                drop(spawn_blocking(move || database.empty_log()));
            }
        });
    }
}

/// Returns the state of a journal in memory; a file adds its count and its lock.
fn database(path: PathBuf, key: Arc<SealingKey>, connection: Connection) -> Database {
    Database {
        path,
        key,
        connection: Mutex::new(connection),
        count: None,
        queue: Mutex::default(),
        transactions: AtomicU64::new(0),
        failing: AtomicUsize::new(0),
        will_empty: AtomicBool::new(false),
        _lock: None,
    }
}

/// Returns whether a change leaves a secret in the log that is no longer in the journal.
fn erases(change: &Change) -> bool {
    matches!(
        change,
        Change::End { .. } | Change::Rebind { .. } | Change::Withdraw(_)
    )
}
