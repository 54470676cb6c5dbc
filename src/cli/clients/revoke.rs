//! `segment-gateway clients revoke`: takes a client out of use in the running gateway.

use crate::cli::admin::{AdminTarget, ask};
use crate::cli::output::print;
use clap::Args;
use http::Method;

/// The command and its flags.
#[derive(Args, Debug)]
pub(super) struct Revoke {
    #[command(flatten)]
    target: AdminTarget,
    /// Leave its deferred writes in the queue. Otherwise those that were not sent are cancelled.
    #[arg(long)]
    keep_writes: bool,
    /// Print the answer of the gateway as one JSON document.
    #[arg(long)]
    json: bool,
    /// Name of the client.
    name: String,
}

/// Runs the command.
pub(super) async fn act(command: &Revoke) -> Result<(), String> {
    let parameters = [
        ("client", command.name.clone()),
        ("keepWrites", command.keep_writes.to_string()),
    ];
    let path = "/clients/revoke";
    let done = ask(&command.target, Method::POST, path, &parameters, None).await?;
    let count = |name: &str| done[name].as_u64().unwrap_or_default();
    let text = format!(
        "{}: {} keys and certificate names revoked, {} writes cancelled. Remove them from the file \
         of clients too",
        command.name,
        count("revoked"),
        count("cancelledWrites")
    );
    print(command.json, &done, &text);
    Ok(())
}
