//! Joining a line: a request is admitted or refused at once, with a time to come back.
//!
//! Promises that a request that is refused with `retry_after` and comes back then is admitted, if
//! nothing new came meanwhile. A request that was accepted earlier ([`Admission::Taken`]) is
//! refused only because the gateway stops or keeps no more budgets.

use super::state::{BudgetsState, Waiter};
use super::{
    AccountKey, Admission, BudgetRefusal, BudgetRequest, Budgets, Grants, Readiness, hand_over,
    whole_seconds,
};
use crate::limit::ticket::{Permit, Standing, Ticket};
use std::time::Instant;
use tokio::sync::oneshot;

impl Budgets {
    /// Joins the line of a budget.
    ///
    /// # Errors
    /// The reason why the request is refused.
    pub fn join(&self, request: &BudgetRequest<'_>) -> Result<Ticket, BudgetRefusal> {
        let now = self.shared.clock.now();
        let mut grants = Grants::new();
        let mut state = self.shared.state.lock();
        let result = self.admit(&mut state, request, now, &mut grants);
        drop(state);
        hand_over(grants);
        result
    }

    fn admit(
        &self,
        state: &mut BudgetsState,
        request: &BudgetRequest<'_>,
        now: Instant,
        grants: &mut Grants,
    ) -> Result<Ticket, BudgetRefusal> {
        let key: AccountKey = (request.credential, request.budget.name.clone());
        self.open_account(state, request, &key, now)?;
        let drain_until = state.drain_until;
        let may_refuse = request.admission == Admission::Asked;
        let room_at = may_refuse
            .then(|| self.room_at(state, request, &key, now))
            .flatten();
        let Some(open) = state.accounts.get_mut(&key) else {
            return Err(BudgetRefusal::TooManyBudgets);
        };
        let account = &mut open.account;
        let answer = account.answer_time();
        // Without any patience, a request that can be sent this instant is still admitted. When it
        // comes back it has the same patience again, so it may come back sooner by that much.
        let deadline = request.latest(answer).max(now);
        let is_ready = request.readiness == Readiness::Ready;
        let may_pass =
            is_ready && room_at.is_none() && drain_until.is_none_or(|by| now + answer <= by);
        let slot = may_pass.then(|| account.take_past_line(now)).flatten();
        let ready_at = request.not_before.unwrap_or(now);
        let estimate = match request.forecast {
            _ if slot.is_some() => now,
            Some(forecast) => forecast.max(now),
            None => account.estimate(&request.caller, request.urgency, ready_at, now),
        };
        if drain_until.is_some_and(|until| estimate + answer > until) {
            return Err(BudgetRefusal::Draining);
        }
        // No request that has a slot is refused below: it is in time, and there is room.
        let patience = deadline - now;
        if let Some(room_at) = room_at {
            let at = room_at.max(estimate.checked_sub(patience).unwrap_or(now));
            return Err(BudgetRefusal::Full {
                retry_after: whole_seconds(at.saturating_duration_since(now)),
            });
        }
        if may_refuse && estimate > deadline {
            return Err(BudgetRefusal::TooLong {
                estimate: estimate - now,
                retry_after: whole_seconds(estimate - now - patience),
            });
        }
        let place = state.next_place;
        state.next_place += 1;
        let waiter = Waiter {
            caller: request.caller.clone(),
            urgency: request.urgency,
            bytes: request.bytes,
            since: now,
        };
        let standing = match slot {
            Some(slot) => Standing::Served(Permit::new(self, &key, slot, now)),
            None => {
                let (grant, granted) = oneshot::channel();
                state.enter(&key, place, waiter.clone(), grant, ready_at);
                match is_ready {
                    true => {
                        self.serve_ready(state, &key, place, now, grants);
                        Standing::Ready(granted)
                    }
                    false => Standing::Blocked(granted),
                }
            }
        };
        Ok(Ticket {
            budgets: self.clone(),
            key,
            place,
            waiter,
            deadline,
            estimate,
            answer,
            standing,
            ready_since: None,
        })
    }

    /// Returns when there is room in the lines, if nothing new comes. `None` if there is room now.
    fn room_at(
        &self,
        state: &mut BudgetsState,
        request: &BudgetRequest<'_>,
        key: &AccountKey,
        now: Instant,
    ) -> Option<Instant> {
        let bounds = self.shared.lines.get();
        let principal = &request.caller.principal;
        let own = state.principals.get(principal);
        let (own_requests, own_bytes) = own.map_or((0, 0), |own| (own.requests, own.bytes));
        let mut room_at = None;
        let mut not_before = |at: Option<Instant>| room_at = room_at.max(at.or(Some(now)));
        if state.load.requests >= bounds.total {
            not_before(state.next_departure(None, now));
        }
        if own_requests >= bounds.total.div_ceil(2) {
            not_before(state.next_departure(Some(principal), now));
        }
        // A body may be larger than the bound if no other waits.
        let excess = |used: usize, most: usize| {
            (used + request.bytes).saturating_sub(most.max(request.bytes))
        };
        let of_all = excess(state.load.bytes, bounds.bytes);
        let of_principal = excess(own_bytes, bounds.bytes.div_ceil(2));
        if of_all > 0 {
            not_before(state.freed(of_all, None, now));
        }
        if of_principal > 0 {
            not_before(state.freed(of_principal, Some(principal), now));
        }
        if let Some(open) = state.accounts.get_mut(key) {
            let account = &mut open.account;
            if account.turns().len() >= bounds.per_budget {
                not_before(account.next_departure(None, now));
            }
            if account
                .turns()
                .has_share(&request.caller, bounds.per_budget)
            {
                not_before(account.next_departure(Some(principal), now));
            }
        }
        room_at
    }
}
