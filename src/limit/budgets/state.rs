//! The state behind the one lock of the budgets: the open ones, their lines, and the load that all
//! lines make together.

use super::load::{LOOKED_AT, LineLoad};
use super::request::{AccountKey, BudgetRefusal, BudgetStatus};
use crate::caller::{Caller, Principal};
use crate::limit::account::Account;
use crate::limit::ledger::{AccountId, LEARNED_FOR, Ledger, MOST_LEARNED, PastUsage};
use crate::limit::ticket::Permit;
use crate::limit::turns::{ClientWeights, LinePosition, Urgency};
use crate::route::policy::{BudgetSpec, Rate};
use foldhash::HashMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Everything behind the lock.
#[derive(Debug)]
pub(in crate::limit) struct BudgetsState {
    /// The budgets in use.
    pub(in crate::limit) accounts: HashMap<AccountKey, OpenBudget>,
    /// When to look at which budget again.
    pub(super) wakes: BTreeSet<(Instant, AccountKey)>,
    /// The record of attempts for the next start.
    pub(in crate::limit) ledger: Ledger,
    /// When the driver writes what the ledger has not written yet.
    pub(super) write_ledger_at: Option<Instant>,
    /// The usage by earlier processes of budgets that are not open yet. `None` on a new node.
    pub(super) history: Option<PastUsage>,
    /// The learned rates of budgets that are not open, and since when they are not.
    pub(super) learned: HashMap<AccountId, (Rate, Instant)>,
    /// The budgets whose configured limit has changed since the start, by name. At most as many as
    /// the route table has.
    pub(super) configured: HashMap<Arc<str>, BudgetSpec>,
    /// The weights of all clients, which each line has as well.
    pub(super) weights: Arc<ClientWeights>,
    /// The position of the next request. Positions are unique among all lines.
    pub(super) next_place: LinePosition,
    /// The load of all lines, and the part of each principal.
    pub(super) load: LineLoad,
    pub(super) principals: HashMap<Principal, LineLoad>,
    /// The number of open budgets by the principal that opened them.
    pub(super) opened: HashMap<Principal, usize>,
    /// When idle budgets may be looked for again to make room.
    pub(super) make_room_at: Instant,
    /// While the gateway stops: the instant by which each response must have come.
    pub(super) drain_until: Option<Instant>,
}

/// A budget in use.
#[derive(Debug)]
pub(in crate::limit) struct OpenBudget {
    pub(in crate::limit) account: Account,
    /// The name of the budget in the ledger.
    pub(in crate::limit) id: AccountId,
    /// The principal whose request opened the budget, and whether that was a write.
    pub(super) opened_by: Principal,
    pub(super) of_writes: bool,
    /// The requests in the line, ready or not. The account knows their order.
    pub(super) waiting: HashMap<LinePosition, Waiting>,
    /// The instant under which the budget is in [`BudgetsState::wakes`].
    pub(super) wake: Option<Instant>,
}

/// A request in a line.
#[derive(Clone, Debug)]
pub(in crate::limit) struct Waiter {
    pub(in crate::limit) caller: Caller,
    pub(in crate::limit) urgency: Urgency,
    /// The bytes that are kept while the request waits.
    pub(in crate::limit) bytes: usize,
    /// When the request joined for the first time.
    pub(in crate::limit) since: Instant,
}

/// A request in a line, and the way to its ticket.
#[derive(Debug)]
pub(in crate::limit) struct Waiting {
    pub(super) waiter: Waiter,
    /// Brings the permit or a refusal. Dropped without either if there is no such budget any more.
    pub(super) grant: oneshot::Sender<Grant>,
}

/// What a ticket gets.
pub(in crate::limit) type Grant = Result<Permit, BudgetRefusal>;

impl OpenBudget {
    /// The status for the `RateLimit` fields.
    pub(in crate::limit) fn status(&mut self, budget: &Arc<str>, now: Instant) -> BudgetStatus {
        let window = self.account.window();
        // `occupied` counts slots of which nothing is known as well, so this is what may surely go.
        let rate = window.rate();
        let remaining = rate.limit.saturating_sub(window.occupied(now));
        // With free slots, `reset` is when there are more; without, when there is one.
        let more = match window.next_end() {
            Some(at) if remaining > 0 => at,
            _ => self.account.leaves_at(0, now),
        };
        BudgetStatus {
            budget: budget.clone(),
            rate,
            remaining,
            reset: more.saturating_duration_since(now),
        }
    }
}

impl BudgetsState {
    /// Adds a request to a line, not ready yet. Without such a budget the request is dropped, which
    /// its ticket learns as [`BudgetRefusal::TooManyBudgets`].
    pub(in crate::limit) fn enter(
        &mut self,
        key: &AccountKey,
        place: LinePosition,
        waiter: Waiter,
        grant: oneshot::Sender<Grant>,
        expected_ready: Instant,
    ) {
        let Some(open) = self.accounts.get_mut(key) else {
            return;
        };
        // The same numbers are subtracted in `unload` when the request leaves the line.
        self.load.add(key, waiter.bytes);
        let principal = self
            .principals
            .entry(waiter.caller.principal.clone())
            .or_default();
        principal.add(key, waiter.bytes);
        let (caller, urgency) = (waiter.caller.clone(), waiter.urgency);
        open.account
            .turns()
            .join(place, caller, urgency, expected_ready);
        open.waiting.insert(place, Waiting { waiter, grant });
    }

    /// Refuses a request that has rejoined its line and could not have a response before the
    /// gateway stops.
    pub(in crate::limit) fn refuse_if_late(
        &mut self,
        key: &AccountKey,
        place: LinePosition,
        now: Instant,
    ) {
        let (Some(until), Some(open)) = (self.drain_until, self.accounts.get_mut(key)) else {
            return;
        };
        let answered = open.account.leaves_at(0, now) + open.account.answer_time();
        if answered > until
            && let Some(waiting) = self.leave(key, place)
        {
            // Wakes nobody under the lock but the task that calls this.
            drop(waiting.grant.send(Err(BudgetRefusal::Draining)));
        }
    }

    /// When the next request leaves its line at the latest, of one principal alone if one is given.
    /// `None` if no request waits.
    pub(super) fn next_departure(
        &mut self,
        principal: Option<&Principal>,
        now: Instant,
    ) -> Option<Instant> {
        let load = match principal {
            Some(principal) => self.principals.get(principal)?,
            None => &self.load,
        };
        // Twice, so that lines without an instant are among them: those that wait for a response
        // or for their lanes.
        let lines = load.soonest_first(&self.wakes).take(2 * LOOKED_AT);
        let accounts = &mut self.accounts;
        lines
            .filter_map(|line| {
                accounts
                    .get_mut(line)?
                    .account
                    .next_departure(principal, now)
            })
            .min()
    }

    /// Notes when to look at a budget again.
    pub(super) fn set_wake(&mut self, key: &AccountKey, wake: Option<Instant>) {
        let Some(open) = self.accounts.get_mut(key) else {
            return;
        };
        // Each budget is in `wakes` at most once, under the instant in `wake`.
        if let Some(at) = std::mem::replace(&mut open.wake, wake) {
            self.wakes.remove(&(at, key.clone()));
        }
        if let Some(at) = wake {
            self.wakes.insert((at, key.clone()));
        }
    }

    /// Removes the next budget to look at, if it is time. The entry goes in any case: that of a
    /// budget that has been forgotten must not keep the driver busy.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<AccountKey> {
        self.wakes.first().filter(|(at, _)| *at <= now)?;
        let (_, key) = self.wakes.pop_first()?;
        if let Some(open) = self.accounts.get_mut(&key) {
            open.wake = None;
        }
        Some(key)
    }

    /// Makes the driver look at every budget with a line, because when to do so may not have been
    /// noted.
    pub(super) fn wake_all(&mut self, now: Instant) {
        let open = self.accounts.iter();
        let keys = open.filter(|(_, open)| !open.waiting.is_empty());
        for key in keys.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.set_wake(&key, Some(now));
        }
    }

    /// When the requests that have left their lines by then had `bytes` together, of one principal
    /// alone if one is given: an upper bound. Takes a time that is proportional to the requests
    /// that have to leave for that, and to the lines that are looked at.
    pub(super) fn freed(
        &mut self,
        bytes: usize,
        principal: Option<&Principal>,
        now: Instant,
    ) -> Option<Instant> {
        let load = match principal {
            Some(principal) => self.principals.get(principal)?,
            None => &self.load,
        };
        // Whichever leave: the smallest ones have as much.
        let enough = load.requests_with(bytes);
        let mut departures = Vec::new();
        for (looked_at, line) in load.soonest_first(&self.wakes).enumerate() {
            if looked_at >= 2 * LOOKED_AT && departures.len() >= enough {
                break;
            }
            if let Some(open) = self.accounts.get_mut(line) {
                departures.extend(open.account.departures(principal, enough, now));
            }
        }
        departures.sort_unstable();
        let last = enough.min(departures.len()).checked_sub(1)?;
        Some(departures[last])
    }

    /// Removes a request from its line.
    pub(in crate::limit) fn leave(
        &mut self,
        key: &AccountKey,
        place: LinePosition,
    ) -> Option<Waiting> {
        let open = self.accounts.get_mut(key)?;
        let waiting = open.waiting.remove(&place)?;
        open.account.turns().leave(place);
        self.unload(key, &waiting.waiter);
        Some(waiting)
    }

    /// Subtracts a request that has left its line from the load.
    pub(super) fn unload(&mut self, key: &AccountKey, waiter: &Waiter) {
        // A principal without requests is forgotten, which bounds the table by the lines.
        self.load.remove(key, waiter.bytes);
        if let Some(principal) = self.principals.get_mut(&waiter.caller.principal) {
            principal.remove(key, waiter.bytes);
            if principal.requests == 0 {
                self.principals.remove(&waiter.caller.principal);
            }
        }
    }

    /// Forgets the budgets that have been idle for so long, except for the rates that they have
    /// learned. A budget is forgotten only if all of its slots are free, so that forgetting it
    /// never opens a fresh window.
    pub(super) fn forget_idle(&mut self, now: Instant, idle: Duration) {
        let (opened, learned) = (&mut self.opened, &mut self.learned);
        learned.retain(|_, (_, since)| now.saturating_duration_since(*since) < LEARNED_FOR);
        self.accounts.retain(|_, open| {
            // Occupied slots must not be forgotten, however long the budget has been idle.
            let stays = !open.waiting.is_empty()
                || now.saturating_duration_since(open.account.last_used()) < idle
                || !open.account.window().is_idle(now);
            if !stays && let Some(count) = opened.get_mut(&open.opened_by) {
                *count = count.saturating_sub(1);
            }
            let rate = open.account.window().in_force();
            if !stays && rate.is_learned && learned.len() < MOST_LEARNED {
                learned.insert(open.id, (rate.rate, now));
            }
            stays
        });
        // As above: no entry without a budget.
        opened.retain(|_, count| *count > 0);
        // What earlier processes sent is of no interest once its slots are free. The rates that
        // they learned are in `learned`.
        if let Some(history) = &mut self.history {
            history.retain(|_, past| past.held.iter().any(|until| *until > now));
        }
    }
}
