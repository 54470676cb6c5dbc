use super::*;
use crate::clock::Clock;
use proptest::prelude::*;
use std::time::Duration;

mod interleavings;

fn tag(name: &str) -> Dependency {
    Dependency::Tag(Tag::new(name))
}

fn start() -> Instant {
    Clock::system().now()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_write_ends_belief_in_earlier_stamps_only() {
    let now = start();
    let mut fence = Fence::new(8);
    let before = fence.stamp(now);
    fence.raise([tag("users")], now);
    // The same instant, but a later generation.
    let after = fence.stamp(now);
    assert!(!fence.believes(&before, &[tag("users")]));
    assert!(!fence.believes(&before, &[tag("groups"), tag("users")]));
    assert!(fence.believes(&before, &[tag("groups")]));
    assert!(fence.believes(&after, &[tag("users")]));
}

#[test]
fn what_began_while_the_api_settled_is_never_believed() {
    let now = start();
    let mut fence = Fence::new(8);
    fence.raise([tag("users")], now + 2 * SECOND);
    let during = fence.stamp(now + SECOND);
    let end = fence.stamp(now + 2 * SECOND);
    assert!(fence.settling(&[tag("users")], now + SECOND));
    assert!(!fence.settling(&[tag("users")], now + 2 * SECOND));
    assert!(!fence.settling(&[tag("groups")], now + SECOND));
    assert!(!fence.believes(&during, &[tag("users")]));
    assert!(fence.believes(&end, &[tag("users")]));
}

#[test]
fn a_quick_write_does_not_shorten_the_settling_of_a_slow_one() {
    let now = start();
    let mut fence = Fence::new(8);
    fence.raise([tag("users")], now + 60 * SECOND);
    fence.raise([tag("users")], now + 2 * SECOND);
    assert!(fence.settling(&[tag("users")], now + 59 * SECOND));
}

#[test]
fn raising_nothing_changes_nothing() {
    let mut fence = Fence::new(8);
    let before = fence.generation();
    fence.raise([], start());
    assert_eq!(fence.generation(), before);
}

#[test]
fn a_dropped_mark_lives_on_in_the_floor() {
    let now = start();
    let mut fence = Fence::new(2);
    let before = fence.stamp(now);
    fence.raise([tag("a")], now + SECOND);
    let between = fence.stamp(now + SECOND);
    fence.raise([tag("b")], now);
    fence.raise([tag("c")], now);
    assert_eq!((fence.marks(), fence.floor_moves()), (2, 1));
    // `d` was never written, but from now on nobody can tell it from `a`.
    assert!(!fence.believes(&before, &[tag("a")]));
    assert!(!fence.believes(&before, &[tag("d")]));
    assert!(fence.believes(&between, &[tag("a"), tag("d")]));
    assert!(!fence.believes(&between, &[tag("b")]));
}

#[test]
fn raising_the_floor_empties_the_table_but_keeps_what_still_settles() {
    let now = start();
    let mut fence = Fence::new(8);
    fence.raise([tag("slow")], now + 60 * SECOND);
    fence.raise([tag("quick")], now);
    let before = fence.stamp(now);
    fence.raise_floor(now + SECOND);
    assert_eq!((fence.marks(), fence.order.len()), (1, 1));
    assert!(!fence.believes(&before, &[tag("never written")]));
    assert!(!fence.settling(&[tag("quick")], now + SECOND));
    assert!(fence.settling(&[tag("slow")], now + 59 * SECOND));
}

#[derive(Clone, Debug)]
enum Step {
    Raise(Vec<u8>, u64),
    Floor(u64),
    Pass(u64),
    Stamp,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (prop::collection::vec(0u8..6, 0..4), 0u64..5).prop_map(|(t, s)| Step::Raise(t, s)),
        1 => (0u64..5).prop_map(Step::Floor),
        2 => (0u64..4).prop_map(Step::Pass),
        3 => Just(Step::Stamp),
    ];
    prop::collection::vec(step, 0..40)
}

/// Remembers every write that ever was, in order; a stamp is its place in that order.
#[derive(Default)]
struct Oracle {
    writes: Vec<(Option<Vec<u8>>, Instant)>,
}

impl Oracle {
    fn believes(&self, place: usize, at: Instant, depends: &[u8]) -> bool {
        self.writes
            .iter()
            .enumerate()
            .all(|(index, (touched, settled))| {
                let concerns = touched
                    .as_ref()
                    .is_none_or(|touched| touched.iter().any(|tag| depends.contains(tag)));
                !concerns || (index < place && *settled <= at)
            })
    }
}

fn name(tag_number: u8) -> Dependency {
    tag(&format!("t{tag_number}"))
}

/// Runs the steps with a table of `max_marks` and hands each belief of fence and oracle to `check`.
fn compare(steps: &[Step], max_marks: usize, mut check: impl FnMut(bool, bool)) -> Fence {
    let mut now = start();
    let mut fence = Fence::new(max_marks);
    let mut oracle = Oracle::default();
    let mut stamps = Vec::new();
    for step in steps {
        match step {
            Step::Raise(tags, seconds) => {
                let settled = now + Duration::from_secs(*seconds);
                fence.raise(tags.iter().copied().map(name), settled);
                oracle.writes.push((Some(tags.clone()), settled));
            }
            Step::Floor(seconds) => {
                let settled = now + Duration::from_secs(*seconds);
                fence.raise_floor(settled);
                oracle.writes.push((None, settled));
            }
            Step::Pass(seconds) => now += Duration::from_secs(*seconds),
            Step::Stamp => stamps.push((fence.stamp(now), oracle.writes.len())),
        }
        assert!(fence.marks() <= max_marks, "the table is bounded");
        assert_eq!(fence.marks(), fence.order.len());
        for depends in [vec![0], vec![1, 2], vec![3, 4, 5]] {
            let names: Vec<_> = depends.iter().copied().map(name).collect();
            for (stamp, place) in &stamps {
                check(
                    fence.believes(stamp, &names),
                    oracle.believes(*place, stamp.at(), &depends),
                );
            }
        }
    }
    fence
}

proptest! {
    #[test]
    fn with_room_for_all_marks_the_fence_is_the_oracle(steps in steps()) {
        compare(&steps, 6, |fence, oracle| assert_eq!(fence, oracle));
    }

    #[test]
    fn without_room_it_only_ever_believes_less(steps in steps(), max_marks in 0usize..5) {
        compare(&steps, max_marks, |fence, oracle| assert!(oracle || !fence));
    }

    #[test]
    fn a_fetch_that_begins_after_all_settling_is_believed(steps in steps(), max in 0usize..5) {
        // Otherwise a fence that never believes would pass the properties above.
        let fence = compare(&steps, max, |_, _| ());
        let late = fence.stamp(start() + Duration::from_secs(1_000));
        prop_assert!(fence.believes(&late, &[name(0), name(5)]));
    }
}
