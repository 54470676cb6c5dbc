//! What is told about a request: its fields in the answer, its metrics and its line in the log.
//!
//! A watch begins with the request and is finished with its answer. One that is dropped
//! unfinished was hung up on, and is counted as that: so every request ends in exactly one outcome.

use super::Gateway;
use super::body::Body;
use super::flow::{Ask, Peer, Reply};
use super::status::CacheStatus;
use crate::credential::Credential;
use crate::limit::budgets::Standing;
use crate::limit::turns::Caller;
use crate::metrics::{Origin, Outcome};
use crate::route::policy::Operation;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const REQUEST_ID: &str = "x-request-id";

/// Which requests have a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// What went upstream, was refused or failed.
    Upstream,
    /// Every request.
    All,
}

/// Follows one request.
#[derive(Debug)]
pub(super) struct Watch {
    gateway: Gateway,
    accepted: Instant,
    request_id: Option<HeaderValue>,
    peer: Option<Peer>,
    known: Option<Known>,
    finished: bool,
}

/// What is known once the request has been understood.
#[derive(Debug)]
struct Known {
    operation: Arc<Operation>,
    method: Method,
    credential: Credential,
    caller: Caller,
}

impl Watch {
    pub(super) fn new<B>(gateway: &Gateway, request: &Request<B>) -> Self {
        Self {
            gateway: gateway.clone(),
            accepted: gateway.clock.now(),
            request_id: request.headers().get(REQUEST_ID).cloned(),
            peer: request.extensions().get::<Peer>().copied(),
            known: None,
            finished: false,
        }
    }

    pub(super) fn accepted(&self) -> Instant {
        self.accepted
    }

    pub(super) fn understood(&mut self, ask: &Ask) {
        self.known = Some(Known {
            operation: ask.operation.clone(),
            method: ask.method.clone(),
            credential: ask.credential,
            caller: ask.caller.clone(),
        });
    }

    /// Tells about the answer and returns it.
    pub(super) fn finish(mut self, reply: Reply) -> Response<Body> {
        self.finished = true;
        let elapsed = self
            .gateway
            .clock
            .now()
            .saturating_duration_since(self.accepted);
        self.count(&reply, elapsed);
        let hit = reply.outcome == Outcome::Hit;
        if !hit || self.gateway.settings.access == AccessLog::All {
            self.log(&reply, elapsed);
        }
        let mut response = reply.response;
        let headers = response.headers_mut();
        match (&reply.cache, reply.error) {
            (Some(cache), _) => headers.append(CACHE_STATUS, cache.value()),
            (None, Some(kind)) => headers.append(CACHE_STATUS, refused_status(kind)),
            (None, None) => headers.append(CACHE_STATUS, CacheStatus::write().value()),
        };
        if hit {
            return response;
        }
        if let Some(standing) = &reply.standing {
            show_budget(headers, standing);
        }
        if reply.error.is_some() {
            headers.append(header::VIA, self.gateway.settings.via.clone());
        }
        let timing = &reply.timing;
        if timing.left {
            let text = format!(
                "queue;dur={:.1}, upstream;dur={:.1}{}",
                millis(timing.queued),
                millis(timing.upstream),
                if timing.throttled > 0 {
                    format!(", throttled;desc=\"{}\"", timing.throttled)
                } else {
                    String::new()
                }
            );
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.append(SERVER_TIMING, value);
            }
        }
        response
    }

    fn count(&self, reply: &Reply, elapsed: Duration) {
        let metrics = &self.gateway.metrics;
        let name = self.name();
        if reply.outcome == Outcome::Hit {
            let index = self
                .known
                .as_ref()
                .map_or(usize::MAX, |known| known.operation.index);
            metrics.hit(index, elapsed);
            return;
        }
        let status = reply.response.status().as_u16();
        metrics.request(name, reply.outcome, Some(status), elapsed);
        metrics.own_time(elapsed.saturating_sub(reply.timing.queued + reply.timing.upstream));
        let cacheable = self
            .known
            .as_ref()
            .is_some_and(|known| known.operation.cache.is_some());
        if let Some(cache) = reply.cache.as_ref().filter(|_| cacheable) {
            metrics.not_a_hit(name, cache.result(), cache.reason());
        }
        if let Some(kind) = reply.error {
            metrics.refusal(name, kind);
            if status == 429 {
                metrics.throttled(name, Origin::Gateway);
            }
        }
    }

    fn name(&self) -> &str {
        self.known
            .as_ref()
            .map_or("none", |known| &known.operation.name)
    }

    fn log(&self, reply: &Reply, elapsed: Duration) {
        let status = reply.response.status().as_u16();
        let request_id = self.request_id.as_ref().and_then(|id| id.to_str().ok());
        let caller = self
            .known
            .as_ref()
            .and_then(|known| known.caller.name.as_deref());
        tracing::info!(
            operation = self.name(),
            method = self.known.as_ref().map(|known| known.method.as_str()),
            status,
            outcome = reply.outcome.as_str(),
            error = reply.error,
            cache = reply.cache.as_ref().map(|cache| cache.reason()),
            elapsed_ms = millis(elapsed),
            queue_ms = millis(reply.timing.queued),
            upstream_ms = millis(reply.timing.upstream),
            throttled = reply.timing.throttled,
            credential = self
                .known
                .as_ref()
                .map(|known| tracing::field::display(known.credential)),
            peer = self.peer.map(|peer| tracing::field::display(peer.0.ip())),
            caller,
            request_id,
            "request"
        );
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let elapsed = self
            .gateway
            .clock
            .now()
            .saturating_duration_since(self.accepted);
        self.gateway
            .metrics
            .request(self.name(), Outcome::HungUp, None, elapsed);
        tracing::info!(
            operation = self.name(),
            outcome = Outcome::HungUp.as_str(),
            elapsed_ms = millis(elapsed),
            request_id = self.request_id.as_ref().and_then(|id| id.to_str().ok()),
            "the caller hung up"
        );
    }
}

/// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers) of the budget used.
fn show_budget(headers: &mut http::HeaderMap, standing: &Standing) {
    let name = &standing.budget;
    let window = standing.rate.window.as_secs_f64().ceil();
    let reset = standing.reset.as_secs_f64().ceil();
    let policy = format!("\"{name}\";q={};w={window}", standing.rate.limit);
    let state = format!("\"{name}\";r={};t={reset}", standing.remaining);
    for (field, text) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, state)] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.append(field, value);
        }
    }
}

/// The gateway answered by itself: neither a hit nor forwarded.
fn refused_status(kind: &str) -> HeaderValue {
    HeaderValue::try_from(format!("segment-gateway; detail={kind}"))
        .unwrap_or(HeaderValue::from_static("segment-gateway"))
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
