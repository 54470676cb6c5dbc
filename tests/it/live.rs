//! The page of operators, and the stream that it follows.

use super::support::exposition::{metrics, samples};
use super::support::{Setup, World, request, with};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::service::Service;
use segment_gateway::admin::{Access, Admin};
use segment_gateway::caller::Caller;
use segment_gateway::credential::Credential;
use segment_gateway::exchange::body::OuterBody;
use segment_gateway::limit::budgets::{Admission, BudgetRequest, Readiness};
use segment_gateway::limit::turns::Urgency;
use segment_gateway::route::policy::Effect;
use segment_gateway::sandbox::SandboxSpec;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

fn admin(world: &World) -> Admin {
    let access = Access {
        loopback: true,
        ..Access::default()
    };
    let access = Arc::new(access.into());
    Admin::new(world.gateway.clone(), access, "http://sandbox")
}

async fn ask(admin: &Admin, method: Method, path: &str) -> Response<OuterBody> {
    let ask = Request::builder().method(method).uri(path);
    let ask = ask.header("host", "localhost").body(Empty::<Bytes>::new());
    let service = admin.connected(SocketAddr::from(([127, 0, 0, 1], 1)).into());
    service.call(ask.unwrap()).await.unwrap()
}

/// The next event of any name.
async fn next(body: &mut OuterBody) -> (String, Value) {
    let frame = body.frame().await.unwrap().unwrap();
    let bytes = frame.into_data().unwrap();
    let text = std::str::from_utf8(&bytes).unwrap();
    let text = text.strip_prefix("event: ").unwrap();
    let (name, data) = text.split_once("\ndata: ").unwrap();
    let data = data.strip_suffix("\n\n").unwrap();
    assert!(!data.contains('\n'), "one line of data is one event");
    (name.to_owned(), serde_json::from_str(data).unwrap())
}

/// The next event of this name.
async fn named(body: &mut OuterBody, name: &str) -> Value {
    loop {
        let (of, document) = next(body).await;
        if of == name {
            return document;
        }
    }
}

async fn event(body: &mut OuterBody) -> Value {
    named(body, "status").await
}

const TOKEN: &str = "sgp_5ecretT0ken";

/// What `/metrics` counts, summed by one label.
fn counted(text: &str, metric: &str, label: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for (_, labels, value) in samples(text)
        .into_iter()
        .filter(|(name, ..)| name == metric)
    {
        let of = labels.into_iter().find(|(name, _)| name == label).unwrap();
        *sums.entry(of.1).or_default() += value;
    }
    sums
}

#[tokio::test(start_paused = true)]
async fn the_stream_tells_what_the_metrics_tell_once_a_second() {
    let world = World::new(SandboxSpec::default());
    let admin = admin(&world);
    for target in [
        "/users/user-00001",
        "/users/user-00001",
        "/users/nobody",
        "/groups",
    ] {
        world.get(target, "t").await;
    }
    let refused = with(
        request(Method::GET, "/labels", "t", ""),
        "cache-control",
        "only-if-cached",
    );
    assert_eq!(world.send(refused).await.status, 504);
    let mut answer = ask(&admin, Method::GET, "/live").await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let first = event(answer.body_mut()).await;
    let shown = metrics(&world).await;
    for (counts, metric, label) in [
        ("requests", "segment_gateway_requests_total", "outcome"),
        (
            "upstream",
            "segment_gateway_upstream_requests_total",
            "result",
        ),
        ("refusals", "segment_gateway_rejections_total", "type"),
        ("throttled", "segment_gateway_throttled_total", "origin"),
    ] {
        let told: BTreeMap<String, f64> =
            serde_json::from_value(first["counts"][counts].clone()).unwrap();
        assert_eq!(told, counted(&shown, metric, label), "{counts}");
    }
    let recent = first["recentRejections"].as_array().unwrap();
    assert_eq!(recent.len(), 1);
    assert_eq!(recent[0]["type"], "gateway-not-cached");
    assert_eq!(recent[0]["operation"], "listLabels");
    assert_eq!(recent[0]["status"], 504);
    assert_eq!(recent[0]["count"], 1);
    assert_eq!(recent[0]["cause"], "Callers");
    assert_eq!(first["ready"], true);
    assert!(first["budgets"].as_array().unwrap().len() >= 2);
    // The next comes a second later, and knows what has happened since.
    world.get("/users/user-00001", "t").await;
    let before = Instant::now();
    let second = event(answer.body_mut()).await;
    assert_eq!(before.elapsed(), Duration::from_secs(1));
    let hits = |event: &Value| event["counts"]["requests"]["hit"].as_u64().unwrap();
    assert_eq!(hits(&second), hits(&first) + 1);
    world.gateway.drain(Duration::from_secs(5));
    let third = event(answer.body_mut()).await;
    assert_eq!(third["ready"], false);
    assert!(third["notReady"][0].as_str().unwrap().contains("stopping"));
}

#[tokio::test(start_paused = true)]
async fn streams_are_bounded_and_give_their_place_back() {
    let world = World::new(SandboxSpec::default());
    let admin = admin(&world);
    let mut streams = Vec::new();
    for _ in 0..32 {
        let answer = ask(&admin, Method::GET, "/live").await;
        assert_eq!(answer.status(), StatusCode::OK);
        streams.push(answer);
    }
    let refused = ask(&admin, Method::GET, "/live").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let why = refused.into_body().collect().await.unwrap().to_bytes();
    assert!(why.starts_with(b"32 streams"), "{why:?}");
    streams.pop();
    assert_eq!(
        ask(&admin, Method::GET, "/live").await.status(),
        StatusCode::OK
    );
}

#[tokio::test(start_paused = true)]
async fn the_page_permits_itself_alone() {
    let mut setup = Setup::new(SandboxSpec::default());
    setup.history = None;
    let admin = admin(&setup.start());
    let page = ask(&admin, Method::GET, "/").await;
    assert_eq!(page.status(), StatusCode::OK);
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    for part in [
        "default-src 'none'; ",
        "style-src 'sha256-",
        "script-src 'sha256-",
        "connect-src 'self'; ",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    let body = page.into_body().collect();
    let body = timeout(Duration::from_secs(1), body)
        .await
        .unwrap()
        .unwrap();
    assert!(body.to_bytes().starts_with(b"<!doctype html>"));
}

/// Opens so many budgets, each used once, for as many credentials.
fn open_budgets(world: &World, most: u16) {
    let table = world.gateway.router().table.get();
    let budget = &table.operations()[0].budget;
    let now = world.gateway.clock().now();
    for n in 0..most {
        let [high, low] = n.to_be_bytes();
        let mut hash = [0; 16];
        hash[..2].copy_from_slice(&[high, low]);
        let caller = Caller {
            principal: IpAddr::from([10, 0, 0, high]).into(),
            name: None,
        };
        let ticket = world.gateway.budgets().join(&BudgetRequest {
            credential: Credential::from_bytes(hash),
            budget,
            effect: Effect::Read,
            caller,
            urgency: Urgency::default(),
            bytes: 0,
            not_before: None,
            deadline: now,
            answer_by: None,
            forecast: None,
            readiness: Readiness::Ready,
            admission: Admission::Asked,
        });
        drop(ticket.expect("a new budget has a free slot"));
    }
}

#[tokio::test(start_paused = true)]
async fn documents_are_bounded_however_many_budgets_there_are() {
    const MOST: u16 = 11_000;
    let world = World::new(SandboxSpec::default());
    let admin = admin(&world);
    open_budgets(&world, MOST);
    let whole = async |path| {
        let answer = ask(&admin, Method::GET, path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.into_body().collect().await.unwrap().to_bytes()
    };
    let status = whole("/status").await;
    assert!(status.len() < 128 * 1024, "{}", status.len());
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["budgets"].as_array().unwrap().len(), 200);
    assert_eq!(status["budgetSums"]["budgets"], MOST);
    assert_eq!(status["budgetSums"]["notShown"], MOST - 200);
    let shown = event(ask(&admin, Method::GET, "/live").await.body_mut()).await;
    assert_eq!(shown["budgets"].as_array().unwrap().len(), 200);
    assert_eq!(shown["budgetSums"], status["budgetSums"]);
    let metrics = String::from_utf8(whole("/metrics").await.to_vec()).unwrap();
    let credentials = samples(&metrics)
        .into_iter()
        .filter(|(name, ..)| name == "segment_gateway_budget_credentials");
    let credentials: Vec<f64> = credentials.map(|(_, _, value)| value).collect();
    assert_eq!(credentials, [f64::from(MOST)]);
}

#[tokio::test(start_paused = true)]
async fn a_filter_finds_budgets_that_the_document_leaves_out() {
    const MOST: u16 = 5_000;
    let world = World::new(SandboxSpec::default());
    let admin = admin(&world);
    open_budgets(&world, MOST);
    let find = async |query: &str| {
        let answer = ask(&admin, Method::GET, &format!("/status?{query}")).await;
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        (status, body)
    };
    let (_, all) = find("").await;
    assert_eq!(all["budgetSums"]["notShown"], MOST - 200);
    let shown = |status: &Value| status["budgets"].as_array().unwrap().clone();
    // The hash of the last one: none of its kind is in trouble, so it is not among those shown.
    let hash = format!("{:04x}{}", MOST - 1, "0".repeat(12));
    let is_last = |one: &Value| one["credential"] == hash.as_str();
    assert!(!shown(&all).iter().any(is_last));
    let (_, found) = find(&format!("filter={hash}")).await;
    assert!(shown(&found).iter().all(is_last) && shown(&found).len() == 1);
    assert_eq!(found["budgetSums"]["budgets"], MOST);
    let (status, wrong) = find("filtre=x").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
}

/// The sum of the series of one chart.
fn sum_of(history: &Value, chart: &str, series: &str) -> u64 {
    let series = history[chart][series].as_array().unwrap();
    series.iter().map(|n| n.as_u64().unwrap()).sum()
}

#[tokio::test(start_paused = true)]
async fn the_past_is_kept_for_15_minutes_whether_somebody_looks_or_not() {
    let world = World::new(SandboxSpec::default());
    let admin = admin(&world);
    let keeping = tokio::spawn(admin.clone().keep_history());
    sleep(Duration::from_secs(1)).await;
    for _ in 0..4 {
        world.get("/users/user-00001", "t").await;
    }
    let refused = with(
        request(Method::GET, "/labels", "t", ""),
        "cache-control",
        "only-if-cached",
    );
    world.send(refused).await;
    sleep(Duration::from_secs(60)).await;
    // The past comes first, and once for each sample.
    let mut answer = ask(&admin, Method::GET, "/live").await;
    let (name, first) = next(answer.body_mut()).await;
    assert_eq!(name, "history");
    assert_eq!(first["ages"].as_array().unwrap().len(), 12);
    let counts = ["cache", "upstream", "rejected"].map(|name| sum_of(&first, "requests", name));
    assert_eq!(counts, [3, 1, 1]);
    assert_eq!(sum_of(&first, "upstream", "ok"), 1);
    let used = first["budgets"][0]["used"].as_str().unwrap();
    assert!(used.contains('1'), "{first}");
    let mut names = Vec::new();
    for _ in 0..7 {
        names.push(next(answer.body_mut()).await.0);
    }
    let pasts = names.iter().filter(|name| *name == "history").count();
    assert_eq!(pasts, 1, "{names:?}");
    // A reader who comes later has the same.
    let mut other = ask(&admin, Method::GET, "/live").await;
    assert_eq!(next(other.body_mut()).await.0, "history");
    // After 15 minutes it is over.
    sleep(Duration::from_secs(20 * 60)).await;
    let mut late = ask(&admin, Method::GET, "/live").await;
    let last = named(late.body_mut(), "history").await;
    assert_eq!(last["ages"].as_array().unwrap().len(), 180);
    assert_eq!(sum_of(&last, "requests", "cache"), 0);
    keeping.abort();
}

#[tokio::test(start_paused = true)]
async fn the_past_of_many_budgets_is_bounded() {
    let world = World::new(SandboxSpec::default());
    let admin = admin(&world);
    open_budgets(&world, 5_000);
    let keeping = tokio::spawn(admin.clone().keep_history());
    sleep(Duration::from_secs(16 * 60)).await;
    open_budgets(&world, 5_000);
    sleep(Duration::from_secs(10)).await;
    let mut answer = ask(&admin, Method::GET, "/live").await;
    let past = named(answer.body_mut(), "history").await;
    assert_eq!(past["budgets"].as_array().unwrap().len(), 200);
    let length = past.to_string().len();
    assert!(length < 64 * 1024, "{length}");
    keeping.abort();
}

#[tokio::test(start_paused = true)]
async fn it_says_who_waits_for_what_and_whose_fault_it_is() {
    let world = Arc::new(World::new(SandboxSpec::default()));
    let admin = admin(&world);
    let keeping = tokio::spawn(admin.clone().keep_history());
    // The lines are served from now on.
    sleep(Duration::from_secs(1)).await;
    let mut answer = ask(&admin, Method::GET, "/live").await;
    assert_eq!(
        event(answer.body_mut()).await["findings"],
        serde_json::json!([])
    );
    // More frequent than what follows, but over when that begins.
    for _ in 0..5 {
        let ask = request(Method::GET, "/labels", TOKEN, "");
        let refused = world
            .send(with(ask, "cache-control", "only-if-cached"))
            .await;
        assert_eq!(refused.error_type(), "gateway-not-cached");
    }
    sleep(Duration::from_secs(61)).await;
    let put = |n: usize, name: &str, wait: &str| {
        let target = format!("/users/user-{n:05}/permissions");
        let put = request(Method::PUT, &target, TOKEN, r#"{"permissions":[]}"#);
        with(with(put, "x-gateway-caller", name), "prefer", wait)
    };
    let waiting: Vec<_> = (1..=64)
        .map(|n| world.spawn(put(n, "<b>billing</b>", "wait=100")))
        .collect();
    sleep(Duration::from_secs(40)).await;
    for _ in 0..3 {
        let refused = world.send(put(99, "nightly", "wait=1")).await;
        assert_eq!(refused.error_type(), "gateway-queue-wait");
    }
    sleep(Duration::from_secs(6)).await;
    let mut answer = ask(&admin, Method::GET, "/live").await;
    let status = event(answer.body_mut()).await;
    let first = &status["queue"][0];
    assert_eq!(first["budget"], "replacePermissionsForUser", "{status}");
    assert_eq!(first["caller"], "<b>billing</b>");
    assert_eq!(
        (&first["queued"], &first["waitsFor"]),
        (&4.into(), &"a slot".into())
    );
    assert_eq!(status["budgets"][0]["state"], "queued");
    let found = status["findings"].as_array().unwrap();
    let shown: Vec<_> = found
        .iter()
        .map(|one| (&one["severity"], &one["cause"]))
        .collect();
    let callers = (&"warning".into(), &"Callers".into());
    assert_eq!(shown, [callers, callers], "{found:?}");
    assert!(
        found[0]["message"]
            .as_str()
            .unwrap()
            .contains("rejected 3 of 63 requests in the last minute, most with queue-wait"),
        "{found:?}"
    );
    assert!(
        found[1]["message"]
            .as_str()
            .unwrap()
            .contains("4 queued requests"),
        "{found:?}"
    );
    let groups = [
        &status["recentRejections"][0],
        &status["recentRejections"][1],
    ];
    assert_eq!(
        groups.map(|group| group["count"].as_u64()),
        [Some(5), Some(3)]
    );
    let past = named(answer.body_mut(), "history").await;
    for document in [status, past] {
        assert!(!document.to_string().contains(TOKEN));
    }
    for one in waiting {
        assert_eq!(one.await.unwrap().status, 200);
    }
    keeping.abort();
}

/// Polls once: what needs the one other thread, which is busy, is not there.
async fn is_there<T>(answer: impl Future<Output = T>) -> bool {
    tokio::select! {
        biased;
        _ = answer => true,
        () = std::future::ready(()) => false,
    }
}

/// A runtime with one thread for what blocks.
fn with_one_other_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .max_blocking_threads(1)
        .build()
        .unwrap()
}

/// Whoever asks often takes no more than a thread.
#[test]
fn one_document_is_built_at_a_time() {
    with_one_other_thread().block_on(async {
        let world = World::new(SandboxSpec::default());
        let admin = admin(&world);
        let (free, busy) = std::sync::mpsc::channel::<()>();
        drop(tokio::task::spawn_blocking(move || busy.recv()));
        let mut asked: Vec<_> = (0..5)
            .map(|_| Box::pin(ask(&admin, Method::GET, "/status")))
            .collect();
        for answer in &mut asked {
            assert!(!is_there(answer).await);
        }
        // What comes now has its turn before most of them, and keeps the thread.
        let (has_begun, begun) = tokio::sync::oneshot::channel::<()>();
        let (done, counted) = std::sync::mpsc::channel::<()>();
        drop(tokio::task::spawn_blocking(move || {
            drop(has_begun);
            counted.recv()
        }));
        drop(free);
        assert!(begun.await.is_err());
        let mut built = 0;
        for answer in &mut asked {
            built += u32::from(is_there(answer).await);
        }
        drop(done);
        assert_eq!(built, 1);
    });
}

#[test]
fn no_document_is_built_among_the_requests() {
    with_one_other_thread().block_on(async {
        let world = World::new(SandboxSpec::default());
        let admin = admin(&world);
        let (free, busy) = std::sync::mpsc::channel::<()>();
        let other = tokio::task::spawn_blocking(move || busy.recv());
        for path in ["/status", "/metrics"] {
            assert!(!is_there(ask(&admin, Method::GET, path)).await, "{path}");
        }
        let mut live = ask(&admin, Method::GET, "/live").await;
        assert!(!is_there(event(live.body_mut())).await, "/live");
        assert!(is_there(ask(&admin, Method::GET, "/livez")).await);
        drop(free);
        assert!(other.await.unwrap().is_err());
        assert_eq!(event(live.body_mut()).await["mode"], "enforce");
        let status = ask(&admin, Method::GET, "/status").await;
        assert_eq!(status.status(), StatusCode::OK);
    });
}
