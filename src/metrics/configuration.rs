//! Metrics of reloads: whether the configuration in use is the one that was written.

use super::{Maker, Metrics};
use prometheus::{Gauge, IntCounterVec, IntGauge};
use std::time::{SystemTime, UNIX_EPOCH};

const APPLIED: &str = "applied";
const FAILED: &str = "failed";

#[derive(Debug)]
pub(super) struct ConfigurationMetrics {
    reloads: IntCounterVec,
    is_good: IntGauge,
    since: Gauge,
    waiting: IntGauge,
}

impl ConfigurationMetrics {
    pub(super) fn new(make: &Maker) -> prometheus::Result<Self> {
        let reloads = make.counters(
            "segment_gateway_config_reloads_total",
            "Configuration reloads by result: applied, failed",
            &["result"],
        )?;
        for result in [APPLIED, FAILED] {
            reloads.with_label_values(&[result]);
        }
        Ok(Self {
            reloads,
            is_good: make.gauge(
                "segment_gateway_config_last_reload_successful",
                "1 if the last reload succeeded. If 0, the previous configuration is in effect",
            )?,
            since: make.real(
                "segment_gateway_config_last_reload_success_timestamp_seconds",
                "Unix time of the last successful load of the configuration",
            )?,
            waiting: make.gauge(
                "segment_gateway_config_restart_pending",
                "Changed keys that take effect at the next restart",
            )?,
        })
    }

    fn good(&self, at: SystemTime) {
        self.is_good.set(1);
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.since.set(since.as_secs_f64());
    }
}

impl Metrics {
    /// Notes the first configuration.
    pub fn configured(&self, at: SystemTime) {
        self.configuration.good(at);
    }

    /// Notes a successful reload after which `waiting` keys wait for a restart.
    pub fn reconfigured(&self, at: SystemTime, waiting: usize) {
        self.configuration.good(at);
        self.configuration
            .reloads
            .with_label_values(&[APPLIED])
            .inc();
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.configuration.waiting.set(waiting);
    }

    /// Notes a failed reload. The previous configuration stays in use.
    pub fn not_reconfigured(&self) {
        self.configuration.is_good.set(0);
        self.configuration
            .reloads
            .with_label_values(&[FAILED])
            .inc();
    }
}
