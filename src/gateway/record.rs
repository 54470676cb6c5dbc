//! The report about a request: headers of the response, metrics, spans and the log line.
//!
//! A [`RequestRecord`] begins with the request and is finished with its response. One that is
//! dropped unfinished belongs to a caller that hung up, or to a request that panicked, and is
//! counted as that. So every request ends in exactly one outcome.
//!
//! Nothing is decided here. Hits of the fast path are reported by [`crate::gateway::fast_path`].

use crate::cache::cache_status::CACHE_STATUS;
use crate::credential::Credential;
use crate::error::GatewayError;
use crate::exchange::body::Body;
use crate::exchange::cache_status::CacheStatus;
use crate::exchange::ids::Ids;
use crate::exchange::progress::Progress;
use crate::exchange::request::{Peer, RequestContext, short};
use crate::exchange::response::Reply;
use crate::exchange::settings::AccessLog;
use crate::exchange::timing::Timing;
use crate::gateway::Gateway;
use crate::gateway::recent::RecentRefusal;
use crate::gateway::spans::SpanFacts;
use crate::journal::WriteId;
use crate::limit::budgets::BudgetStatus;
use crate::limit::turns::Caller;
use crate::metrics::{Origin, Outcome};
use crate::route::policy::Operation;
use crate::shadow::verdict::SHADOW;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The client of a request, as far as it is known before the operation is.
/// Created before the layers may reject a request, so that a rejection is reported with its ids.
#[derive(Clone, Debug)]
pub(crate) struct RequestSource {
    method: Method,
    ids: Ids,
    peer: Option<Peer>,
}

impl RequestSource {
    pub(crate) fn of<B>(gateway: &Arc<Gateway>, request: &Request<B>) -> Self {
        Self {
            method: request.method().clone(),
            ids: Ids::of(request.headers(), gateway.tracer.as_ref()),
            peer: request.extensions().get::<Peer>().copied(),
        }
    }
}

/// The record of one request.
#[derive(Debug)]
pub(crate) struct RequestRecord {
    gateway: Arc<Gateway>,
    accepted: Instant,
    source: RequestSource,
    /// `None` until the operation is known, and for requests that are rejected before that.
    known: Option<Understood>,
    /// Whether the response was reported. If not, `Drop` reports the request.
    finished: bool,
}

/// The facts that are known once the operation is.
#[derive(Debug)]
struct Understood {
    operation: Arc<Operation>,
    progress: Arc<Progress>,
    credential: Credential,
    caller: Caller,
}

impl RequestRecord {
    pub(crate) fn new(gateway: &Arc<Gateway>, source: RequestSource) -> Self {
        Self {
            gateway: gateway.clone(),
            accepted: gateway.clock.now(),
            source,
            known: None,
            finished: false,
        }
    }

    pub(crate) fn accepted(&self) -> Instant {
        self.accepted
    }

    /// Returns the ids of the request.
    pub(crate) fn ids(&self) -> &Ids {
        &self.source.ids
    }

    // Called as soon as the operation is known, so that a later error or hang-up is reported under
    // its name.
    pub(crate) fn understood(&mut self, context: &RequestContext) {
        self.known = Some(Understood {
            operation: context.operation.clone(),
            progress: context.progress.clone(),
            credential: context.credential,
            caller: context.caller.clone(),
        });
    }

    /// Reports the response and returns it with its headers.
    ///
    /// The order matters: [`complete`](Self::complete) fills in the times that metrics, log and
    /// spans then show. The headers come last, because a hit returns before them.
    pub(crate) fn finish(mut self, mut reply: Reply) -> Response<Body> {
        // Set first, so that a panic below does not count the request twice.
        self.finished = true;
        let elapsed = self.elapsed();
        self.complete(&mut reply, elapsed);
        self.count(&reply, elapsed);
        let hit = reply.outcome == Outcome::Hit;
        if !hit || self.gateway.router.settings.get().access == AccessLog::All {
            self.log(&reply, elapsed);
        }
        self.trace(&reply, elapsed);
        let mut response = reply.response;
        if hit {
            // A hit has all its headers already: see `Entry::hit_headers`.
            return response;
        }
        let headers = response.headers_mut();
        match (&reply.cache, reply.error) {
            (_, Some(kind)) => mark_own(headers, kind, &self.gateway.router.settings.get().via),
            (cache, None) => {
                let write = CacheStatus::write();
                if let Some(value) = cache.as_ref().unwrap_or(&write).value() {
                    headers.append(CACHE_STATUS, value);
                }
            }
        }
        if let Some(shadow) = &reply.shadow {
            headers.insert(SHADOW, shadow.clone());
        }
        // A request without an attempt of its own shows the present status of its budget.
        let standing = reply.standing.or_else(|| {
            let known = self.known.as_ref().filter(|_| reply.shows_budget)?;
            let budget = &known.operation.budget;
            self.gateway.budgets.status(known.credential, budget)
        });
        if let Some(standing) = &standing {
            show_budget(headers, standing);
        }
        // `Server-Timing` only for requests that were queued or sent. `merged` counts the batch.
        let timing = &reply.timing;
        if timing.left || !timing.queued.is_zero() {
            let text = format!(
                "queue;dur={:.1}, upstream;dur={:.1}{}{}",
                millis(timing.queued),
                millis(timing.upstream),
                if timing.throttled > 0 {
                    format!(", throttled;desc=\"{}\"", timing.throttled)
                } else {
                    String::new()
                },
                if timing.merged > 1 {
                    format!(", merged;desc=\"{}\"", timing.merged)
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

    /// Returns the time since the head of the request was accepted.
    fn elapsed(&self) -> Duration {
        let now = self.gateway.clock.now();
        now.saturating_duration_since(self.accepted)
    }

    /// Fills in the times of a response that does not carry them: an error, or the response of
    /// another request that this one joined.
    fn complete(&self, reply: &mut Reply, elapsed: Duration) {
        let timing = &mut reply.timing;
        if reply.outcome == Outcome::Joined {
            // The time until the leader's response arrived, queued or in flight.
            (timing.left, timing.upstream) = (true, elapsed);
            return;
        }
        // An error carries no times of its own. What the progress saw of the last attempt is used
        // instead.
        let expired = reply.outcome == Outcome::Expired;
        if reply.error.is_none() && !expired {
            return;
        }
        let progress = self.known.as_ref().and_then(|known| known.progress.seen());
        if let Some((queued, throttled)) = progress {
            (timing.left, timing.queued, timing.throttled) = (true, queued, throttled);
            timing.upstream = elapsed.saturating_sub(queued);
        } else if expired || reply.outcome == Outcome::Refused {
            // Rejected at once, or expired in a queue. In both cases it was never sent.
            timing.queued = elapsed;
        }
    }

    /// Counts the request in every metric that it belongs to, under the operation's name.
    fn count(&self, reply: &Reply, elapsed: Duration) {
        let metrics = &self.gateway.metrics;
        let name = self.name();
        // Hits have counters of their own, by index for the common case of a success: a map look-up
        // would cost more than the hit.
        if reply.outcome == Outcome::Hit {
            let status = reply.response.status();
            let index = self.known.as_ref().map(|known| known.operation.index);
            match index.filter(|_| status.is_success()) {
                Some(index) => metrics.hit(index, elapsed),
                None => metrics.other_hit(name, status.as_u16(), elapsed),
            }
            return;
        }
        let status = reply.response.status().as_u16();
        metrics.request(name, reply.outcome, Some(status), elapsed);
        // The gateway's own time is what neither a queue nor the API took.
        metrics.overhead(elapsed.saturating_sub(reply.timing.queued + reply.timing.upstream));
        let cacheable = self
            .known
            .as_ref()
            .is_some_and(|known| known.operation.cache.is_some());
        if let Some(cache) = reply.cache.as_ref().filter(|_| cacheable) {
            metrics.not_a_hit(name, cache.result(), cache.reason());
        }
        if let Some(kind) = reply.error {
            metrics.rejected(name, kind);
            self.note_refusal(kind, reply.response.status());
            if status == 429 {
                metrics.throttled(name, Origin::Gateway);
            }
        }
    }

    /// Notes a rejection for the status page. It must contain nothing that a caller chose.
    fn note_refusal(&self, kind: &'static str, status: StatusCode) {
        let known = self.known.as_ref();
        self.gateway.recent.lock().note(RecentRefusal {
            at: self.gateway.clock.now(),
            operation: known.map_or_else(|| "none".into(), |known| known.operation.name.clone()),
            kind,
            status,
        });
    }

    /// Returns the operation's name, or `none` if the request was rejected before it was known.
    fn name(&self) -> &str {
        self.known
            .as_ref()
            .map_or("none", |known| &known.operation.name)
    }

    /// Writes the log line. The token appears only as its hash, path and query not at all.
    fn log(&self, reply: &Reply, elapsed: Duration) {
        let line = LogLine {
            operation: self.name(),
            method: &self.source.method,
            status: reply.response.status(),
            outcome: reply.outcome,
            error: reply.error,
            cache: reply.cache.as_ref().map(|cache| cache.reason()),
            shadow: reply.shadow.as_ref().and_then(|value| value.to_str().ok()),
            elapsed,
            timing: &reply.timing,
            credential: self.known.as_ref().map(|known| known.credential),
            peer: self.source.peer,
            caller: self.caller(),
            ids: &self.source.ids,
            write_id: reply.write_id,
        };
        line.write();
    }

    fn credential(&self) -> Option<impl tracing::Value> {
        let known = self.known.as_ref();
        known.map(|known| tracing::field::display(known.credential))
    }

    fn peer(&self) -> Option<impl tracing::Value> {
        let peer = self.source.peer;
        peer.map(|peer| tracing::field::display(peer.0.ip()))
    }

    fn caller(&self) -> Option<&str> {
        let known = self.known.as_ref();
        known.and_then(|known| known.caller.name.as_deref())
    }

    /// Writes the spans of a response.
    fn trace(&self, reply: &Reply, elapsed: Duration) {
        self.report_spans(&SpanFacts {
            status: Some(reply.response.status()),
            error: reply.error,
            cache: reply.cache.as_ref(),
            ..self.ended(reply.outcome, &reply.timing, elapsed)
        });
    }

    /// Returns the facts for spans that are known without a response.
    fn ended<'r>(
        &'r self,
        outcome: Outcome,
        timing: &'r Timing,
        elapsed: Duration,
    ) -> SpanFacts<'r> {
        let known = self.known.as_ref();
        SpanFacts {
            method: &self.source.method,
            operation: known.map(|known| &*known.operation),
            outcome,
            status: None,
            error: None,
            cache: None,
            timing,
            progress: known.map(|known| &*known.progress),
            from: self.accepted,
            elapsed,
        }
    }

    fn report_spans(&self, ended: &SpanFacts<'_>) {
        self.gateway.report_request(&self.source.ids, ended);
    }
}

// The outcome of a request without a response. Dropping the request's future is how hyper cancels
// it, so this is also the only place that sees a caller hang up.
impl Drop for RequestRecord {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let elapsed = self.elapsed();
        let metrics = &self.gateway.metrics;
        // The panic guard responds, and logs the panic.
        let (outcome, status) = if std::thread::panicking() {
            metrics.rejected(self.name(), GatewayError::Internal.facts().kind);
            (Outcome::Failed, Some(500))
        } else {
            (Outcome::HungUp, None)
        };
        metrics.request(self.name(), outcome, status, elapsed);
        let progress = self.known.as_ref().and_then(|known| known.progress.seen());
        // Only a request that was sent has a known queue time.
        let mut timing = Timing::default();
        if let Some((queued, throttled)) = progress {
            (timing.left, timing.queued, timing.throttled) = (true, queued, throttled);
        }
        self.report_spans(&SpanFacts {
            status: status.and_then(|status| StatusCode::from_u16(status).ok()),
            ..self.ended(outcome, &timing, elapsed)
        });
        tracing::info!(
            operation = self.name(),
            method = short(&self.source.method),
            status,
            outcome = outcome.as_str(),
            left = progress.is_some(),
            elapsed_ms = millis(elapsed),
            queue_ms = progress.map(|(queued, _)| millis(queued)),
            credential = self.credential(),
            peer = self.peer(),
            caller = self.caller(),
            request_id = self.source.ids.request(),
            trace_id = self.source.ids.trace(),
            "request ended without a response"
        );
    }
}

/// The log line about a request that got its response.
/// A hit of the fast path writes the same line without a record.
#[derive(Debug)]
pub(crate) struct LogLine<'a> {
    pub(crate) operation: &'a str,
    pub(crate) method: &'a Method,
    pub(crate) status: StatusCode,
    pub(crate) outcome: Outcome,
    pub(crate) error: Option<&'static str>,
    pub(crate) cache: Option<&'static str>,
    pub(crate) shadow: Option<&'a str>,
    pub(crate) elapsed: Duration,
    pub(crate) timing: &'a Timing,
    pub(crate) credential: Option<Credential>,
    pub(crate) peer: Option<Peer>,
    pub(crate) caller: Option<&'a str>,
    pub(crate) ids: &'a Ids,
    pub(crate) write_id: Option<WriteId>,
}

impl LogLine<'_> {
    pub(crate) fn write(&self) {
        tracing::info!(
            operation = self.operation,
            method = short(self.method),
            status = self.status.as_u16(),
            outcome = self.outcome.as_str(),
            error = self.error,
            cache = self.cache,
            shadow = self.shadow,
            elapsed_ms = millis(self.elapsed),
            queue_ms = millis(self.timing.queued),
            upstream_ms = millis(self.timing.upstream),
            throttled = self.timing.throttled,
            merged = self.timing.merged,
            credential = self.credential.map(tracing::field::display),
            peer = self.peer.map(|peer| tracing::field::display(peer.0.ip())),
            caller = self.caller,
            request_id = self.ids.request(),
            trace_id = self.ids.trace(),
            write_id = self.write_id.map(tracing::field::display),
            "request"
        );
    }
}

/// Marks an error of the gateway itself: neither a hit nor forwarded.
pub(crate) fn mark_own(headers: &mut HeaderMap, kind: &str, via: &HeaderValue) {
    let value = HeaderValue::try_from(format!("segment-gateway; detail={kind}"));
    let value = value.unwrap_or(HeaderValue::from_static("segment-gateway"));
    headers.append(CACHE_STATUS, value);
    headers.append(header::VIA, via.clone());
}

/// Adds `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers) of the budget.
fn show_budget(headers: &mut HeaderMap, standing: &BudgetStatus) {
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

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
