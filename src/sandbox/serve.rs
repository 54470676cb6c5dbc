//! The sandbox's connections: HTTP/1.1 over any byte stream.
//!
//! Each request is handled in a task of its own. A client that hangs up neither prevents its
//! arrival nor undoes its effect, as with a real API.
//!
//! A request passes through these steps: its body is read, its plan is drawn, it travels
//! (`arrive`), it is counted and takes effect, its response travels (`reply`), and is sent or lost.
//! Drawing a plan and taking effect need the lock of the core, and neither waits while it has the
//! lock.
//!
//! HTTP/2 and TLS are not offered. The sandbox's own paths skip all steps but the first: they have
//! no delays, no faults and no place in the log.

use std::fmt;
use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::JoinSet;

use super::core::Request;
use super::faults::Loss;
use super::reply::{self, ApiResponse};
use super::request::{ApiError, Query};
use super::{Sandbox, control};
use crate::tasks;

/// The largest body that is read.
const MOST_BODY: usize = 1 << 20;
/// The most connections served at once; further ones wait to be accepted.
const MOST_CONNECTIONS: usize = 1_024;
/// The timeout for idle connections and for heads. It is longer than clients keep their
/// connections.
///
/// A connection that the sandbox closed first would cost the client a stale attempt.
const IDLE: Duration = Duration::from_secs(75);
/// The timeout for a body.
const BODY_TIME: Duration = Duration::from_secs(30);
/// The pause of the listener after an error such as too many open files.
const REST: Duration = Duration::from_millis(50);
/// The longest delay that `echo` accepts.
const MOST_ECHO_DELAY: Duration = Duration::from_secs(30);

/// An error that ends a connection without a response.
#[derive(Debug)]
struct LostReply;

impl fmt::Display for LostReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer is lost on purpose")
    }
}

impl std::error::Error for LostReply {}

/// The result that the task of a request passes to the connection.
enum Handed {
    /// The response to send.
    Response(ApiResponse),
    /// No response: the connection is closed, or stays silent until the client closes it.
    Lost(Loss),
}

impl Sandbox {
    /// Serves connections until `stop` ends, then drops them. Requests in progress still arrive and
    /// take effect.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send,
    ) {
        let mut stop = pin!(stop);
        let mut connections = JoinSet::new();
        loop {
            // A full sandbox accepts nothing. Clients wait in the backlog of the system.
            let has_room = connections.len() < MOST_CONNECTIONS;
            tokio::select! {
                biased;
                // Dropping the set ends the connections. The tasks of their requests go on.
                () = &mut stop => return,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = listener.accept(), if has_room => match accepted {
                    Ok((stream, _)) => {
                        // A failure only costs latency.
                        stream.set_nodelay(true).ok();
                        connections.spawn(Arc::clone(&self).serve_connection(stream));
                    }
                    Err(_) => tokio::time::sleep(REST).await,
                },
            }
        }
    }

    /// Serves one connection until the client or an error ends it, or it is idle for 75 seconds.
    pub async fn serve_connection<I>(self: Arc<Self>, io: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(move |request| Arc::clone(&self).respond(request));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .serve_connection(TokioIo::new(io), service);
        // Errors are the client's concern or injected; the log of arrivals has the facts.
        connection.await.ok();
    }

    /// Responds to one request, or ends the connection without a response.
    async fn respond(
        self: Arc<Self>,
        request: http::Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, LostReply> {
        let (head, body) = request.into_parts();
        let body = match read_body(body).await {
            Ok(body) => body,
            Err(answer) => return Ok(answer.map(Full::new)),
        };
        let request = Request { head, body };
        if request.head.uri.path().starts_with(control::PREFIX) {
            return Ok(control::answer(&mut self.core.lock(), &request).map(Full::new));
        }
        // Requests whose client hung up still hold a permit, so the number of connections alone
        // would not bound them.
        let Ok(permit) = Arc::clone(&self.in_progress).try_acquire_owned() else {
            return Ok(
                refused(503, "OverloadedError", "Too many requests are under way.").map(Full::new),
            );
        };
        let (hand, handed) = oneshot::channel();
        // From here on the request arrives, even if this future is dropped.
        tasks::detached(self.handle(request, hand, permit));
        match handed.await {
            Ok(Handed::Response(answer)) => Ok(answer.map(Full::new)),
            Ok(Handed::Lost(Loss::Closed)) => Err(LostReply),
            // Ends when the client closes the connection, which drops this future.
            Ok(Handed::Lost(Loss::Silent)) => pending().await,
            Err(_) => Err(LostReply),
        }
    }

    /// Lets a request arrive, then passes on its response if the connection still waits for it.
    async fn handle(
        self: Arc<Self>,
        request: Request,
        hand: oneshot::Sender<Handed>,
        permit: OwnedSemaphorePermit,
    ) {
        // Drawn before the delay, so that the sequence of plans does not depend on which request
        // overtakes which.
        let plan = self.core.lock().plan();
        rest(plan.arrive).await;
        let answer = {
            let mut core = self.core.lock();
            // Read under the lock, because windows expect that time does not go back.
            let at = super::moment(&self.clock);
            core.arrive(at, &request, &plan)
        };
        let handed = match plan.loss {
            Some(loss) => Handed::Lost(loss),
            None => Handed::Response(answer),
        };
        // A lost response is delayed as well. A client cannot tell by the time which one it will
        // be.
        rest(plan.reply + echo_delay(&request)).await;
        // A client that hung up no longer waits for it.
        hand.send(handed).ok();
        drop(permit);
    }
}

/// Sleeps, without creating a timer for no time.
async fn rest(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// Returns the delay in milliseconds that a request for `echo` asks for.
fn echo_delay(request: &Request) -> Duration {
    let uri = &request.head.uri;
    if uri.path() != "/echo" {
        return Duration::ZERO;
    }
    let query = Query::parse(uri.query().unwrap_or_default());
    let millis = query
        .get("delay")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    Duration::from_millis(millis).min(MOST_ECHO_DELAY)
}

/// Reads a body within its bounds of size and time, or returns the response that rejects it.
async fn read_body(body: Incoming) -> Result<Bytes, ApiResponse> {
    let collected = tokio::time::timeout(BODY_TIME, Limited::new(body, MOST_BODY).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(refused(
            413,
            "PayloadTooLargeError",
            "The body is larger than 1 MiB.",
        )),
        Ok(Err(_)) => Err(refused(
            400,
            "BadRequestError",
            "The body could not be read.",
        )),
        Err(_) => Err(refused(408, "TimeoutError", "The body took too long.")),
    }
}

/// Returns a rejection by the connection, before anything was counted.
fn refused(status: u16, kind: &'static str, message: &str) -> ApiResponse {
    let error = ApiError::new(status, kind, message);
    let mut answer = reply::failure(&error, "application/json");
    // The rest of an unread body is still on the connection.
    if StatusCode::SERVICE_UNAVAILABLE.as_u16() != status {
        answer.headers_mut().insert(
            http::header::CONNECTION,
            http::HeaderValue::from_static("close"),
        );
    }
    answer
}
