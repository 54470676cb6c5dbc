//! The server: listeners, connections, and stopping.
//!
//! The listener and the signal to stop come from outside, so that a test controls both. The number
//! of connections is bounded, and one that sends nothing or half a head is closed in time. Bytes
//! that are not a request are answered here. A few connections beyond the bound are accepted, so
//! that the load shedding behind can reject their requests clearly; the rest wait to be accepted.
//!
//! Nothing here knows what a request means.

pub mod body;
pub mod conn;
pub mod deadlines;
pub mod descriptors;
pub mod framing;
pub mod http2;
mod inbound;
mod linger;
#[cfg(unix)]
pub mod local;
pub mod notes;
mod peers;
mod preface;
mod presence;
pub mod refusals;
mod timed_stream;
pub mod tls;
pub mod watched_stream;

use crate::exchange::body::OuterBody;
use crate::exchange::identity::CertificateNames;
use crate::metrics::Connections;
use crate::tasks;
use body::RequestBody;
use conn::ConnectionBounds;
use http::{Request, Response};
use hyper::service::Service;
use inbound::InboundConnection;
use peers::Peers;
use refusals::MalformedReplies;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tls::SecureListener;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

/// The pause after a failure to accept, such as a lack of file descriptors; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct ServerBounds {
    /// Connections served at once. A sixteenth more is accepted, for clear rejections.
    pub connections: usize,
    /// Connections of one peer. Further ones are closed at once, so that other peers get in.
    pub per_peer: usize,
    /// The bounds of each connection.
    pub each: ConnectionBounds,
}

/// Accepts and serves connections until `stop`, then lets requests in flight end. Returns when
/// every connection is closed. `connected` creates the service of each connection from its peer and
/// the names in its client certificate. With `tls`, nothing is served without it.
pub async fn serve<S>(
    listener: TcpListener,
    tls: Option<SecureListener>,
    connected: impl Fn(SocketAddr, CertificateNames) -> S + Send + Sync + 'static,
    bounds: ServerBounds,
    seen: Connections,
    stop: impl Future<Output = ()> + Send,
) where
    S: Service<Request<RequestBody>, Response = Response<OuterBody>, Error = Infallible>,
    S: Send + 'static,
    S::Future: Send + 'static,
{
    let connected = Arc::new(connected);
    let room = Arc::new(Semaphore::new(
        bounds.connections + bounds.connections.div_ceil(16),
    ));
    let (stopping, stopped) = watch::channel(false);
    tokio::pin!(stop);
    let mut failures = Failures::default();
    let peers = Peers::default();
    let refusals = MalformedReplies::new(bounds.each.head_bytes);
    loop {
        // The place comes before the connection: connections without one stay in the kernel's
        // queue.
        let place = tokio::select! {
            biased;
            () = &mut stop => break,
            place = room.clone().acquire_owned() => place,
        };
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // The connection was closed before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                failures.log(&error);
                let pause = failures.pause();
                tokio::select! {
                    () = &mut stop => break,
                    () = sleep(pause) => continue,
                }
            }
        };
        failures.in_a_row = 0;
        let Some(of_peer) = peers.take(peer.ip(), bounds.per_peer) else {
            continue;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = %error, "cannot set TCP_NODELAY");
        }
        let connection = InboundConnection {
            stream,
            peer,
            bounds: bounds.each,
            refusals: refusals.clone(),
            stopped: stopped.clone(),
            seen: seen.clone(),
        };
        let (seen, tls) = (seen.clone(), tls.clone());
        let connected = connected.clone();
        let service = move |certificate| connected(peer, certificate);
        tasks::detached(async move {
            // All three are released however the connection ends.
            let _held = (place, of_peer, seen.opened());
            if let Some(reason) = connection.serve(service, tls).await {
                seen.malformed(reason);
            }
        });
    }
    // The order matters: no new connections, then no receiver but those of connections, then the
    // signal.
    drop(listener);
    drop(stopped);
    let _ = stopping.send(true);
    // Each connection holds a receiver until it is closed.
    stopping.closed().await;
}

/// Failures to accept in a row, each followed by a pause.
#[derive(Debug, Default)]
struct Failures {
    in_a_row: u32,
}

impl Failures {
    fn log(&mut self, error: &io::Error) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        tracing::warn!(
            %error,
            "cannot accept connections; if the limit of open files is reached, raise it or lower \
             server.connections"
        );
    }

    fn pause(&self) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.in_a_row.saturating_sub(1).min(8));
        doubled.min(LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_after_a_failure_doubles_within_a_bound() {
        let mut failures = Failures::default();
        let error = io::Error::from(io::ErrorKind::OutOfMemory);
        let mut pauses = Vec::new();
        for _ in 0..30 {
            failures.log(&error);
            pauses.push(failures.pause());
        }
        assert_eq!(pauses[..3], [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]);
        assert_eq!(pauses[29], LONGEST_PAUSE);
    }
}
