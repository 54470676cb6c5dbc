//! The audit log as the configuration names it: its file, and the key that signs its records.

use crate::audit::{Audit, AuditEvent, AuditFileSpec, AuditKey, SubjectForm};
use crate::clock::Clock;
use crate::config::{AuditSubjects, AuditWhen, Config, Unusable, ValueSource, units};
use crate::state::StateError;
use crate::version::VERSION;
use crate::{private_file, state};
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// Opens the audit log and records the start. Without a file there is none.
///
/// # Errors
/// If the file or its key cannot be used. The message begins with the key of the configuration and
/// says what to do.
pub(super) fn open_audit_log(config: &Config, clock: &Clock) -> Result<Audit, String> {
    let config = &config.audit;
    let Some(path) = &config.file else {
        return Ok(Audit::default());
    };
    let key = match (&config.key_file, path.exists()) {
        // The first start makes the key. A log without its key could not be continued.
        (None, false) => new_key(&own_key(path))?,
        _ => audit_key(path, config.key_file.as_deref())
            .map_err(|error| format!("audit: {error}"))?,
    };
    let form = match config.subjects {
        AuditSubjects::Plain => SubjectForm::Plain,
        AuditSubjects::Hashed => SubjectForm::Hashed(key.clone()),
    };
    let spec = AuditFileSpec {
        path: path.clone(),
        key,
        form,
        largest: config.largest_file.0 as u64,
        kept: config.kept_files,
    };
    let is_before = config.when == AuditWhen::Before;
    let opened = Audit::open(spec, is_before, clock.clone());
    let audit = opened.map_err(|error| format!("audit.file: {error}"))?;
    audit.record(AuditEvent::Start { version: VERSION });
    Ok(audit)
}

/// Returns what a start with this audit log would fail with, as far as it shows without one.
pub fn unusable_audit_log(config: &Config) -> Option<Unusable> {
    let config = &config.audit;
    let unusable = |key, found, expected: &str| {
        Some(Unusable {
            source: ValueSource::Key(key),
            found,
            expected: expected.to_owned(),
        })
    };
    let is_key = "a readable file of 16 bytes or more";
    // Also without a log: who names a key believes that it is used.
    if let Some(file) = &config.key_file
        && let Err(error) = read_key(file)
    {
        let found = format!("{} ({error})", units::quoted(&file.display().to_string()));
        return unusable("audit.key_file", found, is_key);
    }
    let path = config.file.as_deref()?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) || path.is_dir() {
        let found = units::quoted(&path.display().to_string());
        let expected = "a file in a directory that exists, and that this user may write";
        return unusable("audit.file", found, expected);
    }
    if config.key_file.is_some() || !path.exists() {
        return None;
    }
    let found = audit_key(path, None).err()?;
    unusable("audit.file", found, is_key)
}

/// Returns the key of an audit log: that in `key_file`, or the one beside the log.
///
/// # Errors
/// If it cannot be read, or is too short.
pub fn audit_key(path: &Path, key_file: Option<&Path>) -> Result<AuditKey, String> {
    match key_file {
        Some(file) => read_key(file).map_err(|error| format!("{}: {error}", file.display())),
        None => {
            let own = own_key(path);
            read_key(&own).map_err(|error| {
                format!(
                    "{}: {error}. Restore the key of the log, or move the log away to begin another \
                     one",
                    own.display()
                )
            })
        }
    }
}

/// Reads a key. The error does not name the file.
fn read_key(path: &Path) -> Result<AuditKey, String> {
    let key = state::key_file(path).map_err(|error| match error {
        StateError::KeyUnreadable(_, error) => error.to_string(),
        StateError::KeyShort(_) => "it is too short for a key".to_owned(),
        other => other.to_string(),
    })?;
    Ok(AuditKey::new(&key))
}

/// Returns the file of the key beside a log.
fn own_key(path: &Path) -> PathBuf {
    path.with_extension("key")
}

/// Makes a key, unless there is one already.
fn new_key(path: &Path) -> Result<AuditKey, String> {
    let wrong = |error: &dyn Display| format!("audit.file: {}: {error}", path.display());
    if !path.exists() {
        let key = state::random_key().map_err(|error| wrong(&error))?;
        private_file::replace(path, &key).map_err(|error| wrong(&error))?;
    }
    read_key(path).map_err(|error| wrong(&error))
}
