//! Connections that are ready for requests: dialled, tunnelled through the proxy, encrypted, all
//! within one time limit.
//!
//! The client has this time limit too. It is repeated here because hyper continues to connect in
//! the background after another connection became free. Such an attempt must end as well. A failure
//! is logged when its reason changes, not at every attempt.
//!
//! Promises for abandoned requests: an HTTP/1.1 connection that ends before its request has a
//! response is reset, never closed in order. The system then discards what it has not delivered
//! yet. Otherwise the API could still receive and carry out a write that the gateway has given up.
//!
//! Whether a connection is abandoned is recorded in `life.rs`. Pooling, reuse and the choice
//! between waiting for a connection and making one are hyper's.

use std::error::Error;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tower::{Service, ServiceExt as _};

use super::base::Base;
use super::causes::chain;
use super::dial::{BoxFuture, Dial, Io, Stream};
use super::failure::ConnectFailure;
use super::life::Life;
use super::outcome::NotSent;
use super::proxy::{Gate, Route};
use super::spec::{ClientSpec, Destination};
use crate::clock::Clock;

/// Makes connections to the one upstream. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connector {
    plan: Arc<Plan>,
}

/// What all connections share.
struct Plan {
    /// Opens the stream below everything else: to the API, or to the proxy.
    dial: Dial,
    /// Direct, through a tunnel, or to a proxy that forwards. Fixed for the life of the client.
    route: Route,
    /// `None` for an upstream without TLS.
    tls: Option<TlsPeer>,
    /// The time limit for one connection, from the first look-up of the name to the end of the TLS
    /// handshake.
    limit: Duration,
    clock: Clock,
    /// The server, for the log.
    server: Server,
    /// The last logged failure. `None` while connections succeed.
    trouble: Mutex<Option<NotSent>>,
}

/// The server as the log names it.
pub(super) struct Server {
    pub(super) destination: Destination,
    /// Has neither a user name nor a path, so nothing secret is in it.
    pub(super) base: Base,
}

/// The TLS settings, and the name for which the certificate of the peer must be valid.
pub(super) struct TlsPeer {
    pub(super) config: Arc<ClientConfig>,
    /// The host of the base URL. Behind a tunnel, too: a proxy never ends the encryption.
    pub(super) name: ServerName<'static>,
}

impl Connector {
    /// Creates a connector. Its clones share the failure that was logged last.
    ///
    /// The connect limit of `spec` applies to each connection as a whole. Nothing is opened before
    /// hyper asks for it.
    pub(super) fn new(
        dial: Dial,
        route: Route,
        tls: Option<TlsPeer>,
        spec: &ClientSpec,
        clock: Clock,
    ) -> Self {
        let server = Server {
            destination: spec.destination,
            base: spec.base.clone(),
        };
        let plan = Arc::new(Plan {
            dial,
            route,
            tls,
            limit: spec.connect,
            clock,
            server,
            trouble: Mutex::new(None),
        });
        Self { plan }
    }
}

impl Service<Uri> for Connector {
    type Response = Link;
    type Error = ConnectFailure;
    type Future = BoxFuture<Result<Link, ConnectFailure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let plan = Arc::clone(&self.plan);
        Box::pin(async move {
            // Covers dialling, the proxy and the TLS handshake together.
            let limit = plan.clock.now() + plan.limit;
            let result = tokio::time::timeout_at(limit.into(), plan.connect(target))
                .await
                .unwrap_or_else(|_| Err(ConnectFailure::new(NotSent::ConnectTimeout, None)));
            plan.log(&result);
            result
        })
    }
}

impl Plan {
    /// Makes one connection: the stream, then the tunnel, then TLS. TLS is always spoken with the
    /// API itself, even through a tunnel, so a proxy sees neither tokens nor bodies.
    async fn connect(&self, target: Uri) -> Result<Link, ConnectFailure> {
        let dial = self.dial.clone();
        let (stream, forwarded) = match &self.route {
            Route::Direct => (dial.oneshot(target).await?, false),
            Route::Tunnel(gate) => (tunnel(dial, gate, target).await?, false),
            // The connection ends at the proxy, which connects to the API by itself.
            Route::Forward(gate) => {
                let stream = dial
                    .oneshot(gate.uri.clone())
                    .await
                    .map_err(proxy_failure)?;
                (stream, true)
            }
        };
        let (io, h2) = match &self.tls {
            None => (stream, false),
            Some(peer) => encrypt(stream, peer).await?,
        };
        Ok(Link::new(io, Kind { h2, forwarded }, self.clock.now()))
    }

    /// Logs a failure if its reason differs from that of the failure before, and the first success
    /// after failures. Connections that hyper makes in the background are included.
    fn log(&self, result: &Result<Link, ConnectFailure>) {
        let mut trouble = self.trouble.lock();
        match result {
            Ok(_) if trouble.is_some() => {
                *trouble = None;
                self.log_success();
            }
            Err(failure) if *trouble != Some(failure.reason) => {
                *trouble = Some(failure.reason);
                self.log_failure(failure);
            }
            _ => {}
        }
    }

    /// Logs the first success after failures.
    fn log_success(&self) {
        let url = &self.server.base;
        match self.server.destination {
            Destination::Api => tracing::info!(%url, "the API accepts connections again"),
            // Whether it takes spans is logged by whoever sends them.
            Destination::TraceCollector => {
                tracing::debug!(%url, "the trace collector accepts connections again");
            }
        }
    }

    /// Logs a failure. That of the trace collector concerns no request, and whoever sends spans
    /// logs what it means.
    fn log_failure(&self, failure: &ConnectFailure) {
        let (url, reason) = (&self.server.base, failure.reason.as_str());
        // The URI of a proxy has no credentials: they are kept apart from it.
        let proxy = match &self.route {
            Route::Direct => None,
            Route::Tunnel(gate) | Route::Forward(gate) => Some(tracing::field::display(&gate.uri)),
        };
        let detail = chain(failure);
        // A proxy that fails is named first: the API may be well.
        match (self.server.destination, failure.reason) {
            (Destination::Api, NotSent::Proxy) => {
                tracing::warn!(%url, proxy, reason, %detail, "the proxy opens no way to the API");
            }
            (Destination::Api, _) => {
                tracing::warn!(%url, proxy, reason, %detail, "cannot connect to the API");
            }
            (Destination::TraceCollector, _) => {
                tracing::debug!(%url, reason, %detail, "cannot connect to the trace collector");
            }
        }
    }
}

/// Opens a CONNECT tunnel through the proxy to the target.
///
/// The proxy gets its credentials here and only here. A rejected CONNECT counts as a failure of the
/// proxy, whatever status it names.
async fn tunnel(dial: Dial, gate: &Gate, target: Uri) -> Result<Stream, ConnectFailure> {
    let tunnel = Tunnel::new(gate.uri.clone(), dial);
    let tunnel = match &gate.authorization {
        Some(value) => tunnel.with_auth(value.clone()),
        None => tunnel,
    };
    tunnel.oneshot(target).await.map_err(proxy_failure)
}

/// Attributes any failure up to the proxy's response to the proxy.
///
/// A proxy that cannot be resolved or reached is therefore not reported as an unreachable API,
/// which operators would look for in the wrong place.
fn proxy_failure(error: impl Error + Send + Sync + 'static) -> ConnectFailure {
    ConnectFailure::new(NotSent::Proxy, Some(Box::new(error)))
}

/// Performs the TLS handshake. Returns the encrypted stream and whether the peer chose HTTP/2.
///
/// ALPN alone decides about HTTP/2 (RFC 9113, section 3.2). A peer that names no protocol gets
/// HTTP/1.1.
async fn encrypt(stream: Stream, peer: &TlsPeer) -> Result<(Stream, bool), ConnectFailure> {
    let connector = TlsConnector::from(Arc::clone(&peer.config));
    let stream = connector
        .connect(peer.name.clone(), stream.into_inner())
        .await
        .map_err(tls_failure)?;
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((TokioIo::new(Box::new(stream) as Box<dyn Io>), h2))
}

/// Separates a rejected certificate, for which operators have a remedy, from other TLS failures.
fn tls_failure(error: io::Error) -> ConnectFailure {
    let cause = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let reason = match cause {
        Some(rustls::Error::InvalidCertificate(_)) => NotSent::Certificate,
        _ => NotSent::Tls,
    };
    ConnectFailure::new(reason, Some(Box::new(error)))
}

/// The properties of a connection that hyper must know before it sends a request.
struct Kind {
    /// Whether the peer chose HTTP/2. Then the connection carries many requests at once.
    h2: bool,
    /// Whether a proxy forwards the requests. hyper then writes the absolute URL into the request
    /// line.
    forwarded: bool,
}

/// One connection, as hyper holds it.
///
/// Owned by a task of hyper. Every end of a connection passes through its `Drop`: after an error,
/// at the end of its lifetime, or because an attempt was given up.
pub(super) struct Link {
    /// The stream that carries requests, already encrypted if the API has TLS.
    io: Stream,
    kind: Kind,
    /// The state that this connection shares with the client, which reports each request and
    /// response to it.
    life: Life,
    /// Dropped with the connection, which ends the task that would retire it.
    _open: watch::Sender<()>,
}

impl Link {
    fn new(io: Stream, kind: Kind, born: Instant) -> Self {
        let (life, open) = Life::new(born, kind.h2);
        Self {
            io,
            kind,
            life,
            _open: open,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // A request has no response yet. A reset discards what the system has not delivered, so
        // that nothing of the request arrives later.
        if self.life.is_waiting() {
            self.io.inner().reset_when_dropped();
        }
    }
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        // The client finds the life of the chosen connection among these extras.
        let connected = Connected::new()
            .proxy(self.kind.forwarded)
            .extra(self.life.clone());
        if self.kind.h2 {
            connected.negotiated_h2()
        } else {
            connected
        }
    }
}

impl Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // An orderly close would deliver a request that is to be abandoned, and the API would carry
        // it out.
        if self.life.is_waiting() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    /// Passed on, because hyper otherwise copies head and body into one buffer.
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, bytes)
    }
}
