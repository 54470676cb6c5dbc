//! Starts the servers, each in a temporary folder of its own, and stops them in all cases.

use super::Failure;
use super::machine::Cores;
use segment_gateway::clock::Clock;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;
use tempfile::TempDir;

/// Much longer than a server takes to start.
const START_WITHIN: Duration = Duration::from_secs(20);

/// What servers are started with.
#[derive(Clone, Copy)]
pub(crate) struct Servers<'a> {
    pub(crate) cores: &'a Cores,
    /// The program `segment-gateway`.
    pub(crate) gateway: &'a Path,
    pub(crate) upstream: SocketAddr,
}

/// A running server; killed when dropped. Where the system can, it is killed as well if this
/// process comes to an end that drops nothing (see [`Cores::command`]).
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Removed after the server has been killed.
    _folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Servers<'_> {
    /// Starts the gateway with nothing set but where it listens, its upstream, and these settings
    /// in its environment.
    pub(crate) fn gateway(&self, settings: &[(&str, &str)]) -> Result<Server, Failure> {
        self.gateway_with_admin(settings, free_port()?)
    }

    /// Starts the gateway likewise, with its admin listener at this address.
    pub(crate) fn gateway_with_admin(
        &self,
        settings: &[(&str, &str)],
        admin: SocketAddr,
    ) -> Result<Server, Failure> {
        let address = free_port()?;
        let mut command = self.cores.command(self.cores.server, self.gateway);
        command
            .arg("serve")
            .args(["--listen", &address.to_string()])
            .args(["--admin-listen", &admin.to_string()])
            .args(["--upstream", &format!("http://{}", self.upstream)])
            .envs(settings.iter().copied());
        Server::start(command, tempfile::tempdir()?, address)
    }
}

impl Server {
    /// Runs the command in the folder, and returns when it listens. What it writes goes to a file
    /// in the folder, which is a part of the error if it does not start.
    pub(crate) fn start(
        mut command: Command,
        folder: TempDir,
        address: SocketAddr,
    ) -> Result<Self, Failure> {
        let log = folder.path().join("log");
        let file = File::create(&log)?;
        command
            .current_dir(folder.path())
            .stdout(file.try_clone()?)
            .stderr(file);
        let mut server = Self {
            child: command.spawn()?,
            address,
            _folder: folder,
        };
        server.wait_until_it_listens().map_err(|error| {
            let written = std::fs::read_to_string(&log).unwrap_or_default();
            format!("{command:?}: {error}\n{written}")
        })?;
        Ok(server)
    }

    /// The id of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tries to connect over and over: the server has a core of its own, and nothing else is to
    /// be done here meanwhile.
    fn wait_until_it_listens(&mut self) -> Result<(), Failure> {
        let clock = Clock::system();
        let end = clock.now() + START_WITHIN;
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("it ended at once: {status}").into());
            }
            if clock.now() > end {
                return Err("it does not listen".into());
            }
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// Returns a port that nobody listens on at this moment.
pub(crate) fn free_port() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}
