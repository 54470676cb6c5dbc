//! The admin listener: probes, metrics and the pages and commands of operators.
//!
//! - `GET /` — the live page for people, which follows `GET /live`, a stream of events
//! - `GET /metrics` — the metrics in Prometheus' text form
//! - `GET /livez` — 200 as long as the process answers
//! - `GET /readyz` — 200 if new requests are accepted, else 503 with the reasons
//! - `GET /status` — budgets, queues, cache and tasks at this moment, as JSON; the 200 budgets in
//!   most trouble, and sums over all; `?filter=` selects by operation or credential
//! - `GET /openapi.json` — a description of all of this for programs
//! - `/cache` — what is stored under a key, or why nothing is; purging
//! - `/log` — the log level, which can be changed while the gateway runs
//! - `/writes` — durable writes: listed, shown, cancelled, paused, resumed and rebound
//!
//! None of this is on the listener for callers. A browser cannot be used against it: `Host` must be
//! a loopback name, an IP address or a configured name, and a request with a foreign `Origin` is
//! rejected. A request that changes something needs the header `X-Gateway-Admin`, which browsers do
//! not send for another site without asking first. [`access`] has all the rules.
//!
//! Slow documents are built on threads of their own, one at a time, so that no request of a caller
//! waits for an operator.
//!
//! Promises that a `GET` changes nothing that a caller could notice. This file has the pages that
//! are read only; those with commands have a file each.

pub mod access;
mod act;
mod advice;
mod cache;
mod clients;
mod findings;
mod gauges;
mod guesses;
mod history;
mod live;
mod log;
mod openapi;
mod overview;
mod past;
mod status;
mod streams;
mod trends;
mod writes;

pub use access::{Access, AdminPeer, Token};

use crate::exchange::body::OuterBody;
use crate::gateway::Gateway;
use crate::limit::budgets::AccountState;
use crate::metrics::AuditLevels;
use crate::swap::Swap;
use crate::telemetry::LogHandle;
use access::Denied;
use act::OperatorAct;
use bytes::Bytes;
use gauges::gauges;
use guesses::Guesses;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::service::{Service, service_fn};
use past::Past;
use serde_json::Value;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use streams::Streams;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// The admin service of a gateway.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The gateway that is looked at. The service has no state of the request path itself.
    gateway: Arc<Gateway>,
    /// Who may do what. A reload replaces it, and the next request is judged by the new one.
    access: Arc<Swap<Access>>,
    /// The URL of the API, for `/status` only.
    upstream: Arc<str>,
    /// When the process began to serve, for the uptime.
    started: Instant,
    /// The budgets in earlier scrapes: their gauges must fall to zero when they are forgotten.
    shown: Arc<parking_lot::Mutex<BTreeSet<Arc<str>>>>,
    /// The last 15 minutes, for charts. Recorded by [`Admin::keep_history`].
    past: Arc<parking_lot::Mutex<Past>>,
    /// The readers of `/live`: at most a few, and one document for all of them.
    streams: Streams,
    /// Wrong tokens of a moment ago. Shared by all connections, or a new one would begin with a
    /// clean slate.
    guesses: Arc<parking_lot::Mutex<Guesses>>,
    /// The turn to build a document: one at a time, so that many requests take no more than a
    /// thread.
    building: Arc<Semaphore>,
    /// The log of this process. `None` in tests, which share one.
    log: Option<Arc<LogHandle>>,
}

impl Admin {
    /// Creates the service of `gateway`, which talks to `upstream`. There should be one for a
    /// gateway: its clones share guesses, streams and the turn to build.
    pub fn new(gateway: Arc<Gateway>, access: Arc<Swap<Access>>, upstream: &str) -> Self {
        let started = gateway.clock().now();
        let reasons = Denied::ALL.map(Denied::as_str);
        gateway.metrics().expect_admin_rejections(reasons);
        Self {
            gateway,
            access,
            upstream: upstream.into(),
            started,
            shown: Arc::default(),
            past: Arc::default(),
            streams: Streams::default(),
            guesses: Arc::default(),
            building: Arc::new(Semaphore::new(1)),
            log: None,
        }
    }

    /// Adds a log whose level can be changed.
    pub fn with_log(self, log: Arc<LogHandle>) -> Self {
        Self {
            log: Some(log),
            ..self
        }
    }

    /// Returns the service of a connection of `peer`, for [`crate::server`].
    pub fn connected<B: http_body::Body + 'static>(
        &self,
        peer: AdminPeer,
    ) -> impl Service<
        Request<B>,
        Response = Response<OuterBody>,
        Error = Infallible,
        Future: Send + 'static,
    > + Send
    + use<B> {
        let admin = self.clone();
        service_fn(move |request: Request<B>| {
            let admin = admin.clone();
            // No page has parameters in a body, so none is read. The server drops what arrives of
            // it.
            let (mut head, _) = request.into_parts();
            // HEAD is GET without the body, which the server leaves out.
            if head.method == Method::HEAD {
                head.method = Method::GET;
            }
            // Infallible: every rejection is a response.
            async move { Ok(admin.answer(&Request::from_parts(head, ()), peer).await) }
        })
    }

    /// Responds to one request: access first, then the page.
    async fn answer(&self, request: &Request<()>, peer: AdminPeer) -> Response<OuterBody> {
        let now = self.gateway.clock().now();
        // Asked before the token is compared, and of use only if it is wrong: the right one is
        // always accepted.
        let is_paused = self.guesses.lock().is_paused(peer, now);
        // Before the path is known to exist: a peer without access cannot find out which pages
        // there are.
        let admitted = self.access.get().admit(request, peer, is_paused);
        if let Err(why) = admitted {
            return self.deny(why, peer, now);
        }
        let mut act = OperatorAct::begin(self.gateway.audit(), request, peer);
        let response = self.admitted(request).await;
        if let Some(act) = &mut act {
            act.status = Some(response.status());
        }
        response
    }

    /// Responds to one request of an operator.
    async fn admitted(&self, request: &Request<()>) -> Response<OuterBody> {
        // These have methods of their own; everything behind them is only read. The check for `GET`
        // must stay behind them.
        let path = request.uri().path();
        if path == "/cache" || path.starts_with("/cache/") {
            return self.cache(request).await;
        }
        if path.starts_with("/clients/") {
            return self.clients(request).await;
        }
        if path == "/log" {
            return self.log_level(request);
        }
        if path == "/writes" || path.starts_with("/writes/") {
            return self.writes(request).await;
        }
        if *request.method() != Method::GET {
            let mut refused = text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD are accepted\n",
            );
            refused
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match request.uri().path() {
            "/" => Self::page(),
            "/live" => self.live(),
            // This page and `/status` go through all budgets, so they are built apart.
            "/metrics" => self.built(Self::metrics).await,
            // Without a look at the gateway: an orchestrator kills a process whose probe fails,
            // also one that is only busy.
            "/livez" => text(StatusCode::OK, "live\n"),
            "/openapi.json" => Self::description(),
            "/readyz" => self.ready(),
            "/status" => self.status_page(request.uri().query()).await,
            _ => text(
                StatusCode::NOT_FOUND,
                "no such page; there are /, /live, /livez, /log, /metrics, /openapi.json, /readyz, /status, \
                 /cache, /clients and /writes. This is the listener of operators; callers of the API use the one that \
                 `listen` names, 127.0.0.1:8080 by default\n",
            ),
        }
    }

    /// Responds to a request without access. Wrong tokens are counted and reported in the log.
    fn deny(&self, why: Denied, peer: AdminPeer, now: Instant) -> Response<OuterBody> {
        self.gateway.metrics().admin_rejected(why.as_str());
        // A scraper without access tries for ever and is not logged; a wrong token is.
        if why == Denied::WrongToken
            && let AdminPeer::Address(address) = peer
        {
            self.guesses.lock().wrong(peer, now);
            tracing::warn!(peer = %address, "admin request rejected: wrong token");
        }
        let mut refused = text(why.status(), why.message());
        // RFC 6585, section 4: how long to wait after 429.
        if why == Denied::Paused {
            let pause = HeaderValue::from(guesses::PAUSE.as_secs());
            refused.headers_mut().insert(header::RETRY_AFTER, pause);
        }
        if why.status() == StatusCode::UNAUTHORIZED {
            // A browser asks for the token as a password; RFC 9110, section 11.6.1.
            let ways = [
                r#"Basic realm="segment-gateway", charset="UTF-8""#,
                "Bearer",
            ];
            for way in ways {
                let way = HeaderValue::from_static(way);
                refused.headers_mut().append(header::WWW_AUTHENTICATE, way);
            }
        }
        refused
    }

    /// Builds a response on a thread of its own: with many budgets it takes a while, and no request
    /// is to wait for it.
    ///
    /// Requests wait here for their turn. One that is dropped while it waits gives its turn away;
    /// one that is dropped later is built to its end, because a blocking thread cannot be stopped.
    async fn built(
        &self,
        build: impl FnOnce(&Self) -> Response<OuterBody> + Send + 'static,
    ) -> Response<OuterBody> {
        // Nothing is returned only after a panic of `build`.
        self.apart(build).await.unwrap_or_else(|| {
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "building the answer failed; the log says why\n",
            )
        })
    }

    /// Runs what goes through all budgets on a thread of its own, one at a time. `None` if it
    /// panicked.
    async fn apart<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        let turn = self.building.clone().acquire_owned().await;
        let admin = self.clone();
        let running = spawn_blocking(move || {
            // Held by the thread and not by this future: otherwise a client that hangs up would let
            // a second build begin beside the first.
            let _turn = turn;
            run(&admin)
        });
        running.await.ok()
    }

    /// Returns every budget in use, with the time until a new request would be sent. While all
    /// lanes are closed, a new write waits for these as well, which budgets do not know.
    fn accounts(&self) -> Vec<AccountState> {
        let mut accounts = self.gateway.budgets().snapshot();
        if let Some(left) = self.gateway.writes().all_lanes_closed_for() {
            for account in accounts.iter_mut().filter(|account| account.of_writes) {
                account.next_free = account.next_free.max(left);
            }
        }
        accounts
    }

    /// Returns the time since the service was created.
    fn uptime(&self) -> Duration {
        self.gateway
            .clock()
            .now()
            .saturating_duration_since(self.started)
    }

    /// Returns the metrics. A budget that is forgotten keeps its gauges, at zero.
    fn metrics(&self) -> Response<OuterBody> {
        let accounts = self.accounts();
        // By name of the budget, over all credentials: a label per credential would have no bound.
        let mut gauges = gauges(&accounts);
        {
            // Bounded by the route table: each name is that of one of its budgets.
            let mut shown = self.shown.lock();
            for budget in shown.iter() {
                gauges.entry(budget.clone()).or_default();
            }
            shown.extend(gauges.keys().cloned());
        }
        let gauges: Vec<_> = gauges.into_iter().collect();
        let metrics = self.gateway.metrics();
        if let Some(status) = self.gateway.audit().status() {
            metrics.audit(&AuditLevels {
                records: &status.records,
                lost: status.lost,
                failing: status.is_failing,
            });
        }
        let body = metrics.render(&gauges, &self.levels(&accounts));
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        respond(StatusCode::OK, kind, body)
    }
}

/// Returns a response for people and probes: a sentence with its end of line.
fn text(status: StatusCode, text: &'static str) -> Response<OuterBody> {
    respond(
        status,
        HeaderValue::from_static("text/plain; charset=utf-8"),
        text,
    )
}

/// Returns a JSON document, indented, because people read it too.
fn document(status: StatusCode, document: &Value) -> Response<OuterBody> {
    let kind = HeaderValue::from_static("application/json");
    respond(status, kind, format!("{document:#}\n"))
}

/// Returns a response that no cache keeps and no browser reinterprets.
fn respond(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Response<OuterBody> {
    let mut response = Response::new(OuterBody::plain(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

#[cfg(test)]
mod tests;
