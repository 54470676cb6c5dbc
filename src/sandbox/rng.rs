//! Pure. The seeded random numbers: the same seed gives the same run.
//!
//! Splitmix64 is small, has no bad seeds, and suffices for delays and faults. Nothing that it
//! decides is worth predicting for an attacker.

use std::time::Duration;

/// A sequence of numbers that is determined by its seed.
pub(super) struct Rng(u64);

impl Rng {
    /// Starts the sequence of `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number, uniform over all of `u64`.
    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns the next number in `[0, 1)`, with 53 bits.
    pub(super) fn unit(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns the next number below `bound`, or 0 if `bound` is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        if bound == 0 {
            return 0;
        }
        // The bias of the remainder is below 2^-40 for every bound used here.
        (self.number() % bound as u64) as usize
    }

    /// Returns a duration that is uniform over `[0, most]`, in nanoseconds.
    pub(super) fn up_to(&mut self, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX - 1);
        Duration::from_nanos(self.number() % (nanos + 1))
    }

    /// Returns the gap before the next arrival of a Poisson process with this mean gap. It is at
    /// least one nanosecond, so that a loop over arrivals ends.
    pub(super) fn gap(&mut self, mean: Duration) -> Duration {
        let nanos = -(1.0 - self.unit()).ln() * mean.as_nanos() as f64;
        Duration::from_nanos((nanos as u64).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_sequence() {
        let (mut a, mut b, mut c) = (Rng::new(1), Rng::new(1), Rng::new(2));
        let first: Vec<u64> = (0..5).map(|_| a.number()).collect();
        assert_eq!(first, (0..5).map(|_| b.number()).collect::<Vec<_>>());
        assert_ne!(first, (0..5).map(|_| c.number()).collect::<Vec<_>>());
    }

    #[test]
    fn draws_stay_in_range_and_near_their_mean() {
        let mut rng = Rng::new(7);
        let mean = Duration::from_secs(2);
        let (mut gaps, mut units) = (Duration::ZERO, 0.0);
        for _ in 0..20_000 {
            let unit = rng.unit();
            assert!((0.0..1.0).contains(&unit));
            units += unit;
            gaps += rng.gap(mean);
            assert!(rng.up_to(Duration::from_millis(3)) <= Duration::from_millis(3));
            assert!(rng.below(5) < 5);
        }
        assert!((units / 20_000.0 - 0.5).abs() < 0.02);
        assert!((gaps.as_secs_f64() / 20_000.0 - 2.0).abs() < 0.1);
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.up_to(Duration::ZERO), Duration::ZERO);
        // The longest duration there is must not overflow.
        rng.up_to(Duration::MAX);
    }
}
