//! The page of operators, and the stream that it follows.

use super::support::exposition::{metrics, samples};
use super::support::{Setup, World, request, with};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::service::Service;
use segment_gateway::admin::{Access, Admin};
use segment_gateway::credential::Credential;
use segment_gateway::exchange::body::OuterBody;
use segment_gateway::limit::budgets::{Admission, BudgetRequest, Readiness};
use segment_gateway::limit::turns::{Caller, Urgency};
use segment_gateway::route::policy::Effect;
use segment_gateway::sandbox::SandboxSpec;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

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

async fn event(body: &mut OuterBody) -> Value {
    let frame = body.frame().await.unwrap().unwrap();
    let bytes = frame.into_data().unwrap();
    let text = std::str::from_utf8(&bytes).unwrap();
    let data = text.strip_prefix("event: status\ndata: ").unwrap();
    let data = data.strip_suffix("\n\n").unwrap();
    assert!(!data.contains('\n'), "one line of data is one event");
    serde_json::from_str(data).unwrap()
}

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
    let recent = first["recentRefusals"].as_array().unwrap();
    assert_eq!(recent.len(), 1);
    assert_eq!(recent[0]["type"], "gateway-not-cached");
    assert_eq!(recent[0]["operation"], "listLabels");
    assert_eq!(recent[0]["status"], 504);
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
            peer: IpAddr::from([10, 0, 0, high]),
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
