//! Examples of each window, and each against a definition by filtering the whole list.

use super::*;
use proptest::prelude::*;

use super::super::some_instant as origin;

/// Counts arrivals (milliseconds after the origin; the aligned boundary is the origin).
fn run(kind: WindowKind, limit: u32, per_ms: u64, arrivals: &[u64]) -> Vec<LimitDecision> {
    let start = origin();
    let mut window = RateWindow::new(kind, limit, Duration::from_millis(per_ms), start);
    let at = |ms: u64| start + Duration::from_millis(ms);
    arrivals.iter().map(|ms| window.count(at(*ms))).collect()
}

fn admitted(kind: WindowKind, limit: u32, per_ms: u64, arrivals: &[u64]) -> Vec<bool> {
    run(kind, limit, per_ms, arrivals)
        .iter()
        .map(|v| v.admitted)
        .collect()
}

#[test]
fn the_four_windows_part_ways_on_the_same_arrivals() {
    // Two per 100 ms. 90 and 110 lie in two aligned windows, in one rolling one.
    let arrivals = [50, 90, 110, 149, 150, 189, 190, 250];
    let table = [
        (
            WindowKind::Fixed,
            [true, true, false, false, true, true, false, true],
        ),
        (
            WindowKind::Aligned,
            [true, true, true, true, false, false, false, true],
        ),
        (
            WindowKind::Rolling,
            [true, true, false, false, true, false, true, true],
        ),
        (
            WindowKind::TokenBucket,
            [true, true, true, false, true, false, false, true],
        ),
    ];
    for (kind, expected) in table {
        assert_eq!(admitted(kind, 2, 100, &arrivals), expected, "{kind}");
    }
}

#[test]
fn verdicts_carry_what_the_headers_say() {
    let ms = Duration::from_millis;
    let table = [
        // A refused request counts as consumed, and the window does not get longer by it.
        (WindowKind::Fixed, 3, 0, ms(60), ms(60)),
        (WindowKind::Aligned, 3, 0, ms(60), ms(60)),
        (WindowKind::Rolling, 2, 0, ms(90), ms(60)),
        // Two were taken and 0.8 refilled: 0.2 tokens lack for one, 1.2 for a full bucket.
        (WindowKind::TokenBucket, 2, 0, ms(60), ms(10)),
    ];
    for (kind, consumed, remaining, until_reset, until_next) in table {
        let last = *run(kind, 2, 100, &[0, 30, 40]).last().unwrap();
        let expected = LimitDecision {
            admitted: false,
            consumed,
            remaining,
            until_reset,
            until_next,
        };
        assert_eq!(last, expected, "{kind}");
    }
    for kind in WindowKind::ALL {
        let first = run(kind, 2, 100, &[0])[0];
        assert_eq!(
            (first.admitted, first.consumed, first.remaining),
            (true, 1, 1),
            "{kind}"
        );
    }
}

#[test]
fn an_aligned_window_may_have_its_boundary_ahead() {
    let now = origin();
    let per = Duration::from_millis(100);
    for ahead in [1_u64, 99, 100, 101, 250, 300] {
        let end = aligned_end(now + Duration::from_millis(ahead), per, now);
        let left = (end - now).as_millis() as u64;
        assert!((1..=100).contains(&left));
        assert_eq!(left % 100, ahead % 100, "{ahead}");
    }
    assert_eq!(aligned_end(now, per, now), now + per);
}

#[test]
fn names_are_read_back_and_others_refused() {
    for kind in WindowKind::ALL {
        assert_eq!(kind.to_string().parse(), Ok(kind));
    }
    assert!("sliding".parse::<WindowKind>().is_err());
}

/// Whether the last of `arrivals` is admitted, by the definition of each kind alone. `before`
/// says which of the earlier ones were admitted.
fn by_definition(
    kind: WindowKind,
    limit: u32,
    per: u64,
    arrivals: &[u64],
    before: &[bool],
) -> bool {
    let Some((now, earlier)) = arrivals.split_last() else {
        return true;
    };
    let charged = || {
        earlier
            .iter()
            .zip(before)
            .filter(|(_, yes)| **yes)
            .map(|(at, _)| *at)
    };
    match kind {
        WindowKind::Fixed => {
            let mut start = arrivals[0];
            for at in arrivals {
                if at - start >= per {
                    start = *at;
                }
            }
            earlier.iter().filter(|at| **at >= start).count() < limit as usize
        }
        WindowKind::Aligned => {
            earlier.iter().filter(|at| **at / per == now / per).count() < limit as usize
        }
        WindowKind::Rolling => charged().filter(|at| at + per > *now).count() < limit as usize,
        // In every interval that ends now: at most the bucket and what was refilled meanwhile.
        WindowKind::TokenBucket => charged().all(|from| {
            let count = charged().filter(|at| *at >= from).count() as u64 + 1;
            count * per <= u64::from(limit) * per + u64::from(limit) * (now - from)
        }),
    }
}

proptest! {
    #[test]
    fn every_window_equals_its_definition(
        limit in 1_u32..6,
        per in 1_u64..60,
        gaps in prop::collection::vec(prop_oneof![Just(0_u64), 1_u64..8, 1_u64..90], 1..60),
    ) {
        let arrivals: Vec<u64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
        for kind in WindowKind::ALL {
            let got = admitted(kind, limit, per, &arrivals);
            for end in 1..=arrivals.len() {
                let expected = by_definition(kind, limit, per, &arrivals[..end], &got[..end - 1]);
                prop_assert_eq!(got[end - 1], expected, "{} at {:?}", kind, &arrivals[..end]);
            }
        }
    }

    #[test]
    fn the_promised_wait_is_enough_and_not_a_nanosecond_too_long(
        limit in 1_u32..5,
        gaps in prop::collection::vec(0_u64..40, 1..30),
    ) {
        let arrivals: Vec<u64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
        for kind in WindowKind::ALL {
            for end in 1..=arrivals.len() {
                let start = origin();
                let per = Duration::from_millis(50);
                let replay = || {
                    let mut window = RateWindow::new(kind, limit, per, start);
                    let mut last = None;
                    for ms in &arrivals[..end] {
                        last = Some(window.count(start + Duration::from_millis(*ms)));
                    }
                    (window, last.unwrap(), start + Duration::from_millis(arrivals[end - 1]))
                };
                let (mut window, verdict, now) = replay();
                prop_assert_eq!(verdict.consumed.min(limit) + verdict.remaining, limit);
                let next = now + verdict.until_next;
                prop_assert!(window.count(next).admitted, "{}", kind);
                if verdict.until_next > Duration::ZERO {
                    let (mut window, ..) = replay();
                    let early = next.checked_sub(Duration::from_nanos(1)).unwrap();
                    prop_assert!(!window.count(early).admitted, "{}", kind);
                }
                let (mut window, ..) = replay();
                let fresh = window.count(now + verdict.until_reset);
                prop_assert_eq!(fresh.consumed, 1, "{}", kind);
            }
        }
    }
}
