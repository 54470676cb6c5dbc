//! `segment-gateway key`: makes keys for clients, and hashes them for the file of clients.
//!
//! No running gateway and no configuration is needed, so whoever makes a key need not be who
//! operates the gateway. A new key is shown once, on standard output. The block for the file is on
//! standard error and is a document of TOML by itself, so that both can be redirected.
//!
//! Comments on the fields of the argument types are the help of the command line, so explanations
//! of the code there are plain comments.

use super::output::{Failure, say};
use crate::clients::{ClientKey, KeyDigest, KeyId};
use crate::clock::Clock;
use crate::config::{self, units};
use clap::{Args, Subcommand};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[derive(Args, Debug)]
pub(super) struct KeyCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a key for a client. The key is printed once, on standard output; the block for the file
    /// of clients is on standard error. Needs no running gateway.
    New(New),
    /// Print the id and the hash of a key, for the file of clients.
    Hash(Hash),
}

#[derive(Args, Debug)]
struct New {
    /// Name of the client.
    #[arg(long, value_name = "NAME")]
    client: String,
    /// When the key stops being accepted: after a time such as 90d, at the end of a day such as
    /// 2027-03-31 (UTC), or at a time such as 2027-03-31T12:00:00Z. Without it the key never
    /// expires.
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
}

#[derive(Args, Debug)]
struct Hash {
    /// File with the key, or - for standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    key_file: PathBuf,
}

/// The most that is read of a file with a key, in bytes. No key is nearly as long.
const MOST: u64 = 4096;

/// Runs the command.
pub(super) fn run(command: &KeyCommand) -> Result<(), Failure> {
    match &command.what {
        What::New(command) => new(command),
        What::Hash(command) => hash(&command.key_file),
    }
}

/// Everything that may be wrong comes before the key is made.
fn new(command: &New) -> Result<(), Failure> {
    let client = &command.client;
    if !config::is_client_name(client) {
        let why = format!("--client: expected {}", config::CLIENT_NAME);
        return Err(Failure::Unusable(vec![why]));
    }
    let now = Clock::system().wall();
    let expires = command.expires.as_deref();
    let expires = expires.map(|when| expiry(when, now)).transpose();
    let expires = expires.map_err(|why| Failure::Unusable(vec![why]))?;
    let key = ClientKey::generate()
        .map_err(|error| format!("the system gives no random bytes for a key: {error}"))?;
    let expires = expires.map_or_else(String::new, |when| format!("expires = {when}\n"));
    // A dot divides a bare name.
    let name = match client.contains('.') {
        true => format!("\"{client}\""),
        false => client.clone(),
    };
    let block = format!(
        "[[clients.{name}.keys]]\n{}\n{expires}",
        lines(key.id(), key.digest())
    );
    // First the block: whoever has the key and no block can make one with `key hash`, but nobody
    // gets a key that was not shown.
    let _ = io::stderr().write_all(block.as_bytes());
    let mut out = io::stdout();
    let shown = writeln!(out, "{}", key.reveal()).and_then(|()| out.flush());
    shown.map_err(|error| {
        format!("cannot show the key ({error}): it is lost; remove its block and make another one")
    })?;
    Ok(())
}

fn hash(file: &Path) -> Result<(), Failure> {
    let mut text = Vec::new();
    let read = if file == Path::new("-") {
        io::stdin().take(MOST).read_to_end(&mut text)
    } else {
        File::open(file).and_then(|file| file.take(MOST).read_to_end(&mut text))
    };
    read.map_err(|error| format!("cannot read the key from {}: {error}", file.display()))?;
    // Editors and `echo` end the file with a line break.
    let key = ClientKey::parse(text.trim_ascii()).map_err(|error| error.to_string())?;
    say(&lines(key.id(), key.digest()));
    Ok(())
}

/// Returns a key as the file of clients has it.
fn lines(id: KeyId, digest: KeyDigest) -> String {
    format!("id = \"{id}\"\nsha256 = \"{digest}\"")
}

/// Returns an expiry as TOML has it. It must be to come: a key that has expired already is a slip.
fn expiry(when: &str, now: SystemTime) -> Result<String, String> {
    let (written, at) = match units::duration(when) {
        Some(time) => {
            let at = now + time;
            (humantime::format_rfc3339_seconds(at).to_string(), Some(at))
        }
        None => (when.to_owned(), config::expiry(when)),
    };
    match at {
        Some(at) if at > now => Ok(written),
        Some(_) => Err("--expires: expected a time to come".to_owned()),
        None => Err(format!(
            "--expires: found {}, expected {} of 365d at most, a date such as `2027-03-31`, or a \
             time such as `2027-03-31T12:00:00Z`",
            units::quoted(when),
            units::DURATION
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_table_of_expiries() {
        // 2026-11-30T12:00:00Z.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_040_000);
        for (when, expected) in [
            ("90d", Some("2027-02-28T12:00:00Z")),
            ("12h", Some("2026-12-01T00:00:00Z")),
            ("2027-03-31", Some("2027-03-31")),
            ("2026-11-30", Some("2026-11-30")),
            ("2026-11-29", None),
            (
                "2027-03-31T12:00:00+01:00",
                Some("2027-03-31T12:00:00+01:00"),
            ),
            ("2027-03-31T12:00:00", None),
            ("366d", None),
            ("0d", None),
            ("90", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(expiry(when, now).ok().as_deref(), expected, "{when:?}");
        }
    }
}
