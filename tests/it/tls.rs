//! TLS to callers and operators: real handshakes with the program.

use super::support::program::Program;
use super::support::tls::{Authority, Pair, try_ask_secure, try_secure};
use super::support::wire::{NEVER, connect, eventually, exchange, free};
use super::support::{Answer, request};
use http::Method;
use rustls::ClientConfig;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

const HANDSHAKES: &str = "segment_gateway_tls_handshakes_total";
const RELOADS: &str = "segment_gateway_tls_certificate_reloads_total";
const TLS: &str = "[tls]\ncertificate_file = 'tls.crt'\nkey_file = 'tls.key'\n";

fn write(directory: &Path, pair: &Pair) {
    fs::write(directory.join("tls.crt"), &pair.certificate).unwrap();
    fs::write(directory.join("tls.key"), &pair.key).unwrap();
}

/// A gateway with a certificate of this authority, and with more configuration.
async fn gateway(authority: &Authority, more: &str) -> Program {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &authority.pair(2090));
    let ca = directory.path().join("ca.crt");
    fs::write(ca, &authority.certificate).unwrap();
    Program::sandbox_in(directory, &format!("{TLS}{more}")).await
}

async fn read(running: &Program, client: &Arc<ClientConfig>) -> Option<Answer> {
    let get = request(Method::GET, "/users/user-00001", "t", "");
    try_ask_secure(running.proxy, client, get).await
}

async fn counted(running: &Program, result: &str) -> f64 {
    running.value(HANDSHAKES, Some(result)).await
}

/// Waits until so many handshakes have ended in this way. The peer learns it a moment earlier.
async fn counts(running: &Program, result: &str, times: f64) {
    eventually(&format!("{result} is {times}"), async || {
        counted(running, result).await == times
    })
    .await;
}

#[tokio::test]
async fn callers_speak_tls_and_nothing_else() {
    let authority = Authority::new();
    let running = gateway(&authority, "").await;
    let client = authority.client(None);
    assert_eq!(read(&running, &client).await.unwrap().status, 200);
    let hit = read(&running, &client).await.unwrap();
    assert!(hit.header("cache-status").contains("; hit"), "{hit:?}");
    counts(&running, "completed", 2.0).await;

    // Another authority: the caller says so.
    let stranger = Authority::new().client(None);
    assert!(try_secure(running.proxy, &stranger).await.is_err());
    counts(&running, "alert", 1.0).await;
    // A request without TLS is answered, and the connection ends.
    let plain = exchange(running.proxy, b"GET /users HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(plain.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{plain}");
    assert!(plain.contains("https://"), "{plain}");
    counts(&running, "plain-http", 1.0).await;
    exchange(running.proxy, b"\x80no handshake at all").await;
    counts(&running, "malformed", 1.0).await;
    let mut other = (*client).clone();
    other.alpn_protocols = vec![b"h3".to_vec()];
    assert!(try_secure(running.proxy, &Arc::new(other)).await.is_err());
    counts(&running, "incompatible", 1.0).await;
    assert_eq!(read(&running, &client).await.unwrap().status, 200);
}

/// More than handshakes may run at once: the oldest make room.
#[tokio::test]
async fn handshakes_that_do_not_end_delay_no_other() {
    let authority = Authority::new();
    let running = gateway(&authority, "").await;
    let client = authority.client(None);
    let mut slow = Vec::new();
    for _ in 0..300 {
        slow.push(connect(running.proxy).await);
    }
    assert_eq!(read(&running, &client).await.unwrap().status, 200);
    let first = timeout(NEVER, slow[0].read(&mut [0])).await;
    // Closed, or reset.
    assert!(!matches!(first.expect("it ends"), Ok(1..)));
    eventually("they are counted", async || {
        counted(&running, "displaced").await >= 44.0
    })
    .await;
}

/// Handshakes go on all the time while the pair is replaced in every way.
#[tokio::test]
async fn no_handshake_fails_while_the_pair_is_replaced() {
    let authority = Authority::new();
    let running = gateway(&authority, "").await;
    let client = authority.client(None);
    let is_over = AtomicBool::new(false);
    let made = AtomicUsize::new(0);
    let handshakes = async {
        while !is_over.load(Ordering::Relaxed) {
            let answer = read(&running, &client).await;
            assert_eq!(answer.expect("a handshake").status, 200);
            made.fetch_add(1, Ordering::Relaxed);
        }
    };
    let more = async || {
        let before = made.load(Ordering::Relaxed);
        eventually("handshakes go on", async || {
            made.load(Ordering::Relaxed) > before + 2
        })
        .await;
    };
    // What a reload did, by the metric that counts it.
    let reload = async |metric: &str, result: &str| {
        let before = running.value(metric, Some(result)).await;
        running.signal("-HUP");
        eventually("it is read", async || {
            running.value(metric, Some(result)).await > before
        })
        .await;
        more().await;
    };
    let replacing = async {
        let config = "segment_gateway_config_reloads_total";
        let new = authority.pair(2091);
        let half = &new.certificate[..new.certificate.len() / 2];
        fs::write(running.file("tls.crt"), half).unwrap();
        reload(config, "failed").await;
        fs::write(running.file("tls.crt"), &new.certificate).unwrap();
        reload(config, "failed").await;
        fs::write(running.file("tls.key"), &new.key).unwrap();
        reload(RELOADS, "applied").await;
        // A link that is replaced.
        fs::create_dir(running.file("next")).unwrap();
        write(&running.file("next"), &authority.pair(2092));
        for name in ["tls.crt", "tls.key"] {
            let link = running.file("link");
            symlink(format!("next/{name}"), &link).unwrap();
            fs::rename(&link, running.file(name)).unwrap();
        }
        reload(RELOADS, "applied").await;
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(handshakes, replacing);
    let end = "segment_gateway_tls_certificate_not_after_timestamp_seconds";
    // 2092-01-01.
    assert_eq!(running.value(end, Some("callers")).await, 3_849_984_000.0);
    running
        .logs(&[
            "tls.key_file: found",
            "a key of another certificate",
            "TLS certificate replaced",
        ])
        .await;
}

#[tokio::test]
async fn client_certificates_are_required_or_optional() {
    let authority = Authority::new();
    let (own, strange) = (authority.pair(2090), Authority::new().pair(2090));
    let anonymous = authority.client(None);
    let known = authority.client(Some(&own));
    let unknown = authority.client(Some(&strange));
    for (auth, without) in [("required", false), ("optional", true)] {
        let more = format!("client_auth = '{auth}'\nclient_ca_file = 'ca.crt'\n");
        let running = gateway(&authority, &more).await;
        assert_eq!(read(&running, &known).await.unwrap().status, 200, "{auth}");
        let answered = read(&running, &anonymous).await;
        assert_eq!(answered.is_some(), without, "{auth}");
        assert!(read(&running, &unknown).await.is_none(), "{auth}");
        counts(&running, "bad-client-certificate", 1.0).await;
        let refused = f64::from(u8::from(!without));
        counts(&running, "no-client-certificate", refused).await;
        // Nobody gets in on a session of somebody else.
        assert_eq!(read(&running, &known).await.unwrap().status, 200, "{auth}");
    }
}

fn check(directory: &Path, configuration: &str) -> Output {
    fs::write(directory.join("gateway.toml"), configuration).unwrap();
    Command::new(env!("CARGO_BIN_EXE_segment-gateway"))
        .args(["check", "--elsewhere", "--config", "gateway.toml"])
        .current_dir(directory)
        .output()
        .unwrap()
}

#[test]
fn check_names_file_line_key_and_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let authority = Authority::new();
    write(at, &authority.pair(2090));
    let good = check(at, TLS);
    assert!(good.status.success(), "{good:?}");
    fs::write(at.join("tls.key"), authority.pair(2090).key).unwrap();
    let output = check(at, TLS);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in [
        "gateway.toml:3: tls.key_file: found tls.key (a key of another certificate)",
        "replace both files together",
    ] {
        assert!(said.contains(part), "{said}");
    }
    // Half of a pair is no pair, and what others reach has a warning without one.
    let said = check(at, "[tls]\ncertificate_file = 'tls.crt'\n").stderr;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(
        said.contains("tls.certificate_file without tls.key_file"),
        "{said}"
    );
    let open = format!("listen = '0.0.0.0:{}'\n", free().port());
    let said = check(at, &open).stdout;
    assert!(String::from_utf8_lossy(&said).contains("travel in the clear"));
    write(at, &authority.pair(2090));
    let said = check(at, &format!("{open}{TLS}")).stdout;
    assert!(!String::from_utf8_lossy(&said).contains("warning: listen"));
}

/// The admin listener speaks TLS as well, and so does the command line.
#[tokio::test]
async fn operators_speak_tls() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().to_owned();
    write(&at, &authority.pair(2090));
    fs::write(at.join("ca.crt"), &authority.certificate).unwrap();
    let (proxy, admin, api) = (free(), free(), free());
    let configuration = format!(
        "listen = '{proxy}'\n[admin]\nlisten = '{admin}'\n[admin.tls]\n\
         certificate_file = 'tls.crt'\nkey_file = 'tls.key'\n"
    );
    fs::write(at.join("gateway.toml"), configuration).unwrap();
    let program = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_segment-gateway"));
        command.args(arguments).current_dir(&at);
        command
    };
    let api = api.to_string();
    let serve = [
        "serve",
        "--config",
        "gateway.toml",
        "--sandbox",
        "--sandbox-listen",
        &api,
    ];
    let mut running = program(&serve).stderr(Stdio::null()).spawn().unwrap();
    let client = authority.client(None);
    let livez = async || {
        let get = request(Method::GET, "/livez", "", "");
        let is_open = tokio::net::TcpStream::connect(admin).await.is_ok();
        is_open && try_ask_secure(admin, &client, get).await.is_some()
    };
    eventually("it listens", livez).await;
    let plain = exchange(admin, b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let log = |admin: &str, more: &[&str]| {
        let arguments = [&["log", "--admin", admin], more].concat();
        let output = program(&arguments).output().unwrap();
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let by_name = log(
        &format!("https://localhost:{}", admin.port()),
        &["--ca-file", "ca.crt"],
    );
    let by_address = log(&format!("https://{admin}"), &["--ca-file", "ca.crt"]);
    let distrusted = log(&format!("https://{admin}"), &[]);
    let without_port = log("https://localhost", &[]);
    let curl = Command::new("curl")
        .args([
            "-sS",
            "--noproxy",
            "*",
            "--max-time",
            "20",
            "--cacert",
            "ca.crt",
        ])
        .arg(format!("https://{admin}/livez"))
        .current_dir(&at)
        .output();
    let _ = running.kill();
    let _ = running.wait();
    assert!(plain.starts_with("HTTP/1.1 400 "), "{plain}");
    assert!(by_name.0 && by_name.1.contains("info"), "{by_name:?}");
    assert!(by_address.0, "{by_address:?}");
    assert!(
        !distrusted.0 && distrusted.1.contains("certificate"),
        "{distrusted:?}"
    );
    assert!(
        !without_port.0 && without_port.1.contains("a host and a port"),
        "{without_port:?}"
    );
    match curl {
        Ok(output) => assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "live\n",
            "{output:?}"
        ),
        Err(error) => eprintln!("skipped: there is no curl ({error})"),
    }
}
