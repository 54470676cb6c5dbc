//! `segment-gateway cache`: the stored responses of a running gateway.

use super::admin::{AdminTarget, ask};
use super::output::say;
use clap::{Args, Subcommand};
use http::Method;

/// The command and its flags.
#[derive(Args, Debug)]
pub struct CacheCommand {
    #[command(flatten)]
    target: AdminTarget,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show as JSON what is stored under a key, or why nothing is stored.
    Show {
        /// Key from Cache-Status.
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
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Responses of this operation, e.g. getUser.
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,
    /// Responses to this credential, by its hash as logs show it or by its name.
    #[arg(long, value_name = "HASH")]
    credential: Option<String>,
    /// The response under this key from Cache-Status.
    #[arg(long, value_name = "KEY")]
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

/// Runs the command.
pub(super) async fn act(command: &CacheCommand) -> Result<(), String> {
    match &command.action {
        Action::Show { key } => {
            let key = [("key", key.clone())];
            let shown = ask(&command.target, Method::GET, "/cache", &key, None).await?;
            say(&format!("{shown:#}"));
        }
        Action::Purge(what) => {
            let what = [what.parameter()];
            let done = ask(&command.target, Method::POST, "/cache/purge", &what, None).await?;
            let purged = done["purged"].as_u64().unwrap_or_default();
            let answers = if purged == 1 { "answer" } else { "answers" };
            say(&format!("{purged} {answers} purged"));
        }
    }
    Ok(())
}
