//! The ledger's file: appended to, and rewritten with what still counts when it has grown.

use super::record::{AttemptRecord, Head, RECORD, encode_end, parse};
use super::replay;
use crate::private_file;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The number of records at which the file is rewritten, at least: 4 MiB.
const COMPACT_AT: u64 = 4 * 1024 * 1024 / RECORD as u64;
/// A kill stops a write only at a multiple of this.
const PAGE: u64 = 4096;

/// The file, open for appending.
#[derive(Debug)]
pub(super) struct LedgerFile {
    pub(super) path: PathBuf,
    file: File,
    head: Head,
    keep: Duration,
    /// The number of records before the end, as they are in the file.
    records: u64,
    /// Further records, which [`LedgerFile::write`] will write.
    unwritten: Vec<u8>,
    /// The number of records at which the file is rewritten.
    pub(super) compact_at: u64,
}

impl LedgerFile {
    /// Replaces the file atomically by one that holds `attempts`.
    pub(super) fn rewrite(
        path: &Path,
        head: Head,
        keep: Duration,
        attempts: &[AttemptRecord],
    ) -> io::Result<Self> {
        let temporary = path.with_extension("new");
        let mut bytes = head.encode().to_vec();
        let mut records = 0;
        for attempt in attempts {
            attempt.encode(records, &mut bytes);
            records = (bytes.len() / RECORD) as u64 - 1;
        }
        encode_end(records, &mut bytes);
        let mut file = private_file::create(&temporary)?;
        file.write_all(&bytes)?;
        std::fs::rename(&temporary, path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            head,
            keep,
            records,
            unwritten: Vec::new(),
            compact_at: COMPACT_AT.max(records * 2),
        })
    }

    /// Adds the records of an attempt to those that are to be written.
    pub(super) fn add(&mut self, attempt: &AttemptRecord) {
        let unwritten = (self.unwritten.len() / RECORD) as u64;
        attempt.encode(self.records + unwritten, &mut self.unwritten);
    }

    /// Whether records are still to be written.
    pub(super) fn is_behind(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Writes what is to be written over the end of the file, and a new end.
    ///
    /// One system call as a rule, because each attempt waits for it. What belongs into a further
    /// page is written first, so that a kill in between leaves the old end in its place.
    pub(super) fn write(&mut self, now: Duration) -> io::Result<()> {
        let added = (self.unwritten.len() / RECORD) as u64;
        let mut bytes = std::mem::take(&mut self.unwritten);
        encode_end(self.records + added, &mut bytes);
        self.write_over_end(&bytes)?;
        self.records += added;
        // The next records take the same memory.
        bytes.clear();
        self.unwritten = bytes;
        if self.records < self.compact_at {
            return Ok(());
        }
        let attempts = parse(&std::fs::read(&self.path)?, self.head).map_err(io::Error::other)?;
        let kept = replay::kept(attempts, now, self.keep);
        *self = Self::rewrite(&self.path, self.head, self.keep, &kept)?;
        Ok(())
    }

    fn write_over_end(&self, bytes: &[u8]) -> io::Result<()> {
        // Behind the head and the records that are there.
        let place = (self.records + 1) * RECORD as u64;
        let room = usize::try_from(PAGE - place % PAGE).unwrap_or(usize::MAX);
        let (bytes, further) = bytes.split_at(room.min(bytes.len()));
        if !further.is_empty() {
            self.file
                .write_all_at(further, place + bytes.len() as u64)?;
        }
        self.file.write_all_at(bytes, place)
    }
}

/// Removes a ledger that would say less than was sent. An empty file is as good as none.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    private_file::remove(path).or_else(|_| OpenOptions::new().write(true).open(path)?.set_len(0))
}
