//! The lanes of all credentials behind one lock, and how each waiting write learns that its lanes
//! have opened. Decides and collects; waking is left to the caller, outside the lock.

use super::keys::{ClassHash, Keys};
use super::order::{LaneOrder, Turn};
use crate::credential::Credential;
use foldhash::HashMap;
use std::collections::BTreeSet;
use std::time::Instant;
use tokio::sync::oneshot;

/// The position of a write that is in no line of a budget yet.
pub(super) const NOWHERE: u64 = u64::MAX - 1;

/// The lanes, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct LanesState {
    /// The turn of the next write. Turns are unique among all credentials.
    pub(super) next: Turn,
    /// The lanes of each credential that has unsettled writes.
    pub(super) lanes: HashMap<Credential, LaneOrder>,
    /// The writes that wait for their lanes.
    pub(super) blocked: HashMap<Turn, Waits>,
    /// The [`Waits::Named`] writes that have become ready and were not reported yet.
    pub(super) freed: Vec<Turn>,
    /// Set while all lanes of every credential are closed.
    pub(super) closed: Option<Closed>,
}

/// Barriers that close all lanes of a credential, and the instant at which they end.
#[derive(Clone, Debug)]
pub(super) struct Closed {
    pub(super) barriers: BTreeSet<ClassHash>,
    pub(super) until: Instant,
}

/// The way in which a waiting write learns that its lanes have opened.
#[derive(Debug)]
pub(super) enum Waits {
    /// Through its [`LanePosition`](super::LanePosition).
    Alone(oneshot::Sender<()>),
    /// Through [`Lanes::freed`](super::Lanes::freed).
    Named,
}

impl LanesState {
    /// Adds a new write to its lanes, and returns its turn.
    pub(super) fn enter(
        &mut self,
        credential: Credential,
        keys: Keys,
        expected: Instant,
        place: u64,
    ) -> Turn {
        let turn = self.next;
        self.next += 1;
        // A write without keys conflicts with none and needs no lane.
        if !keys.is_empty() {
            let lanes = self.lanes.entry(credential).or_default();
            lanes.enter(turn, keys, expected, place);
        }
        turn
    }

    /// Adds the barriers of [`Closed`] to a credential without lanes, and returns their turn.
    pub(super) fn enter_barrier(&mut self, credential: Credential) -> Option<Turn> {
        let closed = self.closed.as_ref()?;
        if self.lanes.contains_key(&credential) {
            return None;
        }
        let barrier = Keys::from_hashes([], closed.barriers.iter().copied());
        let until = closed.until;
        Some(self.enter(credential, barrier, until, NOWHERE))
    }

    /// Returns what resolves when the lanes of a write open. `None` if they are open. Checked and
    /// noted under one lock, so that no opening is missed.
    pub(super) fn wait_alone(
        &mut self,
        credential: Credential,
        turn: Turn,
    ) -> Option<oneshot::Receiver<()>> {
        self.is_blocked(credential, turn).then(|| {
            let (free, opening) = oneshot::channel();
            self.blocked.insert(turn, Waits::Alone(free));
            opening
        })
    }

    /// Lets a write be reported when its lanes open. Notes nothing if they are open.
    pub(super) fn wait_named(&mut self, credential: Credential, turn: Turn) {
        if self.is_blocked(credential, turn) {
            self.blocked.insert(turn, Waits::Named);
        }
    }

    fn is_blocked(&self, credential: Credential, turn: Turn) -> bool {
        let lanes = self.lanes.get(&credential);
        lanes.is_some_and(|lanes| !lanes.is_ready(turn))
    }

    /// Settles a write, and reports the named writes whose lanes it has opened. Returns the others.
    pub(super) fn settle(
        &mut self,
        credential: Credential,
        turn: Turn,
    ) -> Vec<oneshot::Sender<()>> {
        self.blocked.remove(&turn);
        let Some(lanes) = self.lanes.get_mut(&credential) else {
            return Vec::new();
        };
        let ready = lanes.settle(turn);
        if lanes.is_empty() {
            self.lanes.remove(&credential);
        }
        let mut opened = Vec::new();
        for turn in ready {
            match self.blocked.remove(&turn) {
                Some(Waits::Alone(free)) => opened.push(free),
                Some(Waits::Named) => self.freed.push(turn),
                None => {}
            }
        }
        opened
    }
}
