//! The queue before an attempt: the budget's line, the lanes, the estimate, and giving up.
//!
//! Promises that order wins over turn: an attempt gets a slot only after its lanes are open. A
//! request that waits for its lanes keeps its place in the line meanwhile.
//!
//! Two estimates decide whether a request is admitted. The budget's own is cheap and knows little
//! of lanes. The closer one replays all that is queued. It is made only if the first rejects or
//! lanes are closed, and if processor time is left for it.
//!
//! Nothing is sent here.

use crate::attempt::Attempts;
use crate::attempt::backoff;
use crate::attempt::estimate::{Estimate, MOST_UNSETTLED, MOST_WAITING, Newcomer};
use crate::error::GatewayError;
use crate::exchange::ids::Ids;
use crate::exchange::request::RequestContext;
use crate::exchange::timing::Timing;
use crate::lanes::Keys;
use crate::lanes::LanePosition;
use crate::limit::budgets::{Admission, BudgetRefusal, BudgetRequest, Readiness};
use crate::limit::ticket::{Permit, PermitError, Ticket};
use crate::route::policy::Operation;
use crate::upstream::NotSent;
use std::time::{Duration, Instant};

impl Attempts {
    /// Returns a request for a slot, for a request that may be sent at once and may be refused.
    /// Writes change that: their lanes may be closed, and accepted ones are not refused.
    pub(crate) fn budget_request<'a>(&self, context: &'a RequestContext) -> BudgetRequest<'a> {
        BudgetRequest {
            credential: context.credential,
            budget: &context.operation.budget,
            effect: context.operation.effect,
            caller: context.caller.clone(),
            urgency: context.urgency,
            bytes: context.weight(),
            not_before: None,
            deadline: context.accepted + context.patience,
            // A response after that instant reaches nobody.
            answer_by: self.given_up_at(context),
            forecast: None,
            readiness: Readiness::Ready,
            admission: Admission::Asked,
        }
    }

    /// Returns the result of `look`, an estimate. `None` if another one runs, or estimates took too
    /// much time lately; then the bounds of the budgets decide.
    pub(crate) fn look<T>(&self, look: impl FnOnce() -> T) -> Option<T> {
        self.estimate_budget.look(&self.clock, look)
    }

    /// Copies what else is queued, unless that is more than `most`, or the credential has too many
    /// unsettled writes. Deferred ones are in their lanes long before they are queued.
    pub(crate) fn forecast(
        &self,
        budget_request: &BudgetRequest<'_>,
        most: usize,
    ) -> Option<Estimate> {
        let accounts = self.budgets.forecast(budget_request.credential, most)?;
        let lanes = self
            .lanes
            .order(budget_request.credential, MOST_UNSETTLED)?;
        Some(Estimate {
            accounts,
            lanes,
            now: self.clock.now(),
        })
    }

    /// Describes a request to the closer estimate, with the time that it can wait.
    pub(crate) fn newcomer<'a>(
        &self,
        budget_request: &'a BudgetRequest<'_>,
        keys: &'a Keys,
    ) -> Newcomer<'a> {
        let now = self.clock.now();
        let answer = self
            .budgets
            .answer_time(budget_request.credential, budget_request.budget);
        // A response that comes after the caller's balancer gave up is of no use. So the wait ends
        // early enough for a usual response.
        let deadline = budget_request.latest(answer);
        Newcomer {
            budget: &budget_request.budget.name,
            caller: &budget_request.caller,
            urgency: budget_request.urgency,
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
        budget_request: BudgetRequest<'_>,
        keys: &Keys,
        refusal: BudgetRefusal,
    ) -> Result<Ticket, BudgetRefusal> {
        // Only these two depend on an estimate; other rejections are final.
        let (BudgetRefusal::TooLong { .. } | BudgetRefusal::Full { .. }) = refusal else {
            return Err(refusal);
        };
        // The share of processor time is checked inside `look`. Without it the first estimate
        // stands.
        let looked = self.look(|| {
            let forecast = self.forecast(&budget_request, MOST_WAITING)?;
            let newcomer = self.newcomer(&budget_request, keys);
            let (now, leaves) = (forecast.now, forecast.leaves(&newcomer));
            let is_in_time = leaves.is_some_and(|leaves| leaves <= now + newcomer.patience);
            // A full line stays full: its estimate only tells when to come back.
            let is_admitted = is_in_time && matches!(refusal, BudgetRefusal::TooLong { .. });
            let comes_back = (!is_admitted).then(|| forecast.comes_back(&newcomer));
            Some((now, leaves, comes_back))
        });
        let Some((now, leaves, comes_back)) = looked.flatten() else {
            return Err(refusal);
        };
        // The closer estimate is in time: the request joins the line with it.
        let Some(comes_back) = comes_back else {
            let forecast = leaves;
            return self.budgets.join(&BudgetRequest {
                forecast,
                ..budget_request
            });
        };
        Err(match (refusal, leaves) {
            // Both estimates have to agree. The budget's own knows less about lanes, but is the one
            // that judges first when the caller comes back.
            (BudgetRefusal::TooLong { retry_after, .. }, Some(leaves)) => BudgetRefusal::TooLong {
                estimate: leaves - now,
                retry_after: retry_after.max(comes_back),
            },
            // The forecast does not contain what is full besides this budget.
            (BudgetRefusal::Full { retry_after }, _) => BudgetRefusal::Full {
                retry_after: retry_after.max(comes_back),
            },
            (refusal, _) => refusal,
        })
    }

    /// Waits for the lanes and then for a slot.
    ///
    /// Cancel safe: the ticket and the position keep their places.
    ///
    /// # Errors
    /// If the deadline passes first, or the line refuses the request after all.
    pub(crate) async fn permitted(
        &self,
        ticket: &mut Ticket,
        place: &mut LanePosition,
    ) -> Result<Permit, PermitError> {
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
    pub(crate) fn report_departure(&self, context: &RequestContext, timing: &mut Timing) {
        let again = timing.sent;
        timing.note_departure(self.clock.now(), context.accepted);
        if !again {
            self.metrics.queued(context.operation.index, timing.queued);
        }
    }

    /// Returns the error for a request whose ticket got no permit. Nothing was sent for it.
    pub(crate) fn not_permitted(
        &self,
        why: PermitError,
        context: &RequestContext,
        ticket: &Ticket,
    ) -> GatewayError {
        match why {
            PermitError::Refused(refusal) => refused(refusal),
            // A caller with `wait=0` learns the estimate instead of an expiry.
            PermitError::Expired => {
                let now = self.clock.now();
                let wait = ticket.estimate_again().saturating_duration_since(now);
                // Whole seconds are sent, and zero would invite a caller to ask at once.
                let retry_after = wait.max(Duration::from_secs(1));
                if context.patience.is_zero() {
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
        let pause = backoff::reconnect(why, failures, backoff::jitter(place, failures));
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
    pub(crate) fn expired(&self, context: &RequestContext) -> GatewayError {
        // Asks the line once more, for its reason. If it would accept the request now, the ticket
        // is dropped at once and leaves the line.
        let refused = self
            .budgets
            .join(&self.budget_request(context))
            .err()
            .map(refused);
        let retry_after = refused.and_then(|refused| refused.facts().retry_after);
        GatewayError::QueueExpired {
            retry_after: retry_after.unwrap_or(Duration::from_secs(1)),
        }
    }

    /// Notes the first attempt of a write, which adds to the retry budget.
    /// Retries are bounded by a share of these, and a few a minute besides.
    pub(crate) fn first_attempt(&self) {
        self.retry_budget.lock().first_attempt(self.clock.now());
    }

    /// Takes a retry of a write from the retry budget.
    ///
    /// # Errors
    /// The instant at which to ask again.
    pub(crate) fn take_retry(&self, operation: &Operation) -> Result<(), Instant> {
        self.retry_budget.lock().repeat(self.clock.now())?;
        self.metrics.retried(&operation.name);
        Ok(())
    }

    /// Reports that the retry budget had no retry for a write.
    pub(crate) fn report_no_retry(&self, operation: &Operation, ids: &Ids) {
        self.metrics.retry_denied(&operation.name);
        tracing::info!(
            operation = &*operation.name,
            request_id = ids.request(),
            trace_id = ids.trace(),
            "retry denied by the retry budget"
        );
    }

    /// Returns the instant at which the balancer in front of the gateway gives up on a request, if
    /// known.
    pub(crate) fn given_up_at(&self, context: &RequestContext) -> Option<Instant> {
        self.settings
            .get()
            .caller_timeout
            .map(|timeout| context.accepted + timeout)
    }
}

/// Returns the error for a request that its budget refuses. Nothing was sent for it.
pub(crate) fn refused(refusal: BudgetRefusal) -> GatewayError {
    match refusal {
        BudgetRefusal::TooLong {
            estimate,
            retry_after,
        } => GatewayError::QueueWait {
            estimate,
            retry_after,
        },
        BudgetRefusal::Full { retry_after } => GatewayError::QueueFull { retry_after },
        BudgetRefusal::TooManyBudgets => GatewayError::Overloaded,
        BudgetRefusal::Draining => GatewayError::Draining,
    }
}
