//! Joining a line: a request is admitted or refused at once, with a time to come back.
//!
//! Promises that a request that is refused with `retry_after` and comes back then is admitted, if
//! nothing new came meanwhile. A request that was accepted earlier ([`Admission::Taken`]) is
//! refused only because the gateway stops or keeps no more budgets.

use super::state::{BudgetsState, OpenBudget, Waiter};
use super::{
    AccountKey, Admission, BudgetRefusal, BudgetRequest, Budgets, Grants, Readiness, hand_over,
    whole_seconds,
};
use crate::limit::account::Account;
use crate::limit::ticket::Ticket;
use crate::limit::window::Window;
use crate::route::policy::{BudgetSpec, Effect, Rate};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The number of budgets that are kept. One peer may open half of them. Requests for more are
/// refused.
pub const MOST_ACCOUNTS: usize = 20_000;
/// The interval at which room is looked for when there is none.
const MAKE_ROOM_EVERY: Duration = Duration::from_secs(1);

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
        let expected_ready = request.not_before.unwrap_or(now);
        let estimate = match request.forecast {
            Some(forecast) => forecast.max(now),
            None => open
                .account
                .estimate(&request.caller, request.urgency, expected_ready, now),
        };
        let answer = open.account.answer_time();
        if drain_until.is_some_and(|until| estimate + answer > until) {
            return Err(BudgetRefusal::Draining);
        }
        // Without any patience, a request that can be sent this instant is still admitted. When it
        // comes back it has the same patience again, so it may come back sooner by that much.
        let deadline = request.latest(answer).max(now);
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
        let (grant, granted) = oneshot::channel();
        let waiter = Waiter {
            caller: request.caller.clone(),
            urgency: request.urgency,
            bytes: request.bytes,
            since: now,
        };
        state.enter(&key, place, waiter.clone(), grant, expected_ready);
        if request.readiness == Readiness::Ready {
            state.make_ready(&key, place);
            self.pump(state, &key, now, grants);
        }
        Ok(Ticket {
            budgets: self.clone(),
            key,
            place,
            waiter,
            deadline,
            estimate,
            answer,
            granted,
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
        let peer = request.caller.peer;
        let load = state.peers.get(&peer).copied().unwrap_or_default();
        let mut room_at = None;
        let mut not_before = |at: Option<Instant>| room_at = room_at.max(at.or(Some(now)));
        if state.load.requests >= bounds.total {
            not_before(state.next_departure(None, now));
        }
        if load.requests >= bounds.total.div_ceil(2) {
            not_before(state.next_departure(Some(peer), now));
        }
        // A body may be larger than the bound if no other waits.
        let excess = |used: usize, most: usize| {
            (used + request.bytes).saturating_sub(most.max(request.bytes))
        };
        let of_all = excess(state.load.bytes, bounds.bytes);
        let of_peer = excess(load.bytes, bounds.bytes.div_ceil(2));
        if of_all > 0 {
            not_before(state.freed(of_all, None, now));
        }
        if of_peer > 0 {
            not_before(state.freed(of_peer, Some(peer), now));
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
                not_before(account.next_departure(Some(peer), now));
            }
        }
        room_at
    }

    /// Opens the budget of a request if it is not in use.
    fn open_account(
        &self,
        state: &mut BudgetsState,
        request: &BudgetRequest<'_>,
        key: &AccountKey,
        now: Instant,
    ) -> Result<(), BudgetRefusal> {
        if state.accounts.contains_key(key) {
            return Ok(());
        }
        let peer = request.caller.peer;
        let is_full = |state: &BudgetsState| {
            let own = state.opened.get(&peer).copied().unwrap_or_default();
            state.accounts.len() >= MOST_ACCOUNTS || own >= MOST_ACCOUNTS / 2
        };
        if is_full(state) && now >= state.make_room_at {
            state.make_room_at = now + MAKE_ROOM_EVERY;
            state.forget_idle(now, Duration::ZERO);
        }
        if is_full(state) {
            return Err(BudgetRefusal::TooManyBudgets);
        }
        let spec = state.configured.get(&request.budget.name).cloned();
        let spec = spec.as_ref().unwrap_or(request.budget);
        let id = self.shared.hasher.hash(&[
            b"account",
            request.credential.bytes(),
            spec.name.as_bytes(),
        ]);
        let bounds = &self.shared.bounds;
        let past = state
            .history
            .as_mut()
            .and_then(|history| history.remove(&id));
        // A rate that was only configured then gives way to the one that is configured now.
        let learned = past.as_ref().filter(|past| past.rate.is_learned);
        let learned = learned.map(|past| past.rate.rate);
        let remembered = state.learned.remove(&id).map(|(rate, _)| rate);
        let rate = rate_in_force(spec, learned.or(remembered));
        let mut window = Window::new(rate, spec.rate, spec.documented, bounds.terms, now);
        if rate != spec.rate {
            // What was learned may have changed since.
            window.alone_until_told();
        }
        if let Some(past) = past {
            window.restore(past.held, past.rate.rate.window);
        } else if state.history.is_none() {
            window.without_history(self.shared.started, now);
        }
        let in_flight = match request.effect {
            Effect::Write => bounds.writes_in_flight,
            Effect::Read => bounds.reads_in_flight,
        };
        let open = OpenBudget {
            account: Account::new(window, in_flight, now),
            id,
            opened_by: peer,
            waiting: HashMap::new(),
            wake: None,
        };
        *state.opened.entry(peer).or_default() += 1;
        state.accounts.insert(key.clone(), open);
        Ok(())
    }
}

/// The rate of a new budget. Of a documented rate only a lower limit can be learned, of another one
/// limit and window.
fn rate_in_force(spec: &BudgetSpec, learned: Option<Rate>) -> Rate {
    match learned {
        Some(learned) if spec.documented => Rate {
            limit: learned.limit.min(spec.rate.limit),
            ..spec.rate
        },
        Some(learned) => Rate {
            window: learned.window.max(spec.rate.window),
            ..learned
        },
        None => spec.rate,
    }
}
