//! `segment-gateway cache`: the stored responses of a running gateway.
//!
//! Comments on the fields of the argument types are the help of the command line, so explanations
//! of the code there are plain comments.

use super::admin::{AdminTarget, ask};
use super::output::{document, print};
use crate::cache::key::CacheKeyHash;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use http::Method;

/// The command and its flags.
#[derive(Args, Debug)]
pub struct CacheCommand {
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
    /// Show as JSON what is stored under a key, or why nothing is stored.
    Show {
        /// Key from Cache-Status.
        #[arg(value_parser = cache_key)]
        key: String,
    },
    /// Remove stored responses, including fetches in flight, and print their number.
    Purge(What),
}

/// A selection of stored responses.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct What {
    /// Responses with this tag, e.g. users or user:42.
    #[arg(long, value_name = "TAG", value_parser = NonEmptyStringValueParser::new())]
    tag: Option<String>,
    /// Responses of this operation, e.g. getUser.
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,
    /// Responses to this credential, by its hash as logs show it or by its name.
    #[arg(long, value_name = "HASH")]
    credential: Option<String>,
    /// The response under this key from Cache-Status.
    #[arg(long, value_name = "KEY", value_parser = cache_key)]
    key: Option<String>,
    /// All responses.
    #[arg(long)]
    everything: bool,
}

impl What {
    fn parameter(&self) -> (&'static str, String) {
        let given = [
            ("tag", &self.tag),
            ("operation", &self.operation),
            ("credential", &self.credential),
            ("key", &self.key),
        ];
        let given = given.into_iter();
        let mut given = given.filter_map(|(name, value)| Some((name, value.as_ref()?)));
        match given.next() {
            Some((name, value)) => (name, value.clone()),
            None => ("everything", self.everything.to_string()),
        }
    }
}

/// Checks the form of a key.
fn cache_key(text: &str) -> Result<String, String> {
    let key = text.parse::<CacheKeyHash>();
    key.map(|_| text.to_owned())
        .map_err(|form| format!("expected {form}"))
}

/// Runs the command.
pub(super) async fn act(command: &CacheCommand) -> Result<(), String> {
    match &command.action {
        Action::Show { key } => {
            let key = [("key", key.clone())];
            document(&ask(&command.target, Method::GET, "/cache", &key, None).await?);
        }
        Action::Purge(what) => {
            let what = [what.parameter()];
            let done = ask(&command.target, Method::POST, "/cache/purge", &what, None).await?;
            let purged = done["purged"].as_u64().unwrap_or_default();
            let answers = if purged == 1 { "answer" } else { "answers" };
            let text = format!("{purged} {answers} purged");
            print(command.json, &done, &text);
        }
    }
    Ok(())
}
