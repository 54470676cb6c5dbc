//! Pure. The slots that are left to other users of the token.
//!
//! While a budget is saturated, responses do not show other users: their requests find the API's
//! window full. All that shows them is a 429 that our own slots do not explain. The first one after
//! each opening leaves more slots to them for some windows, at most half of the limit. The slots
//! are taken back a few at a time. While any are left to others, our attempts are spread evenly
//! over the window, so that there is room at any time and responses show what others use.
//!
//! Taking slots back too early costs one 429 each time. The figures below keep those under 2 % of
//! what is sent, whatever kind of window the API has; see the simulation.

use crate::route::policy::Rate;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// An unexplained 429 leaves a sixteenth of the limit more to others.
const STEP: u32 = 16;
/// The number of windows without a sign that slots are needed after which some are taken back.
const EVERY: u32 = 2;
/// A quarter of the slots that others were not seen to use is taken back at a time.
const PART: u32 = 4;

/// The slots left to other users of the token.
#[derive(Clone, Copy, Debug)]
pub struct OtherUsers {
    slots: u32,
    /// The most slots that others were seen to use since some were last taken back.
    seen: u32,
    /// When slots are taken back next.
    until: Instant,
    /// When our next attempt may be sent.
    next: Instant,
}

impl OtherUsers {
    /// No other users.
    pub fn none(now: Instant) -> Self {
        Self {
            slots: 0,
            seen: 0,
            until: now,
            next: now,
        }
    }

    /// The number of slots left to others.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// When that number is reduced next.
    pub fn until(&self) -> Option<Instant> {
        (self.slots > 0).then_some(self.until)
    }

    /// When our next attempt may be sent.
    pub fn next(&self) -> Option<Instant> {
        (self.slots > 0).then_some(self.next)
    }

    /// The interval between two of our attempts.
    pub fn pace(&self, rate: Rate) -> Duration {
        match self.slots {
            0 => Duration::ZERO,
            slots => rate.window / rate.limit.saturating_sub(slots).max(1),
        }
    }

    /// Notes that an attempt of ours is sent.
    pub fn leaves(&mut self, rate: Rate, now: Instant) {
        self.next = now + self.pace(rate);
    }

    /// Notes a 429 that our slots do not explain, and that shows that others use at least `used`
    /// slots. Only the first one of a closing leaves more to them than that, because attempts that
    /// were in flight by then got theirs for the same reason.
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

    /// Notes that responses show others to use `used` slots now.
    pub fn seen(&mut self, used: u32, rate: Rate, now: Instant) {
        let used = used.min(rate.limit / 2);
        self.seen = self.seen.max(used);
        if self.slots > 0 && used >= self.slots {
            self.slots = used;
            self.until = now + rate.window * EVERY;
        }
    }

    /// Takes back the slots that are due.
    pub fn release(&mut self, rate: Rate, now: Instant) {
        while self.slots > 0 && now >= self.until {
            let unused = self.slots.saturating_sub(self.seen);
            self.slots -= (unused / PART).max(1);
            self.seen = 0;
            self.until += rate.window * EVERY;
        }
    }
}
