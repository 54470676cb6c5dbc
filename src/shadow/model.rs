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

use crate::credential::Credential;
use crate::merge::{self, Parts};
use crate::route::policy::Rate;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// The interval at which idle budgets are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// The interval at which idle budgets are removed while there are too many.
const FULL_SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The bounds of the virtual queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelBounds {
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

/// The credential and the name of a budget.
pub(super) type BudgetKey = (Credential, Arc<str>);

/// A request that wants to depart.
#[derive(Clone, Debug)]
pub(super) struct ModelRequest {
    /// The longest wait.
    pub patience: Duration,
    /// The memory that the request occupies while it is queued.
    pub bytes: usize,
    /// The part that it would contribute to a batch.
    pub parts: Option<Parts>,
}

/// The virtual departure of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Sent at its arrival.
    Immediate,
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
struct VirtualQueue {
    until: BinaryHeap<Reverse<(Instant, usize)>>,
    bytes: usize,
}

impl VirtualQueue {
    fn enter(&mut self, until: Instant, bytes: usize) {
        self.until.push(Reverse((until, bytes)));
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Removes the requests that have departed by `now`.
    fn advance(&mut self, now: Instant) {
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
struct VirtualBatch {
    start: Instant,
    members: Vec<Parts>,
}

/// One budget of one credential.
#[derive(Debug)]
struct VirtualBudget {
    limit: usize,
    /// W plus the guard.
    hold: Duration,
    /// The departures that still hold a slot or are to come, in order.
    departures: VecDeque<Instant>,
    queue: VirtualQueue,
    /// The batches that have not departed, in the order of departure.
    batches: VecDeque<VirtualBatch>,
}

impl VirtualBudget {
    fn new(rate: Rate, guard: Duration) -> Self {
        Self {
            limit: slots(rate.limit),
            hold: rate.window + guard + rate.window / 1000,
            departures: VecDeque::new(),
            queue: VirtualQueue::default(),
            batches: VecDeque::new(),
        }
    }

    /// Removes what lies in the past at `now`.
    fn advance(&mut self, now: Instant) {
        let hold = self.hold;
        while self
            .departures
            .pop_front_if(|at| *at + hold <= now)
            .is_some()
        {}
        while self
            .batches
            .pop_front_if(|batch| batch.start <= now)
            .is_some()
        {}
        self.queue.advance(now);
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
pub(super) struct Model {
    bounds: ModelBounds,
    budgets: HashMap<BudgetKey, VirtualBudget>,
    /// All queued requests, whatever their budget.
    queue: VirtualQueue,
    swept: Option<Instant>,
}

impl Model {
    /// Creates a model without any past.
    pub fn new(bounds: ModelBounds) -> Self {
        Self {
            bounds,
            budgets: HashMap::new(),
            queue: VirtualQueue::default(),
            swept: None,
        }
    }

    /// Adds a request for the budget `key` and returns its departure. `rate` applies until another
    /// limit is learned.
    ///
    /// The order matters: a rejected request changes nothing, so all checks come before the first
    /// entry into a queue.
    pub fn arrive(
        &mut self,
        key: BudgetKey,
        rate: Rate,
        request: ModelRequest,
        now: Instant,
    ) -> Departure {
        self.forget_idle(now);
        let bounds = self.bounds;
        if self.budgets.len() >= bounds.budgets && !self.budgets.contains_key(&key) {
            return Departure::Refused(Why::TooManyBudgets);
        }
        let opened = || VirtualBudget::new(rate, bounds.guard);
        let budget = self.budgets.entry(key).or_insert_with(opened);
        budget.advance(now);
        self.queue.advance(now);
        // A request fits into an empty queue, however large it is.
        let most = bounds.bytes.max(request.bytes);
        if budget.queue.len() >= bounds.per_budget
            || self.queue.len() >= bounds.total
            || self.queue.bytes.saturating_add(request.bytes) > most
        {
            return Departure::Refused(Why::Full);
        }
        let next = budget.next(now);
        let batch = request.parts.as_ref().and_then(|parts| {
            let fits =
                |batch: &&mut VirtualBatch| parts.fits(&batch.members, merge::Bounds::default());
            budget.batches.iter_mut().find(fits)
        });
        let start = batch.as_ref().map_or(next, |batch| batch.start);
        let wait = start.saturating_duration_since(now);
        if wait > request.patience {
            return Departure::Refused(Why::Wait(wait));
        }
        if wait.is_zero() {
            // A request that departs at its arrival cannot be joined.
            budget.departures.push_back(start);
            return Departure::Immediate;
        }
        budget.queue.enter(start, request.bytes);
        self.queue.enter(start, request.bytes);
        if let Some(batch) = batch {
            batch.members.extend(request.parts);
            return Departure::Merged(wait);
        }
        budget.departures.push_back(start);
        let batch = request.parts.map(|parts| VirtualBatch {
            start,
            members: vec![parts],
        });
        budget.batches.extend(batch);
        Departure::Queued(wait)
    }

    /// Returns whether a request that arrived now would wait.
    pub fn must_wait(&mut self, key: &BudgetKey, now: Instant) -> bool {
        self.budgets.get_mut(key).is_some_and(|budget| {
            budget.advance(now);
            budget.next(now) > now
        })
    }

    /// Returns whether a background request could depart now without making another wait, if the
    /// next window brought as many requests as the last.
    pub fn has_spare(&mut self, key: &BudgetKey, rate: Rate, now: Instant) -> bool {
        let Some(budget) = self.budgets.get_mut(key) else {
            return rate.limit > 1;
        };
        budget.advance(now);
        budget.departures.len() < budget.limit / 2
    }

    /// Sets the limit that a response of the API showed.
    pub fn learn(&mut self, key: &BudgetKey, limit: u32) {
        if let Some(budget) = self.budgets.get_mut(key) {
            budget.limit = slots(limit);
        }
    }

    /// Removes the budgets without a slot in use, from time to time.
    fn forget_idle(&mut self, now: Instant) {
        let is_full = self.budgets.len() >= self.bounds.budgets;
        let pause = if is_full {
            FULL_SWEEP_EVERY
        } else {
            SWEEP_EVERY
        };
        if self.swept.is_some_and(|at| now < at + pause) {
            return;
        }
        self.swept = Some(now);
        self.budgets.retain(|_, budget| {
            budget.advance(now);
            !budget.departures.is_empty()
        });
    }
}
