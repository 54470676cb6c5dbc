//! An API that does what a test says, request by request, and remembers what it was asked.

use super::{Setup, World};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use segment_gateway::sandbox::SandboxSpec;
use segment_gateway::upstream::MemoryConnector;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: tokio::time::Instant,
}

/// What the API does with a request.
#[derive(Clone, Debug)]
pub enum Step {
    /// It answers.
    Answer(Response<Bytes>),
    /// It answers after a while.
    Later(Duration, Response<Bytes>),
    /// It closes the connection without an answer.
    Close,
    /// It never answers.
    Silent,
}

/// An answer with this status and body, as JSON, without rate fields.
pub fn answer(status: u16, body: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    let headers = response.headers_mut();
    headers.insert("content-type", "application/json".parse().expect("a value"));
    response
}

/// The same answer with one more field.
pub fn field(mut response: Response<Bytes>, name: &'static str, value: &str) -> Response<Bytes> {
    let value = value.parse().expect("a field value");
    response.headers_mut().append(name, value);
    response
}

/// The API.
pub struct Script {
    seen: Mutex<Vec<Seen>>,
    /// Connections that are refused before one is accepted.
    refusals: AtomicUsize,
    #[allow(clippy::type_complexity, reason = "named once")]
    act: Box<dyn Fn(&Seen, usize) -> Step + Send + Sync>,
}

impl Script {
    /// `act` is given each request and how many came before it.
    pub fn new(act: impl Fn(&Seen, usize) -> Step + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            seen: Mutex::default(),
            refusals: AtomicUsize::new(0),
            act: Box::new(act),
        })
    }

    /// Everything that arrived.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    /// How many requests arrived.
    pub fn count(&self) -> usize {
        self.seen.lock().expect("not poisoned").len()
    }

    /// Refuses the next connections.
    pub fn refuse(&self, connections: usize) {
        self.refusals.store(connections, Ordering::SeqCst);
    }

    /// How many connections are still to be refused.
    pub fn refusals_left(&self) -> usize {
        self.refusals.load(Ordering::SeqCst)
    }

    /// A gateway with defaults in front of it.
    pub fn world(self: &Arc<Self>) -> Arc<World> {
        self.world_of(Setup::new(SandboxSpec::default()))
    }

    /// A gateway of this setup in front of it.
    pub fn world_of(self: &Arc<Self>, setup: Setup) -> Arc<World> {
        let script = Arc::clone(self);
        let connector = MemoryConnector::new(move || {
            let script = Arc::clone(&script);
            async move { script.open() }
        });
        Arc::new(setup.start_over(connector))
    }

    fn open(self: Arc<Self>) -> io::Result<tokio::io::DuplexStream> {
        let refused = self
            .refusals
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        if refused.is_ok() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let service = service_fn(move |request| Arc::clone(&self).handle(request));
        drop(tokio::spawn(
            http1::Builder::new().serve_connection(TokioIo::new(theirs), service),
        ));
        Ok(ours)
    }

    async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let seen = Seen {
            method: head.method,
            target: head.uri.to_string(),
            headers: head.headers,
            body,
            at: tokio::time::Instant::now(),
        };
        let before = {
            let mut all = self.seen.lock().expect("not poisoned");
            all.push(seen.clone());
            all.len() - 1
        };
        match (self.act)(&seen, before) {
            Step::Answer(answer) => Ok(answer.map(Full::new)),
            Step::Later(delay, answer) => {
                tokio::time::sleep(delay).await;
                Ok(answer.map(Full::new))
            }
            Step::Close => Err(io::Error::other("closed on purpose")),
            Step::Silent => std::future::pending().await,
        }
    }
}
