//! Pure. What is laid over a document: variables of the environment, and flags over them.
//!
//! A variable stands for a key by its name. A flag stands for the key that its command says, and
//! problems with its value name the flag alone.

use super::super::problem::Place;
use super::variables;
use std::collections::BTreeMap;

/// The prefix of environment variables that stand for keys.
pub const PREFIX: &str = "SEGMENT_GATEWAY__";

/// The environment: values by key with its sections, from variables that begin with [`PREFIX`], and
/// over them from flags of the command line.
#[derive(Default)]
pub struct Environment {
    /// The place and the value of each variable or flag. The place is kept for messages.
    pub(super) values: BTreeMap<String, (Place, String)>,
    /// The names of variables that look like the gateway's own and are not.
    pub(super) strangers: Vec<String>,
}

impl Environment {
    /// Takes the variables that begin with [`PREFIX`]; the last of the same name counts. A name
    /// that is not in upper case is kept as it is, so that it is unknown later. A variable that
    /// only begins like the program's name is kept as a stranger.
    pub fn new(pairs: impl Iterator<Item = (String, String)>) -> Self {
        let mut values = BTreeMap::new();
        let mut strangers = Vec::new();
        for (name, value) in pairs {
            let Some(rest) = name.strip_prefix(PREFIX) else {
                if variables::is_stranger(&name, &value) {
                    strangers.push(name);
                }
                continue;
            };
            let upper = !rest.bytes().any(|b| b.is_ascii_lowercase());
            // Two underscores separate a section from its key, because names of keys have single
            // ones.
            let key = rest.replace("__", ".");
            let key = if upper { key.to_ascii_lowercase() } else { key };
            values.insert(key, (Place::Variable(name), value));
        }
        // The environment has no order, and messages should not change from start to start.
        strangers.sort_unstable();
        Self { values, strangers }
    }

    /// Lays flags over the variables.
    pub fn with_flags(mut self, flags: &[Flag]) -> Self {
        for flag in flags {
            let value = (Place::Flag(flag.name), flag.value.clone());
            self.values.insert(flag.key.to_owned(), value);
        }
        self
    }
}

/// A flag of the command line that stands for a key.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The key, with its section.
    pub key: &'static str,
    /// The flag, with its dashes.
    pub name: &'static str,
    /// The value, in the form that a variable has.
    pub value: String,
}

/// Returns the variable that stands for a key.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}
