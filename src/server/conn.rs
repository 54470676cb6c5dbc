//! One connection of a caller: HTTP/1.1, with a deadline for every head and for every answer.

use super::body::RequestBody;
use super::line::{Interim, Line, Notes, Patience};
use crate::gateway::body::OuterBody;
use crate::gateway::flow::AmbiguousFraming;
use crate::metrics::Malformed;
use http::{Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::coop::unconstrained;

/// Bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionBounds {
    /// The largest head, in bytes, at least 8 KiB.
    pub head_bytes: usize,
    /// How long a caller may take for what it sends and for what is sent to it.
    pub patience: Patience,
}

/// Serves one connection until it ends, or until `stopped` says so and its request has ended. Returns
/// why it was closed if what came was no request: that was answered without anybody else seeing it.
/// `stopped` is held to the end, because the listener waits until nobody does.
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
    let handle = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(|body| RequestBody::new(body, &notes));
        if notes.is_ambiguous() && request.headers().contains_key(header::TRANSFER_ENCODING) {
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
            answer.map(with_phrase)
        }
    });
    let connection = http1::Builder::new()
        // The line has the deadline of a head.
        .header_read_timeout(None)
        // The end of the input is no hang-up; the line finds out who has gone.
        .half_close(true)
        .max_header_size(bounds.head_bytes)
        .max_buf_size(bounds.head_bytes.max(8 * 1024))
        // Without pipeline_flush: it would keep the 400 to a malformed head from being sent.
        .serve_connection(io, handle);
    tokio::pin!(connection);
    let ended = match until(connection.as_mut(), &mut stopped).await {
        Some(ended) => ended,
        None => {
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

/// Gives an answer an empty reason phrase if its status has no usual one (RFC 9112, section 4); hyper
/// would make one up.
fn with_phrase<B>(mut answer: Response<B>) -> Response<B> {
    if answer.status().canonical_reason().is_none() {
        let extensions = answer.extensions_mut();
        extensions.get_or_insert_with(|| ReasonPhrase::from_static(b""));
    }
    answer
}

/// What the connection comes to, or `None` as soon as `stopped` says so.
///
/// The connection is polled for every request; waiting for `stopped` takes a lock each time it is
/// polled, so it is polled only where that can make a difference.
async fn until<C: Future>(
    mut connection: Pin<&mut C>,
    stopped: &mut watch::Receiver<bool>,
) -> Option<C::Output> {
    let news = stopped.clone();
    let stop = async { drop(stopped.wait_for(|stopped| *stopped).await) };
    // Out of turns of this task, it would wait without having been registered.
    let mut stop = pin!(unconstrained(stop));
    let mut wakes: Option<Waker> = None;
    poll_fn(|context| {
        if let Poll::Ready(ended) = connection.as_mut().poll(context) {
            return Poll::Ready(Some(ended));
        }
        let will_hear = wakes
            .as_ref()
            .is_some_and(|wakes| wakes.will_wake(context.waker()));
        if !will_hear || news.has_changed().unwrap_or(true) {
            wakes = Some(context.waker().clone());
            return stop.as_mut().poll(context).map(|()| None);
        }
        Poll::Pending
    })
    .await
}
