//! What one answer, two answers and later answers change.

use super::*;
use crate::clock::Clock;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn evidence(limit: u32, is_documented: bool) -> Evidence {
    let rate = Rate {
        limit,
        window: MINUTE,
    };
    Evidence::new(rate, rate, is_documented)
}

fn says(consumed: u32, remaining: u32, reset: Option<u64>) -> Allowance {
    Allowance {
        consumed,
        remaining,
        reset_in: reset.map(Duration::from_secs),
    }
}

#[test]
fn a_lower_limit_holds_at_once_and_a_higher_one_when_told_twice() {
    // Documented or assumed, the limits that answers tell, and the limit that holds after each.
    let cases: [(bool, &[u32], &[u32]); 8] = [
        (true, &[30, 60, 60], &[30, 30, 60]),
        (true, &[1, 9_999, 9_999], &[1, 1, 60]),
        (true, &[90, 90], &[60, 60]),
        (false, &[u32::MAX, 60, u32::MAX], &[60, 60, 60]),
        (false, &[u32::MAX, u32::MAX], &[60, 120]),
        (
            false,
            &[1_000; 10],
            &[60, 120, 120, 240, 240, 480, 480, 960, 960, 1_000],
        ),
        (false, &[100, 90, 90], &[60, 90, 90]),
        (false, &[20, 40, 30, 30], &[20, 20, 30, 30]),
    ];
    for (is_documented, told, holds) in cases {
        let mut evidence = evidence(60, is_documented);
        let now = Clock::system().now();
        for (limit, holds) in told.iter().zip(holds) {
            let before = evidence.rate().limit;
            let changes = evidence.hear(says(1, limit - 1, None), now);
            assert_eq!(evidence.rate().limit, *holds, "{told:?}");
            let changed = (before != *holds).then_some((before, *holds));
            assert_eq!(changes.limit, changed);
        }
    }
}

#[test]
fn a_window_is_believed_when_two_windows_agree_and_shortened_when_later_ones_show_it() {
    // When an answer comes, how much of its limit it has consumed, what is left of its window; and
    // then how long the window is, and how much longer one is claimed.
    type Step = (u64, u32, u64, u64, u64);
    let cases: [&[Step]; 9] = [
        // An hour, from its first request on.
        &[
            (0, 1, 3_601, 60, 3_541),
            (9, 2, 3_592, 60, 3_541),
            (3_605, 1, 3_601, 3_601, 0),
            (3_700, 2, 3_500, 3_601, 0),
        ],
        // An hour by the clock.
        &[(0, 1, 1_801, 60, 1_741), (2_000, 1, 3_401, 1_801, 0)],
        // One wrong answer: the next one of the same window contradicts it.
        &[
            (0, 1, 50_000, 60, 49_940),
            (1, 2, 60, 60, 0),
            (61, 1, 61, 60, 0),
        ],
        // Or the first one of the next window.
        &[(0, 1, 50_000, 60, 49_940), (61, 1, 61, 60, 0)],
        // Nonsense is not heard.
        &[(0, 1, 3_456_000, 60, 0), (61, 1, 3_456_000, 60, 0)],
        // Believed wrongly: two windows that begin within a minute or two show it.
        &[
            (0, 1, 7_000, 60, 6_940),
            (70, 1, 7_000, 7_000, 0),
            (140, 1, 61, 7_000, 0),
            (201, 1, 61, 63, 0),
            (270, 1, 61, 63, 0),
        ],
        // The same end, told again, is not another window.
        &[(0, 1, 9_000, 60, 8_940), (100, 1, 8_900, 60, 0)],
        // What is left of an aligned window is no window.
        &[(0, 1, 5, 60, 0), (60, 1, 5, 60, 0), (120, 1, 5, 60, 0)],
        // A token bucket is full soon.
        &[(0, 1, 2, 60, 0), (1, 2, 3, 60, 0), (30, 1, 2, 60, 0)],
    ];
    for steps in cases {
        let mut evidence = evidence(60, false);
        let start = Clock::system().now();
        for (number, (at, consumed, left, window, claimed)) in steps.iter().enumerate() {
            let now = start + Duration::from_secs(*at);
            evidence.hear(says(*consumed, 60 - consumed, Some(*left)), now);
            let case = (steps, number);
            assert_eq!(evidence.rate().window.as_secs(), *window, "{case:?}");
            assert_eq!(evidence.claimed().as_secs(), *claimed, "{case:?}");
        }
    }
}

#[test]
fn late_answers_shorten_nothing() {
    let mut evidence = evidence(60, false);
    let start = Clock::system().now();
    for hour in 0..20 {
        // Each first answer of an hour is up to half a minute late.
        let late = Duration::from_secs(30 * (hour % 2));
        let now = start + HOUR * u32::try_from(hour).unwrap() + late;
        evidence.hear(says(1, 59, Some(3_601)), now);
        assert!(hour == 0 || evidence.rate().window >= HOUR, "{hour}");
    }
}

#[test]
fn a_documented_window_is_not_learned() {
    let mut evidence = evidence(60, true);
    let start = Clock::system().now();
    for hour in 0..3 {
        evidence.hear(says(1, 59, Some(3_601)), start + HOUR * hour);
        assert_eq!(evidence.rate().window, MINUTE);
        assert_eq!(evidence.claimed(), Duration::ZERO);
    }
}
