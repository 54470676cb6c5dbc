//! Pure. The gauges of the budgets in `/metrics`.
//!
//! There may be thousands of budgets, one for each credential and operation. A gauge is over all
//! credentials, because a label for each of them would have no bound.

use crate::limit::budgets::AccountState;
use crate::metrics::BudgetGauge;
use std::collections::BTreeMap;
use std::sync::Arc;

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
