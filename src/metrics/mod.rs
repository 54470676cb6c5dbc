//! The metrics: one method in domain words for each event.
//!
//! Promises that what most requests count costs no lookup of a label after the first of its
//! operation. Metrics are built once and passed down; there is no global. `families.rs` is the
//! table of all names; `docs/metrics.md` says what a metric means for operators. Nothing here
//! decides what an event is.
//!
//! A new metric is a row in `families.rs`. What happens now and then gets a method here, which the
//! place where it happens calls. A level gets a field of [`Levels`] and is read at each scrape. A
//! series that has few values is created at the start, because Prometheus sees no increase in a
//! series that begins at 1.

use crate::version::{COMMIT, VERSION};
use prometheus::{Encoder, Histogram, HistogramVec, IntCounterVec, Registry, TextEncoder};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

mod client_keys;
mod connections;
mod families;
mod labels;
mod levels;
mod process;
mod series;
mod tls;
mod totals;

pub use connections::{BodyUnderWay, Connections, Open};
use families::Families;
use labels::{APPLIED, FAILED, class};
pub use labels::{HandshakeResult, Malformed, Origin, Outcome};
use levels::whole;
pub use levels::{AuditLevels, BudgetGauge, DurableGauge, Levels};
use series::{OperationSeries, SUCCESS};
pub use tls::TlsSeries;
pub use totals::{Counts, Distribution, Totals};

/// The results of a comparison in shadow mode, in which the API responds to every request and the
/// cache is compared with it.
const COMPARISONS: [&str; 2] = ["same", "different"];

/// All metrics. Every method may be called from any thread and takes no lock that is held for
/// longer than a look-up.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
    connections: Connections,
    /// By the operation's index.
    operations: Vec<OperationSeries>,
    /// The durations of requests, by outcome.
    durations: [OnceLock<Histogram>; Outcome::ALL.len()],
}

impl Metrics {
    /// Creates the metrics for these operations, in the order of their indices.
    ///
    /// # Errors
    /// Only if a name is malformed or taken twice, which a test excludes.
    pub fn new(operations: &[Arc<str>]) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let families = Families::new(&registry)?;
        create_series(&families);
        let names = operations.iter().cloned();
        Ok(Self {
            operations: names.map(OperationSeries::new).collect(),
            durations: [const { OnceLock::new() }; Outcome::ALL.len()],
            connections: Connections::new(&families),
            families,
            registry,
        })
    }

    /// Counts a hit with a 2xx. This is the hot path: only the first hit looks up labels.
    pub fn hit(&self, operation: usize, elapsed: Duration) {
        if let Some(series) = self.operations.get(operation) {
            let hits = series.hits(&self.families);
            hits.requests.inc();
            hits.cache.inc();
        }
        self.families.hit_duration.observe(elapsed.as_secs_f64());
    }

    /// Counts a hit with another status, such as a 304.
    pub fn other_hit(&self, operation: &str, status: u16, elapsed: Duration) {
        let labels = [operation, Outcome::Hit.as_str(), class(Some(status))];
        count(&self.families.requests, &labels);
        count(&self.families.cache, &[operation, "hit", "fresh"]);
        self.families.hit_duration.observe(elapsed.as_secs_f64());
    }

    /// Counts the end of any other request. `operation` is an index, `None` if the request was
    /// rejected before its operation was known; `status` is that of the response, `None` if the
    /// caller hung up before it.
    pub fn request(
        &self,
        operation: Option<usize>,
        outcome: Outcome,
        status: Option<u16>,
        elapsed: Duration,
    ) {
        let families = &self.families;
        let series = operation.and_then(|index| self.operations.get(index));
        match (series, class(status)) {
            (Some(series), SUCCESS) => series.successes(families, outcome).inc(),
            (series, class) => {
                let name = series.map_or("none", |series| &series.name);
                count(&families.requests, &[name, outcome.as_str(), class]);
            }
        }
        let duration = self.durations[outcome as usize]
            .get_or_init(|| families.duration.with_label_values(&[outcome.as_str()]));
        duration.observe(elapsed.as_secs_f64());
    }

    /// Counts a request of a client. Clients are bounded by the file that names them.
    pub fn client(&self, client: &str, outcome: Outcome) {
        let labels = [client, outcome.as_str()];
        self.families
            .client_requests
            .with_label_values(&labels)
            .inc();
    }

    /// Notes whether the API accepts a token that the gateway holds.
    pub fn held_token(&self, token: &str, accepted: bool) {
        let gauge = self.families.held_tokens.with_label_values(&[token]);
        gauge.set(accepted.into());
    }

    /// Forgets a held token, which the gateway no longer has.
    pub fn no_held_token(&self, token: &str) {
        // An error says that there was no such series.
        let _ = self.families.held_tokens.remove_label_values(&[token]);
    }

    /// Shows the state of the audit log.
    pub fn audit(&self, audit: &AuditLevels<'_>) {
        levels::set_audit(&self.families, audit);
    }

    /// Records the time that a request spent in the gateway itself.
    pub fn overhead(&self, elapsed: Duration) {
        self.families.overhead.observe(elapsed.as_secs_f64());
    }

    /// Counts a fetch that no reader waits for. `why` is the kind of stale response that was served
    /// meanwhile, or `ahead` of its expiry.
    pub fn refreshed(&self, operation: &str, why: &str) {
        count(&self.families.refreshes, &[operation, why]);
    }

    /// Counts a read of a cacheable operation that was no hit. `result` is `stale`, `miss` or
    /// `bypass`.
    pub fn not_a_hit(&self, operation: &str, result: &str, reason: &str) {
        count(&self.families.cache, &[operation, result, reason]);
    }

    /// Counts an error of the gateway itself; `kind` is the type that its body names, which
    /// `error.rs` has in its table.
    pub fn rejected(&self, operation: &str, kind: &str) {
        count(&self.families.rejections, &[operation, kind]);
    }

    /// Creates the series of these reasons, so that the first rejection of each is an increase that
    /// `rate` sees. Called by the admin listener, which defines the reasons.
    pub fn expect_admin_rejections(&self, reasons: impl IntoIterator<Item = &'static str>) {
        for reason in reasons {
            self.families.admin_rejections.with_label_values(&[reason]);
        }
    }

    /// Counts a rejected request to the admin listener.
    pub fn admin_rejected(&self, reason: &str) {
        count(&self.families.admin_rejections, &[reason]);
    }

    /// Counts a 429: one that the API gave an attempt, or one that a caller got.
    pub fn throttled(&self, operation: &str, origin: Origin) {
        count(&self.families.throttled, &[operation, origin.as_str()]);
    }

    /// Records the wait of a request at its first attempt. The waits of
    /// retries are not part of it. `operation` is an index.
    pub fn queued(&self, operation: usize, waited: Duration) {
        if let Some(series) = self.operations.get(operation) {
            let queued = series.queued(&self.families);
            queued.observe(waited.as_secs_f64());
        }
    }

    /// Counts an attempt that got a response with this status after this time. A 429 has a result
    /// of its own, because it says something about the budget and not about the request.
    /// `operation` is an index.
    pub fn answered(&self, operation: usize, status: u16, elapsed: Duration) {
        let Some(series) = self.operations.get(operation) else {
            return;
        };
        let answered = series.answered(&self.families);
        match (status, class(Some(status))) {
            (_, SUCCESS) => answered.successes.inc(),
            (429, _) => count(&self.families.upstream, &[&series.name, "429"]),
            (_, class) => count(&self.families.upstream, &[&series.name, class]),
        }
        answered.duration.observe(elapsed.as_secs_f64());
    }

    /// Counts an attempt without a response: `not-sent` if it certainly had no effect, `unknown` if
    /// it may have had one.
    pub fn unanswered(&self, operation: &str, result: &str) {
        count(&self.families.upstream, &[operation, result]);
    }

    /// Counts an invalidation of stored responses, by what it names; see the row.
    pub fn invalidated(&self, kind: &str) {
        count(&self.families.invalidations, &[kind]);
    }

    /// Counts requests of other users of a token, as far as rate headers and 429s reveal them.
    pub fn foreign(&self, budget: &str, requests: u32) {
        self.families
            .foreign
            .with_label_values(&[budget])
            .inc_by(u64::from(requests));
    }

    /// Counts a retry of a write that may have taken effect.
    pub fn retried(&self, operation: &str) {
        count(&self.families.retries, &[operation]);
    }

    /// Counts a write for which the retry budget had no retry.
    pub fn retry_denied(&self, operation: &str) {
        count(&self.families.retries_denied, &[operation]);
    }

    /// Returns the connections of callers.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Returns the metrics of a listener with TLS. Without one there are none.
    pub fn tls(&self, listener: &'static str) -> TlsSeries {
        TlsSeries::new(&self.families, listener)
    }

    /// Counts a response body as in flight until the returned guard is dropped.
    pub fn body(&self) -> BodyUnderWay {
        BodyUnderWay::new(&self.families)
    }

    /// Counts a durable write that ended in this state.
    pub fn durable_ended(&self, operation: &str, state: &str) {
        count(&self.families.durable_ended, &[operation, state]);
    }

    /// Counts a batch run: `writes` that were sent with `dispatches` requests. The difference is
    /// what batching saves of the budget.
    pub fn batched(&self, operation: &str, writes: u64, dispatches: u64) {
        let of = &[operation];
        self.families.batched.with_label_values(of).inc_by(writes);
        count(&self.families.batches, of);
        let saved = writes.saturating_sub(dispatches);
        self.families.saved.with_label_values(of).inc_by(saved);
    }

    /// Counts a commit of the journal and its duration, from the call until it is on disk or has
    /// failed.
    pub fn journal_committed(&self, kept: bool, took: Duration) {
        let result = if kept { "kept" } else { "failed" };
        time(&self.families.commits, &[result], took);
    }

    /// Sets whether shadow mode is on. This is set once, because a reload cannot change the mode.
    pub fn in_shadow(&self, is_on: bool) {
        self.families.shadow_mode.set(i64::from(is_on));
    }

    /// Counts a prediction: the verdict, the result of the cache, and the wait of a request that
    /// would have been sent.
    pub fn predicted(&self, operation: &str, verdict: &str, cache: &str, wait: Option<Duration>) {
        let families = &self.families;
        count(&families.shadow_requests, &[operation, verdict, cache]);
        if let Some(wait) = wait {
            time(&families.shadow_wait, &[operation], wait);
        }
        if verdict == "hit" {
            // Creates both series, so that the first difference is an increase that `rate` sees.
            for result in COMPARISONS {
                families
                    .shadow_compared
                    .with_label_values(&[operation, result]);
            }
        }
    }

    /// Counts a comparison of a stored response with the API's: `same` or `different`.
    pub fn compared(&self, operation: &str, result: &str) {
        count(&self.families.shadow_compared, &[operation, result]);
    }

    /// Counts a 429 of the API, by the prediction for its request.
    pub fn throttled_in_shadow(&self, operation: &str, verdict: &str) {
        count(&self.families.shadow_throttled, &[operation, verdict]);
    }

    /// Notes the first configuration. It counts as no reload.
    pub fn configured(&self, at: SystemTime) {
        self.families.reload_successful.set(1);
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.families.reload_time.set(since.as_secs_f64());
    }

    /// Notes a successful reload after which `waiting` keys wait for a restart.
    pub fn reloaded(&self, at: SystemTime, waiting: usize) {
        self.configured(at);
        count(&self.families.reloads, &[APPLIED]);
        self.families.restart_pending.set(whole(waiting as u64));
    }

    /// Notes a failed reload. The previous configuration stays in use, so the instant of the last
    /// successful one stays as it is.
    pub fn reload_failed(&self) {
        self.families.reload_successful.set(0);
        count(&self.families.reloads, &[FAILED]);
    }

    /// Counts `count` spans with this result.
    pub fn spans(&self, result: &str, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.families
            .spans
            .with_label_values(&[result])
            .inc_by(count);
    }

    /// Renders the text exposition with the present levels. With many series this takes a while, so
    /// the admin listener calls it on a thread of its own.
    pub fn render(&self, budgets: &[(Arc<str>, BudgetGauge)], levels: &Levels) -> Vec<u8> {
        levels::set(&self.families, budgets, levels);
        process::set(&self.families);
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(error = %error, "cannot render the metrics");
        }
        text
    }

    /// Returns sums over operations at this moment, of the counters that `/metrics` shows.
    pub fn totals(&self) -> Totals {
        Totals::new(&self.families)
    }
}

/// Counts one event in the series of these labels, in the order of the row.
fn count(family: &IntCounterVec, labels: &[&str]) {
    family.with_label_values(labels).inc();
}

/// Records a duration in the series of these labels.
fn time(family: &HistogramVec, labels: &[&str], elapsed: Duration) {
    family
        .with_label_values(labels)
        .observe(elapsed.as_secs_f64());
}

/// Creates the series of labels with few values, so that the first event is an increase that `rate`
/// sees.
fn create_series(families: &Families) {
    let malformed = [
        Malformed::Head,
        Malformed::TooLarge,
        Malformed::Http2,
        Malformed::Timeout,
    ]
    .map(Malformed::as_str);
    let series: [(&IntCounterVec, &[&str]); 3] = [
        (&families.malformed, &malformed),
        (&families.reloads, &[APPLIED, FAILED]),
        (&families.spans, &["exported", "failed", "dropped"]),
    ];
    for (family, values) in series {
        for value in values {
            family.with_label_values(&[value]);
        }
    }
    families.build.with_label_values(&[VERSION, COMMIT]).set(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_valid_and_every_event_is_counted_once() {
        let metrics = Metrics::new(&[Arc::from("getUser"), Arc::from("listUsers")]).unwrap();
        metrics.hit(1, Duration::from_micros(20));
        metrics.request(
            Some(0),
            Outcome::Fetched,
            Some(200),
            Duration::from_millis(80),
        );
        metrics.request(Some(0), Outcome::Failed, Some(502), Duration::ZERO);
        metrics.request(None, Outcome::HungUp, None, Duration::ZERO);
        metrics.queued(0, Duration::ZERO);
        for status in [200, 404, 429, 204] {
            metrics.answered(0, status, Duration::ZERO);
        }
        metrics.throttled("getUser", Origin::Start);
        let text = String::from_utf8(metrics.render(&[], &Levels::default())).unwrap();
        for line in [
            r#"segment_gateway_requests_total{code="2xx",operation="listUsers",outcome="hit"} 1"#,
            r#"segment_gateway_requests_total{code="2xx",operation="getUser",outcome="fetched"} 1"#,
            r#"segment_gateway_requests_total{code="5xx",operation="getUser",outcome="failed"} 1"#,
            r#"segment_gateway_requests_total{code="none",operation="none",outcome="hung-up"} 1"#,
            r#"segment_gateway_request_duration_seconds_count{outcome="fetched"} 1"#,
            r#"segment_gateway_queue_duration_seconds_count{operation="getUser"} 1"#,
            r#"segment_gateway_upstream_requests_total{operation="getUser",result="2xx"} 2"#,
            r#"segment_gateway_upstream_requests_total{operation="getUser",result="4xx"} 1"#,
            r#"segment_gateway_upstream_requests_total{operation="getUser",result="429"} 1"#,
            r#"segment_gateway_upstream_duration_seconds_count{operation="getUser"} 4"#,
            r#"segment_gateway_throttled_total{operation="getUser",origin="gateway"} 0"#,
            r#"segment_gateway_cache_requests_total{operation="listUsers",reason="fresh",result="hit"} 1"#,
            r#"segment_gateway_throttled_total{operation="getUser",origin="start"} 1"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_hit_of_an_operation_outside_the_table_is_no_panic() {
        Metrics::new(&[]).unwrap().hit(7, Duration::ZERO);
    }
}
