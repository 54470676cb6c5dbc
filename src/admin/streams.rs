//! The streams of events that readers follow: how many at once, and the same events for all of
//! them.

use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

/// The most streams at once.
const MOST_STREAMS: usize = 32;
/// How long events are shown to other streams; a little less than their period.
const SHARED_FOR: Duration = Duration::from_millis(900);

/// The events of an instant.
#[derive(Clone, Debug)]
pub(super) struct Events {
    /// The present.
    pub(super) status: Bytes,
    /// The last 15 minutes.
    pub(super) past: Bytes,
    /// The number of the latest sample in `past`.
    pub(super) sample: u64,
}

/// The streams of one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    room: Arc<Semaphore>,
    /// The latest events, and when they were made.
    latest: Arc<Mutex<Option<(Instant, Events)>>>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            room: Arc::new(Semaphore::new(MOST_STREAMS)),
            latest: Arc::default(),
        }
    }
}

impl Streams {
    /// Takes a place among the streams; `None` if all are taken.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_owned().ok()
    }

    /// Returns the latest events, or builds them on a thread of its own if those are too old.
    /// `build` gets the earlier ones. `None` if it panicked.
    pub(super) async fn events(
        &self,
        now: Instant,
        build: impl FnOnce(Option<&Events>) -> Events + Send + 'static,
    ) -> Option<Events> {
        // Locked while they are built: others that wait get the same ones.
        let mut latest = self.latest.lock().await;
        if let Some((made, events)) = &*latest
            && now.saturating_duration_since(*made) < SHARED_FOR
        {
            return Some(events.clone());
        }
        let earlier = latest.as_ref().map(|(_, events)| events.clone());
        let built = spawn_blocking(move || build(earlier.as_ref()));
        let events = built.await.ok()?;
        *latest = Some((now, events.clone()));
        Some(events)
    }
}
