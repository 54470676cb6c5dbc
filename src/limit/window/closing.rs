//! Pure. Closing a budget after a 429, opening it again, and finding out about an unknown one.
//!
//! A 429 closes its budget, and only that one, for as long as it asks: at most 2·W, at least the
//! guard. Then one attempt is sent as a probe, and the others follow once it is answered. The same
//! holds for the first attempts of a budget of which nothing is known: each waits for the response
//! to the one before, until a response says what remains. A probe that finds nothing out (it was
//! not sent, or got no response) leaves the question open, and the next attempt asks it again.
//!
//! If enough first attempts told nothing, as with an API without rate headers, attempts are
//! **paced** instead: one each W/L, without waiting for responses.

use super::{Probe, ProbeState, Slot, Window};
use crate::limit::learn::Throttle;
use std::time::{Duration, Instant};

impl Window {
    /// Whether so many first attempts told nothing that the next ones do not wait for a response.
    pub(super) fn is_paced(&self) -> bool {
        self.first.untold > self.terms.unknown_slots
    }

    /// The interval between two attempts that use up the limit evenly.
    pub(super) fn pace(&self) -> Duration {
        self.rate().window / self.rate().limit
    }

    /// Notes an attempt that found nothing out. A probe is asked again. If enough first attempts
    /// have told nothing, the next ones are paced.
    pub(super) fn told_nothing(&mut self, slot: &Slot, now: Instant) {
        if slot.probe == Probe::Start {
            self.first.untold = self.first.untold.saturating_add(1);
            if self.is_paced() {
                self.first.next = now + self.pace();
            }
        }
        self.reprobe(slot);
    }

    /// Asks again after a probe that found nothing out.
    pub(super) fn reprobe(&mut self, slot: &Slot) {
        if matches!(slot.probe, Probe::Reopen | Probe::Start) {
            self.probe = ProbeState::Needed(slot.probe);
        }
    }

    /// Closes the budget after a 429.
    pub(super) fn close(&mut self, throttle: Throttle, slot: &Slot, now: Instant) {
        // A probe that gets a 429 is no new evidence: it waits and asks again, alone.
        let wait = throttle
            .wait
            .unwrap_or(self.rate().window)
            .min(self.rate().window * 2)
            .max(self.guard(self.rate().window));
        let until = now + wait;
        self.closed_until = Some(self.closed_until.map_or(until, |before| before.max(until)));
        let kind = match (slot.probe, self.probe) {
            (Probe::Start, _) | (_, ProbeState::Needed(Probe::Start)) => Probe::Start,
            _ => Probe::Reopen,
        };
        if kind == Probe::Start {
            // The API counts: from now on each attempt waits for the response to the one before.
            self.first.untold = 0;
        }
        // An attempt that was sent before the budget was closed must not start a second probe.
        let is_probe = matches!(slot.probe, Probe::Reopen | Probe::Start);
        if is_probe || self.probe == ProbeState::Idle {
            self.probe = ProbeState::Needed(kind);
        }
    }

    /// Opens the budget if the attempt was a probe and its response settles the question. `told` is
    /// whether the response had rate headers.
    pub(super) fn opened(&mut self, slot: &Slot, told: bool, now: Instant) {
        let is_settled = match slot.probe {
            Probe::No => return,
            Probe::Reopen => true,
            Probe::Start => told,
            Probe::Paced => told && self.probe == ProbeState::Needed(Probe::Start),
        };
        if !is_settled {
            self.told_nothing(slot, now);
            return;
        }
        // A 429 of an attempt that was sent before the probe may have closed the budget again.
        self.probe = match self.closed_for(now) {
            Some(_) => ProbeState::Needed(Probe::Reopen),
            None => {
                self.closed_until = None;
                ProbeState::Idle
            }
        };
    }
}
