//! The ledger's file: appended to, and rewritten with what still counts when it has grown.

use super::record::{AttemptRecord, Head, RECORD, parse};
use super::replay;
use crate::private_file;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The size at which the file is rewritten, at least.
const COMPACT_AT: u64 = 4 * 1024 * 1024;

/// The file, open for appending.
#[derive(Debug)]
pub(super) struct LedgerFile {
    pub(super) path: PathBuf,
    file: File,
    head: Head,
    keep: Duration,
    length: u64,
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

    /// Writes the records of an attempt, and then the head that makes them count.
    pub(super) fn append(&mut self, attempt: &AttemptRecord, now: Duration) -> io::Result<()> {
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
        let kept = replay::kept(attempts, now, self.keep);
        *self = Self::rewrite(&self.path, self.head, self.keep, &kept)?;
        Ok(())
    }
}

/// Removes a ledger that would say less than was sent. An empty file is as good as none.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    private_file::remove(path).or_else(|_| OpenOptions::new().write(true).open(path)?.set_len(0))
}
