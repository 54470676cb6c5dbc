//! Bytes in: listeners, connections, and stopping.
//!
//! The listener and the signal to stop come from outside, so that a test owns both. A connection
//! that sends nothing, or half a head, is closed in time; their number is bounded. What is a
//! little beyond the bound is accepted and refused clearly by the load shed behind; the rest waits
//! to be accepted.

pub mod conn;
pub mod framing;
pub mod line;

use crate::gateway::stack::OuterBody;
use crate::metrics::Connections;
use conn::{ConnectionBounds, RequestBody};
use http::{Request, Response};
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tower::Service;

/// Pause after a failure to accept, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections served at once. A sixteenth more is accepted, for clear refusals.
    pub connections: usize,
    /// Bounds of each connection.
    pub each: ConnectionBounds,
}

/// Accepts and serves connections until `stop`, then lets requests under way end. Returns when
/// every connection is closed.
pub async fn serve<S>(
    listener: TcpListener,
    service: S,
    bounds: Bounds,
    seen: Connections,
    stop: impl Future<Output = ()> + Send,
) where
    S: Service<Request<RequestBody>, Response = Response<OuterBody>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    let room = Arc::new(Semaphore::new(
        bounds.connections + bounds.connections.div_ceil(16),
    ));
    let (stopping, stopped) = watch::channel(false);
    tokio::pin!(stop);
    loop {
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
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = %error, "cannot set TCP_NODELAY");
        }
        let (service, stopped, seen) = (service.clone(), stopped.clone(), seen.clone());
        drop(tokio::spawn(async move {
            // Both are given back whatever becomes of the connection.
            let _held = (place, seen.opened());
            let ended = conn::serve(stream, peer, service, bounds.each, stopped).await;
            if let Some(reason) = ended {
                seen.malformed(reason);
            }
        }));
    }
    drop(listener);
    drop(stopped);
    let _ = stopping.send(true);
    // Every connection holds a receiver until it is closed.
    stopping.closed().await;
}
