//! Pure. What is wrong with the files of a certificate.

use std::fmt;

/// A file of a listener with TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFile {
    /// The certificate and its chain.
    Certificate,
    /// The private key.
    Key,
    /// The authorities of client certificates.
    ClientCa,
}

/// A file that cannot be used. Nothing of a private key is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsProblem {
    /// The file to mend.
    pub file: TlsFile,
    /// What was found, with the path.
    pub found: String,
    /// What is expected, as a remedy.
    pub expected: &'static str,
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "found {}, expected {}", self.found, self.expected)
    }
}
