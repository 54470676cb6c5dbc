//! The sums that `docs/metrics.md` promises: every request is counted under exactly one outcome, and
//! what is counted in two places is counted alike.
//!
//! Callers count for themselves what they sent and what they heard, and the sandbox what reached it.

use super::support::exposition::{Sample, metrics, samples};
use super::support::wire::{connect, eventually, exchange};
use super::support::{Answer, Setup, World, all_of, from_peer, request, routes_with, slow, with};
use bytes::Bytes;
use fastrand::Rng;
use http::{Method, Request};
use http_body_util::Full;
use segment_gateway::metrics::Outcome;
use segment_gateway::sandbox::{By, Delay, Faults, SandboxSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const REQUESTS: &str = "segment_gateway_requests_total";
const CACHE: &str = "segment_gateway_cache_requests_total";
const REFUSALS: &str = "segment_gateway_rejections_total";
const UPSTREAM: &str = "segment_gateway_upstream_requests_total";
const ENDED: &str = "segment_gateway_durable_writes_ended_total";
const THROTTLED: &str = "segment_gateway_throttled_total";
/// Outcomes with an answer of the store or of the API to a read.
const ANSWERED_READS: &str = "hit|stale|fetched|joined|passed";

const NOTHING: &str = r#"{"permissions":[]}"#;
const GRANT: &str =
    r#"{"permissions":[{"roleId":"source-admin","resources":[{"id":"s","type":"SOURCE"}]}]}"#;
/// How many times callers decide what to do next.
const STEPS: usize = 700;

/// What callers have sent, and what came back.
#[derive(Default)]
struct Seen {
    sent: u64,
    hung_up: u64,
    /// By the class of the status.
    answers: BTreeMap<String, u64>,
    /// Errors of the gateway's own, by type.
    errors: BTreeMap<String, u64>,
    from_store: u64,
    replayed: u64,
}

struct Callers {
    world: Arc<World>,
    seen: Mutex<Seen>,
}

impl Callers {
    /// Sends it and waits for its head, for so long.
    async fn send_for(&self, request: Request<Full<Bytes>>, patience: Duration) -> Option<Answer> {
        self.seen.lock().unwrap().sent += 1;
        let connection = self.world.connection(&request);
        let Ok(answer) = timeout(patience, connection.answer(request)).await else {
            self.seen.lock().unwrap().hung_up += 1;
            return None;
        };
        let answer = all_of(answer.unwrap()).await;
        let mut seen = self.seen.lock().unwrap();
        let class = format!("{}xx", answer.status.as_u16() / 100);
        *seen.answers.entry(class).or_default() += 1;
        let status = answer.header("cache-status");
        if let Some(error) = status.strip_prefix("segment-gateway; detail=") {
            *seen.errors.entry(error.to_owned()).or_default() += 1;
        }
        let is_stale = status.contains("; detail=stale-");
        let is_hit = status.starts_with("segment-gateway; hit");
        seen.from_store += u64::from(is_stale || is_hit);
        seen.replayed += u64::from(answer.header("idempotency-replayed") == "true");
        drop(seen);
        Some(answer)
    }

    /// Sends it and waits as long as it takes.
    async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let answer = self.send_for(request, Duration::from_secs(100_000)).await;
        answer.expect("an answer")
    }

    /// The ids of all durable writes that the journal knows.
    async fn durable_writes(&self) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        let mut after = String::new();
        loop {
            let page = self
                .send(get(&format!("/_gateway/writes?limit=500{after}")))
                .await;
            let page = page.json()["data"].clone();
            for write in page["writes"].as_array().unwrap() {
                ids.insert(write["id"].as_str().unwrap().to_owned());
            }
            let Some(next) = page["next"].as_str() else {
                return ids;
            };
            after = format!("&after={next}");
        }
    }
}

fn get(target: &str) -> Request<Full<Bytes>> {
    request(Method::GET, target, "a", "")
}

fn user(n: usize) -> String {
    format!("/users/user-{n:05}")
}

fn put(n: usize) -> Request<Full<Bytes>> {
    request(
        Method::PUT,
        &format!("{}/permissions", user(n)),
        "a",
        NOTHING,
    )
}

fn post(n: usize) -> Request<Full<Bytes>> {
    request(
        Method::POST,
        &format!("{}/permissions", user(n)),
        "a",
        GRANT,
    )
}

fn invite(n: usize) -> Request<Full<Bytes>> {
    let body = format!(r#"{{"invites":[{{"email":"guest-{n}@example.com"}}]}}"#);
    request(Method::POST, "/invites", "a", &body)
}

/// What a caller may send at one moment.
fn some(rng: &mut Rng, n: usize) -> Vec<Request<Full<Bytes>>> {
    let someone = user(rng.usize(1..=8));
    let read = || get(&someone);
    let key = format!("key-{n}");
    match rng.usize(0..28) {
        0 => vec![with(read(), "if-none-match", "*"); 2],
        1 => vec![request(Method::HEAD, &someone, "a", "")],
        2 => vec![with(read(), "cache-control", "no-store")],
        3 => vec![with(read(), "cache-control", "no-cache")],
        4 => vec![with(get("/labels"), "cache-control", "only-if-cached")],
        5 => vec![with(read(), "range", "bytes=0-1")],
        6 => vec![get(&format!("{someone}?a=1&a=1")), get("/v9/x")],
        // Where the path is that of a read, the sandbox would take it for one.
        7 if n.is_multiple_of(4) => vec![with(get("/v9/x"), "x-http-method-override", "DELETE")],
        8 => vec![get("/roles"), get("/roles"), get("/invites")],
        9 => vec![with(get("/users"), "prefer", "wait=0")],
        10 => vec![put(rng.usize(1..=8)), post(rng.usize(1..=8))],
        11 => (0..8).map(|more| invite(10 * n + more)).collect(),
        12 => vec![with(put(rng.usize(1..=8)), "prefer", "wait=1")],
        // It makes all that is stored unbelievable, so it is rare.
        13 if n.is_multiple_of(4) => vec![request(Method::POST, "/v9/x", "a", "{}")],
        14 => vec![with(invite(10 * n), "prefer", "respond-async"); 2],
        15 => vec![with(post(9), "idempotency-key", &key); 3],
        16 => vec![
            with(put(9), "idempotency-key", &key),
            with(put(10), "idempotency-key", &key),
        ],
        17 => vec![get("/_gateway/writes"), get("/_gateway/x")],
        18 => vec![
            request(Method::TRACE, "/users", "a", ""),
            with(read(), "authorization", "Bearer b"),
            with(read(), "host", "other"),
        ],
        19 => {
            let mut nobody = read();
            nobody.headers_mut().remove("authorization");
            vec![nobody]
        }
        20 => vec![request(Method::PUT, "/users/x", "a", &"x".repeat(2 << 20))],
        // Each of them is a read of its own, which nobody else joins.
        21 => (0..6)
            .map(|more| get(&format!("/v9/flood?n={n}.{more}")))
            .collect(),
        _ => vec![read(); 3],
    }
}

/// One of each outcome, whatever chance has in store for the others.
async fn rarities(callers: &Arc<Callers>) {
    let sandbox = &callers.world.sandbox;
    let faults = |throttle: f64, lost_reply: f64| Faults {
        throttle,
        lost_reply,
        ..Faults::default()
    };
    let spawn = |request| {
        let callers = callers.clone();
        tokio::spawn(async move { callers.send(request).await })
    };
    for pause in [0, 1, 6] {
        sleep(Duration::from_secs(pause)).await;
        callers.send(get(&user(1))).await;
    }
    let two = [spawn(get("/roles")), spawn(get("/roles"))];
    for task in two {
        task.await.unwrap();
    }
    // While 429s come: one that waits, one that waited in vain, and some that cannot wait.
    sandbox.set_faults(faults(1.0, 0.0));
    let waits = spawn(get(&user(200)));
    sleep(Duration::from_millis(300)).await;
    callers
        .send(with(get(&user(200)), "prefer", "wait=1"))
        .await;
    for _ in 0..4 {
        callers.send(with(post(201), "prefer", "wait=1")).await;
        sleep(Duration::from_secs(10)).await;
    }
    // And one that is taken back while it waits.
    let deferred = with(put(207), "prefer", "respond-async");
    let deferred = callers.send(deferred).await;
    sleep(Duration::from_secs(1)).await;
    let taken_back = request(Method::DELETE, deferred.header("location"), "a", "");
    callers.send(taken_back).await;
    sandbox.set_faults(faults(0.0, 1.0));
    waits.await.unwrap();
    callers.send(post(202)).await;
    callers.send(get(&user(203))).await;
    callers.send_for(put(204), Duration::from_secs(1)).await;
    sandbox.set_faults(Faults::default());
    for _ in 0..2 {
        callers
            .send(with(put(205), "idempotency-key", "twice"))
            .await;
        callers
            .send(with(put(206), "prefer", "respond-async"))
            .await;
    }
}

/// Meets everything, waits until nothing is under way, and returns what was counted.
async fn driven(seed: u64) -> (Arc<Callers>, Counted, u64) {
    let mut setup = Setup::new(SandboxSpec {
        seed,
        arrive: Delay {
            base: Duration::from_millis(20),
            jitter: Duration::from_millis(100),
        },
        other_users: 5.0,
        validators: true,
        ..SandboxSpec::default()
    });
    let stale = "stale_while_revalidate = \"60s\"\nstale_if_error = \"600s\"";
    setup.routes = Some(routes_with("getUser", &format!("cache = \"5s\"\n{stale}")));
    setup.history = None;
    // The quota has a clock of its own, which is not paused: nothing comes back.
    setup.config.callers.rate.limit = 1;
    setup.config.callers.rate.window = Duration::from_secs(86_400);
    setup.config.callers.burst = 40;
    let callers = Arc::new(Callers {
        world: Arc::new(setup.start()),
        seen: Mutex::default(),
    });
    rarities(&callers).await;
    let sandbox = &callers.world.sandbox;
    sandbox.set_faults(Faults {
        throttle: 0.02,
        server_error: 0.05,
        lost_reply: 0.05,
        late: 0.02,
        late_by: Duration::from_secs(40),
    });
    let mut rng = Rng::with_seed(seed);
    let mut tasks = JoinSet::new();
    for n in 0..STEPS {
        for ask in some(&mut rng, n) {
            // One peer floods; the others have more than they use of their quotas.
            let floods = ask.uri().path() == "/v9/flood";
            let peer = if floods { 9 } else { rng.u8(10..) };
            let ask = from_peer(ask, peer);
            let (callers, millis) = (callers.clone(), rng.u64(1..3_000));
            let patience = match rng.usize(0..8) {
                0 => Duration::from_millis(millis),
                _ => Duration::from_secs(100_000),
            };
            tasks.spawn(async move {
                callers.send_for(ask, patience).await;
            });
        }
        sleep(Duration::from_millis(rng.u64(0..1_500))).await;
    }
    tasks.join_all().await;
    // What nobody waits for ends as well: deferred writes, fetches behind, requests that are late.
    sandbox.set_faults(Faults::default());
    let under_way = || {
        let durable = callers.world.durable();
        durable.queued + durable.dispatched
    };
    for _ in 0..200 {
        sleep(Duration::from_secs(60)).await;
        if under_way() == 0 {
            break;
        }
    }
    assert_eq!(under_way(), 0, "durable writes end");
    sleep(Duration::from_secs(600)).await;
    let durable = callers.durable_writes().await.len() as u64;
    let counted = Counted(samples(&metrics(&callers.world).await));
    (callers, counted, durable)
}

/// What the gateway has counted.
struct Counted(Vec<Sample>);

impl Counted {
    /// The sum of a metric over all series with these labels; `a|b` is either.
    fn sum(&self, metric: &str, labels: &[(&str, &str)]) -> u64 {
        let is = |of: &[(String, String)], (name, value): &(&str, &str)| {
            let mut of = of.iter();
            of.any(|(n, v)| n == name && value.split('|').any(|value| value == v))
        };
        let samples = self.0.iter().filter(|(name, ..)| name == metric);
        let samples = samples.filter(|(_, of, _)| labels.iter().all(|label| is(of, label)));
        samples.map(|(_, _, value)| *value as u64).sum()
    }

    /// The sums of a metric by one label, without those that are 0.
    fn by(&self, metric: &str, label: &str) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for (_, labels, value) in self.0.iter().filter(|(name, ..)| name == metric) {
            let of = labels.iter().find(|(name, _)| name == label);
            let of = of.map(|(_, value)| value.clone()).unwrap_or_default();
            *sums.entry(of).or_default() += *value as u64;
        }
        sums.retain(|_, sum| *sum > 0);
        sums
    }
}

/// Where two counts differ that should not.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn compare<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, one: T, other: T) {
        if one != other {
            self.0.push(format!("{what}: {one:?} and {other:?}"));
        }
    }
}

/// What callers saw against what was counted.
fn requests(counted: &Counted, seen: &Seen, differ: &mut Differences) {
    let all = counted.sum(REQUESTS, &[]);
    differ.compare("requests", all, seen.sent);
    let mut classes = seen.answers.clone();
    classes.insert("none".to_owned(), seen.hung_up);
    differ.compare("requests by code", counted.by(REQUESTS, "code"), classes);
    let of = |outcome: Outcome| counted.sum(REQUESTS, &[("outcome", outcome.as_str())]);
    differ.compare("hung up", of(Outcome::HungUp), seen.hung_up);
    differ.compare(
        "from the store",
        of(Outcome::Hit) + of(Outcome::Stale),
        seen.from_store,
    );
    differ.compare("replayed", of(Outcome::Replayed), seen.replayed);
    differ.compare("errors", counted.by(REFUSALS, "type"), seen.errors.clone());
    for outcome in Outcome::ALL {
        let timed = if outcome == Outcome::Hit {
            counted.sum("segment_gateway_cache_hit_duration_seconds_count", &[])
        } else {
            let label = ("outcome", outcome.as_str());
            counted.sum("segment_gateway_request_duration_seconds_count", &[label])
        };
        differ.compare(outcome.as_str(), of(outcome), timed);
    }
    let own = counted.sum("segment_gateway_overhead_duration_seconds_count", &[]);
    let answered = all - of(Outcome::Hit) - of(Outcome::HungUp);
    differ.compare("answered, no hits", answered, own);
}

/// What is counted by operation.
fn operations(counted: &Counted, cacheable: &BTreeSet<String>, differ: &mut Differences) {
    let mut names: BTreeSet<String> = cacheable.clone();
    for metric in [REQUESTS, CACHE, REFUSALS, UPSTREAM, THROTTLED] {
        names.extend(counted.by(metric, "operation").into_keys());
    }
    for name in &names {
        let sum = |metric: &str, labels: &[(&str, &str)]| {
            let mut labels = labels.to_vec();
            labels.push(("operation", name));
            counted.sum(metric, &labels)
        };
        let ended = |outcomes: &str| sum(REQUESTS, &[("outcome", outcomes)]);
        let expired = |code: &str| sum(REQUESTS, &[("outcome", "expired"), ("code", code)]);
        let reads = match cacheable.contains(name) {
            true => ended(ANSWERED_READS) + expired("4xx"),
            false => 0,
        };
        differ.compare(&format!("reads of {name}"), sum(CACHE, &[]), reads);
        for result in ["hit", "stale"] {
            let of = sum(CACHE, &[("result", result)]);
            differ.compare(&format!("{result} of {name}"), of, ended(result));
        }
        let refused = ended("refused|unknown|failed") + expired("5xx");
        differ.compare(&format!("errors of {name}"), sum(REFUSALS, &[]), refused);
        let throttled = sum(THROTTLED, &[("origin", "upstream|start")]);
        let answered = sum(UPSTREAM, &[("result", "429")]);
        differ.compare(&format!("429s of {name}"), throttled, answered);
        let quota = sum(REFUSALS, &[("type", "gateway-caller-quota")]);
        let throttled = sum(THROTTLED, &[("origin", "gateway")]);
        differ.compare(&format!("quota of {name}"), throttled, quota);
        let merged = sum("segment_gateway_batched_writes_total", &[]);
        let saved = sum("segment_gateway_batch_requests_saved_total", &[]);
        let attempts = sum(UPSTREAM, &[]);
        if merged - saved > attempts || merged < 2 * sum("segment_gateway_batches_total", &[]) {
            let figures = format!("{merged} {saved} {attempts}");
            differ.0.push(format!("{name} travels together: {figures}"));
        }
    }
}

/// What has reached the API against what was counted.
fn attempts(counted: &Counted, world: &World, differ: &mut Differences) {
    let mut arrived: BTreeMap<String, u64> = BTreeMap::new();
    for arrival in world.sandbox.arrivals() {
        if arrival.by == By::Gateway {
            *arrived.entry(arrival.operation.to_owned()).or_default() += 1;
        }
    }
    let mut sent = counted.by(UPSTREAM, "operation");
    for (name, sent) in &mut sent {
        *sent -= counted.sum(UPSTREAM, &[("operation", name), ("result", "not-sent")]);
    }
    // The sandbox has one name for what is no operation.
    let unmatched = ["unmatchedRead", "unmatchedWrite"];
    let unmatched: u64 = unmatched.iter().filter_map(|name| sent.remove(*name)).sum();
    sent.insert("unknown".to_owned(), unmatched);
    differ.compare("attempts", sent, arrived);
    let answered = counted.sum(UPSTREAM, &[("result", "1xx|2xx|3xx|4xx|429|5xx")]);
    let timed = counted.sum("segment_gateway_upstream_duration_seconds_count", &[]);
    differ.compare("answered attempts", answered, timed);
}

#[tokio::test(start_paused = true)]
async fn every_request_is_counted_under_one_outcome_and_the_sums_agree() {
    for seed in [1, 2, 3] {
        let (callers, counted, durable) = driven(seed).await;
        let world = &callers.world;
        let mut differ = Differences::default();
        requests(&counted, &callers.seen.lock().unwrap(), &mut differ);
        let table = world.gateway.router().table.get();
        let cacheable = table.operations().iter();
        let cacheable = cacheable.filter(|operation| operation.cache.is_some());
        let cacheable = cacheable.map(|operation| operation.name.to_string());
        operations(&counted, &cacheable.collect(), &mut differ);
        attempts(&counted, world, &mut differ);
        let ended = counted.sum(ENDED, &[]);
        differ.compare("durable writes", ended, durable);
        assert!(differ.0.is_empty(), "seed {seed}: {:#?}", differ.0);
        // Nothing agrees by not having happened.
        let outcomes = counted.by(REQUESTS, "outcome");
        let missing: Vec<_> = Outcome::ALL
            .iter()
            .filter(|outcome| !outcomes.contains_key(outcome.as_str()))
            .collect();
        assert!(
            missing.is_empty(),
            "seed {seed}: {missing:?} of {outcomes:?}"
        );
        for (metric, label, values) in [
            (CACHE, "result", "hit stale miss bypass"),
            (UPSTREAM, "result", "2xx 3xx 4xx 429 5xx unknown"),
            (THROTTLED, "origin", "upstream start gateway"),
            (ENDED, "state", "succeeded failed unknown cancelled"),
        ] {
            let by = counted.by(metric, label);
            for value in values.split(' ') {
                assert!(by.contains_key(value), "seed {seed}: no {value} in {by:?}");
            }
        }
        assert!(counted.sum("segment_gateway_batched_writes_total", &[]) > 0);
    }
}

#[tokio::test]
async fn over_connections_every_head_is_one_request_and_garbage_is_none() {
    const GET: &str =
        "GET /users/user-00001 HTTP/1.1\r\nhost: g\r\nauthorization: Bearer a\r\n\r\n";
    const TRACE: &str = "TRACE / HTTP/1.1\r\nhost: g\r\n\r\n";
    let world = World::new(slow());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let address = world.listen(async { drop(stopped.await) }).await;
    // Three on one connection; what is no request, alone and behind one.
    exchange(address, format!("{GET}{GET}{TRACE}").as_bytes()).await;
    exchange(address, b"this is no request\r\n\r\n").await;
    exchange(address, format!("{GET}this is none\r\n\r\n").as_bytes()).await;
    // A body that breaks off, and somebody who does not wait for the answer.
    let half =
        "PUT /users/user-00002/permissions HTTP/1.1\r\nhost: g\r\ncontent-length: 9\r\n\r\n{";
    for text in [half, &GET.replace("00001", "00003")] {
        let mut stream = connect(address).await;
        stream.write_all(text.as_bytes()).await.unwrap();
    }
    let all = async || Counted(samples(&metrics(&world).await));
    eventually("all are counted", async || {
        all().await.sum(REQUESTS, &[]) >= 6
    })
    .await;
    drop(stop);
    eventually("all connections are closed", async || {
        world.gateway.metrics().connections().open() == 0
    })
    .await;
    let counted = all().await;
    assert_eq!(
        counted.sum(REQUESTS, &[]),
        6,
        "{:?}",
        counted.by(REQUESTS, "outcome")
    );
    let malformed = "segment_gateway_malformed_requests_total";
    assert_eq!(counted.sum(malformed, &[]), 2);
}
