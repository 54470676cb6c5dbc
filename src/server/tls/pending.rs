//! The handshakes that have begun on a listener and not ended, and a bound on their number.
//!
//! A new handshake is always admitted. If there are too many, the oldest is displaced: a handshake
//! of an honest peer takes a few round trips, so the oldest is most likely one that never ends.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The pending handshakes of one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct PendingHandshakes {
    most: usize,
    places: Arc<Mutex<Places>>,
}

/// Places by age. Dropping a sender displaces its handshake.
#[derive(Debug, Default)]
struct Places {
    next: u64,
    taken: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A guard that counts one handshake as pending until it is dropped.
#[derive(Debug)]
pub(super) struct PendingHandshake {
    places: Arc<Mutex<Places>>,
    place: u64,
    displaced: oneshot::Receiver<()>,
}

impl PendingHandshakes {
    /// Creates the state of a listener without handshakes, which admits `most` at once.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            places: Arc::default(),
        }
    }

    /// Counts one more handshake, and displaces the oldest if there are too many.
    pub(super) fn begin(&self) -> PendingHandshake {
        let (sender, displaced) = oneshot::channel();
        let mut places = self.places.lock();
        let place = places.next;
        places.next += 1;
        places.taken.insert(place, sender);
        if places.taken.len() > self.most {
            places.taken.pop_first();
        }
        PendingHandshake {
            places: Arc::clone(&self.places),
            place,
            displaced,
        }
    }
}

impl PendingHandshake {
    /// Waits until another handshake takes the place of this one.
    pub(super) async fn displaced(&mut self) {
        // Nothing is ever sent: the sender is dropped.
        let _ = (&mut self.displaced).await;
    }
}

impl Drop for PendingHandshake {
    fn drop(&mut self) {
        self.places.lock().taken.remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    fn is_pending(future: impl Future) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(future).poll(&mut context).is_pending()
    }

    #[test]
    fn the_oldest_gives_way_and_the_ended_take_no_place() {
        let pending = PendingHandshakes::new(2);
        let (mut first, mut second) = (pending.begin(), pending.begin());
        assert!(is_pending(first.displaced()));
        let mut third = pending.begin();
        assert!(!is_pending(first.displaced()));
        assert!(is_pending(second.displaced()));
        // The displaced one has no place any more, and its end frees none.
        drop(first);
        drop(third);
        third = pending.begin();
        assert!(is_pending(second.displaced()));
        assert!(is_pending(third.displaced()));
        drop((second, third));
        assert!(pending.places.lock().taken.is_empty());
    }
}
