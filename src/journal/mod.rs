//! Writes that were accepted to be carried out later, kept where a crash does not lose them.
//!
//! Promises:
//! - *Durable.* When [`Journal::commit`] has returned `Ok`, what it was given outlasts the process
//!   and the machine; when it has returned an error, none of it is kept. One case is open: after
//!   [`JournalError::Broken`] by a disk that failed while it was told to keep the commit, a crash
//!   may bring it back.
//! - *Whole.* All changes of one commit are kept, or none.
//! - *In order.* [`Journal::unfinished`] gives writes in the order in which they were accepted.
//! - *Secret.* At rest, what a request and an answer say (path, header, body) is encrypted, and so
//!   is the summary of a write, which stays when its request is erased; times,
//!   states, operations and credential hashes are not. Nothing here shows them in its `Debug`.
//! - *Bounded by its callers.* Commits that wait to be written are in memory, so whoever commits
//!   has to bound how many are under way at once, and what it accepts without forgetting.
//!
//! [`memory`] is for tests, and the model that [`disk`] is compared with: one suite runs over both.

use crate::credential::Credential;
use bytes::Bytes;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub mod disk;
pub mod memory;
mod seal;
#[cfg(test)]
mod tests;
pub mod write_id;

pub use seal::{Key, KeyError};
pub use write_id::{WriteId, WriteIds};

/// Seals the journal at `path` anew under another key; how many writes that were. No process may
/// have it open.
///
/// # Errors
/// If it cannot be opened under the old key. Nothing was changed.
pub fn rekey(path: &std::path::Path, old: &Key, new: &Key) -> Result<usize, disk::OpenError> {
    disk::rekey(path, old, new)
}

/// A result that comes later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, JournalError>> + Send + 'a>>;

/// How far a write has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// It waits for its turn.
    Queued,
    /// An attempt is under way, or was when the process ended.
    Dispatched,
    /// The API answered with 2xx or 3xx.
    Succeeded,
    /// The API refused it (4xx), or it was given up unsent.
    Failed,
    /// It was sent, and nobody knows what became of it: no answer came, or a 5xx.
    Unknown,
    /// It was taken back before it left.
    Cancelled,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Dispatched,
        Self::Succeeded,
        Self::Failed,
        Self::Unknown,
        Self::Cancelled,
    ];

    /// Its name for callers, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Dispatched => "dispatched",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more happens to it.
    pub fn has_ended(self) -> bool {
        !matches!(self, Self::Queued | Self::Dispatched)
    }
}

/// Names the value of an `Idempotency-Key`, by a keyed hash.
pub type KeyHash = [u8; 16];

/// Names the workspace that a credential belongs to, by a keyed hash of its id.
pub type WorkspaceHash = [u8; 16];

/// One write. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name; ids grow with the order of acceptance.
    pub id: WriteId,
    /// Whose it is.
    pub credential: Credential,
    /// The operation's name.
    pub operation: Arc<str>,
    /// The `Idempotency-Key` under which it may be asked for again.
    pub key: Option<KeyHash>,
    /// Tells another request under the same key from the same one.
    pub fingerprint: [u8; 32],
    /// What it was for, without its body and its credential, for as long as it is remembered;
    /// secret.
    pub summary: Bytes,
    /// What to send; secret. Empty once the write has ended.
    pub request: Bytes,
    /// How far it has come.
    pub state: State,
    /// How often it was sent.
    pub attempts: u32,
    /// When it was accepted, last sent, and ended. Whole milliseconds.
    pub accepted: SystemTime,
    /// See `accepted`.
    pub dispatched: Option<SystemTime>,
    /// See `accepted`.
    pub ended: Option<SystemTime>,
    /// What it came to; secret.
    pub answer: Option<Bytes>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("id", &self.id)
            .field("credential", &self.credential)
            .field("operation", &self.operation)
            .field("state", &self.state)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

/// A change of one write, or what is known of a credential. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// It is accepted. An error if its id or its key of this credential is taken.
    Accept(Box<Record>),
    /// It waits again after an attempt that came to nothing.
    Requeue(WriteId),
    /// It is about to be sent: one more attempt.
    Dispatch(WriteId, SystemTime),
    /// It has ended: what it was to send is erased, and no change can follow.
    End {
        /// Which.
        id: WriteId,
        /// How: one of the last four states.
        state: State,
        /// When.
        at: SystemTime,
        /// What it came to.
        answer: Option<Bytes>,
    },
    /// It is another credential's from now on. An error if that has a write under this key.
    Rebind {
        /// Which.
        id: WriteId,
        /// Whose it is now.
        credential: Credential,
        /// The key under which that one may ask for it again.
        key: Option<KeyHash>,
        /// What to send, with the new credential; secret.
        request: Bytes,
    },
    /// It is as if it had never been accepted. An error if it is not there or has ended.
    Withdraw(WriteId),
    /// A credential belongs to this workspace. Forgotten some time after its last write.
    Belongs(Credential, WorkspaceHash),
    /// The API has refused a credential since then, so that its writes wait. A later time than the
    /// one that is known changes nothing. Forgotten as a workspace is.
    Refused(Credential, SystemTime),
    /// A credential is no longer refused.
    Admitted(Credential),
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept(record) => f.debug_tuple("Accept").field(record).finish(),
            Self::Requeue(id) => f.debug_tuple("Requeue").field(id).finish(),
            Self::Dispatch(id, at) => f.debug_tuple("Dispatch").field(id).field(at).finish(),
            Self::End { id, state, .. } => f.debug_tuple("End").field(id).field(state).finish(),
            Self::Rebind { id, credential, .. } => {
                f.debug_tuple("Rebind").field(id).field(credential).finish()
            }
            Self::Withdraw(id) => f.debug_tuple("Withdraw").field(id).finish(),
            Self::Belongs(credential, _) => f.debug_tuple("Belongs").field(credential).finish(),
            Self::Refused(credential, since) => {
                let mut refused = f.debug_tuple("Refused");
                refused.field(credential).field(since).finish()
            }
            Self::Admitted(credential) => f.debug_tuple("Admitted").field(credential).finish(),
        }
    }
}

/// How much is remembered of writes that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// How many writes.
    pub writes: u64,
    /// Bytes of their answers and summaries, as they are kept.
    pub bytes: u64,
}

impl Remembered {
    /// One more write, with so many bytes.
    pub fn add(&mut self, bytes: u64) {
        self.writes = self.writes.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Whether this is at least as much as `other` in both respects.
    pub fn reaches(&self, other: &Self) -> bool {
        self.writes >= other.writes && self.bytes >= other.bytes
    }
}

/// Which writes a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this credential alone.
    pub credential: Option<Credential>,
    /// Of this operation alone.
    pub operation: Option<Arc<str>>,
    /// In this state alone.
    pub state: Option<State>,
    /// Accepted after this one.
    pub after: Option<WriteId>,
}

/// Why the journal could not do it. Nothing was kept; see the module for the one exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalError {
    /// There is no room on the disk: the operator's to mend, and to be tried again after that.
    Full,
    /// A write of this id, or of this key and credential, is there already: the caller's doing.
    Taken,
    /// A change of a write that is not there or has ended: the caller's doing.
    Absent,
    /// Anything else, the journal's own; says what happened and what to do.
    Broken(String),
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

/// Where writes are kept.
pub trait Journal: Send + Sync + fmt::Debug {
    /// Keeps all of these changes, in this order, or none. It is under way from this call on, and
    /// commits take effect in the order of the calls: dropping the future takes nothing back.
    fn commit(&self, changes: Vec<Change>) -> Later<'static, ()>;

    /// One write.
    fn get(&self, id: WriteId) -> Later<'static, Option<Record>>;

    /// The write of this credential that was accepted under this key.
    fn find(&self, credential: Credential, key: KeyHash) -> Later<'static, Option<Record>>;

    /// At most so many writes, with their summaries but without their requests and answers, in
    /// order of acceptance.
    fn list(&self, filter: Filter, most: usize) -> Later<'static, Vec<Record>>;

    /// All writes that have not ended, in order of acceptance.
    fn unfinished(&self) -> Later<'static, Vec<Record>>;

    /// The newest of all ids.
    fn newest(&self) -> Later<'static, Option<WriteId>>;

    /// The workspace that a credential belongs to, if that has been said.
    fn workspace(&self, credential: Credential) -> Later<'static, Option<WorkspaceHash>>;

    /// The credentials that the API refuses, and since when.
    fn refused(&self) -> Later<'static, Vec<(Credential, SystemTime)>>;

    /// How much is remembered of the writes that have ended, by credential.
    fn remembered(&self) -> Later<'static, HashMap<Credential, Remembered>>;

    /// Forgets writes that ended before this, and what is known of credentials without any; how
    /// many writes.
    fn forget(&self, ended_before: SystemTime) -> Later<'static, u64>;

    /// Forgets writes that ended before this, of one credential or of all, the first that ended
    /// first, until that is at least `least`; how much it was.
    fn forget_oldest(
        &self,
        of: Option<Credential>,
        least: Remembered,
        ended_before: SystemTime,
    ) -> Later<'static, Remembered>;
}

/// What an implementation says of a change that no caller may ask for.
fn not_an_end(state: State) -> JournalError {
    JournalError::Broken(format!(
        "a write cannot end as {state:?}; this is a bug of the gateway, please report it"
    ))
}

/// Whole milliseconds since 1970, which is how the journal keeps times.
fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// The time of so many milliseconds.
fn time(millis: i64) -> SystemTime {
    let since = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    let time = SystemTime::UNIX_EPOCH.checked_add(since);
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}
