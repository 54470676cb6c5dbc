//! One connection of a caller: HTTP/1.1, with a deadline for every head and for every answer.

use super::line::{Interim, Line, Notes, Patience};
use crate::gateway::body::OuterBody;
use crate::gateway::flow::AmbiguousFraming;
use crate::metrics::Malformed;
use http::{Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

/// The body of a request as it comes from a connection.
pub type RequestBody = Incoming;

/// Bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionBounds {
    /// A whole head must have arrived within this time from the connection's or the last answer's
    /// end, the first byte included: it bounds idle connections too.
    pub head: Duration,
    /// The largest head, in bytes, at least 8 KiB.
    pub head_bytes: usize,
    /// How long a caller may take for what is sent to it.
    pub patience: Patience,
}

/// Serves one connection until it ends, or until `stopped` says so and its request has ended. Returns
/// why it was closed if what came was no request: that was answered without anybody else seeing it.
pub async fn serve<I, S>(
    io: I,
    peer: SocketAddr,
    service: S,
    bounds: ConnectionBounds,
    mut stopped: watch::Receiver<bool>,
) -> Option<Malformed>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<RequestBody>, Response = Response<OuterBody>, Error = Infallible>,
    S: Send + 'static,
    S::Future: Send,
{
    let notes = Notes::default();
    let io = TokioIo::new(Line::new(io, notes.clone(), bounds.patience));
    let handle = service_fn(move |mut request: Request<Incoming>| {
        if request.headers().contains_key(header::TRANSFER_ENCODING) && notes.is_ambiguous() {
            request.extensions_mut().insert(AmbiguousFraming);
        }
        let interim = match request.version() {
            Version::HTTP_11 => Interim::Understood,
            _ => Interim::Unknown,
        };
        let waiting = notes.taken_up(interim);
        let answer = service.call(request);
        async move {
            let answer = answer.await;
            waiting.answered();
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        // The end of the input is no hang-up; the line finds out who has gone.
        .half_close(true)
        .max_header_size(bounds.head_bytes)
        .max_buf_size(bounds.head_bytes.max(8 * 1024))
        // Without pipeline_flush: it would keep the 400 to a malformed head from being sent.
        .serve_connection(io, handle);
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    let error = ended.err()?;
    if error.is_parse() {
        let reason = if error.is_parse_too_large() {
            Malformed::TooLarge
        } else {
            Malformed::Head
        };
        tracing::info!(%peer, reason = reason.as_str(), error = %error, "what came was no request");
        return Some(reason);
    }
    tracing::debug!(%peer, error = %error, "a connection ended with an error");
    None
}
