//! Serving the lines: the one task that waits for slots, and what it does for each budget.

use super::state::BudgetsState;
use super::{AccountKey, Budgets, Grants, hand_over};
use crate::limit::account::Next;
use crate::limit::ledger::WRITTEN_WITHIN;
use crate::limit::ticket::Permit;
use crate::limit::turns::LinePosition;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A budget that has been idle this long is forgotten, except for a rate that it has learned.
const FORGET_AFTER: Duration = Duration::from_secs(3_600);
/// The interval at which idle budgets are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Marks the budgets as driven until it is dropped.
struct DrivenGuard<'s>(&'s AtomicBool);

impl<'s> DrivenGuard<'s> {
    fn new(driven: &'s AtomicBool) -> Self {
        driven.store(true, Ordering::Release);
        Self(driven)
    }
}

impl Drop for DrivenGuard<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
impl super::SharedBudgets {
    fn panic_if_told(&self, grants: &Grants) {
        let panics = !grants.is_empty() && self.panics.swap(false, Ordering::AcqRel);
        assert!(!panics, "on purpose");
    }
}

impl Budgets {
    /// Serves the lines as slots are returned, for as long as the future is polled. Another one may
    /// take over from one that panicked.
    pub async fn drive(self) {
        let _driven = DrivenGuard::new(&self.shared.driven);
        let mut sweep = self.shared.clock.now() + SWEEP_EVERY;
        self.shared.state.lock().wake_all(self.shared.clock.now());
        loop {
            let now = self.shared.clock.now();
            // Declared before the lock, so that permits that no ticket gets are dropped after it:
            // dropping one takes the lock.
            let mut grants = Grants::new();
            let next = {
                let mut state = self.shared.state.lock();
                while let Some(key) = state.take_due(now) {
                    self.pump(&mut state, &key, now, &mut grants);
                    #[cfg(test)]
                    self.shared.panic_if_told(&grants);
                }
                if now >= sweep {
                    sweep = now + SWEEP_EVERY;
                    state.forget_idle(now, FORGET_AFTER);
                }
                if state.write_ledger_at.is_some_and(|at| now >= at) {
                    state.write_ledger_at = None;
                    state.ledger.write();
                }
                let wake = state.wakes.first().map(|(at, _)| *at);
                wake.into_iter().chain(state.write_ledger_at).min()
            };
            hand_over(grants);
            let until = next.map_or(sweep, |next| next.min(sweep));
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
                () = self.shared.woken.notified() => {}
            }
        }
    }

    /// Lets the driver write what the ledger has noted, if no other attempt does so before. Under
    /// load that is one wake in [`WRITTEN_WITHIN`], not one for each attempt.
    pub(in crate::limit) fn write_ledger_soon(&self, state: &mut BudgetsState, now: Instant) {
        if state.write_ledger_at.is_none() && state.ledger.is_behind() {
            state.write_ledger_at = Some(now + WRITTEN_WITHIN);
            self.shared.woken.notify_one();
        }
    }

    /// Returns whether the lines are being served; see [`Budgets::drive`].
    pub fn is_driven(&self) -> bool {
        self.shared.driven.load(Ordering::Acquire)
    }

    /// Makes a request ready. Returns a permit if it may be sent at once, in which case it has left
    /// the line; otherwise the permit follows by the channel of its ticket.
    pub(in crate::limit) fn make_ready(
        &self,
        key: &AccountKey,
        place: LinePosition,
        now: Instant,
    ) -> Option<Permit> {
        let mut grants = Grants::new();
        let mut state = self.shared.state.lock();
        let open = state.accounts.get_mut(key)?;
        // Without one that is ready the turn would be this one's, so the turns need not be asked.
        if open.waiting.contains_key(&place)
            && let Some(slot) = open.account.take_past_line(now)
        {
            state.leave(key, place);
            return Some(Permit::new(self, key, slot, now));
        }
        self.serve_ready(&mut state, key, place, now, &mut grants);
        drop(state);
        hand_over(grants);
        None
    }

    /// Makes a request ready that cannot be sent past the line, and serves the line.
    pub(super) fn serve_ready(
        &self,
        state: &mut BudgetsState,
        key: &AccountKey,
        place: LinePosition,
        now: Instant,
        grants: &mut Grants,
    ) {
        if let Some(open) = state.accounts.get_mut(key) {
            open.account.turns().ready(place);
        }
        self.pump(state, key, now, grants);
    }

    /// Takes a slot for each request of a line that may be sent now, and notes when to look again.
    pub(super) fn pump(
        &self,
        state: &mut BudgetsState,
        key: &AccountKey,
        now: Instant,
        grants: &mut Grants,
    ) {
        let Some(open) = state.accounts.get_mut(key) else {
            return;
        };
        let mut served = Vec::new();
        let wake = loop {
            match open.account.next(now) {
                Next::Go(place, slot) => {
                    let permit = Permit::new(self, key, slot, now);
                    // Each request in the line is in the table as well. If one were not, its permit
                    // still must not be dropped under the lock.
                    let grant = match open.waiting.remove(&place) {
                        Some(waiting) => {
                            served.push(waiting.waiter);
                            waiting.grant
                        }
                        None => oneshot::channel().0,
                    };
                    grants.push((grant, Ok(permit)));
                }
                Next::Wait(at) => break Some(at),
                Next::Idle => break None,
            }
        };
        if wake != open.wake {
            state.set_wake(key, wake);
            // The driver sleeps towards the earliest instant, so it must learn of an earlier one.
            if wake.is_some() && state.wakes.first().is_some_and(|first| first.1 == *key) {
                self.shared.woken.notify_one();
            }
        }
        for waiter in &served {
            state.unload(key, waiter);
        }
    }
}
