//! Reads: looked up, joined or fetched in a single flight, and served.
//!
//! [`serve`] is the life of a cacheable read, [`fetch`] the fetch that readers share, [`refresh`] a
//! fetch without a reader, and [`pass`] a read that is not cacheable. What may be stored or shown
//! is decided in [`crate::cache`].

pub mod cacheable;
pub mod fetch;
pub mod first_reader;
pub mod pace;
pub mod pass;
pub mod plan;
pub mod refresh;
pub mod representation;
pub mod serve;
pub mod share;
pub mod stored;

use crate::attempt::{Attempts, Handles};
use crate::cache::Cache;
use crate::clock::Clock;
use crate::error::GatewayError;
use crate::exchange::answer_memory::AnswerMemory;
use crate::exchange::callers::Quotas;
use crate::exchange::response::Reply;
use crate::exchange::settings::Settings;
use crate::limit::budgets::Budgets;
use crate::metrics::Metrics;
use crate::swap::Swap;
use crate::tasks::Tasks;
use std::sync::Arc;

/// The result of a read.
pub(crate) type ReadResult = Result<Reply, GatewayError>;

/// The service of reads.
#[derive(Debug)]
pub struct Reads {
    attempts: Arc<Attempts>,
    cache: Arc<Cache>,
    budgets: Budgets,
    quotas: Arc<Quotas>,
    /// The memory of responses that are read as a whole.
    answers: AnswerMemory,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    settings: Arc<Swap<Settings>>,
    clock: Clock,
}

impl Reads {
    /// Creates the service. Reads are sent through `attempts`.
    pub fn new(handles: &Handles, attempts: Arc<Attempts>, answers: AnswerMemory) -> Self {
        Self {
            attempts,
            cache: handles.cache.clone(),
            budgets: handles.budgets.clone(),
            quotas: handles.quotas.clone(),
            answers,
            metrics: handles.metrics.clone(),
            tasks: handles.tasks.clone(),
            settings: handles.router.settings.clone(),
            clock: handles.clock.clone(),
        }
    }
}
