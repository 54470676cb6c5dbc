//! The audit log: who did what, in a chain of records that shows what was changed or removed.
//!
//! ```text
//! event    what is recorded, as the fields of a line
//! chain    a line follows the one before it, under a key
//! file     the file of the lines: opened, written, rotated
//! queue    what waits to be written, within bounds
//! writer   the handle: events are handed over here
//! thread   writes what waits, and tries again while the disk fails
//! verify   reads the files again, and names what is wrong with them
//! ```
//!
//! Promises:
//!
//! - [`Audit::record`] never waits. An event that finds no room is counted, and the next record
//!   says how many were lost.
//! - [`Audit::record_synced`] returns once its events are on the disk, or an error.
//! - Nothing here knows a token, a key or a body: events have names, ids and hashes.
//!
//! What is recorded is decided where it happens. [`AUDIT`] is another thing; see `target`.

pub mod chain;
mod event;
mod file;
mod queue;
mod target;
mod thread;
pub mod verify;
mod writer;

pub use chain::{AuditKey, ChainHead};
pub use event::{AuditEvent, AuditedEnd, AuditedRequest, SubjectForm};
pub use file::AuditFileSpec;
pub use queue::{AuditStatus, NotAudited};
pub use target::AUDIT;

use crate::clock::Clock;
use std::sync::Arc;
use writer::AuditWriter;

/// An audit log that records what it is given, or none. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Audit(Option<Arc<OpenLog>>);

#[derive(Debug)]
struct OpenLog {
    writer: AuditWriter,
    is_before: bool,
}

impl Audit {
    /// Opens the log and continues its chain. `is_before` says that writes are recorded before they
    /// are sent.
    ///
    /// # Errors
    /// If the file cannot be written, is in use by another process, or ends with something that is
    /// no record under this key. The message says what to do.
    pub fn open(spec: AuditFileSpec, is_before: bool, clock: Clock) -> Result<Self, String> {
        let writer = AuditWriter::start(spec, clock)?;
        Ok(Self(Some(Arc::new(OpenLog { writer, is_before }))))
    }

    /// Returns whether there is a log.
    pub fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Returns whether a write is recorded before it is sent.
    pub fn is_before(&self) -> bool {
        self.0.as_ref().is_some_and(|open| open.is_before)
    }

    /// Returns whether the last attempt to write failed.
    pub fn is_failing(&self) -> bool {
        self.0.as_ref().is_some_and(|open| open.writer.is_failing())
    }

    /// Returns the state of the log, if there is one.
    pub fn status(&self) -> Option<AuditStatus> {
        self.0.as_ref().map(|open| open.writer.status())
    }

    /// Hands an event over. It is recorded soon, or counted as lost.
    pub fn record(&self, event: AuditEvent) {
        if let Some(open) = &self.0 {
            open.writer.push(vec![event], None);
        }
    }

    /// Records events, and returns once they are on the disk. Without a log there is nothing to do.
    ///
    /// # Errors
    /// If they could not be written, or have no room. They may be on the disk all the same.
    pub async fn record_synced(&self, events: Vec<AuditEvent>) -> Result<(), NotAudited> {
        let Some(open) = &self.0 else { return Ok(()) };
        if open.writer.is_failing() {
            return Err(NotAudited);
        }
        let (done, is_done) = tokio::sync::oneshot::channel();
        open.writer.push(events, Some(done));
        is_done.await.unwrap_or(Err(NotAudited))
    }

    /// Waits until everything that was handed over is written, if it can be.
    pub async fn flush(&self) {
        let _ = self.record_synced(Vec::new()).await;
    }
}
