//! Where writes that outlast a crash are kept: the journal of the state directory.

use super::{StartError, failed};
use crate::config::{Config, journal_key_environment};
use crate::journal::disk::Disk;
use crate::journal::memory::Memory;
use crate::journal::{Journal, Key, WriteId};
use crate::state::State;
use std::path::Path;
use std::sync::Arc;

/// A journal, and what it had when it was opened.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// Whether it outlasts the process, or as long as the API does, which may be simulated inside.
    pub outlasts: bool,
    /// The newest id that it has.
    pub newest: Option<WriteId>,
}

impl Keeping {
    /// A journal that ends with the process.
    pub fn in_memory() -> Self {
        Self {
            journal: Arc::new(Memory::default()),
            outlasts: false,
            newest: None,
        }
    }

    /// The journal of the state directory, or one in memory where there is no directory. Blocks.
    ///
    /// # Errors
    /// If there is one that cannot be used.
    pub(super) async fn open(config: &Config, state: Option<&State>) -> Result<Self, StartError> {
        let Some(state) = state else {
            return Ok(Self::in_memory());
        };
        let path = state.journal();
        let key = key(config, &path)?;
        let journal = Disk::open(&path, key).map_err(failed)?;
        Ok(Self {
            newest: journal.newest().await.map_err(failed)?,
            journal: Arc::new(journal),
            outlasts: true,
        })
    }
}

/// The key of the journal there; one is made beside it where none is configured and there is no
/// journal yet.
pub(super) fn key(config: &Config, journal: &Path) -> Result<Key, StartError> {
    if let Some(path) = &config.journal.key_file {
        return Key::from_file(path).map_err(failed);
    }
    if let Some(secret) = journal_key_environment() {
        return Key::from_secret(secret.as_encoded_bytes()).map_err(failed);
    }
    let is_new = !journal.exists();
    let key = Key::beside(journal).map_err(failed)?;
    if is_new {
        tracing::warn!(
            key = %journal.with_extension("key").display(),
            "no key is configured for the journal: one was made beside it. Whoever can read the \
             directory can read the writes in it; set journal.key_file"
        );
    }
    Ok(key)
}
