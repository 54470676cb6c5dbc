//! Pure. The waiting requests of one caller, and how many of them are ahead of a new one.

use super::caller::{LinePosition, Urgency};
use super::sizes::LineSize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Of so many turns of a caller, one is for the request that has waited longest.
pub(super) const OLDEST_EVERY: usize = 4;

/// The waiting requests of one caller.
#[derive(Clone, Debug, Default)]
pub(super) struct CallerLine {
    /// The requests that are ready, in the order of arrival.
    ready: BTreeSet<LinePosition>,
    /// The same requests, the more urgent first.
    urgent: BTreeSet<(Urgency, LinePosition)>,
    /// The number of the same requests, by urgency.
    urgencies: [usize; 8],
    /// The other requests, and when each is expected to be ready.
    pub(super) blocked: BTreeMap<LinePosition, (Instant, Urgency)>,
    /// The turns since one was for the request that had waited longest.
    turns: usize,
    /// The place in the ring of the peer's callers.
    pub(super) turn: Option<u64>,
}

impl CallerLine {
    /// Takes the next turn of the caller, and returns the request whose turn it is. The request
    /// stays in the line.
    pub(super) fn take_turn(&mut self) -> Option<LinePosition> {
        // Urgent requests that keep coming must not hold up an old one for ever.
        if self.turns + 1 >= OLDEST_EVERY {
            self.turns = 0;
            return self.ready.first().copied();
        }
        self.turns += 1;
        self.urgent.first().map(|(_, place)| *place)
    }

    /// Makes a blocked request ready.
    pub(super) fn ready(&mut self, place: LinePosition, urgency: Urgency) {
        if self.blocked.remove(&place).is_some() {
            self.ready.insert(place);
            self.urgent.insert((urgency, place));
            self.urgencies[usize::from(urgency.0)] += 1;
        }
    }

    /// Removes a request.
    pub(super) fn remove(&mut self, place: LinePosition, urgency: Urgency) {
        self.blocked.remove(&place);
        self.urgent.remove(&(urgency, place));
        if self.ready.remove(&place) {
            self.urgencies[usize::from(urgency.0)] -= 1;
        }
    }

    pub(super) fn size(&self) -> LineSize {
        LineSize {
            ready: self.ready.len(),
            blocked: self.blocked.len(),
        }
    }

    /// The position of the request that joined first, ready or not.
    pub(super) fn first(&self) -> Option<LinePosition> {
        let blocked = self.blocked.keys().next();
        self.ready.first().into_iter().chain(blocked).min().copied()
    }

    /// The requests that are ready, or expected to be at `until`.
    pub(super) fn by(&self, until: Option<Instant>) -> Ahead {
        self.those(until, |_| true)
    }

    /// The same, of the urgencies that `which` selects.
    /// A request that is ready later than `until` cannot go before one that is sent by then.
    fn those(&self, until: Option<Instant>, which: impl Fn(Urgency) -> bool) -> Ahead {
        let of_each = (0..).map(Urgency).zip(self.urgencies);
        let ready = of_each.filter(|(of, _)| which(*of)).map(|(_, n)| n).sum();
        let blocked = self.blocked.values();
        let mut blocked: Vec<Instant> = blocked
            .filter(|(at, of)| which(*of) && until.is_none_or(|until| *at <= until))
            .map(|(at, _)| *at)
            .collect();
        blocked.sort_unstable();
        Ahead { ready, blocked }
    }

    /// The requests that may go before a new one of the same caller: an upper bound.
    pub(super) fn before(&self, newcomer: Urgency, until: Option<Instant>) -> Ahead {
        let mut ahead = self.those(until, |of| of <= newcomer);
        // Of each `OLDEST_EVERY` turns one may be for somebody less urgent, the next one first.
        let oldest = (ahead.count() + 1).div_ceil(OLDEST_EVERY - 1);
        ahead.join([self.those(until, |of| of > newcomer).first(oldest)]);
        ahead
    }
}

/// The requests that may go before a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// The number of those that are ready.
    pub ready: usize,
    /// When each of the others is expected to be ready, the soonest first.
    pub blocked: Vec<Instant>,
}

impl Ahead {
    /// The number of all of them.
    pub fn count(&self) -> usize {
        self.ready + self.blocked.len()
    }

    /// The `most` of them that can go soonest.
    /// Ready requests count as sooner than all others.
    pub(super) fn first(mut self, most: usize) -> Self {
        self.ready = self.ready.min(most);
        self.blocked.truncate(most - self.ready);
        self
    }

    /// Adds others. The list of times stays sorted.
    pub(super) fn join(&mut self, others: impl IntoIterator<Item = Self>) {
        for other in others {
            self.ready += other.ready;
            self.blocked.extend(other.blocked);
        }
        self.blocked.sort_unstable();
    }
}
