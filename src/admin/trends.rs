//! Pure. The use of single budgets in the last 15 minutes, for the sparklines of the live page.
//!
//! There may be thousands of budgets. Only those in most trouble are recorded, so a budget that was
//! not among them has a gap. A slot of 15 seconds has the highest use that was seen in it, and the
//! worst state.
//!
//! Invariant: at most [`MOST`] budgets are kept, each with [`SLOTS`] slots of two bytes.

use super::history::KEPT;
use super::overview::{MOST_SHOWN, Trouble};
use crate::credential::Credential;
use crate::limit::budgets::AccountState;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// The slots of a budget, over 15 minutes.
const SLOTS: u64 = 60;
/// The most budgets that are kept: twice as many as are recorded at a time.
const MOST: usize = 2 * MOST_SHOWN;
/// The highest level; levels are written as one digit in base 36.
const HIGHEST: u32 = 35;

/// One budget.
#[derive(Clone, Debug)]
struct Track {
    /// By slot modulo [`SLOTS`]: the level of use, and the worst state; `None` if not recorded.
    slots: [(u8, Option<Trouble>); SLOTS as usize],
    /// The latest slot that was recorded.
    newest: u64,
}

/// The name and the credential of a budget.
type Name = (Arc<str>, Credential);

/// The recorded budgets.
#[derive(Debug, Default)]
pub(super) struct Trends {
    /// The instant at which slot 0 began.
    start: Option<Instant>,
    tracks: BTreeMap<Name, Track>,
}

impl Trends {
    /// Records these budgets, which are those in most trouble.
    pub(super) fn record(&mut self, now: Instant, shown: &[AccountState]) {
        let slot = self.slot(now);
        for account in shown {
            let key = (account.budget.clone(), account.credential);
            let track = self.tracks.entry(key).or_insert_with(|| Track {
                slots: [(0, None); SLOTS as usize],
                newest: slot,
            });
            track.record(slot, level(account), Trouble::of(account));
        }
        self.tracks.retain(|_, track| track.newest + SLOTS > slot);
        let excess = self.tracks.len().saturating_sub(MOST);
        if excess > 0 {
            // Those that were not in trouble for longest.
            let mut by_age: Vec<(u64, Name)> = self
                .tracks
                .iter()
                .map(|(key, track)| (track.newest, key.clone()))
                .collect();
            by_age.sort_unstable();
            for (_, key) in by_age.into_iter().take(excess) {
                self.tracks.remove(&key);
            }
        }
    }

    /// Returns the use and the states of a budget, the oldest slot first: digits in base 36 of
    /// which the highest is a full budget, and one letter for each slot. `.` is free, `q` queued,
    /// `c` closed, and a space was not recorded.
    pub(super) fn of(&mut self, now: Instant, account: &AccountState) -> Option<(String, String)> {
        let slot = self.slot(now);
        let track = self
            .tracks
            .get(&(account.budget.clone(), account.credential))?;
        let slots = (slot + 1).saturating_sub(SLOTS)..=slot;
        let slots = slots.map(|slot| track.at(slot));
        let shown = slots.map(|(level, trouble)| {
            let letter = match trouble {
                None => ' ',
                Some(Trouble::Closed) => 'c',
                Some(Trouble::Queued) => 'q',
                Some(Trouble::Full | Trouble::Starting | Trouble::Free) => '.',
            };
            (
                char::from_digit(u32::from(level), 36).unwrap_or('z'),
                letter,
            )
        });
        Some(shown.unzip())
    }

    fn slot(&mut self, now: Instant) -> u64 {
        let start = *self.start.get_or_insert(now);
        let width = KEPT.as_secs() / SLOTS;
        now.saturating_duration_since(start).as_secs() / width
    }
}

impl Track {
    fn record(&mut self, slot: u64, level: u8, trouble: Trouble) {
        for over in (self.newest + 1..=slot).take(SLOTS as usize) {
            self.slots[place(over)] = (0, None);
        }
        self.newest = self.newest.max(slot);
        let (most, worst) = &mut self.slots[place(slot)];
        (*most, *worst) = (level.max(*most), Some(trouble).max(*worst));
    }

    /// Returns a slot, which is empty if the budget was not recorded in it.
    fn at(&self, slot: u64) -> (u8, Option<Trouble>) {
        let is_kept = slot <= self.newest && self.newest < slot + SLOTS;
        if is_kept {
            self.slots[place(slot)]
        } else {
            (0, None)
        }
    }
}

/// Returns the level of use, from 0 to [`HIGHEST`]. Any use at all is more than 0.
fn level(account: &AccountState) -> u8 {
    let limit = account.rate.limit.max(1);
    let used = account.occupied.min(limit);
    let level = u64::from(used) * u64::from(HIGHEST);
    u8::try_from(level.div_ceil(u64::from(limit))).unwrap_or_default()
}

fn place(slot: u64) -> usize {
    usize::try_from(slot % SLOTS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::account;
    use crate::clock::Clock;
    use std::time::Duration;

    #[test]
    fn a_slot_has_the_highest_use_and_the_worst_state() {
        let start = Clock::system().now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut trends = Trends::default();
        // Of a limit of 10.
        trends.record(at(0), &[account(1, 10, 0, 0)]);
        trends.record(at(5), &[account(1, 0, 0, 0)]);
        trends.record(at(16), &[account(1, 1, 2, 0)]);
        trends.record(at(20), &[account(1, 1, 0, 9)]);
        trends.record(at(50), &[account(1, 5, 3, 0)]);
        let shown = trends.of(at(60), &account(1, 0, 0, 0)).unwrap();
        assert_eq!(shown, ("z40i0".to_owned(), ".c q ".to_owned()));
        assert_eq!(trends.of(at(60), &account(2, 0, 0, 0)), None);
        // 15 minutes later only the last one is left.
        let (used, states) = trends.of(at(15 * 60 + 40), &account(1, 0, 0, 0)).unwrap();
        assert_eq!((used.len(), states.trim()), (60, "q"));
    }

    #[test]
    fn as_many_budgets_are_kept_as_there_is_room_for() {
        let start = Clock::system().now();
        let mut trends = Trends::default();
        for n in 0..100 {
            let now = start + Duration::from_secs(5 * u64::from(n));
            let some: Vec<_> = (0..200).map(|m| account(n * 200 + m, 1, 0, 0)).collect();
            trends.record(now, &some);
            assert!(trends.tracks.len() <= MOST);
            assert!(trends.of(now, &some[0]).is_some());
        }
        // Those that are no longer recorded are forgotten.
        trends.record(start + Duration::from_secs(3_600), &[account(1, 0, 0, 0)]);
        assert_eq!(trends.tracks.len(), 1);
    }
}
