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
use crate::credential::Credential;
use crate::error::GatewayError;
use crate::exchange::callers::Quotas;
use crate::exchange::edge;
use crate::exchange::request::Ask;
use crate::exchange::response::Reply;
use crate::exchange::settings::Settings;
use crate::exchange::share::Share;
use crate::exchange::timing::Timing;
use crate::limit::learn::Allowance;
use crate::merge::{self, Parts};
use crate::metrics::Metrics;
use crate::metrics::Origin;
use crate::read::Reads;
use crate::read::pass::unanswered;
use crate::route::policy::Effect;
use crate::swap::Swap;
use crate::tasks::Tasks;
use crate::upstream::{AnswerBody, Attempt, NewConnection, NotSent, Unknown};
use crate::write::Writes;
use crate::write::held::{Unsettled, touched};
use crate::write::retry::unknown;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use model::{Bounds, Model, Passenger, Wish};
use parking_lot::Mutex;
use reads::Keep;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use verdict::{Cached, Foreseen, NotTaken};

/// The number of kept connections found closed after which a request counts as not sent.
const MOST_CLOSED: u32 = 4;

/// The state of shadow mode.
#[derive(Debug)]
pub struct Shadow {
    model: Mutex<Model<BudgetKey, Parts>>,
    /// The memory of all copies. A response without room for its copy is streamed and not judged.
    copies: Share,
    attempts: Arc<Attempts>,
    reads: Arc<Reads>,
    writes: Arc<Writes>,
    cache: Arc<Cache<GatewayError>>,
    quotas: Arc<Quotas>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    settings: Arc<Swap<Settings>>,
    clock: Clock,
}

/// The size of that memory, in bytes.
const COPIES: usize = 64 * 1024 * 1024;

type BudgetKey = (Credential, Arc<str>);

impl Passenger for Parts {
    fn may_join(&self, aboard: &[Self]) -> bool {
        self.fits(aboard, merge::Bounds::default())
    }
}

impl Shadow {
    /// Creates shadow mode with empty virtual queues within these bounds.
    pub fn new(
        bounds: Bounds,
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

fn budget_of(ask: &Ask) -> BudgetKey {
    (ask.credential, ask.operation.budget.name.clone())
}

impl Shadow {
    /// Carries out a request in shadow mode.
    ///
    /// The prediction comes first, from the state before the request. It never changes what is
    /// sent.
    pub(crate) async fn forward_at_once(self: &Arc<Self>, ask: Ask) -> Reply {
        let request = ask.forwarded();
        let (mut foreseen, keep) = match ask.operation.effect {
            effect if ask.lacks_credential() => {
                let cached = match effect {
                    Effect::Read => Cached::Bypass,
                    Effect::Write => Cached::Write,
                };
                let refused = Foreseen::not_taken(cached, NotTaken::NoCredential);
                (refused, Keep::Nothing)
            }
            Effect::Read => self.foresee_read(&ask),
            Effect::Write => (self.foresee_write(&ask, &request), Keep::Nothing),
        };
        let name = &ask.operation.name;
        let (cached, wait) = (foreseen.cached.as_str(), foreseen.wait());
        self.metrics
            .foreseen(name, foreseen.verdict(), cached, wait);
        let mut timing = Timing::of(&ask);
        self.attempts.leaves(&ask, &mut timing);
        // A task of its own, because a caller that hangs up must not cut off the request.
        let (tell, told) = oneshot::channel();
        let (shadow, its) = (self.clone(), ask.clone());
        self.tasks.spawn("shadow", async move {
            drop(tell.send(shadow.forward(&its, request).await));
        });
        let (attempt, took) = match told.await {
            Ok(came) => came,
            Err(_) => return Reply::error(&GatewayError::Internal).in_shadow(foreseen.value()),
        };
        timing.upstream = took;
        match attempt {
            Attempt::Answered(response) => {
                // The limit is learned before the body streams, so that the next prediction uses
                // it.
                self.heed(&ask, &foreseen, &response);
                let (response, same) = keep.pass_on(self, response).await;
                foreseen.same = same;
                Reply::as_it_came(response, ask.operation.effect, timing)
                    .in_shadow(foreseen.value())
            }
            other => Reply::error(&error_of(&other, &ask)).in_shadow(foreseen.value()),
        }
    }

    /// Sends the request, in a task that its caller cannot cancel. The marks of a write are raised
    /// before its outcome is reported.
    async fn forward(&self, ask: &Ask, mut request: Request<Bytes>) -> (Attempt, Duration) {
        // Created before sending. If this future is dropped, the write is settled as unknown.
        let unsettled = (ask.operation.effect == Effect::Write)
            .then(|| Unsettled::without_place(self.writes.clone(), touched(ask)));
        let mut tries = 1;
        let (mut attempt, took) = loop {
            let (attempt, took) = self
                .attempts
                .exchange(&ask.operation, ask.credential, request.clone())
                .await;
            let again = match attempt {
                Attempt::NotSent(NotSent::ClosedBeforeSending) => true,
                Attempt::Unknown(Unknown::StaleConnection) => {
                    let is_read = ask.operation.effect == Effect::Read;
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
    fn foresee_write(&self, ask: &Ask, request: &Request<Bytes>) -> Foreseen {
        let Ok(durable) = self.writes.wants_durable(ask) else {
            return Foreseen::not_taken(Cached::Write, NotTaken::Key);
        };
        let deferred = durable.as_ref().is_some_and(|wanted| wanted.is_deferred());
        let parts = if ask.overridden {
            None
        } else if durable.is_some() {
            let mut request = request.clone();
            request
                .headers_mut()
                .remove(crate::write::idempotency::FIELD);
            Parts::of(&ask.operation, &request)
        } else {
            Parts::of(&ask.operation, request)
        };
        let wish = Wish {
            // A deferred write waits as long as it takes.
            patience: if deferred {
                Duration::MAX
            } else {
                ask.patience
            },
            bytes: ask.weight(),
            parts,
        };
        self.foresee(ask, Cached::Write, wish)
    }

    /// Predicts the course of a request that needs the API.
    fn foresee(&self, ask: &Ask, cached: Cached, wish: Wish<Parts>) -> Foreseen {
        // Charged as when enforced: a request over its quota takes no slot in the model.
        if self.quotas.charge(&ask.caller).is_err() {
            return Foreseen::not_taken(cached, NotTaken::Quota);
        }
        let rate = ask.operation.budget.rate;
        let mut model = self.model.lock();
        let departure = model.arrive(&budget_of(ask), rate, wish, self.clock.now());
        Foreseen::leaves(cached, departure)
    }

    /// Learns the limit from a response's rate headers, and counts a 429 with its prediction.
    fn heed(&self, ask: &Ask, foreseen: &Foreseen, response: &Response<AnswerBody>) {
        let operation = &ask.operation;
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            self.metrics.throttled(&operation.name, Origin::Upstream);
            self.metrics
                .throttled_in_shadow(&operation.name, foreseen.verdict());
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
            self.model.lock().learn(&budget_of(ask), limit);
        }
    }
}

/// Returns the error for an attempt without a response.
fn error_of(attempt: &Attempt, ask: &Ask) -> GatewayError {
    match attempt {
        Attempt::NotSent(why) => GatewayError::UpstreamUnreachable {
            message: why.message(),
            waited: (*why).into(),
        },
        Attempt::Unknown(why) if ask.operation.effect == Effect::Write => {
            unknown(ask, (*why).into())
        }
        Attempt::Unknown(why) => unanswered(*why),
        Attempt::Answered(_) => GatewayError::UpstreamBroken,
    }
}
