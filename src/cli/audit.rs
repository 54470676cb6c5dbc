//! `segment-gateway audit`: verifies and searches an audit log. Needs no running gateway, and does
//! not mind one.
//!
//! Comments on the fields of the argument types are the help of the command line, so explanations
//! of the code there are plain comments.

mod list;
mod log;

use super::output::{Failure, note, say};
use crate::audit::ChainHead;
use crate::audit::verify::{AuditFault, verify};
use clap::{Args, Subcommand};
use log::LogFiles;

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
struct Verify {
    #[command(flatten)]
    log: LogFiles,
    /// Head that was seen, such as in the line `audit log head` of the ordinary log. Only with it a
    /// log shows that its newest records have been removed.
    #[arg(long, value_name = "SEQ:MAC")]
    head: Option<ChainHead>,
}

/// Runs the command.
pub(super) fn run(command: &AuditCommand) -> Result<(), Failure> {
    match &command.what {
        What::Verify(command) => verify_log(command),
        What::List(command) => list::list(command),
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
