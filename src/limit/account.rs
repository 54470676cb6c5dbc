//! Pure. One budget of one credential: its slots, who waits, and how many leave at once.
//!
//! An attempt leaves when a slot is free, the number under way is below its cap and it is its
//! turn. The cap grows with the answer time so that it never costs throughput.

use crate::limit::turns::{Ahead, Caller, LinePosition, Turns, Urgency};
use crate::limit::window::{End, Learned, Slot, Taken, Window};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Answer times remembered for the cap and for estimates.
const REMEMBERED: usize = 64;
/// How often an estimate is looked at again without those who turn out to come later.
const MOST_ROUNDS: usize = 4;
/// How long an answer is assumed to take before the first one.
pub const FIRST_GUESS: Duration = Duration::from_millis(500);

/// What can be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// This place's attempt may leave, with this slot.
    Go(LinePosition, Slot),
    /// Nothing before this instant.
    Wait(Instant),
    /// Nothing until an attempt ends or somebody is ready.
    Idle,
}

/// One budget of one credential.
#[derive(Clone, Debug)]
pub struct Account {
    window: Window,
    turns: Turns,
    /// When each of the attempts under way left, and how many there may be at least.
    under_way: VecDeque<Instant>,
    at_once: u32,
    answer_times: VecDeque<Duration>,
    last_used: Instant,
}

impl Account {
    /// `at_once` is the least number of attempts that may be under way together.
    pub fn new(window: Window, at_once: u32, now: Instant) -> Self {
        Self {
            window,
            turns: Turns::default(),
            under_way: VecDeque::new(),
            at_once: at_once.max(1),
            answer_times: VecDeque::new(),
            last_used: now,
        }
    }

    /// A copy for a forecast of at most so many attempts besides those who wait. Those under way
    /// are answered by [`Account::answered_unseen`].
    pub fn forecast(&mut self, now: Instant, attempts: usize) -> Self {
        let answers = self.answers(now);
        let attempts = attempts.saturating_add(self.turns.len());
        Self {
            window: self.window.forecast(now, &answers, attempts),
            turns: self.turns.clone(),
            under_way: self.under_way.clone(),
            at_once: self.at_once,
            answer_times: self.answer_times.clone(),
            last_used: now,
        }
    }

    /// When each of those under way is answered at the latest, as far as is known.
    pub fn answers(&self, now: Instant) -> Vec<Instant> {
        let answer = self.answer_time();
        let left = self.under_way.iter();
        left.map(|left| (*left + answer).max(now)).collect()
    }

    /// Of a copy: one that was under way when it was made has been answered.
    pub fn answered_unseen(&mut self) {
        self.under_way.pop_front();
    }

    /// The slots.
    pub fn window(&mut self) -> &mut Window {
        &mut self.window
    }

    /// Those who wait.
    pub fn turns(&mut self) -> &mut Turns {
        &mut self.turns
    }

    /// When it was last used.
    pub fn last_used(&self) -> Instant {
        self.last_used
    }

    /// Attempts under way.
    pub fn under_way(&self) -> u32 {
        u32::try_from(self.under_way.len()).unwrap_or(u32::MAX)
    }

    /// Lets the next one go, or says when to ask again.
    pub fn next(&mut self, now: Instant) -> Next {
        if !self.turns.has_ready() || self.under_way() >= self.cap() {
            return Next::Idle;
        }
        match self.window.take(now) {
            Taken::Slot(slot) => match self.turns.pop() {
                Some(place) => {
                    self.under_way.push_back(now);
                    self.last_used = now;
                    Next::Go(place, slot)
                }
                None => {
                    self.window.give_back(slot, End::NotSent, now);
                    Next::Idle
                }
            },
            Taken::NotBefore(at) => Next::Wait(at),
            Taken::AfterAnswer => Next::Idle,
        }
    }

    /// Ends an attempt that took `answer_time` from leaving to its end.
    pub fn end(&mut self, slot: Slot, end: End, answer_time: Duration, now: Instant) -> Learned {
        // Which of them it was does not matter but for its time.
        let left = self
            .under_way
            .partition_point(|left| *left + answer_time < now);
        if self.under_way.remove(left).is_none() {
            self.under_way.pop_front();
        }
        if matches!(end, End::Answered(_)) {
            if self.answer_times.len() == REMEMBERED {
                self.answer_times.pop_front();
            }
            self.answer_times.push_back(answer_time);
        }
        self.window.give_back(slot, end, now)
    }

    /// The longest answer time remembered: an upper bound for estimates.
    pub fn answer_time(&self) -> Duration {
        self.answer_times
            .iter()
            .max()
            .copied()
            .unwrap_or(FIRST_GUESS)
    }

    /// Attempts that may be under way together: at least 2·L/W·answer time, so that the cap
    /// never costs throughput.
    pub fn cap(&self) -> u32 {
        let rate = self.window.rate();
        let per_second = f64::from(rate.limit) / rate.window.as_secs_f64();
        let needed = (2.0 * per_second * self.answer_time().as_secs_f64()).ceil();
        if needed >= f64::from(u32::MAX) {
            return u32::MAX;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounded just above, and never negative"
        )]
        let needed = needed as u32;
        needed.max(self.at_once)
    }

    /// At the latest when a newcomer of `caller` would leave that is ready at `ready`, if nobody
    /// else came: an upper bound as long as answers take no longer than they did, lanes open when
    /// they are expected to, and nobody else uses the token.
    pub fn estimate(
        &mut self,
        caller: &Caller,
        urgency: Urgency,
        ready: Instant,
        now: Instant,
    ) -> Instant {
        let everyone = self.turns.ahead_of(caller, urgency, None);
        let plan = self.plan(now, everyone.count());
        let mut estimate = plan.after(&everyone, ready);
        if everyone.blocked.is_empty() {
            return estimate;
        }
        // Whoever is ready only after that goes later: without those it may be sooner.
        for _ in 0..MOST_ROUNDS {
            let ahead = self.turns.ahead_of(caller, urgency, Some(estimate));
            let sooner = plan.after(&ahead, ready);
            if sooner >= estimate {
                break;
            }
            estimate = sooner;
        }
        estimate
    }

    /// When each of those who wait leaves at the latest, in the order of their turns.
    pub fn schedule(&mut self, now: Instant) -> Vec<(LinePosition, Instant)> {
        let order = self.turns.in_order();
        let plan = self.plan(now, order.len());
        order
            .into_iter()
            .enumerate()
            .map(|(ahead, (place, ready))| {
                let at = plan.leaves_at(ahead);
                (place, ready.map_or(at, |ready| at.max(ready)))
            })
            .collect()
    }

    /// When the one with `ahead` others before it leaves at the latest.
    pub fn leaves_at(&mut self, ahead: usize, now: Instant) -> Instant {
        self.plan(now, ahead).leaves_at(ahead)
    }

    /// When a newcomer leaves at the latest who lets everybody go first.
    pub fn leaves_last(&mut self, now: Instant) -> Instant {
        let everyone = self.turns.everyone();
        self.plan(now, everyone.count()).after(&everyone, now)
    }

    /// When one of those who wait leaves at the latest, of one peer alone if one is given. `None`
    /// if nobody waits.
    pub fn next_departure(&mut self, peer: Option<IpAddr>, now: Instant) -> Option<Instant> {
        let ready = self.turns.first_ready(peer, now)?;
        // A peer's turn comes after one of each other's.
        let turn = peer.map_or(0, |_| self.turns.peers().saturating_sub(1));
        Some(self.leaves_at(turn, now).max(ready))
    }

    /// A forecast that is good for somebody with `ahead` others before it.
    fn plan(&mut self, now: Instant, ahead: usize) -> Plan {
        let answer = self.answer_time();
        let left = &self.under_way;
        let free = self
            .window
            .free_at(now, answer, left, ahead.saturating_add(1));
        let cap = self.cap() as usize;
        let mut leaves: Vec<Instant> = Vec::with_capacity(free.len());
        for (place, at) in free.into_iter().enumerate() {
            // Those under way need their answers before others take their places.
            let earlier = match place.checked_sub(cap) {
                Some(earlier) => leaves.get(earlier).copied(),
                None => (left.len() + place)
                    .checked_sub(cap)
                    .and_then(|earlier| left.get(earlier).copied()),
            };
            let place_free = earlier.map_or(now, |left| (left + answer).max(now));
            leaves.push(at.max(place_free));
        }
        Plan {
            now,
            leaves,
            slots: self.window.usable() as usize,
            round: self.window.hold_answered() + answer,
        }
    }
}

/// A forecast of one budget, from which any number of estimates is read.
struct Plan {
    now: Instant,
    /// When the next attempts leave at the latest, of at most one use of each slot; never empty.
    leaves: Vec<Instant>,
    slots: usize,
    /// How long one use of a slot occupies it, answer time included.
    round: Duration,
}

impl Plan {
    fn leaves_at(&self, ahead: usize) -> Instant {
        let slots = self.slots.max(1);
        let rounds = u32::try_from(ahead / slots).unwrap_or(u32::MAX);
        let first = self.leaves.get(ahead % slots).copied().unwrap_or(self.now);
        first + self.round.saturating_mul(rounds)
    }

    /// When somebody leaves who is ready at `ready`, after those ahead who are ready before it
    /// could go.
    fn after(&self, ahead: &Ahead, ready: Instant) -> Instant {
        let first = self.leaves_at(ahead.ready).max(ready);
        if ahead.blocked.first().is_none_or(|at| *at > first) {
            return first;
        }
        // Each of the others takes one slot, so no more of them are looked at.
        let slots = self.slots.clamp(1, ahead.blocked.len() + 1);
        let mut free: BinaryHeap<Reverse<Instant>> = (ahead.ready..ahead.ready + slots)
            .map(|used| Reverse(self.leaves_at(used)))
            .collect();
        for blocked in &ahead.blocked {
            let Some(mut next) = free.peek_mut() else {
                break;
            };
            if *blocked > next.0.max(ready) {
                break;
            }
            next.0 = next.0.max(*blocked) + self.round;
        }
        free.peek().map_or(first, |next| next.0.max(ready))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::limit::window::Terms;
    use crate::route::policy::Rate;
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    const ANSWER: Duration = Duration::from_millis(200);

    fn caller(n: u8) -> Caller {
        Caller {
            peer: IpAddr::from([10, 0, 0, n]),
            name: None,
        }
    }

    fn account(limit: u32, now: Instant) -> Account {
        let rate = Rate {
            limit,
            window: Duration::from_secs(60),
        };
        let terms = Terms {
            guard: Duration::from_millis(250),
            late: Duration::from_secs(60),
            unknown_slots: 1,
        };
        Account::new(Window::new(rate, Some(limit), terms, now), 4, now)
    }

    /// Runs until nobody waits; every attempt is answered after ANSWER. When each place left.
    fn run(account: &mut Account, mut now: Instant) -> Vec<(LinePosition, Instant)> {
        let mut left = Vec::new();
        let mut ends: BTreeMap<(Instant, LinePosition), Slot> = BTreeMap::new();
        while !account.turns().is_empty() || !ends.is_empty() {
            while let Some(entry) = ends.first_entry().filter(|entry| entry.key().0 <= now) {
                account.end(entry.remove(), End::Answered(None), ANSWER, now);
            }
            match account.next(now) {
                Next::Go(place, slot) => {
                    left.push((place, now));
                    ends.insert((now + ANSWER, place), slot);
                }
                Next::Wait(at) => {
                    now = ends.first_key_value().map_or(at, |(key, _)| key.0.min(at));
                }
                Next::Idle => match ends.first_key_value() {
                    Some((key, _)) => now = key.0,
                    None => break,
                },
            }
        }
        left
    }

    #[test]
    fn an_estimate_is_kept_if_nobody_else_comes() {
        let now = Clock::system().now();
        let mut account = account(7, now);
        // One answer, so that the estimate knows the answer time.
        account.turns().join(0, caller(9), Urgency::default(), now);
        account.turns().ready(0);
        let now = run(&mut account, now)[0].1 + ANSWER;
        let mut promised = Vec::new();
        for place in 1..80 {
            let who = caller((place % 3) as u8);
            if place == 79 {
                promised.push((place, account.estimate(&who, Urgency::default(), now, now)));
            }
            account.turns().join(place, who, Urgency::default(), now);
            account.turns().ready(place);
        }
        promised.extend(account.schedule(now));
        let left: BTreeMap<LinePosition, Instant> = run(&mut account, now).into_iter().collect();
        for (place, estimate) in promised {
            assert!(left[&place] <= estimate, "{place} left after its estimate");
            assert!(
                estimate <= left[&place] + Duration::from_secs(2),
                "{place}: far too late"
            );
        }
    }

    #[test]
    fn those_whose_lanes_are_closed_are_not_waited_for() {
        let now = Clock::system().now();
        let minute = Duration::from_secs(60);
        let mut account = account(60, now);
        for place in 0..100 {
            account
                .turns()
                .join(place, caller(1), Urgency::default(), now + minute);
        }
        let estimate = account.estimate(&caller(1), Urgency::default(), now, now);
        assert_eq!(estimate, now, "a slot is free, and nobody else can use it");
        // Behind the same lanes, they come first: 60 a minute later, the others after another.
        let estimate = account.estimate(&caller(1), Urgency::default(), now + minute, now);
        assert!(
            estimate > now + minute * 2 && estimate < now + minute * 2 + Duration::from_secs(2)
        );
        let next = account.next_departure(None, now);
        assert_eq!(next, Some(now + minute));
    }

    /// What an estimate computes grows with those who wait, not with the limit.
    #[test]
    fn an_estimate_looks_at_no_more_slots_than_there_are_others() {
        let now = Clock::system().now();
        for limit in [1_000, 1_000_000] {
            let mut account = account(limit, now);
            let until = (0..limit).map(|n| now + Duration::from_millis(n.into()));
            account.window().restore(until, Duration::from_secs(60));
            assert_eq!(account.plan(now, 0).leaves.len(), 1);
            assert_eq!(account.plan(now, 9).leaves.len(), 10);
            let copy = account.forecast(now, 3);
            assert!(copy.window.noted() <= 5);
            assert_eq!(copy.clone().window().occupied(now), limit - 1);
        }
    }

    #[test]
    fn a_saturated_budget_uses_all_of_what_is_possible() {
        let start = Clock::system().now();
        let mut account = account(60, start);
        for place in 0..60 * 62 {
            account
                .turns()
                .join(place, caller(1), Urgency::default(), start);
            account.turns().ready(place);
        }
        let left = run(&mut account, start);
        let minute = Duration::from_secs(60);
        let counted = left
            .iter()
            .filter(|(_, at)| *at >= start + minute && *at < start + 61 * minute)
            .count();
        let round = 60.0 + ANSWER.as_secs_f64() + 0.25 + 0.06;
        let possible = 60.0 * 60.0 * 60.0 / round;
        assert!(
            counted as f64 >= 0.995 * possible,
            "{counted} of {possible}"
        );
    }

    #[test]
    fn no_more_leave_at_once_than_the_cap() {
        let now = Clock::system().now();
        let mut account = account(60, now);
        for place in 0..10 {
            account
                .turns()
                .join(place, caller(1), Urgency::default(), now);
            account.turns().ready(place);
        }
        let mut slots = Vec::new();
        while let Next::Go(_, slot) = account.next(now) {
            slots.push(slot);
        }
        assert_eq!(slots.len(), 4);
        // Slow answers raise the cap: 2 · 1/s · 10 s.
        for slot in slots {
            account.end(slot, End::Answered(None), Duration::from_secs(10), now);
        }
        assert_eq!(account.cap(), 20);
    }
}
