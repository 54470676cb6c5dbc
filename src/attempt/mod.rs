//! One attempt at the API and the line before it.
//!
//! [`send`] is the only sender. Whoever sends again takes a new permit.

pub mod backoff;
pub mod breaker;
pub mod estimate;
pub mod estimate_budget;
pub mod retry_budget;
pub mod send;
mod spans;
pub mod wait;

use crate::cache::Cache;
use crate::clock::Clock;
use crate::error::GatewayError;
use crate::exchange::callers::Quotas;
use crate::exchange::router::Router;
use crate::exchange::settings::Settings;
use crate::limit::budgets::Budgets;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::swap::Swap;
use crate::tasks::Tasks;
use crate::trace::Tracer;
use crate::upstream::Client;
use breaker::Breaker;
use estimate_budget::Looks;
use parking_lot::Mutex;
use retry_budget::RetryBudget;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What the parts of the path share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handles {
    /// Understands requests; it holds the operations and the plain values.
    pub router: Router,
    /// Stored answers and shared fetches.
    pub cache: Arc<Cache<GatewayError>>,
    /// The upstream's allowance.
    pub budgets: Budgets,
    /// The lanes.
    pub queue: Queue,
    /// The callers' quotas.
    pub quotas: Arc<Quotas>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where spans go, if anywhere.
    pub tracer: Option<Tracer>,
    /// Work that outlives its caller.
    pub tasks: Tasks,
    /// Time.
    pub clock: Clock,
    /// Whether no new work should be taken.
    pub draining: Arc<AtomicBool>,
}

/// Sends attempts, each with a permit of its own, and waits for the permit.
#[derive(Debug)]
pub struct Attempts {
    client: Client,
    cache: Arc<Cache<GatewayError>>,
    budgets: Budgets,
    queue: Queue,
    metrics: Arc<Metrics>,
    tracer: Option<Tracer>,
    settings: Arc<Swap<Settings>>,
    clock: Clock,
    /// Whether writes are sent while the API does not answer.
    breaker: Mutex<Breaker>,
    /// How often writes are retried that may have taken effect.
    retry_budget: Mutex<RetryBudget>,
    estimate_budget: Looks,
}

impl Attempts {
    /// Attempts by way of this client.
    pub fn new(handles: &Handles, client: Client) -> Self {
        Self {
            client,
            cache: handles.cache.clone(),
            budgets: handles.budgets.clone(),
            queue: handles.queue.clone(),
            metrics: handles.metrics.clone(),
            tracer: handles.tracer.clone(),
            settings: handles.router.settings.clone(),
            clock: handles.clock.clone(),
            breaker: Mutex::default(),
            retry_budget: Mutex::default(),
            estimate_budget: Looks::default(),
        }
    }

    /// Whether writes are sent while the API does not answer.
    pub fn breaker(&self) -> &Mutex<Breaker> {
        &self.breaker
    }

    /// How often writes are retried that may have taken effect.
    pub fn retry_budget(&self) -> &Mutex<RetryBudget> {
        &self.retry_budget
    }
}
