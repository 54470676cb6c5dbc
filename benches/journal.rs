//! Bench: how many writes a second are accepted durably, beside a database that only inserts.
//!
//! ```sh
//! cargo bench --bench journal               # half a minute
//! cargo bench --bench journal -- --quick    # to see that it works
//! cargo bench --bench journal -- /var/lib   # on the disk of this folder instead of here
//! ```
//!
//! A request has 512 bytes. What is bare has the settings of the journal and one table with one
//! index, and syncs each insert. The sync is what it costs: the figures are those of the disk, so
//! the three take turns, and the ratio of each turn to the bare one beside it is the figure to
//! compare. The goals: one caller at least 0.5 of bare, 64 at once above it.

#![allow(
    clippy::disallowed_methods,
    reason = "a bench has no task that stopping waits for"
)]
#![allow(
    clippy::print_stdout,
    reason = "the figures are what this program is for"
)]

use rusqlite::Connection;
use segment_gateway::clock::Clock;
use segment_gateway::credential::Credential;
use segment_gateway::journal::{Change, Journal, Record, SealingKey, State, WriteIds};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const REQUEST: [u8; 512] = [b'x'; 512];
const CALLERS: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let (flags, folders): (Vec<_>, Vec<_>) = std::env::args()
        .skip(1)
        .partition(|argument| argument.starts_with("--"));
    let quick = flags.iter().any(|flag| flag == "--quick");
    if cfg!(debug_assertions) {
        println!("WARNING: a debug build, these figures mean nothing; use `cargo bench`");
    }
    let lasting = Duration::from_millis(if quick { 50 } else { 1_500 });
    let turns = if quick { 1 } else { 7 };
    let here = folders.first().map_or(env!("CARGO_TARGET_TMPDIR"), |f| f);
    let folder = tempfile::tempdir_in(PathBuf::from(here))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let bench = Bench {
        clock: Clock::system(),
        ids: Arc::default(),
        lasting,
    };
    let bare = bare(&folder.path().join("bare.db"))?;
    let disk = Journal::open(
        &folder.path().join("journal.db"),
        SealingKey::new(&[7; 32])?,
    )?;
    println!(
        "{:>10} {:>12} {:>6} {:>12} {:>6} {:>14}",
        "bare /s", "1 caller /s", "ratio", "64 callers/s", "ratio", "per transaction"
    );
    let mut ratios = Vec::new();
    for _ in 0..turns {
        let alone = bench.inserts(&bare)?;
        let one = runtime.block_on(bench.accepts(&disk, 1))?;
        let before = disk.transactions();
        let many = runtime.block_on(bench.accepts(&disk, CALLERS))?;
        let grouped = many.count as f64 / (disk.transactions() - before) as f64;
        let (one_to_bare, many_to_bare) = (one.rate / alone.rate, many.rate / alone.rate);
        println!(
            "{:>10.0} {:>12.0} {one_to_bare:>6.2} {:>12.0} {many_to_bare:>6.2} {grouped:>14.1}",
            alone.rate, one.rate, many.rate
        );
        ratios.push((one_to_bare, many_to_bare));
    }
    println!(
        "median ratios: one caller {:.2}, {CALLERS} callers {:.2}",
        median(ratios.iter().map(|both| both.0)),
        median(ratios.iter().map(|both| both.1))
    );
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn bare(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         PRAGMA secure_delete = ON; PRAGMA mmap_size = 0;
         CREATE TABLE writes (id BLOB NOT NULL UNIQUE, request BLOB NOT NULL) STRICT;",
    )?;
    Ok(connection)
}

/// So many were kept, and so many a second.
struct Kept {
    count: u64,
    rate: f64,
}

struct Bench {
    clock: Clock,
    ids: Arc<WriteIds>,
    lasting: Duration,
}

impl Bench {
    fn inserts(&self, connection: &Connection) -> Result<Kept, Box<dyn Error>> {
        let mut insert = connection.prepare("INSERT INTO writes VALUES (?1, ?2)")?;
        let start = self.clock.now();
        let mut count = 0;
        while self.goes_on(start) {
            let id = self.ids.next(self.clock.wall());
            insert.execute((id.bytes(), REQUEST))?;
            count += 1;
        }
        Ok(self.kept(count, start))
    }

    /// Callers that each wait for the answer before they come again.
    async fn accepts(&self, disk: &Journal, callers: usize) -> Result<Kept, Box<dyn Error>> {
        let start = self.clock.now();
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let (disk, clock, ids) = (disk.clone(), self.clock.clone(), Arc::clone(&self.ids));
                let lasting = self.lasting;
                tokio::spawn(async move {
                    let mut count = 0;
                    while clock.now() - start < lasting {
                        let change = Change::Accept(Box::new(record(&ids, &clock)));
                        disk.commit(vec![change]).await?;
                        count += 1;
                    }
                    Ok::<u64, segment_gateway::journal::JournalError>(count)
                })
            })
            .collect();
        let mut count = 0;
        for task in tasks {
            count += task.await??;
        }
        Ok(self.kept(count, start))
    }

    fn goes_on(&self, start: Instant) -> bool {
        self.clock.now() - start < self.lasting
    }

    fn kept(&self, count: u64, start: Instant) -> Kept {
        let took = self.clock.now() - start;
        Kept {
            count,
            rate: count as f64 / took.as_secs_f64(),
        }
    }
}

fn record(ids: &WriteIds, clock: &Clock) -> Record {
    let accepted = clock.wall();
    let id = ids.next(accepted);
    Record {
        id,
        credential: Credential::from_bytes([1; 16]),
        client: None,
        operation: "create-invites".into(),
        key: Some(*id.bytes()),
        fingerprint: [2; 32],
        summary: REQUEST[..128].to_vec().into(),
        request: REQUEST.to_vec().into(),
        state: State::Queued,
        attempts: 0,
        accepted,
        dispatched: None,
        ended: None,
        answer: None,
    }
}
