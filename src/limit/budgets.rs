//! All budgets of this process: who waits for what, and a permit when it is time.
//!
//! One mutex around pure parts, never held across an await; permits are handed over after it is
//! released.

use crate::clock::Clock;
use crate::credential::{Credential, Hasher};
use crate::limit::account::{Account, Next};
use crate::limit::ledger::{AccountId, History, Ledger};
use crate::limit::ticket::{Permit, Ticket};
use crate::limit::turns::{Caller, Place};
use crate::limit::window::{Learned, Terms, Window};
use crate::route::policy::{BudgetSpec, Effect, Rate};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

#[cfg(test)]
mod tests;

/// Budgets that are kept at once; beyond it, requests for a new one are refused.
const MOST_ACCOUNTS: usize = 20_000;
/// A budget that has been idle this long is forgotten, together with what it had learned.
const FORGET_AFTER: Duration = Duration::from_secs(3_600);
/// How often forgotten budgets are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Bounds of the lines, and how budgets begin.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// See [`Terms`].
    pub terms: Terms,
    /// Attempts under way together per budget, at least: writes, reads.
    pub writes_at_once: u32,
    /// See `writes_at_once`.
    pub reads_at_once: u32,
    /// Those who wait: for one budget, in total, and the bytes of their bodies. One peer may
    /// have half of each.
    pub per_budget: usize,
    /// See `per_budget`.
    pub total: usize,
    /// See `per_budget`.
    pub bytes: usize,
}

/// A request for one attempt.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// Whose budget.
    pub credential: Credential,
    /// Which.
    pub budget: &'a BudgetSpec,
    /// Whether it reads or writes: decides the cap on attempts under way of a new budget.
    pub effect: Effect,
    /// Who asks.
    pub caller: Caller,
    /// Bytes kept while it waits.
    pub bytes: usize,
    /// Earlier writes of its lanes are expected to have settled by then.
    pub not_before: Option<Instant>,
    /// The wait must end by then.
    pub deadline: Instant,
    /// False if it must not leave until [`Ticket::ready`] is called.
    pub readiness: Readiness,
}

/// Whether a ticket may be served at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It may leave as soon as it is its turn.
    Ready,
    /// An earlier write of its lanes has not settled.
    Blocked,
}

/// Why a wish was refused. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The estimated wait ends after the deadline.
    TooLong {
        /// The estimated wait.
        estimate: Duration,
        /// Who returns after this is admitted, if nothing new came meanwhile.
        retry_after: Duration,
    },
    /// The line is full, or this peer's half of it.
    Full {
        /// See [`Refusal::TooLong`].
        retry_after: Duration,
    },
    /// More budgets are in use than are kept.
    TooManyBudgets,
    /// The gateway is stopping and could not carry it out in time.
    Draining,
}

/// A line as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountState {
    /// Whose.
    pub credential: Credential,
    /// The budget's name.
    pub budget: Arc<str>,
    /// The rate in force.
    pub rate: Rate,
    /// Slots occupied.
    pub occupied: u32,
    /// Attempts under way.
    pub under_way: u32,
    /// How many wait.
    pub waiting: usize,
    /// Time until the next newcomer could leave.
    pub next_free: Duration,
    /// Closed by a 429 for this long.
    pub closed_for: Option<Duration>,
    /// Still finding out what a predecessor left.
    pub starting: bool,
}

/// The budget an answer drew on, for the `RateLimit` fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The budget's name.
    pub budget: Arc<str>,
    /// The rate in force.
    pub rate: Rate,
    /// Slots free now.
    pub remaining: u32,
    /// Time until more are free.
    pub reset: Duration,
}

pub(super) type Key = (Credential, Arc<str>);
pub(super) type Grant = Result<Permit, Refusal>;

/// All budgets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budgets {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: Clock,
    hasher: Hasher,
    bounds: Bounds,
    pub(super) state: Mutex<State>,
    /// An earlier wake-up than the driver sleeps towards may have appeared.
    woken: Notify,
    started: Instant,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) accounts: HashMap<Key, Kept>,
    /// When to look at which budget again.
    wakes: BTreeSet<(Instant, Key)>,
    pub(super) ledger: Ledger,
    /// What an earlier process left and no budget has taken over yet; `None` on a new node.
    history: Option<History>,
    next_place: Place,
    waiting: usize,
    bytes: usize,
    peers: HashMap<IpAddr, Load>,
    drain_until: Option<Instant>,
    pub(super) learned: Vec<(Key, Learned)>,
}

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) account: Account,
    pub(super) id: AccountId,
    waiting: HashMap<Place, Waiting>,
    wake: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) grant: oneshot::Sender<Grant>,
    pub(super) bytes: usize,
    pub(super) peer: IpAddr,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    waiting: usize,
    bytes: usize,
}

/// Those to be told once the lock is released.
type Grants = Vec<(oneshot::Sender<Grant>, Grant)>;

impl Budgets {
    /// Budgets that begin with what the ledger's history says.
    pub fn new(
        bounds: Bounds,
        ledger: Ledger,
        history: Option<History>,
        hasher: Hasher,
        clock: Clock,
    ) -> Self {
        let started = clock.now();
        Self {
            shared: Arc::new(Shared {
                clock,
                hasher,
                bounds,
                state: Mutex::new(State {
                    accounts: HashMap::new(),
                    wakes: BTreeSet::new(),
                    ledger,
                    history,
                    next_place: 0,
                    waiting: 0,
                    bytes: 0,
                    peers: HashMap::new(),
                    drain_until: None,
                    learned: Vec::new(),
                }),
                woken: Notify::new(),
                started,
            }),
        }
    }

    /// Serves those who wait as slots come free, for as long as the future is polled.
    pub async fn drive(self) {
        let mut sweep = self.shared.clock.now() + SWEEP_EVERY;
        loop {
            let now = self.shared.clock.now();
            let (next, grants) = {
                let mut state = self.shared.state.lock();
                let mut grants = Grants::new();
                while let Some((at, key)) = state.wakes.first().cloned().filter(|w| w.0 <= now) {
                    state.wakes.remove(&(at, key.clone()));
                    state
                        .accounts
                        .entry(key.clone())
                        .and_modify(|kept| kept.wake = None);
                    self.pump(&mut state, &key, now, &mut grants);
                }
                if now >= sweep {
                    sweep = now + SWEEP_EVERY;
                    state.forget_idle(now);
                }
                (state.wakes.first().map(|(at, _)| *at), grants)
            };
            tell(grants);
            let until = next.map_or(sweep, |next| next.min(sweep));
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
                () = self.shared.woken.notified() => {}
            }
        }
    }

    /// Takes a place in the line, or says why not.
    pub fn join(&self, wish: &Wish<'_>) -> Result<Ticket, Refusal> {
        let now = self.shared.clock.now();
        let key: Key = (wish.credential, wish.budget.name.clone());
        let mut grants = Grants::new();
        let mut state = self.shared.state.lock();
        let result = self.admit(&mut state, wish, &key, now, &mut grants);
        drop(state);
        tell(grants);
        result
    }

    fn admit(
        &self,
        state: &mut State,
        wish: &Wish<'_>,
        key: &Key,
        now: Instant,
        grants: &mut Grants,
    ) -> Result<Ticket, Refusal> {
        self.open_account(state, wish, key, now)?;
        let bounds = &self.shared.bounds;
        let load = state
            .peers
            .get(&wish.caller.peer)
            .copied()
            .unwrap_or_default();
        let total_full = state.waiting >= bounds.total
            || state.bytes + wish.bytes > bounds.bytes
            || load.waiting >= bounds.total.div_ceil(2)
            || load.bytes + wish.bytes > bounds.bytes.div_ceil(2).max(wish.bytes);
        let drain_until = state.drain_until;
        let Some(kept) = state.accounts.get_mut(key) else {
            return Err(Refusal::TooManyBudgets);
        };
        let in_lane = wish.not_before.unwrap_or(now);
        let estimate = kept.account.estimate(&wish.caller, now).max(in_lane);
        if drain_until.is_some_and(|until| estimate > until) {
            return Err(Refusal::Draining);
        }
        let turns = kept.account.turns();
        let full = total_full
            || turns.len() >= bounds.per_budget
            || turns.of_peer(wish.caller.peer) >= bounds.per_budget.div_ceil(2);
        // The patience a returning caller will have, by which it can come back sooner.
        // A wait of zero allows what can leave this instant.
        let deadline = wish.deadline.max(now);
        let patience = deadline - now;
        if full {
            // There is room once one of this peer's has left, at its turn among the peers.
            let turn = turns.peers();
            let room = kept.account.leaves_at(turn, now);
            let at = room.max(estimate.checked_sub(patience).unwrap_or(now));
            return Err(Refusal::Full {
                retry_after: whole_seconds(at - now),
            });
        }
        if estimate > deadline {
            return Err(Refusal::TooLong {
                estimate: estimate - now,
                retry_after: whole_seconds(estimate - now - patience),
            });
        }
        let place = state.next_place;
        state.next_place += 1;
        let (grant, granted) = oneshot::channel();
        let waiting = Waiting {
            grant,
            bytes: wish.bytes,
            peer: wish.caller.peer,
        };
        state.enter(key, place, wish.caller.clone(), waiting);
        if wish.readiness == Readiness::Ready {
            state.make_ready(key, place);
            self.pump(state, key, now, grants);
        }
        Ok(Ticket {
            budgets: self.clone(),
            key: key.clone(),
            place,
            caller: wish.caller.clone(),
            bytes: wish.bytes,
            deadline,
            estimate,
            granted,
        })
    }

    fn open_account(
        &self,
        state: &mut State,
        wish: &Wish<'_>,
        key: &Key,
        now: Instant,
    ) -> Result<(), Refusal> {
        if state.accounts.contains_key(key) {
            return Ok(());
        }
        if state.accounts.len() >= MOST_ACCOUNTS {
            state.forget_idle_after(now, Duration::ZERO);
            if state.accounts.len() >= MOST_ACCOUNTS {
                return Err(Refusal::TooManyBudgets);
            }
        }
        let spec = wish.budget;
        let id =
            self.shared
                .hasher
                .hash(&[b"account", wish.credential.bytes(), spec.name.as_bytes()]);
        let ceiling = spec.documented.then_some(spec.rate.limit);
        let bounds = &self.shared.bounds;
        let mut window = Window::new(spec.rate, ceiling, bounds.terms, now);
        match &mut state.history {
            Some(history) => {
                for until in history.remove(&id).unwrap_or_default() {
                    window.restore(until);
                }
            }
            None => window.without_history(self.shared.started, now),
        }
        let at_once = match wish.effect {
            Effect::Write => bounds.writes_at_once,
            Effect::Read => bounds.reads_at_once,
        };
        let account = Account::new(window, at_once, now);
        let kept = Kept {
            account,
            id,
            waiting: HashMap::new(),
            wake: None,
        };
        state.accounts.insert(key.clone(), kept);
        Ok(())
    }

    /// Lets go whoever may, and notes when to look again.
    fn pump(&self, state: &mut State, key: &Key, now: Instant, grants: &mut Grants) {
        let Some(kept) = state.accounts.get_mut(key) else {
            return;
        };
        let mut served = Vec::new();
        let wait = loop {
            match kept.account.next(now) {
                Next::Go(place, slot) => {
                    let permit = Permit {
                        budgets: self.clone(),
                        key: key.clone(),
                        slot: Some(slot),
                        attempt: None,
                        since: now,
                    };
                    if let Some(waiting) = kept.waiting.remove(&place) {
                        served.push((waiting.peer, waiting.bytes));
                        grants.push((waiting.grant, Ok(permit)));
                    } else {
                        // Cannot be: whoever is in the line is in the table. The permit must not
                        // be dropped under the lock.
                        grants.push((oneshot::channel().0, Ok(permit)));
                    }
                }
                Next::Wait(at) => break Some(at),
                Next::Idle => break None,
            }
        };
        let before = kept.wake;
        if wait != before {
            kept.wake = wait;
            if let Some(at) = before {
                state.wakes.remove(&(at, key.clone()));
            }
            if let Some(at) = wait {
                state.wakes.insert((at, key.clone()));
                if state.wakes.first().is_some_and(|first| first.1 == *key) {
                    self.shared.woken.notify_one();
                }
            }
        }
        for (peer, bytes) in served {
            state.unload(peer, bytes);
        }
    }

    pub(super) fn change(&self, key: &Key, change: impl FnOnce(&mut State, Instant)) {
        let now = self.shared.clock.now();
        let mut grants = Grants::new();
        {
            let mut state = self.shared.state.lock();
            change(&mut state, now);
            self.pump(&mut state, key, now, &mut grants);
        }
        tell(grants);
    }

    /// From now on, whoever could not leave by `until` is refused, those who already wait too.
    pub fn drain(&self, until: Instant) {
        let now = self.shared.clock.now();
        let mut refused = Grants::new();
        {
            let mut state = self.shared.state.lock();
            state.drain_until = Some(until);
            let late: Vec<(Key, Place)> = state
                .accounts
                .iter_mut()
                .flat_map(|(key, kept)| {
                    let schedule = kept.account.schedule(now).into_iter();
                    schedule.map(move |(place, at)| (key.clone(), place, at))
                })
                .filter(|(_, _, at)| *at > until)
                .map(|(key, place, _)| (key, place))
                .collect();
            let left = late
                .into_iter()
                .filter_map(|(key, place)| state.leave(&key, place));
            refused.extend(left.map(|waiting| (waiting.grant, Err(Refusal::Draining))));
        }
        tell(refused);
    }

    /// How many wait, over all budgets.
    pub fn waiting(&self) -> usize {
        self.shared.state.lock().waiting
    }

    /// Every budget in use.
    pub fn snapshot(&self) -> Vec<AccountState> {
        let now = self.shared.clock.now();
        let mut state = self.shared.state.lock();
        let mut all: Vec<AccountState> = state
            .accounts
            .iter_mut()
            .map(|((credential, budget), kept)| {
                let account = &mut kept.account;
                let waiting = account.turns().len();
                AccountState {
                    credential: *credential,
                    budget: budget.clone(),
                    rate: account.window().rate(),
                    occupied: account.window().occupied(now),
                    under_way: account.under_way(),
                    waiting,
                    next_free: account
                        .leaves_at(waiting, now)
                        .saturating_duration_since(now),
                    closed_for: account.window().closed_for(now),
                    starting: account.window().is_starting(),
                }
            })
            .collect();
        all.sort_unstable_by(|a, b| (&a.budget, a.credential).cmp(&(&b.budget, b.credential)));
        all
    }

    /// What answers have taught since the last call, for the log and the metrics.
    pub fn take_learned(&self) -> Vec<(Credential, Arc<str>, Learned)> {
        let learned = std::mem::take(&mut self.shared.state.lock().learned);
        learned
            .into_iter()
            .map(|((credential, budget), what)| (credential, budget, what))
            .collect()
    }

    /// Whether attempts are being recorded for the next start.
    pub fn has_ledger(&self) -> bool {
        self.shared.state.lock().ledger.is_kept()
    }
}

impl State {
    pub(super) fn enter(&mut self, key: &Key, place: Place, caller: Caller, waiting: Waiting) {
        self.waiting += 1;
        self.bytes += waiting.bytes;
        let load = self.peers.entry(waiting.peer).or_default();
        load.waiting += 1;
        load.bytes += waiting.bytes;
        if let Some(kept) = self.accounts.get_mut(key) {
            kept.account.turns().join(place, caller);
            kept.waiting.insert(place, waiting);
        }
    }

    pub(super) fn make_ready(&mut self, key: &Key, place: Place) {
        if let Some(kept) = self.accounts.get_mut(key) {
            kept.account.turns().ready(place);
        }
    }

    pub(super) fn leave(&mut self, key: &Key, place: Place) -> Option<Waiting> {
        let kept = self.accounts.get_mut(key)?;
        let waiting = kept.waiting.remove(&place)?;
        kept.account.turns().leave(place);
        self.unload(waiting.peer, waiting.bytes);
        Some(waiting)
    }

    fn unload(&mut self, peer: IpAddr, bytes: usize) {
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

    fn forget_idle(&mut self, now: Instant) {
        self.forget_idle_after(now, FORGET_AFTER);
    }

    /// A budget is forgotten only while all of its slots are free, so that forgetting it never
    /// hands out a fresh window.
    fn forget_idle_after(&mut self, now: Instant, idle: Duration) {
        self.accounts.retain(|_, kept| {
            !kept.waiting.is_empty()
                || now.saturating_duration_since(kept.account.last_used()) < idle
                || !kept.account.window().is_idle(now)
        });
        if let Some(history) = &mut self.history {
            history.retain(|_, held| held.iter().any(|until| *until > now));
        }
    }
}

/// Rounds up, and at least one second: `Retry-After` counts in seconds (RFC 9110, 10.2.3).
fn whole_seconds(wait: Duration) -> Duration {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Duration::from_secs(seconds.max(1))
}

fn tell(grants: Grants) {
    for (waiting, grant) in grants {
        // Whoever hung up meanwhile drops the permit here, which gives its slot back.
        drop(waiting.send(grant));
    }
}
