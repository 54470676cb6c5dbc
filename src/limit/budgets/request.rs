//! Pure. The requests that budgets receive, and what they say in return.

use crate::caller::Caller;
use crate::credential::Credential;
use crate::limit::turns::Urgency;
use crate::limit::window::Terms;
use crate::route::policy::{BudgetSpec, Effect, Rate};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The number of budgets that are kept. One principal may open half of them. Requests for more are
/// refused.
pub const MOST_ACCOUNTS: usize = 20_000;

/// The credential and the name of a budget.
pub(in crate::limit) type AccountKey = (Credential, Arc<str>);

/// The bounds of the lines, and how budgets begin.
#[derive(Clone, Debug)]
pub struct BudgetBounds {
    /// See [`Terms`].
    pub terms: Terms,
    /// The cap on attempts in flight of a budget for writes, at least.
    pub writes_in_flight: u32,
    /// The cap on attempts in flight of a budget for reads, at least.
    pub reads_in_flight: u32,
    /// The initial bounds of the lines.
    pub lines: LineBounds,
}

/// How much may wait. One principal may have half of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineBounds {
    /// The requests that wait for one budget. For the part of a principal see
    /// [`Turns::has_share`](crate::limit::turns::Turns::has_share).
    pub per_budget: usize,
    /// The requests that wait in total.
    pub total: usize,
    /// The bytes of the bodies of all requests that wait.
    pub bytes: usize,
}

/// A request for one slot of a budget.
#[derive(Clone, Debug)]
pub struct BudgetRequest<'a> {
    /// The credential that the budget belongs to.
    pub credential: Credential,
    /// The budget.
    pub budget: &'a BudgetSpec,
    /// Whether the request reads or writes. Decides the cap on attempts in flight of a new budget.
    pub effect: Effect,
    /// The caller.
    pub caller: Caller,
    /// The urgency among the waiting requests of its caller.
    pub urgency: Urgency,
    /// The bytes that are kept while the request waits.
    pub bytes: usize,
    /// When the earlier writes of its lanes are expected to have settled.
    pub not_before: Option<Instant>,
    /// The instant at which the wait ends.
    pub deadline: Instant,
    /// The instant by which the response must have come, if there is one.
    pub answer_by: Option<Instant>,
    /// When the request would be sent, if the caller knows better than the budget's own estimate.
    pub forecast: Option<Instant>,
    /// Whether the request may be sent.
    pub readiness: Readiness,
    /// Whether the request may be refused.
    pub admission: Admission,
}

impl BudgetRequest<'_> {
    /// The latest instant at which sending the request is of use, if a response takes `answer`.
    pub fn latest(&self, answer: Duration) -> Instant {
        let answer_by = self.answer_by.and_then(|by| by.checked_sub(answer));
        answer_by.map_or(self.deadline, |by| by.min(self.deadline))
    }
}

/// Whether a budget may refuse a request for want of room or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The budget may refuse it.
    Asked,
    /// The request was accepted before, and bounded there.
    Taken,
}

/// Whether a request may be sent as soon as it is its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The request may be sent.
    Ready,
    /// An earlier write of its lanes has not settled. The request keeps its position in the line
    /// until [`Ticket::ready`](crate::limit::ticket::Ticket::ready) is called.
    Blocked,
}

/// The reason why a request was refused. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetRefusal {
    /// The estimated wait ends after the deadline.
    TooLong {
        /// The estimated wait.
        estimate: Duration,
        /// A request that comes back after this is admitted, if nothing new came meanwhile.
        retry_after: Duration,
    },
    /// The line is full, or the principal has its half of it.
    Full {
        /// See [`BudgetRefusal::TooLong`].
        retry_after: Duration,
    },
    /// More budgets are in use than are kept.
    TooManyBudgets,
    /// The gateway is stopping, and could not send the request in time.
    Draining,
}

/// A budget and its line as operators see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountState {
    /// The credential.
    pub credential: Credential,
    /// The budget's name.
    pub budget: Arc<str>,
    /// Whether it was opened by a write.
    pub of_writes: bool,
    /// The rate in force.
    pub rate: Rate,
    /// The slots known to be occupied.
    pub occupied: u32,
    /// The attempts in flight.
    pub in_flight: u32,
    /// The requests that wait.
    pub waiting: usize,
    /// How long the first of them has waited.
    pub oldest: Option<Duration>,
    /// The callers that have waited longest, the longest first; at most a few.
    pub head: Vec<QueueHead>,
    /// The time until a new request could be sent.
    pub next_free: Duration,
    /// The time for which a 429 keeps the budget closed.
    pub closed_for: Option<Duration>,
    /// The slots left to other users of the token.
    pub left_to_others: u32,
    /// Whether no response has told yet what the budget allows.
    pub starting: bool,
}

/// A caller at the head of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueHead {
    /// The caller.
    pub caller: Caller,
    /// The number of its requests that wait.
    pub queued: usize,
    /// The number of those that wait for an earlier write, and not for a slot.
    pub blocked: usize,
    /// How long the first of them has waited.
    pub waited: Duration,
}

/// The status of the budget that a response used, for the `RateLimit` fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetStatus {
    /// The budget's name.
    pub budget: Arc<str>,
    /// The rate in force.
    pub rate: Rate,
    /// The slots that are free now.
    pub remaining: u32,
    /// The time until more are free.
    pub reset: Duration,
}
