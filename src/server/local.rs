//! A Unix socket for the user of this process alone.
//!
//! The file has mode 0600. In addition the operating system names the user of each connection, and
//! only the user of this process and root are served, whatever the modes of the directories above.

use super::body::RequestBody;
use super::conn::{self, ConnectionBounds};
use super::refusals::MalformedReplies;
use crate::exchange::body::OuterBody;
use crate::tasks;
use http::{Request, Response};
use hyper::service::Service;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

/// The most connections served at once. Further ones wait to be accepted.
const MOST: usize = 64;
/// The pause after a failure to accept.
const PAUSE: Duration = Duration::from_millis(250);

/// Opens the socket, and replaces one that an earlier process left.
///
/// # Errors
/// If the path is something else than a socket, or nothing can be created there.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            let error = "there is a file of this name that is no socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, error));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves connections until `stop`, then lets requests in flight end. `connected` creates the
/// service of each connection.
pub async fn serve<S>(
    listener: UnixListener,
    connected: impl Fn() -> S + Send,
    bounds: ConnectionBounds,
    stop: impl Future<Output = ()> + Send,
) where
    S: Service<Request<RequestBody>, Response = Response<OuterBody>, Error = Infallible>,
    S: Send + 'static,
    S::Future: Send,
{
    let room = Arc::new(Semaphore::new(MOST));
    let refusals = MalformedReplies::new(bounds.head_bytes);
    let (stopping, stopped) = watch::channel(false);
    let accepting = async {
        while let Ok(place) = room.clone().acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                sleep(PAUSE).await;
                continue;
            };
            if !is_own(&stream) {
                tracing::warn!("admin socket: connection from another user rejected");
                continue;
            }
            let (service, stopped) = (connected(), stopped.clone());
            let refusals = refusals.clone();
            tasks::detached(async move {
                let _place = place;
                let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
                let _ = conn::serve(stream, nowhere, service, bounds, refusals, stopped).await;
            });
        }
    };
    tokio::select! {
        () = stop => {}
        () = accepting => {}
    }
    // As in [`super::serve`]: close the listener, drop our own receiver, signal the connections,
    // and wait until the last of them has dropped its receiver.
    drop(listener);
    drop(stopped);
    let _ = stopping.send(true);
    stopping.closed().await;
}

/// Returns whether the peer is the user of this process, or root.
fn is_own(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let peer = stream.peer_cred().map(|peer| peer.uid());
    peer.is_ok_and(|peer| peer == own || peer == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_of_its_user_alone_and_replaces_a_socket_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        // What a process leaves that is killed.
        drop(listen(&path).unwrap());
        let listener = listen(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (ours, theirs) = tokio::join!(UnixStream::connect(&path), listener.accept());
        assert!(is_own(&theirs.unwrap().0));
        drop(ours);
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert!(listen(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        // A link is not followed.
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        assert!(listen(&path).is_err());
    }
}
