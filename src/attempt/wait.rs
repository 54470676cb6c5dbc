//! The queue before an attempt: the budget's line, the lanes, the estimate, and giving up.
//!
//! Promises that order wins over turn: an attempt gets a slot only after its lanes are open.
//! Nothing is sent here.

use crate::attempt::Attempts;
use crate::attempt::backoff;
use crate::attempt::estimate::{Forecast, MOST_WAITING, Newcomer};
use crate::error::GatewayError;
use crate::exchange::ids::Ids;
use crate::exchange::request::Ask;
use crate::exchange::timing::Timing;
use crate::limit::budgets::{Admission, Readiness, Refusal, Wish};
use crate::limit::ticket::{NoPermit, Permit, Ticket};
use crate::queue::Place;
use crate::queue::lanes::Keys;
use crate::route::policy::Operation;
use crate::upstream::NotSent;
use std::time::{Duration, Instant};

impl Attempts {
    /// Returns a request for a slot as soon as it is this request's turn.
    pub(crate) fn wish<'a>(&self, ask: &'a Ask) -> Wish<'a> {
        Wish {
            credential: ask.credential,
            budget: &ask.operation.budget,
            effect: ask.operation.effect,
            caller: ask.caller.clone(),
            urgency: ask.urgency,
            bytes: ask.weight(),
            not_before: None,
            deadline: ask.accepted + ask.patience,
            answer_by: self.given_up_at(ask),
            forecast: None,
            readiness: Readiness::Ready,
            admission: Admission::Asked,
        }
    }

    /// Returns the result of `look`, unless estimates took too much time lately.
    pub(crate) fn look<T>(&self, look: impl FnOnce() -> T) -> Option<T> {
        self.estimate_budget.look(&self.clock, look)
    }

    /// Copies what else is queued, unless that is more than `most`.
    pub(crate) fn forecast(&self, wish: &Wish<'_>, most: usize) -> Option<Forecast> {
        let accounts = self.budgets.forecast(wish.credential, most)?;
        let lanes = self.queue.lanes(wish.credential);
        Some(Forecast {
            accounts,
            lanes,
            now: self.clock.now(),
        })
    }

    pub(crate) fn newcomer<'a>(&self, wish: &'a Wish<'_>, keys: &'a Keys) -> Newcomer<'a> {
        let now = self.clock.now();
        let answer = self.budgets.answer_time(wish.credential, wish.budget);
        // A response that comes after the caller's balancer gave up is of no use. So the wait ends
        // early enough for a usual response.
        let answer_by = wish.answer_by.and_then(|by| by.checked_sub(answer));
        let deadline = answer_by.map_or(wish.deadline, |by| by.min(wish.deadline));
        Newcomer {
            budget: &wish.budget.name,
            caller: &wish.caller,
            urgency: wish.urgency,
            keys,
            patience: deadline.saturating_duration_since(now),
            most: self.budgets.most_per_budget(),
        }
    }

    /// Decides finally about a request that its budget's own estimate rejects.
    ///
    /// # Errors
    /// The rejection, with a time to come back that satisfies both estimates.
    pub(crate) fn look_closer(
        &self,
        wish: Wish<'_>,
        keys: &Keys,
        refusal: Refusal,
    ) -> Result<Ticket, Refusal> {
        // Only these two depend on an estimate; other rejections are final.
        let (Refusal::TooLong { .. } | Refusal::Full { .. }) = refusal else {
            return Err(refusal);
        };
        // The share of processor time is checked inside `look`. Without it the first estimate
        // stands.
        let looked = self.look(|| {
            let forecast = self.forecast(&wish, MOST_WAITING)?;
            let newcomer = self.newcomer(&wish, keys);
            let (now, leaves) = (forecast.now, forecast.leaves(&newcomer));
            let is_in_time = leaves.is_some_and(|leaves| leaves <= now + newcomer.patience);
            // A full line stays full: its estimate only tells when to come back.
            let is_admitted = is_in_time && matches!(refusal, Refusal::TooLong { .. });
            let comes_back = (!is_admitted).then(|| forecast.comes_back(&newcomer));
            Some((now, leaves, comes_back))
        });
        let Some((now, leaves, comes_back)) = looked.flatten() else {
            return Err(refusal);
        };
        // The closer estimate is in time: the request joins the line with it.
        let Some(comes_back) = comes_back else {
            let forecast = leaves;
            return self.budgets.join(&Wish { forecast, ..wish });
        };
        Err(match (refusal, leaves) {
            // Both estimates have to agree. The budget's own knows less about lanes, but is the one
            // that judges first when the caller comes back.
            (Refusal::TooLong { retry_after, .. }, Some(leaves)) => Refusal::TooLong {
                estimate: leaves - now,
                retry_after: retry_after.max(comes_back),
            },
            // The forecast does not contain what is full besides this budget.
            (Refusal::Full { retry_after }, _) => Refusal::Full {
                retry_after: retry_after.max(comes_back),
            },
            (refusal, _) => refusal,
        })
    }

    /// Waits for the lanes and then for a slot.
    pub(crate) async fn permitted(
        &self,
        ticket: &mut Ticket,
        place: &mut Place,
    ) -> Result<Permit, NoPermit> {
        if !place.is_blocked() {
            ticket.ready();
        }
        // A ticket that is not ready keeps its place in the line. `biased` checks the grant first:
        // it also brings a rejection or an expiry while lanes are closed.
        loop {
            let blocked = place.is_blocked();
            tokio::select! {
                biased;
                granted = ticket.granted() => return granted,
                () = place.free(), if blocked => ticket.ready(),
            }
        }
    }

    /// Notes that a request is sent. Its wait is counted once, however many attempts follow.
    pub(crate) fn leaves(&self, ask: &Ask, timing: &mut Timing) {
        let again = timing.left;
        timing.left(self.clock.now(), ask.accepted);
        if !again {
            self.metrics.left(&ask.operation.name, timing.queued);
        }
    }

    pub(crate) fn not_permitted(&self, why: NoPermit, ask: &Ask, ticket: &Ticket) -> GatewayError {
        match why {
            NoPermit::Refused(refusal) => refused(refusal),
            // A caller with `wait=0` learns the estimate instead of an expiry.
            NoPermit::Expired => {
                let now = self.clock.now();
                let wait = ticket.estimate_again().saturating_duration_since(now);
                let retry_after = wait.max(Duration::from_secs(1));
                if ask.patience.is_zero() {
                    GatewayError::QueueWait {
                        estimate: wait,
                        retry_after,
                    }
                } else {
                    GatewayError::QueueExpired { retry_after }
                }
            }
        }
    }

    /// Waits before a new connection is tried. `place` spreads the pauses of requests that wait.
    ///
    /// # Errors
    /// If no connection can succeed, or the pause would end after `by`.
    pub(crate) async fn pause_or_fail(
        &self,
        why: NotSent,
        failures: u32,
        place: u64,
        by: Instant,
    ) -> Result<(), GatewayError> {
        let pause = backoff::reconnect(why, failures, backoff::dice(place, failures));
        let again = pause.map(|pause| self.clock.now() + pause);
        // A pause beyond the deadline would only delay the error.
        let Some(again) = again.filter(|again| *again < by) else {
            return Err(GatewayError::UpstreamUnreachable {
                message: why.message(),
                waited: why.into(),
            });
        };
        tokio::time::sleep_until(again.into()).await;
        Ok(())
    }

    /// Returns the error for a request whose wait for its budget expired. The line says when to
    /// come back.
    pub(crate) fn expired(&self, ask: &Ask) -> GatewayError {
        let refused = self.budgets.join(&self.wish(ask)).err().map(refused);
        let retry_after = refused.and_then(|refused| refused.retry_after());
        GatewayError::QueueExpired {
            retry_after: retry_after.unwrap_or(Duration::from_secs(1)),
        }
    }

    /// Notes the first attempt of a write, which adds to the retry budget.
    pub(crate) fn first_attempt(&self) {
        self.retry_budget.lock().first_attempt(self.clock.now());
    }

    /// Takes a retry of a write from the retry budget.
    ///
    /// # Errors
    /// The instant at which to ask again.
    pub(crate) fn take_repetition(&self, operation: &Operation) -> Result<(), Instant> {
        self.retry_budget.lock().repeat(self.clock.now())?;
        self.metrics.repeated(&operation.name);
        Ok(())
    }

    /// Reports that the retry budget had no retry for a write.
    pub(crate) fn no_repetition(&self, operation: &Operation, ids: &Ids) {
        self.metrics.repetition_refused(&operation.name);
        tracing::info!(
            operation = %operation.name,
            request_id = ids.request(),
            trace_id = ids.trace(),
            "retry denied by the retry budget"
        );
    }

    /// Returns the instant at which the balancer in front of the gateway gives up on a request, if
    /// known.
    pub(crate) fn given_up_at(&self, ask: &Ask) -> Option<Instant> {
        self.settings
            .get()
            .caller_timeout
            .map(|timeout| ask.accepted + timeout)
    }
}

pub(crate) fn refused(refusal: Refusal) -> GatewayError {
    match refusal {
        Refusal::TooLong {
            estimate,
            retry_after,
        } => GatewayError::QueueWait {
            estimate,
            retry_after,
        },
        Refusal::Full { retry_after } => GatewayError::QueueFull { retry_after },
        Refusal::TooManyBudgets => GatewayError::Overloaded,
        Refusal::Draining => GatewayError::Draining,
    }
}
