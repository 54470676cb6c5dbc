//! SIGHUP and SIGTERM: a new configuration in a running gateway, and the log of a drain.

use super::support::exposition::samples;
use super::support::wire::{NEVER, ask, eventually, free, try_ask};
use super::support::{Answer, request};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tokio::task::JoinSet;

const RELOADS: &str = "segment_gateway_config_reloads_total";
const GOOD: &str = "segment_gateway_config_last_reload_successful";
const WAITING: &str = "segment_gateway_config_restart_pending";

/// A gateway with a sandbox and a configuration that the test writes.
struct Running {
    child: Child,
    proxy: SocketAddr,
    admin: SocketAddr,
    directory: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    async fn start(configuration: &str) -> Self {
        Self::with(configuration, &[]).await
    }

    async fn with(configuration: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (proxy, admin, sandbox) = (free(), free(), free());
        fs::write(directory.path().join("gateway.toml"), configuration).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_segment-gateway"))
            .args(["serve", "--sandbox", "--config", "gateway.toml"])
            .args(["--listen", &proxy.to_string()])
            .args(["--admin-listen", &admin.to_string()])
            .args(["--sandbox-listen", &sandbox.to_string()])
            .args(arguments)
            .current_dir(directory.path())
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let running = Self {
            child,
            proxy,
            admin,
            directory,
        };
        eventually("it listens", async || {
            running.page("/readyz").await.is_some()
        })
        .await;
        running
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap()
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &id]).status().unwrap();
        assert!(sent.success());
    }

    async fn page(&self, path: &str) -> Option<String> {
        let ask = Request::get(path).header("host", "localhost");
        let answer = try_ask(self.admin, ask.body(Full::default()).unwrap()).await?;
        Some(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// The value of a metric, of the one series with this label if one is named.
    async fn value(&self, metric: &str, label: Option<&str>) -> f64 {
        let text = self.page("/metrics").await.unwrap();
        let of = samples(&text).into_iter().filter(|(name, labels, _)| {
            let is_one = |label: &str| labels.iter().any(|(_, value)| value == label);
            name == metric && label.is_none_or(is_one)
        });
        of.map(|(_, _, value)| value).sum()
    }

    /// Writes the configuration, asks for it to be read, and waits until that has been done.
    async fn reload(&self, configuration: &str) {
        let before = self.value(RELOADS, None).await;
        fs::write(self.file("gateway.toml"), configuration).unwrap();
        self.signal("-HUP");
        eventually("it has been read", async || {
            self.value(RELOADS, None).await > before
        })
        .await;
    }

    async fn create(&self, length: usize) -> Answer {
        let body = format!(r#"{{"permissions":[],"filler":"{}"}}"#, "x".repeat(length));
        self.send(request(
            Method::PUT,
            "/users/user-00001/permissions",
            "t",
            &body,
        ))
        .await
    }

    async fn send(&self, ask_for: Request<Full<Bytes>>) -> Answer {
        ask(self.proxy, ask_for).await
    }
}

#[tokio::test]
async fn a_new_configuration_holds_and_a_bad_one_changes_nothing() {
    let small = "[server]\nbody_bytes = '1 KiB'\n[log]\nlevel = 'info'\n";
    let running = Running::start(small).await;
    assert_eq!(running.value(GOOD, None).await, 1.0);
    assert_eq!(running.create(2_000).await.status, 413);
    let large = "[server]\nbody_bytes = '8 KiB'\nconnections = 99\n[log]\nlevel = 'info'\n";
    running.reload(large).await;
    assert_ne!(running.create(2_000).await.status, 413);
    assert_eq!(running.value(RELOADS, Some("applied")).await, 1.0);
    assert_eq!(
        running.value(WAITING, None).await,
        1.0,
        "server.connections"
    );
    let log = running.log();
    for part in [
        "changed=\"server.body_bytes\"",
        "keys=\"server.connections\"",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    for bad in [
        "[server]\nbody_bytes = '4 KiB'\nconections = 5\n",
        "[server]\nbody_bytes = '4 KiB'\n[wait]\ncap = '1s'\n",
        "[server]\nbody_bytes = '4 KiB'\n[routes]\nfile = 'absent.toml'\n",
        "[server]\nbody_bytes = '4 KiB'\n[admin]\ntoken_file = 'absent'\n",
        "no toml",
    ] {
        let before = running.value(RELOADS, Some("failed")).await;
        running.reload(bad).await;
        assert_eq!(running.value(RELOADS, Some("failed")).await, before + 1.0);
        assert_eq!(running.value(GOOD, None).await, 0.0, "{bad}");
        assert_ne!(running.create(5_000).await.status, 413, "{bad}");
    }
    let log = running.log();
    for part in [
        "gateway.toml:3: server.conections",
        "nothing has changed",
        "absent.toml",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    // Mended again, and what waited for a restart is as it runs.
    running.reload(small).await;
    assert_eq!(running.value(GOOD, None).await, 1.0);
    assert_eq!(running.value(WAITING, None).await, 0.0);
    assert_eq!(running.create(2_000).await.status, 413);
}

#[tokio::test]
async fn budgets_and_those_who_wait_outlast_a_new_route_table() {
    let running = Running::start("").await;
    let table = Command::new(env!("CARGO_BIN_EXE_segment-gateway"))
        .args(["routes", "--toml"])
        .output()
        .unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    let budget = "replacePermissionsForUser";
    let put = |user: usize| {
        let target = format!("/users/user-{user:05}/permissions");
        request(Method::PUT, &target, "t", r#"{"permissions":[]}"#)
    };
    let limit = async || {
        running
            .value("segment_gateway_budget_limit", Some(budget))
            .await
    };
    let used = async || {
        running
            .value("segment_gateway_budget_used", Some(budget))
            .await
    };
    // All of the budget is used, and one more waits.
    let mut sent = JoinSet::new();
    for user in 1..=61 {
        sent.spawn(try_ask(running.proxy, put(user)));
    }
    let waiting = async || {
        running
            .value("segment_gateway_queue_length", Some(budget))
            .await
    };
    eventually("one waits", async || {
        used().await == 60.0 && waiting().await == 1.0
    })
    .await;
    for _ in 0..60 {
        let answer = sent.join_next().await.unwrap().unwrap();
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!(limit().await, 60.0);
    // More room: it leaves at once (the API, which knows better, refuses it), and nothing is
    // forgotten.
    let head = format!("[operations.{budget}]");
    let at = table.find(&head).unwrap();
    let with = |limit: u32| {
        let rate = table[at..].find("limit = \"60 per 1m\"").unwrap() + at;
        let mut table = table.clone();
        let new = format!("limit = \"{limit} per 1m\"");
        table.replace_range(rate..rate + "limit = \"60 per 1m\"".len(), &new);
        table
    };
    fs::write(running.file("routes.toml"), with(70)).unwrap();
    running.reload("[routes]\nfile = 'routes.toml'\n").await;
    eventually("it has left", async || used().await == 61.0).await;
    // Less: what was sent still counts.
    fs::write(running.file("routes.toml"), with(20)).unwrap();
    running.reload("[routes]\nfile = 'routes.toml'\n").await;
    assert_eq!((limit().await, used().await), (20.0, 61.0));
    // Another list of operations waits for a restart.
    let renamed = table.replace(&head, "[operations.renamed]");
    fs::write(running.file("routes.toml"), renamed).unwrap();
    running.reload("[routes]\nfile = 'routes.toml'\n").await;
    assert_eq!(running.value(WAITING, None).await, 1.0);
    assert!(running.log().contains("operations were added, removed"));
    assert_eq!((limit().await, used().await), (20.0, 61.0));
}

#[tokio::test]
async fn a_drain_tells_how_far_it_has_come() {
    let mut running = Running::with("[shutdown]\ndrain = '1s'\n", &["--latency", "7s"]).await;
    running.reload("[shutdown]\ndrain = '20s'\n").await;
    let read = request(Method::GET, "/users/user-00001", "t", "");
    let read = tokio::spawn(try_ask(running.proxy, read));
    let under_way = "segment_gateway_tasks";
    eventually("it is under way", async || {
        running.value(under_way, None).await > 0.0
    })
    .await;
    running.signal("-TERM");
    assert_eq!(read.await.unwrap().unwrap().status, 200);
    let ended = async {
        while running.child.try_wait().unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(NEVER, ended).await.unwrap();
    let log = running.log();
    for part in [
        "within_s=20",
        "requests are still under way connections=1 tasks=",
        "waiting=0 left_s=15.0",
        "every request under way has ended",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
}
