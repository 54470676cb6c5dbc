//! Pure. When the blocked requests of one or several lines are expected to be ready, in order.
//!
//! Counting takes a time that is logarithmic in the requests. Adding and removing moves the
//! instants behind or before the one in question, whichever are fewer: of 10,000 at most 80 KB,
//! which takes a few microseconds. Most are added at the end and removed at the beginning.

use std::collections::VecDeque;
use std::time::Instant;

/// Instants in order; one may be there several times.
#[derive(Clone, Debug, Default)]
pub(super) struct ExpectedTimes(VecDeque<Instant>);

/// A change to the blocked requests of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockedChange {
    /// One joined that is expected to be ready then.
    Blocked(Instant),
    /// One that was expected then is ready, or has left.
    Unblocked(Instant),
    /// The same requests are blocked as before.
    Nothing,
}

impl ExpectedTimes {
    /// Applies a change to the requests.
    pub(super) fn change(&mut self, change: BlockedChange) {
        match change {
            BlockedChange::Blocked(at) => {
                let behind = self.0.partition_point(|other| *other <= at);
                self.0.insert(behind, at);
            }
            BlockedChange::Unblocked(at) => {
                let first = self.0.partition_point(|other| *other < at);
                if self.0.get(first) == Some(&at) {
                    self.0.remove(first);
                }
            }
            BlockedChange::Nothing => {}
        }
    }

    /// The number of all requests.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The number of those that are expected at `until`, or of all.
    pub(super) fn by(&self, until: Option<Instant>) -> usize {
        match until {
            Some(until) => self.0.partition_point(|at| *at <= until),
            None => self.0.len(),
        }
    }

    /// When the first one is expected, and so on. `None` behind the last one.
    pub(super) fn nth(&self, number: usize) -> Option<Instant> {
        self.0.get(number).copied()
    }
}
