//! The program with the sandbox, at addresses that outlive it: for tests that start it again, or that
//! let another program look at it.

use super::exposition::samples;
use super::wire::{eventually, free, try_ask};
use http::Request;
use http_body_util::Full;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// A process that is killed at the end of the test.
pub struct Process(Child);

impl Process {
    /// Starts it; none if there is no such program.
    pub fn start(command: &mut Command) -> Option<Self> {
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().ok().map(Self)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the program listens.
pub struct Place {
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    pub sandbox: SocketAddr,
    directory: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self {
            proxy: free(),
            admin: free(),
            sandbox: free(),
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    /// Starts the program with these arguments more, and waits until it listens.
    pub async fn start(&self, arguments: &[&str]) -> Process {
        let process = Process::start(
            Command::new(env!("CARGO_BIN_EXE_segment-gateway"))
                .args(["serve", "--sandbox", "--listen", &self.proxy.to_string()])
                .args(["--admin-listen", &self.admin.to_string()])
                .args(["--sandbox-listen", &self.sandbox.to_string()])
                .args(arguments)
                .current_dir(self.directory.path()),
        );
        eventually("listening", async || self.page("/livez").await.is_some()).await;
        process.expect("the program")
    }

    /// What it shows operators, if it answers.
    pub async fn page(&self, path: &str) -> Option<String> {
        let ask = Request::get(path).header("host", self.admin.to_string());
        let ask = ask.body(Full::default()).expect("a request");
        let answer = try_ask(self.admin, ask).await?;
        Some(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// What `/metrics` counts under a name, in all.
    pub async fn counted(&self, metric: &str) -> f64 {
        let text = self.page("/metrics").await.expect("metrics");
        let samples = samples(&text).into_iter();
        let of = samples.filter(|(name, ..)| name == metric);
        of.map(|(_, _, value)| value).sum()
    }
}
