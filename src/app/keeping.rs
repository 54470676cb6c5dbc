//! Where writes that outlast a crash are kept: the journal of the state directory.

use super::start_error::{AppError, failed};
use crate::config::{Config, journal_key_environment};
use crate::credential::Hasher;
use crate::journal::disk::{Disk, OpenError};
use crate::journal::memory::Memory;
use crate::journal::{self, Journal, Key, KeyError, WriteId};
use crate::state::{self, StateDirectory};
use std::io;
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

    /// A journal for which there is no room: reads and held writes go on without it.
    fn refusing() -> Self {
        let full = Memory::default();
        full.fail_next(usize::MAX);
        Self {
            journal: Arc::new(full),
            outlasts: true,
            newest: None,
        }
    }

    /// The journal of the state directory, or one in memory where there is no directory. Blocks.
    ///
    /// # Errors
    /// If there is one that cannot be used.
    pub(super) async fn open(
        config: &Config,
        state: Option<&StateDirectory>,
        hasher: &Hasher,
    ) -> Result<Self, AppError> {
        let Some(state) = state else {
            return Ok(Self::in_memory());
        };
        let path = state.journal();
        let opened = match key(config, &path) {
            Ok(key) => Disk::open(&path, key.with_credentials(credentials_check(hasher))),
            // A key is made only where there is no journal yet.
            Err(KeyError::Unusable(_, error)) if error.kind() == io::ErrorKind::StorageFull => {
                Err(OpenError::Full(path.clone()))
            }
            Err(error) => return Err(failed(error)),
        };
        let journal = match opened {
            Err(error @ OpenError::Full(_)) => {
                tracing::error!("{error}, and restart: until then durable writes are rejected");
                return Ok(Self::refusing());
            }
            opened => opened.map_err(failed)?,
        };
        Ok(Self {
            newest: journal.newest().await.map_err(failed)?,
            journal: Arc::new(journal),
            outlasts: true,
        })
    }
}

/// Seals the journal of the state directory anew under the configured key; how many writes that
/// were. `old` is the file of the key under which it is sealed, `None` the one beside the journal.
///
/// # Errors
/// If no key is configured, there is no journal, a gateway has the directory, or the journal does
/// not open under the old key. Nothing was changed.
pub fn rekey(config: &Config, old: Option<&Path>) -> Result<usize, AppError> {
    let told = |why: &str| AppError(why.to_owned());
    let directory = config.state.directory.as_deref();
    let directory =
        directory.ok_or_else(|| told("state.directory is \"\": there is no journal"))?;
    let new = configured_key(config).map_err(failed)?.ok_or_else(|| {
        told("no key is configured: set journal.key_file to the file of the new key first")
    })?;
    let none = || told("there is no journal: the first start makes it under the configured key");
    if !directory.exists() {
        return Err(none());
    }
    let state = StateDirectory::open(directory).map_err(failed)?;
    let path = state.journal();
    if !path.exists() {
        return Err(none());
    }
    let key = match old {
        Some(file) => Key::from_file(file),
        None => Key::beside(&path),
    };
    let key = key.map_err(|error| match error {
        KeyError::Lost(beside) => {
            wrong_old_key(&path, &format!("there is no key in {}", beside.display()))
        }
        error => failed(error),
    })?;
    journal::rekey(&path, &key, &new).map_err(|error| match error {
        OpenError::WrongKey(_) if Disk::inspect(&path, Some(&new)).is_ok() => AppError(format!(
            "journal {}: it is already sealed under the configured key; there is nothing to do",
            path.display()
        )),
        OpenError::WrongKey(_) => {
            let beside = path.with_extension("key");
            let file = old.unwrap_or(&beside);
            let found = format!("it is not sealed under the key in {}", file.display());
            wrong_old_key(&path, &found)
        }
        error => failed(error),
    })
}

/// The journal cannot be sealed anew because its key was not given.
fn wrong_old_key(journal: &Path, found: &str) -> AppError {
    AppError(format!(
        "journal {}: {found}; name the file of the key under which it is sealed with \
         --old-key-file. Nothing was changed",
        journal.display()
    ))
}

/// Tells the key of the credential hashes from another one, without telling anything of it.
fn credentials_check(hasher: &Hasher) -> [u8; 16] {
    hasher.hash(&[b"journal"])
}

/// Looks whether the journal of a state directory would open. Changes nothing.
///
/// # Errors
/// As [`Keeping::open`], and the key of the credential hashes before it, would have.
pub(super) fn inspect(config: &Config, state: &StateDirectory) -> Result<(), AppError> {
    let journal = state.journal();
    let hash_key = match &config.credentials.key_file {
        // What is wrong with it is said elsewhere.
        Some(path) => state::key_file(path).ok(),
        None => state.key_found().map_err(failed)?,
    };
    if !Disk::is_there(&journal).map_err(failed)? {
        return match configured_key(config).map_err(failed)? {
            Some(_) => Ok(()),
            None => Key::may_be_made(&journal).map_err(failed),
        };
    }
    let mut key = key(config, &journal).map_err(failed)?;
    if let Some(hash_key) = hash_key {
        key = key.with_credentials(credentials_check(&Hasher::new(&hash_key)));
    }
    Disk::inspect(&journal, Some(&key)).map_err(failed)
}

/// The key that the configuration or the environment has for the journal.
fn configured_key(config: &Config) -> Result<Option<Key>, KeyError> {
    if let Some(path) = &config.journal.key_file {
        return Key::from_file(path).map(Some);
    }
    let secret = journal_key_environment();
    let key = secret.map(|secret| Key::from_secret(secret.as_encoded_bytes()));
    key.transpose()
}

/// The key of the journal there; one is made beside it where none is configured and there is no
/// journal yet.
pub(super) fn key(config: &Config, journal: &Path) -> Result<Key, KeyError> {
    if let Some(key) = configured_key(config)? {
        return Ok(key);
    }
    let is_new = !journal.exists();
    let key = Key::beside(journal)?;
    if is_new {
        tracing::warn!(
            key = %journal.with_extension("key").display(),
            "no journal key is configured, so one was created in the state directory. Anyone who \
             can read the directory can read the writes in the journal; set journal.key_file"
        );
    }
    Ok(key)
}
