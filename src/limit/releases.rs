//! Pure. When the occupied slots of a budget are returned.
//!
//! The end of each attempt is noted, and how long it occupies a slot is looked up on each question.
//! So another window applies to all of them at once. The ends of one kind come in order, so each
//! kind is a sorted queue of instants with counts. Each operation takes a time that is logarithmic
//! in the slots in use, or proportional to what is read. None depends on the limit.
//!
//! Returned slots stay returned: a longer window holds back only what is still noted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// The reason why a slot is occupied, which decides for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotUse {
    /// An attempt of ours got a response.
    Answered,
    /// An attempt of ours ended without a response.
    Unanswered,
    /// Another user of the token was seen to use the slot.
    Foreign,
    /// An earlier process used the slot.
    Restored,
}

/// How long each use occupies a slot from its end on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds {
    /// See [`SlotUse::Answered`].
    pub answered: Duration,
    /// See [`SlotUse::Unanswered`].
    pub unanswered: Duration,
    /// See [`SlotUse::Foreign`].
    pub foreign: Duration,
    /// See [`SlotUse::Restored`]. Counts from the instant that was noted for the slot.
    pub restored: Duration,
}

/// Instants in order, and the number of ends up to and including each, over the life of the queue.
#[derive(Clone, Debug, Default)]
struct EndTimes {
    /// Each instant once, with the number of ends up to and including it.
    ends: VecDeque<(Instant, u64)>,
    /// The number of ends removed from the front.
    gone: u64,
}

/// The occupied slots whose return is known, by use.
#[derive(Clone, Debug, Default)]
pub struct Releases {
    runs: [EndTimes; 4],
}

impl EndTimes {
    /// The number of all ends over the life of the queue.
    fn total(&self) -> u64 {
        self.ends.back().map_or(self.gone, |(_, total)| *total)
    }

    /// Adds ends at an instant that is not before the last one.
    fn push(&mut self, at: Instant, count: u64) {
        if count == 0 {
            return;
        }
        let total = self.total() + count;
        match self.ends.back_mut() {
            // Never before one that is noted already: too late is safe.
            Some(last) if last.0 >= at => last.1 = total,
            _ => self.ends.push_back((at, total)),
        }
    }

    /// Forgets the ends up to and including `at`.
    fn expire(&mut self, at: Instant) {
        // Sorted, so the first one that is kept ends the search.
        while let Some((end, total)) = self.ends.front().copied() {
            if end > at {
                return;
            }
            self.gone = total;
            self.ends.pop_front();
        }
    }

    /// The number of ends that are not forgotten.
    fn len(&self) -> u64 {
        self.total() - self.gone
    }

    /// The number of ends up to and including `at`.
    fn until(&self, at: Instant) -> u64 {
        let index = self.ends.partition_point(|(end, _)| *end <= at);
        match index.checked_sub(1) {
            Some(last) => self.ends[last].1 - self.gone,
            None => 0,
        }
    }
}

impl Holds {
    /// The hold of the queue with this index, in the order of [`SlotUse`].
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
    /// Notes that `count` uses of this kind ended at `at`. For [`SlotUse::Restored`] that is the
    /// instant at which the slot is returned.
    pub fn push(&mut self, kind: SlotUse, at: Instant, count: u32) {
        self.runs[kind as usize].push(at, u64::from(count));
    }

    /// Returns all slots that are free at `now`.
    pub fn expire(&mut self, holds: &Holds, now: Instant) {
        for (kind, run) in self.runs.iter_mut().enumerate() {
            if let Some(ended) = now.checked_sub(holds.of(kind)) {
                run.expire(ended);
            }
        }
    }

    /// The number of occupied slots.
    pub fn count(&self) -> u64 {
        self.runs.iter().map(EndTimes::len).sum()
    }

    /// The number of entries in memory.
    #[cfg(test)]
    pub fn entries(&self) -> usize {
        self.runs.iter().map(|run| run.ends.len()).sum()
    }

    /// The number of slots occupied by this kind of use.
    pub fn of(&self, kind: SlotUse) -> u64 {
        self.runs[kind as usize].len()
    }

    /// The number of the occupied slots that are free at `at`.
    pub fn free_at(&self, holds: &Holds, at: Instant) -> u64 {
        let runs = self.runs.iter().enumerate();
        runs.filter_map(|(kind, run)| Some(run.until(at.checked_sub(holds.of(kind))?)))
            .sum()
    }

    /// When `number` + 1 of the occupied slots are free.
    pub fn nth(&self, holds: &Holds, number: u64) -> Option<Instant> {
        if number == 0 {
            return self.first(holds);
        }
        // Of each queue, the first end by whose return enough slots are free in all of them. A
        // binary search, because that number only grows along the queue.
        let first_enough = |(kind, run): (usize, &EndTimes)| {
            let hold = holds.of(kind);
            let enough = |end: Instant| self.free_at(holds, end + hold) > number;
            let index = run.ends.partition_point(|(end, _)| !enough(*end));
            run.ends.get(index).map(|(end, _)| *end + hold)
        };
        self.runs.iter().enumerate().filter_map(first_enough).min()
    }

    /// When the first occupied slot is free.
    pub fn first(&self, holds: &Holds) -> Option<Instant> {
        let runs = self.runs.iter().enumerate();
        runs.filter_map(|(kind, run)| Some(run.ends.front()?.0 + holds.of(kind)))
            .min()
    }

    /// When each is free, the soonest first, without the first `skipped`.
    pub fn after<'r>(
        &'r self,
        holds: &'r Holds,
        skipped: u64,
    ) -> impl Iterator<Item = Instant> + 'r {
        // Of each kind, those that are free before the first one that is not skipped.
        let start = self.nth(holds, skipped);
        let mut next: [(usize, u64); 4] = Default::default();
        let mut passed = 0;
        for (kind, run) in self.runs.iter().enumerate() {
            let hold = holds.of(kind);
            let index = start.map_or(run.ends.len(), |start| {
                run.ends.partition_point(|(end, _)| *end + hold < start)
            });
            // The number before that index, over the life of the queue.
            let counted = match index.checked_sub(1) {
                Some(last) => run.ends[last].1,
                None => run.gone,
            };
            next[kind] = (index, counted);
            passed += counted - run.gone;
        }
        // Of those that are free at the same instant as the first one, some are skipped as well.
        let mut surplus = skipped.saturating_sub(passed);
        // The next return of all queues is the earliest of their next ones.
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

    /// A copy that is exact for the first `most`, and for the others no more optimistic.
    pub fn first_of(&self, most: usize) -> Self {
        let mut copy = Self::default();
        for (mine, run) in copy.runs.iter_mut().zip(&self.runs) {
            mine.gone = run.gone;
            mine.ends = run.ends.iter().take(most).copied().collect();
            // The others are all taken to be returned with the last one.
            if run.ends.len() > most
                && let Some(last) = run.ends.back()
            {
                mine.ends.push_back(*last);
            }
        }
        copy
    }
}
