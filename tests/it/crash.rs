//! The program is killed again and again under load, and at the end nothing that it acknowledged is
//! lost, and nothing is done twice that must not be.
//!
//! The API is a sandbox in this process, whose windows are a sixtieth of the real ones, and it loses
//! replies now and then. What it says arrived and took effect is what counts.
//!
//! `SEGMENT_GATEWAY_CRASH_KILLS` says how often it is killed, `SEGMENT_GATEWAY_CRASH_SEED` when.

use super::support::wire::{free, try_ask};
use super::support::{request, unmerged};
use fastrand::Rng;
use http::{Method, Request};
use http_body_util::Full;
use segment_gateway::clock::Clock;
use segment_gateway::config::EMBEDDED_ROUTES;
use segment_gateway::sandbox::{Arrival, Delay, Faults, ListMode, Sandbox, SandboxSpec};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;

const BINARY: &str = env!("CARGO_BIN_EXE_segment-gateway");
/// What begins an address that is none.
const WRONG: &str = "not an address";
/// Callers at once.
const CALLERS: usize = 12;
/// Longer than all that is accepted takes.
const LAST: Duration = Duration::from_secs(120);

fn setting(name: &str) -> Option<u64> {
    std::env::var(format!("SEGMENT_GATEWAY_CRASH_{name}"))
        .ok()?
        .parse()
        .ok()
}

/// The gateway, started and killed in one place.
struct Place {
    directory: PathBuf,
    proxy: SocketAddr,
    admin: SocketAddr,
    upstream: SocketAddr,
}

/// Dies with the test.
struct Life(Child);

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Place {
    fn start(&self) -> Life {
        let child = Command::new(BINARY)
            .args(["serve", "--listen", &self.proxy.to_string()])
            .args(["--admin-listen", &self.admin.to_string()])
            .args(["--upstream", &format!("http://{}", self.upstream)])
            .envs([
                ("SEGMENT_GATEWAY__ROUTES__FILE", "routes.toml"),
                ("SEGMENT_GATEWAY__BUDGET__GUARD", "20ms"),
                ("SEGMENT_GATEWAY__BUDGET__LATE_ARRIVAL", "1s"),
                ("SEGMENT_GATEWAY__CACHE__SETTLING", "50ms"),
                ("SEGMENT_GATEWAY__UPSTREAM__HEAD_TIMEOUT", "500ms"),
                ("SEGMENT_GATEWAY__UPSTREAM__IDLE_BODY_TIMEOUT", "500ms"),
                ("SEGMENT_GATEWAY__UPSTREAM__TOTAL_TIMEOUT", "1s"),
                ("SEGMENT_GATEWAY__UPSTREAM__CONNECT_TIMEOUT", "500ms"),
                ("SEGMENT_GATEWAY__CALLERS__RATE", "100000 per 1s"),
                ("SEGMENT_GATEWAY__CALLERS__BURST", "100000"),
            ])
            .current_dir(&self.directory)
            .stdout(Stdio::null())
            .stderr(log(&self.directory))
            .spawn()
            .unwrap();
        Life(child)
    }

    async fn ask(&self, request: Request<Full<bytes::Bytes>>) -> Option<super::support::Answer> {
        try_ask(self.proxy, request).await
    }

    /// How many writes have not ended, if the gateway answers.
    async fn left(&self) -> Option<u64> {
        let ask = Request::get("/writes?limit=1").header("host", self.admin.to_string());
        let answer = try_ask(self.admin, ask.body(Full::default()).unwrap()).await?;
        let page = answer.json();
        Some(page["queued"].as_u64()? + page["dispatched"].as_u64()?)
    }
}

/// What the gateway says, for whoever looks into a failure.
fn log(directory: &Path) -> Stdio {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join("log"));
    file.map_or(Stdio::null(), Stdio::from)
}

/// What a write must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Deferred, and not to be repeated.
    DeferredPost,
    /// Deferred, and harmless to repeat.
    DeferredPut,
    /// Sent again under its key until it is answered.
    Keyed,
    /// The same, of one that the API refuses: what travels with it must not suffer.
    Wrong,
}

/// A write that was acknowledged.
#[derive(Clone, Debug)]
struct Promise {
    kind: Kind,
    /// Stands in the body of this write alone.
    marker: String,
    /// Where to ask for it, or the status of its answer.
    location: String,
    status: u16,
}

#[derive(Default)]
struct Promises {
    all: Mutex<Vec<Promise>>,
    next: AtomicUsize,
    over: AtomicBool,
}

fn permissions(method: Method, user: usize, marker: &str) -> Request<Full<bytes::Bytes>> {
    let body = format!(
        r#"{{"permissions":[{{"roleId":"source-admin","resources":[{{"id":"{marker}","type":"SOURCE"}}]}}]}}"#
    );
    request(
        method,
        &format!("/users/user-{user:05}/permissions"),
        "a",
        &body,
    )
}

/// One caller: one write after another, until it is over.
async fn caller(place: Arc<Place>, promises: Arc<Promises>, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    while !promises.over.load(Ordering::SeqCst) {
        let n = promises.next.fetch_add(1, Ordering::SeqCst);
        let marker = format!("w-{n}-x");
        let user = rng.usize(1..=200);
        match rng.u8(..10) {
            0..=3 => defer(&place, &promises, Kind::DeferredPost, user, marker).await,
            4..=5 => defer(&place, &promises, Kind::DeferredPut, user, marker).await,
            6 if rng.u8(..4) == 0 => {
                let email = format!("{WRONG} {marker}");
                keyed(&place, &promises, Kind::Wrong, marker, &email).await;
            }
            6..=8 => {
                let email = format!("{marker}@example.com");
                keyed(&place, &promises, Kind::Keyed, marker, &email).await;
            }
            _ => drop(place.ask(permissions(Method::PUT, user, &marker)).await),
        }
        sleep(Duration::from_millis(rng.u64(1..60))).await;
    }
}

async fn defer(place: &Place, promises: &Promises, kind: Kind, user: usize, marker: String) {
    let method = match kind {
        Kind::DeferredPost => Method::POST,
        _ => Method::PUT,
    };
    let ask = permissions(method, user, &marker);
    let ask = super::support::with(ask, "prefer", "respond-async");
    // Without an answer nothing was promised.
    let Some(answer) = place.ask(ask).await else {
        return;
    };
    if answer.status == 202 {
        let location = answer.header("location").to_owned();
        promises.all.lock().unwrap().push(Promise {
            kind,
            marker,
            location,
            status: 202,
        });
    }
}

/// Sends the same write under the same key until it is answered, as a client does that retries.
async fn keyed(place: &Place, promises: &Promises, kind: Kind, marker: String, email: &str) {
    let body = format!(r#"{{"invites":[{{"email":"{email}"}}]}}"#);
    loop {
        let ask = request(Method::POST, "/invites", "a", &body);
        let ask = super::support::with(ask, "idempotency-key", &marker);
        if let Some(answer) = place.ask(ask).await {
            let status = answer.status.as_u16();
            let again = [
                "gateway-write-pending",
                "gateway-draining",
                "gateway-queue-wait",
            ];
            if !again.contains(&answer.error_type().as_str()) {
                promises.all.lock().unwrap().push(Promise {
                    kind,
                    marker,
                    location: answer.error_type(),
                    status,
                });
                return;
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// How often each write took effect, by its marker.
fn effects(arrivals: &[Arrival]) -> HashMap<String, usize> {
    let mut effects = HashMap::new();
    for arrival in arrivals.iter().filter(|arrival| arrival.applied) {
        // Several, where they travelled together; of a refused list, those before what is wrong.
        let end = arrival.body.find(WRONG).unwrap_or(arrival.body.len());
        let applied = &arrival.body[..end];
        for (from, _) in applied.match_indices("w-") {
            let marker = &applied[from..];
            let end = marker.find("-x").expect("a whole marker");
            *effects.entry(marker[..end + 2].to_owned()).or_default() += 1;
        }
    }
    effects
}

#[derive(Debug, Default)]
struct Tally {
    promised: usize,
    succeeded: usize,
    refused: usize,
    unknown: usize,
    /// Of the unknown: how many took effect.
    unknown_applied: usize,
    lost: Vec<Promise>,
    doubled: Vec<Promise>,
    repeated: usize,
}

impl Tally {
    fn judge(&mut self, promise: &Promise, state: &str, applied: usize) {
        self.promised += 1;
        let may_repeat = promise.kind == Kind::DeferredPut;
        if applied > 1 {
            self.repeated += usize::from(may_repeat);
            if !may_repeat {
                self.doubled.push(promise.clone());
            }
        }
        match state {
            "succeeded" if applied > 0 => self.succeeded += 1,
            "refused" if applied == 0 => self.refused += 1,
            "unknown" => {
                self.unknown += 1;
                self.unknown_applied += usize::from(applied > 0);
            }
            _ => self.lost.push(Promise {
                location: format!("{} is {state}", promise.location),
                ..promise.clone()
            }),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_acknowledged_outlasts_kills() {
    let kills = setting("KILLS").unwrap_or(15);
    let seed = setting("SEED").unwrap_or(1);
    let mut rng = Rng::with_seed(seed);
    let directory = tempfile::tempdir().unwrap();
    let lists = match seed.is_multiple_of(2) {
        true => ListMode::Partly,
        false => ListMode::Whole,
    };
    let routes = EMBEDDED_ROUTES.replace("\"60 per 1m\"", "\"60 per 1s\"");
    // Where lists are applied in part, nothing may be merged.
    let routes = match lists {
        ListMode::Partly => unmerged(&routes),
        ListMode::Whole => routes,
    };
    std::fs::write(directory.path().join("routes.toml"), routes).unwrap();
    let delay = Delay {
        // Times the scale.
        base: Duration::from_millis(5 * 60),
        jitter: Duration::from_millis(10 * 60),
    };
    let spec = SandboxSpec {
        time_scale: 60,
        lists,
        arrive: delay,
        reply: delay,
        faults: Faults {
            lost_reply: 0.02,
            ..Faults::default()
        },
        ..SandboxSpec::default()
    };
    let sandbox = Sandbox::new(spec, Clock::system());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = Arc::new(Place {
        directory: directory.path().to_owned(),
        proxy: free(),
        admin: free(),
        upstream: listener.local_addr().unwrap(),
    });
    drop(tokio::spawn(
        Arc::clone(&sandbox).serve(listener, std::future::pending()),
    ));
    let promises = Arc::new(Promises::default());
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(caller(place.clone(), promises.clone(), rng.u64(..)));
    }
    for _ in 0..kills {
        let life = place.start();
        // Now and then before it has begun to listen.
        sleep(Duration::from_millis(rng.u64(10..600))).await;
        drop(life);
    }
    let _last = place.start();
    sleep(Duration::from_millis(500)).await;
    promises.over.store(true, Ordering::SeqCst);
    callers.join_all().await;
    let began = Instant::now();
    while place.left().await != Some(0) {
        assert!(began.elapsed() < LAST, "it does not end");
        sleep(Duration::from_millis(50)).await;
    }
    let arrivals = sandbox.arrivals();
    let effects = effects(&arrivals);
    let mut tally = Tally::default();
    let all = std::mem::take(&mut *promises.all.lock().unwrap());
    for promise in &all {
        let applied = effects.get(&promise.marker).copied().unwrap_or(0);
        let state = match (promise.kind, promise.status) {
            (Kind::Keyed, 200..=299) => "succeeded".to_owned(),
            (Kind::Wrong, 400..=499) => "refused".to_owned(),
            (Kind::Keyed | Kind::Wrong, 502) if promise.location == "gateway-outcome-unknown" => {
                "unknown".to_owned()
            }
            (Kind::Keyed | Kind::Wrong, status) => status.to_string(),
            _ => {
                let ask = request(Method::GET, &promise.location, "a", "");
                let shown = place.ask(ask).await.expect("an answer").json();
                shown["data"]["write"]["state"]
                    .as_str()
                    .unwrap_or("gone")
                    .to_owned()
            }
        };
        tally.judge(promise, &state, applied);
    }
    let refused = arrivals.iter().filter(|arrival| arrival.refused()).count();
    eprintln!(
        "seed {seed}: {kills} kills, {} writes acknowledged: {} succeeded ({} of them repeated), \
         {} refused by the API, {} unknown ({} of them had taken effect), {} lost, {} doubled; {} requests reached the API, \
         {refused} were refused by its limits",
        tally.promised,
        tally.succeeded,
        tally.repeated,
        tally.refused,
        tally.unknown,
        tally.unknown_applied,
        tally.lost.len(),
        tally.doubled.len(),
        arrivals.len(),
    );
    assert!(tally.promised > 0);
    assert!(tally.lost.is_empty(), "lost: {:?}", tally.lost);
    assert!(tally.doubled.is_empty(), "doubled: {:?}", tally.doubled);
    assert_eq!(refused, 0, "a window was exceeded");
}
