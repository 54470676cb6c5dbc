//! The time of a request: where it was spent, and how far the request has come.

use crate::exchange::request::RequestContext;
use parking_lot::Mutex;
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
    pub(crate) left: bool,
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
    pub(crate) fn left(&mut self, now: Instant, accepted: Instant) {
        self.queued = now.saturating_duration_since(accepted);
        self.left = true;
        self.progress.0.lock().left = Some((self.queued, self.throttled));
    }
}

/// The progress of a request. It is shared with the request's record, which reports it even if
/// there is no response.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<Seen>);

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The time queued and the number of 429s at the last attempt.
    left: Option<(Duration, u32)>,
    /// The cache lookup.
    looked: Option<Stretch>,
    /// The instant from which only the budget was waited for.
    ready: Option<Instant>,
}

/// The beginning and the end of a span of time.
pub(crate) type Stretch = (Instant, Instant);

impl Progress {
    /// Returns the time queued and the number of 429s at the last attempt, or `None` before the
    /// first.
    pub(crate) fn seen(&self) -> Option<(Duration, u32)> {
        self.0.lock().left
    }

    /// Notes the cache lookup.
    pub(crate) fn looked(&self, stretch: Stretch) {
        self.0.lock().looked = Some(stretch);
    }

    /// Notes the instant from which only the budget is waited for. The first call counts.
    pub(crate) fn ready(&self, since: Option<Instant>) {
        let mut seen = self.0.lock();
        seen.ready = seen.ready.or(since);
    }

    /// Returns the cache lookup and the instant from which only the budget was waited for.
    pub(crate) fn times(&self) -> (Option<Stretch>, Option<Instant>) {
        let seen = self.0.lock();
        (seen.looked, seen.ready)
    }
}
