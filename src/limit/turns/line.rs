//! Pure. The waiting requests of one caller, and how many of them are ahead of a new one.

use super::by_urgency::{ByUrgency, OLDEST_EVERY};
use super::caller::{LinePosition, Urgency};
use super::expected::{BlockedChange, ExpectedTimes};
use super::sizes::{Ahead, LineSize};
use std::collections::BTreeMap;
use std::time::Instant;

/// The waiting requests of one caller.
#[derive(Clone, Debug, Default)]
pub(super) struct CallerLine {
    /// The requests that are ready.
    ready: ByUrgency,
    /// The number of the same requests, by urgency.
    urgencies: [usize; 8],
    /// The other requests, and when each is expected to be ready.
    pub(super) blocked: BTreeMap<LinePosition, Instant>,
    /// The number of the blocked requests, by urgency.
    blocked_urgencies: [usize; 8],
    /// When the blocked requests are expected.
    expected: ExpectedTimes,
    /// The place in the ring of the principal's callers.
    pub(super) turn: Option<u64>,
}

impl CallerLine {
    /// Takes the next turn of the caller, and returns the request whose turn it is. The request
    /// stays in the line.
    pub(super) fn take_turn(&mut self) -> Option<LinePosition> {
        self.ready.take_turn()
    }

    /// Adds a blocked request.
    pub(super) fn join(
        &mut self,
        place: LinePosition,
        urgency: Urgency,
        at: Instant,
    ) -> BlockedChange {
        self.blocked.insert(place, at);
        self.blocked_urgencies[usize::from(urgency.0)] += 1;
        self.note(BlockedChange::Blocked(at))
    }

    /// Makes a blocked request ready.
    pub(super) fn ready(&mut self, place: LinePosition, urgency: Urgency) -> BlockedChange {
        let Some(change) = self.unblock(place, urgency) else {
            return BlockedChange::Nothing;
        };
        self.ready.insert(place, urgency);
        self.urgencies[usize::from(urgency.0)] += 1;
        change
    }

    /// Removes a request.
    pub(super) fn remove(&mut self, place: LinePosition, urgency: Urgency) -> BlockedChange {
        if self.ready.remove(place, urgency) {
            self.urgencies[usize::from(urgency.0)] -= 1;
        }
        let unblocked = self.unblock(place, urgency);
        unblocked.unwrap_or(BlockedChange::Nothing)
    }

    /// Removes a blocked request. `None` if there is none at this position.
    fn unblock(&mut self, place: LinePosition, urgency: Urgency) -> Option<BlockedChange> {
        let at = self.blocked.remove(&place)?;
        self.blocked_urgencies[usize::from(urgency.0)] -= 1;
        Some(self.note(BlockedChange::Unblocked(at)))
    }

    fn note(&mut self, change: BlockedChange) -> BlockedChange {
        self.expected.change(change);
        change
    }

    pub(super) fn size(&self) -> LineSize {
        LineSize {
            ready: self.ready.len(),
            blocked: self.blocked.len(),
        }
    }

    /// The position of the request that joined first, ready or not.
    pub(super) fn first(&self) -> Option<LinePosition> {
        let blocked = self.blocked.keys().next().copied();
        self.ready.oldest().into_iter().chain(blocked).min()
    }

    /// The number of the blocked requests that are expected at `until`, or of all.
    pub(super) fn blocked_by(&self, until: Option<Instant>) -> usize {
        self.expected.by(until)
    }

    /// The requests of the urgencies that `which` selects: an upper bound. A request that is ready
    /// later than `until` cannot go before one that is sent by then.
    fn those(&self, until: Option<Instant>, which: impl Fn(Urgency) -> bool) -> Ahead {
        let count = |of_each: &[usize; 8]| {
            let of_each = (0..).map(Urgency).zip(of_each);
            of_each.filter(|(of, _)| which(*of)).map(|(_, n)| n).sum()
        };
        let blocked: usize = count(&self.blocked_urgencies);
        Ahead {
            ready: count(&self.urgencies),
            blocked: blocked.min(self.blocked_by(until)),
        }
    }

    /// The requests that may go before a new one of the same caller: an upper bound.
    pub(super) fn before(&self, newcomer: Urgency, until: Option<Instant>) -> Ahead {
        let mut ahead = self.those(until, |of| of <= newcomer);
        // Of each `OLDEST_EVERY` turns one may be for somebody less urgent, the next one first.
        let oldest = (ahead.count() + 1).div_ceil(OLDEST_EVERY - 1);
        ahead += self.those(until, |of| of > newcomer).first(oldest);
        ahead.blocked = ahead.blocked.min(self.blocked_by(until));
        ahead
    }
}
