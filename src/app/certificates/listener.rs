//! Pure. The listeners that may have TLS, and what a configuration says of the TLS of each.

use crate::config::{ClientAuth, Config};
use crate::server::tls::{ClientTrust, TlsFile, TlsSpec};
use std::path::PathBuf;

/// A listener that may have TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsListener {
    Callers,
    Admin,
}

impl TlsListener {
    pub(super) const ALL: [Self; 2] = [Self::Callers, Self::Admin];

    /// Returns the name in metrics and in the log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Callers => "callers",
            Self::Admin => "admin",
        }
    }

    /// Returns the key that names a file.
    pub(super) fn key(self, file: TlsFile) -> &'static str {
        match (self, file) {
            (Self::Callers, TlsFile::Certificate) => "tls.certificate_file",
            (Self::Callers, TlsFile::Key) => "tls.key_file",
            (Self::Callers, TlsFile::ClientCa) => "tls.client_ca_file",
            (Self::Admin, TlsFile::Certificate) => "admin.tls.certificate_file",
            (Self::Admin, TlsFile::Key) => "admin.tls.key_file",
            (Self::Admin, TlsFile::ClientCa) => "admin.tls.client_ca_file",
        }
    }

    /// Returns the files that a configuration names; `None` without TLS.
    pub(super) fn spec(self, config: &Config) -> Option<TlsSpec> {
        let (tls, admin) = (&config.tls, &config.admin.tls);
        let (certificate, key, auth, ca, http2) = match self {
            Self::Callers => (
                &tls.certificate_file,
                &tls.key_file,
                tls.client_auth,
                &tls.client_ca_file,
                tls.http2,
            ),
            Self::Admin => (
                &admin.certificate_file,
                &admin.key_file,
                admin.client_auth,
                &admin.client_ca_file,
                admin.http2,
            ),
        };
        // Half of a pair, or no authorities, are problems of the configuration. An empty path
        // cannot be read, so nothing is served without what was asked for.
        let path = |file: &Option<PathBuf>| file.clone().unwrap_or_default();
        let trust = |is_required| ClientTrust {
            ca_file: path(ca),
            is_required,
        };
        certificate.as_ref().or(key.as_ref())?;
        Some(TlsSpec {
            certificate_file: path(certificate),
            key_file: path(key),
            http2,
            clients: match auth {
                ClientAuth::None => None,
                ClientAuth::Optional => Some(trust(false)),
                ClientAuth::Required => Some(trust(true)),
            },
        })
    }
}
