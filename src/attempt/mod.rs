//! Attempts at the API, and the queue before each.
//!
//! [`send`] is the only sender. Each attempt takes a permit of its own; a retry takes a new one.
//! What to do after an attempt is decided by the reads and the writes, not here.

pub mod backoff;
pub mod breaker;
pub mod estimate;
pub mod estimate_budget;
pub(crate) mod intercepted;
pub mod retry_budget;
pub mod send;
mod spans;
pub mod wait;

use crate::audit::Audit;
use crate::cache::Cache;
use crate::clients::tokens::HeldTokens;
use crate::clock::Clock;
use crate::exchange::callers::Quotas;
use crate::exchange::router::Router;
use crate::exchange::settings::Settings;
use crate::lanes::Lanes;
use crate::limit::budgets::Budgets;
use crate::metrics::Metrics;
use crate::swap::Swap;
use crate::tasks::Tasks;
use crate::trace::Tracer;
use crate::upstream::Client;
use breaker::Breaker;
use estimate_budget::EstimateBudget;
use parking_lot::Mutex;
use retry_budget::RetryBudget;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The parts that reads, writes and shadow mode share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handles {
    /// The router, which holds the operations and the settings.
    pub router: Router,
    /// The stored responses and the shared fetches.
    pub cache: Arc<Cache>,
    /// The budgets of the API.
    pub budgets: Budgets,
    /// The lanes.
    pub lanes: Lanes,
    /// The quotas of callers.
    pub quotas: Arc<Quotas>,
    /// The audit log.
    pub audit: Audit,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The exporter of spans, if tracing is on.
    pub tracer: Option<Tracer>,
    /// The tasks that outlive their caller.
    pub tasks: Tasks,
    /// The clock.
    pub clock: Clock,
    /// Whether the gateway is stopping and accepts no new work.
    pub draining: Arc<AtomicBool>,
}

/// Queues for permits, and sends one attempt with each.
#[derive(Debug)]
pub struct Attempts {
    client: Client,
    cache: Arc<Cache>,
    budgets: Budgets,
    lanes: Lanes,
    audit: Audit,
    metrics: Arc<Metrics>,
    tracer: Option<Tracer>,
    settings: Arc<Swap<Settings>>,
    tokens: Arc<HeldTokens>,
    clock: Clock,
    /// The circuit breaker for writes.
    breaker: Mutex<Breaker>,
    /// The budget for retries of writes that may have taken effect.
    retry_budget: Mutex<RetryBudget>,
    /// The processor time for estimates.
    estimate_budget: EstimateBudget,
}

impl Attempts {
    /// Creates attempts through `client`.
    pub fn new(handles: &Handles, client: Client) -> Self {
        Self {
            client,
            cache: handles.cache.clone(),
            budgets: handles.budgets.clone(),
            lanes: handles.lanes.clone(),
            audit: handles.audit.clone(),
            metrics: handles.metrics.clone(),
            tracer: handles.tracer.clone(),
            settings: handles.router.settings.clone(),
            tokens: handles.router.tokens.clone(),
            clock: handles.clock.clone(),
            breaker: Mutex::default(),
            retry_budget: Mutex::default(),
            estimate_budget: EstimateBudget::default(),
        }
    }

    /// Returns the circuit breaker for writes.
    pub fn breaker(&self) -> &Mutex<Breaker> {
        &self.breaker
    }

    /// Gives up the attempt of a write that the breaker admitted and that is not sent. If it was
    /// the probe, another write may be sent at once instead of after the time of a probe.
    pub(crate) fn release_probe(&self) {
        self.breaker.lock().record_inconclusive(self.clock.now());
    }

    /// Returns the budget for retries of writes that may have taken effect.
    pub fn retry_budget(&self) -> &Mutex<RetryBudget> {
        &self.retry_budget
    }
}
