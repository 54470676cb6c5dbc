//! Pure. The slots that are left to others who use the same token.
//!
//! Where a budget is saturated, nobody else is seen in the answers: whoever comes finds the
//! upstream's window full. All that shows them is a 429 that our own slots do not explain. The
//! first of each closing leaves more slots to them, for some windows, and at most half of the
//! limit; they are taken back a few at a time. While any are left to others, ours are spread evenly
//! over the window, so that there is room at any time, and answers say what others use.
//!
//! Taking slots back too early costs a 429 each time. The figures below keep those under 2 % of
//! what is sent, whatever kind of window the upstream has; see the simulation.

use crate::route::policy::Rate;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// An unexplained 429 leaves this part of the limit more to others.
const STEP: u32 = 16;
/// Slots are taken back after so many windows in which nothing showed that they are needed, ...
const EVERY: u32 = 2;
/// ... and this part of what others were not seen to use.
const PART: u32 = 4;

/// Slots left to others.
#[derive(Clone, Copy, Debug)]
pub struct Others {
    slots: u32,
    /// The most that they were seen to use since slots were last taken back.
    seen: u32,
    /// When slots are taken back.
    until: Instant,
    /// When the next attempt of ours may leave.
    next: Instant,
}

impl Others {
    /// Nobody else.
    pub fn none(now: Instant) -> Self {
        Self {
            slots: 0,
            seen: 0,
            until: now,
            next: now,
        }
    }

    /// How many slots are left to others.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// When there will be fewer.
    pub fn until(&self) -> Option<Instant> {
        (self.slots > 0).then_some(self.until)
    }

    /// When the next attempt of ours may leave.
    pub fn next(&self) -> Option<Instant> {
        (self.slots > 0).then_some(self.next)
    }

    /// The time between two attempts of ours.
    pub fn pace(&self, rate: Rate) -> Duration {
        match self.slots {
            0 => Duration::ZERO,
            slots => rate.window / rate.limit.saturating_sub(slots).max(1),
        }
    }

    /// An attempt of ours leaves.
    pub fn leaves(&mut self, rate: Rate, now: Instant) {
        self.next = now + self.pace(rate);
    }

    /// A 429 came that our slots do not explain; it shows that others use `used` slots at least.
    /// Only the first one of a closing leaves more to them than that: what had left by then was
    /// refused for the same reason.
    pub fn refused(&mut self, used: u32, is_first: bool, rate: Rate, now: Instant) {
        let step = if is_first {
            (rate.limit / STEP).max(1)
        } else {
            0
        };
        let more = self.slots.saturating_add(step);
        self.slots = more.max(used).min(rate.limit / 2);
        self.until = now + rate.window * EVERY;
    }

    /// Answers show that others use so many slots now.
    pub fn seen(&mut self, used: u32, rate: Rate, now: Instant) {
        let used = used.min(rate.limit / 2);
        self.seen = self.seen.max(used);
        if self.slots > 0 && used >= self.slots {
            self.slots = used;
            self.until = now + rate.window * EVERY;
        }
    }

    /// Takes back what is due.
    pub fn release(&mut self, rate: Rate, now: Instant) {
        while self.slots > 0 && now >= self.until {
            let unused = self.slots.saturating_sub(self.seen);
            self.slots -= (unused / PART).max(1);
            self.seen = 0;
            self.until += rate.window * EVERY;
        }
    }
}
