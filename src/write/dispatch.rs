//! Carrying a batch through: one slot, the journal before it, one dispatch, and each member told.
//!
//! Invariant: all members have settled before any of their callers hears. Members of a refused
//! batch take their own places again, with their own deadlines and turns, and are sent in smaller
//! groups or alone ([`Batching`](crate::merge::Batching)); no batch is sent twice.

use crate::attempt::send::{AttemptOutcome, FinalAnswer};
use crate::error::{GatewayError, Waited};
use crate::exchange::body::{self, Read};
use crate::journal::{Change, JournalError, Record};
use crate::lanes::LanePosition;
use crate::limit::budgets::BudgetStatus;
use crate::limit::ledger::Intent;
use crate::limit::ticket::Permit;
use crate::merge::{self, Outcome, Parts};
use crate::write::Writes;
use crate::write::accept::{AttemptReport, touched};
use crate::write::pool::Candidate;
use crate::write::settlement::Affected;
use crate::write::unsettled::Unsettled;
use bytes::Bytes;
use http::Response;
use std::sync::Arc;
use std::time::Duration;

/// The body of an answer to a batch is read up to this size.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;

/// The outcome of a write that was batched.
#[derive(Debug)]
pub(crate) struct BatchResult {
    /// The API's answer, as far as it concerns this one, or why its outcome is unknown.
    pub(crate) answer: Result<Response<Bytes>, Waited>,
    /// Its lanes open when this is dropped.
    pub(crate) place: Option<LanePosition>,
    pub(crate) standing: Option<BudgetStatus>,
    /// How long the dispatch took.
    pub(crate) took: Duration,
    /// How many were batched.
    pub(crate) members: usize,
}

/// A member of a batch.
struct Member {
    candidate: Candidate,
    /// From the dispatch on.
    unsettled: Option<Unsettled>,
    /// Before that.
    place: Option<LanePosition>,
}

/// What the API answered to a batch.
struct BatchAnswer {
    /// Read to its end; or why there is none.
    answer: Result<Response<Bytes>, Waited>,
    doubtful: bool,
    standing: Option<BudgetStatus>,
    took: Duration,
}

impl Writes {
    /// Sends a batch and tells its members their outcomes.
    pub(super) async fn run_batch(self: &Arc<Self>, candidates: Vec<Candidate>, permit: Permit) {
        let Some(first) = candidates.first() else {
            return;
        };
        let context = first.context.clone();
        let parts: Vec<&Parts> = candidates.iter().map(|one| &one.parts).collect();
        let request = merge::union(&first.request, &parts);
        let mut members: Vec<Member> = candidates.into_iter().map(Member::new).collect();
        let Some(mut request) = request else {
            // It cannot be written as one: all of them leave alone.
            return dissolve(members, |place| AttemptReport::BatchRefused(place, 1));
        };
        if !self.record(&members).await {
            drop(permit);
            return dissolve(members, AttemptReport::NotRecorded);
        }
        members.iter_mut().for_each(|member| member.leaves(self));
        let permit = permit.carries(members.iter().filter_map(Member::intent).collect());
        request.extensions_mut().insert(context.ids.clone());
        let operation = &context.operation;
        let came = self
            .attempts
            .attempt(operation, context.credential, permit, request);
        let answer_read = match came.await {
            AttemptOutcome::Answer(answer) => BatchAnswer::read(answer).await,
            AttemptOutcome::Unknown(why) => BatchAnswer::nothing(why.into()),
            AttemptOutcome::Throttled(response) => {
                let again = |place| {
                    AttemptReport::Requeue(place, AttemptOutcome::Throttled(response.clone()))
                };
                return dissolve(members, again);
            }
            AttemptOutcome::NotSent(why) => {
                return dissolve(members, |place| {
                    AttemptReport::Requeue(place, AttemptOutcome::NotSent(why))
                });
            }
        };
        let parts: Vec<&Parts> = members.iter().map(|one| &one.candidate.parts).collect();
        let outcomes = merge::outcomes(answer_read.answer.as_ref().ok(), &parts);
        self.pool.batch_ended(&context, &outcomes);
        if outcomes
            .iter()
            .any(|outcome| matches!(outcome, Outcome::Refused))
        {
            tracing::info!(
                operation = %operation.name,
                credential = %context.credential,
                status = answer_read.answer.as_ref().ok().map(|answer| answer.status().as_u16()),
                members = members.len(),
                request_id = context.ids.request(),
                trace_id = context.ids.trace(),
                "batch rejected by the API: its members are sent in smaller batches or alone"
            );
        } else {
            self.metrics
                .batched(&operation.name, members.len() as u64, 1);
        }
        self.conclude_batch(members, outcomes, answer_read);
    }

    /// Tells the journal which of its writes leave; false if it cannot keep that.
    async fn record(&self, members: &[Member]) -> bool {
        let now = self.clock.wall();
        let pendings = members
            .iter()
            .filter_map(|it| it.candidate.pending.as_ref());
        let changes: Vec<Change> = pendings
            .map(|pending| Change::Dispatch(pending.id, now))
            .collect();
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
        for pending in members
            .iter()
            .filter_map(|it| it.candidate.pending.as_ref())
        {
            let record = self.durable.journal().get(pending.id).await;
            let has_ended = |record: &Option<Record>| {
                record
                    .as_ref()
                    .is_none_or(|record| record.state.has_ended())
            };
            if record.as_ref().is_ok_and(has_ended) {
                self.durable.refuse(pending, GatewayError::WriteCancelled);
            }
        }
    }

    /// Settles all members, and then tells each of them.
    fn conclude_batch(
        &self,
        members: Vec<Member>,
        outcomes: Vec<Outcome>,
        answer_read: BatchAnswer,
    ) {
        let count = members.len();
        let each = members.into_iter().zip(outcomes);
        let settled: Vec<_> = each
            .map(|(mut member, outcome)| {
                let (place, answer) = member.settle(&outcome, &answer_read);
                let report = match (outcome, place) {
                    (Outcome::Refused, Some(place)) => AttemptReport::BatchRefused(place, count),
                    (_, place) => AttemptReport::Batched(Box::new(BatchResult {
                        answer,
                        place,
                        standing: answer_read.standing.clone(),
                        took: answer_read.took,
                        members: count,
                    })),
                };
                (member, report)
            })
            .collect();
        for (member, report) in settled {
            member.tell(report);
        }
    }
}

/// Nothing was carried out: everybody takes its own place again.
fn dissolve(members: Vec<Member>, report: impl Fn(LanePosition) -> AttemptReport) {
    for mut member in members {
        let unsettled = member.unsettled.take();
        let place = unsettled.and_then(Unsettled::not_carried_out);
        if let Some(place) = place.or_else(|| member.place.take()) {
            member.tell(report(place));
        }
    }
}

impl BatchAnswer {
    fn nothing(why: Waited) -> Self {
        Self {
            answer: Err(why),
            doubtful: false,
            standing: None,
            took: Duration::ZERO,
        }
    }

    async fn read(answer: FinalAnswer) -> Self {
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
    fn new(mut candidate: Candidate) -> Self {
        let place = candidate.place.take();
        Self {
            candidate,
            unsettled: None,
            place,
        }
    }

    /// The dispatch leaves.
    fn leaves(&mut self, writes: &Arc<Writes>) {
        if let Some(pending) = &self.candidate.pending {
            pending.tried();
        }
        if let Some(place) = self.place.take() {
            let context = &self.candidate.context;
            let budget = &context.operation.budget;
            let answer = writes.budgets.answer_time(context.credential, budget);
            place.expect(writes.clock.now() + answer);
            let touched = Affected {
                may_be_partial: true,
                ..touched(context)
            };
            self.unsettled = Some(Unsettled::new(writes.clone(), touched, place));
        }
    }

    fn intent(&self) -> Option<Intent> {
        let candidate = &self.candidate;
        let unsettled = self.unsettled.as_ref()?;
        Some(unsettled.intent(&candidate.context, candidate.pending.as_deref()))
    }

    /// Settles what it touches, by the answer to the batch: a list may have been applied in part
    /// before it was refused, and the fields that no member is shown may name what else has
    /// changed. Its place, and its own answer.
    fn settle(
        &mut self,
        outcome: &Outcome,
        answer_read: &BatchAnswer,
    ) -> (Option<LanePosition>, Result<Response<Bytes>, Waited>) {
        let unsettled = self.unsettled.take();
        let own = match (outcome, &answer_read.answer) {
            (_, Err(why)) => Err(*why),
            (Outcome::Answer(own) | Outcome::Unknown(Some(own)), Ok(_)) => Ok(own.clone()),
            (Outcome::Refused, Ok(_)) => Err(Waited::Divided),
            (Outcome::Unattributed | Outcome::Unknown(None), Ok(_)) => Err(Waited::Unattributed),
        };
        let place = match &answer_read.answer {
            Ok(whole) if !matches!(outcome, Outcome::Unknown(None)) => unsettled
                .and_then(|it| it.heard(whole.status(), whole.headers(), answer_read.doubtful)),
            _ => unsettled.and_then(Unsettled::in_doubt),
        };
        (place, own)
    }

    /// One whose caller hung up hears nothing; its place is given up with what it was told.
    fn tell(mut self, report: AttemptReport) {
        if let Some(tell) = self.candidate.tell.take()
            && let Err(unheard) = tell.send(report)
        {
            unheard.log(&self.candidate.context);
        }
    }
}
