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

use crate::limit::evidence::{Evidence, InForce};
use crate::limit::learn::{Allowance, Throttle};
use crate::limit::others::Others;
use crate::limit::releases::{Holds, Kind, Releases};
use crate::route::policy::Rate;
use std::time::{Duration, Instant};

mod estimate;
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
    /// Whether it is one of those.
    of_unknown: bool,
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
    /// The window of an undocumented budget was found to be another: this.
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
    evidence: Evidence,
    terms: Terms,
    /// Attempts under way.
    in_use: u32,
    /// When each slot was used that is still occupied.
    held: Releases,
    /// The window for which an earlier process has kept its slots.
    restored_window: Duration,
    /// Slots that an earlier process may have used, of which nothing is known.
    unknown: u32,
    /// Until then nothing is known of them, and first attempts go one at a time.
    unknown_until: Option<Instant>,
    first: FirstAttempts,
    others: Others,
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
        let base = Rate {
            limit: ceiling.unwrap_or(rate.limit),
            window: rate.window,
        };
        Self::learned(rate, base, ceiling.is_some(), terms, now)
    }

    /// The same, where answers have taught another rate than the one that is configured, `base`.
    pub fn learned(
        rate: Rate,
        base: Rate,
        is_documented: bool,
        terms: Terms,
        now: Instant,
    ) -> Self {
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
            others: Others::none(now),
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
        let until = start + self.rate().window + self.terms.late;
        if until > now {
            self.unknown = self.rate().limit;
            self.unknown_until = Some(until);
            self.probe = ProbeState::Needed(Probe::Start);
        }
    }

    /// Says that no answer has told the limit: attempts go one at a time until one does, or, where
    /// none does, for one window.
    pub fn alone_until_told(&mut self) {
        self.probe = ProbeState::Needed(Probe::Start);
    }

    /// Occupies one slot until each of these: attempts of an earlier process, by the `window` that
    /// was in force there. Where a longer one is in force, they occupy it for so much longer.
    pub fn restore(&mut self, until: impl IntoIterator<Item = Instant>, window: Duration) {
        self.restored_window = window;
        let mut until: Vec<Instant> = until.into_iter().collect();
        until.sort_unstable();
        self.taken += until.len() as u64;
        for at in until {
            self.held.push(Kind::Restored, at, 1);
        }
    }

    /// Another limit is configured than the one it began with, for the same window. See
    /// [`Evidence::configure`]; what is occupied stays so.
    pub fn configure(&mut self, limit: u32, ceiling: Option<u32>) {
        self.evidence.configure(limit, ceiling.is_some());
    }

    /// The rate in force.
    pub fn rate(&self) -> Rate {
        self.evidence.rate()
    }

    /// Whether answers have taught another rate than the configured one.
    pub fn is_learned(&self) -> bool {
        self.evidence.is_learned()
    }

    /// The rate in force, and whether answers have taught it.
    pub fn in_force(&self) -> InForce {
        InForce {
            rate: self.rate(),
            is_learned: self.is_learned(),
        }
    }

    /// W + guard: how long an answered attempt occupies its slot from its answer on.
    pub fn hold_answered(&self) -> Duration {
        self.holds_of(self.rate().window).answered
    }

    fn guard(&self) -> Duration {
        self.terms.guard + self.rate().window / 1000
    }

    /// W + Q: how long an attempt without an answer occupies its slot from its end on.
    pub fn hold_unanswered(&self) -> Duration {
        self.rate().window + self.terms.late
    }

    fn holds_of(&self, window: Duration) -> Holds {
        Holds {
            answered: window + self.terms.guard + window / 1000,
            unanswered: window + self.terms.late,
            foreign: window,
            restored: window.saturating_sub(self.restored_window),
        }
    }

    /// How long slots are occupied, by the window that answers claim.
    fn holds(&self) -> Holds {
        self.holds_of(self.rate().window + self.evidence.claimed())
    }

    /// Slots occupied at `now`, at most once each; may exceed the limit after it was lowered.
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

    /// Takes a slot, or says when to ask again.
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
            // The probe uses one of the slots of which nothing is known: one request more than
            // an unknown number is what it takes to find out. Of the others it needs a free one.
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

    /// When to ask again, if what is free is left to others who use the same token.
    fn withheld(&mut self, occupied: u32, now: Instant) -> Option<Instant> {
        self.others.release(self.rate(), now);
        let until = self.others.until()?;
        let withheld = self.others.slots().saturating_sub(self.foreign());
        let busy = occupied.saturating_add(withheld);
        if busy < self.rate().limit {
            return self.others.next().filter(|at| *at > now);
        }
        let release = self.release(&self.holds(), busy, self.unknown);
        Some(release.map_or(until, |at| at.min(until)).max(now))
    }

    /// Slots that attempts of ours may use.
    pub fn usable(&self) -> u32 {
        let withheld = self.others.slots().saturating_sub(self.foreign());
        self.rate().limit.saturating_sub(withheld).max(1)
    }

    /// Slots that others were seen to use.
    fn foreign(&self) -> u32 {
        u32::try_from(self.held.of(Kind::Foreign)).unwrap_or(u32::MAX)
    }

    /// Slots that our own attempts, and those of an earlier process, may have used when the
    /// attempt that holds `slot` was counted.
    fn own(&self, slot: &Slot) -> u32 {
        let since = u32::try_from(self.taken - slot.taken).unwrap_or(u32::MAX);
        let unknown = if slot.is_first() {
            self.unknown
        } else {
            slot.unknown
        };
        slot.known.saturating_add(unknown).saturating_add(since)
    }

    /// Ends the attempt that holds `slot`.
    pub fn give_back(&mut self, slot: Slot, end: End, now: Instant) -> Learned {
        self.in_use = self.in_use.saturating_sub(1);
        let mut learned = Learned::default();
        match end {
            End::NotSent => {
                // It never reached the counter, so it explains nothing either.
                self.reprobe(&slot);
                if slot.of_unknown && self.unknown_until.is_some_and(|until| now < until) {
                    self.unknown = (self.unknown + 1).min(self.rate().limit);
                }
            }
            End::NoAnswer => {
                self.held.push(Kind::Unanswered, now, 1);
                self.told_nothing(&slot, now);
                self.reprobe(&slot);
            }
            End::Throttled(throttle) => {
                self.held.push(Kind::Answered, now, 1);
                if slot.probe == Probe::No {
                    // Ours were within the limit, so others used what was missing.
                    let ours = self.own(&slot).saturating_sub(self.foreign());
                    let used = throttle.consumed.unwrap_or(0).saturating_sub(ours);
                    let is_first = self.closed_until.is_none();
                    self.others.refused(used, is_first, self.rate(), now);
                }
                learned.at_start = slot.is_first();
                learned.closed_for = Some(self.close(throttle, &slot, now));
            }
            End::Answered(allowance) => {
                if let Some(allowance) = allowance {
                    self.learn(&slot, allowance, now, &mut learned);
                }
                self.held.push(Kind::Answered, now, 1);
                self.opened(&slot, allowance.is_some(), now);
            }
        }
        learned
    }

    /// Entries in memory.
    #[cfg(test)]
    pub fn noted(&self) -> usize {
        self.held.entries()
    }

    /// When the next slot that is occupied will be given back, of those whose end is known.
    pub fn next_end(&self) -> Option<Instant> {
        self.held.first(&self.holds())
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

    /// Slots left to others who use the same token, whether they use them or not.
    pub fn left_to_others(&self) -> u32 {
        self.others.slots()
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
        self.rate().window / self.rate().limit
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
        let release = self.release(&self.holds(), occupied, unknown);
        let question = self.may_question(now, occupied);
        match release.into_iter().chain(question).min() {
            Some(at) => Taken::NotBefore(at.max(now)),
            None => Taken::AfterAnswer,
        }
    }

    /// When as many slots have been given back as it takes to bring those occupied below the limit.
    fn release(&self, holds: &Holds, occupied: u32, unknown: u32) -> Option<Instant> {
        let needed = u64::from(occupied.saturating_sub(self.rate().limit));
        let unknown = u64::from(unknown);
        let Some(until) = self.unknown_until.filter(|_| unknown > 0) else {
            return self.held.nth(holds, needed);
        };
        let before = self.held.free_at(holds, until);
        if needed < before {
            self.held.nth(holds, needed)
        } else if needed < before + unknown {
            Some(until)
        } else {
            self.held.nth(holds, needed - unknown)
        }
    }

    /// When one attempt may ask whether the window is as long as an answer claims, where nothing
    /// but that claim occupies a slot.
    fn may_question(&self, now: Instant, occupied: u32) -> Option<Instant> {
        let ask_at = self.evidence.ask_at()?;
        let holds = self.holds_of(self.rate().window);
        let free = self.release(&holds, occupied, self.unknown)?;
        Some(free.max(ask_at).max(now))
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
            .unwrap_or(self.rate().window)
            .min(self.rate().window * 2)
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
        let changes = self.evidence.hear(allowance, now);
        (learned.limit, learned.window) = (changes.limit, changes.window);
        // The answer says what remains: of the slots of which nothing is known, no more than it
        // counts as used, this attempt aside, can be occupied.
        self.unknown = self.unknown.min(allowance.consumed.saturating_sub(1));
        // Whatever of ours the upstream may have counted was occupied when this attempt left,
        // or was taken since.
        let foreign = allowance.consumed.saturating_sub(self.own(slot));
        let foreign = foreign.min(self.rate().limit);
        self.held.push(Kind::Foreign, now, foreign);
        self.taken += u64::from(foreign);
        self.others.seen(self.foreign(), self.rate(), now);
        learned.foreign = foreign;
    }
}
