//! Metrics of shadow mode: what the gateway would have done.

use super::{Maker, Metrics, WAIT_BUCKETS};
use prometheus::{HistogramVec, IntCounterVec, IntGauge};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct ShadowMetrics {
    mode: IntGauge,
    requests: IntCounterVec,
    wait: HistogramVec,
    compared: IntCounterVec,
    throttled: IntCounterVec,
}

impl ShadowMetrics {
    pub(super) fn new(make: &Maker) -> prometheus::Result<Self> {
        Ok(Self {
            mode: make.gauge(
                "segment_gateway_shadow_mode",
                "1 in shadow mode: requests are forwarded at once and no limit is enforced",
            )?,
            requests: make.counters(
                "segment_gateway_shadow_requests_total",
                "Requests in shadow mode, by would-be outcome (verdict: hit, stale, joined, \
                 at-once, queued, merged, refused) and would-be cache result (cache: hit, stale, \
                 joined, miss, bypass; none for writes)",
                &["operation", "verdict", "cache"],
            )?,
            wait: make.histograms(
                "segment_gateway_shadow_queue_duration_seconds",
                "Would-be time in queue in shadow mode, for requests that would have been sent",
                &["operation"],
                &WAIT_BUCKETS,
            )?,
            compared: make.counters(
                "segment_gateway_shadow_compared_total",
                "Would-be cache hits in shadow mode compared with the API's response, by result: \
                 same, different",
                &["operation", "result"],
            )?,
            throttled: make.counters(
                "segment_gateway_shadow_throttled_total",
                "Upstream 429s in shadow mode, by would-be outcome of the request (verdict)",
                &["operation", "verdict"],
            )?,
        })
    }
}

impl Metrics {
    /// Sets whether shadow mode is on.
    pub fn in_shadow(&self, is_on: bool) {
        self.shadow.mode.set(i64::from(is_on));
    }

    /// Counts a prediction: the verdict, the result of the cache, and the wait of a request that
    /// would have been sent.
    pub fn foreseen(&self, operation: &str, verdict: &str, cache: &str, wait: Option<Duration>) {
        let shadow = &self.shadow;
        let labels = [operation, verdict, cache];
        shadow.requests.with_label_values(&labels).inc();
        if let Some(wait) = wait {
            let waits = shadow.wait.with_label_values(&[operation]);
            waits.observe(wait.as_secs_f64());
        }
        if verdict == "hit" {
            // Creates both series, so that the first difference is an increase that `rate` sees.
            for result in ["same", "different"] {
                shadow.compared.with_label_values(&[operation, result]);
            }
        }
    }

    /// Counts a comparison of a stored response with the API's: `same` or `different`.
    pub fn compared(&self, operation: &str, result: &str) {
        let compared = &self.shadow.compared;
        compared.with_label_values(&[operation, result]).inc();
    }

    /// Counts a 429 of the API, by the prediction for its request.
    pub fn throttled_in_shadow(&self, operation: &str, verdict: &str) {
        let throttled = &self.shadow.throttled;
        throttled.with_label_values(&[operation, verdict]).inc();
    }
}
