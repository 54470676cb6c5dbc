//! Pure. The circuit breaker for writes.
//!
//! An attempt fails here if it could not be sent, got no response, or was answered by something in
//! front of the API (502, 503, 504, or a page in place of a success). After some failures in a row
//! the breaker opens and no write is sent. After a pause one write is sent as a probe, and the
//! others follow once it is answered. The pause doubles while probes fail. A 429 shows that the API
//! is there: it closes the breaker.
//!
//! Reads are not held back.

use std::time::{Duration, Instant};

/// The number of consecutive failures that open the breaker.
const FAILURES: u32 = 8;
/// The first pause and the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// The time after which a probe without a result counts as lost.
const PROBE: Duration = Duration::from_secs(40);
/// The interval at which writes ask again while a probe is in flight.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// The circuit breaker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Breaker {
    failures: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Closed,
    /// No write is sent before the instant. The second field is the pause that led there.
    Open(Instant, Duration),
    /// A probe is in flight. At the instant it counts as lost. The second field is the last pause.
    Probing(Instant, Duration),
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The breaker opened for this pause.
    Opened(Duration),
    /// The probe failed, so the breaker stays open for this pause.
    StaysOpen(Duration),
    /// The breaker closed.
    Closed,
}

impl Breaker {
    /// Returns whether a write may be sent now. If a pause has passed, the write becomes the probe.
    ///
    /// # Errors
    /// The instant at which to ask again.
    pub fn admit(&mut self, now: Instant) -> Result<(), Instant> {
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

    /// Notes the end of an attempt. `is_there` says whether the API was there.
    pub fn record(&mut self, is_there: bool, now: Instant) -> Option<Changed> {
        if is_there {
            self.failures = 0;
            let was_open = !matches!(self.state, State::Closed);
            self.state = State::Closed;
            return was_open.then_some(Changed::Closed);
        }
        self.failures = self.failures.saturating_add(1);
        let (pause, changed) = match self.state {
            State::Closed if self.failures >= FAILURES => (FIRST, Changed::Opened(FIRST)),
            State::Probing(_, pause) => {
                let pause = (pause * 2).min(LONGEST);
                (pause, Changed::StaysOpen(pause))
            }
            // These attempts were sent before it opened, so their failures are known already.
            State::Closed | State::Open(..) => return None,
        };
        self.state = State::Open(now + pause, pause);
        Some(changed)
    }

    /// Notes the end of an attempt that says nothing about the API. If it was the probe, another
    /// write may be sent.
    pub fn record_inconclusive(&mut self, now: Instant) {
        if let State::Probing(_, pause) = self.state {
            self.state = State::Open(now, pause);
        }
    }

    /// Returns whether writes wait for the API.
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
            assert_eq!(breaker.record(false, now), None);
        }
        breaker.record(true, now);
        for _ in 1..FAILURES {
            assert_eq!(breaker.record(false, now), None);
            assert_eq!(breaker.admit(now), Ok(()));
        }
        let mut pause = FIRST;
        assert_eq!(breaker.record(false, now), Some(Changed::Opened(pause)));
        assert_eq!(breaker.record(false, now), None, "it had left before");
        for _ in 0..7 {
            assert_eq!(breaker.admit(now), Err(now + pause));
            now += pause;
            assert_eq!(breaker.admit(now), Ok(()), "one goes ahead");
            assert_eq!(
                breaker.admit(now),
                Err(now + ASK_AGAIN),
                "the others wait for it"
            );
            pause = (pause * 2).min(LONGEST);
            let stays_open = Some(Changed::StaysOpen(pause));
            assert_eq!(breaker.record(false, now), stays_open);
        }
        now += pause;
        assert_eq!(breaker.admit(now), Ok(()));
        assert_eq!(breaker.record(true, now), Some(Changed::Closed));
        assert_eq!((breaker.admit(now), breaker.admit(now)), (Ok(()), Ok(())));
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_probe_that_says_nothing_is_followed_by_another() {
        let now = Clock::system().now();
        let mut breaker = Breaker::default();
        breaker.record_inconclusive(now);
        assert_eq!(breaker.admit(now), Ok(()));
        for _ in 0..FAILURES {
            breaker.record(false, now);
        }
        breaker.record_inconclusive(now);
        assert_eq!(
            breaker.admit(now),
            Err(now + FIRST),
            "it is open all the same"
        );
        let later = now + FIRST;
        for _ in 0..3 {
            assert_eq!(breaker.admit(later), Ok(()));
            assert!(breaker.admit(later).is_err());
            breaker.record_inconclusive(later);
        }
        assert_eq!(breaker.admit(later), Ok(()));
        assert_eq!(breaker.record(true, later), Some(Changed::Closed));
    }

    #[test]
    fn a_probe_that_is_never_heard_of_does_not_keep_it_open() {
        let now = Clock::system().now();
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES {
            breaker.record(false, now);
        }
        let later = now + FIRST;
        assert_eq!(breaker.admit(later), Ok(()));
        assert!(breaker.admit(later + PROBE - ASK_AGAIN).is_err());
        assert_eq!(breaker.admit(later + PROBE), Ok(()));
    }
}
