//! Spans, as a collector receives them from the program, and what the API sees of a trace.

use super::support::program::Program;
use super::support::wire::{ask, eventually, free};
use super::support::{request, with};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const TOKEN: &str = "sgp_5ecretT0ken";

type Seen = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

/// Answers everything with 200 and keeps what came.
async fn server() -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Seen::default());
    let kept = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let kept = kept.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let kept = kept.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let path = head.uri.path().to_owned();
                    kept.lock().unwrap().push((path, head.headers, body));
                    let answer = Response::builder().header("content-type", "application/json");
                    answer.body(Full::new(Bytes::from_static(b"{}")))
                }
            });
            let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(serving);
        }
    });
    (address, seen)
}

/// The program between a caller and an API, with a collector beside it.
struct Running {
    program: Program,
    proxy: SocketAddr,
    api: Seen,
    collector: Seen,
}

impl Running {
    async fn start(environment: &[(&str, &str)]) -> Self {
        Self::with(environment, None).await
    }

    /// The same, with an API elsewhere.
    async fn with(environment: &[(&str, &str)], elsewhere: Option<SocketAddr>) -> Self {
        let ((upstream, api), (traces, collector)) = (server().await, server().await);
        let url = format!("http://{}", elsewhere.unwrap_or(upstream));
        let endpoint = format!("http://{traces}/otlp/");
        let own = [
            ("SEGMENT_GATEWAY__TRACING__OTLP_ENDPOINT", &*endpoint),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-token=c0llect0r"),
        ];
        let environment = [&own, environment].concat();
        let program = Program::start("", &["--upstream", &url], &environment).await;
        Self {
            proxy: program.proxy,
            program,
            api,
            collector,
        }
    }

    async fn spans_counted(&self, result: &str) -> f64 {
        let spans = "segment_gateway_spans_total";
        self.program.value(spans, Some(result)).await
    }

    /// What the collector has.
    fn spans(&self) -> Vec<Span> {
        let seen = self.collector.lock().unwrap();
        let bodies = seen.iter().map(|(_, _, body)| body.clone());
        let all = bodies.map(|body| ExportTraceServiceRequest::decode(body).unwrap());
        let of_resource = all.flat_map(|all| all.resource_spans);
        let of_scope = of_resource.flat_map(|of| of.scope_spans);
        of_scope.flat_map(|of| of.spans).collect()
    }

    /// The span of this name, once the collector has so many in all.
    async fn told(&self, count: usize) -> Vec<Span> {
        eventually("the collector has them", async || {
            self.spans().len() >= count
        })
        .await;
        let spans = self.spans();
        assert_eq!(spans.len(), count, "{:?}", names(&spans));
        spans
    }
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| &*span.name).collect()
}

fn named<'s>(spans: &'s [Span], name: &str) -> &'s Span {
    let mut of_name = spans.iter().filter(|span| span.name == name);
    let span = of_name
        .next()
        .unwrap_or_else(|| panic!("no {name} in {:?}", names(spans)));
    assert!(of_name.next().is_none(), "one {name}");
    span
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span
        .attributes
        .iter()
        .find(|attribute| attribute.key == key)?;
    Some(match found.value.clone()?.value? {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn traced(ask: Request<Full<Bytes>>, flags: &str) -> Request<Full<Bytes>> {
    let ask = with(ask, "traceparent", &format!("00-{TRACE}-{PARENT}-{flags}"));
    with(ask, "tracestate", "vendor=x")
}

#[tokio::test]
async fn a_write_is_a_span_with_its_wait_and_its_attempt_below_it() {
    let running = Running::start(&[]).await;
    let put = request(
        Method::PUT,
        "/users/u1/permissions",
        TOKEN,
        r#"{"permissions":[]}"#,
    );
    let put = with(traced(put, "01"), "x-request-id", "my-id-1");
    assert_eq!(ask(running.proxy, put).await.status, 200);
    let spans = running.told(4).await;
    let server = named(&spans, "PUT /users/{userId}/permissions");
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
    assert_eq!(hex(&server.parent_span_id), PARENT);
    assert_eq!(server.trace_state, "vendor=x");
    assert_eq!(server.kind, SpanKind::Server as i32);
    for (key, value) in [
        ("http.request.method", "PUT"),
        ("http.route", "/users/{userId}/permissions"),
        ("http.response.status_code", "200"),
        ("segment_gateway.outcome", "written"),
        ("segment_gateway.operation", "replacePermissionsForUser"),
        ("segment_gateway.request_id", "my-id-1"),
    ] {
        assert_eq!(attribute(server, key).as_deref(), Some(value), "{key}");
    }
    let (queue, budget) = (named(&spans, "queue"), named(&spans, "budget"));
    let upstream = named(&spans, "upstream");
    assert_eq!(queue.parent_span_id, server.span_id);
    assert_eq!(budget.parent_span_id, queue.span_id);
    assert_eq!(upstream.parent_span_id, server.span_id);
    assert_eq!(upstream.kind, SpanKind::Client as i32);
    assert_eq!(
        attribute(upstream, "http.response.status_code").as_deref(),
        Some("200")
    );
    for below in [queue, budget, upstream] {
        assert!(
            below.start_time_unix_nano >= server.start_time_unix_nano,
            "{}",
            below.name
        );
        assert!(
            below.end_time_unix_nano <= server.end_time_unix_nano,
            "{}",
            below.name
        );
        assert!(
            below.start_time_unix_nano <= below.end_time_unix_nano,
            "{}",
            below.name
        );
    }
    // The API sees the attempt as its caller, and not the gateway's own names.
    let (path, headers, _) = running.api.lock().unwrap()[0].clone();
    assert_eq!(path, "/users/u1/permissions");
    let own = format!("00-{TRACE}-{}-01", hex(&upstream.span_id));
    assert_eq!(headers["traceparent"], own.as_str());
    assert_eq!(headers["tracestate"], "vendor=x");
    // Both names are in the line of the log, and no token is anywhere.
    let log = running.program.logs(&["replacePermissions"]).await;
    let line = log
        .lines()
        .find(|line| line.contains("replacePermissions"))
        .unwrap();
    assert!(line.contains("my-id-1") && line.contains(TRACE), "{line}");
    let seen = running.collector.lock().unwrap();
    for (path, headers, body) in seen.iter() {
        assert_eq!(path, "/otlp/v1/traces");
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["x-collector-token"], "c0llect0r");
        assert!(!String::from_utf8_lossy(body).contains(TOKEN));
    }
    assert!(!log.contains("c0llect0r"));
}

#[tokio::test]
async fn a_read_looks_into_the_cache_and_its_hit_goes_no_further() {
    let running = Running::start(&[]).await;
    let get = || request(Method::GET, "/users/u1", TOKEN, "");
    ask(running.proxy, traced(get(), "01")).await;
    let spans = running.told(5).await;
    let cache = named(&spans, "cache");
    assert_eq!(
        attribute(cache, "segment_gateway.cache.result").as_deref(),
        Some("miss")
    );
    assert_eq!(
        cache.parent_span_id,
        named(&spans, "GET /users/{userId}").span_id
    );
    ask(running.proxy, traced(get(), "01")).await;
    let spans = running.told(7).await.split_off(5);
    let server = named(&spans, "GET /users/{userId}");
    assert_eq!(
        attribute(server, "segment_gateway.outcome").as_deref(),
        Some("hit")
    );
    let cache = named(&spans, "cache");
    assert_eq!(
        attribute(cache, "segment_gateway.cache.result").as_deref(),
        Some("hit")
    );
    assert_eq!(cache.parent_span_id, server.span_id);
    assert_eq!(running.api.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn who_is_traced_is_said_by_the_caller_or_else_by_the_share() {
    let running = Running::start(&[("SEGMENT_GATEWAY__TRACING__SAMPLE_PERCENT", "0")]).await;
    let get = |target: &str| request(Method::GET, target, TOKEN, "");
    ask(running.proxy, get("/users/u1")).await;
    // What its caller does not trace passes on as it came.
    ask(running.proxy, traced(get("/users/u2"), "00")).await;
    // What is none is not taken up, and begins nothing here.
    ask(
        running.proxy,
        with(get("/users/u3"), "traceparent", "nonsense"),
    )
    .await;
    ask(running.proxy, traced(get("/nothing"), "01")).await;
    let spans = running.told(5).await;
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
    let seen = running.api.lock().unwrap().clone();
    let parent = |at: usize| {
        let value = seen[at].1.get("traceparent");
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(parent(0), None);
    assert_eq!(parent(1), Some(format!("00-{TRACE}-{PARENT}-00")));
    drop(seen);
    let all = Running::start(&[]).await;
    ask(all.proxy, request(Method::GET, "/users/u1", TOKEN, "")).await;
    let spans = all.told(5).await;
    let server = named(&spans, "GET /users/{userId}");
    assert!(server.parent_span_id.is_empty(), "a trace of its own");
    let parent = all.api.lock().unwrap()[0].1["traceparent"].clone();
    let own = format!(
        "00-{}-{}-01",
        hex(&server.trace_id),
        hex(&named(&spans, "upstream").span_id)
    );
    assert_eq!(parent, own.as_str());
}

#[tokio::test]
async fn what_is_refused_and_what_fails_is_told() {
    let running = Running::with(&[], Some(free())).await;
    let lost = traced(request(Method::GET, "/_gateway/nothing", TOKEN, ""), "01");
    assert_eq!(ask(running.proxy, lost).await.status, 404);
    let spans = running.told(1).await;
    assert_eq!(spans[0].name, "GET");
    for (key, value) in [
        ("error.type", "gateway-not-found"),
        ("segment_gateway.outcome", "refused"),
    ] {
        assert_eq!(attribute(&spans[0], key).as_deref(), Some(value));
    }
    assert!(
        spans[0]
            .status
            .as_ref()
            .is_none_or(|status| status.code() != StatusCode::Error)
    );
    // An API that is not there: the attempts and the request have failed.
    let write = request(Method::POST, "/invites", TOKEN, "{}");
    let write = with(traced(write, "01"), "prefer", "wait=1");
    assert_eq!(ask(running.proxy, write).await.status, 502);
    let has_write = || names(&running.spans()).contains(&"POST /invites");
    eventually("the write is told", async || has_write()).await;
    let spans = running.spans();
    let failed = |span: &&Span| span.status.as_ref().map(|s| s.code()) == Some(StatusCode::Error);
    let server = named(&spans, "POST /invites");
    let error = attribute(server, "error.type");
    assert_eq!(error.as_deref(), Some("gateway-upstream-unreachable"));
    let attempts: Vec<_> = spans
        .iter()
        .filter(|span| span.name == "upstream")
        .collect();
    assert!(attempts.len() > 1, "each attempt is one");
    assert!(attempts.iter().all(failed) && failed(&server));
    assert!(
        attempts
            .iter()
            .all(|span| span.parent_span_id == server.span_id)
    );
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_no_request() {
    let nowhere = format!("http://{}", free());
    // A path may be a secret of the collector.
    let endpoint = format!("{nowhere}/s3cret");
    let running = Running::start(&[("SEGMENT_GATEWAY__TRACING__OTLP_ENDPOINT", &endpoint)]).await;
    for _ in 0..20 {
        let get = request(Method::GET, "/users/u1", TOKEN, "");
        assert_eq!(ask(running.proxy, get).await.status, 200);
    }
    eventually("they are counted", async || {
        running.spans_counted("failed").await > 0.0
    })
    .await;
    assert_eq!(running.spans_counted("exported").await, 0.0);
    let said = "the trace collector takes no spans";
    let log = running.program.logs(&[said]).await;
    let lines = log.lines().filter(|line| line.contains("collector"));
    let lines: Vec<_> = lines.collect();
    // One line, which names the collector and does not blame the API.
    let [line] = *lines else {
        panic!("{log}");
    };
    assert!(line.contains(said), "{line}");
    for part in [
        "requests are not affected",
        "reason=\"refused\"",
        &format!("url=\"{nowhere}\""),
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!line.contains("upstream"), "{line}");
    assert!(!log.contains("cannot connect"), "{log}");
    assert!(!log.contains("s3cret"), "{log}");
}

#[tokio::test]
async fn the_last_spans_are_handed_over_before_the_end() {
    let mut running = Running::start(&[]).await;
    ask(running.proxy, request(Method::GET, "/users/u1", TOKEN, "")).await;
    running.program.signal("-TERM");
    assert!(running.program.ended().await);
    assert_eq!(running.spans().len(), 5);
}

#[test]
fn an_address_that_is_none_is_refused_at_the_start() {
    for (endpoint, fit) in [
        ("http://127.0.0.1:4318", true),
        ("https://collector.example/otlp", true),
        ("collector:4318", false),
        ("http://user:pass@collector", false),
        ("http://collector/?a=b", false),
        ("http://collector:4318/v1/traces", false),
        ("", true),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_segment-gateway"))
            .arg("check")
            .env("SEGMENT_GATEWAY__TRACING__OTLP_ENDPOINT", endpoint)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), fit, "{endpoint}: {said}");
        assert!(fit || said.contains("tracing.otlp_endpoint"), "{said}");
        assert!(!said.contains("pass"), "{said}");
    }
}
