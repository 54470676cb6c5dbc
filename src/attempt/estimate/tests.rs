use super::*;
use crate::caller::Caller;
use crate::clock::Clock;
use crate::credential::Hasher;
use crate::lanes::Keys;
use crate::limit::turns::Urgency;
use crate::limit::window::{Terms, Window};
use crate::route::policy::Rate;
use std::net::IpAddr;

const BUDGET: &str = "addUsers";

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn peer(n: u8) -> Caller {
    Caller {
        principal: IpAddr::from([10, 0, 0, n]).into(),
        name: None,
    }
}

/// A budget all of whose slots are occupied, each until so many seconds from now.
fn occupied(now: Instant, until: &[u64]) -> Account {
    let rate = Rate {
        limit: u32::try_from(until.len()).unwrap(),
        window: seconds(60),
    };
    let terms = Terms {
        guard: Duration::from_millis(250),
        late: seconds(60),
        unknown_slots: 1,
    };
    let mut window = Window::new(rate, rate, false, terms, now);
    let until = until.iter().map(|until| now + seconds(*until));
    window.restore(until, rate.window);
    Account::new(window, 60, now)
}

fn forecast(now: Instant, account: Account, lanes: LaneOrder) -> Estimate {
    Estimate {
        accounts: vec![(BUDGET.into(), account)],
        lanes,
        now,
    }
}

fn keys(keys: &[&str]) -> Keys {
    Keys::new(&Hasher::new(&[0; 32]), keys.iter().copied(), [])
}

/// The estimate for a write that arrives now from this peer: when it is sent, and when to come
/// back.
fn told(forecast: &Estimate, from: u8, acts_on: &[&str], patience: u64) -> (Option<f64>, u64) {
    let (caller, keys) = (peer(from), keys(acts_on));
    let newcomer = Newcomer {
        budget: BUDGET,
        caller: &caller,
        urgency: Urgency::default(),
        keys: &keys,
        patience: seconds(patience),
        most: 4,
    };
    let leaves = forecast.leaves(&newcomer);
    (
        leaves.map(|at| at.saturating_duration_since(forecast.now).as_secs_f64()),
        forecast.comes_back(&newcomer).as_secs(),
    )
}

#[test]
fn with_a_slot_free_and_nobody_there_it_leaves_at_once() {
    let now = Clock::system().now();
    let forecast = forecast(now, occupied(now, &[0, 10]), LaneOrder::default());
    assert_eq!(told(&forecast, 1, &["user:a"], 0).0, Some(0.0));
}

#[test]
fn it_leaves_with_the_first_slot_and_may_come_back_so_much_sooner_as_it_can_wait() {
    let now = Clock::system().now();
    let forecast = forecast(now, occupied(now, &[10, 20]), LaneOrder::default());
    for (patience, after) in [(0, 10), (4, 7), (9, 2), (60, 1)] {
        assert_eq!(told(&forecast, 1, &[], patience), (Some(10.0), after));
    }
}

#[test]
fn those_who_wait_leave_before_it_as_their_turns_say() {
    let now = Clock::system().now();
    let mut account = occupied(now, &[10, 20, 30, 40]);
    for place in 0..3 {
        account
            .turns()
            .join(place, peer(1), Urgency::default(), now);
        account.turns().ready(place);
    }
    let forecast = forecast(now, account, LaneOrder::default());
    assert_eq!(told(&forecast, 2, &[], 15), (Some(20.0), 6));
    // A write that cannot wait would have to come at the exact moment. Its estimate is the
    // instant at which everything else has been sent.
    assert_eq!(told(&forecast, 2, &[], 0), (Some(20.0), 40));
    // One peer may have half of the four places, and has more already.
    let (leaves, after) = told(&forecast, 1, &[], 0);
    assert_eq!(leaves, None);
    assert!(after >= 40, "{after}");
}

#[test]
fn it_waits_for_its_lane_as_well() {
    let now = Clock::system().now();
    let mut lanes = LaneOrder::default();
    // It has left already: no budget has it in its line.
    assert!(lanes.enter(0, keys(&["user:a"]), now + seconds(5), 77));
    let forecast = forecast(now, occupied(now, &[0, 0]), lanes);
    let (leaves, _) = told(&forecast, 1, &["user:a"], 0);
    assert!(
        leaves.is_some_and(|at| (5.0..6.0).contains(&at)),
        "{leaves:?}"
    );
    assert_eq!(told(&forecast, 1, &["user:b"], 0).0, Some(0.0));
}

#[test]
fn whoever_waits_for_a_lane_is_answered_before_those_behind_it_leave() {
    let now = Clock::system().now();
    let mut account = occupied(now, &[10, 10]);
    let mut lanes = LaneOrder::default();
    account.turns().join(3, peer(1), Urgency::default(), now);
    account.turns().ready(3);
    assert!(lanes.enter(0, keys(&["user:a"]), now + seconds(11), 3));
    let answer = account.answer_time().as_secs_f64();
    let forecast = forecast(now, account, lanes);
    let (leaves, _) = told(&forecast, 1, &["user:a"], 0);
    let expected = 10.0 + answer;
    assert!(
        leaves.is_some_and(|at| (expected..expected + 1.0).contains(&at)),
        "{leaves:?} of {expected}"
    );
}

#[test]
fn where_lanes_decide_who_has_a_slot_nobody_is_told_to_come_before_all_have_left() {
    let now = Clock::system().now();
    // Two of the four slots come free soon, and two write to the same thing: whether the second
    // one is through its lane in time for a slot is a matter of moments.
    let mut account = occupied(now, &[5, 6, 50, 60]);
    let mut lanes = LaneOrder::default();
    for place in 0..2 {
        let turns = account.turns();
        turns.join(place, peer(1), Urgency::default(), now + seconds(6));
        if lanes.enter(place, keys(&["user:a"]), now + seconds(6), place) {
            turns.ready(place);
        }
    }
    let contended = forecast(now, account.clone(), lanes);
    let (leaves, after) = told(&contended, 2, &["user:b"], 10);
    assert!(leaves.is_some_and(|at| at < 7.0), "{leaves:?}");
    // Of three that are after four slots the last has left when the third slot is free.
    assert!((40..=41).contains(&after), "{after}");
    let alone = forecast(now, account, LaneOrder::default());
    assert_eq!(told(&alone, 2, &["user:b"], 10).1, 1);
}

#[test]
fn nothing_is_told_of_a_budget_that_is_not_there() {
    let now = Clock::system().now();
    let mut forecast = forecast(now, occupied(now, &[0]), LaneOrder::default());
    forecast.accounts.clear();
    assert_eq!(told(&forecast, 1, &[], 0).0, None);
}
