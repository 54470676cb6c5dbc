//! Pure. The pause before a retry: exponential, with jitter.

use crate::upstream::NotSent;
use std::time::Duration;

/// The bounds of the pause before a new connection. Nothing was sent, and the API may accept
/// connections again at any moment, so the pause stays short.
const FIRST_RECONNECT: Duration = Duration::from_millis(100);
const LONGEST_RECONNECT: Duration = Duration::from_secs(5);
/// The number of consecutive kept connections found closed that are replaced without a pause.
const MOST_CLOSED: u32 = 4;

/// Returns the pause before a new connection after `failures` in a row, the last one for the reason
/// `why`. Returns `None` if a new connection cannot succeed as things are.
pub fn reconnect(why: NotSent, failures: u32, jitter: u64) -> Option<Duration> {
    match why {
        NotSent::Certificate | NotSent::Tls => None,
        NotSent::ClosedBeforeSending if failures <= MOST_CLOSED => Some(Duration::ZERO),
        NotSent::ClosedBeforeSending
        | NotSent::Unresolved
        | NotSent::Refused
        | NotSent::ConnectTimeout
        | NotSent::Proxy
        | NotSent::Unprocessed => Some(reconnect_pause(failures, jitter)),
    }
}

/// Returns the pause before a new connection for work that waits as long as it takes.
pub fn reconnect_pause(failures: u32, jitter: u64) -> Duration {
    backoff(FIRST_RECONNECT, LONGEST_RECONNECT, failures, jitter)
}

/// Returns a number that spreads pauses: it differs between turns and between counts of failures.
pub fn jitter(turn: u64, failures: u32) -> u64 {
    (turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) + u64::from(failures)
}

/// Returns a pause that doubles with each of `failures` in a row. `jitter`, any number, spreads its
/// second half, so that many retries do not come at one moment.
pub(crate) fn backoff(first: Duration, longest: Duration, failures: u32, jitter: u64) -> Duration {
    // Capped well below the width of the shift.
    let doublings = failures.saturating_sub(1).min(16);
    let whole = first.saturating_mul(1 << doublings).min(longest);
    let half = whole / 2;
    let spread = u32::try_from(jitter % 1_000).unwrap_or(0);
    half + half * spread / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_tried_again_unless_that_is_hopeless() {
        for why in NotSent::ALL {
            for failures in 1..200 {
                let again = reconnect(why, failures, 7);
                let expected = match why {
                    NotSent::Certificate | NotSent::Tls => None,
                    NotSent::ClosedBeforeSending if failures <= MOST_CLOSED => Some(Duration::ZERO),
                    _ => Some(reconnect_pause(failures, 7)),
                };
                assert_eq!(again, expected, "{why} {failures}");
            }
        }
        // It never waits longer than this, so an API that is back is found soon.
        for jitter in [0, 499, 999, u64::MAX] {
            let pauses = (1..200).map(|failures| reconnect_pause(failures, jitter));
            let pauses = Vec::from_iter(pauses);
            assert!(pauses.is_sorted(), "{pauses:?}");
            assert!(pauses.iter().all(|pause| *pause <= LONGEST_RECONNECT));
            assert!(pauses[0] >= FIRST_RECONNECT / 2);
        }
        assert_ne!(reconnect_pause(9, 1), reconnect_pause(9, 2), "jitter");
    }
}
