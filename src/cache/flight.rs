//! Fetches under way: one for each key, which others join.
//!
//! Promises that a fetch ends in exactly one way for everyone who joined it, also if whoever
//! carries it out is dropped or panics; that its key is free from then on; that those who join
//! and go away leave no trace.
//!
//! Of several fetches of one key, one is *current*: the latest to begin. Only it may be joined
//! and, once it has left, only it may store its answer. An older one goes on for those who joined
//! it before; a renewal that waits for its budget ends when its turn comes. Whether the current one
//! has left for the API changes under the lock of the table, together with its stamp: who finds
//! that it has not comes before it leaves.
//!
//! Whether a fetch may be joined, and whether another may begin, is not decided here: the caller
//! decides under the lock of the table, so that nobody can slip in between. Nobody is woken and
//! nothing is awaited under it. Lock order: this table, then the fence.

use super::decide::InFlight;
use super::entry::Entry;
use super::fence::Stamp;
use super::key::Key;
use super::progress::{Listener, Teller};
use super::reason::{Miss, Refusal};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use tokio::sync::Notify;

/// How a fetch ended, for those who joined it.
#[derive(Clone, Debug)]
pub enum Outcome<E> {
    /// An answer that may be shown to all of them, once it has been judged again.
    Shared(Arc<Entry>),
    /// An answer that was for the reader alone who began the fetch.
    NotShared(Refusal),
    /// No answer.
    Failed(E),
    /// It was given up without an end: dropped, or a panic.
    Lost,
}

/// How far a fetch has come.
enum Progress<E> {
    /// It waits for its budget.
    InLine,
    /// It was sent, came to nothing, and waits for its budget again.
    InLineAgain,
    /// It was sent.
    Departed,
    Ended(Outcome<E>),
}

impl<E> Progress<E> {
    fn is_in_line(&self) -> bool {
        matches!(self, Self::InLine | Self::InLineAgain)
    }
}

/// The table of fetches under way.
pub(super) struct Flights<E> {
    table: Mutex<Table<E>>,
    limit: usize,
}

struct Table<E> {
    current: HashMap<Arc<Key>, Flight<E>>,
    /// All fetches that have not ended, current or not.
    under_way: usize,
    /// The number of the next; never used twice, so that an old one cannot pass for current.
    next: u64,
}

struct Flight<E> {
    number: u64,
    stamp: Stamp,
    has_left: bool,
    is_renewal: bool,
    progress: Listener<Progress<E>>,
    hurry: Hurry,
}

/// Says that somebody waits for a fetch who cannot wait for long.
#[derive(Clone, Debug, Default)]
pub struct Hurry(Arc<Notify>);

impl Hurry {
    /// Waits until somebody does.
    pub async fn is_wanted(&self) {
        self.0.notified().await;
    }
}

/// The current fetch of a key, as long as the table is locked.
pub(super) struct Current<'a, E>(&'a Flight<E>);

impl<E> Current<'_, E> {
    pub(super) fn state(&self) -> InFlight {
        InFlight {
            stamp: self.0.stamp,
            has_left: self.0.has_left,
            is_renewal: self.0.is_renewal,
        }
    }

    /// Joins it; `now` is the stamp of a fetch that would begin now.
    pub(super) fn follow(&self, why: Miss, now: Stamp) -> Follower<E> {
        Follower {
            progress: self.0.progress.clone(),
            of_renewal: self.0.is_renewal,
            hurry: self.0.hurry.clone(),
            why,
            came: (!self.0.has_left).then_some(now),
        }
    }
}

/// What is decided about a reader.
pub(super) enum Plan<T> {
    /// It begins a fetch with this stamp, which becomes the current one.
    Lead(Stamp),
    /// The same; it is to leave when the one that is current now has ended.
    LeadNext(Stamp),
    /// Anything else.
    Other(T),
}

impl<E> Flights<E> {
    /// An empty table. `limit` is how many fetches may be under way.
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

    /// Decides about a reader, or a renewal, in one step: `plan` is told the current fetch of the
    /// key and how many more may begin.
    pub(super) fn board<T>(
        self: &Arc<Self>,
        key: &Key,
        is_renewal: bool,
        plan: impl FnOnce(Option<Current<'_, E>>, usize) -> Plan<T>,
    ) -> Result<(Ticket<E>, Stamp), T> {
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

    /// How many fetches are under way.
    pub(super) fn under_way(&self) -> usize {
        self.table.lock().under_way
    }

    /// How many keys have a current fetch.
    #[cfg(test)]
    pub(super) fn current(&self) -> usize {
        self.table.lock().current.len()
    }

    fn begin(
        self: &Arc<Self>,
        table: &mut Table<E>,
        key: &Key,
        (stamp, is_renewal): (Stamp, bool),
        before: Option<Listener<Progress<E>>>,
    ) -> Ticket<E> {
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
        // An older fetch of the key is no longer current; those who joined it hear its end.
        table.current.insert(Arc::clone(&key), flight);
        Ticket {
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

impl<E> Table<E> {
    /// The fetch of this ticket, if it is current.
    fn current_of(&mut self, ticket: &Ticket<E>) -> Option<&mut Flight<E>> {
        let flight = self.current.get_mut(&ticket.key)?;
        (flight.number == ticket.number).then_some(flight)
    }
}

/// Holds a place in the table: whoever has it carries out the fetch.
pub(super) struct Ticket<E> {
    flights: Arc<Flights<E>>,
    key: Arc<Key>,
    number: u64,
    is_renewal: bool,
    teller: Teller<Progress<E>>,
    hurry: Hurry,
    /// The fetch of the key that is to end before this one leaves.
    before: Option<Listener<Progress<E>>>,
    ended: bool,
}

impl<E> Ticket<E> {
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Whether a fetch before this one is to end first.
    pub(super) fn is_next(&self) -> bool {
        self.before.is_some()
    }

    /// Waits until the fetch before this one has ended, if it is to.
    pub(super) async fn turn(&mut self) {
        if let Some(before) = self.before.take() {
            let has_ended = |progress: &Progress<E>| matches!(progress, Progress::Ended(_));
            before.until(has_ended).await;
        }
    }

    /// The fetch is sent, with the stamp of this moment: later than was thought when it began.
    /// `None` if it is not to be sent: it is a renewal, and another fetch has taken its place.
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
        self.teller.tell(Progress::Departed);
        Some(stamp)
    }

    /// The attempt came to nothing: the fetch waits for its budget again.
    pub(super) fn turn_back(&self) {
        if let Some(flight) = self.flights.table.lock().current_of(self) {
            flight.has_left = false;
        }
        self.teller.tell(Progress::InLineAgain);
    }

    /// Tells whether somebody waits for it who cannot wait for long.
    pub(super) fn hurry(&self) -> Hurry {
        self.hurry.clone()
    }

    /// Joins the fetch from within, current or not.
    pub(super) fn follow(&self, why: Miss) -> Follower<E> {
        Follower {
            progress: self.teller.listen(),
            of_renewal: self.is_renewal,
            hurry: self.hurry(),
            why,
            came: None,
        }
    }

    /// Ends the fetch. If it is current, or the current one has not left, `store` is run before
    /// another can become so: a reader finds either the fetch or what it stored, and no older
    /// answer lands on a newer one.
    pub(super) fn land<T>(mut self, outcome: Outcome<E>, store: impl FnOnce() -> T) -> Option<T> {
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
            // The next one has not left: nothing newer is under way.
            Some(flight) if !flight.has_left => Some(store()),
            _ => None,
        }
    }
}

impl<E> Drop for Ticket<E> {
    /// Without an end, the key is freed here; the teller goes after that, and wakes everyone.
    fn drop(&mut self) {
        if !self.ended {
            self.leave(|| ());
        }
    }
}

/// Someone who joined a fetch. Dropping it costs nobody anything.
pub struct Follower<E> {
    progress: Listener<Progress<E>>,
    /// Whether it does not wait where the fetch does: its own turn comes sooner.
    of_renewal: bool,
    hurry: Hurry,
    why: Miss,
    came: Option<Stamp>,
}

impl<E: Clone> Follower<E> {
    /// Why the reader did not get a stored answer.
    pub fn why(&self) -> Miss {
        self.why
    }

    /// Of one that was joined before it left: the stamp of a fetch that would have begun then.
    pub fn came(&self) -> Option<Stamp> {
        self.came
    }

    /// Says that the reader cannot wait for long: the fetch is to leave as soon as it may.
    pub fn hurry(&self) {
        self.hurry.0.notify_one();
    }

    /// Whether the fetch was sent; until then it waits for its budget.
    pub fn has_departed(&self) -> bool {
        self.progress.look(|progress, _| !progress.is_in_line())
    }

    /// Waits until the fetch is sent, or has ended without it. A renewal is not waited for.
    pub async fn departure(&mut self) {
        let left = |progress: &Progress<E>| self.of_renewal || !progress.is_in_line();
        // That it was given up is an end, too.
        self.progress.until(left).await;
    }

    /// Waits until the fetch waits for its budget a second time; for ever, if it ends without that.
    pub async fn turned_back(&self) {
        let moved =
            |progress: &Progress<E>| matches!(progress, Progress::InLineAgain | Progress::Ended(_));
        self.progress.until(moved).await;
        if !self.progress.look(|progress, _| progress.is_in_line()) {
            std::future::pending::<()>().await;
        }
    }

    /// How the fetch ends, or `None` if it waits for its budget, perhaps again; a renewal that does
    /// is lost. It does end: the fetch is bounded in time by whoever carries it out.
    pub async fn wait(&mut self) -> Option<Outcome<E>> {
        let moved = |progress: &Progress<E>| !matches!(progress, Progress::Departed);
        self.progress.until(moved).await;
        self.progress.look(|progress, is_over| match progress {
            Progress::Ended(outcome) => Some(outcome.clone()),
            // Whoever carried it out may be gone: then it waits for nothing any more.
            _ if is_over || self.of_renewal => Some(Outcome::Lost),
            _ => None,
        })
    }
}

impl<E> fmt::Debug for Flights<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flights({} under way)", self.under_way())
    }
}

impl<E> fmt::Debug for Ticket<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({})", self.number)
    }
}

impl<E> fmt::Debug for Follower<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Follower({})", self.why.as_str())
    }
}
