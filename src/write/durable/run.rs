//! Carrying a write through: its turn, the journal, the attempt, what follows from it, the end.
//!
//! A write has one task at most. It may be stopped only while the write waits: from the moment that
//! it is recorded as sent, it is carried to its end, or to where it may wait again.

use crate::attempt::backoff;
use crate::attempt::send::AttemptOutcome;
use crate::error::{GatewayError, Waited};
use crate::exchange::request::RequestContext;
use crate::exchange::timing::Timing;
use crate::journal::{Change, JournalError, State};
use crate::lanes::LanePosition;
use crate::limit::budgets::BudgetRefusal;
use crate::limit::ticket::{Permit, PermitError, Ticket};
use crate::merge::Batching;
use crate::tasks;
use crate::upstream::NewConnection;
use crate::write::Writes;
use crate::write::accept::{AttemptReport, touched};
use crate::write::decision::{
    self, Decision, OutcomeClass, RETRY_FOR, WriteFacts, decide, is_in_doubt, is_list,
    is_repeatable,
};
use crate::write::dispatch::BatchResult;
use crate::write::durable::Scheduled;
use crate::write::durable::completion::{KeptOutcome, keep_outcome};
use crate::write::durable::pending::{PendingWrite, PutBack, Stage};
use crate::write::durable::record::KeptAnswer;
use crate::write::pool::SendTurn;
use crate::write::turn::TurnError;
use crate::write::unsettled::Unsettled;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The pause before the journal is tried again, and before a budget for which there was no room.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// Later than any write waits.
pub(super) const NEVER: Duration = Duration::from_secs(86_400 * 365);

/// A write on its way.
struct ActiveWrite {
    pending: Arc<PendingWrite>,
    context: RequestContext,
    ticket: Ticket,
    timing: Timing,
    /// Attempts in a row that came to nothing.
    failures: u32,
    /// With how many others it may be sent.
    batching: Batching,
    /// The answer to the last attempt that may have had effect.
    heard: Option<KeptOutcome>,
}

/// What follows from one turn.
enum Step {
    /// It has ended, or somebody else has it now.
    Over,
    /// It takes its place in the line again after this pause.
    Again(LanePosition, Duration),
    /// It may be repeated, and asks the retry budget again at this instant.
    Later(Instant, Box<Unrepeated>),
}

/// What came of an attempt that may be repeated: what is kept of its answer, and the place.
type Unrepeated = (OutcomeClass, Option<KeptOutcome>, LanePosition);

/// What came of an attempt: what is kept of its answer, and the place of the write.
type Attempted = (OutcomeClass, Option<KeptOutcome>, Option<LanePosition>);

impl Writes {
    /// Carries a write that stands in its budget's line.
    pub(super) fn carry_in_line(
        self: &Arc<Self>,
        pending: Arc<PendingWrite>,
        context: RequestContext,
        ticket: Ticket,
        place: LanePosition,
    ) {
        let writes = self.clone();
        let timing = Timing::of(&context);
        let active = ActiveWrite {
            pending: pending.clone(),
            context,
            ticket,
            timing,
            failures: 0,
            heard: None,
            batching: Batching::default(),
        };
        self.guarded(pending, async move {
            writes.run_write(active, place, None).await
        });
    }

    /// Brings a deferred write before its budget and carries it from there.
    pub(super) fn schedule(self: &Arc<Self>, pending: Arc<PendingWrite>, scheduled: Scheduled) {
        let writes = self.clone();
        self.guarded(pending.clone(), async move {
            let Some(mut place) = pending.take_place() else {
                return;
            };
            // It may have been brought to travel with others while its lanes are closed.
            place.look_again();
            match writes.stand_in_line(&pending, place.is_blocked()).await {
                Some((context, ticket)) => {
                    place.waits_at(ticket.place());
                    let timing = Timing::of(&context);
                    let active = ActiveWrite {
                        pending,
                        context,
                        ticket,
                        timing,
                        failures: 0,
                        heard: None,
                        batching: Batching::default(),
                    };
                    writes.run_write(active, place, Some(scheduled)).await;
                }
                None if writes.is_draining() => pending.parked(place),
                None => {
                    tracing::error!(
                        id = %pending.id,
                        request_id = pending.request_id(),
                        "durable write is missing from the journal"
                    );
                    writes
                        .durable
                        .refuse(&pending, GatewayError::WriteCancelled);
                }
            }
        });
    }

    /// Runs the task of a write. One that panics leaves it as one of which nobody knows the
    /// outcome, if it had left.
    fn guarded(
        self: &Arc<Self>,
        pending: Arc<PendingWrite>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let writes = self.clone();
        tasks::detached(async move {
            if tasks::detached(work).await.is_ok() {
                return;
            }
            tracing::error!(
                id = %pending.id,
                request_id = pending.request_id(),
                "task of a durable write failed"
            );
            if matches!(pending.stage(), Stage::Left) {
                writes
                    .end(&pending, State::Unknown, None, &Timing::default())
                    .await;
            } else {
                pending.set(Stage::Parked);
            }
        });
    }

    /// Leaves a write to whoever takes it back, to the next process if the gateway stops, and lets
    /// it wait again if neither is so.
    fn park(&self, pending: &Arc<PendingWrite>, place: LanePosition) {
        if self.is_draining() {
            return pending.parked(place);
        }
        if let PutBack::GoesOn(place) = pending.put_back(place) {
            self.defer(pending, place);
        }
    }

    async fn run_write(
        self: &Arc<Self>,
        mut active: ActiveWrite,
        mut place: LanePosition,
        mut scheduled: Option<Scheduled>,
    ) {
        loop {
            let turn = match self.next_turn(&mut active, place).await {
                Ok(turn) => turn,
                Err(place) => return self.park(&active.pending, place),
            };
            drop(scheduled.take());
            // Stopping waits for what has left.
            let running = self.tasks.begin("durable write");
            let mut next = match turn {
                SendTurn::Alone(_, place) if self.is_too_late(&active.pending) => {
                    let (pending, heard) = (&active.pending, active.heard.take());
                    self.end(pending, State::Unknown, heard, &active.timing)
                        .await;
                    drop(place);
                    Step::Over
                }
                SendTurn::Alone(permit, place) if self.may_leave(&active.pending) => {
                    self.take_turn(&mut active, permit, place).await
                }
                SendTurn::Alone(_, place) => return self.park(&active.pending, place),
                SendTurn::Leader(permit, own, others) => {
                    let told = self.send_batch(*own, others, permit);
                    self.ride(&mut active, told).await
                }
                SendTurn::Member(told) => self.ride(&mut active, told).await,
            };
            drop(running);
            let pending = active.pending.clone();
            while let Step::Later(until, unrepeated) = next {
                tokio::select! {
                    () = pending.stopped() => return self.park(&pending, unrepeated.2),
                    () = tokio::time::sleep_until(until.into()) => {}
                }
                let _running = self.tasks.begin("durable write");
                next = self.judge(&mut active, *unrepeated).await;
            }
            let Step::Again(again, pause) = next else {
                return;
            };
            place = again;
            tokio::select! {
                () = pending.stopped() => return self.park(&pending, place),
                () = tokio::time::sleep(pause) => {}
            }
            place.look_again();
            active.ticket.again_blocked();
        }
    }

    /// Lets a write leave, unless it is being taken back, or nobody waits for it and its credential
    /// was refused while it stood in line.
    pub(crate) fn may_leave(&self, pending: &PendingWrite) -> bool {
        let waits = pending.deferred && matches!(pending.stage(), Stage::Queued);
        let has_to_wait = waits
            && self
                .durable
                .shared
                .scheduler
                .lock()
                .is_refused(pending.credential);
        !has_to_wait && pending.leaves()
    }

    /// Whether it was held up for so long that it is not to be repeated any more.
    fn is_too_late(&self, pending: &PendingWrite) -> bool {
        let (now, first) = (self.clock.now(), pending.tries().first_doubt);
        let waited = first.map_or(Duration::ZERO, |first| now.saturating_duration_since(first));
        waited >= RETRY_FOR && matches!(pending.stage(), Stage::Queued | Stage::Left)
    }

    /// It leaves.
    fn departs(&self, active: &mut ActiveWrite) {
        // What the last process had sent is repeated by this one.
        let is_first = !active.timing.left && active.pending.tries().doubt.is_none();
        if is_first {
            self.attempts.first_attempt();
        }
        self.attempts.leaves(&active.context, &mut active.timing);
        active.context.progress.ready(active.ticket.ready_since());
    }

    /// Waits for its lanes and for a slot, however long that takes.
    ///
    /// # Errors
    /// With its place, if it is taken back or the gateway stops.
    async fn next_turn(
        &self,
        active: &mut ActiveWrite,
        mut place: LanePosition,
    ) -> Result<SendTurn, LanePosition> {
        loop {
            let pending = active.pending.clone();
            let how = (Some(&pending), active.batching);
            let turn = self.turn(&active.context, how, &mut active.ticket, place);
            let (why, returned) = match turn.await {
                Ok(turn) => return Ok(turn),
                Err(no_turn) => no_turn,
            };
            place = returned;
            match why {
                TurnError::Stopped
                | TurnError::PermitError(PermitError::Refused(BudgetRefusal::Draining)) => {
                    return Err(place);
                }
                TurnError::BreakerOpen(until) => {
                    tokio::select! {
                        () = pending.stopped() => return Err(place),
                        () = tokio::time::sleep_until(until.into()) => {}
                    }
                    place.look_again();
                    active.ticket.again_blocked();
                    continue;
                }
                // Whoever waited for it no longer does.
                TurnError::PermitError(PermitError::Expired) => {
                    active.ticket.extend(self.clock.now() + NEVER);
                }
                TurnError::PermitError(PermitError::Refused(_)) => {
                    tokio::time::sleep(PAUSE).await;
                    let Some(ticket) = self.join(&pending, &active.context, true).await else {
                        return Err(place);
                    };
                    active.ticket = ticket;
                    place.waits_at(active.ticket.place());
                }
            }
            place.look_again();
        }
    }

    /// Waits for what becomes of it together with others.
    async fn ride(&self, active: &mut ActiveWrite, told: oneshot::Receiver<AttemptReport>) -> Step {
        let left = self.clock.now();
        self.departs(active);
        let told = told.await.unwrap_or(AttemptReport::Unknown(Waited::InVain));
        let pending = active.pending.clone();
        match told {
            AttemptReport::Batched(merged) => {
                active.timing.upstream = merged.took;
                active.timing.merged = merged.members;
                self.conclude(active, left, attempted(*merged)).await
            }
            AttemptReport::BatchRefused(place, members) => {
                active.batching = active.batching.divided(members);
                // The refusal of the batch is not its own: it goes on as after a 429.
                let came = OutcomeClass::Throttled;
                self.conclude(active, left, (came, None, Some(place))).await
            }
            AttemptReport::Requeue(place, AttemptOutcome::Throttled(_)) => {
                active.timing.throttled += 1;
                let came = OutcomeClass::Throttled;
                self.conclude(active, left, (came, None, Some(place))).await
            }
            AttemptReport::Requeue(place, _) => {
                let came = OutcomeClass::NotSent;
                self.conclude(active, left, (came, None, Some(place))).await
            }
            AttemptReport::NotRecorded(place) => {
                pending.stays();
                Step::Again(place, PAUSE)
            }
            AttemptReport::Ended(_) | AttemptReport::Uncertain(..) | AttemptReport::Unknown(_) => {
                // Its place stays closed for as long as it may take effect.
                self.end(&pending, State::Unknown, None, &active.timing)
                    .await;
                Step::Over
            }
        }
    }

    async fn take_turn(
        self: &Arc<Self>,
        active: &mut ActiveWrite,
        permit: Permit,
        place: LanePosition,
    ) -> Step {
        let pending = active.pending.clone();
        let dispatch = Change::Dispatch(pending.id, self.clock.wall());
        if let Err(error) = self.commit(vec![dispatch]).await {
            drop(permit);
            return self.not_recorded(&pending, place, &error);
        }
        let left = self.clock.now();
        pending.tried();
        self.departs(active);
        place.expect(left + active.ticket.answer_time());
        let came = self.send_once(active, permit, place).await;
        self.conclude(active, left, came).await
    }

    /// What follows from what came of an attempt that left at this instant.
    async fn conclude(
        &self,
        active: &mut ActiveWrite,
        left: Instant,
        (came, heard, place): Attempted,
    ) -> Step {
        let pending = active.pending.clone();
        let Some(mut place) = place else {
            self.end(&pending, State::Unknown, heard, &active.timing)
                .await;
            return Step::Over;
        };
        if is_in_doubt(came) {
            let late = self.router.settings.get().late;
            pending.doubted(left, self.clock.now() + late);
            place.stay_closed_for(late);
        }
        let next = self.judge(active, (came, heard, place)).await;
        if matches!(next, Step::Later(..)) {
            self.attempts
                .report_no_retry(&pending.operation, &active.context.ids);
        }
        next
    }

    /// The same, once it is noted whether the attempt may have taken effect.
    async fn judge(&self, active: &mut ActiveWrite, (came, heard, place): Unrepeated) -> Step {
        let pending = active.pending.clone();
        let pending = &pending;
        match decide(came, &self.known(active)) {
            Decision::End(state) => {
                self.end(pending, state, heard, &active.timing).await;
                drop(place);
                Step::Over
            }
            Decision::Requeue => {
                let pause = if came == OutcomeClass::Throttled {
                    active.failures = 0;
                    Duration::ZERO
                } else {
                    active.failures += 1;
                    backoff::reconnect_pause(active.failures, jitter(pending, active.failures))
                };
                self.waits_again(pending).await;
                Step::Again(place, pause)
            }
            Decision::Retry => match self.attempts.take_retry(&pending.operation) {
                Ok(()) => {
                    active.failures += 1;
                    active.heard = heard;
                    let failures = active.failures;
                    Step::Again(place, decision::pause(failures, jitter(pending, failures)))
                }
                Err(until) => Step::Later(until, Box::new((came, heard, place))),
            },
            Decision::Pause => {
                self.waits_again(pending).await;
                self.pause_credential(pending.credential).await;
                self.defer(pending, place);
                Step::Over
            }
        }
    }

    /// Sends it once; what is kept of the answer, and its place.
    async fn send_once(
        self: &Arc<Self>,
        active: &mut ActiveWrite,
        permit: Permit,
        place: LanePosition,
    ) -> Attempted {
        let context = &active.context;
        let affected = touched(context).sent_before(active.pending.tries().doubt.is_some());
        let unsettled = Unsettled::new(self.clone(), affected, place);
        let permit = permit.carries(vec![unsettled.intent(context, Some(&active.pending))]);
        let mut request = context.forwarded();
        if active.pending.tries().doubt.is_some() {
            request.extensions_mut().insert(NewConnection);
        }
        let came = self
            .attempts
            .attempt(&context.operation, context.credential, permit, request);
        match came.await {
            AttemptOutcome::Answer(answer) => {
                let status = answer.response.status();
                let headers = answer.response.headers();
                let place = unsettled.heard(status, headers, answer.doubtful);
                let heard = keep_outcome(answer).await;
                active.timing.upstream = heard.took;
                (OutcomeClass::Status(status), Some(heard), place)
            }
            AttemptOutcome::Throttled(_) => {
                active.timing.throttled += 1;
                let place = unsettled.not_carried_out();
                (OutcomeClass::Throttled, None, place)
            }
            AttemptOutcome::NotSent(_) => {
                (OutcomeClass::NotSent, None, unsettled.not_carried_out())
            }
            AttemptOutcome::Unknown(_) => (OutcomeClass::NoAnswer, None, unsettled.in_doubt()),
        }
    }

    fn known<'c>(&self, active: &'c ActiveWrite) -> WriteFacts<'c> {
        let tries = active.pending.tries();
        let now = self.clock.now();
        let since_first = tries
            .first_doubt
            .map(|at| now.saturating_duration_since(at));
        WriteFacts {
            method: &active.context.method,
            is_list: is_list(&active.context),
            repeatable: is_repeatable(&active.context),
            doubtful: tries.doubt.is_some(),
            since_first: since_first.unwrap_or_default(),
            deferred: active.pending.deferred,
        }
    }

    /// It was not sent, because that could not be recorded.
    fn not_recorded(
        &self,
        pending: &PendingWrite,
        place: LanePosition,
        error: &JournalError,
    ) -> Step {
        if *error == JournalError::Absent {
            // Somebody has removed it from the journal: nobody is to send it.
            self.durable.refuse(pending, GatewayError::WriteCancelled);
            return Step::Over;
        }
        let _ = self.journal_failed(error);
        if pending.tries().doubt.is_none() {
            pending.set(Stage::Queued);
        }
        Step::Again(place, PAUSE)
    }

    /// An attempt had no effect: the journal says so, unless an earlier one may have had.
    async fn waits_again(&self, pending: &PendingWrite) {
        if pending.tries().doubt.is_some() {
            return;
        }
        // Without it, a crash would make it one of which the outcome is unknown.
        if let Err(error) = self.commit(vec![Change::Requeue(pending.id)]).await {
            let _ = self.journal_failed(&error);
        }
        pending.set(Stage::Queued);
    }
}

/// What came of being sent with others.
fn attempted(merged: BatchResult) -> Attempted {
    let Ok(answer) = merged.answer else {
        return (OutcomeClass::NoAnswer, None, merged.place);
    };
    let (head, body) = answer.into_parts();
    let heard = KeptOutcome {
        answer: Some(KeptAnswer {
            status: head.status,
            headers: head.headers,
            body: Some(body),
        }),
        standing: merged.standing,
        took: merged.took,
    };
    let came = OutcomeClass::Status(head.status);
    (came, Some(heard), merged.place)
}

/// A number from the random bits of its name.
fn jitter(pending: &PendingWrite, failures: u32) -> u64 {
    let bits = pending.id.bytes()[8..].iter();
    bits.fold(u64::from(failures), |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    })
}
