//! The metric of exported spans.

use super::{Maker, Metrics};
use prometheus::IntCounterVec;

/// The results of a span: the collector took it, the collector did not, or the queue was full.
const RESULTS: [&str; 3] = ["exported", "failed", "dropped"];

pub(super) fn counter(make: &Maker) -> prometheus::Result<IntCounterVec> {
    let spans = make.counters(
        "segment_gateway_spans_total",
        "Spans by result: exported, failed (rejected by the collector), dropped (queue full)",
        &["result"],
    )?;
    for result in RESULTS {
        spans.with_label_values(&[result]);
    }
    Ok(spans)
}

impl Metrics {
    /// Counts `count` spans with this result.
    pub fn spans(&self, result: &str, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.spans.with_label_values(&[result]).inc_by(count);
    }
}
