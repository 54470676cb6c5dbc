//! Pure. What the journal keeps of a write, and the changes of it.

use super::write_id::WriteId;
use crate::credential::Credential;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The progress of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Waiting for its turn.
    Queued,
    /// An attempt is in flight, or was when the process ended.
    Dispatched,
    /// The API responded with 2xx or 3xx.
    Succeeded,
    /// The API rejected it (4xx), or it expired unsent.
    Failed,
    /// Sent, and its outcome is unknown: no response came, or a 5xx.
    Unknown,
    /// Cancelled before it was sent.
    Cancelled,
}

impl State {
    /// All states, from acceptance to the end.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Dispatched,
        Self::Succeeded,
        Self::Failed,
        Self::Unknown,
        Self::Cancelled,
    ];

    /// Returns the name for callers, metrics and logs.
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

    /// Returns whether the write has ended: nothing changes it any more.
    pub fn has_ended(self) -> bool {
        !matches!(self, Self::Queued | Self::Dispatched)
    }

    /// Returns the number that the file has for it. Never changes within a version of the format.
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Queued => 0,
            Self::Dispatched => 1,
            Self::Succeeded => 2,
            Self::Failed => 3,
            Self::Unknown => 4,
            Self::Cancelled => 5,
        }
    }

    /// Returns the state that the file has this number for.
    pub(super) fn of_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.number() == number)
    }
}

/// Whoever made a write, and alone may ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteOwner {
    /// The credential that the API sees.
    pub credential: Credential,
    /// The client, if one is known. Several clients may share a credential.
    pub client: Option<Arc<str>>,
}

/// A keyed hash of the value of an `Idempotency-Key`.
pub type KeyHash = [u8; 16];

/// A keyed hash of the id of the workspace that a credential belongs to.
pub type WorkspaceHash = [u8; 16];

/// One write. `Debug` shows no secret. Times are kept in whole milliseconds.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// The name of the write; ids grow in the order of acceptance.
    pub id: WriteId,
    /// The credential that owns it.
    pub credential: Credential,
    /// The client that made it, if one is known.
    pub client: Option<Arc<str>>,
    /// The name of the operation.
    pub operation: Arc<str>,
    /// The `Idempotency-Key` under which a later request gets its response.
    pub key: Option<KeyHash>,
    /// A hash of the request, by which another request under the same key is noticed.
    pub fingerprint: [u8; 32],
    /// What the write was for, without body and credential; secret. Kept as long as the record.
    pub summary: Bytes,
    /// The request to send; secret. Empty once the write has ended.
    pub request: Bytes,
    /// The progress.
    pub state: State,
    /// The number of attempts.
    pub attempts: u32,
    /// The time of acceptance.
    pub accepted: SystemTime,
    /// The time of the last attempt.
    pub dispatched: Option<SystemTime>,
    /// The time of the end.
    pub ended: Option<SystemTime>,
    /// The recorded response; secret.
    pub answer: Option<Bytes>,
}

impl Record {
    /// Returns whether this owner made the write.
    pub fn is_of(&self, owner: &WriteOwner) -> bool {
        (self.credential, &self.client) == (owner.credential, &owner.client)
    }
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

/// A change of one write, or of what is known of a credential. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// Accepts a write. Fails if its id, or its key of this credential, is taken.
    Accept(Box<Record>),
    /// Queues a write again after an attempt without effect.
    Requeue(WriteId),
    /// Records that an attempt is about to be sent.
    Dispatch(WriteId, SystemTime),
    /// Ends a write: its request is erased, and no change can follow.
    End {
        /// The write.
        id: WriteId,
        /// One of the four final states.
        state: State,
        /// The time of the end.
        at: SystemTime,
        /// The response to record.
        answer: Option<Bytes>,
    },
    /// Gives a write to another credential. Fails if that one has a write under this key.
    Rebind {
        /// The write.
        id: WriteId,
        /// The new owner.
        credential: Credential,
        /// The key under which the new owner's later requests get its response.
        key: Option<KeyHash>,
        /// The request with the new credential; secret.
        request: Bytes,
    },
    /// Removes a write as if it had never been accepted. Fails if it is absent or has ended.
    Withdraw(WriteId),
    /// Records the workspace of a credential. Forgotten some time after its last write.
    Belongs(Credential, WorkspaceHash),
    /// Records that the API rejects a credential since then, so that its writes wait. A later time
    /// than the recorded one changes nothing. Forgotten as a workspace is.
    Refused(Credential, SystemTime),
    /// Records that the API accepts a credential again.
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

/// The amount of what is kept of writes that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// The number of writes.
    pub writes: u64,
    /// The bytes of their responses and summaries, as they are kept.
    pub bytes: u64,
}

impl Remembered {
    /// Adds one write of this size.
    pub fn add(&mut self, bytes: u64) {
        self.writes = self.writes.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Returns whether this is at least as much as `other` in both respects.
    pub fn reaches(&self, other: &Self) -> bool {
        self.writes >= other.writes && self.bytes >= other.bytes
    }
}

/// The owners whose writes a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OwnerFilter {
    /// All of them.
    #[default]
    All,
    /// All that share this credential.
    Sharing(Credential),
    /// This one.
    One(WriteOwner),
}

/// The writes that a list shows: those that match every given field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The owners.
    pub owners: OwnerFilter,
    /// The operation.
    pub operation: Option<Arc<str>>,
    /// The state.
    pub state: Option<State>,
    /// The write before the first one shown, in the order of acceptance.
    pub after: Option<WriteId>,
}

/// Returns the whole milliseconds since 1970, in which the journal keeps times.
pub(super) fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// Returns the time of so many milliseconds since 1970.
pub(super) fn time(millis: i64) -> SystemTime {
    let since = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    let time = SystemTime::UNIX_EPOCH.checked_add(since);
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}
