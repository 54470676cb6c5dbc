//! Where the time of a request goes, and how far it has come.

use crate::exchange::request::Ask;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the time of a request went.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timing {
    /// Waiting for lanes and budgets, 429s and lost connections included.
    pub(crate) queued: Duration,
    /// From leaving to the head of the answer.
    pub(crate) upstream: Duration,
    /// 429s that the caller did not see.
    pub(crate) throttled: u32,
    /// How many writes travelled together; 0 if it travelled alone.
    pub(crate) merged: usize,
    /// Whether it left at all.
    pub(crate) left: bool,
    pub(crate) progress: Arc<Progress>,
}

impl Timing {
    /// That of a request which has just been accepted.
    pub(crate) fn of(ask: &Ask) -> Self {
        Self {
            progress: ask.progress.clone(),
            ..Self::default()
        }
    }

    pub(crate) fn left(&mut self, now: Instant, accepted: Instant) {
        self.queued = now.saturating_duration_since(accepted);
        self.left = true;
        self.progress.0.lock().left = Some((self.queued, self.throttled));
    }
}

/// How far a request has come. It is known to whoever tells about the request, even if there is no
/// reply to say it.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<Seen>);

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// How long it had waited and how often it had been refused by a 429 when it last left.
    left: Option<(Duration, u32)>,
    looked: Option<Stretch>,
    ready: Option<Instant>,
}

/// From when to when.
pub(crate) type Stretch = (Instant, Instant);

impl Progress {
    /// How long it had waited and how often it had been refused by a 429 when it last left for the
    /// API; nothing as long as it has not left.
    pub(crate) fn seen(&self) -> Option<(Duration, u32)> {
        self.0.lock().left
    }

    /// It was looked for in the cache.
    pub(crate) fn looked(&self, stretch: Stretch) {
        self.0.lock().looked = Some(stretch);
    }

    /// Since this instant nothing but its budget keeps it; the first time counts.
    pub(crate) fn ready(&self, since: Option<Instant>) {
        let mut seen = self.0.lock();
        seen.ready = seen.ready.or(since);
    }

    /// When it was looked for in the cache, and since when nothing but its budget kept it.
    pub(crate) fn times(&self) -> (Option<Stretch>, Option<Instant>) {
        let seen = self.0.lock();
        (seen.looked, seen.ready)
    }
}
