//! One attempt for one write or a batch: the journal before it, one request, and for each member
//! its settling and its report.
//!
//! An attempt runs in a task of its own. A caller that hangs up neither cuts it off nor keeps it
//! from settling, and stopping waits for it.
//!
//! Invariants:
//! - Nothing is sent before the journal has recorded it for all durable members, and the audit log
//!   for all, if it records writes before they are sent.
//! - All members have settled before any of them hears.
//! - No batch is sent twice. Members of a refused batch take their own places again, with their own
//!   deadlines and turns, and are sent in smaller batches or alone
//!   ([`Batching`](crate::merge::Batching)).
//!
//! The engine of each member decides what follows from a report.

use crate::attempt::send::{AttemptOutcome, FinalAnswer};
use crate::error::{GatewayError, Waited};
use crate::journal::{Change, JournalError, Record, WriteId};
use crate::lanes::LanePosition;
use crate::limit::ledger::Intent;
use crate::limit::ticket::Permit;
use crate::merge::{self, MemberOutcome, Parts};
use crate::upstream::NewConnection;
use crate::write::Writes;
use crate::write::answer::{AnswerContent, WriteAnswer};
use crate::write::batch_answer::BatchAnswer;
use crate::write::member::{AttemptReport, Batchable, Member, MemberEnd, ReportRecipient};
use crate::write::settlement::Affected;
use crate::write::turn::Dispatch;
use crate::write::unsettled::Unsettled;
use bytes::Bytes;
use http::Request;
use std::sync::Arc;

/// A member whose attempt is on its way.
struct Sent {
    /// The request of the member, and the channel to its engine.
    recipient: ReportRecipient,
    /// Settles the member as unknown if this is dropped, as by a panic.
    unsettled: Unsettled,
}

impl Writes {
    /// Begins an attempt in a task of its own, which stopping waits for. Each member hears its
    /// outcome by its own channel.
    pub(super) fn dispatch(self: &Arc<Self>, dispatch: Dispatch) {
        let writes = self.clone();
        self.tasks
            .spawn("write", async move { writes.send_attempt(dispatch).await });
    }

    /// Carries out an attempt: journal, request, settling, reports. The order must not change.
    ///
    /// Until the journal has recorded it, a failure costs nothing: the members are put back. From
    /// `Sent::new` on each member settles, even if this task panics. Reports come last, so that no
    /// caller hears of a write that cache and lanes do not know yet.
    async fn send_attempt(self: &Arc<Self>, dispatch: Dispatch) {
        let Dispatch {
            permit,
            members,
            batch,
        } = dispatch;
        let Some(first) = members.first() else {
            return;
        };
        let context = &first.recipient.context;
        let (operation, credential) = (context.operation.clone(), context.credential);
        let count = members.len();
        let parts: Vec<&Parts> = batch.iter().map(|batchable| &batchable.parts).collect();
        let Some(request) = request_of(first, &batch, &parts) else {
            // They cannot be written as one. Nothing was refused, and each is sent alone.
            self.give_up(permit);
            return put_back(members, count, || MemberEnd::NotBatchable);
        };
        let batch_id = (count > 1).then(|| self.durable.new_id(self.clock.wall()));
        // The intent first: one without a dispatch costs nothing, as it is followed by another.
        let may_be_sent =
            self.record_intents(&members, batch_id).await && self.record_dispatch(&members).await;
        if !may_be_sent {
            self.give_up(permit);
            return put_back(members, count, || MemberEnd::NotRecorded);
        }
        // From here on each member settles, whatever happens.
        let sent = members
            .into_iter()
            .map(|member| Sent::new(self, member, batch_id));
        let (sent, intents): (Vec<Sent>, Vec<Intent>) = sent.unzip();
        // The ledger records them with the slot, right before the request is sent.
        let permit = permit.carries(intents);
        let outcome = self
            .attempts
            .attempt(&operation, credential, permit, request)
            .await;
        // Settling. An attempt without effect leaves the lanes and the cache as they are.
        let reports = match outcome.without_page() {
            AttemptOutcome::Throttled(response) => {
                without_effect(sent, || MemberEnd::Throttled(response.clone()))
            }
            AttemptOutcome::NotSent(why) => without_effect(sent, || MemberEnd::NotSent(why)),
            // A batch is read whole before it settles, since each member settles by its own part.
            AttemptOutcome::Answer(answer) if count > 1 => {
                let answer = BatchAnswer::read(answer).await;
                self.settle_batch(sent, &parts, &answer)
            }
            AttemptOutcome::Unknown(why) if count > 1 => {
                self.settle_batch(sent, &parts, &BatchAnswer::none(why.into()))
            }
            AttemptOutcome::Answer(answer) => answered(sent, answer),
            AttemptOutcome::Unknown(why) => {
                // It may still take effect: each place keeps its lanes closed for the late-arrival
                // bound.
                let reports = sent.into_iter().map(|one| {
                    let place = one.unsettled.in_doubt();
                    (one.recipient, MemberEnd::NoAnswer(why.into()), place)
                });
                reports.collect()
            }
        };
        // All have settled, so who hears first reads nothing stale.
        for (recipient, end, place) in reports {
            // Every write that is sent has a place. Only shadow mode settles writes without one.
            if let Some(place) = place {
                recipient.report(AttemptReport {
                    end,
                    members: count,
                    place,
                });
            }
        }
    }

    /// Gives back what an attempt has that is not sent: its slot, and its admission by the breaker.
    /// Before the members hear, because they ask for both again.
    fn give_up(&self, permit: Permit) {
        drop(permit);
        self.attempts.release_probe();
    }

    /// Records in the journal which of its writes are sent, with one sync for all members. Returns
    /// `false` if it could not: then nothing may be sent.
    ///
    /// The slot is occupied meanwhile. Held writes have no entry, so a batch of them does not wait
    /// for a disk.
    async fn record_dispatch(&self, members: &[Member]) -> bool {
        let now = self.clock.wall();
        let entries = members.iter().filter_map(|member| member.entry.as_ref());
        let changes: Vec<Change> = entries
            .map(|entry| Change::Dispatch(entry.id, now))
            .collect();
        if changes.is_empty() {
            return true;
        }
        match self.commit(changes).await {
            Ok(()) => true,
            // One of them is no longer there. The others take their turns again.
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

    /// Keeps from being sent again what has ended in the journal, or was removed from it.
    ///
    /// An entry that cannot be read is left alone: its next attempt is recorded first as well.
    async fn leave_out_ended(&self, members: &[Member]) {
        for entry in members.iter().filter_map(|member| member.entry.as_ref()) {
            let record = self.durable.journal().get(entry.id).await;
            let has_ended = |record: &Option<Record>| {
                record
                    .as_ref()
                    .is_none_or(|record| record.state.has_ended())
            };
            if record.as_ref().is_ok_and(has_ended) {
                self.durable.refuse(entry, GatewayError::WriteCancelled);
            }
        }
    }

    /// Divides the answer to a batch among its members and settles all of them.
    ///
    /// A refusal may be about any element, so it is shown to none: each member is sent again. The
    /// pool counts what that cost, and makes batches rarer.
    fn settle_batch(
        &self,
        sent: Vec<Sent>,
        parts: &[&Parts],
        answer: &BatchAnswer,
    ) -> Vec<SettledMember> {
        let Some(context) = sent.first().map(|first| &first.recipient.context) else {
            return Vec::new();
        };
        // In the order of the members, by which outcomes and members are paired below.
        let outcomes = merge::outcomes(answer.whole.as_ref().ok(), parts);
        self.pool.batch_ended(context, &outcomes);
        let (operation, members) = (&context.operation.name, sent.len());
        let is_refused = |outcome: &MemberOutcome| matches!(outcome, MemberOutcome::Refused);
        if outcomes.iter().any(is_refused) {
            tracing::info!(
                operation = &**operation,
                credential = %context.credential,
                status = answer.whole.as_ref().ok().map(|answer| answer.status().as_u16()),
                members,
                request_id = context.ids.request(),
                trace_id = context.ids.trace(),
                "batch rejected by the API: its members are sent in smaller batches or alone"
            );
        } else {
            self.metrics.batched(operation, members as u64, 1);
        }
        let each = sent.into_iter().zip(outcomes);
        each.map(|(one, outcome)| one.settle_in_batch(outcome, answer))
            .collect()
    }
}

/// A member that has settled, and what is reported to it: its own end, and its place in the lanes.
type SettledMember = (ReportRecipient, MemberEnd, Option<LanePosition>);

/// Returns the request of an attempt: that of its write, or the merged one of a batch. `None` if
/// these writes cannot be written as one.
///
/// A merged request has the header and the ids of its first member. So the log lines and spans of
/// the attempt appear under that member's request.
fn request_of(first: &Member, batch: &[Batchable], parts: &[&Parts]) -> Option<Request<Bytes>> {
    let context = &first.recipient.context;
    if let [own, _, ..] = batch {
        let mut request = merge::union(&own.request, parts)?;
        request.extensions_mut().insert(context.ids.clone());
        return Some(request);
    }
    let mut request = context.forwarded();
    // A retry does not use the connection on which the earlier attempt may still be in flight.
    if first.recipient.first_doubt.is_some() {
        request.extensions_mut().insert(NewConnection);
    }
    Some(request)
}

/// Returns members to their lines. They were not sent, so nothing has to settle.
fn put_back(members: Vec<Member>, count: usize, end: impl Fn() -> MemberEnd) {
    for member in members {
        let Member {
            recipient, place, ..
        } = member;
        recipient.report(AttemptReport {
            end: end(),
            members: count,
            place,
        });
    }
}

/// Settles the members of an attempt that had no effect.
///
/// Their places stay theirs, so that no later write of their lanes overtakes them.
fn without_effect(sent: Vec<Sent>, end: impl Fn() -> MemberEnd) -> Vec<SettledMember> {
    let settled = sent
        .into_iter()
        .map(|one| (one.recipient, end(), one.unsettled.not_carried_out()));
    settled.collect()
}

/// Settles a write that was sent alone. Its answer streams: the head is enough to settle it.
///
/// A doubtful answer keeps the lanes closed, because the request may still be in flight.
fn answered(sent: Vec<Sent>, answer: FinalAnswer) -> Vec<SettledMember> {
    let (status, doubtful) = (answer.response.status(), answer.doubtful);
    let Some(one) = sent.into_iter().next() else {
        return Vec::new();
    };
    let place = one
        .unsettled
        .heard(status, answer.response.headers(), doubtful);
    let end = MemberEnd::Answered(Box::new(answer.into()));
    vec![(one.recipient, end, place)]
}

impl Sent {
    /// Marks a member as sent. Returns it with what the ledger keeps of it while it may take
    /// effect.
    fn new(writes: &Arc<Writes>, member: Member, batch: Option<WriteId>) -> (Self, Intent) {
        let Member {
            recipient,
            entry,
            place,
        } = member;
        if let Some(entry) = &entry {
            entry.tried(batch);
        }
        recipient.audit.sent(batch);
        let context = &recipient.context;
        let budget = &context.operation.budget;
        let answer = writes.budgets.answer_time(context.credential, budget);
        // The estimates of later writes in its lanes count on this.
        place.expect(writes.clock.now() + answer);
        // A part of it may have taken effect although the API refuses the whole.
        let is_partial = batch.is_some() || recipient.first_doubt.is_some();
        let affected = Affected::of(context).partial_if(is_partial);
        let unsettled = Unsettled::new(writes.clone(), affected, place);
        let intent = unsettled.intent(context, entry.as_deref());
        let sent = Self {
            recipient,
            unsettled,
        };
        (sent, intent)
    }

    /// Settles a member by the answer to its batch: a list may have been applied in part before it
    /// was refused, and fields that no member is shown may name what else has changed.
    ///
    /// Without a whole answer, or without a part of it that is this member's own, the outcome is
    /// unknown.
    fn settle_in_batch(self, outcome: MemberOutcome, answer: &BatchAnswer) -> SettledMember {
        let is_refused = matches!(outcome, MemberOutcome::Refused);
        let is_unknown = matches!(outcome, MemberOutcome::Unknown(None));
        let place = match &answer.whole {
            Ok(whole) if !is_unknown => {
                self.unsettled
                    .heard(whole.status(), whole.headers(), answer.doubtful)
            }
            _ => self.unsettled.in_doubt(),
        };
        let end = match (outcome, &answer.whole) {
            (_, Err(why)) => MemberEnd::NoAnswer(*why),
            // The engine decides what an answer without a clear outcome means for a member.
            (MemberOutcome::Answer(own) | MemberOutcome::Unknown(Some(own)), Ok(_)) => {
                MemberEnd::Answered(Box::new(WriteAnswer {
                    response: own.map(AnswerContent::Whole),
                    standing: answer.standing.clone(),
                    took: answer.took,
                }))
            }
            _ if is_refused => MemberEnd::BatchRefused,
            _ => MemberEnd::NoAnswer(Waited::Unattributed),
        };
        (self.recipient, end, place)
    }
}
