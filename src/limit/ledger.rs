//! A record of what was sent, kept across restarts in the state directory.
//!
//! One record is appended before each attempt is sent, and one when it has ended. They are not
//! synced: they have to survive SIGKILL, not power loss. A new process reads them and begins with
//! the slots that are still occupied, the rates that were learned, and what writes may still
//! change. So a restart neither uses a budget twice nor lets a write overtake an earlier one whose
//! outcome is unknown.
//!
//! The end of an attempt with a clear outcome is written together with the next record, or
//! 10 ms later, which saves every second system call. Without it a new process takes
//! the attempt for one in flight: its slot stays occupied for longer, and the lanes of its write
//! stay closed for Q. So what a kill may lose here costs time and breaks no promise.
//!
//! The ledger is believed only if it is complete. If it is missing, damaged, of another key or of
//! another boot of the machine, nothing is known: every budget begins as on a new node, and any
//! earlier write may still take effect. Another boot counts as unknown for two reasons. The end of
//! the file may be lost with the power. And a directory that is moved to another machine was
//! written a moment ago, however long that machine has been up.
//!
//! If a record cannot be written (a full disk), the file is removed: an incomplete ledger would be
//! worse than none.

mod entry;
mod file;
mod record;
mod replay;
#[cfg(test)]
mod tests;

pub use entry::{
    AccountId, Charge, Intent, KnownEffect, Left, Name, PastBudget, PastUsage, name_hash,
};
pub(super) use entry::{LEARNED_FOR, MOST_LEARNED};

use crate::clock::{BootTime, Clock};
use file::LedgerFile;
use record::{AttemptRecord, Head, parse};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// A write that acts on more names is recorded as one that may act on anything of its credential.
const MOST_NAMES: usize = 128;

/// The time within which [`Budgets::drive`](super::budgets::Budgets::drive) writes the end of an
/// attempt, if no other record is written before.
pub(super) const WRITTEN_WITHIN: Duration = Duration::from_millis(10);

/// How a ledger is opened.
#[derive(Clone, Copy, Debug)]
pub struct LedgerSpec {
    /// Derived from the key of the credential hashes: a ledger written under another key names
    /// other budgets and is not believed.
    pub key_check: [u8; 16],
    /// How long the intents of writes are kept that may still take effect, or be retried.
    pub keep: Duration,
    /// Whether an earlier process has used the directory, so that a ledger must be there.
    pub expected: bool,
}

/// Appends to the ledger file, or to nothing.
#[derive(Debug)]
pub struct Ledger {
    clock: Clock,
    file: Option<LedgerFile>,
    next: u64,
}

/// The result of opening a ledger.
#[derive(Debug)]
pub struct Opened {
    /// The ledger in which attempts are recorded from now on.
    pub ledger: Ledger,
    /// `None` if nothing is known of what was sent before.
    pub history: Option<PastUsage>,
    /// The attempts of writes that may still take effect, or be retried. `None` if any write may.
    pub left: Option<Vec<Left>>,
    /// Why nothing is known, for the log.
    pub note: Option<String>,
    /// Why attempts are not recorded from now on, for the log.
    pub unkept: Option<String>,
}

impl Ledger {
    /// A ledger that keeps nothing: every start is that of a new node.
    pub fn none(clock: Clock) -> Self {
        Self {
            clock,
            file: None,
            next: 0,
        }
    }

    /// Opens or creates `path`. If the file cannot be written it is removed, and nothing is
    /// recorded.
    ///
    /// # Errors
    /// If there is a file that can neither be read nor removed: the next start would believe it.
    pub fn open(path: &Path, spec: LedgerSpec, clock: Clock) -> io::Result<Opened> {
        let Some(boot) = clock.boot() else {
            // A later start must not believe it: what this process sends is not in it.
            file::remove(path)?;
            return Ok(Opened {
                ledger: Self::none(clock),
                history: None,
                left: Some(Vec::new()),
                note: None,
                unkept: Some("this system has no boot clock".into()),
            });
        };
        let head = Head {
            key_check: spec.key_check,
            boot: boot.id,
        };
        let found = match std::fs::read(path) {
            Ok(bytes) => parse(&bytes, head).map_err(|why| Some(why.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let lost = "it is gone, although this directory has been used before";
                Err(spec.expected.then(|| lost.to_owned()))
            }
            Err(error) => Err(Some(error.to_string())),
        };
        let (found, note) = match found {
            Ok(attempts) => (Some(attempts), None),
            Err(note) => (None, note),
        };
        let (is_known, is_new) = (found.is_some(), found.is_none() && note.is_none());
        let mut attempts = found.unwrap_or_default();
        for attempt in attempts.iter_mut().filter(|attempt| !attempt.ended) {
            // An attempt in flight has ended with its process, now at the latest. The next start
            // must not take it for one that ends only then.
            (attempt.ended, attempt.at) = (true, boot.since);
        }
        let kept = replay::kept(attempts, boot.since, spec.keep);
        let next = kept.iter().map(|attempt| attempt.number + 1).max();
        let (file, unkept) = match LedgerFile::rewrite(path, head, spec.keep, &kept) {
            Ok(file) => (Some(file), None),
            Err(error) => {
                file::remove(path)?;
                (None, Some(error.to_string()))
            }
        };
        let now = clock.now();
        Ok(Opened {
            history: is_known.then(|| replay::history(&kept, boot, now)),
            left: (is_known || is_new).then(|| replay::left(kept, boot, now)),
            note: note.map(|why| format!("{}: {why}", path.display())),
            unkept,
            ledger: Self {
                clock,
                file,
                next: next.unwrap_or(0),
            },
        })
    }

    /// Whether attempts are being recorded.
    pub fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Records that an attempt is about to be sent, and returns its number. The hold of `charge` is
    /// that of an attempt without a response (W + Q). `intents` are those of the writes that the
    /// attempt carries.
    pub fn sent(&mut self, charge: Charge, intents: &[Intent]) -> u64 {
        let number = self.next;
        self.next += 1;
        self.add(number, charge, None, intents);
        self.write();
        number
    }

    /// Notes that an attempt has ended, what it costs its budget from now on, and what is known of
    /// its effect. See [`Ledger::is_behind`].
    pub fn ended(&mut self, number: u64, charge: Charge, effect: KnownEffect) {
        self.add(number, charge, Some(effect), &[]);
        // A write without effect is sent again, which must not count from this attempt on. One that
        // may take effect late ended now, and not with the process.
        if effect != KnownEffect::Final {
            self.write();
        }
    }

    /// Whether the end of an attempt is still to be written.
    pub fn is_behind(&self) -> bool {
        self.file.as_ref().is_some_and(LedgerFile::is_behind)
    }

    /// Writes what is noted. If that fails, the file is removed and nothing is recorded any more.
    pub fn write(&mut self) {
        let (Some(file), Some(boot)) = (&mut self.file, self.clock.boot()) else {
            return;
        };
        if !file.is_behind() {
            return;
        }
        let Err(error) = file.write(boot.since) else {
            return;
        };
        tracing::error!(
            error = %error,
            "cannot write the ledger; it is removed, and after a restart the gateway assumes \
             that anything could have been sent"
        );
        if let Err(error) = file::remove(&file.path) {
            tracing::error!(error = %error, "cannot remove the ledger; remove it before a restart");
        }
        self.file = None;
    }

    fn add(&mut self, number: u64, charge: Charge, ended: Option<KnownEffect>, intents: &[Intent]) {
        let (Some(file), Some(boot)) = (&mut self.file, self.clock.boot()) else {
            return;
        };
        let intents = intents.iter();
        let intents = intents.map(|intent| recorded(intent, boot, self.clock.now()));
        file.add(&AttemptRecord {
            number,
            at: boot.since,
            charge,
            ended: ended.is_some(),
            effect: ended.unwrap_or(KnownEffect::Late),
            intents: intents.collect(),
        });
    }
}

/// The intent as it is recorded.
fn recorded(intent: &Intent, boot: BootTime, now: Instant) -> Intent<Duration> {
    let since = now.saturating_duration_since(intent.first);
    let mut recorded = intent.clone().with_first(boot.since.saturating_sub(since));
    recorded.names = recorded.names.filter(|names| names.len() <= MOST_NAMES);
    recorded
}
