//! Reading an audit log: whether its chain is whole, and what stands in it.

use super::chain::{AuditKey, ChainFault, ChainHead, check};
use super::file::{self, LONGEST_LINE};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// A log that is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifiedLog {
    /// The number of records.
    pub records: u64,
    /// The number of the first record. Above 1 if older files have been removed.
    pub first: u64,
    /// The newest record.
    pub head: ChainHead,
    /// Whether half a line follows. A gateway may be writing it; the next start cuts it off.
    pub is_torn: bool,
}

/// The place where a log is not whole.
#[derive(Debug)]
pub struct AuditFault {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1; 0 for the file as a whole.
    pub line: u64,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for AuditFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.what),
            line => write!(f, "{}:{line}: {}", self.file.display(), self.what),
        }
    }
}

/// Returns the files of a log, the oldest first.
///
/// # Errors
/// If their directory cannot be read.
pub fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    file::files(path)
}

/// Gives each line of these files to `each`, without its line break, with its number in the file.
/// Half a line at the end of the last file is left out. Returns whether there was one.
///
/// # Errors
/// If a file cannot be read, a line is longer than any record, or `each` fails.
pub fn for_each_line(
    files: &[PathBuf],
    mut each: impl FnMut(&Path, u64, &[u8]) -> Result<(), AuditFault>,
) -> Result<bool, AuditFault> {
    let mut is_torn = false;
    for (at, path) in files.iter().enumerate() {
        let fault = |line, what: String| AuditFault {
            file: path.clone(),
            line,
            what,
        };
        let unreadable = |error: io::Error| fault(0, error.to_string());
        let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
        let (mut line, mut number) = (Vec::new(), 0);
        loop {
            line.clear();
            number += 1;
            let mut bounded = reader.by_ref().take(LONGEST_LINE);
            if bounded.read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
                break;
            }
            if line.pop_if(|byte| *byte == b'\n').is_some() {
                each(path, number, &line)?;
                continue;
            }
            let is_last = at + 1 == files.len() && (line.len() as u64) < LONGEST_LINE;
            if !is_last {
                return Err(fault(number, ChainFault::NotARecord.to_string()));
            }
            is_torn = true;
        }
    }
    Ok(is_torn)
}

/// Verifies the chain over these files, the oldest first. With `newest`, a head that was seen, it
/// must be in them.
///
/// # Errors
/// With the first place that is not as it was written.
pub fn verify(
    files: &[PathBuf],
    key: &AuditKey,
    newest: Option<&ChainHead>,
) -> Result<VerifiedLog, AuditFault> {
    let mut log = VerifiedLog::default();
    let mut before: Option<ChainHead> = None;
    log.is_torn = for_each_line(files, |path, number, line| {
        let fault = |what: String| AuditFault {
            file: path.to_owned(),
            line: number,
            what,
        };
        let head = check(key, line, before.as_ref()).map_err(|what| fault(what.to_string()))?;
        let is_another = |newest: &ChainHead| newest.seq == head.seq && newest.mac != head.mac;
        if newest.is_some_and(is_another) {
            let what = format!("record {} is another one than --head says", head.seq);
            return Err(fault(what));
        }
        if before.is_none() {
            log.first = head.seq;
        }
        log.records += 1;
        (log.head, before) = (head, Some(head));
        Ok(())
    })?;
    let unproven = newest.filter(|newest| newest.seq > log.head.seq || newest.seq < log.first);
    match unproven {
        None => Ok(log),
        Some(newest) => Err(AuditFault {
            file: files.last().cloned().unwrap_or_default(),
            line: 0,
            what: format!(
                "record {} of --head is missing: the log has {} to {}",
                newest.seq, log.first, log.head.seq
            ),
        }),
    }
}

#[cfg(test)]
mod tests;
