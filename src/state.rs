//! The state directory: its lock, the key of credential hashes, and the names of its files.
//!
//! One process owns it at a time: two that send with one token would exceed its budgets. The
//! lock is the operating system's, so it ends with the process however that ends.
//!
//! The directory belongs to one user, and nobody else can change it or what is in it: the ledger
//! and the journal decide what is sent with a token. This file knows the names in the directory;
//! what the ledger and the journal contain is theirs.

use crate::private_file;
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The shortest key file that is accepted, in bytes.
const SHORTEST_KEY: usize = 16;

/// The socket of operators, in the state directory.
pub const SOCKET: &str = "admin.sock";
const LOCK: &str = "lock";
/// The marks: lengths of the lock file. 0 is a new or an old one, 1 a directory that was made and
/// not used yet, 2 one whose owner may have sent something.
///
/// The length of the lock file says how far its owners got: a length needs no room on the disk.
const MADE: u64 = 1;
const USED: u64 = 2;
const LEDGER: &str = "ledger";
const KEY: &str = "credential-hash.key";
const JOURNAL: &str = "journal.db";
const JOURNAL_KEY: &str = "journal.key";
/// The names under which files are opened in it, here or by the ledger or the journal. What has
/// another name is left alone.
const OWN: [&str; 14] = [
    LOCK,
    LEDGER,
    "ledger.new",
    KEY,
    "credential-hash.key.new",
    JOURNAL,
    "journal.db-wal",
    "journal.db-journal",
    "journal.new",
    "journal.new-wal",
    "journal.count",
    "journal.lock",
    JOURNAL_KEY,
    "journal.key.new",
];

/// Why the state directory or the key cannot be used. `Display` names the path and says what to do.
#[derive(Debug)]
pub enum StateError {
    /// The directory cannot be made or written.
    Directory(PathBuf, io::Error),
    /// Another user can change the directory or a file in it: why, and what to do.
    Unsafe(PathBuf, String),
    /// Another process owns it.
    Locked(PathBuf),
    /// The key file cannot be read.
    KeyUnreadable(PathBuf, io::Error),
    /// The key file is too short to be a key.
    KeyShort(PathBuf),
    /// The key of the directory is gone, or is not whole, and there is a journal.
    KeyLost(PathBuf),
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
            Self::KeyLost(path) => write!(
                f,
                "{}: it is gone or not whole, and without it neither the Idempotency-Keys nor the \
                 owners of the writes in the journal are known; put back a copy, or name the file of \
                 the key in credentials.key_file, or, to go on without those writes, move {JOURNAL} \
                 and its -wal file away",
                path.display()
            ),
            Self::Random => write!(f, "the system gives no random bytes"),
        }
    }
}

impl std::error::Error for StateError {}

/// A state directory that this process owns. Dropping it releases the lock.
#[derive(Debug)]
pub struct StateDirectory {
    /// The directory as configured. Relative paths stay relative to the working directory.
    directory: PathBuf,
    /// Whether an earlier owner may have sent something; read once, when the lock was taken.
    was_used: bool,
    /// Held open, since the lock is on it. `None` in a directory that is only inspected and has no
    /// lock yet.
    lock: Option<File>,
}

impl StateDirectory {
    /// Takes the directory, creating it with mode 0700 if need be. Blocks, and does not wait for
    /// another owner.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let failed = |error| StateError::Directory(directory.to_owned(), error);
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(directory);
        made.map_err(failed)?;
        // Before anything in it is opened.
        ours(directory)?;
        let path = directory.join(LOCK);
        let is_new = !path.exists();
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(false);
        let lock = options.mode(0o600).open(path).map_err(failed)?;
        let state = Self::take(directory, Some(lock))?;
        // A kill before this leaves an unmarked lock, which `take` judges by the journal.
        if is_new {
            state.mark(MADE)?;
        }
        Ok(state)
    }

    /// Inspects the directory without changing anything. `None` if it does not exist yet, or
    /// another process owns it. The value holds the lock, if there is one: a start fails while it
    /// lives.
    ///
    /// # Errors
    /// As [`StateDirectory::open`] has.
    pub fn inspect(directory: &Path) -> Result<Option<Self>, StateError> {
        let failed = |error| StateError::Directory(directory.to_owned(), error);
        let exists = directory.exists();
        // A directory that does not exist yet is created in its nearest existing parent.
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
        if !exists {
            return Ok(None);
        }
        ours(directory)?;
        let lock = match OpenOptions::new().write(true).open(directory.join(LOCK)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened.map_err(failed)?),
        };
        match Self::take(directory, lock) {
            Err(StateError::Locked(_)) => Ok(None),
            taken => taken.map(Some),
        }
    }

    /// Takes the lock, and reads from its length what earlier owners did.
    fn take(directory: &Path, lock: Option<File>) -> Result<Self, StateError> {
        let failed = |error| StateError::Directory(directory.to_owned(), error);
        match lock.as_ref().map_or(Ok(()), File::try_lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::Locked(directory.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mark = lock
            .as_ref()
            .map_or(Ok(0), |lock| Ok(lock.metadata()?.len()));
        let was_used = match mark.map_err(failed)? {
            // Earlier versions did not mark the lock, but made a journal after the ledger.
            0 => directory.join(JOURNAL).exists(),
            mark => mark != MADE,
        };
        Ok(Self {
            directory: directory.to_owned(),
            was_used,
            lock,
        })
    }

    /// Returns whether an earlier owner may have sent something. If so, a missing ledger means that
    /// what was sent is unknown, and not that nothing was.
    pub fn was_used(&self) -> bool {
        self.was_used
    }

    /// Marks the directory as used: from now on there is a ledger, or what was sent is unknown.
    pub fn mark_used(&self) -> Result<(), StateError> {
        self.mark(USED)
    }

    /// Sets the length of the lock file, synced.
    fn mark(&self, mark: u64) -> Result<(), StateError> {
        let marked = self.lock.as_ref().map_or(Ok(()), |lock| {
            // Synced before anything is sent: after a power failure the mark must not be older than
            // the traffic.
            lock.set_len(mark)?;
            lock.sync_all()
        });
        marked.map_err(|error| StateError::Directory(self.directory.join(LOCK), error))
    }

    /// Returns the path of the ledger of attempts.
    pub fn ledger(&self) -> PathBuf {
        self.directory.join(LEDGER)
    }

    /// Removes the ledger: what was sent is unknown from now on. Shadow mode does so, because it
    /// forwards without recording.
    pub fn forget_ledger(&self) -> Result<(), StateError> {
        private_file::remove(&self.ledger())
            .map_err(|error| StateError::Directory(self.directory.clone(), error))
    }

    /// Returns the path of the admin socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join(SOCKET)
    }

    /// Returns the path of the journal.
    pub fn journal(&self) -> PathBuf {
        self.directory.join(JOURNAL)
    }

    /// Returns the key in the directory, which the first start creates with mode 0600. It is never
    /// replaced while there is a journal: writes are kept under hashes of that key.
    pub fn key(&self) -> Result<[u8; 32], StateError> {
        if let Some(key) = self.key_found()? {
            return Ok(key);
        }
        let (path, key) = (self.directory.join(KEY), random_key()?);
        private_file::replace(&path, &key).map_err(|error| StateError::Directory(path, error))?;
        Ok(key)
    }

    /// Returns the key in the directory; `None` if the next start creates it.
    ///
    /// # Errors
    /// If the key cannot be read, or is lost although there is a journal.
    pub fn key_found(&self) -> Result<Option<[u8; 32]>, StateError> {
        match Self::kept_key(&self.directory)? {
            Some(key) => Ok(Some(key)),
            // A new key would make every record of the journal belong to nobody, so an operator
            // decides.
            None if self.journal().exists() => Err(StateError::KeyLost(self.directory.join(KEY))),
            None => Ok(None),
        }
    }

    /// Returns the key in a directory, which a gateway may be using; `None` if there is none that
    /// is whole. A kill of an earlier version may leave a part of one, which nothing used yet.
    ///
    /// # Errors
    /// If the key cannot be read.
    pub fn kept_key(directory: &Path) -> Result<Option<[u8; 32]>, StateError> {
        let path = directory.join(KEY);
        match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StateError::Directory(path, error)),
            Ok(found) => Ok(<[u8; 32]>::try_from(found).ok()),
        }
    }

    /// Returns the paths of the keys that may be in the directory.
    pub fn key_files(directory: &Path) -> [PathBuf; 2] {
        [KEY, JOURNAL_KEY].map(|name| directory.join(name))
    }
}

/// Checks that nobody else can change the directory, that none of its files leads elsewhere, and
/// that each that is opened is a file: reading a pipe would wait for its writer. From then on
/// nobody but this user can put another there.
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
    // Reading is not checked: each file has a mode of its own. Who can write here could put another
    // ledger in place.
    if there.mode() & 0o022 != 0 {
        return unsafe_(
            "others may write to it; take that away, e.g. `chmod go-w`, or name a directory below it \
             that is to be made"
                .into(),
        );
    }
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (name, kind) = (entry.file_name(), entry.file_type().map_err(failed)?);
        if kind.is_symlink() {
            return unsafe_(format!(
                "{} in it is a symbolic link, which would be followed; remove it",
                name.display()
            ));
        }
        if is_own(&name) && !kind.is_file() {
            return unsafe_(format!(
                "{} in it is {}, and a file is expected; remove it",
                name.display(),
                shown(kind)
            ));
        }
    }
    Ok(())
}

/// Returns whether a file of this name is opened.
fn is_own(name: &OsStr) -> bool {
    OWN.iter().any(|own| name == *own)
}

/// Returns what is there instead of a file, for a message.
fn shown(kind: std::fs::FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

/// Returns whether every user of this machine can read a secret: the file and each directory above
/// it.
pub fn is_readable_by_all(path: &Path) -> bool {
    let allows = |path: &Path, bit| std::fs::metadata(path).is_ok_and(|at| at.mode() & bit != 0);
    let Ok(path) = path.canonicalize() else {
        return false;
    };
    allows(&path, 0o004) && path.ancestors().skip(1).all(|above| allows(above, 0o001))
}

/// Returns the key in an operator's key file: a hash of all its bytes, so that any file of random
/// bytes or text will do.
pub fn key_file(path: &Path) -> Result<[u8; 32], StateError> {
    /// The bytes of a file that count.
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

/// Returns a random key for this process alone. Without a kept key, hashes of credentials change
/// with each start.
pub fn random_key() -> Result<[u8; 32], StateError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|_| StateError::Random)?;
    Ok(key)
}

/// Checks that this user may create files in a directory, without creating one.
fn may_write(directory: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    Ok(access(directory, Access::WRITE_OK | Access::EXEC_OK)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_kept_out_and_the_key_stays() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let state = StateDirectory::open(&path).unwrap();
        let key = state.key().unwrap();
        let second = StateDirectory::open(&path).unwrap_err();
        assert!(second.to_string().contains("another segment-gateway"));
        drop(state);
        assert_eq!(StateDirectory::open(&path).unwrap().key().unwrap(), key);
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
        let refused = || StateDirectory::open(&path).unwrap_err().to_string();
        let mode = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, mode).unwrap();
        };
        drop(StateDirectory::open(&path).unwrap());
        for (open, is_refused) in [(0o777, true), (0o770, true), (0o755, false), (0o700, false)] {
            mode(open);
            assert_eq!(StateDirectory::open(&path).is_err(), is_refused, "{open:o}");
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
    fn looking_refuses_what_opening_refuses_and_makes_nothing() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        type Spoil = fn(&Path);
        let mode = |path: &Path, mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path, mode).unwrap();
        };
        let spoils: [(&str, Spoil); 5] = [
            ("symbolic link", |at| {
                symlink("/dev/null", at.join("x")).unwrap()
            }),
            ("ledger in it is a directory", |at| {
                std::fs::create_dir(at.join(LEDGER)).unwrap();
            }),
            ("ledger in it is a named pipe", |at| pipe(&at.join(LEDGER))),
            ("lock in it is a named pipe", |at| pipe(&at.join(LOCK))),
            ("journal.key in it is a named pipe", |at| {
                pipe(&at.join(JOURNAL_KEY));
            }),
        ];
        for (why, spoil) in spoils {
            let parent = tempfile::tempdir().unwrap();
            let path = parent.path().join("state");
            std::fs::create_dir(&path).unwrap();
            mode(&path, 0o777);
            let looked = StateDirectory::inspect(&path).unwrap_err().to_string();
            assert!(looked.contains("others may write"), "{looked}");
            mode(&path, 0o700);
            assert!(StateDirectory::inspect(&path).unwrap().is_some());
            assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
            spoil(&path);
            let looked = StateDirectory::inspect(&path).unwrap_err().to_string();
            assert!(looked.contains(why), "{looked}");
            assert_eq!(StateDirectory::open(&path).unwrap_err().to_string(), looked);
        }
    }

    fn pipe(path: &Path) {
        let made = std::process::Command::new("mkfifo").arg(path).status();
        assert!(made.unwrap().success());
    }

    #[test]
    fn a_directory_was_used_once_something_may_have_been_sent() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let state = StateDirectory::open(&path).unwrap();
        state.key().unwrap();
        drop(state);
        // That one was killed before it had a ledger, though it had a journal.
        std::fs::write(path.join(JOURNAL), "").unwrap();
        let state = StateDirectory::open(&path).unwrap();
        assert!(!state.was_used());
        state.mark_used().unwrap();
        drop(state);
        assert!(StateDirectory::open(&path).unwrap().was_used());
        // An earlier version did not mark it.
        std::fs::write(path.join(LOCK), "").unwrap();
        assert!(StateDirectory::open(&path).unwrap().was_used());
        std::fs::remove_file(path.join(JOURNAL)).unwrap();
        assert!(!StateDirectory::open(&path).unwrap().was_used());
    }

    #[test]
    fn a_key_that_is_lost_is_made_anew_only_where_nothing_depends_on_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let state = StateDirectory::open(&path).unwrap();
        let key = state.key().unwrap();
        let file = path.join(KEY);
        std::fs::write(&file, "torn").unwrap();
        assert_eq!(state.key_found().unwrap(), None);
        std::fs::write(path.join(JOURNAL), "").unwrap();
        for is_torn in [true, false] {
            if !is_torn {
                std::fs::remove_file(&file).unwrap();
            }
            for found in [state.key().map(Some), state.key_found()] {
                assert!(matches!(found, Err(StateError::KeyLost(_))));
            }
            assert_eq!(file.exists(), is_torn);
        }
        std::fs::write(&file, key).unwrap();
        assert_eq!(state.key().unwrap(), key);
    }

    #[test]
    fn a_secret_that_all_can_read_is_noticed() {
        use std::os::unix::fs::PermissionsExt;
        let hidden = tempfile::tempdir().unwrap();
        std::fs::write(hidden.path().join("key"), "").unwrap();
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(hidden.path().join("key"), mode).unwrap();
        for (mode, is_open) in [(0o700, false), (0o710, false), (0o711, true)] {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(hidden.path(), mode).unwrap();
            assert_eq!(is_readable_by_all(&hidden.path().join("key")), is_open);
        }
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
