use super::*;
use crate::metrics::{Levels, Metrics};
use rcgen::{CertificateParams, KeyPair};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

/// 2020-01-01, within the validity of what is made here.
const NOW: Duration = Duration::from_secs(1_577_836_800);
/// 2021-01-01.
const END: Duration = Duration::from_secs(1_609_459_200);

fn now() -> SystemTime {
    UNIX_EPOCH + NOW
}

/// A certificate and its key as PEM, valid from one year to another.
fn pair(from: i32, to: i32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["gateway.test".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    let certificate = params.self_signed(&key).unwrap().pem();
    (certificate, key.serialize_pem())
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn spec(folder: &Path, certificate: &str, key: &str) -> TlsSpec {
    TlsSpec {
        certificate_file: write(folder, "tls.crt", certificate),
        key_file: write(folder, "tls.key", key),
        http2: true,
        clients: None,
    }
}

fn opened(spec: &TlsSpec) -> Result<ServerIdentity, Vec<TlsProblem>> {
    ServerIdentity::new(&spec.read()?, now())
}

#[test]
fn files_that_cannot_be_used_are_named_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = pair(2019, 2021);
    let (expired, key_of_expired) = pair(2018, 2019);
    let (future, key_of_future) = pair(2021, 2022);
    let other = pair(2019, 2021).1;
    let locked =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let request = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
    let junk = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    let cut = "-----BEGIN PRIVATE KEY-----\nAAAA\n";
    let both = format!("{certificate}{junk}");
    type Case<'a> = (&'a str, &'a str, TlsFile, &'a str);
    let cases: [Case<'_>; 13] = [
        ("", &key, TlsFile::Certificate, "no certificate"),
        ("text", &key, TlsFile::Certificate, "no certificate"),
        (&key, &key, TlsFile::Certificate, "swapped"),
        (request, &key, TlsFile::Certificate, "a certificate request"),
        (junk, &key, TlsFile::Certificate, "certificate 1 in it"),
        (&both, &key, TlsFile::Certificate, "certificate 2 in it"),
        ("0\u{3}...", &key, TlsFile::Certificate, "DER"),
        (
            &expired,
            &key_of_expired,
            TlsFile::Certificate,
            "expired 2019-01-01T00:00:00Z",
        ),
        (
            &future,
            &key_of_future,
            TlsFile::Certificate,
            "not valid before 2021-01-01",
        ),
        (&certificate, "", TlsFile::Key, "no private key"),
        (&certificate, &certificate, TlsFile::Key, "swapped"),
        (&certificate, locked, TlsFile::Key, "passphrase"),
        (
            &certificate,
            &other,
            TlsFile::Key,
            "a key of another certificate",
        ),
    ];
    for (certificate, key, file, part) in cases {
        let problems = opened(&spec(folder.path(), certificate, key)).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].file, file, "{problems:?}");
        let text = problems[0].to_string();
        assert!(text.contains(part), "{text}");
        assert!(text.contains(&*folder.path().to_string_lossy()), "{text}");
    }
    let problems = opened(&spec(folder.path(), &certificate, cut)).unwrap_err();
    assert_eq!(problems[0].file, TlsFile::Key);
    assert!(!problems[0].to_string().contains("AAAA"), "{problems:?}");
    let wrong = spec(folder.path(), &key, &certificate);
    assert_eq!(opened(&wrong).unwrap_err().len(), 2, "both are named");
    std::fs::remove_file(&wrong.certificate_file).unwrap();
    let problems = opened(&wrong).unwrap_err();
    assert!(problems[0].found.starts_with("no file "), "{problems:?}");
}

#[test]
fn authorities_of_clients_are_checked_too() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = pair(2019, 2021);
    let mut spec = spec(folder.path(), &certificate, &key);
    for (content, is_usable) in [(&*certificate, true), ("", false), (&*key, false)] {
        spec.clients = Some(ClientTrust {
            ca_file: write(folder.path(), "ca.crt", content),
            is_required: true,
        });
        match opened(&spec) {
            Ok(_) => assert!(is_usable, "{content}"),
            Err(problems) => {
                assert!(!is_usable, "{problems:?}");
                assert_eq!(problems[0].file, TlsFile::ClientCa);
            }
        }
    }
}

#[test]
fn a_sound_pair_has_the_end_of_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = pair(2019, 2021);
    let spec = spec(folder.path(), &certificate, &key);
    let files = spec.read().unwrap();
    let identity = ServerIdentity::new(&files, now()).unwrap();
    assert_eq!(identity.not_after(), UNIX_EPOCH + END);
    assert!(identity.is_of(&files));
    assert!(!format!("{files:?}").contains("PRIVATE KEY"));
    // One file with both is as good.
    let both = format!("{certificate}{key}");
    let both = TlsSpec {
        certificate_file: write(folder.path(), "both.pem", &both),
        key_file: folder.path().join("both.pem"),
        http2: true,
        clients: None,
    };
    assert!(opened(&both).is_ok());
    assert!(!identity.is_of(&both.read().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_left_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = pair(2019, 2021);
    let identity = opened(&spec(folder.path(), &certificate, &key)).unwrap();
    let metrics = Metrics::new(&[]).unwrap();
    let tls = SecureListener::new(Arc::new(Swap::new(identity)), metrics.tls("callers"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (stream, address) = listener.accept().await.unwrap();
    let (_stop, stopped) = watch::channel(false);
    let refusals = MalformedReplies::new(8 * 1024);
    let accepted = tls.accept(stream, address, &refusals, &stopped).await;
    assert!(accepted.is_none());
    assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
    let text = String::from_utf8(metrics.render(&[], &Levels::default())).unwrap();
    let line = r#"segment_gateway_tls_handshakes_total{listener="callers",result="timeout"} 1"#;
    assert!(text.contains(line), "{text}");
}
