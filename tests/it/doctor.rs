//! `doctor` and `credential hash`: what is wrong is named with its place, and the exit status tells it.

use super::support::program::Program;
use super::support::wire::free;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const BINARY: &str = env!("CARGO_BIN_EXE_segment-gateway");
const WORKSPACE: &str = r#"{"data":{"workspace":{"id":"w1","name":"Acme"}}}"#;

/// An upstream that answers every connection with these bytes, or closes it at once.
async fn upstream(answer: Option<String>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            if let Some(answer) = &answer {
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    });
    address
}

/// An answer whose `Date` differs from the clock of this machine.
fn answer(status: &str, fields: &str, body: &str, offset: i64) -> Option<String> {
    let (now, by) = (
        SystemTime::now(),
        Duration::from_secs(offset.unsigned_abs()),
    );
    let date = if offset < 0 { now - by } else { now + by };
    let date = httpdate::fmt_http_date(date);
    let length = body.len();
    Some(format!(
        "HTTP/1.1 {status}\r\ndate: {date}\r\n{fields}content-length: {length}\r\n\r\n{body}"
    ))
}

/// An upstream with a certificate that has expired, of an authority in this file.
async fn expired(authority: &Path) -> SocketAddr {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    fs::write(authority, params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let certificate: CertificateDer<'static> =
        params.signed_by(&key, &issuer).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    address
}

/// Runs a command in this directory: its status, what it prints, and its errors.
async fn run(
    directory: &TempDir,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (Option<i32>, String, String) {
    let mut command = Command::new(BINARY);
    command
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(directory.path());
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn with_token() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("token"), "secret-token\n").unwrap();
    directory
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_well_with_the_sandbox() {
    let api = free().to_string();
    let _running = Program::start("", &["--sandbox", "--sandbox-listen", &api], &[]).await;
    let directory = with_token();
    let url = format!("http://{api}");
    let ask = ["doctor", "--upstream", &url, "--token-file", "token"];
    let (status, said, wrong) = run(&directory, &ask, &[]).await;
    assert_eq!(status, Some(0), "{said}{wrong}");
    for part in [
        "ok      configuration  the defaults, ",
        "ok      this machine   127.0.0.1:8080 and 127.0.0.1:8081, state in ",
        "answers 200",
        "ok      clock          the API has the same time",
        "ok      token          it belongs to the workspace ",
        "ok      rate headers   ",
    ] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
    // Without a token there is less to see, and nothing is wrong.
    let (status, said, _) = run(&directory, &["doctor", "--upstream", &url], &[]).await;
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("skipped token "), "{said}");
    assert!(!directory.path().join("segment-gateway-state").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_has_its_place_and_status() {
    let directory = with_token();
    let ca = directory.path().join("ca.pem");
    let rates = "x-ratelimit-consumed: 1\r\nx-ratelimit-remaining: 59\r\n";
    let http = async |answer: Option<String>| format!("http://{}", upstream(answer).await);
    let tls = format!("https://{}", expired(&ca).await);
    let ca = ca.to_str().unwrap();
    for (url, status, parts) in [
        (
            "https://no-such-host.invalid".to_owned(),
            4,
            vec!["WRONG   name           The name of the Segment API could not be resolved"],
        ),
        (
            format!("https://{}", free()),
            4,
            vec!["WRONG   connection     The Segment API accepted no connection"],
        ),
        (
            tls,
            4,
            vec![
                "WRONG   TLS            The certificate of the Segment API was not accepted",
                "expired",
            ],
        ),
        (
            http(answer("200 OK", rates, WORKSPACE, -3_600)).await,
            3,
            vec![
                "WRONG   clock          this machine is 3",
                "s ahead of the API",
            ],
        ),
        (
            http(answer("200 OK", rates, WORKSPACE, 3_600)).await,
            3,
            vec![
                "WRONG   clock          this machine is 3",
                "s behind the API",
            ],
        ),
        (
            http(answer("401 Unauthorized", "", r#"{"errors":[]}"#, 0)).await,
            6,
            vec!["WRONG   token          the API answers 401"],
        ),
        (
            http(answer("200 OK", "", "<html>", 0)).await,
            5,
            vec![
                "WRONG   token          200 without a workspace",
                "note    rate headers",
            ],
        ),
        (
            http(answer("503 Service Unavailable", "", "", 0)).await,
            5,
            vec!["WRONG   token          the API answers 503"],
        ),
        (
            http(None).await,
            5,
            vec!["WRONG   answer         the connection broke"],
        ),
        (
            http(Some("SSH-2.0-OpenSSH_9.2\r\n".to_owned())).await,
            5,
            vec!["WRONG   answer         what answers does not speak HTTP"],
        ),
        (
            http(answer("200 OK", rates, WORKSPACE, 0)).await,
            0,
            vec!["the workspace Acme", "59 of 60"],
        ),
    ] {
        let ask = ["doctor", "--upstream", &url, "--token-file", "token"];
        let environment = [("SEGMENT_GATEWAY__UPSTREAM__CA_FILE", ca)];
        let (found, said, wrong) = run(&directory, &ask, &environment).await;
        assert_eq!(found, Some(status), "{url}: {said}{wrong}");
        for part in parts {
            assert!(
                said.contains(part) || wrong.contains(part),
                "{url}: {part} in:\n{said}{wrong}"
            );
        }
        assert!(!said.contains("secret-token") && !wrong.contains("secret-token"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_said_before_anything_is_asked() {
    let directory = with_token();
    fs::write(directory.path().join("bad.toml"), "[cache]\nnonsense = 1\n").unwrap();
    for (arguments, status, part) in [
        (
            &["--config", "bad.toml"][..],
            2,
            "bad.toml:2: cache.nonsense",
        ),
        (
            &["--upstream", "ftp://a"],
            2,
            "--upstream: found \"ftp://a\"",
        ),
        (
            &["--token-file", "absent"],
            2,
            "cannot read the token from absent",
        ),
    ] {
        let ask = [&["doctor"], arguments].concat();
        let (found, said, wrong) = run(&directory, &ask, &[]).await;
        assert_eq!(found, Some(status), "{said}{wrong}");
        assert!(wrong.contains(part) && said.is_empty(), "{said}{wrong}");
    }
    // RFC 5737, section 3: an address of no machine.
    let url = format!("http://{}", free());
    let ask = ["doctor", "--upstream", &url];
    let environment = [("SEGMENT_GATEWAY__LISTEN", "192.0.2.1:8080")];
    let (found, said, wrong) = run(&directory, &ask, &environment).await;
    assert_eq!(found, Some(3), "{said}{wrong}");
    let named = "WRONG   this machine   environment variable SEGMENT_GATEWAY__LISTEN: listen: found \
        192.0.2.1:8080";
    assert!(said.contains(named), "{said}");
    assert!(wrong.contains("look at this machine first"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hash_of_a_token_is_that_of_the_running_gateway() {
    let directory = with_token();
    let ask = ["credential", "hash", "--token-file", "token"];
    let (status, _, wrong) = run(&directory, &ask, &[]).await;
    assert_eq!(status, Some(1));
    assert!(wrong.contains("there is no key for hashes yet"), "{wrong}");

    let running = Program::sandbox("[state]\ndirectory = \"state\"\n", &[], &[]).await;
    let request = http::Request::get("/users")
        .header("host", "gateway")
        .header("authorization", "bearer secret-token")
        .body(http_body_util::Full::default());
    super::support::wire::ask(running.proxy, request.unwrap()).await;
    let state = running.file("state");
    let environment = [("SEGMENT_GATEWAY__STATE__DIRECTORY", state.to_str().unwrap())];
    let (status, hash, wrong) = run(&directory, &ask, &environment).await;
    assert_eq!(status, Some(0), "{wrong}");
    let shown = running.page("/status", "").await.unwrap().text();
    assert!(
        hash.trim().len() == 16 && shown.contains(hash.trim()),
        "{hash}{shown}"
    );

    // A configured key goes first, and needs no directory.
    fs::write(directory.path().join("key"), "sixteen bytes or more").unwrap();
    let key = [("SEGMENT_GATEWAY__CREDENTIALS__KEY_FILE", "key")];
    let (_, of_key, _) = run(&directory, &ask, &key).await;
    let (_, again, _) = run(&directory, &ask, &[key[0], environment[0]]).await;
    assert!(of_key == again && of_key != hash, "{of_key}{again}{hash}");
}
