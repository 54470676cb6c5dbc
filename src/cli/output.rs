//! What a command prints, and how it fails.

use crate::app::AppError;
use crate::config::ConfigProblem;
use serde_json::Value;
use std::io::Write;
use std::process::ExitCode;

/// Why a command failed.
pub(super) enum Failure {
    /// A configuration, command line or key that cannot be used, one mistake a line. Status 2.
    Unusable(Vec<String>),
    /// Anything else. Status 1.
    Failed(String),
    /// A fault that was found and printed, its place, and the status that stands for that place.
    Diagnosed {
        /// The exit status.
        status: u8,
        /// Where the fault has to be mended.
        place: &'static str,
    },
}

impl From<Vec<ConfigProblem>> for Failure {
    fn from(problems: Vec<ConfigProblem>) -> Self {
        Self::Unusable(problems.iter().map(ToString::to_string).collect())
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        Self::Failed(error.0)
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

impl Failure {
    /// Prints the failure on standard error and returns the exit status.
    pub(super) fn report(&self) -> ExitCode {
        let (lines, status) = match self {
            Self::Unusable(problems) => (problems.clone(), 2),
            Self::Failed(why) => (vec![why.clone()], 1),
            Self::Diagnosed { status, place } => (vec![format!("look at {place} first")], *status),
        };
        for line in lines {
            note(&line);
        }
        ExitCode::from(status)
    }
}

/// Prints a line for people on standard error: what a script must not take for data.
pub(super) fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "segment-gateway: {line}");
}

/// Prints a document on standard output, as the gateway gives it.
pub(super) fn document(document: &Value) {
    say(&format!("{document:#}"));
}

/// Prints an answer of the gateway: as a document for programs, or in these words for people.
pub(super) fn print(is_json: bool, answer: &Value, text: &str) {
    match is_json {
        true => document(answer),
        false => say(text),
    }
}

/// Prints a line on standard output.
pub(super) fn say(line: &str) {
    // A reader that has closed the pipe wants no more.
    let _ = writeln!(std::io::stdout(), "{line}");
}
