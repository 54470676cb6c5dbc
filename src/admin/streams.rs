//! The streams of events that readers follow: how many at once, and one event for all of them.

use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

/// The most streams at once.
const MOST_STREAMS: usize = 32;
/// How long an event is shown to other streams; a little less than their period.
const SHARED_FOR: Duration = Duration::from_millis(900);

/// The streams of one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    room: Arc<Semaphore>,
    /// The latest event, and when it was made.
    latest: Arc<Mutex<Option<(Instant, Bytes)>>>,
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

    /// Returns the latest event, or builds one on a thread of its own if that is too old. `None` if
    /// building it panicked.
    pub(super) async fn event(
        &self,
        now: Instant,
        build: impl FnOnce() -> Bytes + Send + 'static,
    ) -> Option<Bytes> {
        // Locked while it is built: others that wait get the same event.
        let mut latest = self.latest.lock().await;
        if let Some((made, event)) = &*latest
            && now.saturating_duration_since(*made) < SHARED_FOR
        {
            return Some(event.clone());
        }
        let event = spawn_blocking(build).await.ok()?;
        *latest = Some((now, event.clone()));
        Some(event)
    }
}
