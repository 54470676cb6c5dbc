//! A running import: what those who hand rows over, follow them and show progress share.
//!
//! Invariant: every row has one result, and one that has ended stays as it is, whatever is heard of
//! it later. Once a cause to stop is known, no further row is handed over. What the gateway has
//! accepted by then stays accepted.

use super::client::GatewayClient;
use super::outcome::{RowCounts, RowOutcome, RowResult};
use super::row::ImportRow;
use crate::journal::WriteId;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Why an import stops before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StopCause {
    /// The reason, in words for the user.
    pub(super) why: String,
    /// Whether the same command goes on when it runs again. Otherwise the reason says what is to be
    /// done first.
    pub(super) is_resumable: bool,
}

/// An import under way.
pub(super) struct ImportRun {
    /// The rows of the file.
    pub(super) rows: Vec<ImportRow>,
    /// The name of the run, which is part of each key.
    pub(super) name: String,
    /// The connections to the gateway.
    pub(super) client: GatewayClient,
    state: Mutex<ImportState>,
    stop: watch::Sender<Option<StopCause>>,
}

struct ImportState {
    /// The results of the rows, in their order.
    results: Vec<RowResult>,
    /// The first row that was not taken to be handed over.
    next: usize,
    /// What keeps the import from going on at present, for people.
    obstacle: String,
}

impl ImportRun {
    /// Returns an import of which nothing is handed over yet.
    pub(super) fn new(rows: Vec<ImportRow>, name: String, client: GatewayClient) -> Self {
        Self {
            state: Mutex::new(ImportState {
                results: vec![RowResult::new(RowOutcome::Unsent, ""); rows.len()],
                next: 0,
                obstacle: String::new(),
            }),
            rows,
            name,
            client,
            stop: watch::Sender::new(None),
        }
    }

    /// Takes the next row to hand over, by its index; `None` if there is none, or if the import
    /// stops.
    pub(super) fn take_next(&self) -> Option<usize> {
        let mut state = self.state.lock();
        let row = state.next;
        let is_left = row < self.rows.len() && self.stopped().is_none();
        state.next += usize::from(is_left);
        is_left.then_some(row)
    }

    /// Notes what is known of a row. What keeps the import from going on is over then.
    pub(super) fn note(&self, row: usize, result: RowResult) {
        let mut state = self.state.lock();
        state.obstacle.clear();
        if let Some(known) = state.results.get_mut(row)
            && !known.outcome.is_final()
        {
            *known = result;
        }
    }

    /// Returns the rows that the gateway has and that have not ended, with their writes.
    pub(super) fn waiting(&self) -> Vec<(usize, WriteId)> {
        let state = self.state.lock();
        let rows = state.results.iter().enumerate();
        let waiting = rows.filter(|(_, result)| result.outcome == RowOutcome::Waiting);
        waiting
            .filter_map(|(row, result)| Some((row, result.id?)))
            .collect()
    }

    /// Returns the results of all rows.
    pub(super) fn results(&self) -> Vec<RowResult> {
        self.state.lock().results.clone()
    }

    /// Returns the number of rows in each outcome.
    pub(super) fn counts(&self) -> RowCounts {
        RowCounts::of_all(&self.state.lock().results)
    }

    /// Says what keeps the import from going on; nothing if it is empty.
    pub(super) fn hindered(&self, why: &str) {
        why.clone_into(&mut self.state.lock().obstacle);
    }

    /// Returns what keeps the import from going on; empty if nothing does.
    pub(super) fn obstacle(&self) -> String {
        self.state.lock().obstacle.clone()
    }

    /// Stops the import. The first cause counts.
    pub(super) fn stop(&self, why: String, is_resumable: bool) {
        self.stop.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert(StopCause { why, is_resumable });
            is_first
        });
    }

    /// Returns why the import stops, if it does.
    pub(super) fn stopped(&self) -> Option<StopCause> {
        self.stop.borrow().clone()
    }

    /// Waits until the import stops.
    pub(super) async fn stopping(&self) {
        // The sender is a part of `self`, so it is not gone meanwhile.
        let _ = self.stop.subscribe().wait_for(Option::is_some).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use http::HeaderValue;

    fn id(n: usize) -> WriteId {
        format!("0192f0c1-2a3b-7c4d-8e5f-{n:012}").parse().unwrap()
    }

    fn run(rows: usize) -> ImportRun {
        let token = HeaderValue::from_static("Bearer token");
        let client = GatewayClient::new("http://127.0.0.1:1", token, &Clock::system()).unwrap();
        let row = |n| ImportRow::invite(n + 2, &format!("p{n}@b.example"), Vec::new());
        ImportRun::new((0..rows).map(row).collect(), String::new(), client)
    }

    #[tokio::test]
    async fn rows_are_taken_once_and_none_after_a_stop() {
        let run = run(3);
        assert_eq!([run.take_next(), run.take_next()], [Some(0), Some(1)]);
        run.stop("first".to_owned(), false);
        run.stop("second".to_owned(), true);
        let cause = StopCause {
            why: "first".to_owned(),
            is_resumable: false,
        };
        assert_eq!(run.stopped(), Some(cause));
        assert_eq!(run.take_next(), None);
        run.stopping().await;
    }

    #[tokio::test]
    async fn what_ended_stays() {
        let run = run(3);
        run.note(0, RowResult::waiting(id(1)));
        run.note(2, RowResult::waiting(id(3)));
        assert_eq!(run.waiting(), [(0, id(1)), (2, id(3))]);
        run.hindered("why");
        run.note(0, RowResult::new(RowOutcome::Unknown, "lost"));
        assert_eq!(run.obstacle(), "");
        run.note(0, RowResult::new(RowOutcome::Succeeded, ""));
        assert_eq!(run.results()[0].error.message, "lost");
        assert_eq!(run.waiting(), [(2, id(3))]);
        let counts = run.counts();
        assert_eq!((counts.rows(), counts.ended()), (3, 1));
        assert_eq!(counts.of(RowOutcome::Unsent), 1);
    }
}
