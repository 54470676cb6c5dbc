//! Pure. The budget for retries of writes that may have taken effect.
//!
//! Retries must not multiply the load on an API in trouble. So they are a share of the other
//! traffic: each first attempt of a write adds a fifth of a retry, and each retry takes one. Ten a
//! minute are added regardless, so that a gateway with little traffic can retry as well. Unused
//! retries are kept up to a bound.

use std::time::{Duration, Instant};

/// The cost of a retry. One unit is added each millisecond, hence ten retries a minute.
const REPETITION: u64 = 6_000;
/// The amount that the first attempt of a write adds.
const FIRST_ATTEMPT: u64 = REPETITION / 5;
/// The initial balance.
const INITIAL: u64 = 10 * REPETITION;
/// The largest balance.
const MOST: u64 = 60 * REPETITION;

/// A token bucket of retries.
#[derive(Clone, Copy, Debug)]
pub struct RetryBudget {
    balance: u64,
    /// The instant up to which the balance includes the regular addition; `None` before the first
    /// use.
    counted: Option<Instant>,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            balance: INITIAL,
            counted: None,
        }
    }
}

impl RetryBudget {
    /// Adds the share of a write's first attempt.
    pub fn first_attempt(&mut self, now: Instant) {
        self.count(now);
        self.balance = (self.balance + FIRST_ATTEMPT).min(MOST);
    }

    /// Takes one retry.
    ///
    /// # Errors
    /// The instant at which there is one, if nothing else takes it first.
    pub fn repeat(&mut self, now: Instant) -> Result<(), Instant> {
        let counted = self.count(now);
        match self.balance.checked_sub(REPETITION) {
            Some(rest) => {
                self.balance = rest;
                Ok(())
            }
            None => Err(counted + Duration::from_millis(REPETITION - self.balance)),
        }
    }

    /// Adds the regular amount, in whole milliseconds, and returns the instant that it covers. The
    /// fraction is left for the next call.
    fn count(&mut self, now: Instant) -> Instant {
        let before = self.counted.unwrap_or(now);
        let passed = now.saturating_duration_since(before).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.balance = self.balance.saturating_add(passed).min(MOST);
        let counted = before + Duration::from_millis(passed);
        self.counted = Some(counted);
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use proptest::prelude::*;

    /// How many repetitions there are at once.
    fn all(budget: &mut RetryBudget, now: Instant) -> u64 {
        (0..).take_while(|_| budget.repeat(now).is_ok()).count() as u64
    }

    #[test]
    fn repetitions_are_a_share_of_first_attempts_and_a_few_a_minute() {
        let start = Clock::system().now();
        // First attempts, seconds that pass, and the repetitions that there are then.
        for (attempts, seconds, expected) in [
            (0, 0, 0),
            (4, 0, 0),
            (5, 0, 1),
            (100, 0, 20),
            (0, 5, 0),
            (0, 6, 1),
            (0, 60, 10),
            (3, 3, 1),
            (100, 60, 30),
            (1_000, 0, 60),
            (0, 86_400, 60),
        ] {
            let mut budget = RetryBudget::default();
            assert_eq!(all(&mut budget, start), 10, "at the beginning");
            for _ in 0..attempts {
                budget.first_attempt(start);
            }
            let now = start + Duration::from_secs(seconds);
            let given = all(&mut budget, now);
            assert_eq!(given, expected, "{attempts} in {seconds} s");
        }
    }

    #[test]
    fn whoever_gets_none_is_told_when_there_is_one() {
        let start = Clock::system().now();
        let mut budget = RetryBudget::default();
        all(&mut budget, start);
        let second = start + Duration::from_secs(6);
        assert_eq!(budget.repeat(start), Err(second));
        let soon = second - Duration::from_nanos(1);
        assert_eq!(budget.repeat(soon), Err(second));
        assert_eq!(budget.repeat(second), Ok(()));
        assert_eq!(
            budget.repeat(second),
            Err(second + Duration::from_secs(6)),
            "asking costs nothing"
        );
    }

    proptest! {
        /// In any period there are no more repetitions than come by themselves and with its first
        /// attempts, besides what was there: at the beginning of all what it begins with, later the
        /// bound at most.
        #[test]
        fn there_are_never_more_than_came_in(
            steps in prop::collection::vec((0_u64..20_000_000, 0_u8..3), 1..300),
        ) {
            let start = Clock::system().now();
            let mut budget = RetryBudget::default();
            let mut now = start;
            // At each step: the instant, first attempts and repetitions until then.
            let mut seen = vec![(start, 0_u64, 0_u64)];
            for (micros, what) in steps {
                now += Duration::from_micros(micros);
                let (_, mut firsts, mut repeated) = seen[seen.len() - 1];
                match what {
                    0 => {
                        budget.first_attempt(now);
                        firsts += 1;
                    }
                    _ => match budget.repeat(now) {
                        Ok(()) => repeated += 1,
                        Err(again) => {
                            prop_assert!(again > now);
                            prop_assert!(budget.gives_at(again));
                        }
                    },
                }
                seen.push((now, firsts, repeated));
            }
            for (n, from) in seen.iter().enumerate() {
                let was_there = if n == 0 { INITIAL } else { MOST };
                for to in &seen[n..] {
                    let passed = u64::try_from((to.0 - from.0).as_micros()).unwrap();
                    // One millisecond may have begun before the period.
                    let came = passed.div_ceil(1_000) + (to.1 - from.1) * FIRST_ATTEMPT;
                    prop_assert!((to.2 - from.2) * REPETITION <= was_there + came);
                }
            }
        }
    }

    impl RetryBudget {
        /// Whether there would be a repetition then.
        fn gives_at(mut self, now: Instant) -> bool {
            self.repeat(now).is_ok()
        }
    }
}
