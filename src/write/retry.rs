//! Sending a held write once more after an attempt that may have taken effect.
//!
//! Its caller waits, so it is repeated only as long as it can leave before the caller's deadline.
//! From the first such attempt on, its caller never hears that nothing was sent: if there is no
//! other attempt, or that does not leave, it hears what the last one came to that may have taken
//! effect.

use crate::attempt::backoff;
use crate::attempt::send::{Answer, Came};
use crate::error::{GatewayError, Waited};
use crate::exchange::body::{self, Body, Read};
use crate::exchange::request::Ask;
use crate::exchange::response::Reply;
use crate::exchange::timing::Timing;
use crate::journal::State;
use crate::limit::budgets::Standing;
use crate::limit::ticket::{Permit, Ticket};
use crate::merge::Batching;
use crate::metrics::Outcome;
use crate::queue::Place;
use crate::route::query;
use crate::upstream::NewConnection;
use crate::write::Writes;
use crate::write::batch::{NoTurn, Turn};
use crate::write::decision::{self, Known, REPEAT_FOR, Verdict, is_in_doubt, is_refusal, verdict};
use crate::write::held::{Told, Unsettled, touched};
use http::Response;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The body of an answer is kept up to this size while the write is repeated, and read for so long.
const LONGEST_KEPT: usize = 64 * 1024;
const KEEPING_TIME: Duration = Duration::from_secs(2);

/// The API's answer to a write.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) response: Response<Body>,
    /// The budget it drew on.
    pub(crate) standing: Option<Standing>,
    /// From leaving to its head.
    pub(crate) took: Duration,
}

/// What the caller hears of an attempt: the API's answer, or why there is none.
pub(crate) type Heard = Result<Written, GatewayError>;

/// A write whose caller waits for it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) ask: Ask,
    pub(crate) ticket: Ticket,
    pub(crate) timing: Timing,
    /// Connections that could not be opened.
    pub(crate) connects: u32,
    /// With how many others it may be sent.
    pub(crate) batching: Batching,
    /// Whether the API refused a batch in which it was sent.
    pub(crate) divided: bool,
    /// Once an attempt may have taken effect.
    doubt: Option<Doubt>,
}

/// What is known of a write that may have taken effect.
#[derive(Debug)]
struct Doubt {
    /// When the first attempt left that may have had effect.
    since: Instant,
    /// Attempts that may have had effect.
    failures: u32,
    /// What the last of them came to.
    heard: Heard,
}

/// What follows from an attempt: its caller hears this, or it takes its place in the line again.
pub(crate) type Next = ControlFlow<Result<Reply, GatewayError>, Place>;

/// What the task of an attempt knows of its write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tries {
    /// When this attempt leaves.
    pub(crate) left: Instant,
    /// When the first one left that may have had effect.
    first_doubt: Option<Instant>,
}

impl From<Answer> for Written {
    fn from(answer: Answer) -> Self {
        Self {
            response: answer.response.map(|body| Body::Streamed(Box::new(body))),
            standing: answer.standing,
            took: answer.took,
        }
    }
}

impl Written {
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

impl Held {
    pub(crate) fn new(ask: Ask, ticket: Ticket) -> Self {
        Self {
            timing: Timing::of(&ask),
            ask,
            ticket,
            connects: 0,
            batching: Batching::default(),
            divided: false,
            doubt: None,
        }
    }

    /// What is known of it when an attempt leaves at this instant.
    pub(crate) fn tries(&self, left: Instant) -> Tries {
        Tries {
            left,
            first_doubt: self.doubt.as_ref().map(|doubt| doubt.since),
        }
    }

    /// The reply to an attempt that is the last one.
    pub(crate) fn reply(&mut self, heard: Heard) -> Result<Reply, GatewayError> {
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
            None if self.divided => Err(unknown(&self.ask, Waited::Divided)),
            None => without_effect,
            Some(doubt) => self.reply(doubt.heard),
        }
    }
}

/// Nobody knows whether the write took effect.
pub(crate) fn unknown(ask: &Ask, waited: Waited) -> GatewayError {
    GatewayError::OutcomeUnknown {
        waited,
        may_retry: is_repeatable(ask),
    }
}

/// Whether a write may be sent again after it may have taken effect.
pub(crate) fn is_repeatable(ask: &Ask) -> bool {
    ask.operation.is_idempotent(&ask.method) && !ask.overridden
}

/// Whether a write names more than one element, as far as can be told: a body may list any number.
pub(crate) fn is_list(ask: &Ask) -> bool {
    let lists = ask.operation.lists.iter();
    let values = lists.map(|name| query::list_values(ask.query(), name).len());
    !ask.body.is_empty() || values.sum::<usize>() > 1
}

impl Writes {
    /// Waits for the turn of a held write.
    ///
    /// # Errors
    /// Why it has none; see [`Held::end`].
    pub(crate) async fn next_turn_of(
        &self,
        held: &mut Held,
        mut place: Place,
    ) -> Result<Turn, GatewayError> {
        loop {
            let (ask, ticket) = (&held.ask, &mut held.ticket);
            let turn = match held.doubt {
                None => self.turn(ask, (None, held.batching), ticket, place).await,
                // A repetition is judged by its own answers alone.
                Some(_) => self.turn_alone(None, ticket, place).await,
            };
            let over = held.doubt.as_ref().map(|doubt| doubt.since + REPEAT_FOR);
            match turn {
                Ok(_) if over.is_some_and(|over| over <= self.clock.now()) => {
                    return Err(unknown(ask, Waited::InVain));
                }
                Ok(turn) => return Ok(turn),
                Err((NoTurn::Broken(until), back)) if until <= ticket.deadline() => {
                    tokio::time::sleep_until(until.into()).await;
                    place = back;
                    place.look_again();
                    ticket.again_blocked();
                }
                Err((why, _)) => return Err(self.no_turn(why, ask, ticket)),
            }
        }
    }

    /// Sends a held write once; what its task tells of that. `None` if there is nothing to tell.
    pub(crate) async fn send_held(
        self: &Arc<Self>,
        ask: &Ask,
        tries: Tries,
        permit: Permit,
        place: Place,
    ) -> Option<Told> {
        let affected = touched(ask).sent_before(tries.first_doubt.is_some());
        let unsettled = Unsettled::new(self.clone(), affected, place);
        let permit = permit.carries(vec![unsettled.intent(ask, None)]);
        let mut request = ask.forwarded();
        if tries.first_doubt.is_some() {
            request.extensions_mut().insert(NewConnection);
        }
        let came = self
            .attempts
            .attempt(&ask.operation, ask.credential, permit, request);
        Some(match came.await {
            Came::Answer(answer) => {
                let status = answer.response.status();
                let headers = answer.response.headers();
                let place = unsettled.heard(status, headers, answer.doubtful);
                let came = decision::Came::Status(status);
                self.tells(ask, tries, came, (Ok(answer.into()), place))
            }
            Came::Unknown(why) => {
                let place = unsettled.in_doubt();
                let heard = Err(unknown(ask, why.into()));
                self.tells(ask, tries, decision::Came::NoAnswer, (heard, place))
            }
            came => Told::Again(unsettled.not_carried_out()?, came),
        })
    }

    /// What a write's task tells of an attempt that had an effect, or may have had. If that is the
    /// last one, its lanes open before its caller hears.
    fn tells(
        &self,
        ask: &Ask,
        tries: Tries,
        came: decision::Came,
        (heard, place): (Heard, Option<Place>),
    ) -> Told {
        let now = self.clock.now();
        let first = tries.first_doubt.unwrap_or(tries.left);
        let known = Known {
            method: &ask.method,
            is_list: is_list(ask),
            repeatable: is_in_doubt(came) && is_repeatable(ask),
            doubtful: tries.first_doubt.is_some(),
            since_first: now.saturating_duration_since(first),
            deferred: false,
        };
        match (verdict(came, &known), place) {
            (Verdict::Repeat, Some(place)) => Told::InDoubt(place, heard),
            // What the API refuses now, an earlier attempt may have done.
            (Verdict::End(State::Unknown), _) if is_refusal(came) => {
                Told::Ended(Err(unknown(ask, Waited::RetryRefused)))
            }
            _ => Told::Ended(heard),
        }
    }

    /// Lets a write wait that may have taken effect, until it may be sent again.
    pub(crate) async fn repeat(
        &self,
        held: &mut Held,
        left: Instant,
        mut place: Place,
        heard: Heard,
    ) -> Next {
        let before = held.doubt.as_ref();
        let failures = before.map_or(0, |doubt| doubt.failures) + 1;
        let since = before.map_or(left, |doubt| doubt.since);
        let pause = decision::pause(failures, backoff::dice(place.turn(), failures));
        if !self.may_repeat(held, since, pause) {
            drop(place);
            return ControlFlow::Break(held.reply(heard));
        }
        tracing::info!(
            operation = %held.ask.operation.name,
            credential = %held.ask.credential,
            attempts = failures,
            pause_ms = pause.as_millis(),
            request_id = held.ask.ids.request(),
            trace_id = held.ask.ids.trace(),
            "retry: the write may have taken effect"
        );
        place.stay_closed_for(self.router.settings.get().late);
        place.expect(self.clock.now());
        let heard = match heard {
            Ok(written) => {
                let kept = written.keep().await;
                kept.ok_or_else(|| unknown(&held.ask, Waited::InVain))
            }
            Err(why) => Err(why),
        };
        held.doubt = Some(Doubt {
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
    fn may_repeat(&self, held: &Held, since: Instant, pause: Duration) -> bool {
        let leaves = held.ticket.estimate_again();
        let leaves = leaves.max(self.clock.now() + pause);
        if leaves > held.ticket.deadline() || leaves >= since + REPEAT_FOR {
            return false;
        }
        let operation = &held.ask.operation;
        let given = self.attempts.take_repetition(operation).is_ok();
        if !given {
            self.attempts.no_repetition(operation, &held.ask.ids);
        }
        given
    }
}
