//! Pure. What is in the files of a certificate: each by itself, with the usual mistakes by name.
//!
//! Whether the files belong together, and whether the certificate is valid, is not decided here.
//! Nothing of a private key gets into a message.

use super::files::TlsFiles;
use super::problem::{TlsFile, TlsProblem};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, ParsedCertificate, WebPkiClientVerifier};
use std::path::Path;
use std::sync::Arc;

/// What is expected of each file.
pub(super) const CERTIFICATE: &str =
    "a PEM file that begins with the listener's certificate, followed by the intermediate ones";
const KEY: &str = "a PEM file with the private key of the certificate";
const CLIENT_CA: &str = "a PEM file of certificates of authorities";

/// Creates a problem of a file. `seen` follows its path.
pub(super) fn problem(
    file: TlsFile,
    path: &Path,
    seen: &str,
    expected: &'static str,
) -> TlsProblem {
    TlsProblem {
        file,
        found: format!("{} ({seen})", path.display()),
        expected,
    }
}

/// Returns the certificates of a PEM file, of which there is at least one.
fn certificates(
    content: &[u8],
    wrong: impl Fn(&str) -> TlsProblem,
) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    // The error is not shown: it may quote a line of the file, which may have a key as well.
    let found = found.map_err(|_| wrong("malformed PEM"))?;
    if found.is_empty() {
        return Err(wrong(without(content, "certificate")));
    }
    Ok(found)
}

/// Returns the certificate and its chain.
pub(super) fn chain(files: &TlsFiles) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let path = &files.spec.certificate_file;
    let wrong = |seen: &str| problem(TlsFile::Certificate, path, seen, CERTIFICATE);
    let chain = certificates(&files.certificate, wrong)?;
    // Each is parsed, so that none fails at a client first.
    let malformed = chain
        .iter()
        .position(|certificate| ParsedCertificate::try_from(certificate).is_err());
    match malformed {
        Some(index) => Err(wrong(&format!(
            "certificate {} in it is malformed",
            index + 1
        ))),
        None => Ok(chain),
    }
}

/// Returns the private key.
pub(super) fn key(files: &TlsFiles) -> Result<PrivateKeyDer<'static>, TlsProblem> {
    let wrong = |seen: &str| problem(TlsFile::Key, &files.spec.key_file, seen, KEY);
    let mut keys = PrivateKeyDer::pem_slice_iter(&files.key);
    match keys.next() {
        Some(Ok(key)) => Ok(key),
        // The error is not shown: it may quote a line of the key.
        Some(Err(_)) => Err(wrong("malformed PEM")),
        None => Err(wrong(without(&files.key, "private key"))),
    }
}

/// Returns what is in a file without what was looked for: the usual mistakes by name.
fn without(content: &[u8], wanted: &str) -> &'static str {
    let has = |label: &[u8]| memchr::memmem::find(content, label).is_some();
    // DER begins with a sequence, PEM with a dash or with text.
    if content.first() == Some(&0x30) {
        return "DER, not PEM; convert it with openssl";
    }
    if wanted == "certificate" {
        if has(b"PRIVATE KEY-----") {
            return "a private key and no certificate; are the two files swapped?";
        }
        if has(b"CERTIFICATE REQUEST-----") {
            return "a certificate request; the authority answers it with a certificate";
        }
        return "no certificate in it";
    }
    if has(b"ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED") {
        return "a key with a passphrase; remove it with `openssl pkey -in FILE -out FILE`";
    }
    if has(b"BEGIN CERTIFICATE-----") {
        return "a certificate and no private key; are the two files swapped?";
    }
    "no private key in it"
}

/// Returns what decides about the certificates of peers.
pub(super) fn verifier(
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsProblem> {
    let (Some(trust), Some(content)) = (&files.spec.clients, &files.client_ca) else {
        return Ok(Arc::new(NoClientAuth));
    };
    let wrong = |seen: &str| problem(TlsFile::ClientCa, &trust.ca_file, seen, CLIENT_CA);
    let mut roots = RootCertStore::empty();
    for certificate in certificates(content, wrong)? {
        roots
            .add(certificate)
            .map_err(|error| wrong(&format!("an unusable certificate: {error}")))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = match trust.is_required {
        true => builder,
        false => builder.allow_unauthenticated(),
    };
    builder
        .build()
        .map_err(|error| wrong(&format!("unusable certificates: {error}")))
}
