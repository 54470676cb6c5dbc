//! The request path: everything between a caller's request and its response.
//!
//! [`connection`] is the service of a caller's connection. It answers a plain read that is stored
//! on the [`fast_path`]. For everything else [`stack`] lists the layers, outermost first, and
//! [`flow`] is the life of one request: a read ([`crate::read`]), a write ([`crate::write`]), or in
//! shadow mode ([`crate::shadow`]) a request that is forwarded at once.
//!
//! The features composed here do not know each other: the cache works with keys and tags, the queue
//! with order keys, the budgets with credentials and callers.

pub mod connection;
pub mod fast_path;
pub mod flow;
mod headers;
pub mod recent;
mod record;
mod rejection;
pub mod reload;
mod report;
mod revocation;
mod sender_cache;
mod spans;
pub mod stack;

use crate::attempt::{Attempts, Handles};
use crate::audit::Audit;
use crate::cache::Cache;
use crate::clients::revoked::RevokedNames;
use crate::clock::Clock;
use crate::exchange::callers::Quotas;
use crate::exchange::router::Router;
use crate::exchange::share::Share;
use crate::limit::budgets::Budgets;
use crate::metrics::Metrics;
use crate::read::Reads;
use crate::shadow::Shadow;
use crate::tasks::Tasks;
use crate::trace::Tracer;
use crate::write::Writes;
use parking_lot::Mutex;
use recent::RecentRejections;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The request path as a whole.
#[derive(Debug)]
pub struct Gateway {
    router: Router,
    reads: Arc<Reads>,
    writes: Arc<Writes>,
    /// Shadow mode, if it is on. Otherwise the gateway enforces its decisions.
    shadow: Option<Arc<Shadow>>,
    attempts: Arc<Attempts>,
    cache: Arc<Cache>,
    budgets: Budgets,
    quotas: Arc<Quotas>,
    audit: Audit,
    metrics: Arc<Metrics>,
    tracer: Option<Tracer>,
    tasks: Tasks,
    clock: Clock,
    /// The memory for request bodies.
    bodies: Share,
    /// The requests that the gateway rejected most recently.
    recent: Mutex<RecentRejections>,
    /// The keys that were revoked.
    revoked: Mutex<RevokedNames>,
    /// Whether the gateway is stopping and accepts no new work.
    draining: Arc<AtomicBool>,
    /// Whether debug logging is on, as for the layers' lines about every request.
    debug: AtomicBool,
}

impl Gateway {
    /// Builds a gateway from its parts.
    pub fn new(
        handles: Handles,
        reads: Arc<Reads>,
        writes: Arc<Writes>,
        shadow: Option<Arc<Shadow>>,
        attempts: Arc<Attempts>,
        bodies: Share,
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
            audit: handles.audit,
            metrics: handles.metrics,
            tracer: handles.tracer,
            tasks: handles.tasks,
            clock: handles.clock,
            bodies,
            recent: Mutex::default(),
            revoked: Mutex::default(),
            draining: handles.draining,
            debug: AtomicBool::default(),
        }
    }

    /// Stops accepting work that cannot complete within `within`, and rejects what is queued
    /// longer.
    pub fn drain(&self, within: Duration) {
        self.draining.store(true, Ordering::Release);
        self.budgets.drain(self.clock.now() + within);
    }

    /// Returns `enforce`, or `shadow` if the gateway only reports what it would do.
    pub fn mode(&self) -> &'static str {
        match self.shadow {
            None => "enforce",
            Some(_) => "shadow",
        }
    }

    /// Returns whether the gateway is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Returns the router, which holds the operations and the settings.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Returns the writes in flight and queued.
    pub fn writes(&self) -> &Arc<Writes> {
        &self.writes
    }

    /// Returns the sender of attempts to the API.
    pub fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// Returns the stored responses and the shared fetches.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Returns the budgets of the API.
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// Returns the quotas of callers.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Returns the audit log.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Returns the exporter of spans, if tracing is on.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_ref()
    }

    /// Returns the tasks that outlive their caller.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Returns the clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Returns the requests that the gateway rejected most recently.
    pub fn recent_rejections(&self) -> &Mutex<RecentRejections> {
        &self.recent
    }
}
