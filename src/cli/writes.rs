//! `segment-gateway writes`: the durable writes of a running gateway.
//!
//! Each action is one request to `/writes` on the admin listener, except `watch`, which asks again
//! and again. Nothing is decided here. Arguments whose form is wrong are rejected in the words of
//! the command line. The gateway knows which actions are possible; its message is what the operator
//! sees.
//!
//! Output is made for pipes: `list.rs` prints a line for each write, the id first. A write is shown
//! by the hash of its credential and the name of that, and never with a token.
//!
//! Comments on the fields of the argument types are the help of the command line, so explanations
//! of the code there are plain comments.

mod list;

use super::admin::{AdminTarget, ask};
use super::output::{document, print};
use super::token::read_token;
use crate::journal::WriteId;
use clap::{Args, Subcommand};
use http::Method;
use http::header::HeaderValue;
use indicatif::{ProgressBar, ProgressStyle};
use list::{ListCommand, shown_credential, write_id};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::sleep;

/// The interval at which progress is asked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The command and its flags.
#[derive(Args, Debug)]
pub struct WritesCommand {
    #[command(flatten)]
    target: AdminTarget,
    /// Print the answer of the gateway as one JSON document.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List writes, oldest first, one per line.
    List(ListCommand),
    /// Show one write as JSON, with the API's answer.
    Show {
        /// Id of the write.
        #[arg(value_parser = write_id)]
        id: WriteId,
    },
    /// Cancel a write that has not been sent.
    Cancel {
        /// Id of the write.
        #[arg(value_parser = write_id)]
        id: WriteId,
    },
    /// Pause the deferred writes of a credential or an operation.
    Pause(Which),
    /// Resume paused writes.
    Resume(Which),
    /// Give the deferred writes of a credential to a new token.
    Rebind {
        /// Hash or name of the old credential, as lists and logs show it.
        #[arg(long, value_name = "HASH")]
        credential: String,
        /// File with the new token, or - for standard input.
        #[arg(long, value_name = "FILE")]
        token_file: PathBuf,
        /// Do not ask the API whether both tokens belong to one workspace.
        #[arg(long)]
        unchecked: bool,
    },
    /// Follow all writes until they have ended.
    Watch,
}

// Writes must match both, if both are given.
/// A selection of writes.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
struct Which {
    /// Hash or name of the credential, as lists and logs show it.
    #[arg(long, value_name = "HASH")]
    credential: Option<String>,
    /// Name of the operation, e.g. createInvites.
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,
}

impl Which {
    /// Returns the parameters of the query that were given.
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let given = [
            ("credential", &self.credential),
            ("operation", &self.operation),
        ];
        let given = given.into_iter();
        given
            .filter_map(|(name, value)| Some((name, value.clone()?)))
            .collect()
    }
}

/// Runs the command.
pub(super) async fn act(command: &WritesCommand) -> Result<(), String> {
    // Only `rebind` sends a token, so it does without this.
    let ask = async |method: Method, path: &str, parameters: &[(&'static str, String)]| {
        ask(&command.target, method, path, parameters, None).await
    };
    match &command.action {
        Action::List(list) => {
            let page = ask(Method::GET, "/writes", &list.parameters()).await?;
            match command.json {
                true => document(&page),
                false => list.print(&page, &command.target.arguments()),
            }
            Ok(())
        }
        Action::Show { id } => {
            // As the gateway has it: a script can rely on the names in the documentation.
            document(&ask(Method::GET, &one(*id), &[]).await?);
            Ok(())
        }
        Action::Cancel { id } => {
            // Fails if the write has been sent by now. The gateway decides that, under its own
            // lock.
            let done = ask(Method::DELETE, &one(*id), &[]).await?;
            print(command.json, &done, &format!("{id} cancelled"));
            Ok(())
        }
        Action::Pause(which) => {
            let done = ask(Method::POST, "/writes/pause", &which.parameters()).await?;
            // Both are successes, so that a script may repeat the command.
            let text = match done["changed"] == true {
                true => "paused",
                false => "was paused already",
            };
            print(command.json, &done, text);
            Ok(())
        }
        Action::Resume(which) => {
            let done = ask(Method::POST, "/writes/resume", &which.parameters()).await?;
            let text = match done["changed"] == true {
                true => "resumed",
                false => "was not paused",
            };
            print(command.json, &done, text);
            Ok(())
        }
        Action::Rebind {
            credential,
            token_file,
            unchecked,
        } => {
            let token = read_token(token_file)?;
            let mut parameters = vec![("credential", credential.clone())];
            parameters.extend(unchecked.then(|| ("unchecked", "true".to_owned())));
            rebind(command, &parameters, token).await
        }
        Action::Watch => watch(command).await,
    }
}

/// Moves the deferred writes of a credential to the new token, and reports how many moved. Writes
/// that stay are an error, though the others have moved: a script must not take that for done.
async fn rebind(
    command: &WritesCommand,
    parameters: &[(&'static str, String)],
    token: HeaderValue,
) -> Result<(), String> {
    let path = "/writes/rebind";
    let done = ask(&command.target, Method::POST, path, parameters, Some(token)).await?;
    let to = shown_credential(&done);
    let text = format!("{} writes now belong to {to}", done["moved"]);
    print(command.json, &done, &text);
    match done["left"].as_u64() {
        // `None` would be a gateway of another version; what it moved has been printed.
        Some(0) | None => Ok(()),
        Some(left) => Err(format!(
            "{left} stay with the old token: they have left with it, or the new one has a write \
             under the same Idempotency-Key; look at them with list, and try again or cancel them"
        )),
    }
}

/// Returns the path of one write.
fn one(id: WriteId) -> String {
    format!("/writes/{id}")
}

/// Shows the progress of all writes until none is left. It fails with the first look that fails,
/// also when the gateway stops.
async fn watch(command: &WritesCommand) -> Result<(), String> {
    // The counts are over all writes, whatever the page shows, so the smallest page will do.
    let look = async || {
        let smallest = [("limit", "1".to_owned())];
        ask(&command.target, Method::GET, "/writes", &smallest, None).await
    };
    // The gateway counts ends since its start. Only the difference to the first look is shown.
    let first = look().await?;
    let style = "{bar:40} {pos}/{len} writes have ended, {msg}; {elapsed} so far";
    let style = ProgressStyle::with_template(style).map_err(|error| error.to_string())?;
    let bar = ProgressBar::new(left(&first)).with_style(style);
    let ended = loop {
        let now = look().await?;
        let (done, left) = (ended_since(&first, &now), left(&now));
        // New ones may come while it is watched.
        bar.set_length(done + left);
        bar.set_position(done);
        bar.set_message(tally(&first, &now));
        if left == 0 {
            break now;
        }
        // After the answer, so a slow gateway is not asked more often than it answers.
        sleep(LOOK_EVERY).await;
    };
    bar.finish_and_clear();
    print(command.json, &ended, &summary(&first, &ended));
    Ok(())
}

/// Returns a sentence about the writes that ended while they were watched. It is the last line of
/// the command, and the only one in a script: a progress bar is drawn on a terminal alone.
fn summary(first: &Value, ended: &Value) -> String {
    match ended_since(first, ended) {
        0 => "no write is under way".to_owned(),
        1 => format!("1 write has ended: {}", tally(first, ended)),
        n => format!("{n} writes have ended: {}", tally(first, ended)),
    }
}

/// Returns how many writes have not ended: queued ones, paused or not, and those that were sent and
/// have no outcome yet.
fn left(page: &Value) -> u64 {
    ["queued", "dispatched"]
        .iter()
        .filter_map(|state| page[*state].as_u64())
        .sum()
}

/// Returns how many writes have ended since `first`, by state: succeeded, failed, unknown and
/// cancelled. A state that `first` does not have counts from 0.
fn by_state<'v>(first: &'v Value, now: &'v Value) -> impl Iterator<Item = (&'v str, u64)> {
    let states = now["ended"].as_object().into_iter().flatten();
    states.map(|(state, n)| {
        let before = first["ended"][state].as_u64().unwrap_or(0);
        // Counts fall back to 0 if the gateway restarts meanwhile. The progress then stands still
        // and is never negative.
        let n = n.as_u64().unwrap_or(0).saturating_sub(before);
        (state.as_str(), n)
    })
}

/// Returns how many writes have ended since `first`, in any state.
fn ended_since(first: &Value, now: &Value) -> u64 {
    by_state(first, now).map(|(_, n)| n).sum()
}

/// Returns the numbers by state, in words; states without a write are left out.
fn tally(first: &Value, now: &Value) -> String {
    let counts: Vec<String> = by_state(first, now)
        .filter(|(_, n)| *n > 0)
        .map(|(state, n)| format!("{n} {state}"))
        .collect();
    match counts.is_empty() {
        true => "none yet".to_owned(),
        false => counts.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn progress_counts_what_has_ended_since_it_began() {
        let first = json!({"queued": 3, "dispatched": 1, "ended": {"succeeded": 7, "failed": 1}});
        let now = json!({"queued": 0, "dispatched": 1, "ended": {"succeeded": 9, "failed": 2}});
        assert_eq!((left(&first), left(&now)), (4, 1));
        assert_eq!(ended_since(&first, &now), 3);
        assert_eq!(tally(&first, &now), "1 failed, 2 succeeded");
        assert_eq!(tally(&first, &first), "none yet");
        let said = summary(&first, &now);
        assert_eq!(said, "3 writes have ended: 1 failed, 2 succeeded");
        assert_eq!(summary(&first, &first), "no write is under way");
    }
}
