//! The metrics: names, helps and labels, and one method in domain words for each event.
//!
//! Labels are bounded: operations of the route table, budgets that it names, and enums. They never
//! contain a path, a caller or a credential. Metrics are built once and passed down; there is no
//! global. What a metric means for operators is in `docs/metrics.md`.

use crate::version::{COMMIT, VERSION};
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

mod configuration;
mod durable;
mod process;
mod shadow;
mod spans;
mod totals;

use configuration::ConfigurationMetrics;
pub use durable::DurableGauge;
use durable::DurableMetrics;
use process::ProcessGauges;
use shadow::ShadowMetrics;

/// The outcome of a request. Every request ends in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Served from the store.
    Hit,
    /// Served stale from the store, which some rule permits.
    Stale,
    /// Served by a fetch of its own that could be stored.
    Fetched,
    /// Served by a fetch that another request led.
    Joined,
    /// A read that bypassed the cache.
    Passed,
    /// A write that the API responded to.
    Written,
    /// A write accepted to be sent later.
    Deferred,
    /// Served with the recorded response of an earlier request under the same key.
    Replayed,
    /// Served by one of the gateway's own resources.
    Own,
    /// Rejected by the gateway; nothing was sent.
    Refused,
    /// The deadline passed in the queue; nothing took effect.
    Expired,
    /// A write that was sent without a response.
    Unknown,
    /// The API could not be reached, or did not respond to a read.
    Failed,
    /// The caller hung up before the response.
    HungUp,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 14] = [
        Self::Hit,
        Self::Stale,
        Self::Fetched,
        Self::Joined,
        Self::Passed,
        Self::Written,
        Self::Deferred,
        Self::Replayed,
        Self::Own,
        Self::Refused,
        Self::Expired,
        Self::Unknown,
        Self::Failed,
        Self::HungUp,
    ];

    /// Returns the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Fetched => "fetched",
            Self::Joined => "joined",
            Self::Passed => "passed",
            Self::Written => "written",
            Self::Deferred => "deferred",
            Self::Replayed => "replayed",
            Self::Own => "own",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
            Self::HungUp => "hung-up",
        }
    }
}

/// The origin of a 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The API, for any other attempt.
    Upstream,
    /// The API, for the first attempt of a budget without history.
    Start,
    /// The gateway, for a caller over its quota.
    Gateway,
}

impl Origin {
    fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Start => "start",
            Self::Gateway => "gateway",
        }
    }
}

/// One budget at the time of a scrape, over all credentials.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BudgetGauge {
    /// The limit of the credential that uses the budget most.
    pub limit: u32,
    /// The occupied slots of that credential.
    pub used: u32,
    /// Requests queued, over all credentials.
    pub waiting: usize,
    /// Seconds that the first of them has waited.
    pub oldest: f64,
    /// Seconds until a new request would be sent, for the slowest credential.
    pub next_free: f64,
    /// Credentials that use the budget.
    pub credentials: u32,
    /// Seconds for which a 429 keeps the budget closed, for the slowest credential.
    pub closed: f64,
}

/// The other levels that are read at a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Levels {
    /// Entries of the cache.
    pub cache_entries: u64,
    /// Bytes of the cache.
    pub cache_bytes: u64,
    /// Entries evicted since the start.
    pub cache_evictions: u64,
    /// Shared fetches in flight.
    pub fetches: usize,
    /// Marks of the fence.
    pub marks: usize,
    /// Requests queued for a budget.
    pub waiting: usize,
    /// Running tasks.
    pub tasks: usize,
    /// Tasks that panicked since the start.
    pub panics: usize,
    /// Callers tracked by the quotas.
    pub callers: usize,
    /// Whether attempts are recorded for the next start.
    pub ledger: bool,
    /// Whether the gateway accepts requests.
    pub ready: bool,
    /// Whether writes wait for the API to respond again.
    pub broken: bool,
    /// Durable writes.
    pub durable: DurableGauge,
    /// Seconds since the start.
    pub uptime: f64,
}

/// The two counters of a hit.
#[derive(Debug)]
struct Hits {
    requests: IntCounter,
    cache: IntCounter,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    /// Resolved at an operation's first hit, so that only cached operations have a series.
    hits: Vec<(Arc<str>, OnceLock<Hits>)>,
    duration: HistogramVec,
    hit_duration: Histogram,
    gateway_duration: Histogram,
    cache: IntCounterVec,
    refusals: IntCounterVec,
    throttled: IntCounterVec,
    wait: HistogramVec,
    upstream: IntCounterVec,
    upstream_duration: HistogramVec,
    fence: IntCounterVec,
    foreign: IntCounterVec,
    refreshes: IntCounterVec,
    repeated: IntCounterVec,
    not_repeated: IntCounterVec,
    connections: Connections,
    operators_denied: IntCounterVec,
    configuration: ConfigurationMetrics,
    spans: IntCounterVec,
    bodies: IntGauge,
    body_panics: IntCounter,
    durable: DurableMetrics,
    shadow: ShadowMetrics,
    levels: LevelGauges,
}

/// The connections of a listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connections {
    open: IntGauge,
    malformed: IntCounterVec,
}

/// A guard that counts a connection as open.
#[derive(Debug)]
pub struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The kind of bytes that are not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// No valid head.
    Head,
    /// A head above the size limit.
    TooLarge,
    /// The preface of HTTP/2.
    Http2,
    /// The rest of a head did not come in time.
    Timeout,
}

impl Malformed {
    /// Returns the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::TooLarge => "too-large",
            Self::Http2 => "http2",
            Self::Timeout => "timeout",
        }
    }
}

impl Connections {
    fn new(make: &Maker) -> prometheus::Result<Self> {
        let malformed = make.counters(
            "segment_gateway_malformed_requests_total",
            "Connections closed because of a malformed request, by reason: head, too-large, http2",
            &["reason"],
        )?;
        let (head, large) = (Malformed::Head, Malformed::TooLarge);
        for reason in [head, large, Malformed::Http2, Malformed::Timeout] {
            malformed.with_label_values(&[reason.as_str()]);
        }
        let open = make.gauge(
            "segment_gateway_connections",
            "Open connections from callers",
        )?;
        Ok(Self { open, malformed })
    }

    /// Returns counters that no scrape shows, for a listener without metrics.
    ///
    /// # Errors
    /// Only if a name is malformed, which a test excludes.
    pub fn unseen() -> prometheus::Result<Self> {
        Self::new(&Maker(Registry::new()))
    }

    /// Counts an open connection until the returned guard is dropped.
    pub fn opened(&self) -> OpenConnection {
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> i64 {
        self.open.get()
    }

    /// Counts a connection closed because of bytes that are not a request.
    pub fn malformed(&self, reason: Malformed) {
        self.malformed.with_label_values(&[reason.as_str()]).inc();
    }
}

/// A guard that counts a response body as in flight.
#[derive(Debug)]
pub struct BodyUnderWay {
    under_way: IntGauge,
    panics: IntCounter,
}

impl BodyUnderWay {
    /// Counts a panic of the body.
    pub fn panicked(&self) {
        self.panics.inc();
    }
}

impl Drop for BodyUnderWay {
    fn drop(&mut self) {
        self.under_way.dec();
    }
}

// Read at each scrape, unlike the counters above.
#[derive(Debug)]
struct LevelGauges {
    budgets: BudgetGauges,
    cache_entries: IntGauge,
    cache_bytes: IntGauge,
    cache_evictions: IntCounter,
    fetches: IntGauge,
    marks: IntGauge,
    waiting: IntGauge,
    tasks: IntGauge,
    panics: IntCounter,
    callers: IntGauge,
    ledger: IntGauge,
    ready: IntGauge,
    broken: IntGauge,
    uptime: Gauge,
    process: ProcessGauges,
}

/// The reasons to reject admin requests.
const DENIALS: [&str; 7] = [
    "host",
    "origin",
    "header",
    "address",
    "no-token",
    "wrong-token",
    "paused",
];

/// From fast responses to waits of minutes.
const REQUEST_BUCKETS: [f64; 15] = [
    0.000_05, 0.000_2, 0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 150.0,
];
// From 10 µs, for hits.
const HIT_BUCKETS: [f64; 9] = [
    0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.005, 0.05,
];
/// From writes sent at once to deferred ones that wait for hours.
const WAIT_BUCKETS: [f64; 14] = [
    0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0, 10_800.0,
];

// Builds collectors and registers them.
struct Maker(Registry);

impl Maker {
    fn own<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        made: prometheus::Result<C>,
    ) -> prometheus::Result<C> {
        let collector = made?;
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        self.own(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.own(IntCounter::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.own(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn reals(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
        self.own(GaugeVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.own(IntGauge::new(name, help))
    }

    fn real(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.own(Gauge::new(name, help))
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.own(HistogramVec::new(options, labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.own(Histogram::with_opts(options))
    }
}

impl Metrics {
    /// Creates the metrics for these operations, in the order of their indices.
    ///
    /// # Errors
    /// Only if a name below is malformed or taken twice, which a test excludes.
    #[expect(
        clippy::too_many_lines,
        reason = "a list of names and helps, best read as one"
    )]
    pub fn new(operations: &[Arc<str>]) -> prometheus::Result<Self> {
        let make = Maker(Registry::new());
        let requests = make.counters(
            "segment_gateway_requests_total",
            "Requests from callers. Each has exactly one outcome",
            &["operation", "outcome", "code"],
        )?;
        let cache = make.counters(
            "segment_gateway_cache_requests_total",
            "Reads by result (hit, stale, miss, bypass) and reason, as in Cache-Status",
            &["operation", "result", "reason"],
        )?;
        let duration = make.histograms(
            "segment_gateway_request_duration_seconds",
            "Time from request head to response head, by outcome, without cache hits",
            &["outcome"],
            &REQUEST_BUCKETS,
        )?;
        let build = make.gauges(
            "segment_gateway_build_info",
            "Always 1. The labels name the build",
            &["version", "commit"],
        )?;
        build.with_label_values(&[VERSION, COMMIT]).set(1);
        let metrics = Self {
            hits: operations
                .iter()
                .map(|name| (name.clone(), OnceLock::new()))
                .collect(),
            hit_duration: make.histogram(
                "segment_gateway_cache_hit_duration_seconds",
                "Time from request head to response head of cache hits",
                &HIT_BUCKETS,
            )?,
            gateway_duration: make.histogram(
                "segment_gateway_overhead_duration_seconds",
                "Time a request spent in the gateway itself, neither queued nor upstream",
                &REQUEST_BUCKETS,
            )?,
            requests,
            cache,
            duration,
            refusals: make.counters(
                "segment_gateway_rejections_total",
                "Requests rejected by the gateway with an error of its own, by type",
                &["operation", "type"],
            )?,
            throttled: make.counters(
                "segment_gateway_throttled_total",
                "429 responses by origin: upstream (the API), start (first attempt of a budget \
                 without history), gateway (caller quota)",
                &["operation", "origin"],
            )?,
            wait: make.histograms(
                "segment_gateway_queue_duration_seconds",
                "Time from acceptance to the first attempt",
                &["operation"],
                &WAIT_BUCKETS,
            )?,
            upstream: make.counters(
                "segment_gateway_upstream_requests_total",
                "Attempts by result: status class, 429, not-sent, or unknown",
                &["operation", "result"],
            )?,
            upstream_duration: make.histograms(
                "segment_gateway_upstream_duration_seconds",
                "Time from sending an attempt to the response head",
                &["operation"],
                &REQUEST_BUCKETS,
            )?,
            fence: make.counters(
                "segment_gateway_cache_invalidations_total",
                "Invalidations of cached responses, by kind: tags, paths, credential, \
                 everything, unauthorized, purge",
                &["kind"],
            )?,
            foreign: make.counters(
                "segment_gateway_foreign_requests_total",
                "Requests that other users of the token were seen to make",
                &["budget"],
            )?,
            refreshes: make.counters(
                "segment_gateway_cache_refreshes_total",
                "Background fetches, by reason: the kind of stale response served, or ahead of \
                 expiry",
                &["operation", "reason"],
            )?,
            repeated: make.counters(
                "segment_gateway_write_retries_total",
                "Retries of writes that may have taken effect",
                &["operation"],
            )?,
            not_repeated: make.counters(
                "segment_gateway_write_retries_denied_total",
                "Retries denied by the retry budget: a held write ends, a durable write waits",
                &["operation"],
            )?,
            connections: Connections::new(&make)?,
            operators_denied: make.counters(
                "segment_gateway_admin_rejections_total",
                "Admin requests rejected, by reason: host, origin, header, address, no-token, \
                 wrong-token, paused (a token soon after a wrong one)",
                &["reason"],
            )?,
            configuration: ConfigurationMetrics::new(&make)?,
            spans: spans::counter(&make)?,
            bodies: make.gauge(
                "segment_gateway_response_bodies_in_flight",
                "Response bodies being sent to callers",
            )?,
            body_panics: make.counter(
                "segment_gateway_response_body_panics_total",
                "Response bodies that panicked and ended their connection",
            )?,
            durable: DurableMetrics::new(&make)?,
            shadow: ShadowMetrics::new(&make)?,
            levels: LevelGauges::new(&make)?,
            registry: make.0,
        };
        for reason in DENIALS {
            metrics.operators_denied.with_label_values(&[reason]);
        }
        Ok(metrics)
    }

    /// Counts a hit with a 2xx. This is the hot path: only the first hit looks up labels.
    pub fn hit(&self, operation: usize, elapsed: Duration) {
        if let Some((name, hits)) = self.hits.get(operation) {
            let hits = hits.get_or_init(|| Hits {
                requests: self
                    .requests
                    .with_label_values(&[name, Outcome::Hit.as_str(), "2xx"]),
                cache: self
                    .cache
                    .with_label_values(&[name.as_ref(), "hit", "fresh"]),
            });
            hits.requests.inc();
            hits.cache.inc();
        }
        self.hit_duration.observe(elapsed.as_secs_f64());
    }

    /// Counts a hit with another status, such as a 304.
    pub fn other_hit(&self, operation: &str, status: u16, elapsed: Duration) {
        let labels = [operation, Outcome::Hit.as_str(), class(Some(status))];
        self.requests.with_label_values(&labels).inc();
        self.cache
            .with_label_values(&[operation, "hit", "fresh"])
            .inc();
        self.hit_duration.observe(elapsed.as_secs_f64());
    }

    /// Counts the end of any other request.
    pub fn request(
        &self,
        operation: &str,
        outcome: Outcome,
        status: Option<u16>,
        elapsed: Duration,
    ) {
        let labels = [operation, outcome.as_str(), class(status)];
        self.requests.with_label_values(&labels).inc();
        self.duration
            .with_label_values(&[outcome.as_str()])
            .observe(elapsed.as_secs_f64());
    }

    /// Records the time that a request spent in the gateway itself.
    pub fn own_time(&self, elapsed: Duration) {
        self.gateway_duration.observe(elapsed.as_secs_f64());
    }

    /// Counts a fetch that no reader waits for.
    pub fn refreshed(&self, operation: &str, why: &str) {
        self.refreshes.with_label_values(&[operation, why]).inc();
    }

    /// Counts a read of a cacheable operation that was no hit. `result` is `stale`, `miss` or
    /// `bypass`.
    pub fn not_a_hit(&self, operation: &str, result: &str, reason: &str) {
        self.cache
            .with_label_values(&[operation, result, reason])
            .inc();
    }

    /// Counts an error of the gateway itself.
    pub fn refusal(&self, operation: &str, kind: &str) {
        self.refusals.with_label_values(&[operation, kind]).inc();
    }

    /// Counts a rejected request to the admin listener.
    pub fn operator_denied(&self, reason: &str) {
        self.operators_denied.with_label_values(&[reason]).inc();
    }

    /// Counts a 429.
    pub fn throttled(&self, operation: &str, origin: Origin) {
        self.throttled
            .with_label_values(&[operation, origin.as_str()])
            .inc();
    }

    /// Records the wait of a request at its first attempt.
    pub fn left(&self, operation: &str, waited: Duration) {
        self.wait
            .with_label_values(&[operation])
            .observe(waited.as_secs_f64());
        // Creates the series, so that the first 429 of this operation is an increase that `rate`
        // sees.
        for origin in [Origin::Upstream, Origin::Start, Origin::Gateway] {
            self.throttled
                .with_label_values(&[operation, origin.as_str()]);
        }
    }

    /// Counts an attempt that got a response with this status after this time.
    pub fn answered(&self, operation: &str, status: u16, elapsed: Duration) {
        let result = if status == 429 {
            "429"
        } else {
            class(Some(status))
        };
        self.upstream.with_label_values(&[operation, result]).inc();
        self.upstream_duration
            .with_label_values(&[operation])
            .observe(elapsed.as_secs_f64());
    }

    /// Counts an attempt without a response: `not-sent` or `unknown`.
    pub fn unanswered(&self, operation: &str, result: &str) {
        self.upstream.with_label_values(&[operation, result]).inc();
    }

    /// Counts an invalidation of stored responses.
    pub fn fence_moved(&self, kind: &str) {
        self.fence.with_label_values(&[kind]).inc();
    }

    /// Counts requests of other users of a token.
    pub fn foreign(&self, budget: &str, requests: u32) {
        self.foreign
            .with_label_values(&[budget])
            .inc_by(u64::from(requests));
    }

    /// Counts a retry of a write that may have taken effect.
    pub fn repeated(&self, operation: &str) {
        self.repeated.with_label_values(&[operation]).inc();
    }

    /// Counts a write for which the retry budget had no retry.
    pub fn repetition_refused(&self, operation: &str) {
        self.not_repeated.with_label_values(&[operation]).inc();
    }

    /// Returns the connections of callers.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Counts a response body as in flight until the returned guard is dropped.
    pub fn body(&self) -> BodyUnderWay {
        self.bodies.inc();
        BodyUnderWay {
            under_way: self.bodies.clone(),
            panics: self.body_panics.clone(),
        }
    }

    /// Renders the text exposition with the present levels.
    pub fn render(&self, budgets: &[(Arc<str>, BudgetGauge)], levels: &Levels) -> Vec<u8> {
        self.levels.set(budgets, levels);
        self.durable.set(&levels.durable);
        // Creates the series of each budget, so that the first foreign request is an increase.
        for (budget, _) in budgets {
            self.foreign.with_label_values(&[budget.as_ref()]);
        }
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(error = %error, "cannot render the metrics");
        }
        text
    }
}

fn class(status: Option<u16>) -> &'static str {
    match status {
        Some(100..=199) => "1xx",
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(_) => "5xx",
        None => "none",
    }
}

/// What budgets are like, by name.
#[derive(Debug)]
struct BudgetGauges {
    limit: IntGaugeVec,
    used: IntGaugeVec,
    next_free: GaugeVec,
    credentials: IntGaugeVec,
    closed: GaugeVec,
    queue_length: IntGaugeVec,
    queue_oldest: GaugeVec,
}

impl BudgetGauges {
    fn new(make: &Maker) -> prometheus::Result<Self> {
        let budget = &["budget"];
        Ok(Self {
            limit: make.gauges(
                "segment_gateway_budget_limit",
                "Requests per window, for the credential that uses most of the budget",
                budget,
            )?,
            used: make.gauges(
                "segment_gateway_budget_used",
                "Slots in use, for the credential that uses most of the budget",
                budget,
            )?,
            next_free: make.reals(
                "segment_gateway_budget_next_slot_seconds",
                "Time until the next request would be sent, for the worst credential",
                budget,
            )?,
            credentials: make.gauges(
                "segment_gateway_budget_credentials",
                "Credentials that use the budget",
                budget,
            )?,
            closed: make.reals(
                "segment_gateway_budget_closed_seconds",
                "Time for which a 429 still closes the budget, for the worst credential",
                budget,
            )?,
            queue_length: make.gauges(
                "segment_gateway_queue_length",
                "Requests queued for the budget, over all credentials",
                budget,
            )?,
            queue_oldest: make.reals(
                "segment_gateway_queue_oldest_age_seconds",
                "Age of the oldest request queued for the budget",
                budget,
            )?,
        })
    }

    fn set(&self, budgets: &[(Arc<str>, BudgetGauge)]) {
        for (name, gauge) in budgets {
            let label = &[name.as_ref()];
            self.limit
                .with_label_values(label)
                .set(i64::from(gauge.limit));
            self.used
                .with_label_values(label)
                .set(i64::from(gauge.used));
            self.next_free.with_label_values(label).set(gauge.next_free);
            self.credentials
                .with_label_values(label)
                .set(i64::from(gauge.credentials));
            self.closed.with_label_values(label).set(gauge.closed);
            self.queue_length
                .with_label_values(label)
                .set(whole(gauge.waiting as u64));
            self.queue_oldest.with_label_values(label).set(gauge.oldest);
        }
    }
}

impl LevelGauges {
    fn new(make: &Maker) -> prometheus::Result<Self> {
        Ok(Self {
            budgets: BudgetGauges::new(make)?,
            cache_entries: make.gauge("segment_gateway_cache_entries", "Cached responses")?,
            cache_bytes: make.gauge(
                "segment_gateway_cache_bytes",
                "Size of cached responses, keys included",
            )?,
            cache_evictions: make.counter(
                "segment_gateway_cache_evictions_total",
                "Cached responses evicted to make room",
            )?,
            fetches: make.gauge(
                "segment_gateway_cache_fetches_in_flight",
                "Shared fetches in flight",
            )?,
            marks: make.gauge(
                "segment_gateway_cache_invalidation_marks",
                "Tags with an invalidation mark",
            )?,
            waiting: make.gauge(
                "segment_gateway_queued_requests",
                "Requests queued for any budget",
            )?,
            tasks: make.gauge(
                "segment_gateway_tasks_in_flight",
                "Attempts and fetches in flight",
            )?,
            panics: make.counter("segment_gateway_task_panics_total", "Tasks that panicked")?,
            callers: make.gauge(
                "segment_gateway_callers",
                "Callers tracked by the caller quota",
            )?,
            ledger: make.gauge(
                "segment_gateway_ledger_active",
                "1 if attempts are recorded for the next start",
            )?,
            ready: make.gauge("segment_gateway_ready", "1 if the gateway accepts requests")?,
            broken: make.gauge(
                "segment_gateway_breaker_open",
                "1 while the circuit breaker holds back writes because the API does not answer",
            )?,
            uptime: make.real("segment_gateway_uptime_seconds", "Time since the start")?,
            process: ProcessGauges::new(make)?,
        })
    }

    fn set(&self, budgets: &[(Arc<str>, BudgetGauge)], levels: &Levels) {
        self.budgets.set(budgets);
        self.cache_entries.set(whole(levels.cache_entries));
        self.cache_bytes.set(whole(levels.cache_bytes));
        raise(&self.cache_evictions, levels.cache_evictions);
        self.fetches.set(whole(levels.fetches as u64));
        self.marks.set(whole(levels.marks as u64));
        self.waiting.set(whole(levels.waiting as u64));
        self.tasks.set(whole(levels.tasks as u64));
        raise(&self.panics, levels.panics as u64);
        self.callers.set(whole(levels.callers as u64));
        self.ledger.set(i64::from(levels.ledger));
        self.ready.set(i64::from(levels.ready));
        self.broken.set(i64::from(levels.broken));
        self.uptime.set(levels.uptime);
        self.process.set();
    }
}

/// Raises a counter to a total that was counted elsewhere.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_valid_and_every_event_is_counted_once() {
        let metrics = Metrics::new(&[Arc::from("getUser"), Arc::from("listUsers")]).unwrap();
        metrics.hit(1, Duration::from_micros(20));
        metrics.request(
            "getUser",
            Outcome::Fetched,
            Some(200),
            Duration::from_millis(80),
        );
        metrics.throttled("getUser", Origin::Start);
        let text = String::from_utf8(metrics.render(&[], &Levels::default())).unwrap();
        for line in [
            r#"segment_gateway_requests_total{code="2xx",operation="listUsers",outcome="hit"} 1"#,
            r#"segment_gateway_requests_total{code="2xx",operation="getUser",outcome="fetched"} 1"#,
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
