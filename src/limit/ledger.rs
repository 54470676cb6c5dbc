//! What was sent, kept across restarts in the state directory.
//!
//! One fixed-size record is appended before each attempt leaves, and one when it has ended. They
//! are not synced: they have to survive SIGKILL, not power loss, because after a reboot the
//! machine's uptime bounds the age of whatever was sent before it. A new process reads them and
//! begins with the slots that are still occupied, so that a restart never lets a budget through
//! twice. Where the ledger is missing, damaged or of another key, nothing is known, and every
//! budget begins as on a new node: that is always safe.
//!
//! A write that fails (a full disk) removes the file: an incomplete ledger would be worse than none.

use crate::clock::{BootTime, Clock};
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

/// What an earlier process left: for each budget, how long its slots stay occupied.
pub type History = HashMap<AccountId, Vec<Instant>>;

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
    key_check: [u8; 16],
    length: u64,
    compact_at: u64,
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
    at: BootTime,
    hold: Duration,
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
            });
        };
        let (records, note) = match std::fs::read(path) {
            Ok(bytes) => match parse(&bytes, key_check) {
                Ok(records) => (Some(records), None),
                Err(why) => (None, Some(format!("{}: {why}", path.display()))),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, None),
            Err(error) => return Err(error),
        };
        let live = records.as_deref().map(|records| live(records, boot));
        let kept: Vec<Record> = live.iter().flatten().map(|(record, _)| *record).collect();
        let next = kept
            .iter()
            .map(|record| record.attempt + 1)
            .max()
            .unwrap_or(0);
        let disk = Disk::rewrite(path, key_check, &kept)?;
        let history = live.map(|live| {
            let mut history = History::new();
            for (record, left) in live {
                history.entry(record.account).or_default().push(now + left);
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
        })
    }

    /// Whether attempts are being recorded.
    pub fn is_kept(&self) -> bool {
        self.disk.is_some()
    }

    /// Records that an attempt is about to leave and returns its number. `hold` is how long its
    /// slot stays occupied from its end on if no answer comes (W + Q).
    pub fn sent(&mut self, account: AccountId, hold: Duration) -> u64 {
        let attempt = self.next;
        self.next += 1;
        self.append(Kind::Sent, attempt, account, hold);
        attempt
    }

    /// Records that it has ended and that its slot stays occupied for `hold` from now.
    pub fn ended(&mut self, attempt: u64, account: AccountId, hold: Duration) {
        self.append(Kind::Ended, attempt, account, hold);
    }

    fn append(&mut self, kind: Kind, attempt: u64, account: AccountId, hold: Duration) {
        let Some(disk) = &mut self.disk else { return };
        let Some(at) = self.clock.boot() else { return };
        let record = Record {
            kind,
            attempt,
            account,
            at,
            hold,
        };
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
    fn rewrite(path: &Path, key_check: [u8; 16], records: &[Record]) -> io::Result<Self> {
        let temporary = path.with_extension("new");
        let mut bytes = Vec::with_capacity(RECORD * (records.len() + 1));
        bytes.extend_from_slice(&head(key_check));
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
            key_check,
            length,
            compact_at: COMPACT_AT.max(length * 2),
        })
    }

    fn append(&mut self, record: &Record, now: BootTime) -> io::Result<()> {
        // One write call of the whole record: a kill leaves all of it or none.
        self.file.write_all(&record.encode())?;
        self.length += RECORD as u64;
        if self.length < self.compact_at {
            return Ok(());
        }
        let mut bytes = Vec::new();
        File::open(&self.path)?.read_to_end(&mut bytes)?;
        let records = parse(&bytes, self.key_check).map_err(io::Error::other)?;
        let kept: Vec<Record> = live(&records, now)
            .into_iter()
            .map(|(record, _)| record)
            .collect();
        *self = Self::rewrite(&self.path, self.key_check, &kept)?;
        Ok(())
    }
}

/// The last record of each attempt that still occupies a slot, and for how long from `now`.
fn live(records: &[Record], now: BootTime) -> Vec<(Record, Duration)> {
    let mut last: HashMap<u64, &Record> = HashMap::new();
    for record in records {
        last.insert(record.attempt, record);
    }
    let mut live: Vec<(Record, Duration)> = last
        .into_values()
        .filter_map(|record| {
            let age = if record.at.id == now.id {
                now.since.saturating_sub(record.at.since)
            } else {
                // Sent before this boot: at least as long ago as the machine has been up.
                now.since
            };
            let left = match record.kind {
                Kind::Ended => (record.hold + ROUNDING).checked_sub(age)?,
                // It was under way when the process ended, which was at some time up to now, or
                // up to the boot of the machine if that came later.
                Kind::Sent if record.at.id == now.id => record.hold + ROUNDING,
                Kind::Sent => (record.hold + ROUNDING).checked_sub(now.since)?,
            };
            (!left.is_zero()).then_some((*record, left))
        })
        .collect();
    live.sort_unstable_by_key(|(record, _)| record.attempt);
    live
}

fn head(key_check: [u8; 16]) -> [u8; RECORD] {
    let mut head = [0; RECORD];
    head[..4].copy_from_slice(MAGIC);
    head[4..20].copy_from_slice(&key_check);
    seal(&mut head);
    head
}

fn parse(bytes: &[u8], key_check: [u8; 16]) -> Result<Vec<Record>, &'static str> {
    let (start, rest) = bytes
        .split_at_checked(RECORD)
        .ok_or("the ledger is cut short")?;
    if start[..4] != MAGIC[..] {
        return Err("this is not a ledger, or one of another version");
    }
    if !is_sealed(start) {
        return Err("the ledger is damaged");
    }
    if start[4..20] != key_check {
        return Err("the ledger was written under another key for credential hashes");
    }
    // What a kill may leave at the end is not a whole record; it was never acted upon.
    rest.chunks_exact(RECORD)
        .map(|chunk| Record::decode(chunk).ok_or("the ledger is damaged"))
        .collect()
}

impl Record {
    fn encode(&self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[0] = self.kind as u8;
        bytes[4..12].copy_from_slice(&self.attempt.to_be_bytes());
        bytes[12..28].copy_from_slice(&self.account);
        bytes[28..44].copy_from_slice(&self.at.id);
        bytes[44..52].copy_from_slice(&millis(self.at.since).to_be_bytes());
        bytes[52..60].copy_from_slice(&millis(self.hold).to_be_bytes());
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
            at: BootTime {
                id: bytes.get(28..44)?.try_into().ok()?,
                since: Duration::from_millis(number(44..52)?),
            },
            hold: Duration::from_millis(number(52..60)?),
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
        let done = ledger.sent([1; 16], WQ);
        ledger.ended(done, [1; 16], W);
        let old = ledger.sent([1; 16], WQ);
        ledger.ended(old, [1; 16], Duration::from_secs(3));
        let never = ledger.sent([1; 16], WQ);
        ledger.ended(never, [1; 16], Duration::ZERO);
        ledger.sent([2; 16], WQ);
        drop(opened);

        tokio::time::advance(Duration::from_secs(10)).await;
        for _ in 0..2 {
            let opened = open(&path, &clock);
            let now = clock.now();
            let mut history = opened.history.unwrap();
            assert_eq!(
                history.remove(&[1; 16]).unwrap(),
                vec![now + Duration::from_secs(50) + ROUNDING]
            );
            assert_eq!(history.remove(&[2; 16]).unwrap(), vec![now + WQ + ROUNDING]);
            assert!(history.is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_reboot_the_uptime_bounds_the_age() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let before = clock(50_000);
        let mut opened = open(&path, &before);
        opened.ledger.sent([1; 16], WQ);
        let account = [2; 16];
        let done = opened.ledger.sent(account, WQ);
        opened.ledger.ended(done, account, W);
        drop(opened);
        // Give the records another boot id than the clock that reads them.
        let bytes = std::fs::read(&path).unwrap();
        let mut records = parse(&bytes, [9; 16]).unwrap();
        records.iter_mut().for_each(|record| record.at.id = [1; 16]);
        Disk::rewrite(&path, [9; 16], &records).unwrap();

        let after = clock(30);
        let history = open(&path, &after).history.unwrap();
        let now = after.now();
        assert_eq!(
            history[&[1; 16]],
            vec![now + Duration::from_secs(90) + ROUNDING]
        );
        assert_eq!(
            history[&account],
            vec![now + Duration::from_secs(30) + ROUNDING]
        );
        // The rewritten file still names the old boot, so a second start finds the same.
        let history = open(&path, &clock(200)).history.unwrap();
        assert!(history.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_believed_is_a_new_node() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let clock = clock(1000);
        let mut opened = open(&path, &clock);
        opened.ledger.sent([1; 16], WQ);
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
            let attempt = opened.ledger.sent([1; 16], WQ);
            opened
                .ledger
                .ended(attempt, [1; 16], Duration::from_millis(1));
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        opened.ledger.sent([3; 16], WQ);
        if let Some(disk) = &mut opened.ledger.disk {
            disk.compact_at = 0;
        }
        opened.ledger.sent([3; 16], WQ);
        assert!(std::fs::metadata(&path).unwrap().len() < 10 * RECORD as u64);
        assert_eq!(open(&path, &clock).history.unwrap()[&[3; 16]].len(), 2);
    }
}
