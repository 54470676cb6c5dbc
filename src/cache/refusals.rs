//! Pure. The reasons why responses were not stored, kept for later queries by operators.
//!
//! Bounded: the latest `max` rejections are kept.

use super::key::CacheKeyHash;
use super::reason::StoreRefusal;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// The latest rejection of each key.
#[derive(Debug)]
pub(super) struct StoreRefusals {
    latest: HashMap<CacheKeyHash, (StoreRefusal, Instant, u64)>,
    /// All kept rejections, oldest first. A key that was rejected again appears twice; the number
    /// tells which is the latest.
    order: VecDeque<(CacheKeyHash, u64)>,
    next: u64,
    max: usize,
}

impl StoreRefusals {
    pub(super) fn new(max: usize) -> Self {
        Self {
            latest: HashMap::new(),
            order: VecDeque::new(),
            next: 0,
            max,
        }
    }

    /// Records that a response was not stored.
    pub(super) fn note(&mut self, key: CacheKeyHash, why: StoreRefusal, now: Instant) {
        let number = self.next;
        self.next += 1;
        self.latest.insert(key, (why, now, number));
        self.order.push_back((key, number));
        while self.order.len() > self.max {
            let Some((key, number)) = self.order.pop_front() else {
                return;
            };
            if self
                .latest
                .get(&key)
                .is_some_and(|(_, _, latest)| *latest == number)
            {
                self.latest.remove(&key);
            }
        }
    }

    /// The latest rejection of a key, and its instant.
    pub(super) fn of(&self, key: CacheKeyHash) -> Option<(StoreRefusal, Instant)> {
        self.latest.get(&key).map(|(why, at, _)| (*why, *at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn the_latest_are_remembered_and_no_more() {
        let now = Clock::system().now();
        let key = |n: u64| format!("{n:016x}").parse::<CacheKeyHash>().unwrap();
        let mut refusals = StoreRefusals::new(3);
        for n in 0..10 {
            refusals.note(key(n % 5), StoreRefusal::Vary, now);
            refusals.note(key(7), StoreRefusal::NoStore, now);
            assert!(refusals.latest.len() <= 3 && refusals.order.len() <= 3);
        }
        assert_eq!(refusals.of(key(7)), Some((StoreRefusal::NoStore, now)));
        assert_eq!(refusals.of(key(4)), Some((StoreRefusal::Vary, now)));
        assert_eq!(refusals.of(key(0)), None);
    }
}
