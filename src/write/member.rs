//! A member of an attempt, and what the attempt reports to it.
//!
//! An attempt has one member, or several if it sends a batch. Each hears of its own outcome by one
//! channel. A member that no longer listens, because its caller hung up, is logged instead, and its
//! place in the lanes goes with the report.

use crate::error::Waited;
use crate::exchange::request::{RequestContext, short};
use crate::journal::State;
use crate::lanes::{LanePosition, Turn};
use crate::merge::Parts;
use crate::metrics::Outcome;
use crate::upstream::NotSent;
use crate::write::answer::WriteAnswer;
use crate::write::audited::WriteAudit;
use crate::write::decision::{Decision, OutcomeClass, WriteFacts, decide, is_refusal};
use crate::write::durable::PendingWrite;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// A write that is about to be sent, alone or in a batch.
pub(super) struct Member {
    pub(super) recipient: ReportRecipient,
    /// Its entry in the journal, if it is durable.
    pub(super) entry: Option<Arc<PendingWrite>>,
    pub(super) place: LanePosition,
}

/// Who hears of an attempt.
pub(super) struct ReportRecipient {
    pub(super) context: Arc<RequestContext>,
    /// When its first attempt was sent that may have taken effect.
    pub(super) first_doubt: Option<Instant>,
    /// The audit record of a held write.
    pub(super) audit: WriteAudit,
    report: oneshot::Sender<AttemptReport>,
}

/// What a write brings to a batch.
pub(super) struct Batchable {
    pub(super) request: Request<Bytes>,
    pub(super) parts: Parts,
}

impl Member {
    /// Returns its turn among all writes: the members of a batch are listed in this order.
    pub(super) fn turn(&self) -> Turn {
        self.place.turn()
    }
}

/// The report of an attempt to one of its members.
#[derive(Debug)]
pub(super) struct AttemptReport {
    pub(super) end: MemberEnd,
    /// The number of writes that the attempt sent.
    pub(super) members: usize,
    /// The member's place in the lanes, which open when this is dropped.
    pub(super) place: LanePosition,
}

/// The end of an attempt for one of its members. It has settled.
#[derive(Debug)]
pub(super) enum MemberEnd {
    /// The API answered, as far as it concerns this member.
    Answered(Box<WriteAnswer>),
    /// It was sent, and there is no answer for this member.
    NoAnswer(Waited),
    /// The API answered 429: it did not take effect.
    Throttled(Response<Bytes>),
    /// It was not sent.
    NotSent(NotSent),
    /// The API refused the batch, which says nothing about this member.
    BatchRefused,
    /// It was not sent, because its batch cannot be written as one request.
    NotBatchable,
    /// It was not sent, because the journal or the audit log could not record that.
    NotRecorded,
}

impl MemberEnd {
    /// Returns what is decided upon.
    pub(super) fn class(&self) -> OutcomeClass {
        match self {
            Self::Answered(answer) => OutcomeClass::Status(answer.status()),
            Self::NoAnswer(_) => OutcomeClass::NoAnswer,
            Self::Throttled(_)
            | Self::NotSent(_)
            | Self::BatchRefused
            | Self::NotBatchable
            | Self::NotRecorded => OutcomeClass::NoEffect,
        }
    }
}

impl ReportRecipient {
    /// A write that hears of its attempt by the returned channel.
    pub(super) fn new(
        context: Arc<RequestContext>,
        first_doubt: Option<Instant>,
        audit: WriteAudit,
    ) -> (Self, oneshot::Receiver<AttemptReport>) {
        let (report, hears) = oneshot::channel();
        let recipient = Self {
            context,
            first_doubt,
            audit,
            report,
        };
        (recipient, hears)
    }

    /// Reports an attempt. If nobody waits for that any more, it is logged.
    ///
    /// The audit record learns of it first: what the engine makes of the report comes later.
    pub(super) fn report(self, report: AttemptReport) {
        let context = self.context;
        self.audit.answered(&context, report.end.class());
        if matches!(report.end, MemberEnd::BatchRefused) {
            self.audit.divided();
        }
        let Err(unheard) = self.report.send(report) else {
            return;
        };
        let in_doubt = self.first_doubt.is_some();
        let (status, outcome) = summary(&context, in_doubt, unheard.end.class());
        tracing::info!(
            operation = &*context.operation.name,
            method = short(&context.method),
            status = status.map(|status| status.as_u16()),
            outcome = outcome.as_str(),
            credential = %context.credential,
            request_id = context.ids.request(),
            trace_id = context.ids.trace(),
            "write ended after its caller hung up"
        );
    }
}

/// Returns the status and the outcome of a write for which nobody waits.
fn summary(
    context: &RequestContext,
    in_doubt: bool,
    class: OutcomeClass,
) -> (Option<StatusCode>, Outcome) {
    let facts = WriteFacts::last(context, in_doubt);
    match class {
        OutcomeClass::NoEffect => (None, Outcome::HungUp),
        OutcomeClass::NoAnswer => (None, Outcome::Unknown),
        // What the API refuses now, an earlier attempt may have done.
        OutcomeClass::Status(_)
            if is_refusal(class) && decide(class, &facts) == Decision::End(State::Unknown) =>
        {
            (None, Outcome::Unknown)
        }
        OutcomeClass::Status(status) => (Some(status), Outcome::Written),
    }
}
