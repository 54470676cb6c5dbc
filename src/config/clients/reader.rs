//! Pure. Reads the sections of the file of clients, in the order in which they refer to each other.
//!
//! Mistakes go into the findings of the section. What is read beside a mistake is not used by
//! anybody, so it need not be complete.

use super::definition::{ClientDef, ClientsFile};
use super::groups::{OperationGroups, SHIPPED_GROUPS};
use super::names::names;
use super::owners::KeyOwners;
use super::values::{Reference, Words, entry, shown, texts};
use crate::clients::{CredentialMode, NamedClient, TokenFile};
use crate::config::read::{Findings, Section, nearest};
use crate::route::Table;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// The most keys of all clients together.
const MOST_KEYS: usize = 1000;

/// What has been read so far.
pub struct ClientsReader<'t> {
    mode: CredentialMode,
    table: Option<&'t Table>,
    /// What was read.
    pub file: ClientsFile,
    /// The tokens that some client names.
    used: BTreeSet<Arc<str>>,
    owners: KeyOwners,
}

impl<'t> ClientsReader<'t> {
    /// Returns a reader that has read nothing. Without a `table` no operation is known or unknown.
    pub fn new(mode: CredentialMode, table: Option<&'t Table>) -> Self {
        Self {
            mode,
            table,
            file: ClientsFile::default(),
            used: BTreeSet::new(),
            owners: KeyOwners::default(),
        }
    }

    /// Reads `[tokens.NAME]`. First, because clients name them.
    pub fn tokens(&mut self, section: &mut Section<'_>) {
        for name in names(section, "tokens") {
            section.section(&name, |section| {
                let mut file: Option<PathBuf> = None;
                if !section.has("file") {
                    section.missing("file");
                }
                section.key("file", &mut file);
                // Also without its file, so that the clients of this token are no mistake as well.
                self.file.tokens.push(TokenFile {
                    name: name.as_str().into(),
                    path: file.unwrap_or_default(),
                });
            });
        }
    }

    /// Reads `[groups]`.
    pub fn groups(&mut self, section: &mut Section<'_>) {
        let mut written = Vec::new();
        for name in names(section, "groups") {
            let mut words = Words::default();
            section.key(&name, &mut words);
            let is_operation = self
                .table
                .is_some_and(|table| table.operations().iter().any(|one| *one.name == *name));
            if SHIPPED_GROUPS.contains(&name.as_str()) || is_operation {
                let expected = "another name: this one is taken by the gateway";
                section.problem(&name, "a group of this name", expected);
                continue;
            }
            self.file.groups.insert(name.as_str().into(), texts(&words));
            written.push((name, words));
        }
        // Now that all groups are known: one may list another that is written below it.
        for (name, words) in written {
            self.operations(section, &name, &words);
            let Some(table) = self.table else { continue };
            if OperationGroups::new(table, &self.file.groups).contains_itself(&name) {
                let expected = "groups that do not lead back to themselves";
                section.problem(&name, "a group that contains itself", expected);
            }
        }
    }

    /// Reads `[clients.NAME]`.
    pub fn clients(&mut self, section: &mut Section<'_>) {
        for name in names(section, "clients") {
            section.section(&name, |section| {
                let def = self.client(name.as_str().into(), section);
                self.file.clients.push(def);
            });
        }
        let count: usize = self.file.clients.iter().map(|def| def.keys.len()).sum();
        if count > MOST_KEYS {
            let found = format!("{count} keys of all clients together");
            section.wrong(found, format!("{MOST_KEYS} keys at most"));
        }
    }

    /// Reads one client.
    fn client(&mut self, name: Arc<str>, section: &mut Section<'_>) -> ClientDef {
        let token = self.token(section);
        let mut may = Words::default();
        if !section.has("may") {
            section.missing("may");
        }
        section.key("may", &mut may);
        self.operations(section, "may", &may);
        let mut rate = None;
        section.key("rate", &mut rate);
        let mut share = 1_u32;
        section.within(
            "share",
            &mut share,
            1..=u32::from(NamedClient::LARGEST_SHARE),
        );
        let certificates = self.owners.certificates(&name, section);
        let keys = self.owners.keys(&name, section);
        // A key that is written and wrong is reported already.
        if !section.has("keys") && certificates.is_empty() {
            let expected = format!(
                "a key, which `segment-gateway key new --client {name}` makes, or `certificates`"
            );
            section.wrong("a client without keys and certificates", expected);
        }
        ClientDef {
            name,
            token,
            may: texts(&may),
            rate,
            share: u8::try_from(share).unwrap_or(1),
            certificates,
            keys,
        }
    }

    /// Reads the name of the token, which must be one of the file.
    fn token(&mut self, section: &mut Section<'_>) -> Option<Arc<str>> {
        let mut token = Reference::default();
        section.key("token", &mut token);
        let Reference(token) = token;
        if token.is_empty() {
            // A value that is written and wrong is reported already.
            if self.mode == CredentialMode::Managed && !section.has("token") {
                let expected = "`token` with the name of a table `[tokens.NAME]`: where \
                                callers.credentials is \"managed\", a client has no other";
                section.wrong("a client without a token", expected);
            }
            return None;
        }
        let mut tokens = self.file.tokens.iter();
        let known = tokens.find(|known| *known.name == *token);
        let Some(known) = known else {
            let names = self.file.tokens.iter().map(|known| &*known.name);
            let expected = match nearest(&token, names) {
                Some(known) => format!("`{known}` (the nearest), or a table `[tokens.NAME]`"),
                None => "the name of a table `[tokens.NAME]` with its `file`".to_owned(),
            };
            section.problem("token", shown(&token), expected);
            return None;
        };
        self.used.insert(known.name.clone());
        Some(known.name.clone())
    }

    /// Reports the words that stand for no operation and no group.
    fn operations(&self, section: &mut Section<'_>, key: &str, words: &Words) {
        let Some(table) = self.table else { return };
        let groups = OperationGroups::new(table, &self.file.groups);
        for word in words.0.iter().filter(|word| !groups.knows(&word.text)) {
            let expected = match nearest(&word.text, groups.names()) {
                Some(known) => format!("`{known}` (the nearest)"),
                None => {
                    "an operation, as `segment-gateway routes` lists them, or a group".to_owned()
                }
            };
            section.wrong_entry(key, entry(word, shown(&word.text), expected));
        }
    }

    /// Returns what is allowed and probably not meant, with its place.
    pub fn warnings(&self, findings: &Findings) -> Vec<String> {
        let tokens = self.file.tokens.iter();
        let unused = tokens.filter(|token| !self.used.contains(&token.name));
        let warning = |token: &TokenFile| {
            let key = format!("tokens.{}", token.name);
            let place = findings.places.get(&format!("{key}.file"));
            let place = place.map_or_else(String::new, |place| format!("{place}: "));
            format!("{place}{key}: no client uses this token")
        };
        unused.map(warning).collect()
    }
}
