//! Pure. The keys of the configuration as their reference lists them.

use super::read::{Environment, Findings};
use super::{change, file};

/// One key of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name, with its section: `cache.bytes`.
    pub name: String,
    /// The value without a configuration, as a message shows it.
    pub default: String,
    /// The bounds of the value, or its form; empty for any text.
    pub accepts: String,
    /// Whether a reload applies a new value; otherwise it waits for a restart.
    pub on_reload: bool,
}

/// All keys, each once.
pub fn keys() -> Vec<Key> {
    let mut findings = Findings::default();
    let _ = file::read(None, &Environment::default(), &mut findings);
    let described = findings.known.into_iter().zip(findings.facts);
    described
        .map(|(name, facts)| Key {
            on_reload: change::applies_on_reload(&name),
            name,
            default: facts.default,
            accepts: facts.accepts,
        })
        .collect()
}
