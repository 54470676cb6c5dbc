//! Pure. What the answers of a budget are believed to say of its limit and its window.
//!
//! One answer may be wrong: a number that does not fit, a `Reset` of another clock. So whatever
//! would let more requests through needs two answers, and at most doubles what is in force or
//! restores what is configured. A lower limit holds at once. A longer window is believed when two
//! answers of different windows say so; until then what one of them claims is respected as long as
//! no other answer contradicts it, and never for longer than twice the window without asking again.
//!
//! A documented limit is never exceeded, and a documented window is not learned.

use crate::limit::learn::Allowance;
use crate::route::policy::Rate;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// Times that are derived from dates are whole seconds, and rounded up by up to two.
const ROUNDING: Duration = Duration::from_secs(2);
/// A window that is longer is nonsense.
const LONGEST: Duration = Duration::from_secs(2 * 86_400);
/// How much shorter than believed a window must be seen to be: answers may be late.
const SHORTER: Duration = Duration::from_secs(60);

/// The rate of one budget, and what supports it.
#[derive(Clone, Debug)]
pub struct Evidence {
    rate: Rate,
    /// What is configured.
    base: Rate,
    is_documented: bool,
    /// Whether an answer has said what the limit is.
    told: bool,
    /// A higher limit than the one in force, as the last answer had it.
    higher: Option<u32>,
    claim: Option<Claim>,
    /// The last answer that was the first one of a window: when that window ends, and the time
    /// that was left of it.
    opening: Option<(Instant, Duration)>,
}

/// A longer window that one answer has shown.
#[derive(Clone, Copy, Debug)]
struct Claim {
    window: Duration,
    /// When the window of that answer ends.
    end: Instant,
    /// When to ask again, if nothing is free until then.
    ask_at: Instant,
}

/// A rate that is in force, and whether answers have taught it, so that it is another than the
/// configured one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The rate.
    pub rate: Rate,
    /// See above.
    pub is_learned: bool,
}

impl From<Rate> for InForce {
    fn from(rate: Rate) -> Self {
        Self {
            rate,
            is_learned: false,
        }
    }
}

/// What an answer has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The limit changed from the first to the second.
    pub limit: Option<(u32, u32)>,
    /// The window is another one: this.
    pub window: Option<Duration>,
}

impl Evidence {
    /// Begins with `rate`; `base` is configured, and documented or assumed.
    pub fn new(rate: Rate, base: Rate, is_documented: bool) -> Self {
        let at_least_one = |rate: Rate| Rate {
            limit: rate.limit.max(1),
            window: rate.window,
        };
        Self {
            rate: at_least_one(rate),
            base: at_least_one(base),
            is_documented,
            told: false,
            higher: None,
            claim: None,
            opening: None,
        }
    }

    /// The rate in force.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Whether an answer has said what the limit is.
    pub fn is_told(&self) -> bool {
        self.told
    }

    /// Whether answers have taught another rate than the configured one.
    pub fn is_learned(&self) -> bool {
        self.rate != self.base
    }

    /// By how much longer than the window an answer claims that it is.
    pub fn claimed(&self) -> Duration {
        let longer = |claim: Claim| claim.window.saturating_sub(self.rate.window);
        self.claim.map_or(Duration::ZERO, longer)
    }

    /// When to ask whether the claim holds, should it leave no slot free.
    pub fn ask_at(&self) -> Option<Instant> {
        self.claim.map(|claim| claim.ask_at)
    }

    /// Puts off the next question about the claim.
    pub fn asked(&mut self, now: Instant) {
        if let Some(claim) = &mut self.claim {
            claim.ask_at = now + self.rate.window * 2;
        }
    }

    /// Another limit is configured, for the same window. It holds at once; what answers have
    /// taught holds on: a limit below the document before stays as low, and one that only answers
    /// know stays as they said.
    pub fn configure(&mut self, limit: u32, is_documented: bool) {
        let is_learned = if self.is_documented {
            self.rate.limit < self.base.limit
        } else {
            self.told || self.is_learned()
        };
        self.base.limit = limit.max(1);
        self.is_documented = is_documented;
        if !is_learned {
            self.rate.limit = self.base.limit;
        } else if is_documented {
            self.rate.limit = self.rate.limit.min(self.base.limit);
        }
    }

    /// Hears what an answer says.
    pub fn hear(&mut self, allowance: Allowance, now: Instant) -> Changes {
        let before = self.rate;
        self.told = true;
        self.hear_limit(allowance.limit());
        if !self.is_documented
            && let Some(left) = allowance.reset_in.filter(|left| *left <= LONGEST)
        {
            self.hear_window(allowance.consumed == 1, left, now);
        }
        let rate = self.rate;
        Changes {
            limit: (before.limit != rate.limit).then_some((before.limit, rate.limit)),
            window: (before.window != rate.window).then_some(rate.window),
        }
    }

    fn hear_limit(&mut self, observed: u32) {
        let observed = if self.is_documented {
            observed.min(self.base.limit)
        } else {
            observed
        };
        let limit = self.rate.limit;
        if observed <= limit {
            self.higher = None;
            self.rate.limit = observed;
            return;
        }
        let Some(before) = self.higher.take() else {
            self.higher = Some(observed);
            return;
        };
        let most = limit.saturating_mul(2).max(self.base.limit);
        self.rate.limit = before.min(observed).min(most);
    }

    /// `left` is left of the window of an answer, of which it is the first one if `is_first`.
    fn hear_window(&mut self, is_first: bool, left: Duration, now: Instant) {
        let window = self.rate.window;
        let end = now + left;
        let is_early = |claim: &Claim| end + SHORTER < claim.end;
        let mut contradicted = self.claim.as_ref().is_some_and(is_early);
        if contradicted {
            self.claim = None;
        }
        if !is_first {
            return;
        }
        // A window that begins decides about the claim: it cannot be the one that was claimed.
        let is_same = |claim: Claim| end <= claim.end + ROUNDING;
        contradicted |= self.claim.take().is_some_and(is_same);
        let before = self.opening.replace((end, left));
        if let Some((before_end, before_left)) = before
            && end > before_end + ROUNDING
        {
            // Two windows: each is as long as what was left of it at least, and neither is longer
            // than the time between their ends.
            let both = left.min(before_left);
            let between = end - before_end;
            if both > window + ROUNDING {
                self.rate.window = both;
                return;
            }
            if window.saturating_sub(between) > SHORTER {
                self.rate.window = (between + ROUNDING).max(self.base.window);
                return;
            }
        }
        if !contradicted && left > window + ROUNDING {
            self.claim = Some(Claim {
                window: left,
                end,
                ask_at: now + window * 2,
            });
        }
    }
}
