//! Answering the callers of durable writes: with the API's answer, or with where to ask for it.
//!
//! Promises that a caller hears of an end only after the journal has it, and of an acceptance only
//! after the journal has the write. A caller that hangs up changes nothing.
//!
//! The writes are carried elsewhere; nothing here changes one.

use crate::error::{GatewayError, Waited};
use crate::exchange::body::Body;
use crate::exchange::edge::REPLAYED;
use crate::exchange::error_response::seconds;
use crate::exchange::request::RequestContext;
use crate::exchange::response::Reply;
use crate::exchange::timing::Timing;
use crate::journal::{Record, State};
use crate::metrics::Outcome;
use crate::write::Writes;
use crate::write::durable::new_write::Durability;
use crate::write::durable::pending::{Key, PendingWrite};
use crate::write::durable::record::KeptAnswer;
use crate::write::durable::stage::{Completion, Stage};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use http::{Response, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The preference that was followed (RFC 7240, section 3).
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// The least time that a caller waits for a write that was sent: with `wait=0` it would otherwise
/// never hear the answer to a write that is sent at once.
const MOMENT: Duration = Duration::from_secs(1);

impl Writes {
    /// Replies with where to ask as soon as the journal has the write.
    pub(super) async fn acknowledge(
        &self,
        pending: &Arc<PendingWrite>,
    ) -> Result<Reply, GatewayError> {
        // Any later stage says that the journal has it, or that it was not accepted.
        let mut follower = pending.watch();
        let is_kept = |stage: &Stage| !matches!(stage, Stage::Accepting);
        let stage = follower.stages.wait_for(is_kept).await;
        let stage = stage.map_err(|_| GatewayError::Internal)?.clone();
        if let Stage::Released(why) = stage {
            return Err(why.unwrap_or(GatewayError::Internal));
        }
        Ok(self.accepted_reply(pending, self.look_again(pending)))
    }

    /// Waits for the outcome of a write until this instant, whatever its stage. `None` if it was
    /// not accepted because the journal knows its key.
    ///
    /// Several callers may wait for one write: those that sent the same key meanwhile.
    ///
    /// # Errors
    /// If the write was refused or cancelled, its outcome is unknown, or the time is over.
    pub(super) async fn await_end(
        &self,
        pending: &Arc<PendingWrite>,
        context: &RequestContext,
        durability: &Durability,
        until: Instant,
    ) -> Result<Option<Reply>, GatewayError> {
        // Follows the stages of the write, and counts again from each.
        let mut pending = pending.clone();
        let mut follower = pending.watch();
        // Counts from the first attempt that is seen here, through all that follow.
        let mut until_left = None;
        loop {
            let stage = follower.stages.borrow_and_update().clone();
            let until = match &stage {
                Stage::HandedOver => {
                    // The write of the other credential goes on under the same id.
                    pending = self
                        .durable
                        .pending(pending.id)
                        .ok_or_else(|| unknown(Waited::Unrecorded))?;
                    follower = pending.watch();
                    continue;
                }
                Stage::Ended(ended) => {
                    return reply(ended).map(|reply| Some(reply.of_write(pending.id)));
                }
                // Not accepted: the journal knows its key, or it was refused.
                Stage::Released(None) => return Ok(None),
                Stage::Released(Some(error)) => return Err(error.clone()),
                // Without a key nothing true can be said before the journal has it.
                Stage::Accepting if durability.key.is_none() => None,
                Stage::Accepting => Some(until.max(context.accepted + MOMENT)),
                // A caller that waits hears the answer to an attempt that is on its way, but not
                // after a balancer in front of the gateway gave up.
                Stage::Sent if !durability.respond_async => {
                    let moment = || until.max(self.clock.now() + MOMENT);
                    let until = *until_left.get_or_insert_with(moment);
                    Some(
                        self.attempts
                            .given_up_at(context)
                            .map_or(until, |given_up| given_up.min(until)),
                    )
                }
                // The gateway stops: there is nothing to wait for in this process.
                Stage::Parked => Some(context.accepted),
                Stage::Queued | Stage::Cancelling | Stage::Sent => {
                    Some(until_left.unwrap_or(until))
                }
            };
            let changed = follower.stages.changed();
            let changed = match until {
                None => changed.await.is_ok(),
                Some(until) if until <= self.clock.now() => false,
                Some(until) => matches!(
                    tokio::time::timeout_at(until.into(), changed).await,
                    Ok(Ok(()))
                ),
            };
            if changed {
                continue;
            }
            // The time is over. The caller hears where the write is, and when to ask again.
            let estimate = self.look_again(&pending);
            if durability.respond_async && !matches!(stage, Stage::Accepting) {
                return Ok(Some(self.accepted_reply(&pending, estimate)));
            }
            // A write that waits for a retry has been sent as well.
            let sent = matches!(stage, Stage::Sent) || pending.tries().doubt.is_some();
            return Err(GatewayError::WritePending {
                retry_after: estimate,
                sent,
                id: pending.id.to_string(),
            });
        }
    }

    /// Returns a 202, whose body is the document that a `GET` of the write returns.
    ///
    /// `Location` says where to ask, and `Retry-After` when the write has probably ended. The reply
    /// is given only once the journal has the write, since it is a promise.
    fn accepted_reply(&self, pending: &Arc<PendingWrite>, estimate: Duration) -> Reply {
        let document = self.document_of(pending).to_string();
        let mut response = Response::new(Body::held(document));
        *response.status_mut() = StatusCode::ACCEPTED;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(location) = HeaderValue::try_from(format!("/_gateway/writes/{}", pending.id)) {
            headers.insert(LOCATION, location);
        }
        headers.insert(
            PREFERENCE_APPLIED,
            HeaderValue::from_static("respond-async"),
        );
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds(estimate)));
        Reply::deferred(response).of_write(pending.id)
    }
}

/// Returns the reply to the caller of a write that has ended while it waited.
///
/// # Errors
/// If the write was cancelled, or there is no answer to show.
fn reply(ended: &Completion) -> Result<Reply, GatewayError> {
    if ended.state == State::Cancelled {
        return Err(GatewayError::WriteCancelled);
    }
    let answer = recorded_answer(ended.state, ended.answer.as_ref())?;
    // Measured by this process. A reply that is made from the journal has no times.
    let timing = Timing {
        queued: ended.queued,
        upstream: ended.upstream,
        throttled: ended.throttled,
        merged: ended.merged,
        sent: true,
        progress: Arc::default(),
    };
    Ok(Reply {
        timing,
        standing: ended.standing.clone(),
        ..Reply::new(respond(answer)?, Outcome::Written)
    })
}

/// Returns the reply to a request whose write the journal has, as its key says.
///
/// # Errors
/// If another request has that key, or the write has not ended, was cancelled, or its outcome is
/// unknown.
pub(super) fn replay(record: &Record, key: &Key) -> Result<Reply, GatewayError> {
    if record.fingerprint != key.fingerprint {
        return Err(GatewayError::KeyReused);
    }
    match record.state {
        State::Cancelled => Err(GatewayError::WriteCancelled),
        State::Queued | State::Dispatched => Err(GatewayError::WritePending {
            retry_after: Duration::from_secs(1),
            sent: record.attempts > 0,
            id: record.id.to_string(),
        }),
        State::Succeeded | State::Failed | State::Unknown => {
            let answer = record.answer.as_ref().and_then(KeptAnswer::decode);
            let answer = recorded_answer(record.state, answer.as_ref())?;
            let reply = replayed(Reply::from_journal(respond(answer)?));
            Ok(reply.of_write(record.id))
        }
    }
}

/// Returns the recorded answer for the caller of a write that has ended. What the API refused after
/// an attempt that may have taken effect is no refusal of the write.
fn recorded_answer(state: State, answer: Option<&KeptAnswer>) -> Result<&KeptAnswer, GatewayError> {
    match answer {
        None if state == State::Failed => Err(GatewayError::GivenUp),
        None => Err(unknown(Waited::Unrecorded)),
        Some(answer) if state == State::Unknown && answer.status.is_client_error() => {
            Err(unknown(Waited::RetryRefused))
        }
        Some(answer) => Ok(answer),
    }
}

/// Returns the error for a durable write of which it is unknown whether it took effect.
fn unknown(waited: Waited) -> GatewayError {
    GatewayError::OutcomeUnknown {
        waited,
        // Under this key the caller would hear the same again.
        may_retry: false,
    }
}

/// Returns the recorded answer as a response.
///
/// # Errors
/// If its body was not kept.
fn respond(answer: &KeptAnswer) -> Result<Response<Body>, GatewayError> {
    let Some(body) = answer.body.clone() else {
        return Err(GatewayError::AnswerLost(answer.status.as_u16()));
    };
    let mut response = Response::new(Body::held(body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers.clone();
    Ok(response)
}

/// Marks a reply as the answer that an earlier request drew.
pub(super) fn replayed(mut reply: Reply) -> Reply {
    if reply.error.is_none() && reply.response.status() != StatusCode::ACCEPTED {
        let headers = reply.response.headers_mut();
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
        // A request that joined a write that was on its way asked nothing of the API either.
        if reply.outcome == Outcome::Written {
            reply.outcome = Outcome::Replayed;
        }
    }
    reply
}
