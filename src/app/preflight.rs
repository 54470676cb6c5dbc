//! Checks of a configuration that only this machine can make, without starting: addresses that
//! nothing can listen on, a state directory that cannot be used, a journal that does not open.
//!
//! They leave everything as it is and may run while a gateway uses the same configuration: an
//! address in use and a locked directory are then its own, and the content of the directory is left
//! alone. Whether an address stays free cannot be known, so one that another program uses is only
//! a note. If none runs, the locks of the directory and of its journal are held while the journal
//! is read: a gateway that starts at that moment finds the directory in use.

use super::keeping;
use crate::config::{Config, Loaded, Unusable, ValueSource};
use crate::state::{self, StateDirectory};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::TcpSocket;

/// Returns the values with which a start on this machine, as this user, would fail.
pub fn preflight(config: &Config) -> Vec<Unusable> {
    let mut found = Vec::new();
    for (key, address) in listeners(config) {
        // The running gateway may use it.
        let error = bind(address).err();
        let error = error.filter(|error| error.kind() != io::ErrorKind::AddrInUse);
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

/// The free room on the disk of the state directory below which it is worth a note, in bytes.
const SCARCE: u64 = 64 * 1024 * 1024;

/// Returns what would trouble a gateway that starts here now, although the configuration is sound;
/// one sentence each.
pub fn machine_notes(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    let directory = config.state.directory.as_deref();
    if let Some(directory) = directory {
        let shown = directory.display();
        let owner = StateDirectory::foreign_user(directory);
        notes.extend(owner.map(|user| {
            format!("state.directory: {shown} belongs to user {user}; only that user can serve it")
        }));
        let free = StateDirectory::free_bytes(directory).filter(|free| *free < SCARCE);
        notes.extend(free.map(|free| {
            format!(
                "state.directory: only {} MiB are free on the disk of {shown}; without room the \
                 gateway keeps no ledger and rejects durable writes",
                free / (1024 * 1024)
            )
        }));
        // A running gateway has the addresses of its own.
        if StateDirectory::is_in_use(directory) {
            return notes;
        }
    }
    for (key, address) in listeners(config) {
        let taken = bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
        if taken {
            notes.push(format!(
                "{key}: {address} is in use by another program, or by a gateway with another state \
                 directory; serve cannot start beside it"
            ));
        }
    }
    notes
}

/// Returns the addresses to listen on, with their keys.
fn listeners(config: &Config) -> [(&'static str, SocketAddr); 2] {
    [
        ("listen", config.listen),
        ("admin.listen", config.admin.listen),
    ]
}

/// Names the secrets that others on this machine can read; one sentence each.
pub fn open_secrets(loaded: &Loaded) -> Vec<String> {
    let config = &loaded.config;
    let configured = [
        ("credentials.key_file", &config.credentials.key_file),
        ("journal.key_file", &config.journal.key_file),
        ("admin.token_file", &config.admin.token_file),
        ("audit.key_file", &config.audit.key_file),
        ("tls.key_file", &config.tls.key_file),
        ("admin.tls.key_file", &config.admin.tls.key_file),
    ];
    let configured = configured
        .into_iter()
        .filter_map(|(key, file)| Some((key.to_owned(), file.clone()?)));
    let held = loaded.clients.tokens.iter();
    let held = held.map(|token| (format!("tokens.{}.file", token.name), token.path.clone()));
    let directory = config.state.directory.as_deref();
    let own = directory
        .map(StateDirectory::key_files)
        .into_iter()
        .flatten();
    let own = own.map(|file| ("state.directory".to_owned(), file));
    let open = configured
        .chain(held)
        .chain(own)
        .filter(|(_, file)| state::is_readable_by_all(file));
    open.map(|(key, file)| {
        let file = file.display();
        format!("{key}: every user can read {file}; take that away: chmod o-r {file}")
    })
    .collect()
}

/// Binds the address without listening on it.
fn bind(address: SocketAddr) -> io::Result<()> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // As a listener does it: connections that have ended do not count.
    socket.set_reuseaddr(true)?;
    socket.bind(address)
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
    async fn an_address_in_use_is_a_note_and_one_of_another_machine_is_a_problem() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("state");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config {
            listen: taken.local_addr().unwrap(),
            ..Config::default()
        };
        config.admin.listen = "127.0.0.1:0".parse().unwrap();
        config.state.directory = Some(directory.clone());
        let notes = |config: &Config| {
            let notes = machine_notes(config).join("\n");
            notes.matches("is in use").count()
        };
        assert!(preflight(&config).is_empty());
        assert_eq!(notes(&config), 1);
        // The gateway that runs uses its own address.
        let owner = StateDirectory::open(&directory).unwrap();
        assert_eq!(notes(&config), 0);
        drop(owner);
        assert_eq!(notes(&config), 1);
        drop(taken);
        assert_eq!(notes(&config), 0);
        // RFC 5737, section 3: for documentation.
        config.listen = "192.0.2.1:8080".parse().unwrap();
        assert_eq!(preflight(&config).len(), 1);
    }
}
