//! Pure. The vocabulary of a window: slots, how they are taken, and how attempts end.

use crate::limit::learn::{Allowance, Throttle};
use std::time::{Duration, Instant};

/// How long slots stay occupied beyond the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The fixed part of the guard. The whole guard is this plus W/1000, because the API may count
    /// a little after it responds, and clocks do not run at equal rates.
    pub guard: Duration,
    /// Q: how late an abandoned request may still arrive.
    pub late: Duration,
    /// The number of first responses without rate headers after which attempts go on at the pace of
    /// the limit, where nothing is known of what was sent before.
    pub unknown_slots: u32,
}

/// A slot in use by one attempt. Not `Clone`: it is returned exactly once.
///
/// It remembers what was known when it was taken. Whatever a response counts beyond that was sent
/// by other users of the token.
#[derive(Debug, PartialEq, Eq)]
pub struct Slot {
    /// The slots known to be occupied just after this one was taken.
    pub(super) known: u32,
    /// The slots of which nothing was known then.
    pub(super) unknown: u32,
    /// Whether this is one of those.
    pub(super) of_unknown: bool,
    /// The slots taken over the life of the budget, this one included.
    pub(super) taken: u64,
    /// What the attempt is to find out.
    pub(super) probe: Probe,
}

/// What an attempt is to find out about its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// Nothing: the budget is known to be open.
    No,
    /// Whether the budget is open again after a 429.
    Reopen,
    /// What the budget allows, of which no response has told anything.
    Start,
    /// The same, after responses that told nothing: others may be sent before its response.
    Paced,
}

impl Slot {
    /// Whether the slot was taken before any response had told what the budget allows.
    pub(super) fn is_first(&self) -> bool {
        matches!(self.probe, Probe::Start | Probe::Paced)
    }
}

/// The answer to a request for a slot.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// A slot: the attempt may be sent now.
    Slot(Slot),
    /// No slot before this instant, and perhaps later.
    NotBefore(Instant),
    /// No slot until an attempt in flight ends. No instant can be named.
    AfterAnswer,
}

/// How an attempt ended, as far as its slot is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptEnd {
    /// A final response from the API itself, with what its headers say of the budget.
    Answered(Option<Allowance>),
    /// A 429, with the time that it asks to wait.
    Throttled(Throttle),
    /// No response, or one that may come from a balancer in front of the API's own counter.
    NoAnswer,
    /// The request was not sent.
    NotSent,
}

/// What the end of an attempt taught, for logs and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// The old and the new limit, if it changed.
    pub limit: Option<(u32, u32)>,
    /// The new window of an undocumented budget, if it changed.
    pub window: Option<Duration>,
    /// The slots that other users of the token were found to use.
    pub foreign: u32,
    /// Whether the attempt was a first one of a budget without history. Its 429 is counted as
    /// `start`.
    pub at_start: bool,
}
