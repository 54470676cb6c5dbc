//! `segment-gateway clients`: the clients of a configuration, and what they may use.
//!
//! Everything comes from the files that a gateway would read, so an answer can be had before a
//! change is made. What a running gateway has seen of its clients is in its metrics.
//!
//! Comments on the fields of the argument types are the help of the command line, so explanations
//! of the code there are plain comments.

mod revoke;

use super::admin;
use super::check::ConfigFile;
use super::output::{Failure, print, say};
use super::routes;
use crate::clients::NamedClient;
use crate::clock::Clock;
use crate::config::{ClientDef, KeyDef, Loaded, OperationGroups, units};
use crate::route::Table;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

const DAY: u64 = 86_400;

#[derive(Args, Debug)]
pub(super) struct ClientsCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the clients with their tokens, keys and the number of operations that they may use.
    List(List),
    /// Say whether a client may use an operation, and which group or entry allows it. Exit status:
    /// 0 it may, 1 it may not.
    Can(Can),
    /// Take the keys and certificate names of a client out of use at once, in the running gateway.
    /// They stay so until the file of clients no longer has them.
    Revoke(revoke::Revoke),
}

#[derive(Args, Debug)]
struct List {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Can {
    #[command(flatten)]
    file: ConfigFile,
    /// Name of the client.
    name: String,
    /// Operation, e.g. deleteUsers.
    operation: String,
}

/// Runs the command.
pub(super) fn run(command: &ClientsCommand) -> Result<(), Failure> {
    match &command.what {
        What::List(command) => list(command),
        What::Can(command) => can(command),
        What::Revoke(command) => admin::run(revoke::act(command)),
    }
}

/// Loads a configuration that has clients.
fn load(file: &ConfigFile) -> Result<(Loaded, Table), Failure> {
    let loaded = file.load()?;
    if loaded.config.callers.clients_file.is_none() {
        let why = "the configuration names no callers.clients_file: callers send tokens of their \
                   own, and there are no clients. Name the configuration with --config";
        return Err(why.to_owned().into());
    }
    let table = loaded.table(1)?;
    Ok((loaded, table))
}

fn list(command: &List) -> Result<(), Failure> {
    let (loaded, table) = load(&command.file)?;
    let now = Clock::system().wall();
    let registry = loaded
        .clients
        .registry(loaded.config.callers.credentials, &table);
    // The registry has what follows from the file, the file what was written there.
    let clients = registry.clients().iter().zip(&loaded.clients.clients);
    let rows: Vec<_> = clients.collect();
    let documents = rows.iter().map(|(client, def)| document(client, def, now));
    let documents = json!({ "clients": documents.collect::<Vec<_>>() });
    print(command.json, &documents, text(&rows, now).trim_end());
    Ok(())
}

/// Returns all that is known of a client, for programs.
fn document(client: &NamedClient, def: &ClientDef, now: SystemTime) -> Value {
    let expires = |key: &KeyDef| {
        let at = key.expires?;
        Some(humantime::format_rfc3339_seconds(at).to_string())
    };
    let keys = def.keys.iter();
    let keys = keys.map(|key| {
        json!({
            "id": key.id.as_str(),
            "expires": expires(key),
            "daysLeft": key.expires.map(|at| days_left(at, now)),
        })
    });
    json!({
        "name": &*client.name,
        "token": client.token.as_deref(),
        "keys": keys.collect::<Vec<_>>(),
        "certificates": &client.certificates,
        "may": &def.may,
        "operations": client.rights.count(),
        "rate": client.rate.map(units::show_rate),
        "share": client.share,
    })
}

/// Returns one line for each client.
fn text(rows: &[(&Arc<NamedClient>, &ClientDef)], now: SystemTime) -> String {
    let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
    let names = longest(&mut rows.iter().map(|(client, _)| client.name.len()));
    let tokens = longest(&mut rows.iter().map(|(client, _)| token(client).len()));
    let mut text = String::new();
    for (client, def) in rows {
        let operations = client.rights.count();
        let _ = write!(
            text,
            "{:names$}  token {:tokens$}  {operations:3} operations  ",
            client.name,
            token(client),
        );
        let keys: Vec<String> = def.keys.iter().map(|key| in_words(key, now)).collect();
        let certificates = client.certificates.iter();
        let certificates = certificates.map(|name| format!("certificate {name}"));
        let shown: Vec<String> = keys.into_iter().chain(certificates).collect();
        let _ = writeln!(text, "{}", shown.join(", "));
    }
    text
}

/// Returns the name of a client's token as the list shows it.
fn token(client: &NamedClient) -> &str {
    client.token.as_deref().unwrap_or("-")
}

/// Returns a key as the list shows it.
fn in_words(key: &KeyDef, now: SystemTime) -> String {
    let left = match key.expires.map(|at| days_left(at, now)) {
        None => "never expires".to_owned(),
        Some(days) if days < 0 => "expired".to_owned(),
        Some(0) => "expires within a day".to_owned(),
        Some(days) => format!("expires in {days} d"),
    };
    format!("key {} {left}", key.id)
}

/// Returns the whole days that are left; -1 if none is and the time is up.
fn days_left(at: SystemTime, now: SystemTime) -> i64 {
    match at.duration_since(now) {
        Ok(left) if !left.is_zero() => i64::try_from(left.as_secs() / DAY).unwrap_or(i64::MAX),
        _ => -1,
    }
}

fn can(command: &Can) -> Result<(), Failure> {
    let (loaded, table) = load(&command.file)?;
    let (name, operation) = (&command.name, &command.operation);
    let file = &loaded.clients;
    let Some(def) = file.clients.iter().find(|def| *def.name == **name) else {
        let names: Vec<&str> = file.clients.iter().map(|def| &*def.name).collect();
        let why = format!("there is no client {name}; there is {}", names.join(", "));
        return Err(Failure::Unusable(vec![why]));
    };
    let groups = OperationGroups::new(&table, &file.groups);
    if !groups.is_operation(operation) {
        return Err(Failure::Unusable(vec![routes::unknown(operation, &table)]));
    }
    match groups.way_to(&def.may, operation) {
        Some(way) => {
            let way = match &way[..] {
                [_] => "`may` lists it".to_owned(),
                [groups @ .., _] => format!("by the group {}", groups.join(", in it ")),
                [] => String::new(),
            };
            say(&format!("{name} may use {operation}: {way}"));
            Ok(())
        }
        None => Err(Failure::Failed(format!(
            "{name} may not use {operation}: neither `may` nor a group in it lists it"
        ))),
    }
}
