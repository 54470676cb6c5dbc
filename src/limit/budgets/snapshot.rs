//! Copies of the budgets for operators.
//!
//! Requests wait for the one lock of the budgets, so it is held for a few budgets at a time: what is
//! seen of one budget is of one moment, of two budgets perhaps of two.

use super::state::{Kept, State};
use super::{AccountState, Budgets, Key};
use crate::credential::Credential;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Budgets that are copied under one locking.
const PER_LOCKING: usize = 64;

impl Budgets {
    /// Every budget in use, in the order of names.
    pub fn snapshot(&self) -> Vec<AccountState> {
        let mut keys = self.keys();
        keys.sort_unstable_by(|a, b| (&a.1, a.0).cmp(&(&b.1, b.0)));
        let pieces = keys.chunks(PER_LOCKING).map(|keys| {
            let mut state = self.shared.state.lock();
            let now = self.shared.clock.now();
            keys.iter()
                .filter_map(|key| state.account(key, now))
                .collect::<Vec<_>>()
        });
        pieces.flatten().collect()
    }

    /// The credentials that have budgets.
    pub fn credentials(&self) -> BTreeSet<Credential> {
        self.keys().into_iter().map(|(of, _)| of).collect()
    }

    fn keys(&self) -> Vec<Key> {
        self.shared.state.lock().accounts.keys().cloned().collect()
    }
}

impl State {
    /// What operators see of a budget; `None` if it was forgotten meanwhile.
    fn account(&mut self, key: &Key, now: Instant) -> Option<AccountState> {
        let kept = self.accounts.get_mut(key)?;
        let next_free = kept.next_free(now);
        let first = kept.waiting.values().map(|waiting| waiting.since).min();
        let account = &mut kept.account;
        Some(AccountState {
            credential: key.0,
            budget: key.1.clone(),
            rate: account.window().rate(),
            occupied: account.window().known(now),
            under_way: account.under_way(),
            waiting: account.turns().len(),
            oldest: first.map(|since| now.saturating_duration_since(since)),
            next_free,
            closed_for: account.window().closed_for(now),
            starting: account.window().is_finding_out(),
        })
    }
}

impl Kept {
    /// The time until the next newcomer could leave. Most budgets rest: of those it is told without
    /// a forecast, which takes longer the higher the limit is.
    fn next_free(&mut self, now: Instant) -> Duration {
        let account = &mut self.account;
        let is_quiet = account.turns().is_empty() && account.under_way() == 0;
        let window = account.window();
        let is_open = window.closed_for(now).is_none() && !window.is_finding_out();
        if is_quiet && is_open && window.occupied(now) < window.rate().limit {
            return Duration::ZERO;
        }
        account.leaves_last(now).saturating_duration_since(now)
    }
}
