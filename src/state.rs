//! The state directory: its lock, the key of credential hashes, and where the ledger is.
//!
//! One process owns it at a time: two that dispatch from one token would exceed its budgets. The
//! lock is the operating system's, so it ends with the process however that ends.

use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The shortest key file that is accepted, in bytes.
const SHORTEST_KEY: usize = 16;

/// The key of credential hashes, in the state directory.
const KEY: &str = "credential-hash.key";

/// The socket of operators, in the state directory.
pub const SOCKET: &str = "admin.sock";

/// Why the state directory or the key cannot be used; `Display` says what to do.
#[derive(Debug)]
pub enum StateError {
    /// The directory cannot be made or written.
    Directory(PathBuf, io::Error),
    /// It or a file in it is another user's to change: why, and what to do.
    Unsafe(PathBuf, String),
    /// Another process owns it.
    Locked(PathBuf),
    /// The key file cannot be read.
    KeyUnreadable(PathBuf, io::Error),
    /// The key file is too short to be a key.
    KeyShort(PathBuf),
    /// The system gives no randomness.
    Random,
}

impl std::fmt::Display for StateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path, error) => write!(
                f,
                "state.directory {}: {error}; name a directory that this user may write, or \"\" \
                 to keep no state",
                path.display()
            ),
            Self::Unsafe(path, why) => {
                write!(f, "state.directory {}: {why}", path.display())
            }
            Self::Locked(path) => write!(
                f,
                "state.directory {}: another segment-gateway uses it; stop that one first, or \
                 give this one a directory and tokens of its own",
                path.display()
            ),
            Self::KeyUnreadable(path, error) => {
                write!(f, "credentials.key_file {}: {error}", path.display())
            }
            Self::KeyShort(path) => write!(
                f,
                "credentials.key_file {}: shorter than {SHORTEST_KEY} bytes; fill it with e.g. \
                 `head -c 32 /dev/urandom`",
                path.display()
            ),
            Self::Random => write!(f, "the system gives no random bytes"),
        }
    }
}

impl std::error::Error for StateError {}

/// An owned state directory.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    was_used: bool,
    /// Held open: the lock is on it.
    _lock: File,
}

impl State {
    /// Takes the directory, creating it with mode 0700 if need be.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let failed = |error| StateError::Directory(directory.to_owned(), error);
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(directory).map_err(failed)?;
        ours(directory)?;
        let path = directory.join("lock");
        let was_used = path.exists();
        let lock = private(&path, false).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                directory: directory.to_owned(),
                was_used,
                _lock: lock,
            }),
            Err(std::fs::TryLockError::WouldBlock) => Err(StateError::Locked(directory.to_owned())),
            Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Looks at the directory without changing anything: `None` if it is to be made yet, or another
    /// process owns it.
    ///
    /// # Errors
    /// As [`State::open`] would.
    pub fn inspect(directory: &Path) -> Result<Option<Self>, StateError> {
        let failed = |error| StateError::Directory(directory.to_owned(), error);
        let exists = directory.exists();
        // Of one that is to be made, its nearest parent that is there.
        let mut above = directory.ancestors().skip(usize::from(!exists));
        let is_there = |path: &&Path| path.as_os_str().is_empty() || path.exists();
        let nearest = above
            .find(is_there)
            .filter(|path| !path.as_os_str().is_empty());
        let nearest = nearest.unwrap_or(Path::new("."));
        if !nearest.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        may_write(nearest).map_err(failed)?;
        if exists {
            ours(directory)?;
        }
        if !directory.join("lock").exists() {
            return Ok(None);
        }
        match Self::open(directory) {
            Err(StateError::Locked(_)) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Whether a process has owned it before this one.
    pub fn was_used(&self) -> bool {
        self.was_used
    }

    /// Whether its files can be what they are to be, without changing anything: the ledger and, if it is
    /// in use, the key of credential hashes.
    ///
    /// # Errors
    /// With the first that is no file, or a key that cannot be read.
    pub fn check_files(&self, uses_key: bool) -> Result<(), StateError> {
        let key = self.directory.join(KEY);
        for path in [self.ledger()].iter().chain(uses_key.then_some(&key)) {
            let failed = |error| StateError::Directory(path.clone(), error);
            match std::fs::metadata(path) {
                Ok(there) if !there.is_file() => {
                    return Err(failed(io::Error::other("it is not a file")));
                }
                Ok(_) if *path == key => drop(File::open(path).map_err(failed)?),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Where the ledger is.
    pub fn ledger(&self) -> PathBuf {
        self.directory.join("ledger")
    }

    /// Removes the ledger: nothing is known of what was sent.
    pub fn forget_ledger(&self) -> Result<(), StateError> {
        match std::fs::remove_file(self.ledger()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Directory(self.directory.clone(), error))
            }
            _ => Ok(()),
        }
    }

    /// Where operators of this user connect.
    pub fn socket(&self) -> PathBuf {
        self.directory.join(SOCKET)
    }

    /// Where the journal is.
    pub fn journal(&self) -> PathBuf {
        self.directory.join("journal.db")
    }

    /// The key kept in the directory; made at the first start, with mode 0600.
    pub fn key(&self) -> Result<[u8; 32], StateError> {
        let path = self.directory.join(KEY);
        let failed = |error| StateError::Directory(path.clone(), error);
        match std::fs::read(&path) {
            Ok(bytes) if bytes.len() == 32 => {
                let mut key = [0; 32];
                key.copy_from_slice(&bytes);
                Ok(key)
            }
            // A kill while it was first written leaves a part of it, which nothing used yet.
            Ok(_) => self.make_key(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_key(&path),
            Err(error) => Err(failed(error)),
        }
    }

    fn make_key(&self, path: &Path) -> Result<[u8; 32], StateError> {
        let key = random_key()?;
        let failed = |error| StateError::Directory(path.to_owned(), error);
        let mut file = private(path, true).map_err(failed)?;
        file.write_all(&key)
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        Ok(key)
    }
}

/// Whether nobody else can change the directory, and none of its files leads elsewhere. From then on
/// nobody but this user can put a link there.
fn ours(directory: &Path) -> Result<(), StateError> {
    let failed = |error| StateError::Directory(directory.to_owned(), error);
    let unsafe_ = |why: String| Err(StateError::Unsafe(directory.to_owned(), why));
    let there = std::fs::metadata(directory).map_err(failed)?;
    let user = rustix::process::geteuid().as_raw();
    if there.uid() != user {
        return unsafe_(format!(
            "it belongs to user {}, and this is user {user}; make it this user's, or name a \
             directory below it that is to be made",
            there.uid()
        ));
    }
    if there.mode() & 0o022 != 0 {
        return unsafe_(
            "others may write to it; take that away, e.g. `chmod go-w`, or name a directory below it \
             that is to be made"
                .into(),
        );
    }
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_symlink() {
            let name = entry.file_name();
            return unsafe_(format!(
                "{} in it is a symbolic link, which would be followed; remove it",
                name.display()
            ));
        }
    }
    Ok(())
}

/// Whether everybody on this machine can read a secret.
pub fn is_readable_by_all(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|there| there.mode() & 0o004 != 0)
}

/// The key in an operator's key file: all of its bytes count.
pub fn key_file(path: &Path) -> Result<[u8; 32], StateError> {
    /// A key is no longer than this; what is, is not a key file.
    const LONGEST_KEY: u64 = 64 * 1024;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST_KEY).read_to_end(&mut bytes))
        .map_err(|error| StateError::KeyUnreadable(path.to_owned(), error))?;
    if bytes.len() < SHORTEST_KEY {
        return Err(StateError::KeyShort(path.to_owned()));
    }
    Ok(Sha256::digest(&bytes).into())
}

/// A key for this process alone.
pub fn random_key() -> Result<[u8; 32], StateError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|_| StateError::Random)?;
    Ok(key)
}

/// Whether this user may make files in a directory.
#[cfg(unix)]
fn may_write(directory: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    Ok(access(directory, Access::WRITE_OK | Access::EXEC_OK)?)
}

#[cfg(not(unix))]
fn may_write(_: &Path) -> io::Result<()> {
    Ok(())
}

fn private(path: &Path, truncate: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(truncate);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_kept_out_and_the_key_stays() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let state = State::open(&path).unwrap();
        let key = state.key().unwrap();
        let second = State::open(&path).unwrap_err();
        assert!(second.to_string().contains("another segment-gateway"));
        drop(state);
        assert_eq!(State::open(&path).unwrap().key().unwrap(), key);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&path), 0o700);
            assert_eq!(mode(&path.join("credential-hash.key")), 0o600);
        }
    }

    #[test]
    fn a_directory_that_others_can_change_is_refused() {
        use std::os::unix::fs::{PermissionsExt, chown, symlink};
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let refused = || State::open(&path).unwrap_err().to_string();
        let mode = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, mode).unwrap();
        };
        drop(State::open(&path).unwrap());
        for (open, is_refused) in [(0o777, true), (0o770, true), (0o755, false), (0o700, false)] {
            mode(open);
            assert_eq!(State::open(&path).is_err(), is_refused, "{open:o}");
        }
        mode(0o770);
        assert!(refused().contains("others may write"));
        mode(0o700);
        // A victim's file that would be written over.
        let victim = parent.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        for name in [
            "credential-hash.key",
            "ledger",
            "ledger.new",
            "lock",
            "journal.db",
        ] {
            let _ = std::fs::remove_file(path.join(name));
            symlink(&victim, path.join(name)).unwrap();
            assert!(refused().contains(name), "{name}");
            std::fs::remove_file(path.join(name)).unwrap();
        }
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
        // Only root can give it away.
        if chown(&path, Some(65_532), None).is_ok() {
            assert!(refused().contains("belongs to user 65532"));
        }
    }

    #[test]
    fn a_secret_that_all_can_read_is_noticed() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, is_open) in [(0o600, false), (0o640, false), (0o644, true)] {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), mode).unwrap();
            assert_eq!(is_readable_by_all(file.path()), is_open);
        }
    }

    #[test]
    fn a_key_file_must_be_a_key() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("key");
        assert!(matches!(
            key_file(&path),
            Err(StateError::KeyUnreadable(..))
        ));
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(key_file(&path), Err(StateError::KeyShort(_))));
        std::fs::write(&path, "long enough to be a key").unwrap();
        let key = key_file(&path).unwrap();
        std::fs::write(&path, "long enough to be another key").unwrap();
        assert_ne!(key, key_file(&path).unwrap());
    }
}
