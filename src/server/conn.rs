//! One connection of a caller: HTTP/1.1, with a deadline for every head and for every response.
//!
//! hyper parses and writes; [`WatchedStream`] below it watches the bytes; [`Notes`] connect the
//! two. What a request means is the service's business.

use super::body::{RequestBody, ResponseBody};
use super::deadlines::StreamDeadlines;
use super::notes::{Interim, Notes};
use super::refusals::MalformedReplies;
use super::watched_stream::WatchedStream;
use crate::exchange::body::OuterBody;
use crate::exchange::request::AmbiguousFraming;
use crate::metrics::Malformed;
use http::{HeaderValue, Request, Response, Version, header};
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

/// The bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionBounds {
    /// The largest head, in bytes, at least 8 KiB.
    pub head_bytes: usize,
    /// The time a caller may take to send, and to read what is sent.
    pub deadlines: StreamDeadlines,
}

/// Serves one connection until it ends, or until `stopped` is set and its request has ended.
///
/// Returns the reason if it was closed because of bytes that are not a request. The stream has
/// answered those, and no service has seen them. `stopped` is held to the end, because the listener
/// waits until no receiver is left.
pub async fn serve<I, S>(
    io: I,
    peer: SocketAddr,
    service: S,
    bounds: ConnectionBounds,
    refusals: MalformedReplies,
    mut stopped: watch::Receiver<bool>,
) -> Option<Malformed>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<RequestBody>, Response = Response<OuterBody>, Error = Infallible>,
    S: Send + 'static,
    S::Future: Send,
{
    let notes = Notes::default();
    let stream = WatchedStream::new(io, notes.clone(), bounds.deadlines, refusals);
    let of_service = notes.clone();
    let handle = service_fn(move |request| served(&service, &of_service, request));
    let mut connection = http1::Builder::new()
        // The stream enforces the deadline of a head.
        .header_read_timeout(None)
        // The end of the input is no hang-up. The stream finds out whether the caller has gone.
        .half_close(true)
        .max_header_size(bounds.head_bytes)
        .max_buf_size(bounds.head_bytes.max(8 * 1024))
        // Without `pipeline_flush`, which would keep the 400 to a malformed head from being sent.
        .serve_connection(TokioIo::new(stream), handle);
    let ended = match until(Pin::new(&mut connection), &mut stopped).await {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let error = ended.err();
    let reason = log_end(peer, &notes, error.as_ref());
    // Only after a regular end, an unreadable head or a late one does the caller wait for a last
    // response. Any other error means that the connection is lost.
    if error.as_ref().is_none_or(hyper::Error::is_parse) || notes.refused().is_some() {
        let stop = async { drop(stopped.wait_for(|stopped| *stopped).await) };
        connection.into_parts().io.into_inner().close(stop).await;
    }
    reason
}

/// Responds to one request.
fn served<S>(
    service: &S,
    notes: &Notes,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> + use<S>
where
    S: Service<Request<RequestBody>, Response = Response<OuterBody>, Error = Infallible>,
{
    let mut request = request.map(|body| RequestBody::http1(body, notes));
    if notes.is_ambiguous() && request.headers().contains_key(header::TRANSFER_ENCODING) {
        request.extensions_mut().insert(AmbiguousFraming);
    }
    let interim = match request.version() {
        Version::HTTP_11 => Interim::Understood,
        _ => Interim::Unknown,
    };
    // Noted before the service is called, so that the stream watches the caller from the start.
    let (exchange, notes) = (notes.taken_up(interim), notes.clone());
    let answer = service.call(request);
    async move {
        let Ok(mut answer) = answer.await;
        exchange.answered();
        if notes.is_body_unread() {
            // hyper drops the rest of the body and closes the connection.
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
        }
        Ok(with_phrase(answer).map(|body| ResponseBody::new(body, exchange)))
    }
}

/// Logs an unusual end of a connection. Returns the reason if its bytes were not a request.
fn log_end(peer: SocketAddr, notes: &Notes, error: Option<&hyper::Error>) -> Option<Malformed> {
    let refused = notes.refused();
    let id = refused.and_then(|(_, id)| id.to_str().ok());
    let reason = match (refused, error) {
        (Some((reason, _)), _) => *reason,
        (None, Some(error)) if error.is_parse_too_large() => Malformed::TooLarge,
        (None, Some(error)) if error.is_parse() => Malformed::Head,
        (None, Some(error)) => {
            tracing::debug!(%peer, error = %error, "connection ended with an error");
            return None;
        }
        (None, None) => return None,
    };
    let error = error.map(tracing::field::display);
    tracing::info!(%peer, reason = reason.as_str(), error, request_id = id, "malformed request");
    Some(reason)
}

/// Sets an empty reason phrase if the status has no usual one (RFC 9112, section 4). hyper would
/// invent one.
fn with_phrase<B>(mut answer: Response<B>) -> Response<B> {
    if answer.status().canonical_reason().is_none() {
        let extensions = answer.extensions_mut();
        extensions.get_or_insert_with(|| ReasonPhrase::from_static(b""));
    }
    answer
}

/// Returns the result of the connection, or `None` as soon as `stopped` is set.
///
/// The connection is polled for every request. Waiting for `stopped` takes a lock at each poll, so
/// it is polled only if that can make a difference: with a new waker, or after a change.
async fn until<C: Future>(
    mut connection: Pin<&mut C>,
    stopped: &mut watch::Receiver<bool>,
) -> Option<C::Output> {
    let news = stopped.clone();
    let stop = async { drop(stopped.wait_for(|stopped| *stopped).await) };
    // A task out of its coop budget would get `Pending` here without being registered.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio::time::sleep;

    const DEADLINES: StreamDeadlines = StreamDeadlines {
        idle: Duration::from_secs(75),
        head: Duration::from_secs(10),
        piece: Duration::from_secs(30),
        answer: Duration::from_secs(300),
    };

    #[tokio::test(start_paused = true)]
    async fn the_rest_of_a_refused_request_does_not_hold_up_a_stop() {
        for stops_at_once in [true, false] {
            let bounds = ConnectionBounds {
                head_bytes: 32 * 1024,
                deadlines: DEADLINES,
            };
            let service = service_fn(|_: Request<RequestBody>| {
                std::future::pending::<Result<Response<OuterBody>, Infallible>>()
            });
            let (stop, stopped) = watch::channel(stops_at_once);
            let (mut caller, server) = tokio::io::duplex(10_000);
            caller.write_all(b"nonsense\r\n\r\n").await.unwrap();
            let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
            let refusals = MalformedReplies::new(bounds.head_bytes);
            let from = sleep(Duration::ZERO).deadline();
            let served = serve(server, peer, service, bounds, refusals, stopped);
            let stops = async {
                sleep(Duration::from_secs(2)).await;
                stop.send_replace(true);
                stop.closed().await;
                sleep(Duration::ZERO).deadline() - from
            };
            let (reason, took) = tokio::join!(served, stops);
            assert_eq!(reason, Some(Malformed::Head));
            assert!(took <= Duration::from_secs(3), "{took:?}");
        }
    }
}
