//! Questions about budgets: when requests would be sent, and what is left over. Each answer is true
//! for the moment only, and holds if nothing new arrives.

use super::{
    Account, BudgetRequest, BudgetStatus, Budgets, FIRST_GUESS, OpenBudget, whole_seconds,
};
use crate::caller::Principal;
use crate::credential::Credential;
use crate::route::policy::BudgetSpec;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Budgets {
    /// Looks at a budget under the lock. `None` if it is not in use.
    fn look_at<T>(
        &self,
        credential: Credential,
        budget: &BudgetSpec,
        look: impl FnOnce(&mut OpenBudget, Instant) -> T,
    ) -> Option<T> {
        let now = self.shared.clock.now();
        let mut state = self.shared.state.lock();
        let open = state.accounts.get_mut(&(credential, budget.name.clone()))?;
        Some(look(open, now))
    }

    /// Returns copies of a credential's budgets, by name, for an estimate with one request more.
    /// `None` if more than `most` requests wait for them.
    pub fn forecast(
        &self,
        credential: Credential,
        most: usize,
    ) -> Option<Vec<(Arc<str>, Account)>> {
        let now = self.shared.clock.now();
        let mut state = self.shared.state.lock();
        let mut waiting = 0;
        let mut copies = Vec::new();
        for ((of, budget), open) in &mut state.accounts {
            if *of != credential {
                continue;
            }
            waiting += open.waiting.len();
            if waiting > most {
                return None;
            }
            copies.push((budget.clone(), open.account.forecast(now, 1)));
        }
        Some(copies)
    }

    /// Returns how many requests may wait for one budget.
    pub fn most_per_budget(&self) -> usize {
        self.shared.lines.get().per_budget
    }

    /// Returns how long a response takes at most, as far as is known.
    pub fn answer_time(&self, credential: Credential, budget: &BudgetSpec) -> Duration {
        self.look_at(credential, budget, |open, _| open.account.answer_time())
            .unwrap_or(FIRST_GUESS)
    }

    /// Returns when a request behind the whole line is sent at the latest, if `merged` of those
    /// that wait are sent as `batches` attempts. `None` if the budget is not in use.
    pub fn leaves_merged(
        &self,
        credential: Credential,
        budget: &BudgetSpec,
        merged: usize,
        batches: usize,
    ) -> Option<Instant> {
        self.look_at(credential, budget, |open, now| {
            let alone = open.account.turns().len().saturating_sub(merged);
            open.account.leaves_at(alone + batches, now)
        })
    }

    /// Returns when a request behind the whole line and `others` more is sent at the latest.
    pub fn leaves_behind(
        &self,
        credential: Credential,
        budget: &BudgetSpec,
        others: usize,
    ) -> Instant {
        let leaves = self.look_at(credential, budget, |open, now| {
            let ahead = open.account.turns().len() + others;
            open.account.leaves_at(ahead, now)
        });
        leaves.unwrap_or_else(|| {
            let rounds = others / budget.rate.limit.max(1) as usize;
            let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
            self.shared.clock.now() + budget.rate.window.saturating_mul(rounds)
        })
    }

    /// Returns the status of a budget. `None` if it is not in use.
    pub fn status(&self, credential: Credential, budget: &BudgetSpec) -> Option<BudgetStatus> {
        self.look_at(credential, budget, |open, now| {
            open.status(&budget.name, now)
        })
    }

    /// Returns whether a request that came now would have to wait.
    pub fn must_wait(&self, request: &BudgetRequest<'_>) -> bool {
        self.look_at(request.credential, request.budget, |open, now| {
            let account = &mut open.account;
            account.estimate(&request.caller, request.urgency, now, now) > now
        })
        .unwrap_or(false)
    }

    /// Returns the number of free slots for which no request waits, and the limit. All slots count
    /// as free as long as no response has told what the budget allows.
    pub fn unclaimed(&self, credential: Credential, budget: &BudgetSpec) -> (u32, u32) {
        self.look_at(credential, budget, |open, now| {
            let waiting = u32::try_from(open.account.turns().len()).unwrap_or(u32::MAX);
            let window = open.account.window();
            let limit = window.rate().limit;
            if window.is_finding_out() {
                return (limit, limit);
            }
            let free = limit.saturating_sub(window.occupied(now));
            (free.saturating_sub(waiting), limit)
        })
        .unwrap_or((budget.rate.limit, budget.rate.limit))
    }

    /// Returns whether a request that no caller waits for may be sent now: none waits for the
    /// budget, and if the next window brought as many requests as the last one, one slot would
    /// still be left over.
    pub fn has_spare(&self, credential: Credential, budget: &BudgetSpec) -> bool {
        self.look_at(credential, budget, |open, now| {
            let is_claimed = !open.account.turns().is_empty();
            let window = open.account.window();
            let is_open = window.closed_for(now).is_none() && !window.is_finding_out();
            // Half of the limit: what the last window used, and the same again.
            !is_claimed && is_open && window.occupied(now) < window.rate().limit / 2
        })
        // A budget that is not in use had no requests in the last window.
        .unwrap_or(budget.rate.limit > 1)
    }

    /// Returns the time until a request leaves any line at the latest, of one principal alone if
    /// one is given. In whole seconds, at least one.
    pub fn until_departure(&self, principal: Option<&Principal>) -> Duration {
        let now = self.shared.clock.now();
        let next = self.shared.state.lock().next_departure(principal, now);
        whole_seconds(next.map_or(Duration::ZERO, |at| at.saturating_duration_since(now)))
    }
}
