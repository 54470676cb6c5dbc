//! The series of each operation that most requests count in, found by the operation's index.
//!
//! A look-up by labels hashes them and takes a lock. Here it happens at the first event, so that
//! only what has happened has a series, and never again.

use super::families::Families;
use super::labels::{Origin, Outcome};
use prometheus::{Histogram, IntCounter};
use std::sync::{Arc, OnceLock};

/// The class of status that is counted by index. The others are rare.
pub(super) const SUCCESS: &str = "2xx";

/// The series of one operation.
#[derive(Debug)]
pub(super) struct OperationSeries {
    pub(super) name: Arc<str>,
    hits: OnceLock<Hits>,
    /// Requests with a 2xx, by outcome.
    requests: [OnceLock<IntCounter>; Outcome::ALL.len()],
    queued: OnceLock<Histogram>,
    answered: OnceLock<Answered>,
}

/// The two counters of a hit.
#[derive(Debug)]
pub(super) struct Hits {
    pub(super) requests: IntCounter,
    pub(super) cache: IntCounter,
}

/// The attempts with a 2xx, and the duration of all attempts with a response.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) successes: IntCounter,
    pub(super) duration: Histogram,
}

impl OperationSeries {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            hits: OnceLock::new(),
            requests: [const { OnceLock::new() }; Outcome::ALL.len()],
            queued: OnceLock::new(),
            answered: OnceLock::new(),
        }
    }

    /// Returns the counters of a hit with a 2xx.
    pub(super) fn hits(&self, families: &Families) -> &Hits {
        self.hits.get_or_init(|| {
            let labels = [&*self.name, Outcome::Hit.as_str(), SUCCESS];
            let cache = [&*self.name, "hit", "fresh"];
            Hits {
                requests: families.requests.with_label_values(&labels),
                cache: families.cache.with_label_values(&cache),
            }
        })
    }

    /// Returns the counter of requests with a 2xx.
    pub(super) fn successes(&self, families: &Families, outcome: Outcome) -> &IntCounter {
        self.requests[outcome as usize].get_or_init(|| {
            let labels = [&*self.name, outcome.as_str(), SUCCESS];
            families.requests.with_label_values(&labels)
        })
    }

    /// Returns the times until the first attempt.
    pub(super) fn queued(&self, families: &Families) -> &Histogram {
        self.queued.get_or_init(|| {
            // Creates the series, so that the first 429 of this operation is an increase that
            // `rate` sees.
            for origin in [Origin::Upstream, Origin::Start, Origin::Gateway] {
                let labels = [&*self.name, origin.as_str()];
                families.throttled.with_label_values(&labels);
            }
            families.queue_duration.with_label_values(&[&self.name])
        })
    }

    /// Returns the series of attempts with a response.
    pub(super) fn answered(&self, families: &Families) -> &Answered {
        self.answered.get_or_init(|| {
            let (upstream, duration) = (&families.upstream, &families.upstream_duration);
            Answered {
                successes: upstream.with_label_values(&[&self.name, SUCCESS]),
                duration: duration.with_label_values(&[&self.name]),
            }
        })
    }
}
