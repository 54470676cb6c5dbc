//! Carrying a batch through: one slot, the journal before it, one dispatch, and each member told.
//!
//! Invariant: all members have settled before any of their callers hears. Members of a refused
//! batch take their own places again, with their own deadlines and turns, and are sent in smaller
//! groups or alone ([`Batching`](crate::merge::Batching)); no batch is sent twice.

use crate::attempt::send::{Answer, Came};
use crate::error::{GatewayError, Waited};
use crate::exchange::body::{self, Read};
use crate::journal::{Change, JournalError, Record};
use crate::limit::budgets::Standing;
use crate::limit::ledger::Intent;
use crate::limit::ticket::Permit;
use crate::merge::{self, Outcome, Parts};
use crate::queue::Place;
use crate::write::Writes;
use crate::write::batch::Passenger;
use crate::write::held::{Told, Unsettled, touched};
use crate::write::settlement::Affected;
use bytes::Bytes;
use http::Response;
use std::sync::Arc;
use std::time::Duration;

/// The body of an answer to a batch is read up to this size.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;

/// The outcome of a write that was batched.
#[derive(Debug)]
pub(crate) struct Merged {
    /// The API's answer, as far as it concerns this one, or why its outcome is unknown.
    pub(crate) answer: Result<Response<Bytes>, Waited>,
    /// Its lanes open when this is dropped.
    pub(crate) place: Option<Place>,
    pub(crate) standing: Option<Standing>,
    /// How long the dispatch took.
    pub(crate) took: Duration,
    /// How many were batched.
    pub(crate) members: usize,
}

/// A member of a batch.
struct Member {
    passenger: Passenger,
    /// From the dispatch on.
    unsettled: Option<Unsettled>,
    /// Before that.
    place: Option<Place>,
}

/// What the API answered to a batch.
struct Heard {
    /// Read to its end; or why there is none.
    answer: Result<Response<Bytes>, Waited>,
    doubtful: bool,
    standing: Option<Standing>,
    took: Duration,
}

impl Writes {
    /// Sends a batch and tells its members their outcomes.
    pub(super) async fn run_batch(self: &Arc<Self>, passengers: Vec<Passenger>, permit: Permit) {
        let Some(first) = passengers.first() else {
            return;
        };
        let ask = first.ask.clone();
        let parts: Vec<&Parts> = passengers.iter().map(|one| &one.parts).collect();
        let request = merge::union(&first.request, &parts);
        let mut members: Vec<Member> = passengers.into_iter().map(Member::new).collect();
        let Some(mut request) = request else {
            // It cannot be written as one: all of them leave alone.
            return dissolve(members, |place| Told::Divided(place, 1));
        };
        if !self.record(&members).await {
            drop(permit);
            return dissolve(members, Told::NotRecorded);
        }
        members.iter_mut().for_each(|member| member.leaves(self));
        let permit = permit.carries(members.iter().filter_map(Member::intent).collect());
        request.extensions_mut().insert(ask.ids.clone());
        let operation = &ask.operation;
        let came = self
            .attempts
            .attempt(operation, ask.credential, permit, request);
        let heard = match came.await {
            Came::Answer(answer) => Heard::read(answer).await,
            Came::Unknown(why) => Heard::nothing(why.into()),
            Came::Throttled(response) => {
                let again = |place| Told::Again(place, Came::Throttled(response.clone()));
                return dissolve(members, again);
            }
            Came::NotSent(why) => {
                return dissolve(members, |place| Told::Again(place, Came::NotSent(why)));
            }
        };
        let parts: Vec<&Parts> = members.iter().map(|one| &one.passenger.parts).collect();
        let outcomes = merge::outcomes(heard.answer.as_ref().ok(), &parts);
        self.platform.batch_ended(&ask, &outcomes);
        if outcomes
            .iter()
            .any(|outcome| matches!(outcome, Outcome::Refused))
        {
            tracing::info!(
                operation = %operation.name,
                credential = %ask.credential,
                status = heard.answer.as_ref().ok().map(|answer| answer.status().as_u16()),
                members = members.len(),
                request_id = ask.ids.request(),
                trace_id = ask.ids.trace(),
                "batch rejected by the API: its members are sent in smaller batches or alone"
            );
        } else {
            self.metrics
                .travelled(&operation.name, members.len() as u64, 1);
        }
        self.conclude_batch(members, outcomes, heard);
    }

    /// Tells the journal which of its writes leave; false if it cannot keep that.
    async fn record(&self, members: &[Member]) -> bool {
        let now = self.clock.wall();
        let lives = members.iter().filter_map(|it| it.passenger.live.as_ref());
        let changes: Vec<Change> = lives.map(|live| Change::Dispatch(live.id, now)).collect();
        if changes.is_empty() {
            return true;
        }
        match self.commit(changes).await {
            Ok(()) => true,
            Err(JournalError::Absent) => {
                self.leave_out_ended(members).await;
                false
            }
            Err(error) => {
                let _ = self.journal_failed(&error);
                false
            }
        }
    }

    /// Nobody is to send what has ended in the journal, or is no longer there.
    async fn leave_out_ended(&self, members: &[Member]) {
        for live in members.iter().filter_map(|it| it.passenger.live.as_ref()) {
            let record = self.durable.journal().get(live.id).await;
            let has_ended = |record: &Option<Record>| {
                record
                    .as_ref()
                    .is_none_or(|record| record.state.has_ended())
            };
            if record.as_ref().is_ok_and(has_ended) {
                self.durable.refuse(live, GatewayError::WriteCancelled);
            }
        }
    }

    /// Settles all members, and then tells each of them.
    fn conclude_batch(&self, members: Vec<Member>, outcomes: Vec<Outcome>, heard: Heard) {
        let count = members.len();
        let each = members.into_iter().zip(outcomes);
        let settled: Vec<_> = each
            .map(|(mut member, outcome)| {
                let (place, answer) = member.settle(&outcome, &heard);
                let told = match (outcome, place) {
                    (Outcome::Refused, Some(place)) => Told::Divided(place, count),
                    (_, place) => Told::Merged(Box::new(Merged {
                        answer,
                        place,
                        standing: heard.standing.clone(),
                        took: heard.took,
                        members: count,
                    })),
                };
                (member, told)
            })
            .collect();
        for (member, told) in settled {
            member.tell(told);
        }
    }
}

/// Nothing was carried out: everybody takes its own place again.
fn dissolve(members: Vec<Member>, told: impl Fn(Place) -> Told) {
    for mut member in members {
        let unsettled = member.unsettled.take();
        let place = unsettled.and_then(Unsettled::not_carried_out);
        if let Some(place) = place.or_else(|| member.place.take()) {
            member.tell(told(place));
        }
    }
}

impl Heard {
    fn nothing(why: Waited) -> Self {
        Self {
            answer: Err(why),
            doubtful: false,
            standing: None,
            took: Duration::ZERO,
        }
    }

    async fn read(answer: Answer) -> Self {
        let (mut head, body) = answer.response.into_parts();
        let whole = match body::read(body, LONGEST_ANSWER).await {
            Read::Whole(bytes) => {
                // It is that of a body that is held from now on.
                head.headers.remove(http::header::CONTENT_LENGTH);
                Ok(Response::from_parts(head, bytes))
            }
            // Members are sent again whatever it says.
            Read::Longer(..) | Read::Broken(_) if merge::is_refusal(head.status) => {
                Ok(Response::from_parts(head, Bytes::new()))
            }
            Read::Longer(..) => Err(Waited::Unattributed),
            Read::Broken(_) => Err(Waited::InVain),
        };
        Self {
            answer: whole,
            doubtful: answer.doubtful,
            standing: answer.standing,
            took: answer.took,
        }
    }
}

impl Member {
    fn new(mut passenger: Passenger) -> Self {
        let place = passenger.place.take();
        Self {
            passenger,
            unsettled: None,
            place,
        }
    }

    /// The dispatch leaves.
    fn leaves(&mut self, writes: &Arc<Writes>) {
        if let Some(live) = &self.passenger.live {
            live.tried();
        }
        if let Some(place) = self.place.take() {
            let ask = &self.passenger.ask;
            let budget = &ask.operation.budget;
            let answer = writes.budgets.answer_time(ask.credential, budget);
            place.expect(writes.clock.now() + answer);
            let touched = Affected {
                may_be_partial: true,
                ..touched(ask)
            };
            self.unsettled = Some(Unsettled::new(writes.clone(), touched, place));
        }
    }

    fn intent(&self) -> Option<Intent> {
        let passenger = &self.passenger;
        let unsettled = self.unsettled.as_ref()?;
        Some(unsettled.intent(&passenger.ask, passenger.live.as_deref()))
    }

    /// Settles what it touches, by the answer to the batch: a list may have been applied in part
    /// before it was refused, and the fields that no member is shown may name what else has
    /// changed. Its place, and its own answer.
    fn settle(
        &mut self,
        outcome: &Outcome,
        heard: &Heard,
    ) -> (Option<Place>, Result<Response<Bytes>, Waited>) {
        let unsettled = self.unsettled.take();
        let own = match (outcome, &heard.answer) {
            (_, Err(why)) => Err(*why),
            (Outcome::Answer(own) | Outcome::Unknown(Some(own)), Ok(_)) => Ok(own.clone()),
            (Outcome::Refused, Ok(_)) => Err(Waited::Divided),
            (Outcome::Unattributed | Outcome::Unknown(None), Ok(_)) => Err(Waited::Unattributed),
        };
        let place = match &heard.answer {
            Ok(whole) if !matches!(outcome, Outcome::Unknown(None)) => {
                unsettled.and_then(|it| it.heard(whole.status(), whole.headers(), heard.doubtful))
            }
            _ => unsettled.and_then(Unsettled::in_doubt),
        };
        (place, own)
    }

    /// One whose caller hung up hears nothing; its place is given up with what it was told.
    fn tell(mut self, told: Told) {
        if let Some(tell) = self.passenger.tell.take()
            && let Err(unheard) = tell.send(told)
        {
            unheard.log(&self.passenger.ask);
        }
    }
}
