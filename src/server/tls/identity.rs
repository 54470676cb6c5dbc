//! A certificate with its key, checked as a pair and ready to be served with.
//!
//! Everything that a client would reject is rejected here, as far as one side can know it: a key of
//! another certificate, a certificate that is no longer or not yet valid, a file in place of
//! another. Whether clients trust the authority is not known here.
//!
//! The cryptographic provider is chosen explicitly, as for connections to the API. TLS 1.2 and 1.3
//! are accepted.

use super::contents::{CERTIFICATE, chain, key, problem, verifier};
use super::files::TlsFiles;
use super::problem::{TlsFile, TlsProblem};
use crate::server::http2::ALPN;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, RootCertStore, ServerConfig};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The protocols that ALPN offers (RFC 7301), the preferred one first. A client without ALPN gets
/// HTTP/1.1.
const PROTOCOLS: [&[u8]; 2] = [ALPN, HTTP_1];
const HTTP_1: &[u8] = b"http/1.1";

const PAIR: &str = "the private key of the first certificate in the certificate file; replace both \
                    files together";
const VALID: &str = "a certificate that is valid now; renew it, or set the clock of this machine";

/// A certificate that a listener serves with.
#[derive(Clone, Debug)]
pub struct ServerIdentity {
    config: Arc<ServerConfig>,
    not_after: SystemTime,
    digest: [u8; 32],
}

impl ServerIdentity {
    /// Checks the files and makes them usable; `now` is the wall clock's.
    ///
    /// # Errors
    /// With what is wrong. Files that are sound by themselves and do not belong together are one
    /// problem, of the key.
    pub fn new(files: &TlsFiles, now: SystemTime) -> Result<Self, Vec<TlsProblem>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (chain, key) = (chain(files), key(files));
        let verifier = verifier(files, &provider);
        let (chain, key, verifier) = match (chain, key, verifier) {
            (Ok(chain), Ok(key), Ok(verifier)) => (chain, key, verifier),
            (chain, key, verifier) => {
                let found = [chain.err(), key.err(), verifier.err()];
                return Err(found.into_iter().flatten().collect());
            }
        };
        let not_after = not_after(files, &chain, now, &provider);
        let pair = pair(files, chain, key, &provider);
        let (not_after, pair) = match (not_after, pair) {
            (Ok(not_after), Ok(pair)) => (not_after, pair),
            (not_after, pair) => {
                let found = [not_after.err(), pair.err()];
                return Err(found.into_iter().flatten().collect());
            }
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| {
                // Not expected: the provider is compiled in and has suites for both versions.
                vec![problem(
                    TlsFile::Certificate,
                    &files.spec.certificate_file,
                    &format!("TLS cannot be set up: {error}"),
                    CERTIFICATE,
                )]
            })?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        let offered: &[&[u8]] = match files.spec.http2 {
            true => &PROTOCOLS,
            false => &[HTTP_1],
        };
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        Ok(Self {
            config: Arc::new(config),
            not_after,
            digest: files.digest(),
        })
    }

    /// Returns the settings of handshakes.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Returns the end of the certificate's validity.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Returns whether it was made of files with these contents.
    pub fn is_of(&self, files: &TlsFiles) -> bool {
        self.digest == files.digest()
    }
}

/// Returns the end of the certificate's validity, which is not before `now`.
fn not_after(
    files: &TlsFiles,
    chain: &[CertificateDer<'_>],
    now: SystemTime,
    provider: &CryptoProvider,
) -> Result<SystemTime, TlsProblem> {
    let path = &files.spec.certificate_file;
    let wrong = |seen: &str, expected| problem(TlsFile::Certificate, path, seen, expected);
    let unknown = || wrong("a certificate whose validity cannot be read", CERTIFICATE);
    let certificate = chain.first().ok_or_else(unknown)?;
    let certificate = ParsedCertificate::try_from(certificate).map_err(|_| unknown())?;
    // The library tells the bounds of the validity only as the reason why a certificate is not
    // valid at some time. No authority is trusted here, so every verification fails, and validity
    // is the first thing that one looks at.
    let judged = |at: UnixTime| {
        let roots = RootCertStore::empty();
        let algorithms = provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &roots, &[], at, algorithms)
    };
    let instant = |time: UnixTime| UNIX_EPOCH + Duration::from_secs(time.as_secs());
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    match judged(UnixTime::since_unix_epoch(now)) {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
            not_after,
            ..
        })) => {
            let date = humantime::format_rfc3339_seconds(instant(not_after));
            return Err(wrong(&format!("a certificate that expired {date}"), VALID));
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before,
            ..
        })) => {
            let date = humantime::format_rfc3339_seconds(instant(not_before));
            let seen = format!("a certificate that is not valid before {date}");
            return Err(wrong(&seen, VALID));
        }
        _ => {}
    }
    match judged(UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX))) {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
            not_after,
            ..
        })) => Ok(instant(not_after)),
        _ => Err(unknown()),
    }
}

/// Returns the certificate with its key, if they belong together.
fn pair(
    files: &TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsProblem> {
    let wrong = |seen: &str, expected| problem(TlsFile::Key, &files.spec.key_file, seen, expected);
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => wrong("a key of another certificate", PAIR),
        _ => wrong(
            "a private key of an unsupported kind",
            "an RSA, ECDSA or Ed25519 key, PEM",
        ),
    })
}
