//! The table of metrics: one row for each, with its name, labels and help.
//!
//! Promises that every row is registered and that none is looked up by name afterwards. Labels are
//! bounded: operations of the route table, budgets that it names, and enums. They never contain a
//! path, a caller or a credential. What a row counts is in `mod.rs`, which levels it shows in
//! `levels.rs` and `process.rs`.

use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, Result,
};

/// Upper bounds in seconds, from fast responses to waits of minutes.
const REQUEST: &[f64] = &[
    0.000_05, 0.000_2, 0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 150.0,
];
/// Upper bounds in seconds, from 10 µs.
const HIT: &[f64] = &[
    0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.005, 0.05,
];
/// Upper bounds in seconds, from writes sent at once to deferred ones that wait for hours.
const WAIT: &[f64] = &[
    0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0, 10_800.0,
];
/// Upper bounds in seconds, from a fast disk to a disk that stalls.
const COMMIT: &[f64] = &[
    0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0, 5.0,
];

/// A kind of metric: what is made of a row.
trait Family: Collector + Clone + 'static {
    /// Makes the family; those without labels or buckets ignore them.
    fn make(options: Opts, labels: &[&str], buckets: &[f64]) -> Result<Self>;
}

/// Kinds by their constructor.
macro_rules! kinds {
    ($($kind:ident($options:ident, $labels:ident, $buckets:ident) $make:expr;)*) => {
        $(impl Family for $kind {
            fn make($options: Opts, $labels: &[&str], $buckets: &[f64]) -> Result<Self> {
                $make
            }
        })*
    };
}

kinds! {
    Counter(options, _labels, _buckets) Self::with_opts(options);
    IntCounter(options, _labels, _buckets) Self::with_opts(options);
    IntCounterVec(options, labels, _buckets) Self::new(options, labels);
    Gauge(options, _labels, _buckets) Self::with_opts(options);
    GaugeVec(options, labels, _buckets) Self::new(options, labels);
    IntGauge(options, _labels, _buckets) Self::with_opts(options);
    IntGaugeVec(options, labels, _buckets) Self::new(options, labels);
    Histogram(options, _labels, buckets) Self::with_opts(bounded(options, buckets));
    HistogramVec(options, labels, buckets) Self::new(bounded(options, buckets), labels);
}

fn bounded(options: Opts, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::from(options).buckets(buckets.to_vec())
}

fn registered<F: Family>(registry: &Registry, made: Result<F>) -> Result<F> {
    let family = made?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

/// Rows of `field: Kind = "name" [labels]`, and the bounds of a histogram. The comment above a row
/// is its help.
macro_rules! families {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ident = $name:literal [$($label:literal),*]
        $($buckets:ident)?;)*) => {
        /// Every metric.
        #[derive(Debug)]
        pub(super) struct Families {
            $($(#[doc = $help])+ pub(super) $field: $kind,)*
        }

        impl Families {
            /// Makes and registers every metric.
            ///
            /// # Errors
            /// Only if a name is malformed or taken twice, which a test excludes.
            pub(super) fn new(registry: &Registry) -> Result<Self> {
                Ok(Self {$(
                    $field: registered(registry, $kind::make(
                        Opts::new($name, concat!($($help),+).trim_start()),
                        &[$($label),*],
                        None::<&[f64]>$(.or(Some($buckets)))?.unwrap_or(&[]),
                    ))?,
                )*})
            }
        }
    };
}

families! {
    // Requests from callers.
    /// Requests from callers. Each has exactly one outcome
    requests: IntCounterVec = "segment_gateway_requests_total" ["operation", "outcome", "code"];
    /// Time from request head to response head, by outcome, without cache hits
    duration: HistogramVec = "segment_gateway_request_duration_seconds" ["outcome"] REQUEST;
    /// Time a request spent in the gateway itself, neither queued nor upstream
    overhead: Histogram = "segment_gateway_overhead_duration_seconds" [] REQUEST;
    /// Requests rejected by the gateway with an error of its own, by type
    rejections: IntCounterVec = "segment_gateway_rejections_total" ["operation", "type"];
    /// 429 responses by origin: upstream (the API), start (first attempt of a budget without
    /// history), gateway (caller quota)
    throttled: IntCounterVec = "segment_gateway_throttled_total" ["operation", "origin"];
    /// Response bodies being sent to callers
    bodies: IntGauge = "segment_gateway_response_bodies_in_flight" [];
    /// Response bodies that panicked and ended their connection
    body_panics: IntCounter = "segment_gateway_response_body_panics_total" [];
    /// Open connections from callers
    connections: IntGauge = "segment_gateway_connections" [];
    /// HTTP/2 streams of callers that wait for their response or for the rest of it
    streams: IntGauge = "segment_gateway_http2_streams" [];
    /// Connections closed because of a malformed request, by reason: head, too-large, http2,
    /// timeout
    malformed: IntCounterVec = "segment_gateway_malformed_requests_total" ["reason"];
    /// TLS handshakes, by listener (callers, admin) and result: completed, plain-http (a request
    /// without TLS), timeout, displaced (the oldest of too many at once), closed, alert (rejected
    /// by the peer), no-client-certificate, bad-client-certificate, incompatible, malformed
    handshakes: IntCounterVec = "segment_gateway_tls_handshakes_total" ["listener", "result"];
    /// Unix time at which the certificate of the listener expires
    certificate_end: GaugeVec =
        "segment_gateway_tls_certificate_not_after_timestamp_seconds" ["listener"];
    /// Replacements of the certificate of the listener by result: applied, failed
    certificate_reloads: IntCounterVec =
        "segment_gateway_tls_certificate_reloads_total" ["listener", "result"];
    /// 1 if the files of the certificate are usable. If 0, the certificate before stays in use
    certificate_sound: IntGaugeVec =
        "segment_gateway_tls_certificate_last_reload_successful" ["listener"];
    /// Requests of clients that have a key or a certificate, by outcome
    client_requests: IntCounterVec = "segment_gateway_client_requests_total" ["client", "outcome"];
    /// 1 if the API accepts the token that the gateway holds. If 0, its clients get 503
    held_tokens: IntGaugeVec = "segment_gateway_held_token_accepted" ["token"];
    /// Unix time at which a key of a client expires. Keys that never expire have no series
    client_key_end: GaugeVec =
        "segment_gateway_client_key_expiry_timestamp_seconds" ["client", "key"];
    /// Records of the audit log, by kind
    audit_records: IntCounterVec = "segment_gateway_audit_records_total" ["kind"];
    /// Events that found no room while the audit log could not be written
    audit_lost: IntCounter = "segment_gateway_audit_lost_total" [];
    /// 1 if the audit log could not be written at the last attempt
    audit_failing: IntGauge = "segment_gateway_audit_failing" [];
    /// Callers tracked by the caller quota
    callers: IntGauge = "segment_gateway_callers" [];

    // The cache.
    /// Reads by result (hit, stale, miss, bypass) and reason, as in Cache-Status
    cache: IntCounterVec = "segment_gateway_cache_requests_total" ["operation", "result", "reason"];
    /// Time from request head to response head of cache hits
    hit_duration: Histogram = "segment_gateway_cache_hit_duration_seconds" [] HIT;
    /// Background fetches, by reason: the kind of stale response served, or ahead of expiry
    refreshes: IntCounterVec = "segment_gateway_cache_refreshes_total" ["operation", "reason"];
    /// Invalidations of cached responses, by kind: tags, paths, credential, everything,
    /// unauthorized, purge
    invalidations: IntCounterVec = "segment_gateway_cache_invalidations_total" ["kind"];
    /// Cached responses
    cache_entries: IntGauge = "segment_gateway_cache_entries" [];
    /// Size of cached responses, keys included
    cache_bytes: IntGauge = "segment_gateway_cache_bytes" [];
    /// Cached responses evicted to make room
    cache_evictions: IntCounter = "segment_gateway_cache_evictions_total" [];
    /// Shared fetches in flight
    fetches: IntGauge = "segment_gateway_cache_fetches_in_flight" [];
    /// Tags with an invalidation mark
    marks: IntGauge = "segment_gateway_cache_invalidation_marks" [];

    // Budgets and queues.
    /// Requests per window, for the credential that uses most of the budget
    budget_limit: IntGaugeVec = "segment_gateway_budget_limit" ["budget"];
    /// Slots in use, for the credential that uses most of the budget
    budget_used: IntGaugeVec = "segment_gateway_budget_used" ["budget"];
    /// Time until the next request would be sent, for the worst credential
    budget_next_slot: GaugeVec = "segment_gateway_budget_next_slot_seconds" ["budget"];
    /// Credentials that use the budget
    budget_credentials: IntGaugeVec = "segment_gateway_budget_credentials" ["budget"];
    /// Time for which a 429 still closes the budget, for the worst credential
    budget_closed: GaugeVec = "segment_gateway_budget_closed_seconds" ["budget"];
    /// Requests queued for the budget, over all credentials
    queue_length: IntGaugeVec = "segment_gateway_queue_length" ["budget"];
    /// Age of the oldest request queued for the budget
    queue_oldest: GaugeVec = "segment_gateway_queue_oldest_age_seconds" ["budget"];
    /// Time from acceptance to the first attempt
    queue_duration: HistogramVec = "segment_gateway_queue_duration_seconds" ["operation"] WAIT;
    /// Requests queued for any budget
    queued: IntGauge = "segment_gateway_queued_requests" [];
    /// Requests that other users of the token were seen to make
    foreign: IntCounterVec = "segment_gateway_foreign_requests_total" ["budget"];
    /// 1 if attempts are recorded for the next start
    ledger: IntGauge = "segment_gateway_ledger_active" [];

    // The API.
    /// Attempts by result: status class, 429, not-sent, or unknown
    upstream: IntCounterVec = "segment_gateway_upstream_requests_total" ["operation", "result"];
    /// Time from sending an attempt to the response head
    upstream_duration: HistogramVec =
        "segment_gateway_upstream_duration_seconds" ["operation"] REQUEST;
    /// Retries of writes that may have taken effect
    retries: IntCounterVec = "segment_gateway_write_retries_total" ["operation"];
    /// Retries denied by the retry budget: a held write ends, a durable write waits
    retries_denied: IntCounterVec = "segment_gateway_write_retries_denied_total" ["operation"];
    /// 1 while the circuit breaker holds back writes because the API does not answer
    breaker_open: IntGauge = "segment_gateway_breaker_open" [];

    // Durable writes and batches.
    /// Durable writes by final state: succeeded, failed, unknown, cancelled
    durable_ended: IntCounterVec =
        "segment_gateway_durable_writes_ended_total" ["operation", "state"];
    /// Durable writes in progress, by state: queued, dispatched
    durable_writes: IntGaugeVec = "segment_gateway_durable_writes" ["state"];
    /// Credentials and operations whose deferred writes are paused
    durable_paused: IntGauge = "segment_gateway_durable_paused" [];
    /// Age of the oldest durable write in progress
    durable_oldest: Gauge = "segment_gateway_durable_oldest_age_seconds" [];
    /// Size of the requests of durable writes in progress
    durable_bytes: IntGauge = "segment_gateway_durable_bytes" [];
    /// Time to commit a change of the journal to disk, by result: kept, failed
    commits: HistogramVec = "segment_gateway_journal_commit_duration_seconds" ["result"] COMMIT;
    /// Writes sent as part of a batch
    batched: IntCounterVec = "segment_gateway_batched_writes_total" ["operation"];
    /// Batches sent
    batches: IntCounterVec = "segment_gateway_batches_total" ["operation"];
    /// Upstream requests saved by batching
    saved: IntCounterVec = "segment_gateway_batch_requests_saved_total" ["operation"];

    // Shadow mode.
    /// 1 in shadow mode: requests are forwarded at once and no limit is enforced
    shadow_mode: IntGauge = "segment_gateway_shadow_mode" [];
    /// Requests in shadow mode, by would-be outcome (verdict: hit, stale, joined, at-once, queued,
    /// merged, refused) and would-be cache result (cache: hit, stale, joined, miss, bypass; none
    /// for writes)
    shadow_requests: IntCounterVec =
        "segment_gateway_shadow_requests_total" ["operation", "verdict", "cache"];
    /// Would-be time in queue in shadow mode, for requests that would have been sent
    shadow_wait: HistogramVec = "segment_gateway_shadow_queue_duration_seconds" ["operation"] WAIT;
    /// Would-be cache hits in shadow mode compared with the API's response, by result: same,
    /// different
    shadow_compared: IntCounterVec =
        "segment_gateway_shadow_compared_total" ["operation", "result"];
    /// Upstream 429s in shadow mode, by would-be outcome of the request (verdict)
    shadow_throttled: IntCounterVec =
        "segment_gateway_shadow_throttled_total" ["operation", "verdict"];

    // The program.
    /// Admin requests rejected, by reason: host, origin, header, address, no-token, wrong-token,
    /// paused (a token soon after a wrong one)
    admin_rejections: IntCounterVec = "segment_gateway_admin_rejections_total" ["reason"];
    /// Configuration reloads by result: applied, failed
    reloads: IntCounterVec = "segment_gateway_config_reloads_total" ["result"];
    /// 1 if the last reload succeeded. If 0, the previous configuration is in effect
    reload_successful: IntGauge = "segment_gateway_config_last_reload_successful" [];
    /// Unix time of the last successful load of the configuration
    reload_time: Gauge = "segment_gateway_config_last_reload_success_timestamp_seconds" [];
    /// Changed keys that take effect at the next restart
    restart_pending: IntGauge = "segment_gateway_config_restart_pending" [];
    /// Spans by result: exported, failed (rejected by the collector), dropped (queue full)
    spans: IntCounterVec = "segment_gateway_spans_total" ["result"];
    /// Attempts and fetches in flight
    tasks: IntGauge = "segment_gateway_tasks_in_flight" [];
    /// Tasks that panicked
    task_panics: IntCounter = "segment_gateway_task_panics_total" [];
    /// 1 if the gateway accepts requests
    ready: IntGauge = "segment_gateway_ready" [];
    /// Log lines dropped because standard error did not take them in time
    log_dropped: IntCounter = "segment_gateway_log_lines_dropped_total" [];
    /// Time since the start
    uptime: Gauge = "segment_gateway_uptime_seconds" [];
    /// Always 1. The labels name the build
    build: IntGaugeVec = "segment_gateway_build_info" ["version", "commit"];

    // The process, under the names that all exporters use.
    /// User and system CPU time
    cpu: Counter = "process_cpu_seconds_total" [];
    /// Resident memory
    resident: IntGauge = "process_resident_memory_bytes" [];
    /// Virtual memory
    virtual_memory: IntGauge = "process_virtual_memory_bytes" [];
    /// Threads
    threads: IntGauge = "process_threads" [];
    /// Open file descriptors
    files: IntGauge = "process_open_fds" [];
    /// Most file descriptors that may be open; 0 if there is no limit
    most_files: IntGauge = "process_max_fds" [];
    /// When the process started, as seconds since 1970
    started: IntGauge = "process_start_time_seconds" [];
}
