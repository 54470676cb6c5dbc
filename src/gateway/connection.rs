//! The connection service of the gateway: the hyper service behind each connection of a caller.
//!
//! A plain read that is stored is answered at once, on the [fast path](super::fast_path). Every
//! other request goes through the [layers](super::stack). Both give the same response; only the
//! time differs.
//!
//! Invariant: the service never fails and never panics into hyper. Accepting connections, framing
//! and stopping are not done here; see [`crate::server`].

use crate::exchange::body::BoxError;
use crate::exchange::body::LayeredBody;
use crate::exchange::body::{Guarded, OuterBody};
use crate::exchange::identity::CertificateNames;
use crate::exchange::request::Peer;
use crate::exchange::request_id::RequestIds;
use crate::exchange::source::RequestSource;
use crate::gateway::Gateway;
use crate::gateway::sender_cache::SenderCache;
use crate::gateway::stack::{StackBounds, stack};
use crate::tasks::panic_text;
use bytes::Bytes;
use http::{Request, Response};
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

type Layers<B> = BoxCloneSyncService<Request<B>, Response<LayeredBody>, Infallible>;

/// Creates the service of each connection.
pub struct ConnectionServices<B> {
    paths: Arc<Paths<B>>,
}

// The state shared by all connections of one gateway.
struct Paths<B> {
    gateway: Arc<Gateway>,
    ids: RequestIds,
    layers: Layers<B>,
}

impl<B> ConnectionServices<B>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// Returns the factory for this gateway. One set of bounds applies to all its connections
    /// together.
    pub fn new(gateway: Arc<Gateway>, bounds: StackBounds) -> Self {
        let ids = RequestIds::new();
        let paths = Paths {
            layers: BoxCloneSyncService::new(stack(gateway.clone(), bounds)),
            gateway,
            ids,
        };
        Self {
            paths: Arc::new(paths),
        }
    }

    /// Returns the service for a connection from `peer` with these names in its certificate.
    pub fn connected(&self, peer: SocketAddr, names: CertificateNames) -> ConnectionService<B> {
        ConnectionService {
            paths: Arc::clone(&self.paths),
            peer: Peer(peer),
            senders: SenderCache::new(names),
        }
    }
}

impl<B> fmt::Debug for ConnectionServices<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionServices")
    }
}

/// Responds to the requests of one connection. Never fails.
pub struct ConnectionService<B> {
    paths: Arc<Paths<B>>,
    peer: Peer,
    // The sender of the last request. A reload or the end of its key makes it invalid.
    senders: SenderCache,
}

impl<B> ConnectionService<B>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// Responds to one request, on the fast path or through the layers.
    pub fn answer(&self, mut request: Request<B>) -> ResponseFuture {
        // Order: the fast path first. It has no effect unless it responds, so the layers see the
        // request untouched.
        if let Some(answer) = self.try_fast_path(&request) {
            return ResponseFuture(Path::Fast(Some(answer)));
        }
        // What the connection knows of the request is resolved here, once for all layers.
        let Paths { gateway, ids, .. } = &*self.paths;
        let source = RequestSource {
            peer: Some(self.peer),
            admitted: self
                .senders
                .sender(request.headers(), &gateway.router, || gateway.clock.wall()),
            certificate: self.senders.certificate().clone(),
            ..RequestSource::received(&mut request, ids, gateway.tracer.as_ref())
        };
        request.extensions_mut().insert(source);
        ResponseFuture(Path::Full(Box::pin(
            self.paths.layers.clone().oneshot(request),
        )))
    }

    /// Tries the fast path. A panic there is logged, and the request goes through the layers, which
    /// have a panic guard of their own.
    fn try_fast_path(&self, request: &Request<B>) -> Option<Response<OuterBody>> {
        let Paths { gateway, ids, .. } = &*self.paths;
        let answer = catch_unwind(AssertUnwindSafe(|| {
            gateway.try_fast_path(request, self.peer, &self.senders, ids)
        }));
        let answer = answer.unwrap_or_else(|cause| {
            let cause = panic_text(cause.as_ref());
            tracing::error!(cause, "fast path panicked");
            None
        })?;
        // The guard counts the body as in flight until its last byte is taken, as the layers do.
        let guard = gateway.metrics.body();
        Some(answer.map(|body| OuterBody::Held(Guarded::new(body, guard))))
    }
}

impl<B> fmt::Debug for ConnectionService<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionService({})", self.peer.0)
    }
}

impl<B> hyper::service::Service<Request<B>> for ConnectionService<B>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<OuterBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn call(&self, request: Request<B>) -> ResponseFuture {
        self.answer(request)
    }
}

/// A response in progress. Dropping the future cancels the request, as a caller that hangs up does.
#[must_use = "a future does nothing unless it is polled"]
pub struct ResponseFuture(Path);

impl ResponseFuture {
    /// Returns whether the response came from the fast path and is ready.
    pub fn is_fast_path(&self) -> bool {
        matches!(self.0, Path::Fast(_))
    }
}

// Not boxed on the fast path: a hit allocates no future.
enum Path {
    Fast(Option<Response<OuterBody>>),
    Full(Pin<Box<dyn Future<Output = Result<Response<LayeredBody>, Infallible>> + Send>>),
}

impl Future for ResponseFuture {
    type Output = Result<Response<OuterBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            Path::Fast(answer) => match answer.take() {
                Some(answer) => Poll::Ready(Ok(answer)),
                // The response was taken already. Polling a completed future is a mistake of the
                // caller.
                None => Poll::Pending,
            },
            Path::Full(answer) => answer
                .as_mut()
                .poll(context)
                .map_ok(|answer| answer.map(OuterBody::layered)),
        }
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}
