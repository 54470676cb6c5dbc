//! The entry of a durable write that has not ended: what is known of it, its stage, and who follows
//! it.
//!
//! An entry exists from its claim until the journal has the end. Several use it at once: the task
//! of the write, callers that wait for it, the scheduler, and requests that cancel or rebind it.
//!
//! Invariants:
//! - Every change of stage goes through one lock. So of cancelling, rebinding and sending a write,
//!   one succeeds, and the others learn that they came too late.
//! - The place in the lanes has one owner: the entry while no task runs the write, else the task.
//!   Dropping the place opens the lanes, so it is returned to the caller, who knows whether the
//!   journal has the end. It is not dropped under the lock.
//! - Attempts are only counted up, and doubt is never taken back: from the first attempt that may
//!   have taken effect on, the write cannot be cancelled.
//!
//! The steps between the stages are drawn in [`stage`](super::stage). Nothing here records, sends,
//! or waits for anything but a stage.

use crate::caller::Caller;
use crate::credential::Credential;
use crate::journal::{KeyHash, WriteId, WriteOwner};
use crate::lanes::{LanePosition, Turn};
use crate::limit::turns::Urgency;
use crate::route::policy::Operation;
use crate::write::durable::stage::{Completion, Stage, TooLate};
use crate::write::durable::summary::Summary;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tokio::sync::watch;

/// An `Idempotency-Key`, hashed, and the fingerprint of the request under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) hash: KeyHash,
    pub(crate) fingerprint: [u8; 32],
}

/// A durable write that has not ended. There may be a hundred thousand of them, so what most do not
/// have is boxed or made on demand.
#[derive(Debug)]
pub(crate) struct PendingWrite {
    pub(crate) id: WriteId,
    pub(crate) credential: Credential,
    pub(crate) operation: Arc<Operation>,
    pub(crate) caller: Caller,
    pub(crate) urgency: Urgency,
    pub(crate) key: Option<Box<Key>>,
    /// A short description of the write, for lists and the log.
    pub(super) summary: Arc<Summary>,
    /// The SHA-256 of its body, if there is one and an audit log.
    pub(super) body_digest: Option<Box<[u8; 32]>>,
    /// The bytes of its request.
    pub(crate) bytes: usize,
    /// Whether its caller does not wait for it.
    pub(crate) deferred: bool,
    /// When it was accepted, on both clocks. After a restart `accepted` is the instant of recovery.
    pub(crate) since: SystemTime,
    pub(crate) accepted: Instant,
    /// All that changes. The rest is fixed: a write that moves to another credential gets another
    /// entry.
    pub(super) state: PendingState,
}

/// One who follows the stages of a write. The last to leave takes the channel along: every deferred
/// write is followed until its caller has the 202, and by nobody for the hours after.
#[derive(Debug)]
pub(crate) struct StageFollower {
    pub(super) stages: watch::Receiver<Stage>,
    pending: Arc<PendingWrite>,
}

impl Drop for StageFollower {
    fn drop(&mut self) {
        let mut inner = self.pending.lock();
        // If two leave at once, the channel stays until the write has ended.
        inner.watch.take_if(|watch| watch.receiver_count() <= 1);
    }
}

/// What changes of a write, behind one lock. Only the methods of [`PendingWrite`] use it.
#[derive(Debug)]
pub(super) struct PendingState(Mutex<Inner>);

/// What the lock guards.
#[derive(Debug)]
struct Inner {
    stage: Stage,
    /// Created for the first who follows it, and dropped with the last: see [`StageFollower`].
    watch: Option<watch::Sender<Stage>>,
    /// Its place in the lanes, while no task has it.
    place: Option<LanePosition>,
    /// Its turn among all writes, by which the scheduler knows it. `None` if it was never deferred.
    turn: Option<Turn>,
    tries: Tries,
}

/// The attempts of a write, as far as they are known. After a restart, journal and ledger say what
/// the last process had sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tries {
    /// The number of attempts of this and earlier processes.
    pub(crate) attempts: u32,
    /// When the first was sent that may have taken effect.
    pub(crate) first_doubt: Option<Instant>,
    /// Until when one of them may still take effect.
    pub(crate) doubt: Option<Instant>,
    /// The batch in which this process sent it last.
    pub(crate) batch: Option<WriteId>,
}

impl PendingState {
    /// Returns the beginning of a write, which the last process may have tried to send.
    pub(super) fn new(tries: Tries) -> Self {
        Self(Mutex::new(Inner {
            stage: Stage::Accepting,
            watch: None,
            place: None,
            turn: None,
            tries,
        }))
    }
}

impl PendingWrite {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.0.lock()
    }

    /// Returns whether this owner made it.
    pub(super) fn is_of(&self, owner: &WriteOwner) -> bool {
        let client = self.caller.principal.client();
        self.credential == owner.credential && client == owner.client.as_ref()
    }

    /// Returns the id of the request that asked for it, for the log.
    pub(crate) fn request_id(&self) -> Option<&str> {
        self.summary.request_id.as_deref()
    }

    pub(crate) fn stage(&self) -> Stage {
        self.lock().stage.clone()
    }

    pub(crate) fn tries(&self) -> Tries {
        self.lock().tries
    }

    /// Returns its turn, if it has been deferred.
    pub(super) fn turn(&self) -> Option<Turn> {
        self.lock().turn
    }

    /// Follows its stage from now on. A slow follower sees the last stage and not those in between.
    pub(crate) fn watch(self: &Arc<Self>) -> StageFollower {
        let mut inner = self.lock();
        let stage = inner.stage.clone();
        let sender = inner.watch.get_or_insert_with(|| watch::channel(stage).0);
        StageFollower {
            stages: sender.subscribe(),
            pending: Arc::clone(self),
        }
    }

    /// Waits until it may not be sent any more.
    pub(crate) async fn stopped(self: &Arc<Self>) {
        let stops = |stage: &Stage| stage.is_over() || matches!(stage, Stage::Cancelling);
        let _ = self.watch().stages.wait_for(stops).await;
    }

    /// Waits until it has ended, or was not cancelled after all.
    pub(super) async fn cancellation_ended(self: &Arc<Self>) {
        let ends = |stage: &Stage| !matches!(stage, Stage::Cancelling);
        let _ = self.watch().stages.wait_for(ends).await;
    }

    pub(super) fn set(&self, stage: Stage) {
        self.lock().set(stage);
    }

    /// Notes that its task failed. Returns whether it may have been sent, so that its outcome is
    /// unknown. If not, the next process sends it, unless it has ended or is being cancelled.
    pub(super) fn task_failed(&self) -> bool {
        let mut inner = self.lock();
        match inner.stage {
            Stage::Sent => return true,
            Stage::Accepting | Stage::Queued => inner.set(Stage::Parked),
            _ => {}
        }
        false
    }

    /// Notes that the journal has it, and that it waits: with this place for the scheduler, or with
    /// a task, which has its place.
    pub(super) fn queued(&self, place: Option<LanePosition>) {
        let mut inner = self.lock();
        inner.turn = place.as_ref().map(LanePosition::turn).or(inner.turn);
        inner.place = place;
        inner.set(Stage::Queued);
    }

    /// Takes its place, for a task that runs it from now on. `None` if it is being cancelled or
    /// rebound, or has a task.
    pub(super) fn take_place(&self) -> Option<LanePosition> {
        let mut inner = self.lock();
        if !matches!(inner.stage, Stage::Queued) {
            return None;
        }
        inner.place.take()
    }

    /// Puts its place back: its task ends. Returns the place if the write can go on at once.
    pub(super) fn put_back(&self, place: LanePosition) -> Option<LanePosition> {
        let mut inner = self.lock();
        if matches!(inner.stage, Stage::Queued) {
            return Some(place);
        }
        if inner.stage.is_over() {
            drop(inner);
            // It has ended meanwhile, or another credential has it: its lanes open.
            drop(place);
        } else {
            inner.place = Some(place);
        }
        None
    }

    /// Leaves it to the next process; its lanes stay closed until this one ends. A write that is
    /// being cancelled keeps its place for that, and one that is over needs none.
    pub(super) fn parked(&self, place: LanePosition) {
        let mut inner = self.lock();
        if inner.stage.is_over() {
            drop(inner);
            drop(place);
            return;
        }
        inner.place = Some(place);
        if !matches!(inner.stage, Stage::Cancelling) {
            inner.set(Stage::Parked);
        }
    }

    /// Returns whether its stage lets it be sent.
    pub(crate) fn may_leave(&self) -> bool {
        self.lock().stage.may_be_sent()
    }

    /// Marks it as sent, unless it is being cancelled or rebound. Returns whether it may be sent.
    ///
    /// The point of no return: a caller that cancels it later hears that it was sent. The attempt
    /// begins only after the journal has recorded it as well.
    pub(crate) fn try_dispatch(&self) -> bool {
        let mut inner = self.lock();
        let may_be_sent = inner.stage.may_be_sent();
        if may_be_sent {
            inner.set(Stage::Sent);
        }
        may_be_sent
    }

    /// Lets it wait again after an attempt without effect, unless an earlier one may have had one.
    pub(crate) fn requeued(&self) {
        let mut inner = self.lock();
        if matches!(inner.stage, Stage::Sent) && inner.tries.doubt.is_none() {
            inner.set(Stage::Queued);
        }
    }

    /// Counts an attempt, alone or in this batch.
    pub(crate) fn tried(&self, batch: Option<WriteId>) {
        let tries = &mut self.lock().tries;
        tries.batch = batch;
        tries.attempts = tries.attempts.saturating_add(1);
    }

    /// Notes that the attempt that was sent at `left` may take effect until `until`.
    pub(crate) fn doubted(&self, left: Instant, until: Instant) {
        let tries = &mut self.lock().tries;
        tries.first_doubt.get_or_insert(left);
        tries.doubt = tries.doubt.max(Some(until));
    }

    /// Begins to cancel it: from now on it is not sent.
    ///
    /// # Errors
    /// If it was sent, or is being cancelled already.
    pub(super) fn cancel(&self) -> Result<(), TooLate> {
        let mut inner = self.lock();
        match inner.stage {
            // Queued for a retry: what may have taken effect cannot be undone.
            Stage::Queued | Stage::Parked if inner.tries.doubt.is_some() => Err(TooLate::Sent),
            Stage::Queued | Stage::Parked => {
                inner.set(Stage::Cancelling);
                Ok(())
            }
            Stage::Cancelling => Err(TooLate::Cancelling),
            _ => Err(TooLate::Sent),
        }
    }

    /// Keeps it from being sent while it is given to another credential. Returns `false` if it was
    /// sent, or is being cancelled.
    ///
    /// Unlike [`cancel`](Self::cancel), this holds a write that may have taken effect as well: a
    /// restart has queued it, and it is retried with the new token.
    pub(super) fn hold(&self) -> bool {
        let mut inner = self.lock();
        let waits = matches!(inner.stage, Stage::Queued);
        if waits {
            inner.set(Stage::Cancelling);
        }
        waits
    }

    /// Lets it go on: it could not be cancelled, or rebound. Returns its place, unless a task has
    /// that still.
    pub(super) fn not_cancelled(&self) -> Option<LanePosition> {
        let mut inner = self.lock();
        if matches!(inner.stage, Stage::Cancelling) {
            inner.set(Stage::Queued);
        }
        inner.place.take()
    }

    /// Notes that another credential has it now. Returns its place, unless a task has that still.
    pub(super) fn handed_over(&self) -> Option<LanePosition> {
        let mut inner = self.lock();
        inner.set(Stage::HandedOver);
        inner.place.take()
    }

    /// Notes how it ended, for all who follow it. Returns its place, unless a task has that still.
    ///
    /// Call it only after the journal has the end: who follows it answers a caller at once.
    pub(super) fn ended(&self, completion: Completion) -> Option<LanePosition> {
        let mut inner = self.lock();
        inner.set(Stage::Ended(Arc::new(completion)));
        inner.place.take()
    }
}

impl Inner {
    fn set(&mut self, stage: Stage) {
        if let Some(watch) = &self.watch {
            watch.send_replace(stage.clone());
        }
        self.stage = stage;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Principal;
    use crate::clock::Clock;
    use crate::route::table::{Defaults, OperationDef, Table};
    use http::Method;

    fn pending() -> Arc<PendingWrite> {
        let deletion = OperationDef::new("deleteSource", Method::DELETE, "/sources/{id}");
        let table = Table::build(vec![deletion], Defaults::default(), 1).unwrap();
        let caller = Caller {
            principal: Principal::Peer("10.0.0.1".parse().unwrap()),
            name: None,
        };
        let clock = Clock::system();
        Arc::new(PendingWrite {
            id: "0192f0c1-2a3b-7c4d-8e5f-012345678901".parse().unwrap(),
            credential: Credential::from_bytes([1; 16]),
            operation: table.operations()[0].clone(),
            summary: Arc::new(Summary::of(
                (&Method::DELETE, "/sources/s"),
                Vec::new(),
                &caller,
                None,
            )),
            caller,
            urgency: Urgency::DEFERRED,
            key: None,
            body_digest: None,
            bytes: 0,
            deferred: true,
            since: clock.wall(),
            accepted: clock.now(),
            state: PendingState::new(Tries::default()),
        })
    }

    #[test]
    fn the_last_follower_takes_the_channel_along() {
        let pending = pending();
        let has_channel = || pending.lock().watch.is_some();
        let first = pending.watch();
        let second = pending.watch();
        drop(first);
        assert!(has_channel(), "one follows still");
        pending.set(Stage::Queued);
        assert!(matches!(*second.stages.borrow(), Stage::Queued));
        drop(second);
        assert!(!has_channel(), "nobody follows");
        let late = pending.watch();
        assert!(matches!(*late.stages.borrow(), Stage::Queued));
    }
}
