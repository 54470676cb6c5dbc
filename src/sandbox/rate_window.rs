//! Pure. Four ways in which an API may count requests against a limit.
//!
//! The API's documentation does not promise an algorithm. So the sandbox can use any of the usual
//! ones, and a correct client must satisfy all of them. Each takes `now` as an argument and expects
//! that it never goes back. Every interval is half-open: an arrival exactly one window after
//! another is in the next window.
//!
//! Rejected requests count as consumed in the two windows that restart (fixed and aligned). The
//! rolling window and the token bucket charge only admitted requests.
//!
//! The kinds are written without the gateway's window in mind and must stay independent of it. A
//! mistake that both shared would never be found.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The way of counting requests against a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WindowKind {
    /// A window begins with the first request after the previous one ended. The documented names
    /// suggest this kind.
    #[default]
    Fixed,
    /// Windows begin at multiples of their length on the wall clock.
    Aligned,
    /// At most the limit in any interval of one window's length.
    Rolling,
    /// A bucket with as many tokens as the limit, refilled evenly once per window.
    TokenBucket,
}

impl WindowKind {
    /// All kinds, for tests and help texts.
    pub const ALL: [Self; 4] = [Self::Fixed, Self::Aligned, Self::Rolling, Self::TokenBucket];

    /// Returns the word for the command line: `fixed`, `aligned`, `rolling` or `token-bucket`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Aligned => "aligned",
            Self::Rolling => "rolling",
            Self::TokenBucket => "token-bucket",
        }
    }
}

impl fmt::Display for WindowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for WindowKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| {
                format!("found {text:?}, expected fixed, aligned, rolling or token-bucket")
            })
    }
}

/// The result of counting one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitDecision {
    /// Whether the request was within the limit.
    pub(crate) admitted: bool,
    /// Requests consumed, including this one if it counts.
    pub(crate) consumed: u32,
    /// The rest of the limit.
    pub(crate) remaining: u32,
    /// The time until nothing is consumed, if no request follows.
    pub(crate) until_reset: Duration,
    /// The time until the next request would be admitted, if none comes before.
    pub(crate) until_next: Duration,
}

/// The count of one token and operation.
pub(crate) struct RateWindow {
    /// The number of requests per window, at least 1.
    limit: u32,
    /// The length of a window, at least 1 ns.
    per: Duration,
    state: State,
}

/// The memory of a kind between requests. Only that of the rolling kind grows with the limit, up to
/// one instant for each admitted request.
///
/// - Fixed: `start` is the first request of the window, `None` before any request.
/// - Aligned: `boundary` is the end of the window of the last request, or any boundary before one.
/// - Rolling: the instants of the admitted requests of the last window, oldest first, at most
///   `limit` of them.
/// - Token bucket: `at` is the instant of the last request, admitted or not.
enum State {
    Fixed {
        start: Option<Instant>,
        used: u32,
    },
    Aligned {
        boundary: Instant,
        used: u32,
    },
    Rolling {
        admitted: VecDeque<Instant>,
    },
    /// `level` is in tokens times the nanoseconds of a window: whole numbers, hence exact.
    TokenBucket {
        level: u128,
        at: Option<Instant>,
    },
}

impl RateWindow {
    /// Creates an unused window of `limit` (at least 1) requests per `per` (at least 1 ns).
    /// `boundary` is any instant at which an aligned window begins.
    pub(crate) fn new(kind: WindowKind, limit: u32, per: Duration, boundary: Instant) -> Self {
        let (limit, per) = (limit.max(1), per.max(Duration::from_nanos(1)));
        let state = match kind {
            WindowKind::Fixed => State::Fixed {
                start: None,
                used: 0,
            },
            WindowKind::Aligned => State::Aligned { boundary, used: 0 },
            WindowKind::Rolling => State::Rolling {
                admitted: VecDeque::new(),
            },
            WindowKind::TokenBucket => State::TokenBucket {
                level: u128::from(limit) * per.as_nanos(),
                at: None,
            },
        };
        Self { limit, per, state }
    }

    /// Counts a request that arrives at `now`.
    pub(crate) fn count(&mut self, now: Instant) -> LimitDecision {
        let (limit, per) = (self.limit, self.per);
        match &mut self.state {
            State::Fixed { start, used } => {
                let begin = match *start {
                    // Half-open: at `begin + per` the next window begins.
                    Some(begin) if now < begin + per => begin,
                    _ => {
                        *used = 0;
                        now
                    }
                };
                *start = Some(begin);
                renewed(limit, used, (begin + per).saturating_duration_since(now))
            }
            State::Aligned { boundary, used } => {
                let end = aligned_end(*boundary, per, now);
                // Another end means another window.
                if end != *boundary {
                    *used = 0;
                    *boundary = end;
                }
                renewed(limit, used, end.saturating_duration_since(now))
            }
            State::Rolling { admitted } => rolling(limit, per, admitted, now),
            State::TokenBucket { level, at } => {
                // Rejected requests advance the clock of the bucket as well; refilling in pieces is
                // exact.
                let before = at.replace(now).unwrap_or(now);
                let elapsed = now.saturating_duration_since(before).as_nanos();
                bucket(limit, per, level, elapsed)
            }
        }
    }
}

/// Counts in a window that restarts in `left`. Rejected requests are consumed as well.
fn renewed(limit: u32, used: &mut u32, left: Duration) -> LimitDecision {
    *used = used.saturating_add(1);
    LimitDecision {
        admitted: *used <= limit,
        consumed: *used,
        remaining: limit.saturating_sub(*used),
        until_reset: left,
        // The next request needs a free place after this one.
        until_next: if *used < limit { Duration::ZERO } else { left },
    }
}

/// Returns the end of the aligned window that contains `now`: the first boundary after it.
fn aligned_end(boundary: Instant, per: Duration, now: Instant) -> Instant {
    let per_nanos = per.as_nanos();
    if now >= boundary {
        let into = (now - boundary).as_nanos() % per_nanos;
        now + nanos(per_nanos - into)
    } else {
        // The boundary is ahead. If it is at most a window ahead, it is this window's own end.
        let ahead = (boundary - now).as_nanos();
        now + nanos((ahead - 1) % per_nanos + 1)
    }
}

/// Counts in the interval that ends at `now`. An arrival leaves it exactly one window later.
fn rolling(
    limit: u32,
    per: Duration,
    admitted: &mut VecDeque<Instant>,
    now: Instant,
) -> LimitDecision {
    while admitted.front().is_some_and(|first| *first + per <= now) {
        admitted.pop_front();
    }
    let fits = admitted.len() < limit as usize;
    if fits {
        admitted.push_back(now);
    }
    let consumed = u32::try_from(admitted.len()).unwrap_or(u32::MAX);
    let left = |at: Option<&Instant>| {
        at.map_or(Duration::ZERO, |at| {
            (*at + per).saturating_duration_since(now)
        })
    };
    LimitDecision {
        admitted: fits,
        consumed,
        remaining: limit.saturating_sub(consumed),
        // Nothing is consumed once the newest has left. The next is admitted once the oldest has.
        until_reset: left(admitted.back()),
        until_next: if consumed < limit {
            Duration::ZERO
        } else {
            left(admitted.front())
        },
    }
}

/// Counts in a bucket that was last refilled `elapsed_nanos` ago. One token is `per` in
/// nanoseconds, so each nanosecond adds `limit` to the level.
fn bucket(limit: u32, per: Duration, level: &mut u128, elapsed_nanos: u128) -> LimitDecision {
    let (rate, token) = (u128::from(limit), per.as_nanos());
    let full = rate * token;
    *level = level
        .saturating_add(elapsed_nanos.saturating_mul(rate))
        .min(full);
    let fits = *level >= token;
    if fits {
        *level -= token;
    }
    let remaining = u32::try_from(*level / token).unwrap_or(u32::MAX);
    LimitDecision {
        admitted: fits,
        consumed: limit - remaining.min(limit),
        remaining,
        // Rounded up, so that a client that waits as long is not too early.
        until_reset: nanos((full - *level).div_ceil(rate)),
        until_next: nanos(token.saturating_sub(*level).div_ceil(rate)),
    }
}

/// Returns a duration, cut to what 64 bits can hold (about 584 years).
fn nanos(count: u128) -> Duration {
    Duration::from_nanos(u64::try_from(count).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
