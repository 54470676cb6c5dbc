//! The listener of operators from outside: who is let in, and that nobody can keep others out.

use super::support::program::Program;
use super::support::wire::{self, connect, eventually, free, rest};
use super::support::{request, with};
use http::{Method, Request};
use http_body_util::Full;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

const BINARY: &str = env!("CARGO_BIN_EXE_segment-gateway");
const TOKEN: &str = "the-token-of-operators";
const VARIABLE: &str = "SEGMENT_GATEWAY_ADMIN_TOKEN";

fn program(arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(directory);
    command.env_remove(VARIABLE);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn a_listener_that_others_reach_needs_a_token_or_a_word() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("short"), "too-short\n").unwrap();
    fs::write(directory.path().join("empty"), "\n").unwrap();
    fs::write(directory.path().join("token"), format!("{TOKEN}\n")).unwrap();
    let everywhere = "SEGMENT_GATEWAY__ADMIN__LISTEN";
    let file = "SEGMENT_GATEWAY__ADMIN__TOKEN_FILE";
    for (environment, status, part) in [
        (
            vec![(everywhere, "0.0.0.0:8081")],
            2,
            "admin.listen: found 0.0.0.0:8081, which other machines reach, and no token, expected a loopback",
        ),
        (
            vec![(everywhere, "[::]:8081")],
            2,
            "admin.token_file (or SEGMENT_GATEWAY_ADMIN_TOKEN)",
        ),
        (
            vec![(everywhere, "0.0.0.0:8081"), (file, "absent")],
            2,
            "no readable file at absent",
        ),
        (
            vec![(file, "short")],
            2,
            "admin.token_file: found a file that is no token, expected 16",
        ),
        (
            vec![(VARIABLE, "too-short")],
            2,
            "SEGMENT_GATEWAY_ADMIN_TOKEN: found a value",
        ),
        (
            vec![(VARIABLE, "")],
            2,
            "SEGMENT_GATEWAY_ADMIN_TOKEN: found an empty value",
        ),
        (
            vec![(file, "empty")],
            2,
            "admin.token_file: found an empty file",
        ),
        (
            vec![(file, "token"), (VARIABLE, TOKEN)],
            2,
            "SEGMENT_GATEWAY_ADMIN_TOKEN: found a value beside admin.token_file",
        ),
        (
            vec![
                ("SEGMENT_GATEWAY__JOURNAL__KEY_FILE", "token"),
                ("SEGMENT_GATEWAY_JOURNAL_KEY", TOKEN),
            ],
            2,
            "SEGMENT_GATEWAY_JOURNAL_KEY: found a value beside journal.key_file",
        ),
        (
            vec![(everywhere, "0.0.0.0:8081"), (file, "token")],
            0,
            "no problems",
        ),
        (
            vec![(everywhere, "0.0.0.0:8081"), (VARIABLE, TOKEN)],
            0,
            "no problems",
        ),
        (
            vec![
                (everywhere, "0.0.0.0:8081"),
                ("SEGMENT_GATEWAY__ADMIN__PUBLIC", "true"),
            ],
            0,
            "no problems",
        ),
        (
            vec![
                (everywhere, "0.0.0.0:8081"),
                ("SEGMENT_GATEWAY__ADMIN__OPEN", "true"),
            ],
            0,
            "warning: admin.open is true: whoever can connect to 0.0.0.0:8081",
        ),
    ] {
        let mut check = program(&["check"], directory.path());
        let output = check.envs(environment.iter().copied()).output().unwrap();
        let said = said(&output);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{environment:?}: {said}"
        );
        assert!(said.contains(part), "{environment:?}: {said}");
        assert!(!said.contains("too-short"), "{said}");
    }
    // The program itself does not start either.
    let mut serve = program(
        &["serve", "--sandbox", "--admin-listen", "0.0.0.0:0"],
        directory.path(),
    );
    let output = serve.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

#[tokio::test]
async fn the_token_opens_it_to_programs_browsers_and_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let running = Program::sandbox("", &[], &[(VARIABLE, TOKEN)]).await;
    let refused = running.page("/status", "").await.unwrap();
    assert_eq!(refused.status, 401);
    assert!(refused.text().contains("needs the admin token"));
    let ways: Vec<_> = refused.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(ways.len(), 2, "{ways:?}");
    let wrong = running
        .page("/", "Bearer the-token-of-others")
        .await
        .unwrap();
    assert_eq!(wrong.status, 401);
    assert!(wrong.text().contains("not the admin token"));
    // Whoever guesses is to wait, and keeps nobody out who shares its address.
    let bearer = format!("Bearer {TOKEN}");
    eventually("another wrong one comes soon enough", async || {
        let wrong = running.page("/status", "Bearer another-one-of-others");
        let wrong = wrong.await.unwrap();
        let right = running.page("/status", &bearer).await.unwrap();
        assert_eq!(right.status, 200);
        wrong.status == 429 && wrong.header("retry-after") == "1"
    })
    .await;
    assert_eq!(running.page("/status", "").await.unwrap().status, 401);
    // Probes need none, and metrics tell of those who were refused.
    let metrics = running.page("/metrics", "").await.unwrap().text();
    let paused = running
        .value("segment_gateway_admin_rejections_total", Some("paused"))
        .await;
    assert!(paused >= 1.0, "{paused}");
    for (reason, count) in [("no-token", 2), ("address", 0)] {
        let line =
            format!("segment_gateway_admin_rejections_total{{reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}");
    }
    let admin = running.admin.to_string();
    let mut log = program(&["log", "--admin", &admin], directory.path());
    let output = log.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("needs the admin token"),
        "{}",
        said(&output)
    );
    fs::write(directory.path().join("token"), format!("{TOKEN}\n")).unwrap();
    let output = log.args(["--admin-token-file", "token"]).output().unwrap();
    assert_eq!(said(&output), "info\n");
    let mut log = program(&["log", "debug", "--admin", &admin], directory.path());
    let output = log.env(VARIABLE, TOKEN).output().unwrap();
    assert_eq!(said(&output), "debug\n");
    let log = running
        .logs(&["wrong token", "log level changed by an operator"])
        .await;
    assert!(!log.contains(TOKEN), "{log}");
}

/// The live page cancels a write with the request of a browser. Without the right of its reader, or
/// from the page of another site, it changes nothing.
#[tokio::test]
async fn the_request_of_the_page_has_no_right_of_its_own() {
    let running = Program::sandbox(
        "[state]\ndirectory = \"state\"\n",
        &[],
        &[(VARIABLE, TOKEN)],
    )
    .await;
    let ask = async |method: Method, path: &str, headers: &[(&str, &str)]| {
        let request = Request::builder().method(method).uri(path);
        let mut request = request.header("host", running.admin.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        wire::ask(running.admin, request.body(Full::default()).unwrap()).await
    };
    let bearer = format!("Bearer {TOKEN}");
    let right = ("authorization", bearer.as_str());
    let (meant, own) = (
        ("x-gateway-admin", "1"),
        format!("http://{}", running.admin),
    );
    let own = ("origin", own.as_str());
    let pause = "/writes/pause?operation=replacePermissionsForUser";
    assert_eq!(ask(Method::POST, pause, &[right, meant]).await.status, 200);
    let put = request(
        Method::PUT,
        "/users/user-00001/permissions",
        "t",
        r#"{"permissions":[]}"#,
    );
    let accepted = wire::ask(running.proxy, with(put, "prefer", "respond-async")).await;
    let id = accepted.json()["data"]["write"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let write = format!("/writes/{id}");
    for (headers, status) in [
        (&[own, meant][..], 401),
        (
            &[own, ("authorization", "Bearer one-of-somebody-else"), meant],
            401,
        ),
        (&[own, right], 403),
        (&[("origin", "http://elsewhere.example"), right, meant], 403),
    ] {
        let answer = ask(Method::DELETE, &write, headers).await;
        assert_eq!(answer.status, status, "{headers:?}");
        let shown = ask(Method::GET, &write, &[right]).await.json();
        assert_eq!(shown["state"], "queued", "{headers:?}");
    }
    let answer = ask(Method::DELETE, &write, &[own, right, meant]).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["state"]),
        (200, &"cancelled".into())
    );
}

/// Somebody opens the dashboard on the callers' port, or points an SDK at the operators' one.
#[tokio::test]
async fn the_wrong_port_says_which_is_the_right_one() {
    let running = Program::sandbox("", &[], &[]).await;
    let page = Request::get("/")
        .header("host", "gateway")
        .header("accept", "text/html");
    let answer = wire::ask(running.proxy, page.body(Full::default()).unwrap()).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.error_type(), "gateway-wrong-listener");
    assert!(answer.text().contains("admin.listen"));
    let answer = running.page("/users", "Bearer t").await.unwrap();
    assert_eq!(answer.status, 404);
    assert!(
        answer.text().contains("listener of operators; callers"),
        "{}",
        answer.text()
    );
}

/// More connections than one peer may have, none of which says or takes anything.
#[tokio::test]
async fn scrapers_that_hang_keep_nobody_out() {
    let short = ("SEGMENT_GATEWAY__SERVER__IDLE_TIMEOUT", "2s");
    let running = Program::sandbox("", &[], &[short]).await;
    let mut hanging = Vec::new();
    for n in 0..80 {
        let mut stream = connect(running.admin).await;
        if n % 2 == 0 {
            // It asks and never reads.
            let ask = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n";
            let _ = stream.write_all(ask).await;
        }
        hanging.push(stream);
    }
    // A probe comes from elsewhere.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let mut probe = socket.connect(running.admin).await.unwrap();
    let ask = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    probe.write_all(ask).await.unwrap();
    let answer = rest(&mut probe).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Its own peer gets in when those that hang are closed.
    eventually("it is let in", async || {
        running.page("/metrics", "").await.is_some()
    })
    .await;
    drop(hanging);
}

/// The token of operators is not for the API, wherever it is sent by mistake.
#[tokio::test]
async fn the_admin_token_never_leaves_by_the_callers_port() {
    let running = Program::sandbox("", &[], &[(VARIABLE, TOKEN)]).await;
    let directory = tempfile::tempdir().unwrap();
    let proxy = running.proxy.to_string();
    for command in [
        &["writes", "list"][..],
        &["cache", "purge", "--everything"],
        &["log"],
    ] {
        let mut wrong = program(command, directory.path());
        let output = wrong
            .args(["--admin", &proxy])
            .env(VARIABLE, TOKEN)
            .output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        assert!(said(&output).contains("listener"), "{}", said(&output));
    }
    let sent = running
        .value("segment_gateway_upstream_requests_total", None)
        .await;
    assert_eq!(sent, 0.0);
}

/// Whatever the modes of the socket and its directories are, e.g. because somebody has changed them.
#[cfg(unix)]
#[tokio::test]
async fn the_socket_answers_nobody_but_its_own_user() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let other = |arguments: &[&str]| {
        let mut command = program(arguments, Path::new("/"));
        command.uid(65_532).output()
    };
    if !other(&["--version"]).is_ok_and(|output| output.status.success()) {
        eprintln!("not tried: this user may not start a program as another one");
        return;
    }
    let running = Program::sandbox("[state]\ndirectory = \"state\"\n", &[], &[]).await;
    for (name, mode) in [("", 0o711), ("state", 0o711), ("state/admin.sock", 0o666)] {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(running.file(name), mode).unwrap();
    }
    let socket = running.file("state/admin.sock");
    let asks = ["log", "--admin", &socket.to_string_lossy()];
    let own = program(&asks, Path::new("/")).output().unwrap();
    assert_eq!(said(&own), "info\n");
    let refused = other(&asks).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    running
        .logs(&["connection from another user rejected"])
        .await;
}

/// A secret that every user can read is named in the log at the start, without what it is.
#[cfg(unix)]
#[tokio::test]
async fn secrets_that_all_can_read_are_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let keys = [
        ("credentials.key_file", 0o644),
        ("journal.key_file", 0o604),
        ("admin.token_file", 0o640),
    ];
    let secret = |key: &str| directory.path().join(key);
    let mut configuration = "[state]\ndirectory = \"state\"\n".to_owned();
    for (key, mode) in keys {
        fs::write(secret(key), TOKEN).unwrap();
        fs::set_permissions(secret(key), fs::Permissions::from_mode(mode)).unwrap();
        let (section, name) = key.split_once('.').unwrap();
        configuration += &format!("[{section}]\n{name} = \"{}\"\n", secret(key).display());
    }
    // A held token, which the file of clients names.
    let held = ("held-token", 0o644);
    fs::write(secret(held.0), "a-held-token").unwrap();
    fs::set_permissions(secret(held.0), fs::Permissions::from_mode(held.1)).unwrap();
    let clients = directory.path().join("clients.toml");
    let tokens = format!("[tokens.held]\nfile = \"{}\"\n", secret(held.0).display());
    fs::write(&clients, tokens).unwrap();
    let clients = clients.display();
    configuration += &format!("[callers]\ncredentials = \"both\"\nclients_file = \"{clients}\"\n");
    let running = Program::sandbox(&configuration, &[], &[]).await;
    let log = running.logs(&["gateway listening"]).await;
    for (key, mode) in keys.into_iter().chain([held]) {
        let file = secret(key).display().to_string();
        let named = |line: &&str| line.contains("every user can read") && line.contains(&file);
        let count = log.lines().filter(named).count();
        assert_eq!(count, usize::from(mode & 0o004 != 0), "{key}: {log}");
    }
    assert!(!log.contains(TOKEN), "{log}");
}

/// A proxy, a sidecar or a forwarded port is a loopback peer.
#[tokio::test]
async fn where_others_can_connect_loopback_is_no_operator() {
    let listen = format!("0.0.0.0:{}", free().port());
    let public = ("SEGMENT_GATEWAY__ADMIN__PUBLIC", "true");
    let running = Program::sandbox("", &["--admin-listen", &listen], &[public]).await;
    assert!(running.page("/metrics", "").await.unwrap().status == 200);
    for path in ["/", "/status", "/live", "/writes", "/cache", "/log"] {
        let answer = running.page(path, "").await.unwrap();
        assert_eq!(answer.status, 403, "{path}");
    }
    let said = "anyone may read probes and metrics";
    eventually("the log says admin access", async || {
        running.page("/livez", "").await.unwrap();
        let log = running.log();
        let mut lines = log.lines();
        lines.any(|line| line.contains("admin access") && line.contains(said))
    })
    .await;
}

#[cfg(unix)]
#[tokio::test]
async fn the_command_line_asks_through_the_socket_where_there_is_one() {
    use std::os::unix::fs::PermissionsExt as _;
    const USUAL: &str = "SEGMENT_GATEWAY__STATE__DIRECTORY";
    let state = "[state]\ndirectory = \"state\"\n";
    let mut running = Program::sandbox(state, &[], &[(VARIABLE, TOKEN)]).await;
    let socket = running.file("state/admin.sock");
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let directory = running.file("");
    fs::write(running.file("other.toml"), state).unwrap();
    // Without a token, although there is one.
    for (command, environment) in [
        (&["log"][..], &[(USUAL, "state")][..]),
        (&["log", "--admin", "state/admin.sock"], &[]),
        (&["log", "--config", "other.toml"], &[]),
        (&["log", "--config", "other.toml"], &[(USUAL, "state")]),
    ] {
        let mut asks = program(command, &directory);
        let output = asks.envs(environment.iter().copied()).output().unwrap();
        assert_eq!(said(&output), "info\n", "{command:?}");
    }
    let mut purge = program(&["cache", "purge", "--everything"], &directory);
    let output = purge.env(USUAL, "state").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    // Where another one is named it is asked, and where there is no socket the listener is.
    let admin = running.admin.to_string();
    let mut asks = program(&["log", "--admin", &admin], &directory);
    let output = asks.env(USUAL, "state").output().unwrap();
    assert!(
        said(&output).contains("needs the admin token"),
        "{}",
        said(&output)
    );
    let listener = format!("[admin]\nlisten = \"{admin}\"\n[state]\ndirectory = \"elsewhere\"\n");
    for (file, text, part) in [
        ("listener.toml", listener.as_str(), "needs the admin token"),
        ("wrong.toml", "[state]\nx = 1\n", "wrong.toml:2: state.x"),
        ("wrong.toml", "[state]\nx = 1\n", "--admin"),
    ] {
        fs::write(running.file(file), text).unwrap();
        let mut asks = program(&["log", "--config", file], &directory);
        let output = asks.output().unwrap();
        assert!(!output.status.success());
        assert!(said(&output).contains(part), "{file}: {}", said(&output));
    }
    let mut asks = program(&["log"], &directory);
    let output = asks.env(USUAL, "elsewhere").output().unwrap();
    assert!(!said(&output).contains("admin.sock"), "{}", said(&output));
    running.signal("-TERM");
    assert!(running.ended().await);
    assert!(!socket.exists());
}
