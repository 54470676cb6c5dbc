//! How many transactions the journal has kept, where its log cannot take that along.
//!
//! SQLite takes a log that is missing, cut or damaged for a shorter one and says nothing. So each
//! transaction counts itself in the journal, and once it is synced the same number is written
//! beside the journal. If the number beside it is higher when the journal is opened, what it
//! counted is lost. That number is not synced: after a loss of power it may be lower, which says
//! nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Says what the file is, and its version.
const MAGIC: &[u8; 8] = b"SGJcount";
const LENGTH: usize = 24;

/// The number beside the journal.
#[derive(Debug)]
pub(super) struct Count {
    /// `None` if it cannot be written: then a damaged log is not noticed.
    file: Option<File>,
    pub(super) commits: u64,
}

/// What stands beside the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// So many transactions were kept.
    Commits(u64),
    /// There is no such file, or none that was completed.
    Nothing,
    /// A file that makes no sense.
    Damaged,
}

/// Reads the number beside the journal.
pub(super) fn read(path: &Path) -> io::Result<Beside> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Beside::Nothing),
        read => read?,
    };
    if bytes.is_empty() {
        return Ok(Beside::Nothing);
    }
    let number = |range: std::ops::Range<usize>| {
        let bytes = bytes.get(range)?.try_into().ok()?;
        Some(u64::from_be_bytes(bytes))
    };
    Ok(match (number(8..16), number(16..24)) {
        (Some(commits), Some(again))
            if bytes.len() == LENGTH && bytes.starts_with(MAGIC) && again == !commits =>
        {
            Beside::Commits(commits)
        }
        _ => Beside::Damaged,
    })
}

impl Count {
    /// Goes on from the number in the journal.
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

    /// One more transaction was synced.
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
