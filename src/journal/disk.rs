//! The journal on disk: one SQLite file with a write-ahead log, owned by one process.
//!
//! Promises:
//! - A commit is answered after the transaction that has it was synced to the disk.
//! - Commits that arrive while one is written are written together by the next transaction, with
//!   one sync; each is whole by itself (a savepoint), so that one that is refused undoes no other.
//! - Nothing here blocks the runtime: the file is read and written by blocking tasks, one at a
//!   time. A read waits for the transaction that is being written.
//! - A disk without room refuses commits ([`JournalError::Full`]) and goes on being read.
//! - What a write was to send is gone from the files a few seconds after it has ended: its page is
//!   overwritten, and the log is emptied when it is quiet; the one that a kill left, at the start.
//!
//! Others' changes of what is not sealed are not noticed: who may write the file is trusted.

use super::{
    Change, Filter, Journal, JournalError, Key, KeyHash, Later, Record, Remembered, WorkspaceHash,
    WriteId, millis,
};
use crate::credential::Credential;
use crate::tasks;
use count::Count;
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

mod count;
mod open;
mod rows;

pub use open::OpenError;
pub(super) use open::{lock, rekey};

/// At most so many commits share a transaction, so that the first does not wait for ever more.
const MOST_TOGETHER: usize = 256;
/// The log is emptied when nothing was written for so long after a write has ended, and at the
/// latest after so many times.
const QUIET: Duration = Duration::from_secs(1);
const MOST_QUIETS: u32 = 10;
/// So many are forgotten in one transaction, or counted in one go, so that commits get in between.
const FORGET_TOGETHER: u32 = 1_000;

/// A journal on disk. Clones share it.
#[derive(Clone)]
pub struct Disk {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    key: Key,
    connection: Mutex<Connection>,
    /// Locked by whoever has the connection.
    count: Mutex<Count>,
    queue: Mutex<Queue>,
    transactions: AtomicU64,
    /// Whether a task is there that empties the log.
    emptied: AtomicBool,
    /// Held open until the connection is closed: the lock is on it.
    _lock: File,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Whether a task is there that takes them.
    taken_care_of: bool,
}

/// A commit, and who wants to know.
struct Waiting {
    changes: Vec<Change>,
    tell: oneshot::Sender<Result<(), JournalError>>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("path", &self.shared.path)
            .finish_non_exhaustive()
    }
}

impl Disk {
    /// Opens the journal, or makes one where none is. Blocks, and reads the whole file once.
    pub fn open(path: &Path, key: Key) -> Result<Self, OpenError> {
        let (connection, count, lock) = open::open(path, &key)?;
        let shared = Shared {
            path: path.to_owned(),
            key,
            connection: Mutex::new(connection),
            count: Mutex::new(count),
            queue: Mutex::default(),
            transactions: AtomicU64::new(0),
            emptied: AtomicBool::new(false),
            _lock: lock,
        };
        // A kill leaves it as it was.
        shared.empty_log();
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Whether a journal is there; `false` if one is to be made.
    ///
    /// # Errors
    /// If what is there is none.
    pub fn is_there(path: &Path) -> Result<bool, OpenError> {
        open::is_there(path)
    }

    /// Says why [`Disk::open`] would fail on the journal that is there, or to make one, without
    /// changing anything. Holds its lock meanwhile, blocks, and reads the whole file once. Without
    /// a key it looks only whether there is something that is no journal.
    pub fn inspect(path: &Path, key: Option<&Key>) -> Result<(), OpenError> {
        open::inspect(path, key)
    }

    /// Empties the log once it has been quiet for a while, or in the end although it is not.
    fn empty_log_later(&self) {
        if self.shared.emptied.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::downgrade(&self.shared);
        tasks::detached(async move {
            let mut before = None;
            for _ in 0..MOST_QUIETS {
                tokio::time::sleep(QUIET).await;
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                let now = shared.transactions.load(Ordering::Relaxed);
                if before.replace(now) == Some(now) {
                    break;
                }
            }
            let Some(shared) = shared.upgrade() else {
                return;
            };
            drop(spawn_blocking(move || shared.empty_log()));
        });
    }

    /// How many transactions have kept commits: less than one per commit under load.
    pub fn transactions(&self) -> u64 {
        self.shared.transactions.load(Ordering::Relaxed)
    }

    /// Keeps everything else from the file.
    #[cfg(test)]
    pub(super) fn hold(&self) -> parking_lot::MutexGuard<'_, Connection> {
        self.shared.connection.lock()
    }

    /// Reads or forgets, by a blocking task.
    fn ask<T, F>(&self, question: F) -> Later<'static, T>
    where
        T: Send + 'static,
        F: FnOnce(&Shared) -> Result<T, JournalError> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let answer = spawn_blocking(move || question(&shared)).await;
            answer.unwrap_or_else(|_| Err(stopped()))
        })
    }
}

impl Journal for Disk {
    fn commit(&self, changes: Vec<Change>) -> Later<'static, ()> {
        let (tell, told) = oneshot::channel();
        if changes.iter().any(erases) {
            self.empty_log_later();
        }
        let mut queue = self.shared.queue.lock();
        queue.waiting.push_back(Waiting { changes, tell });
        let alone = !std::mem::replace(&mut queue.taken_care_of, true);
        drop(queue);
        if alone {
            let writer = Writer {
                shared: Arc::clone(&self.shared),
                is_done: false,
            };
            spawn_blocking(move || writer.run());
        }
        Box::pin(async move { told.await.unwrap_or_else(|_| Err(stopped())) })
    }

    fn get(&self, id: WriteId) -> Later<'static, Option<Record>> {
        self.ask(move |shared| shared.read(|connection, key| rows::get(connection, key, id)))
    }

    fn find(&self, credential: Credential, key: KeyHash) -> Later<'static, Option<Record>> {
        self.ask(move |shared| {
            shared.read(|connection, seal| rows::find(connection, seal, credential, key))
        })
    }

    fn list(&self, filter: Filter, most: usize) -> Later<'static, Vec<Record>> {
        self.ask(move |shared| {
            shared.read(|connection, key| rows::list(connection, key, filter, most))
        })
    }

    fn unfinished(&self) -> Later<'static, Vec<Record>> {
        self.ask(|shared| shared.read(rows::unfinished))
    }

    fn newest(&self) -> Later<'static, Option<WriteId>> {
        self.ask(|shared| shared.read(|connection, _| rows::newest(connection)))
    }

    fn workspace(&self, credential: Credential) -> Later<'static, Option<WorkspaceHash>> {
        self.ask(move |shared| shared.read(|connection, _| rows::workspace(connection, credential)))
    }

    fn refused(&self) -> Later<'static, Vec<(Credential, SystemTime)>> {
        self.ask(|shared| shared.read(|connection, _| rows::refused(connection)))
    }

    fn remembered(&self) -> Later<'static, HashMap<Credential, Remembered>> {
        self.ask(|shared| {
            let mut remembered = HashMap::new();
            let mut after = Some(i64::MIN);
            while let Some(row) = after {
                after = shared.read(|connection, _| {
                    rows::count_ended(connection, row, FORGET_TOGETHER, &mut remembered)
                })?;
            }
            Ok(remembered)
        })
    }

    fn forget_oldest(
        &self,
        of: Option<Credential>,
        least: Remembered,
        ended_before: SystemTime,
    ) -> Later<'static, Remembered> {
        let before = millis(ended_before);
        self.ask(move |shared| {
            let mut forgotten = Remembered::default();
            loop {
                let is_over = shared.read(|connection, _| {
                    let oldest = rows::oldest(connection, of, before, FORGET_TOGETHER)?;
                    rows::forget_these(connection, &oldest, &least, &mut forgotten)
                })?;
                if is_over {
                    return Ok(forgotten);
                }
            }
        })
    }

    fn forget(&self, ended_before: SystemTime) -> Later<'static, u64> {
        let before = millis(ended_before);
        self.ask(move |shared| {
            let mut all = 0;
            loop {
                let some = shared
                    .read(|connection, _| rows::forget(connection, before, FORGET_TOGETHER))?;
                all += some;
                if some < u64::from(FORGET_TOGETHER) {
                    shared.read(|connection, _| rows::forget_credentials(connection))?;
                    return Ok(all);
                }
            }
        })
    }
}

/// Why a question to the file has no answer.
enum Fault {
    /// The caller's doing: [`JournalError::Taken`] or [`JournalError::Absent`].
    Refused(JournalError),
    /// What SQLite says.
    Sqlite(rusqlite::Error),
    /// What is kept of this write, or of one that has no name, makes no sense.
    Damaged(Option<WriteId>),
    /// A bug.
    Bug(JournalError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Whether a change leaves something secret in the log that is no longer in the journal.
fn erases(change: &Change) -> bool {
    matches!(
        change,
        Change::End { .. } | Change::Rebind { .. } | Change::Withdraw(_)
    )
}

/// Moves the log into the journal and empties it.
fn truncate_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

impl Shared {
    fn empty_log(&self) {
        let connection = self.connection.lock();
        // What ends from now on has another task.
        self.emptied.store(false, Ordering::Release);
        if let Err(error) = truncate_log(&connection) {
            tracing::warn!(
                %error,
                "cannot truncate the journal's WAL: it still contains the requests of writes \
                 that have ended"
            );
        }
    }

    fn read<T>(
        &self,
        question: impl FnOnce(&Connection, &Key) -> Result<T, Fault>,
    ) -> Result<T, JournalError> {
        let connection = self.connection.lock();
        question(&connection, &self.key).map_err(|fault| self.told(fault))
    }

    /// What a caller hears of a fault. Neither SQLite's messages nor ours have values in them.
    fn told(&self, fault: Fault) -> JournalError {
        let path = self.path.display();
        let remedy = "stop, put back a copy or move it away, and start again";
        match fault {
            Fault::Refused(error) | Fault::Bug(error) => error,
            Fault::Damaged(Some(id)) => {
                JournalError::Broken(format!("journal {path}: write {id} is damaged; {remedy}"))
            }
            Fault::Damaged(None) => {
                JournalError::Broken(format!("journal {path}: a write is damaged; {remedy}"))
            }
            Fault::Sqlite(error) => match error.sqlite_error_code() {
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

    /// Writes these commits, with one sync if nothing goes wrong.
    fn write(&self, connection: &mut Connection, batch: &[Waiting]) -> Vec<Answer> {
        match self.transact(connection, batch) {
            Ok(answers) => answers,
            Err(fault) if batch.len() == 1 => vec![Err(self.told(fault))],
            // One may be too large for the room that is left, and the others not; and what a failed
            // sync may have left in the log is written over.
            Err(_) => batch
                .chunks(1)
                .flat_map(|one| self.write(connection, one))
                .collect(),
        }
    }

    /// One transaction. An error means that it has kept nothing.
    fn transact(
        &self,
        connection: &mut Connection,
        batch: &[Waiting],
    ) -> Result<Vec<Answer>, Fault> {
        let mut transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut answers = Vec::with_capacity(batch.len());
        for commit in batch {
            let mut savepoint = transaction.savepoint()?;
            let applied = commit
                .changes
                .iter()
                .try_for_each(|change| rows::apply(&savepoint, &self.key, change));
            match applied {
                Ok(()) => {}
                Err(Fault::Refused(_)) => savepoint.rollback()?,
                Err(fault) => return Err(fault),
            }
            savepoint.commit()?;
            answers.push(applied.map_err(|fault| self.told(fault)));
        }
        let mut count = self.count.lock();
        rows::set_commits(&transaction, count.commits + 1)?;
        transaction.commit()?;
        count.add();
        self.transactions.fetch_add(1, Ordering::Relaxed);
        Ok(answers)
    }
}

type Answer = Result<(), JournalError>;

/// The one task that writes. It ends when nothing waits.
struct Writer {
    shared: Arc<Shared>,
    is_done: bool,
}

impl Writer {
    fn run(mut self) {
        loop {
            let (batch, answers) = self.turn();
            if self.is_done {
                // Whoever has the last answer may open the file anew: it is closed by then.
                drop(self);
                return tell(batch, answers);
            }
            tell(batch, answers);
        }
    }

    /// What came while others had the connection is written together.
    fn turn(&mut self) -> (Vec<Waiting>, Vec<Answer>) {
        let mut connection = self.shared.connection.lock();
        let mut queue = self.shared.queue.lock();
        let most = queue.waiting.len().min(MOST_TOGETHER);
        let batch: Vec<Waiting> = queue.waiting.drain(..most).collect();
        drop(queue);
        let answers = self.shared.write(&mut connection, &batch);
        let mut queue = self.shared.queue.lock();
        self.is_done = queue.waiting.is_empty();
        queue.taken_care_of = !self.is_done;
        (batch, answers)
    }
}

fn tell(batch: Vec<Waiting>, answers: Vec<Answer>) {
    for (commit, answer) in batch.into_iter().zip(answers) {
        // Whoever no longer listens has committed all the same.
        let _ = commit.tell.send(answer);
    }
}

impl Drop for Writer {
    /// A runtime that shuts down may never run the task: its commits must not wait for ever.
    fn drop(&mut self) {
        if !self.is_done {
            let mut queue = self.shared.queue.lock();
            queue.taken_care_of = false;
            queue.waiting.clear();
        }
    }
}

fn stopped() -> JournalError {
    JournalError::Broken("the journal was stopped before it could do it".into())
}
