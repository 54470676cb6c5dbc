//! A gateway over a sandbox, all in memory and in one runtime, so that a paused clock is safe.
//!
//! Callers call the gateway's whole stack as a service; between the gateway and the sandbox there
//! is a real HTTP connection over an in-memory stream.

#![allow(dead_code, reason = "not every module uses every helper")]
#![allow(
    clippy::expect_used,
    reason = "a helper of tests that cannot go on is a failed test"
)]

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use segment_gateway::app::{Assembly, Keeping, stack_bounds, upstream_spec};
use segment_gateway::audit::Audit;
use segment_gateway::clock::Clock;
use segment_gateway::config::{self, Config, Loaded};
use segment_gateway::credential::Hasher;
use segment_gateway::exchange::body::OuterBody;
use segment_gateway::exchange::identity::CertificateNames;
use segment_gateway::exchange::request::Peer;
use segment_gateway::gateway::Gateway;
use segment_gateway::gateway::connection::{ConnectionService, ConnectionServices, ResponseFuture};
use segment_gateway::journal::{Change, Filter, Journal};
use segment_gateway::limit::ledger::{Ledger, PastUsage};
use segment_gateway::metrics::DurableGauge;
use segment_gateway::sandbox::{Delay, Sandbox, SandboxSpec};
use segment_gateway::upstream::{Client, MemoryConnector, ProxyRules};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime};

pub mod clients;
pub mod exposition;
pub mod log;
pub mod place;
pub mod program;
pub mod scripted;
pub mod tls;
pub mod wire;

/// What a crash would leave of a journal at this moment, while the journal itself goes on.
pub async fn left_by_crash(journal: &Journal) -> Journal {
    let copy = Journal::in_memory().expect("memory");
    let mut changes = Vec::new();
    let all = journal.list(Filter::default(), usize::MAX).await;
    for listed in all.expect("a list") {
        // A list has no requests and no answers.
        let record = journal.get(listed.id).await.expect("a whole record");
        changes.extend(record.map(|record| Change::Accept(Box::new(record))));
        let workspace = journal.workspace(listed.credential).await;
        let workspace = workspace.expect("a workspace, or none");
        changes.extend(workspace.map(|it| Change::Belongs(listed.credential, it)));
    }
    let refused = journal.refused().await.expect("the refused credentials");
    changes.extend(
        refused
            .into_iter()
            .map(|(of, since)| Change::Refused(of, since)),
    );
    copy.commit(changes).await.expect("a commit");
    copy
}

/// A Monday in November.
pub const WALL: Duration = Duration::from_secs(1_795_000_000);

/// Clocks that move with tokio's.
pub fn clock() -> Clock {
    Clock::simulated(SystemTime::UNIX_EPOCH + WALL, Duration::from_secs(10_000))
}

/// The default configuration.
pub fn loaded() -> Loaded {
    static LOADED: LazyLock<Loaded> = LazyLock::new(|| {
        config::load(None, std::iter::empty()).expect("the defaults have no problems")
    });
    LOADED.clone()
}

/// The default configuration with this route table.
pub fn loaded_with(routes: &str) -> Loaded {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    std::io::Write::write_all(&mut file, routes.as_bytes()).expect("a written file");
    let path = file.path().display().to_string();
    let set = [("SEGMENT_GATEWAY__ROUTES__FILE".to_owned(), path)];
    config::load(None, set.into_iter()).expect("a route table without problems")
}

/// The embedded route table, with these lines in place of an operation's `cache`.
pub fn routes_with(operation: &str, lines: &str) -> String {
    let table = include_str!("../../../config/segment.toml");
    let section = format!("[operations.{operation}]\n");
    let (before, after) = table.split_once(&section).expect("an operation");
    let at = after.find("cache = ").expect("one that is cached");
    let (head, rest) = after.split_at(at);
    let (_, rest) = rest.split_once('\n').expect("a line");
    assert!(!head.contains('['), "{operation} is not cached");
    format!("{before}{section}{head}{lines}\n{rest}")
}

/// A gateway and its sandbox.
pub struct World {
    /// The simulated API.
    pub sandbox: Arc<Sandbox>,
    /// The gateway.
    pub gateway: Arc<Gateway>,
    config: Config,
    services: ConnectionServices<Full<Bytes>>,
    /// A connection of each peer's, over which all its requests come.
    connections: Mutex<HashMap<SocketAddr, Arc<ConnectionService<Full<Bytes>>>>>,
    driver: tokio::task::JoinHandle<()>,
    deferred: tokio::task::JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.driver.abort();
        self.deferred.abort();
    }
}

/// How to set up a [`World`].
pub struct Setup {
    /// The simulated API.
    pub sandbox: Arc<Sandbox>,
    /// Values of the gateway.
    pub config: Config,
    /// What an earlier gateway left.
    pub ledger: Ledger,
    /// See `ledger`.
    pub history: Option<PastUsage>,
    /// All windows of the gateway are divided by this.
    pub time_scale: u32,
    /// Where durable writes are kept.
    pub keeping: Keeping,
    /// The audit log.
    pub audit: Audit,
    /// Time.
    pub clock: Clock,
    /// The text of a route table instead of the embedded one.
    pub routes: Option<String>,
}

impl Setup {
    /// A gateway with defaults in front of a new sandbox, which nothing was sent to before.
    pub fn new(spec: SandboxSpec) -> Self {
        let clock = clock();
        let mut config = loaded().config;
        // What arrives at the sandbox is what a test sends.
        config.journal.workspaces = false;
        Self {
            sandbox: Sandbox::new(spec, clock.clone()),
            config,
            ledger: Ledger::none(clock.clone()),
            history: Some(PastUsage::new()),
            time_scale: 1,
            keeping: Keeping {
                outlasts: true,
                ..Keeping::in_memory().unwrap()
            },
            audit: Audit::default(),
            clock,
            routes: None,
        }
    }

    /// Builds it over its sandbox and starts its driver.
    pub fn start(self) -> World {
        let sandbox = self.sandbox.clone();
        let connector = MemoryConnector::new(move || {
            let sandbox = sandbox.clone();
            async move {
                let (ours, theirs) = tokio::io::duplex(64 * 1024);
                drop(tokio::spawn(sandbox.serve_connection(theirs)));
                Ok(ours)
            }
        });
        self.start_over(connector)
    }

    /// Builds it over these connections and starts its driver.
    pub fn start_over(self, connector: MemoryConnector) -> World {
        let mut config = self.config.clone();
        config.upstream.url = "http://127.0.0.1:1".into();
        let spec = upstream_spec(&config, ProxyRules::none()).expect("a usable URL");
        let client = Client::over(connector, spec, self.clock.clone());
        let loaded = self.routes.as_deref().map_or_else(loaded, loaded_with);
        let table = loaded.table(self.time_scale).expect("a table");
        let gateway = Assembly {
            config: config.clone(),
            table,
            client,
            ledger: self.ledger,
            history: self.history,
            keeping: self.keeping,
            hasher: Hasher::new(&[7; 32]),
            audit: self.audit,
            clock: self.clock,
        }
        .gateway()
        .expect("a gateway");
        let driver = tokio::spawn(gateway.budgets().clone().drive());
        let deferred = tokio::spawn(gateway.writes().clone().drive_deferred());
        World {
            sandbox: self.sandbox,
            services: ConnectionServices::new(gateway.clone(), stack_bounds(&config)),
            connections: Mutex::default(),
            gateway,
            config,
            driver,
            deferred,
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// The answers to requests that come at once.
pub async fn all(world: &Arc<World>, asks: Vec<Request<Full<Bytes>>>) -> Vec<Answer> {
    let asks: Vec<_> = asks.into_iter().map(|ask| world.spawn(ask)).collect();
    let mut answers = Vec::new();
    for ask in asks {
        answers.push(ask.await.expect("an answer"));
    }
    answers
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or(serde_json::Value::Null)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }

    /// `Cache-Status` without the key, which differs from request to request.
    pub fn cache_status(&self) -> String {
        let status = self.header("cache-status");
        let parts = status.split("; ").filter(|part| !part.starts_with("key="));
        parts.collect::<Vec<_>>().join("; ")
    }

    pub fn error_type(&self) -> String {
        self.json()["errors"][0]["type"]
            .as_str()
            .unwrap_or("")
            .to_owned()
    }
}

/// A sandbox that answers after 200 ms.
pub fn slow() -> SandboxSpec {
    let half = Delay {
        base: Duration::from_millis(100),
        jitter: Duration::ZERO,
    };
    SandboxSpec {
        arrive: half,
        reply: half,
        ..SandboxSpec::default()
    }
}

/// A request with a token, from loopback.
pub fn request(method: Method, target: &str, token: &str, body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", "gateway")
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_owned())))
        .expect("a well-formed request");
    request
        .extensions_mut()
        .insert(Peer(SocketAddr::from(([127, 0, 0, 1], 40_000))));
    request
}

/// The same request from another address.
pub fn from_peer(mut request: Request<Full<Bytes>>, last: u8) -> Request<Full<Bytes>> {
    let peer = Peer(SocketAddr::from(([10, 0, 0, last], 40_000)));
    request.extensions_mut().insert(peer);
    request
}

/// A route table whose writes are not merged, for an API that applies lists in part.
pub fn unmerged(routes: &str) -> String {
    let lines = routes.lines().map(|line| match line {
        _ if line.starts_with("merge = {") && !line.contains("enabled") => {
            line.replace(" }", ", enabled = false }")
        }
        _ if line.ends_with(".merge]") => format!("{line}\nenabled = false"),
        _ => line.to_owned(),
    });
    lines.map(|line| line + "\n").collect()
}

/// The same request with one more field.
pub fn with(mut request: Request<Full<Bytes>>, name: &str, value: &str) -> Request<Full<Bytes>> {
    let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a field name");
    let value = value.parse().expect("a field value");
    request.headers_mut().append(name, value);
    request
}

/// Waits for all of an answer.
pub async fn whole(answer: ResponseFuture) -> Answer {
    all_of(answer.await.expect("a connection service never fails")).await
}

/// Reads the body of an answer whose head is there.
pub async fn all_of(answer: Response<OuterBody>) -> Answer {
    let (head, body) = answer.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    Answer {
        status: head.status,
        headers: head.headers,
        body,
    }
}

impl World {
    /// A gateway with defaults in front of a new sandbox.
    pub fn new(spec: SandboxSpec) -> Self {
        Setup::new(spec).start()
    }

    /// The durable writes of this moment.
    pub fn durable(&self) -> DurableGauge {
        self.gateway
            .writes()
            .durable()
            .levels(self.gateway.clock().wall())
    }

    /// Sends a request through the connection and reads the whole answer. Dropping the future is hanging
    /// up.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let connection = self.connection(&request);
        whole(connection.answer(request)).await
    }

    /// The connection over which a request comes.
    pub fn connection(
        &self,
        request: &Request<Full<Bytes>>,
    ) -> Arc<ConnectionService<Full<Bytes>>> {
        let peer = request.extensions().get::<Peer>().expect("a peer").0;
        let mut connections = self.connections.lock().expect("connections");
        let connection = connections.entry(peer);
        Arc::clone(connection.or_insert_with(|| {
            Arc::new(self.services.connected(peer, CertificateNames::default()))
        }))
    }

    /// Sends it in a task of its own, as from another connection.
    pub fn spawn(
        self: &Arc<Self>,
        request: Request<Full<Bytes>>,
    ) -> tokio::task::JoinHandle<Answer> {
        let world = Arc::clone(self);
        tokio::spawn(async move { world.send(request).await })
    }

    /// Takes all of the retry budget, and what comes by itself for so long.
    pub fn spend_retry_budget(&self, for_so_long: Duration) {
        let until = self.gateway.clock().now() + for_so_long;
        while self
            .gateway
            .attempts()
            .retry_budget()
            .lock()
            .repeat(until)
            .is_ok()
        {}
    }

    /// Ends the driver of the budgets, as a panic in it would.
    pub async fn lose_driver(&mut self) {
        self.driver.abort();
        let _ = (&mut self.driver).await;
    }

    /// Listens on a free port until `stop` ends.
    pub async fn listen(&self, stop: impl Future<Output = ()> + Send + 'static) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        let front = ConnectionServices::new(self.gateway.clone(), stack_bounds(&self.config));
        drop(tokio::spawn(segment_gateway::server::serve(
            listener,
            None,
            move |peer, certificate| front.connected(peer, certificate),
            segment_gateway::app::server_bounds(&self.config),
            self.gateway.metrics().connections().clone(),
            stop,
        )));
        address
    }

    pub async fn get(&self, target: &str, token: &str) -> Answer {
        self.send(request(Method::GET, target, token, "")).await
    }

    pub async fn write(&self, method: Method, target: &str, token: &str, body: &str) -> Answer {
        self.send(request(method, target, token, body)).await
    }
}
