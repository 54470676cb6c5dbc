use super::by_urgency::OLDEST_EVERY;
use super::*;
use crate::clock::Clock;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::net::IpAddr;

const USUAL: Urgency = Urgency(3);

fn caller(principal: u8, name: Option<u8>) -> Caller {
    Caller {
        principal: IpAddr::from([10, 0, 0, principal]).into(),
        name: name.map(|name| Arc::from(format!("team-{name}"))),
    }
}

/// The names of the clients of these tests.
const CLIENTS: [&str; 4] = ["a", "b", "c", "d"];

/// The `n`th client, or one of its named callers.
fn client(n: u8, name: Option<u8>) -> Caller {
    Caller {
        principal: Principal::Client(CLIENTS[usize::from(n)].into()),
        ..caller(n, name)
    }
}

/// The weights of clients with these shares.
fn weights(shares: &[u8]) -> Arc<ClientWeights> {
    let shares: Vec<(&str, u8)> = CLIENTS.into_iter().zip(shares.iter().copied()).collect();
    Arc::new(ClientWeights::of_shares(&shares))
}

/// An empty line for clients with these shares.
fn weighted(shares: &[u8]) -> Turns {
    let mut turns = Turns::default();
    turns.set_weights(weights(shares));
    turns
}

fn join_ready(turns: &mut Turns, place: LinePosition, caller: Caller) {
    turns.join(place, caller, USUAL, now());
    turns.ready(place);
}

/// An instant; which one does not matter.
fn now() -> Instant {
    Clock::system().now()
}

fn everyone(turns: &mut Turns) -> Vec<LinePosition> {
    std::iter::from_fn(|| turns.pop()).collect()
}

#[test]
fn those_who_wait_longest_are_known_with_what_they_have_in_the_line() {
    let mut turns = Turns::default();
    // Peer 3 came first with a blocked request, then the names of principal 1, then many of
    // principal 2.
    turns.join(0, caller(3, None), USUAL, now());
    for (place, who) in [(1, 1), (2, 2), (3, 1)] {
        turns.join(place, caller(1, Some(who)), USUAL, now());
        turns.ready(place);
    }
    for place in 4..14 {
        turns.join(place, caller(2, None), USUAL, now());
        turns.ready(place);
    }
    let longest = |turns: &Turns, most| -> Vec<_> {
        let of = turns.longest(most).into_iter();
        of.map(|one| (one.caller, one.queued, one.blocked, one.first))
            .collect()
    };
    let all = [
        (caller(3, None), 1, 1, 0),
        (caller(1, Some(1)), 2, 0, 1),
        (caller(1, Some(2)), 1, 0, 2),
        (caller(2, None), 10, 0, 4),
    ];
    for most in 0..6 {
        assert_eq!(longest(&turns, most), all[..most.min(4)], "{most}");
    }
    assert!(turns.leave(0) && turns.leave(1));
    assert_eq!(
        longest(&turns, 2),
        [(caller(1, Some(2)), 1, 0, 2), (caller(1, Some(1)), 1, 0, 3)]
    );
    assert_eq!(longest(&Turns::default(), 3), []);
}

#[test]
fn a_bulk_of_one_caller_does_not_starve_a_single_write_of_another() {
    let mut turns = Turns::default();
    for place in 0..100 {
        turns.join(place, caller(1, None), USUAL, now());
        turns.ready(place);
    }
    turns.join(100, caller(2, None), USUAL, now());
    turns.ready(100);
    assert_eq!(turns.ahead_of(&caller(3, None), USUAL, None).ready, 2);
    let order = everyone(&mut turns);
    assert!(order.iter().position(|place| *place == 100).unwrap() <= 1);
}

#[test]
fn names_divide_a_peers_turn_and_do_not_add_to_it() {
    let mut turns = Turns::default();
    for place in 0..40 {
        turns.join(place, caller(1, Some((place % 10) as u8)), USUAL, now());
        turns.ready(place);
    }
    for place in 40..44 {
        turns.join(place, caller(2, None), USUAL, now());
        turns.ready(place);
    }
    let order = everyone(&mut turns);
    let of_second = order[..8].iter().filter(|place| **place >= 40).count();
    assert_eq!(
        of_second, 4,
        "ten names get no more than one principal's half: {order:?}"
    );
}

#[test]
fn those_not_ready_hold_nobody_up() {
    let mut turns = Turns::default();
    turns.join(0, caller(1, None), USUAL, now());
    turns.join(1, caller(1, None), USUAL, now());
    turns.ready(1);
    assert_eq!(turns.pop(), Some(1));
    assert_eq!(turns.pop(), None);
    turns.ready(0);
    assert_eq!(turns.pop(), Some(0));
    assert!(turns.is_empty() && turns.principals.is_empty() && turns.ring.is_empty());
}

#[test]
fn the_urgent_go_first_and_nobody_starves() {
    let mut turns = Turns::default();
    let urgency = |place: LinePosition| Urgency(if place < 10 { 7 } else { 0 });
    for place in 0..40 {
        turns.join(place, caller(1, None), urgency(place), now());
        turns.ready(place);
    }
    let ahead = |u: u8| {
        let ahead = turns.ahead_of(&caller(1, None), Urgency(u), None);
        ahead.ready
    };
    // 30 as urgent, and each fourth turn for the others until it is the newcomer's.
    assert_eq!((ahead(0), ahead(6), ahead(7)), (30 + 10, 30 + 10, 40));
    let order = everyone(&mut turns);
    assert_eq!(order[..8], [10, 11, 12, 0, 13, 14, 15, 1]);
    assert_eq!(order.len(), 40);
}

#[test]
fn the_order_begins_with_whose_turn_it_is() {
    let mut turns = Turns::default();
    for place in 0..12 {
        // The oldest are all of the first principal.
        let principal = if place < 4 { 1 } else { 2 + (place % 4) as u8 };
        turns.join(place, caller(principal, None), USUAL, now());
        if place != 7 {
            turns.ready(place);
        }
    }
    for _ in 0..3 {
        turns.pop();
        let mut all_ready = turns.clone();
        all_ready.ready(7);
        let order: Vec<LinePosition> = turns
            .in_order()
            .into_iter()
            .map(|(place, _)| place)
            .collect();
        assert_eq!(order, everyone(&mut all_ready));
    }
}

#[test]
fn a_newcomer_goes_no_later_than_was_told() {
    for urgency in 0..8 {
        for offset in 0..OLDEST_EVERY {
            let mut turns = Turns::default();
            for place in 0..60 {
                turns.join(
                    place,
                    caller(1, None),
                    Urgency((place * 5 % 8) as u8),
                    now(),
                );
                turns.ready(place);
            }
            for _ in 0..offset {
                turns.pop();
            }
            let newcomer = Urgency(urgency);
            let ahead = turns.ahead_of(&caller(1, None), newcomer, None).ready;
            turns.join(99, caller(1, None), newcomer, now());
            turns.ready(99);
            let order = everyone(&mut turns);
            let before = order.iter().position(|place| *place == 99).unwrap();
            assert!(before <= ahead, "{before} of {ahead} before u={urgency}");
            // Turns for the oldest that serve somebody urgent are counted twice.
            assert!(ahead <= before + 60 / OLDEST_EVERY, "{before} of {ahead}");
        }
    }
}

#[test]
fn only_those_who_are_ready_in_time_are_ahead() {
    let (mut turns, start) = (Turns::default(), now());
    let second = std::time::Duration::from_secs(1);
    for place in 0..4 {
        let ready = start + second * u32::try_from(place).unwrap();
        turns.join(place, caller(1, None), USUAL, ready);
    }
    turns.ready(2);
    let ahead = |until| turns.ahead_of(&caller(1, None), USUAL, until);
    assert_eq!(ahead(None).ready, 1);
    assert_eq!(ahead(None).blocked, 3);
    assert_eq!(ahead(Some(start)).blocked, 1);
    assert_eq!(ahead(Some(start + second * 2)).blocked, 2);
    let other = turns.ahead_of(&caller(2, None), USUAL, None);
    assert_eq!((other.ready, other.blocked), (1, 0), "one turn");
    assert_eq!(
        turns.ready_at(0, None, start + second),
        Some(start + second),
        "one is ready"
    );
    let of_principal = |others| turns.ready_at(others, Some(&caller(1, None).principal), start);
    let expected = [0, 0, 1, 3].map(|after| Some(start + second * after));
    assert_eq!([0, 1, 2, 3].map(of_principal), expected);
    assert_eq!(of_principal(4), None);
    assert_eq!(
        turns.ready_at(0, Some(&caller(2, None).principal), start),
        None
    );
}

/// What is ahead of a new request, found by a look at every request.
fn ahead_by_looking(
    turns: &Turns,
    caller: &Caller,
    urgency: Urgency,
    until: Option<Instant>,
) -> Ahead {
    // The requests of a caller with these urgencies, `most` of them at most.
    let those = |of: &Caller, which: &dyn Fn(Urgency) -> bool, most: usize| {
        let all = turns.callers.iter();
        let all = all.filter(|(_, (by, of_it))| by == of && which(*of_it));
        let line = &turns.principals[&of.principal].names[&of.name];
        let (mut ready, mut blocked) = (0, 0);
        for (place, _) in all {
            match line.blocked.get(place) {
                None => ready += 1,
                Some(at) => blocked += usize::from(until.is_none_or(|until| *at <= until)),
            }
        }
        ready = ready.min(most);
        blocked = blocked.min(most - ready);
        Ahead { ready, blocked }
    };
    let mut callers: Vec<Caller> = turns.callers.values().map(|(by, _)| by.clone()).collect();
    callers.sort_unstable_by(|a, b| (&a.principal, &a.name).cmp(&(&b.principal, &b.name)));
    callers.dedup();
    let mut ahead = Ahead::default();
    if callers.contains(caller) {
        ahead = those(caller, &|of| of <= urgency, usize::MAX);
        let oldest = (ahead.count() + 1).div_ceil(OLDEST_EVERY - 1);
        ahead += those(caller, &|of| of > urgency, oldest);
    }
    let each = ahead.count() + 1;
    let names = callers
        .iter()
        .filter(|other| other.principal == caller.principal);
    for other in names.filter(|other| *other != caller) {
        ahead += those(other, &|_| true, each);
    }
    let weight = |principal: &Principal| turns.weights.of(principal).requests();
    let rounds = (ahead.count() + 1).div_ceil(weight(&caller.principal));
    let principals: BTreeSet<Principal> = turns.principals.keys().cloned().collect();
    for principal in principals
        .into_iter()
        .filter(|principal| *principal != caller.principal)
    {
        let mut all = Ahead::default();
        for other in callers.iter().filter(|other| other.principal == principal) {
            all += those(other, &|_| true, usize::MAX);
        }
        let each = rounds * weight(&principal);
        let ready = all.ready.min(each);
        let blocked = all.blocked.min(each - ready);
        ahead += Ahead { ready, blocked };
    }
    ahead
}

#[test]
fn lines_of_one_size_are_counted_together() {
    let mut turns = Turns::default();
    for place in 0..1_000 {
        let principal = IpAddr::from(u32::try_from(place % 500).unwrap().to_be_bytes()).into();
        turns.join(
            place,
            Caller {
                principal,
                name: None,
            },
            USUAL,
            now(),
        );
        turns.ready(place);
    }
    assert_eq!(
        turns.sizes.entries(),
        2,
        "500 principals with 2 requests each"
    );
    assert_eq!(turns.ahead_of(&caller(1, None), USUAL, None).ready, 500);
    assert_eq!(turns.everyone(None).ready, 1_000);
    while turns.pop().is_some() {
        assert!(turns.sizes.entries() <= 4);
    }
    assert_eq!(turns.sizes.entries(), 0);
}

proptest! {
    /// What is known of the sizes of the lines is what a look at each of them shows. With a
    /// limit in time it is an upper bound of that.
    #[test]
    fn what_is_ahead_is_known_without_a_look_at_each_line(
        steps in prop::collection::vec((0u8..5, 0u8..4, 0u8..3, 0u64..200), 1..100),
        shares in prop::collection::vec(prop::collection::vec(1u8..6, 4), 2),
    ) {
        let (mut turns, start) = (weighted(&shares[0]), now());
        let at = |pick: u64| start + std::time::Duration::from_secs(pick % 7);
        for (place, (what, principal, name, pick)) in (0..).zip(steps) {
            let who = client(principal, (name > 0).then_some(name));
            let urgency = Urgency((pick % 8) as u8);
            match what {
                4 => turns.set_weights(weights(&shares[pick as usize % 2])),
                0 | 1 => turns.join(place, who.clone(), urgency, at(pick)),
                2 => turns.ready(pick % (place + 1)),
                _ if pick % 2 == 0 => {
                    turns.pop();
                }
                _ => {
                    turns.leave(pick % (place + 1));
                }
            }
            let all = turns.ahead_of(&who, urgency, None);
            prop_assert_eq!(all, ahead_by_looking(&turns, &who, urgency, None));
            let until = Some(at(pick));
            let ahead = turns.ahead_of(&who, urgency, until);
            let looked = ahead_by_looking(&turns, &who, urgency, until);
            prop_assert!(looked.ready <= ahead.ready && looked.count() <= ahead.count());
            prop_assert!(ahead.ready <= all.ready && ahead.count() <= all.count());
            let lines = turns.principals.values().flat_map(|principal| principal.names.values());
            let blocked = lines.flat_map(|line| line.blocked.values());
            let blocked = blocked.filter(|at| until.is_none_or(|until| **at <= until));
            let everyone = turns.everyone(until);
            prop_assert_eq!(everyone.blocked, blocked.count());
            prop_assert_eq!(everyone.ready, turns.everyone(None).count() - turns.expected.len());
            prop_assert!(turns.sizes.entries() <= 2 * turns.principals.len());
            let principals = turns.principals.keys();
            let sum: usize = principals.map(|principal| turns.weights.of(principal).requests()).sum();
            prop_assert_eq!(turns.sizes.weights(), sum);
        }
    }

    /// Whatever happens, nobody is lost or served twice, arrival order holds among the equally
    /// urgent of a caller, no principal with someone ready waits for more than one turn of each
    /// other, and nothing is left behind.
    #[test]
    fn everyone_is_served_once_in_turn(
        steps in prop::collection::vec((0u8..4, 0u8..4, 0u8..3, 0u64..200), 1..200),
        shares in prop::collection::vec(1u8..6, 4),
    ) {
        let mut turns = weighted(&shares);
        let mut waiting: Vec<(LinePosition, Caller, bool, Urgency)> = Vec::new();
        let mut next = 0;
        let mut passed: HashMap<Principal, HashMap<Principal, usize>> = HashMap::default();
        for (what, principal, name, pick) in steps {
            match what {
                0 => {
                    let who = client(principal, (name > 0).then_some(name));
                    prop_assert_eq!(turns.len(), waiting.len());
                    let urgency = Urgency((pick % 8) as u8);
                    turns.join(next, who.clone(), urgency, now());
                    waiting.push((next, who, false, urgency));
                    next += 1;
                }
                1 if !waiting.is_empty() => {
                    let at = pick as usize % waiting.len();
                    waiting[at].2 = true;
                    turns.ready(waiting[at].0);
                }
                2 if !waiting.is_empty() => {
                    let (place, who, ..) = waiting.remove(pick as usize % waiting.len());
                    prop_assert!(turns.leave(place));
                    // A principal that has nobody ready left begins anew.
                    if !waiting.iter().any(|w| w.2 && w.1.principal == who.principal) {
                        passed.remove(&who.principal);
                    }
                    prop_assert!(!turns.leave(place));
                }
                _ => {
                    let served = turns.pop();
                    prop_assert_eq!(served.is_some(), waiting.iter().any(|w| w.2));
                    let Some(served) = served else { continue };
                    let at = waiting.iter().position(|w| w.0 == served).unwrap();
                    let (_, who, ready, urgency) = waiting.remove(at);
                    prop_assert!(ready);
                    let before = |w: &&(LinePosition, Caller, bool, Urgency)| {
                        w.2 && w.1 == who && w.0 < served
                    };
                    prop_assert!(!waiting.iter().filter(before).any(|w| w.3 == urgency));
                    passed.remove(&who.principal);
                    let others: BTreeSet<Principal> =
                        waiting.iter().filter(|w| w.2).map(|w| w.1.principal.clone()).collect();
                    passed.retain(|principal, _| others.contains(principal));
                    for other in others.into_iter().filter(|other| *other != who.principal) {
                        let count = passed.entry(other.clone()).or_default().entry(who.principal.clone()).or_default();
                        *count += 1;
                        let most = turns.weights.of(&who.principal).requests();
                        prop_assert!(*count <= most, "{other} was passed over by {}", who.principal);
                    }
                }
            }
        }
        let left: Vec<LinePosition> = waiting.iter().map(|w| w.0).collect();
        prop_assert_eq!(turns.in_order().len(), left.len());
        for place in left {
            prop_assert!(turns.leave(place));
        }
        prop_assert!(turns.principals.is_empty() && turns.ring.is_empty());
    }

    /// Whoever joins goes no later than was told, and so does each of the requests of a principal,
    /// whoever is amid a turn, whatever the weights were before, and whenever the blocked ones are
    /// ready.
    #[test]
    fn nobody_goes_later_than_the_weights_say(
        steps in prop::collection::vec((0u8..6, 0u8..4, 0u8..3, 0u64..200), 1..120),
        shares in prop::collection::vec(prop::collection::vec(1u8..6, 4), 2),
        (principal, name, urgency) in (0u8..4, 0u8..3, 0u8..8),
        opens in prop::collection::vec(0u64..200, 0..40),
    ) {
        let (mut turns, _) = after_steps(&steps, &shares);
        let who = client(principal, (name > 0).then_some(name));
        let ahead = turns.ahead_of(&who, Urgency(urgency), None).count();
        turns.join(NEWCOMER, who.clone(), Urgency(urgency), now());
        turns.ready(NEWCOMER);
        // What its principal has that is ready goes in turns whose number is known.
        let is_own = |turns: &Turns, place: LinePosition| {
            turns.callers.get(&place).is_some_and(|(by, _)| by.principal == who.principal)
        };
        let line = &turns.principals[&who.principal];
        let own_ready = line.size.ready;
        let others_before: Vec<usize> =
            (1..=own_ready).map(|own| turns.others_before(&who.principal, own)).collect();
        let (mut before, mut own, mut others) = (None, 0, 0);
        let mut opens = opens.into_iter();
        for popped in 0.. {
            let copy = turns.clone();
            let Some(place) = turns.pop() else { break };
            if place == NEWCOMER {
                before = Some(popped);
            }
            if is_own(&copy, place) {
                if let Some(most) = others_before.get(own) {
                    prop_assert!(others <= *most, "{others} of {most} before the {own}th");
                }
                own += 1;
            } else {
                others += 1;
            }
            if let Some(place) = opens.next() {
                turns.ready(place);
            }
        }
        let before = before.unwrap();
        prop_assert!(before <= ahead, "{before} of {ahead} before");
    }

    /// The order that is shown and planned with is that in which requests go.
    #[test]
    fn the_order_is_that_of_the_turns(
        steps in prop::collection::vec((0u8..6, 0u8..4, 0u8..3, 0u64..200), 1..120),
        shares in prop::collection::vec(prop::collection::vec(1u8..6, 4), 2),
    ) {
        let (mut turns, next) = after_steps(&steps, &shares);
        let order: Vec<LinePosition> = turns.in_order().into_iter().map(|(place, _)| place).collect();
        (0..next).for_each(|place| turns.ready(place));
        prop_assert_eq!(order, everyone(&mut turns));
    }
}

/// The position of a request that joins last.
const NEWCOMER: LinePosition = 1_000;

/// A line in which all kinds of things have happened, and the number of requests that joined. The
/// weights change at times.
fn after_steps(steps: &[(u8, u8, u8, u64)], shares: &[Vec<u8>]) -> (Turns, LinePosition) {
    let mut turns = weighted(&shares[0]);
    let mut next = 0;
    for &(what, principal, name, pick) in steps {
        match what {
            0..=2 => {
                let who = client(principal, (name > 0).then_some(name));
                turns.join(next, who, Urgency((pick % 8) as u8), now());
                if what > 0 {
                    turns.ready(next);
                }
                next += 1;
            }
            3 => turns.ready(pick % (next + 1)),
            4 => {
                turns.pop();
            }
            _ if pick % 3 == 0 => turns.set_weights(weights(&shares[pick as usize % 2])),
            _ => {
                turns.leave(pick % (next + 1));
            }
        }
    }
    (turns, next)
}

/// Runs a script: a letter is a client that joins and is ready, a point is a turn. Returns whose
/// turns they were.
fn run(turns: &mut Turns, script: &str) -> String {
    let mut gone = String::new();
    for (place, step) in (0..).zip(script.chars()) {
        if step == '.' {
            let copy = turns.clone();
            let whose = turns.pop().map(|place| &copy.callers[&place].0.principal);
            gone += &whose.map_or("-".into(), Principal::to_string);
            continue;
        }
        let n = CLIENTS.iter().position(|name| name.starts_with(step));
        join_ready(turns, place, client(n.unwrap() as u8, None));
    }
    gone
}

#[test]
fn clients_go_as_often_in_a_turn_as_their_shares_say() {
    let cases: [(&[u8], &str, &str); 11] = [
        (&[1, 1], "aaabbb.......", "ababab-"),
        (&[1, 3], "aaabbbbbb.........", "abbbabbba"),
        (&[3, 1], "aaaaabbb........", "aaabaabb"),
        (&[2, 1, 3], "aaabbcccc.........", "aabcccabc"),
        // Who has less than its share gives the rest to the others.
        (&[3, 1], "abbbb.....", "abbbb"),
        // It comes back to the end with a whole turn, and gains nothing by that.
        (&[3, 1], "abbb.aaaa.......", "abaaabab"),
        (&[2, 1], "abbb.aa....", "abaab"),
        (&[3, 1], "abbb.a..a..", "ababa"),
        (&[3, 1], "abbb.a.a.a...", "abaaab"),
        // Amid its turn it may join as it likes, and nobody is passed over for longer.
        (&[3, 1], "aabb.a.aa.....", "aaabaab"),
        // The second one is not in the file, and has a share of one.
        (&[16], "aaaaaabb........", "aaaaaabb"),
    ];
    for (shares, script, expected) in cases {
        let gone = run(&mut weighted(shares), script);
        assert_eq!(gone, expected, "{shares:?} {script}");
    }
}

#[test]
fn other_weights_hold_from_the_present_turn_on() {
    let line = "aaaaaabbbb";
    for (gone, shares, expected) in [
        // Two of four have gone. With a share of two the turn is over, with one it was too long.
        ("..", [2, 1], "baabaa"),
        ("..", [1, 1], "babab"),
        ("..", [3, 1], "abaaab"),
        ("", [1, 1], "ababab"),
        // The other one's turn has not begun.
        ("..", [4, 2], "aabbaa"),
        ("..", [4, 3], "aabbba"),
    ] {
        let mut turns = weighted(&[4, 1]);
        run(&mut turns, line);
        for _ in gone.chars() {
            turns.pop();
        }
        turns.set_weights(weights(&shares));
        let rest = ".".repeat(expected.len());
        let all = run(&mut turns, &rest);
        assert_eq!(all, expected, "{shares:?} after {gone}");
    }
}

#[test]
fn names_share_the_turn_of_their_client() {
    let mut turns = weighted(&[1, 3]);
    for place in 0..6 {
        join_ready(&mut turns, place, client(0, None));
    }
    for place in 6..18 {
        join_ready(&mut turns, place, client(1, Some((place % 2) as u8)));
    }
    // One after the other, across the turns of the client.
    assert_eq!(everyone(&mut turns)[..8], [0, 6, 7, 8, 1, 9, 10, 11]);
}

#[test]
fn what_is_ahead_of_a_newcomer_depends_on_both_weights() {
    let mut turns = weighted(&[1, 3, 2]);
    for place in 0..20 {
        join_ready(&mut turns, place, client(0, None));
        join_ready(&mut turns, 20 + place, client(1, None));
    }
    let ahead = |turns: &Turns, n| turns.ahead_of(&client(n, None), USUAL, None).ready;
    // Nothing of its own: one turn of each.
    assert_eq!(ahead(&turns, 2), 1 + 3);
    // Its 21st: 20 own, and 21 turns of the other, or 7.
    assert_eq!(ahead(&turns, 0), 20 + 20);
    assert_eq!(ahead(&turns, 1), 20 + 7);
    join_ready(&mut turns, 50, client(2, None));
    join_ready(&mut turns, 51, client(2, None));
    // Its third: two own, two turns of each.
    assert_eq!(ahead(&turns, 2), 2 + 2 * (1 + 3));
    assert_eq!(turns.others_before(&client(1, None).principal, 7), 3 * 3);
    let absent = client(3, None).principal;
    assert_eq!(turns.others_before(&absent, 1), 1 + 3 + 2);
}

/// Two clients that always have requests divide the slots as their shares say, in each turn.
#[test]
fn clients_with_requests_get_their_shares_in_each_turn() {
    for seed in 0..50 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let shares = [1, 3];
        let mut turns = weighted(&shares);
        let (mut waiting, mut next) = ([0_usize; 2], 0);
        let mut gone: Vec<usize> = Vec::new();
        while gone.len() < 400 {
            // Each has as many as go in a turn, at least, and joins in bursts.
            for n in 0..2 {
                let least = usize::from(shares[n]);
                let joins = match waiting[n] {
                    few if few < least => least - few + rng.usize(0..5),
                    _ => rng.usize(0..2) * usize::from(waiting[n] < 50),
                };
                for _ in 0..joins {
                    join_ready(&mut turns, next, client(n as u8, None));
                    next += 1;
                }
                waiting[n] += joins;
            }
            let copy = turns.clone();
            let place = turns.pop().unwrap();
            let n = usize::from(copy.callers[&place].0 == client(1, None));
            waiting[n] -= 1;
            gone.push(n);
        }
        // The first turn of the one that joined first has one request of four.
        for (turn, slots) in gone.chunks(4).enumerate() {
            assert_eq!(slots, [0, 1, 1, 1], "turn {turn} of seed {seed}");
        }
    }
}
