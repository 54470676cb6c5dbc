//! `segment-gateway check`: a configuration, looked at without starting.

use super::output::{Failure, say};
use super::unusable::unusable_values;
use crate::app;
use crate::config::{self, Config, Loaded};
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct ConfigFile {
    /// Configuration file. Without it the defaults apply. Environment variables
    /// SEGMENT_GATEWAY__SECTION__KEY override it.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl ConfigFile {
    /// Loads the file, with the environment over it.
    pub(super) fn load(&self) -> Result<Loaded, Failure> {
        Ok(config::load(self.config.as_deref(), config::environment())?)
    }
}

#[derive(Args, Debug)]
pub(super) struct CheckCommand {
    #[command(flatten)]
    file: ConfigFile,
    /// Do not check whether addresses and state directory can be used here: the gateway runs on
    /// another machine or as another user.
    #[arg(long)]
    elsewhere: bool,
}

/// Runs `check`.
pub(super) fn check(command: &CheckCommand) -> Result<(), Failure> {
    let file = command.file.config.as_deref();
    let probe = |config: &Config| {
        let mut found = unusable_values(config);
        if !command.elsewhere {
            found.extend(app::preflight(config));
        }
        found
    };
    let loaded = config::load_usable(file, config::environment(), &[], probe)?;
    let notes = match command.elsewhere {
        true => Vec::new(),
        false => [
            app::open_secrets(&loaded),
            app::machine_notes(&loaded.config),
        ]
        .concat(),
    };
    for warning in loaded.warnings.iter().chain(&notes) {
        say(&format!("warning: {warning}"));
    }
    let name = file.map_or("the defaults".into(), |path| path.display().to_string());
    // Which directory was looked at: a service has its own, which its unit may name.
    let state = match &loaded.config.state.directory {
        Some(directory) => format!("state in {}", directory.display()),
        None => "no state".to_owned(),
    };
    say(&format!(
        "{name}: no problems; {} operations, upstream {}, {state}",
        loaded.operations.len(),
        loaded.config.upstream.url
    ));
    Ok(())
}
