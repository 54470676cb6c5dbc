//! The program in a directory of its own, with its log kept.

use super::Answer;
use super::exposition::samples;
use super::wire::{NEVER, eventually, free, try_ask};
use http::Request;
use http_body_util::Full;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A running gateway that is killed at the end.
pub struct Program {
    child: Child,
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    directory: tempfile::TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    /// Starts `serve` with this configuration, these arguments and this environment, and waits until
    /// it listens.
    pub async fn start(
        configuration: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self::start_in(directory, configuration, arguments, environment).await
    }

    pub async fn start_in(
        directory: tempfile::TempDir,
        configuration: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let (proxy, mut admin) = (free(), free());
        let mut listener = vec!["--admin-listen".to_owned(), admin.to_string()];
        let mut given = arguments
            .iter()
            .skip_while(|given| **given != "--admin-listen");
        if let Some(listen) = given.nth(1) {
            let listen: SocketAddr = listen.parse().expect("an address");
            admin.set_port(listen.port());
            listener.clear();
        }
        fs::write(directory.path().join("gateway.toml"), configuration).expect("a file");
        let log = File::create(directory.path().join("log")).expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_segment-gateway"))
            .args(["serve", "--config", "gateway.toml"])
            .args(["--listen", &proxy.to_string()])
            .args(listener)
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(directory.path())
            .stderr(Stdio::from(log))
            .spawn()
            .expect("the program");
        let program = Self {
            child,
            proxy,
            admin,
            directory,
        };
        eventually("it listens", async || {
            program.page("/livez", "").await.is_some()
        })
        .await;
        program
    }

    /// The same, with an inner sandbox.
    pub async fn sandbox(
        configuration: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let sandbox = free().to_string();
        let own = ["--sandbox", "--sandbox-listen", &sandbox];
        Self::start(configuration, &[&own, arguments].concat(), environment).await
    }

    /// The same, with a file in its directory.
    pub async fn with_file(configuration: &str, file: (&str, &str)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (name, text) = file;
        fs::write(directory.path().join(name), text).expect("a file");
        Self::sandbox_in(directory, configuration).await
    }

    /// The same, in a directory with whatever it needs.
    pub async fn sandbox_in(directory: tempfile::TempDir, configuration: &str) -> Self {
        let sandbox = free().to_string();
        let own = ["--sandbox", "--sandbox-listen", &sandbox];
        Self::start_in(directory, configuration, &own, &[]).await
    }

    /// A file of its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What it has written of its log so far. All of it once the program has ended.
    pub fn log(&self) -> String {
        fs::read_to_string(self.file("log")).expect("a log")
    }

    /// The log as soon as each of these is in it. A line is written a moment after it is logged.
    /// Lines are in order: whatever was logged before the last of these is there too.
    pub async fn logs(&self, parts: &[&str]) -> String {
        eventually(&format!("the log has {parts:?}"), async || {
            let log = self.log();
            parts.iter().all(|part| log.contains(part))
        })
        .await;
        self.log()
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &id]).status();
        assert!(sent.expect("kill").success());
    }

    /// Whether it ended well, once it has ended.
    pub async fn ended(&mut self) -> bool {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().expect("a child") {
                    return status.success();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(NEVER, ended).await.expect("it ends")
    }

    /// What it answers operators.
    pub async fn page(&self, path: &str, authorization: &str) -> Option<Answer> {
        let mut ask = Request::get(path).header("host", self.admin.to_string());
        if !authorization.is_empty() {
            ask = ask.header("authorization", authorization);
        }
        try_ask(self.admin, ask.body(Full::default()).expect("a request")).await
    }

    /// The sum of a metric, over the series that have this value of a label if one is named.
    pub async fn value(&self, metric: &str, label: Option<&str>) -> f64 {
        let metrics = self.page("/metrics", "").await.expect("metrics");
        let of = samples(&metrics.text())
            .into_iter()
            .filter(|(name, labels, _)| {
                let is_one = |label: &str| labels.iter().any(|(_, value)| value == label);
                name == metric && label.is_none_or(is_one)
            });
        of.map(|(_, _, value)| value).sum()
    }
}
