//! Pure. The last 15 minutes, as the live page shows them: the series of the charts, and the use of
//! the budgets that are shown.
//!
//! What is kept is bounded in [`history`](super::history) and [`trends`](super::trends).

use super::history::{History, QueueLevel, Recent};
use super::overview::{MOST_SHOWN, Overview};
use super::trends::Trends;
use crate::credential::CredentialNames;
use crate::limit::budgets::AccountState;
use crate::metrics::Totals;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The last 15 minutes.
#[derive(Debug, Default)]
pub(super) struct Past {
    history: History,
    trends: Trends,
}

impl Past {
    /// Adds a sample of the counters and of all budgets.
    pub(super) fn record(&mut self, now: Instant, totals: Totals, accounts: Vec<AccountState>) {
        let level = QueueLevel {
            queued: accounts.iter().map(|account| account.waiting).sum(),
            oldest: accounts.iter().filter_map(|account| account.oldest).max(),
        };
        let overview = Overview::of(accounts, MOST_SHOWN, None, &CredentialNames::default());
        self.history.record(now, totals, level);
        self.trends.record(now, overview.shown());
    }

    /// Returns the number of the latest sample.
    pub(super) fn newest(&self) -> u64 {
        self.history.newest()
    }

    /// Returns what was counted in the last `span`.
    pub(super) fn recent(&self, now: Instant, span: Duration) -> Recent {
        self.history.recent(now, span)
    }

    /// Returns the series of the charts, and the use of these budgets.
    pub(super) fn document(&mut self, now: Instant, overview: &Overview) -> Value {
        let trends = overview.shown().iter().filter_map(|account| {
            let (used, states) = self.trends.of(now, account)?;
            Some(json!({
                "budget": account.budget.as_ref(),
                "credential": account.credential.to_string(),
                "used": used,
                "states": states,
            }))
        });
        let trends: Vec<Value> = trends.collect();
        let mut document = self.history.document(now);
        document["budgets"] = json!(trends);
        document
    }
}
