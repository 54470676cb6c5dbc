//! Pure. The rate of a budget, as far as it can be learned from rate headers.
//!
//! A single response may be wrong: a number that does not fit, a `Reset` by another clock. So
//! whatever would let more requests through needs two responses, and at most doubles what is in
//! force or restores what is configured. A lower limit holds at once. A longer window is believed
//! when two responses from different windows show it. Until then the claim of one of them is
//! respected as long as no other response contradicts it, but never for longer than twice the
//! window without asking again.
//!
//! A documented limit is never exceeded, and a documented window is not learned.

use crate::limit::learn::Allowance;
use crate::route::policy::Rate;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// Times that are derived from dates are whole seconds, rounded up by at most two.
const ROUNDING: Duration = Duration::from_secs(2);
/// The longest window that is believed.
const LONGEST: Duration = Duration::from_secs(2 * 86_400);
/// How much shorter than believed a window must be seen to be, because responses may be late.
const SHORTER: Duration = Duration::from_secs(60);

/// The rate of one budget, and the evidence for it.
#[derive(Clone, Debug)]
pub struct Evidence {
    rate: Rate,
    /// The configured rate.
    base: Rate,
    is_documented: bool,
    /// Whether any response has said what the limit is.
    told: bool,
    /// The limit that the last response implied, if it is higher than the one in force.
    higher: Option<u32>,
    claim: Option<WindowClaim>,
    /// The last response that was the first one of a window: when that window ends, and the time
    /// that was left of it.
    opening: Option<(Instant, Duration)>,
}

/// A longer window that a single response has shown.
#[derive(Clone, Copy, Debug)]
struct WindowClaim {
    window: Duration,
    /// When the window of that response ends.
    end: Instant,
    /// When to ask again, if nothing is free until then.
    ask_at: Instant,
}

/// The rate in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The rate.
    pub rate: Rate,
    /// Whether responses have taught it, so that it differs from the configured one.
    pub is_learned: bool,
}

/// The changes made by one response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The old and the new limit, if it changed.
    pub limit: Option<(u32, u32)>,
    /// The new window, if it changed.
    pub window: Option<Duration>,
}

impl Evidence {
    /// Begins with `rate`. `base` is configured, and either documented or assumed.
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

    /// The rate in force, and whether it is learned.
    pub fn in_force(&self) -> InForce {
        InForce {
            rate: self.rate,
            is_learned: self.rate != self.base,
        }
    }

    /// The time by which a response claims the window to be longer than it is believed to be.
    pub fn claimed(&self) -> Duration {
        let longer = |claim: WindowClaim| claim.window.saturating_sub(self.rate.window);
        self.claim.map_or(Duration::ZERO, longer)
    }

    /// When to ask whether the claim holds, if it leaves no slot free.
    pub fn ask_at(&self) -> Option<Instant> {
        self.claim.map(|claim| claim.ask_at)
    }

    /// Postpones the next question about the claim.
    pub fn asked(&mut self, now: Instant) {
        if let Some(claim) = &mut self.claim {
            claim.ask_at = now + self.rate.window * 2;
        }
    }

    /// Applies another configured limit for the same window. It holds at once, but what responses
    /// have taught is kept: a limit below the documented one stays as low, and an undocumented one
    /// stays as they said.
    pub fn configure(&mut self, limit: u32, is_documented: bool) {
        let is_learned = if self.is_documented {
            self.rate.limit < self.base.limit
        } else {
            self.told || self.rate != self.base
        };
        self.base.limit = limit.max(1);
        self.is_documented = is_documented;
        if !is_learned {
            self.rate.limit = self.base.limit;
        } else if is_documented {
            self.rate.limit = self.rate.limit.min(self.base.limit);
        }
    }

    /// Learns from the rate headers of a response.
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

    /// Learns the limit: a lower one at once, a higher one when two responses in a row imply it.
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

    /// Learns the window. `left` is the time left of the window of a response, which is its first
    /// one if `is_first`.
    fn hear_window(&mut self, is_first: bool, left: Duration, now: Instant) {
        let window = self.rate.window;
        let end = now + left;
        let is_early = |claim: &WindowClaim| end + SHORTER < claim.end;
        let mut contradicted = self.claim.as_ref().is_some_and(is_early);
        if contradicted {
            self.claim = None;
        }
        if !is_first {
            return;
        }
        // A window that begins decides about the claim, because it cannot be the claimed one.
        let is_same = |claim: WindowClaim| end <= claim.end + ROUNDING;
        contradicted |= self.claim.take().is_some_and(is_same);
        let before = self.opening.replace((end, left));
        if let Some((before_end, before_left)) = before
            && end > before_end + ROUNDING
        {
            // Two windows. Each is at least as long as what was left of it, and neither is longer
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
            self.claim = Some(WindowClaim {
                window: left,
                end,
                ask_at: now + window * 2,
            });
        }
    }
}
