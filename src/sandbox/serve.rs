//! The sandbox's connections: HTTP/1.1 over anything that is read and written.
//!
//! Each request is handled in a task of its own. Whoever hangs up neither prevents that it arrives
//! nor undoes what it did, as with a real API.

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
use super::fate::Loss;
use super::reply::{self, Answer};
use super::request::{Problem, Query};
use super::{Sandbox, control};

/// The largest body that is read.
const MOST_BODY: usize = 1 << 20;
/// How many connections are served at once; further ones wait to be accepted.
const MOST_CONNECTIONS: usize = 1_024;
/// How long a connection may be idle or a head may take. Longer than clients keep theirs.
const IDLE: Duration = Duration::from_secs(75);
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(30);
/// How long the listener rests after an error such as too many open files.
const REST: Duration = Duration::from_millis(50);
/// The longest delay that `echo` can be asked for.
const MOST_ECHO_DELAY: Duration = Duration::from_secs(30);

/// Ends a connection without an answer.
#[derive(Debug)]
struct LostReply;

impl fmt::Display for LostReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer is lost on purpose")
    }
}

impl std::error::Error for LostReply {}

/// What the task that handles a request hands to the connection.
enum Handed {
    Answer(Answer),
    Lost(Loss),
}

impl Sandbox {
    /// Serves connections until `stop` ends, then drops them. Requests that are under way still
    /// arrive and take effect.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send,
    ) {
        let mut stop = pin!(stop);
        let mut connections = JoinSet::new();
        loop {
            let has_room = connections.len() < MOST_CONNECTIONS;
            tokio::select! {
                biased;
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
        // Errors are the client's affair or were asked for; the log of arrivals has the facts.
        connection.await.ok();
    }

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
        let Ok(permit) = Arc::clone(&self.under_way).try_acquire_owned() else {
            return Ok(
                refused(503, "OverloadedError", "Too many requests are under way.").map(Full::new),
            );
        };
        let (hand, handed) = oneshot::channel();
        tokio::spawn(self.handle(request, hand, permit));
        match handed.await {
            Ok(Handed::Answer(answer)) => Ok(answer.map(Full::new)),
            Ok(Handed::Lost(Loss::Closed)) => Err(LostReply),
            Ok(Handed::Lost(Loss::Silent)) => pending().await,
            Err(_) => Err(LostReply),
        }
    }

    /// Lets a request arrive, then hands over its answer, if anyone still waits for it.
    async fn handle(
        self: Arc<Self>,
        request: Request,
        hand: oneshot::Sender<Handed>,
        permit: OwnedSemaphorePermit,
    ) {
        let fate = self.core.lock().fate();
        rest(fate.arrive).await;
        let answer = {
            let mut core = self.core.lock();
            // Read under the lock: windows expect that time does not go back.
            let at = self.moment();
            core.arrive(at, &request, &fate)
        };
        let handed = match fate.loss {
            Some(loss) => Handed::Lost(loss),
            None => Handed::Answer(answer),
        };
        rest(fate.reply + echo_delay(&request)).await;
        // Who has hung up does not wait for it any more.
        hand.send(handed).ok();
        drop(permit);
    }
}

/// A timer costs something even if it has no time to run.
async fn rest(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// The delay in milliseconds that a request for `echo` asks for.
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

async fn read_body(body: Incoming) -> Result<Bytes, Answer> {
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

fn refused(status: u16, kind: &'static str, message: &str) -> Answer {
    let problem = Problem {
        status,
        kind,
        message: message.to_owned(),
        field: None,
    };
    let mut answer = reply::failure(&problem, "application/json");
    // The rest of a body that was not read is still on the connection.
    if StatusCode::SERVICE_UNAVAILABLE.as_u16() != status {
        answer.headers_mut().insert(
            http::header::CONNECTION,
            http::HeaderValue::from_static("close"),
        );
    }
    answer
}
