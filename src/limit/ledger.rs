//! What was sent, kept across restarts in the state directory.
//!
//! Records are appended before each attempt leaves, and one when it has ended. They are not synced:
//! they have to survive SIGKILL, not power loss. A new process reads them and begins with the slots
//! that are still occupied, the rates that were learned, and what writes may still take effect, so
//! that a restart neither lets a budget through twice nor lets a write overtake an earlier one
//! whose outcome is unknown. Where the ledger is missing, damaged, of another key or of another
//! boot of the machine, nothing is known: every budget begins as on a new node, and any earlier
//! write may still take effect.
//!
//! Another boot: the end of the file may be lost with the power, and a directory that is moved to
//! another machine was written a moment ago, however long that machine has been up.
//!
//! A write that fails (a full disk) removes the file: an incomplete ledger would be worse than
//! none.

mod record;
#[cfg(test)]
mod tests;

pub use record::Name;

use crate::clock::{BootTime, Clock};
use crate::credential::Credential;
use crate::limit::evidence::InForce;
use crate::private_file;
use crate::route::policy::Rate;
use record::{Attempt, Head, RECORD, parse};
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The file is rewritten with what still counts when it has grown to this size.
const COMPACT_AT: u64 = 4 * 1024 * 1024;
/// Boot times are rounded down to 10 ms when written and when read.
const ROUNDING: Duration = Duration::from_millis(20);
/// For so long the rates are kept that answers have taught, and of so many budgets.
pub(super) const LEARNED_FOR: Duration = Duration::from_secs(7 * 86_400);
pub(super) const MOST_LEARNED: usize = 20_000;
/// A write that acts on more names is recorded as one that may act on anything of its credential.
const MOST_NAMES: usize = 128;

/// Names a budget of a credential in the ledger: a keyed hash, never the token.
pub type AccountId = [u8; 16];

/// What an earlier process left.
pub type History = HashMap<AccountId, Past>;

/// What an earlier process left of one budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// How long each of its slots stays occupied.
    pub held: Vec<Instant>,
    /// The rate that was in force at last.
    pub rate: Rate,
    /// Whether answers had taught it.
    pub is_learned: bool,
}

/// What a write acts on that is about to leave. Names are keyed hashes, never in clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Whose it is.
    pub credential: Credential,
    /// The operation, by a hash of its name: it says what the write changes.
    pub operation: [u8; 8],
    /// Whether it may change anything, whatever its operation says.
    pub everything: bool,
    /// Its id, if it is a durable write.
    pub write: Option<[u8; 16]>,
    /// When the first attempt left that may have taken effect.
    pub first: Instant,
    /// What it acts on; `None` if that may be anything of its credential.
    pub names: Option<Vec<Name>>,
}

/// An attempt of an earlier process for one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// What it acts on.
    pub intent: Intent,
    /// When the attempt ended; of one that was under way when its process ended, that is now.
    pub ended: Instant,
    /// Whether it ended without an answer that excludes a later effect.
    pub late: bool,
}

/// What is known of the effect of an attempt that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It has none: it never left, or was answered with 429.
    None,
    /// It has taken effect, or never will.
    Known,
    /// It may still take effect.
    Late,
}

/// How a ledger is opened.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Derived from the key of the credential hashes: a ledger written under another key names
    /// other budgets and is not believed.
    pub key_check: [u8; 16],
    /// How long the intents of writes are kept that may still take effect, or be repeated.
    pub keep: Duration,
    /// Whether an earlier process has used the directory, so that a ledger must be there.
    pub expected: bool,
}

/// Appends to the ledger file, or to nothing.
#[derive(Debug)]
pub struct Ledger {
    clock: Clock,
    disk: Option<Disk>,
    next: u64,
}

#[derive(Debug)]
struct Disk {
    path: PathBuf,
    file: File,
    head: Head,
    keep: Duration,
    length: u64,
    compact_at: u64,
}

/// The result of opening a ledger.
#[derive(Debug)]
pub struct Opened {
    /// Where attempts are recorded from now on.
    pub ledger: Ledger,
    /// `None`: nothing is known of what was sent before.
    pub history: Option<History>,
    /// The attempts of writes that may still take effect, or be repeated; `None`: any write may.
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
            disk: None,
            next: 0,
        }
    }

    /// Opens or creates `path`. One that cannot be written is removed, and nothing is recorded.
    ///
    /// # Errors
    /// If there is one that can neither be read nor removed: the next start would believe it.
    pub fn open(path: &Path, spec: Spec, clock: Clock) -> io::Result<Opened> {
        let Some(boot) = clock.boot() else {
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
            records: 0,
        };
        let found = match std::fs::read(path) {
            Ok(bytes) => parse(&bytes, head).map_err(|why| Some(why.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let lost = "it is gone, although this directory has been used before";
                Err(spec.expected.then(|| lost.to_owned()))
            }
            Err(error) => Err(Some(error.to_string())),
        };
        let ended = found.iter().flatten().map(|attempt| {
            // One that was under way when its process ended has ended with it, now at the latest; a
            // later start must not take it for one that ends now once more.
            let mut attempt = attempt.clone();
            if !attempt.ended {
                (attempt.ended, attempt.at) = (true, boot.since);
            }
            attempt
        });
        let kept = kept(ended.collect(), boot.since, spec.keep);
        let next = kept.iter().map(|attempt| attempt.number + 1).max();
        let (disk, unkept) = match Disk::rewrite(path, head, spec.keep, &kept) {
            Ok(disk) => (Some(disk), None),
            Err(error) => {
                remove(path)?;
                (None, Some(error.to_string()))
            }
        };
        let is_known = found.is_ok();
        let note = found.err().flatten();
        let is_new = !is_known && note.is_none();
        let now = clock.now();
        Ok(Opened {
            history: is_known.then(|| history(&kept, boot, now)),
            left: (is_known || is_new).then(|| left(&kept, boot, now)),
            note: note.map(|why| format!("{}: {why}", path.display())),
            unkept,
            ledger: Self {
                clock,
                disk,
                next: next.unwrap_or(0),
            },
        })
    }

    /// Whether attempts are being recorded.
    pub fn is_kept(&self) -> bool {
        self.disk.is_some()
    }

    /// Records that an attempt is about to leave and returns its number. `hold` is how long its
    /// slot stays occupied from its end on if no answer comes (W + Q), `rate` is in force, and
    /// `intents` are those of the writes that travel with it.
    pub fn sent(
        &mut self,
        account: AccountId,
        hold: Duration,
        rate: impl Into<InForce>,
        intents: &[Intent],
    ) -> u64 {
        let InForce { rate, is_learned } = rate.into();
        let number = self.next;
        self.next += 1;
        self.append(
            Attempt {
                number,
                account,
                at: Duration::ZERO,
                hold,
                rate,
                is_learned,
                ended: false,
                effect: Effect::Late,
                intents: Vec::new(),
            },
            intents,
        );
        number
    }

    /// Records that it has ended, that its slot stays occupied for `hold` from now, the rate that
    /// is in force now, and what is known of its effect.
    pub fn ended(
        &mut self,
        number: u64,
        account: AccountId,
        (hold, effect): (Duration, Effect),
        rate: impl Into<InForce>,
    ) {
        let InForce { rate, is_learned } = rate.into();
        self.append(
            Attempt {
                number,
                account,
                at: Duration::ZERO,
                hold,
                rate,
                is_learned,
                ended: true,
                effect,
                intents: Vec::new(),
            },
            &[],
        );
    }

    fn append(&mut self, attempt: Attempt, intents: &[Intent]) {
        let Some(disk) = &mut self.disk else { return };
        let Some(boot) = self.clock.boot() else {
            return;
        };
        let now = self.clock.now();
        let intents = intents.iter().map(|intent| written(intent, boot, now));
        let attempt = Attempt {
            at: boot.since,
            intents: intents.collect(),
            ..attempt
        };
        if let Err(error) = disk.append(&attempt, boot.since) {
            tracing::error!(
                error = %error,
                "cannot write the ledger; it is removed, and after a restart the gateway assumes \
                 that anything could have been sent"
            );
            if let Err(error) = remove(&disk.path) {
                tracing::error!(error = %error, "cannot remove the ledger; remove it before a restart");
            }
            self.disk = None;
        }
    }
}

impl Disk {
    /// Replaces the file by one that holds `attempts`, atomically.
    fn rewrite(path: &Path, head: Head, keep: Duration, attempts: &[Attempt]) -> io::Result<Self> {
        let temporary = path.with_extension("new");
        let mut bytes = vec![0; RECORD];
        let mut head = Head { records: 0, ..head };
        for attempt in attempts {
            attempt.encode(head.records, &mut bytes);
            head.records = (bytes.len() / RECORD) as u64 - 1;
        }
        bytes[..RECORD].copy_from_slice(&head.encode());
        let mut file = private_file::create(&temporary)?;
        file.write_all(&bytes)?;
        std::fs::rename(&temporary, path)?;
        let length = bytes.len() as u64;
        Ok(Self {
            path: path.to_owned(),
            file,
            head,
            keep,
            length,
            compact_at: COMPACT_AT.max(length * 2),
        })
    }

    /// Writes the records, and then that they count.
    fn append(&mut self, attempt: &Attempt, now: Duration) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(RECORD * 2);
        attempt.encode(self.head.records, &mut bytes);
        self.file.write_all_at(&bytes, self.length)?;
        self.length += bytes.len() as u64;
        self.head.records += (bytes.len() / RECORD) as u64;
        self.file.write_all_at(&self.head.encode(), 0)?;
        if self.length < self.compact_at {
            return Ok(());
        }
        let attempts = parse(&std::fs::read(&self.path)?, self.head).map_err(io::Error::other)?;
        let kept = kept(attempts, now, self.keep);
        *self = Self::rewrite(&self.path, self.head, self.keep, &kept)?;
        Ok(())
    }
}

/// Removes a ledger that would say less than was sent. Emptied it is as good as removed.
fn remove(path: &Path) -> io::Result<()> {
    private_file::remove(path).or_else(|_| OpenOptions::new().write(true).open(path)?.set_len(0))
}

/// How long its slot stays occupied from `now` on.
fn holds(attempt: &Attempt, now: Duration) -> Option<Duration> {
    let age = match attempt.ended {
        true => now.saturating_sub(attempt.at),
        // It ends at some time from now on.
        false => Duration::ZERO,
    };
    let left = (attempt.hold + ROUNDING).checked_sub(age)?;
    (!left.is_zero()).then_some(left)
}

/// Those that count, and the last one of each budget whose rate answers have taught lately.
fn kept(attempts: Vec<Attempt>, now: Duration, keep: Duration) -> Vec<Attempt> {
    let last: HashMap<AccountId, u64> = attempts
        .iter()
        .map(|attempt| (attempt.account, attempt.number))
        .collect();
    let teaches = |attempt: &&Attempt| {
        attempt.is_learned
            && last.get(&attempt.account) == Some(&attempt.number)
            && now.saturating_sub(attempt.at) < LEARNED_FOR
    };
    let teaching = attempts.iter().rev().filter(teaches).take(MOST_LEARNED);
    let teaching: HashSet<u64> = teaching.map(|attempt| attempt.number).collect();
    let counts =
        |attempt: &Attempt| counts(attempt, now, keep) || teaching.contains(&attempt.number);
    attempts.into_iter().filter(counts).collect()
}

/// Whether anything still depends on it: its slot, or what is done with the writes that it is for.
fn counts(attempt: &Attempt, now: Duration, keep: Duration) -> bool {
    let is_recent = !attempt.ended || now.saturating_sub(attempt.at) < keep + ROUNDING;
    let has_intents = attempt
        .intents
        .iter()
        .any(|intent| attempt.effect == Effect::Late || intent.write.is_some());
    holds(attempt, now).is_some() || (is_recent && has_intents)
}

fn history(attempts: &[Attempt], boot: BootTime, now: Instant) -> History {
    let mut history = History::new();
    for attempt in attempts {
        let left = holds(attempt, boot.since);
        if left.is_none() && !attempt.is_learned {
            continue;
        }
        let past = history.entry(attempt.account).or_insert_with(|| Past {
            held: Vec::new(),
            rate: attempt.rate,
            is_learned: attempt.is_learned,
        });
        past.held.extend(left.map(|left| now + left));
        // They are in the order in which they were sent.
        past.rate = attempt.rate;
        past.is_learned = attempt.is_learned;
    }
    history
}

fn left(attempts: &[Attempt], boot: BootTime, now: Instant) -> Vec<Left> {
    let instant = |at: Duration| {
        let instant = now.checked_sub(boot.since.saturating_sub(at));
        instant.unwrap_or(now)
    };
    let mut left = Vec::new();
    for attempt in attempts {
        left.extend(attempt.intents.iter().map(|intent| Left {
            intent: Intent {
                credential: intent.credential,
                operation: intent.operation,
                everything: intent.everything,
                write: intent.write,
                first: instant(intent.first),
                names: intent.names.clone(),
            },
            ended: instant(attempt.at),
            late: attempt.effect == Effect::Late,
        }));
    }
    left
}

/// The intent as it is kept.
fn written(intent: &Intent, boot: BootTime, now: Instant) -> record::Intent {
    let since = now.saturating_duration_since(intent.first);
    let names = intent.names.as_ref();
    record::Intent {
        credential: intent.credential,
        operation: intent.operation,
        everything: intent.everything,
        write: intent.write,
        first: boot.since.saturating_sub(since),
        names: names.filter(|names| names.len() <= MOST_NAMES).cloned(),
    }
}
