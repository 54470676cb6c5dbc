//! The life of a request in shadow mode: prediction → forwarded at once → learned from → response.
//!
//! Predictions of reads are made in [`reads`](super::reads), those of writes here.
//!
//! Promises that the prediction never changes what is sent, and that the marks of a write are
//! raised before its caller gets the response, as when the gateway enforces.

use crate::attempt::intercepted::is_intercepted;
use crate::error::GatewayError;
use crate::exchange::edge;
use crate::exchange::request::RequestContext;
use crate::exchange::response::Reply;
use crate::exchange::timing::Timing;
use crate::limit::learn::Allowance;
use crate::merge::Parts;
use crate::metrics::Origin;
use crate::read::pass::unanswered;
use crate::route::policy::Effect;
use crate::shadow::model::ModelRequest;
use crate::shadow::reads::CopyPlan;
use crate::shadow::verdict::{Cached, NotTaken, Prediction};
use crate::shadow::{Shadow, budget_of};
use crate::upstream::{AnswerBody, Attempt, NewConnection, NotSent, Unknown};
use crate::write::answer::unknown;
use crate::write::audited::WriteAudit;
use crate::write::decision::OutcomeClass;
use crate::write::settlement::Affected;
use crate::write::unsettled::Unsettled;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The number of kept connections found closed after which a request counts as not sent. Enough for
/// a few that closed together.
const MOST_CLOSED: u32 = 4;

impl Shadow {
    /// Carries out a request in shadow mode.
    ///
    /// The prediction comes first, from the state before the request. It never changes what is
    /// sent.
    pub(crate) async fn forward_at_once(self: &Arc<Self>, context: RequestContext) -> Reply {
        let request = context.forwarded();
        // A request without a credential would be rejected before it is queued.
        let (mut prediction, keep) = match context.operation.effect {
            effect if context.lacks_credential() => {
                let cached = match effect {
                    Effect::Read => Cached::Bypass,
                    Effect::Write => Cached::Write,
                };
                let refused = Prediction::not_taken(cached, NotTaken::NoCredential);
                (refused, CopyPlan::Nothing)
            }
            Effect::Read => self.predict_read(&context),
            Effect::Write => (self.predict_write(&context, &request), CopyPlan::Nothing),
        };
        // Counted before it is sent, so that a caller that hangs up is counted as well.
        let name = &context.operation.name;
        let (cached, wait) = (prediction.cached.as_str(), prediction.wait());
        self.metrics
            .predicted(name, prediction.verdict(), cached, wait);
        // Sent now: it was never queued.
        let mut timing = Timing::of(&context);
        self.attempts.report_departure(&context, &mut timing);
        // A task of its own, because a caller that hangs up must not cut off the request.
        let (sender, outcome) = oneshot::channel();
        let (shadow, its) = (self.clone(), context.clone());
        self.tasks.spawn("shadow", async move {
            drop(sender.send(shadow.forward(&its, request).await));
        });
        let (attempt, took) = match outcome.await {
            Ok(outcome) => outcome,
            Err(_) => return Reply::error(&GatewayError::Internal).in_shadow(prediction.value()),
        };
        timing.upstream = took;
        match attempt {
            Attempt::Answered(response) => {
                // The limit is learned before the body streams, so that the next prediction uses
                // it.
                self.learn_from(&context, &prediction, &response);
                let (response, same) = keep.pass_on(self, response).await;
                prediction.same = same;
                Reply::as_it_came(response, context.operation.effect, timing)
                    .in_shadow(prediction.value())
            }
            // The error that callers of the gateway would get for such an attempt.
            other => Reply::error(&error_of(&other, &context)).in_shadow(prediction.value()),
        }
    }

    /// Sends the request, in a task that its caller cannot cancel. The marks of a write are raised
    /// before its outcome is reported.
    ///
    /// Nothing else happens to the request on the way: it waits for no budget and for no lane.
    async fn forward(
        &self,
        context: &RequestContext,
        mut request: Request<Bytes>,
    ) -> (Attempt, Duration) {
        // Created before sending. If this future is dropped, the write is settled as unknown.
        let unsettled = (context.operation.effect == Effect::Write)
            .then(|| Unsettled::without_place(self.writes.clone(), Affected::of(context)));
        // Recorded when it is dropped, whatever happens.
        let audit = match &unsettled {
            Some(_) => self.writes.audit_of(context),
            None => WriteAudit::default(),
        };
        // A pool may hold several connections that the API has closed meanwhile.
        let mut tries = 1;
        let (mut attempt, took) = loop {
            // Each of these is an attempt, alone: shadow mode has no batches.
            audit.sent(None);
            let (attempt, took) = self
                .attempts
                .exchange(&context.operation, context.credential, request.clone())
                .await;
            // Neither is a retry in the gateway's sense: without the gateway there would have been
            // no kept connection to be found closed.
            let again = match attempt {
                Attempt::NotSent(NotSent::ClosedBeforeSending) => true,
                Attempt::Unknown(Unknown::StaleConnection) => {
                    let is_read = context.operation.effect == Effect::Read;
                    is_read && request.extensions_mut().insert(NewConnection).is_none()
                }
                _ => false,
            };
            if !again || tries >= MOST_CLOSED {
                break (attempt, took);
            }
            tries += 1;
        };
        let is_known = context.operation.method.is_some();
        let intercepted = matches!(&attempt, Attempt::Answered(response)
            if is_intercepted(is_known, response.status(), response.headers()));
        // The record says what an enforcing gateway would say of such an attempt: the page of
        // something in front of the API is no answer, and an unsent request had no effect.
        audit.answered(
            context,
            match &attempt {
                Attempt::Answered(_) if intercepted => OutcomeClass::NoAnswer,
                Attempt::Answered(response) => OutcomeClass::Status(response.status()),
                Attempt::NotSent(_) => OutcomeClass::NoEffect,
                Attempt::Unknown(_) => OutcomeClass::NoAnswer,
            },
        );
        // The response is cleaned as when enforced, so that it differs in nothing but its header.
        if let Attempt::Answered(response) = &mut attempt {
            edge::clean_answer(response.headers_mut(), &self.settings.get().via);
            edge::date_answer(response.headers_mut(), self.clock.wall());
        }
        match (&attempt, unsettled) {
            (_, None) => {}
            // As when enforced: the page of something in front of the API settles it as unknown.
            (Attempt::Answered(_), Some(unsettled)) if intercepted => drop(unsettled),
            (Attempt::Answered(response), Some(unsettled))
                if response.status() != StatusCode::TOO_MANY_REQUESTS =>
            {
                drop(unsettled.heard(response.status(), response.headers(), false));
            }
            // A 429 and an unsent request changed nothing.
            (Attempt::Answered(_) | Attempt::NotSent(_), Some(unsettled)) => {
                drop(unsettled.not_carried_out());
            }
            // Dropped as it is, the write is settled with its outcome unknown.
            (Attempt::Unknown(_), Some(unsettled)) => drop(unsettled),
        }
        (attempt, took)
    }

    /// Predicts the course of a write. Its lanes are not modelled, only its budget and its batch.
    ///
    /// The write itself is forwarded as it is: durable or not, it is sent once.
    fn predict_write(&self, context: &RequestContext, request: &Request<Bytes>) -> Prediction {
        // An invalid `Idempotency-Key` would be rejected before anything else.
        let Ok(durable) = self.writes.wants_durable(context) else {
            return Prediction::not_taken(Cached::Write, NotTaken::Key);
        };
        // Its caller would not wait for the response.
        let deferred = durable.as_ref().is_some_and(|wanted| wanted.is_deferred());
        // What the write would contribute to a batch. The key is not part of what is compared.
        let parts = if context.overridden {
            None
        } else if durable.is_some() {
            let mut request = request.clone();
            request
                .headers_mut()
                .remove(crate::write::idempotency::FIELD);
            Parts::of(&context.operation, &request)
        } else {
            Parts::of(&context.operation, request)
        };
        let request = ModelRequest {
            // A deferred write waits as long as it takes.
            patience: if deferred {
                Duration::MAX
            } else {
                context.patience
            },
            bytes: context.weight(),
            parts,
        };
        // As when enforced, a deferred write is not charged to the quota of its caller.
        if deferred {
            self.predict_departure(context, Cached::Write, request)
        } else {
            self.predict(context, Cached::Write, request)
        }
    }

    /// Learns the limit from a response's rate headers, and counts a 429 with its prediction. A 429
    /// teaches no limit: the model knows nothing of other users of the token.
    ///
    /// Without such headers the documented limit stays.
    fn learn_from(
        &self,
        context: &RequestContext,
        prediction: &Prediction,
        response: &Response<AnswerBody>,
    ) {
        let operation = &context.operation;
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            // Its prediction shows whether the gateway would have prevented it.
            self.metrics.throttled(&operation.name, Origin::Upstream);
            self.metrics
                .throttled_in_shadow(&operation.name, prediction.verdict());
            return;
        }
        // A documented limit is an upper bound: more is never used, whatever the API grants.
        if let Some(allowance) = Allowance::of(response.headers()) {
            let budget = &operation.budget;
            // The model is changed, not a real budget: nothing waits for it.
            let observed = allowance.limit();
            let limit = if budget.documented {
                observed.min(budget.rate.limit)
            } else {
                observed
            };
            self.model.lock().learn(&budget_of(context), limit);
        }
    }
}

/// Returns the error for an attempt without a response. A write that was sent is reported as
/// unknown, never as failed.
fn error_of(attempt: &Attempt, context: &RequestContext) -> GatewayError {
    match attempt {
        Attempt::NotSent(why) => GatewayError::UpstreamUnreachable {
            message: why.message(),
            waited: (*why).into(),
        },
        Attempt::Unknown(why) if context.operation.effect == Effect::Write => {
            unknown(context, (*why).into())
        }
        Attempt::Unknown(why) => unanswered(*why),
        Attempt::Answered(_) => GatewayError::UpstreamBroken,
    }
}
