//! The state directory: its lock and the key of credential hashes.
//!
//! One process owns it at a time: two that send with one token would exceed its budgets. The
//! lock is the operating system's, so it ends with the process however that ends.
//!
//! The directory belongs to one user, and nobody else can change it or what is in it (`owner.rs`):
//! the ledger and the journal decide what is sent with a token. `names.rs` has the names in the
//! directory. What the ledger and the journal contain is theirs.

mod error;
mod names;
mod owner;

pub use error::StateError;
pub use names::SOCKET;

use crate::private_file;
use error::SHORTEST_KEY;
use names::{JOURNAL, JOURNAL_KEY, KEY, LEDGER, LOCK, REVOKED, TOKENS};
use owner::{ForeignOwner, checked, ours};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The marks: lengths of the lock file. 0 is a new or an old one, 1 a directory that was made and
/// not used yet, 2 one whose owner may have sent something.
///
/// The length of the lock file says how far its owners got: a length needs no room on the disk.
const MADE: u64 = 1;
const USED: u64 = 2;

/// A state directory that this process owns. Dropping it releases the lock.
#[derive(Debug)]
pub struct StateDirectory {
    /// The directory as configured. Relative paths stay relative to the working directory.
    directory: PathBuf,
    /// Whether an earlier owner may have sent something; read once, when the lock was taken.
    was_used: bool,
    /// The owner for whom root works here. Declared before the lock, so that files are given back
    /// while nobody else can take the directory.
    _owner: Option<ForeignOwner>,
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
        Self::open_checked(directory, None)
    }

    /// Takes an existing directory for the work of one command. Root may do so for another user:
    /// whatever root makes in the directory is given to that user when the value is dropped.
    ///
    /// # Errors
    /// As [`StateDirectory::open`] has, except for root.
    pub fn open_for_owner(directory: &Path) -> Result<Self, StateError> {
        let owner = checked(directory)?;
        Self::open_checked(directory, owner)
    }

    /// Takes a directory that was checked.
    fn open_checked(directory: &Path, owner: Option<ForeignOwner>) -> Result<Self, StateError> {
        let failed = |error| StateError::Directory(directory.to_owned(), error);
        let path = directory.join(LOCK);
        let is_new = !path.exists();
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(false);
        let lock = options.mode(0o600).open(path).map_err(failed)?;
        let state = Self::take(directory, Some(lock), owner)?;
        // A kill before this leaves an unmarked lock, which `take` judges by the journal.
        if is_new {
            state.mark(MADE)?;
        }
        Ok(state)
    }

    /// Inspects the directory and leaves it as it is. `None` if it does not exist yet, or another
    /// process owns it. The value holds the lock, if there is one: a start fails while it lives.
    ///
    /// # Errors
    /// As [`StateDirectory::open`] has. Root may inspect the directory of another user.
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
            may_make_directory(nearest).map_err(failed)?;
            return Ok(None);
        }
        let owner = checked(directory)?;
        let lock = match OpenOptions::new().write(true).open(directory.join(LOCK)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened.map_err(failed)?),
        };
        match Self::take(directory, lock, owner) {
            Err(StateError::Locked(_)) => Ok(None),
            taken => taken.map(Some),
        }
    }

    /// Takes the lock, and reads from its length what earlier owners did.
    fn take(
        directory: &Path,
        lock: Option<File>,
        owner: Option<ForeignOwner>,
    ) -> Result<Self, StateError> {
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
            _owner: owner,
            lock,
        })
    }

    /// Returns whether a gateway, or a command that works on the directory, has it now.
    pub fn is_in_use(directory: &Path) -> bool {
        let lock = File::open(directory.join(LOCK));
        lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Returns the user to whom a directory belongs, if that is not the user of this process.
    pub fn foreign_user(directory: &Path) -> Option<u32> {
        let owner = std::fs::metadata(directory).ok()?.uid();
        (owner != rustix::process::geteuid().as_raw()).then_some(owner)
    }

    /// Returns the free bytes of the disk on which the directory is, or is to be made. `None` if
    /// the system does not say.
    pub fn free_bytes(directory: &Path) -> Option<u64> {
        let directory = std::path::absolute(directory).ok()?;
        let there = directory.ancestors().find(|path| path.exists())?;
        let disk = rustix::fs::statvfs(there).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
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

    /// Returns the path of what is remembered of the held tokens.
    pub fn tokens(&self) -> PathBuf {
        self.directory.join(TOKENS)
    }

    /// Returns the path of the list of what was revoked.
    pub fn revoked(&self) -> PathBuf {
        self.directory.join(REVOKED)
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

/// Makes a directory in another and removes it. Some file systems let root write everywhere and yet
/// take no directory, such as `/proc`; only trying shows that.
fn may_make_directory(parent: &Path) -> io::Result<()> {
    let name = format!(".segment-gateway-check-{}", std::process::id());
    let trial = parent.join(name);
    std::fs::create_dir(&trial)?;
    std::fs::remove_dir(&trial)
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
            assert!(!refused().contains("chown"), "{}", refused());
        }
    }

    #[test]
    fn root_works_in_the_directory_of_another_user_and_keeps_its_owner() {
        use std::os::unix::fs::chown;
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        drop(StateDirectory::open(&path).unwrap());
        // Only root can give it away.
        if chown(&path, Some(65_532), Some(65_532)).is_err() {
            return;
        }
        assert_eq!(StateDirectory::foreign_user(&path), Some(65_532));
        // The gateway could not open this file.
        let refused = StateDirectory::inspect(&path).unwrap_err().to_string();
        assert!(
            refused.contains("lock in it belongs to user 0"),
            "{refused}"
        );
        chown(path.join(LOCK), Some(65_532), Some(65_532)).unwrap();
        for take in [
            |path: &Path| StateDirectory::open_for_owner(path),
            |path: &Path| StateDirectory::inspect(path).map(Option::unwrap),
        ] {
            let state = take(&path).unwrap();
            assert!(StateDirectory::is_in_use(&path));
            for name in [JOURNAL, "journal.lock"] {
                let _ = std::fs::remove_file(path.join(name));
                std::fs::write(path.join(name), "").unwrap();
            }
            drop(state);
            assert!(!StateDirectory::is_in_use(&path));
            for entry in std::fs::read_dir(&path).unwrap() {
                let entry = entry.unwrap();
                let there = entry.metadata().unwrap();
                let owner = (there.uid(), there.gid());
                assert_eq!(owner, (65_532, 65_532), "{}", entry.path().display());
            }
        }
        // Serving as root would leave files that the service cannot open.
        assert!(StateDirectory::open(&path).is_err());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_found_without_making_it() {
        let looked = StateDirectory::inspect(Path::new("/proc/x")).unwrap_err();
        assert!(looked.to_string().contains("/proc/x"), "{looked}");
        let parent = tempfile::tempdir().unwrap();
        let absent = parent.path().join("a/b");
        assert!(StateDirectory::inspect(&absent).unwrap().is_none());
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
        assert!(StateDirectory::free_bytes(&absent).is_some());
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
