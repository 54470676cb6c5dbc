//! The life of a write that stands in line, held or durable, alone or in a batch: turn → journal →
//! attempt → decision, again and again until it ends.
//!
//! There is one loop for all writes. A held write is polled by its caller's connection: a caller
//! that hangs up while the write waits drops it, and its places with it. A durable write is polled
//! by a task of its own. The attempt is the same for both: it runs in its own task
//! ([`dispatch`](super::dispatch)), settles the write, and reports.
//!
//! Invariants:
//! - Nothing is sent before the journal has recorded it, if the write is durable, and the audit
//!   log, if it is to be recorded before.
//! - An attempt has settled before the engine hears of it.
//! - The engine returns the place with the end. So the lanes open after the journal has the end of
//!   a durable write, and before the caller of a held one hears.
//! - A held write whose caller hung up is not retried for nobody.
//!
//! Held and durable writes differ in few points, each marked by the entry: a held write has a
//! deadline and ends with what it heard last, where a durable one waits.
//!
//! The engine does not accept writes, nor respond to anybody, nor record an end.

use crate::attempt::backoff;
use crate::error::{GatewayError, Waited};
use crate::journal::{Change, State};
use crate::lanes::LanePosition;
use crate::limit::budgets::BudgetRefusal;
use crate::limit::ticket::PermitError;
use crate::write::Writes;
use crate::write::active::{ActiveWrite, RunEnd, Step, stopped};
use crate::write::answer::{Heard, WriteAnswer, unknown};
use crate::write::decision::{Decision, decide, is_in_doubt};
use crate::write::durable::{NEVER, PAUSE, PendingWrite};
use crate::write::member::{AttemptReport, MemberEnd};
use crate::write::settlement::Affected;
use crate::write::turn::{NoTurn, SendTurn, TurnError};
use std::ops::ControlFlow::{Break, Continue};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

impl Writes {
    /// Carries a write that stands in line until it ends or has to wait elsewhere.
    ///
    /// Dropping the future gives up the places of a write that waits. An attempt that was
    /// dispatched goes on, settles, and is logged if nobody hears its report.
    pub(super) async fn run(
        self: &Arc<Self>,
        write: &mut ActiveWrite,
        mut place: LanePosition,
    ) -> RunEnd {
        loop {
            match self.run_once(write, place).await {
                Continue(again) => place = again,
                Break(end) => return end,
            }
            // It takes its old place in the line. Its lanes may have closed meanwhile.
            place.look_again();
            write.ticket.again_blocked();
        }
    }

    /// Runs one turn, with one attempt. Continues with the place of a write that waits again.
    ///
    /// There is no `await` between the turn and the dispatch: who has a slot uses it.
    async fn run_once(
        self: &Arc<Self>,
        write: &mut ActiveWrite,
        place: LanePosition,
    ) -> Step<LanePosition> {
        // Turn: its lanes are open, and it has a slot, or another write shares its slot with it.
        let turn = self.next_turn(write, place).await?;
        let left = self.note_dispatch(write);
        // Journal, attempt and settling: a task of their own, which one of its members begins.
        let report = match turn {
            SendTurn::Leads(dispatch, report) => {
                self.dispatch(dispatch);
                report
            }
            SendTurn::Joins(report) => report,
        };
        let AttemptReport {
            end,
            members,
            mut place,
        } = self.await_report(write, report).await?;
        // Decision: the end, or another turn.
        self.note_doubt(write, &end, left, &mut place);
        let facts = write.facts(left, members, self.clock.now());
        match decide(end.class(), &facts) {
            Decision::Requeue => self.requeue(write, end, members, place).await,
            Decision::Retry => {
                let heard = self.heard(write, end, members).await;
                self.retry(write, left, heard, place).await
            }
            Decision::Pause => Break(RunEnd::Paused(place)),
            Decision::End(state) => {
                let heard = self.heard(write, end, members).await;
                Break(RunEnd::ended(state, heard, Some(place)))
            }
        }
    }

    /// Waits for the turn of a write.
    ///
    /// A held write that gets none ends with the reason, or with what it heard last. A durable one
    /// waits on, unless it is stopped.
    async fn next_turn(&self, write: &mut ActiveWrite, mut place: LanePosition) -> Step<SendTurn> {
        loop {
            let NoTurn { why, place: back } = match self.turn(write, place).await {
                Ok(turn) => return Continue(turn),
                Err(no_turn) => no_turn,
            };
            place = back;
            match (why, &write.entry) {
                (TurnError::BreakerOpen(until), entry)
                    if entry.is_some() || until <= write.ticket.deadline() =>
                {
                    // One of the writes is sent as a probe then, and the others ask again.
                    place = self.wait_until(write, until, place).await?;
                    write.ticket.again_blocked();
                }
                // The deadline is that of its caller, who hears that the write is pending.
                (TurnError::NoPermit(PermitError::Expired), Some(_)) => {
                    write.ticket.extend(self.clock.now() + NEVER);
                }
                (TurnError::NoPermit(PermitError::Refused(refusal)), Some(entry))
                    if refusal != BudgetRefusal::Draining =>
                {
                    // Its budget was forgotten for want of room.
                    tokio::time::sleep(PAUSE).await;
                    let Some(ticket) = self.join(entry, &write.context, true).await else {
                        return Break(RunEnd::Stopped(place));
                    };
                    write.ticket = ticket;
                    place.waits_at(write.ticket.place());
                }
                (TurnError::TooLate, _) => return Break(write.end_with_last_answer(place)),
                // Cancelled, or the gateway stops: the next process goes on with it.
                (TurnError::Stopped | TurnError::NoPermit(_), Some(_)) => {
                    return Break(RunEnd::Stopped(place));
                }
                (why, _) => {
                    let error = self.no_turn_error(why, write);
                    return Break(write.end_without_effect(State::Unknown, Err(error), place));
                }
            }
            // The wait of the place ended with its future.
            place.look_again();
        }
    }

    /// Notes that a write leaves its line to be sent, and returns when. A durable write has yet to
    /// be recorded: if that fails, its first attempt is counted all the same, once.
    ///
    /// Its wait is reported from here on, even if its caller hangs up before the response.
    fn note_dispatch(&self, write: &mut ActiveWrite) -> Instant {
        let now = self.clock.now();
        // Dropping the guard makes room before the budget for the next deferred write.
        drop(write.scheduled.take());
        if write.entry.is_some() {
            write.running = Some(self.tasks.begin("durable write"));
        }
        // What the last process had sent is retried by this one. Only a first attempt earns a share
        // of the retry budget.
        if !write.timing.sent && write.first_doubt().is_none() {
            self.attempts.first_attempt();
        }
        self.attempts
            .report_departure(&write.context, &mut write.timing);
        write.context.progress.ready(write.ticket.ready_since());
        now
    }

    /// Waits for the report of an attempt. The wait for a held write ends early if a balancer in
    /// front of the gateway would give up: the caller hears before anybody makes up an answer. The
    /// attempt goes on, and settles the write once more when its outcome is known.
    async fn await_report(
        &self,
        write: &mut ActiveWrite,
        report: oneshot::Receiver<AttemptReport>,
    ) -> Step<AttemptReport> {
        let given_up = match write.entry {
            // The caller of a durable write is answered elsewhere, whenever it has to be.
            None => self.attempts.given_up_at(&write.context),
            Some(_) => None,
        };
        let reported = match given_up {
            None => report.await,
            Some(given_up) => {
                let Ok(reported) = tokio::time::timeout_at(given_up.into(), report).await else {
                    self.settle_end(&Affected::of(&write.context), None);
                    let why = unknown(&write.context, Waited::TooLong);
                    return Break(RunEnd::ended(State::Unknown, Err(why), None));
                };
                reported
            }
        };
        match reported {
            Ok(report) => Continue(report),
            // Its task failed. The lanes stay closed for as long as it may take effect.
            Err(_) => Break(RunEnd::ended(
                State::Unknown,
                Err(GatewayError::Internal),
                None,
            )),
        }
    }

    /// Notes in the entry that an attempt may have taken effect, if it may.
    ///
    /// From then on a durable write cannot be cancelled, and its lanes stay closed until it can no
    /// longer take effect, even if the API itself answered.
    fn note_doubt(
        &self,
        write: &ActiveWrite,
        end: &MemberEnd,
        left: Instant,
        place: &mut LanePosition,
    ) {
        if let Some(entry) = &write.entry
            && is_in_doubt(end.class())
        {
            let late = self.router.settings.get().late;
            entry.doubted(left, self.clock.now() + late);
            place.stay_closed_for(late);
        }
    }

    /// Returns what a caller hears of an attempt that may have had an effect. The journal keeps
    /// whole answers.
    async fn heard(&self, write: &mut ActiveWrite, end: MemberEnd, members: usize) -> Heard {
        write.timing.merged = if members > 1 { members } else { 0 };
        match end {
            MemberEnd::Answered(answer) if write.entry.is_some() => {
                Ok(Box::new(answer.collect().await))
            }
            MemberEnd::Answered(answer) => Ok(answer),
            MemberEnd::NoAnswer(waited) => Err(unknown(&write.context, waited)),
            // These had none.
            MemberEnd::Throttled(_)
            | MemberEnd::NotSent(_)
            | MemberEnd::BatchRefused
            | MemberEnd::NotBatchable
            | MemberEnd::NotRecorded => Err(GatewayError::Internal),
        }
    }

    /// Lets a write wait for its next turn after an attempt without effect. A held write ends if it
    /// cannot be sent again before its deadline.
    async fn requeue(
        &self,
        write: &mut ActiveWrite,
        end: MemberEnd,
        members: usize,
        place: LanePosition,
    ) -> Step<LanePosition> {
        let mut pause = Duration::ZERO;
        match end {
            MemberEnd::NotRecorded => {
                let Some(entry) = &write.entry else {
                    // Its caller does not wait for a disk.
                    let error = Err(GatewayError::AuditUnavailable);
                    return Break(write.end_without_effect(State::Failed, error, place));
                };
                // The journal has nothing to take back.
                entry.requeued();
                return self.wait(write, PAUSE, place).await;
            }
            MemberEnd::BatchRefused => {
                write.batching = write.batching.divided(members);
                write.history.divided = true;
            }
            MemberEnd::NotBatchable => write.batching = write.batching.divided(1),
            MemberEnd::NotSent(why) => {
                write.history.not_sent += 1;
                let failures = write.history.not_sent;
                if write.entry.is_some() {
                    // It waits as long as it takes, for whatever reason no connection opens.
                    let jitter = backoff::jitter(place.turn(), failures);
                    pause = backoff::reconnect_pause(failures, jitter);
                } else {
                    let (turn, by) = (write.ticket.place(), write.ticket.deadline());
                    let paused = self.attempts.pause_or_fail(why, failures, turn, by);
                    if let Err(error) = paused.await {
                        return Break(write.end_without_effect(State::Failed, Err(error), place));
                    }
                }
            }
            MemberEnd::Throttled(response) => {
                write.timing.throttled += 1;
                write.history.not_sent = 0;
                // The 429 closed the budget, which knows when a write leaves from its old place.
                let is_late = write.ticket.estimate_again() > write.ticket.deadline();
                if write.entry.is_none() && is_late {
                    let heard = Ok(Box::new(WriteAnswer::throttled(response)));
                    return Break(write.end_without_effect(State::Failed, heard, place));
                }
            }
            // These may have had an effect.
            MemberEnd::Answered(_) | MemberEnd::NoAnswer(_) => {}
        }
        if let Some(entry) = &write.entry {
            self.record_requeue(entry).await;
        }
        self.wait(write, pause, place).await
    }

    /// Records in the journal that an attempt had no effect, unless an earlier one may have had.
    /// Without the record, a crash would make the outcome unknown.
    pub(super) async fn record_requeue(&self, entry: &PendingWrite) {
        if entry.tries().doubt.is_some() {
            return;
        }
        if let Err(error) = self.commit(vec![Change::Requeue(entry.id)]).await {
            let _ = self.journal_failed(&error);
        }
        entry.requeued();
    }

    /// Waits for a time, which may be zero; see [`Writes::wait_until`].
    pub(super) async fn wait(
        &self,
        write: &mut ActiveWrite,
        pause: Duration,
        place: LanePosition,
    ) -> Step<LanePosition> {
        if pause.is_zero() {
            // A timer would let younger writes pass until its next tick.
            drop(write.running.take());
            return Continue(place);
        }
        let until = self.clock.now() + pause;
        self.wait_until(write, until, place).await
    }

    /// Waits until this instant. Stopping does not wait for it, and a durable write that is taken
    /// back meanwhile leaves the engine.
    pub(super) async fn wait_until(
        &self,
        write: &mut ActiveWrite,
        until: Instant,
        place: LanePosition,
    ) -> Step<LanePosition> {
        // Dropping the guard lets the gateway stop meanwhile.
        drop(write.running.take());
        tokio::select! {
            () = stopped(write.entry.as_ref()) => Break(RunEnd::Stopped(place)),
            () = tokio::time::sleep_until(until.into()) => Continue(place),
        }
    }
}
