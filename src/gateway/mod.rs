//! The request path: what happens between a caller's request and its answer.
//!
//! [`connection`] serves a caller's connection: a plain read that is in the store is answered
//! there, on the [`fast_path`]. For everything else [`stack`] lists the layers around the path,
//! outermost first, and [`flow`] is the life of one request: a read ([`crate::read`]), a write
//! ([`crate::write`]), or in shadow mode ([`crate::shadow`]) a request that is forwarded at once.
//!
//! The features that these compose do not know each other: the cache is asked with keys and tags,
//! the queue with order keys, the budgets with credentials and callers.

pub mod connection;
pub mod fast_path;
pub mod flow;
pub mod recent;
mod record;
mod reload;
mod spans;
pub mod stack;

pub use reload::Replacement;

use crate::attempt::{Attempts, Handles};
use crate::cache::Cache;
use crate::clock::Clock;
use crate::error::GatewayError;
use crate::exchange::body_memory::Room;
use crate::exchange::callers::Quotas;
use crate::exchange::router::Router;
use crate::limit::budgets::Budgets;
use crate::metrics::Metrics;
use crate::read::Reads;
use crate::shadow::Shadow;
use crate::tasks::Tasks;
use crate::trace::Tracer;
use crate::write::Writes;
use parking_lot::Mutex;
use recent::RecentRefusals;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The request path as a whole.
#[derive(Debug)]
pub struct Gateway {
    router: Router,
    reads: Arc<Reads>,
    writes: Arc<Writes>,
    /// In shadow mode, what would have been; otherwise the gateway does what it decides.
    shadow: Option<Arc<Shadow>>,
    attempts: Arc<Attempts>,
    cache: Arc<Cache<GatewayError>>,
    budgets: Budgets,
    quotas: Arc<Quotas>,
    metrics: Arc<Metrics>,
    tracer: Option<Tracer>,
    tasks: Tasks,
    clock: Clock,
    /// The memory of requests' bodies.
    bodies: Room,
    /// What was refused lately.
    recent: Mutex<RecentRefusals>,
    /// Whether no new work should be taken.
    draining: Arc<AtomicBool>,
    /// Whether lines at debug level are wanted, such as those of the layers about every request.
    debug: AtomicBool,
}

impl Gateway {
    /// A gateway of these parts.
    pub fn new(
        handles: Handles,
        reads: Arc<Reads>,
        writes: Arc<Writes>,
        shadow: Option<Arc<Shadow>>,
        attempts: Arc<Attempts>,
        bodies: Room,
    ) -> Self {
        Self {
            router: handles.router,
            reads,
            writes,
            shadow,
            attempts,
            cache: handles.cache,
            budgets: handles.budgets,
            quotas: handles.quotas,
            metrics: handles.metrics,
            tracer: handles.tracer,
            tasks: handles.tasks,
            clock: handles.clock,
            bodies,
            recent: Mutex::default(),
            draining: handles.draining,
            debug: AtomicBool::default(),
        }
    }

    /// Stops taking work that could not be carried out by then; what waits longer is refused.
    pub fn drain(&self, within: Duration) {
        self.draining.store(true, Ordering::Release);
        self.budgets.drain(self.clock.now() + within);
    }

    /// `enforce`, or `shadow` if it only tells what it would do.
    pub fn mode(&self) -> &'static str {
        match self.shadow {
            None => "enforce",
            Some(_) => "shadow",
        }
    }

    /// Whether it is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Understands requests; it holds the operations and the plain values.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// The writes that are under way.
    pub fn writes(&self) -> &Arc<Writes> {
        &self.writes
    }

    /// The attempts at the API.
    pub fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// Stored answers and shared fetches.
    pub fn cache(&self) -> &Cache<GatewayError> {
        &self.cache
    }

    /// The upstream's allowance.
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// The callers' quotas.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Where spans go, if anywhere.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_ref()
    }

    /// Work that outlives its caller.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Time.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What was refused lately.
    pub fn recent_refusals(&self) -> &Mutex<RecentRefusals> {
        &self.recent
    }
}
