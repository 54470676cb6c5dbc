//! Files that only this user can read, and that are written as a whole or not at all.
//!
//! An existing file is never written into: another name may lead to it, and its mode may let others
//! read it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Creates an empty file with mode 0600, opened for reading and writing. A file that had the name
/// is removed.
pub fn create(path: &Path) -> io::Result<File> {
    remove(path)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    options.mode(0o600).open(path)
}

/// Replaces the file of this name by one of mode 0600 with this content, synced. A kill leaves the
/// old file or the whole new one.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = new_name(path);
    let written = create(&new).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    });
    if written.is_err() {
        let _ = remove(&new);
    }
    written
}

/// Checks that [`replace`] can make a file of this name now. Nothing is left behind.
pub fn check(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let new = new_name(path);
    create(&new)?;
    remove(&new)
}

/// Returns the name of a file until it is whole.
fn new_name(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    name.into()
}

/// Returns the name of a secret's file for a message. A name that could be the secret itself, put
/// where its file belongs, is not shown.
pub fn shown(path: &Path) -> String {
    // Longer than the names of files usually are, and without their punctuation. Tokens of the API
    // and keys are longer than that.
    const SUSPICIOUS: usize = 32;
    let name = path.file_name().unwrap_or_default();
    match name.len() >= SUSPICIOUS && !name.as_encoded_bytes().contains(&b'.') {
        true => "a file whose name is not shown, because it may be the secret itself".to_owned(),
        false => path.display().to_string(),
    }
}

/// Removes a file, if there is one.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_is_there_is_replaced_and_not_written_into() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("other"), "precious").unwrap();
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(at("other"), open).unwrap();
        for name in ["key", "key.new"] {
            std::fs::hard_link(at("other"), at(name)).unwrap();
        }
        for content in ["one", "another"] {
            replace(&at("key"), content.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(at("key")).unwrap(), content);
        }
        let mode = std::fs::metadata(at("key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!at("key.new").exists());
        assert_eq!(std::fs::read_to_string(at("other")).unwrap(), "precious");
    }

    #[test]
    fn a_secret_in_the_place_of_its_file_is_not_shown() {
        for name in [
            "token",
            "/run/secrets/segment-provisioning",
            "a/token.of.the.production.workspace",
        ] {
            assert_eq!(shown(Path::new(name)), name);
        }
        for name in [
            "sgp_0123456789abcdef0123456789abcdef",
            "/etc/0123456789abcdef0123456789abcdef",
        ] {
            assert!(!shown(Path::new(name)).contains("0123"), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_replaced_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"content").is_err());
        assert!(!folder.path().join("key.new").exists());
    }
}
