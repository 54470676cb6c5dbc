//! Pure. What operators see of the budgets: those in most trouble, sums over all, and gauges.
//!
//! There may be thousands of budgets, one for each credential and operation. A document shows a
//! bounded number of them and says how many it leaves out; its sums are over all of them.

use crate::limit::budgets::AccountState;
use crate::metrics::BudgetGauge;
use serde_json::{Value, json};
use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most budgets that a document shows.
pub(super) const MOST_SHOWN: usize = 200;

/// The budgets in most trouble, and sums over all of them.
#[derive(Debug)]
pub(super) struct Overview {
    shown: Vec<AccountState>,
    sums: Value,
}

impl Overview {
    /// Creates the overview that shows at most `most` of these.
    pub(super) fn of(mut accounts: Vec<AccountState>, most: usize) -> Self {
        let left_out = accounts.len().saturating_sub(most);
        let sums = sums(&accounts, left_out);
        if left_out > 0 && most > 0 {
            accounts.select_nth_unstable_by(most - 1, by_trouble);
        }
        accounts.truncate(most);
        accounts.sort_unstable_by(by_trouble);
        Self {
            shown: accounts,
            sums,
        }
    }

    /// Returns the documents of the budgets that are shown, the one in most trouble first.
    pub(super) fn budgets(&self) -> Vec<Value> {
        self.shown.iter().map(document).collect()
    }

    /// Returns the sums over all budgets, and how many are not shown.
    pub(super) fn sums(&self) -> &Value {
        &self.sums
    }
}

/// Returns the rank of a budget: closed ones first, then those with the longest queues, then those
/// used most.
fn by_trouble(one: &AccountState, other: &AccountState) -> Ordering {
    let line = |account: &AccountState| Reverse((account.closed_for, account.waiting));
    let share = |of: &AccountState, against: &AccountState| {
        u64::from(of.occupied) * u64::from(against.rate.limit)
    };
    line(one)
        .cmp(&line(other))
        .then_with(|| share(other, one).cmp(&share(one, other)))
        .then_with(|| (&one.budget, one.credential).cmp(&(&other.budget, other.credential)))
}

fn sums(accounts: &[AccountState], left_out: usize) -> Value {
    let total = |of: fn(&AccountState) -> u64| accounts.iter().map(of).sum::<u64>();
    let oldest = accounts.iter().filter_map(|account| account.oldest).max();
    json!({
        "budgets": accounts.len(),
        "notShown": left_out,
        "closed": total(|account| u64::from(account.closed_for.is_some())),
        "starting": total(|account| u64::from(account.starting)),
        "used": total(|account| u64::from(account.occupied)),
        "underWay": total(|account| u64::from(account.in_flight)),
        "waiting": total(|account| account.waiting as u64),
        "oldestWaitSeconds": oldest.map(|wait| wait.as_secs_f64()),
    })
}

fn document(account: &AccountState) -> Value {
    json!({
        "budget": account.budget.as_ref(),
        "credential": account.credential.to_string(),
        "limit": account.rate.limit,
        "windowSeconds": account.rate.window.as_secs_f64(),
        "used": account.occupied,
        "underWay": account.in_flight,
        "waiting": account.waiting,
        "oldestWaitSeconds": account.oldest.map(|wait| wait.as_secs_f64()),
        "nextFreeSeconds": account.next_free.as_secs_f64(),
        "closedSeconds": account.closed_for.map(|left| left.as_secs_f64()),
        "leftToOthers": account.left_to_others,
        "starting": account.starting,
    })
}

/// Returns one gauge per budget: of the credential that uses it most, and sums over all.
pub(super) fn gauges(accounts: &[AccountState]) -> BTreeMap<Arc<str>, BudgetGauge> {
    let mut gauges: BTreeMap<Arc<str>, BudgetGauge> = BTreeMap::new();
    for account in accounts {
        let gauge = gauges.entry(account.budget.clone()).or_default();
        let (used, limit) = (u64::from(account.occupied), u64::from(account.rate.limit));
        if gauge.credentials == 0 || used * u64::from(gauge.limit) > u64::from(gauge.used) * limit {
            (gauge.limit, gauge.used) = (account.rate.limit, account.occupied);
        }
        gauge.credentials += 1;
        gauge.waiting += account.waiting;
        let oldest = account.oldest.map_or(0.0, |wait| wait.as_secs_f64());
        gauge.oldest = gauge.oldest.max(oldest);
        gauge.next_free = gauge.next_free.max(account.next_free.as_secs_f64());
        let closed = account.closed_for.map_or(0.0, |left| left.as_secs_f64());
        gauge.closed = gauge.closed.max(closed);
    }
    gauges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Credential;
    use crate::route::policy::Rate;
    use std::time::Duration;

    fn account(n: u16, occupied: u32, waiting: usize, closed: u64) -> AccountState {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        AccountState {
            credential: Credential::from_bytes(bytes),
            budget: "getUser".into(),
            rate: Rate {
                limit: 10,
                window: Duration::from_secs(60),
            },
            occupied,
            in_flight: 0,
            waiting,
            oldest: (waiting > 0).then(|| Duration::from_secs(waiting as u64)),
            head: Vec::new(),
            next_free: Duration::ZERO,
            closed_for: (closed > 0).then(|| Duration::from_secs(closed)),
            left_to_others: 0,
            starting: false,
        }
    }

    #[test]
    fn those_in_most_trouble_are_shown_and_all_are_counted() {
        let some: Vec<_> = [
            (0, 0, 0),
            (9, 0, 0),
            (3, 2, 0),
            (10, 1, 0),
            (0, 0, 7),
            (5, 0, 0),
        ]
        .into_iter()
        .zip(0..)
        .map(|((occupied, waiting, closed), n)| account(n, occupied, waiting, closed))
        .collect();
        let order = [4_u16, 2, 3, 1, 5, 0];
        for most in 0..=some.len() + 1 {
            let overview = Overview::of(some.clone(), most);
            let expected: Vec<Credential> = order
                .iter()
                .take(most)
                .map(|n| some[usize::from(*n)].credential)
                .collect();
            let shown: Vec<_> = overview.shown.iter().map(|one| one.credential).collect();
            assert_eq!(shown, expected, "{most}");
            let sums = overview.sums();
            assert_eq!(sums["budgets"], 6);
            assert_eq!(sums["notShown"], 6_usize.saturating_sub(most));
            assert_eq!((&sums["closed"], &sums["waiting"]), (&json!(1), &json!(3)));
            assert_eq!(sums["used"], 27);
            assert_eq!(sums["oldestWaitSeconds"], 2.0);
        }
    }
}
