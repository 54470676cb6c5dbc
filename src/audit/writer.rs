//! The thread that writes the audit log.
//!
//! Everybody else hands events over and goes on. The thread takes all that waits, and writes it at
//! once; those who wait for the disk share one sync. If the disk fails, events wait within bounds,
//! and the thread tries again every second. What finds no room meanwhile is counted, and recorded as
//! `lost` by the first write that succeeds.

use super::chain::{ChainHead, line};
use super::event::AuditEvent;
use super::file::{AuditFile, AuditFileSpec};
use super::{AUDIT, NotAudited};
use crate::clock::Clock;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;

/// The bounds of what waits: the number of events, and their bytes.
const MOST_WAITING: usize = 10_000;
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// The pause between two attempts while the disk fails.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How often the head of the chain is written into the ordinary log, if it has moved.
const HEAD_EVERY: Duration = Duration::from_secs(60);

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

/// The handle of the thread. Dropping it lets the thread write what waits, and ends it.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    clock: Clock,
    thread: Option<JoinHandle<()>>,
}

/// Who waits for the events before this.
type Done = oneshot::Sender<Result<(), NotAudited>>;

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wakeup: Condvar,
    status: Mutex<AuditStatus>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Handed>,
    bytes: usize,
    /// The events that found no room since the last record of them.
    lost: u64,
    is_ending: bool,
}

/// Events that were handed over together.
#[derive(Debug)]
struct Handed {
    time: SystemTime,
    events: Vec<AuditEvent>,
    done: Option<Done>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue.lock().is_ending = true;
        self.shared.wakeup.notify_one();
        if let Some(thread) = self.thread.take() {
            // It ends after one more attempt, whether that succeeds or not.
            let _ = thread.join();
        }
    }
}

impl Writer {
    /// Opens the file and starts the thread.
    ///
    /// # Errors
    /// See [`AuditFile::open`].
    pub(super) fn start(spec: AuditFileSpec, clock: Clock) -> Result<Self, String> {
        let file = AuditFile::open(spec)?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wakeup: Condvar::new(),
            status: Mutex::new(AuditStatus {
                head: file.head(),
                ..AuditStatus::default()
            }),
        });
        let writing = Writing {
            shared: shared.clone(),
            clock: clock.clone(),
            file,
        };
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
        let bytes: usize = events.iter().map(AuditEvent::weight).sum();
        let mut queue = self.shared.queue.lock();
        let number = queue.waiting.len() + events.len();
        if number > MOST_WAITING || queue.bytes + bytes > MOST_BYTES {
            // Whoever waits for them hears that, so nothing is lost without a word.
            if done.is_none() {
                queue.lost += events.len() as u64;
                self.shared.status.lock().lost += events.len() as u64;
            }
            return;
        }
        queue.bytes += bytes;
        queue.waiting.push(Handed {
            time: self.clock.wall(),
            events,
            done,
        });
        drop(queue);
        self.shared.wakeup.notify_one();
    }

    pub(super) fn status(&self) -> AuditStatus {
        self.shared.status.lock().clone()
    }

    pub(super) fn is_failing(&self) -> bool {
        self.shared.status.lock().is_failing
    }
}

/// What the thread has.
struct Writing {
    shared: Arc<Shared>,
    clock: Clock,
    file: AuditFile,
}

impl Writing {
    fn run(mut self) {
        let (mut said, mut said_at) = (self.file.head(), self.clock.now());
        loop {
            let (handed, lost, is_ending) = self.take();
            // A disk that fails is asked again even if nothing waits. Writes that are to be recorded
            // before they are sent do not come as long as it does.
            if !handed.is_empty() || lost > 0 || self.shared.status.lock().is_failing {
                self.write(handed, lost);
            }
            let head = self.file.head();
            let is_due = self.clock.now().saturating_duration_since(said_at) >= HEAD_EVERY;
            if head != said && (is_due || is_ending) {
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
    fn take(&self) -> (Vec<Handed>, u64, bool) {
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
    fn write(&mut self, mut handed: Vec<Handed>, lost: u64) {
        if lost > 0 {
            // After what was there before, and before what came later: about where they are missing.
            handed.push(Handed {
                time: self.clock.wall(),
                events: vec![AuditEvent::Lost { count: lost }],
                done: None,
            });
        }
        let written = self.append(&handed);
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
    fn append(&mut self, handed: &[Handed]) -> io::Result<()> {
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

    /// Puts events back before those that came meanwhile. What exceeds the bounds is lost.
    fn put_back(&self, mut back: Vec<Handed>) {
        let mut queue = self.shared.queue.lock();
        back.append(&mut queue.waiting);
        // The count of a record of lost events is a count again.
        for one in &back {
            if let [AuditEvent::Lost { count }] = one.events[..] {
                queue.lost += count;
            }
        }
        back.retain(|one| !matches!(one.events[..], [AuditEvent::Lost { .. }]));
        let events = back.iter().flat_map(|one| &one.events);
        queue.bytes = events.map(AuditEvent::weight).sum();
        queue.waiting = back;
    }
}
