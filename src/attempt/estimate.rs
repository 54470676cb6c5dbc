//! Pure. The estimate of when a write is sent: copies of budgets and lanes run forward until it is.
//!
//! The arithmetic of a single budget (`limit/account.rs`) knows when lanes were expected to open at
//! the time their writes were accepted, but not what has happened since. If it would reject a
//! write, this estimate looks closer. It sends everything that is queued in turn, completes each
//! attempt after the usual response time, and opens the lanes. The result holds if nothing new
//! arrives and responses take no longer than before.
//!
//! It does not run where too much is queued for it to be worth the time. It changes nothing outside
//! its copies.

mod run;

use crate::lanes::LaneOrder;
use crate::limit::account::Account;
use crate::limit::budgets::whole_seconds;
use run::{Luck, Run};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use run::{MOST_UNSETTLED, MOST_WAITING, MOST_WAITING_IN_LANES, Newcomer};

/// The number of times to come back that are tried.
const MOST_TRIES: usize = 6;
/// The step by which a time to come back is moved.
const SECOND: Duration = Duration::from_secs(1);
/// The safety margin of a time to come back.
const MARGIN: Duration = Duration::from_millis(250);
/// The requests queued for the budgets of one credential, and its lanes.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// The copied budgets, by name.
    pub accounts: Vec<(Arc<str>, Account)>,
    /// The copied lanes.
    pub lanes: LaneOrder,
    /// The instant of the copy.
    pub now: Instant,
}

impl Estimate {
    fn run(&self) -> Run {
        Run::new(self.accounts.clone(), self.lanes.clone(), self.now)
    }

    /// Returns when the new write would be sent if it arrived now. Returns `None` if there is no
    /// room for it, or the run ends without a result.
    pub fn leaves(&self, newcomer: &Newcomer<'_>) -> Option<Instant> {
        let leaves = self
            .run()
            .until_it_leaves(newcomer, self.now, Luck::USUAL)?;
        if leaves == self.now {
            return Some(leaves);
        }
        let loses = self
            .run()
            .until_it_leaves(newcomer, self.now, Luck::LOSES)?;
        Some(loses.max(leaves))
    }

    /// Returns after how many seconds the write can come back and be sent within its patience. At
    /// the latest that is when everything else has been sent.
    pub fn comes_back(&self, newcomer: &Newcomer<'_>) -> Duration {
        let first = self.leaves(newcomer).unwrap_or(self.now);
        let early = first.checked_sub(newcomer.patience).unwrap_or(self.now);
        if self.is_contended(newcomer) {
            // Which request gets which slot depends on which passes its lanes a moment earlier. The
            // only certainty is when everything, this write included, has been sent.
            let all_left = Luck::ALL.map(|luck| self.run().until_all_left(newcomer, luck));
            let all_left = all_left.into_iter().flatten().max().unwrap_or(self.now);
            let patience = newcomer.patience.saturating_sub(MARGIN);
            let early = early.max(all_left.checked_sub(patience).unwrap_or(self.now));
            return whole_seconds(early.saturating_duration_since(self.now));
        }
        let mut after = whole_seconds(early.saturating_duration_since(self.now));
        for _ in 0..MOST_TRIES {
            let comes = self.now + after;
            let waits = |luck: Luck| {
                let comes = comes + luck.later;
                let leaves = self.run().until_it_leaves(newcomer, comes, luck)?;
                Some(leaves.saturating_duration_since(comes))
            };
            // A write that can be sent without a wait is accepted for that. Otherwise the promise
            // must hold with a loss, too (see `leaves`).
            let needs_no_wait = waits(Luck::USUAL).is_some_and(|wait| wait.is_zero());
            let patience = newcomer.patience.saturating_sub(MARGIN);
            let late = Luck::ALL.map(|luck| {
                let allowed = if needs_no_wait {
                    patience + luck.handicap
                } else {
                    patience
                };
                // No result means that there is no room yet.
                waits(luck).map_or(SECOND, |wait| wait.saturating_sub(allowed))
            });
            let late = late.into_iter().max().unwrap_or_default();
            if late.is_zero() {
                return after;
            }
            after += whole_seconds(late);
        }
        let mut accounts = self.accounts.iter();
        let own = accounts.find(|(name, _)| **name == *newcomer.budget);
        let last = own.map_or(self.now, |(_, own)| own.clone().leaves_last(self.now));
        after.max(whole_seconds(last.saturating_duration_since(self.now)))
    }

    /// Returns whether any request waits for a lane rather than for its turn, or the new write
    /// would.
    fn is_contended(&self, newcomer: &Newcomer<'_>) -> bool {
        self.lanes.any_blocked() || !self.lanes.are_free(newcomer.keys)
    }
}

#[cfg(test)]
mod tests;
