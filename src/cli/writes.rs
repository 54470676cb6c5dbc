//! `segment-gateway writes`: the durable writes of a running gateway.

use super::admin::{AdminTarget, ask, encoded};
use super::output::say;
use clap::{Args, Subcommand};
use http::Method;
use http::header::HeaderValue;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
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
        /// Hash of the old credential, as lists and logs show it.
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

/// A selection of writes.
#[derive(Args, Debug)]
struct Which {
    /// Hash of the credential, as lists and logs show it.
    #[arg(long, value_name = "HASH")]
    credential: Option<String>,
    /// Name of the operation, e.g. createInvites.
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,
}

impl Which {
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
            for (name, value) in [("state", state), ("after", after)] {
                parameters.extend(value.clone().map(|value| (name, value)));
            }
            list(&ask(Method::GET, "/writes", &parameters).await?);
            Ok(())
        }
        Action::Show { id } => {
            let shown = ask(Method::GET, &one(id), &[]).await?;
            say(&format!("{shown:#}"));
            Ok(())
        }
        Action::Cancel { id } => {
            ask(Method::DELETE, &one(id), &[]).await?;
            say(&format!("{id} cancelled"));
            Ok(())
        }
        Action::Pause(which) => {
            let done = ask(Method::POST, "/writes/pause", &which.parameters()).await?;
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

/// Reads a token, marked so that nothing shows it.
fn read_token(file: &Path) -> Result<HeaderValue, String> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)
    } else {
        File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|error| format!("cannot read the token from {}: {error}", file.display()))?;
    let token = text.trim();
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let mut value = value
        .ok()
        .filter(|_| !token.is_empty())
        .ok_or_else(|| format!("{} has no token", file.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

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
        done["credential"].as_str().unwrap_or("-")
    ));
    match done["left"].as_u64() {
        Some(0) | None => Ok(()),
        Some(left) => Err(format!(
            "{left} stay with the old token: they have left with it, or the new one has a write \
             under the same Idempotency-Key; look at them with list, and try again or cancel them"
        )),
    }
}

fn one(id: &str) -> String {
    format!("/writes/{}", encoded(id))
}

fn list(page: &Value) {
    for write in page["writes"].as_array().into_iter().flatten() {
        let field = |name: &str| write[name].as_str().unwrap_or("-").to_owned();
        say(&format!(
            "{}  {:<10}  {}  {}  {}  {} {}",
            field("id"),
            field("state"),
            field("credential"),
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

/// Shows the progress of all writes until none is left.
async fn watch(target: &AdminTarget) -> Result<(), String> {
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
        sleep(LOOK_EVERY).await;
    };
    bar.finish_and_clear();
    say(&summary(&first, &ended));
    Ok(())
}

/// Returns a sentence about the writes that ended while they were watched.
fn summary(first: &Value, ended: &Value) -> String {
    match ended_since(first, ended) {
        0 => "no write is under way".to_owned(),
        1 => format!("1 write has ended: {}", tally(first, ended)),
        n => format!("{n} writes have ended: {}", tally(first, ended)),
    }
}

fn left(page: &Value) -> u64 {
    ["queued", "dispatched"]
        .iter()
        .filter_map(|state| page[*state].as_u64())
        .sum()
}

/// Returns how many writes have ended since `first`, by state.
fn by_state<'v>(first: &'v Value, now: &'v Value) -> impl Iterator<Item = (&'v str, u64)> {
    let states = now["ended"].as_object().into_iter().flatten();
    states.map(|(state, n)| {
        let before = first["ended"][state].as_u64().unwrap_or(0);
        let n = n.as_u64().unwrap_or(0).saturating_sub(before);
        (state.as_str(), n)
    })
}

fn ended_since(first: &Value, now: &Value) -> u64 {
    by_state(first, now).map(|(_, n)| n).sum()
}

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
