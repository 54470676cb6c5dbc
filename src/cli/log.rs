//! `segment-gateway log`: the log level of a running gateway.

use super::admin::{AdminTarget, ask};
use super::output::say;
use clap::Args;
use http::Method;

/// The command and its flags.
#[derive(Args, Debug)]
pub struct LogCommand {
    #[command(flatten)]
    target: AdminTarget,
    /// New level: error, warn, info, debug or trace, until the next change or restart. Without it
    /// the current level is shown.
    level: Option<String>,
}

/// Runs the command.
pub(super) async fn act(command: &LogCommand) -> Result<(), String> {
    let (method, parameters) = match &command.level {
        Some(level) => (Method::POST, vec![("level", level.clone())]),
        None => (Method::GET, Vec::new()),
    };
    let now = ask(&command.target, method, "/log", &parameters, None).await?;
    say(now["level"].as_str().unwrap_or_default());
    Ok(())
}
