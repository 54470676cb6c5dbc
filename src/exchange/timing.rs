//! The time of a request: where it was spent.

use crate::exchange::progress::Progress;
use crate::exchange::request::RequestContext;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The parts of a request's time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timing {
    /// The wait for lanes and budgets, including 429s and failed connections.
    pub(crate) queued: Duration,
    /// The time from sending to the head of the response.
    pub(crate) upstream: Duration,
    /// The number of 429s that were retried.
    pub(crate) throttled: u32,
    /// The number of writes in the batch; 0 without a batch.
    pub(crate) merged: usize,
    /// Whether the request was sent at all.
    pub(crate) sent: bool,
    pub(crate) progress: Arc<Progress>,
}

impl Timing {
    /// Starts the timing of a request that was just accepted.
    pub(crate) fn of(context: &RequestContext) -> Self {
        Self {
            progress: context.progress.clone(),
            ..Self::default()
        }
    }

    // Overwrites earlier values: the last attempt counts, and all waiting before it is the queue's.
    pub(crate) fn note_departure(&mut self, now: Instant, accepted: Instant) {
        self.queued = now.saturating_duration_since(accepted);
        self.sent = true;
        self.progress.note_departure(self.queued, self.throttled);
    }
}

/// Returns a duration in milliseconds, to the microsecond, for a field of the log.
///
/// A field has to be a number of 64 bits: the library writes others as a text into JSON.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_milliseconds_with_at_most_three_decimals() {
        for (nanos, expected) in [
            (0, "0.0"),
            (499, "0.0"),
            (500, "0.001"),
            (1_234_567, "1.235"),
            (250_000_000, "250.0"),
            (59_999_999_600, "60000.0"),
            (86_400_000_000_001, "86400000.0"),
        ] {
            let shown = format!("{:?}", millis(Duration::from_nanos(nanos)));
            assert_eq!(shown, expected, "{nanos}");
        }
    }
}
