//! The one connection to the file, and the task that commits through it.
//!
//! Promises:
//! - A commit is answered after the transaction that has it was synced to the disk.
//! - Commits that arrive while one is written are written together by the next transaction, with
//!   one sync. Each is atomic by itself (a savepoint), so a rejected one undoes no other.
//! - At most one task writes. It ends when nothing waits, and lets go of the file before it answers
//!   the last commit, so that its caller may open the file again.

use super::commit_count::CommitCount;
use super::error::{Fault, JournalError};
use super::record::Change;
use super::rows;
use super::seal::SealingKey;
use parking_lot::Mutex;
use rusqlite::{Connection, TransactionBehavior};
use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

/// The most commits in one transaction, so that the first of them does not wait for ever more.
const MOST_TOGETHER: usize = 256;

/// What all clones of a journal share.
pub(super) struct Database {
    /// The path of the file; empty for a journal in memory.
    pub(super) path: PathBuf,
    pub(super) key: Arc<SealingKey>,
    pub(super) connection: Mutex<Connection>,
    /// The number of commits beside the file; `None` for a journal in memory. Locked only by the
    /// holder of the connection.
    pub(super) count: Option<Mutex<CommitCount>>,
    pub(super) queue: Mutex<CommitQueue>,
    /// Transactions that have kept commits.
    pub(super) transactions: AtomicU64,
    /// How many of the next commits fail for want of room.
    pub(super) failing: AtomicUsize,
    /// Whether a task exists that will empty the log.
    pub(super) will_empty: AtomicBool,
    /// Held open until the connection is closed: the lock is on it.
    pub(super) _lock: Option<File>,
}

/// Commits that wait for the writer.
#[derive(Default)]
pub(super) struct CommitQueue {
    waiting: VecDeque<Commit>,
    /// Whether a writer exists that will take them.
    has_writer: bool,
}

/// A commit, and where its result goes.
struct Commit {
    changes: Vec<Change>,
    result: oneshot::Sender<CommitResult>,
}

type CommitResult = Result<(), JournalError>;

impl Database {
    /// Queues a commit and returns its future result. The commit happens even if that is dropped.
    pub(super) fn enqueue(
        self: &Arc<Self>,
        changes: Vec<Change>,
    ) -> oneshot::Receiver<CommitResult> {
        let (result, receiver) = oneshot::channel();
        let mut queue = self.queue.lock();
        queue.waiting.push_back(Commit { changes, result });
        let is_first = !std::mem::replace(&mut queue.has_writer, true);
        drop(queue);
        if is_first {
            let writer = Writer {
                database: Arc::clone(self),
                is_done: false,
            };
            spawn_blocking(move || writer.run());
        }
        receiver
    }

    /// Commits at once, for a journal in memory.
    pub(super) fn commit_now(&self, changes: Vec<Change>) -> CommitResult {
        let mut connection = self.connection.lock();
        let results = self.transact(&mut connection, &[&changes]);
        let result = results.map_err(|fault| fault.at(&self.path))?.pop();
        result.unwrap_or_else(|| Err(JournalError::stopped()))
    }

    /// Runs a statement on the connection, after the transaction that is being written.
    pub(super) fn read<T>(
        &self,
        question: impl FnOnce(&Connection, &SealingKey) -> Result<T, Fault>,
    ) -> Result<T, JournalError> {
        let connection = self.connection.lock();
        question(&connection, &self.key).map_err(|fault| fault.at(&self.path))
    }

    /// Moves the log into the file and overwrites it. Erased requests are gone after that.
    pub(super) fn empty_log(&self) {
        let connection = self.connection.lock();
        // Writes that end from now on have another task.
        self.will_empty.store(false, Ordering::Release);
        if let Err(error) = truncate_log(&connection) {
            tracing::warn!(
                %error,
                "cannot truncate the journal's WAL: it still contains the requests of writes \
                 that have ended"
            );
        }
    }

    /// Commits a batch, with one sync if nothing goes wrong.
    fn write(&self, connection: &mut Connection, batch: &[&Vec<Change>]) -> Vec<CommitResult> {
        match self.transact(connection, batch) {
            Ok(results) => results,
            Err(fault) if batch.len() == 1 => vec![Err(fault.at(&self.path))],
            // One commit may be too large for the room that is left and the others not. Writing
            // again also overwrites what a failed sync may have left in the log.
            Err(_) => batch
                .chunks(1)
                .flat_map(|one| self.write(connection, one))
                .collect(),
        }
    }

    /// Commits a batch in one transaction. An error means that nothing was kept.
    ///
    /// A commit that a caller may not make ends in its own result and is rolled back alone. Any
    /// other fault ends the transaction, because nothing is known about the rest of it.
    fn transact(
        &self,
        connection: &mut Connection,
        batch: &[&Vec<Change>],
    ) -> Result<Vec<CommitResult>, Fault> {
        let mut transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut results = Vec::with_capacity(batch.len());
        for changes in batch {
            let mut savepoint = transaction.savepoint()?;
            let applied = changes
                .iter()
                .try_for_each(|change| rows::apply(&savepoint, &self.key, change));
            match applied {
                Ok(()) => {}
                Err(Fault::Refused(_)) => savepoint.rollback()?,
                Err(fault) => return Err(fault),
            }
            savepoint.commit()?;
            results.push(applied.map_err(|fault| fault.at(&self.path)));
        }
        let mut count = self.count.as_ref().map(Mutex::lock);
        if let Some(count) = &count {
            rows::set_commits(&transaction, count.commits + 1)?;
        }
        transaction.commit()?;
        if let Some(count) = &mut count {
            count.add();
        }
        self.transactions.fetch_add(1, Ordering::Relaxed);
        Ok(results)
    }
}

/// Moves the log into the journal and empties it. Waits for no other connection, because there is
/// none.
pub(super) fn truncate_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// The one task that writes. It owns the flag `has_writer` from its start to its end. A
/// caller that queues a commit while the flag is set relies on it.
struct Writer {
    database: Arc<Database>,
    is_done: bool,
}

impl Writer {
    /// Writes batch after batch until nothing waits.
    fn run(mut self) {
        loop {
            let (batch, results) = self.write_batch();
            if self.is_done {
                // Closes the file, if this was the last to have it, before the last answer.
                drop(self);
                return answer(batch, results);
            }
            answer(batch, results);
        }
    }

    /// Writes what waits, and notes whether anything has come meanwhile.
    ///
    /// The connection is locked first. So commits that arrive while a read has it join this batch,
    /// and the queue itself is never locked for long.
    fn write_batch(&mut self) -> (Vec<Commit>, Vec<CommitResult>) {
        let mut connection = self.database.connection.lock();
        let mut queue = self.database.queue.lock();
        let most = queue.waiting.len().min(MOST_TOGETHER);
        let batch: Vec<Commit> = queue.waiting.drain(..most).collect();
        drop(queue);
        let changes: Vec<_> = batch.iter().map(|commit| &commit.changes).collect();
        let results = self.database.write(&mut connection, &changes);
        let mut queue = self.database.queue.lock();
        self.is_done = queue.waiting.is_empty();
        queue.has_writer = !self.is_done;
        (batch, results)
    }
}

/// Passes the results on, in the order of the commits. The batch and the results have the same
/// length.
fn answer(batch: Vec<Commit>, results: Vec<CommitResult>) {
    for (commit, result) in batch.into_iter().zip(results) {
        // A caller that no longer listens has committed all the same.
        let _ = commit.result.send(result);
    }
}

impl Drop for Writer {
    /// Fails the waiting commits if the task never ran: a runtime that shuts down may drop it, and
    /// they must not wait for ever.
    fn drop(&mut self) {
        if !self.is_done {
            let mut queue = self.database.queue.lock();
            queue.has_writer = false;
            queue.waiting.clear();
        }
    }
}
