//! The number of committed transactions, kept in a file beside the journal.
//!
//! SQLite takes a log that is missing, cut or damaged for a shorter one and reports nothing. So
//! each transaction counts itself in the journal, and once it is synced, the same number is written
//! to the file beside it. If that number is the higher one when the journal is opened, transactions
//! are lost. The file is not synced: after a power failure its number may be lower, which means
//! nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// The first bytes of the file: its kind and version.
const MAGIC: &[u8; 8] = b"SGJcount";
const LENGTH: usize = 24;

/// The file beside the journal, and the number in it.
#[derive(Debug)]
pub(super) struct CommitCount {
    /// `None` if it cannot be written. Then damage to the log is not noticed.
    file: Option<File>,
    pub(super) commits: u64,
}

/// The content of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoredCount {
    /// The number of committed transactions.
    Commits(u64),
    /// No file, or one that was never written.
    Nothing,
    /// Neither of the two.
    Damaged,
}

/// Reads the file.
pub(super) fn read(path: &Path) -> io::Result<StoredCount> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(StoredCount::Nothing),
        read => read?,
    };
    if bytes.is_empty() {
        return Ok(StoredCount::Nothing);
    }
    let number = |range: std::ops::Range<usize>| {
        let bytes = bytes.get(range)?.try_into().ok()?;
        Some(u64::from_be_bytes(bytes))
    };
    Ok(match (number(8..16), number(16..24)) {
        (Some(commits), Some(again))
            if bytes.len() == LENGTH && bytes.starts_with(MAGIC) && again == !commits =>
        {
            StoredCount::Commits(commits)
        }
        _ => StoredCount::Damaged,
    })
}

impl CommitCount {
    /// Opens the file and continues from the number in the journal.
    pub(super) fn open(path: &Path, commits: u64) -> Self {
        let mut options = OpenOptions::new();
        let file = options.create(true).write(true).truncate(false);
        let mut count = Self {
            file: file.mode(0o600).open(path).ok(),
            commits,
        };
        count.write();
        count
    }

    /// Counts a transaction that was synced.
    pub(super) fn add(&mut self) {
        self.commits += 1;
        self.write();
    }

    fn write(&mut self) {
        let Some(file) = &self.file else { return };
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.commits.to_be_bytes());
        bytes[16..].copy_from_slice(&(!self.commits).to_be_bytes());
        if let Err(error) = file.write_all_at(&bytes, 0) {
            tracing::warn!(
                %error,
                "cannot write journal.count: damage to the journal's WAL would go unnoticed at \
                 the next start"
            );
            self.file = None;
        }
    }
}
