//! The progress of a request, as its record reports it even if there is no response.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// The progress of a request. It is shared with the request's record, which reports it even if
/// there is no response.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<Seen>);

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The time queued and the number of 429s at the last attempt.
    departed: Option<(Duration, u32)>,
    /// The cache lookup.
    looked: Option<Stretch>,
    /// The instant from which only the budget was waited for.
    ready: Option<Instant>,
}

/// The beginning and the end of a span of time.
pub(crate) type Stretch = (Instant, Instant);

impl Progress {
    /// Notes the time queued and the number of 429s at an attempt. The last call counts.
    pub(crate) fn note_departure(&self, queued: Duration, throttled: u32) {
        self.0.lock().departed = Some((queued, throttled));
    }

    /// Returns the time queued and the number of 429s at the last attempt, or `None` before the
    /// first.
    pub(crate) fn seen(&self) -> Option<(Duration, u32)> {
        self.0.lock().departed
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
