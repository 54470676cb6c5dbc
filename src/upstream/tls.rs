//! Trust: the public roots, and additionally those of one file.
//!
//! The roots are compiled in, so that the program works in an empty container. The cryptographic
//! provider is chosen explicitly, so that a provider which another library installs for the process
//! has no effect. TLS 1.2 and 1.3 are offered. Certificates are always verified; there is no
//! switch.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore};

use super::start::StartError;

/// The HTTP versions offered by ALPN (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// HTTP/2 preferred, or HTTP/1.1.
    Both,
    /// Only HTTP/1.1.
    Http1,
}

/// The TLS settings of all connections to the API.
pub(super) fn client_config(
    ca_file: Option<&Path>,
    offer: Offer,
) -> Result<Arc<ClientConfig>, StartError> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = ca_file {
        add_file(&mut roots, path)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(StartError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = match offer {
        Offer::Both => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Offer::Http1 => vec![b"http/1.1".to_vec()],
    };
    Ok(Arc::new(config))
}

/// Returns the TLS settings of a connection to something else than the API, with HTTP/1.1.
///
/// # Errors
/// If the file of further roots is not usable.
pub fn client_tls(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, StartError> {
    client_config(ca_file, Offer::Http1)
}

/// Checks that a file of certificates is usable.
///
/// # Errors
/// If the file cannot be read, is not PEM, or contains no certificate.
pub fn check_ca_file(path: &Path) -> Result<(), StartError> {
    add_file(&mut RootCertStore::empty(), path)
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), StartError> {
    let unreadable = |error| StartError::CaUnreadable(path.to_owned(), error);
    let malformed = || StartError::CaMalformed(path.to_owned());
    let text = std::fs::read(path).map_err(unreadable)?;
    let mut found = false;
    for item in CertificateDer::pem_slice_iter(&text) {
        let certificate = match item {
            Ok(certificate) => certificate,
            Err(pem::Error::Io(error)) => return Err(unreadable(error)),
            Err(_) => return Err(malformed()),
        };
        roots.add(certificate).map_err(|_| malformed())?;
        found = true;
    }
    if found {
        Ok(())
    } else {
        Err(StartError::CaEmpty(path.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_ca_file_is_named_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let block = |inner: &str| {
            format!("-----BEGIN CERTIFICATE-----\n{inner}\n-----END CERTIFICATE-----\n")
        };
        let good = rcgen::generate_simple_self_signed(vec!["a.test".into()])
            .unwrap()
            .cert
            .pem();
        for (path, expected) in [
            (folder.path().join("none.pem"), "cannot be read"),
            (folder.path().to_owned(), "cannot be read"),
            (write("empty.pem", ""), "no certificate"),
            (write("text.pem", "hello"), "no certificate"),
            (write("cut.pem", &block("$$$$")), "not a PEM certificate"),
            (
                write("junk.pem", &block("aGVsbG8=")),
                "not a PEM certificate",
            ),
            (
                write("half.pem", &format!("{good}{}", block("aGVsbG8="))),
                "not a PEM certificate",
            ),
        ] {
            let error = client_config(Some(&path), Offer::Both)
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains(&*path.to_string_lossy()), "{error}");
        }
        assert!(client_config(Some(&write("good.pem", &good)), Offer::Both).is_ok());
    }
}
