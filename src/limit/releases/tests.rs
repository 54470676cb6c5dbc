//! A table of what is asked of the queue, against the plain list that it stands for.

use super::*;
use crate::clock::Clock;
use proptest::prelude::*;

const HOLDS: Holds = Holds {
    answered: Duration::from_secs(60),
    unanswered: Duration::from_secs(120),
    foreign: Duration::from_secs(50),
    restored: Duration::ZERO,
};
const KINDS: [SlotUse; 4] = [
    SlotUse::Answered,
    SlotUse::Unanswered,
    SlotUse::Foreign,
    SlotUse::Restored,
];

/// The same as a list of instants at which a slot is free.
fn plain(pushed: &[(SlotUse, Instant, u32)], now: Instant) -> Vec<Instant> {
    let mut all: Vec<Instant> = pushed
        .iter()
        .flat_map(|(kind, at, count)| {
            let free = *at + HOLDS.of(*kind as usize);
            std::iter::repeat_n(free, *count as usize)
        })
        .filter(|free| *free > now)
        .collect();
    all.sort_unstable();
    all
}

proptest! {
    #[test]
    fn it_answers_as_the_plain_list_does(
        steps in prop::collection::vec((0usize..4, 0u64..20_000, 0u32..4), 1..60),
        ahead in 0u64..40,
    ) {
        let start = Clock::system().now();
        let (mut now, mut releases, mut pushed) = (start, Releases::default(), Vec::new());
        for (kind, wait, count) in steps {
            now += Duration::from_millis(wait);
            releases.push(KINDS[kind], now, count);
            pushed.push((KINDS[kind], now, count));
            releases.expire(&HOLDS, now);
            let plain = plain(&pushed, now);
            prop_assert_eq!(releases.count(), plain.len() as u64);
            prop_assert_eq!(releases.first(&HOLDS), plain.first().copied());
            let nth = plain.get(ahead as usize).copied();
            prop_assert_eq!(releases.nth(&HOLDS, ahead), nth);
            let after: Vec<Instant> = releases.after(&HOLDS, ahead).collect();
            prop_assert_eq!(&after[..], plain.get(ahead as usize..).unwrap_or_default());
            let later = now + Duration::from_secs(55);
            let free = plain.iter().filter(|free| **free <= later).count() as u64;
            prop_assert_eq!(releases.free_at(&HOLDS, later), free);
            let copy = releases.first_of(ahead as usize);
            prop_assert_eq!(copy.count(), releases.count());
            let copy: Vec<Instant> = copy.after(&HOLDS, 0).collect();
            for (number, (copied, exact)) in copy.iter().zip(&plain).enumerate() {
                prop_assert!(copied >= exact);
                prop_assert!(number >= ahead as usize || copied == exact);
            }
        }
    }
}

#[test]
fn another_window_holds_for_what_is_noted() {
    let start = Clock::system().now();
    let mut releases = Releases::default();
    releases.push(SlotUse::Answered, start, 1);
    let longer = Holds {
        answered: Duration::from_secs(3_600),
        ..HOLDS
    };
    releases.expire(&longer, start + Duration::from_secs(3_599));
    assert_eq!(releases.count(), 1);
    releases.expire(&HOLDS, start + Duration::from_secs(60));
    assert_eq!(releases.count(), 0);
}
