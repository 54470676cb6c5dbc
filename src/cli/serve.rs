//! `segment-gateway serve`: flags over the environment over the file.

use super::check::ConfigFile;
use super::output::Failure;
use super::process;
use super::sandbox::{SandboxOptions, address, only_with_sandbox};
use super::signals::{reload_signals, stop_signal};
use super::unusable::unusable_values;
use crate::app::{self, Inside, Reloads};
use crate::config::{self, Config, ConfigProblem, Flag, Loaded};
use crate::server::descriptors;
use clap::Args;
use std::net::SocketAddr;
use std::sync::Arc;

#[derive(Args, Debug)]
#[command(mut_args(only_with_sandbox))]
pub(super) struct ServeCommand {
    #[command(flatten)]
    file: ConfigFile,
    /// Base URL of the API, e.g. https://api.segmentapis.com or https://eu1.api.segmentapis.com.
    #[arg(long, value_name = "URL", conflicts_with = "sandbox")]
    upstream: Option<String>,
    /// Address for callers [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Address for operators [default: 127.0.0.1:8081].
    #[arg(long, value_name = "ADDR", value_parser = address)]
    admin_listen: Option<SocketAddr>,
    /// Shadow mode: forward every request at once and report what the gateway would have done.
    /// Limits are NOT enforced.
    #[arg(long)]
    shadow: bool,
    /// Start a simulated API inside the gateway and use it instead of the real one. Keeps no state
    /// unless state.directory is configured.
    #[arg(long)]
    sandbox: bool,
    /// Address of the simulated API.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:8089",
        value_parser = address,
        requires = "sandbox"
    )]
    sandbox_listen: SocketAddr,
    #[command(flatten)]
    options: SandboxOptions,
}

/// Runs `serve`.
pub(super) fn run(command: ServeCommand) -> Result<(), Failure> {
    let loaded = configured(&command)?;
    let inside = command.sandbox.then(|| Inside {
        listen: command.sandbox_listen,
        spec: command.options.spec(),
    });
    process::run(&loaded, |log| {
        if let Some(warning) = descriptors::make_room(loaded.config.server.connections) {
            tracing::warn!("{warning}");
        }
        let reloads = Reloads {
            asked: reload_signals(),
            source: Arc::new(move || configured(&command)),
        };
        let stop = stop_signal(log.clone());
        app::serve(loaded.clone(), inside, log, reloads, stop)
    })
}

/// Returns the configuration: the file's, over it the environment's, over that the flags'.
fn configured(command: &ServeCommand) -> Result<Loaded, Vec<ConfigProblem>> {
    let address = |address: Option<SocketAddr>| address.map(|address| address.to_string());
    let flags = [
        ("upstream.url", "--upstream", command.upstream.clone()),
        ("listen", "--listen", address(command.listen)),
        (
            "admin.listen",
            "--admin-listen",
            address(command.admin_listen),
        ),
        (
            "mode",
            "--shadow",
            command.shadow.then(|| "shadow".to_owned()),
        ),
    ];
    let flags = flags.into_iter();
    let flags = flags.filter_map(|(key, name, value)| {
        let value = value?;
        Some(Flag { key, name, value })
    });
    let flags: Vec<Flag> = flags.collect();
    let file = command.file.config.as_deref();
    let mut loaded = config::load_usable(file, config::environment(), &flags, unusable_values)?;
    if command.sandbox && loaded.config.state.directory == Config::default().state.directory {
        // What a simulated API of an earlier run has counted says nothing of this one.
        loaded.config.state.directory = None;
    }
    Ok(loaded)
}
