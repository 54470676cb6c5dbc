//! One attempt: it takes a permit, sends a request, and reports the outcome to the budget.
//!
//! Always run in a task of its own, so that a caller that hangs up neither cuts off a request nor
//! hides its cost. Nothing below sends anything twice; a retry takes a new permit.
//!
//! Invariants:
//! - A slot is in use from before the request is sent until the outcome is known. Without an
//!   outcome it stays in use for as long as the API may still count the request.
//! - What the outcome changes is in force before the caller hears of it: budget, breaker, and the
//!   stored responses of a refused token.
//!
//! The modules `read` and `write` decide what an outcome means. Nothing here waits for a slot.

use crate::attempt::Attempts;
use crate::attempt::breaker::Changed;
use crate::attempt::intercepted::{is_intercepted, report_intercepted};
use crate::audit::AuditEvent;
use crate::cache::unauthorized::Refused;
use crate::credential::Credential;
use crate::error::Waited;
use crate::exchange::body::{self, Read};
use crate::exchange::edge;
use crate::exchange::identity::unmask;
use crate::exchange::ids::Ids;
use crate::exchange::timing::millis;
use crate::limit::budgets::BudgetStatus;
use crate::limit::learn::{Allowance, Throttle};
use crate::limit::ticket::Permit;
use crate::limit::window::{AttemptEnd, Learned};
use crate::metrics::Origin;
use crate::route::policy::Operation;
use crate::upstream::{AnswerBody, Attempt, NotSent, Unknown};
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, StatusCode};
use std::time::Duration;

/// The bounds within which the body of a 429 is read to learn how long to wait. The time is short,
/// because the budget stays open meanwhile to attempts that would get a 429 as well.
const LONGEST_REFUSAL: usize = 64 * 1024;
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// The outcome of an attempt.
#[derive(Debug)]
pub(crate) enum AttemptOutcome {
    /// A final response other than 429.
    Answer(FinalAnswer),
    /// A 429: the request did not take effect.
    Throttled(Response<Bytes>),
    /// The request was not sent.
    NotSent(NotSent),
    /// The request was sent, and no response came.
    Unknown(Unknown),
}

/// A final response.
#[derive(Debug)]
pub(crate) struct FinalAnswer {
    pub(crate) response: Response<AnswerBody>,
    /// Whether it may come from a balancer in front of the API (a 5xx without rate headers). Then
    /// the request may still be in flight behind it.
    pub(crate) doubtful: bool,
    /// Whether something in front of the API answered in its place, as far as one can tell.
    pub(crate) intercepted: bool,
    /// The status of the budget used.
    pub(crate) standing: Option<BudgetStatus>,
    /// The time from sending to the head of the response.
    pub(crate) took: Duration,
}

impl AttemptOutcome {
    /// Returns the outcome for those who need the API's own word: a page of something in front of
    /// the API says neither whether a write was carried out nor whether a token is accepted.
    ///
    /// A reader gets the page instead, as without the gateway.
    pub(crate) fn without_page(self) -> Self {
        match self {
            Self::Answer(answer) if answer.intercepted => Self::Unknown(Unknown::Malformed),
            other => other,
        }
    }
}

/// Converts the reason for the error of a caller: only a connection that took too long is a
/// timeout.
impl From<NotSent> for Waited {
    fn from(why: NotSent) -> Self {
        if why.is_timeout() {
            Self::TooLong
        } else {
            Self::InVain
        }
    }
}

/// Converts the reason for the error of a caller whose request was sent: a timeout, a failure, or
/// an answer that cannot be read.
impl From<Unknown> for Waited {
    fn from(why: Unknown) -> Self {
        match why {
            Unknown::HeadTimeout | Unknown::TotalTimeout => Self::TooLong,
            Unknown::Broken | Unknown::StaleConnection => Self::InVain,
            Unknown::Malformed => Self::Unreadable,
        }
    }
}

impl Attempts {
    /// Sends `request` of `credential` once and ends `permit` with the outcome.
    ///
    /// The order matters: the permit begins before anything is sent, and ends before the outcome is
    /// returned. So the budget never lags behind what callers see.
    pub(crate) async fn attempt(
        &self,
        operation: &Operation,
        credential: Credential,
        mut permit: Permit,
        request: Request<Bytes>,
    ) -> AttemptOutcome {
        permit.begin();
        let ids = ids_of(&request);
        // From here on the slot is in use, whatever happens; `permit` ends it even if it is
        // dropped.
        let (attempt, took) = self.exchange(operation, credential, request).await;
        match attempt {
            Attempt::Answered(response) => {
                let came = (response, took, &ids);
                self.answered(operation, credential, permit, came).await
            }
            Attempt::NotSent(why) => {
                self.note_reachability((why != NotSent::ClosedBeforeSending).then_some(false));
                // A stream that the API reset as unprocessed was sent, so something on the way may
                // have counted it.
                let _ = permit.end(if why.travelled() {
                    AttemptEnd::NoAnswer
                } else {
                    AttemptEnd::NotSent
                });
                AttemptOutcome::NotSent(why)
            }
            Attempt::Unknown(why) => {
                self.note_reachability((why != Unknown::StaleConnection).then_some(false));
                let _ = permit.end(AttemptEnd::NoAnswer);
                AttemptOutcome::Unknown(why)
            }
        }
    }

    /// Sends `request` of `credential` once, and reports outcome and duration to metrics, log and
    /// spans. No budget is charged: the caller has a permit, or runs in shadow mode.
    ///
    /// The duration is that until the head of the response, or until the failure. A 401 takes
    /// effect here, so that it does in shadow mode as well.
    pub(crate) async fn exchange(
        &self,
        operation: &Operation,
        credential: Credential,
        mut request: Request<Bytes>,
    ) -> (Attempt, Duration) {
        let name = &operation.name;
        let ids = ids_of(&request);
        // The only place where a held token enters a caller's request. By the credential and not by
        // the request: one that has waited since before a rotation goes with the new token.
        unmask(request.headers_mut(), self.tokens.authorization(credential));
        let place = self.attempt_trail(&ids, request.headers_mut());
        let began = self.clock.now();
        let attempt = self.client.send(request).await;
        let took = self.clock.now().saturating_duration_since(began);
        if let Some(place) = &place {
            self.report_attempt(place, operation, &attempt, (began, took));
        }
        match &attempt {
            Attempt::Answered(response) => {
                if response.status() == StatusCode::UNAUTHORIZED {
                    self.unauthorized(operation, credential);
                }
                self.note_token(credential, response.status());
                let status = response.status().as_u16();
                self.metrics.answered(operation.index, status, took);
            }
            Attempt::NotSent(why) => {
                self.metrics.unanswered(name, "not-sent");
                tracing::warn!(
                    operation = &**name,
                    reason = why.as_str(),
                    request_id = ids.request(),
                    trace_id = ids.trace(),
                    "attempt failed: request not sent"
                );
            }
            Attempt::Unknown(why) => {
                self.metrics.unanswered(name, "unknown");
                tracing::warn!(
                    operation = &**name,
                    reason = why.as_str(),
                    request_id = ids.request(),
                    trace_id = ids.trace(),
                    "attempt failed: request sent, no response"
                );
            }
        }
        (attempt, took)
    }

    /// Tells the breaker about the end of an attempt. `is_there` is `None` for a kept connection
    /// that turned out to be closed, which says nothing about the API.
    fn note_reachability(&self, is_there: Option<bool>) {
        let (now, mut breaker) = (self.clock.now(), self.breaker.lock());
        let Some(is_there) = is_there else {
            return breaker.record_inconclusive(now);
        };
        let changed = breaker.record(is_there, now);
        // Logging happens outside the lock.
        drop(breaker);
        match changed {
            None => {}
            Some(Changed::Opened(pause)) => tracing::error!(
                pause_s = pause.as_secs_f64(),
                "circuit breaker opened: the API was unreachable or did not answer several times \
                 in a row; writes are held back, then one is sent as a probe"
            ),
            // No error of its own: that it opened was said.
            Some(Changed::StaysOpen(pause)) => tracing::warn!(
                pause_s = pause.as_secs_f64(),
                "circuit breaker stays open: the API does not answer the probe either; the next \
                 one follows after the pause"
            ),
            Some(Changed::Closed) => {
                tracing::warn!("circuit breaker closed: the API answers again")
            }
        }
    }

    /// Ends the permit with a final response, and prepares the response for the caller.
    ///
    /// A 429 is read to its end within bounds, because it was not carried out and is not shown as
    /// it comes. Any other response streams on: its head says all that the budget needs.
    async fn answered(
        &self,
        operation: &Operation,
        credential: Credential,
        mut permit: Permit,
        (mut response, took, ids): (Response<AnswerBody>, Duration, &Ids),
    ) -> AttemptOutcome {
        // Rate headers are read before the edge rules clean the response.
        let (status, allowance) = (response.status(), Allowance::of(response.headers()));
        let intercepted = is_intercepted(operation.method.is_some(), status, response.headers());
        // Any response shows that the API is there, unless something in front of it sent it.
        let is_there = !intercepted && !matches!(status.as_u16(), 502..=504);
        self.note_reachability(Some(is_there));
        if status != StatusCode::TOO_MANY_REQUESTS {
            let doubtful = status.is_server_error() && allowance.is_none();
            // The ledger notes it, so that the next process waits for a late effect too.
            if intercepted || may_land_later(Some(status)) {
                permit.may_take_effect_late();
            }
            if intercepted {
                report_intercepted(operation, status, ids);
            }
            // A doubtful 5xx may be a balancer's, with the request still behind it. So the slot
            // stays in use as if there were no response.
            let end = if doubtful || intercepted {
                AttemptEnd::NoAnswer
            } else {
                AttemptEnd::Answered(allowance)
            };
            let ended = permit.end(end);
            self.report_learned(operation, credential, &ended.learned);
            edge::clean_answer(response.headers_mut(), &self.settings.get().via);
            edge::date_answer(response.headers_mut(), self.clock.wall());
            return AttemptOutcome::Answer(FinalAnswer {
                response,
                doubtful,
                intercepted,
                standing: ended.standing,
                took,
            });
        }
        // A 429: its body may say how long to wait, so the permit ends only after reading it.
        let (mut head, body) = response.into_parts();
        // A body that is longer, broken or late leaves the headers, which usually say it as well.
        let reading = body::read(body, LONGEST_REFUSAL);
        let body = match tokio::time::timeout(REFUSAL_TIME, reading).await {
            Ok(Read::Whole(bytes) | Read::Longer(bytes, _)) => bytes,
            Ok(Read::Broken(_)) | Err(_) => Bytes::new(),
        };
        // The bytes in memory need not be the whole body.
        head.headers.remove(CONTENT_LENGTH);
        // Ending the permit closes the budget for the time that the 429 asks for.
        let throttle = Throttle::of(&head.headers, &body);
        let ended = permit.end(AttemptEnd::Throttled(throttle));
        self.report_learned(operation, credential, &ended.learned);
        // The first attempt of a budget without history may meet a limit that was used up before.
        let origin = if ended.learned.at_start {
            Origin::Start
        } else {
            Origin::Upstream
        };
        self.metrics.throttled(&operation.name, origin);
        tracing::warn!(
            operation = &*operation.name,
            origin = origin.as_str(),
            wait_ms = throttle.wait.map(millis),
            request_id = ids.request(),
            trace_id = ids.trace(),
            "upstream 429: the budget is closed and the request is queued again"
        );
        edge::clean_answer(&mut head.headers, &self.settings.get().via);
        AttemptOutcome::Throttled(Response::from_parts(head, body))
    }

    /// Invalidates what is cached for a credential that the API no longer accepts, altogether or
    /// for this operation. This happens before the caller gets the response.
    fn unauthorized(&self, operation: &Operation, credential: Credential) {
        let index = u32::try_from(operation.index).unwrap_or(u32::MAX);
        // Every token may ask for its workspace. A 401 there is about the token; elsewhere perhaps
        // about a permission.
        let is_workspace = operation.method == Some(Method::GET) && &*operation.template == "/";
        let refused = if is_workspace {
            Refused::Workspace(index)
        } else {
            Refused::Operation(index)
        };
        self.cache
            .unauthorized(credential.bytes(), refused, self.clock.now());
        self.metrics.invalidated("unauthorized");
    }

    /// Notes what a response says of a held token, for the metric and the log. Whether durable
    /// writes wait for another is decided by the writes themselves.
    fn note_token(&self, credential: Credential, status: StatusCode) {
        let accepted = match status {
            StatusCode::UNAUTHORIZED => false,
            status if status.is_success() => true,
            // Neither a rejection of the request nor an error of the API is about the token.
            _ => return,
        };
        // Most credentials are callers' own, and most responses change nothing.
        let Some(held) = self.tokens.note(credential, accepted) else {
            return;
        };
        self.metrics.held_token(&held.name, accepted);
        self.audit.record(AuditEvent::Token {
            name: held.name.clone(),
            state: if accepted { "accepted" } else { "rejected" },
        });
        // Once for each change, however many requests follow.
        let token = &*held.name;
        match accepted {
            true => tracing::warn!(token, "the API accepts the held token again"),
            false => tracing::error!(
                token,
                "the API rejects the held token: its clients get 503, and their durable writes \
                 wait until its file has another one"
            ),
        }
    }

    /// Reports to log and metrics what a response taught about the budget: its limit, its window,
    /// and what others used of it.
    fn report_learned(&self, operation: &Operation, credential: Credential, learned: &Learned) {
        let budget = &*operation.budget.name;
        if let Some((before, now)) = learned.limit {
            tracing::info!(budget, %credential, before, now, "learned a new limit from the API");
        }
        if let Some(window) = learned.window {
            let window_s = window.as_secs_f64();
            tracing::info!(budget, %credential, window_s, "learned a new window from the API");
        }
        if learned.foreign > 0 {
            self.metrics.foreign(budget, learned.foreign);
            tracing::info!(
                budget, %credential, requests = learned.foreign,
                "other users of this token detected: slots are left for them"
            );
        }
    }
}

/// Returns whether a write may take effect after its end: the outcome is unknown, or a 5xx hides
/// it.
pub fn may_land_later(status: Option<StatusCode>) -> bool {
    status.is_none_or(|status| status.is_server_error())
}

/// Returns the ids of the request that this attempt belongs to.
fn ids_of(request: &Request<Bytes>) -> Ids {
    let ids = request.extensions().get::<Ids>();
    ids.cloned().unwrap_or_default()
}
