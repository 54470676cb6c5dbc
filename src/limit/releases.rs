//! Pure. When the occupied slots of a budget come free.
//!
//! Attempts are noted when they end, and how long an end occupies a slot is looked up when it is
//! asked for: so another window applies to all of them at once. Ends of one kind come in order,
//! so each kind is a sorted queue of instants with counts, and everything here takes a time that
//! is logarithmic in the slots in use, or proportional to what is read. Nothing depends on the
//! limit.
//!
//! Slots that were given back stay given back: a longer window holds back what is still noted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// Why a slot is occupied, which decides for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An attempt of ours was answered.
    Answered,
    /// An attempt of ours ended without an answer.
    Unanswered,
    /// Someone else who uses the token was seen to use it.
    Foreign,
    /// An earlier process used it.
    Restored,
}

/// How long an end of each kind occupies a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds {
    /// See [`Kind::Answered`].
    pub answered: Duration,
    /// See [`Kind::Unanswered`].
    pub unanswered: Duration,
    /// See [`Kind::Foreign`].
    pub foreign: Duration,
    /// By how much longer than it was told is one of these occupied.
    pub restored: Duration,
}

/// Instants in order, and how many up to and including each, over the life of the queue.
#[derive(Clone, Debug, Default)]
struct Run {
    ends: VecDeque<(Instant, u64)>,
    /// How many were removed from the front.
    gone: u64,
}

/// The occupied slots whose end is known.
#[derive(Clone, Debug, Default)]
pub struct Releases {
    runs: [Run; 4],
}

impl Run {
    fn total(&self) -> u64 {
        self.ends.back().map_or(self.gone, |(_, total)| *total)
    }

    fn push(&mut self, at: Instant, count: u64) {
        if count == 0 {
            return;
        }
        let total = self.total() + count;
        match self.ends.back_mut() {
            // Never before one that is there: later is safe.
            Some(last) if last.0 >= at => last.1 = total,
            _ => self.ends.push_back((at, total)),
        }
    }

    /// Forgets those up to and including `at`.
    fn expire(&mut self, at: Instant) {
        while let Some((end, total)) = self.ends.front().copied() {
            if end > at {
                return;
            }
            self.gone = total;
            self.ends.pop_front();
        }
    }

    fn len(&self) -> u64 {
        self.total() - self.gone
    }

    /// How many up to and including `at`.
    fn until(&self, at: Instant) -> u64 {
        let index = self.ends.partition_point(|(end, _)| *end <= at);
        match index.checked_sub(1) {
            Some(last) => self.ends[last].1 - self.gone,
            None => 0,
        }
    }
}

impl Holds {
    fn of(&self, kind: usize) -> Duration {
        match kind {
            0 => self.answered,
            1 => self.unanswered,
            2 => self.foreign,
            _ => self.restored,
        }
    }
}

impl Releases {
    /// Notes that `count` of this kind ended at `at`; of [`Kind::Restored`], that one comes free
    /// then.
    pub fn push(&mut self, kind: Kind, at: Instant, count: u32) {
        self.runs[kind as usize].push(at, u64::from(count));
    }

    /// Gives back whatever is free at `now`.
    pub fn expire(&mut self, holds: &Holds, now: Instant) {
        for (kind, run) in self.runs.iter_mut().enumerate() {
            if let Some(ended) = now.checked_sub(holds.of(kind)) {
                run.expire(ended);
            }
        }
    }

    /// How many are noted.
    pub fn count(&self) -> u64 {
        self.runs.iter().map(Run::len).sum()
    }

    /// Entries in memory.
    #[cfg(test)]
    pub fn entries(&self) -> usize {
        self.runs.iter().map(|run| run.ends.len()).sum()
    }

    /// How many of this kind are noted.
    pub fn of(&self, kind: Kind) -> u64 {
        self.runs[kind as usize].len()
    }

    /// How many of those noted are free at `at`.
    pub fn free_at(&self, holds: &Holds, at: Instant) -> u64 {
        let runs = self.runs.iter().enumerate();
        runs.filter_map(|(kind, run)| Some(run.until(at.checked_sub(holds.of(kind))?)))
            .sum()
    }

    /// When so many and one more are free, of all that are noted.
    pub fn nth(&self, holds: &Holds, number: u64) -> Option<Instant> {
        if number == 0 {
            return self.first(holds);
        }
        let first_enough = |(kind, run): (usize, &Run)| {
            let hold = holds.of(kind);
            let enough = |end: Instant| self.free_at(holds, end + hold) > number;
            let index = run.ends.partition_point(|(end, _)| !enough(*end));
            run.ends.get(index).map(|(end, _)| *end + hold)
        };
        self.runs.iter().enumerate().filter_map(first_enough).min()
    }

    /// When the first of them is free.
    pub fn first(&self, holds: &Holds) -> Option<Instant> {
        let runs = self.runs.iter().enumerate();
        runs.filter_map(|(kind, run)| Some(run.ends.front()?.0 + holds.of(kind)))
            .min()
    }

    /// When each comes free, soonest first, without the `skipped` that are first.
    pub fn after<'r>(
        &'r self,
        holds: &'r Holds,
        skipped: u64,
    ) -> impl Iterator<Item = Instant> + 'r {
        // Those that are free before the first one that is not skipped, of each kind.
        let start = self.nth(holds, skipped);
        let mut next: [(usize, u64); 4] = Default::default();
        let mut passed = 0;
        for (kind, run) in self.runs.iter().enumerate() {
            let hold = holds.of(kind);
            let index = start.map_or(run.ends.len(), |start| {
                run.ends.partition_point(|(end, _)| *end + hold < start)
            });
            let counted = match index.checked_sub(1) {
                Some(last) => run.ends[last].1,
                None => run.gone,
            };
            next[kind] = (index, counted);
            passed += counted - run.gone;
        }
        let mut surplus = skipped.saturating_sub(passed);
        let each = move || {
            let runs = self.runs.iter().enumerate();
            let heads = runs.filter_map(|(kind, run)| {
                let (end, _) = run.ends.get(next[kind].0)?;
                Some((*end + holds.of(kind), kind))
            });
            let (at, kind) = heads.min()?;
            let (index, counted) = &mut next[kind];
            *counted += 1;
            if *counted >= self.runs[kind].ends[*index].1 {
                *index += 1;
            }
            Some(at)
        };
        std::iter::from_fn(each).skip_while(move |_| {
            let skip = surplus > 0;
            surplus = surplus.saturating_sub(1);
            skip
        })
    }

    /// A copy that is exact for the first `most` and no more optimistic for the others.
    pub fn first_of(&self, most: usize) -> Self {
        let mut copy = Self::default();
        for (mine, run) in copy.runs.iter_mut().zip(&self.runs) {
            mine.gone = run.gone;
            mine.ends = run.ends.iter().take(most).copied().collect();
            if run.ends.len() > most
                && let Some(last) = run.ends.back()
            {
                mine.ends.push_back(*last);
            }
        }
        copy
    }
}
