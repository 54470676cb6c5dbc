//! Pure. Whether writes are sent at all while the API does not answer.
//!
//! After some attempts in a row that could not be sent, were not answered, or were answered by a
//! gateway in front of the API (502, 503, 504), no write is sent for a moment; then one is, as a
//! probe, and the others when that has been answered. The moment doubles while probes fail. A 429
//! says that the API is there: it closes the breaker rather than opening it.

use std::time::{Duration, Instant};

/// So many failures in a row open it.
const FAILURES: u32 = 8;
/// How long it is open at first, and at most.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// A probe that is not heard of for so long has failed in some other way.
const PROBE: Duration = Duration::from_secs(40);
/// How soon others ask again while a probe is under way.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Opens and closes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Breaker {
    failures: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Closed,
    /// Nothing is sent until then; how long it was open.
    Open(Instant, Duration),
    /// A probe is under way, or was given up on by then.
    Probing(Instant, Duration),
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It opened, for so long.
    Opened(Duration),
    /// It closed.
    Closed,
}

impl Breaker {
    /// Whether a write may be sent now.
    ///
    /// # Errors
    /// With the instant at which to ask again.
    pub fn may(&mut self, now: Instant) -> Result<(), Instant> {
        match self.state {
            State::Closed => Ok(()),
            State::Open(until, _) if now < until => Err(until),
            State::Probing(until, _) if now < until => Err(now + ASK_AGAIN),
            State::Open(_, pause) | State::Probing(_, pause) => {
                self.state = State::Probing(now + PROBE, pause);
                Ok(())
            }
        }
    }

    /// An attempt has ended; true if the API was there.
    pub fn came(&mut self, is_there: bool, now: Instant) -> Option<Changed> {
        if is_there {
            self.failures = 0;
            let was_open = !matches!(self.state, State::Closed);
            self.state = State::Closed;
            return was_open.then_some(Changed::Closed);
        }
        self.failures = self.failures.saturating_add(1);
        let pause = match self.state {
            State::Closed if self.failures >= FAILURES => FIRST,
            State::Probing(_, pause) => (pause * 2).min(LONGEST),
            // Those that had left before it opened say nothing new.
            State::Closed | State::Open(..) => return None,
        };
        self.state = State::Open(now + pause, pause);
        Some(Changed::Opened(pause))
    }

    /// An attempt has ended in a way that says nothing of the API. If it was the probe, another one
    /// may be sent.
    pub fn came_to_nothing(&mut self, now: Instant) {
        if let State::Probing(_, pause) = self.state {
            self.state = State::Open(now, pause);
        }
    }

    /// Whether writes wait for the API to be there again.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_with_a_probe() {
        let mut now = Clock::system().now();
        let mut breaker = Breaker::default();
        for _ in 1..FAILURES {
            assert_eq!(breaker.came(false, now), None);
        }
        breaker.came(true, now);
        for _ in 1..FAILURES {
            assert_eq!(breaker.came(false, now), None);
            assert_eq!(breaker.may(now), Ok(()));
        }
        let mut pause = FIRST;
        assert_eq!(breaker.came(false, now), Some(Changed::Opened(pause)));
        assert_eq!(breaker.came(false, now), None, "it had left before");
        for _ in 0..7 {
            assert_eq!(breaker.may(now), Err(now + pause));
            now += pause;
            assert_eq!(breaker.may(now), Ok(()), "one goes ahead");
            assert_eq!(
                breaker.may(now),
                Err(now + ASK_AGAIN),
                "the others wait for it"
            );
            pause = (pause * 2).min(LONGEST);
            assert_eq!(breaker.came(false, now), Some(Changed::Opened(pause)));
        }
        now += pause;
        assert_eq!(breaker.may(now), Ok(()));
        assert_eq!(breaker.came(true, now), Some(Changed::Closed));
        assert_eq!((breaker.may(now), breaker.may(now)), (Ok(()), Ok(())));
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_probe_that_says_nothing_is_followed_by_another() {
        let now = Clock::system().now();
        let mut breaker = Breaker::default();
        breaker.came_to_nothing(now);
        assert_eq!(breaker.may(now), Ok(()));
        for _ in 0..FAILURES {
            breaker.came(false, now);
        }
        breaker.came_to_nothing(now);
        assert_eq!(
            breaker.may(now),
            Err(now + FIRST),
            "it is open all the same"
        );
        let later = now + FIRST;
        for _ in 0..3 {
            assert_eq!(breaker.may(later), Ok(()));
            assert!(breaker.may(later).is_err());
            breaker.came_to_nothing(later);
        }
        assert_eq!(breaker.may(later), Ok(()));
        assert_eq!(breaker.came(true, later), Some(Changed::Closed));
    }

    #[test]
    fn a_probe_that_is_never_heard_of_does_not_keep_it_open() {
        let now = Clock::system().now();
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES {
            breaker.came(false, now);
        }
        let later = now + FIRST;
        assert_eq!(breaker.may(later), Ok(()));
        assert!(breaker.may(later + PROBE - ASK_AGAIN).is_err());
        assert_eq!(breaker.may(later + PROBE), Ok(()));
    }
}
