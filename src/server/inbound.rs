//! A connection that was accepted: with TLS or without it, up to its end.

use super::body::RequestBody;
use super::conn::{self, ConnectionBounds};
use super::refusals::MalformedReplies;
use super::tls::SecureListener;
use crate::exchange::body::OuterBody;
use crate::metrics::Malformed;
use http::{Request, Response};
use hyper::service::Service;
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// A connection that was accepted and has a place.
pub(super) struct InboundConnection {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) bounds: ConnectionBounds,
    pub(super) refusals: MalformedReplies,
    pub(super) stopped: watch::Receiver<bool>,
}

impl InboundConnection {
    /// Serves the connection as [`conn::serve`] does, after a handshake if there is TLS.
    pub(super) async fn serve<S>(self, service: S, tls: Option<SecureListener>) -> Option<Malformed>
    where
        S: Service<Request<RequestBody>, Response = Response<OuterBody>, Error = Infallible>,
        S: Send + 'static,
        S::Future: Send,
    {
        let Self {
            stream,
            peer,
            bounds,
            refusals,
            stopped,
        } = self;
        let Some(tls) = tls else {
            return conn::serve(stream, peer, service, bounds, refusals, stopped).await;
        };
        // Boxed: the task of a connection without TLS would otherwise have room for its state.
        Box::pin(async move {
            let stream = tls.accept(stream, peer, &refusals, &stopped).await?;
            conn::serve(stream, peer, service, bounds, refusals, stopped).await
        })
        .await
    }
}
