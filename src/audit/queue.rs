//! What waits for the thread of the audit log, and what is known of the log.

use super::chain::ChainHead;
use super::event::AuditEvent;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;
use tokio::sync::oneshot;

/// The bounds of what waits: the number of events, and their bytes.
const MOST_WAITING: usize = 10_000;
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// The error of an event that is not on the disk. What it was for must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAudited;

impl fmt::Display for NotAudited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the audit log cannot be written")
    }
}

impl std::error::Error for NotAudited {}

/// The state of a log at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditStatus {
    /// The newest line.
    pub head: ChainHead,
    /// Whether the last attempt to write failed.
    pub is_failing: bool,
    /// The events that found no room since the start.
    pub lost: u64,
    /// The records since the start, by kind.
    pub records: BTreeMap<&'static str, u64>,
}

/// Who waits for the events before this.
pub(super) type Done = oneshot::Sender<Result<(), NotAudited>>;

/// What the handle and the thread share.
#[derive(Debug)]
pub(super) struct AuditChannel {
    pub(super) queue: Mutex<Queue>,
    /// Notified when something waits, or the thread is to end.
    pub(super) wakeup: Condvar,
    pub(super) status: Mutex<AuditStatus>,
}

/// What waits for the thread.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: Vec<QueuedEvents>,
    /// The bytes of the events, roughly.
    pub(super) bytes: usize,
    /// The events that found no room since the last record of them.
    pub(super) lost: u64,
    pub(super) is_ending: bool,
}

/// Events that were handed over together.
#[derive(Debug)]
pub(super) struct QueuedEvents {
    /// When that was, which is the time of their records.
    pub(super) time: SystemTime,
    pub(super) events: Vec<AuditEvent>,
    pub(super) done: Option<Done>,
}

impl Queue {
    /// Takes events in, unless there is no room for them.
    pub(super) fn push(&mut self, handed: QueuedEvents) -> Result<(), QueuedEvents> {
        let bytes: usize = handed.events.iter().map(AuditEvent::weight).sum();
        // Few are handed over together, so their number is about that of the events.
        let number = self.waiting.len() + handed.events.len();
        if number > MOST_WAITING || self.bytes + bytes > MOST_BYTES {
            return Err(handed);
        }
        self.bytes += bytes;
        self.waiting.push(handed);
        Ok(())
    }

    /// Puts events that could not be written before those that came meanwhile.
    pub(super) fn put_back(&mut self, mut back: Vec<QueuedEvents>) {
        back.append(&mut self.waiting);
        let events = back.iter().flat_map(|one| &one.events);
        self.bytes = events.map(AuditEvent::weight).sum();
        self.waiting = back;
    }
}
