//! Pure. The file of clients: `[tokens.NAME]`, `[groups]` and `[clients.NAME]`.
//!
//! It is read as a whole or not at all: one mistake, and none of it is used. All mistakes are found
//! at once, each with its line. A name that leads nowhere is a mistake, because a right that was
//! misspelled would be missed only when somebody needs it.
//!
//! Names become labels of metrics and words in logs, so they are short, plain and bounded in
//! number. A text that may be a secret, in a place where none belongs, is never shown.

mod definition;
mod expiry;
mod groups;
mod keys;
mod names;
mod owners;
mod reader;
mod values;

pub use definition::{ClientDef, ClientsFile, KeyDef};
pub use expiry::expiry;
pub use groups::{OperationGroups, SHIPPED_GROUPS};
pub use names::{CLIENT_NAME, is_client_name};

use super::read::{Document, Environment, Findings, Section};
use crate::clients::CredentialMode;
use crate::route::Table;
use reader::ClientsReader;

/// Returns what a document says. Mistakes are in the findings; `table` gives the operations, and
/// without it their names are not checked. The second value has warnings.
pub fn read(
    document: &Document<'_>,
    mode: CredentialMode,
    table: Option<&Table>,
    findings: &mut Findings,
) -> (ClientsFile, Vec<String>) {
    let mut reader = ClientsReader::new(mode, table);
    let environment = Environment::default();
    Section::root(Some(document), &environment, findings, |root| {
        root.section("tokens", |section| reader.tokens(section));
        root.section("groups", |section| reader.groups(section));
        root.section("clients", |section| reader.clients(section));
    });
    let warnings = reader.warnings(findings);
    (reader.file, warnings)
}

#[cfg(test)]
mod tests;
