//! TLS over memory: whom the client trusts, and the way through a proxy.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;
use crate::upstream::dial::Dial;

/// An authority, and the file that names it.
pub(super) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    file: tempfile::NamedTempFile,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), params.self_signed(&key).unwrap().pem()).unwrap();
        Self {
            issuer: rcgen::Issuer::new(params, key),
            file,
        }
    }

    pub(super) fn file(&self) -> Option<PathBuf> {
        Some(self.file.path().to_owned())
    }

    pub(super) fn acceptor(&self, name: &str, alpn: &[&str]) -> TlsAcceptor {
        self.acceptor_until(name, alpn, 2100)
    }

    fn acceptor_until(&self, name: &str, alpn: &[&str], year: i32) -> TlsAcceptor {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate: CertificateDer<'static> =
            params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A client for `https://api.test` over memory.
pub(super) fn secure(change: impl FnOnce(&mut ClientSpec)) -> (Client, Far) {
    let (connector, far) = memory();
    let mut spec = spec("https://api.test");
    change(&mut spec);
    (
        Client::build(Dial::Memory(connector), spec, Clock::system()).unwrap(),
        far,
    )
}

async fn serve_tls(
    acceptor: TlsAcceptor,
    mut stream: DuplexStream,
) -> Option<TlsStream<DuplexStream>> {
    // A refused handshake ends here; the client says why.
    stream.flush().await.unwrap();
    let mut stream = acceptor.accept(stream).await.ok()?;
    read_head(&mut stream).await?;
    stream.write_all(OK.as_bytes()).await.unwrap();
    Some(stream)
}

#[tokio::test(start_paused = true)]
async fn only_a_valid_certificate_of_a_trusted_authority_for_this_name_is_accepted() {
    let (ours, other) = (Authority::new(), Authority::new());
    let h1 = ["http/1.1"];
    for (what, acceptor, ca_file, accepted) in [
        (
            "in order",
            ours.acceptor("api.test", &h1),
            ours.file(),
            true,
        ),
        ("no alpn", ours.acceptor("api.test", &[]), ours.file(), true),
        ("no file", ours.acceptor("api.test", &h1), None, false),
        (
            "other authority",
            other.acceptor("api.test", &h1),
            ours.file(),
            false,
        ),
        (
            "other name",
            ours.acceptor("api.example", &h1),
            ours.file(),
            false,
        ),
        (
            "expired",
            ours.acceptor_until("api.test", &h1, 2020),
            ours.file(),
            false,
        ),
    ] {
        let (client, mut far) = secure(|spec| spec.ca_file = ca_file);
        let server = async { serve_tls(acceptor, far.accept().await).await };
        let (attempt, _held) = tokio::join!(client.send(get("/x")), server);
        if accepted {
            assert_eq!(text(answered(attempt)).await, "ok", "{what}");
        } else {
            assert_eq!(not_sent(attempt), NotSent::Certificate, "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_speak_tls_is_told_from_a_bad_certificate() {
    for bytes in ["HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
        let (client, mut far) = secure(|_| {});
        let server = async {
            let mut stream = far.accept().await;
            stream.write_all(bytes.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            stream
        };
        let (attempt, _held) = tokio::join!(client.send(get("/x")), server);
        assert_eq!(not_sent(attempt), NotSent::Tls);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stalls_counts_as_connecting() {
    let (client, mut far) = secure(|_| {});
    let begun = now();
    let (attempt, _held) = tokio::join!(client.send(get("/x")), far.accept());
    assert_eq!(not_sent(attempt), NotSent::ConnectTimeout);
    assert_eq!(begun.elapsed().as_secs(), 5);
}

fn proxied(no: &'static str) -> impl FnOnce(&mut ClientSpec) {
    move |spec| {
        let https = "http://user:secret@proxy.test:3128";
        let variables = ProxyVariables {
            https,
            no,
            http: "http://proxy.test:8080",
        };
        spec.proxy = ProxyRules::parse(variables).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn https_goes_through_a_tunnel() {
    let ours = Authority::new();
    let (client, mut far) = secure(|spec| {
        proxied("")(spec);
        spec.ca_file = ours.file();
    });
    let acceptor = ours.acceptor("api.test", &["http/1.1"]);
    let server = async {
        let (head, stream) = serve_one(&mut far, "HTTP/1.1 200 Tunnel\r\n\r\n").await;
        (head, serve_tls(acceptor, stream).await)
    };
    let (attempt, (head, _held)) = tokio::join!(client.send(get("/x")), server);
    assert_eq!(text(answered(attempt)).await, "ok");
    assert!(
        head.starts_with("CONNECT api.test:443 HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n"),
        "{head}"
    );
    assert!(!format!("{client:?}").contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn an_exception_goes_past_the_proxy() {
    let (client, mut far) = secure(proxied("other.test, .test"));
    let server = async { far.accept().await.read_u8().await.unwrap() };
    let (_, first) = tokio::join!(client.send(get("/x")), server);
    assert_eq!(
        first, 22,
        "the first byte of a TLS handshake, not of CONNECT"
    );
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_opens_no_tunnel_is_named_as_such() {
    for answer in [
        "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        "HTTP/1.1 502 Bad Gateway\r\n\r\n",
        "nonsense\r\n\r\n",
        "",
    ] {
        let (client, mut far) = secure(proxied(""));
        let server = async { drop(serve_one(&mut far, answer).await) };
        let (attempt, ()) = tokio::join!(client.send(get("/x")), server);
        assert_eq!(not_sent(attempt), NotSent::Proxy, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn plain_http_asks_its_proxy_for_the_whole_url() {
    let (connector, mut far) = memory();
    let mut spec = spec("http://api.test");
    spec.proxy = ProxyRules::parse(ProxyVariables {
        https: "http://wrong.test",
        http: "http://user:secret@proxy.test:8080",
        no: "",
    })
    .unwrap();
    let client = Client::build(Dial::Memory(connector), spec, Clock::system()).unwrap();
    let (attempt, (head, _held)) = tokio::join!(client.send(get("/x?y")), serve_one(&mut far, OK));
    assert_eq!(text(answered(attempt)).await, "ok");
    assert!(
        head.starts_with("GET http://api.test/x?y HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("proxy-authorization: Basic dXNlcjpzZWNyZXQ=\r\n"),
        "{head}"
    );
}
