//! Pure. The count of one token and operation: its window, and the other users of the token.
//!
//! Other users are not tasks. Their arrivals are generated when the next request is counted, at the
//! instants at which such a task would have sent them.

use std::time::{Duration, Instant, SystemTime};

use super::operations::ApiOperation;
use super::rate_window::{LimitDecision, RateWindow};
use super::rng::Rng;
use super::spec::SandboxSpec;

/// The most arrivals of others generated at once, after a long time without a request.
const MOST_OTHERS: u32 = 10_000;

/// One instant on two clocks.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    /// The instant on the clock for decisions.
    pub(super) now: Instant,
    /// The instant on the clock for people and headers.
    pub(super) wall: SystemTime,
}

/// The window of one token and operation, and its other users.
pub(super) struct Counter {
    window: RateWindow,
    others: Option<Others>,
}

impl Counter {
    /// Creates the count of an operation that is first used `now`. `salt` distinguishes the counts,
    /// `start` is the beginning of the sandbox.
    pub(super) fn new(
        spec: &SandboxSpec,
        operation: &ApiOperation,
        salt: u64,
        start: Moment,
        now: Instant,
    ) -> Self {
        let (limit, per) = limit(spec, operation);
        Self {
            window: RateWindow::new(spec.window, limit, per, boundary(start, per)),
            others: Others::new(spec, salt, now),
        }
    }

    /// Counts a request, after those of others since the last one, which are passed to `happened`.
    pub(super) fn count(
        &mut self,
        now: Instant,
        mut happened: impl FnMut(Instant, LimitDecision),
    ) -> LimitDecision {
        if let Some(others) = &mut self.others {
            others.catch_up(now, |at| happened(at, self.window.count(at)));
        }
        self.window.count(now)
    }
}

/// A Poisson process of other users' requests.
struct Others {
    rng: Rng,
    mean: Duration,
    next: Instant,
}

impl Others {
    /// Creates the others of one window, if there are any. Each window has a sequence of its own.
    fn new(spec: &SandboxSpec, salt: u64, now: Instant) -> Option<Self> {
        if !spec.other_users.is_finite() || spec.other_users <= 0.0 {
            return None;
        }
        let seconds = 60.0 / spec.other_users / f64::from(spec.time_scale.max(1));
        let mean = Duration::try_from_secs_f64(seconds)
            .ok()?
            .clamp(Duration::from_micros(1), Duration::from_secs(86_400));
        let mut rng = Rng::new(spec.seed ^ salt.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let next = now + rng.gap(mean);
        Some(Self { rng, mean, next })
    }

    /// Generates what others did up to `now`; after a long time only the latest part of it.
    fn catch_up(&mut self, now: Instant, mut happen: impl FnMut(Instant)) {
        let most = self.mean * MOST_OTHERS;
        if now.saturating_duration_since(self.next) > most {
            self.next = now.checked_sub(most).unwrap_or(now);
        }
        while self.next <= now {
            happen(self.next);
            self.next += self.rng.gap(self.mean);
        }
    }
}

/// Returns the limit of an operation and the length of its window.
fn limit(spec: &SandboxSpec, operation: &ApiOperation) -> (u32, Duration) {
    let default = if operation.method == "GET" {
        spec.default_reads
    } else {
        spec.default_writes
    };
    let (limit, per) = operation
        .limit
        .unwrap_or((default, Duration::from_secs(60)));
    (limit, per / spec.time_scale.max(1))
}

/// Returns an instant near the start at which an aligned window of this length begins.
fn boundary(start: Moment, per: Duration) -> Instant {
    let since = start
        .wall
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let into = since.as_nanos() % per.as_nanos().max(1);
    let left = per.as_nanos().saturating_sub(into);
    start.now + Duration::from_nanos(u64::try_from(left).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::some_instant;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        // However often requests are counted, the others come at the same instants, and all of
        // them before the count.
        #[test]
        fn others_do_not_depend_on_who_looks(gaps in prop::collection::vec(0_u64..5_000, 1..40)) {
            let spec = SandboxSpec { other_users: 60.0, ..SandboxSpec::default() };
            let start = some_instant();
            let (Some(mut often), Some(mut once)) = (Others::new(&spec, 3, start), Others::new(&spec, 3, start)) else {
                return Err(TestCaseError::fail("there are others"));
            };
            let (mut seen, mut now) = (Vec::new(), start);
            for gap in gaps {
                now += Duration::from_millis(gap);
                often.catch_up(now, |at| seen.push(at));
                prop_assert!(seen.is_sorted() && seen.last().is_none_or(|at| *at <= now));
            }
            let mut at_once = Vec::new();
            once.catch_up(now, |at| at_once.push(at));
            prop_assert_eq!(&seen, &at_once);
            prop_assert!(often.next > now);
        }
    }
}
