//! One attempt: a permit, a request, and what came of it for the budget.
//!
//! Always run in a task of its own, so that a caller who hangs up neither cuts a request short nor
//! hides what it cost. Nothing below sends anything twice; whoever sends again takes a new permit.

use crate::attempt::Attempts;
use crate::attempt::breaker::Changed;
use crate::cache::unauthorized::Refused;
use crate::credential::Credential;
use crate::error::Waited;
use crate::exchange::body::{self, Read};
use crate::exchange::edge;
use crate::exchange::ids::Ids;
use crate::limit::budgets::Standing;
use crate::limit::learn::{Allowance, Throttle};
use crate::limit::ticket::Permit;
use crate::limit::window::{End, Learned};
use crate::metrics::Origin;
use crate::route::policy::Operation;
use crate::upstream::{AnswerBody, Attempt, NotSent, Unknown};
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, StatusCode};
use std::time::Duration;

/// The body of a 429 is read up to this size to learn how long to wait, and for so long: until
/// then the budget is open to others who would be refused as well.
const LONGEST_REFUSAL: usize = 64 * 1024;
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// What came of an attempt.
#[derive(Debug)]
pub(crate) enum Came {
    /// A final answer other than 429.
    Answer(Answer),
    /// A 429: it did not take effect.
    Throttled(Response<Bytes>),
    /// It never left.
    NotSent(NotSent),
    /// It left, and no answer came.
    Unknown(Unknown),
}

/// A final answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<AnswerBody>,
    /// Whether it may come from a balancer ahead of the API (a 5xx without rate fields), so that
    /// the request may still be under way behind it.
    pub(crate) doubtful: bool,
    /// The budget it drew on.
    pub(crate) standing: Option<Standing>,
    /// From leaving to its head.
    pub(crate) took: Duration,
}

impl From<NotSent> for Waited {
    fn from(why: NotSent) -> Self {
        if why.is_timeout() {
            Self::TooLong
        } else {
            Self::InVain
        }
    }
}

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
    /// Sends `request` of `credential` once and ends `permit` with what came of it.
    pub(crate) async fn attempt(
        &self,
        operation: &Operation,
        credential: Credential,
        mut permit: Permit,
        request: Request<Bytes>,
    ) -> Came {
        permit.begin();
        let ids = ids_of(&request);
        let (attempt, took) = self.exchange(operation, credential, request).await;
        match attempt {
            Attempt::Answered(response) => {
                self.heard_of(Some(!matches!(response.status().as_u16(), 502..=504)));
                let came = (response, took, &ids);
                self.answered(operation, credential, permit, came).await
            }
            Attempt::NotSent(why) => {
                self.heard_of((why != NotSent::ClosedBeforeSending).then_some(false));
                // A stream that the API reset as unprocessed did travel: something on the way may
                // have counted it.
                let _ = permit.end(if why.travelled() {
                    End::NoAnswer
                } else {
                    End::NotSent
                });
                Came::NotSent(why)
            }
            Attempt::Unknown(why) => {
                self.heard_of((why != Unknown::StaleConnection).then_some(false));
                let _ = permit.end(End::NoAnswer);
                Came::Unknown(why)
            }
        }
    }

    /// Sends `request` of `credential` once, and notes what came of it and how long that took. It
    /// costs nothing here: whoever calls it has a permit, or is held to no budget.
    pub(crate) async fn exchange(
        &self,
        operation: &Operation,
        credential: Credential,
        mut request: Request<Bytes>,
    ) -> (Attempt, Duration) {
        let name = &operation.name;
        let ids = ids_of(&request);
        let place = self.attempt_place(&ids, request.headers_mut());
        let began = self.clock.now();
        let attempt = self.client.send(request).await;
        let took = self.clock.now().saturating_duration_since(began);
        if let Some(place) = &place {
            self.tell_attempt(place, operation, &attempt, (began, took));
        }
        match &attempt {
            Attempt::Answered(response) => {
                if response.status() == StatusCode::UNAUTHORIZED {
                    self.unauthorized(operation, credential);
                }
                let status = response.status().as_u16();
                self.metrics.answered(name, status, took);
            }
            Attempt::NotSent(why) => {
                self.metrics.unanswered(name, "not-sent");
                tracing::warn!(
                    operation = %name,
                    reason = why.as_str(),
                    request_id = ids.request(),
                    trace_id = ids.trace(),
                    "not sent"
                );
            }
            Attempt::Unknown(why) => {
                self.metrics.unanswered(name, "unknown");
                tracing::warn!(
                    operation = %name,
                    reason = why.as_str(),
                    request_id = ids.request(),
                    trace_id = ids.trace(),
                    "sent, but not answered"
                );
            }
        }
        (attempt, took)
    }

    /// An attempt has ended; whether the API was there. A kept connection that was closed meanwhile
    /// does not tell.
    fn heard_of(&self, is_there: Option<bool>) {
        let (now, mut breaker) = (self.clock.now(), self.breaker.lock());
        let Some(is_there) = is_there else {
            return breaker.came_to_nothing(now);
        };
        let changed = breaker.came(is_there, now);
        drop(breaker);
        match changed {
            None => {}
            Some(Changed::Opened(pause)) => tracing::error!(
                pause_s = pause.as_secs_f64(),
                "the API could not be reached or did not answer several times in a row: no write is \
                 sent for a while, then one as a probe"
            ),
            Some(Changed::Closed) => tracing::warn!("the API answers again: writes are sent"),
        }
    }

    async fn answered(
        &self,
        operation: &Operation,
        credential: Credential,
        mut permit: Permit,
        (mut response, took, ids): (Response<AnswerBody>, Duration, &Ids),
    ) -> Came {
        let allowance = Allowance::of(response.headers());
        if response.status() != StatusCode::TOO_MANY_REQUESTS {
            let status = response.status();
            let doubtful = status.is_server_error() && allowance.is_none();
            if may_land_later(Some(status)) {
                permit.may_take_effect_late();
            }
            let end = if doubtful {
                End::NoAnswer
            } else {
                End::Answered(allowance)
            };
            let ended = permit.end(end);
            self.note_learned(operation, credential, &ended.learned);
            edge::clean_answer(response.headers_mut(), &self.settings.get().via);
            edge::date_answer(response.headers_mut(), self.clock.wall());
            return Came::Answer(Answer {
                response,
                doubtful,
                standing: ended.standing,
                took,
            });
        }
        let (mut head, body) = response.into_parts();
        let reading = body::read(body, LONGEST_REFUSAL);
        let body = match tokio::time::timeout(REFUSAL_TIME, reading).await {
            Ok(Read::Whole(bytes) | Read::Longer(bytes, _)) => bytes,
            Ok(Read::Broken(_)) | Err(_) => Bytes::new(),
        };
        // It need not be the whole body that is held now.
        head.headers.remove(CONTENT_LENGTH);
        let throttle = Throttle::of(&head.headers, &body);
        let ended = permit.end(End::Throttled(throttle));
        self.note_learned(operation, credential, &ended.learned);
        let origin = if ended.learned.at_start {
            Origin::Start
        } else {
            Origin::Upstream
        };
        self.metrics.throttled(&operation.name, origin);
        tracing::warn!(
            operation = %operation.name,
            origin = ?origin,
            wait_ms = throttle.wait.map(|wait| wait.as_millis()),
            request_id = ids.request(),
            trace_id = ids.trace(),
            "the API answered 429; waiting and trying again"
        );
        edge::clean_answer(&mut head.headers, &self.settings.get().via);
        Came::Throttled(Response::from_parts(head, body))
    }

    /// The API no longer knows this credential, or no longer for this operation: what was cached
    /// for it is doubted before its caller hears.
    fn unauthorized(&self, operation: &Operation, credential: Credential) {
        let index = u32::try_from(operation.index).unwrap_or(u32::MAX);
        let is_workspace = operation.method == Some(Method::GET) && &*operation.template == "/";
        let refused = if is_workspace {
            Refused::Workspace(index)
        } else {
            Refused::Operation(index)
        };
        self.cache
            .unauthorized(credential.bytes(), refused, self.clock.now());
        self.metrics.fence_moved("unauthorized");
    }

    /// Tells log and metrics what an answer has taught.
    fn note_learned(&self, operation: &Operation, credential: Credential, learned: &Learned) {
        let budget = &operation.budget.name;
        if let Some((before, now)) = learned.limit {
            tracing::info!(%budget, %credential, before, now, "the API's limit is another");
        }
        if let Some(window) = learned.window {
            tracing::info!(%budget, %credential, ?window, "the API's window is another");
        }
        if learned.foreign > 0 {
            self.metrics.foreign(budget, learned.foreign);
            tracing::info!(
                %budget, %credential, requests = learned.foreign,
                "others use this token; leaving them room"
            );
        }
    }
}

/// Whether the write may take effect later than its end: nobody knows, or a 5xx hides it.
pub fn may_land_later(status: Option<StatusCode>) -> bool {
    status.is_none_or(|status| status.is_server_error())
}

/// The names of the request that this one was made for.
fn ids_of(request: &Request<Bytes>) -> Ids {
    let ids = request.extensions().get::<Ids>();
    ids.cloned().unwrap_or_default()
}
