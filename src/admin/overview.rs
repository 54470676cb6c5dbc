//! Pure. What operators see of the budgets: those in most trouble, and sums over all.
//!
//! There may be thousands of budgets, one for each credential and operation. A document shows a
//! bounded number of them and says how many it leaves out; its sums are over all of them.

use crate::credential::CredentialNames;
use crate::limit::budgets::AccountState;
use serde_json::{Value, json};
use std::cmp::{Ordering, Reverse};

/// The most budgets that a document shows.
pub(super) const MOST_SHOWN: usize = 200;

/// The most callers that a document shows of all queues.
const MOST_CALLERS: usize = 12;

/// The budgets in most trouble, and sums over all of them.
#[derive(Debug)]
pub(super) struct Overview {
    shown: Vec<AccountState>,
    queue: Value,
    sums: Value,
}

/// The trouble that a budget is in, from none to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// A slot is free.
    Free,
    /// No response has said yet how much is left.
    Starting,
    /// Every slot is occupied, and nothing waits.
    Full,
    /// Requests wait.
    Queued,
    /// A 429 closed the budget.
    Closed,
}

impl Trouble {
    /// Returns the trouble of a budget.
    pub(super) fn of(account: &AccountState) -> Self {
        if account.closed_for.is_some() {
            Self::Closed
        } else if account.waiting > 0 {
            Self::Queued
        } else if account.occupied >= account.rate.limit {
            Self::Full
        } else if account.starting {
            Self::Starting
        } else {
            Self::Free
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Starting => "starting",
            Self::Full => "full",
            Self::Queued => "queued",
            Self::Closed => "closed",
        }
    }
}

impl Overview {
    /// Creates the overview that shows at most `most` of these. With a filter, only those whose
    /// operation or credential, by hash or name, contains it are shown; the sums and the queue are
    /// of all.
    pub(super) fn of(
        mut accounts: Vec<AccountState>,
        most: usize,
        filter: Option<&str>,
        names: &CredentialNames,
    ) -> Self {
        let (sums, queue) = (sums(&accounts), queue(&accounts, names));
        if let Some(filter) = filter {
            let filter = filter.to_lowercase();
            accounts.retain(|account| {
                let hash = account.credential.to_string();
                let name = names.of(&hash).unwrap_or_default();
                let all = format!("{} {hash} {name}", account.budget);
                all.to_lowercase().contains(&filter)
            });
        }
        let left_out = accounts.len().saturating_sub(most);
        if left_out > 0 && most > 0 {
            accounts.select_nth_unstable_by(most - 1, by_trouble);
        }
        accounts.truncate(most);
        accounts.sort_unstable_by(by_trouble);
        let mut overview = Self {
            shown: accounts,
            queue,
            sums,
        };
        overview.sums["notShown"] = json!(left_out);
        overview
    }

    /// Returns the budgets that are shown, the one in most trouble first.
    pub(super) fn shown(&self) -> &[AccountState] {
        &self.shown
    }

    /// Returns the documents of the budgets that are shown, the one in most trouble first.
    pub(super) fn budgets(&self, names: &CredentialNames) -> Vec<Value> {
        self.shown.iter().map(|one| document(one, names)).collect()
    }

    /// Returns the callers that have waited longest in any queue, the longest first.
    pub(super) fn queue(&self) -> &Value {
        &self.queue
    }

    /// Returns the sums over all budgets, and how many are not shown.
    pub(super) fn sums(&self) -> &Value {
        &self.sums
    }
}

/// Returns the rank of a budget: by its trouble, then those with the longest queues, those closed
/// for longest, those with the longest waits, and those used most.
fn by_trouble(one: &AccountState, other: &AccountState) -> Ordering {
    let rank = |of: &AccountState| Reverse((Trouble::of(of), of.waiting, of.closed_for, of.oldest));
    let share = |of: &AccountState, against: &AccountState| {
        u64::from(of.occupied) * u64::from(against.rate.limit)
    };
    rank(one)
        .cmp(&rank(other))
        .then_with(|| share(other, one).cmp(&share(one, other)))
        .then_with(|| (&one.budget, one.credential).cmp(&(&other.budget, other.credential)))
}

/// Returns the callers that have waited longest. What each waits for: a slot of the budget, the end
/// of a 429, or an earlier write.
fn queue(accounts: &[AccountState], names: &CredentialNames) -> Value {
    let heads = accounts
        .iter()
        .flat_map(|account| account.head.iter().map(move |head| (account, head)));
    let mut heads: Vec<_> = heads.collect();
    heads.sort_by_key(|(_, head)| Reverse(head.waited));
    let shown = heads.into_iter().take(MOST_CALLERS).map(|(account, head)| {
        let waits_for = if head.blocked == head.queued {
            "an earlier write"
        } else if account.closed_for.is_some() {
            "the end of a 429"
        } else {
            "a slot"
        };
        let credential = account.credential.to_string();
        json!({
            "waitedSeconds": head.waited.as_secs_f64(),
            "budget": account.budget.as_ref(),
            "credential": credential,
            "credentialName": names.of(&credential),
            "client": head.caller.principal.client().map(|client| &**client),
            "peer": head.caller.principal.peer().map(|peer| peer.to_string()),
            "caller": head.caller.name.as_deref(),
            "queued": head.queued,
            "waitsFor": waits_for,
        })
    });
    shown.collect()
}

fn sums(accounts: &[AccountState]) -> Value {
    let total = |of: fn(&AccountState) -> u64| accounts.iter().map(of).sum::<u64>();
    let oldest = accounts.iter().filter_map(|account| account.oldest).max();
    json!({
        "budgets": accounts.len(),
        "closed": total(|account| u64::from(account.closed_for.is_some())),
        "starting": total(|account| u64::from(account.starting)),
        "used": total(|account| u64::from(account.occupied)),
        "inFlight": total(|account| u64::from(account.in_flight)),
        "queued": total(|account| account.waiting as u64),
        "oldestWaitSeconds": oldest.map(|wait| wait.as_secs_f64()),
    })
}

fn document(account: &AccountState, names: &CredentialNames) -> Value {
    let credential = account.credential.to_string();
    json!({
        "budget": account.budget.as_ref(),
        "credential": credential,
        "credentialName": names.of(&credential),
        "limit": account.rate.limit,
        "windowSeconds": account.rate.window.as_secs_f64(),
        "used": account.occupied,
        "inFlight": account.in_flight,
        "queued": account.waiting,
        "oldestWaitSeconds": account.oldest.map(|wait| wait.as_secs_f64()),
        "nextSlotSeconds": account.next_free.as_secs_f64(),
        "closedSeconds": account.closed_for.map(|left| left.as_secs_f64()),
        "leftToOthers": account.left_to_others,
        "starting": account.starting,
        "state": Trouble::of(account).as_str(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::account;
    use crate::credential::Credential;
    use std::time::Duration;

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
            let overview = Overview::of(some.clone(), most, None, &CredentialNames::default());
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
            assert_eq!((&sums["closed"], &sums["queued"]), (&json!(1), &json!(3)));
            assert_eq!(sums["used"], 27);
            assert_eq!(sums["oldestWaitSeconds"], 2.0);
        }
    }

    /// A table of budgets, in the order in which they are shown.
    #[test]
    fn the_order_is_that_of_trouble() {
        let mut waits_long = account(5, 10, 2, 0);
        waits_long.oldest = Some(Duration::from_secs(90));
        let mut starting = account(8, 0, 0, 0);
        starting.starting = true;
        let mut small = account(10, 2, 0, 0);
        small.rate.limit = 3;
        let ordered = [
            ("closed, with a queue", account(1, 3, 4, 2)),
            ("closed for long", account(2, 3, 0, 60)),
            ("closed for a moment", account(3, 9, 0, 1)),
            ("the longest queue", account(4, 10, 9, 0)),
            ("as many as the next, for longer", waits_long),
            ("a short queue", account(6, 10, 2, 0)),
            ("full", account(7, 10, 0, 0)),
            ("starting", starting),
            ("used most", account(9, 9, 0, 0)),
            ("two of three", small),
            ("used less", account(11, 5, 0, 0)),
            ("used less, the next by name", account(12, 5, 0, 0)),
            ("idle", account(13, 0, 0, 0)),
        ];
        for (at, (name, one)) in ordered.iter().enumerate() {
            for (other_at, (other, two)) in ordered.iter().enumerate() {
                let rank = by_trouble(one, two);
                assert_eq!(rank, at.cmp(&other_at), "{name}, and {other}");
            }
        }
    }

    #[test]
    fn a_filter_finds_operations_and_credentials_among_all() {
        let mut some: Vec<_> = (0..5_000).map(|n| account(n, 1, 0, 0)).collect();
        some[4_999].budget = "listGroups".into();
        let mut names = CredentialNames::default();
        let hash = some[77].credential.to_string();
        names.add("terraform", &hash).unwrap();
        let find = |filter: &str| {
            let overview = Overview::of(some.clone(), 200, Some(filter), &names);
            let sums = overview.sums();
            assert_eq!(sums["budgets"], 5_000);
            (overview.shown().len(), sums["notShown"].as_u64().unwrap())
        };
        assert_eq!(find("LISTGROUPS"), (1, 0));
        assert_eq!(find(&hash), (1, 0));
        assert_eq!(find("Terraform"), (1, 0));
        assert_eq!(find("getuser"), (200, 4_799));
        assert_eq!(find("nothing"), (0, 0));
    }

    #[test]
    fn the_head_of_the_queue_says_who_waits_for_what() {
        let mut some: Vec<_> = (1..30).map(|n| account(n, 10, usize::from(n), 0)).collect();
        some[28].closed_for = Some(Duration::from_secs(5));
        some[27].head[0].blocked = some[27].head[0].queued;
        let mut names = CredentialNames::default();
        names.add("ci", &some[28].credential.to_string()).unwrap();
        let overview = Overview::of(some, 0, None, &names);
        let queue = overview.queue().as_array().unwrap();
        assert_eq!(queue.len(), MOST_CALLERS);
        assert_eq!(queue[0]["credentialName"], "ci");
        assert_eq!(queue[1]["credentialName"], Value::Null);
        let shown: Vec<_> = queue.iter().map(|one| &one["waitsFor"]).take(3).collect();
        assert_eq!(shown, ["the end of a 429", "an earlier write", "a slot"]);
        assert_eq!(queue[0]["caller"], "team-29");
        assert_eq!(queue[0]["peer"], "10.0.0.1");
        assert_eq!(
            (&queue[0]["queued"], &queue[0]["waitedSeconds"]),
            (&json!(29), &json!(29.0))
        );
    }
}
