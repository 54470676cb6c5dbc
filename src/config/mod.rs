//! The configuration: checked as a whole, then plain data.
//!
//! [`load`] reads a TOML file, lays the environment over it, and gives either a [`Config`] in which
//! every value is within its bounds or all the problems at once, each with its place, what was
//! found and what is expected. The parts of the program take the values they need; none of them
//! reads files or the environment for settings by itself.

mod change;
mod check;
mod defaults;
mod file;
mod load;
mod problem;
mod read;
mod reference;
mod render;
mod routes;
pub mod units;

pub use crate::network::Network;
pub use change::Change;
pub use check::{contradictions, warnings};
pub use load::{
    EMBEDDED_ROUTES, Loaded, Source, Unusable, admin_token_environment, environment,
    journal_key_environment, load, load_usable, proxy_environment, state_directory_environment,
};
pub use problem::{Place, Problem};
pub use reference::{Key, keys};
pub use render::render_routes;
pub use units::Size;

use crate::route::{Defaults, Rate};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that can be configured; `Default` is what holds without a file. What each value does
/// is said in `config/segment-gateway.toml`, which equals the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether the gateway does what it decides, or only tells.
    pub mode: Mode,
    /// Where the proxy listens.
    pub listen: SocketAddr,
    /// The listener of operators.
    pub admin: Admin,
    /// The API.
    pub upstream: Upstream,
    /// What is known of the API's operations.
    pub routes: Routes,
    /// How budgets are kept.
    pub budget: Budget,
    /// What outlives the process.
    pub state: State,
    /// Writes that outlast a crash.
    pub journal: Journal,
    /// How credentials are named.
    pub credentials: Credentials,
    /// Stored answers.
    pub cache: Cache,
    /// Writes that wait.
    pub write: Write,
    /// Reads that wait.
    pub read: Read,
    /// What bounds all waits.
    pub wait: Wait,
    /// How much may wait.
    pub queue: Queue,
    /// Who asks, and how much they may.
    pub callers: Callers,
    /// Connections from callers.
    pub server: Server,
    /// The end.
    pub shutdown: Shutdown,
    /// What is logged.
    pub log: Log,
    /// Which requests are traced, and where to.
    pub tracing: Tracing,
}

/// Whether the gateway does what it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It does: limits are kept, reads come from the cache.
    Enforce,
    /// It forwards everything at once and tells what it would have done.
    Shadow,
}

/// Section `admin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where the admin listener is.
    pub listen: SocketAddr,
    /// Whether probes and metrics, and they alone, are open to addresses beyond loopback.
    pub public: bool,
    /// Whether everything is open to whoever can connect, without a token.
    pub open: bool,
    /// A file with the token that opens everything; 16 bytes or more.
    pub token_file: Option<PathBuf>,
    /// Values of `Host` that are accepted besides loopback names and addresses; lower case,
    /// without port.
    pub hosts: Vec<String>,
}

/// Section `upstream`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Scheme and authority, without a path or a slash at the end.
    pub url: String,
    /// Whether plain HTTP is allowed to other than loopback addresses.
    pub allow_plain_http: bool,
    /// Certificates to trust besides the public ones, PEM.
    pub ca_file: Option<PathBuf>,
    /// From the first attempt to connect to a usable connection, TLS included.
    pub connect_timeout: Duration,
    /// From the request being sent to the head of its final answer.
    pub head_timeout: Duration,
    /// Between two pieces of the body of an answer.
    pub idle_body_timeout: Duration,
    /// From the request being sent to the end of the answer.
    pub total_timeout: Duration,
    /// How old a connection may grow; the name is resolved anew with each connection.
    pub connection_lifetime: Duration,
    /// How long an unused connection is kept.
    pub connection_idle: Duration,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
}

/// Section `routes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    /// Replaces the embedded route table.
    pub file: Option<PathBuf>,
    /// The budget to begin with of each operation that reads and documents no limit.
    pub undocumented_reads: Rate,
    /// The same for each that writes.
    pub undocumented_writes: Rate,
}

impl Routes {
    /// The two default rates, as the route table takes them.
    pub fn defaults(&self) -> Defaults {
        Defaults {
            reads: self.undocumented_reads,
            writes: self.undocumented_writes,
        }
    }
}

/// Section `budget`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// How much longer than the window a slot is kept; a thousandth of the window is added.
    pub guard: Duration,
    /// Q: how late a request that was given up on may still take effect.
    pub late_arrival: Duration,
    /// Answers that tell nothing before a budget without history goes on at its pace.
    pub unknown_slots: u32,
    /// Dispatches of writes at once per budget, to begin with.
    pub writes_at_once: usize,
    /// Dispatches of reads at once per budget, to begin with.
    pub reads_at_once: usize,
}

/// Section `state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Where the ledger of budgets is kept; `None` is nowhere.
    pub directory: Option<PathBuf>,
}

/// Section `journal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// The key under which requests and answers are encrypted; `None` is one beside the journal.
    pub key_file: Option<PathBuf>,
    /// How long a write that has ended is remembered, with its answer and under its key.
    pub keep: Duration,
    /// Writes that were accepted and have not ended, and the bytes of their requests; one peer may
    /// have half of each, and so may one credential.
    pub writes: usize,
    /// See `writes`.
    pub bytes: Size,
    /// Writes that have ended and are remembered, and the bytes of their answers; one credential
    /// may have half of each.
    pub ended_writes: usize,
    /// See `ended_writes`.
    pub ended_bytes: Size,
    /// Whether the API is asked once (`GET /`) whether it takes a credential that defers a write,
    /// and which workspace that belongs to, so that its writes can be given to the token that
    /// replaces it.
    pub workspaces: bool,
}

/// Section `credentials`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The key of the hash that stands for a credential; `None` is a new random one at each start.
    pub key_file: Option<PathBuf>,
}

/// Section `cache`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// All stored answers together.
    pub bytes: Size,
    /// The largest body that is stored.
    pub largest_body: Size,
    /// Fetches under way at once.
    pub fetches: usize,
    /// Marks of tags that are remembered.
    pub marks: usize,
    /// For how long after a write nothing under its tags is stored.
    pub settling: Duration,
}

/// Section `write`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The longest wait of a write that does not say its own.
    pub max_wait: Duration,
}

/// Section `read`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The longest wait of a read that does not say its own.
    pub max_wait: Duration,
}

/// Section `wait`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The longest wait that a caller may ask for.
    pub cap: Duration,
    /// The shortest timeout of what stands between the callers and the gateway.
    pub caller_timeout: Option<Duration>,
}

/// Section `queue`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Requests that wait for one budget.
    pub per_budget: usize,
    /// Requests that wait.
    pub total: usize,
    /// The memory of requests that wait.
    pub bytes: Size,
}

/// Section `callers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callers {
    /// What one caller may have of the upstream in the long run.
    pub rate: Rate,
    /// What one caller may have at once.
    pub burst: u32,
    /// Callers that are told apart.
    pub tracked: usize,
    /// Peers that may divide their turn by `X-Gateway-Caller`; `None` are loopback addresses, where
    /// `listen` is one of them.
    pub trust_header_from: Option<Vec<Network>>,
}

impl Config {
    /// The peers whose `X-Gateway-Caller` is believed. A listener that others reach may have a
    /// proxy or a sidecar beside it, so there a loopback address proves nothing by itself.
    pub fn trusted(&self) -> Vec<Network> {
        let given = self.callers.trust_header_from.clone();
        given.unwrap_or_else(|| {
            let loopback = ["127.0.0.0/8", "::1/128"];
            let loopback = loopback.iter().filter_map(|text| text.parse().ok());
            loopback.filter(|_| is_loopback(self.listen)).collect()
        })
    }
}

/// Whether only this machine reaches what listens there.
pub fn is_loopback(listener: SocketAddr) -> bool {
    listener.ip().to_canonical().is_loopback()
}

/// Section `server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// From the first byte of a head to its end.
    pub header_timeout: Duration,
    /// From the connection, or the end of the last answer, to the first byte of the next head.
    pub idle_timeout: Duration,
    /// Connections at once.
    pub connections: usize,
    /// The largest head of a request.
    pub header_bytes: Size,
    /// The largest body of a request.
    pub body_bytes: Size,
    /// The bodies of all requests that are received or held.
    pub bodies_bytes: Size,
    /// From the head of a request to the end of its body.
    pub body_timeout: Duration,
    /// Between two pieces of an answer that the caller takes.
    pub write_timeout: Duration,
    /// From the head of an answer to its end.
    pub response_timeout: Duration,
}

/// Section `shutdown`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long requests may go on after the signal to stop.
    pub drain: Duration,
}

/// Section `tracing`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// The collector of spans (OTLP over HTTP); `None` exports none.
    pub otlp_endpoint: Option<String>,
    /// Certificates to trust besides the public ones, PEM.
    pub ca_file: Option<PathBuf>,
    /// Of a hundred requests whose caller does not trace so many are traced.
    pub sample_percent: u32,
    /// By which name spans know this gateway.
    pub service_name: String,
}

/// Section `log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How a line is written.
    pub format: LogFormat,
    /// From which level on.
    pub level: LogLevel,
    /// Which requests have a line.
    pub access: LogAccess,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// From which level on lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Something is lost or about to be.
    Error,
    /// Something is worse than it should be.
    Warn,
    /// A state has changed.
    Info,
    /// What happens to each request.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// All of them, the quietest first.
    pub const ALL: [Self; 5] = [
        Self::Error,
        Self::Warn,
        Self::Info,
        Self::Debug,
        Self::Trace,
    ];

    /// Whether there are lines about each request.
    pub fn tells_of_requests(self) -> bool {
        matches!(self, Self::Debug | Self::Trace)
    }

    /// As it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Which requests have a line in the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogAccess {
    /// What went upstream, was refused or failed.
    Upstream,
    /// Everything, answers from the cache included.
    All,
}
