//! The journal of the state directory, which keeps durable writes: opening, inspecting, rekeying.

use super::start_error::{AppError, failed};
use crate::config::{Config, Loaded, journal_key_environment};
use crate::credential::Hasher;
use crate::journal::{self, Journal, KeyError, OpenError, SealingKey, WriteId};
use crate::state::{self, StateDirectory};
use std::io;
use std::path::Path;

/// A journal, and its content when it was opened.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// The journal.
    pub journal: Journal,
    /// Whether the journal outlasts the process, or the API, which may be simulated inside it.
    pub outlasts: bool,
    /// The newest id in the journal.
    pub newest: Option<WriteId>,
}

impl Keeping {
    /// Returns a journal that ends with the process.
    ///
    /// # Errors
    /// If there is no memory or no randomness.
    pub fn in_memory() -> Result<Self, AppError> {
        Ok(Self {
            journal: Journal::in_memory().map_err(failed)?,
            outlasts: false,
            newest: None,
        })
    }

    /// Returns a journal that rejects every write, for a full disk: reads and held writes go on.
    fn refusing() -> Result<Self, AppError> {
        let keeping = Self::in_memory()?;
        keeping.journal.reject_all();
        Ok(Self {
            outlasts: true,
            ..keeping
        })
    }

    /// Opens the journal of the state directory, or one in memory without a directory. Blocks.
    ///
    /// # Errors
    /// If there is a journal that cannot be used.
    pub(super) async fn open(
        config: &Config,
        state: Option<&StateDirectory>,
        hasher: &Hasher,
    ) -> Result<Self, AppError> {
        let Some(state) = state else {
            return Self::in_memory();
        };
        let path = state.journal();
        let opened = match key(config, &path) {
            Ok(key) => Journal::open(&path, key.with_credentials(credentials_check(hasher))),
            // A key is made only where there is no journal yet.
            Err(KeyError::Unusable(_, error)) if error.kind() == io::ErrorKind::StorageFull => {
                Err(OpenError::Full(path.clone()))
            }
            Err(error) => return Err(failed(error)),
        };
        let journal = match opened {
            Err(error @ OpenError::Full(_)) => {
                tracing::error!("{error}, and restart: until then durable writes are rejected");
                return Self::refusing();
            }
            opened => opened.map_err(failed)?,
        };
        Ok(Self {
            newest: journal.newest().await.map_err(failed)?,
            journal,
            outlasts: true,
        })
    }
}

/// Seals the journal of the state directory under the configured key and returns the number of its
/// writes. Root may do so for the user of the gateway. `old` is the file of the present key, `None`
/// the one beside the journal.
///
/// # Errors
/// If no key is configured, there is no journal, a gateway has the directory, or the journal does
/// not open under the old key. Nothing was changed.
pub fn rekey(loaded: &Loaded, old: Option<&Path>) -> Result<usize, AppError> {
    let config = &loaded.config;
    let told = |why: &str| AppError(why.to_owned());
    let at = |key: &'static str| move |error: AppError| AppError(loaded.at(key, error));
    let directory = config.state.directory.as_deref();
    let directory =
        directory.ok_or_else(|| told("state.directory is \"\": there is no journal"))?;
    let new = configured_key(config).map_err(failed);
    let new = new.map_err(at("journal.key_file"))?.ok_or_else(|| {
        told("no key is configured: set journal.key_file to the file of the new key first")
    })?;
    let none = || told("there is no journal: the first start makes it under the configured key");
    if !directory.exists() {
        return Err(none());
    }
    let state = StateDirectory::open_for_owner(directory).map_err(failed);
    let state = state.map_err(at("state.directory"))?;
    let path = state.journal();
    if !path.exists() {
        return Err(none());
    }
    let key = match old {
        Some(file) => SealingKey::from_file(file),
        None => SealingKey::beside(&path),
    };
    let key = key.map_err(|error| match error {
        KeyError::Lost(beside) => {
            wrong_old_key(&path, &format!("there is no key in {}", beside.display()))
        }
        error => failed(error),
    })?;
    journal::rekey(&path, &key, &new).map_err(|error| match error {
        OpenError::WrongKey(_) if journal::inspect(&path, Some(&new)).is_ok() => AppError(format!(
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

/// Returns the error for a journal that the given old key does not open.
fn wrong_old_key(journal: &Path, found: &str) -> AppError {
    AppError(format!(
        "journal {}: {found}; name the file of the key under which it is sealed with \
         --old-key-file. Nothing was changed",
        journal.display()
    ))
}

/// Returns a value that tells the key of the credential hashes from others and reveals nothing of
/// it.
fn credentials_check(hasher: &Hasher) -> [u8; 16] {
    hasher.hash(&[b"journal"])
}

/// Checks whether the journal of a state directory would open. Changes nothing.
///
/// # Errors
/// As [`Keeping::open`] has, and the key of the credential hashes before it.
pub(super) fn inspect(config: &Config, state: &StateDirectory) -> Result<(), AppError> {
    let path = state.journal();
    let hash_key = match &config.credentials.key_file {
        // Its own check reports what is wrong with it.
        Some(path) => state::key_file(path).ok(),
        None => state.key_found().map_err(failed)?,
    };
    if !journal::exists(&path).map_err(failed)? {
        return match configured_key(config).map_err(failed)? {
            Some(_) => Ok(()),
            None => SealingKey::may_be_made(&path).map_err(failed),
        };
    }
    let mut key = key(config, &path).map_err(failed)?;
    if let Some(hash_key) = hash_key {
        key = key.with_credentials(credentials_check(&Hasher::new(&hash_key)));
    }
    journal::inspect(&path, Some(&key)).map_err(failed)
}

/// Returns the key of the journal in the configuration or the environment.
fn configured_key(config: &Config) -> Result<Option<SealingKey>, KeyError> {
    if let Some(path) = &config.journal.key_file {
        return SealingKey::from_file(path).map(Some);
    }
    let secret = journal_key_environment();
    let key = secret.map(|secret| SealingKey::from_secret(secret.as_encoded_bytes()));
    key.transpose()
}

/// Returns the key of the journal. If none is configured and there is no journal yet, a key is
/// created beside it.
pub(super) fn key(config: &Config, journal: &Path) -> Result<SealingKey, KeyError> {
    if let Some(key) = configured_key(config)? {
        return Ok(key);
    }
    let is_new = !journal.exists();
    let key = SealingKey::beside(journal)?;
    if is_new {
        tracing::warn!(
            key = %journal.with_extension("key").display(),
            "no journal key is configured, so one was created in the state directory. Anyone who \
             can read the directory can read the writes in the journal; set journal.key_file"
        );
    }
    Ok(key)
}
