//! A durable write that has been accepted and has not ended: its stage, and who follows it.
//!
//! Invariant: every change of stage goes through one lock. So of taking a write back, giving it to
//! another credential and sending it, one succeeds.
//!
//! Its place in the lanes is here while no task carries the write. Nothing here records or sends.

use crate::credential::Credential;
use crate::error::GatewayError;
use crate::exchange::body::Body;
use crate::exchange::response::Reply;
use crate::exchange::timing::Timing;
use crate::journal::{KeyHash, State, WriteId};
use crate::lanes::LanePosition;
use crate::lanes::Turn;
use crate::limit::budgets::BudgetStatus;
use crate::limit::turns::{Caller, Urgency};
use crate::metrics::Outcome;
use crate::route::policy::Operation;
use crate::write::durable::record::KeptAnswer;
use crate::write::durable::summary::Summary;
use http::Response;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// How a write ended.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) state: State,
    /// The API's last answer, if there was one.
    pub(crate) answer: Option<KeptAnswer>,
    /// The time from acceptance to its last attempt.
    pub(crate) queued: Duration,
    /// The time that the last attempt took.
    pub(crate) upstream: Duration,
    /// The number of 429s that it waited out.
    pub(crate) throttled: u32,
    /// The number of writes in its batch; 0 without a batch.
    pub(crate) merged: usize,
    /// The status of the budget that its last attempt used.
    pub(crate) standing: Option<BudgetStatus>,
}

impl Completion {
    /// Returns the reply with this response, the API's own answer from the journal.
    pub(crate) fn reply(&self, response: Response<Body>) -> Reply {
        let timing = Timing {
            queued: self.queued,
            upstream: self.upstream,
            throttled: self.throttled,
            merged: self.merged,
            sent: true,
            progress: Arc::default(),
        };
        Reply {
            timing,
            standing: self.standing.clone(),
            ..Reply::new(response, Outcome::Written)
        }
    }
}

/// The stage of a write: `Accepting` → `Queued` ⇄ `Sent` → `Ended`, and from `Queued` or `Parked`
/// by `Cancelling` to `Ended`, `HandedOver` or `Queued`. A write returns from `Sent` only while
/// none of its attempts may have taken effect.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// Not in the journal yet.
    Accepting,
    /// Waiting for its turn.
    Queued,
    /// Being taken back, or given to another credential. The write is not sent meanwhile.
    Cancelling,
    /// An attempt is in flight, or a retry waits after one with an unknown outcome.
    Sent,
    /// Left to the next process.
    Parked,
    /// Moved to another credential, under which it goes on with the same id.
    HandedOver,
    /// Not accepted, for this reason, or because its key is known already.
    Released(Option<GatewayError>),
    /// Ended, as the journal knows by now.
    Ended(Arc<Completion>),
}

/// An `Idempotency-Key`, hashed, and the fingerprint of the request under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) hash: KeyHash,
    pub(crate) fingerprint: [u8; 32],
}

/// A durable write that has not ended.
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
    /// The bytes of its request.
    pub(crate) bytes: usize,
    /// Whether its caller does not wait for it.
    pub(crate) deferred: bool,
    /// When it was accepted, on both clocks. After a restart `accepted` is the instant of recovery.
    pub(crate) since: SystemTime,
    pub(crate) accepted: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    stage: Stage,
    /// Created for the first who follows it.
    watch: Option<watch::Sender<Stage>>,
    /// Its place in the lanes, while no task carries it.
    place: Option<LanePosition>,
    /// Its turn among all writes, once it has one.
    turn: Option<Turn>,
    tries: Tries,
}

/// The attempts of a write, as far as they are known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tries {
    pub(crate) attempts: u32,
    /// When the first was sent that may have taken effect.
    pub(crate) first_doubt: Option<Instant>,
    /// Until when one of them may still take effect.
    pub(crate) doubt: Option<Instant>,
}

/// The result of putting a place back.
#[derive(Debug)]
pub(super) enum PutBack {
    /// The place is kept for the task that goes on with the write, or is not needed any more.
    Kept,
    /// The write can go on at once.
    GoesOn(LanePosition),
}

/// Why a write cannot be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooLate {
    /// The write was sent, or is about to end.
    Sent,
    /// Another request takes it back at this moment.
    Cancelling,
}

/// The values from which a write is created.
#[derive(Debug)]
pub(super) struct NewWrite {
    pub(super) id: WriteId,
    pub(super) credential: Credential,
    pub(super) operation: Arc<Operation>,
    pub(super) caller: Caller,
    pub(super) urgency: Urgency,
    pub(super) key: Option<Key>,
    pub(super) summary: Arc<Summary>,
    pub(super) bytes: usize,
    pub(super) deferred: bool,
    pub(super) since: SystemTime,
    pub(super) accepted: Instant,
}

impl PendingWrite {
    pub(super) fn new(new_write: NewWrite, tries: Tries) -> Self {
        Self {
            id: new_write.id,
            credential: new_write.credential,
            operation: new_write.operation,
            caller: new_write.caller,
            urgency: new_write.urgency,
            key: new_write.key.map(Box::new),
            summary: new_write.summary,
            bytes: new_write.bytes,
            deferred: new_write.deferred,
            since: new_write.since,
            accepted: new_write.accepted,
            inner: Mutex::new(Inner {
                stage: Stage::Accepting,
                watch: None,
                place: None,
                turn: None,
                tries,
            }),
        }
    }

    /// Returns the id of the request that asked for it, for the log.
    pub(crate) fn request_id(&self) -> Option<&str> {
        self.summary.request_id.as_deref()
    }

    pub(crate) fn stage(&self) -> Stage {
        self.inner.lock().stage.clone()
    }

    pub(crate) fn tries(&self) -> Tries {
        self.inner.lock().tries
    }

    /// Follows its stage from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<Stage> {
        let mut inner = self.inner.lock();
        let stage = inner.stage.clone();
        let sender = inner.watch.get_or_insert_with(|| watch::channel(stage).0);
        sender.subscribe()
    }

    pub(super) fn set(&self, stage: Stage) {
        self.inner.lock().set(stage);
    }

    /// Notes that the journal has it, and that it waits in its lanes.
    pub(super) fn queued(&self, place: Option<LanePosition>) {
        let mut inner = self.inner.lock();
        inner.turn = place.as_ref().map(LanePosition::turn).or(inner.turn);
        inner.place = place;
        inner.set(Stage::Queued);
    }

    /// Returns its turn, if it has been deferred.
    pub(super) fn turn(&self) -> Option<Turn> {
        self.inner.lock().turn
    }

    /// Waits until it has ended, or was not taken back after all.
    pub(super) async fn cancellation_ended(&self) {
        let mut stage = self.watch();
        let _ = stage
            .wait_for(|stage| !matches!(stage, Stage::Cancelling))
            .await;
    }

    /// Takes its place, for a task that carries it from now on. `None` if it is being taken back.
    pub(super) fn take_place(&self) -> Option<LanePosition> {
        let mut inner = self.inner.lock();
        if !matches!(inner.stage, Stage::Queued) {
            return None;
        }
        inner.place.take()
    }

    /// Puts its place back: no task carries it for now.
    pub(super) fn put_back(&self, place: LanePosition) -> PutBack {
        let mut inner = self.inner.lock();
        match inner.stage {
            Stage::Queued => PutBack::GoesOn(place),
            Stage::Ended(_) | Stage::Released(_) | Stage::HandedOver => {
                drop(inner);
                // It has ended meanwhile, or another credential has it: its lanes are free.
                drop(place);
                PutBack::Kept
            }
            _ => {
                inner.place = Some(place);
                PutBack::Kept
            }
        }
    }

    /// Returns whether its stage lets it be sent.
    pub(crate) fn may_leave(&self) -> bool {
        matches!(self.inner.lock().stage, Stage::Queued | Stage::Sent)
    }

    /// Marks it as sent, unless it is being taken back. Returns whether it may be sent.
    pub(crate) fn try_dispatch(&self) -> bool {
        let mut inner = self.inner.lock();
        let goes = matches!(inner.stage, Stage::Queued | Stage::Sent);
        if goes {
            inner.set(Stage::Sent);
        }
        goes
    }

    /// Lets it wait again after an attempt without effect, unless an earlier one may have had one.
    pub(crate) fn requeued(&self) {
        let mut inner = self.inner.lock();
        if matches!(inner.stage, Stage::Sent) && inner.tries.doubt.is_none() {
            inner.set(Stage::Queued);
        }
    }

    /// Counts an attempt.
    pub(crate) fn tried(&self) {
        let tries = &mut self.inner.lock().tries;
        tries.attempts = tries.attempts.saturating_add(1);
    }

    /// Notes that the attempt that was sent at `left` may take effect until `until`.
    pub(crate) fn doubted(&self, left: Instant, until: Instant) {
        let tries = &mut self.inner.lock().tries;
        tries.first_doubt.get_or_insert(left);
        tries.doubt = tries.doubt.max(Some(until));
    }

    /// Leaves it to the next process; its lanes stay closed until this one ends. A write that is
    /// being taken back keeps its place for that, and one that has ended needs none.
    pub(super) fn parked(&self, place: LanePosition) {
        let mut inner = self.inner.lock();
        match inner.stage {
            Stage::Ended(_) | Stage::Released(_) | Stage::HandedOver => {
                drop(inner);
                drop(place);
            }
            Stage::Cancelling => inner.place = Some(place),
            _ => {
                inner.place = Some(place);
                inner.set(Stage::Parked);
            }
        }
    }

    /// Keeps it from being sent while it is given to another credential. Returns `false` if it was
    /// sent, or is being taken back.
    pub(super) fn hold(&self) -> bool {
        let mut inner = self.inner.lock();
        let waits = matches!(inner.stage, Stage::Queued);
        if waits {
            inner.set(Stage::Cancelling);
        }
        waits
    }

    /// Notes that another credential has it now. Returns its place, if no task carries it.
    pub(super) fn handed_over(&self) -> Option<LanePosition> {
        let mut inner = self.inner.lock();
        let place = inner.place.take();
        inner.set(Stage::HandedOver);
        place
    }

    /// Lets it go on: it could not be taken back, or given away. Returns its place, unless a task
    /// has that still.
    pub(super) fn not_cancelled(&self) -> Option<LanePosition> {
        let mut inner = self.inner.lock();
        if matches!(inner.stage, Stage::Cancelling) {
            inner.set(Stage::Queued);
        }
        inner.place.take()
    }

    /// Begins to take it back: from now on it is not sent.
    ///
    /// # Errors
    /// If it was sent, or is being taken back already.
    pub(super) fn cancel(&self) -> Result<(), TooLate> {
        let mut inner = self.inner.lock();
        match inner.stage {
            Stage::Queued | Stage::Parked => {
                // What may have taken effect cannot be taken back.
                if inner.tries.doubt.is_some() {
                    return Err(TooLate::Sent);
                }
                inner.set(Stage::Cancelling);
                Ok(())
            }
            Stage::Cancelling => Err(TooLate::Cancelling),
            _ => Err(TooLate::Sent),
        }
    }

    /// Tells everybody how it ended. Returns its place, if no task carries it.
    pub(super) fn ended(&self, ended: Completion) -> Option<LanePosition> {
        let mut inner = self.inner.lock();
        let place = inner.place.take();
        inner.set(Stage::Ended(Arc::new(ended)));
        place
    }

    /// Waits until it may not be sent any more.
    pub(crate) async fn stopped(&self) {
        let mut stage = self.watch();
        let stops = |stage: &Stage| {
            matches!(
                stage,
                Stage::Cancelling | Stage::HandedOver | Stage::Ended(_) | Stage::Released(_)
            )
        };
        let _ = stage.wait_for(stops).await;
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
