//! Pure. The line of one budget: whose turn it is among those who wait for a slot.
//!
//! Principals take turns, and the named callers behind one principal take turns within the
//! principal's turn: a name divides what a principal has, it does not add to it. Within one caller
//! the more urgent requests go first, and of equal ones the earlier. But one of `OLDEST_EVERY` of
//! its turns is for the request that has waited longest, so that none starves. Urgency counts among
//! a caller's own requests alone. A request that is not ready (an earlier write of its lanes has
//! not settled) keeps its position without holding up the others.
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

use crate::caller::{Caller, Principal};
use expected::{BlockedChange, ExpectedTimes};
use foldhash::HashMap;
use line::CallerLine;
use sizes::{LineSize, Sizes};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

mod by_urgency;
mod caller;
mod expected;
mod line;
mod sizes;
#[cfg(test)]
mod tests;

/// The waiting requests of one principal, by the name of the caller.
#[derive(Clone, Debug, Default)]
struct PrincipalLine {
    names: HashMap<Option<Arc<str>>, CallerLine>,
    /// The names with a request that is ready. The next turn is that of the first.
    ring: Ring<Option<Arc<str>>>,
    /// The sizes of the lines in `names`.
    sizes: Sizes,
    /// The number of requests under all names.
    size: LineSize,
    /// When the blocked requests under all names are expected to be ready.
    expected: ExpectedTimes,
    /// The place in the ring of the principals.
    turn: Option<u64>,
}

/// Those that take turns, by their place.
type Ring<K> = BTreeMap<u64, K>;

/// Gives one a place at the end of a ring, or takes its place, if it should have one or not.
fn set_turn<K>(ring: &mut Ring<K>, turn: &mut Option<u64>, has_ready: bool, key: impl Fn() -> K) {
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

/// The requests that wait for one budget.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    principals: HashMap<Principal, PrincipalLine>,
    /// The principals with a request that is ready. The next turn is that of the first.
    ring: Ring<Principal>,
    /// The sizes of the lines in `principals`.
    sizes: Sizes,
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

    /// The number of principals with waiting requests. Each of them goes once before any goes
    /// twice.
    pub fn principals(&self) -> usize {
        self.principals.len()
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
    /// and of its principal comes after everybody else's.
    pub fn pop(&mut self) -> Option<LinePosition> {
        // Caller and principal lose their places, and get new ones if they have another ready
        // request.
        let (_, address) = self.ring.pop_first()?;
        let principal = self.principals.get_mut(&address)?;
        principal.turn = None;
        let (_, name) = principal.ring.pop_first()?;
        let line = principal.names.get_mut(&name)?;
        line.turn = None;
        let place = line.take_turn()?;
        self.leave(place);
        Some(place)
    }

    /// Changes the line of a caller, and keeps what is known of all lines.
    fn change(&mut self, caller: &Caller, change: impl FnOnce(&mut CallerLine) -> BlockedChange) {
        // A principal without requests is forgotten below, which bounds the table by the line.
        let principal = self.principals.entry(caller.principal.clone()).or_default();
        let before = principal.size;
        let blocked = principal.change(&caller.name, change);
        let after = principal.size;
        set_turn(&mut self.ring, &mut principal.turn, after.ready > 0, || {
            caller.principal.clone()
        });
        self.sizes.change(before, after);
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
        // each other one goes at most as often as this one, the new request included. Of the
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
        // Of the other principals in the same way.
        let mut principals = self.sizes.first(ahead.count() + 1, own);
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

impl PrincipalLine {
    /// Changes the line of a caller, and keeps what is known of all lines of the principal.
    fn change(
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
        blocked
    }
}
