//! `segment-gateway credential`: the hash under which logs, lists and `/status` show a token.
//!
//! The hash depends on the key of the configuration or of the state directory. No key is made here:
//! one that no gateway uses would name nobody.
//!
//! The hash alone is on standard output, for scripts. The name that the configuration gives it is a
//! note on standard error.

use super::check::ConfigFile;
use super::output::{Failure, note, say};
use super::token::read_token;
use crate::credential::Hasher;
use crate::state::{self, StateDirectory};
use clap::{Args, Subcommand};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct CredentialCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the hash under which logs, lists and /status show a token.
    Hash(Hash),
}

#[derive(Args, Debug)]
struct Hash {
    #[command(flatten)]
    file: ConfigFile,
    /// File with the token, or - for standard input.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
}

/// Runs the command.
pub(super) fn run(command: &CredentialCommand) -> Result<(), Failure> {
    let What::Hash(command) = &command.what;
    let token = read_token(&command.token_file)?;
    let loaded = command.file.load()?;
    let config = &loaded.config;
    let (from, key) = match (&config.credentials.key_file, &config.state.directory) {
        (Some(file), _) => ("credentials.key_file", Some(state::key_file(file))),
        (None, Some(directory)) => {
            let kept = StateDirectory::kept_key(directory);
            ("state.directory", kept.transpose())
        }
        (None, None) => ("state.directory", None),
    };
    let key = key.ok_or(
        "there is no key for hashes yet: credentials.key_file names none, and no gateway has made one \
         in state.directory. Name the configuration of the gateway with --config",
    );
    let key = key.map_err(str::to_owned)?;
    let hasher = Hasher::new(&key.map_err(|error| loaded.at(from, error))?);
    let headers = HeaderMap::from_iter([(AUTHORIZATION, token)]);
    let hash = hasher.credential(&headers).to_string();
    say(&hash);
    if let Some(name) = config.credentials.names.of(&hash) {
        note(&format!("credentials.names calls it {name}"));
    }
    Ok(())
}
