//! Who owns the state directory, and that nobody else can change what is in it.
//!
//! One user owns the directory and its files, also while root works in it for that user. Nothing is
//! decided here about the lock or the content of a file.

use super::error::StateError;
use super::names::OWN;
use std::ffi::OsStr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, lchown};
use std::path::{Path, PathBuf};

/// The owner of a state directory in which root works. Dropping it gives the owner the files that
/// root has made there, so that the gateway can open them.
#[derive(Debug)]
pub(super) struct ForeignOwner {
    directory: PathBuf,
    user: u32,
    group: u32,
}

impl Drop for ForeignOwner {
    fn drop(&mut self) {
        for name in OWN {
            let path = self.directory.join(name);
            let is_other = |at: std::fs::Metadata| at.uid() != self.user;
            if !std::fs::symlink_metadata(&path).is_ok_and(is_other) {
                continue;
            }
            if let Err(error) = lchown(&path, Some(self.user), Some(self.group)) {
                let path = path.display();
                tracing::error!("{path}: cannot be given to user {}: {error}", self.user);
            }
        }
    }
}

/// Checks that the directory belongs to this user, and what [`checked`] checks.
pub(super) fn ours(directory: &Path) -> Result<(), StateError> {
    match checked(directory)? {
        None => Ok(()),
        Some(owner) => Err(foreign(directory, owner.user)),
    }
}

/// Returns the error for a directory of another user. The advice leaves the owner as it is: a
/// directory that root takes from the user of a service stops that service.
fn foreign(directory: &Path, owner: u32) -> StateError {
    let user = rustix::process::geteuid().as_raw();
    let why = format!(
        "it belongs to user {owner}, and this is user {user}; run this as user {owner}, or name a \
         directory below it that is to be made"
    );
    StateError::Unsafe(directory.to_owned(), why)
}

/// Checks that nobody else can change the directory, that none of its files leads elsewhere, and
/// that each that is opened is a file: reading a pipe would wait for its writer. From then on
/// nobody but the owner can put another there. Returns the owner if this is root, and the directory
/// another user's.
pub(super) fn checked(directory: &Path) -> Result<Option<ForeignOwner>, StateError> {
    let failed = |error| StateError::Directory(directory.to_owned(), error);
    let unsafe_ = |why: String| Err(StateError::Unsafe(directory.to_owned(), why));
    let there = std::fs::metadata(directory).map_err(failed)?;
    let user = rustix::process::geteuid().as_raw();
    let owner = (there.uid() != user).then(|| ForeignOwner {
        directory: directory.to_owned(),
        user: there.uid(),
        group: there.gid(),
    });
    if owner.is_some() && user != 0 {
        return Err(foreign(directory, there.uid()));
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
        // Root can open such a file; the gateway, which is the owner of the directory, cannot.
        let user = entry.metadata().map_err(failed)?.uid();
        if owner.is_some() && is_own(&name) && user != there.uid() {
            return unsafe_(format!(
                "{} in it belongs to user {user}, and the directory to user {}; give the file to \
                 the owner of the directory: `chown --reference`",
                name.display(),
                there.uid()
            ));
        }
    }
    Ok(owner)
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
