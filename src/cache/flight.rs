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
use super::key::Key;
use super::progress::{Listener, Teller};
use super::reason::{Miss, StoreRefusal};
use crate::error::GatewayError;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use tokio::sync::Notify;

/// The outcome of a fetch, for those who joined it.
#[derive(Clone, Debug)]
pub enum Outcome {
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
    Ended(Outcome),
}

impl Progress {
    fn is_in_line(&self) -> bool {
        matches!(self, Self::InLine | Self::InLineAgain)
    }
}

/// The table of fetches in flight.
pub(super) struct Flights {
    table: Mutex<Table>,
    limit: usize,
}

struct Table {
    current: HashMap<Arc<Key>, Flight>,
    /// The number of all fetches that have not ended, current or not.
    under_way: usize,
    /// The number of the next fetch. Never used twice, so that an old fetch cannot pass for the
    /// current one.
    next: u64,
}

struct Flight {
    number: u64,
    stamp: Stamp,
    has_left: bool,
    is_renewal: bool,
    progress: Listener<Progress>,
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

/// The current fetch of a key, while the table is locked.
pub(super) struct Current<'a>(&'a Flight);

impl Current<'_> {
    pub(super) fn state(&self) -> InFlight {
        InFlight {
            stamp: self.0.stamp,
            has_left: self.0.has_left,
            is_renewal: self.0.is_renewal,
        }
    }

    /// Joins the fetch. `now` is the stamp of a fetch that would begin now.
    pub(super) fn follow(&self, why: Miss, now: Stamp) -> Follower {
        Follower {
            progress: self.0.progress.clone(),
            of_renewal: self.0.is_renewal,
            hurry: self.0.hurry.clone(),
            why,
            came: (!self.0.has_left).then_some(now),
        }
    }
}

/// The caller's decision about a reader.
pub(super) enum Plan<T> {
    /// Begins a fetch with this stamp, which becomes the current one.
    Lead(Stamp),
    /// Begins such a fetch, which is sent only after the present current one has ended.
    LeadNext(Stamp),
    /// Anything else.
    Other(T),
}

impl Flights {
    /// An empty table for at most `limit` fetches at once.
    pub(super) fn new(limit: usize) -> Self {
        let table = Table {
            current: HashMap::new(),
            under_way: 0,
            next: 0,
        };
        Self {
            table: Mutex::new(table),
            limit,
        }
    }

    /// Decides about a reader or a refresh in one step. `plan` gets the current fetch of the key
    /// and the number of fetches that may still begin.
    pub(super) fn join<T>(
        self: &Arc<Self>,
        key: &Key,
        is_renewal: bool,
        plan: impl FnOnce(Option<Current<'_>>, usize) -> Plan<T>,
    ) -> Result<(FlightGuard, Stamp), T> {
        // Held while `plan` decides, so that the decision still holds when the fetch begins.
        let mut table = self.table.lock();
        let free = self.limit.saturating_sub(table.under_way);
        let (stamp, is_next) = match plan(table.current.get(key).map(Current), free) {
            Plan::Other(other) => return Err(other),
            Plan::Lead(stamp) => (stamp, false),
            Plan::LeadNext(stamp) => (stamp, true),
        };
        let current = table.current.get(key).filter(|_| is_next);
        let before = current.map(|flight| flight.progress.clone());
        let ticket = self.begin(&mut table, key, (stamp, is_renewal), before);
        Ok((ticket, stamp))
    }

    /// The number of fetches that have not ended.
    pub(super) fn under_way(&self) -> usize {
        self.table.lock().under_way
    }

    /// The number of keys with a current fetch.
    #[cfg(test)]
    pub(super) fn current(&self) -> usize {
        self.table.lock().current.len()
    }

    fn begin(
        self: &Arc<Self>,
        table: &mut Table,
        key: &Key,
        (stamp, is_renewal): (Stamp, bool),
        before: Option<Listener<Progress>>,
    ) -> FlightGuard {
        let (teller, hurry) = (Teller::new(Progress::InLine), Hurry::default());
        let key = Arc::new(key.clone());
        let number = table.next;
        table.next += 1;
        table.under_way += 1;
        let flight = Flight {
            number,
            stamp,
            has_left: false,
            is_renewal,
            progress: teller.listen(),
            hurry: hurry.clone(),
        };
        // Replaces an older fetch of the key as the current one. Those who joined the older one
        // still learn its outcome.
        table.current.insert(Arc::clone(&key), flight);
        FlightGuard {
            flights: Arc::clone(self),
            key,
            number,
            is_renewal,
            teller,
            hurry,
            before,
            ended: false,
        }
    }
}

impl Table {
    /// The fetch of this ticket, if it is current.
    fn current_of(&mut self, ticket: &FlightGuard) -> Option<&mut Flight> {
        let flight = self.current.get_mut(&ticket.key)?;
        (flight.number == ticket.number).then_some(flight)
    }
}

/// A place in the table. Its holder carries out the fetch.
pub(super) struct FlightGuard {
    flights: Arc<Flights>,
    key: Arc<Key>,
    number: u64,
    is_renewal: bool,
    teller: Teller<Progress>,
    hurry: Hurry,
    /// The fetch of the key that must end before this one is sent.
    before: Option<Listener<Progress>>,
    ended: bool,
}

impl FlightGuard {
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Whether an earlier fetch must end first.
    pub(super) fn is_next(&self) -> bool {
        self.before.is_some()
    }

    /// Waits until the earlier fetch has ended, if there is one.
    pub(super) async fn turn(&mut self) {
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
                Some(flight) => (flight.stamp, flight.has_left) = (stamp, true),
                None if self.is_renewal => return None,
                None => {}
            }
            stamp
        };
        // Outside the lock: no task is woken under it.
        self.teller.tell(Progress::Departed);
        Some(stamp)
    }

    /// Queues the fetch for its budget again, after an attempt without a result.
    pub(super) fn turn_back(&self) {
        if let Some(flight) = self.flights.table.lock().current_of(self) {
            flight.has_left = false;
        }
        self.teller.tell(Progress::InLineAgain);
    }

    /// The signal that a follower cannot wait for long.
    pub(super) fn hurry(&self) -> Hurry {
        self.hurry.clone()
    }

    /// Joins the fetch on behalf of its leading reader, whether the fetch is current or not.
    pub(super) fn follow(&self, why: Miss) -> Follower {
        Follower {
            progress: self.teller.listen(),
            of_renewal: self.is_renewal,
            hurry: self.hurry(),
            why,
            came: None,
        }
    }

    /// Ends the fetch. Runs `store` if the fetch is current, or if the current one has not been
    /// sent. The table stays locked meanwhile, so that a reader finds either the fetch or what it
    /// stored, and no older response replaces a newer one.
    pub(super) fn complete<T>(mut self, outcome: Outcome, store: impl FnOnce() -> T) -> Option<T> {
        let stored = self.leave(store);
        self.teller.tell(Progress::Ended(outcome));
        stored
    }

    fn leave<T>(&mut self, store: impl FnOnce() -> T) -> Option<T> {
        let mut table = self.flights.table.lock();
        self.ended = true;
        table.under_way = table.under_way.saturating_sub(1);
        match table.current.get(&self.key) {
            Some(flight) if flight.number == self.number => {
                table.current.remove(&self.key);
                Some(store())
            }
            // The next fetch has not been sent, so no newer response can exist.
            Some(flight) if !flight.has_left => Some(store()),
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
    progress: Listener<Progress>,
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
        self.progress.look(|progress, _| !progress.is_in_line())
    }

    /// Waits until the fetch is sent, or has ended without that. Returns at once for a refresh.
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
        if !self.progress.look(|progress, _| progress.is_in_line()) {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for the outcome. `None` if the fetch is queued for its budget, perhaps again; a queued
    /// refresh counts as lost. The leader bounds the time of the fetch, so this returns.
    pub async fn wait(&mut self) -> Option<Outcome> {
        let moved = |progress: &Progress| !matches!(progress, Progress::Departed);
        self.progress.until(moved).await;
        self.progress.look(|progress, is_over| match progress {
            Progress::Ended(outcome) => Some(outcome.clone()),
            // The leader may be gone. Then nothing more will happen.
            _ if is_over || self.of_renewal => Some(Outcome::Lost),
            _ => None,
        })
    }
}

impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flights({} under way)", self.under_way())
    }
}

impl fmt::Debug for FlightGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({})", self.number)
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Follower({})", self.why.as_str())
    }
}
