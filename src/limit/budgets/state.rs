//! What stands behind the one lock of the budgets: their accounts, who waits for them, and what
//! all of those take together.

use super::budget_request::{BudgetRefusal, BudgetStatus};
use crate::credential::Credential;
use crate::limit::account::Account;
use crate::limit::ledger::{AccountId, History, LEARNED_FOR, Ledger, MOST_LEARNED};
use crate::limit::ticket::Permit;
use crate::limit::turns::{Caller, LinePosition, Urgency};
use crate::route::policy::{BudgetSpec, Rate};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A budget that has been idle this long is forgotten, but for the rate that it had learned.
const FORGET_AFTER: Duration = Duration::from_secs(3_600);

#[derive(Debug)]
pub(in crate::limit) struct State {
    pub(in crate::limit) accounts: HashMap<Key, Kept>,
    /// When to look at which budget again.
    pub(super) wakes: BTreeSet<(Instant, Key)>,
    pub(in crate::limit) ledger: Ledger,
    /// What an earlier process left and no budget has taken over yet; `None` on a new node.
    pub(super) history: Option<History>,
    /// Rates that answers have taught and no budget in use knows, and since when.
    pub(super) learned: HashMap<AccountId, (Rate, Instant)>,
    /// Budgets whose limit is another than at the start, by name: as many as the route table has.
    pub(super) configured: HashMap<Arc<str>, BudgetSpec>,
    pub(super) next_place: LinePosition,
    pub(super) waiting: usize,
    pub(super) bytes: usize,
    pub(super) peers: HashMap<IpAddr, Load>,
    /// Budgets opened by each peer.
    pub(super) opened: HashMap<IpAddr, usize>,
    /// When to look for room again.
    pub(super) make_room_at: Instant,
    pub(super) drain_until: Option<Instant>,
}

#[derive(Debug)]
pub(in crate::limit) struct Kept {
    pub(in crate::limit) account: Account,
    pub(in crate::limit) id: AccountId,
    pub(super) opened_by: IpAddr,
    pub(super) waiting: HashMap<LinePosition, Waiting>,
    pub(super) wake: Option<Instant>,
}

#[derive(Debug)]
pub(in crate::limit) struct Waiting {
    pub(in crate::limit) grant: oneshot::Sender<Grant>,
    pub(in crate::limit) bytes: usize,
    pub(in crate::limit) peer: IpAddr,
    pub(in crate::limit) urgency: Urgency,
    pub(in crate::limit) since: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    pub(super) waiting: usize,
    pub(super) bytes: usize,
}

pub(in crate::limit) type Key = (Credential, Arc<str>);
pub(in crate::limit) type Grant = Result<Permit, BudgetRefusal>;

impl Kept {
    /// What the `RateLimit` fields say of it.
    pub(in crate::limit) fn standing(&mut self, budget: &Arc<str>, now: Instant) -> BudgetStatus {
        let window = self.account.window();
        let rate = window.rate();
        let remaining = rate.limit.saturating_sub(window.occupied(now));
        // With some left, `reset` is when there are more; with none, when there is one.
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

impl State {
    /// Puts somebody into a line; whoever finds none is told that there is no such budget.
    pub(in crate::limit) fn enter(
        &mut self,
        key: &Key,
        place: LinePosition,
        caller: Caller,
        ready: Instant,
        waiting: Waiting,
    ) {
        let Some(kept) = self.accounts.get_mut(key) else {
            return;
        };
        self.waiting += 1;
        self.bytes += waiting.bytes;
        let load = self.peers.entry(waiting.peer).or_default();
        load.waiting += 1;
        load.bytes += waiting.bytes;
        kept.account
            .turns()
            .join(place, caller, waiting.urgency, ready);
        kept.waiting.insert(place, waiting);
    }

    /// Refuses somebody who went back into the line and could not have an answer in time.
    pub(in crate::limit) fn refuse_if_late(
        &mut self,
        key: &Key,
        place: LinePosition,
        now: Instant,
    ) {
        let Some(until) = self.drain_until else {
            return;
        };
        let Some(kept) = self.accounts.get_mut(key) else {
            return;
        };
        let leaves = kept.account.leaves_at(0, now) + kept.account.answer_time();
        if leaves > until
            && let Some(waiting) = self.leave(key, place)
        {
            // Nobody is woken under the lock but whoever asks just now.
            drop(waiting.grant.send(Err(BudgetRefusal::Draining)));
        }
    }

    pub(super) fn next_departure(&mut self, peer: Option<IpAddr>, now: Instant) -> Option<Instant> {
        let kept = self.accounts.values_mut();
        let waited_for = kept.filter(|kept| !kept.waiting.is_empty());
        waited_for
            .filter_map(|kept| kept.account.next_departure(peer, now))
            .min()
    }

    /// Has every budget looked at that somebody waits for: nobody may have noted when to.
    pub(super) fn wake_all(&mut self, now: Instant) {
        for (key, kept) in &mut self.accounts {
            if kept.waiting.is_empty() {
                continue;
            }
            if let Some(at) = kept.wake.replace(now) {
                self.wakes.remove(&(at, key.clone()));
            }
            self.wakes.insert((now, key.clone()));
        }
    }

    /// When those who have left, of one peer alone if one is given, have given back so many bytes;
    /// looks at everybody who waits.
    pub(super) fn freed(
        &mut self,
        bytes: usize,
        peer: Option<IpAddr>,
        now: Instant,
    ) -> Option<Instant> {
        let mut releases: Vec<(Instant, usize)> = Vec::new();
        for kept in self.accounts.values_mut() {
            if kept.waiting.is_empty() {
                continue;
            }
            for (place, at) in kept.account.schedule(now) {
                let waiting = kept.waiting.get(&place);
                let counted = waiting.filter(|who| peer.is_none_or(|peer| who.peer == peer));
                releases.extend(counted.map(|who| (at, who.bytes)));
            }
        }
        releases.sort_unstable();
        let mut sum = 0;
        let enough = releases.into_iter().find(|(_, released)| {
            sum += released;
            sum >= bytes
        });
        enough.map(|(at, _)| at)
    }

    pub(in crate::limit) fn make_ready(&mut self, key: &Key, place: LinePosition) {
        if let Some(kept) = self.accounts.get_mut(key) {
            kept.account.turns().ready(place);
        }
    }

    pub(in crate::limit) fn leave(&mut self, key: &Key, place: LinePosition) -> Option<Waiting> {
        let kept = self.accounts.get_mut(key)?;
        let waiting = kept.waiting.remove(&place)?;
        kept.account.turns().leave(place);
        self.unload(waiting.peer, waiting.bytes);
        Some(waiting)
    }

    pub(super) fn unload(&mut self, peer: IpAddr, bytes: usize) {
        self.waiting = self.waiting.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(load) = self.peers.get_mut(&peer) {
            load.waiting = load.waiting.saturating_sub(1);
            load.bytes = load.bytes.saturating_sub(bytes);
            if load.waiting == 0 {
                self.peers.remove(&peer);
            }
        }
    }

    pub(super) fn forget_idle(&mut self, now: Instant) {
        self.forget_idle_after(now, FORGET_AFTER);
    }

    /// A budget is forgotten only while all of its slots are free, so that forgetting it never
    /// hands out a fresh window.
    pub(super) fn forget_idle_after(&mut self, now: Instant, idle: Duration) {
        let (opened, learned) = (&mut self.opened, &mut self.learned);
        learned.retain(|_, (_, since)| now.saturating_duration_since(*since) < LEARNED_FOR);
        self.accounts.retain(|_, kept| {
            let stays = !kept.waiting.is_empty()
                || now.saturating_duration_since(kept.account.last_used()) < idle
                || !kept.account.window().is_idle(now);
            if !stays && let Some(count) = opened.get_mut(&kept.opened_by) {
                *count = count.saturating_sub(1);
            }
            let window = kept.account.window();
            if !stays && window.is_learned() && learned.len() < MOST_LEARNED {
                learned.insert(kept.id, (window.rate(), now));
            }
            stays
        });
        opened.retain(|_, count| *count > 0);
        if let Some(history) = &mut self.history {
            history.retain(|_, past| past.held.iter().any(|until| *until > now));
        }
    }
}
