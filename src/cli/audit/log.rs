//! Which audit log a command is about: that of a configuration, or another one.

use crate::app::audit_key;
use crate::audit::AuditKey;
use crate::audit::verify::files;
use crate::cli::check::ConfigFile;
use crate::cli::output::Failure;
use crate::config::AuditSubjects;
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct LogFiles {
    #[command(flatten)]
    file: ConfigFile,
    /// File of the log, in place of the one that the configuration names. Its rotated files are
    /// read as well.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// File of the key that signs the records, in place of the one that the configuration names.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// The log that a command is about.
pub(super) struct AuditLogFiles {
    pub(super) files: Vec<PathBuf>,
    path: PathBuf,
    key_file: Option<PathBuf>,
    pub(super) subjects: AuditSubjects,
}

impl LogFiles {
    /// Finds the files.
    ///
    /// # Errors
    /// If nothing names a log, or its directory cannot be read.
    pub(super) fn open(&self) -> Result<AuditLogFiles, Failure> {
        let config = self.file.load()?.config.audit;
        let path = self.log.clone().or(config.file).ok_or_else(|| {
            "the configuration names no audit.file. Name the configuration with --config, or the \
             log with --log"
                .to_owned()
        })?;
        let files = files(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(AuditLogFiles {
            files,
            key_file: self.key_file.clone().or(config.key_file),
            path,
            subjects: config.subjects,
        })
    }
}

impl AuditLogFiles {
    /// Returns the key that signs the records.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn key(&self) -> Result<AuditKey, String> {
        audit_key(&self.path, self.key_file.as_deref())
    }
}
