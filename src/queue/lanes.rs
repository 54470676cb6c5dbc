//! Pure. The order of one credential's writes that act on the same thing.
//!
//! A write may leave only when every earlier write that shares an order key with it has settled.
//! A barrier against a class (`person`) shares a key with every write that has a key of that class,
//! in both directions, but not with other barriers: deleting users names people by id, inviting
//! them by email, and nobody outside the API knows which id is whose.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// Numbers writes in the order in which they were accepted.
pub type Turn = u64;

/// What a write acts on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Order keys, e.g. `user:u1`; the class of a key is what stands before its first colon.
    pub keys: BTreeSet<Arc<str>>,
    /// Classes that this write keeps apart.
    pub barriers: BTreeSet<Arc<str>>,
}

impl Keys {
    /// Whether the write shares nothing with any other.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.barriers.is_empty()
    }

    fn classes(&self) -> BTreeSet<Arc<str>> {
        self.keys
            .iter()
            .map(|key| Arc::from(class_of(key)))
            .collect()
    }
}

fn class_of(key: &str) -> &str {
    key.split_once(':').map_or(key, |(class, _)| class)
}

#[derive(Debug, Default)]
struct Class {
    /// Writes with a key of the class, and writes that are a barrier against it.
    members: BTreeSet<Turn>,
    barriers: BTreeSet<Turn>,
}

#[derive(Debug)]
struct Write {
    keys: Keys,
    /// When it is expected to have settled.
    expected: Instant,
    ready: bool,
}

/// The unsettled writes of one credential.
#[derive(Debug, Default)]
pub struct Lanes {
    writes: BTreeMap<Turn, Write>,
    keys: HashMap<Arc<str>, BTreeSet<Turn>>,
    classes: HashMap<Arc<str>, Class>,
}

impl Lanes {
    /// Whether no write is unsettled.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// When every unsettled write that shares something with `keys` is expected to have settled.
    pub fn expected_free(&self, keys: &Keys) -> Option<Instant> {
        self.before(keys, Turn::MAX)
            .iter()
            .filter_map(|turn| self.writes.get(turn))
            .map(|w| w.expected)
            .max()
    }

    /// Accepts a write, which must have a higher turn than any before it. True if it is ready.
    pub fn enter(&mut self, turn: Turn, keys: Keys, expected: Instant) -> bool {
        let ready = self.before(&keys, turn).is_empty();
        for key in &keys.keys {
            self.keys.entry(key.clone()).or_default().insert(turn);
        }
        for class in keys.classes() {
            self.classes.entry(class).or_default().members.insert(turn);
        }
        for class in &keys.barriers {
            self.classes
                .entry(class.clone())
                .or_default()
                .barriers
                .insert(turn);
        }
        self.writes.insert(
            turn,
            Write {
                keys,
                expected,
                ready,
            },
        );
        ready
    }

    /// Changes when a write is expected to have settled.
    pub fn expect(&mut self, turn: Turn, expected: Instant) {
        if let Some(write) = self.writes.get_mut(&turn) {
            write.expected = expected;
        }
    }

    /// Settles a write, or takes one out that was never sent. Returns those that became ready.
    pub fn settle(&mut self, turn: Turn) -> Vec<Turn> {
        let Some(write) = self.writes.remove(&turn) else {
            return Vec::new();
        };
        let mut candidates = BTreeSet::new();
        for key in &write.keys.keys {
            if let Some(lane) = self.keys.get_mut(key) {
                lane.remove(&turn);
                candidates.extend(lane.first());
                if lane.is_empty() {
                    self.keys.remove(key);
                }
            }
        }
        for name in write.keys.classes() {
            if let Some(class) = self.classes.get_mut(&name) {
                class.members.remove(&turn);
                candidates.extend(&class.barriers);
            }
        }
        for name in &write.keys.barriers {
            if let Some(class) = self.classes.get_mut(name) {
                class.barriers.remove(&turn);
                candidates.extend(&class.members);
            }
        }
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
        for turn in &ready {
            if let Some(write) = self.writes.get_mut(turn) {
                write.ready = true;
            }
        }
        ready
    }

    /// Whether no write before `turn` shares anything with `keys`: the first of each lane tells.
    fn is_free(&self, keys: &Keys, turn: Turn) -> bool {
        let first_of = |set: Option<&BTreeSet<Turn>>| {
            set.and_then(BTreeSet::first)
                .is_none_or(|first| *first >= turn)
        };
        keys.keys.iter().all(|key| first_of(self.keys.get(key)))
            && keys
                .classes()
                .iter()
                .all(|class| first_of(self.classes.get(class).map(|class| &class.barriers)))
            && keys
                .barriers
                .iter()
                .all(|class| first_of(self.classes.get(class).map(|class| &class.members)))
    }

    /// The last write before `turn` of every lane that `keys` share: the others come before it.
    fn before(&self, keys: &Keys, turn: Turn) -> BTreeSet<Turn> {
        let mut before = BTreeSet::new();
        for key in &keys.keys {
            before.extend(
                self.keys
                    .get(key)
                    .and_then(|lane| lane.range(..turn).next_back()),
            );
        }
        for class in keys.classes() {
            before.extend(
                self.classes
                    .get(&class)
                    .into_iter()
                    .flat_map(|c| c.barriers.range(..turn)),
            );
        }
        for class in &keys.barriers {
            before.extend(
                self.classes
                    .get(class)
                    .into_iter()
                    .flat_map(|c| c.members.range(..turn)),
            );
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use proptest::prelude::*;
    use std::time::Duration;

    fn keys(keys: &[&str], barriers: &[&str]) -> Keys {
        Keys {
            keys: keys.iter().map(|key| Arc::from(*key)).collect(),
            barriers: barriers.iter().map(|class| Arc::from(*class)).collect(),
        }
    }

    fn conflict(a: &Keys, b: &Keys) -> bool {
        !a.keys.is_disjoint(&b.keys)
            || !a.barriers.is_disjoint(&b.classes())
            || !b.barriers.is_disjoint(&a.classes())
    }

    #[test]
    fn writes_of_one_thing_go_one_after_the_other() {
        let now = Clock::system().now();
        let mut lanes = Lanes::default();
        assert!(lanes.enter(0, keys(&["user:a"], &[]), now));
        assert!(!lanes.enter(1, keys(&["user:a", "user:b"], &[]), now));
        assert!(!lanes.enter(2, keys(&["user:b"], &[]), now));
        assert!(lanes.enter(3, keys(&["user:c"], &[]), now));
        assert!(lanes.settle(3).is_empty());
        assert_eq!(lanes.settle(0), vec![1]);
        assert_eq!(lanes.settle(1), vec![2]);
        assert!(lanes.settle(2).is_empty());
        assert!(lanes.is_empty() && lanes.keys.is_empty() && lanes.classes.is_empty());
    }

    #[test]
    fn deleting_users_is_a_barrier_against_people_named_by_email() {
        let now = Clock::system().now();
        let mut lanes = Lanes::default();
        assert!(lanes.enter(0, keys(&["person:x@a.b"], &[]), now));
        assert!(!lanes.enter(1, keys(&["user:1"], &["person"]), now));
        assert!(
            !lanes.enter(2, keys(&["user:2"], &["person"]), now),
            "it waits for 0 as well"
        );
        assert!(
            !lanes.enter(3, keys(&["person:y@a.b"], &[]), now),
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
    fn the_wait_for_a_lane_is_expected() {
        let now = Clock::system().now();
        let later = now + Duration::from_secs(9);
        let mut lanes = Lanes::default();
        lanes.enter(0, keys(&["user:a"], &[]), now);
        lanes.enter(1, keys(&["user:a"], &[]), later);
        assert_eq!(lanes.expected_free(&keys(&["user:a"], &[])), Some(later));
        assert_eq!(lanes.expected_free(&keys(&["user:b"], &["person"])), None);
        lanes.expect(1, now);
        assert_eq!(lanes.expected_free(&keys(&["user:a"], &[])), Some(now));
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
            let mut lanes = Lanes::default();
            let mut open: Vec<(Turn, Keys, bool)> = Vec::new();
            for (turn, (add, names, barrier, pick)) in steps.into_iter().enumerate() {
                if add || open.is_empty() {
                    let turn = turn as Turn;
                    let names: Vec<String> = names.iter().map(|n| {
                        format!("{}:{n}", if n % 2 == 0 { "user" } else { "person" })
                    }).collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    let these = keys(&names, if barrier == 0 { &["person"] } else { &[] });
                    let ready = lanes.enter(turn, these.clone(), now);
                    open.push((turn, these, ready));
                } else {
                    let (turn, _, _) = open.remove(pick % open.len());
                    for ready in lanes.settle(turn) {
                        let at = open.iter().position(|write| write.0 == ready).unwrap();
                        prop_assert!(!open[at].2, "told twice");
                        open[at].2 = true;
                    }
                }
                for (at, (_, these, ready)) in open.iter().enumerate() {
                    let free = !open[..at].iter().any(|(_, earlier, _)| conflict(earlier, these));
                    prop_assert_eq!(*ready, free);
                }
            }
            for (turn, _, _) in open {
                lanes.settle(turn);
            }
            prop_assert!(lanes.is_empty() && lanes.keys.is_empty() && lanes.classes.is_empty());
        }
    }
}
