//! The task of a durable write: it runs the [engine](crate::write::engine), and does with the write
//! what the engine leaves it for.
//!
//! Invariant: a write has one task at most. It may be stopped only while the write waits: from the
//! moment that it is recorded as sent, it is carried to its end, or to where it may wait again.

use crate::error::GatewayError;
use crate::exchange::timing::Timing;
use crate::journal::State;
use crate::lanes::LanePosition;
use crate::tasks;
use crate::write::Writes;
use crate::write::active::{ActiveWrite, Ending, RunEnd};
use crate::write::durable::ScheduledGuard;
use crate::write::durable::pending::PendingWrite;
use crate::write::durable::stage::Stage;
use std::sync::Arc;

impl Writes {
    /// Begins the task of a write that stands in its budget's line.
    pub(super) fn drive(
        self: &Arc<Self>,
        entry: Arc<PendingWrite>,
        write: ActiveWrite,
        place: LanePosition,
    ) {
        let writes = self.clone();
        self.guarded(entry.clone(), async move {
            writes.carry(&entry, write, place).await;
        });
    }

    /// Begins the task of a deferred write: it brings the write before its budget and carries it
    /// from there.
    pub(super) fn schedule(self: &Arc<Self>, entry: Arc<PendingWrite>, scheduled: ScheduledGuard) {
        let writes = self.clone();
        self.guarded(entry.clone(), async move {
            let Some(mut place) = entry.take_place() else {
                return;
            };
            // It may have been scheduled to join a batch while its lanes are closed.
            place.look_again();
            match writes.stand_in_line(&entry, place.is_blocked()).await {
                Some((context, ticket)) => {
                    place.waits_at(ticket.place());
                    let mut write = ActiveWrite::new(context, ticket, Some(entry.clone()));
                    write.scheduled = Some(scheduled);
                    writes.carry(&entry, write, place).await;
                }
                None if writes.is_draining() => entry.parked(place),
                None => {
                    tracing::error!(
                        id = %entry.id,
                        request_id = entry.request_id(),
                        "durable write is missing from the journal"
                    );
                    writes.durable.refuse(&entry, GatewayError::WriteCancelled);
                }
            }
        });
    }

    /// Runs the engine, and records the end, or lets the write wait elsewhere.
    async fn carry(
        self: &Arc<Self>,
        entry: &Arc<PendingWrite>,
        mut write: ActiveWrite,
        place: LanePosition,
    ) {
        let end = self.run(&mut write, place).await;
        // It stands before its budget no longer, also if it is deferred again below.
        drop(write.scheduled.take());
        // Stopping waits for what follows.
        write
            .running
            .get_or_insert_with(|| self.tasks.begin("durable write"));
        match end {
            RunEnd::Ended(ending) => {
                let Ending {
                    state,
                    heard,
                    place,
                } = *ending;
                let answer = heard.ok().map(|answer| *answer);
                self.end(entry, state, answer, &write.timing).await;
                // The lanes open only now that the journal has the end.
                drop(place);
            }
            RunEnd::Stopped(place) => self.park(entry, place),
            RunEnd::Paused(place) => {
                self.record_requeue(entry).await;
                self.pause_credential(entry.credential).await;
                self.defer(entry, place);
            }
        }
    }

    /// Runs the task of a write. If it panics, the outcome of a write that was sent is unknown.
    fn guarded(
        self: &Arc<Self>,
        entry: Arc<PendingWrite>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let writes = self.clone();
        tasks::detached(async move {
            if tasks::detached(work).await.is_ok() {
                return;
            }
            tracing::error!(
                id = %entry.id,
                request_id = entry.request_id(),
                "task of a durable write failed"
            );
            if entry.task_failed() {
                writes
                    .end(&entry, State::Unknown, None, &Timing::default())
                    .await;
            }
        });
    }

    /// Leaves a write to the request that cancels it, or to the next process if the gateway stops.
    /// If neither is so, it waits again.
    fn park(&self, entry: &Arc<PendingWrite>, place: LanePosition) {
        if self.is_draining() {
            return entry.parked(place);
        }
        if let Some(place) = entry.put_back(place) {
            self.defer(entry, place);
        }
    }

    /// Marks a write as sent, unless it is being cancelled, or nobody waits for it and its
    /// credential was refused while it stood in line. Returns whether it may be sent.
    pub(crate) fn try_dispatch(&self, entry: &PendingWrite) -> bool {
        let waits = entry.deferred && matches!(entry.stage(), Stage::Queued);
        let has_to_wait = waits
            && self
                .durable
                .shared
                .scheduler
                .lock()
                .is_refused(entry.credential);
        !has_to_wait && entry.try_dispatch()
    }
}
