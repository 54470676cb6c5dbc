//! What was sent, kept across restarts in the state directory.
//!
//! One fixed-size record is appended before each attempt leaves, and one when it has ended. They
//! are not synced: they have to survive SIGKILL, not power loss. A new process reads them and
//! begins with the slots that are still occupied and the rates that were learned, so that a
//! restart never lets a budget through twice. Where the ledger is missing, damaged, of another key
//! or of another boot of the machine, nothing is known, and every budget begins as on a new node:
//! that is always safe.
//!
//! Another boot: the end of the file may be lost with the power, and a directory that is moved to
//! another machine was written a moment ago, however long that machine has been up.
//!
//! A write that fails (a full disk) removes the file: an incomplete ledger would be worse than none.

use crate::clock::Clock;
use crate::route::policy::Rate;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of a record, and of the head of the file.
const RECORD: usize = 64;
const MAGIC: &[u8; 4] = b"SGL1";
/// The file is rewritten with what still counts when it has grown to this size.
const COMPACT_AT: u64 = 4 * 1024 * 1024;
/// Boot times are rounded down to 10 ms when written and when read.
const ROUNDING: Duration = Duration::from_millis(20);

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
    length: u64,
    compact_at: u64,
}

/// What a ledger must have been written under to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    /// Derived from the key of the credential hashes.
    key_check: [u8; 16],
    boot: [u8; 16],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An attempt is about to leave; `hold` counts from its end, which the next record tells.
    Sent = 1,
    /// It has ended; `hold` counts from this record.
    Ended = 2,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    kind: Kind,
    attempt: u64,
    account: AccountId,
    /// Since the boot of the machine.
    at: Duration,
    hold: Duration,
    rate: Rate,
}

/// The result of opening a ledger.
#[derive(Debug)]
pub struct Opened {
    /// Where attempts are recorded from now on.
    pub ledger: Ledger,
    /// `None`: nothing is known of what was sent before.
    pub history: Option<History>,
    /// Why nothing is known, for the log.
    pub note: Option<String>,
    /// Whether attempts were under way when the last process ended: they may still take effect.
    pub unended: bool,
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

    /// Opens or creates `path`. `key_check` is derived from the key of the credential hashes:
    /// a ledger written under another key names other budgets and is not believed.
    pub fn open(path: &Path, key_check: [u8; 16], clock: Clock) -> io::Result<Opened> {
        let now = clock.now();
        let Some(boot) = clock.boot() else {
            return Ok(Opened {
                ledger: Self::none(clock),
                history: None,
                note: Some("this system has no boot clock, so no ledger can be kept".into()),
                unended: false,
            });
        };
        let head = Head {
            key_check,
            boot: boot.id,
        };
        let (records, note) = match std::fs::read(path) {
            Ok(bytes) => match parse(&bytes, head) {
                Ok(records) => (Some(records), None),
                Err(why) => (None, Some(format!("{}: {why}", path.display()))),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, None),
            Err(error) => return Err(error),
        };
        let live = records.as_deref().map(|records| live(records, boot.since));
        // An attempt that was under way when its process ended has ended with it, now at the
        // latest; a later start must not take it for one that ends now once more.
        let kept: Vec<Record> = live
            .iter()
            .flatten()
            .map(|(record, _)| match record.kind {
                Kind::Ended => *record,
                Kind::Sent => Record {
                    kind: Kind::Ended,
                    at: boot.since,
                    ..*record
                },
            })
            .collect();
        let mut found = live.iter().flatten();
        let unended = found.any(|(record, _)| record.kind == Kind::Sent);
        let next = kept
            .iter()
            .map(|record| record.attempt + 1)
            .max()
            .unwrap_or(0);
        let disk = Disk::rewrite(path, head, &kept)?;
        let history = live.map(|live| {
            let mut history = History::new();
            for (record, left) in live {
                let past = history.entry(record.account).or_insert_with(|| Past {
                    held: Vec::new(),
                    rate: record.rate,
                });
                past.held.push(now + left);
                // They are in the order in which they were sent.
                past.rate = record.rate;
            }
            history
        });
        Ok(Opened {
            ledger: Self {
                clock,
                disk: Some(disk),
                next,
            },
            history,
            note,
            unended,
        })
    }

    /// Whether attempts are being recorded.
    pub fn is_kept(&self) -> bool {
        self.disk.is_some()
    }

    /// Records that an attempt is about to leave and returns its number. `hold` is how long its
    /// slot stays occupied from its end on if no answer comes (W + Q), `rate` is in force.
    pub fn sent(&mut self, account: AccountId, hold: Duration, rate: Rate) -> u64 {
        let attempt = self.next;
        self.next += 1;
        self.append(Record {
            kind: Kind::Sent,
            attempt,
            account,
            at: Duration::ZERO,
            hold,
            rate,
        });
        attempt
    }

    /// Records that it has ended, that its slot stays occupied for `hold` from now, and the rate
    /// that is in force now.
    pub fn ended(&mut self, attempt: u64, account: AccountId, hold: Duration, rate: Rate) {
        self.append(Record {
            kind: Kind::Ended,
            attempt,
            account,
            at: Duration::ZERO,
            hold,
            rate,
        });
    }

    fn append(&mut self, record: Record) {
        let Some(disk) = &mut self.disk else { return };
        let Some(boot) = self.clock.boot() else {
            return;
        };
        let at = boot.since;
        let record = Record { at, ..record };
        if let Err(error) = disk.append(&record, at) {
            tracing::error!(
                error = %error,
                "cannot write the ledger; it is removed, and a restart will begin as on a new node"
            );
            let _ = std::fs::remove_file(&disk.path);
            self.disk = None;
        }
    }
}

impl Disk {
    /// Replaces the file by one that holds `records`, atomically.
    fn rewrite(path: &Path, head: Head, records: &[Record]) -> io::Result<Self> {
        let temporary = path.with_extension("new");
        let mut bytes = Vec::with_capacity(RECORD * (records.len() + 1));
        bytes.extend_from_slice(&head.encode());
        for record in records {
            bytes.extend_from_slice(&record.encode());
        }
        let mut file = File::create(&temporary)?;
        file.write_all(&bytes)?;
        drop(file);
        std::fs::rename(&temporary, path)?;
        let file = OpenOptions::new().append(true).open(path)?;
        let length = bytes.len() as u64;
        Ok(Self {
            path: path.to_owned(),
            file,
            head,
            length,
            compact_at: COMPACT_AT.max(length * 2),
        })
    }

    fn append(&mut self, record: &Record, now: Duration) -> io::Result<()> {
        // One write call of the whole record: a kill leaves all of it or none.
        self.file.write_all(&record.encode())?;
        self.length += RECORD as u64;
        if self.length < self.compact_at {
            return Ok(());
        }
        let mut bytes = Vec::new();
        File::open(&self.path)?.read_to_end(&mut bytes)?;
        let records = parse(&bytes, self.head).map_err(io::Error::other)?;
        let kept: Vec<Record> = live(&records, now)
            .into_iter()
            .map(|(record, _)| record)
            .collect();
        *self = Self::rewrite(&self.path, self.head, &kept)?;
        Ok(())
    }
}

/// The last record of each attempt that still occupies a slot, and for how long from `now`.
fn live(records: &[Record], now: Duration) -> Vec<(Record, Duration)> {
    let mut last: HashMap<u64, &Record> = HashMap::new();
    for record in records {
        last.insert(record.attempt, record);
    }
    let mut live: Vec<(Record, Duration)> = last
        .into_values()
        .filter_map(|record| {
            let age = match record.kind {
                Kind::Ended => now.saturating_sub(record.at),
                // It was under way when the process ended, which was at some time up to now.
                Kind::Sent => Duration::ZERO,
            };
            let left = (record.hold + ROUNDING).checked_sub(age)?;
            (!left.is_zero()).then_some((*record, left))
        })
        .collect();
    live.sort_unstable_by_key(|(record, _)| record.attempt);
    live
}

fn parse(bytes: &[u8], head: Head) -> Result<Vec<Record>, &'static str> {
    let (start, rest) = bytes
        .split_at_checked(RECORD)
        .ok_or("the ledger is cut short")?;
    if start[..4] != MAGIC[..] {
        return Err("this is not a ledger, or one of another version");
    }
    if !is_sealed(start) {
        return Err("the ledger is damaged");
    }
    if start[4..20] != head.key_check {
        return Err("the ledger was written under another key for credential hashes");
    }
    if start[20..36] != head.boot {
        return Err("the ledger was written before this machine was started, or on another one");
    }
    // What a kill may leave at the end is not a whole record; it was never acted upon.
    rest.chunks_exact(RECORD)
        .map(|chunk| Record::decode(chunk).ok_or("the ledger is damaged"))
        .collect()
}

impl Head {
    fn encode(self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..20].copy_from_slice(&self.key_check);
        bytes[20..36].copy_from_slice(&self.boot);
        seal(&mut bytes);
        bytes
    }
}

impl Record {
    fn encode(&self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[0] = self.kind as u8;
        bytes[4..12].copy_from_slice(&self.attempt.to_be_bytes());
        bytes[12..28].copy_from_slice(&self.account);
        bytes[28..36].copy_from_slice(&millis(self.at).to_be_bytes());
        bytes[36..44].copy_from_slice(&millis(self.hold).to_be_bytes());
        bytes[44..48].copy_from_slice(&self.rate.limit.to_be_bytes());
        bytes[48..56].copy_from_slice(&millis(self.rate.window).to_be_bytes());
        seal(&mut bytes);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        if !is_sealed(bytes) {
            return None;
        }
        let number = |range: std::ops::Range<usize>| {
            Some(u64::from_be_bytes(bytes.get(range)?.try_into().ok()?))
        };
        Some(Self {
            kind: match bytes.first()? {
                1 => Kind::Sent,
                2 => Kind::Ended,
                _ => return None,
            },
            attempt: number(4..12)?,
            account: bytes.get(12..28)?.try_into().ok()?,
            at: Duration::from_millis(number(28..36)?),
            hold: Duration::from_millis(number(36..44)?),
            rate: Rate {
                limit: u32::from_be_bytes(bytes.get(44..48)?.try_into().ok()?),
                window: Duration::from_millis(number(48..56)?),
            },
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// FNV-1a over the record: it finds torn and zeroed records, not an attacker, who could as well
/// delete the file.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    hash.to_be_bytes()
}

fn seal(bytes: &mut [u8; RECORD]) {
    let sum = checksum(&bytes[..RECORD - 4]);
    bytes[RECORD - 4..].copy_from_slice(&sum);
}

fn is_sealed(bytes: &[u8]) -> bool {
    bytes.len() == RECORD && checksum(&bytes[..RECORD - 4]) == bytes[RECORD - 4..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    const W: Duration = Duration::from_secs(60);
    const WQ: Duration = Duration::from_secs(120);
    const RATE: Rate = Rate {
        limit: 60,
        window: W,
    };

    fn clock(up: u64) -> Clock {
        Clock::simulated(
            SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30),
            Duration::from_secs(up),
        )
    }

    fn open(path: &Path, clock: &Clock) -> Opened {
        Ledger::open(path, [9; 16], clock.clone()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_finds_the_slots_that_are_still_occupied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let clock = clock(1000);
        let mut opened = open(&path, &clock);
        assert!(opened.history.is_none(), "a new node knows nothing");
        let ledger = &mut opened.ledger;
        let done = ledger.sent([1; 16], WQ, RATE);
        ledger.ended(done, [1; 16], W, RATE);
        let old = ledger.sent([1; 16], WQ, RATE);
        ledger.ended(old, [1; 16], Duration::from_secs(3), RATE);
        let never = ledger.sent([1; 16], WQ, RATE);
        ledger.ended(never, [1; 16], Duration::ZERO, RATE);
        ledger.sent([2; 16], WQ, RATE);
        drop(opened);

        tokio::time::advance(Duration::from_secs(10)).await;
        let first = clock.now();
        for wait in [0, 7] {
            tokio::time::advance(Duration::from_secs(wait)).await;
            let opened = open(&path, &clock);
            assert_eq!(opened.unended, wait == 0, "known once");
            let mut history = opened.history.unwrap();
            let ended = first + Duration::from_secs(50) + ROUNDING;
            assert_eq!(history.remove(&[1; 16]).unwrap().held, [ended]);
            // It ended with its process, at the first start after that at the latest.
            let under_way = first + WQ + ROUNDING;
            assert_eq!(history.remove(&[2; 16]).unwrap().held, [under_way]);
            assert!(history.is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_goes_on_with_the_rate_that_was_learned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let clock = clock(1000);
        let mut opened = open(&path, &clock);
        let learned = Rate {
            limit: 1_000,
            window: Duration::from_secs(3_600),
        };
        let first = opened.ledger.sent([1; 16], WQ, RATE);
        opened.ledger.ended(first, [1; 16], learned.window, learned);
        drop(opened);
        assert_eq!(open(&path, &clock).history.unwrap()[&[1; 16]].rate, learned);
    }

    #[tokio::test(start_paused = true)]
    async fn another_boot_or_machine_is_a_new_node() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let clock = clock(50_000);
        let mut opened = open(&path, &clock);
        opened.ledger.sent([1; 16], WQ, RATE);
        drop(opened);
        let bytes = std::fs::read(&path).unwrap();
        let here = Head {
            key_check: [9; 16],
            boot: clock.boot().unwrap().id,
        };
        let records = parse(&bytes, here).unwrap();
        let elsewhere = Head {
            boot: [1; 16],
            ..here
        };
        Disk::rewrite(&path, elsewhere, &records).unwrap();
        let opened = open(&path, &clock);
        assert!(opened.history.is_none() && opened.note.unwrap().contains("another one"));
        assert_eq!(open(&path, &clock).history, Some(History::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_believed_is_a_new_node() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let clock = clock(1000);
        let mut opened = open(&path, &clock);
        opened.ledger.sent([1; 16], WQ, RATE);
        drop(opened);
        let whole = std::fs::read(&path).unwrap();

        let mut torn = whole.clone();
        torn.extend_from_slice(&[1; 30]);
        std::fs::write(&path, &torn).unwrap();
        assert!(
            open(&path, &clock).history.is_some(),
            "a torn tail was never acted upon"
        );

        for damage in [5, 70, 100] {
            let mut bad = whole.clone();
            bad[damage] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            let opened = open(&path, &clock);
            assert!(
                opened.history.is_none() && opened.note.is_some(),
                "byte {damage}"
            );
        }
        std::fs::write(&path, &whole).unwrap();
        let other = Ledger::open(&path, [8; 16], clock.clone()).unwrap();
        assert!(other.history.is_none() && other.note.unwrap().contains("another key"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_is_compacted_and_loses_nothing_that_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let clock = clock(1000);
        let mut opened = open(&path, &clock);
        if let Some(disk) = &mut opened.ledger.disk {
            disk.compact_at = 40 * RECORD as u64;
        }
        for _ in 0..1000 {
            let attempt = opened.ledger.sent([1; 16], WQ, RATE);
            opened
                .ledger
                .ended(attempt, [1; 16], Duration::from_millis(1), RATE);
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        opened.ledger.sent([3; 16], WQ, RATE);
        if let Some(disk) = &mut opened.ledger.disk {
            disk.compact_at = 0;
        }
        opened.ledger.sent([3; 16], WQ, RATE);
        assert!(std::fs::metadata(&path).unwrap().len() < 10 * RECORD as u64);
        assert_eq!(open(&path, &clock).history.unwrap()[&[3; 16]].held.len(), 2);
    }
}
