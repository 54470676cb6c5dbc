//! The sandbox, and the gateway's lives in front of it, one after the other.

use super::keys::Keys;
use super::record::{End, Moment, Request, What};
use super::scenario::{LedgerFate, Outage, Restart, Scenario};
use crate::support::{Answer, Setup, WALL, World, loaded};
use bytes::Bytes;
use http_body_util::Full;
use segment_gateway::app::Keeping;
use segment_gateway::audit::{Audit, AuditFileSpec, AuditKey, SubjectForm};
use segment_gateway::clock::Clock;
use segment_gateway::config::Config;
use segment_gateway::limit::ledger::{Ledger, LedgerSpec, PastUsage};
use segment_gateway::sandbox::Sandbox;
use segment_gateway::upstream::MemoryConnector;
use segment_gateway::write::decision::RETRY_FOR;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// The gateway between a start and its kill.
pub struct Life {
    pub number: usize,
    pub world: Arc<World>,
    links: Arc<Links>,
    ledger: PathBuf,
    dead: Signal,
}

/// Something that happens once. Those who wait go on in the order in which they came, which a
/// seed must decide alone.
#[derive(Default)]
struct Signal {
    given: AtomicBool,
    waiting: Notify,
}

impl Signal {
    fn give(&self) {
        self.given.store(true, Ordering::SeqCst);
        self.waiting.notify_waiters();
    }

    async fn given(&self) {
        while !self.given.load(Ordering::SeqCst) {
            self.waiting.notified().await;
        }
    }
}

/// The connections of one life to the API.
#[derive(Default)]
struct Links {
    cut: AtomicBool,
    open: Mutex<Vec<AbortHandle>>,
    outages: Arc<Outages>,
}

/// Whether the API accepts no connection, and how often it began not to.
#[derive(Default)]
struct Outages {
    is_out: AtomicBool,
    count: AtomicU64,
}

/// The API's end of a connection: one from before an outage breaks when the next request comes.
struct Breaking {
    inner: DuplexStream,
    outages: Arc<Outages>,
    opened: u64,
}

impl AsyncRead for Breaking {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let is_from_before = self.outages.count.load(Ordering::SeqCst) != self.opened;
        if is_from_before && buffer.filled().len() > before {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Breaking {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl Links {
    fn open(&self, sandbox: &Arc<Sandbox>) -> io::Result<DuplexStream> {
        if self.cut.load(Ordering::SeqCst) || self.outages.is_out.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, inner) = tokio::io::duplex(64 * 1024);
        let theirs = Breaking {
            inner,
            outages: Arc::clone(&self.outages),
            opened: self.outages.count.load(Ordering::SeqCst),
        };
        let serving = tokio::spawn(Arc::clone(sandbox).serve_connection(theirs));
        let mut open = self.open.lock().unwrap();
        open.retain(|link| !link.is_finished());
        open.push(serving.abort_handle());
        Ok(ours)
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        for link in self.open.lock().unwrap().drain(..) {
            link.abort();
        }
    }
}

/// Where callers send their requests, and where it is noted.
pub struct Stage {
    pub clock: Clock,
    pub keys: Keys,
    pub sandbox: Arc<Sandbox>,
    pub requests: Mutex<Vec<Request>>,
    /// `None` while no gateway runs.
    current: Mutex<Option<Arc<Life>>>,
    started: Notify,
    /// All lives, the ended ones too.
    pub lives: Mutex<Vec<Arc<Life>>>,
    order: AtomicU64,
    outages: Arc<Outages>,
    directory: TempDir,
    config: Config,
    routes: Option<String>,
}

impl Stage {
    pub fn new(scenario: &Scenario) -> Arc<Self> {
        // So that aligned windows begin at another offset in each run.
        let wall = SystemTime::UNIX_EPOCH + WALL + Duration::from_millis(scenario.seed * 7_919);
        let clock = Clock::simulated(wall, Duration::from_secs(10_000));
        let mut config = loaded().config;
        // The callers' quotas run on a clock that cannot be simulated; they are tested elsewhere.
        config.callers.rate.limit = 1_000_000;
        config.callers.burst = 1_000_000;
        config.queue.per_budget = scenario.per_budget;
        Arc::new(Self {
            sandbox: Sandbox::new(scenario.sandbox.clone(), clock.clone()),
            clock,
            keys: Keys::new(),
            requests: Mutex::default(),
            current: Mutex::default(),
            started: Notify::new(),
            lives: Mutex::default(),
            order: AtomicU64::new(0),
            outages: Arc::default(),
            directory: TempDir::new().unwrap(),
            config,
            routes: scenario.routes.clone(),
        })
    }

    pub fn moment(&self) -> Moment {
        Moment {
            at: self.clock.now(),
            order: self.order.fetch_add(1, Ordering::SeqCst),
        }
    }

    /// Starts the gateway; the first one knows that nothing was sent before.
    pub fn start(&self, ledger: LedgerFate) {
        let number = self.lives.lock().unwrap().len();
        let path = self.directory.path().join(format!("ledger-{number}"));
        let spec = LedgerSpec {
            key_check: [1; 16],
            keep: RETRY_FOR,
            expected: number > 0,
        };
        let opened = Ledger::open(&path, spec, self.clock.clone()).unwrap();
        let history = match (number, ledger) {
            (0, _) => Some(PastUsage::new()),
            (_, LedgerFate::Kept) => Some(opened.history.expect("a ledger that is whole")),
            (_, LedgerFate::Lost) => None,
        };
        let links = Arc::new(Links {
            outages: Arc::clone(&self.outages),
            ..Links::default()
        });
        let setup = Setup {
            sandbox: Arc::clone(&self.sandbox),
            config: self.config.clone(),
            ledger: opened.ledger,
            history,
            time_scale: 1,
            keeping: Keeping::in_memory().unwrap(),
            audit: self.audit(number),
            clock: self.clock.clone(),
            routes: self.routes.clone(),
        };
        let (opener, sandbox) = (Arc::clone(&links), Arc::clone(&self.sandbox));
        let connector = MemoryConnector::new(move || {
            let opened = opener.open(&sandbox);
            async move { opened }
        });
        let world = setup.start_over(connector);
        // Before the writes of the life before: they are sent with a held token.
        self.keys.install(&world);
        let gateway = world.gateway.clone();
        let recovering = std::pin::pin!(gateway.writes().recover(opened.left.as_deref()));
        // A journal in memory is there at once.
        let recovered = recovering.poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(recovered, Poll::Ready(Ok(_))));
        let life = Arc::new(Life {
            number,
            world: Arc::new(world),
            links,
            ledger: path,
            dead: Signal::default(),
        });
        self.lives.lock().unwrap().push(Arc::clone(&life));
        *self.current.lock().unwrap() = Some(life);
        self.started.notify_waiters();
    }

    /// Kills the gateway: nothing more leaves it, its connections break, and what it had written
    /// by now is all that its successor finds.
    pub fn kill(&self, ledger: LedgerFate) {
        let Some(life) = self.current.lock().unwrap().take() else {
            return;
        };
        life.links.cut();
        if ledger == LedgerFate::Kept {
            let next = format!("ledger-{}", life.number + 1);
            std::fs::copy(&life.ledger, self.directory.path().join(next)).unwrap();
        }
        life.dead.give();
    }

    /// Opens the audit log of a life.
    fn audit(&self, life: usize) -> Audit {
        let spec = AuditFileSpec {
            path: self.audit_file(life),
            key: AuditKey::new(&[7; 32]),
            form: SubjectForm::Plain,
            largest: u64::MAX,
            kept: 0,
        };
        Audit::open(spec, false, Clock::system()).unwrap()
    }

    fn audit_file(&self, life: usize) -> PathBuf {
        self.directory.path().join(format!("life{life}.audit"))
    }

    /// The outcomes that the audit logs of all lives have of each write, by its number.
    pub async fn audited(&self) -> BTreeMap<usize, Vec<String>> {
        let lives = self.lives.lock().unwrap().clone();
        let mut outcomes: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for life in lives {
            life.world.gateway.audit().flush().await;
            let text = std::fs::read_to_string(self.audit_file(life.number)).unwrap();
            for line in text.lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                let text = |name: &str| line[name].as_str().unwrap_or_default();
                if text("kind") == "write" {
                    let number = text("request_id").parse().unwrap();
                    let of = outcomes.entry(number).or_default();
                    of.push(text("outcome").to_owned());
                }
            }
        }
        outcomes
    }

    /// Kills and starts the gateway as planned.
    pub async fn restart(self: Arc<Self>, restarts: Vec<Restart>) {
        let begun = tokio::time::Instant::now();
        for restart in restarts {
            tokio::time::sleep_until(begun + restart.at).await;
            self.kill(restart.ledger);
            tokio::time::sleep(restart.down).await;
            self.start(restart.ledger);
        }
    }

    /// Lets the API be away as planned.
    pub async fn go_out(self: Arc<Self>, outages: Vec<Outage>) {
        let begun = tokio::time::Instant::now();
        for outage in outages {
            tokio::time::sleep_until(begun + outage.at).await;
            self.outages.count.fetch_add(1, Ordering::SeqCst);
            self.outages.is_out.store(true, Ordering::SeqCst);
            tokio::time::sleep(outage.length).await;
            self.outages.is_out.store(false, Ordering::SeqCst);
        }
    }

    /// The gateway, once one runs.
    pub async fn life(&self) -> Arc<Life> {
        loop {
            let current = self.current.lock().unwrap().clone();
            match current {
                Some(life) => return life,
                None => self.started.notified().await,
            }
        }
    }

    /// Sends a request and notes how it ended. `hangs_up` is when the caller loses patience.
    pub async fn send(
        &self,
        by: By,
        what: What,
        request: http::Request<Full<Bytes>>,
        hangs_up: Option<Duration>,
    ) -> Option<Answer> {
        let life = self.life().await;
        let number = self.begin(&by, what, life.number);
        // Before the request's own first step, so that its order is that of acceptance.
        let answered = life.world.send(tagged(request, number));
        let late = async {
            match hangs_up {
                Some(after) => tokio::time::sleep(after).await,
                None => std::future::pending().await,
            }
        };
        let answer = tokio::select! {
            biased;
            () = life.dead.given() => Err(End::Killed),
            answer = answered => Ok(answer),
            () = late => Err(End::HungUp),
        };
        let end = match &answer {
            Ok(answer) => heard(answer),
            Err(end) => end.clone(),
        };
        let moment = self.moment();
        self.requests.lock().unwrap()[number].ended = Some((moment, end));
        answer.ok()
    }

    fn begin(&self, by: &By, what: What, life: usize) -> usize {
        let began = self.moment();
        let mut requests = self.requests.lock().unwrap();
        let number = requests.len();
        requests.push(Request {
            number,
            token: by.token,
            peer: by.peer,
            life,
            began,
            patience: by.patience,
            what,
            ended: None,
        });
        number
    }

    /// The route table that is in force at the API.
    pub fn limit(operation: &str) -> (u32, Duration) {
        thread_local! {
            static TABLE: segment_gateway::route::Table =
                loaded().table(1).expect("the embedded table");
        }
        TABLE.with(|table| {
            let found = table.operations().iter().find(|op| &*op.name == operation);
            found.map_or((60, Duration::from_secs(60)), |op| {
                (op.budget.rate.limit, op.budget.rate.window)
            })
        })
    }
}

/// Who sends.
#[derive(Clone, Copy, Debug)]
pub struct By {
    pub token: u8,
    pub peer: u8,
    pub patience: Duration,
}

/// Writes carry their number to the API, in a parameter that it does not know, and to the audit log.
fn tagged(mut request: http::Request<Full<Bytes>>, number: usize) -> http::Request<Full<Bytes>> {
    if request.method() != http::Method::GET {
        let target = request.uri().to_string();
        let mark = if target.contains('?') { '&' } else { '?' };
        *request.uri_mut() = format!("{target}{mark}number={number}").parse().unwrap();
        let id = number.to_string().parse().unwrap();
        request.headers_mut().insert("x-request-id", id);
    }
    request
}

/// The number that [`tagged`] gave.
pub fn number_of(target: &str) -> Option<usize> {
    target.rsplit_once("number=")?.1.parse().ok()
}

fn heard(answer: &Answer) -> End {
    let cache = answer.header("cache-status");
    let document = answer.json();
    let message = document["errors"][0]["message"].as_str();
    let wait = document["errors"][0]["data"]["msBeforeNext"].as_f64();
    End::Answered {
        status: answer.status,
        error: answer.error_type(),
        retry_refused: message.is_some_and(|text| text.contains("refused the retry")),
        wait: wait.map(|ms| Duration::from_secs_f64(ms / 1000.0)),
        version: answer.header("x-sandbox-version").parse().ok(),
        shared: ["; hit", "; collapsed", "detail=stale-if"]
            .iter()
            .any(|word| cache.contains(word)),
    }
}
