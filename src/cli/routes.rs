//! `segment-gateway routes`: the effective route table.
//!
//! Comments on the fields of the argument types are the help of the command line, so explanations
//! of the code there are plain comments.

use super::check::ConfigFile;
use super::output::{Failure, say};
use crate::config;
use crate::route::Table;
use clap::Args;

/// The most names that a message proposes for an unknown one.
const MOST_PROPOSED: usize = 5;

#[derive(Args, Debug)]
pub(super) struct RoutesCommand {
    #[command(flatten)]
    file: ConfigFile,
    /// Operation to show with its budget, tags, order keys and cache rules, e.g. getUser. Without
    /// it all are listed, one per line.
    name: Option<String>,
    /// Print JSON, with everything about each operation.
    #[arg(long)]
    json: bool,
    /// Print the embedded table as TOML, to edit and name in routes.file.
    #[arg(long, conflicts_with_all = ["config", "name", "json"])]
    toml: bool,
}

/// Runs the command.
pub(super) fn run(command: &RoutesCommand) -> Result<(), Failure> {
    if command.toml {
        say(config::EMBEDDED_ROUTES.trim_end());
        return Ok(());
    }
    let table = command.file.load()?.table(1)?;
    let text = match (&command.name, command.json) {
        (None, false) => config::render_routes(&table),
        (None, true) => format!("{:#}", config::routes_document(&table)),
        (Some(name), is_json) => {
            let mut operations = table.operations().iter();
            let operation = operations.find(|operation| *operation.name == **name);
            let operation = operation.ok_or_else(|| unknown(name, &table))?;
            match is_json {
                true => format!("{:#}", config::route_document(operation)),
                false => config::render_route(operation),
            }
        }
    };
    say(text.trim_end());
    Ok(())
}

/// Returns the message about an operation that does not exist, with those whose names contain what
/// was typed.
pub(super) fn unknown(name: &str, table: &Table) -> String {
    let typed = name.to_lowercase();
    let operations = table.operations().iter();
    let alike = operations.filter(|operation| operation.name.to_lowercase().contains(&typed));
    let alike: Vec<&str> = alike.take(MOST_PROPOSED).map(|one| &*one.name).collect();
    let proposal = match alike.is_empty() {
        true => "`segment-gateway routes` lists them".to_owned(),
        false => format!("there is {}", alike.join(", ")),
    };
    format!("there is no operation {name}; {proposal}")
}
