//! How much of the processor goes into looking closer at who could leave when.
//!
//! A forecast of a thousand who wait takes milliseconds, and whoever is refused can ask for one a
//! hundred times a second. One is made at a time, and after each there is none for so long that a
//! small share of one processor goes into them; in between, the bounds of the budgets have to do.

use crate::clock::Clock;
use parking_lot::Mutex;
use std::time::Instant;

/// The pause after a look, in times that it took: a twentieth of one processor.
const PAUSE: u32 = 20;

/// When to look again.
#[derive(Debug, Default)]
pub struct Looks {
    next: Mutex<Option<Instant>>,
}

impl Looks {
    /// Looks, unless that would take too large a share.
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
        let looks = Looks::default();
        assert_eq!(looks.look(&clock, || 1), Some(1));
        assert_eq!(looks.look(&clock, || 2), Some(2), "it took no time");
        *looks.next.lock() = Some(clock.now() + Duration::from_secs(1));
        assert_eq!(looks.look(&clock, || 3), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        let nested = looks.look(&clock, || looks.look(&clock, || 4));
        assert_eq!(nested, Some(None), "one at a time");
    }
}
