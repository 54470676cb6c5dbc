//! The thread that writes the audit log.
//!
//! The thread takes all that waits, and writes it at
//! once; those who wait for the disk share one sync. If the disk fails, events wait within bounds,
//! and the thread tries again every second. What finds no room meanwhile is counted, and recorded
//! as `lost` by the first write that succeeds.
//!
//! Invariants:
//! - An event that nobody waits for is recorded once, or counted once as lost.
//! - Events are recorded in the order in which they were handed over.
//! - The status never runs ahead of the file: its head is that of lines that are written.
//! - No lock is held while the disk is used.

use super::chain::line;
use super::event::AuditEvent;
use super::file::AuditFile;
use super::queue::{AuditChannel, NotAudited, QueuedEvents};
use super::target::AUDIT;
use crate::clock::Clock;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The pause between two attempts while the disk fails.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How often the head of the chain is written into the ordinary log, if it has moved.
const HEAD_EVERY: Duration = Duration::from_secs(60);

/// What the thread has.
pub(super) struct Writing {
    shared: Arc<AuditChannel>,
    clock: Clock,
    file: AuditFile,
}

impl Writing {
    /// Returns a thread's that writes this file.
    pub(super) fn new(shared: Arc<AuditChannel>, clock: Clock, file: AuditFile) -> Self {
        Self {
            shared,
            clock,
            file,
        }
    }

    /// Writes until the handle is dropped, and once more then.
    pub(super) fn run(mut self) {
        let (mut said, mut said_at) = (self.file.head(), self.clock.now());
        loop {
            let (handed, lost, is_ending) = self.take();
            // A disk that fails is asked again even if nothing waits: writes that are to be
            // recorded before they are sent do not come as long as it does.
            if !handed.is_empty() || lost > 0 || self.shared.status.lock().is_failing {
                self.write(handed, lost);
            }
            let head = self.file.head();
            let is_due = self.clock.now().saturating_duration_since(said_at) >= HEAD_EVERY;
            if head != said && is_due {
                // What a log collector has proves that nothing newer was cut off.
                tracing::info!(target: AUDIT, head = %head, "audit log head");
                (said, said_at) = (head, self.clock.now());
            }
            if is_ending {
                return;
            }
        }
    }

    /// Waits for events, and takes all of them.
    fn take(&self) -> (Vec<QueuedEvents>, u64, bool) {
        let is_failing = self.shared.status.lock().is_failing;
        let mut queue = self.shared.queue.lock();
        if is_failing {
            // Whatever comes meanwhile: a disk that fails is not asked for each event.
            let until = self.clock.now() + RETRY_EVERY;
            let mut is_over = false;
            while !is_over && !queue.is_ending {
                is_over = self.shared.wakeup.wait_until(&mut queue, until).timed_out();
            }
        } else if queue.waiting.is_empty() && !queue.is_ending {
            self.shared.wakeup.wait_for(&mut queue, HEAD_EVERY);
        }
        queue.bytes = 0;
        let handed = std::mem::take(&mut queue.waiting);
        (handed, std::mem::take(&mut queue.lost), queue.is_ending)
    }

    /// Writes events and tells those who wait for them. What nobody waits for is put back if that
    /// fails.
    fn write(&mut self, mut handed: Vec<QueuedEvents>, lost: u64) {
        if lost > 0 {
            // After what was there before, and before what came later: about where they are
            // missing.
            handed.push(QueuedEvents {
                time: self.clock.wall(),
                events: vec![AuditEvent::Lost { count: lost }],
                done: None,
            });
        }
        let written = self.append(&handed);
        // Before anybody hears: who waited for its events sees a state that has them.
        let is_failing = written.is_err();
        let was_failing = {
            let mut status = self.shared.status.lock();
            status.head = self.file.head();
            if !is_failing {
                for event in handed.iter().flat_map(|one| &one.events) {
                    *status.records.entry(event.kind()).or_default() += 1;
                }
            }
            std::mem::replace(&mut status.is_failing, is_failing)
        };
        match (&written, was_failing) {
            (Err(error), false) => tracing::error!(
                file = %self.file.spec().path.display(), %error,
                "the audit log cannot be written: events wait, and are lost beyond the bound"
            ),
            (Ok(()), true) => tracing::warn!("the audit log is written again"),
            _ => {}
        }
        let mut back = Vec::new();
        for mut one in handed {
            match one.done.take() {
                Some(done) => {
                    let result = if is_failing { Err(NotAudited) } else { Ok(()) };
                    let _ = done.send(result);
                }
                None if is_failing => back.push(one),
                None => {}
            }
        }
        if is_failing {
            self.put_back(back);
        }
    }

    /// Writes the lines of these events, and syncs them if somebody waits for that. Without any,
    /// finds out whether the disk takes lines.
    fn append(&mut self, handed: &[QueuedEvents]) -> io::Result<()> {
        if handed.is_empty() {
            return self.file.probe();
        }
        let (mut lines, mut head) = (String::new(), self.file.head());
        let spec = self.file.spec();
        for one in handed {
            for event in &one.events {
                let fields = event.fields(&spec.form);
                let (text, next) = line(&spec.key, &head, (one.time, event.kind(), &fields));
                lines.push_str(&text);
                head = next;
            }
        }
        if !lines.is_empty() {
            self.file.append(lines.as_bytes(), head)?;
        }
        match handed.iter().any(|one| one.done.is_some()) {
            true => self.file.sync(),
            false => Ok(()),
        }
    }

    /// Puts events back. What was lost before them is counted again.
    fn put_back(&self, mut back: Vec<QueuedEvents>) {
        let mut queue = self.shared.queue.lock();
        for one in &back {
            if let [AuditEvent::Lost { count }] = one.events[..] {
                queue.lost += count;
            }
        }
        back.retain(|one| !matches!(one.events[..], [AuditEvent::Lost { .. }]));
        queue.put_back(back);
    }
}
