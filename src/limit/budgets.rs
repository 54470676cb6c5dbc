//! All budgets of this process: who waits for what, and a permit when it is time.
//!
//! One mutex around pure parts, never held across an await; permits are handed over after it is
//! released.

use crate::clock::Clock;
use crate::credential::{Credential, Hasher};
use crate::limit::account::{Account, FIRST_GUESS, Next};
use crate::limit::ledger::{History, Ledger};
use crate::limit::ticket::{Permit, Ticket};
use crate::limit::turns::LinePosition;
use crate::limit::window::Window;
use crate::route::policy::{BudgetSpec, Effect, Rate};
use crate::swap::Swap;
use parking_lot::Mutex;
use state::{Kept, State};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

mod budget_request;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;

pub use budget_request::{
    AccountState, Admission, Bounds, BudgetRefusal, BudgetRequest, BudgetStatus, LineBounds,
    Readiness,
};
pub(super) use state::{Grant, Key, Waiting};

/// Budgets that are kept at once, half of them at most opened by one peer; beyond it, requests
/// for a new one are refused.
pub const MOST_ACCOUNTS: usize = 20_000;
/// How often room is looked for when there is none.
const MAKE_ROOM_EVERY: Duration = Duration::from_secs(1);
/// How often forgotten budgets are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

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
    lines: Swap<LineBounds>,
    pub(super) state: Mutex<State>,
    /// An earlier wake-up than the driver sleeps towards may have appeared.
    woken: Notify,
    /// Whether [`Budgets::drive`] is being polled.
    driven: AtomicBool,
    /// Whether the driver is to panic when it has served somebody.
    #[cfg(test)]
    panics: AtomicBool,
    started: Instant,
}

#[cfg(test)]
impl Shared {
    fn panic_if_told(&self, grants: &Grants) {
        let panics = !grants.is_empty() && self.panics.swap(false, Ordering::AcqRel);
        assert!(!panics, "on purpose");
    }
}

/// Says that the budgets are driven for as long as it lives.
struct Driven<'s>(&'s AtomicBool);

impl<'s> Driven<'s> {
    fn new(driven: &'s AtomicBool) -> Self {
        driven.store(true, Ordering::Release);
        Self(driven)
    }
}

impl Drop for Driven<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Whether a slot would be left over if as many requests as there were in the last window came
/// again. Of an odd limit the half slot is not counted.
fn would_go_unused(limit: u32, used: u32) -> bool {
    used < limit / 2
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
        // What is occupied is forgotten when it is free, what was learned is not.
        let learned = history.iter().flatten();
        let learned = learned.filter(|(_, past)| past.is_learned);
        let learned = learned
            .map(|(id, past)| (*id, (past.rate, started)))
            .collect();
        Self {
            shared: Arc::new(Shared {
                clock,
                hasher,
                lines: bounds.lines.into(),
                bounds,
                state: Mutex::new(State {
                    accounts: HashMap::new(),
                    wakes: BTreeSet::new(),
                    ledger,
                    history,
                    learned,
                    configured: HashMap::new(),
                    next_place: 0,
                    waiting: 0,
                    bytes: 0,
                    peers: HashMap::new(),
                    opened: HashMap::new(),
                    make_room_at: started,
                    drain_until: None,
                }),
                woken: Notify::new(),
                driven: AtomicBool::new(false),
                #[cfg(test)]
                panics: AtomicBool::new(false),
                started,
            }),
        }
    }

    /// Serves those who wait as slots come free, for as long as the future is polled. Another one
    /// may take over from one that panicked.
    pub async fn drive(self) {
        let _driven = Driven::new(&self.shared.driven);
        let mut sweep = self.shared.clock.now() + SWEEP_EVERY;
        self.shared.state.lock().wake_all(self.shared.clock.now());
        loop {
            let now = self.shared.clock.now();
            // Before the lock, so that permits that nobody gets are given back after it: giving
            // one back takes the lock.
            let mut grants = Grants::new();
            let next = {
                let mut state = self.shared.state.lock();
                while let Some((at, key)) = state.wakes.first().cloned().filter(|w| w.0 <= now) {
                    state.wakes.remove(&(at, key.clone()));
                    state
                        .accounts
                        .entry(key.clone())
                        .and_modify(|kept| kept.wake = None);
                    self.pump(&mut state, &key, now, &mut grants);
                    #[cfg(test)]
                    self.shared.panic_if_told(&grants);
                }
                if now >= sweep {
                    sweep = now + SWEEP_EVERY;
                    state.forget_idle(now);
                }
                state.wakes.first().map(|(at, _)| *at)
            };
            tell(grants);
            let until = next.map_or(sweep, |next| next.min(sweep));
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
                () = self.shared.woken.notified() => {}
            }
        }
    }

    /// Whether somebody serves those who wait; see [`Budgets::drive`].
    pub fn is_driven(&self) -> bool {
        self.shared.driven.load(Ordering::Acquire)
    }

    /// Takes a place in the line, or says why not.
    pub fn join(&self, budget_request: &BudgetRequest<'_>) -> Result<Ticket, BudgetRefusal> {
        let now = self.shared.clock.now();
        let key: Key = (
            budget_request.credential,
            budget_request.budget.name.clone(),
        );
        let mut grants = Grants::new();
        let mut state = self.shared.state.lock();
        let result = self.admit(&mut state, budget_request, &key, now, &mut grants);
        drop(state);
        tell(grants);
        result
    }

    fn admit(
        &self,
        state: &mut State,
        budget_request: &BudgetRequest<'_>,
        key: &Key,
        now: Instant,
        grants: &mut Grants,
    ) -> Result<Ticket, BudgetRefusal> {
        self.open_account(state, budget_request, key, now)?;
        let drain_until = state.drain_until;
        let asks = budget_request.admission == Admission::Asked;
        let room = asks
            .then(|| self.room(state, budget_request, key, now))
            .flatten();
        let Some(kept) = state.accounts.get_mut(key) else {
            return Err(BudgetRefusal::TooManyBudgets);
        };
        let in_lane = budget_request.not_before.unwrap_or(now);
        let estimate = match budget_request.forecast {
            Some(forecast) => forecast.max(now),
            None => {
                kept.account
                    .estimate(&budget_request.caller, budget_request.urgency, in_lane, now)
            }
        };
        let answer = kept.account.answer_time();
        if drain_until.is_some_and(|until| estimate + answer > until) {
            return Err(BudgetRefusal::Draining);
        }
        // A wait of zero allows what can leave this instant. The patience is what a returning
        // caller will have, too, by which it can come back sooner.
        let answer_by = budget_request
            .answer_by
            .and_then(|by| by.checked_sub(answer));
        let deadline = answer_by.map_or(budget_request.deadline, |by| {
            by.min(budget_request.deadline)
        });
        let deadline = deadline.max(now);
        let patience = deadline - now;
        if let Some(room) = room {
            let at = room.max(estimate.checked_sub(patience).unwrap_or(now));
            return Err(BudgetRefusal::Full {
                retry_after: whole_seconds(at.saturating_duration_since(now)),
            });
        }
        if asks && estimate > deadline {
            return Err(BudgetRefusal::TooLong {
                estimate: estimate - now,
                retry_after: whole_seconds(estimate - now - patience),
            });
        }
        let place = state.next_place;
        state.next_place += 1;
        let (grant, granted) = oneshot::channel();
        let waiting = Waiting {
            grant,
            bytes: budget_request.bytes,
            peer: budget_request.caller.peer,
            urgency: budget_request.urgency,
            since: now,
        };
        state.enter(key, place, budget_request.caller.clone(), in_lane, waiting);
        if budget_request.readiness == Readiness::Ready {
            state.make_ready(key, place);
            self.pump(state, key, now, grants);
        }
        Ok(Ticket {
            budgets: self.clone(),
            key: key.clone(),
            place,
            caller: budget_request.caller.clone(),
            urgency: budget_request.urgency,
            since: now,
            bytes: budget_request.bytes,
            deadline,
            estimate,
            answer,
            granted,
            ready_since: None,
        })
    }

    /// Where a bound is reached, when there will be room if nothing new comes.
    fn room(
        &self,
        state: &mut State,
        budget_request: &BudgetRequest<'_>,
        key: &Key,
        now: Instant,
    ) -> Option<Instant> {
        let bounds = self.shared.lines.get();
        let peer = budget_request.caller.peer;
        let load = state.peers.get(&peer).copied().unwrap_or_default();
        let mut room = None;
        let mut not_before = |at: Option<Instant>| room = room.max(at.or(Some(now)));
        if state.waiting >= bounds.total {
            not_before(state.next_departure(None, now));
        }
        if load.waiting >= bounds.total.div_ceil(2) {
            not_before(state.next_departure(Some(peer), now));
        }
        let excess = |used: usize, most: usize| (used + budget_request.bytes).saturating_sub(most);
        let (of_all, of_peer) = (
            // One that nobody waits before has room, however large.
            excess(state.bytes, bounds.bytes.max(budget_request.bytes)),
            excess(
                load.bytes,
                bounds.bytes.div_ceil(2).max(budget_request.bytes),
            ),
        );
        if of_all > 0 {
            not_before(state.freed(of_all, None, now));
        }
        if of_peer > 0 {
            not_before(state.freed(of_peer, Some(peer), now));
        }
        if let Some(kept) = state.accounts.get_mut(key) {
            let account = &mut kept.account;
            if account.turns().len() >= bounds.per_budget {
                not_before(account.next_departure(None, now));
            }
            if account
                .turns()
                .has_share(&budget_request.caller, bounds.per_budget)
            {
                not_before(account.next_departure(Some(peer), now));
            }
        }
        room
    }

    /// Copies of a credential's budgets for a forecast; `None` where more than `most` wait for
    /// them.
    pub fn forecast(
        &self,
        credential: Credential,
        most: usize,
    ) -> Option<Vec<(Arc<str>, Account)>> {
        let now = self.shared.clock.now();
        let mut state = self.shared.state.lock();
        let mut waiting = 0;
        let mut copies = Vec::new();
        for ((_, budget), kept) in state
            .accounts
            .iter_mut()
            .filter(|((of, _), _)| *of == credential)
        {
            waiting += kept.waiting.len();
            if waiting > most {
                return None;
            }
            // One attempt more than wait: the newcomer's.
            copies.push((budget.clone(), kept.account.forecast(now, 1)));
        }
        Some(copies)
    }

    /// How many may wait for one budget.
    pub fn most_per_budget(&self) -> usize {
        self.shared.lines.get().per_budget
    }

    /// How long an answer takes at most, as far as is known.
    pub fn answer_time(&self, credential: Credential, budget: &BudgetSpec) -> Duration {
        let state = self.shared.state.lock();
        let kept = state.accounts.get(&(credential, budget.name.clone()));
        kept.map_or(FIRST_GUESS, |kept| kept.account.answer_time())
    }

    /// At the latest when somebody leaves who comes after all who wait, if so many of those leave
    /// in this many dispatches.
    pub fn leaves_merged(
        &self,
        credential: Credential,
        budget: &BudgetSpec,
        merged: usize,
        dispatches: usize,
    ) -> Option<Instant> {
        let now = self.shared.clock.now();
        let mut state = self.shared.state.lock();
        let kept = state.accounts.get_mut(&(credential, budget.name.clone()))?;
        let alone = kept.account.turns().len().saturating_sub(merged);
        Some(kept.account.leaves_at(alone + dispatches, now))
    }

    /// At the latest when somebody leaves who comes after all who wait and after so many others.
    pub fn leaves_behind(
        &self,
        credential: Credential,
        budget: &BudgetSpec,
        others: usize,
    ) -> Instant {
        let now = self.shared.clock.now();
        let mut state = self.shared.state.lock();
        match state.accounts.get_mut(&(credential, budget.name.clone())) {
            Some(kept) => {
                let ahead = kept.account.turns().len() + others;
                kept.account.leaves_at(ahead, now)
            }
            None => {
                let rounds = others / budget.rate.limit.max(1) as usize;
                let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
                now + budget.rate.window.saturating_mul(rounds)
            }
        }
    }

    /// How a budget stands at this moment; `None` if nothing has asked for it lately.
    pub fn standing(&self, credential: Credential, budget: &BudgetSpec) -> Option<BudgetStatus> {
        let now = self.shared.clock.now();
        let mut state = self.shared.state.lock();
        let kept = state.accounts.get_mut(&(credential, budget.name.clone()))?;
        Some(kept.standing(&budget.name, now))
    }

    /// Whether somebody who came now would have to wait.
    pub fn must_wait(&self, budget_request: &BudgetRequest<'_>) -> bool {
        let now = self.shared.clock.now();
        let mut state = self.shared.state.lock();
        let kept = state.accounts.get_mut(&(
            budget_request.credential,
            budget_request.budget.name.clone(),
        ));
        kept.is_some_and(|kept| {
            let account = &mut kept.account;
            account.estimate(&budget_request.caller, budget_request.urgency, now, now) > now
        })
    }

    /// How many slots are free that nobody waits for, and of how many; all of them, as long as no
    /// answer has told.
    pub fn unclaimed(&self, credential: Credential, budget: &BudgetSpec) -> (u32, u32) {
        let now = self.shared.clock.now();
        let mut state = self.shared.state.lock();
        let Some(kept) = state.accounts.get_mut(&(credential, budget.name.clone())) else {
            return (budget.rate.limit, budget.rate.limit);
        };
        let waiting = u32::try_from(kept.account.turns().len()).unwrap_or(u32::MAX);
        let window = kept.account.window();
        let limit = window.rate().limit;
        if window.is_finding_out() {
            return (limit, limit);
        }
        let occupied = window.occupied(now);
        (
            limit.saturating_sub(occupied).saturating_sub(waiting),
            limit,
        )
    }

    /// Whether a request that nobody waits for may be sent now: nobody waits for the budget, and if
    /// the next window brought as many requests as the last one did, one slot would still be left.
    pub fn has_spare(&self, credential: Credential, budget: &BudgetSpec) -> bool {
        let now = self.shared.clock.now();
        let mut state = self.shared.state.lock();
        let Some(kept) = state.accounts.get_mut(&(credential, budget.name.clone())) else {
            // Without an account nothing was asked for in the last window.
            return budget.rate.limit > 1;
        };
        let waits = !kept.account.turns().is_empty();
        let window = kept.account.window();
        let closed = window.closed_for(now).is_some() || window.is_finding_out();
        !waits && !closed && would_go_unused(window.rate().limit, window.occupied(now))
    }

    /// Until one of those who wait for any budget leaves at the latest, of one peer alone if one
    /// is given; in whole seconds, at least one.
    pub fn until_departure(&self, peer: Option<IpAddr>) -> Duration {
        let now = self.shared.clock.now();
        let next = self.shared.state.lock().next_departure(peer, now);
        whole_seconds(next.map_or(Duration::ZERO, |at| at.saturating_duration_since(now)))
    }

    fn open_account(
        &self,
        state: &mut State,
        budget_request: &BudgetRequest<'_>,
        key: &Key,
        now: Instant,
    ) -> Result<(), BudgetRefusal> {
        if state.accounts.contains_key(key) {
            return Ok(());
        }
        let peer = budget_request.caller.peer;
        let is_full = |state: &State| {
            let own = state.opened.get(&peer).copied().unwrap_or_default();
            state.accounts.len() >= MOST_ACCOUNTS || own >= MOST_ACCOUNTS / 2
        };
        if is_full(state) && now >= state.make_room_at {
            state.make_room_at = now + MAKE_ROOM_EVERY;
            state.forget_idle_after(now, Duration::ZERO);
        }
        if is_full(state) {
            return Err(BudgetRefusal::TooManyBudgets);
        }
        let spec = state.configured.get(&budget_request.budget.name).cloned();
        let spec = spec.as_ref().unwrap_or(budget_request.budget);
        let id = self.shared.hasher.hash(&[
            b"account",
            budget_request.credential.bytes(),
            spec.name.as_bytes(),
        ]);
        let bounds = &self.shared.bounds;
        let past = state.history.as_mut().map(|history| history.remove(&id));
        // What was only configured then gives way to what is configured now.
        let learned = past.iter().flatten().find(|past| past.is_learned);
        let learned = learned.map(|past| past.rate);
        let remembered = state.learned.remove(&id).map(|(rate, _)| rate);
        let learned = learned.or(remembered);
        let rate = match learned {
            // Of a documented rate, a lower limit can be learned; of another, both.
            Some(learned) if spec.documented => Rate {
                limit: learned.limit.min(spec.rate.limit),
                ..spec.rate
            },
            Some(learned) => Rate {
                window: learned.window.max(spec.rate.window),
                ..learned
            },
            None => spec.rate,
        };
        let mut window = Window::learned(rate, spec.rate, spec.documented, bounds.terms, now);
        if rate != spec.rate {
            // What was learned may have changed since.
            window.alone_until_told();
        }
        match past {
            Some(Some(past)) => window.restore(past.held, past.rate.window),
            Some(None) => {}
            None => window.without_history(self.shared.started, now),
        }
        let at_once = match budget_request.effect {
            Effect::Write => bounds.writes_at_once,
            Effect::Read => bounds.reads_at_once,
        };
        let account = Account::new(window, at_once, now);
        let kept = Kept {
            account,
            id,
            opened_by: peer,
            waiting: HashMap::new(),
            wake: None,
        };
        *state.opened.entry(peer).or_default() += 1;
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
                        intents: Vec::new(),
                        late: false,
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

    /// Other limits are configured for these budgets, by name. They keep what they have sent, what
    /// they have learned and who waits. Whoever was understood before opens no budget at the old
    /// limit.
    pub fn configure(&self, changed: &HashMap<Arc<str>, BudgetSpec>) {
        let now = self.shared.clock.now();
        {
            let mut state = self.shared.state.lock();
            for ((_, name), kept) in &mut state.accounts {
                if let Some(spec) = changed.get(name) {
                    let ceiling = spec.documented.then_some(spec.rate.limit);
                    kept.account.window().configure(spec.rate.limit, ceiling);
                }
            }
            state.configured.extend(changed.clone());
            state.wake_all(now);
        }
        self.shared.woken.notify_one();
    }

    /// So much may wait from now on; who waits already stays.
    pub fn set_line_bounds(&self, lines: LineBounds) {
        self.shared.lines.set(lines);
    }

    /// From now on, whoever could not have its answer by `until` is refused, those who already
    /// wait too.
    pub fn drain(&self, until: Instant) {
        self.refuse(Some(until));
    }

    /// Refuses everybody who still waits: what has not left by now will not.
    pub fn end(&self) {
        self.refuse(None);
    }

    fn refuse(&self, until: Option<Instant>) {
        let now = self.shared.clock.now();
        let mut refused = Grants::new();
        {
            let mut state = self.shared.state.lock();
            state.drain_until = Some(until.unwrap_or(now));
            let mut late: Vec<(Key, LinePosition)> = Vec::new();
            for (key, kept) in &mut state.accounts {
                let answer = kept.account.answer_time();
                let schedule = kept.account.schedule(now).into_iter();
                let too_late =
                    schedule.filter(|(_, at)| until.is_none_or(|until| *at + answer > until));
                late.extend(too_late.map(|(place, _)| (key.clone(), place)));
            }
            let left = late
                .into_iter()
                .filter_map(|(key, place)| state.leave(&key, place));
            refused.extend(left.map(|waiting| (waiting.grant, Err(BudgetRefusal::Draining))));
        }
        tell(refused);
    }

    /// How many wait, over all budgets.
    pub fn waiting(&self) -> usize {
        self.shared.state.lock().waiting
    }

    /// Whether attempts are being recorded for the next start.
    pub fn has_ledger(&self) -> bool {
        self.shared.state.lock().ledger.is_kept()
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
