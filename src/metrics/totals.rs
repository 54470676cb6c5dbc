//! Counters summed over operations, for people who look at one page.

use super::families::Families;
use prometheus::IntCounterVec;
use prometheus::core::Collector;
use std::collections::BTreeMap;

/// Counts since the start, by one label.
pub type Counts = BTreeMap<String, u64>;

/// The sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests by outcome.
    pub requests: Counts,
    /// Attempts by result.
    pub upstream: Counts,
    /// The gateway's own errors by type.
    pub refusals: Counts,
    /// 429s by origin.
    pub throttled: Counts,
}

impl Totals {
    pub(super) fn new(families: &Families) -> Self {
        Self {
            requests: sums(&families.requests, "outcome"),
            upstream: sums(&families.upstream, "result"),
            refusals: sums(&families.rejections, "type"),
            throttled: sums(&families.throttled, "origin"),
        }
    }
}

fn sums(counters: &IntCounterVec, label: &str) -> Counts {
    let mut sums = Counts::new();
    for family in counters.collect() {
        for metric in family.get_metric() {
            let of = metric.get_label().iter().find(|pair| pair.name() == label);
            let Some(of) = of else {
                continue;
            };
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "counted in whole numbers, far below 2^53"
            )]
            let count = metric.get_counter().get_value() as u64;
            *sums.entry(of.value().to_owned()).or_default() += count;
        }
    }
    sums
}
