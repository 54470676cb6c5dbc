//! Pure. Whose turn it is among those who wait for one budget.
//!
//! Peers take turns, and the named callers behind one peer take turns within the peer's turn: a
//! name divides what a peer has, it does not add to it. Within one caller the order of arrival
//! holds. Someone who is not ready (an earlier write of its lane has not settled) keeps its place
//! without holding up the others.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// Who asks: the peer's address, divided by a name that a trusted peer may give.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The address of the connection.
    pub peer: IpAddr,
    /// From `X-Gateway-Caller`: at most 64 printable ASCII bytes.
    pub name: Option<Arc<str>>,
}

/// A place in the line: places are numbered in order of arrival.
pub type Place = u64;

/// Those of one caller.
#[derive(Clone, Debug, Default)]
struct Names {
    /// Those who could go at once, in order of arrival.
    ready: BTreeSet<Place>,
    /// The others, and when each is expected to be ready.
    blocked: BTreeMap<Place, Instant>,
}

impl Names {
    fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.blocked.is_empty()
    }

    /// All who are ready, or expected to be by then.
    fn by(&self, until: Option<Instant>) -> Ahead {
        let mut blocked: Vec<Instant> = self
            .blocked
            .values()
            .copied()
            .filter(|at| until.is_none_or(|until| *at <= until))
            .collect();
        blocked.sort_unstable();
        Ahead {
            ready: self.ready.len(),
            blocked,
        }
    }
}

/// Those who may go before a newcomer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// How many of them could go at once.
    pub ready: usize,
    /// When each of the others is expected to be ready, soonest first.
    pub blocked: Vec<Instant>,
}

impl Ahead {
    fn len(&self) -> usize {
        self.ready + self.blocked.len()
    }

    /// The `most` of them that could go soonest.
    fn first(mut self, most: usize) -> Self {
        self.ready = self.ready.min(most);
        self.blocked.truncate(most - self.ready);
        self
    }

    fn join(&mut self, mut other: Self) {
        self.ready += other.ready;
        if !other.blocked.is_empty() {
            self.blocked.append(&mut other.blocked);
            self.blocked.sort_unstable();
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Peer {
    names: HashMap<Option<Arc<str>>, Names>,
    /// Names with someone ready, whose turn comes first in front.
    ring: VecDeque<Option<Arc<str>>>,
    waiting: usize,
}

/// Those who wait for one budget.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    peers: HashMap<IpAddr, Peer>,
    /// Peers with someone ready, whose turn comes first in front.
    ring: VecDeque<IpAddr>,
    callers: HashMap<Place, Caller>,
}

impl Turns {
    /// All who wait, ready or not.
    pub fn len(&self) -> usize {
        self.callers.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.callers.is_empty()
    }

    /// Whether somebody could go at once.
    pub fn has_ready(&self) -> bool {
        !self.ring.is_empty()
    }

    /// The places of all who wait, in no order.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.callers.keys().copied()
    }

    /// How many peers wait: each of them goes once before any goes twice.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// All of one peer who wait, under whatever name.
    pub fn of_peer(&self, peer: IpAddr) -> usize {
        self.peers.get(&peer).map_or(0, |peer| peer.waiting)
    }

    /// Takes a place, not ready; `expected` is when it is expected to be.
    pub fn join(&mut self, place: Place, caller: Caller, expected: Instant) {
        let peer = self.peers.entry(caller.peer).or_default();
        peer.waiting += 1;
        peer.names
            .entry(caller.name.clone())
            .or_default()
            .blocked
            .insert(place, expected);
        self.callers.insert(place, caller);
    }

    /// Says that `place` could go at once. Nothing happens if it is not in the line.
    pub fn ready(&mut self, place: Place) {
        let Some(caller) = self.callers.get(&place) else {
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
        if names.ready.is_empty() {
            if peer.ring.is_empty() {
                self.ring.push_back(caller.peer);
            }
            peer.ring.push_back(caller.name.clone());
        }
        names.ready.insert(place);
    }

    /// Leaves the line; false if it was not in it.
    pub fn leave(&mut self, place: Place) -> bool {
        let Some(caller) = self.callers.remove(&place) else {
            return false;
        };
        let Some(peer) = self.peers.get_mut(&caller.peer) else {
            return false;
        };
        peer.waiting -= 1;
        if let Some(names) = peer.names.get_mut(&caller.name) {
            names.blocked.remove(&place);
            let was_ready = names.ready.remove(&place);
            if was_ready && names.ready.is_empty() {
                peer.ring.retain(|name| *name != caller.name);
                if peer.ring.is_empty() {
                    self.ring.retain(|peer| *peer != caller.peer);
                }
            }
            if names.is_empty() {
                peer.names.remove(&caller.name);
            }
        }
        if peer.waiting == 0 {
            self.peers.remove(&caller.peer);
        }
        true
    }

    /// Whose turn it is among those ready; they leave the line, and their caller's and peer's
    /// next turn comes after everybody else's.
    pub fn pop(&mut self) -> Option<Place> {
        let address = self.ring.pop_front()?;
        let peer = self.peers.get_mut(&address)?;
        let name = peer.ring.pop_front()?;
        let names = peer.names.get_mut(&name)?;
        let place = names.ready.pop_first()?;
        peer.waiting -= 1;
        if !names.ready.is_empty() {
            peer.ring.push_back(name.clone());
        }
        if names.is_empty() {
            peer.names.remove(&name);
        }
        if !peer.ring.is_empty() {
            self.ring.push_back(address);
        }
        if peer.waiting == 0 {
            self.peers.remove(&address);
        }
        self.callers.remove(&place);
        Some(place)
    }

    /// At most those of the ones who wait who go before a newcomer of `caller`, if nobody else
    /// came; only those who are expected to be ready by `until`, where it is known that the
    /// newcomer will have gone by then.
    pub fn ahead_of(&self, caller: &Caller, until: Option<Instant>) -> Ahead {
        let mut ahead = Ahead::default();
        if let Some(peer) = self.peers.get(&caller.peer) {
            if let Some(mine) = peer.names.get(&caller.name) {
                ahead = mine.by(until);
            }
            let turns = ahead.len() + 1;
            for (_, names) in peer.names.iter().filter(|(name, _)| **name != caller.name) {
                ahead.join(names.by(until).first(turns));
            }
        }
        let turns = ahead.len() + 1;
        for (_, peer) in self.peers.iter().filter(|(peer, _)| **peer != caller.peer) {
            ahead.join(peer.by(until).first(turns));
        }
        ahead
    }

    /// The same for all who wait, as for a newcomer who lets everybody go first.
    pub fn everyone(&self) -> Ahead {
        let mut all = Ahead::default();
        for peer in self.peers.values() {
            all.join(peer.by(None));
        }
        all
    }

    /// When the first of those who wait is expected to be ready, of one peer alone if one is
    /// given; `now` if somebody is. `None` if nobody waits.
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

    /// All who wait in the order in which they would go if all were ready and nobody came, each
    /// with the time at which it is expected to be ready, if it is not.
    pub fn in_order(&self, now: Instant) -> Vec<(Place, Option<Instant>)> {
        let mut copy = Turns::default();
        let mut places: Vec<(&Place, &Caller)> = self.callers.iter().collect();
        places.sort_unstable_by_key(|(place, _)| **place);
        let mut expected = HashMap::new();
        for (place, caller) in places {
            let names = self.peers.get(&caller.peer);
            let names = names.and_then(|peer| peer.names.get(&caller.name));
            if let Some(at) = names.and_then(|names| names.blocked.get(place)) {
                expected.insert(*place, *at);
            }
            copy.join(
                *place,
                caller.clone(),
                expected.get(place).copied().unwrap_or(now),
            );
            copy.ready(*place);
        }
        std::iter::from_fn(|| copy.pop())
            .map(|place| (place, expected.get(&place).copied()))
            .collect()
    }
}

impl Peer {
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

    fn everyone(turns: &mut Turns) -> Vec<Place> {
        std::iter::from_fn(|| turns.pop()).collect()
    }

    #[test]
    fn a_bulk_of_one_caller_does_not_starve_a_single_write_of_another() {
        let mut turns = Turns::default();
        for place in 0..100 {
            turns.join(place, caller(1, None), now());
            turns.ready(place);
        }
        turns.join(100, caller(2, None), now());
        turns.ready(100);
        assert_eq!(turns.ahead_of(&caller(3, None), None).ready, 2);
        let order = everyone(&mut turns);
        assert!(order.iter().position(|place| *place == 100).unwrap() <= 1);
    }

    #[test]
    fn names_divide_a_peers_turn_and_do_not_add_to_it() {
        let mut turns = Turns::default();
        for place in 0..40 {
            turns.join(place, caller(1, Some((place % 10) as u8)), now());
            turns.ready(place);
        }
        for place in 40..44 {
            turns.join(place, caller(2, None), now());
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
        turns.join(0, caller(1, None), now());
        turns.join(1, caller(1, None), now());
        turns.ready(1);
        assert_eq!(turns.pop(), Some(1));
        assert_eq!(turns.pop(), None);
        turns.ready(0);
        assert_eq!(turns.pop(), Some(0));
        assert!(turns.is_empty() && turns.peers.is_empty() && turns.ring.is_empty());
    }

    #[test]
    fn only_those_who_are_ready_in_time_are_ahead() {
        let (mut turns, start) = (Turns::default(), now());
        let second = std::time::Duration::from_secs(1);
        for place in 0..4 {
            let ready = start + second * u32::try_from(place).unwrap();
            turns.join(place, caller(1, None), ready);
        }
        turns.ready(2);
        let ahead = |until| turns.ahead_of(&caller(1, None), until);
        assert_eq!(ahead(None).ready, 1);
        assert_eq!(
            ahead(None).blocked,
            [start, start + second, start + second * 3]
        );
        assert_eq!(ahead(Some(start)).blocked, [start]);
        let other = turns.ahead_of(&caller(2, None), None);
        assert_eq!((other.ready, other.blocked.len()), (1, 0), "one turn");
        assert_eq!(
            turns.first_ready(None, start + second),
            Some(start + second)
        );
        assert_eq!(turns.first_ready(Some(caller(2, None).peer), start), None);
    }

    proptest! {
        /// Whatever happens, nobody is lost or served twice, arrival order holds within a caller,
        /// no peer with someone ready waits for more than one turn of each other, and nothing is
        /// left behind.
        #[test]
        fn everyone_is_served_once_in_turn(
            steps in prop::collection::vec((0u8..4, 0u8..4, 0u8..3, 0u64..200), 1..200)
        ) {
            let mut turns = Turns::default();
            let mut waiting: Vec<(Place, Caller, bool)> = Vec::new();
            let mut next = 0;
            let mut passed: HashMap<IpAddr, HashMap<IpAddr, usize>> = HashMap::new();
            for (what, peer, name, pick) in steps {
                match what {
                    0 => {
                        let who = caller(peer, (name > 0).then_some(name));
                        prop_assert_eq!(turns.len(), waiting.len());
                        turns.join(next, who.clone(), now());
                        waiting.push((next, who, false));
                        next += 1;
                    }
                    1 if !waiting.is_empty() => {
                        let at = pick as usize % waiting.len();
                        waiting[at].2 = true;
                        turns.ready(waiting[at].0);
                    }
                    2 if !waiting.is_empty() => {
                        let (place, _, _) = waiting.remove(pick as usize % waiting.len());
                        prop_assert!(turns.leave(place));
                        prop_assert!(!turns.leave(place));
                    }
                    _ => {
                        let served = turns.pop();
                        prop_assert_eq!(served.is_some(), waiting.iter().any(|w| w.2));
                        let Some(served) = served else { continue };
                        let at = waiting.iter().position(|w| w.0 == served).unwrap();
                        let (_, who, ready) = waiting.remove(at);
                        prop_assert!(ready);
                        prop_assert!(!waiting.iter().any(|w| w.2 && w.1 == who && w.0 < served));
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
            let left: Vec<Place> = waiting.iter().map(|w| w.0).collect();
            prop_assert_eq!(turns.in_order(now()).len(), left.len());
            for place in left {
                prop_assert!(turns.leave(place));
            }
            prop_assert!(turns.peers.is_empty() && turns.ring.is_empty());
        }
    }
}
