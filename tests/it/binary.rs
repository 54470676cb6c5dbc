//! The program itself: started, asked, stopped and killed.

use super::support::wire::{ask, eventually, free, try_ask};
use super::support::{request, with};
use http::{Method, Request};
use http_body_util::Full;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tokio::task::JoinSet;

mod peak;
mod rekey;
mod state;

const BINARY: &str = env!("CARGO_BIN_EXE_segment-gateway");
const NOTHING: &str = r#"{"permissions":[]}"#;

/// Runs to the end.
fn run(arguments: &[&str], directory: &Path) -> Output {
    Command::new(BINARY)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

/// Standard error's lines of the program itself, without its log.
fn complaints(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    let own = text
        .lines()
        .filter(|line| line.starts_with("segment-gateway: "));
    own.map(str::to_owned).collect()
}

/// A process that is killed at the end of the test.
struct Running {
    child: Child,
    proxy: SocketAddr,
    admin: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts `serve` with these arguments and waits until it listens.
    async fn serve(arguments: &[&str], directory: &Path) -> Self {
        Self::start(Command::new(BINARY), arguments, directory).await
    }

    /// The same, with this program in front of the arguments.
    async fn start(mut program: Command, arguments: &[&str], directory: &Path) -> Self {
        let (proxy, admin) = (free(), free());
        let child = program
            .args(["serve", "--listen", &proxy.to_string()])
            .args(["--admin-listen", &admin.to_string()])
            .args(arguments)
            .current_dir(directory)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let running = Self {
            child,
            proxy,
            admin,
        };
        eventually("it listens", async || {
            running.page("/livez").await.is_some()
        })
        .await;
        running
    }

    /// An inner sandbox of its own.
    async fn sandbox(arguments: &[&str], directory: &Path) -> Self {
        let address = free().to_string();
        let own = ["--sandbox", "--sandbox-listen", &address];
        Self::serve(&[&own, arguments].concat(), directory).await
    }

    async fn page(&self, path: &str) -> Option<(u16, String)> {
        let ask = Request::get(path).header("host", self.admin.to_string());
        let answer = try_ask(self.admin, ask.body(Full::default()).unwrap()).await?;
        Some((
            answer.status.as_u16(),
            String::from_utf8_lossy(&answer.body).into_owned(),
        ))
    }

    async fn put(&self, user: usize) -> super::support::Answer {
        ask(self.proxy, put(user)).await
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &id])
                .status()
                .unwrap()
                .success()
        );
    }
}

fn put(user: usize) -> Request<Full<bytes::Bytes>> {
    let target = format!("/users/user-{user:05}/permissions");
    request(Method::PUT, &target, "a", NOTHING)
}

#[tokio::test]
async fn serve_with_the_sandbox_serves_and_shows_itself_to_operators_alone() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::sandbox(&[], directory.path()).await;
    let get = || request(Method::GET, "/users/user-00001", "a", "");
    let first = ask(running.proxy, get()).await;
    assert_eq!(first.status, 200, "{first:?}");
    let second = ask(running.proxy, get()).await;
    assert!(
        second.header("cache-status").contains("; hit;"),
        "{second:?}"
    );
    assert_eq!(running.put(1).await.status, 200);
    let third = ask(running.proxy, get()).await;
    assert_ne!(third.body, second.body);
    for (path, within) in [
        ("/livez", "live"),
        ("/readyz", "\"ready\": true"),
        ("/metrics", "segment_gateway_requests_total"),
        ("/status", "\"budgets\""),
    ] {
        let (status, body) = running.page(path).await.unwrap();
        assert_eq!(status, 200, "{path}");
        assert!(body.contains(within), "{path}: {body}");
    }
    // Not on the proxy's listener, not for other hosts or sites.
    let foreign = |host: &str, origin: Option<&str>| {
        let mut ask = Request::get("/status").header("host", host);
        if let Some(origin) = origin {
            ask = ask.header("origin", origin);
        }
        ask.body(Full::default()).unwrap()
    };
    let ask_admin = async |host: &str, origin: Option<&str>| {
        ask(running.admin, foreign(host, origin))
            .await
            .status
            .as_u16()
    };
    assert_eq!(ask_admin("evil.example", None).await, 403);
    assert_eq!(
        ask_admin("localhost", Some("http://evil.example")).await,
        403
    );
    assert_eq!(ask_admin("localhost", Some("null")).await, 403);
    assert_eq!(ask_admin("localhost", Some("http://localhost")).await, 200);
    assert_eq!(ask_admin("localhost:8081", None).await, 200);
    let on_proxy = ask(running.proxy, request(Method::GET, "/livez", "a", "")).await;
    assert_eq!(on_proxy.status, 404, "the API's own answer: {on_proxy:?}");
}

#[tokio::test]
async fn a_busy_port_is_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    let (busy, sandbox) = (taken.1.to_string(), free().to_string());
    let arguments = [
        "serve",
        "--sandbox",
        "--sandbox-listen",
        &sandbox,
        "--listen",
        &busy,
    ];
    let output = run(&arguments, directory.path());
    assert_eq!(output.status.code(), Some(1));
    let said = complaints(&output);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains(&format!("cannot listen on {busy}")),
        "{said:?}"
    );
}

#[test]
fn the_log_tells_the_ports_that_were_free() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = format!("http://{}", free());
    let mut child = Command::new(BINARY)
        .args(["serve", "--upstream", &upstream, "--listen", "127.0.0.1:0"])
        .args(["--admin-listen", "127.0.0.1:0"])
        .current_dir(directory.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines
        .map_while(Result::ok)
        .find(|line| line.contains("gateway listening"));
    child.kill().unwrap();
    child.wait().unwrap();
    let line = line.expect("it listens");
    for name in ["listen=127.0.0.1:", "admin=127.0.0.1:"] {
        let (_, port) = line.split_once(name).expect("an address");
        assert!(!port.starts_with("0 "), "{line}");
    }
}

#[tokio::test]
async fn in_shadow_mode_it_warns_shows_nobody_a_hit_and_leaves_no_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = directory.path().join("state/ledger");
    let mut program = Command::new(BINARY);
    program.env("SEGMENT_GATEWAY__STATE__DIRECTORY", "state");
    let address = free().to_string();
    let sandbox = ["--sandbox", "--sandbox-listen", &address];
    let enforcing = Running::start(program, &sandbox, directory.path()).await;
    assert!(ledger.exists());
    drop(enforcing);
    let address = free().to_string();
    let mut child = Command::new(BINARY)
        .args(["serve", "--shadow", "--sandbox"])
        .args(["--sandbox-listen", &address, "--listen", "127.0.0.1:0"])
        .args(["--admin-listen", "127.0.0.1:0"])
        .env("SEGMENT_GATEWAY__STATE__DIRECTORY", "state")
        .current_dir(directory.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    let listens = lines.by_ref().map_while(Result::ok).find(|line| {
        said.push(line.clone());
        line.contains("gateway listening")
    });
    let port = |line: String| {
        let (_, address) = line.split_once("listen=").unwrap();
        address.split(' ').next().unwrap().parse().unwrap()
    };
    let running = Running {
        child,
        proxy: port(listens.unwrap()),
        admin: free(),
    };
    let warning = said.iter().find(|line| line.contains("NOT enforced"));
    assert!(warning.unwrap().contains("WARN"), "{said:?}");
    assert!(!ledger.exists());
    for expected in ["at-once; cache=miss", "hit; compared=same"] {
        let answer = ask(
            running.proxy,
            request(Method::GET, "/users/user-00001", "a", ""),
        )
        .await;
        assert_eq!(answer.header("x-gateway-shadow"), expected, "{answer:?}");
    }
    let check = Command::new(BINARY)
        .arg("check")
        .env("SEGMENT_GATEWAY__MODE", "shadow")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(told.contains("warning: mode is \"shadow\""), "{told}");
    let mistaken = run(&["serve", "--shadow=yes"], directory.path());
    assert_eq!(mistaken.status.code(), Some(2));
}

#[test]
fn a_wrong_configuration_names_every_problem_with_file_line_and_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.toml");
    let text = "listen = 5\n[upstream]\nurl = \"ftp://x\"\nhead_timeot = \"3s\"\n[wait]\ncap = \"9 parsecs\"\n";
    std::fs::write(&file, text).unwrap();
    for command in ["check", "serve", "routes"] {
        let output = run(&[command, "--config", "bad.toml"], directory.path());
        assert_eq!(output.status.code(), Some(2), "{command}");
        let said = complaints(&output);
        assert_eq!(said.len(), 4, "{said:?}");
        for (line, place) in said.iter().zip([
            "bad.toml:1: listen: found 5, expected",
            "bad.toml:3: upstream.url: found \"ftp://x\", expected",
            "bad.toml:4: upstream.head_timeot: found",
            "bad.toml:6: wait.cap: found \"9 parsecs\", expected",
        ]) {
            assert!(line.contains(place), "{line}");
        }
    }
}

#[test]
fn check_and_routes_say_what_holds() {
    let directory = tempfile::tempdir().unwrap();
    let check = run(&["check"], directory.path());
    assert_eq!(check.status.code(), Some(0));
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(said.contains("no problems; 201 operations"), "{said}");
    let routes = run(&["routes"], directory.path());
    let said = String::from_utf8(routes.stdout).unwrap();
    // A head, the operations, and what matches none of them.
    assert_eq!(said.lines().count(), 1 + 201 + 2);
    assert!(said.lines().all(|line| !line.trim().is_empty()));
    let print = |arguments: &[&str]| {
        let output = run(arguments, directory.path());
        let all = [&output.stdout[..], &output.stderr[..]].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&all).into_owned(),
        )
    };
    let (status, one) = print(&["routes", "getUser"]);
    assert_eq!(status, Some(0));
    assert!(one.contains("\nrequest    GET /users/{userId}\n"), "{one}");
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let all = json(&print(&["routes", "--json"]).1);
    assert_eq!(all["operations"].as_array().map(Vec::len), Some(201 + 2));
    let one = json(&print(&["routes", "getUser", "--json"]).1);
    assert_eq!(one["path"], "/users/{userId}");
    let (status, unknown) = print(&["routes", "getuser"]);
    assert_eq!(status, Some(1));
    assert!(
        unknown.contains("no operation getuser; there is getUser, getUserGroup"),
        "{unknown}"
    );
}

#[test]
fn what_only_using_a_value_shows_is_said_with_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[upstream]\nurl = \"https://a~b\"\nca_file = \"none.pem\"\n[credentials]\n\
        key_file = \"short\"\n[wait]\ncap = \"9 parsecs\"\n";
    std::fs::write(directory.path().join("bad.toml"), text).unwrap();
    std::fs::write(directory.path().join("short"), "short").unwrap();
    for command in ["check", "serve"] {
        let output = Command::new(BINARY)
            .args([command, "--config", "bad.toml"])
            .env("HTTPS_PROXY", "ftp://user:secret@p")
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}");
        let said = complaints(&output);
        assert_eq!(said.len(), 5, "{said:?}");
        for (line, place) in said.iter().zip([
            "bad.toml:2: upstream.url: found \"https://a~b\" (",
            "bad.toml:3: upstream.ca_file: found \"none.pem\" (",
            "bad.toml:5: credentials.key_file: found \"short\" (",
            "bad.toml:7: wait.cap: found \"9 parsecs\", expected",
            "environment variable HTTPS_PROXY: found",
        ]) {
            assert!(line.contains(place) && !line.contains("secret"), "{line}");
        }
    }
}

#[test]
fn a_wrong_flag_is_named_as_it_was_typed() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(&["serve", "--upstream", "ftp://x"], directory.path());
    assert_eq!(output.status.code(), Some(2));
    let said = complaints(&output);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("--upstream: found \"ftp://x\""),
        "{said:?}"
    );
    for flag in ["--listen", "--admin-listen"] {
        let output = run(&["serve", flag, "8080"], directory.path());
        assert_eq!(output.status.code(), Some(2), "{flag}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("such as 127.0.0.1:8080"), "{said}");
    }
    for flag in [
        ["--time-scale", "2"],
        ["--latency", "1ms"],
        ["--sandbox-listen", "[::1]:0"],
    ] {
        let output = run(&[&["serve"], &flag[..]].concat(), directory.path());
        assert_eq!(output.status.code(), Some(2), "{flag:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("--sandbox"), "{said}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_limit_of_open_files_is_raised_as_far_as_it_goes() {
    let directory = tempfile::tempdir().unwrap();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -Sn 256 && exec \"$0\" \"$@\"", BINARY]);
    let upstream = format!("http://{}", free());
    let running = Running::start(limited, &["--upstream", &upstream], directory.path()).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.child.id()));
    let limits = limits.unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let numbers = line.unwrap().split_whitespace().take(2);
    let numbers: Vec<u64> = numbers.map(|n| n.parse().unwrap_or(u64::MAX)).collect();
    let [soft, hard] = numbers[..] else {
        panic!("{limits}")
    };
    assert_eq!(soft, hard.min(2 * (4096 + 256) + 64));
}

#[tokio::test]
async fn an_api_that_cannot_be_reached_is_a_502_in_the_envelope() {
    let directory = tempfile::tempdir().unwrap();
    let closed = format!("http://{}", free());
    for upstream in [closed.as_str(), "https://nowhere.invalid"] {
        let running = Running::serve(&["--upstream", upstream], directory.path()).await;
        let write = with(put(1), "prefer", "wait=2");
        let answer = ask(running.proxy, write).await;
        assert!(
            matches!(answer.status.as_u16(), 502 | 504),
            "{upstream} {answer:?}"
        );
        assert_eq!(answer.error_type(), "gateway-upstream-unreachable");
        assert_eq!(answer.json()["errors"][0]["data"]["sent"], false);
    }
}

#[tokio::test]
async fn a_second_process_on_the_same_state_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = format!("http://{}", free());
    let _first = Running::serve(&["--upstream", &upstream], directory.path()).await;
    let (proxy, admin) = (free().to_string(), free().to_string());
    let arguments = [
        "serve",
        "--upstream",
        &upstream,
        "--listen",
        &proxy,
        "--admin-listen",
        &admin,
    ];
    let output = run(&arguments, directory.path());
    assert_eq!(output.status.code(), Some(1));
    let said = complaints(&output);
    assert!(
        said.len() == 1 && said[0].contains("segment-gateway-state"),
        "{said:?}"
    );
}

#[tokio::test]
async fn sigterm_carries_out_the_writes_that_are_held() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--time-scale", "20", "--latency", "200ms"];
    let mut running = Running::sandbox(&arguments, directory.path()).await;
    let mut writes = JoinSet::new();
    for user in 1..=70 {
        writes.spawn(ask(running.proxy, put(user)));
    }
    eventually("writes are held", async || {
        let (_, metrics) = running.page("/metrics").await.unwrap();
        let line = metrics
            .lines()
            .find(|line| line.starts_with("segment_gateway_queued_requests "));
        line.is_some_and(|line| line.ends_with(" 10"))
    })
    .await;
    running.signal("-TERM");
    let answers = writes.join_all().await;
    let refused = answers.iter().find(|answer| answer.status != 200);
    assert!(refused.is_none(), "{refused:?}");
    let proxy = running.proxy;
    assert_eq!(exit_code(&mut running).await, Some(0));
    assert!(try_ask(proxy, put(1)).await.is_none(), "nobody listens");
}

/// The status with which the program exits; none if a signal ends it, or if it does not end.
async fn exit_code(running: &mut Running) -> Option<i32> {
    for _ in 0..2_000 {
        if let Some(status) = running.child.try_wait().unwrap() {
            return status.code();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}

/// A reader of the log that sleeps stalls no request, and misses nothing that fits into memory.
#[tokio::test]
async fn a_log_that_nobody_reads_stalls_no_request_and_is_whole_at_the_end() {
    // Several times what a pipe holds.
    const REQUESTS: usize = 1_000;
    let directory = tempfile::tempdir().unwrap();
    let (proxy, admin, sandbox) = (free(), free(), free());
    let child = Command::new(BINARY)
        .args(["serve", "--sandbox", "--listen", &proxy.to_string()])
        .args(["--admin-listen", &admin.to_string()])
        .args(["--sandbox-listen", &sandbox.to_string()])
        .current_dir(directory.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running {
        child,
        proxy,
        admin,
    };
    let mut log = running.child.stderr.take().unwrap();
    eventually("it listens", async || {
        running.page("/livez").await.is_some()
    })
    .await;
    for _ in 0..REQUESTS {
        let nameless = Request::get("/users").header("host", proxy.to_string());
        let answer = ask(proxy, nameless.body(Full::default()).unwrap()).await;
        assert_eq!(answer.status, 401);
    }
    running.signal("-TERM");
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).map(|_| text)
    });
    assert_eq!(exit_code(&mut running).await, Some(0));
    let text = reading.join().unwrap().unwrap();
    assert_eq!(text.matches("status=401").count(), REQUESTS);
    assert!(text.ends_with('\n') && !text.contains("log lines dropped"));
}

/// A signal that comes as soon as the program can be asked is handled like any other.
#[tokio::test]
async fn sigterm_at_the_first_moment_is_a_drain_too() {
    for _ in 0..8 {
        let directory = tempfile::tempdir().unwrap();
        let mut running = Running::sandbox(&[], directory.path()).await;
        running.signal("-TERM");
        assert_eq!(exit_code(&mut running).await, Some(0));
    }
}

#[tokio::test]
async fn a_restart_after_sigkill_goes_on_with_the_budget() {
    // Windows of 6 s, in the sandbox by its scale and in the gateway by a route table.
    let directory = tempfile::tempdir().unwrap();
    let routes =
        include_str!("../../config/segment.toml").replace("\"60 per 1m\"", "\"60 per 6s\"");
    std::fs::write(directory.path().join("routes.toml"), routes).unwrap();
    let config = "[routes]\nfile = \"routes.toml\"\n[budget]\nlate_arrival = \"2s\"\n";
    std::fs::write(directory.path().join("gateway.toml"), config).unwrap();
    let sandbox = free();
    let child = Command::new(BINARY)
        .args(["sandbox", "--time-scale", "10", "--latency", "10ms"])
        .args(["--listen", &sandbox.to_string()])
        .current_dir(directory.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _sandbox = Running {
        child,
        proxy: sandbox,
        admin: sandbox,
    };
    let arrivals = async || {
        let ask = Request::get("/_sandbox/requests").header("host", "sandbox");
        try_ask(sandbox, ask.body(Full::default()).unwrap()).await
    };
    eventually("the sandbox listens", async || arrivals().await.is_some()).await;
    let upstream = format!("http://{sandbox}");
    let arguments = ["--config", "gateway.toml", "--upstream", &upstream];
    let mut killed = Running::serve(&arguments, directory.path()).await;
    for users in [1..=1, 2..=60] {
        let mut writes = JoinSet::new();
        for user in users {
            writes.spawn(ask(killed.proxy, put(user)));
        }
        let answers = writes.join_all().await;
        assert!(
            answers.iter().all(|answer| answer.status == 200),
            "{answers:?}"
        );
    }
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    let restarted = Running::serve(&arguments, directory.path()).await;
    let mut writes = JoinSet::new();
    for user in 61..=90 {
        writes.spawn(ask(restarted.proxy, put(user)));
    }
    let answers = writes.join_all().await;
    assert!(
        answers.iter().all(|answer| answer.status == 200),
        "{answers:?}"
    );
    let seen = arrivals().await.unwrap().json();
    let seen = seen["requests"].as_array().unwrap().clone();
    assert_eq!(seen.len(), 90);
    assert!(seen.iter().all(|arrival| arrival["refused"] == false));
}

#[test]
fn the_program_says_which_build_it_is_and_explains_itself_to_shells_and_man() {
    let directory = tempfile::tempdir().unwrap();
    let said = |arguments: &[&str]| {
        let output = run(arguments, directory.path());
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let version = said(&["--version"]);
    let expected = concat!("segment-gateway ", env!("CARGO_PKG_VERSION"), " (commit ");
    assert!(version.starts_with(expected), "{version}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let text = said(&["completions", shell]);
        for word in ["sandbox-listen", "purge", "rebind"] {
            assert!(text.contains(word), "{shell}: {word}");
        }
    }
    let manual = said(&["man"]);
    for heading in [
        ".TH segment-gateway 1",
        ".TH segment-gateway-serve 1",
        ".TH segment-gateway-cache 1",
    ] {
        assert!(manual.contains(heading), "{heading}");
    }
    let unknown = run(&["completions", "tcsh"], directory.path());
    assert_eq!(unknown.status.code(), Some(2));
}

#[tokio::test]
async fn the_level_of_the_log_changes_while_it_runs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let (proxy, admin, sandbox) = (free(), free(), free());
    let child = Command::new(BINARY)
        .args(["serve", "--sandbox", "--listen", &proxy.to_string()])
        .args(["--admin-listen", &admin.to_string()])
        .args(["--sandbox-listen", &sandbox.to_string()])
        .current_dir(directory.path())
        .stderr(std::fs::File::create(&path).unwrap())
        .spawn()
        .unwrap();
    let running = Running {
        child,
        proxy,
        admin,
    };
    eventually("it listens", async || {
        running.page("/livez").await.is_some()
    })
    .await;
    let address = admin.to_string();
    let level = |arguments: &[&str]| {
        let output = run(
            &[&["log", "--admin", &address], arguments].concat(),
            directory.path(),
        );
        let said = String::from_utf8(output.stdout.clone()).unwrap();
        (
            output.status.code(),
            said.trim().to_owned(),
            complaints(&output),
        )
    };
    let lines = || std::fs::read_to_string(&path).unwrap();
    let hit = async || {
        let get = request(Method::GET, "/users/user-00001", "t", "");
        ask(proxy, get).await;
    };
    assert_eq!(level(&[]).1, "info");
    hit().await;
    hit().await;
    assert!(!lines().contains("DEBUG"), "{}", lines());
    assert_eq!(level(&["debug"]).1, "debug");
    hit().await;
    eventually("a hit is told of at debug level", async || {
        lines().contains("DEBUG")
    })
    .await;
    assert_eq!(level(&["error"]).1, "error");
    // Lines are written in order, so those before the second change are there with it.
    let changed = "log level changed by an operator";
    eventually("both changes are logged", async || {
        lines().matches(changed).count() == 2
    })
    .await;
    // Whatever the level, a change of it is visible and no error.
    let log = lines();
    let changes: Vec<&str> = log.lines().filter(|line| line.contains(changed)).collect();
    for (change, (from, to)) in changes.iter().zip([("info", "debug"), ("debug", "error")]) {
        assert!(change.contains(" INFO "), "{change}");
        let fields = format!("from=\"{from}\" to=\"{to}\"");
        assert!(change.contains(&fields), "{change}");
    }
    assert!(!log.contains("ERROR"), "{log}");
    let before = log.len();
    hit().await;
    assert_eq!(level(&[]).1, "error");
    assert_eq!(lines().len(), before, "{}", lines());
    // `arguments.rs` has the words.
    assert_eq!(level(&["loud"]).0, Some(2));
}

/// Runs `check` and `serve` with this configuration and this environment; what both complain about.
fn refused_by_both(text: &str, environment: &[(&str, &str)], directory: &Path) -> [String; 2] {
    std::fs::write(directory.join("tried.toml"), text).unwrap();
    ["check", "serve"].map(|command| {
        let mut program = Command::new(BINARY);
        program.args([command, "--config", "tried.toml"]);
        program.envs(environment.iter().copied());
        let output = program.current_dir(directory).output().unwrap();
        let complaints = complaints(&output).join("\n");
        assert!(
            !output.status.success(),
            "{command} accepts {text} {environment:?}"
        );
        complaints
    })
}

#[test]
fn check_finds_whatever_serve_refuses() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "no directory").unwrap();
    std::fs::write(directory.path().join("short"), "short").unwrap();
    let own = "listen = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    let state = |path: &str| format!("{own}[state]\ndirectory = \"{path}\"\n");
    let key = "SEGMENT_GATEWAY_JOURNAL_KEY";
    // RFC 5737: no address of this machine.
    let elsewhere = "listen = \"192.0.2.1:8080\"\n".to_owned();
    for (text, environment, part) in [
        (elsewhere, &[][..], "192.0.2.1:8080"),
        (
            "[admin]\nlisten = \"192.0.2.1:1\"\npublic = true\n".to_owned(),
            &[],
            "192.0.2.1:1",
        ),
        (state("file"), &[], "file"),
        (state("file/below"), &[], "file/below"),
        (
            format!("{own}[journal]\nkey_file = \"none\"\n"),
            &[],
            "none",
        ),
        (
            format!("{own}[journal]\nkey_file = \"short\"\n"),
            &[],
            "journal.key_file",
        ),
        (own.to_owned(), &[(key, "short")], key),
        (
            own.to_owned(),
            &[("SEGMENT_GATEWAY_LISTEN", "x")],
            "SEGMENT_GATEWAY__LISTEN",
        ),
        (
            own.to_owned(),
            &[("segment_gateway__listen", "x")],
            "SEGMENT_GATEWAY__LISTEN",
        ),
        (
            format!("{own}token = \"secret-secret-secret\"\n"),
            &[],
            "`token_file`",
        ),
    ] {
        for complaint in refused_by_both(&text, environment, directory.path()) {
            assert!(
                complaint.contains(part),
                "{text} {environment:?}: {complaint}"
            );
            assert!(!complaint.contains("`open`"), "{complaint}");
        }
    }
    // What is of this machine can be left out.
    let output = run(
        &["check", "--elsewhere", "--config", "tried.toml"],
        directory.path(),
    );
    assert_eq!(output.status.code(), Some(2));
    std::fs::write(
        directory.path().join("tried.toml"),
        "listen = \"192.0.2.1:8080\"\n",
    )
    .unwrap();
    let output = run(
        &["check", "--elsewhere", "--config", "tried.toml"],
        directory.path(),
    );
    assert_eq!(output.status.code(), Some(0));
    // Looking leaves nothing behind.
    assert!(!directory.path().join("segment-gateway-state").exists());
}

#[tokio::test]
async fn check_looks_into_the_journal_and_leaves_a_running_gateway_alone() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = free().to_string();
    let text = "[state]\ndirectory = \"state\"\n";
    std::fs::write(directory.path().join("own.toml"), text).unwrap();
    let mut running = Running::serve(
        &[
            "--config",
            "own.toml",
            "--sandbox",
            "--sandbox-listen",
            &sandbox,
        ],
        directory.path(),
    )
    .await;
    // Its addresses are in use and its directory is locked: by the gateway that is to be reloaded.
    let text = format!(
        "listen = \"{}\"\n[admin]\nlisten = \"{}\"\n{text}",
        running.proxy, running.admin
    );
    std::fs::write(directory.path().join("running.toml"), &text).unwrap();
    let output = run(&["check", "--config", "running.toml"], directory.path());
    assert_eq!(output.status.code(), Some(0), "{:?}", complaints(&output));
    // An empty journal would take another key.
    let keyed = with(put(1), "idempotency-key", "one");
    assert_eq!(ask(running.proxy, keyed).await.status, 200);
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    let output = run(&["check", "--config", "running.toml"], directory.path());
    assert_eq!(output.status.code(), Some(0), "{:?}", complaints(&output));
    let other = [("SEGMENT_GATEWAY_JOURNAL_KEY", "another key than that one")];
    for complaint in refused_by_both(&text, &other, directory.path()) {
        assert!(complaint.contains("another key"), "{complaint}");
    }
}
