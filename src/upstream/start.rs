//! Pure. The errors of building a client. Each of them ends the start of the program.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A setting with which no request could be sent. `Display` names the setting and a remedy;
/// `source` holds the error of the system.
#[derive(Debug)]
pub enum StartError {
    /// The CA file cannot be read.
    CaUnreadable(PathBuf, io::Error),
    /// The CA file contains no certificate.
    CaEmpty(PathBuf),
    /// The CA file is not PEM, or a certificate in it is unusable.
    CaMalformed(PathBuf),
    /// The named variable does not hold the URL of a proxy. The value is not shown, because it may
    /// contain a password.
    ProxyMalformed(&'static str),
    /// The named variable holds a proxy that does not use plain HTTP.
    ProxyScheme(&'static str),
    /// The TLS library rejected its settings.
    Tls(rustls::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CaUnreadable(path, _) => {
                write!(
                    out,
                    "the CA file {} cannot be read; check path and rights",
                    path.display()
                )
            }
            Self::CaEmpty(path) => write!(
                out,
                "the CA file {} holds no certificate; expected PEM with BEGIN CERTIFICATE",
                path.display()
            ),
            Self::CaMalformed(path) => write!(
                out,
                "the CA file {} holds something that is not a PEM certificate; export it again",
                path.display()
            ),
            Self::ProxyMalformed(name) => {
                write!(
                    out,
                    "{name} is not the URL of a proxy; expected http://host:port"
                )
            }
            Self::ProxyScheme(name) => {
                write!(
                    out,
                    "{name} names an unsupported kind of proxy; expected http://host:port"
                )
            }
            Self::Tls(_) => write!(out, "TLS could not be set up"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::CaUnreadable(_, error) => Some(error),
            Self::Tls(error) => Some(error),
            _ => None,
        }
    }
}
