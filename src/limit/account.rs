//! Pure. One budget of one credential: its slots, its line, and its attempts in flight.
//!
//! An attempt is sent when a slot is free, the number in flight is below the cap, and it is its
//! turn. The cap protects an API that has become slow. It grows with the response time, so that it
//! never costs throughput.
//!
//! The account also estimates when requests will be sent. An estimate is an upper bound as long as
//! responses take no longer than they did, lanes open when they are expected to, and nothing else
//! uses the token. It is arithmetic, not a simulation: it takes a time that does not depend on the
//! limit, and any number of estimates is read from one forecast. The simulation that looks closer,
//! at lanes as well, is in `attempt/estimate.rs`; it runs a copy of this account.

use crate::caller::{Caller, Principal};
use crate::limit::turns::{Ahead, LinePosition, Turns, Urgency};
use crate::limit::window::{AttemptEnd, Learned, Slot, Taken, Window};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The number of response times that are remembered for the cap and for estimates.
const REMEMBERED: usize = 64;
/// The number of times that an estimate is made later by requests that are ready by then.
const MOST_ROUNDS: usize = 8;
/// The assumed response time before the first response.
pub const FIRST_GUESS: Duration = Duration::from_millis(500);

/// The next thing that can be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// The request at this position may be sent, with this slot.
    Go(LinePosition, Slot),
    /// Nothing can be done before this instant.
    Wait(Instant),
    /// Nothing can be done until an attempt ends or a request is ready.
    Idle,
}

/// One budget of one credential.
#[derive(Clone, Debug)]
pub struct Account {
    window: Window,
    turns: Turns,
    /// When each attempt in flight was sent, the earliest first.
    in_flight: VecDeque<Instant>,
    /// The cap on attempts in flight, at least.
    least_cap: u32,
    /// The latest response times, the oldest first; at most [`REMEMBERED`].
    answer_times: VecDeque<Duration>,
    /// The longest of them.
    longest_answer: Duration,
    last_used: Instant,
}

impl Account {
    /// An account without requests. `least_cap` is the cap on attempts in flight, at least.
    pub fn new(window: Window, least_cap: u32, now: Instant) -> Self {
        Self {
            window,
            turns: Turns::default(),
            in_flight: VecDeque::new(),
            least_cap: least_cap.max(1),
            answer_times: VecDeque::new(),
            longest_answer: FIRST_GUESS,
            last_used: now,
        }
    }

    /// A copy for a simulation of at most so many attempts besides those in the line. Of those in
    /// flight the copy has no slots; their ends are noted by [`Account::answered_unseen`].
    pub fn forecast(&mut self, now: Instant, attempts: usize) -> Self {
        let answers = self.answers(now);
        let attempts = attempts.saturating_add(self.turns.len());
        Self {
            window: self.window.forecast(now, &answers, attempts),
            turns: self.turns.clone(),
            in_flight: self.in_flight.clone(),
            least_cap: self.least_cap,
            answer_times: self.answer_times.clone(),
            longest_answer: self.longest_answer,
            last_used: now,
        }
    }

    /// When each attempt in flight gets its response at the latest, as far as is known.
    pub fn answers(&self, now: Instant) -> Vec<Instant> {
        let answer = self.answer_time();
        let left = self.in_flight.iter();
        left.map(|left| (*left + answer).max(now)).collect()
    }

    /// In a copy: notes the response to an attempt that was in flight when the copy was made.
    pub fn answered_unseen(&mut self) {
        self.in_flight.pop_front();
    }

    /// The slots.
    pub fn window(&mut self) -> &mut Window {
        &mut self.window
    }

    /// The line.
    pub fn turns(&mut self) -> &mut Turns {
        &mut self.turns
    }

    /// When an attempt was last sent.
    pub fn last_used(&self) -> Instant {
        self.last_used
    }

    /// The number of attempts in flight.
    pub fn in_flight(&self) -> u32 {
        u32::try_from(self.in_flight.len()).unwrap_or(u32::MAX)
    }

    /// Takes a slot for the next request, or says when to ask again. The caller must send the
    /// request right away, or end the attempt as not sent.
    pub fn next(&mut self, now: Instant) -> Next {
        if !self.turns.has_ready() || self.in_flight() >= self.cap() {
            return Next::Idle;
        }
        match self.window.take(now) {
            Taken::Slot(slot) => match self.turns.pop() {
                Some(place) => {
                    self.in_flight.push_back(now);
                    self.last_used = now;
                    Next::Go(place, slot)
                }
                None => {
                    self.window.give_back(slot, AttemptEnd::NotSent, now);
                    Next::Idle
                }
            },
            Taken::NotBefore(at) => Next::Wait(at),
            Taken::AfterAnswer => Next::Idle,
        }
    }

    /// Takes a slot for a request that is not in the line, if one is free and none in the line may
    /// be sent before. The caller must send the request right away, or end the attempt as not sent.
    pub fn take_past_line(&mut self, now: Instant) -> Option<Slot> {
        if self.turns.has_ready() || self.in_flight() >= self.cap() {
            return None;
        }
        let Taken::Slot(slot) = self.window.take(now) else {
            return None;
        };
        self.in_flight.push_back(now);
        self.last_used = now;
        Some(slot)
    }

    /// Ends an attempt that took `answer_time` from its sending to its end.
    pub fn end(
        &mut self,
        slot: Slot,
        end: AttemptEnd,
        answer_time: Duration,
        now: Instant,
    ) -> Learned {
        // Attempts in flight differ only in when they were sent, so that time identifies one.
        let left = self
            .in_flight
            .partition_point(|left| *left + answer_time < now);
        if self.in_flight.remove(left).is_none() {
            self.in_flight.pop_front();
        }
        if matches!(end, AttemptEnd::Answered(_)) {
            self.remember(answer_time);
        }
        self.window.give_back(slot, end, now)
    }

    /// Remembers a response time instead of the oldest one.
    fn remember(&mut self, answer_time: Duration) {
        let is_full = self.answer_times.len() == REMEMBERED;
        let oldest = self.answer_times.pop_front_if(|_| is_full);
        self.answer_times.push_back(answer_time);
        let is_first = self.answer_times.len() == 1;
        if is_first || answer_time >= self.longest_answer {
            self.longest_answer = answer_time;
        } else if oldest == Some(self.longest_answer) {
            let longest = self.answer_times.iter().max();
            self.longest_answer = longest.copied().unwrap_or(FIRST_GUESS);
        }
    }

    /// The longest response time remembered: an upper bound for estimates.
    pub fn answer_time(&self) -> Duration {
        self.longest_answer
    }

    /// The cap on attempts in flight: at least twice what the rate needs (2·L/W·response time),
    /// so that it never costs throughput.
    pub fn cap(&self) -> u32 {
        let rate = self.window.rate();
        let per_second = f64::from(rate.limit) / rate.window.as_secs_f64();
        // Little's law, twice: what is in flight at the full rate, and as much again for jitter.
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
        needed.max(self.least_cap)
    }

    /// When a new request of `caller` that is ready at `ready` would be sent at the latest.
    pub fn estimate(
        &mut self,
        caller: &Caller,
        urgency: Urgency,
        ready: Instant,
        now: Instant,
    ) -> Instant {
        self.sent_after(ready, now, |turns, until| {
            turns.ahead_of(caller, urgency, until)
        })
    }

    /// When a request that is ready at `ready` is sent at the latest. `ahead` says how many may go
    /// before, of all or of those that are ready by an instant.
    ///
    /// An instant is an upper bound if the request is sent by then even though all go before that
    /// are ready by then. The least one is looked for from below: each round adds those that are
    /// ready by the estimate of the round before. It is not found if the blocked requests become
    /// ready one by one, each in time for the next slot. Then all of them count.
    fn sent_after(
        &mut self,
        ready: Instant,
        now: Instant,
        ahead: impl Fn(&Turns, Option<Instant>) -> Ahead,
    ) -> Instant {
        let mut estimate = ready.max(now);
        for _ in 0..MOST_ROUNDS {
            let ahead = ahead(&self.turns, Some(estimate));
            let sent = self.plan(now, ahead.count()).after(ahead, ready);
            if sent <= estimate {
                return estimate;
            }
            estimate = sent;
        }
        let everyone = ahead(&self.turns, None);
        self.plan(now, everyone.count()).after(everyone, ready)
    }

    /// When each request in the line is sent at the latest, in the order of their turns.
    pub fn schedule(&mut self, now: Instant) -> Vec<(LinePosition, Instant)> {
        let order = self.turns.in_order();
        let plan = self.plan(now, order.len());
        order
            .into_iter()
            .enumerate()
            .map(|(ahead, (place, ready))| {
                // A blocked request keeps its turn, but is not sent before it is ready.
                let at = plan.leaves_at(ahead);
                (place, ready.map_or(at, |ready| at.max(ready)))
            })
            .collect()
    }

    /// When a request with `ahead` others before it is sent at the latest.
    pub fn leaves_at(&mut self, ahead: usize, now: Instant) -> Instant {
        self.plan(now, ahead).leaves_at(ahead)
    }

    /// When a new request that lets all others go first is sent at the latest.
    pub fn leaves_last(&mut self, now: Instant) -> Instant {
        self.sent_after(now, now, Turns::everyone)
    }

    /// When a request of the line is sent at the latest, of one principal alone if one is given.
    /// `None` if none waits.
    pub fn next_departure(
        &mut self,
        principal: Option<&Principal>,
        now: Instant,
    ) -> Option<Instant> {
        self.departures(principal, 1, now).first().copied()
    }

    /// When the next `most` requests of the line are sent at the latest, of one principal alone if
    /// one is given. Fewer if not as many wait.
    pub fn departures(
        &mut self,
        principal: Option<&Principal>,
        most: usize,
        now: Instant,
    ) -> Vec<Instant> {
        let turns = &self.turns;
        let ready = (0..most).map_while(|others| turns.ready_at(others, principal, now));
        let ready: Vec<Instant> = ready.collect();
        // Those of the same principal, and what all others may have in the turns that it takes.
        let ahead = |own: usize| match principal {
            Some(principal) => {
                let others = turns.others_before(principal, own + 1);
                (own + others).min(turns.len().saturating_sub(1))
            }
            None => own,
        };
        let ahead: Vec<usize> = (0..ready.len()).map(ahead).collect();
        let plan = self.plan(now, ahead.last().copied().unwrap_or_default());
        let ready = ahead.into_iter().zip(ready);
        ready
            .map(|(ahead, ready)| {
                // Who is blocked may use its slot just before this one is ready.
                let ahead = Ahead {
                    ready: 0,
                    blocked: ahead,
                };
                plan.after(ahead, ready)
            })
            .collect()
    }

    /// A forecast for requests with up to `ahead` others before them.
    fn plan(&mut self, now: Instant, ahead: usize) -> SlotForecast {
        let answer = self.answer_time();
        let left = &self.in_flight;
        let free = self
            .window
            .free_at(now, answer, left, ahead.saturating_add(1));
        let cap = self.cap() as usize;
        let mut leaves: Vec<Instant> = Vec::with_capacity(free.len());
        for (place, at) in free.into_iter().enumerate() {
            // With as many in flight as the cap permits, one needs its response before another is
            // sent.
            let earlier = match place.checked_sub(cap) {
                Some(earlier) => leaves.get(earlier).copied(),
                None => (left.len() + place)
                    .checked_sub(cap)
                    .and_then(|earlier| left.get(earlier).copied()),
            };
            // Both must hold: a slot is free, and so is a place below the cap.
            let place_free = earlier.map_or(now, |left| (left + answer).max(now));
            leaves.push(at.max(place_free));
        }
        SlotForecast {
            now,
            leaves,
            slots: self.window.usable() as usize,
            round: self.window.hold_answered() + answer,
        }
    }
}

/// A forecast of one budget, from which any number of estimates is read.
///
/// It lists one use of each slot. Later uses follow at a distance of one round each, because a slot
/// is occupied for that long.
struct SlotForecast {
    now: Instant,
    /// When the next attempts are sent at the latest, one for each slot at most. Never empty.
    leaves: Vec<Instant>,
    slots: usize,
    /// How long one use occupies a slot, response time included.
    round: Duration,
}

impl SlotForecast {
    /// When a request with `ahead` others before it is sent.
    fn leaves_at(&self, ahead: usize) -> Instant {
        let slots = self.slots.max(1);
        // Each round uses every slot once, in the same order.
        let rounds = u32::try_from(ahead / slots).unwrap_or(u32::MAX);
        let first = self.leaves.get(ahead % slots).copied().unwrap_or(self.now);
        first + self.round.saturating_mul(rounds)
    }

    /// When a request that is ready at `ready` is sent at the latest, if all of those `ahead` go
    /// before it, whenever the blocked ones are ready.
    ///
    /// While the request is ready and waits, every slot is used as soon as it is free. Those that
    /// are ready now begin with that now. The blocked ones may use their slots just before `ready`,
    /// so that each of these is occupied for a whole round from then on.
    fn after(&self, ahead: Ahead, ready: Instant) -> Instant {
        let rounds = u32::try_from(ahead.blocked / self.slots.max(1)).unwrap_or(u32::MAX);
        let behind_blocked = ready + self.round.saturating_mul(rounds);
        self.leaves_at(ahead.count()).max(behind_blocked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::limit::turns::ClientWeights;
    use crate::limit::window::Terms;
    use crate::route::policy::Rate;
    use std::collections::BTreeMap;
    use std::net::IpAddr;
    use std::sync::Arc;

    const ANSWER: Duration = Duration::from_millis(200);

    fn caller(n: u8) -> Caller {
        Caller {
            principal: IpAddr::from([10, 0, 0, n]).into(),
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
        Account::new(Window::new(rate, rate, true, terms, now), 4, now)
    }

    /// Runs until nobody waits; every attempt is answered after ANSWER. When each place left.
    fn run(account: &mut Account, mut now: Instant) -> Vec<(LinePosition, Instant)> {
        let mut left = Vec::new();
        let mut ends: BTreeMap<(Instant, LinePosition), Slot> = BTreeMap::new();
        while !account.turns().is_empty() || !ends.is_empty() {
            while let Some(entry) = ends.first_entry().filter(|entry| entry.key().0 <= now) {
                account.end(entry.remove(), AttemptEnd::Answered(None), ANSWER, now);
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

    /// Whatever the shares are: an estimate of a newcomer, the schedule of all, and the times at
    /// which requests of one client leave hold if nobody else comes.
    #[test]
    fn estimates_are_kept_whatever_the_shares_are() {
        let clients = ["a", "b", "c"].map(|name| Caller {
            principal: Principal::Client(name.into()),
            name: None,
        });
        for shares in [[1, 1, 1], [1, 3, 2], [4, 1, 1], [16, 2, 5]] {
            for (gone, newcomer) in (0..6).flat_map(|gone| (0..3).map(move |n| (gone, n))) {
                let start = Clock::system().now();
                let mut account = account(7, start);
                let shares = ["a", "b", "c"].into_iter().zip(shares);
                let shares: Vec<(&str, u8)> = shares.collect();
                let weights = Arc::new(ClientWeights::of_shares(&shares));
                account.turns().set_weights(weights);
                for place in 0..50 {
                    let who = clients[place as usize * 7 % 5 % 3].clone();
                    account.turns().join(place, who, Urgency::default(), start);
                    account.turns().ready(place);
                }
                // Somebody is amid a turn.
                let sent: Vec<Slot> = (0..gone)
                    .map_while(|_| match account.next(start) {
                        Next::Go(_, slot) => Some(slot),
                        _ => None,
                    })
                    .collect();
                let now = start + ANSWER;
                for slot in sent {
                    account.end(slot, AttemptEnd::Answered(None), ANSWER, now);
                }
                let who = &clients[newcomer];
                let estimate = account.estimate(who, Urgency::default(), now, now);
                account
                    .turns()
                    .join(99, who.clone(), Urgency::default(), now);
                account.turns().ready(99);
                let schedule = account.schedule(now);
                let departures = account.departures(Some(&who.principal), 50, now);
                let is_own =
                    |place: LinePosition| place == 99 || place as usize * 7 % 5 % 3 == newcomer;
                let left = run(&mut account, now);
                let at: BTreeMap<LinePosition, Instant> = left.iter().copied().collect();
                assert!(at[&99] <= estimate, "{shares:?} {gone}");
                assert!(
                    schedule
                        .iter()
                        .all(|(place, planned)| at[place] <= *planned)
                );
                let order = |all: &[(LinePosition, Instant)]| -> Vec<LinePosition> {
                    all.iter().map(|(place, _)| *place).collect()
                };
                assert_eq!(order(&schedule), order(&left), "{shares:?} {gone}");
                let own: Vec<Instant> = left
                    .iter()
                    .filter(|(place, _)| is_own(*place))
                    .map(|(_, at)| *at)
                    .collect();
                assert_eq!(own.len(), departures.len());
                for (nth, (at, most)) in own.iter().zip(&departures).enumerate() {
                    assert!(at <= most, "{shares:?} {gone}: the {nth}th of {newcomer}");
                }
            }
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
            account.end(
                slot,
                AttemptEnd::Answered(None),
                Duration::from_secs(10),
                now,
            );
        }
        assert_eq!(account.cap(), 20);
    }
}
