use super::*;
use crate::clock::Clock;
use crate::route::Table;
use bytes::Bytes;
use http::{Method, Request};
use proptest::prelude::*;
use std::sync::LazyLock;

const GUARD: Duration = Duration::from_millis(240);
/// With a thousandth of the window, the guard of a minute is 300 ms.
const HOLD: Duration = Duration::from_millis(60_300);
const RATE: Rate = Rate {
    limit: 3,
    window: Duration::from_secs(60),
};
const BOUNDS: ModelBounds = ModelBounds {
    guard: GUARD,
    per_budget: 100,
    total: 1_000,
    bytes: 1_000_000,
    budgets: 10,
};

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let loaded = crate::config::load(None, std::iter::empty()).unwrap();
    loaded.table(1).unwrap()
});

fn model(bounds: ModelBounds) -> Model {
    Model::new(bounds)
}

fn budget(name: &str) -> BudgetKey {
    (Credential::from_bytes([1; 16]), name.into())
}

fn wish(patience: u64) -> ModelRequest {
    ModelRequest {
        patience: Duration::from_secs(patience),
        bytes: 10,
        parts: None,
    }
}

/// Some elements of a list that has room for four.
fn listing(list: &str, elements: &[u32]) -> ModelRequest {
    let path = format!("/groups/{list}/users");
    let mut operation = (*TABLE.find(&Method::POST, &path).operation).clone();
    let merge = operation.merge.as_mut().map(Arc::make_mut).unwrap();
    (merge.enabled, merge.most) = (true, 4);
    let emails: Vec<String> = elements.iter().map(u32::to_string).collect();
    let body = serde_json::json!({ "emails": emails }).to_string();
    let request = Request::post(path).header("content-type", "application/json");
    let request = request.body(Bytes::from(body)).unwrap();
    ModelRequest {
        parts: Some(Parts::of(&operation, &request).unwrap()),
        ..wish(1_000)
    }
}

fn start() -> Instant {
    Clock::system().now()
}

const fn queued(millis: u64) -> Departure {
    Departure::Queued(Duration::from_millis(millis))
}

const fn too_long(millis: u64) -> Departure {
    Departure::Refused(Why::Wait(Duration::from_millis(millis)))
}

#[test]
fn a_budget_lets_its_slots_go_and_then_as_they_come_back() {
    let mut model = model(BOUNDS);
    let start = start();
    // After so many milliseconds, with so many seconds of patience.
    let table = [
        (0, 0, Departure::Immediate),
        (10_000, 0, Departure::Immediate),
        (20_000, 0, Departure::Immediate),
        // The first slot comes back 60.3 s after it was taken.
        (20_000, 40, too_long(40_300)),
        (20_000, 41, queued(40_300)),
        (20_000, 41, too_long(50_300)),
        (20_000, 51, queued(50_300)),
        (20_000, 61, queued(60_300)),
        // A whole round later: 60.3 s after the one that leaves at 60.3 s.
        (20_000, 200, queued(100_600)),
        (60_300, 200, queued(70_300)),
        // A request that arrives when a slot is free does not wait.
        (200_000, 0, Departure::Immediate),
    ];
    for (at, patience, expected) in table {
        let now = start + Duration::from_millis(at);
        let departure = model.arrive(budget("a"), RATE, wish(patience), now);
        assert_eq!(departure, expected, "at {at} ms, patience {patience} s");
    }
}

#[test]
fn budgets_do_not_know_each_other() {
    let mut model = model(BOUNDS);
    let now = start();
    for key in ["a", "b", "c"] {
        for _ in 0..3 {
            let departure = model.arrive(budget(key), RATE, wish(0), now);
            assert_eq!(departure, Departure::Immediate, "{key}");
        }
        assert!(model.must_wait(&budget(key), now));
    }
    assert!(!model.must_wait(&budget("d"), now));
}

#[test]
fn the_lines_are_bounded() {
    let full = Departure::Refused(Why::Full);
    let now = start();
    let later = now + HOLD;
    let fill = |model: &mut Model, key| {
        for _ in 0..3 {
            assert_eq!(
                model.arrive(budget(key), RATE, wish(0), now),
                Departure::Immediate
            );
        }
    };
    let bounds = ModelBounds {
        per_budget: 2,
        total: 3,
        ..BOUNDS
    };
    let mut one = model(bounds);
    fill(&mut one, "a");
    fill(&mut one, "b");
    for expected in [queued(60_300), queued(60_300), full] {
        assert_eq!(one.arrive(budget("a"), RATE, wish(100), now), expected);
    }
    for expected in [queued(60_300), full] {
        assert_eq!(
            one.arrive(budget("b"), RATE, wish(100), now),
            expected,
            "in all"
        );
    }
    assert_eq!(one.arrive(budget("c"), RATE, wish(0), now), full, "in all");
    // They have left.
    assert_eq!(
        one.arrive(budget("c"), RATE, wish(0), later),
        Departure::Immediate
    );
    assert_eq!(
        one.arrive(budget("a"), RATE, wish(0), later),
        Departure::Immediate
    );

    let bounds = ModelBounds {
        bytes: 25,
        ..BOUNDS
    };
    let mut one = model(bounds);
    fill(&mut one, "a");
    for expected in [queued(60_300), queued(60_300), full] {
        assert_eq!(one.arrive(budget("a"), RATE, wish(100), now), expected);
    }
}

#[test]
fn what_fits_a_batch_that_waits_takes_no_slot() {
    let mut model = model(BOUNDS);
    let now = start();
    let merged = Departure::Merged(HOLD);
    let table = [
        // Nothing waits in order to be merged.
        (listing("x", &[1]), Departure::Immediate),
        (listing("x", &[2]), Departure::Immediate),
        (listing("x", &[3]), Departure::Immediate),
        (listing("x", &[4, 5]), queued(60_300)),
        (listing("x", &[6]), merged),
        // It is listed already; it leads the next one.
        (listing("x", &[6]), queued(60_300)),
        (listing("x", &[7]), merged),
        // The first is full, and the second has room for three.
        (listing("x", &[8, 9]), merged),
        // Another list.
        (listing("y", &[8]), queued(60_300)),
        (listing("x", &[10, 11, 12]), queued(120_600)),
        (listing("y", &[9]), merged),
        (wish(1_000), queued(120_600)),
    ];
    for (index, (wish, expected)) in table.into_iter().enumerate() {
        assert_eq!(
            model.arrive(budget("a"), RATE, wish, now),
            expected,
            "{index}"
        );
    }
    // A batch that has departed cannot be joined.
    let wish = listing("y", &[10]);
    let departure = model.arrive(budget("a"), RATE, wish, now + HOLD);
    assert_eq!(departure, queued(60_300));
}

#[test]
fn one_that_would_be_merged_too_late_is_refused() {
    let mut model = model(BOUNDS);
    let now = start();
    for n in 0..4 {
        model.arrive(budget("a"), RATE, listing("x", &[n]), now);
    }
    let wish = ModelRequest {
        patience: Duration::from_secs(60),
        ..listing("x", &[9])
    };
    assert_eq!(model.arrive(budget("a"), RATE, wish, now), too_long(60_300));
}

#[test]
fn a_limit_that_was_learned_counts_from_then_on() {
    let mut model = model(BOUNDS);
    let now = start();
    model.learn(&budget("a"), 9);
    model.arrive(budget("a"), RATE, wish(0), now);
    model.learn(&budget("a"), 1);
    assert_eq!(
        model.arrive(budget("a"), RATE, wish(100), now),
        queued(60_300)
    );
    model.learn(&budget("a"), 5);
    // No request is overtaken.
    assert_eq!(
        model.arrive(budget("a"), RATE, wish(100), now),
        queued(60_300)
    );
    model.learn(&budget("a"), 0);
    assert!(model.must_wait(&budget("a"), now));
}

#[test]
fn there_is_a_slot_to_spare_while_half_of_them_are_unused() {
    let mut model = model(BOUNDS);
    let now = start();
    let rate = Rate { limit: 4, ..RATE };
    assert!(model.has_spare(&budget("a"), rate, now));
    model.arrive(budget("a"), rate, wish(0), now);
    assert!(model.has_spare(&budget("a"), rate, now));
    model.arrive(budget("a"), rate, wish(0), now);
    assert!(!model.has_spare(&budget("a"), rate, now));
    assert!(model.has_spare(&budget("a"), rate, now + HOLD));
}

#[test]
fn idle_budgets_are_forgotten_and_their_number_is_bounded() {
    let bounds = ModelBounds {
        budgets: 2,
        ..BOUNDS
    };
    let mut model = model(bounds);
    let now = start();
    for (key, expected) in [
        ("a", Departure::Immediate),
        ("b", Departure::Immediate),
        ("c", Departure::Refused(Why::TooManyBudgets)),
        ("a", Departure::Immediate),
    ] {
        assert_eq!(
            model.arrive(budget(key), RATE, wish(0), now),
            expected,
            "{key}"
        );
    }
    assert_eq!(model.budgets.len(), 2);
    let later = now + HOLD;
    assert_eq!(
        model.arrive(budget("c"), RATE, wish(0), later),
        Departure::Immediate
    );
    assert_eq!(model.budgets.len(), 1);
}

proptest! {
    /// No half-open interval of a window's length has more departures than slots. No request
    /// departs before its arrival, overtakes another, or waits longer than permitted or needed.
    #[test]
    fn the_departures_keep_the_budget(
        limit in 1_u32..8,
        window in 1_u64..2_000,
        asks in prop::collection::vec((0_u64..900, 0_u64..4_000), 1..300),
    ) {
        let rate = Rate { limit, window: Duration::from_millis(window) };
        let mut model = model(ModelBounds { guard: Duration::from_millis(1), ..BOUNDS });
        let hold = rate.window + Duration::from_millis(1) + rate.window / 1000;
        let mut now = start();
        let mut departures: Vec<Instant> = Vec::new();
        for (gap, patience) in asks {
            // Some come together.
            now += Duration::from_millis(gap.saturating_sub(600));
            let patience = Duration::from_millis(patience);
            // The brute force: the first instant at which the slots allow one more.
            let free = |at: Instant| {
                let held = departures.iter().filter(|left| **left + hold > at);
                held.count() < limit as usize && departures.iter().all(|left| *left <= at)
            };
            let candidates = departures.iter().flat_map(|left| [*left, *left + hold]);
            let first = candidates.chain([now]).filter(|at| *at >= now && free(*at)).min();
            let wait = first.unwrap() - now;
            let waiting = departures.iter().filter(|left| **left > now).count();
            let wish = ModelRequest { patience, bytes: 1, parts: None };
            match model.arrive(budget("a"), rate, wish, now) {
                Departure::Immediate => prop_assert!(wait.is_zero()),
                Departure::Queued(told) => prop_assert_eq!(told, wait),
                Departure::Refused(Why::Wait(told)) => {
                    prop_assert_eq!(told, wait);
                    prop_assert!(wait > patience);
                    continue;
                }
                Departure::Refused(Why::Full) => {
                    prop_assert!(waiting >= BOUNDS.per_budget);
                    continue;
                }
                other => prop_assert!(false, "{:?}", other),
            }
            prop_assert!(wait <= patience);
            departures.push(now + wait);
        }
        for (index, first) in departures.iter().enumerate() {
            let within = departures[index..].iter().filter(|at| **at < *first + rate.window);
            prop_assert!(within.count() <= limit as usize);
        }
        prop_assert!(departures.is_sorted());
    }
}
