//! The audit log as the configuration names it: its file, and the key that signs its records.

use crate::audit::{Audit, AuditEvent, AuditFileSpec, AuditKey, SubjectForm};
use crate::clock::Clock;
use crate::config::{AuditSubjects, AuditWhen, Config};
use crate::version::VERSION;
use crate::{private_file, state};
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
        _ => audit_key(path, config.key_file.as_deref())?,
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

/// Returns the key of an audit log: that in `key_file`, or the one beside the log.
///
/// # Errors
/// If it cannot be read, or is too short.
pub fn audit_key(path: &Path, key_file: Option<&Path>) -> Result<AuditKey, String> {
    let own = own_key(path);
    let key = state::key_file(key_file.unwrap_or(&own));
    let key = key.map_err(|error| match key_file {
        Some(_) => format!("audit.key_file: {error}"),
        None => format!(
            "audit.file: {error}. Restore the key of the log, or move the log away to begin \
             another one"
        ),
    })?;
    Ok(AuditKey::new(&key))
}

/// Returns the file of the key beside a log.
pub(super) fn own_key(path: &Path) -> PathBuf {
    path.with_extension("key")
}

/// Makes a key, unless there is one already.
fn new_key(path: &Path) -> Result<AuditKey, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("audit.file: {}: {error}", path.display());
    if !path.exists() {
        let key = state::random_key().map_err(|error| wrong(&error))?;
        private_file::replace(path, &key).map_err(|error| wrong(&error))?;
    }
    let key = state::key_file(path).map_err(|error| wrong(&error))?;
    Ok(AuditKey::new(&key))
}
