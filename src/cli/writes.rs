//! `segment-gateway writes`: the durable writes of a running gateway.
//!
//! Each action is one request to `/writes` on the admin listener, except `watch`, which asks again
//! and again. Nothing is decided here. The gateway checks the arguments and knows which actions are
//! possible; its message is what the operator sees.
//!
//! Output is made for pipes: a line for each write, the id first. A write is shown by the hash of
//! its credential and the name of that, and never with a token.
//!
//! Comments on the fields of the argument types are the help of the command line, so explanations
//! of the code there are plain comments.

use super::admin::{AdminTarget, ask, encoded};
use super::output::say;
use super::token::read_token;
use clap::{Args, Subcommand};
use http::Method;
use http::header::HeaderValue;
use indicatif::{ProgressBar, ProgressStyle};
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
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List writes, oldest first, one per line.
    List {
        #[command(flatten)]
        which: Which,
        /// State: queued, dispatched, succeeded, failed, unknown or cancelled.
        #[arg(long)]
        state: Option<String>,
        /// List writes after this id.
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// Maximum number of lines, up to 1000.
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// Show one write as JSON, with the API's answer.
    Show {
        /// Id of the write.
        id: String,
    },
    /// Cancel a write that has not been sent.
    Cancel {
        /// Id of the write.
        id: String,
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
struct Which {
    /// Hash or name of the credential, as lists and logs show it.
    #[arg(long, value_name = "HASH")]
    credential: Option<String>,
    /// Name of the operation, e.g. createInvites.
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,
}

impl Which {
    /// Returns the parameters of the query that were given. A list needs none; the gateway rejects
    /// a pause or a resumption without any.
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
        Action::List {
            which,
            state,
            after,
            limit,
        } => {
            let mut parameters = which.parameters();
            parameters.push(("limit", limit.to_string()));
            // A state that does not exist is rejected by the gateway, which lists those that do.
            for (name, value) in [("state", state), ("after", after)] {
                parameters.extend(value.clone().map(|value| (name, value)));
            }
            list(&ask(Method::GET, "/writes", &parameters).await?);
            Ok(())
        }
        Action::Show { id } => {
            let shown = ask(Method::GET, &one(id), &[]).await?;
            // As the gateway has it: a script can rely on the names in the documentation.
            say(&format!("{shown:#}"));
            Ok(())
        }
        Action::Cancel { id } => {
            // Fails if the write has been sent by now. The gateway decides that, under its own
            // lock.
            ask(Method::DELETE, &one(id), &[]).await?;
            say(&format!("{id} cancelled"));
            Ok(())
        }
        Action::Pause(which) => {
            let done = ask(Method::POST, "/writes/pause", &which.parameters()).await?;
            // Both are successes, so that a script may repeat the command.
            say(if done["changed"] == true {
                "paused"
            } else {
                "was paused already"
            });
            Ok(())
        }
        Action::Resume(which) => {
            let done = ask(Method::POST, "/writes/resume", &which.parameters()).await?;
            say(if done["changed"] == true {
                "resumed"
            } else {
                "was not paused"
            });
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
            rebind(&command.target, &parameters, token).await
        }
        Action::Watch => watch(&command.target).await,
    }
}

/// Moves the deferred writes of a credential to the new token, and reports how many moved. Writes
/// that stay are an error, though the others have moved: a script must not take that for done.
async fn rebind(
    target: &AdminTarget,
    parameters: &[(&'static str, String)],
    token: HeaderValue,
) -> Result<(), String> {
    let path = "/writes/rebind";
    let done = ask(target, Method::POST, path, parameters, Some(token)).await?;
    say(&format!(
        "{} writes are those of {} now",
        done["moved"],
        shown_credential(&done)
    ));
    match done["left"].as_u64() {
        // `None` would be a gateway of another version; what it moved has been printed.
        Some(0) | None => Ok(()),
        Some(left) => Err(format!(
            "{left} stay with the old token: they have left with it, or the new one has a write \
             under the same Idempotency-Key; look at them with list, and try again or cancel them"
        )),
    }
}

/// Returns the credential of a document as people know it: the name, if it has one, and the hash.
fn shown_credential(document: &Value) -> String {
    let hash = document["credential"].as_str().unwrap_or("-");
    match document["credentialName"].as_str() {
        Some(name) => format!("{name} ({hash})"),
        None => hash.to_owned(),
    }
}

/// Returns the path of one write. An id with reserved characters cannot reach another path.
fn one(id: &str) -> String {
    format!("/writes/{}", encoded(id))
}

/// Prints a page of writes, then what is paused, then how to get the next page.
fn list(page: &Value) {
    let writes = || page["writes"].as_array().into_iter().flatten();
    let names = writes().filter_map(|write| write["credentialName"].as_str());
    let width = names.map(str::len).max().unwrap_or(1);
    for write in writes() {
        // `-` keeps the columns where a field is absent.
        let field = |name: &str| write[name].as_str().unwrap_or("-").to_owned();
        say(&format!(
            "{}  {:<10}  {}  {:<width$}  {}  {}  {} {}",
            field("id"),
            field("state"),
            field("credential"),
            field("credentialName"),
            field("acceptedAt"),
            field("operation"),
            field("method"),
            field("path"),
        ));
    }
    for paused in page["paused"].as_array().into_iter().flatten() {
        say(&format!("paused: {paused}"));
    }
    if let Some(next) = page["next"].as_str() {
        say(&format!("more: --after {next}"));
    }
}

/// Shows the progress of all writes until none is left. It fails with the first look that fails,
/// also when the gateway stops.
async fn watch(target: &AdminTarget) -> Result<(), String> {
    // The counts are over all writes, whatever the page shows, so the smallest page will do.
    let look = async || {
        ask(
            target,
            Method::GET,
            "/writes",
            &[("limit", "1".to_owned())],
            None,
        )
        .await
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
    say(&summary(&first, &ended));
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
