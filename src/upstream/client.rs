//! One attempt: sends a request once and reports its outcome without guessing.
//!
//! An attempt has two phases. Until a connection is chosen, the connect limit applies and nothing
//! has been sent. Afterwards the head and total limits apply and nothing is certain any more.
//! hyper's record of the chosen connection marks the transition. It is written in the step in which
//! the request is handed over, so there is no moment at which both phases, or neither, would hold.
//!
//! A connection accepts new requests for [`ClientSpec::connection_lifetime`], so that a changed
//! address of the API is noticed. It closes after its last request has ended. Dropping the future
//! of [`Client::send`] is safe for this module, which gives up the connection or stream. The drop
//! loses the outcome, so a caller that charges a budget runs the future in a task of its own.
//!
//! This module neither retries nor chooses headers. `hop.rs` rewrites the two messages, `pool.rs`
//! bounds the connections, `connect.rs` makes them, and `classify.rs` judges a failure.

use std::fmt;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Extensions, HeaderValue, Request};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};

use super::attempt::Attempt;
use super::base::Base;
use super::body::Limits;
use super::causes::chain;
use super::classify::{Handed, classify};
use super::connect::{Connector, TlsPeer};
use super::dial::{Dial, MemoryConnector};
use super::hop;
use super::life::{Life, Use};
use super::outcome::{NotSent, Unknown};
use super::pool::{HttpClient, http_clients};
use super::proxy::Route;
use super::spec::{ClientSpec, Destination};
use super::start::StartError;
use super::tls::{Offer, client_config};
use crate::clock::Clock;
use crate::tasks;

/// The delay of this module's connect timeout after the connector's. The connector reports the
/// cause, so its timeout should fire first.
const CONNECT_GRACE: Duration = Duration::from_millis(50);

/// A request extension that sends the request on a new connection.
#[derive(Clone, Copy, Debug)]
pub struct NewConnection;

/// Sends requests to the API. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    /// hyper's client, which keeps connections for reuse.
    pooled: HttpClient,
    /// The client for [`NewConnection`], which keeps no connections.
    unpooled: HttpClient,
    spec: ClientSpec,
    /// The credentials of every request, if a proxy forwards them. A proxy that opens a tunnel gets
    /// its credentials from the connector, and no request shows them to the API.
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
        let dial = Dial::Memory(connector);
        Self::assemble(dial, Route::Direct, None, spec, clock)
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
        let tls = tls.map(|name| TlsPeer { config, name });
        let route = spec.proxy.route(&spec.base);
        Ok(Self::assemble(dial, route, tls, spec, clock))
    }

    fn assemble(
        dial: Dial,
        route: Route,
        tls: Option<TlsPeer>,
        spec: ClientSpec,
        clock: Clock,
    ) -> Self {
        let proxy_authorization = match &route {
            Route::Forward(gate) => gate.authorization.clone(),
            Route::Direct | Route::Tunnel(_) => None,
        };
        let connector = Connector::new(dial, route, tls, &spec, clock.clone());
        let (pooled, unpooled) = http_clients(connector, spec.connection_idle);
        Self {
            pooled,
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
            None => &self.pooled,
        };
        let authorization = self.proxy_authorization.as_ref();
        let Some(mut request) = hop::request(request, &self.spec, authorization) else {
            return Attempt::NotSent(NotSent::ClosedBeforeSending);
        };
        // The first phase: hyper waits for a kept connection and makes a new one, and takes what is
        // ready first.
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
        // The second phase: the request may have been sent, even if the attempt fails at once. No
        // path from here may report `NotSent` without the proof that `classify` demands.
        let sent = self.clock.now();
        let connection = self.begin_request(&captured, began);
        let (head_end, late) = self.head_limit(sent);
        let result = match early {
            Some(result) => result,
            None => tokio::select! {
                biased;
                result = &mut answer => result,
                // Dropping the future resets the connection or stream; see `life.rs`.
                () = tokio::time::sleep_until(head_end.into()) => return Attempt::Unknown(late),
            },
        };
        let response = match result {
            Ok(response) => response,
            Err(error) => {
                let use_before = connection.map(|(_, use_before)| use_before);
                return failed(&error, use_before, self.spec.destination);
            }
        };
        if let Some((life, _)) = &connection {
            // From here on the connection is not reset when it ends.
            life.answered(response.headers(), self.clock.now());
        }
        let limits = Limits {
            idle: self.spec.idle_body,
            end: sent + self.spec.total,
        };
        hop::response(response, self.spec.destination, limits, self.clock.clone())
    }

    /// Returns the end of the wait for the head, and the outcome if it passes.
    fn head_limit(&self, sent: Instant) -> (Instant, Unknown) {
        if self.spec.total < self.spec.head {
            (sent + self.spec.total, Unknown::TotalTimeout)
        } else {
            (sent + self.spec.head, Unknown::HeadTimeout)
        }
    }

    /// Records that the request was handed to the chosen connection, if any. On the first use of a
    /// connection, also starts the task that retires it at the end of its life. A retired
    /// connection finishes its requests and gets no further ones.
    fn begin_request(&self, captured: &CaptureConnection, began: Instant) -> Option<(Life, Use)> {
        // The connector put the life among the extras of the connection.
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
        // No connection will be chosen: the request has failed, and its own future says why.
        std::future::pending::<()>().await;
    }
}

/// Returns the outcome of an attempt that failed, and logs it. `use_before` is that of the chosen
/// connection, `None` if none was chosen.
///
/// A malformed response is a warning, because the API or something before it is broken. Lost
/// connections are common.
fn failed(error: &legacy::Error, use_before: Option<Use>, from: Destination) -> Attempt {
    let handed = match use_before {
        None => Handed::Not,
        Some(use_before) if use_before.was_kept() => Handed::ToKept,
        Some(_) => Handed::ToNew,
    };
    let attempt = classify(error, handed);
    let (detail, from) = (chain(error), from.as_str());
    if matches!(attempt, Attempt::Unknown(Unknown::Malformed)) {
        tracing::warn!(from, %detail, "response is malformed");
    } else {
        tracing::debug!(to = from, %detail, ?handed, "attempt failed");
    }
    attempt
}

impl fmt::Debug for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Client")
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}
