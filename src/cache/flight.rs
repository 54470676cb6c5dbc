//! Single flight: one fetch per key, which further readers join.
//!
//! Promises that a fetch ends in exactly one way for all who joined it, even if its leader is
//! dropped or panics; that its key is free afterwards; and that followers who leave have no effect
//! on it.
//!
//! Of several fetches of one key, the latest to begin is *current*. Only the current one may be
//! joined and, once it has been sent, store its response. An older one continues for those who
//! joined it before, and a queued refresh ends when its turn comes. Whether the current fetch has
//! been sent changes under the lock of the table, together with its stamp. A reader who finds it
//! unsent therefore comes before it is sent.
//!
//! This module does not decide whether a fetch may be joined or begun. The caller decides while the
//! table is locked, so that nothing changes in between. No task is woken and nothing is awaited
//! under the lock. Lock order: this table, then the fence.

use super::decide::InFlight;
use super::entry::Entry;
use super::fence::Stamp;
use super::key::CacheKey;
use super::progress::{Publisher, Subscriber};
use super::reason::{Miss, StoreRefusal};
use crate::error::GatewayError;
use foldhash::HashMap;
use parking_lot::{Mutex, MutexGuard};
use std::fmt;
use std::sync::Arc;
use tokio::sync::Notify;

/// The outcome of a fetch, for those who joined it.
#[derive(Clone, Debug)]
pub enum FetchOutcome {
    /// A response that all followers may share, after each has checked it again.
    Shared(Arc<Entry>),
    /// A response for the leading reader only.
    NotShared(StoreRefusal),
    /// No response.
    Failed(GatewayError),
    /// The fetch was dropped or panicked before it ended.
    Lost,
}

/// The state of a fetch.
enum Progress {
    /// Queued for its budget.
    InLine,
    /// Sent, failed, and queued for its budget again.
    InLineAgain,
    /// Sent.
    Departed,
    Ended(FetchOutcome),
}

impl Progress {
    fn is_in_line(&self) -> bool {
        matches!(self, Self::InLine | Self::InLineAgain)
    }
}

/// The table of fetches in flight.
pub(super) struct Flights {
    table: Mutex<FlightTable>,
    limit: usize,
}

struct FlightTable {
    current: HashMap<Arc<CacheKey>, Flight>,
    /// The number of all fetches that have not ended, current or not.
    count: usize,
    /// The number of the next fetch. Never used twice, so that an old fetch cannot pass for the
    /// current one.
    next: u64,
}

struct Flight {
    number: u64,
    state: InFlight,
    progress: Subscriber<Progress>,
    hurry: Hurry,
}

/// A signal that a follower of the fetch cannot wait for long.
#[derive(Clone, Debug, Default)]
pub struct Hurry(Arc<Notify>);

impl Hurry {
    /// Waits until a follower gives the signal.
    pub async fn is_wanted(&self) {
        self.0.notified().await;
    }
}

impl Flights {
    /// Creates an empty table for at most `limit` concurrent fetches.
    pub(super) fn new(limit: usize) -> Self {
        let table = FlightTable {
            current: HashMap::default(),
            count: 0,
            next: 0,
        };
        Self {
            table: Mutex::new(table),
            limit,
        }
    }

    /// Locks the table for a decision about a reader or a refresh, and for what follows from it.
    pub(super) fn lock(self: &Arc<Self>) -> LockedFlights<'_> {
        LockedFlights {
            flights: self,
            table: self.table.lock(),
        }
    }

    /// Returns the number of fetches that have not ended.
    pub(super) fn count(&self) -> usize {
        self.table.lock().count
    }

    /// Returns the number of keys with a current fetch.
    #[cfg(test)]
    pub(super) fn current(&self) -> usize {
        self.table.lock().current.len()
    }
}

/// The table while it is locked.
pub(super) struct LockedFlights<'a> {
    flights: &'a Arc<Flights>,
    table: MutexGuard<'a, FlightTable>,
}

impl LockedFlights<'_> {
    /// Returns the state of the current fetch of a key.
    pub(super) fn current(&self, key: &CacheKey) -> Option<InFlight> {
        self.table.current.get(key).map(|flight| flight.state)
    }

    /// Returns the number of fetches that may still begin.
    pub(super) fn free(&self) -> usize {
        self.flights.limit.saturating_sub(self.table.count)
    }

    /// Joins the current fetch of a key. `now` is the stamp of a fetch that would begin now.
    pub(super) fn follow(&self, key: &CacheKey, why: Miss, now: Stamp) -> Option<Follower> {
        let flight = self.table.current.get(key)?;
        Some(Follower {
            progress: flight.progress.clone(),
            of_renewal: flight.state.is_renewal,
            hurry: flight.hurry.clone(),
            why,
            came: (!flight.state.has_left).then_some(now),
        })
    }

    /// Begins a fetch, which becomes the current one of its key, and unlocks the table. With
    /// `is_next` it is sent only after the present current one has ended.
    ///
    /// Those who joined an older fetch of the key still learn its outcome.
    pub(super) fn begin(mut self, key: &CacheKey, state: InFlight, is_next: bool) -> FlightGuard {
        let before = self.table.current.get(key).filter(|_| is_next);
        let before = before.map(|flight| flight.progress.clone());
        let (publisher, hurry) = (Publisher::new(Progress::InLine), Hurry::default());
        let key = Arc::new(key.clone());
        let number = self.table.next;
        self.table.next += 1;
        self.table.count += 1;
        let flight = Flight {
            number,
            state,
            progress: publisher.subscribe(),
            hurry: hurry.clone(),
        };
        self.table.current.insert(Arc::clone(&key), flight);
        FlightGuard {
            flights: Arc::clone(self.flights),
            key,
            number,
            is_renewal: state.is_renewal,
            publisher,
            hurry,
            before,
            ended: false,
        }
    }
}

impl FlightTable {
    /// Returns the fetch of this guard, if it is current.
    fn current_of(&mut self, guard: &FlightGuard) -> Option<&mut Flight> {
        let flight = self.current.get_mut(&guard.key)?;
        (flight.number == guard.number).then_some(flight)
    }
}

/// A place in the table. Its holder carries out the fetch. Dropping it frees the key, and the
/// followers find the fetch lost.
pub struct FlightGuard {
    flights: Arc<Flights>,
    key: Arc<CacheKey>,
    number: u64,
    is_renewal: bool,
    publisher: Publisher<Progress>,
    hurry: Hurry,
    /// The fetch of the key that must end before this one is sent.
    before: Option<Subscriber<Progress>>,
    ended: bool,
}

impl FlightGuard {
    pub(super) fn key(&self) -> &CacheKey {
        &self.key
    }

    /// Returns whether an earlier fetch of the key must end first. See [`turn`](Self::turn).
    pub fn is_next(&self) -> bool {
        self.before.is_some()
    }

    /// Waits until the earlier fetch has ended, if there is one: fetches of one key run one at a
    /// time. Must be awaited before the fetch is queued for its budget. The caller limits the wait,
    /// in case the other fetch hangs.
    pub async fn turn(&mut self) {
        if let Some(before) = self.before.take() {
            let has_ended = |progress: &Progress| matches!(progress, Progress::Ended(_));
            before.until(has_ended).await;
        }
    }

    /// Marks the fetch as sent, with the stamp of this moment, which replaces the one from its
    /// beginning. `None` if it must not be sent, because it is a refresh and another fetch has
    /// taken its place.
    pub(super) fn depart(&self, stamp: impl FnOnce() -> Stamp) -> Option<Stamp> {
        let stamp = {
            let mut table = self.flights.table.lock();
            let stamp = stamp();
            match table.current_of(self) {
                Some(flight) => (flight.state.stamp, flight.state.has_left) = (stamp, true),
                None if self.is_renewal => return None,
                None => {}
            }
            stamp
        };
        // Outside the lock: no task is woken under it.
        self.publisher.publish(Progress::Departed);
        Some(stamp)
    }

    /// Reports that an attempt had no result and that the fetch is queued for its budget again.
    /// Followers then decide for themselves how long they wait.
    pub fn requeue(&self) {
        if let Some(flight) = self.flights.table.lock().current_of(self) {
            flight.state.has_left = false;
        }
        self.publisher.publish(Progress::InLineAgain);
    }

    /// Returns the signal that a follower cannot wait for long.
    pub fn hurry(&self) -> Hurry {
        self.hurry.clone()
    }

    /// Joins the fetch on behalf of its leading reader, whether the fetch is current or not.
    pub fn follow(&self, why: Miss) -> Follower {
        Follower {
            progress: self.publisher.subscribe(),
            of_renewal: self.is_renewal,
            hurry: self.hurry(),
            why,
            came: None,
        }
    }

    /// Ends the fetch. Runs `store` if the fetch is current, or if the current one has not been
    /// sent. The table stays locked meanwhile, so that a reader finds either the fetch or what it
    /// stored, and no older response replaces a newer one.
    pub(super) fn complete<T>(
        mut self,
        outcome: FetchOutcome,
        store: impl FnOnce() -> T,
    ) -> Option<T> {
        let stored = self.leave(store);
        self.publisher.publish(Progress::Ended(outcome));
        stored
    }

    fn leave<T>(&mut self, store: impl FnOnce() -> T) -> Option<T> {
        let mut table = self.flights.table.lock();
        self.ended = true;
        table.count = table.count.saturating_sub(1);
        match table.current.get(&self.key) {
            Some(flight) if flight.number == self.number => {
                table.current.remove(&self.key);
                Some(store())
            }
            // The next fetch has not been sent, so no newer response can exist.
            Some(flight) if !flight.state.has_left => Some(store()),
            _ => None,
        }
    }
}

impl Drop for FlightGuard {
    /// Frees the key of a fetch that did not end. The publisher is dropped after this and wakes all
    /// followers.
    fn drop(&mut self) {
        if !self.ended {
            self.leave(|| ());
        }
    }
}

/// A reader that joined a fetch. Dropping it has no effect on the fetch.
pub struct Follower {
    progress: Subscriber<Progress>,
    /// Whether the fetch is a refresh. A follower does not wait for one in a queue, because its own
    /// turn comes sooner.
    of_renewal: bool,
    hurry: Hurry,
    why: Miss,
    came: Option<Stamp>,
}

impl Follower {
    /// The reason why the store did not serve the reader.
    pub fn why(&self) -> Miss {
        self.why
    }

    /// For a fetch that was joined before it was sent: the stamp of a fetch that would have begun
    /// at that time.
    pub fn came(&self) -> Option<Stamp> {
        self.came
    }

    /// Signals that the reader cannot wait for long, so that the fetch is sent as soon as possible.
    pub fn hurry(&self) {
        self.hurry.0.notify_one();
    }

    /// Whether the fetch was sent. Until then it is queued for its budget.
    pub fn has_started(&self) -> bool {
        self.progress.read(|progress, _| !progress.is_in_line())
    }

    /// Waits until the fetch is sent, or has ended without that. Returns immediately for a refresh.
    pub async fn started(&mut self) {
        let left = |progress: &Progress| self.of_renewal || !progress.is_in_line();
        // A fetch that was dropped has ended, too.
        self.progress.until(left).await;
    }

    /// Waits until the fetch is queued for its budget a second time. Waits forever if the fetch
    /// ends without that.
    pub async fn requeued(&self) {
        let moved =
            |progress: &Progress| matches!(progress, Progress::InLineAgain | Progress::Ended(_));
        self.progress.until(moved).await;
        if !self.progress.read(|progress, _| progress.is_in_line()) {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for the outcome. `None` if the fetch is queued for its budget, perhaps again; a queued
    /// refresh counts as lost. The leader bounds the time of the fetch, so this returns.
    pub async fn wait(&mut self) -> Option<FetchOutcome> {
        let moved = |progress: &Progress| !matches!(progress, Progress::Departed);
        self.progress.until(moved).await;
        self.progress.read(|progress, is_over| match progress {
            Progress::Ended(outcome) => Some(outcome.clone()),
            // The leader may be gone. Then nothing more will happen.
            _ if is_over || self.of_renewal => Some(FetchOutcome::Lost),
            _ => None,
        })
    }
}

impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flights({})", self.count())
    }
}

impl fmt::Debug for FlightGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlightGuard({})", self.number)
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Follower({})", self.why.as_str())
    }
}
