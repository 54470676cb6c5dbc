//! `segment-gateway doctor`: says what is wrong with a configuration, this machine, the way to the
//! API and a token, and where to mend it. One line for each check; the exit status names the first
//! fault.
//!
//! Comments on the fields of the argument types are the help of the command line, so explanations
//! of the code there are plain comments.

use super::check::ConfigFile;
use super::output::{Failure, say};
use super::process;
use super::token::read_token;
use super::unusable::unusable_values;
use crate::app::{self, Blame, CheckResult, Diagnosis};
use crate::clock::Clock;
use crate::config::{self, Flag, LogLevel};
use crate::telemetry;
use clap::Args;
use std::path::PathBuf;
use tokio::runtime::Builder;

#[derive(Args, Debug)]
pub(super) struct DoctorCommand {
    #[command(flatten)]
    file: ConfigFile,
    /// URL of the API, in place of upstream.url.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// File with a token of the API to check, or - for standard input. One request is made with it.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(command: &DoctorCommand) -> Result<(), Failure> {
    let token = command.token_file.as_deref().map(read_token).transpose();
    let token = token.map_err(|why| Failure::Unusable(vec![why]))?;
    let upstream = command.upstream.clone().map(|value| Flag {
        key: "upstream.url",
        name: "--upstream",
        value,
    });
    let file = command.file.config.as_deref();
    let flags = upstream.as_slice();
    let loaded = config::load_usable(file, config::environment(), flags, unusable_values)?;
    let name = file.map_or("the defaults".into(), |path| path.display().to_string());
    let text = format!("{name}, {} operations", loaded.operations.len());
    let mut found = vec![Diagnosis::new("configuration", CheckResult::Fine, text)];
    for warning in loaded.warnings.iter().chain(&app::open_secrets(&loaded)) {
        found.push(Diagnosis::new(
            "configuration",
            CheckResult::Notable,
            warning.as_str(),
        ));
    }
    for note in app::machine_notes(&loaded.config) {
        found.push(Diagnosis::new("this machine", CheckResult::Notable, note));
    }
    // Why a connection fails is logged where it fails.
    let log = telemetry::start(loaded.config.log.format, LogLevel::Warn)
        .map_err(|error| format!("cannot start the log: {error}"))?;
    let runtime = process::runtime(&mut Builder::new_current_thread())?;
    let clock = Clock::system();
    let examined = runtime.block_on(app::examine(&loaded, token, &clock));
    // The lines are written by a thread, which would end with the process.
    log.flush();
    found.extend(examined?);
    for one in &found {
        say(&line(one));
    }
    let mut faults = found.iter().filter_map(|one| match one.result {
        CheckResult::Wrong(fault) => Some(fault),
        _ => None,
    });
    match faults.next() {
        None => Ok(()),
        Some(fault) => Err(Failure::Diagnosed {
            status: status(fault),
            place: fault.as_str(),
        }),
    }
}

/// Returns the line of a check.
fn line(finding: &Diagnosis) -> String {
    let result = match finding.result {
        CheckResult::Fine => "ok",
        CheckResult::Notable => "note",
        CheckResult::Skipped => "skipped",
        CheckResult::Wrong(_) => "WRONG",
    };
    format!("{result:8}{:15}{}", finding.part, finding.text)
}

/// Returns the exit status for a fault. Scripts depend on it.
fn status(blame: Blame) -> u8 {
    match blame {
        Blame::Machine => 3,
        Blame::Network => 4,
        Blame::Api => 5,
        Blame::Token => 6,
    }
}
