//! Pure. `credentials.names`: a table of names and hashes in a document, `name=hash` with commas in
//! the environment.
//!
//! The forms of names and hashes are in `credential/names.rs`. A mistake is reported at its own
//! entry. What was written in place of a hash is never shown: it may be a token.

use super::units;
use super::value::{ConfigValue, Raw, WrongEntry};
use crate::credential::CredentialNames;
use crate::credential::names::{HASH_FORM, NameError};
use std::ops::Range;
use toml::de::DeValue;

/// The form of the whole table, for messages.
const FORM: &str = "a table of names and hashes, such as `{ terraform = \"5773d8e37a48758f\" }`";
/// The form of an entry in the environment.
const ENTRY: &str = "`name=hash`, with commas between entries";
/// The most characters of a malformed name that a message shows. A token is longer.
const MOST_SHOWN: usize = 32;

/// Reads all entries. The second value has what is wrong.
fn read(raw: Raw<'_>) -> (CredentialNames, Vec<WrongEntry>) {
    let (mut names, mut wrong) = (CredentialNames::default(), Vec::new());
    match raw {
        Raw::Toml(DeValue::Table(table)) => {
            // In the order in which they are written, so that a duplicate is the second one.
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(key, _)| key.span().start);
            for (key, value) in entries {
                let (name, span) = (key.get_ref().as_ref(), Some(key.span()));
                match value.get_ref() {
                    DeValue::String(hash) => wrong.extend(add(&mut names, name, hash, span)),
                    _ => wrong.push(WrongEntry {
                        name: shown(name),
                        span,
                        found: "a value that is not text".to_owned(),
                        expected: HASH_FORM.to_owned(),
                    }),
                }
            }
        }
        Raw::Text(text) => {
            let entries = text.split(',').map(str::trim);
            for entry in entries.filter(|entry| !entry.is_empty()) {
                match entry.split_once('=') {
                    Some((name, hash)) => {
                        wrong.extend(add(&mut names, name.trim(), hash.trim(), None));
                    }
                    None => wrong.push(WrongEntry {
                        name: None,
                        span: None,
                        found: "an entry without `=`".to_owned(),
                        expected: ENTRY.to_owned(),
                    }),
                }
            }
        }
        Raw::Toml(_) => wrong.push(WrongEntry {
            name: None,
            span: None,
            found: "a value that is no table".to_owned(),
            expected: FORM.to_owned(),
        }),
    }
    (names, wrong)
}

/// Adds an entry. Returns what is wrong with it, if anything is.
fn add(
    names: &mut CredentialNames,
    name: &str,
    hash: &str,
    span: Option<Range<usize>>,
) -> Option<WrongEntry> {
    let error = names.add(name, hash).err()?;
    let found = match (error, shown(name)) {
        (NameError::Name, Some(name)) => units::quoted(&name),
        (NameError::Name, None) => format!("a name of {} characters", name.chars().count()),
        (error, _) => error.to_string(),
    };
    Some(WrongEntry {
        name: shown(name).filter(|_| error != NameError::Name),
        span,
        found,
        expected: error.expected(),
    })
}

/// Returns a name as a message shows it; `None` if it is so long that it may be a token.
fn shown(name: &str) -> Option<String> {
    (name.chars().count() <= MOST_SHOWN).then(|| name.to_owned())
}

/// Names of credentials. Empty text in the environment takes away what a document sets.
impl ConfigValue for CredentialNames {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        match read(raw) {
            (names, wrong) if wrong.is_empty() => Ok(names),
            _ => Err(FORM.to_owned()),
        }
    }

    fn show(&self) -> String {
        if self.is_empty() {
            return "{}".to_owned();
        }
        let entries = self.entries().into_iter();
        let entries: Vec<_> = entries
            .map(|(name, hash)| format!("{name} = \"{hash}\""))
            .collect();
        format!("{{ {} }}", entries.join(", "))
    }

    fn wrong_entries(raw: Raw<'_>) -> Vec<WrongEntry> {
        read(raw).1
    }
}
