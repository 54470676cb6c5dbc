//! Lanes: a write enters and settles, with other writes of its credential.

use crate::{Scale, credential};
use segment_gateway::clock::Clock;
use segment_gateway::credential::Hasher;
use segment_gateway::lanes::{Keys, LanePosition, Lanes};
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

/// The most writes that are copied for an estimate, as in `attempt/estimate/run.rs`.
const MOST_COPIED: usize = 2_000;

pub(crate) fn measure(scale: &Scale) {
    scale.title("a write in its lanes, with other writes of its credential");
    scale.row("in other lanes: enter and settle", |others| {
        let road = Road::new(others, |n| user(n + 1));
        move || drop(black_box(road.enter(user(0))))
    });
    scale.row("in its lane: enter, and settle first of them", |others| {
        let mut road = Road::new(others, |_| user(0));
        move || {
            let last = road.enter(user(0));
            road.positions.push_back(last);
            drop(road.positions.pop_front());
        }
    });
    scale.row("in its lane: enter, and leave", |others| {
        let road = Road::new(others, |_| user(0));
        move || drop(black_box(road.enter(user(0))))
    });
    scale.row("in its lane: when is it expected to be free?", |others| {
        let road = Road::new(others, |_| user(0));
        move || road.expected_free()
    });
    scale.row(
        "barriers: a write of their class enters and leaves",
        |others| {
            let road = Road::new(others, |_| barrier());
            move || drop(black_box(road.enter(user(0))))
        },
    );
    scale.row("of its class: a barrier enters and leaves", |others| {
        let road = Road::new(others, |n| user(n + 1));
        move || drop(black_box(road.enter(barrier())))
    });
    scale.row("in other lanes: copy the lanes for an estimate", |others| {
        let road = Road::new(others, |n| user(n + 1));
        move || road.copy()
    });
}

fn user(n: u32) -> Keys {
    Keys::new(&hasher(), [&*format!("person:{n}")], [])
}

fn barrier() -> Keys {
    Keys::new(&hasher(), [], ["person"])
}

fn hasher() -> Hasher {
    Hasher::new(&[7; 32])
}

/// The lanes of one credential, and the writes in them.
struct Road {
    lanes: Lanes,
    clock: Clock,
    positions: VecDeque<LanePosition>,
}

impl Road {
    fn new(writes: u32, keys: impl Fn(u32) -> Keys) -> Self {
        let clock = Clock::system();
        let mut road = Self {
            lanes: Lanes::new(clock.clone()),
            clock,
            positions: VecDeque::new(),
        };
        road.fill(writes, keys);
        road
    }

    fn fill(&mut self, writes: u32, keys: impl Fn(u32) -> Keys) {
        for n in 0..writes {
            let position = self.enter(keys(n));
            self.positions.push_back(position);
        }
    }

    fn enter(&self, keys: Keys) -> LanePosition {
        let now = self.clock.now();
        self.lanes.enter(credential(0), keys, now, 0)
    }
    fn expected_free(&self) {
        let each = Duration::from_millis(200);
        black_box(self.lanes.expected_free(credential(0), &user(0), each));
    }

    fn copy(&self) {
        drop(black_box(self.lanes.order(credential(0), MOST_COPIED)));
    }
}
