//! Pure. When requests would leave if budgets were kept: a virtual line for each budget.
//!
//! A budget of L slots per window W lets a request go at its arrival or, if that is later, W and
//! the guard after the L-th last one: so no half-open interval of length W has more than L virtual
//! departures ([`crate::limit::window`] says why that satisfies any kind of window). Requests leave
//! in the order in which they came. One that would wait longer than it may is refused, and so is
//! one for which the line has no room; neither takes a slot. A write that can travel with one that
//! waits takes no slot either.
//!
//! What it leaves out of what the gateway does when it enforces limits: the time that the API takes
//! (slots are held from the departure on, not from the answer on, and no number of attempts under
//! way is a bound), lanes that keep writes of one name in order, turns and shares among callers,
//! urgency, others who use the same token, and what 429s teach. So it tells somewhat shorter waits,
//! and fewer merged writes, since those also form behind attempts that are under way.
//!
//! Bounded: a budget has at most L departures and a full line; budgets are bounded in number, and
//! those in which nothing happens any more are forgotten.

use crate::route::policy::Rate;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// How often idle budgets are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How often room is looked for when there is none.
const MAKE_ROOM_EVERY: Duration = Duration::from_secs(1);

/// What bounds the virtual lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How much longer than its window a slot is kept; a thousandth of the window is added.
    pub guard: Duration,
    /// Requests that wait for one budget.
    pub per_budget: usize,
    /// Requests that wait.
    pub total: usize,
    /// The bytes of those.
    pub bytes: usize,
    /// Budgets that are known at once.
    pub budgets: usize,
}

/// A request that may travel with others, as far as they are known to the model.
pub trait Passenger: Sized {
    /// Whether there is room for it among these, of whom the first leads.
    fn may_join(&self, aboard: &[Self]) -> bool;
}

/// What asks to leave.
#[derive(Clone, Copy, Debug)]
pub struct Wish<P> {
    /// How long it may wait.
    pub patience: Duration,
    /// What it takes of the memory of those who wait.
    pub bytes: usize,
    /// What it could travel with others by.
    pub parts: Option<P>,
}

/// When a request would leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// At its arrival.
    AtOnce,
    /// After this wait.
    Queued(Duration),
    /// After this wait, with another, without a slot of its own.
    Merged(Duration),
    /// Never.
    Refused(Why),
}

impl Departure {
    /// Whether it would leave at all.
    pub fn is_granted(self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// Why a request would be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It would have to wait for so long, and may not.
    Wait(Duration),
    /// As many wait as may.
    Full,
    /// As many budgets are in use as may be.
    TooManyBudgets,
}

/// Those who wait: until when, and with how many bytes.
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

/// Requests that wait and would leave as one.
#[derive(Debug)]
struct Union<P> {
    departs: Instant,
    aboard: Vec<P>,
}

/// One budget of one credential.
#[derive(Debug)]
struct Account<P> {
    limit: usize,
    /// W and the guard.
    hold: Duration,
    /// Those that still hold a slot or are to come, in their order.
    departures: VecDeque<Instant>,
    line: Line,
    /// Those that have not left, in the order of their departures.
    unions: VecDeque<Union<P>>,
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

    /// Time has passed.
    fn pass(&mut self, now: Instant) {
        while self
            .departures
            .front()
            .is_some_and(|at| *at + self.hold <= now)
        {
            self.departures.pop_front();
        }
        while self
            .unions
            .front()
            .is_some_and(|union| union.departs <= now)
        {
            self.unions.pop_front();
        }
        self.line.pass(now);
    }

    fn is_idle(&mut self, now: Instant) -> bool {
        self.pass(now);
        self.departures.is_empty()
    }

    /// When one that comes now would leave.
    fn next(&self, now: Instant) -> Instant {
        let before = self.departures.len().checked_sub(self.limit);
        let free = before.and_then(|before| self.departures.get(before));
        let free = free.map_or(now, |before| *before + self.hold);
        // A limit that was raised meanwhile lets nobody overtake.
        let last = self.departures.back().copied().unwrap_or(now);
        free.max(last).max(now)
    }
}

/// No budget has no slot.
fn slots(limit: u32) -> usize {
    limit.max(1) as usize
}

/// All virtual budgets. Time must not go back from one call to the next.
#[derive(Debug)]
pub struct Model<K, P> {
    bounds: Bounds,
    accounts: HashMap<K, Account<P>>,
    line: Line,
    sweep_at: Option<Instant>,
    make_room_at: Option<Instant>,
}

impl<K: Eq + Hash + Clone, P: Passenger> Model<K, P> {
    /// Nothing was sent before.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            accounts: HashMap::new(),
            line: Line::default(),
            sweep_at: None,
            make_room_at: None,
        }
    }

    /// A request comes that draws on the budget `key`, whose rate is this as far as nothing else
    /// was learned.
    pub fn arrive(&mut self, key: &K, rate: Rate, wish: Wish<P>, now: Instant) -> Departure {
        if !self.open(key, rate, now) {
            return Departure::Refused(Why::TooManyBudgets);
        }
        self.line.pass(now);
        let Some(account) = self.accounts.get_mut(key) else {
            return Departure::Refused(Why::TooManyBudgets);
        };
        account.pass(now);
        let bounds = &self.bounds;
        // One that nobody waits before has room, however large.
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
        let departs = union.and_then(|at| account.unions.get(at));
        let departs = departs.map_or_else(|| account.next(now), |union| union.departs);
        let wait = departs.saturating_duration_since(now);
        if wait > wish.patience {
            return Departure::Refused(Why::Wait(wait));
        }
        if !wait.is_zero() {
            account.line.enter(departs, wish.bytes);
            self.line.enter(departs, wish.bytes);
        }
        if let Some(union) = union.and_then(|at| account.unions.get_mut(at)) {
            union.aboard.extend(wish.parts);
            return Departure::Merged(wait);
        }
        // Nothing waits in order to be merged.
        if let Some(parts) = wish.parts.filter(|_| !wait.is_zero()) {
            account.unions.push_back(Union {
                departs,
                aboard: vec![parts],
            });
        }
        account.departures.push_back(departs);
        if wait.is_zero() {
            Departure::AtOnce
        } else {
            Departure::Queued(wait)
        }
    }

    /// Whether one that came now would have to wait.
    pub fn must_wait(&mut self, key: &K, now: Instant) -> bool {
        self.accounts.get_mut(key).is_some_and(|account| {
            account.pass(now);
            account.next(now) > now
        })
    }

    /// Whether a request that nobody waits for could leave now without making one wait, if the next
    /// window brought as many as the last one.
    pub fn has_spare(&mut self, key: &K, rate: Rate, now: Instant) -> bool {
        let Some(account) = self.accounts.get_mut(key) else {
            return rate.limit > 1;
        };
        account.pass(now);
        account.departures.len() < account.limit / 2
    }

    /// An answer of the API shows that the limit is this one.
    pub fn learn(&mut self, key: &K, limit: u32) {
        if let Some(account) = self.accounts.get_mut(key) {
            account.limit = slots(limit);
        }
    }

    /// Budgets that are known.
    #[cfg(test)]
    pub fn budgets(&self) -> usize {
        self.accounts.len()
    }

    /// Whether there is an account, made if need be.
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
