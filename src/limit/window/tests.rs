//! Tables for each rule of the window, and the proof as a property: whatever the network does,
//! no half-open interval of length W holds more than L arrivals.

use super::*;
use crate::clock::Clock;
use crate::limit::learn::Throttle;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

const W: Duration = Duration::from_secs(60);

fn terms() -> Terms {
    Terms {
        guard: Duration::from_millis(250),
        late: Duration::from_secs(60),
        unknown_slots: 1,
    }
}

fn start() -> Instant {
    Clock::system().now()
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn window(limit: u32, documented: bool, now: Instant) -> Window {
    let rate = Rate { limit, window: W };
    Window::new(rate, rate, documented, terms(), now)
}

fn slot(window: &mut Window, now: Instant) -> Slot {
    match window.take(now) {
        Taken::Slot(slot) => slot,
        other => panic!("no slot: {other:?}"),
    }
}

fn throttle(wait: Option<Duration>) -> Throttle {
    Throttle {
        wait,
        consumed: None,
    }
}

fn told(consumed: u32, remaining: u32) -> AttemptEnd {
    AttemptEnd::Answered(Some(Allowance {
        consumed,
        remaining,
        reset_in: None,
    }))
}

#[test]
fn a_slot_comes_back_after_window_and_guard() {
    let t = start();
    let mut w = window(1, true, t);
    let s = slot(&mut w, t);
    assert_eq!(w.take(t), Taken::AfterAnswer);
    w.give_back(s, AttemptEnd::Answered(None), t + ms(200));
    let free = t + ms(200) + W + ms(250) + ms(60);
    assert_eq!(w.take(t + ms(200)), Taken::NotBefore(free));
    assert!(matches!(
        w.take(free - Duration::from_nanos(1)),
        Taken::NotBefore(_)
    ));
    assert!(matches!(w.take(free), Taken::Slot(_)));
}

/// Whatever is known of many slots at once is one entry.
#[test]
fn what_is_noted_grows_neither_with_the_limit_nor_with_what_ends_together() {
    let t = start();
    let mut w = window(1_000_000, true, t);
    w.without_history(t, t);
    let first = slot(&mut w, t);
    w.give_back(first, told(900_000, 100_000), t);
    assert_eq!(w.occupied(t), 900_000);
    assert_eq!(w.noted(), 1);
    let slots: Vec<Slot> = (0..1_000).map(|_| slot(&mut w, t)).collect();
    for slot in slots {
        w.give_back(slot, AttemptEnd::NoAnswer, t);
    }
    assert_eq!((w.occupied(t), w.noted()), (901_000, 2));
}

#[test]
fn an_unanswered_attempt_keeps_its_slot_for_window_and_q() {
    let t = start();
    let mut w = window(1, true, t);
    let s = slot(&mut w, t);
    w.give_back(s, AttemptEnd::NoAnswer, t + ms(5));
    assert_eq!(
        w.take(t + ms(6)),
        Taken::NotBefore(t + ms(5) + W + terms().late)
    );
}

#[test]
fn what_was_never_sent_costs_nothing() {
    let t = start();
    let mut w = window(1, true, t);
    for _ in 0..100 {
        let s = slot(&mut w, t);
        w.give_back(s, AttemptEnd::NotSent, t);
    }
    assert_eq!(w.occupied(t), 0);
}

#[test]
fn a_documented_limit_is_lowered_and_never_raised_beyond_the_document() {
    let t = start();
    let mut w = window(60, true, t);
    let s = slot(&mut w, t);
    assert_eq!(w.give_back(s, told(1, 29), t).limit, Some((60, 30)));
    let s = slot(&mut w, t);
    w.give_back(s, told(2, 9_998), t);
    assert_eq!(w.rate().limit, 30, "told once");
    let s = slot(&mut w, t);
    w.give_back(s, told(3, 9_997), t);
    assert_eq!(w.rate().limit, 60);
    let s = slot(&mut w, t);
    w.give_back(s, told(0, 0), t);
    assert_eq!(w.rate().limit, 1, "a limit is at least 1");
}

/// What one answer claims of the window holds slots back, and for no longer than twice the window
/// without asking again.
#[test]
fn a_claimed_window_is_respected_until_it_is_asked_about() {
    let t = start();
    let hour = Allowance {
        consumed: 1,
        remaining: 1,
        reset_in: Some(Duration::from_secs(3_600)),
    };
    let mut w = window(2, false, t);
    for consumed in 1..=2 {
        let s = slot(&mut w, t);
        let allowance = Allowance {
            consumed,
            remaining: 2 - consumed,
            ..hour
        };
        w.give_back(s, AttemptEnd::Answered(Some(allowance)), t);
    }
    assert_eq!(w.rate().window, W, "not believed yet");
    let ask_at = t + W * 2;
    assert_eq!(w.take(t + W + ms(400)), Taken::NotBefore(ask_at));
    let question = slot(&mut w, ask_at);
    assert_eq!(w.take(ask_at), Taken::AfterAnswer, "one alone");
    // It is as was claimed: the next question comes as much later.
    let wait = Some(Duration::from_secs(3_480));
    w.give_back(question, AttemptEnd::Throttled(throttle(wait)), ask_at);
    assert_eq!(w.closed_for(ask_at), Some(W * 2));
    let again = slot(&mut w, ask_at + W * 2);
    // It was not: all that the shorter window has given back is free.
    let short = Allowance {
        reset_in: Some(W),
        ..hour
    };
    w.give_back(again, AttemptEnd::Answered(Some(short)), ask_at + W * 2);
    assert_eq!(w.occupied(ask_at + W * 2 + ms(1)), 1);
}

#[test]
fn a_documented_window_is_not_learned() {
    let t = start();
    let mut w = window(60, true, t);
    let s = slot(&mut w, t);
    let odd = Allowance {
        consumed: 1,
        remaining: 59,
        reset_in: Some(Duration::from_secs(9999)),
    };
    w.give_back(s, AttemptEnd::Answered(Some(odd)), t);
    assert_eq!(w.rate().window, W);
}

#[test]
fn what_others_use_is_held_as_occupied() {
    let t = start();
    let mut w = window(60, true, t);
    let s = slot(&mut w, t);
    assert_eq!(w.give_back(s, told(21, 39), t).foreign, 20);
    assert_eq!(w.occupied(t), 21);
    // The same twenty are not counted twice.
    let s = slot(&mut w, t);
    assert_eq!(w.give_back(s, told(22, 38), t).foreign, 0);
    assert_eq!(w.occupied(t + W), 2);
}

#[test]
fn answers_that_overtake_each_other_show_no_foreigner() {
    let t = start();
    let mut w = window(60, true, t);
    let first = slot(&mut w, t);
    let second = slot(&mut w, t);
    let third = slot(&mut w, t);
    assert_eq!(w.give_back(third, told(3, 57), t + ms(10)).foreign, 0);
    // Counted third although it left first.
    assert_eq!(w.give_back(first, told(3, 57), t + ms(20)).foreign, 0);
    assert_eq!(w.give_back(second, told(2, 58), t + ms(30)).foreign, 0);
}

#[test]
fn a_429_closes_the_budget_then_one_probe_leaves() {
    let t = start();
    let mut w = window(60, true, t);
    let a = slot(&mut w, t);
    let b = slot(&mut w, t);
    let learned = w.give_back(a, AttemptEnd::Throttled(throttle(Some(ms(7_000)))), t);
    assert_eq!(w.closed_for(t), Some(ms(7_000)));
    assert!(!learned.at_start);
    // A shorter wait told later does not open it sooner.
    w.give_back(
        b,
        AttemptEnd::Throttled(throttle(Some(ms(1_000)))),
        t + ms(1),
    );
    assert_eq!(w.take(t + ms(6_999)), Taken::NotBefore(t + ms(7_000)));
    let probe = slot(&mut w, t + ms(7_000));
    assert_eq!(w.take(t + ms(7_001)), Taken::AfterAnswer);
    // Refused again: closed again, for as long as it says and no longer; then one probe again.
    w.give_back(
        probe,
        AttemptEnd::Throttled(throttle(Some(ms(1_000)))),
        t + ms(7_100),
    );
    let probe = slot(&mut w, t + ms(8_100));
    assert_eq!(w.take(t + ms(8_100)), Taken::AfterAnswer);
    w.give_back(probe, told(3, 57), t + ms(8_200));
    // What others use is not known: a few slots are left to them, and ours are spread.
    let open = t + ms(9_300);
    let _open = slot(&mut w, open);
    let pace = W / 57;
    assert_eq!(w.take(open), Taken::NotBefore(open + pace));
    let _spread = slot(&mut w, open + pace);
    // A few windows later nothing is left of it.
    let later = t + W * 20;
    let _all = [slot(&mut w, later), slot(&mut w, later)];
}

/// Those that had left before the budget closed are no further evidence of somebody else.
#[test]
fn what_one_closing_leaves_to_others_does_not_grow_with_the_number_of_its_429s() {
    let t = start();
    let mut w = window(160, true, t);
    let refused = |consumed| {
        let wait = Some(ms(1_000));
        AttemptEnd::Throttled(Throttle { wait, consumed })
    };
    let mut under_way: Vec<Slot> = (0..8).map(|_| slot(&mut w, t)).collect();
    let late = under_way.pop().unwrap();
    let tells = under_way.pop().unwrap();
    for slot in under_way {
        w.give_back(slot, refused(None), t + ms(100));
        assert_eq!(w.left_to_others(), 10);
    }
    // One that says more is believed.
    w.give_back(tells, refused(Some(60)), t + ms(200));
    assert_eq!(w.left_to_others(), 60 - 8);
    // Its wait is over, and nothing has shown that it is open.
    w.give_back(late, refused(None), t + ms(5_000));
    assert_eq!(w.left_to_others(), 60 - 8);
    // The next closing is a new one.
    let probe = slot(&mut w, t + ms(6_000));
    w.give_back(probe, AttemptEnd::Answered(None), t + ms(6_100));
    let next = slot(&mut w, t + ms(8_000));
    w.give_back(next, refused(None), t + ms(8_100));
    assert_eq!(w.left_to_others(), 60 - 8 + 10);
}

#[test]
fn a_wait_is_clamped_to_two_windows() {
    let t = start();
    let mut w = window(60, true, t);
    for (wait, expected) in [(Some(Duration::from_secs(86_400)), W * 2), (None, W)] {
        let mut w2 = window(60, true, t);
        let s = slot(&mut w2, t);
        w2.give_back(s, AttemptEnd::Throttled(throttle(wait)), t);
        assert_eq!(w2.closed_for(t), Some(expected));
    }
    let s = slot(&mut w, t);
    w.give_back(s, AttemptEnd::NotSent, t);
}

#[test]
fn without_history_the_first_goes_alone_and_its_answer_opens_the_rest() {
    let t = start();
    let mut w = window(60, true, t);
    w.without_history(t, t);
    let probe = slot(&mut w, t);
    assert_eq!(w.take(t), Taken::AfterAnswer);
    w.give_back(probe, told(41, 19), t + ms(100));
    for _ in 0..19 {
        slot(&mut w, t + ms(100));
    }
    assert!(matches!(w.take(t + ms(100)), Taken::NotBefore(_)));
    // Those of which nothing is known are free when the predecessor's last request has left
    // every window: then only our own twenty count.
    assert_eq!(w.occupied(t + W + terms().late), 19);
}

/// How first attempts end that tell nothing.
const TELL_NOTHING: [AttemptEnd; 2] = [AttemptEnd::Answered(None), AttemptEnd::NoAnswer];

#[test]
fn first_attempts_that_tell_nothing_are_followed_at_the_pace_of_the_limit() {
    for end in TELL_NOTHING {
        let t = start();
        let mut w = window(60, true, t);
        w.without_history(t, t);
        for _ in 0..2 {
            let alone = slot(&mut w, t);
            assert_eq!(w.take(t), Taken::AfterAnswer);
            w.give_back(alone, end, t);
        }
        assert!(w.is_finding_out());
        assert_eq!(w.known(t), 2, "{end:?}: what is not known is not used");
        // The third leaves a second later, and no answer is waited for.
        let mut under_way = Vec::new();
        for n in 1..=58 {
            let at = t + Duration::from_secs(n);
            assert_eq!(w.take(at - ms(1)), Taken::NotBefore(at), "{end:?}: {n}");
            under_way.push(slot(&mut w, at));
        }
        // Their own slots are never exceeded.
        assert!(!matches!(w.take(t + ms(59_000)), Taken::Slot(_)));
        assert_eq!(w.known(t + ms(59_000)), 60);
        drop(under_way);
    }
}

#[test]
fn a_first_attempt_that_tells_opens_the_budget_however_many_told_nothing() {
    for end in TELL_NOTHING {
        for silent in [1, 2, 3, 10] {
            let t = start();
            let mut w = window(60, true, t);
            w.without_history(t, t);
            let mut now = t;
            for _ in 0..silent {
                let s = match w.take(now) {
                    Taken::NotBefore(at) => {
                        now = at;
                        slot(&mut w, now)
                    }
                    Taken::Slot(slot) => slot,
                    Taken::AfterAnswer => panic!("nothing is under way"),
                };
                w.give_back(s, end, now);
                now += ms(10);
            }
            now += ms(1_000);
            let s = slot(&mut w, now);
            w.give_back(s, told(silent + 1, 59 - silent), now);
            assert!(!w.is_finding_out());
            let all: Vec<Slot> = std::iter::from_fn(|| match w.take(now) {
                Taken::Slot(slot) => Some(slot),
                _ => None,
            })
            .collect();
            let open = all.len();
            assert!(open as u32 >= 59 - 2 * silent, "{end:?}, {silent}: {open}");
            assert_eq!(w.known(now), open as u32 + silent + 1);
        }
    }
}

/// With 429s the API shows that it counts: then nothing leaves before the answer to the one before.
#[test]
fn a_429_ends_the_pace() {
    let t = start();
    let mut w = window(60, true, t);
    w.without_history(t, t);
    for _ in 0..2 {
        let s = slot(&mut w, t);
        w.give_back(s, AttemptEnd::Answered(None), t);
    }
    let (a, b) = (slot(&mut w, t + ms(1_000)), slot(&mut w, t + ms(2_000)));
    let wait = Some(ms(5_000));
    let learned = w.give_back(a, AttemptEnd::Throttled(throttle(wait)), t + ms(2_000));
    assert!(learned.at_start);
    w.give_back(b, AttemptEnd::Answered(None), t + ms(2_100));
    assert_eq!(w.take(t + ms(2_100)), Taken::NotBefore(t + ms(7_000)));
    let probe = slot(&mut w, t + ms(7_000));
    assert_eq!(w.take(t + ms(9_000)), Taken::AfterAnswer);
    w.give_back(probe, told(7, 53), t + ms(9_000));
    let _wide = [slot(&mut w, t + ms(9_000)), slot(&mut w, t + ms(9_000))];
}

/// What is unknown ends while the budget is closed: it still opens with one probe.
#[test]
fn a_429_at_the_end_of_what_is_unknown_is_followed_by_one_probe() {
    let t = start();
    let mut w = window(60, true, t);
    w.without_history(t, t);
    let late = t + W + terms().late - ms(1_000);
    let s = slot(&mut w, late);
    let wait = Some(ms(5_000));
    w.give_back(s, AttemptEnd::Throttled(throttle(wait)), late);
    let _probe = slot(&mut w, late + ms(5_000));
    assert_eq!(w.take(late + ms(5_000)), Taken::AfterAnswer);
}

#[test]
fn a_429_on_the_first_probe_is_counted_as_start() {
    let t = start();
    let mut w = window(60, true, t);
    w.without_history(t, t);
    let probe = slot(&mut w, t);
    let learned = w.give_back(probe, AttemptEnd::Throttled(throttle(Some(ms(500)))), t);
    assert!(learned.at_start);
    let probe = slot(&mut w, t + ms(500));
    assert_eq!(w.take(t + ms(500)), Taken::AfterAnswer);
    w.give_back(probe, told(1, 59), t + ms(600));
    slot(&mut w, t + ms(600));
}

#[test]
fn history_older_than_window_and_q_needs_no_probe() {
    let t = start();
    let mut w = window(60, true, t);
    w.without_history(t, t + W + terms().late);
    for _ in 0..60 {
        slot(&mut w, t + W + terms().late);
    }
}

#[test]
fn starts_that_are_refused_at_once_wait_and_need_a_free_slot() {
    let t = start();
    let mut w = window(3, true, t);
    w.without_history(t, t);
    let mut now = t;
    for _ in 0..3 {
        let s = slot(&mut w, now);
        let at_once = throttle(Some(Duration::ZERO));
        w.give_back(s, AttemptEnd::Throttled(at_once), now);
        let Taken::NotBefore(later) = w.take(now) else {
            panic!("at once")
        };
        assert!(later > now);
        now = later;
    }
    let Taken::NotBefore(free) = w.take(now) else {
        panic!("three of three slots are in use")
    };
    assert!(free >= t + W);
}

#[test]
fn a_longer_window_holds_back_what_the_shorter_one_has_not_given_back() {
    let t = start();
    let hour = Duration::from_secs(3_600);
    let mut w = window(3, false, t);
    let opens = AttemptEnd::Answered(Some(Allowance {
        consumed: 1,
        remaining: 2,
        reset_in: Some(hour),
    }));
    let s = slot(&mut w, t);
    w.give_back(s, opens, t);
    let next = t + hour + ms(2_500);
    let s = slot(&mut w, next - ms(2_000));
    w.give_back(s, AttemptEnd::NoAnswer, next - ms(2_000));
    let s = slot(&mut w, next);
    assert_eq!(w.give_back(s, opens, next).window, Some(hour));
    assert_eq!(w.occupied(next + W * 3), 2);
    assert_eq!(w.occupied(next + hour + W), 0);
}

#[test]
fn a_429_from_before_the_probe_closes_the_budget_once_more() {
    let t = start();
    let mut w = window(10, true, t);
    let (first, late) = (slot(&mut w, t), slot(&mut w, t));
    let wait = |wait| AttemptEnd::Throttled(throttle(Some(wait)));
    w.give_back(first, wait(ms(1_000)), t);
    let probe = slot(&mut w, t + ms(1_000));
    w.give_back(late, wait(ms(5_000)), t + ms(1_100));
    w.give_back(probe, AttemptEnd::Answered(None), t + ms(1_200));
    assert_eq!(w.take(t + ms(1_200)), Taken::NotBefore(t + ms(6_100)));
    let _probe = slot(&mut w, t + ms(6_100));
    assert_eq!(w.take(t + ms(6_100)), Taken::AfterAnswer, "one alone");
}

#[test]
fn a_closed_budgets_probe_leaves_when_it_opens_and_the_others_after_its_answer() {
    let t = start();
    let mut w = window(16, true, t);
    let s = slot(&mut w, t);
    w.give_back(s, AttemptEnd::Throttled(throttle(Some(ms(9_000)))), t);
    let free = w.free_at(t, ms(500), &VecDeque::new(), 9);
    // One slot is left to others, and the rest is spread.
    let probe = t + ms(9_000);
    assert_eq!(free[..3], [probe, probe + W / 15, probe + W / 15 * 2]);
    let free = w.free_at(t, ms(5_000), &VecDeque::new(), 9);
    assert_eq!(free[..3], [probe, probe + ms(5_000), probe + W / 15 * 2]);
}

#[test]
fn estimates_name_every_slot_and_no_instant_before_it_is_free() {
    let t = start();
    let mut w = window(3, true, t);
    let a = slot(&mut w, t);
    w.give_back(a, AttemptEnd::Answered(None), t);
    let _b = slot(&mut w, t);
    let free = w.free_at(t, ms(200), &VecDeque::from([t]), 9);
    assert_eq!(
        free,
        vec![t, t + w.hold_answered(), t + ms(200) + w.hold_answered()]
    );
}

/// One run against an upstream that counts arrivals, with delays drawn from `delays`.
fn arrivals_of_a_greedy_run(limit: u32, delays: &[(u64, u64, u8)], guarded: bool) -> Vec<Duration> {
    arrivals_of_a_changing_run(limit, delays, guarded, |_, _| {})
}

/// The same, where `change` is called before each attempt.
fn arrivals_of_a_changing_run(
    limit: u32,
    delays: &[(u64, u64, u8)],
    guarded: bool,
    mut change: impl FnMut(usize, &mut Window),
) -> Vec<Duration> {
    let t = start();
    let mut terms = terms();
    if !guarded {
        terms.late = Duration::ZERO;
    }
    let rate = Rate { limit, window: W };
    let mut w = Window::new(rate, rate, true, terms, t);
    let mut now = Duration::ZERO;
    let mut arrivals = Vec::new();
    // Ends of attempts: when, whether answered, the slot.
    let mut ends: BTreeMap<(Duration, usize), (bool, Slot)> = BTreeMap::new();
    for (index, (there, back, fate)) in delays.iter().enumerate() {
        change(index, &mut w);
        let slot = loop {
            while let Some(entry) = ends.first_entry().filter(|e| e.key().0 <= now) {
                let ((at, _), (answered, slot)) = entry.remove_entry();
                let end = if answered {
                    AttemptEnd::Answered(None)
                } else {
                    AttemptEnd::NoAnswer
                };
                w.give_back(slot, end, t + at);
            }
            match w.take(t + now) {
                Taken::Slot(slot) => break slot,
                Taken::NotBefore(at) => {
                    let next = ends.first_key_value().map(|(key, _)| key.0);
                    now = next.map_or(at - t, |end| end.min(at - t)).max(now);
                }
                Taken::AfterAnswer => now = ends.first_key_value().unwrap().0.0,
            }
        };
        if *fate == 0 {
            // Given up on after `back`; it arrives late, up to Q after that.
            arrivals.push(now + ms(*back) + ms(there * 3).min(Duration::from_secs(60)));
            ends.insert((now + ms(*back), index), (false, slot));
        } else {
            arrivals.push(now + ms(*there));
            ends.insert((now + ms(there + back), index), (true, slot));
        }
    }
    arrivals.sort_unstable();
    arrivals
}

fn most_in_a_window(arrivals: &[Duration]) -> usize {
    arrivals
        .iter()
        .enumerate()
        .map(|(first, from)| {
            arrivals[first..]
                .iter()
                .take_while(|at| **at < *from + W)
                .count()
        })
        .max()
        .unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_window_of_any_alignment_holds_more_than_the_limit(
        limit in 1u32..12,
        delays in prop::collection::vec((0u64..20_000, 1u64..20_000, 0u8..6), 1..150),
    ) {
        let arrivals = arrivals_of_a_greedy_run(limit, &delays, true);
        prop_assert!(most_in_a_window(&arrivals) <= limit as usize);
    }

    /// Whatever is configured on the way, as long as it is never more than the API allows.
    #[test]
    fn no_window_holds_more_than_the_limit_however_often_another_is_configured(
        limit in 1u32..12,
        delays in prop::collection::vec((0u64..20_000, 1u64..20_000, 0u8..6), 1..150),
        changes in prop::collection::vec(1u32..12, 1..150),
    ) {
        let change = |index: usize, window: &mut Window| {
            let now = changes[index % changes.len()].min(limit);
            window.configure(now, true);
        };
        let arrivals = arrivals_of_a_changing_run(limit, &delays, true, change);
        prop_assert!(most_in_a_window(&arrivals) <= limit as usize);
    }
}

/// How one attempt of a run ends, and what its answer says: that less is allowed, that more was
/// used, that the window is longer.
fn any_end() -> impl Strategy<Value = (u8, u32, u32, u64)> {
    (0u8..8, 1u32..12, 0u32..12, 0u64..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// In every state that answers, refusals and silence lead to, for a budget with and without
    /// history, documented and assumed: as long as nothing tells that more is allowed than is.
    #[test]
    fn no_window_holds_more_than_the_limit_whatever_answers_say(
        limit in 1u32..12,
        begin in 0u8..3,
        documented in any::<bool>(),
        delays in prop::collection::vec((0u64..20_000, 1u64..20_000), 150),
        ends in prop::collection::vec(any_end(), 1..150),
    ) {
        let t = start();
        let mut w = window(limit, documented, t);
        match begin {
            0 => {}
            1 => w.alone_until_told(),
            _ => w.without_history(t, t),
        }
        let mut now = Duration::ZERO;
        let mut arrivals = Vec::new();
        let mut under_way: BTreeMap<(Duration, usize), (AttemptEnd, Slot)> = BTreeMap::new();
        for (index, (end, most, used, reset)) in ends.iter().enumerate() {
            let slot = loop {
                while let Some(entry) = under_way.first_entry().filter(|e| e.key().0 <= now) {
                    let ((at, _), (end, slot)) = entry.remove_entry();
                    w.give_back(slot, end, t + at);
                }
                let next = under_way.first_key_value().map(|(key, _)| key.0);
                now = match w.take(t + now) {
                    Taken::Slot(slot) => break slot,
                    Taken::NotBefore(at) => next.map_or(at - t, |end| end.min(at - t)).max(now),
                    Taken::AfterAnswer => next.unwrap(),
                };
            };
            let (there, back) = (ms(delays[index].0), ms(delays[index].1));
            let most = (*most).min(limit);
            let end = match end {
                0 => AttemptEnd::NoAnswer,
                1 => AttemptEnd::Throttled(throttle(Some(ms(100 * reset)))),
                2 | 3 => AttemptEnd::Answered(Some(Allowance {
                    consumed: (*used).min(most),
                    remaining: most - (*used).min(most),
                    reset_in: Some(Duration::from_secs(*reset)),
                })),
                _ => AttemptEnd::Answered(None),
            };
            if end == AttemptEnd::NoAnswer {
                arrivals.push(now + back + (there * 3).min(Duration::from_secs(60)));
                under_way.insert((now + back, index), (end, slot));
            } else {
                arrivals.push(now + there);
                under_way.insert((now + there + back, index), (end, slot));
            }
        }
        arrivals.sort_unstable();
        prop_assert!(most_in_a_window(&arrivals) <= limit as usize);
    }
}

/// The property above can fail: without Q a late arrival breaks the limit.
#[test]
fn without_q_the_property_is_violated() {
    let delays = [(20_000, 1, 0), (1, 1, 1), (1, 1, 1), (1, 1, 1)];
    let arrivals = arrivals_of_a_greedy_run(1, &delays, false);
    assert!(most_in_a_window(&arrivals) > 1);
}

#[test]
fn another_limit_holds_at_once_and_frees_nothing() {
    let t = start();
    let mut w = window(2, true, t);
    let first = slot(&mut w, t);
    w.give_back(first, AttemptEnd::Answered(None), t);
    let under_way = slot(&mut w, t);
    // More room is there at once.
    w.configure(3, true);
    let third = slot(&mut w, t);
    w.give_back(third, AttemptEnd::NotSent, t);
    // Less: what is occupied stays so, and counts.
    w.configure(1, true);
    assert_eq!(w.occupied(t), 2);
    assert!(matches!(w.take(t), Taken::AfterAnswer));
    w.give_back(under_way, AttemptEnd::Answered(None), t);
    assert_eq!(w.occupied(t + W), 2);
    w.configure(0, true);
    assert_eq!(w.rate().limit, 1, "a limit is at least 1");
}

#[test]
fn what_answers_taught_outlasts_another_limit() {
    // The document before, what an answer said, the document now, the limit that holds.
    for (before, told_limit, now, holds) in [
        (Some(60), None, Some(120), 120),
        (Some(60), None, Some(20), 20),
        (Some(60), Some(60), Some(120), 120),
        (Some(60), Some(30), Some(50), 30),
        (Some(60), Some(30), Some(20), 20),
        (Some(60), Some(30), None, 30),
        (None, None, None, 7),
        (None, Some(20), None, 20),
        (None, Some(500), None, 500),
        (None, Some(500), Some(60), 60),
        (None, Some(20), Some(60), 20),
    ] {
        let t = start();
        let mut w = window(before.unwrap_or(200), before.is_some(), t);
        for consumed in 1..=4 {
            if let Some(limit) = told_limit {
                let s = slot(&mut w, t);
                w.give_back(s, told(consumed, limit - consumed), t);
            }
        }
        w.configure(now.unwrap_or(7), now.is_some());
        let case = (before, told_limit, now);
        assert_eq!(w.rate().limit, holds, "{case:?}");
        assert_eq!(w.rate().window, W);
        // Later answers correct it, within the document now.
        for n in 4..24 {
            let s = slot(&mut w, t + W * n);
            w.give_back(s, told(1, 999), t + W * n);
        }
        assert_eq!(w.rate().limit, now.unwrap_or(1_000), "{case:?}");
    }
}
