//! `segment-gateway audit`: verifies and searches an audit log. Needs no running gateway, and does
//! not mind one.
//!
//! Comments on the fields of the argument types are the help of the command line, so explanations
//! of the code there are plain comments.

mod list;

use super::check::ConfigFile;
use super::output::{Failure, note, say};
use crate::app::audit_key;
use crate::audit::verify::{AuditFault, files, verify};
use crate::audit::{AuditKey, ChainHead};
use crate::config::AuditSubjects;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct AuditCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Verify the chain of records over all files of the log. Exit status: 0 it is whole, 1 it is
    /// not.
    Verify(Verify),
    /// List records, the oldest first.
    List(list::List),
}

#[derive(Args, Debug)]
struct Log {
    #[command(flatten)]
    file: ConfigFile,
    /// File of the log, in place of the one that the configuration names. Its rotated files are
    /// read as well.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// File of the key that signs the records, in place of the one that the configuration names.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct Verify {
    #[command(flatten)]
    log: Log,
    /// Head that was seen, such as in the line `audit log head` of the ordinary log. Only with it a
    /// log shows that its newest records have been removed.
    #[arg(long, value_name = "SEQ:MAC")]
    head: Option<ChainHead>,
}

/// The log that a command is about.
struct Opened {
    files: Vec<PathBuf>,
    path: PathBuf,
    key_file: Option<PathBuf>,
    subjects: AuditSubjects,
}

/// Runs the command.
pub(super) fn run(command: &AuditCommand) -> Result<(), Failure> {
    match &command.what {
        What::Verify(command) => verify_log(command),
        What::List(command) => list::list(command),
    }
}

impl Log {
    fn open(&self) -> Result<Opened, Failure> {
        let config = self.file.load()?.config.audit;
        let path = self.log.clone().or(config.file).ok_or_else(|| {
            "the configuration names no audit.file. Name the configuration with --config, or the \
             log with --log"
                .to_owned()
        })?;
        let files = files(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Opened {
            files,
            key_file: self.key_file.clone().or(config.key_file),
            path,
            subjects: config.subjects,
        })
    }
}

impl Opened {
    fn key(&self) -> Result<AuditKey, String> {
        audit_key(&self.path, self.key_file.as_deref())
    }
}

impl From<AuditFault> for Failure {
    fn from(fault: AuditFault) -> Self {
        Self::Failed(fault.to_string())
    }
}

fn verify_log(command: &Verify) -> Result<(), Failure> {
    let log = command.log.open()?;
    let verified = verify(&log.files, &log.key()?, command.head.as_ref())?;
    if verified.is_torn {
        note("half a record follows: a gateway is writing it, or was killed");
    }
    if verified.records == 0 {
        say("no records");
        return Ok(());
    }
    say(&format!(
        "{} records, {} to {}, in {} files: whole. head {}",
        verified.records,
        verified.first,
        verified.head.seq,
        log.files.len(),
        verified.head,
    ));
    if verified.first > 1 {
        note("older records are in files that have been removed");
    }
    Ok(())
}
