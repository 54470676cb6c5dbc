//! Pure. What is asked of the budgets, and what they say.

use crate::credential::Credential;
use crate::limit::turns::{Caller, Urgency};
use crate::limit::window::Terms;
use crate::route::policy::{BudgetSpec, Effect, Rate};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bounds of the lines, and how budgets begin.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// See [`Terms`].
    pub terms: Terms,
    /// Attempts under way together per budget, at least: writes, reads.
    pub writes_at_once: u32,
    /// See `writes_at_once`.
    pub reads_at_once: u32,
    /// How much may wait to begin with.
    pub lines: LineBounds,
}

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineBounds {
    /// Those who wait: for one budget, in total, and the bytes of their bodies. One peer may
    /// have half of each; for one budget see [`crate::limit::turns::Turns::has_share`].
    pub per_budget: usize,
    /// See `per_budget`.
    pub total: usize,
    /// See `per_budget`.
    pub bytes: usize,
}

/// A request for one attempt.
#[derive(Clone, Debug)]
pub struct BudgetRequest<'a> {
    /// Whose budget.
    pub credential: Credential,
    /// Which.
    pub budget: &'a BudgetSpec,
    /// Whether it reads or writes: decides the cap on attempts under way of a new budget.
    pub effect: Effect,
    /// Who asks.
    pub caller: Caller,
    /// How urgent it is among what its caller has waiting.
    pub urgency: Urgency,
    /// Bytes kept while it waits.
    pub bytes: usize,
    /// Earlier writes of its lanes are expected to have settled by then.
    pub not_before: Option<Instant>,
    /// The wait must end by then.
    pub deadline: Instant,
    /// And it must leave early enough for its answer to come by then.
    pub answer_by: Option<Instant>,
    /// When it leaves, where that is known better than this file can tell.
    pub forecast: Option<Instant>,
    /// False if it must not leave until [`crate::limit::ticket::Ticket::ready`] is called.
    pub readiness: Readiness,
    /// Whether it may be refused.
    pub admission: Admission,
}

/// Whether a wish may be refused for want of room or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It asks.
    Asked,
    /// It was accepted before, and bounded there.
    Taken,
}

/// Whether a ticket may be served at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It may leave as soon as it is its turn.
    Ready,
    /// An earlier write of its lanes has not settled.
    Blocked,
}

/// Why a wish was refused. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetRefusal {
    /// The estimated wait ends after the deadline.
    TooLong {
        /// The estimated wait.
        estimate: Duration,
        /// Who returns after this is admitted, if nothing new came meanwhile.
        retry_after: Duration,
    },
    /// The line is full, or this peer's half of it.
    Full {
        /// See [`BudgetRefusal::TooLong`].
        retry_after: Duration,
    },
    /// More budgets are in use than are kept.
    TooManyBudgets,
    /// The gateway is stopping and could not carry it out in time.
    Draining,
}

/// A line as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountState {
    /// Whose.
    pub credential: Credential,
    /// The budget's name.
    pub budget: Arc<str>,
    /// The rate in force.
    pub rate: Rate,
    /// Slots known to be occupied.
    pub occupied: u32,
    /// Attempts under way.
    pub under_way: u32,
    /// How many wait.
    pub waiting: usize,
    /// For how long whoever came first has waited.
    pub oldest: Option<Duration>,
    /// Time until the next newcomer could leave.
    pub next_free: Duration,
    /// Closed by a 429 for this long.
    pub closed_for: Option<Duration>,
    /// Slots left to others who use the token.
    pub left_to_others: u32,
    /// Still finding out what may be sent: no answer has told.
    pub starting: bool,
}

/// The budget an answer drew on, for the `RateLimit` fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetStatus {
    /// The budget's name.
    pub budget: Arc<str>,
    /// The rate in force.
    pub rate: Rate,
    /// Slots free now.
    pub remaining: u32,
    /// Time until more are free.
    pub reset: Duration,
}
