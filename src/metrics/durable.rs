//! Metrics of durable writes, of batches, and of the journal.

use super::{Maker, Metrics};
use prometheus::{Gauge, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};
use std::time::Duration;

/// From a fast disk to a disk that stalls.
const COMMIT_BUCKETS: [f64; 10] = [
    0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0, 5.0,
];

/// Durable writes at the time of a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DurableGauge {
    /// Writes waiting for their turn.
    pub queued: usize,
    /// Writes in flight.
    pub dispatched: usize,
    /// Paused credentials and operations.
    pub paused: usize,
    /// Bytes of all their requests.
    pub bytes: usize,
    /// Seconds since the oldest of them was accepted.
    pub oldest: f64,
}

#[derive(Debug)]
pub(super) struct DurableMetrics {
    ended: IntCounterVec,
    commits: HistogramVec,
    writes: IntGaugeVec,
    paused: IntGauge,
    bytes: IntGauge,
    oldest: Gauge,
    travelled: IntCounterVec,
    dispatches: IntCounterVec,
    saved: IntCounterVec,
}

impl DurableMetrics {
    pub(super) fn new(make: &Maker) -> prometheus::Result<Self> {
        Ok(Self {
            ended: make.counters(
                "segment_gateway_durable_writes_ended_total",
                "Durable writes by final state: succeeded, failed, unknown, cancelled",
                &["operation", "state"],
            )?,
            commits: make.histograms(
                "segment_gateway_journal_commit_duration_seconds",
                "Time to commit a change of the journal to disk, by result: kept, failed",
                &["result"],
                &COMMIT_BUCKETS,
            )?,
            writes: make.gauges(
                "segment_gateway_durable_writes",
                "Durable writes in progress, by state: queued, dispatched",
                &["state"],
            )?,
            paused: make.gauge(
                "segment_gateway_durable_paused",
                "Credentials and operations whose deferred writes are paused",
            )?,
            travelled: make.counters(
                "segment_gateway_batched_writes_total",
                "Writes sent as part of a batch",
                &["operation"],
            )?,
            dispatches: make.counters(
                "segment_gateway_batches_total",
                "Batches sent",
                &["operation"],
            )?,
            saved: make.counters(
                "segment_gateway_batch_requests_saved_total",
                "Upstream requests saved by batching",
                &["operation"],
            )?,
            oldest: make.real(
                "segment_gateway_durable_oldest_age_seconds",
                "Age of the oldest durable write in progress",
            )?,
            bytes: make.gauge(
                "segment_gateway_durable_bytes",
                "Size of the requests of durable writes in progress",
            )?,
        })
    }

    pub(super) fn set(&self, gauge: &DurableGauge) {
        let level = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        for (state, n) in [("queued", gauge.queued), ("dispatched", gauge.dispatched)] {
            self.writes.with_label_values(&[state]).set(level(n));
        }
        self.paused.set(level(gauge.paused));
        self.bytes.set(level(gauge.bytes));
        self.oldest.set(gauge.oldest);
    }
}

impl Metrics {
    /// Counts a durable write that ended in this state.
    pub fn durable_ended(&self, operation: &str, state: &str) {
        let ended = &self.durable.ended;
        ended.with_label_values(&[operation, state]).inc();
    }

    /// Counts a batch run: `writes` that were sent with `dispatches` requests.
    pub fn travelled(&self, operation: &str, writes: u64, dispatches: u64) {
        let of = &[operation];
        self.durable.travelled.with_label_values(of).inc_by(writes);
        self.durable.dispatches.with_label_values(of).inc();
        let saved = writes.saturating_sub(dispatches);
        self.durable.saved.with_label_values(of).inc_by(saved);
    }

    /// Counts a commit of the journal and its duration.
    pub fn journal_committed(&self, kept: bool, took: Duration) {
        let result = if kept { "kept" } else { "failed" };
        let commits = self.durable.commits.with_label_values(&[result]);
        commits.observe(took.as_secs_f64());
    }
}
