//! All budgets of this process: requests join the line of their budget and get a permit when it is
//! their turn and a slot is free.
//!
//! The parts below decide and are pure; this module puts one mutex around them, and waits. The
//! mutex is never held across an await, and permits are handed over after it is released, because
//! dropping one takes it again.
//!
//! - `admission`: a request joins a line, or is refused; `opening`: the first one opens the budget.
//! - `driver`: serves the lines as slots are returned.
//! - `outlook`: when requests would be sent, for those that ask before they join.
//! - `load`: how many requests wait, in which lines, and the bytes of their bodies.
//! - `snapshot`: copies for operators.
//!
//! A 429 is not waited out here: see [`ticket`](super::ticket).

use crate::clock::Clock;
use crate::credential::Hasher;
use crate::limit::account::{Account, FIRST_GUESS};
use crate::limit::ledger::{Ledger, PastUsage};
use crate::limit::turns::{ClientWeights, LinePosition};
use crate::route::policy::BudgetSpec;
use crate::swap::Swap;
use foldhash::HashMap;
use load::LineLoad;
use parking_lot::Mutex;
use state::{BudgetsState, OpenBudget};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

mod admission;
mod driver;
mod load;
mod opening;
mod outlook;
mod request;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;

pub(super) use request::AccountKey;
pub use request::{
    AccountState, Admission, BudgetBounds, BudgetRefusal, BudgetRequest, BudgetStatus, LineBounds,
    MOST_ACCOUNTS, QueueHead, Readiness,
};
pub(super) use state::{Grant, Waiter};

/// All budgets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budgets {
    pub(super) shared: Arc<SharedBudgets>,
}

#[derive(Debug)]
pub(super) struct SharedBudgets {
    pub(super) clock: Clock,
    /// Names budgets in the ledger.
    hasher: Hasher,
    bounds: BudgetBounds,
    /// The bounds of the lines, which a reload may change.
    lines: Swap<LineBounds>,
    /// One lock for all budgets: bounds such as the total of all lines concern them together.
    pub(super) state: Mutex<BudgetsState>,
    /// Notified when the driver has to wake earlier than it knew.
    woken: Notify,
    /// Whether [`Budgets::drive`] is being polled.
    driven: AtomicBool,
    /// Makes the driver panic once when it has served a request.
    #[cfg(test)]
    panics: AtomicBool,
    /// The start of the process. Without history, everything before is unknown.
    started: Instant,
}

/// The tickets to be served or refused once the lock is released.
type Grants = Vec<(oneshot::Sender<Grant>, Grant)>;

impl Budgets {
    /// Creates budgets that begin with the usage by earlier processes. Without one nothing is known
    /// of what was sent before.
    pub fn new(
        bounds: BudgetBounds,
        ledger: Ledger,
        history: Option<PastUsage>,
        hasher: Hasher,
        clock: Clock,
    ) -> Self {
        let started = clock.now();
        // Occupied slots are forgotten when they are free, learned rates are not.
        let learned = history.iter().flatten();
        let learned = learned.filter(|(_, past)| past.rate.is_learned);
        let learned = learned
            .map(|(id, past)| (*id, (past.rate.rate, started)))
            .collect();
        Self {
            shared: Arc::new(SharedBudgets {
                clock,
                hasher,
                lines: bounds.lines.into(),
                bounds,
                state: Mutex::new(BudgetsState {
                    accounts: HashMap::default(),
                    wakes: BTreeSet::new(),
                    ledger,
                    write_ledger_at: None,
                    history,
                    learned,
                    configured: HashMap::default(),
                    weights: Arc::default(),
                    next_place: 0,
                    load: LineLoad::default(),
                    principals: HashMap::default(),
                    opened: HashMap::default(),
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

    /// Applies other configured limits to these budgets, by name. They keep what they have sent,
    /// what they have learned, and their lines. A request that was accepted before opens no budget
    /// at the old limit.
    pub fn configure(&self, changed: &HashMap<Arc<str>, BudgetSpec>) {
        let now = self.shared.clock.now();
        {
            let mut state = self.shared.state.lock();
            for ((_, name), open) in &mut state.accounts {
                if let Some(spec) = changed.get(name) {
                    let window = open.account.window();
                    window.configure(spec.rate.limit, spec.documented);
                }
            }
            state.configured.extend(changed.clone());
            // A higher limit may let requests through before the noted instants.
            state.wake_all(now);
        }
        self.shared.woken.notify_one();
    }

    /// Applies other bounds to the lines. Requests that wait already stay.
    pub fn set_line_bounds(&self, lines: LineBounds) {
        self.shared.lines.set(lines);
    }

    /// Applies other weights of clients to all lines, from the next request on. What was estimated
    /// before may change, as it does when requests arrive.
    pub fn set_weights(&self, weights: Arc<ClientWeights>) {
        let mut state = self.shared.state.lock();
        for open in state.accounts.values_mut() {
            open.account.turns().set_weights(weights.clone());
        }
        state.weights = weights;
    }

    /// Refuses from now on every request that could not have its response by `until`, those that
    /// wait already as well.
    pub fn drain(&self, until: Instant) {
        self.refuse(Some(until));
    }

    /// Refuses every request that still waits, and every one that comes.
    pub fn end(&self) {
        self.refuse(None);
    }

    /// Refuses what could not have its response by `until`, or everything.
    fn refuse(&self, until: Option<Instant>) {
        let now = self.shared.clock.now();
        let mut refused = Grants::new();
        {
            let mut state = self.shared.state.lock();
            // From now on `join` refuses as well, so none enters a line that is being emptied.
            state.drain_until = Some(until.unwrap_or(now));
            // Collected first, because leaving a line changes its schedule.
            let mut late: Vec<(AccountKey, LinePosition)> = Vec::new();
            for (key, open) in &mut state.accounts {
                let answer = open.account.answer_time();
                let schedule = open.account.schedule(now).into_iter();
                let too_late =
                    schedule.filter(|(_, at)| until.is_none_or(|until| *at + answer > until));
                late.extend(too_late.map(|(place, _)| (key.clone(), place)));
            }
            let left = late
                .into_iter()
                .filter_map(|(key, place)| state.leave(&key, place));
            refused.extend(left.map(|waiting| (waiting.grant, Err(BudgetRefusal::Draining))));
        }
        // Outside the lock, because it wakes the tasks of the tickets.
        hand_over(refused);
    }

    /// Returns the number of requests in all lines.
    pub fn waiting(&self) -> usize {
        self.shared.state.lock().load.requests
    }

    /// Returns whether attempts are being recorded for the next start.
    pub fn has_ledger(&self) -> bool {
        self.shared.state.lock().ledger.is_kept()
    }

    /// Writes the ends of all attempts to the ledger. Must be called before the process exits, or
    /// the next one takes some of them for attempts in flight.
    pub fn complete_ledger(&self) {
        self.shared.state.lock().ledger.write();
    }

    /// Changes the state of one budget, then serves its line: whatever changed may let the next
    /// request go. Every end of an attempt and every ready request comes through here, so that the
    /// driver only has to wait for time.
    pub(super) fn change(&self, key: &AccountKey, change: impl FnOnce(&mut BudgetsState, Instant)) {
        let now = self.shared.clock.now();
        let mut grants = Grants::new();
        {
            let mut state = self.shared.state.lock();
            change(&mut state, now);
            self.pump(&mut state, key, now, &mut grants);
        }
        hand_over(grants);
    }
}

/// Rounds up to whole seconds, and to at least one: `Retry-After` counts in seconds (RFC 9110,
/// section 10.2.3).
pub(crate) fn whole_seconds(wait: Duration) -> Duration {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Duration::from_secs(seconds.max(1))
}

/// Sends each grant to its ticket. If the ticket is gone, the permit is dropped here, which returns
/// its slot and takes the lock.
fn hand_over(grants: Grants) {
    for (ticket, grant) in grants {
        drop(ticket.send(grant));
    }
}
