//! `segment-gateway log`: from which level on a running gateway logs.

use super::admin::{self, Listener, ask};
use super::say;
use clap::Args;
use http::Method;
use std::process::ExitCode;

/// The command and its flags.
#[derive(Args, Debug)]
pub struct LogCommand {
    #[command(flatten)]
    listener: Listener,
    /// New level: error, warn, info, debug or trace, until the next change or restart. Without it
    /// the current level is shown.
    level: Option<String>,
}

/// Runs the command; exit status 1 if the gateway refuses or cannot be reached.
pub fn run(command: &LogCommand) -> ExitCode {
    admin::run(act(command))
}

async fn act(command: &LogCommand) -> Result<(), String> {
    let (method, parameters) = match &command.level {
        Some(level) => (Method::POST, vec![("level", level.clone())]),
        None => (Method::GET, Vec::new()),
    };
    let now = ask(&command.listener, method, "/log", &parameters, None).await?;
    say(now["level"].as_str().unwrap_or_default());
    Ok(())
}
