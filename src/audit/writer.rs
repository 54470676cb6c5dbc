//! The handle of the audit log's thread: everybody hands events over here, and goes on.

use super::event::AuditEvent;
use super::file::{AuditFile, AuditFileSpec};
use super::queue::{AuditChannel, AuditStatus, Done, QueuedEvents};
use super::thread::Writing;
use crate::clock::Clock;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::thread::JoinHandle;

/// The handle of the thread. Dropping it lets the thread write what waits, and ends it.
#[derive(Debug)]
pub(super) struct AuditWriter {
    shared: Arc<AuditChannel>,
    clock: Clock,
    thread: Option<JoinHandle<()>>,
}

impl Drop for AuditWriter {
    fn drop(&mut self) {
        self.shared.queue.lock().is_ending = true;
        self.shared.wakeup.notify_one();
        if let Some(thread) = self.thread.take() {
            // It ends after one more attempt, whether that succeeds or not.
            let _ = thread.join();
        }
    }
}

impl AuditWriter {
    /// Opens the file and starts the thread.
    ///
    /// # Errors
    /// See [`AuditFile::open`].
    pub(super) fn start(spec: AuditFileSpec, clock: Clock) -> Result<Self, String> {
        let file = AuditFile::open(spec)?;
        let shared = Arc::new(AuditChannel {
            queue: Mutex::default(),
            wakeup: Condvar::new(),
            status: Mutex::new(AuditStatus {
                head: file.head(),
                ..AuditStatus::default()
            }),
        });
        let writing = Writing::new(shared.clone(), clock.clone(), file);
        let thread = std::thread::Builder::new().name("audit".into());
        let thread = thread.spawn(move || writing.run());
        let thread = thread.map_err(|error| format!("no thread for the audit log: {error}"))?;
        Ok(Self {
            shared,
            clock,
            thread: Some(thread),
        })
    }

    /// Hands events over. `done` hears once they are on the disk, or that they are not.
    pub(super) fn push(&self, events: Vec<AuditEvent>, done: Option<Done>) {
        let time = self.clock.wall();
        let mut queue = self.shared.queue.lock();
        if let Err(refused) = queue.push(QueuedEvents { time, events, done }) {
            // Whoever waits for them hears that, so nothing is lost without a word.
            if refused.done.is_none() {
                let count = refused.events.len() as u64;
                queue.lost += count;
                self.shared.status.lock().lost += count;
            }
            return;
        }
        drop(queue);
        self.shared.wakeup.notify_one();
    }

    /// Returns the state at this moment.
    pub(super) fn status(&self) -> AuditStatus {
        self.shared.status.lock().clone()
    }

    /// Returns whether the last attempt to write failed. Cheaper than the whole state.
    pub(super) fn is_failing(&self) -> bool {
        self.shared.status.lock().is_failing
    }
}
