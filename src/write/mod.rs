//! Writes: accepted, carried by one engine, settled.
//!
//! [`accept`] gives a write its places. `engine` has the loop: `turn` waits for a slot, `dispatch`
//! records, sends and settles, [`decision`] says what follows. `active` is what the engine knows of
//! a write. [`durable`] keeps writes that outlast a crash.
//!
//! What all of them use stands here: the parts, the bound of held writes, and what a settled write
//! invalidates.

pub mod accept;
mod active;
pub(crate) mod answer;
pub(crate) mod audited;
mod batch_answer;
pub mod decision;
mod dispatch;
pub mod durable;
pub mod element_count;
mod engine;
pub mod idempotency;
mod intent;
pub mod late_arrivals;
pub mod locations;
mod member;
mod pool;
mod retry;
pub mod settlement;
mod turn;
pub mod unsettled;

use crate::attempt::send::may_land_later;
use crate::attempt::{Attempts, Handles};
use crate::audit::Audit;
use crate::cache::{Cache, Invalidation};
use crate::caller::Principal;
use crate::clock::Clock;
use crate::error::GatewayError;
use crate::exchange::callers::Quotas;
use crate::exchange::router::Router;
use crate::exchange::share::{Full, Portion, Share};
use crate::lanes::Lanes;
use crate::limit::budgets::Budgets;
use crate::metrics::Metrics;
use crate::tasks::Tasks;
use crate::trace::Tracer;
use durable::Durable;
use http::StatusCode;
use pool::BatchPool;
use settlement::Affected;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The writes of all callers, and the parts that carry them.
#[derive(Debug)]
pub struct Writes {
    attempts: Arc<Attempts>,
    router: Router,
    cache: Arc<Cache>,
    budgets: Budgets,
    /// The lanes, which keep writes in order.
    lanes: Lanes,
    /// Writes that may be batched.
    pool: BatchPool,
    /// Durable writes.
    durable: Durable,
    /// The room for held writes.
    held: Share,
    quotas: Arc<Quotas>,
    audit: Audit,
    metrics: Arc<Metrics>,
    tracer: Option<Tracer>,
    tasks: Tasks,
    clock: Clock,
    draining: Arc<AtomicBool>,
}

impl Writes {
    /// Creates writes that are sent by `attempts`.
    pub fn new(handles: &Handles, attempts: Arc<Attempts>, durable: Durable, held: Share) -> Self {
        Self {
            attempts,
            router: handles.router.clone(),
            cache: handles.cache.clone(),
            budgets: handles.budgets.clone(),
            lanes: handles.lanes.clone(),
            pool: BatchPool::default(),
            durable,
            held,
            quotas: handles.quotas.clone(),
            audit: handles.audit.clone(),
            metrics: handles.metrics.clone(),
            tracer: handles.tracer.clone(),
            tasks: handles.tasks.clone(),
            clock: handles.clock.clone(),
            draining: handles.draining.clone(),
        }
    }

    /// Returns how much longer all lanes stay closed, after a start at which the writes of an
    /// earlier process are unknown. `None` if they are not closed.
    pub fn all_lanes_closed_for(&self) -> Option<Duration> {
        let until = self.lanes.all_closed_until()?;
        Some(until.saturating_duration_since(self.clock.now()))
    }

    /// Returns the durable writes.
    pub fn durable(&self) -> &Durable {
        &self.durable
    }

    /// Returns whether the gateway is stopping.
    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Takes room for one more held write of this peer, until the portion is dropped.
    ///
    /// # Errors
    /// If there is no room, or the peer has its half.
    fn hold(&self, principal: &Principal) -> Result<Portion, GatewayError> {
        let mut held = self.held.portion(principal);
        held.grow(1).map_err(|full| {
            let principal = (full == Full::ForPrincipal).then_some(principal);
            GatewayError::QueueFull {
                retry_after: self.budgets.until_departure(principal),
            }
        })?;
        Ok(held)
    }

    /// Invalidates cached answers that began before now, and those that begin before the settle
    /// time ends.
    pub(crate) fn settle(&self, touched: &Invalidation, settling: Duration) {
        let now = self.clock.now();
        self.cache.settle(touched, now + settling);
        match touched {
            Invalidation::Everything => self.metrics.invalidated("everything"),
            Invalidation::Credential(_) => self.metrics.invalidated("credential"),
            Invalidation::Named { tags, .. } if tags.is_empty() => {
                self.metrics.invalidated("paths")
            }
            Invalidation::Named { .. } | Invalidation::Operations(_) => {
                self.metrics.invalidated("tags")
            }
        }
    }

    /// Settles the end of a write, or of one attempt of it, with this status; `None` if the outcome
    /// is unknown. Call it before its caller hears.
    pub(crate) fn settle_end(&self, affected: &Affected, status: Option<StatusCode>) {
        let settings = self.router.settings.get();
        let settling = if may_land_later(status) {
            settings.late
        } else {
            settings.settling
        };
        if let Some(touched) = affected.invalidation(status) {
            self.settle(&touched, settling);
        }
    }
}
