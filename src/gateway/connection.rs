//! The door of the gateway: where a connection's requests come in and its answers go out.
//!
//! A plain read that is in the store is answered at once, the [fast path](super::fast_path);
//! everything else goes through the [layers](super::stack). Which way it was shows in nothing but
//! the time it took.

use crate::exchange::body::BoxError;
use crate::exchange::body::LayeredBody;
use crate::exchange::body::{Guarded, OuterBody};
use crate::exchange::request::Peer;
use crate::exchange::request_id::RequestIds;
use crate::gateway::Gateway;
use crate::gateway::fast_path::Memory;
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

/// Opens a door for each connection.
pub struct Front<B> {
    ways: Arc<Ways<B>>,
}

struct Ways<B> {
    gateway: Arc<Gateway>,
    ids: RequestIds,
    layers: Layers<B>,
}

impl<B> Front<B>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// The front of this gateway. What its connections do at once is bounded together.
    pub fn new(gateway: Arc<Gateway>, bounds: StackBounds) -> Self {
        let ids = RequestIds::new();
        let ways = Ways {
            layers: BoxCloneSyncService::new(stack(gateway.clone(), ids.clone(), bounds)),
            gateway,
            ids,
        };
        Self {
            ways: Arc::new(ways),
        }
    }

    /// The door for a connection from `peer`.
    pub fn connected(&self, peer: SocketAddr) -> Door<B> {
        Door {
            ways: Arc::clone(&self.ways),
            peer: Peer(peer),
            memory: Memory::default(),
        }
    }
}

impl<B> fmt::Debug for Front<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Front")
    }
}

/// Answers the requests of one connection. Never fails.
pub struct Door<B> {
    ways: Arc<Ways<B>>,
    peer: Peer,
    memory: Memory,
}

impl<B> Door<B>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// Answers one request.
    pub fn answer(&self, mut request: Request<B>) -> Answering {
        if let Some(answer) = self.at_once(&request) {
            return Answering(Way::Short(Some(answer)));
        }
        request.extensions_mut().insert(self.peer);
        Answering(Way::Long(Box::pin(
            self.ways.layers.clone().oneshot(request),
        )))
    }

    /// A panic here is told about, and the long way taken, which has a guard of its own.
    fn at_once(&self, request: &Request<B>) -> Option<Response<OuterBody>> {
        let Ways { gateway, ids, .. } = &*self.ways;
        let answer = catch_unwind(AssertUnwindSafe(|| {
            gateway.at_once(request, self.peer, &self.memory, ids)
        }));
        let answer = answer.unwrap_or_else(|cause| {
            let cause = panic_text(cause.as_ref());
            tracing::error!(cause, "the short way of a hit panicked");
            None
        })?;
        let guard = gateway.metrics.body();
        Some(answer.map(|body| OuterBody::Held(Guarded::new(body, guard))))
    }
}

impl<B> fmt::Debug for Door<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Door({})", self.peer.0)
    }
}

impl<B> hyper::service::Service<Request<B>> for Door<B>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<OuterBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<B>) -> Answering {
        self.answer(request)
    }
}

/// The answer to come; dropping it is hanging up.
#[must_use = "a future does nothing unless it is polled"]
pub struct Answering(Way);

impl Answering {
    /// Whether it came by the short way, and is there already.
    pub fn is_at_once(&self) -> bool {
        matches!(self.0, Way::Short(_))
    }
}

enum Way {
    Short(Option<Response<OuterBody>>),
    Long(Pin<Box<dyn Future<Output = Result<Response<LayeredBody>, Infallible>> + Send>>),
}

impl Future for Answering {
    type Output = Result<Response<OuterBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            Way::Short(answer) => match answer.take() {
                Some(answer) => Poll::Ready(Ok(answer)),
                // It was taken, and nobody may ask again.
                None => Poll::Pending,
            },
            Way::Long(answer) => answer
                .as_mut()
                .poll(context)
                .map_ok(|answer| answer.map(OuterBody::layered)),
        }
    }
}

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answering")
    }
}
