//! The file of the audit log: opened at the end of its chain, written as whole lines, rotated by
//! size.
//!
//! Promises:
//!
//! - The file ends with a whole line, unless the disk fails both to write and to cut. A line that a
//!   kill left half-written is cut off at the next start: nobody was told that it is there.
//! - The chain goes on over rotated files, and over restarts.
//! - One process writes it: the file is locked.
//!
//! `audit.log` becomes `audit-<number of its first line>.log` when it is full.

use super::chain::{AuditKey, ChainHead, check};
use super::event::SubjectForm;
use crate::private_file;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The longest line, in bytes. A record has bounds that are far below.
pub(super) const LONGEST_LINE: u64 = 1024 * 1024;
/// The bytes that show whether a disk has room: a few lines.
const PROBE: usize = 4096;

/// How to open an audit log.
#[derive(Clone, Debug)]
pub struct AuditFileSpec {
    /// The file.
    pub path: PathBuf,
    /// The key of the chain.
    pub key: AuditKey,
    /// How people and things appear.
    pub form: SubjectForm,
    /// The size from which the file is rotated, in bytes.
    pub largest: u64,
    /// The rotated files that are kept; older ones are removed.
    pub kept: usize,
}

/// The open file.
#[derive(Debug)]
pub(super) struct AuditFile {
    spec: AuditFileSpec,
    file: File,
    /// The length up to the end of the last whole line.
    length: u64,
    /// The number of the first line of the file.
    first: u64,
    head: ChainHead,
}

impl AuditFile {
    /// Opens the file and finds the end of its chain.
    ///
    /// # Errors
    /// If it cannot be opened or is in use, or its last line is not one of this chain. The message
    /// says what to do.
    pub(super) fn open(spec: AuditFileSpec) -> Result<Self, String> {
        let shown = spec.path.display().to_string();
        let wrong = |what: &dyn std::fmt::Display| format!("{shown}: {what}");
        let mut file = open(&spec.path).map_err(|error| wrong(&error))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => wrong(&"in use by another gateway; give each its own"),
            TryLockError::Error(error) => wrong(&error),
        })?;
        let (last, length) = last_line(&mut file).map_err(|error| wrong(&error))?;
        let torn = file.metadata().map_err(|error| wrong(&error))?.len() - length;
        let unknown = || {
            wrong(
                &"the last line is no record under this key; run `segment-gateway audit verify`, \
                  and move the file away to begin another one",
            )
        };
        // Lines before the last one are not read: that is the work of `audit verify`.
        let of_line = |line: &[u8]| check(&spec.key, line, None).map_err(|_| unknown());
        let head = match last {
            Some(line) => of_line(&line)?,
            // A new file continues the chain of the newest rotated one.
            None => match rotated(&spec.path).map_err(|error| wrong(&error))?.last() {
                None => ChainHead::default(),
                Some((_, newest)) => {
                    let mut newest = File::open(newest).map_err(|error| wrong(&error))?;
                    let (last, _) = last_line(&mut newest).map_err(|error| wrong(&error))?;
                    of_line(&last.unwrap_or_default())?
                }
            },
        };
        let first = match length {
            0 => head.seq + 1,
            _ => first_seq(&mut file)
                .map_err(|error| wrong(&error))?
                .ok_or_else(unknown)?,
        };
        let mut opened = Self {
            spec,
            file,
            length,
            first,
            head,
        };
        if torn > 0 {
            opened.cut().map_err(|error| wrong(&error))?;
            tracing::warn!(
                file = shown,
                bytes = torn,
                "half a line cut off the audit log"
            );
        }
        Ok(opened)
    }

    /// Returns the newest line.
    pub(super) fn head(&self) -> ChainHead {
        self.head
    }

    /// Returns how it was opened.
    pub(super) fn spec(&self) -> &AuditFileSpec {
        &self.spec
    }

    /// Appends whole lines, of which the last one is `head`.
    ///
    /// # Errors
    /// If they cannot be written. Then the file ends as it did before, if it can be cut.
    pub(super) fn append(&mut self, lines: &[u8], head: ChainHead) -> io::Result<()> {
        self.cut_if_longer()?;
        if self.length > 0 && self.length + lines.len() as u64 > self.spec.largest {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(lines) {
            // Tried again before the next write if it fails.
            let _ = self.cut();
            return Err(error);
        }
        self.length += lines.len() as u64;
        self.head = head;
        Ok(())
    }

    /// Writes as much as a line, and takes it back.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub(super) fn probe(&mut self) -> io::Result<()> {
        let blank = [b' '; PROBE];
        self.append(&blank, self.head)?;
        self.length -= blank.len() as u64;
        self.cut()?;
        self.sync()
    }

    /// Returns once the disk has all lines.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Cuts off what an earlier write left, if the disk failed to cut it then.
    fn cut_if_longer(&mut self) -> io::Result<()> {
        match self.file.metadata()?.len() > self.length {
            true => self.cut(),
            false => Ok(()),
        }
    }

    /// Cuts off what follows the last whole line.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)
    }

    /// Begins another file. The full one keeps its lines under another name.
    fn rotate(&mut self) -> io::Result<()> {
        // The newest lines of the full file must not get lost after the first ones of the next.
        self.file.sync_data()?;
        let full = rotated_name(&self.spec.path, self.first);
        std::fs::rename(&self.spec.path, full)?;
        let file = open(&self.spec.path)?;
        file.try_lock().map_err(io::Error::other)?;
        self.file = file;
        self.length = 0;
        self.first = self.head.seq + 1;
        // The names as well outlast a crash of the machine.
        File::open(folder(&self.spec.path))?.sync_all()?;
        let files = rotated(&self.spec.path)?;
        let too_many = files.len().saturating_sub(self.spec.kept);
        for (_, file) in files.iter().take(too_many) {
            private_file::remove(file)?;
        }
        Ok(())
    }
}

/// Opens a file for reading and appending. A new one is this user's alone.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    options.open(path)
}

/// Returns the files of a log, the oldest first; the last one is the current one.
pub(super) fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = rotated(path)?.into_iter().map(|(_, file)| file).collect();
    if path.exists() || files.is_empty() {
        files.push(path.to_owned());
    }
    Ok(files)
}

/// Returns the rotated files with the numbers of their first lines, the oldest first.
fn rotated(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    let (before, after) = name_parts(path);
    for entry in std::fs::read_dir(folder(path))? {
        let file = entry?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let number = name
            .strip_prefix(&before)
            .and_then(|rest| rest.strip_suffix(&after));
        if let Some(first) = number.and_then(|number| number.parse().ok()) {
            files.push((first, file));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Returns the directory of a log.
fn folder(path: &Path) -> &Path {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Returns the name of a rotated file.
fn rotated_name(path: &Path, first: u64) -> PathBuf {
    let (before, after) = name_parts(path);
    path.with_file_name(format!("{before}{first}{after}"))
}

/// Returns what stands before and after the number in the names of rotated files.
fn name_parts(path: &Path) -> (String, String) {
    let text = |part: Option<&OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let before = text(path.file_stem()).unwrap_or_default() + "-";
    let after = text(path.extension()).map(|extension| format!(".{extension}"));
    (before, after.unwrap_or_default())
}

/// Returns the last whole line, without its line break, and the length up to its end.
fn last_line(file: &mut File) -> io::Result<(Option<Vec<u8>>, u64)> {
    let length = file.metadata()?.len();
    // A torn line may follow the last whole one.
    let from = length.saturating_sub(2 * LONGEST_LINE);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(2 * LONGEST_LINE).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else {
        // With no line break at all there is nothing but a torn line, if that can be one.
        return match from {
            0 if length <= LONGEST_LINE => Ok((None, 0)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        };
    };
    let lines = &tail[..end];
    let start = lines.iter().rposition(|byte| *byte == b'\n');
    let line = lines[start.map_or(0, |at| at + 1)..].to_vec();
    Ok((Some(line), from + end as u64 + 1))
}

/// Returns the number of the first line.
fn first_seq(file: &mut File) -> io::Result<Option<u64>> {
    file.seek(SeekFrom::Start(0))?;
    let mut line = Vec::new();
    BufReader::new(file.take(LONGEST_LINE)).read_until(b'\n', &mut line)?;
    let document: Option<serde_json::Value> = serde_json::from_slice(&line).ok();
    Ok(document.and_then(|document| document["seq"].as_u64()))
}
