//! Pure. How far an import came: which rows were handed over, which of them the gateway still has,
//! and the outcomes of the others.
//!
//! Invariant: every row is in one outcome, and the counts add up to the number of rows. A row that
//! has ended stays as it is, whatever is heard of it later.

use super::result::{RowOutcome, RowResult};
use crate::journal::WriteId;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

/// The rows of an import by their outcome.
#[derive(Debug)]
pub(super) struct ImportState {
    results: Vec<RowResult>,
    /// The first row that was not taken to be handed over.
    next: usize,
    /// The rows that the gateway has and that have not ended, by the ids of their writes. Ids grow
    /// in the order in which the gateway accepted the writes, and it lists them in that order.
    waiting: BTreeMap<WriteId, usize>,
}

/// The number of rows in each outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RowCounts([usize; RowOutcome::ALL.len()]);

impl RowCounts {
    /// Counts results.
    pub(super) fn of_all(results: &[RowResult]) -> Self {
        let mut counts = Self::default();
        for result in results {
            counts.0[result.outcome as usize] += 1;
        }
        counts
    }

    /// Returns the number of rows with this outcome.
    pub(super) fn of(&self, outcome: RowOutcome) -> usize {
        self.0[outcome as usize]
    }

    /// Returns the number of all rows.
    pub(super) fn rows(&self) -> usize {
        self.0.iter().sum()
    }

    /// Returns the number of rows of which nothing more is to be heard.
    pub(super) fn ended(&self) -> usize {
        self.rows() - self.of(RowOutcome::Waiting) - self.of(RowOutcome::Unsent)
    }

    /// Returns the numbers in words; outcomes without a row are left out.
    pub(super) fn in_words(&self) -> String {
        let counted = RowOutcome::ALL.into_iter().filter(|one| self.of(*one) > 0);
        let words: Vec<String> = counted
            .map(|one| format!("{} {}", self.of(one), one.as_str()))
            .collect();
        words.join(", ")
    }
}

impl ImportState {
    /// Returns the state before the first of so many rows is handed over.
    pub(super) fn new(rows: usize) -> Self {
        Self {
            results: vec![RowResult::new(RowOutcome::Unsent, ""); rows],
            next: 0,
            waiting: BTreeMap::new(),
        }
    }

    /// Takes the next row to hand over, by its index.
    pub(super) fn take_next(&mut self) -> Option<usize> {
        let row = self.next;
        if row == self.results.len() {
            return None;
        }
        self.next += 1;
        Some(row)
    }

    /// Notes what is known of a row.
    pub(super) fn note(&mut self, row: usize, result: RowResult) {
        let Some(known) = self.results.get_mut(row) else {
            return;
        };
        if !matches!(known.outcome, RowOutcome::Unsent | RowOutcome::Waiting) {
            return;
        }
        if let (RowOutcome::Waiting, Some(id)) = (result.outcome, result.id) {
            self.waiting.insert(id, row);
        }
        *known = result;
    }

    /// Notes the outcome of a write that was waiting. Writes of others are passed over.
    pub(super) fn ended(&mut self, id: WriteId, result: RowResult) {
        if let Some(row) = self.waiting.remove(&id) {
            self.note(row, result);
        }
    }

    /// Returns the waiting write that was accepted first.
    pub(super) fn oldest_waiting(&self) -> Option<WriteId> {
        self.waiting.keys().next().copied()
    }

    /// Returns the waiting writes that were accepted after this one, in order.
    pub(super) fn waiting_after(&self, id: WriteId) -> Vec<WriteId> {
        let later = self.waiting.range((Excluded(id), Unbounded));
        later.map(|(id, _)| *id).collect()
    }

    /// Returns the results of all rows, in the order of the file.
    pub(super) fn results(&self) -> &[RowResult] {
        &self.results
    }

    /// Returns the number of rows in each outcome.
    pub(super) fn counts(&self) -> RowCounts {
        RowCounts::of_all(&self.results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: usize) -> WriteId {
        format!("0192f0c1-2a3b-7c4d-8e5f-{n:012}").parse().unwrap()
    }

    #[test]
    fn rows_are_taken_once_and_in_order() {
        let mut state = ImportState::new(2);
        assert_eq!(
            [state.take_next(), state.take_next(), state.take_next()],
            [Some(0), Some(1), None]
        );
        assert_eq!(state.counts().in_words(), "2 unsent");
    }

    #[test]
    fn what_ended_stays() {
        let mut state = ImportState::new(3);
        state.note(0, RowResult::waiting(id(1)));
        state.note(1, RowResult::waiting(id(3)));
        assert_eq!(state.oldest_waiting(), Some(id(1)));
        assert_eq!(state.waiting_after(id(1)), [id(3)]);
        assert_eq!(state.counts().in_words(), "2 waiting, 1 unsent");
        state.ended(id(1), RowResult::new(RowOutcome::Unknown, "why"));
        // Not ours, heard again, or heard too late.
        state.ended(id(2), RowResult::new(RowOutcome::Failed, ""));
        state.ended(id(1), RowResult::new(RowOutcome::Succeeded, ""));
        state.note(0, RowResult::new(RowOutcome::Failed, ""));
        assert_eq!(state.results()[0].error.message, "why");
        let counts = state.counts();
        assert_eq!(counts.in_words(), "1 unknown, 1 waiting, 1 unsent");
        assert_eq!((counts.rows(), counts.ended()), (3, 1));
        assert_eq!(state.oldest_waiting(), Some(id(3)));
    }

    proptest! {
        /// Whatever happens in whatever order, the counts add up, and what waits is what is waited
        /// for.
        #[test]
        fn every_row_is_counted_once(
            steps in prop::collection::vec((0usize..5, 0usize..5, 0usize..6), 0..40),
        ) {
            let mut state = ImportState::new(5);
            for (row, write, outcome) in steps {
                match RowOutcome::ALL[outcome] {
                    // A row has one write.
                    RowOutcome::Waiting => state.note(row, RowResult::waiting(id(row))),
                    RowOutcome::Unsent => drop(state.take_next()),
                    outcome => state.ended(id(write), RowResult::new(outcome, "")),
                }
                let counts = state.counts();
                prop_assert_eq!(counts.rows(), 5);
                let waiting: Vec<_> = state.oldest_waiting().into_iter().collect();
                let more = waiting.first().map(|id| state.waiting_after(*id).len());
                let waiting = waiting.len() + more.unwrap_or(0);
                prop_assert_eq!(waiting, counts.of(RowOutcome::Waiting));
            }
        }
    }
}
