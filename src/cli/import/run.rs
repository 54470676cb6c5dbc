//! A running import: what those who hand rows over, follow them and show progress share.
//!
//! Invariant: once a cause to stop is known, no further row is handed over. What the gateway has
//! accepted by then stays accepted; only an interruption also ends the wait for its outcome.

use super::client::GatewayClient;
use super::result::RowResult;
use super::row::ImportRow;
use super::state::{ImportState, RowCounts};
use super::stop::StopCause;
use crate::clock::Clock;
use crate::journal::WriteId;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

/// An import under way.
pub(super) struct ImportRun {
    /// The rows of the file.
    pub(super) rows: Vec<ImportRow>,
    /// The name of the run, which is part of each key.
    pub(super) name: String,
    /// The connections to the gateway.
    pub(super) client: GatewayClient,
    clock: Clock,
    began: Instant,
    state: Mutex<ImportState>,
    /// The instant before which no row is handed over, because the gateway said so.
    not_before: Mutex<Instant>,
    /// What keeps the import from going on at present, for people.
    obstacle: Mutex<String>,
    is_handed_over: AtomicBool,
    /// The rows that the gateway has accepted since it last accepted no more.
    burst: AtomicUsize,
    stop: watch::Sender<Option<StopCause>>,
}

impl ImportRun {
    /// Returns an import of which nothing is handed over yet.
    pub(super) fn new(
        rows: Vec<ImportRow>,
        name: String,
        client: GatewayClient,
        clock: Clock,
    ) -> Self {
        Self {
            state: Mutex::new(ImportState::new(rows.len())),
            rows,
            name,
            client,
            began: clock.now(),
            not_before: Mutex::new(clock.now()),
            obstacle: Mutex::default(),
            is_handed_over: AtomicBool::new(false),
            burst: AtomicUsize::new(0),
            stop: watch::Sender::new(None),
            clock,
        }
    }

    /// Takes the next row to hand over; `None` if there is none, or if the import stops.
    pub(super) fn take_next(&self) -> Option<usize> {
        match self.stopped() {
            Some(_) => None,
            None => self.state.lock().take_next(),
        }
    }

    /// Notes what is known of a row.
    pub(super) fn note(&self, row: usize, result: RowResult) {
        self.state.lock().note(row, result);
    }

    /// Notes that the gateway has accepted a row.
    pub(super) fn accepted(&self, row: usize, id: WriteId) {
        self.burst.fetch_add(1, Ordering::Relaxed);
        self.note(row, RowResult::waiting(id));
    }

    /// Notes that the gateway accepts no more at present, and returns the number of rows that it
    /// has accepted since it last did so.
    pub(super) fn end_burst(&self) -> usize {
        self.burst.swap(0, Ordering::Relaxed)
    }

    /// Notes the outcome of a write.
    pub(super) fn ended(&self, id: WriteId, result: RowResult) {
        self.state.lock().ended(id, result);
    }

    /// Looks at the state.
    pub(super) fn look<T>(&self, at: impl FnOnce(&ImportState) -> T) -> T {
        at(&self.state.lock())
    }

    /// Returns the number of rows in each outcome.
    pub(super) fn counts(&self) -> RowCounts {
        self.look(ImportState::counts)
    }

    /// Returns the time since the import began.
    pub(super) fn age(&self) -> Duration {
        self.clock.now() - self.began
    }

    /// Keeps all rows from being handed over for this time. `why` is shown meanwhile.
    pub(super) fn hold(&self, time: Duration, why: String) {
        let until = self.clock.now() + time;
        let mut not_before = self.not_before.lock();
        *not_before = until.max(*not_before);
        *self.obstacle.lock() = why;
    }

    /// Notes that nothing keeps the import from going on.
    pub(super) fn goes_on(&self) {
        self.obstacle.lock().clear();
    }

    /// Says what keeps the import from going on.
    pub(super) fn hindered(&self, why: &str) {
        why.clone_into(&mut self.obstacle.lock());
    }

    /// Returns what keeps the import from going on; empty if nothing does.
    pub(super) fn obstacle(&self) -> String {
        self.obstacle.lock().clone()
    }

    /// Waits until rows may be handed over, or the import stops.
    pub(super) async fn may_hand_over(&self) {
        let mut stop = self.stop.subscribe();
        loop {
            let until = *self.not_before.lock();
            if until <= self.clock.now() || stop.borrow().is_some() {
                return;
            }
            tokio::select! {
                () = sleep_until(until.into()) => {}
                _ = stop.changed() => {}
            }
        }
    }

    /// Stops the import. The first cause counts, but for an interruption.
    pub(super) fn stop(&self, cause: StopCause) {
        self.stop.send_if_modified(|known| {
            let is_news = known.is_none() || cause == StopCause::Interrupted;
            if is_news {
                *known = Some(cause);
            }
            is_news
        });
    }

    /// Returns why the import stops, if it does.
    pub(super) fn stopped(&self) -> Option<StopCause> {
        self.stop.borrow().clone()
    }

    /// Returns whether the outcomes are not to be waited for any more.
    pub(super) fn is_interrupted(&self) -> bool {
        self.stopped() == Some(StopCause::Interrupted)
    }

    /// Waits for this time, or until the import is interrupted.
    pub(super) async fn sleep(&self, time: Duration) {
        let mut stop = self.stop.subscribe();
        let interrupted = stop.wait_for(|cause| *cause == Some(StopCause::Interrupted));
        let _ = timeout(time, interrupted).await;
    }

    /// Notes that no further row will be handed over.
    pub(super) fn handed_over(&self) {
        self.is_handed_over.store(true, Ordering::Release);
    }

    /// Returns whether no further row will be handed over.
    pub(super) fn is_handed_over(&self) -> bool {
        self.is_handed_over.load(Ordering::Acquire)
    }
}
