//! An authority, its certificates, and requests over TLS.

use super::Answer;
use super::wire::{NEVER, connect};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A private authority.
pub struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    /// Its certificate, PEM.
    pub certificate: String,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        // Another name than its certificates have: those would pass for self-signed.
        let mut name = rcgen::DistinguishedName::new();
        name.push(rcgen::DnType::CommonName, "an authority");
        params.distinguished_name = name;
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: rcgen::Issuer::new(params, key),
            certificate,
        }
    }

    /// A certificate for this machine, as a server or as a client, valid up to a year.
    pub fn pair(&self, year: i32) -> Pair {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["localhost", "127.0.0.1"].map(str::to_owned).to_vec();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        Pair {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// What trusts this authority, and shows a certificate if it has one.
    pub fn client(&self, own: Option<&Pair>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap();
        roots.add(certificate).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(vec![certificate.unwrap()], key)
                    .unwrap()
            }
        })
    }
}

/// Connects and makes the handshake.
pub async fn try_secure(
    address: SocketAddr,
    client: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = connect(address).await;
    let name = ServerName::from(address.ip());
    let handshake = TlsConnector::from(client.clone()).connect(name, stream);
    timeout(NEVER, handshake).await.expect("ended in time")
}

/// Sends a request over a connection of its own, if there can be one.
pub async fn try_ask_secure(
    address: SocketAddr,
    client: &Arc<ClientConfig>,
    request: Request<Full<Bytes>>,
) -> Option<Answer> {
    let stream = try_secure(address, client).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    let connection = tokio::spawn(connection);
    let answer = timeout(NEVER, sender.send_request(request)).await;
    let (head, body) = answer.expect("ended in time").ok()?.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    connection.abort();
    Some(Answer {
        status: head.status,
        headers: head.headers,
        body,
    })
}
