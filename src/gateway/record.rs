//! The report about a request: headers of the response, metrics, spans and the log line.
//!
//! A [`RequestRecord`] begins with the request and is finished with its response. One that is
//! dropped unfinished belongs to a caller that hung up, or to a request that panicked, and is
//! counted as that. So every request ends in exactly one outcome.
//!
//! Invariant: headers, metrics, spans and the log line of a request say the same.
//!
//! Nothing is decided here. Hits of the fast path are reported by [`crate::gateway::fast_path`].

use crate::audit::Audit;
use crate::caller::Caller;
use crate::clients::KeyId;
use crate::credential::Credential;
use crate::error::GatewayError;
use crate::exchange::body::Body;
use crate::exchange::progress::Progress;
use crate::exchange::request::RequestContext;
use crate::exchange::response::Reply;
use crate::exchange::settings::AccessLog;
use crate::exchange::source::RequestSource;
use crate::exchange::timing::Timing;
use crate::gateway::Gateway;
use crate::gateway::headers::{show_budget, show_cache, show_timing};
use crate::gateway::recent::RecentRejection;
use crate::gateway::report::RequestReport;
use crate::metrics::{Origin, Outcome};
use crate::route::policy::Operation;
use crate::shadow::verdict::SHADOW;
use http::{Response, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The record of one request.
#[derive(Debug)]
pub(crate) struct RequestRecord {
    gateway: Arc<Gateway>,
    /// The instant at which the head of the request was complete.
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
    /// How far the request has come. The attempt writes here, and the record reads at the end.
    progress: Arc<Progress>,
    credential: Credential,
    caller: Caller,
    /// The key by which the client is known.
    key: Option<KeyId>,
}

impl RequestRecord {
    /// Begins the record, and with it the time of the request.
    pub(crate) fn new(gateway: &Arc<Gateway>, source: RequestSource) -> Self {
        Self {
            gateway: gateway.clone(),
            accepted: gateway.clock.now(),
            source,
            known: None,
            finished: false,
        }
    }

    /// Returns the instant at which the request was accepted. Patience counts from it.
    pub(crate) fn accepted(&self) -> Instant {
        self.accepted
    }

    /// Returns the audit log.
    pub(super) fn audit(&self) -> &Audit {
        self.gateway.audit()
    }

    /// Returns the source of the request.
    pub(crate) fn source(&self) -> &RequestSource {
        &self.source
    }

    /// Notes what is known about the request. Called as soon as the operation is, so that a later
    /// error or hang-up is reported under its name.
    pub(crate) fn understood(&mut self, context: &RequestContext) {
        self.known = Some(Understood {
            operation: context.operation.clone(),
            progress: context.progress.clone(),
            credential: context.credential,
            caller: context.caller.clone(),
            key: context.key,
        });
    }

    /// Reports the response and returns it with its headers.
    ///
    /// The order matters: [`complete`](Self::complete) fills in the times that metrics, log and
    /// spans then show. The headers come last, because a hit returns before them.
    pub(crate) fn finish(mut self, mut reply: Reply) -> Response<Body> {
        // Set first, so that a panic below does not count the request twice: the drop of the record
        // would report it again.
        self.finished = true;
        // One reading of the clock, so that headers, metrics, log and spans agree.
        let elapsed = self.elapsed();
        self.complete(&mut reply, elapsed);
        self.count(&reply, elapsed);
        self.report(&reply, elapsed);
        let mut response = reply.response;
        if reply.outcome == Outcome::Hit {
            // A hit has all its headers already: see `Entry::hit_headers`.
            return response;
        }
        let headers = response.headers_mut();
        let via = &self.gateway.router.settings.get().via;
        show_cache(headers, reply.cache.as_ref(), reply.error, via);
        if let Some(shadow) = &reply.shadow {
            headers.insert(SHADOW, shadow.clone());
        }
        // The last attempt saw the API's headers about the budget.
        // A request without an attempt of its own shows the present status of its budget.
        let standing = reply.standing.or_else(|| {
            let known = self.known.as_ref().filter(|_| reply.shows_budget)?;
            let budget = &known.operation.budget;
            self.gateway.budgets.status(known.credential, budget)
        });
        if let Some(standing) = &standing {
            show_budget(headers, standing);
        }
        show_timing(headers, &reply.timing);
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
            // The time until the leader's response arrived, queued or in flight. The follower
            // cannot tell the two apart.
            (timing.sent, timing.upstream) = (true, elapsed);
            return;
        }
        // An error carries no times of its own. What the progress saw of the last attempt is used
        // instead.
        if reply.error.is_none() && reply.outcome != Outcome::Expired {
            return;
        }
        let progress = self.known.as_ref().and_then(|known| known.progress.seen());
        match progress {
            Some((queued, throttled)) => {
                (timing.sent, timing.queued, timing.throttled) = (true, queued, throttled);
                timing.upstream = elapsed.saturating_sub(queued);
            }
            // Rejected immediately, expired in a queue, or no connection was made. In all cases it
            // was never sent, so all of its time counts as queued.
            None => timing.queued = elapsed,
        }
    }

    /// Counts the request in every metric that it belongs to, under the operation's name. A request
    /// that was not understood counts under `none`.
    fn count(&self, reply: &Reply, elapsed: Duration) {
        let metrics = &self.gateway.metrics;
        let name = self.name();
        // In addition: metrics of operations know no clients, and the other way round.
        if let Some(client) = self.client() {
            metrics.client(client, reply.outcome);
        }
        // Hits have counters of their own, by index for the common case of a success: a map look-up
        // would cost more than the hit.
        let index = self.index();
        if reply.outcome == Outcome::Hit {
            let status = reply.response.status();
            match index.filter(|_| status.is_success()) {
                Some(index) => metrics.hit(index, elapsed),
                None => metrics.other_hit(name, status.as_u16(), elapsed),
            }
            return;
        }
        // Every request counts here once, under its outcome.
        let status = reply.response.status().as_u16();
        metrics.request(index, reply.outcome, Some(status), elapsed);
        // The gateway's own time is what neither a queue nor the API took.
        metrics.overhead(elapsed.saturating_sub(reply.timing.queued + reply.timing.upstream));
        // The result of the cache counts for operations that are cached at all.
        let cacheable = self
            .known
            .as_ref()
            .is_some_and(|known| known.operation.cache.is_some());
        if let Some(cache) = reply.cache.as_ref().filter(|_| cacheable) {
            metrics.not_a_hit(name, cache.result(), cache.reason());
        }
        if let Some(kind) = reply.error {
            metrics.rejected(name, kind);
            self.note_rejection(kind, reply.response.status());
            if status == 429 {
                metrics.throttled(name, Origin::Gateway);
            }
        }
    }

    /// Notes a rejection for the status page, which has room for a few. It must contain nothing
    /// that a caller chose.
    fn note_rejection(&self, kind: &'static str, status: StatusCode) {
        let known = self.known.as_ref();
        self.gateway.recent.lock().note(RecentRejection {
            at: self.gateway.clock.now(),
            operation: known.map_or_else(|| "none".into(), |known| known.operation.name.clone()),
            kind,
            status,
            credential: known.map(|known| known.credential),
            client: self.client().cloned(),
            peer: self.source.peer.map(|peer| peer.0.ip().to_canonical()),
        });
    }

    /// Returns the name of the client, if one is known. The file of clients bounds these names, so
    /// that they may be labels.
    fn client(&self) -> Option<&Arc<str>> {
        let known = self.known.as_ref();
        known.and_then(|known| known.caller.principal.client())
    }

    /// Returns the operation's index, by which the metrics of most requests are found. `None` if
    /// the request was rejected before its operation was known.
    fn index(&self) -> Option<usize> {
        self.known.as_ref().map(|known| known.operation.index)
    }

    /// Returns the operation's name, or `none` if the request was rejected before it was known.
    ///
    /// Both are labels of metrics, so no text of a caller may appear here.
    fn name(&self) -> &str {
        self.known
            .as_ref()
            .map_or("none", |known| &known.operation.name)
    }

    /// Returns the facts about the request that are known without a response.
    fn ended<'r>(
        &'r self,
        outcome: Outcome,
        timing: &'r Timing,
        elapsed: Duration,
    ) -> RequestReport<'r> {
        let known = self.known.as_ref();
        RequestReport {
            ids: &self.source.ids,
            method: &self.source.method,
            version: self.source.version,
            operation: known.map(|known| &*known.operation),
            credential: known.map(|known| known.credential),
            peer: self.source.peer,
            client: self.client().map(|client| &**client),
            key: known.and_then(|known| known.key),
            caller: known.and_then(|known| known.caller.name.as_deref()),
            outcome,
            status: None,
            error: None,
            cache: None,
            shadow: None,
            write_id: None,
            timing,
            progress: known.map(|known| &*known.progress),
            from: self.accepted,
            elapsed,
        }
    }

    /// Writes the log line and the spans of a request that got its response.
    fn report(&self, reply: &Reply, elapsed: Duration) {
        let report = RequestReport {
            status: Some(reply.response.status()),
            error: reply.error,
            cache: reply.cache.as_ref(),
            shadow: reply.shadow.as_ref().and_then(|value| value.to_str().ok()),
            write_id: reply.write_id,
            ..self.ended(reply.outcome, &reply.timing, elapsed)
        };
        // Hits are most of the requests, so they get a line only if the operator wants one.
        let is_hit = reply.outcome == Outcome::Hit;
        if !is_hit || self.gateway.router.settings.get().access == AccessLog::All {
            report.write_line();
        }
        self.gateway.report_spans(&report);
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
        // A panic unwinds through this drop; a caller that hangs up does not.
        // The panic guard responds, and logs the panic.
        let (outcome, status) = if std::thread::panicking() {
            metrics.rejected(self.name(), GatewayError::Internal.facts().kind);
            (Outcome::Failed, Some(500))
        } else {
            (Outcome::HungUp, None)
        };
        metrics.request(self.index(), outcome, status, elapsed);
        // As `count` does for a request that got its response.
        if let Some(client) = self.client() {
            metrics.client(client, outcome);
        }
        let progress = self.known.as_ref().and_then(|known| known.progress.seen());
        // Only a request that was sent has a known queue time. Where the others waited is unknown.
        let mut timing = Timing::default();
        if let Some((queued, throttled)) = progress {
            (timing.sent, timing.queued, timing.throttled) = (true, queued, throttled);
        }
        let report = RequestReport {
            status: status.and_then(|status| StatusCode::from_u16(status).ok()),
            ..self.ended(outcome, &timing, elapsed)
        };
        self.gateway.report_spans(&report);
        report.write_unanswered();
    }
}
