//! Pure. The slots of one budget: an exact rolling window.
//!
//! A budget owns L slots. An attempt takes one and returns it W + guard after its final response
//! arrived, or W + Q after it ended without one. Two uses of one slot then reach the API's counter
//! at least W apart, whatever the network does: the first was counted before its response came
//! back, and the second is sent later than that. So no half-open interval of length W holds more
//! than L arrivals. This satisfies a fixed window of any alignment, a rolling window and a token
//! bucket (capacity L, refill L per W) alike.
//!
//! A token bucket on our side would not do: one of capacity B lets B plus the refill through
//! within a single window.
//!
//! Who learns what: [`Evidence`] learns the limit and the window from response headers,
//! [`OtherUsers`] how many slots to leave to other users of the token, `closing` whether the budget
//! is open. What others were seen to use occupies slots like our own attempts.
//!
//! A slot is occupied for one of three reasons: an attempt in flight (`in_use`), an attempt that
//! has ended but may still count (`held`), or one that an earlier process may have sent and of
//! which nothing is known (`unknown`).
//!
//! Not here: waiting, whose turn it is, and storing.

use crate::limit::evidence::{Evidence, InForce};
use crate::limit::learn::Allowance;
use crate::limit::others::OtherUsers;
use crate::limit::releases::{Holds, Releases, SlotUse};
use crate::route::policy::Rate;
use std::time::{Duration, Instant};

mod closing;
mod estimate;
mod next;
mod slot;
#[cfg(test)]
mod tests;

use slot::Probe;
pub use slot::{AttemptEnd, Learned, Slot, Taken, Terms};

/// The slots of one budget of one credential.
#[derive(Clone, Debug)]
pub struct Window {
    evidence: Evidence,
    terms: Terms,
    /// The attempts in flight.
    in_use: u32,
    /// The slots that are still occupied although their attempts have ended.
    held: Releases,
    /// The window that was in force when an earlier process used the restored slots.
    restored_window: Duration,
    /// The slots that an earlier process may have used, of which nothing is known.
    unknown: u32,
    /// Until then they may be occupied, and first attempts go one at a time.
    unknown_until: Option<Instant>,
    first: FirstAttempts,
    others: OtherUsers,
    /// The slots taken over the life of the budget.
    taken: u64,
    /// A 429 has closed the budget until then.
    closed_until: Option<Instant>,
    probe: ProbeState,
}

/// The state of the question that a probe is to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProbeState {
    /// No question: the budget is open.
    Idle,
    /// The next attempt is to ask it.
    Needed(Probe),
    /// An attempt in flight asks it; all others wait.
    UnderWay(Probe),
}

/// The attempts of a budget before the first response that tells what it allows.
#[derive(Clone, Copy, Debug)]
struct FirstAttempts {
    /// The number of those that told nothing: without rate headers, or without a response.
    untold: u32,
    /// When the next one may be sent.
    next: Instant,
}

impl Window {
    /// A budget whose recent past is known to be empty, or is given by [`Window::restore`]. `rate`
    /// is in force, `base` is configured; they differ if responses have taught another rate.
    pub fn new(rate: Rate, base: Rate, is_documented: bool, terms: Terms, now: Instant) -> Self {
        Self {
            evidence: Evidence::new(rate, base, is_documented),
            terms,
            in_use: 0,
            held: Releases::default(),
            restored_window: rate.window,
            unknown: 0,
            unknown_until: None,
            first: FirstAttempts {
                untold: 0,
                next: now,
            },
            others: OtherUsers::none(now),
            taken: 0,
            closed_until: None,
            probe: ProbeState::Idle,
        }
    }

    /// Says that nothing is known of what was sent before `start` (a new node). Until `start` + W +
    /// Q attempts go one at a time, and the first response that tells what remains opens that much.
    /// If several tell nothing (an API without rate headers, a balancer's 502), attempts go on at
    /// the pace of the limit, one each W/L. So an API that is well is never left unused, and one
    /// that counts answers 429 to one attempt at a time.
    pub fn without_history(&mut self, start: Instant, now: Instant) {
        let until = start + self.rate().window + self.terms.late;
        if until > now {
            self.unknown = self.rate().limit;
            self.unknown_until = Some(until);
            self.probe = ProbeState::Needed(Probe::Start);
        }
    }

    /// Says that no response has told the limit: attempts go one at a time until one does, but for
    /// at most one window.
    pub fn alone_until_told(&mut self) {
        self.probe = ProbeState::Needed(Probe::Start);
    }

    /// Occupies one slot until each of these instants, for attempts of an earlier process. They
    /// were reckoned with `window`; if a longer one is in force, the slots stay occupied for so
    /// much longer.
    pub fn restore(&mut self, until: impl IntoIterator<Item = Instant>, window: Duration) {
        self.restored_window = window;
        let mut until: Vec<Instant> = until.into_iter().collect();
        until.sort_unstable();
        self.taken += until.len() as u64;
        for at in until {
            self.held.push(SlotUse::Restored, at, 1);
        }
    }

    /// Applies another configured limit for the same window. See [`Evidence::configure`]. Occupied
    /// slots stay occupied.
    pub fn configure(&mut self, limit: u32, is_documented: bool) {
        self.evidence.configure(limit, is_documented);
    }

    /// The rate in force.
    pub fn rate(&self) -> Rate {
        self.evidence.rate()
    }

    /// The rate in force, and whether responses have taught it.
    pub fn in_force(&self) -> InForce {
        self.evidence.in_force()
    }

    /// W + guard: how long an attempt with a response occupies its slot from the response on.
    pub fn hold_answered(&self) -> Duration {
        self.holds_of(self.rate().window).answered
    }

    fn guard(&self, window: Duration) -> Duration {
        self.terms.guard + window / 1000
    }

    /// W + Q: how long an attempt without a response occupies its slot from its end on.
    pub fn hold_unanswered(&self) -> Duration {
        self.holds_of(self.rate().window).unanswered
    }

    /// How long each use occupies a slot, if the window is this long.
    fn holds_of(&self, window: Duration) -> Holds {
        Holds {
            answered: window + self.guard(window),
            unanswered: window + self.terms.late,
            foreign: window,
            restored: window.saturating_sub(self.restored_window),
        }
    }

    /// How long each use occupies a slot, by the longest window that a response claims.
    fn holds(&self) -> Holds {
        self.holds_of(self.rate().window + self.evidence.claimed())
    }

    /// The slots occupied at `now`. May exceed the limit after it was lowered.
    pub fn occupied(&mut self, now: Instant) -> u32 {
        self.held.expire(&self.holds(), now);
        if self.unknown_until.is_some_and(|until| now >= until) {
            self.unknown = 0;
            if self.probe == ProbeState::Needed(Probe::Start) {
                self.probe = match self.closed_until {
                    Some(_) => ProbeState::Needed(Probe::Reopen),
                    None => ProbeState::Idle,
                };
            }
        }
        let held = u32::try_from(self.held.count()).unwrap_or(u32::MAX);
        self.in_use
            .saturating_add(held)
            .saturating_add(self.unknown)
    }

    /// Takes a slot, or says when to ask again. The caller sends the attempt right away.
    pub fn take(&mut self, now: Instant) -> Taken {
        let occupied = self.occupied(now);
        if let Some(until) = self.closed_until.filter(|until| now < *until) {
            return Taken::NotBefore(until);
        }
        let mut probe = match self.probe {
            ProbeState::UnderWay(_) => return Taken::AfterAnswer,
            ProbeState::Needed(Probe::Start) if self.is_paced() => Probe::Paced,
            ProbeState::Needed(probe) => probe,
            ProbeState::Idle => Probe::No,
        };
        let limit = self.rate().limit;
        let mut of_unknown = false;
        if matches!(probe, Probe::Start | Probe::Paced) {
            // The probe uses one of the slots of which nothing is known, because finding out takes
            // one request more than an unknown number. If there are none it needs a free one.
            let known = occupied - self.unknown;
            if known >= limit {
                return self.next_release(now, known, 0);
            }
            if now < self.first.next {
                return Taken::NotBefore(self.first.next);
            }
            of_unknown = self.unknown > 0;
            self.unknown = self.unknown.saturating_sub(1);
            let known_by = now + self.rate().window;
            self.unknown_until.get_or_insert(known_by);
        } else if probe == Probe::No
            && let Some(at) = self.withheld(occupied, now)
        {
            return Taken::NotBefore(at);
        } else if occupied >= limit {
            if self.may_question(now, occupied).is_none_or(|at| at > now) {
                return self.next_release(now, occupied, self.unknown);
            }
            self.evidence.asked(now);
            probe = Probe::Reopen;
        }
        match probe {
            Probe::No => {}
            Probe::Paced => self.first.next = now + self.pace(),
            Probe::Reopen | Probe::Start => self.probe = ProbeState::UnderWay(probe),
        }
        self.others.leaves(self.rate(), now);
        self.in_use += 1;
        self.taken += 1;
        Taken::Slot(Slot {
            known: self.known(now),
            unknown: self.unknown,
            of_unknown,
            taken: self.taken,
            probe,
        })
    }

    /// The slots that our attempts may use.
    pub fn usable(&self) -> u32 {
        let withheld = self.others.slots().saturating_sub(self.foreign());
        self.rate().limit.saturating_sub(withheld).max(1)
    }

    /// The slots that other users of the token were seen to use.
    fn foreign(&self) -> u32 {
        u32::try_from(self.held.of(SlotUse::Foreign)).unwrap_or(u32::MAX)
    }

    /// The slots that attempts of this and of earlier processes may have used when the API counted
    /// the attempt that holds `slot`: an upper bound.
    fn own(&self, slot: &Slot) -> u32 {
        let taken_since = u32::try_from(self.taken - slot.taken).unwrap_or(u32::MAX);
        let unknown = if slot.is_first() {
            self.unknown
        } else {
            slot.unknown
        };
        slot.known
            .saturating_add(unknown)
            .saturating_add(taken_since)
    }

    /// Ends the attempt that holds `slot`, and learns from its response.
    pub fn give_back(&mut self, slot: Slot, end: AttemptEnd, now: Instant) -> Learned {
        self.in_use = self.in_use.saturating_sub(1);
        let mut learned = Learned::default();
        match end {
            AttemptEnd::NotSent => {
                // It never reached the API's counter, so its slot is free at once.
                self.reprobe(&slot);
                if slot.of_unknown && self.unknown_until.is_some_and(|until| now < until) {
                    self.unknown = (self.unknown + 1).min(self.rate().limit);
                }
            }
            AttemptEnd::NoAnswer => {
                self.held.push(SlotUse::Unanswered, now, 1);
                self.told_nothing(&slot, now);
            }
            AttemptEnd::Throttled(throttle) => {
                self.held.push(SlotUse::Answered, now, 1);
                if slot.probe == Probe::No {
                    // Our attempts were within the limit, so others used what was missing.
                    let ours = self.own(&slot).saturating_sub(self.foreign());
                    let used = throttle.consumed.unwrap_or(0).saturating_sub(ours);
                    let is_first = self.closed_until.is_none();
                    self.others.refused(used, is_first, self.rate(), now);
                }
                learned.at_start = slot.is_first();
                self.close(throttle, &slot, now);
            }
            AttemptEnd::Answered(allowance) => {
                if let Some(allowance) = allowance {
                    self.learn(&slot, allowance, now, &mut learned);
                }
                self.held.push(SlotUse::Answered, now, 1);
                self.opened(&slot, allowance.is_some(), now);
            }
        }
        learned
    }

    /// The number of entries in memory.
    #[cfg(test)]
    pub fn noted(&self) -> usize {
        self.held.entries()
    }

    /// When the next occupied slot is returned, of those whose return is known.
    pub fn next_end(&self) -> Option<Instant> {
        self.held.first(&self.holds())
    }

    /// Whether forgetting the budget would lose nothing but what it has learned.
    pub fn is_idle(&mut self, now: Instant) -> bool {
        self.occupied(now) == 0 && self.closed_until.is_none_or(|until| until <= now)
    }

    /// The remaining time for which a 429 has closed the budget.
    pub fn closed_for(&self, now: Instant) -> Option<Duration> {
        self.closed_until
            .and_then(|until| until.checked_duration_since(now))
            .filter(|left| !left.is_zero())
    }

    /// Whether no response has told yet what earlier processes left.
    pub fn is_finding_out(&self) -> bool {
        matches!(
            self.probe,
            ProbeState::Needed(Probe::Start) | ProbeState::UnderWay(Probe::Start)
        )
    }

    /// The slots left to other users of the token, whether they use them or not.
    pub fn left_to_others(&self) -> u32 {
        self.others.slots()
    }

    /// The slots known to be occupied. Does not count those of which nothing is known.
    pub fn known(&mut self, now: Instant) -> u32 {
        self.occupied(now) - self.unknown
    }

    /// Learns the limit, the window and the use by others from rate headers.
    fn learn(&mut self, slot: &Slot, allowance: Allowance, now: Instant, learned: &mut Learned) {
        let changes = self.evidence.hear(allowance, now);
        (learned.limit, learned.window) = (changes.limit, changes.window);
        // The response counts what was used. Apart from this attempt, no more than that can be
        // occupied of the slots of which nothing is known.
        self.unknown = self.unknown.min(allowance.consumed.saturating_sub(1));
        // Whatever the API may have counted of ours was occupied when this attempt was sent, or
        // taken since. The rest are others'.
        let foreign = allowance.consumed.saturating_sub(self.own(slot));
        let foreign = foreign.min(self.rate().limit);
        self.held.push(SlotUse::Foreign, now, foreign);
        self.taken += u64::from(foreign);
        self.others.seen(self.foreign(), self.rate(), now);
        learned.foreign = foreign;
    }
}
