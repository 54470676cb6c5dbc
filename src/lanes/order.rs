//! Pure. The order of one credential's writes that act on the same thing.
//!
//! Promises that a write may be sent only when every earlier write that shares an order key with it
//! has settled. A barrier against a class (such as `person`) conflicts with every write that has a
//! key of the class, in both directions, but not with other barriers. Barriers exist because
//! deletions name users by id and invitations name them by email address, and only the API knows
//! which address belongs to which id.
//!
//! This module does not wait and does not know budgets. It also knows nothing of other credentials:
//! their writes are not ordered against these.

use super::keys::{ClassHash, Keys, OrderKey};
use foldhash::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The number of a write, in the order of acceptance.
pub type Turn = u64;

/// Unsettled writes that have an order key, a class or a barrier in common.
#[derive(Clone, Debug, Default)]
struct Lane {
    turns: BTreeSet<Turn>,
    /// The same writes, by the instants at which they are expected to have settled.
    expected: BTreeSet<(Instant, Turn)>,
}

impl Lane {
    /// Adds a write that is expected to have settled then.
    fn insert(&mut self, turn: Turn, expected: Instant) {
        self.turns.insert(turn);
        self.expected.insert((expected, turn));
    }

    /// Removes a write. `expected` is the instant that was noted for it last.
    fn remove(&mut self, turn: Turn, expected: Instant) {
        self.turns.remove(&turn);
        self.expected.remove(&(expected, turn));
    }

    /// Notes another instant for a write.
    fn expect(&mut self, turn: Turn, before: Instant, now: Instant) {
        self.expected.remove(&(before, turn));
        self.expected.insert((now, turn));
    }

    fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// When the last one is expected to have settled. Not that of the newest write, because the
    /// lanes of one with an unknown outcome stay closed for longer.
    fn latest(&self) -> Option<Instant> {
        self.expected.last().map(|(at, _)| *at)
    }
}

/// The unsettled writes that concern one class of order keys.
#[derive(Clone, Debug, Default)]
struct Class {
    /// Writes with a key of the class.
    members: Lane,
    /// Writes that are a barrier against the class.
    barriers: Lane,
}

/// An unsettled write.
#[derive(Clone, Debug)]
struct Write {
    keys: Keys,
    /// The instant at which the write is expected to have settled.
    expected: Instant,
    /// The position in the line of its budget.
    place: u64,
    /// Whether the write waits for no other.
    ready: bool,
    /// Set when the write is over and its lanes stay closed until this instant.
    closed_until: Option<Instant>,
}

/// The unsettled writes of one credential.
#[derive(Clone, Debug, Default)]
pub struct LaneOrder {
    /// All unsettled writes with keys or barriers, in the order of acceptance.
    writes: BTreeMap<Turn, Write>,
    /// The lanes: the writes of each order key.
    keys: HashMap<OrderKey, Lane>,
    /// The writes of each class, for barriers.
    classes: HashMap<ClassHash, Class>,
}

impl LaneOrder {
    /// Whether every write has settled.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The number of unsettled writes.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether any write waits for another.
    pub fn any_blocked(&self) -> bool {
        self.writes.values().any(|write| !write.ready)
    }

    /// Whether a write on `keys` would have to wait for none.
    pub fn are_free(&self, keys: &Keys) -> bool {
        self.is_free(keys, Turn::MAX)
    }

    /// Estimates when all unsettled writes that conflict with `keys` have settled. The writes of
    /// one lane run one after the other and take at least `each` from now on. `None` if no write
    /// conflicts.
    pub fn expected_free(&self, keys: &Keys, now: Instant, each: Duration) -> Option<Instant> {
        let classes = keys.classes();
        let classes = classes.filter_map(|class| self.classes.get(&class));
        let barriers = keys.barriers().iter();
        let barriers = barriers.filter_map(|class| self.classes.get(class));
        let lanes = keys.keys().iter().filter_map(|key| self.keys.get(key));
        let one_after_the_other = lanes.clone().map(|lane| {
            let writes = u32::try_from(lane.turns.len()).unwrap_or(u32::MAX);
            now + each.saturating_mul(writes)
        });
        lanes
            .chain(classes.map(|class| &class.barriers))
            .chain(barriers.map(|class| &class.members))
            .filter_map(Lane::latest)
            .map(|latest| latest.max(now + each))
            .chain(one_after_the_other)
            .max()
    }

    /// All unsettled writes in the order of acceptance: turn, position in the line of its budget,
    /// and expected time.
    pub fn writes(&self) -> impl Iterator<Item = (Turn, u64, Instant)> {
        let writes = self.writes.iter();
        writes.map(|(turn, write)| (*turn, write.place, write.expected))
    }

    /// Whether a write waits only for writes in `these`, or for none, so that it may share a batch
    /// with them. `these` must not contain a write that has already been sent.
    pub fn follows(&self, turn: Turn, these: &BTreeSet<Turn>) -> bool {
        let among = |earlier| these.contains(&earlier);
        self.writes
            .get(&turn)
            .is_none_or(|write| self.all_before(turn, &write.keys, among))
    }

    /// Whether a write on `keys` that has not been accepted yet would wait only for writes in
    /// `these`.
    pub fn would_follow(&self, keys: &Keys, these: &BTreeSet<Turn>) -> bool {
        let among = |earlier| these.contains(&earlier);
        self.all_before(Turn::MAX, keys, among)
    }

    /// Accepts a write, whose turn must be higher than any before. Returns whether the write is
    /// ready. `place` is its position in the line of its budget.
    pub fn enter(&mut self, turn: Turn, keys: Keys, expected: Instant, place: u64) -> bool {
        let ready = self.is_free(&keys, turn);
        for key in keys.keys() {
            self.keys.entry(*key).or_default().insert(turn, expected);
        }
        for class in keys.classes() {
            let class = self.classes.entry(class).or_default();
            class.members.insert(turn, expected);
        }
        for class in keys.barriers() {
            let class = self.classes.entry(*class).or_default();
            class.barriers.insert(turn, expected);
        }
        self.writes.insert(
            turn,
            Write {
                keys,
                expected,
                place,
                ready,
                closed_until: None,
            },
        );
        ready
    }

    /// The keys of an unsettled write.
    pub fn keys(&self, turn: Turn) -> Option<&Keys> {
        self.writes.get(&turn).map(|write| &write.keys)
    }

    /// Sets the instant at which a write is expected to have settled, in all of its lanes. Takes a
    /// time that is proportional to its keys.
    pub fn expect(&mut self, turn: Turn, expected: Instant) {
        let Some(write) = self.writes.get_mut(&turn) else {
            return;
        };
        // The lanes find the write by the instant before. So all of them have to change, those of
        // its keys, of their classes, and of its barriers.
        let before = std::mem::replace(&mut write.expected, expected);
        for key in write.keys.keys() {
            if let Some(lane) = self.keys.get_mut(key) {
                lane.expect(turn, before, expected);
            }
        }
        for class in write.keys.classes() {
            if let Some(class) = self.classes.get_mut(&class) {
                class.members.expect(turn, before, expected);
            }
        }
        for class in write.keys.barriers() {
            if let Some(class) = self.classes.get_mut(class) {
                class.barriers.expect(turn, before, expected);
            }
        }
    }

    /// Notes that a write is over, and that its lanes stay closed until `until`.
    pub fn close(&mut self, turn: Turn, until: Instant) {
        self.expect(turn, until);
        if let Some(write) = self.writes.get_mut(&turn) {
            write.closed_until = Some(until);
        }
    }

    /// Estimates what a write waits for in its lanes: when those open that stay closed, and after
    /// how many writes, one after the other, it comes then. Takes a time that is proportional to
    /// the number of later writes, and none for the newest.
    pub fn ahead(&self, turn: Turn) -> (Option<Instant>, usize) {
        let Some(write) = self.writes.get(&turn).filter(|write| !write.ready) else {
            return (None, 0);
        };
        let lanes = write
            .keys
            .keys()
            .iter()
            .filter_map(|key| self.keys.get(key));
        let classes = write.keys.classes();
        let classes = classes.filter_map(|class| self.classes.get(&class));
        let barriers = write.keys.barriers().iter();
        let barriers = barriers.filter_map(|class| self.classes.get(class));
        let (mut closed_until, mut longest) = (None, 0);
        for lane in lanes.chain(classes.map(|class| &class.barriers)) {
            let (until, waiting) = self.before(lane, turn);
            closed_until = closed_until.max(until);
            longest = longest.max(waiting);
        }
        for lane in barriers.map(|class| &class.members) {
            let (until, waiting) = self.before(lane, turn);
            closed_until = closed_until.max(until);
            // Most of these do not wait for each other. Only those that are over at the front are
            // seen, so the estimate of a barrier may be too short.
            longest = longest.max(waiting.min(1));
        }
        (closed_until, longest)
    }

    /// When the writes of a lane before this turn that are over let it open, and the number of the
    /// others before it.
    fn before(&self, lane: &Lane, turn: Turn) -> (Option<Instant>, usize) {
        let later = lane.turns.range(turn..).count();
        // What was sent was first in its lanes, so the writes that are over come first here.
        let earlier = lane.turns.range(..turn);
        let over = earlier.map_while(|earlier| self.writes.get(earlier)?.closed_until);
        let (over, until) = over.fold((0, None), |(over, until), next| {
            (over + 1, until.max(Some(next)))
        });
        (until, (lane.turns.len() - later).saturating_sub(over))
    }

    /// Sets the position of a write in the line of its budget.
    pub fn waits_at(&mut self, turn: Turn, place: u64) {
        if let Some(write) = self.writes.get_mut(&turn) {
            write.place = place;
        }
    }

    /// Whether a write waits for no other. Also `true` for a write that is not here.
    pub fn is_ready(&self, turn: Turn) -> bool {
        self.writes.get(&turn).is_none_or(|write| write.ready)
    }

    /// Settles a write, or removes one that was never sent. Returns the writes that became ready.
    pub fn settle(&mut self, turn: Turn) -> Vec<Turn> {
        let Some(write) = self.writes.remove(&turn) else {
            return Vec::new();
        };
        // A lane without writes is forgotten, which bounds the lanes by the unsettled writes.
        for key in write.keys.keys() {
            if let Some(lane) = self.keys.get_mut(key) {
                lane.remove(turn, write.expected);
                if lane.is_empty() {
                    self.keys.remove(key);
                }
            }
        }
        for class in write.keys.classes() {
            if let Some(class) = self.classes.get_mut(&class) {
                class.members.remove(turn, write.expected);
            }
        }
        for name in write.keys.barriers() {
            if let Some(class) = self.classes.get_mut(name) {
                class.barriers.remove(turn, write.expected);
            }
        }
        // What is left in the lanes and classes says which writes waited for this one alone.
        let candidates = self.candidates(turn, &write);
        // Few: a class is a kind of thing that writes act on, such as a user.
        self.classes
            .retain(|_, class| !(class.members.is_empty() && class.barriers.is_empty()));
        let ready: Vec<Turn> = candidates
            .into_iter()
            .filter(|turn| self.writes.get(turn).is_some_and(|write| !write.ready))
            .filter(|turn| {
                self.writes
                    .get(turn)
                    .is_some_and(|write| self.is_free(&write.keys, *turn))
            })
            .collect();
        // Marked at once, so that each write is returned only once.
        for turn in &ready {
            if let Some(write) = self.writes.get_mut(turn) {
                write.ready = true;
            }
        }
        ready
    }

    /// The writes that may become ready because a write has settled: later ones that it blocked.
    /// Each of them is found once for each of its keys and classes, however many settle before it.
    fn candidates(&self, turn: Turn, settled: &Write) -> BTreeSet<Turn> {
        // Of a lane that is the first one, because the rest still wait for it.
        let lanes = settled.keys.keys().iter();
        let lanes = lanes.filter_map(|key| self.keys.get(key)?.turns.first().copied());
        let class = |class: ClassHash| self.classes.get(&class);
        let classes = settled.keys.classes().filter_map(class);
        let barriers = settled.keys.barriers().iter().copied().filter_map(class);
        // Of a class it may be several, because barriers do not wait for each other: those up to
        // the next write that blocks them, which may itself be one of them.
        let until = |lane: &Lane| lane.turns.first().copied().unwrap_or(Turn::MAX).max(turn);
        let of_classes =
            classes.flat_map(|class| class.barriers.turns.range(turn..=until(&class.members)));
        let of_barriers =
            barriers.flat_map(|class| class.members.turns.range(turn..=until(&class.barriers)));
        lanes
            .chain(of_classes.copied())
            .chain(of_barriers.copied())
            .collect()
    }

    /// Whether no write before `turn` conflicts with `keys`.
    fn is_free(&self, keys: &Keys, turn: Turn) -> bool {
        self.all_before(turn, keys, |_| false)
    }

    /// Whether `are` holds for all writes before `turn` that conflict with `keys`. Stops at the
    /// first for which it does not.
    fn all_before(&self, turn: Turn, keys: &Keys, are: impl Fn(Turn) -> bool) -> bool {
        let all = |lane: Option<&Lane>| {
            lane.is_none_or(|lane| lane.turns.range(..turn).all(|earlier| are(*earlier)))
        };
        let class = |class: ClassHash| self.classes.get(&class);
        // Barriers and classes are few, keys are many.
        keys.barriers()
            .iter()
            .all(|name| all(class(*name).map(|class| &class.members)))
            && keys
                .classes()
                .all(|name| all(class(name).map(|class| &class.barriers)))
            && keys.keys().iter().all(|key| all(self.keys.get(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::credential::Hasher;
    use proptest::prelude::*;

    fn keys(keys: &[&str], barriers: &[&str]) -> Keys {
        let hasher = Hasher::new(&[0; 32]);
        Keys::new(&hasher, keys.iter().copied(), barriers.iter().copied())
    }

    fn conflict(a: &Keys, b: &Keys) -> bool {
        let barred = |a: &Keys, b: &Keys| a.classes().any(|class| b.barriers().contains(&class));
        a.keys().iter().any(|key| b.keys().contains(key)) || barred(a, b) || barred(b, a)
    }

    #[test]
    fn writes_of_one_thing_go_one_after_the_other() {
        let now = Clock::system().now();
        let mut lanes = LaneOrder::default();
        assert!(lanes.enter(0, keys(&["user:a"], &[]), now, 0));
        assert!(!lanes.enter(1, keys(&["user:a", "user:b"], &[]), now, 0));
        assert!(!lanes.enter(2, keys(&["user:b"], &[]), now, 0));
        assert!(lanes.enter(3, keys(&["user:c"], &[]), now, 0));
        assert!(lanes.settle(3).is_empty());
        assert_eq!(lanes.settle(0), vec![1]);
        assert_eq!(lanes.settle(1), vec![2]);
        assert!(lanes.settle(2).is_empty());
        assert!(lanes.is_empty() && lanes.keys.is_empty() && lanes.classes.is_empty());
    }

    #[test]
    fn deleting_users_is_a_barrier_against_people_named_by_email() {
        let now = Clock::system().now();
        let mut lanes = LaneOrder::default();
        assert!(lanes.enter(0, keys(&["person:x@a.b"], &[]), now, 0));
        assert!(!lanes.enter(1, keys(&["user:1"], &["person"]), now, 0));
        assert!(
            !lanes.enter(2, keys(&["user:2"], &["person"]), now, 0),
            "it waits for 0 as well"
        );
        assert!(
            !lanes.enter(3, keys(&["person:y@a.b"], &[]), now, 0),
            "it waits for both barriers"
        );
        assert_eq!(
            lanes.settle(0),
            vec![1, 2],
            "barriers do not hold up each other"
        );
        assert!(lanes.settle(1).is_empty());
        assert_eq!(lanes.settle(2), vec![3]);
    }

    #[test]
    fn only_those_that_a_write_blocked_are_looked_at_when_it_settles() {
        let now = Clock::system().now();
        let mut lanes = LaneOrder::default();
        for turn in 0..100 {
            let person = format!("person:{turn}");
            match turn {
                0 | 50 => lanes.enter(turn, keys(&[&person], &[]), now, 0),
                _ => lanes.enter(turn, keys(&[], &["person"]), now, 0),
            };
        }
        let mut looked_at = |turn: Turn| {
            let settled = lanes.writes[&turn].clone();
            lanes.settle(turn);
            lanes.candidates(turn, &settled).len()
        };
        assert_eq!(looked_at(99), 0);
        assert_eq!(looked_at(0), 49, "those before the next person");
        assert_eq!(looked_at(1), 0, "another barrier is before that person");
        assert_eq!(looked_at(50), 48);
    }

    #[test]
    fn a_write_waits_for_those_before_it_and_for_lanes_that_stay_closed() {
        let now = Clock::system().now();
        let until = now + Duration::from_secs(60);
        let mut lanes = LaneOrder::default();
        for turn in 0..4 {
            lanes.enter(turn, keys(&["user:a"], &[]), now, 0);
        }
        lanes.enter(4, keys(&["user:a", "user:b"], &[]), now, 0);
        lanes.enter(5, keys(&["user:b"], &[]), now, 0);
        lanes.enter(6, keys(&["user:c"], &[]), now, 0);
        let ahead = |lanes: &LaneOrder| [0, 1, 4, 5, 6].map(|turn| lanes.ahead(turn).1);
        assert_eq!(ahead(&lanes), [0, 1, 4, 1, 0]);
        // Those before it that are over are waited for by the clock.
        lanes.close(0, until);
        assert_eq!(lanes.ahead(1), (Some(until), 0));
        assert_eq!(lanes.ahead(4), (Some(until), 3));
        assert_eq!(lanes.ahead(5), (None, 1));
        // A barrier waits for all of its class, which do not wait for each other, and later ones
        // for each barrier.
        lanes.enter(7, keys(&["x:1"], &["user"]), now, 0);
        lanes.enter(8, keys(&["user:d"], &[]), now, 0);
        assert_eq!(lanes.ahead(7), (Some(until), 1));
        assert_eq!(lanes.ahead(8), (None, 1));
    }

    #[test]
    fn a_write_may_leave_with_those_it_waits_for() {
        let now = Clock::system().now();
        let mut lanes = LaneOrder::default();
        lanes.enter(0, keys(&["group:g", "person:a"], &[]), now, 0);
        lanes.enter(1, keys(&["group:g", "person:b"], &[]), now, 0);
        lanes.enter(2, keys(&["person:c"], &[]), now, 0);
        lanes.enter(3, keys(&["group:g", "person:c"], &[]), now, 0);
        lanes.enter(4, keys(&["user:1"], &["person"]), now, 0);
        let follows = |turn, these: &[Turn]| lanes.follows(turn, &these.iter().copied().collect());
        assert!(follows(0, &[]) && !follows(1, &[]));
        assert!(follows(1, &[0]) && follows(1, &[0, 3]));
        assert!(!follows(3, &[0, 1]), "it waits for 2 as well");
        assert!(follows(3, &[0, 1, 2]));
        assert!(!follows(4, &[0, 1, 2]) && follows(4, &[0, 1, 2, 3]));
        assert!(follows(9, &[]), "what is in no lane waits for nothing");
    }

    #[test]
    fn the_wait_for_a_lane_is_expected() {
        let now = Clock::system().now();
        let later = now + Duration::from_secs(9);
        let mut lanes = LaneOrder::default();
        lanes.enter(0, keys(&["user:a"], &[]), now, 0);
        lanes.enter(1, keys(&["user:a"], &[]), later, 0);
        let (second, nothing) = (Duration::from_secs(1), Duration::ZERO);
        let expected = |lanes: &LaneOrder, of: &Keys, each| lanes.expected_free(of, now, each);
        let (a, other) = (keys(&["user:a"], &[]), keys(&["user:b"], &["person"]));
        assert_eq!(expected(&lanes, &a, nothing), Some(later));
        assert_eq!(expected(&lanes, &other, second), None);
        // What is overdue takes as long as an answer, one after the other.
        lanes.expect(1, now);
        assert_eq!(expected(&lanes, &a, second), Some(now + second * 2));
        // The first of a lane may be the one that keeps it closed.
        lanes.expect(0, later);
        assert_eq!(expected(&lanes, &a, second), Some(later));
    }

    proptest! {
        /// Against the definition: a write is ready exactly if no earlier unsettled write
        /// conflicts with it, and nothing is left when all have settled.
        #[test]
        fn ready_is_what_the_definition_says(
            steps in prop::collection::vec(
                (any::<bool>(), prop::collection::btree_set(0u8..6, 0..3), 0u8..8, 0usize..50), 1..80)
        ) {
            let now = Clock::system().now();
            let mut lanes = LaneOrder::default();
            let mut open: Vec<(Turn, Keys, bool)> = Vec::new();
            let mut expected: HashMap<Turn, Instant> = HashMap::default();
            for (turn, (add, names, barrier, pick)) in steps.into_iter().enumerate() {
                if add || open.is_empty() {
                    let turn = turn as Turn;
                    let names: Vec<String> = names.iter().map(|n| {
                        format!("{}:{n}", if n % 2 == 0 { "user" } else { "person" })
                    }).collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    let these = keys(&names, if barrier == 0 { &["person"] } else { &[] });
                    let at = now + Duration::from_secs(pick as u64);
                    let ready = lanes.enter(turn, these.clone(), at, 0);
                    expected.insert(turn, at);
                    open.push((turn, these, ready));
                } else {
                    let other = open[pick / 2 % open.len()].0;
                    let at = now + Duration::from_secs((pick * 7 % 50) as u64);
                    lanes.expect(other, at);
                    expected.insert(other, at);
                    let (turn, _, _) = open.remove(pick % open.len());
                    for ready in lanes.settle(turn) {
                        let at = open.iter().position(|write| write.0 == ready).unwrap();
                        prop_assert!(!open[at].2, "told twice");
                        open[at].2 = true;
                    }
                }
                for (at, (_, these, ready)) in open.iter().enumerate() {
                    let earlier = || open[..at].iter().filter(|(_, k, _)| conflict(k, these));
                    prop_assert_eq!(*ready, earlier().next().is_none());
                    let mut all: BTreeSet<Turn> = earlier().map(|write| write.0).collect();
                    prop_assert!(lanes.follows(open[at].0, &all));
                    let others = open.iter().filter(|(_, k, _)| conflict(k, these));
                    let latest = others.map(|(turn, _, _)| expected[turn]).max();
                    prop_assert_eq!(lanes.expected_free(these, now, Duration::ZERO), latest);
                    if all.pop_first().is_some() {
                        prop_assert!(!lanes.follows(open[at].0, &all));
                    }
                }
            }
            for (turn, _, _) in open {
                lanes.settle(turn);
            }
            prop_assert!(lanes.is_empty() && lanes.keys.is_empty() && lanes.classes.is_empty());
        }
    }
}
