//! A connection that was accepted: with TLS or without it, up to its end.

use super::body::RequestBody;
use super::conn::{self, ConnectionBounds};
use super::http2;
use super::refusals::MalformedReplies;
use super::tls::{self, SecureListener};
use crate::exchange::body::OuterBody;
use crate::exchange::identity::CertificateNames;
use crate::metrics::{Connections, Malformed};
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
    pub(super) seen: Connections,
}

impl InboundConnection {
    /// Serves the connection as [`conn::serve`] does, after a handshake if there is TLS, or as
    /// [`http2::serve`] does if the two sides agreed on HTTP/2 there (ALPN, RFC 7301).
    ///
    /// `connected` creates the service once the client certificate is known.
    ///
    /// HTTP/2 without TLS is not served: nothing announces it, and a listener that guesses by the
    /// first bytes is a second way to read them.
    pub(super) async fn serve<S>(
        self,
        connected: impl FnOnce(CertificateNames) -> S + Send,
        tls: Option<SecureListener>,
    ) -> Option<Malformed>
    where
        S: Service<Request<RequestBody>, Response = Response<OuterBody>, Error = Infallible>,
        S: Send + 'static,
        S::Future: Send + 'static,
    {
        let Self {
            stream,
            peer,
            bounds,
            refusals,
            stopped,
            seen,
        } = self;
        let Some(secure) = tls else {
            let service = connected(CertificateNames::default());
            return conn::serve(stream, peer, service, bounds, refusals, stopped).await;
        };
        // Boxed: the task of a connection without TLS would otherwise have room for its state.
        Box::pin(async move {
            let stream = secure.accept(stream, peer, &refusals, &stopped).await?;
            let session = stream.get_ref().1;
            let service = connected(tls::client_names(session));
            match session.alpn_protocol() {
                Some(http2::ALPN) => {
                    http2::serve(stream, peer, service, bounds, seen, stopped).await
                }
                _ => conn::serve(stream, peer, service, bounds, refusals, stopped).await,
            }
        })
        .await
    }
}
