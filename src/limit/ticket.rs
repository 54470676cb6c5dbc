//! A position in a line, and the permit for one attempt that it becomes.
//!
//! Both are guards. A [`Ticket`] leaves the line when it is dropped. A [`Permit`] returns its slot
//! when it is dropped: as used without a response if it has begun, else as unused. So neither a
//! caller that hangs up nor a task that panics loses one.
//!
//! A 429 is waited out in the line: the permit ends with [`AttemptEnd::Throttled`], which closes
//! the budget, and the ticket joins again at its old position.

use super::budgets::{AccountKey, BudgetRefusal, BudgetStatus, Budgets, Grant, Waiter};
use super::ledger::{Charge, Intent, KnownEffect};
use super::turns::LinePosition;
use super::window::{AttemptEnd, Learned, Slot};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A position in a line. Dropping it leaves the line and uses no slot.
#[derive(Debug)]
pub struct Ticket {
    pub(super) budgets: Budgets,
    pub(super) key: AccountKey,
    pub(super) place: LinePosition,
    /// What the line needs to know of the request, to join again.
    pub(super) waiter: Waiter,
    pub(super) deadline: Instant,
    /// When the request would be sent at the latest, as estimated when it joined.
    pub(super) estimate: Instant,
    /// The response time that was expected when it joined.
    pub(super) answer: Duration,
    /// Every method keeps it in step with the line.
    pub(super) standing: Standing,
    pub(super) ready_since: Option<Instant>,
}

/// Where the request of a ticket is.
#[derive(Debug)]
pub(super) enum Standing {
    /// In the line, not ready. The channel brings a refusal, or the permit once it is ready.
    Blocked(oneshot::Receiver<Grant>),
    /// In the line, ready.
    Ready(oneshot::Receiver<Grant>),
    /// Past the line: a slot was free when none could be sent before it.
    Served(Permit),
    /// Not in the line.
    Out,
}

/// The reason why a ticket got no permit. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermitError {
    /// The deadline passed in the line.
    Expired,
    /// The request was refused after all.
    Refused(BudgetRefusal),
}

impl Ticket {
    /// Returns when the request would be sent at the latest, as estimated when it joined.
    pub fn estimate(&self) -> Instant {
        self.estimate
    }

    /// Returns the position, which is unique among the lines of all budgets.
    pub fn place(&self) -> LinePosition {
        self.place
    }

    /// Returns how long a response takes at most, as far as was known when it joined.
    pub fn answer_time(&self) -> Duration {
        self.answer
    }

    /// Returns the deadline.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Extends the deadline.
    pub fn extend(&mut self, deadline: Instant) {
        self.deadline = self.deadline.max(deadline);
    }

    /// Lets the request be sent: every earlier write of its lanes has settled.
    pub fn ready(&mut self) {
        let now = self.budgets.shared.clock.now();
        self.ready_since.get_or_insert(now);
        match std::mem::replace(&mut self.standing, Standing::Out) {
            Standing::Blocked(granted) => {
                // Past the line, nothing comes by the channel any more.
                let served = self.budgets.make_ready(&self.key, self.place, now);
                self.standing = served.map_or(Standing::Ready(granted), Standing::Served);
            }
            as_before => self.standing = as_before,
        }
    }

    /// Returns when the request could first be sent. From then on it waits for its budget alone.
    pub fn ready_since(&self) -> Option<Instant> {
        self.ready_since
    }

    /// Waits for the turn of the request, until the deadline. Cancel safe. After a permit or a
    /// refusal the request is out of the line until [`Ticket::again`].
    ///
    /// # Errors
    /// If there is no permit.
    pub async fn granted(&mut self) -> Result<Permit, PermitError> {
        let granted = match std::mem::replace(&mut self.standing, Standing::Out) {
            Standing::Served(permit) => return Ok(permit),
            Standing::Out => return Err(PermitError::Refused(BudgetRefusal::TooManyBudgets)),
            in_line => {
                self.standing = in_line;
                self.wait_in_line().await?
            }
        };
        // Whatever came, the request has left the line.
        self.standing = Standing::Out;
        granted.map_err(PermitError::Refused)
    }

    /// Waits for the word of the line, until the deadline.
    async fn wait_in_line(&mut self) -> Result<Grant, PermitError> {
        let (Standing::Blocked(granted) | Standing::Ready(granted)) = &mut self.standing else {
            return Ok(Err(BudgetRefusal::TooManyBudgets));
        };
        match tokio::time::timeout_at(self.deadline.into(), granted).await {
            Ok(Ok(granted)) => Ok(granted),
            // The budget was forgotten for want of room while the ticket was out of the line.
            Ok(Err(_)) => Ok(Err(BudgetRefusal::TooManyBudgets)),
            Err(_) => Err(PermitError::Expired),
        }
    }

    /// Leaves the line until [`Ticket::again`]. A permit on its way to the ticket returns its slot.
    pub fn step_aside(&mut self) {
        match std::mem::replace(&mut self.standing, Standing::Out) {
            Standing::Blocked(mut granted) | Standing::Ready(mut granted) => {
                let place = self.place;
                // Closed first: a permit that is granted from now on is dropped by the sender.
                granted.close();
                let unused = granted.try_recv();
                self.budgets
                    .change(&self.key, |state, _| drop(state.leave(&self.key, place)));
                // Returns the slot, which takes the lock.
                drop(unused);
            }
            // Returns the slot as well.
            Standing::Served(unused) => drop(unused),
            Standing::Out => {}
        }
    }

    /// Joins the line again at the old position, after an attempt without effect (a 429, or not
    /// sent).
    pub fn again(&mut self) {
        self.again_blocked();
        self.ready();
    }

    /// Like [`Ticket::again`], but the request is not ready yet.
    pub fn again_blocked(&mut self) {
        let (grant, granted) = oneshot::channel();
        self.standing = Standing::Blocked(granted);
        let (place, waiter) = (self.place, self.waiter.clone());
        self.budgets.change(&self.key, |state, now| {
            state.enter(&self.key, place, waiter, grant, now);
            state.refuse_if_late(&self.key, place, now);
        });
    }

    /// Returns when the request would be sent at the latest if it joined again now.
    pub fn estimate_again(&self) -> Instant {
        let now = self.budgets.shared.clock.now();
        let mut state = self.budgets.shared.state.lock();
        let open = state.accounts.get_mut(&self.key);
        open.map_or(now, |open| open.account.leaves_at(0, now))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.step_aside();
    }
}

/// A budget after the end of an attempt.
#[derive(Clone, Debug, Default)]
pub struct EndedAttempt {
    /// The status of the budget. `None` if it is no longer in use.
    pub standing: Option<BudgetStatus>,
    /// What the response taught.
    pub learned: Learned,
}

/// A slot for one attempt.
#[derive(Debug)]
pub struct Permit {
    pub(super) budgets: Budgets,
    pub(super) key: AccountKey,
    /// The slot, until it is returned.
    pub(super) slot: Option<Slot>,
    /// The number of the attempt in the ledger, once it has begun.
    pub(super) attempt: Option<u64>,
    /// The things on which the writes of the attempt act.
    pub(super) intents: Vec<Intent>,
    /// Whether the attempt may take effect late although there was a response.
    pub(super) late: bool,
    /// When the attempt was sent, or the permit granted.
    pub(super) since: Instant,
}

impl Permit {
    /// A permit for an attempt with this slot, which has not begun.
    pub(super) fn new(budgets: &Budgets, key: &AccountKey, slot: Slot, now: Instant) -> Self {
        Self {
            budgets: budgets.clone(),
            key: key.clone(),
            slot: Some(slot),
            attempt: None,
            intents: Vec::new(),
            late: false,
            since: now,
        }
    }

    /// Sets the things on which the writes of the attempt act. After a restart their lanes stay
    /// closed while the writes may take effect.
    pub fn carries(mut self, intents: Vec<Intent>) -> Self {
        self.intents = intents;
        self
    }

    /// Notes that the response does not exclude a later effect.
    pub fn may_take_effect_late(&mut self) {
        self.late = true;
    }

    /// Records that the attempt is about to be sent. Must be called right before sending.
    pub fn begin(&mut self) {
        let shared = &self.budgets.shared;
        self.since = shared.clock.now();
        let mut state = shared.state.lock();
        let Some(open) = state.accounts.get_mut(&self.key) else {
            return;
        };
        let window = open.account.window();
        let charge = Charge {
            hold: window.hold_unanswered(),
            rate: window.in_force(),
            account: open.id,
        };
        let intents = std::mem::take(&mut self.intents);
        self.attempt = Some(state.ledger.sent(charge, &intents));
    }

    /// Ends the attempt. The slot is returned as [`super::window`] says.
    pub fn end(mut self, end: AttemptEnd) -> EndedAttempt {
        self.finish(end)
    }

    fn finish(&mut self, end: AttemptEnd) -> EndedAttempt {
        let mut ended = EndedAttempt::default();
        let Some(slot) = self.slot.take() else {
            return ended;
        };
        let (since, attempt) = (self.since, self.attempt);
        // A 429 has no effect, and neither has a request that was not sent. Without a response, or
        // with one that hides it, the effect may still come.
        let effect = match end {
            AttemptEnd::NotSent | AttemptEnd::Throttled(_) => KnownEffect::None,
            AttemptEnd::Answered(_) if !self.late => KnownEffect::Final,
            AttemptEnd::Answered(_) | AttemptEnd::NoAnswer => KnownEffect::Late,
        };
        self.budgets.change(&self.key, |state, now| {
            let Some(open) = state.accounts.get_mut(&self.key) else {
                return;
            };
            let took = now.saturating_duration_since(since);
            ended.learned = open.account.end(slot, end, took, now);
            let window = open.account.window();
            let charge = Charge {
                hold: match end {
                    AttemptEnd::NotSent => Duration::ZERO,
                    AttemptEnd::NoAnswer => window.hold_unanswered(),
                    AttemptEnd::Answered(_) | AttemptEnd::Throttled(_) => window.hold_answered(),
                },
                rate: window.in_force(),
                account: open.id,
            };
            ended.standing = Some(open.status(&self.key.1, now));
            if let Some(attempt) = attempt {
                state.ledger.ended(attempt, charge, effect);
                if ended.learned.limit.is_some() || ended.learned.window.is_some() {
                    // A new process must not go back to the old rate.
                    state.ledger.write();
                }
                self.budgets.write_ledger_soon(state, now);
            }
        });
        ended
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let end = if self.attempt.is_some() {
            AttemptEnd::NoAnswer
        } else {
            AttemptEnd::NotSent
        };
        let _ = self.finish(end);
    }
}
