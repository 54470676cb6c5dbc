//! A write: accepted, queued in its lanes and its budget, sent, settled.

pub mod accept;
mod active;
pub(crate) mod answer;
pub mod decision;
mod dispatch;
pub mod durable;
pub mod element_count;
mod engine;
pub mod idempotency;
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
use crate::cache::{Cache, Invalidation};
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
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Carries writes through.
#[derive(Debug)]
pub struct Writes {
    attempts: Arc<Attempts>,
    router: Router,
    cache: Arc<Cache>,
    budgets: Budgets,
    /// The lanes.
    lanes: Lanes,
    /// Writes that may be batched.
    pool: BatchPool,
    /// Writes that outlast a crash.
    durable: Durable,
    /// Writes held at present.
    held: Share,
    quotas: Arc<Quotas>,
    metrics: Arc<Metrics>,
    tracer: Option<Tracer>,
    tasks: Tasks,
    clock: Clock,
    draining: Arc<AtomicBool>,
}

impl Writes {
    /// Writes by way of these attempts.
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
            metrics: handles.metrics.clone(),
            tracer: handles.tracer.clone(),
            tasks: handles.tasks.clone(),
            clock: handles.clock.clone(),
            draining: handles.draining.clone(),
        }
    }

    /// Writes that outlast a crash.
    pub fn durable(&self) -> &Durable {
        &self.durable
    }

    /// Whether the gateway is stopping.
    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Room for one more held write of this peer's.
    fn hold(&self, peer: IpAddr) -> Result<Portion, GatewayError> {
        let mut held = self.held.portion(peer);
        held.grow(1).map_err(|full| {
            let peer = (full == Full::ForPeer).then_some(peer);
            GatewayError::QueueFull {
                retry_after: self.budgets.until_departure(peer),
            }
        })?;
        Ok(held)
    }

    /// Makes cached answers unbelievable that began before this instant, and those that begin
    /// before the settling ends.
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

    /// A write, or one dispatch of it, has ended with this status, or nobody knows how. To be
    /// called before its caller hears.
    pub(crate) fn settle_end(&self, affected: &Affected, status: Option<StatusCode>) {
        let settings = self.router.settings.get();
        let settling = if may_land_later(status) {
            settings.late
        } else {
            settings.settling
        };
        if let Some(touched) = affected.settled(status) {
            self.settle(&touched, settling);
        }
    }
}
