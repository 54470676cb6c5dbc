//! Pure. The slots of one budget: an exact rolling window.
//!
//! A budget owns L slots. An attempt takes one and gives it back W + guard after its final
//! response arrived, or W + Q after it was ended without one. Two uses of one slot then reach the
//! upstream's counter at least W apart, whatever the network does: the first was counted before
//! its response came back, and the second is sent later than that. So no half-open interval of
//! length W holds more than L arrivals, which satisfies a fixed window of any alignment, a rolling
//! window and a token bucket (capacity L, refill L per W) alike.
//!
//! A token bucket on our side would not do: one of capacity B lets B plus the refill through
//! within a single window.
//!
//! What other users of the same token consume is seen in the answers' headers; that many slots
//! are held as occupied. What is not done here: waiting, whose turn it is, and storing.

use crate::limit::learn::{Allowance, Throttle};
use crate::route::policy::Rate;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// How long slots stay occupied beyond the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Fixed part of the guard; the whole guard is this plus W/1000, because the upstream may
    /// count a little after it answers and clocks do not run at equal rates.
    pub guard: Duration,
    /// Q: how late a request that was given up on may still arrive.
    pub late: Duration,
    /// Where nothing is known of what was sent before: after more answers than this that tell
    /// nothing, attempts go on at the pace of the limit.
    pub unknown_slots: u32,
}

/// A slot in use by one attempt. Not `Clone`: it is given back exactly once.
#[derive(Debug, PartialEq, Eq)]
pub struct Slot {
    /// Slots known to be occupied just after this one was taken.
    known: u32,
    /// Slots of which nothing was known then.
    unknown: u32,
    /// Slots taken over the budget's life, this one included.
    taken: u64,
    /// Whether this attempt is the one that finds out whether the budget is open.
    probe: Probe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    No,
    /// After a 429.
    Reopen,
    /// One of the first attempts of a budget of which no answer has told anything.
    Start,
    /// The same, after answers that told nothing: others may leave before it is answered.
    Paced,
}

impl Slot {
    /// Whether it left before any answer had told what the budget allows.
    fn is_first(&self) -> bool {
        matches!(self.probe, Probe::Start | Probe::Paced)
    }
}

/// The answer to a request for a slot.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// A slot; the attempt may leave now.
    Slot(Slot),
    /// Not before this instant, and perhaps later.
    NotBefore(Instant),
    /// When an attempt under way ends; no instant can be named.
    AfterAnswer,
}

/// How an attempt ended, as far as its slot is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A final response from the API itself, with what its headers say of the budget.
    Answered(Option<Allowance>),
    /// A 429, and how long it asks to wait.
    Throttled(Throttle),
    /// No response, or one that may come from a balancer ahead of the API's own counter.
    NoAnswer,
    /// It never left.
    NotSent,
}

/// What ending an attempt taught; for logs and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// The limit changed from the first to the second.
    pub limit: Option<(u32, u32)>,
    /// The window of an undocumented budget was found to be longer: it is now this.
    pub window: Option<Duration>,
    /// Slots that others were found to use.
    pub foreign: u32,
    /// The budget is closed for this long.
    pub closed_for: Option<Duration>,
    /// The 429 met a budget that had no history: counted as `start`.
    pub at_start: bool,
}

/// The slots of one budget of one credential.
#[derive(Clone, Debug)]
pub struct Window {
    rate: Rate,
    /// The documented limit, which answers may lower but not exceed.
    ceiling: Option<u32>,
    /// Whether an answer has said what the limit is.
    told: bool,
    terms: Terms,
    /// Attempts under way.
    in_use: u32,
    /// When each ended slot is free again.
    held: BinaryHeap<Reverse<Instant>>,
    /// Slots that an earlier process may have used, of which nothing is known.
    unknown: u32,
    unknown_until: Instant,
    first: FirstAttempts,
    taken: u64,
    closed_until: Option<Instant>,
    probe: ProbeState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProbeState {
    Idle,
    Needed(Probe),
    UnderWay(Probe),
}

/// The attempts of a budget before the first answer that tells what it allows.
#[derive(Clone, Copy, Debug)]
struct FirstAttempts {
    /// Those that ended and told nothing: without rate headers, or without an answer.
    untold: u32,
    /// When the next one may leave.
    next: Instant,
}

impl Window {
    /// A budget whose recent past is known to be empty, or is given by [`Window::restore`].
    pub fn new(rate: Rate, ceiling: Option<u32>, terms: Terms, now: Instant) -> Self {
        Self {
            rate: Rate {
                limit: rate.limit.max(1),
                window: rate.window,
            },
            ceiling,
            told: false,
            terms,
            in_use: 0,
            held: BinaryHeap::new(),
            unknown: 0,
            unknown_until: now,
            first: FirstAttempts {
                untold: 0,
                next: now,
            },
            taken: 0,
            closed_until: None,
            probe: ProbeState::Idle,
        }
    }

    /// Says that nothing is known of what was sent before `start` (a new node): until
    /// `start` + W + Q attempts go one at a time, and the first answer that tells what remains
    /// opens that much. Where several tell nothing (an API without rate headers, a balancer's
    /// 502), they go on at the pace of the limit, one each W/L: an API that is well is never
    /// left unused, and one that counts says 429 to one attempt at a time.
    pub fn without_history(&mut self, start: Instant, now: Instant) {
        let until = start + self.rate.window + self.terms.late;
        if until > now {
            self.unknown = self.rate.limit;
            self.unknown_until = until;
            self.probe = ProbeState::Needed(Probe::Start);
        }
    }

    /// Occupies one slot until `until`: an attempt of an earlier process.
    pub fn restore(&mut self, until: Instant) {
        self.held.push(Reverse(until));
        self.taken += 1;
    }

    /// Another limit is configured than the one it began with, for the same window. It holds at
    /// once, and what is occupied stays so. What answers have taught holds on: a limit below the
    /// document before stays as low, and one that only answers know stays as they said.
    pub fn configure(&mut self, limit: u32, ceiling: Option<u32>) {
        let is_learned = match self.ceiling {
            Some(document) => self.rate.limit < document,
            None => self.told,
        };
        let limit = limit.max(1);
        self.rate.limit = match ceiling {
            _ if !is_learned => limit,
            Some(_) => self.rate.limit.min(limit),
            None => self.rate.limit,
        };
        self.ceiling = ceiling;
    }

    /// The rate in force.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// W + guard: how long an answered attempt occupies its slot from its answer on.
    pub fn hold_answered(&self) -> Duration {
        self.rate.window + self.guard()
    }

    fn guard(&self) -> Duration {
        self.terms.guard + self.rate.window / 1000
    }

    /// W + Q: how long an attempt without an answer occupies its slot from its end on.
    pub fn hold_unanswered(&self) -> Duration {
        self.rate.window + self.terms.late
    }

    /// Slots occupied at `now`, at most once each; may exceed the limit after it was lowered.
    pub fn occupied(&mut self, now: Instant) -> u32 {
        while self.held.peek().is_some_and(|Reverse(at)| *at <= now) {
            self.held.pop();
        }
        if now >= self.unknown_until {
            self.unknown = 0;
            if self.probe == ProbeState::Needed(Probe::Start) {
                self.probe = match self.closed_until {
                    Some(_) => ProbeState::Needed(Probe::Reopen),
                    None => ProbeState::Idle,
                };
            }
        }
        let held = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        self.in_use
            .saturating_add(held)
            .saturating_add(self.unknown)
    }

    /// Takes a slot, or says when to ask again.
    pub fn take(&mut self, now: Instant) -> Taken {
        let occupied = self.occupied(now);
        if let Some(until) = self.closed_until.filter(|until| now < *until) {
            return Taken::NotBefore(until);
        }
        let probe = match self.probe {
            ProbeState::UnderWay(_) => return Taken::AfterAnswer,
            ProbeState::Needed(Probe::Start) if self.is_paced() => Probe::Paced,
            ProbeState::Needed(probe) => probe,
            ProbeState::Idle => Probe::No,
        };
        if matches!(probe, Probe::Start | Probe::Paced) {
            // The probe uses one of the slots of which nothing is known: one request more than
            // an unknown number is what it takes to find out. Of the others it needs a free one.
            let known = occupied - self.unknown;
            if known >= self.rate.limit {
                return self.next_release(now, known, 0);
            }
            if now < self.first.next {
                return Taken::NotBefore(self.first.next);
            }
            self.unknown = self.unknown.saturating_sub(1);
        } else if occupied >= self.rate.limit {
            return self.next_release(now, occupied, self.unknown);
        }
        match probe {
            Probe::No => {}
            Probe::Paced => self.first.next = now + self.pace(),
            Probe::Reopen | Probe::Start => self.probe = ProbeState::UnderWay(probe),
        }
        self.in_use += 1;
        self.taken += 1;
        Taken::Slot(Slot {
            known: self.known(now),
            unknown: self.unknown,
            taken: self.taken,
            probe,
        })
    }

    /// Ends the attempt that holds `slot`.
    pub fn give_back(&mut self, slot: Slot, end: End, now: Instant) -> Learned {
        self.in_use = self.in_use.saturating_sub(1);
        let mut learned = Learned::default();
        match end {
            End::NotSent => {
                // It never reached the counter, so it explains nothing either.
                self.reprobe(&slot);
                if slot.is_first() && now < self.unknown_until {
                    self.unknown = (self.unknown + 1).min(self.rate.limit);
                }
            }
            End::NoAnswer => {
                self.held.push(Reverse(now + self.hold_unanswered()));
                self.told_nothing(&slot, now);
                self.reprobe(&slot);
            }
            End::Throttled(throttle) => {
                self.held.push(Reverse(now + self.hold_answered()));
                learned.at_start = slot.is_first();
                learned.closed_for = Some(self.close(throttle, &slot, now));
            }
            End::Answered(allowance) => {
                if let Some(allowance) = allowance {
                    self.learn(&slot, allowance, now, &mut learned);
                }
                self.held.push(Reverse(now + self.hold_answered()));
                self.opened(&slot, allowance.is_some(), now);
            }
        }
        learned
    }

    /// When the slots will be free, soonest first, exactly L of them: the basis of estimates.
    /// Attempts under way are answered at `answers`, others after `answer`. Where the budget has to
    /// be probed, the probe is the first to leave and is taken to open it.
    pub fn free_at(&mut self, now: Instant, answer: Duration, answers: &[Instant]) -> Vec<Instant> {
        let _ = self.occupied(now);
        let open = self.closed_until.map_or(now, |until| until.max(now));
        let (first, others) = match self.probe {
            ProbeState::Idle => (open, open),
            ProbeState::Needed(Probe::Start) => {
                let first = open.max(self.first.next);
                (first, first + answer)
            }
            ProbeState::Needed(_) => (open, open + answer),
            ProbeState::UnderWay(_) => {
                let answered = answers.last().copied().unwrap_or(now);
                (open.max(answered), open.max(answered))
            }
        };
        let (is_paced, pace) = (self.is_finding_out() && self.is_paced(), self.pace());
        let starting = self.unknown > 0 && self.probe != ProbeState::Idle;
        let unknown = if starting { 0 } else { self.unknown };
        let mut busy: Vec<Instant> = self.held.iter().map(|Reverse(at)| *at).collect();
        busy.extend(answers.iter().map(|at| *at + self.hold_answered()));
        busy.extend((0..unknown).map(|_| self.unknown_until));
        busy.sort_unstable();
        let limit = self.rate.limit as usize;
        // More occupied than there are slots: the first ones to end free nothing.
        let surplus = busy.len().saturating_sub(limit);
        busy.drain(..surplus);
        let mut free = vec![now; limit - busy.len()];
        free.append(&mut busy);
        let mut paced = first;
        for (place, at) in free.iter_mut().enumerate() {
            *at = (*at).max(match place {
                0 => first,
                // Whatever is open by then, these leave one by one.
                _ if is_paced => paced.min(self.unknown_until.max(first)),
                _ => others,
            });
            paced += pace;
        }
        free
    }

    /// A copy for a forecast: attempts under way are answered at `answers`, and a probe is taken to
    /// open the budget.
    pub fn forecast(&mut self, now: Instant, answers: &[Instant]) -> Self {
        let _ = self.occupied(now);
        let mut copy = self.clone();
        let hold = copy.hold_answered();
        copy.held
            .extend(answers.iter().map(|at| Reverse(*at + hold)));
        copy.in_use = 0;
        if self.probe != ProbeState::Idle && !self.is_paced() {
            copy.unknown = 0;
        }
        match copy.probe {
            ProbeState::Idle => {}
            // Nothing has told for a while, and the copy expects no more of it.
            ProbeState::Needed(Probe::Start) if self.is_paced() => {}
            ProbeState::Needed(_) => copy.probe = ProbeState::Needed(Probe::Reopen),
            ProbeState::UnderWay(_) => {
                let answered = answers.last().copied().unwrap_or(now);
                let open = copy.closed_until.unwrap_or(now);
                copy.closed_until = Some(open.max(answered));
                copy.probe = ProbeState::Idle;
            }
        }
        copy
    }

    /// When the next slot that is occupied will be given back, of those whose end is known.
    pub fn next_end(&self) -> Option<Instant> {
        self.held.peek().map(|Reverse(at)| *at)
    }

    /// Whether nothing would be lost by forgetting this budget, except what it has learned.
    pub fn is_idle(&mut self, now: Instant) -> bool {
        self.occupied(now) == 0 && self.closed_until.is_none_or(|until| until <= now)
    }

    /// The remaining time for which a 429 has closed the budget.
    pub fn closed_for(&self, now: Instant) -> Option<Duration> {
        self.closed_until
            .and_then(|until| until.checked_duration_since(now))
            .filter(|left| !left.is_zero())
    }

    /// Whether no answer has told yet what an unknown predecessor left.
    pub fn is_finding_out(&self) -> bool {
        matches!(
            self.probe,
            ProbeState::Needed(Probe::Start) | ProbeState::UnderWay(Probe::Start)
        )
    }

    /// Slots known to be occupied: those of an unknown predecessor aside.
    pub fn known(&mut self, now: Instant) -> u32 {
        self.occupied(now) - self.unknown
    }

    /// Whether so many first attempts told nothing that the next ones do not wait for an answer.
    fn is_paced(&self) -> bool {
        self.first.untold > self.terms.unknown_slots
    }

    /// The time between two attempts that use up the limit evenly.
    fn pace(&self) -> Duration {
        self.rate.window / self.rate.limit
    }

    /// Counts a first attempt that found nothing out. From then on the next one leaves at once,
    /// or, where enough of them have told nothing, at the pace of the limit.
    fn told_nothing(&mut self, slot: &Slot, now: Instant) {
        if slot.probe != Probe::Start {
            return;
        }
        self.first.untold = self.first.untold.saturating_add(1);
        if self.is_paced() {
            self.first.next = now + self.pace();
        }
    }

    fn next_release(&self, now: Instant, occupied: u32, unknown: u32) -> Taken {
        // As many releases as it takes to bring the occupied slots below the limit.
        let needed = (occupied - self.rate.limit) as usize;
        let mut ends: Vec<Instant> = self.held.iter().map(|Reverse(at)| *at).collect();
        ends.extend((0..unknown).map(|_| self.unknown_until));
        if needed >= ends.len() {
            return Taken::AfterAnswer;
        }
        let (_, at, _) = ends.select_nth_unstable(needed);
        Taken::NotBefore((*at).max(now))
    }

    /// A probe that found nothing out leaves the question open.
    fn reprobe(&mut self, slot: &Slot) {
        if matches!(slot.probe, Probe::Reopen | Probe::Start) {
            self.probe = ProbeState::Needed(slot.probe);
        }
    }

    fn close(&mut self, throttle: Throttle, slot: &Slot, now: Instant) -> Duration {
        // A probe that is refused is no new evidence: it waits as told and asks again, alone.
        let wait = throttle
            .wait
            .unwrap_or(self.rate.window)
            .min(self.rate.window * 2)
            .max(self.guard());
        let until = now + wait;
        self.closed_until = Some(self.closed_until.map_or(until, |before| before.max(until)));
        let kind = match (slot.probe, self.probe) {
            (Probe::Start, _) | (_, ProbeState::Needed(Probe::Start)) => Probe::Start,
            _ => Probe::Reopen,
        };
        if kind == Probe::Start {
            // It counts: from now on each attempt waits for the answer of the one before.
            self.first.untold = 0;
        }
        // An attempt that left before the budget was closed must not start a second probe.
        let is_probe = matches!(slot.probe, Probe::Reopen | Probe::Start);
        if is_probe || self.probe == ProbeState::Idle {
            self.probe = ProbeState::Needed(kind);
        }
        wait
    }

    fn opened(&mut self, slot: &Slot, told: bool, now: Instant) {
        match slot.probe {
            Probe::No => return,
            Probe::Reopen => {}
            Probe::Start if told => {}
            Probe::Paced if told && self.probe == ProbeState::Needed(Probe::Start) => {}
            Probe::Start => {
                self.told_nothing(slot, now);
                self.reprobe(slot);
                return;
            }
            Probe::Paced => return,
        }
        // A 429 of an attempt that had left before the probe may have closed it once more.
        self.probe = match self.closed_for(now) {
            Some(_) => ProbeState::Needed(Probe::Reopen),
            None => {
                self.closed_until = None;
                ProbeState::Idle
            }
        };
    }

    fn learn(&mut self, slot: &Slot, allowance: Allowance, now: Instant, learned: &mut Learned) {
        let observed = allowance.limit();
        self.told = true;
        let limit = self
            .ceiling
            .map_or(observed, |ceiling| observed.min(ceiling));
        if limit != self.rate.limit {
            learned.limit = Some((self.rate.limit, limit));
            self.rate.limit = limit;
        }
        self.learn_window(allowance, learned);
        // The answer says what remains: of the slots of which nothing is known, no more than it
        // counts as used, this attempt aside, can be occupied.
        self.unknown = self.unknown.min(allowance.consumed.saturating_sub(1));
        // Whatever of ours the upstream may have counted was occupied when this attempt left,
        // or was taken since.
        let since = u32::try_from(self.taken - slot.taken).unwrap_or(u32::MAX);
        let unknown = if slot.is_first() {
            self.unknown
        } else {
            slot.unknown
        };
        let own = slot.known.saturating_add(unknown).saturating_add(since);
        let foreign = allowance.consumed.saturating_sub(own).min(self.rate.limit);
        for _ in 0..foreign {
            self.held.push(Reverse(now + self.rate.window));
        }
        self.taken += u64::from(foreign);
        learned.foreign = foreign;
    }

    /// An undocumented window is lengthened by evidence, never shortened: with windows aligned to
    /// the clock, the first request of one sees any remainder of it, and believing a short
    /// remainder would break the limit.
    fn learn_window(&mut self, allowance: Allowance, learned: &mut Learned) {
        const SECOND: Duration = Duration::from_secs(1);
        const LONGEST: Duration = Duration::from_secs(2 * 86_400);
        if self.ceiling.is_some() || allowance.consumed != 1 {
            return;
        }
        let Some(reset) = allowance.reset_in else {
            return;
        };
        let seen = reset.min(LONGEST);
        // `reset_in` is rounded up by up to two seconds, because dates are whole seconds.
        if seen > self.rate.window + 2 * SECOND {
            // Whatever was given back by the shorter window comes back later, too.
            let longer = seen - self.rate.window;
            self.held = self
                .held
                .drain()
                .map(|Reverse(at)| Reverse(at + longer))
                .collect();
            self.rate.window = seen;
            learned.window = Some(seen);
        }
    }
}
