//! The request path: what happens between a caller's request and its answer.
//!
//! [`connection`] serves a caller's connection: a plain read that is in the store is answered there,
//! on the [`fast_path`]. For everything else [`stack`] lists the layers around the path, outermost
//! first, and [`flow`] is the life of one request: a read ([`crate::read`]), a write
//! ([`crate::write`]), or in shadow mode ([`crate::shadow`]) a request that is forwarded at once.
//!
//! The features that these compose do not know each other: the cache is asked with keys and tags, the
//! queue with order keys, the budgets with credentials and callers.

pub mod connection;
pub mod fast_path;
pub mod flow;
pub mod recent;
mod record;
mod reload;
mod spans;
pub mod stack;

pub use record::AccessLog;
pub use reload::Replacement;

use crate::attempt::breaker::{Breaker, Changed};
use crate::attempt::estimate_budget::Looks;
use crate::attempt::retry_budget::RetryBudget;
use crate::cache::{Cache, Touched};
use crate::clock::Clock;
use crate::credential::Hasher;
use crate::error::GatewayError;
use crate::exchange::answer_memory::Answers;
use crate::exchange::body_memory::Room;
use crate::exchange::callers::Quotas;
use crate::exchange::ids::Ids;
use crate::exchange::prefer::Patience;
use crate::limit::budgets::Budgets;
use crate::metrics::Metrics;
use crate::network::Network;
use crate::queue::Queue;
use crate::route::policy::Operation;
use crate::route::table::Table;
use crate::shadow::Shadow;
use crate::swap::Swap;
use crate::tasks::Tasks;
use crate::trace::Tracer;
use crate::upstream::Client;
use crate::write::batch::Platform;
use crate::write::durable::Durable;
use crate::write::held_limit::{Hold, Holds, NoRoom};
use crate::write::settlement::{self, Affected};
use bytes::Bytes;
use flow::Ask;
use http::{HeaderValue, Request, StatusCode, Uri};
use parking_lot::Mutex;
use recent::RecentRefusals;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Plain values that the path needs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Names this gateway in `Via`.
    pub via: HeaderValue,
    /// Host and port of the API, as its own answers may name them.
    pub authority: String,
    /// Peers whose `X-Gateway-Caller` is believed.
    pub trusted: Vec<Network>,
    /// How long writes and reads wait for their budgets.
    pub write_patience: Patience,
    /// See `write_patience`.
    pub read_patience: Patience,
    /// How long nothing under a written tag is stored or joined, because the API may lag.
    pub settling: Duration,
    /// Q: the same after an unknown outcome, and how long its lanes stay closed.
    pub late: Duration,
    /// The largest body of a request, in bytes, and of a stored answer.
    pub largest_body: usize,
    /// See `largest_body`.
    pub largest_stored: usize,
    /// The shortest timeout of what stands between the callers and the gateway, where known: no
    /// wait of any kind is longer.
    pub caller_timeout: Option<Duration>,
    /// The longest that an attempt can take, connecting included.
    pub longest_answer: Duration,
    /// Which requests have a line in the log.
    pub access: AccessLog,
}

/// Everything the path is made of.
#[derive(Debug)]
pub struct Parts {
    /// The operations of the API.
    pub table: Swap<Table>,
    /// Names credentials.
    pub hasher: Hasher,
    /// Stored answers and shared fetches.
    pub cache: Cache<GatewayError>,
    /// The upstream's allowance.
    pub budgets: Budgets,
    /// The lanes.
    pub queue: Queue,
    /// Writes that may travel together.
    pub platform: Platform,
    /// Writes that outlast a crash.
    pub durable: Durable,
    /// The way to the API.
    pub client: Client,
    /// The callers' quotas.
    pub quotas: Quotas,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The memory of requests' bodies.
    pub bodies: Room,
    /// The memory of answers that are read as a whole.
    pub answers: Answers,
    /// Work that outlives its caller.
    pub tasks: Tasks,
    /// Plain values.
    pub settings: Swap<Settings>,
    /// Time.
    pub clock: Clock,
    /// Whether writes are sent while the API does not answer.
    pub breaker: Mutex<Breaker>,
    /// How often writes are repeated that may have taken effect.
    pub retry_budget: Mutex<RetryBudget>,
    /// How much is looked at who could leave when.
    pub looks: Looks,
    /// Writes held at present.
    pub holds: Holds,
    /// What was refused lately.
    pub recent: Mutex<RecentRefusals>,
    /// In shadow mode, what would have been; otherwise the gateway does what it decides.
    pub shadow: Option<Shadow>,
    /// Where spans go, if anywhere.
    pub tracer: Option<Tracer>,
    /// Whether no new work should be taken.
    pub draining: AtomicBool,
    /// Whether lines at debug level are wanted, such as those of the layers about every request.
    pub debug: AtomicBool,
}

/// The gateway. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway {
    parts: Arc<Parts>,
}

impl Deref for Gateway {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Gateway {
    /// A gateway of these parts.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts: Arc::new(parts),
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

    /// Room for one more held write of this peer's.
    pub(crate) fn hold(&self, peer: IpAddr) -> Result<Hold, GatewayError> {
        self.holds.take(peer).map_err(|why| {
            let peer = match why {
                NoRoom::AtAll => None,
                NoRoom::ForThisPeer => Some(peer),
            };
            GatewayError::QueueFull {
                retry_after: self.budgets.until_departure(peer),
            }
        })
    }

    /// An attempt has ended; whether the API was there. A kept connection that was closed meanwhile
    /// does not tell.
    pub(crate) fn heard_of(&self, is_there: Option<bool>) {
        let (now, mut breaker) = (self.clock.now(), self.breaker.lock());
        let Some(is_there) = is_there else {
            return breaker.came_to_nothing(now);
        };
        let changed = breaker.came(is_there, now);
        drop(breaker);
        match changed {
            None => {}
            Some(Changed::Opened(pause)) => tracing::error!(
                pause_s = pause.as_secs_f64(),
                "the API could not be reached or did not answer several times in a row: no write is \
                 sent for a while, then one as a probe"
            ),
            Some(Changed::Closed) => tracing::warn!("the API answers again: writes are sent"),
        }
    }

    /// A write leaves for the first time.
    pub(crate) fn first_attempt(&self) {
        self.retry_budget.lock().first_attempt(self.clock.now());
    }

    /// Takes a repetition of a write from the retry budget.
    ///
    /// # Errors
    /// With the instant at which to ask again.
    pub(crate) fn take_repetition(&self, operation: &Operation) -> Result<(), Instant> {
        self.retry_budget.lock().repeat(self.clock.now())?;
        self.metrics.repeated(&operation.name);
        Ok(())
    }

    /// The retry budget has no repetition for a write.
    pub(crate) fn no_repetition(&self, operation: &Operation, ids: &Ids) {
        self.metrics.repetition_refused(&operation.name);
        tracing::info!(
            operation = %operation.name,
            request_id = ids.request(),
            trace_id = ids.trace(),
            "the retry budget has no repetition left"
        );
    }

    /// The instant at which whatever stands in front of the gateway gives up on a request.
    pub(crate) fn given_up_at(&self, ask: &Ask) -> Option<Instant> {
        self.settings
            .get()
            .caller_timeout
            .map(|timeout| ask.accepted + timeout)
    }

    /// Makes cached answers unbelievable that began before this instant, and those that begin
    /// before the settling ends.
    pub(crate) fn settle(&self, touched: &Touched, settling: Duration) {
        let now = self.clock.now();
        self.cache.settle(touched, now + settling);
        match touched {
            Touched::Everything => self.metrics.fence_moved("everything"),
            Touched::Credential(_) => self.metrics.fence_moved("credential"),
            Touched::Named { tags, .. } if tags.is_empty() => self.metrics.fence_moved("paths"),
            Touched::Named { .. } | Touched::Operations(_) => self.metrics.fence_moved("tags"),
        }
    }

    /// A write, or one dispatch of it, has ended with this status, or nobody knows how. To be called
    /// before its caller hears.
    pub(crate) fn settle_end(&self, affected: &Affected, status: Option<StatusCode>) {
        let settings = self.settings.get();
        let settling = if settlement::may_land_later(status) {
            settings.late
        } else {
            settings.settling
        };
        if let Some(touched) = affected.settled(status) {
            self.settle(&touched, settling);
        }
    }

    /// The request as it goes to the API.
    pub(crate) fn forwarded(&self, ask: &Ask) -> Request<Bytes> {
        let mut request = Request::new(ask.body.clone());
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = Uri::from(ask.target.clone());
        *request.headers_mut() = crate::exchange::edge::request_headers(&ask.headers);
        request.extensions_mut().insert(ask.ids.clone());
        request
    }
}
