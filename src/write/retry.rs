//! Sending a held write once more after an attempt that may have taken effect.
//!
//! Its caller waits, so it is repeated only as long as it can leave before the caller's deadline.
//! From the first such attempt on, its caller never hears that nothing was sent: if there is no
//! other attempt, or that does not leave, it hears what the last one came to that may have taken
//! effect.

use crate::attempt::backoff;
use crate::attempt::send::{AttemptOutcome, FinalAnswer};
use crate::error::{GatewayError, Waited};
use crate::exchange::body::{self, Body, Read};
use crate::exchange::request::RequestContext;
use crate::exchange::response::Reply;
use crate::exchange::timing::Timing;
use crate::journal::State;
use crate::lanes::LanePosition;
use crate::limit::budgets::BudgetStatus;
use crate::limit::ticket::{Permit, Ticket};
use crate::merge::Batching;
use crate::metrics::Outcome;
use crate::upstream::NewConnection;
use crate::write::Writes;
use crate::write::accept::{AttemptReport, touched};
use crate::write::decision::{
    self, Decision, OutcomeClass, RETRY_FOR, WriteFacts, decide, is_in_doubt, is_list, is_refusal,
    is_repeatable,
};
use crate::write::pool::SendTurn;
use crate::write::turn::TurnError;
use crate::write::unsettled::Unsettled;
use http::Response;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The body of an answer is kept up to this size while the write is repeated, and read for so long.
const LONGEST_KEPT: usize = 64 * 1024;
const KEEPING_TIME: Duration = Duration::from_secs(2);

/// The API's answer to a write.
#[derive(Debug)]
pub(crate) struct WriteAnswer {
    pub(crate) response: Response<Body>,
    /// The budget it drew on.
    pub(crate) standing: Option<BudgetStatus>,
    /// From leaving to its head.
    pub(crate) took: Duration,
}

/// What the caller hears of an attempt: the API's answer, or why there is none.
pub(crate) type CallerResult = Result<WriteAnswer, GatewayError>;

/// A write whose caller waits for it.
#[derive(Debug)]
pub(crate) struct HeldWrite {
    pub(crate) context: RequestContext,
    pub(crate) ticket: Ticket,
    pub(crate) timing: Timing,
    /// Connections that could not be opened.
    pub(crate) connects: u32,
    /// With how many others it may be sent.
    pub(crate) batching: Batching,
    /// Whether the API refused a batch in which it was sent.
    pub(crate) divided: bool,
    /// Once an attempt may have taken effect.
    doubt: Option<Uncertainty>,
}

/// What is known of a write that may have taken effect.
#[derive(Debug)]
struct Uncertainty {
    /// When the first attempt left that may have had effect.
    since: Instant,
    /// Attempts that may have had effect.
    failures: u32,
    /// What the last of them came to.
    heard: CallerResult,
}

/// What follows from an attempt: its caller hears this, or it takes its place in the line again.
pub(crate) type NextStep = ControlFlow<Result<Reply, GatewayError>, LanePosition>;

/// What the task of an attempt knows of its write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttemptHistory {
    /// When this attempt leaves.
    pub(crate) left: Instant,
    /// When the first one left that may have had effect.
    first_doubt: Option<Instant>,
}

impl From<FinalAnswer> for WriteAnswer {
    fn from(answer: FinalAnswer) -> Self {
        Self {
            response: answer.response.map(|body| Body::Streamed(Box::new(body))),
            standing: answer.standing,
            took: answer.took,
        }
    }
}

impl WriteAnswer {
    /// The API's own answer to a write.
    fn reply(self, mut timing: Timing) -> Reply {
        timing.upstream = self.took;
        Reply {
            timing,
            standing: self.standing,
            ..Reply::new(self.response, Outcome::Written)
        }
    }

    /// Holds what there is of its body: the connection and the time for the answer end before the
    /// repetitions do. `None` if it breaks off or is too slow.
    async fn keep(self) -> Option<Self> {
        let (mut head, body) = self.response.into_parts();
        let body = match body {
            Body::Streamed(body) => {
                let reading = body::read(*body, LONGEST_KEPT);
                match tokio::time::timeout(KEEPING_TIME, reading).await {
                    Ok(Read::Whole(bytes)) => {
                        // It is that of a body that is held from now on.
                        head.headers.remove(http::header::CONTENT_LENGTH);
                        Body::held(bytes)
                    }
                    Ok(Read::Longer(first, rest)) => Body::Continued(Some(first), rest),
                    Ok(Read::Broken(_)) | Err(_) => return None,
                }
            }
            held => held,
        };
        Some(Self {
            response: Response::from_parts(head, body),
            ..self
        })
    }
}

impl HeldWrite {
    pub(crate) fn new(context: RequestContext, ticket: Ticket) -> Self {
        Self {
            timing: Timing::of(&context),
            context,
            ticket,
            connects: 0,
            batching: Batching::default(),
            divided: false,
            doubt: None,
        }
    }

    /// What is known of it when an attempt leaves at this instant.
    pub(crate) fn history(&self, left: Instant) -> AttemptHistory {
        AttemptHistory {
            left,
            first_doubt: self.doubt.as_ref().map(|doubt| doubt.since),
        }
    }

    /// The reply to an attempt that is the last one.
    pub(crate) fn reply(&mut self, heard: CallerResult) -> Result<Reply, GatewayError> {
        heard.map(|written| written.reply(std::mem::take(&mut self.timing)))
    }

    /// The end of a write that is not sent, or not once more: what would be said of one that has no
    /// effect is not true of one that may have had. Nor is it of one that was sent in a batch: no
    /// part of a list that the API refuses has effect, but that is what it documents, not what it
    /// answered.
    pub(crate) fn end(
        &mut self,
        without_effect: Result<Reply, GatewayError>,
    ) -> Result<Reply, GatewayError> {
        match self.doubt.take() {
            None if self.divided => Err(unknown(&self.context, Waited::Divided)),
            None => without_effect,
            Some(doubt) => self.reply(doubt.heard),
        }
    }
}

/// Nobody knows whether the write took effect.
pub(crate) fn unknown(context: &RequestContext, waited: Waited) -> GatewayError {
    GatewayError::OutcomeUnknown {
        waited,
        may_retry: is_repeatable(context),
    }
}

impl Writes {
    /// Waits for the turn of a held write.
    ///
    /// # Errors
    /// Why it has none; see [`HeldWrite::end`].
    pub(crate) async fn wait_for_turn(
        &self,
        held: &mut HeldWrite,
        mut place: LanePosition,
    ) -> Result<SendTurn, GatewayError> {
        loop {
            let (context, ticket) = (&held.context, &mut held.ticket);
            let turn = match held.doubt {
                None => {
                    self.turn(context, (None, held.batching), ticket, place)
                        .await
                }
                // A repetition is judged by its own answers alone.
                Some(_) => self.turn_alone(None, ticket, place).await,
            };
            let over = held.doubt.as_ref().map(|doubt| doubt.since + RETRY_FOR);
            match turn {
                Ok(_) if over.is_some_and(|over| over <= self.clock.now()) => {
                    return Err(unknown(context, Waited::InVain));
                }
                Ok(turn) => return Ok(turn),
                Err((TurnError::BreakerOpen(until), back)) if until <= ticket.deadline() => {
                    tokio::time::sleep_until(until.into()).await;
                    place = back;
                    place.look_again();
                    ticket.again_blocked();
                }
                Err((why, _)) => return Err(self.no_turn(why, context, ticket)),
            }
        }
    }

    /// Sends a held write once; what its task tells of that. `None` if there is nothing to tell.
    pub(crate) async fn send_held(
        self: &Arc<Self>,
        context: &RequestContext,
        history: AttemptHistory,
        permit: Permit,
        place: LanePosition,
    ) -> Option<AttemptReport> {
        let affected = touched(context).sent_before(history.first_doubt.is_some());
        let unsettled = Unsettled::new(self.clone(), affected, place);
        let permit = permit.carries(vec![unsettled.intent(context, None)]);
        let mut request = context.forwarded();
        if history.first_doubt.is_some() {
            request.extensions_mut().insert(NewConnection);
        }
        let came = self
            .attempts
            .attempt(&context.operation, context.credential, permit, request);
        Some(match came.await {
            AttemptOutcome::Answer(answer) => {
                let status = answer.response.status();
                let headers = answer.response.headers();
                let place = unsettled.heard(status, headers, answer.doubtful);
                let came = OutcomeClass::Status(status);
                self.report_of(context, history, came, (Ok(answer.into()), place))
            }
            AttemptOutcome::Unknown(why) => {
                let place = unsettled.in_doubt();
                let heard = Err(unknown(context, why.into()));
                self.report_of(context, history, OutcomeClass::NoAnswer, (heard, place))
            }
            came => AttemptReport::Requeue(unsettled.not_carried_out()?, came),
        })
    }

    /// What a write's task tells of an attempt that had an effect, or may have had. If that is the
    /// last one, its lanes open before its caller hears.
    fn report_of(
        &self,
        context: &RequestContext,
        history: AttemptHistory,
        came: OutcomeClass,
        (heard, place): (CallerResult, Option<LanePosition>),
    ) -> AttemptReport {
        let now = self.clock.now();
        let first = history.first_doubt.unwrap_or(history.left);
        let known = WriteFacts {
            method: &context.method,
            is_list: is_list(context),
            repeatable: is_in_doubt(came) && is_repeatable(context),
            doubtful: history.first_doubt.is_some(),
            since_first: now.saturating_duration_since(first),
            deferred: false,
        };
        match (decide(came, &known), place) {
            (Decision::Retry, Some(place)) => AttemptReport::Uncertain(place, heard),
            // What the API refuses now, an earlier attempt may have done.
            (Decision::End(State::Unknown), _) if is_refusal(came) => {
                AttemptReport::Ended(Err(unknown(context, Waited::RetryRefused)))
            }
            _ => AttemptReport::Ended(heard),
        }
    }

    /// Lets a write wait that may have taken effect, until it may be sent again.
    pub(crate) async fn wait_for_retry(
        &self,
        held: &mut HeldWrite,
        left: Instant,
        mut place: LanePosition,
        heard: CallerResult,
    ) -> NextStep {
        let before = held.doubt.as_ref();
        let failures = before.map_or(0, |doubt| doubt.failures) + 1;
        let since = before.map_or(left, |doubt| doubt.since);
        let pause = decision::pause(failures, backoff::jitter(place.turn(), failures));
        if !self.may_retry(held, since, pause) {
            drop(place);
            return ControlFlow::Break(held.reply(heard));
        }
        tracing::info!(
            operation = %held.context.operation.name,
            credential = %held.context.credential,
            attempts = failures,
            pause_ms = pause.as_millis(),
            request_id = held.context.ids.request(),
            trace_id = held.context.ids.trace(),
            "retry: the write may have taken effect"
        );
        place.stay_closed_for(self.router.settings.get().late);
        place.expect(self.clock.now());
        let heard = match heard {
            Ok(written) => {
                let kept = written.keep().await;
                kept.ok_or_else(|| unknown(&held.context, Waited::InVain))
            }
            Err(why) => Err(why),
        };
        held.doubt = Some(Uncertainty {
            since,
            failures,
            heard,
        });
        // It waits in its line, so that it hears if the gateway stops.
        held.ticket.again_blocked();
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => {}
            _refused = held.ticket.granted() => {
                drop(place);
                return ControlFlow::Break(held.end(Err(GatewayError::Draining)));
            }
        }
        held.ticket.step_aside();
        ControlFlow::Continue(place)
    }

    /// Whether a write may be repeated after this pause. Its deadline leaves time for the answer,
    /// where it is known when whoever stands in front of the gateway gives up.
    fn may_retry(&self, held: &HeldWrite, since: Instant, pause: Duration) -> bool {
        let leaves = held.ticket.estimate_again();
        let leaves = leaves.max(self.clock.now() + pause);
        if leaves > held.ticket.deadline() || leaves >= since + RETRY_FOR {
            return false;
        }
        let operation = &held.context.operation;
        let given = self.attempts.take_retry(operation).is_ok();
        if !given {
            self.attempts.report_no_retry(operation, &held.context.ids);
        }
        given
    }
}
