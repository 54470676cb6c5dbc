//! Shadow mode: every request is forwarded at once, as if the gateway were not there, and what the
//! gateway would have done is only reported.
//!
//! The life of a request in this mode:
//!
//! 1. `reads` looks up what the cache would have had.
//! 2. [`model`] computes when its budget would have let it be sent.
//! 3. The request is sent once, whatever these say, and the API's response is streamed unchanged.
//! 4. [`verdict`] puts the prediction into a header, the log line and metrics.
//!
//! The cache is kept warm under the usual rules: a response is stored if the gateway would have
//! fetched it, and writes raise their marks. A copy of the response is taken while it streams
//! (`copied`). If a stored response would have been shown instead, the two are compared. How often
//! they differ is the price of the time to live.
//!
//! A request is sent again only if a kept connection turned out to be closed, and only if none of
//! its bytes were written or it is a read. Without the gateway there would have been no such
//! connection.

mod copied;
pub mod model;
mod reads;
pub mod verdict;

use crate::attempt::{Attempts, Handles};
use crate::cache::Cache;
use crate::clock::Clock;
use crate::error::GatewayError;
use crate::exchange::callers::Quotas;
use crate::exchange::edge;
use crate::exchange::request::RequestContext;
use crate::exchange::response::Reply;
use crate::exchange::settings::Settings;
use crate::exchange::share::Share;
use crate::exchange::timing::Timing;
use crate::limit::learn::Allowance;
use crate::merge::Parts;
use crate::metrics::Metrics;
use crate::metrics::Origin;
use crate::read::Reads;
use crate::read::pass::unanswered;
use crate::route::policy::Effect;
use crate::swap::Swap;
use crate::tasks::Tasks;
use crate::upstream::{AnswerBody, Attempt, NewConnection, NotSent, Unknown};
use crate::write::Writes;
use crate::write::answer::unknown;
use crate::write::settlement::Affected;
use crate::write::unsettled::Unsettled;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use model::{BudgetKey, Model, ModelBounds, ModelRequest};
use parking_lot::Mutex;
use reads::CopyPlan;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use verdict::{Cached, NotTaken, Prediction};

/// The number of kept connections found closed after which a request counts as not sent.
const MOST_CLOSED: u32 = 4;

/// The state of shadow mode.
#[derive(Debug)]
pub struct Shadow {
    model: Mutex<Model>,
    /// The memory of all copies. A response without room for its copy is streamed and not judged.
    copies: Share,
    attempts: Arc<Attempts>,
    reads: Arc<Reads>,
    writes: Arc<Writes>,
    cache: Arc<Cache>,
    quotas: Arc<Quotas>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    settings: Arc<Swap<Settings>>,
    clock: Clock,
}

/// The size of that memory, in bytes.
const COPIES: usize = 64 * 1024 * 1024;

impl Shadow {
    /// Creates shadow mode with empty virtual queues within these bounds.
    pub fn new(
        bounds: ModelBounds,
        handles: &Handles,
        attempts: Arc<Attempts>,
        reads: Arc<Reads>,
        writes: Arc<Writes>,
    ) -> Self {
        Self {
            model: Mutex::new(Model::new(bounds)),
            copies: Share::new(COPIES),
            attempts,
            reads,
            writes,
            cache: handles.cache.clone(),
            quotas: handles.quotas.clone(),
            metrics: handles.metrics.clone(),
            tasks: handles.tasks.clone(),
            settings: handles.router.settings.clone(),
            clock: handles.clock.clone(),
        }
    }
}

fn budget_of(context: &RequestContext) -> BudgetKey {
    (context.credential, context.operation.budget.name.clone())
}

impl Shadow {
    /// Carries out a request in shadow mode.
    ///
    /// The prediction comes first, from the state before the request. It never changes what is
    /// sent.
    pub(crate) async fn forward_at_once(self: &Arc<Self>, context: RequestContext) -> Reply {
        let request = context.forwarded();
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
        let name = &context.operation.name;
        let (cached, wait) = (prediction.cached.as_str(), prediction.wait());
        self.metrics
            .predicted(name, prediction.verdict(), cached, wait);
        let mut timing = Timing::of(&context);
        self.attempts.leaves(&context, &mut timing);
        // A task of its own, because a caller that hangs up must not cut off the request.
        let (tell, told) = oneshot::channel();
        let (shadow, its) = (self.clone(), context.clone());
        self.tasks.spawn("shadow", async move {
            drop(tell.send(shadow.forward(&its, request).await));
        });
        let (attempt, took) = match told.await {
            Ok(came) => came,
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
            other => Reply::error(&error_of(&other, &context)).in_shadow(prediction.value()),
        }
    }

    /// Sends the request, in a task that its caller cannot cancel. The marks of a write are raised
    /// before its outcome is reported.
    async fn forward(
        &self,
        context: &RequestContext,
        mut request: Request<Bytes>,
    ) -> (Attempt, Duration) {
        // Created before sending. If this future is dropped, the write is settled as unknown.
        let unsettled = (context.operation.effect == Effect::Write)
            .then(|| Unsettled::without_place(self.writes.clone(), Affected::of(context)));
        let mut tries = 1;
        let (mut attempt, took) = loop {
            let (attempt, took) = self
                .attempts
                .exchange(&context.operation, context.credential, request.clone())
                .await;
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
        if let Attempt::Answered(response) = &mut attempt {
            edge::clean_answer(response.headers_mut(), &self.settings.get().via);
            edge::date_answer(response.headers_mut(), self.clock.wall());
        }
        match (&attempt, unsettled) {
            (_, None) => {}
            (Attempt::Answered(response), Some(unsettled))
                if response.status() != StatusCode::TOO_MANY_REQUESTS =>
            {
                drop(unsettled.heard(response.status(), response.headers(), false));
            }
            (Attempt::Answered(_) | Attempt::NotSent(_), Some(unsettled)) => {
                drop(unsettled.not_carried_out());
            }
            // Dropped as it is, the write is settled with its outcome unknown.
            (Attempt::Unknown(_), Some(unsettled)) => drop(unsettled),
        }
        (attempt, took)
    }

    /// Predicts the course of a write.
    fn predict_write(&self, context: &RequestContext, request: &Request<Bytes>) -> Prediction {
        let Ok(durable) = self.writes.wants_durable(context) else {
            return Prediction::not_taken(Cached::Write, NotTaken::Key);
        };
        let deferred = durable.as_ref().is_some_and(|wanted| wanted.is_deferred());
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
        self.predict(context, Cached::Write, request)
    }

    /// Predicts the course of a request that needs the API.
    fn predict(
        &self,
        context: &RequestContext,
        cached: Cached,
        request: ModelRequest,
    ) -> Prediction {
        // Charged as when enforced: a request over its quota takes no slot in the model.
        if self.quotas.charge(&context.caller).is_err() {
            return Prediction::not_taken(cached, NotTaken::Quota);
        }
        let rate = context.operation.budget.rate;
        let mut model = self.model.lock();
        let started = model.arrive(budget_of(context), rate, request, self.clock.now());
        Prediction::leaves(cached, started)
    }

    /// Learns the limit from a response's rate headers, and counts a 429 with its prediction.
    fn learn_from(
        &self,
        context: &RequestContext,
        prediction: &Prediction,
        response: &Response<AnswerBody>,
    ) {
        let operation = &context.operation;
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            self.metrics.throttled(&operation.name, Origin::Upstream);
            self.metrics
                .throttled_in_shadow(&operation.name, prediction.verdict());
            return;
        }
        if let Some(allowance) = Allowance::of(response.headers()) {
            let budget = &operation.budget;
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

/// Returns the error for an attempt without a response.
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
