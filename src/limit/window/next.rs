//! Pure. When the next attempt may be sent if it may not be sent now.

use super::{Holds, Taken, Window};
use std::time::Instant;

impl Window {
    /// When to ask again, if the free slots are left to other users of the token.
    pub(super) fn withheld(&mut self, occupied: u32, now: Instant) -> Option<Instant> {
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

    /// The answer if no slot is free.
    pub(super) fn next_release(&self, now: Instant, occupied: u32, unknown: u32) -> Taken {
        let release = self.release(&self.holds(), occupied, unknown);
        let question = self.may_question(now, occupied);
        match release.into_iter().chain(question).min() {
            Some(at) => Taken::NotBefore(at.max(now)),
            None => Taken::AfterAnswer,
        }
    }

    /// When enough slots are returned to bring those occupied below the limit.
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

    /// When one attempt may ask whether the window is as long as a response claims. Only where
    /// nothing but that claim occupies a slot.
    pub(super) fn may_question(&self, now: Instant, occupied: u32) -> Option<Instant> {
        let ask_at = self.evidence.ask_at()?;
        let holds = self.holds_of(self.rate().window);
        let free = self.release(&holds, occupied, self.unknown)?;
        Some(free.max(ask_at).max(now))
    }
}
