//! `segment-gateway journal`: work on the journal while no gateway runs.

use super::check::ConfigFile;
use super::output::{Failure, say};
use crate::app;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// The command and its subcommands.
#[derive(Args, Debug)]
pub struct JournalCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Encrypt the journal of state.directory with the key that is configured now. Stop the gateway
    /// first.
    Rekey(Rekey),
}

#[derive(Args, Debug)]
struct Rekey {
    #[command(flatten)]
    file: ConfigFile,
    /// File with the present key of the journal. Without it the key beside the journal is used.
    #[arg(long, value_name = "FILE")]
    old_key_file: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(command: &JournalCommand) -> Result<(), Failure> {
    let What::Rekey(command) = &command.what;
    let loaded = command.file.load()?;
    let writes = app::rekey(&loaded, command.old_key_file.as_deref())
        .map_err(|error| Failure::Unusable(vec![error.0]))?;
    say(&format!(
        "{writes} writes are encrypted with the configured key; remove the old key once no copy of \
         the journal needs it"
    ));
    Ok(())
}
