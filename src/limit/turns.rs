//! Pure. The line of one budget: whose turn it is among those who wait for a slot.
//!
//! Principals take turns: weighted round robin. In one turn as many requests of a principal go as
//! its weight says, if that many are ready. One without a ready request gives up the rest of its
//! turn and comes back to the end of the ring, so leaving gains nothing. The named callers behind
//! one principal take turns within the principal's turn: a name divides what a principal has, it
//! does not add to it.
//!
//! Within one caller the more urgent requests go first, and of equal ones the earlier. But one of
//! `OLDEST_EVERY` of its turns is for the request that has waited longest, so that none starves.
//! Urgency counts among a caller's own requests alone. A request that is not ready (an earlier
//! write of its lanes has not settled) keeps its position without holding up the others.
//!
//! Invariant: a principal is in the ring of principals exactly if one of its callers is in the
//! principal's own ring, and a caller is in that exactly if one of its requests is ready. Every
//! change to a line goes through `Turns::change`, which keeps the rings, the sizes and the expected
//! times. So a turn takes a time that is logarithmic in the length of the line. What is ahead of a
//! request is known from the sizes and times, without a look at each caller. This module knows
//! neither slots nor time limits.

pub(crate) use by_urgency::ByUrgency;
pub use caller::{CallerShare, LinePosition, Urgency};
pub use sizes::Ahead;
pub use weight::ClientWeights;

use crate::caller::{Caller, Principal};
use expected::{BlockedChange, ExpectedTimes};
use foldhash::HashMap;
use line::CallerLine;
use principal::{PrincipalLine, Ring, set_turn};
use sizes::{LineSize, WeightedSizes};
use std::sync::Arc;
use std::time::Instant;

mod by_urgency;
mod caller;
mod expected;
mod line;
mod principal;
mod sizes;
#[cfg(test)]
mod tests;
mod weight;

/// The requests that wait for one budget.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    principals: HashMap<Principal, PrincipalLine>,
    /// The principals with a request that is ready. The next turn is that of the first.
    ring: Ring<Principal>,
    /// The weights of all clients, those without waiting requests included.
    weights: Arc<ClientWeights>,
    /// The sizes of the lines in `principals`.
    sizes: WeightedSizes,
    /// When all blocked requests are expected to be ready.
    expected: ExpectedTimes,
    /// The caller and the urgency of each request, by which it is found in the maps above.
    callers: HashMap<LinePosition, (Caller, Urgency)>,
}

impl Turns {
    /// The number of waiting requests, ready or not.
    pub fn len(&self) -> usize {
        self.callers.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.callers.is_empty()
    }

    /// Whether any request is ready.
    pub fn has_ready(&self) -> bool {
        !self.ring.is_empty()
    }

    /// The positions of all waiting requests, in no order.
    pub fn places(&self) -> impl Iterator<Item = LinePosition> {
        self.callers.keys().copied()
    }

    /// The requests of other principals that may go before `requests` of this one have gone, if it
    /// has that many that are ready: an upper bound. Between two turns of a principal each other
    /// one has at most one.
    pub fn others_before(&self, principal: &Principal, requests: usize) -> usize {
        let weight = self.weights.of(principal);
        let own = self.principals.get(principal);
        let own = own.map_or(0, |own| own.weight.requests());
        weight.turns_of(requests) * (self.sizes.weights() - own)
    }

    /// Applies other weights, to the present turn as well: a principal of which as many requests
    /// have gone in it goes to the end.
    pub fn set_weights(&mut self, weights: Arc<ClientWeights>) {
        for (principal, line) in &mut self.principals {
            let weight = weights.of(principal);
            self.sizes
                .change(line.weight, line.size, LineSize::default());
            self.sizes.change(weight, LineSize::default(), line.size);
            line.weight = weight;
            line.end_turn_if_over(&mut self.ring);
            let has_ready = line.size.ready > 0;
            set_turn(&mut self.ring, &mut line.turn, has_ready, || {
                principal.clone()
            });
        }
        self.weights = weights;
    }

    /// The `most` callers whose first requests have waited longest, the longest first. Looks at
    /// each caller once and at none of its other requests, so that operators who ask for it do not
    /// hold up a long line.
    ///
    /// This is the order of arrival and not that of turns: an urgent request may go first, and one
    /// whose lane is closed goes later.
    pub fn longest(&self, most: usize) -> Vec<CallerShare> {
        let lines = self.principals.iter().flat_map(|(principal, line)| {
            let names = line.names.iter();
            names
                .filter_map(move |(name, line)| Some((line.first()?, principal, name, line.size())))
        });
        let mut lines: Vec<_> = lines.collect();
        if lines.len() > most && most > 0 {
            lines.select_nth_unstable_by_key(most - 1, |(first, ..)| *first);
        }
        lines.truncate(most);
        lines.sort_unstable_by_key(|(first, ..)| *first);
        let shares = lines
            .into_iter()
            .map(|(first, principal, name, size)| CallerShare {
                caller: Caller {
                    principal: principal.clone(),
                    name: name.clone(),
                },
                queued: size.total(),
                blocked: size.blocked,
                first,
            });
        shares.collect()
    }

    /// Whether a caller has its share of `most` positions. A principal without a name has half of
    /// them. Its names have as many together, and one name half of that.
    pub fn has_share(&self, caller: &Caller, most: usize) -> bool {
        let Some(principal) = self.principals.get(&caller.principal) else {
            return most == 0;
        };
        let of = |name: &Option<Arc<str>>| {
            let line = principal.names.get(name);
            line.map_or(0, |line| line.size().total())
        };
        // The requests without a name count apart from all named ones.
        let nameless = of(&None);
        match &caller.name {
            None => nameless >= most.div_ceil(2),
            Some(_) => {
                let named = principal.size.total() - nameless;
                named >= most.div_ceil(2) || of(&caller.name) >= most.div_ceil(4)
            }
        }
    }

    /// Adds a request that is not ready. `expected` is when it is expected to be.
    pub fn join(
        &mut self,
        place: LinePosition,
        caller: Caller,
        urgency: Urgency,
        expected: Instant,
    ) {
        // Not in the rings yet: only a ready request has a turn.
        self.change(&caller, |line| line.join(place, urgency, expected));
        self.callers.insert(place, (caller, urgency));
    }

    /// Makes a request ready. Nothing happens if it is not in the line.
    pub fn ready(&mut self, place: LinePosition) {
        if let Some((caller, urgency)) = self.callers.get(&place).cloned() {
            self.change(&caller, |line| line.ready(place, urgency));
        }
    }

    /// Removes a request from the line. Returns `false` if it was not in it.
    pub fn leave(&mut self, place: LinePosition) -> bool {
        let Some((caller, urgency)) = self.callers.remove(&place) else {
            return false;
        };
        self.change(&caller, |line| line.remove(place, urgency));
        true
    }

    /// Removes the request whose turn it is, and returns its position. The next turn of its caller
    /// comes after those of the principal's other callers. The next turn of the principal, once as
    /// many have gone as its weight says, comes after those of all others.
    pub fn pop(&mut self) -> Option<LinePosition> {
        let address = self.ring.first_key_value()?.1.clone();
        let principal = self.principals.get_mut(&address)?;
        let place = principal.take_turn()?;
        // Whoever loses its place gets one at the end if another request is ready: see `change`.
        principal.end_turn_if_over(&mut self.ring);
        self.leave(place);
        Some(place)
    }

    /// Changes the line of a caller, and keeps what is known of all lines.
    fn change(&mut self, caller: &Caller, change: impl FnOnce(&mut CallerLine) -> BlockedChange) {
        // A principal without requests is forgotten below, which bounds the table by the line.
        let entry = self.principals.entry(caller.principal.clone());
        let principal =
            entry.or_insert_with(|| PrincipalLine::new(self.weights.of(&caller.principal)));
        let before = principal.size;
        let blocked = principal.change(&caller.name, change);
        let after = principal.size;
        set_turn(&mut self.ring, &mut principal.turn, after.ready > 0, || {
            caller.principal.clone()
        });
        self.sizes.change(principal.weight, before, after);
        self.expected.change(blocked);
        if after.total() == 0 {
            self.principals.remove(&caller.principal);
        }
    }

    /// The requests that may go before a new one of `caller`, if no other arrives: an upper bound.
    /// With `until`, only those that are expected to be ready by then, for a new request that is
    /// known to go by then.
    pub fn ahead_of(&self, caller: &Caller, urgency: Urgency, until: Option<Instant>) -> Ahead {
        // Within the caller by urgency. Between names and between principals one turn each, so that
        // each other one has at most as many turns as this one, the new request included. Of the
        // blocked ones no more than the turns of their lines allow, and no more than are expected
        // in time: two bounds, of which the lower one counts.
        let mut ahead = Ahead::default();
        let (mut own, mut own_blocked) = (LineSize::default(), 0);
        if let Some(principal) = self.principals.get(&caller.principal) {
            own = principal.size;
            own_blocked = principal.expected.by(until);
            let mine = principal.names.get(&caller.name);
            if let Some(mine) = mine {
                ahead = mine.before(urgency, until);
            }
            let mine_blocked = mine.map_or(0, |mine| mine.blocked_by(until));
            let mine = mine.map(CallerLine::size).unwrap_or_default();
            let mut names = principal.sizes.first(ahead.count() + 1, mine);
            names.blocked = names.blocked.min(own_blocked - mine_blocked);
            ahead += names;
        }
        // Of the other principals in the same way. Each has at most one turn before each of this
        // one's, whoever is amid a turn: an own turn that has begun saves one of the others, and
        // the rest of another's is no more than a whole one.
        let weight = self.weights.of(&caller.principal);
        let turns = weight.turns_of(ahead.count() + 1);
        let mut principals = self.sizes.first(turns, weight, own);
        principals.blocked = principals
            .blocked
            .min(self.expected.by(until) - own_blocked);
        ahead += principals;
        ahead
    }

    /// All waiting requests, as for a new one that lets all others go first. With `until`, only
    /// those that are expected to be ready by then.
    pub fn everyone(&self, until: Option<Instant>) -> Ahead {
        Ahead {
            ready: self.len() - self.expected.len(),
            blocked: self.expected.by(until),
        }
    }

    /// When `others` requests and one more are expected to be ready, of one principal alone if one
    /// is given. `None` if fewer wait.
    pub fn ready_at(
        &self,
        others: usize,
        principal: Option<&Principal>,
        now: Instant,
    ) -> Option<Instant> {
        let (ready, expected) = match principal {
            Some(principal) => {
                let principal = self.principals.get(principal)?;
                (principal.size.ready, &principal.expected)
            }
            None => (self.len() - self.expected.len(), &self.expected),
        };
        match others.checked_sub(ready) {
            None => Some(now),
            Some(blocked) => expected.nth(blocked).map(|at| at.max(now)),
        }
    }

    /// All waiting requests in the order in which they would go if all were ready and no other
    /// arrived. Each has the time at which it is expected to be ready, if it is not.
    pub fn in_order(&self) -> Vec<(LinePosition, Option<Instant>)> {
        // The turns are taken on a copy, so that they come out as they would in time.
        let mut expected = HashMap::default();
        for names in self
            .principals
            .values()
            .flat_map(|principal| principal.names.values())
        {
            let blocked = names.blocked.iter();
            expected.extend(blocked.map(|(place, at)| (*place, *at)));
        }
        // From the present turn on. Requests that are not ready come after, as they arrived.
        let mut copy = self.clone();
        let mut blocked: Vec<LinePosition> = expected.keys().copied().collect();
        blocked.sort_unstable();
        for place in blocked {
            copy.ready(place);
        }
        std::iter::from_fn(|| copy.pop())
            .map(|place| (place, expected.get(&place).copied()))
            .collect()
    }
}
