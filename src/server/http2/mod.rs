//! One connection of a caller that speaks HTTP/2, with the deadlines and bounds of HTTP/1.1.
//!
//! The HTTP library `h2` frames and compresses. It is used directly: hyper's server hands a whole
//! piece of a body to it as soon as one byte of the window is open, and then forgets the stream, so
//! that no deadline could watch a caller that takes the rest never.
//!
//! | what a caller does | what ends it |
//! |---|---|
//! | sends no preface | the deadline of a head |
//! | has no stream open | the idle timeout, with GOAWAY |
//! | does not open the window of a stream | the deadline of a write, for that stream |
//! | takes a response too slowly | the deadline of a response, for that stream |
//! | accepts no bytes at all | the deadline of a write, for the connection |
//! | is gone without a trace while a stream is open | a PING without an answer |
//! | sends a body too slowly | the deadline of a body, as on HTTP/1.1 |
//!
//! A response that is there at once is sent by the task of the connection. Every other one has a
//! task of its own, which ends with the connection.
//!
//! What a request means is the service's business.

mod exchange;
mod head;
mod timers;

use super::body::RequestBody;
use super::conn::ConnectionBounds;
use super::deadlines::StreamDeadlines;
use super::notes::Notes;
use super::timed_stream::TimedStream;
use crate::clock::Clock;
use crate::exchange::body::OuterBody;
use crate::metrics::{Connections, Malformed};
use bytes::Bytes;
use exchange::{ExchangeSpec, SEND_BUFFER, Unsent, respond};
use h2::RecvStream;
use h2::server::{Builder, Connection, SendResponse};
use http::{Method, Request, Response, StatusCode, header};
use hyper::service::Service;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use timers::{IdleTimer, KeepAlive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The name of the protocol in ALPN (RFC 9113, section 3.2).
pub const ALPN: &[u8] = b"h2";

/// The most streams that a caller may have open at once.
const MOST_STREAMS: u32 = 100;
/// The most bytes of a request body that a caller may send before the gateway has read any. Almost
/// every body fits. The largest takes a round trip for each of these.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for all streams of a connection together, which bounds the memory of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// The most streams that a caller may open and reset before the gateway has seen them. One more
/// ends the connection (CVE-2023-44487).
const MOST_UNSEEN_RESETS: usize = 20;
/// The most streams that are reset because of the caller's errors, over the whole life of a
/// connection. One more ends it. A balancer's connection carries the errors of many callers.
const MOST_ERRORS: usize = 1024;
/// The time for the caller to take the rest of what was sent and to confirm the end of a connection
/// without streams. A caller that is gone delays a stop by as much.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves one connection until it ends, or until `stopped` is set and its requests have ended.
///
/// Returns the reason if it was closed because of bytes that are not HTTP/2. `stopped` is held to
/// the end, because the listener waits until no receiver is left.
pub async fn serve<I, S>(
    io: I,
    peer: SocketAddr,
    service: S,
    bounds: ConnectionBounds,
    seen: Connections,
    mut stopped: watch::Receiver<bool>,
) -> Option<Malformed>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<RequestBody>, Response = Response<OuterBody>, Error = Infallible>,
    S: Send + 'static,
    S::Future: Send + 'static,
{
    // A write of the connection belongs to no response of its own: each stream has its deadline.
    let of_writes = StreamDeadlines {
        answer: Duration::MAX,
        ..bounds.deadlines
    };
    let stream = TimedStream::new(io, Notes::default(), of_writes);
    let handshake = timeout(
        bounds.deadlines.head,
        builder(bounds.head_bytes).handshake(stream),
    );
    let connected = tokio::select! {
        biased;
        _ = stopped.wait_for(|stopped| *stopped) => return None,
        connected = handshake => connected,
    };
    let ended = match connected {
        Ok(Ok(connection)) => {
            let streams = Streams::new(service, bounds.deadlines, seen);
            run(connection, streams, stopped).await
        }
        Ok(Err(error)) => Err(error),
        Err(_) => return Some(Malformed::Timeout),
    };
    let error = ended.err()?;
    // What the library ends by itself broke the protocol. The rest is a lost connection, or the
    // caller's own decision.
    if !error.is_library() {
        tracing::debug!(%peer, %error, "connection ended with an error");
        return None;
    }
    let reason = Malformed::Head;
    tracing::info!(%peer, reason = reason.as_str(), %error, "malformed request");
    Some(reason)
}

/// Returns the settings of a connection.
fn builder(head_bytes: usize) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(MOST_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MOST_UNSEEN_RESETS)
        .max_local_error_reset_streams(Some(MOST_ERRORS));
    builder
}

/// Serves streams until the connection ends. Fails if it ends otherwise than agreed.
///
/// Only accepting drives the connection: it reads and writes the frames of all streams. So it is
/// polled first whatever wakes the task, and the other branches only when it has nothing to do.
async fn run<I, S>(
    mut connection: Connection<TimedStream<I>, Bytes>,
    mut streams: Streams<S>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), h2::Error>
where
    I: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<RequestBody>, Response = Response<OuterBody>, Error = Infallible>,
    S::Future: Send + 'static,
{
    let mut keep_alive = KeepAlive::new(connection.ping_pong(), streams.deadlines.piece);
    let mut idle = IdleTimer::new(streams.deadlines.idle);
    let mut stop = pin!(async { drop(stopped.wait_for(|stopped| *stopped).await) });
    let mut is_closing = false;
    loop {
        tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                Some(accepted) => {
                    let (request, response) = accepted?;
                    streams.begin(request, response).await;
                    idle.restart();
                }
                None => return Ok(()),
            },
            Some(_) = streams.tasks.join_next() => idle.restart(),
            () = &mut stop, if !is_closing => {
                is_closing = true;
                idle.shorten(FAREWELL);
                connection.graceful_shutdown();
            }
            () = idle.overdue(), if streams.tasks.is_empty() => {
                // Asked to end already, and it does not answer.
                if is_closing {
                    return Ok(());
                }
                is_closing = true;
                idle.shorten(FAREWELL);
                connection.graceful_shutdown();
            }
            () = keep_alive.lost(), if !streams.tasks.is_empty() => {
                tracing::debug!("connection lost: no answer to a PING");
                return Ok(());
            }
        }
    }
}

/// The open streams of a connection.
struct Streams<S> {
    service: S,
    deadlines: StreamDeadlines,
    /// Counts the streams that have a task.
    seen: Connections,
    /// The time of day, for responses without a date of their own.
    clock: Clock,
    /// The streams whose response was not there at once. Dropping them hangs up.
    tasks: JoinSet<()>,
}

impl<S> Streams<S>
where
    S: Service<Request<RequestBody>, Response = Response<OuterBody>, Error = Infallible>,
    S::Future: Send + 'static,
{
    /// Returns the state of a connection on which nothing was asked.
    fn new(service: S, deadlines: StreamDeadlines, seen: Connections) -> Self {
        Self {
            service,
            deadlines,
            seen,
            clock: Clock::system(),
            tasks: JoinSet::new(),
        }
    }

    /// Begins to respond to a request. Does not wait for anything: the response is polled once, and
    /// goes on in a task of its own if it is not ready.
    async fn begin(&mut self, request: Request<RecvStream>, mut response: SendResponse<Bytes>) {
        let (mut head, stream) = request.into_parts();
        head::to_http1(&mut head);
        // RFC 9110, section 10.1.1.
        let expects = head.headers.get(header::EXPECT);
        let expects =
            expects.is_some_and(|what| what.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        if expects && !stream.is_end_stream() {
            let mut interim = Response::new(());
            *interim.status_mut() = StatusCode::CONTINUE;
            let _ = response.send_informational(interim);
        }
        let spec = ExchangeSpec {
            is_head: head.method == Method::HEAD,
            deadlines: self.deadlines,
        };
        let body = RequestBody::http2(stream, &head.headers);
        let answer = self.service.call(Request::from_parts(head, body));
        // A hit is ready at once. Unless it is larger than the window, it needs no task.
        let mut exchange = Box::pin(respond(answer, response, spec, self.clock.clone()));
        let polled = poll_fn(|context| Poll::Ready(exchange.as_mut().poll(context))).await;
        match polled {
            Poll::Ready(sent) => log_unsent(sent),
            Poll::Pending => {
                let open = self.seen.opened_stream();
                self.tasks.spawn(async move {
                    let _open = open;
                    log_unsent(exchange.await);
                });
            }
        }
    }
}

/// Logs the end of a stream that was not the end of its response. A caller that has gone is
/// reported with its request.
fn log_unsent(sent: Result<(), Unsent>) {
    match sent {
        Ok(()) | Err(Unsent::Gone) => {}
        Err(Unsent::Stalled) => {
            tracing::debug!("stream reset: the caller does not take its answer")
        }
        Err(Unsent::Broken(error)) => tracing::debug!(%error, "stream reset: the body broke off"),
    }
}

#[cfg(test)]
mod tests;
