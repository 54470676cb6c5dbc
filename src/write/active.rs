//! A write on its way, held or durable: what the engine knows of it.
//!
//! A held write is a durable one without an entry in the journal and with a deadline. Nothing here
//! waits or sends.

use crate::error::{GatewayError, Waited};
use crate::exchange::request::RequestContext;
use crate::exchange::response::Reply;
use crate::exchange::timing::Timing;
use crate::journal::State;
use crate::lanes::LanePosition;
use crate::limit::ticket::Ticket;
use crate::merge::Batching;
use crate::tasks::Running;
use crate::write::answer::{Heard, unknown};
use crate::write::audited::WriteAudit;
use crate::write::decision::{WriteFacts, is_list, is_repeatable};
use crate::write::durable::{PendingWrite, ScheduledGuard};
use crate::write::member::{AttemptReport, Member, ReportRecipient};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// A write on its way.
pub(super) struct ActiveWrite {
    pub(super) context: Arc<RequestContext>,
    /// Its place in the line of its budget.
    pub(super) ticket: Ticket,
    pub(super) timing: Timing,
    /// The number of others with which it may be batched.
    pub(super) batching: Batching,
    pub(super) history: AttemptHistory,
    /// Its entry in the journal. `None` if it is held: then its caller waits for it, until its
    /// deadline at most.
    pub(super) entry: Option<Arc<PendingWrite>>,
    /// Counts it among the deferred writes that stand before their budgets; dropped when it is
    /// sent, so that the next one is scheduled.
    pub(super) scheduled: Option<ScheduledGuard>,
    /// Makes stopping wait for a durable write from each dispatch until it waits again.
    pub(super) running: Option<Running>,
    /// The audit record, if it is held: a durable write is recorded with its end in the journal.
    pub(super) audit: WriteAudit,
}

/// What earlier attempts came to.
#[derive(Debug, Default)]
pub(super) struct AttemptHistory {
    /// Attempts in a row that were not sent.
    pub(super) not_sent: u32,
    /// Whether the API refused a batch in which it was sent.
    pub(super) divided: bool,
    /// Present once an attempt may have taken effect.
    pub(super) doubt: Option<Uncertainty>,
}

/// What is known of a write that may have taken effect.
#[derive(Debug)]
pub(super) struct Uncertainty {
    /// When the first attempt was sent that may have taken effect.
    pub(super) since: Instant,
    /// The number of such attempts, as far as this process knows.
    pub(super) attempts: u32,
    /// What the last of them came to.
    pub(super) last: Heard,
}

/// Where the engine leaves a write.
pub(super) enum RunEnd {
    /// It has ended.
    Ended(Box<Ending>),
    /// It has not ended and waits with its place: it is cancelled, or given to another credential,
    /// or the gateway stops. Durable writes only.
    Stopped(LanePosition),
    /// The same, because the API refuses its credential. Deferred writes only.
    Paused(LanePosition),
}

/// A step of a write: it goes on with a value, or the engine leaves it.
pub(super) type Step<T> = ControlFlow<RunEnd, T>;

/// The end of a write.
pub(super) struct Ending {
    pub(super) state: State,
    pub(super) heard: Heard,
    /// Its lanes open when this is dropped: after the journal has the end, and before the caller
    /// hears of it. `None` if an attempt has it that is still on its way.
    pub(super) place: Option<LanePosition>,
}

impl ActiveWrite {
    /// A write that stands in the line of its budget and has not been sent by this process.
    pub(super) fn new(
        context: RequestContext,
        ticket: Ticket,
        entry: Option<Arc<PendingWrite>>,
    ) -> Self {
        // The last process may have sent it.
        let since = entry.as_ref().and_then(|entry| entry.tries().first_doubt);
        let doubt = since.map(|since| Uncertainty {
            since,
            attempts: 0,
            last: Err(unknown(&context, Waited::Unrecorded)),
        });
        Self {
            timing: Timing::of(&context),
            context: Arc::new(context),
            ticket,
            batching: Batching::default(),
            history: AttemptHistory {
                doubt,
                ..AttemptHistory::default()
            },
            entry,
            scheduled: None,
            running: None,
            audit: WriteAudit::default(),
        }
    }

    /// When its first attempt was sent that may have taken effect.
    pub(super) fn first_doubt(&self) -> Option<Instant> {
        self.history.doubt.as_ref().map(|doubt| doubt.since)
    }

    /// Returns the write as a member of an attempt, and where it hears of that.
    pub(super) fn member(&self, place: LanePosition) -> (Member, oneshot::Receiver<AttemptReport>) {
        let (context, audit) = (self.context.clone(), self.audit.clone());
        let (recipient, report) = ReportRecipient::new(context, self.first_doubt(), audit);
        let member = Member {
            recipient,
            entry: self.entry.clone(),
            place,
        };
        (member, report)
    }

    /// Returns what is known to the decision about an attempt with so many `members` that left at
    /// `left`.
    pub(super) fn facts(&self, left: Instant, members: usize, now: Instant) -> WriteFacts<'_> {
        let first = self.first_doubt().unwrap_or(left);
        // The caller of a held write hears what its batch came to.
        let is_final = self.entry.is_none() && members > 1;
        WriteFacts {
            method: &self.context.method,
            is_list: is_list(&self.context),
            repeatable: is_repeatable(&self.context) && !is_final,
            doubtful: self.history.doubt.is_some(),
            since_first: now.saturating_duration_since(first),
            can_pause: self
                .entry
                .as_ref()
                .is_some_and(|entry| entry.deferred || self.context.is_held),
        }
    }

    /// Ends a write that is not retried: its caller hears what the last attempt came to.
    pub(super) fn end_with_last_answer(&mut self, place: LanePosition) -> RunEnd {
        let last = self.history.doubt.take().map(|doubt| doubt.last);
        let last = last.unwrap_or(Err(GatewayError::Internal));
        RunEnd::ended(State::Unknown, last, Some(place))
    }

    /// Ends a write whose last attempt had no effect, or that was not sent. What would be said of a
    /// write without effect is not true of one that may have had an effect: its caller hears what
    /// the last such attempt came to. Nor is it true of one that was sent in a batch: that no part
    /// of a refused list takes effect is documented by the API, but it is not what it answered.
    pub(super) fn end_without_effect(
        &mut self,
        state: State,
        without_effect: Heard,
        place: LanePosition,
    ) -> RunEnd {
        let heard = match self.history.doubt.take() {
            None if self.history.divided => Err(unknown(&self.context, Waited::Divided)),
            None => without_effect,
            Some(doubt) => doubt.last,
        };
        RunEnd::ended(state, heard, Some(place))
    }

    /// Returns the reply to the caller of a held write. Its lanes open first.
    pub(super) fn reply(self, end: RunEnd) -> Result<Reply, GatewayError> {
        let RunEnd::Ended(ending) = end else {
            return Err(GatewayError::Internal);
        };
        // An end without a place came before that of an attempt, which knows better.
        if ending.place.is_some() {
            self.audit.ended(ending.state, &ending.heard);
        }
        drop(ending.place);
        let answer = ending.heard?;
        // What the API refuses now, an earlier attempt may have done.
        if ending.state == State::Unknown && answer.status().is_client_error() {
            return Err(unknown(&self.context, Waited::RetryRefused));
        }
        let reply = answer.reply(self.timing);
        reply.ok_or_else(|| unknown(&self.context, Waited::InVain))
    }
}

impl RunEnd {
    pub(super) fn ended(state: State, heard: Heard, place: Option<LanePosition>) -> Self {
        Self::Ended(Box::new(Ending {
            state,
            heard,
            place,
        }))
    }
}

/// Waits until nothing may send the write of this entry any more. That never happens to a held
/// write, which has none: its caller drops it instead.
pub(super) async fn stopped(entry: Option<&Arc<PendingWrite>>) {
    match entry {
        Some(entry) => entry.stopped().await,
        None => std::future::pending().await,
    }
}
