//! Pure. The line of one budget: whose turn it is among those who wait for a slot.
//!
//! Peers take turns, and the named callers behind one peer take turns within the peer's turn: a
//! name divides what a peer has, it does not add to it. Within one caller the more urgent requests
//! go first, and of equal ones the earlier. But one of `OLDEST_EVERY` of its turns is for the
//! request that has waited longest, so that none starves. Urgency counts among a caller's own
//! requests alone. A request that is not ready (an earlier write of its lanes has not settled)
//! keeps its position without holding up the others.
//!
//! Invariant: a peer is in the ring of peers exactly if one of its callers is in the peer's own
//! ring, and a caller is in that exactly if one of its requests is ready. So a turn costs the same
//! however long the line is. This module knows neither slots nor time limits.

use foldhash::HashMap;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// The caller of a request: the peer's address, divided by a name that a trusted peer may give.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The address of the connection.
    pub peer: IpAddr,
    /// From `X-Gateway-Caller`: at most 64 printable ASCII bytes.
    pub name: Option<Arc<str>>,
}

/// A position in the line. Positions are numbered in the order of arrival.
pub type LinePosition = u64;

/// The urgency of a request, from 0 (most) to 7 (RFC 9218, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Urgency(u8);

impl Urgency {
    /// The default of a deferred write, for which no caller waits.
    pub const DEFERRED: Self = Self(5);

    /// The urgency of work that may wait for everything else.
    pub const LEAST: Self = Self(7);

    /// The urgency `u`. `None` if it is above 7.
    pub fn new(u: u8) -> Option<Self> {
        (u <= 7).then_some(Self(u))
    }
}

impl Default for Urgency {
    /// 3, as in RFC 9218.
    fn default() -> Self {
        Self(3)
    }
}

/// Of so many turns of a caller, one is for the request that has waited longest.
const OLDEST_EVERY: usize = 4;

/// The waiting requests of one caller.
#[derive(Clone, Debug, Default)]
struct CallerLine {
    /// The requests that are ready, in the order of arrival.
    ready: BTreeSet<LinePosition>,
    /// The same requests, the more urgent first.
    urgent: BTreeSet<(Urgency, LinePosition)>,
    /// The other requests, and when each is expected to be ready.
    blocked: BTreeMap<LinePosition, (Instant, Urgency)>,
    /// The turns since one was for the request that had waited longest.
    turns: usize,
}

impl CallerLine {
    /// Takes the next turn of the caller, and returns the request whose turn it is. The request
    /// stays in the line.
    fn take_turn(&mut self) -> Option<LinePosition> {
        // Urgent requests that keep coming must not hold up an old one for ever.
        if self.turns + 1 >= OLDEST_EVERY {
            self.turns = 0;
            return self.ready.first().copied();
        }
        self.turns += 1;
        self.urgent.first().map(|(_, place)| *place)
    }

    /// The requests that are ready, or expected to be at `until`.
    fn by(&self, until: Option<Instant>) -> Ahead {
        self.those(until, |_| true)
    }

    /// The same, of the urgencies that `which` selects.
    /// A request that is ready later than `until` cannot go before one that is sent by then.
    fn those(&self, until: Option<Instant>, which: impl Fn(Urgency) -> bool) -> Ahead {
        let ready = self.urgent.iter().filter(|(of, _)| which(*of)).count();
        let blocked = self.blocked.values();
        let mut blocked: Vec<Instant> = blocked
            .filter(|(at, of)| which(*of) && until.is_none_or(|until| *at <= until))
            .map(|(at, _)| *at)
            .collect();
        blocked.sort_unstable();
        Ahead { ready, blocked }
    }

    /// The requests that may go before a new one of the same caller: an upper bound.
    fn before(&self, newcomer: Urgency, until: Option<Instant>) -> Ahead {
        let mut ahead = self.those(until, |of| of <= newcomer);
        // Of each `OLDEST_EVERY` turns one may be for somebody less urgent, the next one first.
        let oldest = (ahead.count() + 1).div_ceil(OLDEST_EVERY - 1);
        ahead.join(self.those(until, |of| of > newcomer).first(oldest));
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
    fn first(mut self, most: usize) -> Self {
        self.ready = self.ready.min(most);
        self.blocked.truncate(most - self.ready);
        self
    }

    /// Adds others. Both lists of times stay sorted.
    fn join(&mut self, mut other: Self) {
        self.ready += other.ready;
        if !other.blocked.is_empty() {
            self.blocked.append(&mut other.blocked);
            self.blocked.sort_unstable();
        }
    }
}

/// The waiting requests of one peer, by the name of the caller.
#[derive(Clone, Debug, Default)]
struct PeerLine {
    names: HashMap<Option<Arc<str>>, CallerLine>,
    /// The names with a request that is ready. The next turn is that of the first.
    ring: VecDeque<Option<Arc<str>>>,
    /// The number of requests under all names, ready or not.
    waiting: usize,
}

/// The requests that wait for one budget.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    peers: HashMap<IpAddr, PeerLine>,
    /// The peers with a request that is ready. The next turn is that of the first.
    ring: VecDeque<IpAddr>,
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

    /// The number of peers with waiting requests. Each of them goes once before any goes twice.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Whether a caller has its share of `most` positions. A peer without a name has half of them.
    /// Its names have as many together, and one name half of that.
    pub fn has_share(&self, caller: &Caller, most: usize) -> bool {
        let Some(peer) = self.peers.get(&caller.peer) else {
            return most == 0;
        };
        let of = |name: &Option<Arc<str>>| {
            let line = peer.names.get(name);
            line.map_or(0, |line| line.ready.len() + line.blocked.len())
        };
        // The requests without a name count apart from all named ones.
        let nameless = of(&None);
        match &caller.name {
            None => nameless >= most.div_ceil(2),
            Some(_) => {
                let named = peer.waiting - nameless;
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
        let peer = self.peers.entry(caller.peer).or_default();
        peer.waiting += 1;
        peer.names
            .entry(caller.name.clone())
            .or_default()
            .blocked
            .insert(place, (expected, urgency));
        self.callers.insert(place, (caller, urgency));
    }

    /// Makes a request ready. Nothing happens if it is not in the line.
    pub fn ready(&mut self, place: LinePosition) {
        let Some((caller, urgency)) = self.callers.get(&place) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&caller.peer) else {
            return;
        };
        let Some(names) = peer.names.get_mut(&caller.name) else {
            return;
        };
        if names.blocked.remove(&place).is_none() {
            return;
        }
        // The first ready request of a caller gives it a turn, and its peer one if it had none.
        if names.ready.is_empty() {
            if peer.ring.is_empty() {
                self.ring.push_back(caller.peer);
            }
            peer.ring.push_back(caller.name.clone());
        }
        names.ready.insert(place);
        names.urgent.insert((*urgency, place));
    }

    /// Removes a request from the line. Returns `false` if it was not in it.
    pub fn leave(&mut self, place: LinePosition) -> bool {
        let Some((caller, urgency)) = self.callers.remove(&place) else {
            return false;
        };
        let Some(peer) = self.peers.get_mut(&caller.peer) else {
            return false;
        };
        // The last ready request of a caller takes its turn along, and that of its peer. Blocked
        // requests have none: a crowd of them that hangs up searches nothing.
        let names = peer.names.get(&caller.name);
        let had_turn = names.is_some_and(|names| !names.ready.is_empty());
        if !peer.remove(&caller.name, place, urgency) && had_turn {
            peer.ring.retain(|name| *name != caller.name);
            // A peer without turns of its callers has none itself.
            if peer.ring.is_empty() {
                self.ring.retain(|peer| *peer != caller.peer);
            }
        }
        if peer.waiting == 0 {
            self.peers.remove(&caller.peer);
        }
        true
    }

    /// Removes the request whose turn it is, and returns its position. The next turn of its caller
    /// and of its peer comes after everybody else's.
    pub fn pop(&mut self) -> Option<LinePosition> {
        // Caller and peer go to the back of their rings, if they have another ready request.
        let address = self.ring.pop_front()?;
        let peer = self.peers.get_mut(&address)?;
        let name = peer.ring.pop_front()?;
        let place = peer.names.get_mut(&name)?.take_turn()?;
        let (_, urgency) = self.callers.remove(&place)?;
        if peer.remove(&name, place, urgency) {
            peer.ring.push_back(name);
        }
        if !peer.ring.is_empty() {
            self.ring.push_back(address);
        }
        if peer.waiting == 0 {
            self.peers.remove(&address);
        }
        Some(place)
    }

    /// The requests that may go before a new one of `caller`, if no other arrives: an upper bound.
    /// With `until`, only those that are expected to be ready by then, for a new request that is
    /// known to go by then.
    pub fn ahead_of(&self, caller: &Caller, urgency: Urgency, until: Option<Instant>) -> Ahead {
        // Within the caller by urgency. Between names and between peers one turn each, so that each
        // other one goes at most as often as this one, the new request included.
        let mut ahead = Ahead::default();
        if let Some(peer) = self.peers.get(&caller.peer) {
            if let Some(mine) = peer.names.get(&caller.name) {
                ahead = mine.before(urgency, until);
            }
            let turns = ahead.count() + 1;
            for (_, names) in peer.names.iter().filter(|(name, _)| **name != caller.name) {
                ahead.join(names.by(until).first(turns));
            }
        }
        let turns = ahead.count() + 1;
        for (_, peer) in self.peers.iter().filter(|(peer, _)| **peer != caller.peer) {
            ahead.join(peer.by(until).first(turns));
        }
        ahead
    }

    /// All waiting requests, as for a new one that lets all others go first.
    pub fn everyone(&self) -> Ahead {
        let mut all = Ahead::default();
        for peer in self.peers.values() {
            all.join(peer.by(None));
        }
        all
    }

    /// When the first request is expected to be ready, of one peer alone if one is given. `now` if
    /// one is ready, `None` if none waits.
    pub fn first_ready(&self, peer: Option<IpAddr>, now: Instant) -> Option<Instant> {
        let peers = self.peers.iter();
        let peers = peers.filter(|(address, _)| peer.is_none_or(|peer| peer == **address));
        peers
            .map(|(_, peer)| match peer.ring.is_empty() {
                false => now,
                true => peer
                    .by(None)
                    .blocked
                    .first()
                    .map_or(now, |at| *at.max(&now)),
            })
            .min()
    }

    /// All waiting requests in the order in which they would go if all were ready and no other
    /// arrived. Each has the time at which it is expected to be ready, if it is not.
    pub fn in_order(&self) -> Vec<(LinePosition, Option<Instant>)> {
        // The turns are taken on a copy, so that they come out as they would in time.
        let mut expected = HashMap::default();
        for names in self.peers.values().flat_map(|peer| peer.names.values()) {
            let blocked = names.blocked.iter();
            expected.extend(blocked.map(|(place, (at, _))| (*place, *at)));
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

impl PeerLine {
    /// Removes a request. Returns whether another one of that name is ready.
    fn remove(&mut self, name: &Option<Arc<str>>, place: LinePosition, urgency: Urgency) -> bool {
        let Some(line) = self.names.get_mut(name) else {
            return false;
        };
        self.waiting -= 1;
        line.blocked.remove(&place);
        line.urgent.remove(&(urgency, place));
        line.ready.remove(&place);
        let is_ready = !line.ready.is_empty();
        if !is_ready && line.blocked.is_empty() {
            self.names.remove(name);
        }
        is_ready
    }

    /// The requests that are ready, or expected to be at `until`.
    fn by(&self, until: Option<Instant>) -> Ahead {
        let mut all = Ahead::default();
        for names in self.names.values() {
            all.join(names.by(until));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use proptest::prelude::*;

    const USUAL: Urgency = Urgency(3);

    fn caller(peer: u8, name: Option<u8>) -> Caller {
        Caller {
            peer: IpAddr::from([10, 0, 0, peer]),
            name: name.map(|name| Arc::from(format!("team-{name}"))),
        }
    }

    /// An instant; which one does not matter.
    fn now() -> Instant {
        Clock::system().now()
    }

    fn everyone(turns: &mut Turns) -> Vec<LinePosition> {
        std::iter::from_fn(|| turns.pop()).collect()
    }

    #[test]
    fn a_bulk_of_one_caller_does_not_starve_a_single_write_of_another() {
        let mut turns = Turns::default();
        for place in 0..100 {
            turns.join(place, caller(1, None), USUAL, now());
            turns.ready(place);
        }
        turns.join(100, caller(2, None), USUAL, now());
        turns.ready(100);
        assert_eq!(turns.ahead_of(&caller(3, None), USUAL, None).ready, 2);
        let order = everyone(&mut turns);
        assert!(order.iter().position(|place| *place == 100).unwrap() <= 1);
    }

    #[test]
    fn names_divide_a_peers_turn_and_do_not_add_to_it() {
        let mut turns = Turns::default();
        for place in 0..40 {
            turns.join(place, caller(1, Some((place % 10) as u8)), USUAL, now());
            turns.ready(place);
        }
        for place in 40..44 {
            turns.join(place, caller(2, None), USUAL, now());
            turns.ready(place);
        }
        let order = everyone(&mut turns);
        let of_second = order[..8].iter().filter(|place| **place >= 40).count();
        assert_eq!(
            of_second, 4,
            "ten names get no more than one peer's half: {order:?}"
        );
    }

    #[test]
    fn those_not_ready_hold_nobody_up() {
        let mut turns = Turns::default();
        turns.join(0, caller(1, None), USUAL, now());
        turns.join(1, caller(1, None), USUAL, now());
        turns.ready(1);
        assert_eq!(turns.pop(), Some(1));
        assert_eq!(turns.pop(), None);
        turns.ready(0);
        assert_eq!(turns.pop(), Some(0));
        assert!(turns.is_empty() && turns.peers.is_empty() && turns.ring.is_empty());
    }

    #[test]
    fn the_urgent_go_first_and_nobody_starves() {
        let mut turns = Turns::default();
        let urgency = |place: LinePosition| Urgency(if place < 10 { 7 } else { 0 });
        for place in 0..40 {
            turns.join(place, caller(1, None), urgency(place), now());
            turns.ready(place);
        }
        let ahead = |u: u8| {
            let ahead = turns.ahead_of(&caller(1, None), Urgency(u), None);
            ahead.ready
        };
        // 30 as urgent, and each fourth turn for the others until it is the newcomer's.
        assert_eq!((ahead(0), ahead(6), ahead(7)), (30 + 10, 30 + 10, 40));
        let order = everyone(&mut turns);
        assert_eq!(order[..8], [10, 11, 12, 0, 13, 14, 15, 1]);
        assert_eq!(order.len(), 40);
    }

    #[test]
    fn the_order_begins_with_whose_turn_it_is() {
        let mut turns = Turns::default();
        for place in 0..12 {
            // The oldest are all of the first peer.
            let peer = if place < 4 { 1 } else { 2 + (place % 4) as u8 };
            turns.join(place, caller(peer, None), USUAL, now());
            if place != 7 {
                turns.ready(place);
            }
        }
        for _ in 0..3 {
            turns.pop();
            let mut all_ready = turns.clone();
            all_ready.ready(7);
            let order: Vec<LinePosition> = turns
                .in_order()
                .into_iter()
                .map(|(place, _)| place)
                .collect();
            assert_eq!(order, everyone(&mut all_ready));
        }
    }

    #[test]
    fn a_newcomer_goes_no_later_than_was_told() {
        for urgency in 0..8 {
            for offset in 0..OLDEST_EVERY {
                let mut turns = Turns::default();
                for place in 0..60 {
                    turns.join(
                        place,
                        caller(1, None),
                        Urgency((place * 5 % 8) as u8),
                        now(),
                    );
                    turns.ready(place);
                }
                for _ in 0..offset {
                    turns.pop();
                }
                let newcomer = Urgency(urgency);
                let ahead = turns.ahead_of(&caller(1, None), newcomer, None).ready;
                turns.join(99, caller(1, None), newcomer, now());
                turns.ready(99);
                let order = everyone(&mut turns);
                let before = order.iter().position(|place| *place == 99).unwrap();
                assert!(before <= ahead, "{before} of {ahead} before u={urgency}");
                // Turns for the oldest that serve somebody urgent are counted twice.
                assert!(ahead <= before + 60 / OLDEST_EVERY, "{before} of {ahead}");
            }
        }
    }

    #[test]
    fn only_those_who_are_ready_in_time_are_ahead() {
        let (mut turns, start) = (Turns::default(), now());
        let second = std::time::Duration::from_secs(1);
        for place in 0..4 {
            let ready = start + second * u32::try_from(place).unwrap();
            turns.join(place, caller(1, None), USUAL, ready);
        }
        turns.ready(2);
        let ahead = |until| turns.ahead_of(&caller(1, None), USUAL, until);
        assert_eq!(ahead(None).ready, 1);
        assert_eq!(
            ahead(None).blocked,
            [start, start + second, start + second * 3]
        );
        assert_eq!(ahead(Some(start)).blocked, [start]);
        let other = turns.ahead_of(&caller(2, None), USUAL, None);
        assert_eq!((other.ready, other.blocked.len()), (1, 0), "one turn");
        assert_eq!(
            turns.first_ready(None, start + second),
            Some(start + second)
        );
        assert_eq!(turns.first_ready(Some(caller(2, None).peer), start), None);
    }

    proptest! {
        /// Whatever happens, nobody is lost or served twice, arrival order holds among the equally
        /// urgent of a caller, no peer with someone ready waits for more than one turn of each
        /// other, and nothing is left behind.
        #[test]
        fn everyone_is_served_once_in_turn(
            steps in prop::collection::vec((0u8..4, 0u8..4, 0u8..3, 0u64..200), 1..200)
        ) {
            let mut turns = Turns::default();
            let mut waiting: Vec<(LinePosition, Caller, bool, Urgency)> = Vec::new();
            let mut next = 0;
            let mut passed: HashMap<IpAddr, HashMap<IpAddr, usize>> = HashMap::default();
            for (what, peer, name, pick) in steps {
                match what {
                    0 => {
                        let who = caller(peer, (name > 0).then_some(name));
                        prop_assert_eq!(turns.len(), waiting.len());
                        let urgency = Urgency((pick % 8) as u8);
                        turns.join(next, who.clone(), urgency, now());
                        waiting.push((next, who, false, urgency));
                        next += 1;
                    }
                    1 if !waiting.is_empty() => {
                        let at = pick as usize % waiting.len();
                        waiting[at].2 = true;
                        turns.ready(waiting[at].0);
                    }
                    2 if !waiting.is_empty() => {
                        let (place, who, ..) = waiting.remove(pick as usize % waiting.len());
                        prop_assert!(turns.leave(place));
                        // A peer that has nobody ready left begins anew.
                        if !waiting.iter().any(|w| w.2 && w.1.peer == who.peer) {
                            passed.remove(&who.peer);
                        }
                        prop_assert!(!turns.leave(place));
                    }
                    _ => {
                        let served = turns.pop();
                        prop_assert_eq!(served.is_some(), waiting.iter().any(|w| w.2));
                        let Some(served) = served else { continue };
                        let at = waiting.iter().position(|w| w.0 == served).unwrap();
                        let (_, who, ready, urgency) = waiting.remove(at);
                        prop_assert!(ready);
                        let before = |w: &&(LinePosition, Caller, bool, Urgency)| {
                            w.2 && w.1 == who && w.0 < served
                        };
                        prop_assert!(!waiting.iter().filter(before).any(|w| w.3 == urgency));
                        passed.remove(&who.peer);
                        let others: BTreeSet<IpAddr> =
                            waiting.iter().filter(|w| w.2).map(|w| w.1.peer).collect();
                        passed.retain(|peer, _| others.contains(peer));
                        for other in others.into_iter().filter(|other| *other != who.peer) {
                            let count = passed.entry(other).or_default().entry(who.peer).or_default();
                            *count += 1;
                            prop_assert!(*count <= 2, "{other} was passed over by {}", who.peer);
                        }
                    }
                }
            }
            let left: Vec<LinePosition> = waiting.iter().map(|w| w.0).collect();
            prop_assert_eq!(turns.in_order().len(), left.len());
            for place in left {
                prop_assert!(turns.leave(place));
            }
            prop_assert!(turns.peers.is_empty() && turns.ring.is_empty());
        }
    }
}
