//! Pure. The waiting requests of one principal, and the rings in which turns are taken.
//!
//! The names of a principal take turns within its own: one request of each. How many requests go
//! in a turn of the principal is its weight.

use super::expected::{BlockedChange, ExpectedTimes};
use super::line::CallerLine;
use super::sizes::{LineSize, Sizes};
use super::weight::Weight;
use crate::limit::turns::LinePosition;
use foldhash::HashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The waiting requests of one principal, by the name of the caller.
#[derive(Clone, Debug, Default)]
pub(super) struct PrincipalLine {
    pub(super) names: HashMap<Option<Arc<str>>, CallerLine>,
    /// The names with a request that is ready. The next turn is that of the first.
    pub(super) ring: Ring<Option<Arc<str>>>,
    /// The sizes of the lines in `names`.
    pub(super) sizes: Sizes,
    /// The number of requests under all names.
    pub(super) size: LineSize,
    /// When the blocked requests under all names are expected to be ready.
    pub(super) expected: ExpectedTimes,
    /// The most requests that go in one turn.
    pub(super) weight: Weight,
    /// The number of those that have gone in the present turn, less than the weight. 0 unless the
    /// principal is the first of the ring.
    pub(super) gone: usize,
    /// The place in the ring of the principals.
    pub(super) turn: Option<u64>,
}

/// Those that take turns, by their place.
pub(super) type Ring<K> = BTreeMap<u64, K>;

/// Gives one a place at the end of a ring, or takes its place, if it should have one or not.
pub(super) fn set_turn<K>(
    ring: &mut Ring<K>,
    turn: &mut Option<u64>,
    has_ready: bool,
    key: impl Fn() -> K,
) {
    match *turn {
        None if has_ready => {
            let place = ring.last_key_value().map_or(0, |(last, _)| last + 1);
            ring.insert(place, key());
            *turn = Some(place);
        }
        Some(place) if !has_ready => {
            ring.remove(&place);
            *turn = None;
        }
        _ => {}
    }
}

impl PrincipalLine {
    /// Creates an empty line.
    pub(super) fn new(weight: Weight) -> Self {
        Self {
            weight,
            ..Self::default()
        }
    }

    /// Takes the next turn within that of the principal. The request stays in the line until it is
    /// removed. The next turn of its name comes after that of all other names.
    pub(super) fn take_turn(&mut self) -> Option<LinePosition> {
        let (_, name) = self.ring.pop_first()?;
        let line = self.names.get_mut(&name)?;
        line.turn = None;
        self.gone += 1;
        line.take_turn()
    }

    /// Ends the present turn if as many requests have gone in it as the weight says, and takes the
    /// place of the principal in the ring. A turn also ends early, when nothing is ready any more.
    pub(super) fn end_turn_if_over<K>(&mut self, ring: &mut Ring<K>) {
        if self.gone >= self.weight.requests() {
            self.gone = 0;
            if let Some(place) = self.turn.take() {
                ring.remove(&place);
            }
        }
    }

    /// Changes the line of a caller, and keeps what is known of all lines of the principal.
    pub(super) fn change(
        &mut self,
        name: &Option<Arc<str>>,
        change: impl FnOnce(&mut CallerLine) -> BlockedChange,
    ) -> BlockedChange {
        // The ring and the sizes follow what has changed, whatever it was.
        let line = self.names.entry(name.clone()).or_default();
        let before = line.size();
        let blocked = change(line);
        let after = line.size();
        set_turn(&mut self.ring, &mut line.turn, after.ready > 0, || {
            name.clone()
        });
        self.sizes.change(before, after);
        self.expected.change(blocked);
        self.size.ready = self.size.ready + after.ready - before.ready;
        self.size.blocked = self.size.blocked + after.blocked - before.blocked;
        if after.total() == 0 {
            self.names.remove(name);
        }
        // Whoever has nobody ready leaves the ring, and comes back to the end of it.
        if self.size.ready == 0 {
            self.gone = 0;
        }
        blocked
    }
}
