//! A place in a line, and what it turns into: a permit for one attempt.
//!
//! Both are guards. A [`Ticket`] leaves the line when it is dropped; a [`Permit`] gives its slot
//! back when it is dropped, as unanswered if it had been begun. So a caller that hangs up and a
//! task that panics leak neither.

use super::budgets::{BudgetRefusal, BudgetStatus, Budgets, Grant, Key, Waiting};
use super::ledger::{Effect, Intent};
use super::turns::{Caller, LinePosition, Urgency};
use super::window::{End, Learned, Slot};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A place in a line. Dropping it leaves the line and costs nothing.
#[derive(Debug)]
pub struct Ticket {
    pub(super) budgets: Budgets,
    pub(super) key: Key,
    pub(super) place: LinePosition,
    pub(super) caller: Caller,
    pub(super) urgency: Urgency,
    pub(super) since: Instant,
    pub(super) bytes: usize,
    pub(super) deadline: Instant,
    pub(super) estimate: Instant,
    pub(super) answer: Duration,
    pub(super) granted: oneshot::Receiver<Grant>,
    pub(super) ready_since: Option<Instant>,
}

/// Why a ticket got no permit. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermitError {
    /// Its deadline passed in the line.
    Expired,
    /// It was refused after all.
    Refused(BudgetRefusal),
}

impl Ticket {
    /// When it was expected to leave, at the latest, when it joined.
    pub fn estimate(&self) -> Instant {
        self.estimate
    }

    /// Its place among all who wait for any budget.
    pub fn place(&self) -> LinePosition {
        self.place
    }

    /// How long an answer takes at most, as far as is known.
    pub fn answer_time(&self) -> Duration {
        self.answer
    }

    /// Its deadline.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Waits until then from now on.
    pub fn extend(&mut self, deadline: Instant) {
        self.deadline = self.deadline.max(deadline);
    }

    /// Says that it may leave: every earlier write of its lanes has settled.
    pub fn ready(&mut self) {
        let place = self.place;
        let now = self.budgets.shared.clock.now();
        self.ready_since.get_or_insert(now);
        self.budgets
            .change(&self.key, |state, _| state.make_ready(&self.key, place));
    }

    /// When it was first said that it may leave: from then on it waits for its budget alone.
    pub fn ready_since(&self) -> Option<Instant> {
        self.ready_since
    }

    /// The permit if it can leave this instant; does not wait.
    pub fn granted_now(&mut self) -> Option<Permit> {
        self.granted.try_recv().ok().and_then(Result::ok)
    }

    /// Waits for its turn, until its deadline.
    pub async fn granted(&mut self) -> Result<Permit, PermitError> {
        match tokio::time::timeout_at(self.deadline.into(), &mut self.granted).await {
            Ok(Ok(Ok(permit))) => Ok(permit),
            Ok(Ok(Err(refusal))) => Err(PermitError::Refused(refusal)),
            // Its budget was forgotten while it was out of the line, for want of room.
            Ok(Err(_)) => Err(PermitError::Refused(BudgetRefusal::TooManyBudgets)),
            Err(_) => Err(PermitError::Expired),
        }
    }

    /// Leaves the line for a while; [`Ticket::again`] takes its place again. A permit that was on
    /// its way gives its slot back.
    pub fn step_aside(&mut self) {
        let place = self.place;
        self.granted.close();
        let in_flight = self.granted.try_recv();
        self.budgets
            .change(&self.key, |state, _| drop(state.leave(&self.key, place)));
        drop(in_flight);
    }

    /// Goes back to its old place after an attempt that did not count (a 429, or not sent).
    pub fn again(&mut self) {
        self.again_blocked();
        self.ready();
    }

    /// The same, not ready yet.
    pub fn again_blocked(&mut self) {
        let (grant, granted) = oneshot::channel();
        self.granted = granted;
        let waiting = Waiting {
            grant,
            bytes: self.bytes,
            peer: self.caller.peer,
            urgency: self.urgency,
            since: self.since,
        };
        let (place, caller) = (self.place, self.caller.clone());
        self.budgets.change(&self.key, |state, now| {
            state.enter(&self.key, place, caller, now, waiting);
            state.refuse_if_late(&self.key, place, now);
        });
    }

    /// At the latest when it would leave if it went back to its old place now.
    pub fn estimate_again(&self) -> Instant {
        let now = self.budgets.shared.clock.now();
        let mut state = self.budgets.shared.state.lock();
        match state.accounts.get_mut(&self.key) {
            Some(kept) => kept.account.leaves_at(0, now),
            None => now,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.step_aside();
    }
}

/// What ending an attempt came to for its budget.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// The budget from now on; `None` if it is no longer known.
    pub standing: Option<BudgetStatus>,
    /// What the answer taught.
    pub learned: Learned,
}

/// A slot, for one attempt.
#[derive(Debug)]
pub struct Permit {
    pub(super) budgets: Budgets,
    pub(super) key: Key,
    pub(super) slot: Option<Slot>,
    /// Its number in the ledger once it has begun.
    pub(super) attempt: Option<u64>,
    /// What the writes act on that travel with the attempt.
    pub(super) intents: Vec<Intent>,
    /// Whether it may take effect although it was answered.
    pub(super) late: bool,
    pub(super) since: Instant,
}

impl Permit {
    /// Says what the writes act on that travel with the attempt: a restart keeps their lanes closed
    /// while they may take effect.
    pub fn carries(mut self, intents: Vec<Intent>) -> Self {
        self.intents = intents;
        self
    }

    /// Says that the answer does not exclude a later effect.
    pub fn may_take_effect_late(&mut self) {
        self.late = true;
    }

    /// Records that the attempt is about to leave. Call it right before sending.
    pub fn begin(&mut self) {
        let shared = &self.budgets.shared;
        self.since = shared.clock.now();
        let mut state = shared.state.lock();
        let Some(kept) = state.accounts.get_mut(&self.key) else {
            return;
        };
        let window = kept.account.window();
        let (hold, in_force) = (window.hold_unanswered(), window.in_force());
        let id = kept.id;
        let intents = std::mem::take(&mut self.intents);
        self.attempt = Some(state.ledger.sent(id, hold, in_force, &intents));
    }

    /// Ends the attempt; the slot comes back as [`super::window::Window`] says.
    pub fn end(mut self, end: End) -> Ended {
        self.finish(end)
    }

    fn finish(&mut self, end: End) -> Ended {
        let mut ended = Ended::default();
        let Some(slot) = self.slot.take() else {
            return ended;
        };
        let since = self.since;
        let attempt = self.attempt;
        let effect = match end {
            End::NotSent | End::Throttled(_) => Effect::None,
            End::NoAnswer => Effect::Late,
            End::Answered(_) if self.late => Effect::Late,
            End::Answered(_) => Effect::Known,
        };
        self.budgets.change(&self.key, |state, now| {
            let Some(kept) = state.accounts.get_mut(&self.key) else {
                return;
            };
            let took = now.saturating_duration_since(since);
            ended.learned = kept.account.end(slot, end, took, now);
            let window = kept.account.window();
            let hold = match end {
                End::NotSent => Duration::ZERO,
                End::NoAnswer => window.hold_unanswered(),
                End::Answered(_) | End::Throttled(_) => window.hold_answered(),
            };
            let in_force = window.in_force();
            if let Some(attempt) = attempt {
                state
                    .ledger
                    .ended(attempt, kept.id, (hold, effect), in_force);
            }
            ended.standing = Some(kept.standing(&self.key.1, now));
        });
        ended
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let end = if self.attempt.is_some() {
            End::NoAnswer
        } else {
            End::NotSent
        };
        let _ = self.finish(end);
    }
}
