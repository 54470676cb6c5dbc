//! Pure. What refused batches cost.

use super::*;
use fastrand::Rng;
use std::collections::{BTreeSet, VecDeque};

/// One write: whether the API refuses it, and how it may be batched.
struct Write {
    wrong: bool,
    batching: Batching,
    member: Member,
}

/// How many slots it takes to carry out writes of which some are wrong. `at_once` dispatches are
/// under way at a time, and whenever nobody waits, up to `burst` more writes arrive.
fn slots(rng: &mut Rng, writes: usize, percent: u32, at_once: usize, burst: usize) -> usize {
    let mut all: Vec<Write> = (0..writes)
        .map(|n| Write {
            wrong: rng.u32(..100) < percent,
            batching: Batching::default(),
            member: member("POST /groups/g/users", &format!(r#"{{"emails":["{n}"]}}"#)),
        })
        .collect();
    let (mut waiting, mut coming) = (BTreeSet::new(), 0..writes);
    let mut under_way: VecDeque<Vec<usize>> = VecDeque::new();
    let (mut debt, mut slots) = (Debt::default(), 0);
    loop {
        if waiting.is_empty() {
            waiting.extend(coming.by_ref().take(burst));
        }
        if let Some(first) = waiting
            .first()
            .copied()
            .filter(|_| under_way.len() < at_once)
        {
            let batching = all[first].batching;
            let bounds = Bounds {
                batching: debt.limit(batching),
                ..Bounds::default()
            };
            let alike = waiting.iter().filter(|at| all[**at].batching == batching);
            let alike = alike.map(|at| (*at, &all[*at].member.parts));
            let own = (first, &all[first].member.parts);
            let chosen = choose(own, alike, bounds, |_, _| true);
            waiting.retain(|at| !chosen.contains(at));
            if chosen.len() == 1 {
                debt.carried_out(1);
            }
            slots += 1;
            under_way.push_back(chosen);
            continue;
        }
        let Some(batch) = under_way.pop_front() else {
            return slots;
        };
        if batch.len() == 1 {
            continue;
        }
        if !batch.iter().any(|at| all[*at].wrong) {
            debt.carried_out(batch.len());
            continue;
        }
        debt.refused();
        for at in &batch {
            all[*at].batching = all[*at].batching.divided(batch.len());
            waiting.insert(*at);
        }
    }
}

/// The promise of the module, in every mix.
#[test]
fn no_mix_costs_a_fifth_more_than_no_batches() {
    let mut rng = Rng::with_seed(33);
    for percent in 0..=50 {
        for burst in [1, 2, 3, 5, 10, 19, 50, 200] {
            for at_once in [1, 4, 8] {
                let slots = slots(&mut rng, 200, percent, at_once, burst);
                // Those under way when the first is refused.
                let most = 240 + at_once;
                assert!(
                    slots <= most,
                    "{percent} % {burst} {at_once}: {slots} of {most}"
                );
            }
        }
        for writes in 5..=50 {
            let slots = slots(&mut rng, writes, percent, 4, writes);
            assert!(5 * slots <= 6 * writes, "{percent} %: {slots} for {writes}");
        }
    }
}

#[test]
fn few_wrong_writes_cost_few_slots() {
    let mut rng = Rng::with_seed(34);
    for (percent, most) in [(0, 20), (1, 350), (2, 500), (5, 700), (10, 900)] {
        let slots = slots(&mut rng, 1_000, percent, 4, 1_000);
        assert!(slots <= most, "{percent} %: {slots}");
    }
}

#[test]
fn a_write_is_refused_with_others_twice_at_most() {
    for members in 1..60 {
        let once = Batching::Full.divided(members);
        assert_eq!(once == Batching::Group, members >= 20, "{members}");
        assert_eq!(once.divided(members), Batching::Alone);
    }
}

#[test]
fn what_is_owed_keeps_only_new_writes_alone() {
    let mut debt = Debt::default();
    assert_eq!(debt.limit(Batching::Full), Batching::Full);
    debt.refused();
    assert_eq!((debt.alone(9), debt.alone(3)), (5, 3));
    assert_eq!(debt.limit(Batching::Full), Batching::Alone);
    assert_eq!(debt.limit(Batching::Group), Batching::Group);
    debt.carried_out(4);
    assert!(!debt.is_paid());
    debt.carried_out(7);
    assert!(debt.is_paid());
    for _ in 0..1_000 {
        debt.unattributed();
    }
    assert_eq!(debt.alone(usize::MAX), 1_000);
}
