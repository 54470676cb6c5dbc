//! The life of a write: accepted, queued in its lanes and its budget, sent, settled.
//!
//! Its caller's connection waits. While it is queued the caller may hang up, and the write is gone
//! without a trace; from the moment it leaves it is carried through by a task of its own, which
//! raises the marks and opens the lanes before the caller hears. One exception: where the API
//! refused the batch in which it left, it waits once more, and is gone if its caller has hung up.
//! Where it may have taken effect and that does no harm, it is sent again
//! ([`crate::write::retry`]): for its caller, so not once that has hung up.

use crate::attempt::estimate::MOST_WAITING_IN_LANES;
use crate::attempt::send::AttemptOutcome;
use crate::attempt::wait::refused;
use crate::cache::fence::Tag;
use crate::credential;
use crate::error::{GatewayError, Waited};
use crate::exchange::request::{RequestContext, short};
use crate::exchange::response::Reply;
use crate::lanes::Keys;
use crate::lanes::LanePosition;
use crate::limit::budgets::Readiness;
use crate::limit::ticket::{Permit, Ticket};
use crate::metrics::Outcome;
use crate::route::names;
use crate::route::policy::Touches;
use crate::write::Writes;
use crate::write::dispatch::BatchResult;
use crate::write::element_count;
use crate::write::pool::SendTurn;
use crate::write::retry::{CallerResult, HeldWrite, NextStep, unknown};
use crate::write::settlement::{Affected, Scope};
use crate::write::turn::TurnError;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// What each name that a write acts on takes up in its lane, roughly.
const NAME_BYTES: usize = 256;

/// What a write's task tells its caller.
#[derive(Debug)]
pub(crate) enum AttemptReport {
    /// What its last attempt came to.
    Ended(CallerResult),
    /// The same of one that may have taken effect; it may be repeated in its place.
    Uncertain(LanePosition, CallerResult),
    /// What became of it, together with others.
    Batched(Box<BatchResult>),
    /// The API refused the batch of so many in which it was sent; it takes its place again.
    BatchRefused(LanePosition, usize),
    /// It did not take effect; it may take its place again.
    Requeue(LanePosition, AttemptOutcome),
    /// It has not left, because the journal could not be told.
    NotRecorded(LanePosition),
    Unknown(Waited),
}

impl AttemptReport {
    /// Tells of the result that nobody waited for.
    pub(crate) fn log(&self, context: &RequestContext) {
        let (status, outcome) = match self {
            Self::Ended(Ok(written)) | Self::Uncertain(_, Ok(written)) => {
                (Some(written.response.status().as_u16()), Outcome::Written)
            }
            Self::Ended(Err(_)) | Self::Uncertain(_, Err(_)) => (None, Outcome::Unknown),
            Self::Batched(merged) => match &merged.answer {
                Ok(answer) => (Some(answer.status().as_u16()), Outcome::Written),
                Err(_) => (None, Outcome::Unknown),
            },
            Self::Requeue(..) | Self::BatchRefused(..) | Self::NotRecorded(_) => {
                (None, Outcome::HungUp)
            }
            Self::Unknown(_) => (None, Outcome::Unknown),
        };
        tracing::info!(
            operation = %context.operation.name,
            method = short(&context.method),
            status,
            outcome = outcome.as_str(),
            credential = %context.credential,
            request_id = context.ids.request(),
            trace_id = context.ids.trace(),
            "write ended after its caller hung up"
        );
    }
}

impl Writes {
    pub(crate) async fn write(
        self: &Arc<Self>,
        context: RequestContext,
    ) -> Result<Reply, GatewayError> {
        if let Some(wanted) = self.wants_durable(&context)? {
            return Box::pin(self.write_durably(context, wanted)).await;
        }
        let _held = self.hold(context.caller.peer)?;
        self.quotas.charge(&context.caller)?;
        let keys = self.order_keys(&context);
        let (ticket, mut place) = self.accept(&context, keys, false)?;
        let mut held = HeldWrite::new(context, ticket);
        loop {
            let turn = match self.wait_for_turn(&mut held, place).await {
                Ok(turn) => turn,
                Err(why) => return held.end(Err(why)),
            };
            let left = self.clock.now();
            if !held.timing.left {
                self.attempts.first_attempt();
            }
            self.attempts.leaves(&held.context, &mut held.timing);
            held.context.progress.ready(held.ticket.ready_since());
            let report = match turn {
                SendTurn::Alone(permit, place) => {
                    place.expect(left + held.ticket.answer_time());
                    self.dispatch(&held, left, permit, place)
                }
                SendTurn::Leader(permit, own, others) => self.send_batch(*own, others, permit),
                SendTurn::Member(report) => report,
            };
            let report = self.await_report(&held.context, report).await?;
            place = match self.next_step(&mut held, left, report).await {
                ControlFlow::Break(reply) => return reply,
                ControlFlow::Continue(place) => place,
            };
            place.look_again();
            held.ticket.again_blocked();
        }
    }

    /// What follows from what is told of an attempt that left at this instant.
    async fn next_step(
        &self,
        held: &mut HeldWrite,
        left: Instant,
        report: AttemptReport,
    ) -> NextStep {
        match report {
            AttemptReport::Ended(heard) => ControlFlow::Break(held.reply(heard)),
            AttemptReport::Uncertain(place, heard) => {
                self.wait_for_retry(held, left, place, heard).await
            }
            AttemptReport::Batched(merged) => ControlFlow::Break(merged_reply(*merged, held)),
            AttemptReport::BatchRefused(place, members) => {
                held.batching = held.batching.divided(members);
                // One that could not be written as part of a list is divided before it is sent.
                held.divided |= members > 1;
                ControlFlow::Continue(place)
            }
            AttemptReport::Unknown(waited) => {
                ControlFlow::Break(Err(unknown(&held.context, waited)))
            }
            AttemptReport::Requeue(place, AttemptOutcome::Throttled(response)) => {
                held.timing.throttled += 1;
                if held.ticket.estimate_again() <= held.ticket.deadline() {
                    return ControlFlow::Continue(place);
                }
                drop(place);
                let timing = held.timing.clone();
                ControlFlow::Break(held.end(Ok(Reply::throttled(response, timing))))
            }
            AttemptReport::Requeue(place, AttemptOutcome::NotSent(why)) => {
                held.connects += 1;
                let (turn, by) = (held.ticket.place(), held.ticket.deadline());
                match self
                    .attempts
                    .pause_or_fail(why, held.connects, turn, by)
                    .await
                {
                    Ok(()) => ControlFlow::Continue(place),
                    Err(why) => {
                        drop(place);
                        ControlFlow::Break(held.end(Err(why)))
                    }
                }
            }
            AttemptReport::Requeue(..) | AttemptReport::NotRecorded(_) => {
                ControlFlow::Break(Err(GatewayError::Internal))
            }
        }
    }

    pub(crate) fn no_turn(
        &self,
        why: TurnError,
        context: &RequestContext,
        ticket: &Ticket,
    ) -> GatewayError {
        match why {
            TurnError::PermitError(why) => self.attempts.not_permitted(why, context, ticket),
            TurnError::Stopped => GatewayError::Internal,
            TurnError::BreakerOpen(_) => GatewayError::UpstreamUnreachable {
                message: "The API could not be reached or did not answer several times in a row, \
                    so the gateway sends it no writes for a moment.",
                waited: Waited::InVain,
            },
        }
    }

    /// Takes a place in the budget's line and in the lanes.
    pub(crate) fn accept(
        &self,
        context: &RequestContext,
        keys: Keys,
        is_durable: bool,
    ) -> Result<(Ticket, LanePosition), GatewayError> {
        let answer = self
            .budgets
            .answer_time(context.credential, &context.operation.budget);
        let mut budget_request = self.attempts.budget_request(context);
        budget_request.bytes += keys.keys.len() * NAME_BYTES;
        budget_request.not_before = self.lanes.expected_free(context.credential, &keys, answer);
        budget_request.readiness = Readiness::Blocked;
        if let Some(leaves) = self.leaves_with_others(context, &keys, is_durable) {
            budget_request.forecast = Some(leaves);
        } else if budget_request.not_before.is_some() {
            let leaves = self.attempts.look(|| {
                let forecast = self
                    .attempts
                    .forecast(&budget_request, MOST_WAITING_IN_LANES)?;
                forecast.leaves(&self.attempts.newcomer(&budget_request, &keys))
            });
            budget_request.forecast = leaves.flatten();
        }
        let ticket = match self.budgets.join(&budget_request) {
            Err(refusal) => self.attempts.look_closer(budget_request, &keys, refusal),
            joined => joined,
        };
        let ticket = ticket.map_err(refused)?;
        let settled = ticket.estimate() + ticket.answer_time();
        let place = self
            .lanes
            .enter(context.credential, keys, settled, ticket.place());
        Ok((ticket, place))
    }

    /// What the write acts on.
    pub(crate) fn order_keys(&self, context: &RequestContext) -> Keys {
        let (keys, barriers) = order_names(context);
        Keys::new(
            &self.router.hasher,
            keys.iter().map(String::as_str),
            barriers,
        )
    }

    /// When a write leaves that can travel with those that wait, if all of them fit together.
    fn leaves_with_others(
        &self,
        context: &RequestContext,
        keys: &Keys,
        is_durable: bool,
    ) -> Option<Instant> {
        let merges = context.operation.merge.as_ref()?.enabled;
        if !merges || context.overridden {
            return None;
        }
        let (waiting, dispatches) = self.pool.waiting(context, is_durable);
        let follows = self.lanes.would_follow(context.credential, keys, &waiting);
        if waiting.is_empty() || !follows {
            return None;
        }
        let budget = &context.operation.budget;
        self.budgets
            .leaves_merged(context.credential, budget, waiting.len(), dispatches)
    }

    /// Sends the write in a task of its own, which tells what became of it.
    fn dispatch(
        self: &Arc<Self>,
        held: &HeldWrite,
        left: Instant,
        permit: Permit,
        place: LanePosition,
    ) -> oneshot::Receiver<AttemptReport> {
        let (tell, report) = oneshot::channel();
        let (writes, context, history) = (self.clone(), held.context.clone(), held.history(left));
        self.tasks.spawn("write", async move {
            let Some(report) = writes.send_held(&context, history, permit, place).await else {
                return;
            };
            // A caller that hung up meanwhile hears nothing. A write that was answered has been
            // carried through; one that had no effect ends here, and so does one that may have had:
            // it is not repeated for nobody.
            if let Err(unheard) = tell.send(report) {
                unheard.log(&context);
            }
        });
        report
    }

    /// Waits for what is told of a write that has left.
    async fn await_report(
        &self,
        context: &RequestContext,
        report: oneshot::Receiver<AttemptReport>,
    ) -> Result<AttemptReport, GatewayError> {
        let Some(given_up) = self.attempts.given_up_at(context) else {
            return report.await.map_err(|_| GatewayError::Internal);
        };
        match tokio::time::timeout_at(given_up.into(), report).await {
            Ok(report) => report.map_err(|_| GatewayError::Internal),
            Err(_) => {
                // The caller is told before anybody in front of the gateway makes up an answer.
                // The task goes on, and settles the write once more when its outcome is known.
                self.settle_end(&touched(context), None);
                Ok(AttemptReport::Unknown(Waited::TooLong))
            }
        }
    }
}

/// The reply to a write that was batched; its lanes open.
fn merged_reply(merged: BatchResult, held: &mut HeldWrite) -> Result<Reply, GatewayError> {
    let answer = merged
        .answer
        .map_err(|waited| unknown(&held.context, waited))?;
    let mut timing = std::mem::take(&mut held.timing);
    (timing.upstream, timing.merged) = (merged.took, merged.members);
    Ok(Reply::merged(answer, timing, merged.standing))
}

/// What the write acts on. Where its names cannot be read it may act on anything of their class.
pub(crate) fn order_names(context: &RequestContext) -> (Vec<String>, BTreeSet<&str>) {
    let operation = &context.operation;
    let mut barriers: BTreeSet<&str> = operation.barrier.iter().map(|class| &**class).collect();
    let mut keys = Vec::new();
    let document = context.document();
    for template in &operation.order {
        let one = std::slice::from_ref(template);
        match names::expand(one, &context.params, context.query(), &document) {
            Ok(names) => keys.extend(names),
            Err(_) => {
                // It keeps apart from everything of the class, and from others like itself.
                let class = template.class();
                barriers.insert(class);
                keys.push(format!("{class}:"));
            }
        }
    }
    (keys, barriers)
}

/// What the write may change. Where its names cannot be read that may be anything.
pub(crate) fn touched(context: &RequestContext) -> Affected {
    let tags = match &context.operation.touches {
        Touches::Tags(templates) if !context.overridden => names::expand(
            templates,
            &context.params,
            context.query(),
            &context.document(),
        )
        .ok(),
        _ => None,
    };
    let scope = match tags {
        Some(_) => Scope::Named,
        // Under the method that a field asks for, it may be the path of some route.
        None if context.operation.method.is_none() && !context.overridden => Scope::Unmatched,
        None => Scope::Unnamed,
    };
    Affected {
        scope,
        tags: tags.into_iter().flatten().map(Tag::new).collect(),
        paths: vec![context.target.path().into()],
        may_be_partial: context.overridden
            || element_count::may_be_several(context.query(), &context.body),
        credential: credential::is_named(&context.headers).then_some(context.credential),
    }
}
