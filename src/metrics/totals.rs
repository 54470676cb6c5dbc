//! Counters and durations summed over operations, for people who look at one page.
//!
//! Everything here is counted since the start. A rate or a quantile of some seconds is made from
//! the difference of two sums; nothing here remembers an earlier one.

use super::families::Families;
use prometheus::core::Collector;
use prometheus::{HistogramVec, IntCounterVec};
use std::collections::BTreeMap;

/// Counts since the start, by one label.
pub type Counts = BTreeMap<String, u64>;

/// The sums.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Requests by outcome.
    pub requests: Counts,
    /// Attempts by result.
    pub upstream: Counts,
    /// The gateway's own errors by type.
    pub refusals: Counts,
    /// 429s by origin.
    pub throttled: Counts,
    /// The times of requests that were no hits.
    pub durations: Distribution,
    /// The times of attempts that got a response.
    pub upstream_durations: Distribution,
}

/// Durations in the buckets of a histogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// The upper bounds of the buckets in seconds, rising.
    bounds: Vec<f64>,
    /// The durations in each bucket, and as the last one those above all bounds.
    counts: Vec<u64>,
}

impl Distribution {
    /// Creates a distribution with the counts of these buckets. One count more than bounds is for
    /// the durations above all of them.
    pub fn new(bounds: Vec<f64>, counts: Vec<u64>) -> Self {
        Self { bounds, counts }
    }

    /// Returns the durations that were counted after `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = earlier.counts.iter().copied().chain(std::iter::repeat(0));
        let counts = self.counts.iter().zip(before);
        Self {
            bounds: self.bounds.clone(),
            counts: counts
                .map(|(now, before)| now.saturating_sub(before))
                .collect(),
        }
    }

    /// Adds other durations in the same buckets.
    pub fn add(&mut self, other: &Self) {
        if self.bounds.len() < other.bounds.len() {
            self.bounds.clone_from(&other.bounds);
            self.counts.resize(other.counts.len(), 0);
        }
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
    }

    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the `q`-quantile in seconds as `histogram_quantile` of Prometheus does: linear
    /// within its bucket, and the highest bound for durations above all of them. `None` without
    /// any.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        let (rank, number) = (q * count as f64, |n: u64| n as f64);
        let (mut below, mut lower) = (0, 0.0);
        for (bound, in_bucket) in self.bounds.iter().zip(&self.counts) {
            if *in_bucket > 0 && number(below + in_bucket) >= rank {
                let part = (rank - number(below)) / number(*in_bucket);
                return Some(lower + (bound - lower) * part.clamp(0.0, 1.0));
            }
            (below, lower) = (below + in_bucket, *bound);
        }
        Some(lower)
    }
}

impl Totals {
    pub(super) fn new(families: &Families) -> Self {
        Self {
            requests: sums(&families.requests, "outcome"),
            upstream: sums(&families.upstream, "result"),
            refusals: sums(&families.rejections, "type"),
            throttled: sums(&families.throttled, "origin"),
            durations: distribution(&families.duration),
            upstream_durations: distribution(&families.upstream_duration),
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

/// Returns the sum of all series of a histogram.
fn distribution(histograms: &HistogramVec) -> Distribution {
    let mut sum = Distribution::default();
    for family in histograms.collect() {
        for metric in family.get_metric() {
            let histogram = metric.get_histogram();
            let buckets = histogram.get_bucket();
            let mut below = 0;
            // Prometheus counts in each bucket what is in the lower ones as well.
            let mut counts: Vec<u64> = buckets
                .iter()
                .map(|bucket| {
                    let count = bucket.cumulative_count().saturating_sub(below);
                    below = bucket.cumulative_count();
                    count
                })
                .collect();
            counts.push(histogram.get_sample_count().saturating_sub(below));
            let bounds = buckets.iter().map(|bucket| bucket.upper_bound()).collect();
            sum.add(&Distribution::new(bounds, counts));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_prometheus() {
        let bounds = vec![0.1, 0.5, 1.0];
        for (counts, q, expected) in [
            (vec![0, 0, 0, 0], 0.5, None),
            (vec![10, 0, 0, 0], 0.5, Some(0.05)),
            (vec![0, 10, 0, 0], 0.5, Some(0.3)),
            (vec![5, 5, 0, 0], 0.5, Some(0.1)),
            (vec![5, 0, 5, 0], 0.9, Some(0.9)),
            // Above all bounds nothing is known but the last bound.
            (vec![1, 0, 0, 9], 0.95, Some(1.0)),
        ] {
            let shown = Distribution::new(bounds.clone(), counts.clone()).quantile(q);
            let is_near = match (shown, expected) {
                (Some(shown), Some(expected)) => (shown - expected).abs() < 1e-9,
                (shown, expected) => shown == expected,
            };
            assert!(is_near, "{counts:?} {q}: {shown:?}, not {expected:?}");
        }
    }

    #[test]
    fn a_difference_has_what_came_since() {
        let at = |counts: [u64; 3]| Distribution::new(vec![0.1, 1.0], counts.to_vec());
        assert_eq!(at([3, 2, 1]).since(&at([1, 2, 0])), at([2, 0, 1]));
        assert_eq!(at([3, 2, 1]).since(&Distribution::default()), at([3, 2, 1]));
        let mut sum = Distribution::default();
        sum.add(&at([1, 0, 0]));
        sum.add(&at([1, 1, 1]));
        assert_eq!(sum, at([2, 1, 1]));
    }
}
