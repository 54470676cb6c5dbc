//! Pure. Every key of the configuration: one row each, which `table.rs` makes into everything that
//! knows keys.
//!
//! A row gives the name, the type, the default, whether a reload applies a new value, and the
//! bounds. From these rows come the structs, `Config::default()`, the reading of files and of the
//! environment, the hints at unknown keys, what a reload takes over, and `docs/configuration.md`.
//! `config/segment-gateway.toml` tells operators what each key is for.
//!
//! Conditions between two keys are not here but in `check.rs`.

use super::read::{Document, Environment, Findings, Section};
use super::table::configuration;
use super::units::{self, Size};
use super::words::{AuditSubjects, AuditWhen, ClientAuth, LogAccess, LogFormat, LogLevel, Mode};
use crate::clients::CredentialMode;
use crate::credential::CredentialNames;
use crate::network::Network;
use crate::route::{Defaults, Rate};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// No wait is zero, and none is longer than what can be added to an instant.
const MOMENT: Duration = Duration::from_millis(1);
const DAY: Duration = seconds(86_400);
const YEAR: Duration = seconds(366 * 86_400);
/// Far more than a machine has, far less than arithmetic bears.
const MANY: usize = 10_000_000;
const LARGE: Size = Size(1 << 40);
/// What the HTTP library needs to read a head at all.
const SMALLEST_HEAD: Size = Size::kib(8);

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

configuration! {
    {
        /// Whether the gateway applies its decisions or only reports them.
        mode: Mode = Mode::Enforce, restart;
        /// The address of the listener for callers.
        listen: SocketAddr = loopback(8080), restart;
    }

    /// The admin listener.
    admin: AdminConfig {
        /// The address of the admin listener.
        listen: SocketAddr = loopback(8081), restart;
        /// Whether probes and metrics, and they alone, are open to addresses beyond loopback.
        public: bool = false, reload;
        /// A file with the token that opens everything; 16 bytes or more.
        token_file: Option<PathBuf> = None, reload;
        /// Whether everything is open to everyone who can connect, without a token.
        open: bool = false, reload;
        /// Values of `Host` that are accepted besides loopback names and addresses; lower case,
        /// without port.
        hosts: Vec<String> = Vec::new(), reload;
        {
            /// TLS on the admin listener.
            tls: AdminTlsConfig {
                /// The certificate and its chain, PEM; `None` serves without TLS.
                certificate_file: Option<PathBuf> = None, restart;
                /// The private key of the certificate, PEM.
                key_file: Option<PathBuf> = None, restart;
                /// Whether clients are asked for a certificate.
                client_auth: ClientAuth = ClientAuth::None, restart;
                /// The authorities of client certificates, PEM.
                client_ca_file: Option<PathBuf> = None, restart;
                /// Whether HTTP/2 is offered.
                http2: bool = true, restart;
            }
        }
    }

    /// TLS on the listener for callers.
    tls: TlsConfig {
        /// The certificate and its chain, PEM; `None` serves without TLS.
        certificate_file: Option<PathBuf> = None, restart;
        /// The private key of the certificate, PEM.
        key_file: Option<PathBuf> = None, restart;
        /// Whether clients are asked for a certificate.
        client_auth: ClientAuth = ClientAuth::None, restart;
        /// The authorities of client certificates, PEM.
        client_ca_file: Option<PathBuf> = None, restart;
        /// Whether HTTP/2 is offered.
        http2: bool = true, restart;
    }

    /// The API and the connections to it.
    upstream: UpstreamConfig {
        /// Scheme and authority, without a path or a slash at the end.
        url: String = "https://api.segmentapis.com".to_owned(), restart;
        /// Whether plain HTTP is allowed to other than loopback addresses.
        allow_plain_http: bool = false, restart;
        /// Certificates to trust besides the public ones, PEM.
        ca_file: Option<PathBuf> = None, restart;
        /// From the first attempt to connect to a usable connection, TLS included.
        connect_timeout: Duration = seconds(5), restart, in MOMENT..=DAY;
        /// From sending the request to the head of its final response.
        head_timeout: Duration = seconds(30), restart, in MOMENT..=DAY;
        /// Between two pieces of a response body.
        idle_body_timeout: Duration = seconds(30), restart, in MOMENT..=DAY;
        /// From sending the request to the end of the response.
        total_timeout: Duration = seconds(120), restart, in MOMENT..=DAY;
        /// The greatest age of a connection; each new one resolves the name again.
        connection_lifetime: Duration = seconds(300), restart, in MOMENT..=DAY;
        /// How long an unused connection is kept.
        connection_idle: Duration = seconds(50), restart, in MOMENT..=DAY;
        /// Whether HTTP/2 is offered.
        http2: bool = true, restart;
    }

    /// The table of the API's operations.
    routes: RoutesConfig {
        /// A file that replaces the embedded route table.
        file: Option<PathBuf> = None, reload;
        /// The initial budget of each reading operation without a documented limit.
        undocumented_reads: Rate = Defaults::default().reads, reload;
        /// The initial budget of each writing operation without a documented limit.
        undocumented_writes: Rate = Defaults::default().writes, reload;
    }

    /// How budgets are kept.
    budget: BudgetConfig {
        /// How much longer than the window a slot is kept; a thousandth of the window is added.
        guard: Duration = Duration::from_millis(250), restart, in MOMENT..=DAY;
        /// Q: how late an abandoned request may still take effect.
        late_arrival: Duration = seconds(60), restart, in MOMENT..=DAY;
        /// Responses without rate headers that a budget without history tolerates while it probes;
        /// after one more it continues at the pace of its limit.
        unknown_slots: u32 = 1, restart, in 1..=1_000_000;
        /// Attempts of writes at once per budget, at first.
        writes_at_once: usize = 4, restart, in 1..=MANY;
        /// Attempts of reads at once per budget, at first.
        reads_at_once: usize = 8, restart, in 1..=MANY;
    }

    /// What outlives the process.
    state: StateConfig {
        /// The directory of the ledger and the journal; `None` keeps neither.
        directory: Option<PathBuf> = Some("segment-gateway-state".into()), restart;
    }

    /// Durable writes.
    journal: JournalConfig {
        /// The key that encrypts requests and responses; `None` is one beside the journal.
        key_file: Option<PathBuf> = None, restart;
        /// How long an ended write is remembered, with its response and under its key.
        keep: Duration = seconds(86_400), restart, in MOMENT..=YEAR;
        /// Accepted writes that have not ended. One peer may have half of them, and so may one
        /// credential.
        writes: usize = 100_000, restart, in 1..=MANY;
        /// The bytes of their requests, shared in the same way.
        bytes: Size = Size::mib(1024), restart, in Size(1)..=LARGE;
        /// Ended writes that are remembered. One credential may have half of them.
        ended_writes: usize = 200_000, restart, in 1..=MANY;
        /// The bytes of their responses, shared in the same way.
        ended_bytes: Size = Size::mib(1024), restart, in Size(1)..=LARGE;
        /// Whether to ask the API once (`GET /`) whether it accepts the credential of a deferred
        /// write, and to which workspace that belongs. With the answer the writes can be given to
        /// the token that replaces it.
        workspaces: bool = true, restart;
    }

    /// How credentials are hashed and named.
    credentials: CredentialsConfig {
        /// The key of the hash. `None` uses one that is created once in the state directory, or a
        /// random one at each start without that directory.
        key_file: Option<PathBuf> = None, restart;
        /// Names that people see beside hashes.
        names: CredentialNames = CredentialNames::default(), reload;
    }

    /// Stored responses.
    cache: CacheConfig {
        /// All stored responses together.
        bytes: Size = Size::mib(256), restart, in Size(1)..=LARGE;
        /// The largest body that is stored.
        largest_body: Size = Size::mib(4), restart, in Size(1)..=LARGE;
        /// Fetches in flight at once.
        fetches: usize = 256, restart, in 1..=MANY;
        /// Marks of tags that are remembered.
        marks: usize = 100_000, restart, in 1..=MANY;
        /// The settle time: for how long after a write nothing under its tags is stored.
        settling: Duration = seconds(2), reload, in Duration::ZERO..=DAY;
    }

    /// Writes in the queue.
    write: WriteConfig {
        /// The longest wait of a write that names none.
        max_wait: Duration = seconds(150), reload, in MOMENT..=DAY;
    }

    /// Reads in the queue.
    read: ReadConfig {
        /// The longest wait of a read that names none.
        max_wait: Duration = seconds(30), reload, in MOMENT..=DAY;
    }

    /// Bounds of all waits.
    wait: WaitConfig {
        /// The longest wait that a caller may ask for.
        cap: Duration = seconds(600), reload, in MOMENT..=DAY;
        /// The shortest timeout of what stands between the callers and the gateway.
        caller_timeout: Option<Duration> = None, reload, in None..=Some(DAY);
    }

    /// How much may be queued.
    queue: QueueConfig {
        /// Requests queued for one budget.
        per_budget: usize = 1000, reload, in 1..=MANY;
        /// Requests queued.
        total: usize = 10_000, reload, in 1..=MANY;
        /// The memory of queued requests.
        bytes: Size = Size::mib(64), reload, in Size(1)..=LARGE;
    }

    /// Callers and their quotas.
    callers: CallersConfig {
        /// What one caller may have of the upstream in the long run.
        rate: Rate = Rate { limit: 100, window: seconds(1) }, reload;
        /// What one caller may have at once.
        burst: u32 = 1000, reload, in 1..=1_000_000_000;
        /// Callers that are told apart.
        tracked: usize = 10_000, restart, in 1..=MANY;
        /// Peers that may divide their turn by `X-Gateway-Caller`; `None` are loopback addresses,
        /// where `listen` is one of them.
        trust_header_from: Option<Vec<Network>> = None, reload;
        /// Whose tokens requests are sent with.
        credentials: CredentialMode = CredentialMode::Own, reload;
        /// The file of clients; `None` where callers send tokens of their own.
        clients_file: Option<PathBuf> = None, reload;
    }

    /// Connections of callers.
    server: ServerConfig {
        /// From the first byte of a head to its end.
        header_timeout: Duration = seconds(10), restart, in MOMENT..=DAY;
        /// From the connection, or the end of the last response, to the first byte of the next
        /// head.
        idle_timeout: Duration = seconds(75), restart, in MOMENT..=DAY;
        /// Connections at once.
        connections: usize = 4096, restart, in 2..=MANY;
        /// The largest head of a request.
        header_bytes: Size = Size::kib(32), restart, in SMALLEST_HEAD..=Size::mib(16);
        /// The largest body of a request.
        body_bytes: Size = Size::mib(1), reload, in Size(1)..=Size::mib(1024);
        /// The bodies of all requests that are received or held.
        bodies_bytes: Size = Size::mib(256), restart, in Size(1)..=LARGE;
        /// From the head of a request to the end of its body.
        body_timeout: Duration = seconds(30), restart, in MOMENT..=DAY;
        /// Between two pieces of a response that the caller takes.
        write_timeout: Duration = seconds(30), restart, in MOMENT..=DAY;
        /// From the head of a response to its end.
        response_timeout: Duration = seconds(300), restart, in MOMENT..=DAY;
    }

    /// Stopping.
    shutdown: ShutdownConfig {
        /// How long requests may go on after the signal to stop.
        drain: Duration = seconds(25), reload, in Duration::ZERO..=units::LONGEST;
    }

    /// The audit log.
    audit: AuditConfig {
        /// The file; `None` keeps no audit log.
        file: Option<PathBuf> = None, restart;
        /// Whether a write is recorded before it is sent, or only once it has ended.
        when: AuditWhen = AuditWhen::After, restart;
        /// The key that signs the records; `None` is one beside the file.
        key_file: Option<PathBuf> = None, restart;
        /// The size from which the file is rotated.
        largest_file: Size = Size::mib(100), restart, in Size::kib(64)..=LARGE;
        /// Rotated files that are kept.
        kept_files: usize = 10, restart, in 0..=10_000;
        /// How people and things appear in records.
        subjects: AuditSubjects = AuditSubjects::Plain, restart;
    }

    /// The log.
    log: LogConfig {
        /// The form of a line.
        format: LogFormat = LogFormat::Text, restart;
        /// The level from which lines are written.
        level: LogLevel = LogLevel::Info, reload;
        /// Which requests have a line.
        access: LogAccess = LogAccess::Upstream, reload;
    }

    /// Spans.
    tracing: TracingConfig {
        /// The collector of spans (OTLP over HTTP); `None` exports none.
        otlp_endpoint: Option<String> = None, restart;
        /// Certificates to trust besides the public ones, PEM.
        ca_file: Option<PathBuf> = None, restart;
        /// The share of requests that are traced, of those whose caller does not trace.
        sample_percent: u32 = 100, restart, in 0..=100;
        /// The service name in spans.
        service_name: String = "segment-gateway".to_owned(), restart;
    }
}

/// Reads a configuration over the defaults. What is wrong stands in the findings, and the value in
/// question is then the default.
pub(super) fn read<'a>(
    document: Option<&'a Document<'a>>,
    environment: &'a Environment,
    findings: &'a mut Findings,
) -> Config {
    let mut config = Config::default();
    Section::root(document, environment, findings, |root| {
        config.read_keys(root)
    });
    config
}

/// A key of the configuration as its reference lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigKey {
    /// The name, with its section: `cache.bytes`.
    pub name: &'static str,
    /// The value without a configuration, as a message shows it.
    pub default: String,
    /// The bounds of the value, or its form; empty for any text.
    pub accepts: String,
    /// Whether a reload applies a new value; otherwise it waits for a restart.
    pub on_reload: bool,
}

/// Returns all keys, each once.
pub fn keys() -> Vec<ConfigKey> {
    let mut findings = Findings::default();
    let _ = read(None, &Environment::default(), &mut findings);
    let rows = KEYS.iter().zip(findings.facts);
    rows.map(|((name, on_reload), facts)| ConfigKey {
        name,
        default: facts.default,
        accepts: facts.accepts,
        on_reload: *on_reload,
    })
    .collect()
}

impl Config {
    /// Returns the peers whose `X-Gateway-Caller` is believed. A listener that others reach may
    /// have a proxy or a sidecar beside it, so there a loopback address proves nothing by itself.
    pub fn trusted(&self) -> Vec<Network> {
        let given = self.callers.trust_header_from.clone();
        given.unwrap_or_else(|| {
            let loopback = ["127.0.0.0/8", "::1/128"];
            let loopback = loopback.iter().filter_map(|text| text.parse().ok());
            loopback.filter(|_| is_loopback(self.listen)).collect()
        })
    }
}

impl RoutesConfig {
    /// Returns the two default rates, as the route table takes them.
    pub fn defaults(&self) -> Defaults {
        Defaults {
            reads: self.undocumented_reads,
            writes: self.undocumented_writes,
        }
    }
}

/// Returns whether only this machine reaches what listens there.
pub fn is_loopback(listener: SocketAddr) -> bool {
    listener.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests;
