//! The admin listener and the admin socket in the state directory: access, start and end.

use super::assembly::server_bounds;
use super::listen::until;
use super::start_error::{AppError, failed};
use crate::admin::{Access, Admin, AdminPeer, Token};
use crate::config::{self, Config, admin_token_environment};
use crate::metrics::Connections;
use crate::private_file;
use crate::server::tls::SecureListener;
use crate::server::{self, ServerBounds};
use crate::state::StateDirectory;
use crate::tasks;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Connections of operators at once, and those of one peer: a peer that opens many must not keep
/// probes out.
const ADMIN_CONNECTIONS: usize = 512;
const ADMIN_CONNECTIONS_OF_PEER: usize = 64;

/// Returns the admin token of the file or the environment, if there is one. `cli/unusable.rs`
/// rejects a configuration with both.
///
/// # Errors
/// With the finding, if the token cannot be used.
pub fn admin_token(config: &Config) -> Result<Option<Token>, String> {
    /// The longest file that may be a token, in bytes.
    const MOST: u64 = 4 * 1024;
    let token = |secret: &[u8], whole: &str| {
        let token = Token::new(secret).map(Some);
        token.ok_or_else(|| match secret.trim_ascii().is_empty() {
            true => format!("an empty {whole}"),
            false => format!("a {whole} that is no token"),
        })
    };
    if let Some(path) = &config.admin.token_file {
        let mut secret = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MOST).read_to_end(&mut secret))
            .map_err(|error| {
                format!(
                    "no readable file at {} ({error})",
                    private_file::shown(path)
                )
            })?;
        return token(&secret, "file");
    }
    let secret = admin_token_environment();
    secret.map_or(Ok(None), |secret| token(secret.as_encoded_bytes(), "value"))
}

/// Returns who may do what on the admin listener.
pub(super) fn access(config: &Config) -> Result<Access, AppError> {
    Ok(Access {
        loopback: config::is_loopback(config.admin.listen),
        public: config.admin.public,
        open: config.admin.open,
        token: admin_token(config).map_err(AppError)?,
        hosts: config.admin.hosts.clone(),
    })
}

/// The tasks that serve operators.
#[derive(Debug)]
pub(super) struct Operators {
    serving: Vec<JoinHandle<()>>,
    socket: Option<PathBuf>,
}

impl Operators {
    /// Serves operators on the listener, and on a socket if there is a state directory. A socket
    /// that cannot be opened is reported and left out.
    pub(super) fn start(
        admin: Admin,
        config: &Config,
        listener: TcpListener,
        tls: Option<SecureListener>,
        state: Option<&StateDirectory>,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, AppError> {
        let bounds = ServerBounds {
            connections: ADMIN_CONNECTIONS,
            per_peer: ADMIN_CONNECTIONS_OF_PEER,
            ..server_bounds(config)
        };
        let unseen = Connections::unseen().map_err(failed)?;
        // Before the listener: once that one answers, the socket does as well.
        let (mut serving, mut socket) = (Vec::new(), None);
        #[cfg(unix)]
        if let Some(path) = state.map(StateDirectory::socket) {
            match server::local::listen(&path) {
                Ok(listener) => {
                    let admin = admin.clone();
                    serving.push(tasks::detached(server::local::serve(
                        listener,
                        move || admin.connected(AdminPeer::Socket),
                        bounds.each,
                        until(stop.clone()),
                    )));
                    socket = Some(path);
                }
                Err(error) => tracing::warn!(
                    socket = %path.display(),
                    %error,
                    "cannot open the admin socket: `segment-gateway writes`, `cache` and `log` \
                     need --admin with the address of the admin listener"
                ),
            }
        }
        #[cfg(not(unix))]
        let _ = state;
        serving.push(tasks::detached(admin.clone().keep_history()));
        serving.push(tasks::detached(server::serve(
            listener,
            tls,
            move |peer, _| admin.connected(peer.into()),
            bounds,
            unseen,
            until(stop),
        )));
        Ok(Self { serving, socket })
    }

    /// Reports in the log who may do what.
    pub(super) fn report(&self, access: &Access, config: &Config) {
        let named: Vec<String> = config.trusted().iter().map(ToString::to_string).collect();
        tracing::info!(
            admin_listener = access.summary(),
            admin_socket = self
                .socket
                .as_ref()
                .map(|path| tracing::field::display(path.display())),
            x_gateway_caller_from = if named.is_empty() {
                "nobody".to_owned()
            } else {
                named.join(", ")
            },
            "admin access: the user of the gateway may do everything through the socket"
        );
    }

    /// Aborts what is still served and removes the socket.
    pub(super) fn end(self) {
        for task in &self.serving {
            task.abort();
        }
        if let Some(path) = &self.socket {
            let _ = std::fs::remove_file(path);
        }
    }
}
