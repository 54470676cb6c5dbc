//! Byte streams to an address: over TCP, or in memory for tests and simulation.
//!
//! Every new connection resolves the name again and tries its addresses in turn, each within a
//! share of the time limit. Where a name has addresses of both families, the second family is tried
//! as well after 300 ms (RFC 6555). This module knows nothing of TLS, proxies, or the overall time
//! limit; see `connect.rs`.
//!
//! Promises about time, on Linux: bytes that the system took for a connection arrive within the
//! late-arrival bound or never. The retransmission limit ensures it while a connection is open, and
//! `Io::reset_when_dropped` when it is given up. Elsewhere only the reset applies.
//!
//! Failures are classified here as far as they concern reaching an address: no address, no time, or
//! a refusal.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiResolver, Name};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tower::{Service, ServiceExt as _};

use super::causes::find;
use super::failure::ConnectFailure;
use super::outcome::NotSent;

/// The longest time without an acknowledgement before a connection counts as lost, however large
/// the late-arrival bound is.
#[cfg(target_os = "linux")]
const LONGEST_RETRANSMISSION: Duration = Duration::from_secs(30);

pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A byte stream on which a connection is built.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes a later drop reset the connection. The system then discards undelivered bytes instead
    /// of retransmitting them until they arrive.
    fn reset_when_dropped(&self);

    /// How long the system retransmits unacknowledged bytes.
    #[cfg(all(test, target_os = "linux"))]
    fn user_timeout(&self) -> Option<Duration> {
        None
    }
}

impl Io for TcpStream {
    #[cfg(all(test, target_os = "linux"))]
    fn user_timeout(&self) -> Option<Duration> {
        let millis = rustix::net::sockopt::tcp_user_timeout(self).ok()?;
        Some(Duration::from_millis(millis.into()))
    }

    fn reset_when_dropped(&self) {
        if let Err(error) = self.set_zero_linger() {
            tracing::debug!(%error, "cannot reset a connection");
        }
    }
}

impl Io for DuplexStream {
    /// In memory, nothing is in flight once an end is dropped.
    fn reset_when_dropped(&self) {}
}

/// TLS holds no bytes back on a drop, so resetting the stream below is enough. Its close alert is
/// not sent.
impl Io for TlsStream<Box<dyn Io>> {
    fn reset_when_dropped(&self) {
        self.get_ref().0.reset_when_dropped();
    }
}

/// A stream of any kind, as hyper expects it.
pub(super) type Stream = TokioIo<Box<dyn Io>>;

/// Opens streams in memory, one for each connection of the client.
#[derive(Clone)]
pub struct MemoryConnector {
    /// Called for every connection, possibly from several tasks at once.
    open: Arc<dyn Fn() -> BoxFuture<io::Result<DuplexStream>> + Send + Sync>,
}

impl MemoryConnector {
    /// Creates a connector. `open` is called for each connection and returns the client's end of
    /// the stream. An error counts as a failed TCP connect.
    pub fn new<F, R>(open: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<DuplexStream>> + Send + 'static,
    {
        Self {
            open: Arc::new(move || Box::pin(open())),
        }
    }
}

impl fmt::Debug for MemoryConnector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("MemoryConnector")
    }
}

/// Opens a stream to an address.
#[derive(Clone)]
pub(super) enum Dial {
    /// Over TCP, with the system's resolver.
    Tcp(HttpConnector<Names>),
    /// In memory. The address is ignored: there is one peer.
    Memory(MemoryConnector),
}

impl Dial {
    /// Dials over TCP. `limit` is divided among the addresses of a name, so that an address that
    /// drops packets does not use up the time of the others. On Linux, sent bytes arrive well
    /// within `late_arrival` or not at all.
    pub(super) fn tcp(limit: Duration, late_arrival: Duration) -> Self {
        let mut connector = HttpConnector::new_with_resolver(Names(GaiResolver::new()));
        // The scheme may be https: TLS is added on top of the stream.
        connector.enforce_http(false);
        // Requests are written in one piece, so waiting to fill a packet would only delay them.
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(limit));
        // Probes find a dead idle connection within about a minute.
        connector.set_keepalive(Some(Duration::from_secs(30)));
        connector.set_keepalive_interval(Some(Duration::from_secs(10)));
        connector.set_keepalive_retries(Some(3));
        #[cfg(target_os = "linux")]
        connector.set_tcp_user_timeout(Some(user_timeout(late_arrival)));
        #[cfg(not(target_os = "linux"))]
        let _ = late_arrival;
        Self::Tcp(connector)
    }
}

/// How long the system retransmits unacknowledged bytes (RFC 5482). Half of the late-arrival bound,
/// so that no abandoned request arrives after the bound, and at most as long as the probes of a
/// silent connection take.
///
/// At least 1 ms, because zero would mean the system's default of many minutes.
#[cfg(target_os = "linux")]
fn user_timeout(late_arrival: Duration) -> Duration {
    (late_arrival / 2).clamp(Duration::from_millis(1), LONGEST_RETRANSMISSION)
}

impl Service<Uri> for Dial {
    type Response = Stream;
    type Error = ConnectFailure;
    type Future = BoxFuture<Result<Stream, ConnectFailure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        match self {
            Self::Tcp(connector) => {
                // The future must own its connector, because it outlives the borrow of `self`.
                let opening = connector.clone().oneshot(target);
                Box::pin(async move {
                    let stream = opening.await.map_err(|error| dial_failure(error.into()))?;
                    Ok(TokioIo::new(Box::new(stream.into_inner()) as Box<dyn Io>))
                })
            }
            Self::Memory(connector) => {
                let opening = (connector.open)();
                Box::pin(async move {
                    let stream = opening.await.map_err(|error| dial_failure(error.into()))?;
                    Ok(TokioIo::new(Box::new(stream) as Box<dyn Io>))
                })
            }
        }
    }
}

/// Classifies a failed dial by the known errors in its chain.
///
/// The order matters: an error of the resolver contains an `io::Error` too, which must not pass for
/// one of the connect. Whatever is neither of the two counts as a refusal, which is safe, as
/// nothing was sent.
fn dial_failure(error: Box<dyn std::error::Error + Send + Sync>) -> ConnectFailure {
    let reason = if find::<Unresolvable>(error.as_ref()).is_some() {
        NotSent::Unresolved
    } else if find::<io::Error>(error.as_ref())
        .is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
    {
        NotSent::ConnectTimeout
    } else {
        NotSent::Refused
    };
    ConnectFailure::new(reason, Some(error))
}

/// The system's resolver, with errors that differ from those of connecting.
#[derive(Clone)]
pub(super) struct Names(GaiResolver);

/// The system's resolver found no address.
#[derive(Debug)]
struct Unresolvable(io::Error);

/// Resolves in the blocking pool, because the system's resolver blocks. Nothing is cached, so a
/// changed address is noticed by the next connection.
impl Service<Name> for Names {
    type Response = GaiAddrs;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<Result<GaiAddrs, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let looking = self.0.call(name);
        Box::pin(async move { looking.await.map_err(|error| Unresolvable(error).into()) })
    }
}

impl fmt::Display for Unresolvable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the name has no address")
    }
}

impl std::error::Error for Unresolvable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}
