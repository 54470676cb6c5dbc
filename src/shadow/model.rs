//! Pure. When requests would be sent if budgets were kept: a virtual queue for each budget.
//!
//! A budget has L slots per window W. A request departs at its arrival or, if that is later, W plus
//! the guard after the L-th last departure. So no half-open interval of length W has more than L
//! virtual departures; [`crate::limit::window`] says why that satisfies any kind of window.
//! Requests depart in the order of arrival. A request is rejected if it would wait longer than it
//! may, or if the queue has no room; it takes no slot then. A write that can join a queued batch
//! takes no slot either.
//!
//! The model is simpler than enforcement. It does without:
//!
//! - the response time of the API: a slot is held from the departure instead of from the response,
//!   and the number of attempts in flight is not bounded
//! - lanes, which keep related writes in order
//! - turns and shares among callers, and urgency
//! - other users of the token, and what 429s teach
//!
//! So it reports somewhat shorter waits. It also reports fewer batched writes, since batches form
//! behind attempts in flight as well.
//!
//! Memory is bounded: a budget has at most L departures and a full queue. The number of budgets is
//! bounded, and idle ones are forgotten.

use crate::route::policy::Rate;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// The interval at which idle budgets are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// The interval at which idle budgets are removed while there are too many.
const MAKE_ROOM_EVERY: Duration = Duration::from_secs(1);

/// The bounds of the virtual queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The time for which a slot is held beyond its window. A thousandth of the window is added.
    pub guard: Duration,
    /// The most requests queued for one budget.
    pub per_budget: usize,
    /// The most requests queued.
    pub total: usize,
    /// The most bytes of queued requests.
    pub bytes: usize,
    /// The most budgets tracked.
    pub budgets: usize,
}

/// A request that may be batched, as far as the model knows it.
pub trait BatchRules: Sized {
    /// Returns whether it fits into the batch of `aboard`, whose first member leads.
    fn may_join(&self, aboard: &[Self]) -> bool;
}

/// A request that wants to depart.
#[derive(Clone, Copy, Debug)]
pub struct ModelRequest<P> {
    /// The longest wait.
    pub patience: Duration,
    /// The memory that the request occupies while it is queued.
    pub bytes: usize,
    /// The part that it would contribute to a batch.
    pub parts: Option<P>,
}

/// The virtual departure of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Sent at its arrival.
    AtOnce,
    /// Sent after this wait.
    Queued(Duration),
    /// Sent after this wait in a batch, without a slot of its own.
    Merged(Duration),
    /// Rejected.
    Refused(Why),
}

impl Departure {
    /// Returns whether the request would be sent at all.
    pub fn is_granted(self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// The reason of a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The wait would be this long, which is more than permitted.
    Wait(Duration),
    /// The queue is full.
    Full,
    /// Too many budgets are in use.
    TooManyBudgets,
}

/// The queued requests: the departure and the bytes of each.
#[derive(Debug, Default)]
struct Line {
    until: BinaryHeap<Reverse<(Instant, usize)>>,
    bytes: usize,
}

impl Line {
    fn enter(&mut self, until: Instant, bytes: usize) {
        self.until.push(Reverse((until, bytes)));
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn pass(&mut self, now: Instant) {
        while let Some(Reverse((until, bytes))) = self.until.peek().copied()
            && until <= now
        {
            self.until.pop();
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    fn len(&self) -> usize {
        self.until.len()
    }
}

/// Queued requests that would be sent as one.
#[derive(Debug)]
struct ModelBatch<P> {
    start: Instant,
    aboard: Vec<P>,
}

/// One budget of one credential.
#[derive(Debug)]
struct Account<P> {
    limit: usize,
    /// W plus the guard.
    hold: Duration,
    /// The departures that still hold a slot or are to come, in order.
    departures: VecDeque<Instant>,
    line: Line,
    /// The batches that have not departed, in the order of departure.
    unions: VecDeque<ModelBatch<P>>,
}

impl<P> Account<P> {
    fn new(rate: Rate, guard: Duration) -> Self {
        Self {
            limit: slots(rate.limit),
            hold: rate.window + guard + rate.window / 1000,
            departures: VecDeque::new(),
            line: Line::default(),
            unions: VecDeque::new(),
        }
    }

    /// Removes what lies in the past at `now`.
    fn pass(&mut self, now: Instant) {
        while self
            .departures
            .front()
            .is_some_and(|at| *at + self.hold <= now)
        {
            self.departures.pop_front();
        }
        while self.unions.front().is_some_and(|union| union.start <= now) {
            self.unions.pop_front();
        }
        self.line.pass(now);
    }

    fn is_idle(&mut self, now: Instant) -> bool {
        self.pass(now);
        self.departures.is_empty()
    }

    /// Returns when a request that arrives now would depart.
    fn next(&self, now: Instant) -> Instant {
        // The L-th last departure frees the slot that this one takes.
        let before = self.departures.len().checked_sub(self.limit);
        let free = before.and_then(|before| self.departures.get(before));
        let free = free.map_or(now, |before| *before + self.hold);
        // After a limit was raised, a later request must not overtake an earlier one.
        let last = self.departures.back().copied().unwrap_or(now);
        free.max(last).max(now)
    }
}

/// A budget has at least one slot.
fn slots(limit: u32) -> usize {
    limit.max(1) as usize
}

/// The virtual budgets. Time must not go back from one call to the next.
#[derive(Debug)]
pub struct Model<K, P> {
    bounds: Bounds,
    accounts: HashMap<K, Account<P>>,
    line: Line,
    sweep_at: Option<Instant>,
    make_room_at: Option<Instant>,
}

impl<K: Eq + Hash + Clone, P: BatchRules> Model<K, P> {
    /// Creates a model without any past.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            accounts: HashMap::new(),
            line: Line::default(),
            sweep_at: None,
            make_room_at: None,
        }
    }

    /// Adds a request for the budget `key` and returns its departure. `rate` applies until another
    /// limit is learned.
    ///
    /// The order matters: a rejected request changes nothing, so all checks come before the first
    /// entry into a queue.
    pub fn arrive(
        &mut self,
        key: &K,
        rate: Rate,
        wish: ModelRequest<P>,
        now: Instant,
    ) -> Departure {
        if !self.open(key, rate, now) {
            return Departure::Refused(Why::TooManyBudgets);
        }
        self.line.pass(now);
        let Some(account) = self.accounts.get_mut(key) else {
            return Departure::Refused(Why::TooManyBudgets);
        };
        account.pass(now);
        let bounds = &self.bounds;
        // A request fits into an empty queue, however large it is.
        let most = bounds.bytes.max(wish.bytes);
        if account.line.len() >= bounds.per_budget
            || self.line.len() >= bounds.total
            || self.line.bytes.saturating_add(wish.bytes) > most
        {
            return Departure::Refused(Why::Full);
        }
        let union = wish.parts.as_ref().and_then(|parts| {
            let mut unions = account.unions.iter();
            unions.position(|union| parts.may_join(&union.aboard))
        });
        let start = union.and_then(|at| account.unions.get(at));
        let start = start.map_or_else(|| account.next(now), |union| union.start);
        let wait = start.saturating_duration_since(now);
        if wait > wish.patience {
            return Departure::Refused(Why::Wait(wait));
        }
        if !wait.is_zero() {
            account.line.enter(start, wish.bytes);
            self.line.enter(start, wish.bytes);
        }
        if let Some(union) = union.and_then(|at| account.unions.get_mut(at)) {
            union.aboard.extend(wish.parts);
            return Departure::Merged(wait);
        }
        // A request that departs at once cannot be joined.
        if let Some(parts) = wish.parts.filter(|_| !wait.is_zero()) {
            account.unions.push_back(ModelBatch {
                start,
                aboard: vec![parts],
            });
        }
        account.departures.push_back(start);
        if wait.is_zero() {
            Departure::AtOnce
        } else {
            Departure::Queued(wait)
        }
    }

    /// Returns whether a request that arrived now would wait.
    pub fn must_wait(&mut self, key: &K, now: Instant) -> bool {
        self.accounts.get_mut(key).is_some_and(|account| {
            account.pass(now);
            account.next(now) > now
        })
    }

    /// Returns whether a background request could depart now without making another wait, if the
    /// next window brought as many requests as the last.
    pub fn has_spare(&mut self, key: &K, rate: Rate, now: Instant) -> bool {
        let Some(account) = self.accounts.get_mut(key) else {
            return rate.limit > 1;
        };
        account.pass(now);
        account.departures.len() < account.limit / 2
    }

    /// Sets the limit that a response of the API showed.
    pub fn learn(&mut self, key: &K, limit: u32) {
        if let Some(account) = self.accounts.get_mut(key) {
            account.limit = slots(limit);
        }
    }

    /// Returns the number of budgets tracked.
    #[cfg(test)]
    pub fn budgets(&self) -> usize {
        self.accounts.len()
    }

    /// Returns whether the budget is tracked, and adds it if there is room.
    fn open(&mut self, key: &K, rate: Rate, now: Instant) -> bool {
        if self.sweep_at.is_none_or(|at| at <= now) {
            self.sweep_at = Some(now + SWEEP_EVERY);
            self.forget_idle(now);
        }
        if self.accounts.contains_key(key) {
            return true;
        }
        let is_full = |model: &Self| model.accounts.len() >= model.bounds.budgets;
        if is_full(self) && self.make_room_at.is_none_or(|at| at <= now) {
            self.make_room_at = Some(now + MAKE_ROOM_EVERY);
            self.forget_idle(now);
        }
        if is_full(self) {
            return false;
        }
        let account = Account::new(rate, self.bounds.guard);
        self.accounts.insert(key.clone(), account);
        true
    }

    fn forget_idle(&mut self, now: Instant) {
        self.accounts.retain(|_, account| !account.is_idle(now));
    }
}
