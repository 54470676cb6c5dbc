//! Pure. The last 15 minutes of the gateway, for the charts of the live page.
//!
//! A sample is taken every five seconds, whether somebody looks or not, so that a page shows the
//! past as soon as it is opened. A sample has what was counted since the one before and the levels
//! of its instant.
//!
//! Invariant: at most [`MOST_SAMPLES`] samples are kept, none older than [`KEPT`], and a sample has
//! a size that depends on neither the load nor the number of budgets. [`trends`](super::trends)
//! keeps the past of single budgets.
//!
//! Nothing is measured here: samples are made of the counters that `/metrics` shows.

use crate::metrics::{Counts, Distribution, Outcome, Totals};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time between two samples.
pub(super) const STEP: Duration = Duration::from_secs(5);
/// The age of the oldest sample.
pub(super) const KEPT: Duration = Duration::from_secs(15 * 60);
/// The most samples.
const MOST_SAMPLES: usize = 180;
/// The samples over which a quantile of latency is taken: half a minute, because five seconds often
/// have only a few requests.
const SMOOTHED: usize = 6;

/// The groups of outcomes that a chart shows: what was answered without the API and with it, and
/// what went wrong. Fourteen series would hide the one that matters.
const REQUESTS: [&str; 6] = [
    "cache", "upstream", "deferred", "rejected", "failed", "hungUp",
];
/// The groups of upstream results that a chart shows.
const RESULTS: [&str; 5] = ["ok", "4xx", "429", "5xx", "none"];

/// Returns the place of an outcome in [`REQUESTS`].
fn request_group(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Hit | Outcome::Stale | Outcome::Joined => 0,
        Outcome::Fetched | Outcome::Passed | Outcome::Written => 1,
        // Answered without the API: accepted for later, or said again.
        Outcome::Deferred | Outcome::Replayed | Outcome::Own => 2,
        Outcome::Refused | Outcome::Expired => 3,
        Outcome::Unknown | Outcome::Failed => 4,
        Outcome::HungUp => 5,
    }
}

/// Returns the place of a result in [`RESULTS`].
fn result_group(result: &str) -> usize {
    match result {
        "4xx" => 1,
        "429" => 2,
        "5xx" => 3,
        // Not sent, or sent without a response.
        "not-sent" | "unknown" => 4,
        _ => 0,
    }
}

/// The levels of an instant.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct QueueLevel {
    /// The requests in all queues.
    pub(super) queued: usize,
    /// How long the first of them has waited.
    pub(super) oldest: Option<Duration>,
}

/// What was counted in some seconds. Sums of these are what was counted in a longer time, so a
/// minute and a chart are made of the same samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Recent {
    requests: [u64; REQUESTS.len()],
    results: [u64; RESULTS.len()],
    /// The 429s of the API, without those that a budget without history meets at its first attempt.
    pub(super) throttled: u64,
    durations: Distribution,
    upstream: Distribution,
}

impl Recent {
    /// Returns what was counted between two readings.
    fn between(earlier: &Totals, later: &Totals) -> Self {
        let mut requests = [0; REQUESTS.len()];
        for outcome in Outcome::ALL {
            let name = outcome.as_str();
            let (before, now) = (of(&earlier.requests, name), of(&later.requests, name));
            requests[request_group(outcome)] += now.saturating_sub(before);
        }
        let mut results = [0; RESULTS.len()];
        for (name, now) in &later.upstream {
            let before = of(&earlier.upstream, name);
            results[result_group(name)] += now.saturating_sub(before);
        }
        let throttled = |totals: &Totals| of(&totals.throttled, "upstream");
        Self {
            requests,
            results,
            throttled: throttled(later).saturating_sub(throttled(earlier)),
            durations: later.durations.since(&earlier.durations),
            upstream: later.upstream_durations.since(&earlier.upstream_durations),
        }
    }

    /// Adds what was counted in other seconds.
    fn add(&mut self, other: &Self) {
        let sums = self.requests.iter_mut().chain(&mut self.results);
        let more = other.requests.iter().chain(&other.results);
        for (sum, n) in sums.zip(more) {
            *sum += n;
        }
        self.throttled += other.throttled;
        self.durations.add(&other.durations);
        self.upstream.add(&other.upstream);
    }

    /// Returns the requests that ended.
    pub(super) fn requests(&self) -> u64 {
        self.requests.iter().sum()
    }

    /// Returns the requests that the gateway rejected.
    pub(super) fn rejected(&self) -> u64 {
        self.requests[request_group(Outcome::Refused)]
    }

    /// Returns the requests that failed, or whose outcome is unknown.
    pub(super) fn failed(&self) -> u64 {
        self.requests[request_group(Outcome::Failed)]
    }

    /// Returns the requests that were not answered from the cache. A share of all would be small
    /// where nearly all are hits, whatever happens to the others.
    pub(super) fn beyond_cache(&self) -> u64 {
        self.requests() - self.requests[request_group(Outcome::Hit)]
    }

    /// Returns the attempts that ended, without those that got a 429.
    pub(super) fn attempts(&self) -> u64 {
        self.results.iter().sum::<u64>() - self.results[result_group("429")]
    }

    /// Returns the attempts that got a 5xx or no response.
    pub(super) fn failures(&self) -> u64 {
        self.results[result_group("5xx")] + self.results[result_group("unknown")]
    }

    /// Returns the attempts that the API rejected with a 4xx other than 429.
    pub(super) fn client_errors(&self) -> u64 {
        self.results[result_group("4xx")]
    }
}

/// Returns a count, 0 if nothing was counted under the name.
fn of(counts: &Counts, name: &str) -> u64 {
    counts.get(name).copied().unwrap_or_default()
}

/// A sample.
#[derive(Clone, Debug)]
struct Sample {
    at: Instant,
    /// The time since the sample before.
    span: Duration,
    counted: Recent,
    level: QueueLevel,
}

/// The samples of the last 15 minutes.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    /// The instant and the counters at the latest sample, with which the next one is compared.
    last: Option<(Instant, Totals)>,
    /// The number of samples ever taken.
    taken: u64,
}

impl History {
    /// Adds a sample.
    ///
    /// The first reading makes none: it is what the next one is compared with. So nothing that was
    /// counted before the first reading appears as a peak.
    pub(super) fn record(&mut self, now: Instant, totals: Totals, level: QueueLevel) {
        if let Some((before, earlier)) = &self.last {
            self.samples.push_back(Sample {
                at: now,
                span: now.saturating_duration_since(*before),
                counted: Recent::between(earlier, &totals),
                level,
            });
            self.taken += 1;
        }
        self.last = Some((now, totals));
        // By age as well as by number: a machine that slept leaves a gap.
        let is_over = |sample: &Sample| now.saturating_duration_since(sample.at) >= KEPT;
        while self.samples.len() > MOST_SAMPLES || self.samples.front().is_some_and(is_over) {
            self.samples.pop_front();
        }
    }

    /// Returns the number of the latest sample; 0 before the first one.
    pub(super) fn newest(&self) -> u64 {
        self.taken
    }

    /// Returns what was counted in the last `span`, as far as there are samples.
    pub(super) fn recent(&self, now: Instant, span: Duration) -> Recent {
        let is_recent = |sample: &&Sample| now.saturating_duration_since(sample.at) < span;
        let mut sum = Recent::default();
        for sample in self.samples.iter().rev().take_while(is_recent) {
            sum.add(&sample.counted);
        }
        sum
    }

    /// Returns the series of the charts, the oldest sample first. Latency is in milliseconds, and
    /// `null` where there was no request.
    pub(super) fn document(&self, now: Instant) -> Value {
        let samples = &self.samples;
        let each = |value: &dyn Fn(&Sample) -> Value| samples.iter().map(value).collect::<Vec<_>>();
        let named = |names: &[&str], counts: &dyn Fn(&Sample, usize) -> u64| {
            let series = names.iter().enumerate();
            let series = series.map(|(at, name)| {
                (
                    (*name).to_owned(),
                    json!(each(&|one| json!(counts(one, at)))),
                )
            });
            Value::Object(series.collect())
        };
        // A quantile of quantiles means nothing, so the buckets are added before one is taken.
        let (total, upstream): (Vec<_>, Vec<_>) = (0..samples.len())
            .map(|at| {
                let mut sum = Recent::default();
                for sample in samples.range((at + 1).saturating_sub(SMOOTHED)..=at) {
                    sum.add(&sample.counted);
                }
                (sum.durations, sum.upstream)
            })
            .unzip();
        let quantile = |of: &[Distribution], q: f64| -> Vec<Option<f64>> {
            let seconds = of.iter().map(|of| of.quantile(q));
            seconds.map(|s| s.map(|s| round(s * 1e3))).collect()
        };
        json!({
            "stepSeconds": STEP.as_secs(),
            "keptSeconds": KEPT.as_secs(),
            "ages": each(&|one| json!(round(now.saturating_duration_since(one.at).as_secs_f64()))),
            "spans": each(&|one| json!(round(one.span.as_secs_f64()))),
            "requests": named(&REQUESTS, &|one, at| one.counted.requests[at]),
            "upstream": named(&RESULTS, &|one, at| one.counted.results[at]),
            "queued": each(&|one| json!(one.level.queued)),
            "oldest": each(&|one| json!(one.level.oldest.map(|age| age.as_secs()))),
            "latency": {
                "p50": quantile(&total, 0.5),
                "p95": quantile(&total, 0.95),
                "upstreamP50": quantile(&upstream, 0.5),
                "upstreamP95": quantile(&upstream, 0.95),
            },
        })
    }
}

/// Rounds to a tenth, which is as much as a chart shows.
fn round(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn totals(hits: u64, failed: u64, upstream: &[(&str, u64)]) -> Totals {
        let counts = |of: &[(&str, u64)]| {
            of.iter()
                .map(|(name, n)| ((*name).to_owned(), *n))
                .collect()
        };
        Totals {
            requests: counts(&[("hit", hits), ("failed", failed)]),
            upstream: counts(upstream),
            durations: Distribution::new(vec![0.1, 1.0], vec![failed, 0, 0]),
            ..Totals::default()
        }
    }

    #[test]
    fn every_outcome_and_result_has_a_series() {
        for outcome in Outcome::ALL {
            assert!(request_group(outcome) < REQUESTS.len());
        }
        for (result, group) in [
            ("2xx", "ok"),
            ("3xx", "ok"),
            ("429", "429"),
            ("unknown", "none"),
        ] {
            assert_eq!(RESULTS[result_group(result)], group);
        }
    }

    #[test]
    fn a_sample_has_what_was_counted_since_the_one_before() {
        let start = Clock::system().now();
        let mut history = History::default();
        let level = QueueLevel {
            queued: 7,
            oldest: Some(Duration::from_secs(3)),
        };
        history.record(start, totals(10, 0, &[]), QueueLevel::default());
        assert_eq!((history.newest(), history.samples.len()), (0, 0));
        history.record(start + STEP, totals(15, 2, &[("5xx", 2)]), level);
        history.record(
            start + 2 * STEP,
            totals(15, 2, &[("5xx", 2), ("2xx", 1)]),
            level,
        );
        let now = start + 2 * STEP;
        let shown = history.document(now);
        assert_eq!(shown["requests"]["cache"], json!([5, 0]));
        assert_eq!(shown["requests"]["failed"], json!([2, 0]));
        assert_eq!(shown["upstream"]["5xx"], json!([2, 0]));
        assert_eq!(shown["upstream"]["ok"], json!([0, 1]));
        assert_eq!(
            (&shown["ages"], &shown["spans"]),
            (&json!([5.0, 0.0]), &json!([5.0, 5.0]))
        );
        assert_eq!(
            (&shown["queued"], &shown["oldest"]),
            (&json!([7, 7]), &json!([3, 3]))
        );
        // Half a minute counts for a quantile: the second sample still has those of the first.
        assert_eq!(shown["latency"]["p50"], json!([50.0, 50.0]));
        assert_eq!(shown["latency"]["upstreamP95"], json!([null, null]));
        let recent = history.recent(now, Duration::from_secs(60));
        assert_eq!(
            (recent.requests(), recent.attempts(), recent.failures()),
            (7, 3, 2)
        );
        assert_eq!(history.recent(now, STEP).requests(), 0);
    }

    #[test]
    fn the_past_is_bounded_in_number_and_in_age() {
        let start = Clock::system().now();
        let mut history = History::default();
        let mut now = start;
        for n in 0..1_000 {
            now = start + STEP * n;
            history.record(now, totals(u64::from(n), 0, &[]), QueueLevel::default());
            assert!(history.samples.len() <= MOST_SAMPLES);
        }
        assert_eq!(
            (history.newest(), history.samples.len()),
            (999, MOST_SAMPLES)
        );
        let shown = history.document(now);
        assert_eq!(shown["ages"][0], 895.0);
        assert!(
            shown.to_string().len() < 16 * 1024,
            "{}",
            shown.to_string().len()
        );
        // After a long sleep nothing of the past is left, and the span says how long it was.
        now += Duration::from_secs(3_600);
        history.record(now, totals(2_000, 0, &[]), QueueLevel::default());
        assert_eq!(history.document(now)["spans"], json!([3_600.0]));
    }
}
