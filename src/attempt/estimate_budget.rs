//! The processor time that estimates may take.
//!
//! An estimate with a thousand queued requests takes milliseconds, and a rejected caller can ask
//! for one a hundred times a second. So one estimate runs at a time, and a pause follows that keeps
//! estimates to a small share of one processor. During the pause the bounds of the budgets decide.

use crate::clock::Clock;
use parking_lot::Mutex;
use std::time::Instant;

/// The pause after an estimate, as a multiple of its duration: a twentieth of one processor.
const PAUSE: u32 = 20;

/// The time at which the next estimate may run.
#[derive(Debug, Default)]
pub struct EstimateBudget {
    next: Mutex<Option<Instant>>,
}

impl EstimateBudget {
    /// Runs `look`, unless another estimate is running or that would exceed the share.
    pub(crate) fn look<T>(&self, clock: &Clock, look: impl FnOnce() -> T) -> Option<T> {
        let mut next = self.next.try_lock()?;
        let began = clock.now();
        if next.is_some_and(|next| began < next) {
            return None;
        }
        let seen = look();
        let ended = clock.now();
        *next = Some(ended + ended.saturating_duration_since(began) * PAUSE);
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[tokio::test(start_paused = true)]
    async fn a_look_that_took_long_is_not_repeated_soon() {
        let clock = Clock::simulated(SystemTime::UNIX_EPOCH, Duration::ZERO);
        let estimate_budget = EstimateBudget::default();
        assert_eq!(estimate_budget.look(&clock, || 1), Some(1));
        assert_eq!(
            estimate_budget.look(&clock, || 2),
            Some(2),
            "it took no time"
        );
        *estimate_budget.next.lock() = Some(clock.now() + Duration::from_secs(1));
        assert_eq!(estimate_budget.look(&clock, || 3), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        let nested = estimate_budget.look(&clock, || estimate_budget.look(&clock, || 4));
        assert_eq!(nested, Some(None), "one at a time");
    }
}
