//! One attempt: sends a request once and reports its outcome without guessing.
//!
//! An attempt has two phases. Until a connection is chosen, the connect limit applies and nothing
//! has been sent. Afterwards the head and total limits apply and nothing is certain any more.
//! hyper's record of the chosen connection marks the transition.
//!
//! A connection accepts new requests for [`ClientSpec::connection_lifetime`], so that a changed
//! address of the API is noticed. It closes after its last request has ended. Dropping the future
//! of [`Client::send`] is safe for this module, which gives up the connection or stream. The drop
//! loses the outcome, so a caller that charges a budget runs the future in a task of its own.
//!
//! This module neither retries nor chooses headers.

use std::fmt;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION, VIA};
use http::uri::PathAndQuery;
use http::{Extensions, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;

use super::attempt::Attempt;
use super::base::Base;
use super::body::{AnswerBody, End, Limits};
use super::causes::chain;
use super::classify::{Handed, classify};
use super::connect::{Connector, Plan};
use super::dial::{Dial, MemoryConnector};
use super::framing;
use super::life::{Life, Use};
use super::outcome::{NotSent, Unknown};
use super::proxy::{ProxyRules, Route};
use super::start::StartError;
use super::tls::{Offer, client_config};
use crate::clock::Clock;
use crate::tasks;

/// The largest response head. On HTTP/1.1 also the most of a body that is read ahead. In bytes.
const HEAD_BYTES: usize = 64 * 1024;
/// The largest number of header fields in an HTTP/1.1 response.
const HEAD_FIELDS: usize = 100;
/// The HTTP/2 receive windows of one stream and of one connection. In bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// The largest number of idle connections. More may be in use at once; those close when done.
const IDLE_CONNECTIONS: usize = 64;
/// The silence before a ping on an HTTP/2 connection in use, and the time limit for its response.
const PING_AFTER: Duration = Duration::from_secs(20);
const PING_ANSWER: Duration = Duration::from_secs(10);
/// The delay of this module's connect timeout after the connector's. The connector reports the
/// cause, so its timeout should fire first.
const CONNECT_GRACE: Duration = Duration::from_millis(50);
/// The upper bound of every time limit. Adding one to an instant then cannot overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The settings of a client.
#[derive(Clone, Debug)]
pub struct ClientSpec {
    /// The base URL of the API, which gives every request its authority and `Host`.
    pub base: Base,
    /// A PEM file with certificates to trust in addition to the public roots.
    pub ca_file: Option<PathBuf>,
    /// Time limit for a ready connection: name resolution, TCP, proxy and TLS.
    pub connect: Duration,
    /// Time limit from then to the head of the final response.
    pub head: Duration,
    /// Time limit for silence within a body.
    pub idle_body: Duration,
    /// Time limit from sending to the end of the body.
    pub total: Duration,
    /// How long a connection accepts new requests.
    pub connection_lifetime: Duration,
    /// How long an idle connection may be reused.
    pub connection_idle: Duration,
    /// The late-arrival bound: how late an abandoned request may still reach the API.
    pub late_arrival: Duration,
    /// Whether HTTP/2 is offered. Only by ALPN (RFC 9113 section 3.2), so never without TLS.
    pub http2: bool,
    /// The rules that choose a proxy.
    pub proxy: ProxyRules,
    /// The value appended to `Via` of every request (RFC 9110 section 7.6.3).
    pub via: HeaderValue,
}

/// A request extension that sends the request on a new connection.
#[derive(Clone, Copy, Debug)]
pub struct NewConnection;

impl ClientSpec {
    fn bounded(mut self) -> Self {
        for limit in [
            &mut self.connect,
            &mut self.head,
            &mut self.idle_body,
            &mut self.total,
            &mut self.connection_lifetime,
            &mut self.connection_idle,
            &mut self.late_arrival,
        ] {
            *limit = LONGEST.min(*limit);
        }
        self
    }
}

/// Sends requests to the API. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    http: legacy::Client<Connector, Full<Bytes>>,
    /// The client for [`NewConnection`], which keeps no connections.
    unpooled: legacy::Client<Connector, Full<Bytes>>,
    spec: ClientSpec,
    proxy_authorization: Option<HeaderValue>,
    clock: Clock,
}

impl Client {
    /// Creates a client that connects over TCP. Reads the CA file, but opens no connection yet.
    ///
    /// # Errors
    /// If the CA file or the TLS settings are unusable.
    pub fn new(spec: ClientSpec, clock: Clock) -> Result<Self, StartError> {
        let spec = spec.bounded();
        let dial = Dial::tcp(spec.connect, spec.late_arrival);
        Self::build(dial, spec, clock)
    }

    /// Creates a client over streams in memory, in plain HTTP/1.1 whatever the scheme of the base.
    /// Proxy and CA file are ignored. For tests and simulation.
    pub fn over(connector: MemoryConnector, spec: ClientSpec, clock: Clock) -> Self {
        let spec = spec.bounded();
        let plan = Plan {
            dial: Dial::Memory(connector),
            route: Route::Direct,
            tls: None,
            limit: spec.connect,
            clock: clock.clone(),
            trouble: Mutex::new(None),
        };
        Self::assemble(plan, spec, clock)
    }

    pub(super) fn build(dial: Dial, spec: ClientSpec, clock: Clock) -> Result<Self, StartError> {
        let offer = if spec.http2 {
            Offer::Both
        } else {
            Offer::Http1
        };
        // A configured file is checked even if it is not needed, because a wrong path is a mistake.
        let config = client_config(spec.ca_file.as_deref(), offer)?;
        let tls = spec.base.server_name().filter(|_| spec.base.is_https());
        let plan = Plan {
            dial,
            route: spec.proxy.route(&spec.base),
            tls: tls.map(|name| (config, name)),
            limit: spec.connect,
            clock: clock.clone(),
            trouble: Mutex::new(None),
        };
        Ok(Self::assemble(plan, spec, clock))
    }

    fn assemble(plan: Plan, spec: ClientSpec, clock: Clock) -> Self {
        let proxy_authorization = match &plan.route {
            Route::Forward(gate) => gate.authorization.clone(),
            Route::Direct | Route::Tunnel(_) => None,
        };
        let connector = Connector::new(plan);
        let mut http = legacy::Client::builder(TokioExecutor::new());
        // Every attempt is charged to a budget, so the library must not retry by itself.
        http.retry_canceled_requests(false)
            .set_host(true)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(spec.connection_idle)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(HEAD_BYTES)
            .http1_max_headers(HEAD_FIELDS)
            .http2_max_header_list_size(HEAD_BYTES as u32)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(PING_AFTER)
            .http2_keep_alive_timeout(PING_ANSWER)
            .http2_keep_alive_while_idle(false);
        let mut unpooled = http.clone();
        unpooled.pool_max_idle_per_host(0);
        let (http, unpooled) = (http.build(connector.clone()), unpooled.build(connector));
        Self {
            http,
            unpooled,
            spec,
            proxy_authorization,
            clock,
        }
    }

    /// The base URL of requests.
    pub fn base(&self) -> &Base {
        &self.spec.base
    }

    /// Sends a request once. Path and query are forwarded byte for byte. Authority and `Host` come
    /// from the base, the framing fields from the body, and `Via` is appended. The caller is
    /// responsible for all other headers. Returns at the latest after the connect and head limits.
    /// `NotSent` needs proof; any other end without a final response is `Unknown`.
    pub async fn send(&self, request: Request<Bytes>) -> Attempt {
        let http = match request.extensions().get::<NewConnection>() {
            Some(NewConnection) => &self.unpooled,
            None => &self.http,
        };
        let Some(mut request) = self.prepare(request) else {
            return Attempt::NotSent(NotSent::ClosedBeforeSending);
        };
        let began = self.clock.now();
        let mut captured = capture_connection(&mut request);
        let mut answer = pin!(http.request(request));
        let connect_end = began + self.spec.connect + CONNECT_GRACE;
        // In this order: a connection chosen at the instant of the timeout has the request.
        let early = tokio::select! {
            biased;
            result = &mut answer => Some(result),
            () = chosen(&mut captured) => None,
            () = tokio::time::sleep_until(connect_end.into()) => {
                // No connection was chosen, so dropping the future cannot leave a request behind.
                return Attempt::NotSent(NotSent::ConnectTimeout);
            }
        };
        // From here on the request may have been sent, even if the attempt fails at once.
        let sent = self.clock.now();
        let connection = self.begin_request(&captured, began);
        let (head_end, late) = self.head_limit(sent);
        let result = match early {
            Some(result) => result,
            None => tokio::select! {
                biased;
                result = &mut answer => result,
                () = tokio::time::sleep_until(head_end.into()) => return Attempt::Unknown(late),
            },
        };
        match result {
            Ok(response) => {
                if let Some((life, _)) = &connection {
                    // From here on the connection is not reset when it ends.
                    life.answered(response.headers(), self.clock.now());
                }
                self.answered(response, sent)
            }
            Err(error) => {
                let handed = match &connection {
                    None => Handed::Not,
                    Some((_, how)) if how.was_kept() => Handed::ToKept,
                    Some(_) => Handed::ToNew,
                };
                let attempt = classify(&error, handed);
                let detail = chain(&error);
                if matches!(attempt, Attempt::Unknown(Unknown::Malformed)) {
                    tracing::warn!(%detail, "response is malformed");
                } else {
                    tracing::debug!(%detail, ?handed, "attempt failed");
                }
                attempt
            }
        }
    }

    /// Rewrites a request for this hop. `None` if its path does not fit the base: nothing is sent.
    fn prepare(&self, request: Request<Bytes>) -> Option<Request<Full<Bytes>>> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().cloned();
        parts.uri = self
            .spec
            .base
            .join(path.unwrap_or(PathAndQuery::from_static("/")))?;
        // The caller's version and the extensions of the server side do not belong to this hop.
        parts.version = Version::HTTP_11;
        parts.extensions = Extensions::new();
        framing::of_request(&mut parts.headers, &parts.method, body.len());
        // hyper sets `Host` from the URL.
        parts.headers.remove(HOST);
        parts.headers.append(VIA, self.spec.via.clone());
        if let Some(value) = &self.proxy_authorization {
            parts.headers.insert(PROXY_AUTHORIZATION, value.clone());
        }
        Some(Request::from_parts(parts, Full::new(body)))
    }

    /// Returns the end of the wait for the head, and the outcome if it passes.
    fn head_limit(&self, sent: Instant) -> (Instant, Unknown) {
        if self.spec.total < self.spec.head {
            (sent + self.spec.total, Unknown::TotalTimeout)
        } else {
            (sent + self.spec.head, Unknown::HeadTimeout)
        }
    }

    /// Makes a final response fit to be passed on, or rejects it as malformed: the outcome is
    /// unknown.
    fn answered(&self, response: Response<Incoming>, sent: Instant) -> Attempt {
        // hyper consumes 1xx responses, except for an unrequested 101, which is not final.
        if response.status().is_informational() {
            return Attempt::Unknown(Unknown::Malformed);
        }
        let limits = Limits {
            idle: self.spec.idle_body,
            end: sent + self.spec.total,
        };
        if framing::has_unknown_coding(response.headers()) {
            tracing::warn!("response has an unsupported transfer coding");
            return Attempt::Unknown(Unknown::Malformed);
        }
        let end = if response.version() == Version::HTTP_2 {
            End::Stream
        } else {
            End::Framing
        };
        let mut response =
            response.map(|body| AnswerBody::new(body, end, limits, self.clock.clone()));
        let status = response.status();
        if status == StatusCode::RESET_CONTENT {
            response.body_mut().forget();
        }
        if framing::of_answer(status, response.headers_mut()) {
            tracing::warn!(
                "response has both Transfer-Encoding and Content-Length: Content-Length is ignored"
            );
        }
        // All that belongs to this hop is removed, except for an unusual reason phrase.
        *response.version_mut() = Version::default();
        let phrase = response.extensions_mut().remove::<ReasonPhrase>();
        *response.extensions_mut() = Extensions::new();
        if let Some(phrase) = phrase {
            response.extensions_mut().insert(phrase);
        }
        Attempt::Answered(response)
    }

    /// Records that the request was handed to the chosen connection, if any. On the first use of a
    /// connection, also starts the task that retires it at the end of its life. A retired
    /// connection finishes its requests and gets no further ones.
    fn begin_request(&self, captured: &CaptureConnection, began: Instant) -> Option<(Life, Use)> {
        let mut extras = Extensions::new();
        if let Some(connected) = captured.connection_metadata().as_ref() {
            connected.get_extras(&mut extras);
        }
        let mut life = extras.remove::<Life>()?;
        let how = life.begin_request(began);
        if how == Use::Again {
            return Some((life, how));
        }
        let end = life.born() + self.spec.connection_lifetime;
        let (captured, known) = (captured.clone(), life.clone());
        // One task per connection. The first request starts it; the end of the connection ends it.
        tasks::detached(async move {
            if life.expires(end).await
                && let Some(connected) = captured.connection_metadata().as_ref()
            {
                connected.poison();
            }
        });
        Some((known, how))
    }
}

/// Resolves in the step in which the request is handed to a connection. Never resolves otherwise.
async fn chosen(captured: &mut CaptureConnection) {
    let none = captured.wait_for_connection_metadata().await.is_none();
    if none {
        std::future::pending::<()>().await;
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Client")
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}
