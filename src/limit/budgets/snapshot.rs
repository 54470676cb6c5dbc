//! Copies of the budgets for operators.
//!
//! Requests wait for the one lock of the budgets, so it is held for a few budgets at a time. The
//! copy of one budget is consistent; two budgets may be from different moments.

use super::state::BudgetsState;
use super::{AccountKey, AccountState, Budgets, QueueHead};
use crate::credential::Credential;
use std::collections::BTreeSet;
use std::time::Instant;

/// The number of budgets that are copied under one locking.
const PER_LOCKING: usize = 64;
/// The number of callers that are shown of one line.
const HEADS: usize = 3;

impl Budgets {
    /// Returns every budget in use, in the order of names.
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

    /// Returns the credentials that have budgets.
    pub fn credentials(&self) -> BTreeSet<Credential> {
        self.keys().into_iter().map(|(of, _)| of).collect()
    }

    fn keys(&self) -> Vec<AccountKey> {
        self.shared.state.lock().accounts.keys().cloned().collect()
    }
}

impl BudgetsState {
    /// Returns what operators see of a budget. `None` if it was forgotten meanwhile.
    fn account(&mut self, key: &AccountKey, now: Instant) -> Option<AccountState> {
        let open = self.accounts.get_mut(key)?;
        let first = open
            .waiting
            .values()
            .map(|waiting| waiting.waiter.since)
            .min();
        let account = &mut open.account;
        let longest = account.turns().longest(HEADS).into_iter();
        let head = longest.map(|share| {
            // A retried request keeps the instant at which it joined first.
            let waiting = open.waiting.get(&share.first);
            let since = waiting.map_or(now, |waiting| waiting.waiter.since);
            QueueHead {
                caller: share.caller,
                queued: share.queued,
                blocked: share.blocked,
                waited: now.saturating_duration_since(since),
            }
        });
        Some(AccountState {
            credential: key.0,
            budget: key.1.clone(),
            of_writes: open.of_writes,
            rate: account.window().rate(),
            occupied: account.window().known(now),
            in_flight: account.in_flight(),
            waiting: account.turns().len(),
            oldest: first.map(|since| now.saturating_duration_since(since)),
            head: head.collect(),
            next_free: account.leaves_last(now).saturating_duration_since(now),
            closed_for: account.window().closed_for(now),
            left_to_others: account.window().left_to_others(),
            starting: account.window().is_finding_out(),
        })
    }
}
