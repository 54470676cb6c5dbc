//! Deferred writes wait: in their lanes, and for the scheduler, which brings them before their
//! budgets.
//!
//! A write whose caller does not wait for it is deferred when it is accepted. So is every write
//! that the last process left, one that was rebound, and one whose task let it go. All of them come
//! through [`Writes::defer`].
//!
//! Invariant: a deferred write has its place in the lanes from its acceptance on, but no task and
//! no place in the line of its budget until it is scheduled. So a hundred thousand of them cost
//! little more than their entries.
//!
//! Promises that a write whose lanes have opened is scheduled: the opening is either seen when it
//! enters the scheduler, or reported by [`Lanes::freed`](crate::lanes::Lanes::freed) afterwards.

use crate::exchange::request::RequestContext;
use crate::lanes::{LanePosition, Turn};
use crate::limit::turns::ClientWeights;
use crate::write::Writes;
use crate::write::durable::Durable;
use crate::write::durable::pending::PendingWrite;
use crate::write::durable::scheduler::LineKey;
use std::sync::Arc;

/// Counts a write among those that stand before a budget. Dropping it makes room for the next one,
/// which the scheduler then chooses. A write drops it when it has its turn, or leaves its task.
pub(crate) struct ScheduledGuard {
    durable: Durable,
    turn: Turn,
    line: LineKey,
}

impl Drop for ScheduledGuard {
    fn drop(&mut self) {
        let shared = &self.durable.shared;
        shared.scheduler.lock().gone(self.turn, &self.line);
        shared.wakeup.notify_one();
    }
}

impl Writes {
    /// Takes the place of a deferred write in its lanes, behind all that were accepted before.
    ///
    /// The estimates of later writes in these lanes count on its end behind all deferred writes.
    pub(super) fn enter_lanes(
        &self,
        pending: &PendingWrite,
        context: &RequestContext,
    ) -> LanePosition {
        let ahead = self.durable.shared.scheduler.lock().len();
        let (credential, budget) = (pending.credential, &pending.operation.budget);
        let expected = self.budgets.leaves_behind(credential, budget, ahead);
        let keys = self.order_keys(context);
        self.lanes.enter_named(credential, keys, expected)
    }

    /// Lets a write wait for the scheduler.
    ///
    /// The stage and the place come first: a write that the scheduler knows may be taken from there
    /// at any moment.
    pub(super) fn defer(&self, pending: &Arc<PendingWrite>, mut place: LanePosition) {
        place.wait_named();
        let turn = place.turn();
        pending.queued(Some(place));
        let line = line_of(pending);
        let mut scheduler = self.durable.shared.scheduler.lock();
        // Asked under the lock of the scheduler. Lanes that opened before are not reported again,
        // and the report of those that open later waits for this lock.
        let is_ready = self.lanes.is_ready(pending.credential, turn);
        scheduler.enter(turn, pending.clone(), line, pending.urgency, is_ready);
        drop(scheduler);
        self.durable.shared.wakeup.notify_one();
    }

    /// Lets a write go on that was held to be cancelled or rebound, and was not. If a task still
    /// has its place, the write goes on there.
    pub(super) fn defer_again(&self, pending: &Arc<PendingWrite>) {
        if let Some(place) = pending.not_cancelled() {
            self.defer(pending, place);
        }
    }

    /// Applies other weights of clients to the writes that are deferred.
    pub fn set_weights(&self, weights: Arc<ClientWeights>) {
        self.durable.shared.scheduler.lock().set_weights(weights);
    }

    /// Brings deferred writes before their budgets, for as long as the future is polled. Another
    /// future may take over from one that panicked.
    pub async fn drive_deferred(self: Arc<Self>) {
        loop {
            let follows = |credential, turn, these: &_| self.lanes.follows(credential, turn, these);
            let scheduled = self.durable.shared.scheduler.lock().schedule(follows);
            for (pending, turn, line) in scheduled {
                let durable = self.durable.clone();
                let guard = ScheduledGuard {
                    durable,
                    turn,
                    line,
                };
                self.schedule(pending, guard);
            }
            tokio::select! {
                () = self.durable.shared.wakeup.notified() => {}
                freed = self.lanes.freed() => {
                    let mut scheduler = self.durable.shared.scheduler.lock();
                    for turn in freed {
                        scheduler.ready(turn);
                    }
                }
            }
        }
    }
}

/// Returns what a write has in common with those that take turns with it in being scheduled.
pub(super) fn line_of(pending: &PendingWrite) -> LineKey {
    let merge = pending.operation.merge.as_ref();
    LineKey {
        credential: pending.credential,
        operation: pending.operation.name.clone(),
        caller: pending.caller.clone(),
        merges: merge.is_some_and(|merge| merge.enabled),
    }
}
