//! Writes in order: one lane for each thing on which the writes of a credential act.
//!
//! [`LaneOrder`] decides, this module waits. A write holds a [`LanePosition`] from its acceptance
//! until it has settled. Dropping the position takes the write out of its lanes: cancelled if it
//! was not sent, finished if it was. If [`LanePosition::stay_closed_for`] was called, its lanes
//! stay closed for that long, because a write with an unknown outcome may still take effect.
//!
//! This module knows no budgets: a write in an open lane may still wait for its slot. The line of a
//! budget is in `limit/turns.rs`.

mod keys;
mod order;
mod state;

pub use keys::{ClassHash, Keys, OrderKey};
pub use order::{LaneOrder, Turn};

use crate::clock::Clock;
use crate::credential::Credential;
use parking_lot::{Mutex, MutexGuard};
use state::{Closed, LanesState, NOWHERE};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// The lanes of all credentials. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lanes {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    state: Mutex<LanesState>,
    /// Notified when `LanesState::freed` has grown.
    freed: Notify,
}

impl Lanes {
    /// Lanes without writes.
    pub fn new(clock: Clock) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock,
                state: Mutex::default(),
                freed: Notify::new(),
            }),
        }
    }

    /// Estimates when the lanes of `keys` are free, if each response takes `each`. `None` if they
    /// are free now.
    pub fn expected_free(
        &self,
        credential: Credential,
        keys: &Keys,
        each: Duration,
    ) -> Option<Instant> {
        let state = self.lock(credential);
        let now = self.shared.clock.now();
        state.lanes.get(&credential)?.expected_free(keys, now, each)
    }

    /// A copy of a credential's lanes. `None` if more than `most` writes are in them: the copy is
    /// made under the lock that every write takes.
    pub fn order(&self, credential: Credential, most: usize) -> Option<LaneOrder> {
        let state = self.shared.state.lock();
        let Some(lanes) = state.lanes.get(&credential) else {
            return Some(LaneOrder::default());
        };
        (lanes.len() <= most).then(|| lanes.clone())
    }

    /// Keeps the lanes of `keys` closed until `until`, for a write of an earlier process that may
    /// still take effect.
    pub fn close(&self, credential: Credential, keys: Keys, until: Instant) {
        let mut state = self.lock(credential);
        let turn = state.enter(credential, keys, until, NOWHERE);
        drop(state);
        self.settle_at(credential, turn, until);
    }

    /// Keeps all lanes of every credential closed until `until`, with barriers against all classes.
    /// For a start at which the writes of an earlier process are unknown. Must be called before any
    /// write enters.
    pub fn close_all(&self, barriers: BTreeSet<ClassHash>, until: Instant) {
        self.shared.state.lock().closed = Some(Closed { barriers, until });
    }

    /// Locks the lanes for a use of this credential. If all lanes are closed and the credential has
    /// none yet, adds its barriers first: credentials are unknown when [`Lanes::close_all`] is
    /// called.
    fn lock(&self, credential: Credential) -> MutexGuard<'_, LanesState> {
        let mut state = self.shared.state.lock();
        let Some(until) = state.closed.as_ref().map(|closed| closed.until) else {
            return state;
        };
        if until <= self.shared.clock.now() {
            // The barriers are over. Forgotten, so that later calls cost nothing.
            state.closed = None;
            return state;
        }
        if let Some(turn) = state.enter_barrier(credential) {
            drop(state);
            self.settle_at(credential, turn, until);
            return self.shared.state.lock();
        }
        state
    }

    /// Settles a write without a position at `until`.
    fn settle_at(&self, credential: Credential, turn: Turn, until: Instant) {
        let mut position = self.position(credential, turn, None);
        position.stay = Some(until);
        // Leaves the rest to a task.
        drop(position);
    }

    /// Returns the position of a write that has entered. `blocked` is how it waits by itself.
    fn position(
        &self,
        credential: Credential,
        turn: Turn,
        blocked: Option<oneshot::Receiver<()>>,
    ) -> LanePosition {
        LanePosition {
            lanes: self.clone(),
            credential,
            turn,
            blocked,
            stay: None,
        }
    }

    /// Accepts a write, which waits by itself. `expected` is the instant at which it is expected to
    /// have settled, `place` its position in the line of its budget.
    pub fn enter(
        &self,
        credential: Credential,
        keys: Keys,
        expected: Instant,
        place: u64,
    ) -> LanePosition {
        let mut state = self.lock(credential);
        let turn = state.enter(credential, keys, expected, place);
        // Under the same lock, so that no opening is missed.
        let blocked = state.wait_alone(credential, turn);
        drop(state);
        self.position(credential, turn, blocked)
    }

    /// Accepts a write whose opening lanes [`Lanes::freed`] reports, together with those of many
    /// others. [`LanePosition::is_blocked`] is `false` for such a write; use [`Lanes::is_ready`].
    pub fn enter_named(
        &self,
        credential: Credential,
        keys: Keys,
        expected: Instant,
    ) -> LanePosition {
        let mut state = self.lock(credential);
        let turn = state.enter(credential, keys, expected, NOWHERE);
        state.wait_named(credential, turn);
        drop(state);
        self.position(credential, turn, None)
    }

    /// Whether the lanes of a write are open.
    pub fn is_ready(&self, credential: Credential, turn: Turn) -> bool {
        let state = self.shared.state.lock();
        let lanes = state.lanes.get(&credential);
        lanes.is_none_or(|lanes| lanes.is_ready(turn))
    }

    /// Estimates what a write waits for in its lanes. See [`LaneOrder::ahead`].
    pub fn ahead(&self, credential: Credential, turn: Turn) -> (Option<Instant>, usize) {
        let state = self.shared.state.lock();
        let lanes = state.lanes.get(&credential);
        lanes.map_or((None, 0), |lanes| lanes.ahead(turn))
    }

    /// Returns until when all lanes of every credential stay closed after a start at which the
    /// writes of an earlier process are unknown. `None` if they do not.
    pub fn all_closed_until(&self) -> Option<Instant> {
        let until = self.shared.state.lock().closed.as_ref()?.until;
        (until > self.shared.clock.now()).then_some(until)
    }

    /// Whether a write waits in its lanes only for writes in `these`, or for none.
    pub fn follows(&self, credential: Credential, turn: Turn, these: &BTreeSet<Turn>) -> bool {
        let state = self.shared.state.lock();
        let lanes = state.lanes.get(&credential);
        lanes.is_none_or(|lanes| lanes.follows(turn, these))
    }

    /// Whether a write on `keys` that has not been accepted yet would wait only for writes in
    /// `these`.
    pub fn would_follow(
        &self,
        credential: Credential,
        keys: &Keys,
        these: &BTreeSet<Turn>,
    ) -> bool {
        let state = self.shared.state.lock();
        let lanes = state.lanes.get(&credential);
        lanes.is_none_or(|lanes| lanes.would_follow(keys, these))
    }

    /// Waits until lanes of named writes have opened, and returns these writes. Each is returned
    /// once.
    pub async fn freed(&self) -> Vec<Turn> {
        loop {
            let freed = std::mem::take(&mut self.shared.state.lock().freed);
            if !freed.is_empty() {
                return freed;
            }
            self.shared.freed.notified().await;
        }
    }

    /// Settles a write, and lets the writes know whose lanes it has opened.
    fn settle(&self, credential: Credential, turn: Turn) {
        let mut state = self.shared.state.lock();
        let opened = state.settle(credential, turn);
        if !state.freed.is_empty() {
            // `notify_one` keeps a permit if no task waits at this moment, so no report is lost.
            self.shared.freed.notify_one();
        }
        drop(state);
        // Woken outside the lock: a woken task may drop a position at once, which takes it again.
        for free in opened {
            // A receiver that is gone belongs to a caller that hung up. Dropping its position
            // settles its turn.
            let _ = free.send(());
        }
    }
}

/// The position of a write in its lanes: a guard. Dropping it settles the write and opens its
/// lanes, unless they have to stay closed; then a task opens them in time.
#[derive(Debug)]
pub struct LanePosition {
    lanes: Lanes,
    credential: Credential,
    /// The number by which the lanes know the write.
    turn: Turn,
    /// Resolves when the lanes open. `None` if they are open, or if the write is named.
    blocked: Option<oneshot::Receiver<()>>,
    /// The lanes stay closed until this instant, even if the position is dropped before.
    stay: Option<Instant>,
}

impl LanePosition {
    /// Whether the write waits for an earlier one of its lanes.
    pub fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Waits until every earlier write of its lanes has settled. Cancel safe: may be dropped and
    /// called again.
    pub async fn free(&mut self) {
        if let Some(blocked) = &mut self.blocked {
            let _ = blocked.await;
            self.blocked = None;
        }
    }

    /// Takes the receiver that resolves when the lanes open. `None` if they are open. Afterwards
    /// [`LanePosition::is_blocked`] is `false`, until [`LanePosition::look_again`] is called.
    pub fn opening(&mut self) -> Option<oneshot::Receiver<()>> {
        self.blocked.take()
    }

    /// Checks again whether an earlier write of the lanes has not settled, and waits by itself from
    /// now on.
    pub fn look_again(&mut self) {
        let mut state = self.lanes.shared.state.lock();
        self.blocked = state.wait_alone(self.credential, self.turn);
    }

    /// Makes [`Lanes::freed`] report the write when its lanes open, as after
    /// [`Lanes::enter_named`].
    pub fn wait_named(&mut self) {
        self.blocked = None;
        let mut state = self.lanes.shared.state.lock();
        state.wait_named(self.credential, self.turn);
    }

    /// Sets the instant at which the write is expected to have settled. The instant until which its
    /// lanes stay closed is a lower bound.
    pub fn expect(&self, settled: Instant) {
        let settled = self.stay.map_or(settled, |stay| stay.max(settled));
        let mut state = self.lanes.shared.state.lock();
        if let Some(lanes) = state.lanes.get_mut(&self.credential) {
            lanes.expect(self.turn, settled);
        }
    }

    /// Keeps the lanes closed after a drop until `q` from now, or longer if an earlier call said
    /// so.
    pub fn stay_closed_for(&mut self, q: Duration) {
        self.stay_closed_until(self.lanes.shared.clock.now() + q);
    }

    /// Keeps the lanes closed after a drop until `until`, or longer if an earlier call said so.
    pub fn stay_closed_until(&mut self, until: Instant) {
        self.stay = self.stay.max(Some(until));
    }

    /// The order keys and barriers of the write.
    pub fn keys(&self) -> Keys {
        let state = self.lanes.shared.state.lock();
        let lanes = state.lanes.get(&self.credential);
        let keys = lanes.and_then(|lanes| lanes.keys(self.turn));
        keys.cloned().unwrap_or_default()
    }

    /// The turn of the write, by which [`Lanes::freed`] reports it.
    pub fn turn(&self) -> Turn {
        self.turn
    }

    /// Sets the position of the write in the line of its budget.
    pub fn waits_at(&self, place: u64) {
        let mut state = self.lanes.shared.state.lock();
        if let Some(lanes) = state.lanes.get_mut(&self.credential) {
            lanes.waits_at(self.turn, place);
        }
    }
}

impl Drop for LanePosition {
    fn drop(&mut self) {
        let (lanes, credential, turn) = (self.lanes.clone(), self.credential, self.turn);
        let now = self.lanes.shared.clock.now();
        // The write stays in its lanes and settles later, in a task, because `drop` cannot wait.
        let Some(until) = self.stay.filter(|until| *until > now) else {
            lanes.settle(credential, turn);
            return;
        };
        // Estimates of later writes must not expect the lanes to open earlier.
        if let Some(lanes) = lanes.shared.state.lock().lanes.get_mut(&credential) {
            lanes.close(turn, until);
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                tokio::time::sleep_until(until.into()).await;
                lanes.settle(credential, turn);
            })),
            // The runtime has ended, and with it every task that could wait.
            Err(_) => lanes.settle(credential, turn),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Hasher;
    use std::time::SystemTime;

    fn user(id: &str) -> Keys {
        Keys::new(&Hasher::new(&[0; 32]), [&*format!("user:{id}")], [])
    }

    fn lanes() -> (Lanes, Credential) {
        let clock = Clock::simulated(SystemTime::UNIX_EPOCH, Duration::from_secs(1000));
        (
            Lanes::new(clock),
            Hasher::new(&[0; 32]).credential(&http::HeaderMap::new()),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_write_waits_for_the_earlier_one() {
        let (lanes, who) = lanes();
        let now = lanes.shared.clock.now();
        let first = lanes.enter(who, user("a"), now, 0);
        let mut second = lanes.enter(who, user("a"), now, 0);
        let mut third = lanes.enter(who, user("a"), now, 0);
        assert!(!first.is_blocked() && second.is_blocked());
        let hung_up = tokio::time::timeout(Duration::from_secs(1), second.free()).await;
        assert!(hung_up.is_err());
        drop(second);
        drop(first);
        third.free().await;
        drop(third);
        assert!(lanes.shared.state.lock().lanes.is_empty());
        assert!(lanes.shared.state.lock().blocked.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_elsewhere_are_named_when_their_lanes_open() {
        let (lanes, who) = lanes();
        let now = lanes.shared.clock.now();
        let first = lanes.enter_named(who, user("a"), now);
        let second = lanes.enter_named(who, user("a"), now);
        assert!(lanes.is_ready(who, first.turn()) && !lanes.is_ready(who, second.turn()));
        let mut held = lanes.enter(who, user("a"), now, 0);
        let waiting = tokio::time::timeout(Duration::from_secs(1), lanes.freed()).await;
        assert!(waiting.is_err());
        drop(first);
        assert_eq!(lanes.freed().await, [second.turn()]);
        assert!(lanes.is_ready(who, second.turn()));
        drop(second);
        held.free().await;
        drop(held);
        assert!(lanes.shared.state.lock().lanes.is_empty());
        assert!(lanes.shared.state.lock().freed.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_with_an_unknown_outcome_stays_closed_for_q() {
        let (lanes, who) = lanes();
        let now = lanes.shared.clock.now();
        let q = Duration::from_secs(60);
        let mut lost = lanes.enter(who, user("a"), now, 0);
        lost.stay_closed_for(q);
        drop(lost);
        let expected = lanes.expected_free(who, &user("a"), Duration::ZERO);
        assert_eq!(expected, Some(now + q));
        let mut next = lanes.enter(who, user("a"), now, 0);
        next.free().await;
        assert_eq!(lanes.shared.clock.now(), now + q);
    }

    #[tokio::test(start_paused = true)]
    async fn lanes_that_are_closed_from_the_start_open_in_time() {
        let (lanes, who) = lanes();
        let (now, q) = (lanes.shared.clock.now(), Duration::from_secs(60));
        lanes.close(who, user("a"), now + q);
        let mut closed = lanes.enter(who, user("a"), now, 0);
        assert!(closed.is_blocked() && !lanes.enter(who, user("b"), now, 0).is_blocked());
        let expected = lanes.expected_free(who, &user("a"), Duration::ZERO);
        assert_eq!(expected, Some(now + q));
        closed.free().await;
        assert_eq!(lanes.shared.clock.now(), now + q);
    }

    #[tokio::test(start_paused = true)]
    async fn all_lanes_can_be_closed_from_the_start() {
        let (lanes, who) = lanes();
        let (now, q) = (lanes.shared.clock.now(), Duration::from_secs(60));
        let class = ClassHash::new(&Hasher::new(&[0; 32]), "user");
        lanes.close_all([class].into(), now + q);
        let expected = lanes.expected_free(who, &user("a"), Duration::ZERO);
        assert_eq!(expected, Some(now + q));
        let (mut a, mut b) = (
            lanes.enter(who, user("a"), now, 0),
            lanes.enter(who, user("b"), now, 0),
        );
        a.free().await;
        b.free().await;
        assert_eq!(lanes.shared.clock.now(), now + q);
        drop((a, b));
        assert!(!lanes.enter(who, user("a"), now, 0).is_blocked());
        assert!(lanes.shared.state.lock().lanes.is_empty());
    }
}
