//! Carrying a write through: its turn, the journal, the attempt, what follows from it, the end.
//!
//! A write has one task at most. It may be stopped only while the write waits: from the moment that
//! it is recorded as sent, it is carried to its end, or to where it may wait again.

use crate::attempt::backoff;
use crate::attempt::send::Came;
use crate::error::{GatewayError, Waited};
use crate::exchange::request::Ask;
use crate::exchange::timing::Timing;
use crate::journal::{Change, JournalError, State};
use crate::limit::budgets::Refusal;
use crate::limit::ticket::{NoPermit, Permit, Ticket};
use crate::merge::Batching;
use crate::queue::Place;
use crate::upstream::NewConnection;
use crate::write::Writes;
use crate::write::batch::{Merged, NoTurn, Turn};
use crate::write::decision::{self, Known, REPEAT_FOR, Verdict, is_in_doubt, verdict};
use crate::write::durable::Brought;
use crate::write::durable::completion::{Heard, hear};
use crate::write::durable::pending::{Live, PutBack, Stage};
use crate::write::durable::record::KeptAnswer;
use crate::write::held::{Told, Unsettled, touched};
use crate::write::retry::{is_list, is_repeatable};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The pause before the journal is tried again, and before a budget for which there was no room.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// Later than any write waits.
pub(super) const NEVER: Duration = Duration::from_secs(86_400 * 365);

/// A write on its way.
struct Carried {
    live: Arc<Live>,
    ask: Ask,
    ticket: Ticket,
    timing: Timing,
    /// Attempts in a row that came to nothing.
    failures: u32,
    /// With how many others it may be sent.
    batching: Batching,
    /// The answer to the last attempt that may have had effect.
    heard: Option<Heard>,
}

/// What follows from one turn.
enum Next {
    /// It has ended, or somebody else has it now.
    Over,
    /// It takes its place in the line again after this pause.
    Again(Place, Duration),
    /// It may be repeated, and asks the retry budget again at this instant.
    Later(Instant, Box<Unrepeated>),
}

/// What came of an attempt that may be repeated: what is kept of its answer, and the place.
type Unrepeated = (decision::Came, Option<Heard>, Place);

/// What came of an attempt: what is kept of its answer, and the place of the write.
type Attempted = (decision::Came, Option<Heard>, Option<Place>);

impl Writes {
    /// Carries a write that stands in its budget's line.
    pub(super) fn carry_in_line(
        self: &Arc<Self>,
        live: Arc<Live>,
        ask: Ask,
        ticket: Ticket,
        place: Place,
    ) {
        let writes = self.clone();
        let timing = Timing::of(&ask);
        let carried = Carried {
            live: live.clone(),
            ask,
            ticket,
            timing,
            failures: 0,
            heard: None,
            batching: Batching::default(),
        };
        self.guarded(
            live,
            async move { writes.carry(carried, place, None).await },
        );
    }

    /// Brings a deferred write before its budget and carries it from there.
    pub(super) fn bring(self: &Arc<Self>, live: Arc<Live>, brought: Brought) {
        let writes = self.clone();
        self.guarded(live.clone(), async move {
            let Some(mut place) = live.take_place() else {
                return;
            };
            // It may have been brought to travel with others while its lanes are closed.
            place.look_again();
            match writes.stand_in_line(&live, place.is_blocked()).await {
                Some((ask, ticket)) => {
                    place.waits_at(ticket.place());
                    let timing = Timing::of(&ask);
                    let carried = Carried {
                        live,
                        ask,
                        ticket,
                        timing,
                        failures: 0,
                        heard: None,
                        batching: Batching::default(),
                    };
                    writes.carry(carried, place, Some(brought)).await;
                }
                None if writes.is_draining() => live.parked(place),
                None => {
                    tracing::error!(
                        id = %live.id,
                        request_id = live.request_id(),
                        "durable write is missing from the journal"
                    );
                    writes.durable.refuse(&live, GatewayError::WriteCancelled);
                }
            }
        });
    }

    /// Runs the task of a write. One that panics leaves it as one of which nobody knows the
    /// outcome, if it had left.
    fn guarded(self: &Arc<Self>, live: Arc<Live>, work: impl Future<Output = ()> + Send + 'static) {
        let writes = self.clone();
        drop(tokio::spawn(async move {
            if tokio::spawn(work).await.is_ok() {
                return;
            }
            tracing::error!(
                id = %live.id,
                request_id = live.request_id(),
                "task of a durable write failed"
            );
            if matches!(live.stage(), Stage::Left) {
                writes
                    .end(&live, State::Unknown, None, &Timing::default())
                    .await;
            } else {
                live.set(Stage::Parked);
            }
        }));
    }

    /// Leaves a write to whoever takes it back, to the next process if the gateway stops, and lets
    /// it wait again if neither is so.
    fn park(&self, live: &Arc<Live>, place: Place) {
        if self.is_draining() {
            return live.parked(place);
        }
        if let PutBack::GoesOn(place) = live.put_back(place) {
            self.defer(live, place);
        }
    }

    async fn carry(
        self: &Arc<Self>,
        mut carried: Carried,
        mut place: Place,
        mut brought: Option<Brought>,
    ) {
        loop {
            let turn = match self.next_turn(&mut carried, place).await {
                Ok(turn) => turn,
                Err(place) => return self.park(&carried.live, place),
            };
            drop(brought.take());
            // Stopping waits for what has left.
            let running = self.tasks.begin("durable write");
            let mut next = match turn {
                Turn::Alone(_, place) if self.is_too_late(&carried.live) => {
                    let (live, heard) = (&carried.live, carried.heard.take());
                    self.end(live, State::Unknown, heard, &carried.timing).await;
                    drop(place);
                    Next::Over
                }
                Turn::Alone(permit, place) if self.may_leave(&carried.live) => {
                    self.take_turn(&mut carried, permit, place).await
                }
                Turn::Alone(_, place) => return self.park(&carried.live, place),
                Turn::Leads(permit, own, others) => {
                    let told = self.set_out(*own, others, permit);
                    self.ride(&mut carried, told).await
                }
                Turn::Rides(told) => self.ride(&mut carried, told).await,
            };
            drop(running);
            let live = carried.live.clone();
            while let Next::Later(until, unrepeated) = next {
                tokio::select! {
                    () = live.stopped() => return self.park(&live, unrepeated.2),
                    () = tokio::time::sleep_until(until.into()) => {}
                }
                let _running = self.tasks.begin("durable write");
                next = self.judge(&mut carried, *unrepeated).await;
            }
            let Next::Again(again, pause) = next else {
                return;
            };
            place = again;
            tokio::select! {
                () = live.stopped() => return self.park(&live, place),
                () = tokio::time::sleep(pause) => {}
            }
            place.look_again();
            carried.ticket.again_blocked();
        }
    }

    /// Lets a write leave, unless it is being taken back, or nobody waits for it and its credential
    /// was refused while it stood in line.
    pub(crate) fn may_leave(&self, live: &Live) -> bool {
        let waits = live.deferred && matches!(live.stage(), Stage::Queued);
        let has_to_wait = waits && self.durable.shared.feed.lock().is_refused(live.credential);
        !has_to_wait && live.leaves()
    }

    /// Whether it was held up for so long that it is not to be repeated any more.
    fn is_too_late(&self, live: &Live) -> bool {
        let (now, first) = (self.clock.now(), live.tries().first_doubt);
        let waited = first.map_or(Duration::ZERO, |first| now.saturating_duration_since(first));
        waited >= REPEAT_FOR && matches!(live.stage(), Stage::Queued | Stage::Left)
    }

    /// It leaves.
    fn departs(&self, carried: &mut Carried) {
        // What the last process had sent is repeated by this one.
        let is_first = !carried.timing.left && carried.live.tries().doubt.is_none();
        if is_first {
            self.attempts.first_attempt();
        }
        self.attempts.leaves(&carried.ask, &mut carried.timing);
        carried.ask.progress.ready(carried.ticket.ready_since());
    }

    /// Waits for its lanes and for a slot, however long that takes.
    ///
    /// # Errors
    /// With its place, if it is taken back or the gateway stops.
    async fn next_turn(&self, carried: &mut Carried, mut place: Place) -> Result<Turn, Place> {
        loop {
            let live = carried.live.clone();
            let how = (Some(&live), carried.batching);
            let turn = self.turn(&carried.ask, how, &mut carried.ticket, place);
            let (why, returned) = match turn.await {
                Ok(turn) => return Ok(turn),
                Err(no_turn) => no_turn,
            };
            place = returned;
            match why {
                NoTurn::Stopped | NoTurn::NoPermit(NoPermit::Refused(Refusal::Draining)) => {
                    return Err(place);
                }
                NoTurn::Broken(until) => {
                    tokio::select! {
                        () = live.stopped() => return Err(place),
                        () = tokio::time::sleep_until(until.into()) => {}
                    }
                    place.look_again();
                    carried.ticket.again_blocked();
                    continue;
                }
                // Whoever waited for it no longer does.
                NoTurn::NoPermit(NoPermit::Expired) => {
                    carried.ticket.extend(self.clock.now() + NEVER);
                }
                NoTurn::NoPermit(NoPermit::Refused(_)) => {
                    tokio::time::sleep(PAUSE).await;
                    let Some(ticket) = self.join(&live, &carried.ask, true).await else {
                        return Err(place);
                    };
                    carried.ticket = ticket;
                    place.waits_at(carried.ticket.place());
                }
            }
            place.look_again();
        }
    }

    /// Waits for what becomes of it together with others.
    async fn ride(&self, carried: &mut Carried, told: oneshot::Receiver<Told>) -> Next {
        let left = self.clock.now();
        self.departs(carried);
        let told = told.await.unwrap_or(Told::Unknown(Waited::InVain));
        let live = carried.live.clone();
        match told {
            Told::Merged(merged) => {
                carried.timing.upstream = merged.took;
                carried.timing.merged = merged.members;
                self.conclude(carried, left, attempted(*merged)).await
            }
            Told::Divided(place, members) => {
                carried.batching = carried.batching.divided(members);
                // The refusal of the batch is not its own: it goes on as after a 429.
                let came = decision::Came::Throttled;
                self.conclude(carried, left, (came, None, Some(place)))
                    .await
            }
            Told::Again(place, Came::Throttled(_)) => {
                carried.timing.throttled += 1;
                let came = decision::Came::Throttled;
                self.conclude(carried, left, (came, None, Some(place)))
                    .await
            }
            Told::Again(place, _) => {
                let came = decision::Came::NotSent;
                self.conclude(carried, left, (came, None, Some(place)))
                    .await
            }
            Told::NotRecorded(place) => {
                live.stays();
                Next::Again(place, PAUSE)
            }
            Told::Ended(_) | Told::InDoubt(..) | Told::Unknown(_) => {
                // Its place stays closed for as long as it may take effect.
                self.end(&live, State::Unknown, None, &carried.timing).await;
                Next::Over
            }
        }
    }

    async fn take_turn(
        self: &Arc<Self>,
        carried: &mut Carried,
        permit: Permit,
        place: Place,
    ) -> Next {
        let live = carried.live.clone();
        let dispatch = Change::Dispatch(live.id, self.clock.wall());
        if let Err(error) = self.commit(vec![dispatch]).await {
            drop(permit);
            return self.not_recorded(&live, place, &error);
        }
        let left = self.clock.now();
        live.tried();
        self.departs(carried);
        place.expect(left + carried.ticket.answer_time());
        let came = self.send_once(carried, permit, place).await;
        self.conclude(carried, left, came).await
    }

    /// What follows from what came of an attempt that left at this instant.
    async fn conclude(
        &self,
        carried: &mut Carried,
        left: Instant,
        (came, heard, place): Attempted,
    ) -> Next {
        let live = carried.live.clone();
        let Some(mut place) = place else {
            self.end(&live, State::Unknown, heard, &carried.timing)
                .await;
            return Next::Over;
        };
        if is_in_doubt(came) {
            let late = self.router.settings.get().late;
            live.doubted(left, self.clock.now() + late);
            place.stay_closed_for(late);
        }
        let next = self.judge(carried, (came, heard, place)).await;
        if matches!(next, Next::Later(..)) {
            self.attempts
                .no_repetition(&live.operation, &carried.ask.ids);
        }
        next
    }

    /// The same, once it is noted whether the attempt may have taken effect.
    async fn judge(&self, carried: &mut Carried, (came, heard, place): Unrepeated) -> Next {
        let live = carried.live.clone();
        let live = &live;
        match verdict(came, &self.known(carried)) {
            Verdict::End(state) => {
                self.end(live, state, heard, &carried.timing).await;
                drop(place);
                Next::Over
            }
            Verdict::Again => {
                let pause = if came == decision::Came::Throttled {
                    carried.failures = 0;
                    Duration::ZERO
                } else {
                    carried.failures += 1;
                    backoff::reconnect_pause(carried.failures, dice(live, carried.failures))
                };
                self.waits_again(live).await;
                Next::Again(place, pause)
            }
            Verdict::Repeat => match self.attempts.take_repetition(&live.operation) {
                Ok(()) => {
                    carried.failures += 1;
                    carried.heard = heard;
                    let failures = carried.failures;
                    Next::Again(place, decision::pause(failures, dice(live, failures)))
                }
                Err(until) => Next::Later(until, Box::new((came, heard, place))),
            },
            Verdict::Pause => {
                self.waits_again(live).await;
                self.pause_credential(live.credential).await;
                self.defer(live, place);
                Next::Over
            }
        }
    }

    /// Sends it once; what is kept of the answer, and its place.
    async fn send_once(
        self: &Arc<Self>,
        carried: &mut Carried,
        permit: Permit,
        place: Place,
    ) -> Attempted {
        let ask = &carried.ask;
        let affected = touched(ask).sent_before(carried.live.tries().doubt.is_some());
        let unsettled = Unsettled::new(self.clone(), affected, place);
        let permit = permit.carries(vec![unsettled.intent(ask, Some(&carried.live))]);
        let mut request = ask.forwarded();
        if carried.live.tries().doubt.is_some() {
            request.extensions_mut().insert(NewConnection);
        }
        let came = self
            .attempts
            .attempt(&ask.operation, ask.credential, permit, request);
        match came.await {
            Came::Answer(answer) => {
                let status = answer.response.status();
                let headers = answer.response.headers();
                let place = unsettled.heard(status, headers, answer.doubtful);
                let heard = hear(answer).await;
                carried.timing.upstream = heard.took;
                (decision::Came::Status(status), Some(heard), place)
            }
            Came::Throttled(_) => {
                carried.timing.throttled += 1;
                let place = unsettled.not_carried_out();
                (decision::Came::Throttled, None, place)
            }
            Came::NotSent(_) => (decision::Came::NotSent, None, unsettled.not_carried_out()),
            Came::Unknown(_) => (decision::Came::NoAnswer, None, unsettled.in_doubt()),
        }
    }

    fn known<'c>(&self, carried: &'c Carried) -> Known<'c> {
        let tries = carried.live.tries();
        let now = self.clock.now();
        let since_first = tries
            .first_doubt
            .map(|at| now.saturating_duration_since(at));
        Known {
            method: &carried.ask.method,
            is_list: is_list(&carried.ask),
            repeatable: is_repeatable(&carried.ask),
            doubtful: tries.doubt.is_some(),
            since_first: since_first.unwrap_or_default(),
            deferred: carried.live.deferred,
        }
    }

    /// It was not sent, because that could not be recorded.
    fn not_recorded(&self, live: &Live, place: Place, error: &JournalError) -> Next {
        if *error == JournalError::Absent {
            // Somebody has removed it from the journal: nobody is to send it.
            self.durable.refuse(live, GatewayError::WriteCancelled);
            return Next::Over;
        }
        let _ = self.journal_failed(error);
        if live.tries().doubt.is_none() {
            live.set(Stage::Queued);
        }
        Next::Again(place, PAUSE)
    }

    /// An attempt had no effect: the journal says so, unless an earlier one may have had.
    async fn waits_again(&self, live: &Live) {
        if live.tries().doubt.is_some() {
            return;
        }
        // Without it, a crash would make it one of which the outcome is unknown.
        if let Err(error) = self.commit(vec![Change::Requeue(live.id)]).await {
            let _ = self.journal_failed(&error);
        }
        live.set(Stage::Queued);
    }
}

/// What came of being sent with others.
fn attempted(merged: Merged) -> Attempted {
    let Ok(answer) = merged.answer else {
        return (decision::Came::NoAnswer, None, merged.place);
    };
    let (head, body) = answer.into_parts();
    let heard = Heard {
        answer: Some(KeptAnswer {
            status: head.status,
            headers: head.headers,
            body: Some(body),
        }),
        standing: merged.standing,
        took: merged.took,
    };
    let came = decision::Came::Status(head.status);
    (came, Some(heard), merged.place)
}

/// A number from the random bits of its name.
fn dice(live: &Live, failures: u32) -> u64 {
    let bits = live.id.bytes()[8..].iter();
    bits.fold(u64::from(failures), |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    })
}
