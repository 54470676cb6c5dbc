//! `segment-gateway journal`: what is done to the journal while no gateway runs.

use super::{ConfigFile, UNUSABLE, complain, say, unusable};
use crate::{app, config};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

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

/// Runs the command; exit status 2 if the configuration or the journal cannot be used.
pub fn run(command: &JournalCommand) -> ExitCode {
    let What::Rekey(command) = &command.what;
    let file = command.file.config.as_deref();
    let loaded = match config::load(file, config::environment()) {
        Ok(loaded) => loaded,
        Err(problems) => return unusable(&problems),
    };
    match app::rekey(&loaded.config, command.old_key_file.as_deref()) {
        Ok(writes) => {
            say(&format!(
                "{writes} writes are sealed under the configured key; remove the old key once no \
                 copy of the journal needs it"
            ));
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(UNUSABLE)
        }
    }
}
