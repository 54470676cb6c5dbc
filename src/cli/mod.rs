//! The command line: what was typed, and what it means.
//!
//! Each command has a file and returns a `Failure` or nothing; only this file makes exit codes.
//! `admin.rs` asks a running gateway, for the commands that need one.

mod admin;
mod audit;
mod cache;
mod check;
mod clients;
mod credential;
mod doctor;
mod import;
mod journal;
mod key;
mod log;
mod output;
mod process;
mod routes;
mod sandbox;
mod serve;
mod signals;
mod token;
mod unusable;
mod writes;

use crate::version;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use output::{Failure, say};
use std::process::ExitCode;

/// A caching, rate-budgeting gateway in front of the Segment Public API.
///
/// Use it as the base URL of an SDK: reads come from a cache that is never older than the last
/// write, and writes are sent exactly as fast as the API allows.
#[derive(Debug, Parser)]
#[command(name = "segment-gateway", version = version::of_this_build())]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Serve(Box<serve::ServeCommand>),
    /// Check a configuration. Names every mistake with its place and remedy; the exit status is
    /// then 2.
    Check(check::CheckCommand),
    /// Check configuration, machine, network, API and a token, and say what is wrong and where.
    /// Exit status: 0 all is well, 2 the configuration, 3 this machine, 4 the network or
    /// upstream.url, 5 the API, 6 the token.
    Doctor(doctor::DoctorCommand),
    /// Print the effective route table, or all about one operation.
    Routes(routes::RoutesCommand),
    /// Run only the simulated Segment API.
    Sandbox(sandbox::SandboxCommand),
    /// Manage the durable writes of a running gateway.
    Writes(writes::WritesCommand),
    /// Bring invites or group members from a CSV file in, as deferred writes of a running gateway.
    /// Safe to run again. Exit status: 0 all rows succeeded, 1 some did not, 2 the file or the
    /// command line has a mistake, and nothing was sent.
    Import(import::ImportCommand),
    /// Inspect and purge the cache of a running gateway.
    Cache(cache::CacheCommand),
    /// Manage the journal of durable writes while no gateway runs.
    Journal(journal::JournalCommand),
    /// Show the clients of a configuration, and what they may use.
    Clients(clients::ClientsCommand),
    /// Make a key for a client, or hash one for the file of clients.
    Key(key::KeyCommand),
    /// Verify and search the audit log.
    Audit(audit::AuditCommand),
    /// Name a token as logs and lists do.
    Credential(credential::CredentialCommand),
    /// Show or change the log level of a running gateway.
    Log(log::LogCommand),
    /// Print the completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page, for man(1).
    Man,
}

/// Runs the command. Errors go to standard error.
pub fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Serve(command) => serve::run(*command),
        Command::Check(command) => check::check(&command),
        Command::Doctor(command) => doctor::run(&command),
        Command::Routes(command) => routes::run(&command),
        Command::Sandbox(command) => sandbox::run(&command),
        Command::Writes(command) => admin::run(writes::act(&command)),
        Command::Import(command) => import::run(&command),
        Command::Cache(command) => admin::run(cache::act(&command)),
        Command::Journal(command) => journal::run(&command),
        Command::Clients(command) => clients::run(&command),
        Command::Key(command) => key::run(&command),
        Command::Audit(command) => audit::run(&command),
        Command::Credential(command) => credential::run(&command),
        Command::Log(command) => admin::run(log::act(&command)),
        Command::Completions { shell } => {
            completions(shell);
            Ok(())
        }
        Command::Man => manual(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn completions(shell: Shell) {
    let mut text = Vec::new();
    let name = env!("CARGO_PKG_NAME");
    clap_complete::generate(shell, &mut Cli::command(), name, &mut text);
    say(String::from_utf8_lossy(&text).trim_end());
}

/// Prints one page: the program's, and behind it that of each command and of each of its own.
fn manual() -> Result<(), Failure> {
    let mut text = Vec::new();
    let mut program = Cli::command();
    program.build();
    pages(&program, &mut text).map_err(|error| format!("cannot write the manual page: {error}"))?;
    say(String::from_utf8_lossy(&text).trim_end());
    Ok(())
}

/// Writes the page of a command, and those of the commands below it.
fn pages(command: &clap::Command, text: &mut Vec<u8>) -> std::io::Result<()> {
    clap_mangen::Man::new(command.clone()).render(text)?;
    let below = command.get_subcommands();
    let mut below = below.filter(|command| command.get_name() != "help");
    below.try_for_each(|command| pages(command, text))
}
