//! Checks of a configuration that only this machine can make, without starting: addresses that
//! nothing can listen on, a state directory that cannot be used, a journal that does not open.
//!
//! They change nothing and may run while a gateway uses the same configuration: an address in use
//! and a locked directory are then its own, and the content of the directory is left alone. If none
//! runs, the locks of the directory and of its journal are held while the journal
//! is read: a gateway that starts at that moment finds the directory in use.

use super::keeping;
use crate::config::{Config, Unusable, ValueSource};
use crate::state::{self, StateDirectory};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::TcpSocket;

/// Returns the values with which a start on this machine, as this user, would fail.
pub fn preflight(config: &Config) -> Vec<Unusable> {
    let mut found = Vec::new();
    for (key, address) in [
        ("listen", config.listen),
        ("admin.listen", config.admin.listen),
    ] {
        let error = bind(address).err();
        found.extend(error.map(|error| Unusable {
            source: ValueSource::Key(key),
            found: format!("{address} ({error})"),
            expected: "an address of this machine that this user may listen on".to_owned(),
        }));
    }
    if let Some(directory) = &config.state.directory {
        let why = directory_problem(config, directory);
        found.extend(why.map(|why| {
            Unusable {
                source: ValueSource::Key("state.directory"),
                found: why,
                expected:
                    "a directory that this user may write, with a journal that opens with the \
                       key that is configured, or \"\" to keep no state"
                        .to_owned(),
            }
        }));
    }
    found
}

/// Names the secrets that others on this machine can read; one sentence each.
pub fn open_secrets(config: &Config) -> Vec<String> {
    let configured = [
        ("credentials.key_file", &config.credentials.key_file),
        ("journal.key_file", &config.journal.key_file),
        ("admin.token_file", &config.admin.token_file),
        ("tls.key_file", &config.tls.key_file),
        ("admin.tls.key_file", &config.admin.tls.key_file),
    ];
    let configured = configured
        .into_iter()
        .filter_map(|(key, file)| Some((key, file.clone()?)));
    let directory = config.state.directory.as_deref();
    let own = directory
        .map(StateDirectory::key_files)
        .into_iter()
        .flatten();
    let own = own.map(|file| ("state.directory", file));
    let open = configured
        .chain(own)
        .filter(|(_, file)| state::is_readable_by_all(file));
    open.map(|(key, file)| {
        let file = file.display();
        format!("{key}: every user can read {file}; take that away: chmod o-r {file}")
    })
    .collect()
}

/// Binds the address without listening on it. An address in use is no error: the running gateway
/// may use it.
fn bind(address: SocketAddr) -> io::Result<()> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    match socket.bind(address) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => Err(error),
        _ => Ok(()),
    }
}

fn directory_problem(config: &Config, directory: &Path) -> Option<String> {
    let shown = directory.display();
    let error = match StateDirectory::inspect(directory) {
        Err(error) => error,
        // Another process has it, or there is none yet: starting makes it.
        Ok(None) => return None,
        Ok(Some(state)) => return keeping::inspect(config, &state).err().map(|error| error.0),
    };
    let error = error.to_string();
    let name = format!("state.directory {shown}: ");
    let why = error.strip_prefix(&name).unwrap_or(&error);
    Some(format!("{shown} ({why})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_in_use_is_no_problem_and_one_of_another_machine_is() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        bind(taken.local_addr().unwrap()).unwrap();
        // RFC 5737, section 3: for documentation.
        assert!(bind("192.0.2.1:8080".parse().unwrap()).is_err());
    }
}
