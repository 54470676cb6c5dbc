//! A gateway built from a configuration, whose values are translated into each part's own terms.
//!
//! The only place that knows both the configuration and the parts. Nothing is decided here, read
//! from disk or sent: what has a past or a connection is given.
//!
//! The order in `Assembly::gateway` is that of dependencies. A part knows those below it and none
//! above, so each can be tested without a gateway.
//!
//! The functions below translate one section each. A reload calls some of them again and compares
//! the results, so they depend on the configuration alone.

use super::keeping::Keeping;
use super::start_error::{AppError, failed};
use crate::attempt::{Attempts, Handles};
use crate::audit::Audit;
use crate::cache::{self, Cache};
use crate::clock::Clock;
use crate::config::{Config, LogAccess, Mode, proxy_environment};
use crate::credential::Hasher;
use crate::exchange::answer_memory::AnswerMemory;
use crate::exchange::callers::{Allowed, Quotas};
use crate::exchange::prefer::Patience;
use crate::exchange::router::Router;
use crate::exchange::settings::{AccessLog, Settings};
use crate::exchange::share::Share;
use crate::gateway::Gateway;
use crate::gateway::stack::StackBounds;
use crate::journal::Remembered;
use crate::lanes::Lanes;
use crate::limit::budgets::{BudgetBounds, Budgets, LineBounds, MOST_ACCOUNTS};
use crate::limit::ledger::{Ledger, PastUsage};
use crate::limit::window::Terms;
use crate::metrics::Metrics;
use crate::read::Reads;
use crate::route::Table;
use crate::server::ServerBounds;
use crate::server::conn::ConnectionBounds;
use crate::server::deadlines::StreamDeadlines;
use crate::shadow::{Shadow, model};
use crate::tasks::Tasks;
use crate::trace::{Collector, Tracer, TracerSpec};
use crate::upstream::{Base, Client, ClientSpec, Destination, ProxyRules, ProxyVariables};
use crate::write::Writes;
use crate::write::durable::{Durable, DurableBounds};
use governor::clock::QuantaClock;
use http::HeaderValue;
use std::num::NonZeroU32;
use std::sync::Arc;

/// The name of this gateway in `Via`.
const VIA: HeaderValue = HeaderValue::from_static("1.1 segment-gateway");

/// The parts of a gateway. The client and the past come from outside, so that a simulation can
/// provide its own.
#[derive(Debug)]
pub struct Assembly {
    /// Values within their bounds, compared with each other. Nothing is checked again here.
    pub config: Config,
    /// The operations of the API.
    pub table: Table,
    /// The client of the API.
    pub client: Client,
    /// The record of attempts.
    pub ledger: Ledger,
    /// The attempts of an earlier process; `None` on a new node.
    pub history: Option<PastUsage>,
    /// The journal of durable writes.
    pub keeping: Keeping,
    /// The hash that stands for credentials.
    pub hasher: Hasher,
    /// The audit log.
    pub audit: Audit,
    /// The clock.
    pub clock: Clock,
}

impl Assembly {
    /// Builds the gateway. Its budgets serve queued requests only while [`Budgets::drive`] is
    /// polled.
    ///
    /// # Errors
    /// If a metric's name is malformed, which a test excludes.
    pub fn gateway(self) -> Result<Arc<Gateway>, AppError> {
        let Self {
            config,
            table,
            client,
            ledger,
            history,
            keeping,
            hasher,
            audit,
            clock,
        } = self;
        // Metrics first: they count from the start what the other parts do.
        let names: Vec<Arc<str>> = table
            .operations()
            .iter()
            .map(|op| op.name.clone())
            .collect();
        let metrics = Arc::new(Metrics::new(&names).map_err(failed)?);
        metrics.in_shadow(config.mode == Mode::Shadow);
        // The hasher here and in the router must be the same: the ledger knows credentials by their
        // hashes.
        let budgets = Budgets::new(
            bounds(&config),
            ledger,
            history,
            hasher.clone(),
            clock.clone(),
        );
        // What reads, writes and attempts share. Each gets clones, and none knows the gateway.
        let handles = Handles {
            router: Router {
                table: Arc::new(table.into()),
                // No clients yet: the start knows which were revoked.
                clients: Arc::default(),
                settings: Arc::new(settings(&config).into()),
                tokens: Arc::default(),
                hasher,
            },
            cache: Arc::new(Cache::new(&cache::CacheSpec {
                bytes: config.cache.bytes.0 as u64,
                largest_body: config.cache.largest_body.0,
                fetches: config.cache.fetches,
                marks: config.cache.marks,
            })),
            budgets,
            // One set of lanes for held, deferred and batched writes: order holds across the kinds.
            lanes: Lanes::new(clock.clone()),
            quotas: Arc::new(Quotas::new(allowed(&config), QuantaClock::default())),
            audit,
            tracer: tracer(&config, &metrics, &clock)?,
            metrics,
            tasks: Tasks::default(),
            draining: Arc::default(),
            clock,
        };
        // From the bottom up: attempts, then reads and writes, then shadow mode, then the gateway.
        let attempts = Arc::new(Attempts::new(&handles, client));
        // As much memory again as for stored responses.
        let answers = AnswerMemory::new(config.cache.bytes.0);
        let reads = Arc::new(Reads::new(&handles, attempts.clone(), answers));
        // Held writes keep at most half of the callers' connections; the rest is for reads.
        let held = Share::new(config.server.connections / 2);
        let durable = durable(&config, keeping);
        let writes = Arc::new(Writes::new(&handles, attempts.clone(), durable, held));
        let shadow = shadow(&config).map(|bounds| {
            let attempts = attempts.clone();
            let shadow = Shadow::new(bounds, &handles, attempts, reads.clone(), writes.clone());
            Arc::new(shadow)
        });
        let bodies = Share::new(config.server.bodies_bytes.0);
        let gateway = Gateway::new(handles, reads, writes, shadow, attempts, bodies);
        gateway.set_debug(config.log.level.tells_of_requests());
        Ok(Arc::new(gateway))
    }
}

/// Returns the collector of spans that a configuration names.
pub fn collector(config: &Config) -> Option<Collector> {
    let tracing = &config.tracing;
    Some(Collector {
        endpoint: tracing.otlp_endpoint.clone()?,
        ca_file: tracing.ca_file.clone(),
        service: tracing.service_name.clone(),
    })
}

/// Starts the export of spans, if a collector is configured.
///
/// # Errors
/// If the address of the collector cannot be used.
fn tracer(
    config: &Config,
    metrics: &Arc<Metrics>,
    clock: &Clock,
) -> Result<Option<Tracer>, AppError> {
    let started = collector(config).map(|collector| {
        let spec = TracerSpec {
            collector,
            sample_percent: config.tracing.sample_percent,
        };
        Tracer::start(&spec, metrics.clone(), clock.clone())
    });
    started.transpose().map_err(failed)
}

/// Returns the durable writes over their journal. Nothing is recovered yet: `start.rs` does that
/// once the gateway exists, because a recovered write may be sent at once.
fn durable(config: &Config, keeping: Keeping) -> Durable {
    let bounds = DurableBounds {
        writes: config.journal.writes,
        bytes: config.journal.bytes.0,
        keep: config.journal.keep,
        ended: Remembered {
            writes: config.journal.ended_writes as u64,
            bytes: config.journal.ended_bytes.0 as u64,
        },
        workspaces: config.journal.workspaces,
    };
    Durable::new(keeping.journal, keeping.outlasts, keeping.newest, bounds)
}

/// Returns the bounds of budgets and of their queues. Only those of queues can be replaced: a
/// budget keeps its terms for as long as the process lives.
fn bounds(config: &Config) -> BudgetBounds {
    // The bounds of the keys are far below `u32::MAX`; the fallback is there for the type alone.
    let at_once = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    BudgetBounds {
        terms: Terms {
            guard: config.budget.guard,
            late: config.budget.late_arrival,
            unknown_slots: config.budget.unknown_slots,
        },
        writes_in_flight: at_once(config.budget.writes_at_once),
        reads_in_flight: at_once(config.budget.reads_at_once),
        lines: line_bounds(config),
    }
}

/// Returns the bounds of queues, which a reload replaces. Requests that wait already keep their
/// places, even beyond new, lower bounds.
pub(super) fn line_bounds(config: &Config) -> LineBounds {
    LineBounds {
        per_budget: config.queue.per_budget,
        total: config.queue.total,
        bytes: config.queue.bytes.0,
    }
}

/// Returns the bounds of the virtual queues of shadow mode: those of the real ones.
fn shadow(config: &Config) -> Option<model::ModelBounds> {
    let bounds = bounds(config);
    let bounds = model::ModelBounds {
        guard: bounds.terms.guard,
        per_budget: bounds.lines.per_budget,
        total: bounds.lines.total,
        bytes: bounds.lines.bytes,
        // As many as there can be real ones, so the model leaves none out.
        budgets: MOST_ACCOUNTS,
    };
    (config.mode == Mode::Shadow).then_some(bounds)
}

/// Returns the quotas of callers. A reload compares the result with the one in effect: equal quotas
/// are kept with what callers have used.
pub(super) fn allowed(config: &Config) -> Allowed {
    let callers = &config.callers;
    // Zero is out of bounds for both keys; `MIN` satisfies the type.
    let positive = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
    Allowed {
        rate: positive(callers.rate.limit),
        per: callers.rate.window,
        burst: positive(callers.burst),
        tracked: callers.tracked,
    }
}

/// Returns what each request looks up. A reload replaces all of it at once.
pub(super) fn settings(config: &Config) -> Settings {
    let patience = |usual| Patience {
        usual,
        cap: config.wait.cap,
        caller_timeout: config.wait.caller_timeout,
    };
    Settings {
        via: VIA,
        authority: authority(&config.upstream.url),
        // Peers whose `X-Gateway-Caller` is believed.
        trusted: config.trusted(),
        write_patience: patience(config.write.max_wait),
        read_patience: patience(config.read.max_wait),
        settling: config.cache.settling,
        // The same bound as in the terms of budgets: slots, lanes and tags end their wait together.
        late: config.budget.late_arrival,
        largest_body: config.server.body_bytes.0,
        largest_stored: config.cache.largest_body.0,
        caller_timeout: config.wait.caller_timeout,
        // The most that an attempt takes from its start: a connection, then everything else.
        longest_answer: config.upstream.connect_timeout + config.upstream.total_timeout,
        access: match config.log.access {
            LogAccess::Upstream => AccessLog::Upstream,
            LogAccess::All => AccessLog::All,
        },
        // Cheap to clone: the names are shared.
        names: config.credentials.names.clone(),
    }
}

/// Returns host and port of a URL that was checked before. The empty fallback is never used.
fn authority(url: &str) -> String {
    let uri = url.trim().parse::<http::Uri>().ok();
    let authority = uri.as_ref().and_then(http::Uri::authority);
    authority.map(ToString::to_string).unwrap_or_default()
}

/// Returns the bounds of the layers around a request.
pub fn stack_bounds(config: &Config) -> StackBounds {
    StackBounds {
        // HTTP/1.1 serves one request per connection at a time. Connections of HTTP/2 share the
        // same number: it bounds memory, which requests take rather than connections.
        concurrent_requests: config.server.connections,
        request_body: config.server.body_timeout,
        response_body: config.server.response_timeout,
    }
}

/// Returns the bounds of the listener for callers.
pub fn server_bounds(config: &Config) -> ServerBounds {
    ServerBounds {
        connections: config.server.connections,
        // All callers may come through one load balancer.
        per_peer: usize::MAX,
        each: ConnectionBounds {
            head_bytes: config.server.header_bytes.0,
            deadlines: StreamDeadlines {
                idle: config.server.idle_timeout,
                head: config.server.header_timeout,
                piece: config.server.write_timeout,
                answer: config.server.response_timeout,
            },
        },
    }
}

/// Builds the client of the API that a configuration describes.
///
/// # Errors
/// If the URL, the CA file or a proxy variable is not usable.
pub fn client(config: &Config, clock: &Clock) -> Result<Client, AppError> {
    // Read here and not in the client, so that a simulation is not affected by the environment.
    let [https, http, no] = proxy_environment();
    let proxy = ProxyRules::parse(ProxyVariables {
        https: &https,
        http: &http,
        no: &no,
    });
    Client::new(
        upstream_spec(config, proxy.map_err(failed)?)?,
        clock.clone(),
    )
    .map_err(failed)
}

/// Returns the description of the client, with these proxy rules.
///
/// # Errors
/// If the URL is not usable.
pub fn upstream_spec(config: &Config, proxy: ProxyRules) -> Result<ClientSpec, AppError> {
    let upstream = &config.upstream;
    Ok(ClientSpec {
        // The trace collector has a client of its own; see `trace/export.rs`.
        destination: Destination::Api,
        // Parsed again, although the configuration was checked: the client has rules of its own.
        base: Base::parse(&upstream.url).map_err(failed)?,
        ca_file: upstream.ca_file.clone(),
        connect: upstream.connect_timeout,
        head: upstream.head_timeout,
        idle_body: upstream.idle_body_timeout,
        total: upstream.total_timeout,
        connection_lifetime: upstream.connection_lifetime,
        connection_idle: upstream.connection_idle,
        late_arrival: config.budget.late_arrival,
        http2: upstream.http2,
        proxy,
        via: VIA,
    })
}

/// Divides the times that belong to the API by `scale`, as the route table does with windows.
pub fn scale_times(config: &mut Config, scale: u32) {
    // Not the caller's waits and timeouts: those are in the time of this machine.
    config.budget.guard /= scale;
    config.budget.late_arrival /= scale;
    config.cache.settling /= scale;
}
