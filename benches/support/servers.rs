//! Starts the servers on their core, and stops them in all cases.

use crate::Failure;
use crate::machine::Cores;
use segment_gateway::clock::Clock;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

/// Much longer than a server takes to start.
const START_WITHIN: Duration = Duration::from_secs(20);

/// What servers are started with.
pub(crate) struct Servers<'a> {
    pub(crate) cores: &'a Cores,
    /// For what they keep and write.
    pub(crate) folder: &'a Path,
    pub(crate) gateway: &'a Path,
    pub(crate) upstream: SocketAddr,
}

/// A running server; killed when dropped. Where the system can, it is killed as well if this
/// process comes to an end that drops nothing (see [`Cores::command`]).
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Servers<'_> {
    /// The program itself, with nothing set but where it listens, whom it asks, and this in its
    /// environment.
    pub(crate) fn gateway(&self, name: &str, settings: &[(&str, &str)]) -> Result<Server, Failure> {
        let (address, admin) = (free_port()?, free_port()?);
        // Two that run at once do not share a directory of state. The log is a new file each time:
        // with every hit in it, it grows by some megabytes a second.
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder)?;
        let log = folder.join("log");
        let mut command = self.cores.command(self.gateway);
        command
            .arg("serve")
            .args(["--listen", &address.to_string()])
            .args(["--admin-listen", &admin.to_string()])
            .args(["--upstream", &format!("http://{}", self.upstream)])
            .envs(settings.iter().copied())
            .current_dir(&folder)
            .stderr(File::create(&log)?);
        let child = command.spawn()?;
        let mut server = Server { child, address };
        server.wait_until_it_listens().map_err(|error| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            format!("the gateway: {error}\n{said}")
        })?;
        Ok(server)
    }
}

impl Server {
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

/// A port that nobody listens on at this moment.
fn free_port() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}
