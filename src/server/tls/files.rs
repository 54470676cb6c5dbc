//! The files of a certificate: read together, so that what is checked is what is served with.
//!
//! Whoever renews a certificate replaces its files one after the other, or all at once by a
//! symbolic link. So they are read until two readings agree. A pair that is half replaced is still
//! possible, and does not match; [`super::ServerIdentity`] rejects it.

use super::problem::{TlsFile, TlsProblem};
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest file that is read, in bytes. Chains and bundles of authorities are far smaller.
const LARGEST: u64 = 4 * 1024 * 1024;
/// The most readings until two agree.
const READINGS: usize = 5;

/// The files of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSpec {
    /// The certificate and its chain, PEM.
    pub certificate_file: PathBuf,
    /// The private key, PEM.
    pub key_file: PathBuf,
    /// Whether ALPN offers HTTP/2.
    pub http2: bool,
    /// Whose certificates peers are asked for; `None` asks for none.
    pub clients: Option<ClientTrust>,
}

/// The authorities of client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTrust {
    /// Their certificates, PEM.
    pub ca_file: PathBuf,
    /// Whether a peer without a certificate is rejected. One with a wrong certificate always is.
    pub is_required: bool,
}

/// The contents of the files at one moment. `Debug` does not show them.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub(super) spec: TlsSpec,
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) client_ca: Option<Vec<u8>>,
}

impl fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsFiles")
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

impl TlsSpec {
    /// Returns whether neither path of the pair is empty: a configuration may name one without the
    /// other.
    pub fn names_a_pair(&self) -> bool {
        let pair = [&self.certificate_file, &self.key_file];
        pair.iter().all(|file| !file.as_os_str().is_empty())
    }

    /// Reads the files. Blocks, so it is not for a task of the runtime.
    ///
    /// # Errors
    /// One for each file that cannot be read.
    pub fn read(&self) -> Result<TlsFiles, Vec<TlsProblem>> {
        let mut files = self.read_once()?;
        for _ in 1..READINGS {
            let again = self.read_once()?;
            if again == files {
                break;
            }
            files = again;
        }
        Ok(files)
    }

    fn read_once(&self) -> Result<TlsFiles, Vec<TlsProblem>> {
        let mut problems = Vec::new();
        let mut read = |file, path: &Path| match content(path) {
            Ok(content) => content,
            Err(error) => {
                problems.push(unreadable(file, path, &error));
                Vec::new()
            }
        };
        let files = TlsFiles {
            certificate: read(TlsFile::Certificate, &self.certificate_file),
            key: read(TlsFile::Key, &self.key_file),
            client_ca: self
                .clients
                .as_ref()
                .map(|trust| read(TlsFile::ClientCa, &trust.ca_file)),
            spec: self.clone(),
        };
        if problems.is_empty() {
            Ok(files)
        } else {
            Err(problems)
        }
    }
}

impl TlsFiles {
    /// Returns a value that differs whenever the contents do, and that reveals nothing of them.
    pub fn digest(&self) -> [u8; 32] {
        let none = Vec::new();
        let contents = [
            &self.certificate,
            &self.key,
            self.client_ca.as_ref().unwrap_or(&none),
        ];
        let mut digest = Sha256::new();
        for content in contents {
            digest.update((content.len() as u64).to_be_bytes());
            digest.update(content);
        }
        digest.finalize().into()
    }
}

/// Returns the content of a file. The size is bounded while reading: a pipe has no length.
fn content(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?
        .take(LARGEST + 1)
        .read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST {
        return Err(io::Error::other("it is larger than 4 MiB"));
    }
    Ok(content)
}

fn unreadable(file: TlsFile, path: &Path, error: &io::Error) -> TlsProblem {
    let found = match error.kind() {
        io::ErrorKind::NotFound => format!("no file {}", path.display()),
        _ => format!("a file that cannot be read, {} ({error})", path.display()),
    };
    let expected = match file {
        TlsFile::Certificate => "a PEM file of a certificate and its chain, readable by this user",
        TlsFile::Key => "a PEM file of the certificate's private key, readable by this user",
        TlsFile::ClientCa => "a PEM file of certificates of authorities, readable by this user",
    };
    TlsProblem {
        file,
        found,
        expected,
    }
}
