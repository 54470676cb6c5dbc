//! The keys, by their ids, and the certificate names that an operator has revoked.
//!
//! They are kept in a file of the state directory, one a line, so that a revocation holds in the
//! next process too.

use super::registry::{Clients, CredentialMode};
use crate::private_file;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

/// What is revoked.
#[derive(Debug, Default)]
pub struct RevokedNames {
    /// Where the next process finds them, if there is a state directory.
    file: Option<PathBuf>,
    names: BTreeSet<Box<str>>,
}

impl RevokedNames {
    /// Reads what earlier processes revoked. A file that does not exist has nothing.
    ///
    /// # Errors
    /// If the file is there and cannot be read: a revoked key must not come back because of that.
    pub fn open(file: Option<PathBuf>) -> io::Result<Self> {
        let text = match file.as_ref().map(std::fs::read_to_string) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Some(Ok(text)) => text,
            Some(Err(_)) | None => String::new(),
        };
        let names = text.lines().map(Box::from).collect();
        Ok(Self { file, names })
    }

    /// Revokes these as well. Write it down with [`Self::keep`] once they are out of use.
    pub fn add(&mut self, names: Vec<Box<str>>) {
        self.names.extend(names);
    }

    /// Forgets what these clients do not have any more: that revocation is finished. Returns
    /// whether there was any.
    ///
    /// Where keys are not accepted at all, no file of clients is read, so nothing is forgotten: it
    /// may come back with the same keys.
    pub fn forget_unknown(&mut self, clients: &Clients) -> bool {
        if clients.mode() == CredentialMode::Own {
            return false;
        }
        let before = self.names.len();
        self.names.retain(|name| clients.has_name(name));
        self.names.len() < before
    }

    /// Returns the clients without what is revoked.
    pub fn applied_to(&self, clients: &Clients) -> Clients {
        clients.without(&self.names)
    }

    /// Writes down what is revoked.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn keep(&self) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let text: String = self.names.iter().map(|name| format!("{name}\n")).collect();
        private_file::replace(file, text.as_bytes())
    }
}
