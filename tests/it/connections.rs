//! Connections to the API that are lost, refused or not there for a while.

use super::support::exposition::{metrics, samples};
use super::support::scripted::{Script, Seen, Step, answer, field};
use super::support::{Answer, Setup, World, all, request, with};
use http::Method;
use http_body_util::Full;
use segment_gateway::config::Mode;
use segment_gateway::sandbox::SandboxSpec;
use segment_gateway::upstream::MemoryConnector;
use std::future::ready;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

type Request = http::Request<Full<bytes::Bytes>>;

/// An API that answers one request on each connection and keeps that, but closes it when the next one
/// arrives: every kept connection is a broken one.
struct Closing {
    /// On which connection each request arrived, and its request line.
    arrivals: Mutex<Vec<(usize, String)>>,
    /// How many requests it answers on a connection; none at all, if this is 0.
    answers: AtomicUsize,
}

impl Closing {
    fn world(mode: Mode) -> (Arc<Self>, Arc<World>) {
        let api = Arc::new(Self {
            arrivals: Mutex::default(),
            answers: AtomicUsize::new(1),
        });
        let (shared, connections) = (Arc::clone(&api), AtomicUsize::new(0));
        let connector = MemoryConnector::new(move || {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let number = connections.fetch_add(1, Ordering::SeqCst);
            drop(tokio::spawn(Arc::clone(&shared).serve(number, theirs)));
            ready(Ok(ours))
        });
        let mut setup = Setup::new(SandboxSpec::default());
        setup.config.mode = mode;
        (api, Arc::new(setup.start_over(connector)))
    }

    async fn serve(self: Arc<Self>, number: usize, mut stream: tokio::io::DuplexStream) {
        let mut answered = 0;
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            if head.contains("content-length: 2") {
                let _ = stream.read_exact(&mut [0; 2]).await;
            }
            let line = head.lines().next().unwrap_or_default().to_owned();
            self.arrivals.lock().unwrap().push((number, line));
            // So that those who come at once have a connection each.
            sleep(Duration::from_millis(50)).await;
            if answered >= self.answers.load(Ordering::SeqCst) {
                return;
            }
            answered += 1;
            let answer =
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncache-control: max-age=60\r\n\
                content-length: 2\r\n\r\n{}";
            let _ = stream.write_all(answer).await;
        }
    }

    fn arrivals(&self) -> Vec<(usize, String)> {
        self.arrivals.lock().unwrap().clone()
    }

    /// Has so many connections kept, all of which are broken.
    async fn keep(&self, world: &Arc<World>, connections: usize) {
        let asks = (0..connections).map(|n| passing(&format!("/labels?n={n}"), "keeper"));
        for answer in all(world, asks.collect()).await {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        assert_eq!(self.arrivals().len(), connections);
        self.arrivals.lock().unwrap().clear();
    }
}

/// A read that is not stored.
fn passing(target: &str, token: &str) -> Request {
    with(request(Method::GET, target, token, ""), "cookie", "a=b")
}

fn put() -> Request {
    request(Method::PUT, "/users/u1/permissions", "a", "{}")
}

fn used(world: &World) -> u32 {
    let budgets = world.gateway.budgets().snapshot();
    budgets
        .iter()
        .map(|budget| budget.occupied + budget.in_flight)
        .sum()
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_request_on_a_broken_kept_connection_is_repeated_on_a_new_one() {
    let stored = request(Method::GET, "/labels", "a", "");
    let keyed = with(put(), "idempotency-key", "k");
    for (name, ask) in [
        ("a read that passes", passing("/labels", "a")),
        ("a read that is stored", stored),
        ("a held write", put()),
        ("a durable write", keyed),
    ] {
        let (api, world) = Closing::world(Mode::Enforce);
        api.keep(&world, 3).await;
        let before = used(&world);
        let heard = world.send(ask).await;
        assert_eq!(heard.status, 200, "{name}: {heard:?}");
        let arrivals = api.arrivals();
        let on: Vec<usize> = arrivals.iter().map(|(number, _)| *number).collect();
        assert!(matches!(on[..], [0..3, 3]), "{name}: {arrivals:?}");
        // Each of the two is charged.
        assert_eq!(used(&world) - before, 2, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_idempotent_is_not_repeated() {
    let (api, world) = Closing::world(Mode::Enforce);
    api.keep(&world, 1).await;
    let write = request(Method::POST, "/users/u1/permissions", "a", "{}");
    let heard = world.send(write).await;
    assert_eq!(heard.error_type(), "gateway-outcome-unknown", "{heard:?}");
    assert_eq!(api.arrivals().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_is_repeated_once_and_not_after_a_new_connection() {
    let (api, world) = Closing::world(Mode::Enforce);
    api.keep(&world, 1).await;
    api.answers.store(0, Ordering::SeqCst);
    for (arrivals, first) in [(2, "kept"), (1, "new")] {
        api.arrivals.lock().unwrap().clear();
        let heard = world.send(passing("/labels", "a")).await;
        assert_eq!(heard.status, 502, "{first}");
        assert_eq!(heard.error_type(), "gateway-upstream-broken", "{first}");
        assert_eq!(api.arrivals().len(), arrivals, "{first}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shared_fetch_on_a_broken_kept_connection_fails_nobody() {
    let (api, world) = Closing::world(Mode::Enforce);
    api.keep(&world, 1).await;
    let asks = (0..100).map(|_| request(Method::GET, "/labels", "a", ""));
    let answers: Vec<Answer> = all(&world, asks.collect()).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(api.arrivals().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn broken_kept_connections_do_not_stop_writes() {
    let (api, world) = Closing::world(Mode::Enforce);
    // So many failures in a row open the breaker.
    api.keep(&world, 8).await;
    let asks = (0..8).map(|n| passing(&format!("/labels?n={n}"), "a"));
    let reads: Vec<_> = asks.map(|ask| world.spawn(ask)).collect();
    // All of them are lost, and none has been answered on its new connection.
    sleep(Duration::from_millis(75)).await;
    assert_eq!(api.arrivals().len(), 16);
    assert!(!world.gateway.attempts().breaker().lock().is_open());
    let began = Instant::now();
    assert_eq!(world.send(put()).await.status, 200);
    assert_eq!(began.elapsed(), Duration::from_millis(50));
    for read in reads {
        let heard = read.await.unwrap();
        assert_eq!(heard.status, 200, "{heard:?}");
    }
    assert_eq!(api.arrivals().len(), 17);
}

#[tokio::test(start_paused = true)]
async fn in_shadow_mode_a_read_is_repeated_and_a_write_is_not() {
    let (api, world) = Closing::world(Mode::Shadow);
    for (ask, status, arrivals) in [
        (passing("/labels", "a"), 200, 2),
        (request(Method::GET, "/labels", "a", ""), 200, 2),
        (put(), 502, 1),
    ] {
        // The connection of the last repetition was not kept.
        api.arrivals.lock().unwrap().clear();
        api.keep(&world, 1).await;
        let heard = world.send(ask).await;
        assert_eq!(heard.status, status, "{heard:?}");
        assert_eq!(api.arrivals().len(), arrivals, "{:?}", api.arrivals());
    }
}

/// An API that accepts no connection for so long.
async fn out_for(outage: Duration, ask: Request) -> (Answer, Duration, usize) {
    let script = Script::new(|_: &Seen, _| Step::Answer(answer(200, "{}")));
    let world = script.world();
    script.refuse(usize::MAX);
    let back = Arc::clone(&script);
    drop(tokio::spawn(async move {
        sleep(outage).await;
        back.refuse(0);
    }));
    let began = Instant::now();
    let heard = world.send(ask).await;
    (heard, began.elapsed(), script.count())
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_out_within_the_deadline() {
    let post = || request(Method::POST, "/users/u1/permissions", "a", "{}");
    for (outage, ask) in [
        (100, post()),
        (100, put()),
        (100, with(put(), "idempotency-key", "k")),
        (20, passing("/labels", "a")),
        (20, request(Method::GET, "/labels", "a", "")),
    ] {
        let name = format!("{} {}", ask.method(), ask.uri());
        let outage = Duration::from_secs(outage);
        let (heard, took, arrivals) = out_for(outage, ask).await;
        assert_eq!(heard.status, 200, "{name}: {heard:?}");
        assert_eq!(arrivals, 1, "{name}");
        // Found soon: reads by themselves, writes by the breaker's next probe.
        assert!(took < outage + Duration::from_secs(31), "{name}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_at_the_deadline() {
    let post = || request(Method::POST, "/users/u1/permissions", "a", "{}");
    for (patience, ask) in [
        (10, with(post(), "prefer", "wait=10")),
        (30, passing("/labels", "a")),
        (30, request(Method::GET, "/labels", "a", "")),
    ] {
        let name = format!("{} {}", ask.method(), ask.uri());
        let (heard, took, arrivals) = out_for(Duration::from_secs(1_000), ask).await;
        assert_eq!(heard.status, 502, "{name}: {heard:?}");
        assert_eq!(heard.error_type(), "gateway-upstream-unreachable", "{name}");
        assert_eq!(heard.json()["errors"][0]["data"]["sent"], false, "{name}");
        assert_eq!(arrivals, 0, "{name}");
        let patience = Duration::from_secs(patience);
        assert!(took <= patience, "{name}: {took:?}");
        assert!(took >= patience / 4, "{name}: {took:?}");
    }
}

/// An operator looks at the gateway's own time to see whether the gateway is slow.
#[tokio::test(start_paused = true)]
async fn the_wait_for_an_api_that_is_away_is_not_time_of_the_gateway() {
    let post = || request(Method::POST, "/users/u1/permissions", "a", "{}");
    for ask in [
        post(),
        with(put(), "idempotency-key", "k"),
        passing("/labels", "a"),
        request(Method::GET, "/labels", "a", ""),
    ] {
        let name = format!("{} {}", ask.method(), ask.uri());
        let script = Script::new(|_: &Seen, _| Step::Answer(answer(200, "{}")));
        let world = script.world();
        script.refuse(usize::MAX);
        let heard = world.send(ask).await;
        assert!(heard.status.as_u16() >= 502, "{name}: {heard:?}");
        let text = metrics(&world).await;
        let own = samples(&text)
            .into_iter()
            .find(|(name, _, _)| name == "segment_gateway_overhead_duration_seconds_sum");
        let (_, _, seconds) = own.expect("a sum");
        assert!(seconds < 0.1, "{name}: {seconds} s");
    }
}

/// One who does not wait begins the fetch of all the others.
fn led_by_one_who_does_not_wait(followers: usize) -> Vec<Request> {
    let ask = || request(Method::GET, "/labels", "a", "");
    let mut asks = vec![with(ask(), "prefer", "wait=0")];
    asks.extend((0..followers).map(|_| ask()));
    asks
}

#[tokio::test(start_paused = true)]
async fn those_who_joined_a_fetch_wait_for_a_connection_as_long_as_they_may_themselves() {
    for (outage, followers_hear) in [(1, 200), (usize::MAX, 502)] {
        let script = standing_in();
        let world = script.world();
        script.refuse(outage);
        let answers = all(&world, led_by_one_who_does_not_wait(20)).await;
        let kind = "gateway-upstream-unreachable";
        assert_eq!(answers[0].error_type(), kind, "{:?}", answers[0]);
        for heard in &answers[1..] {
            assert_eq!(heard.status, followers_hear, "{heard:?}");
        }
        assert_eq!(script.count(), usize::from(outage == 1));
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_joined_a_fetch_repeat_it_where_its_first_reader_had_no_time() {
    let (api, world) = Closing::world(Mode::Enforce);
    api.keep(&world, 1).await;
    let answers = all(&world, led_by_one_who_does_not_wait(20)).await;
    let kind = "gateway-upstream-broken";
    assert_eq!(answers[0].error_type(), kind, "{:?}", answers[0]);
    for heard in &answers[1..] {
        assert_eq!(heard.status, 200, "{heard:?}");
    }
    assert_eq!(api.arrivals().len(), 2);
}

/// An API whose answers are old after a second, and may stand in for a failure.
fn standing_in() -> Arc<Script> {
    Script::new(|_: &Seen, n| {
        let control = "max-age=1, stale-if-error=600";
        Step::Answer(field(answer(200, &n.to_string()), "cache-control", control))
    })
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_out_by_those_who_may_not_be_shown_something_stale() {
    for (control, body) in [("no-cache", "1"), ("min-fresh=0", "0")] {
        let script = standing_in();
        let world = script.world();
        world.get("/labels", "a").await;
        // No connection is kept for so long.
        sleep(Duration::from_secs(300)).await;
        script.refuse(usize::MAX);
        let back = Arc::clone(&script);
        drop(tokio::spawn(async move {
            sleep(Duration::from_secs(10)).await;
            back.refuse(0);
        }));
        let ask = request(Method::GET, "/labels", "a", "");
        let heard = world.send(with(ask, "cache-control", control)).await;
        assert_eq!(heard.status, 200, "{heard:?}");
        assert_eq!(heard.body, body, "{control}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_for_a_connection_begins_when_the_first_one_fails() {
    let script = standing_in();
    let routes = include_str!("../../config/segment.toml");
    let list = "path = \"/users\"\ncache = \"60s\"\n";
    assert!(routes.contains(list));
    let mut setup = Setup::new(SandboxSpec::default());
    let limited = format!("{list}limit = \"1 per 1m\"\n");
    setup.routes = Some(routes.replace(list, &limited));
    let world = script.world_of(setup);
    world.get("/users", "a").await;
    sleep(Duration::from_secs(50)).await;
    script.refuse(1);
    let heard = world.get("/users", "a").await;
    assert_eq!(heard.body, "1", "{heard:?}");
}
