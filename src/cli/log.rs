//! `segment-gateway log`: the log level of a running gateway.

use super::admin::{AdminTarget, ask};
use super::output::print;
use crate::config::LogLevel;
use clap::Args;
use clap::builder::PossibleValuesParser;
use http::Method;

/// The command and its flags.
#[derive(Args, Debug)]
pub struct LogCommand {
    #[command(flatten)]
    target: AdminTarget,
    /// Print the answer of the gateway as one JSON document.
    #[arg(long)]
    json: bool,
    /// New level, until the next change or restart. Without it the current level is shown.
    #[arg(value_parser = PossibleValuesParser::new(LogLevel::ALL.iter().map(|level| level.as_str())))]
    level: Option<String>,
}

/// Runs the command.
pub(super) async fn act(command: &LogCommand) -> Result<(), String> {
    let (method, parameters) = match &command.level {
        Some(level) => (Method::POST, vec![("level", level.clone())]),
        None => (Method::GET, Vec::new()),
    };
    let now = ask(&command.target, method, "/log", &parameters, None).await?;
    let level = now["level"].as_str().unwrap_or_default();
    print(command.json, &now, level);
    Ok(())
}
