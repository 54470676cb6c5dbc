//! Opening a budget for its first request, with what is known of its past.
//!
//! A budget may begin with free slots only if nothing was sent before. So it begins with what an
//! earlier process recorded in the ledger, or, without a ledger, with one attempt at a time.

use super::Budgets;
use super::request::{AccountKey, BudgetRefusal, BudgetRequest, MOST_ACCOUNTS};
use super::state::{BudgetsState, OpenBudget};
use crate::limit::account::Account;
use crate::limit::window::Window;
use crate::route::policy::{BudgetSpec, Effect, Rate};
use foldhash::HashMap;
use std::time::{Duration, Instant};

/// The interval at which room is looked for when there is none.
const MAKE_ROOM_EVERY: Duration = Duration::from_secs(1);

impl Budgets {
    /// Opens the budget of a request if it is not in use.
    pub(super) fn open_account(
        &self,
        state: &mut BudgetsState,
        request: &BudgetRequest<'_>,
        key: &AccountKey,
        now: Instant,
    ) -> Result<(), BudgetRefusal> {
        if state.accounts.contains_key(key) {
            return Ok(());
        }
        let principal = &request.caller.principal;
        let is_full = |state: &BudgetsState| {
            let own = state.opened.get(principal).copied().unwrap_or_default();
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
        let mut account = Account::new(window, in_flight, now);
        account.turns().set_weights(state.weights.clone());
        let open = OpenBudget {
            account,
            id,
            opened_by: principal.clone(),
            of_writes: request.effect == Effect::Write,
            waiting: HashMap::default(),
            wake: None,
        };
        *state.opened.entry(principal.clone()).or_default() += 1;
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
