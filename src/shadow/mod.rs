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

mod comparison;
mod copied;
mod forward;
pub mod model;
mod reads;
pub mod verdict;

use crate::attempt::{Attempts, Handles};
use crate::cache::Cache;
use crate::clock::Clock;
use crate::exchange::callers::Quotas;
use crate::exchange::request::RequestContext;
use crate::exchange::settings::Settings;
use crate::exchange::share::Share;
use crate::metrics::Metrics;
use crate::read::Reads;
use crate::swap::Swap;
use crate::tasks::Tasks;
use crate::write::Writes;
use model::{BudgetKey, Model, ModelBounds, ModelRequest};
use parking_lot::Mutex;
use std::sync::Arc;
use verdict::{Cached, NotTaken, Prediction};

/// The memory of all copies, in bytes.
const COPIES: usize = 64 * 1024 * 1024;

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

    /// Predicts the course of a request that needs the API and whose caller waits.
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
        self.predict_departure(context, cached, request)
    }

    /// Predicts when a request would be sent, whatever its caller has used of the quota.
    fn predict_departure(
        &self,
        context: &RequestContext,
        cached: Cached,
        request: ModelRequest,
    ) -> Prediction {
        let rate = context.operation.budget.rate;
        let mut model = self.model.lock();
        let started = model.arrive(budget_of(context), rate, request, self.clock.now());
        Prediction::leaves(cached, started)
    }
}

fn budget_of(context: &RequestContext) -> BudgetKey {
    (context.credential, context.operation.budget.name.clone())
}
