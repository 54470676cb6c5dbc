//! The proxy's listener over real sockets: what is refused, what passes, who is still there.

use super::support::log::Log;
use super::support::scripted::{Script, Step, answer, field};
use super::support::wire::{connect, eventually, exchange, read_until, rest};
use super::support::{Setup, World, loaded, request};
use http::Method;
use segment_gateway::app::{server_bounds, stack_bounds};
use segment_gateway::config::{Config, Size};
use segment_gateway::exchange::identity::CertificateNames;
use segment_gateway::gateway::connection::ConnectionServices;
use segment_gateway::sandbox::SandboxSpec;
use segment_gateway::server::conn;
use segment_gateway::server::refusals::MalformedReplies;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

const SECRET: &str = "sgp_5ecretT0ken";

/// A gateway with short deadlines for heads, in front of an API that answers `{}`.
async fn served() -> (Arc<Script>, Arc<World>, SocketAddr) {
    served_by(Script::new(|_, _| Step::Answer(answer(200, "{}")))).await
}

async fn served_by(script: Arc<Script>) -> (Arc<Script>, Arc<World>, SocketAddr) {
    let mut setup = Setup::new(SandboxSpec::default());
    setup.config.server.header_timeout = Duration::from_millis(300);
    setup.config.server.idle_timeout = Duration::from_millis(300);
    let world = script.world_of(setup);
    let address = world.listen(pending()).await;
    (script, world, address)
}

/// The metrics.
fn shown(world: &World) -> String {
    let metrics = world.gateway.metrics().render(&[], &Default::default());
    String::from_utf8(metrics).unwrap()
}

/// The head of a request, with a token unless the fields have some.
fn head(method: &str, target: &str, fields: &str) -> String {
    let token = match fields.contains("Authorization") {
        true => "",
        false => "Authorization: Bearer t\r\n",
    };
    format!("{method} {target} HTTP/1.1\r\nHost: gateway\r\n{token}{fields}\r\n")
}

#[tokio::test]
async fn a_connection_that_sends_nothing_or_half_a_head_is_closed() {
    let (script, _world, address) = served().await;
    assert_eq!(exchange(address, b"").await, "");
    for bytes in ["GET /us", "GET /users HTTP/1.1\r\nHost: gateway\r\n"] {
        let said = exchange(address, bytes.as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 408 "), "{bytes:?}: {said}");
        assert!(said.contains("gateway-head-timeout"), "{bytes:?}: {said}");
        assert!(said.contains("connection: close"), "{bytes:?}: {said}");
    }
    assert_eq!(script.count(), 0);
    // After an answer, too.
    let said = exchange(address, head("GET", "/users", "").as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    assert_eq!(script.count(), 1);
}

/// A balancer that pools its connections for a minute finds them open; the shorter time is for a head
/// that has begun.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_outlives_the_time_for_a_head() {
    let world = Script::new(|_, _| Step::Answer(answer(200, "{}"))).world();
    let config = Config::default();
    let bounds = server_bounds(&config).each;
    let front = ConnectionServices::new(world.gateway.clone(), stack_bounds(&config));
    let (mut caller, connection) = tokio::io::duplex(64 * 1024);
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let (service, refusals) = (
        front.connected(peer, CertificateNames::default()),
        MalformedReplies::new(bounds.head_bytes),
    );
    drop(tokio::spawn(conn::serve(
        connection, peer, service, bounds, refusals, stopped,
    )));
    for idle in [60, 60, 74] {
        sleep(Duration::from_secs(idle)).await;
        let ask = head("GET", "/users", "");
        caller.write_all(ask.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"\r\n\r\n{}") {
            said.push(caller.read_u8().await.expect("it is open"));
        }
    }
    caller.write_all(b"GET /us").await.unwrap();
    let began = Instant::now();
    let mut said = Vec::new();
    while let Ok(byte) = caller.read_u8().await {
        said.push(byte);
        assert_eq!(began.elapsed().as_secs(), 10);
    }
    assert!(
        said.starts_with(b"HTTP/1.1 408 "),
        "it is answered and closed"
    );
}

#[tokio::test]
async fn what_is_malformed_or_ambiguous_is_refused_and_not_sent() {
    let (script, world, address) = served().await;
    let long = format!("X-Long: {}\r\n", "a".repeat(200 * 1024));
    let far_apart = format!(
        "Content-Length: 3\r\nX-Long: {}\r\nTransfer-Encoding: chunked\r\n",
        "a".repeat(31 * 1024)
    );
    let cases = [
        ("GARBAGE\r\n\r\n".to_owned(), 400, "gateway-bad-request"),
        (
            "GET /users HTTP/1.1\r\nno colon\r\n\r\n".to_owned(),
            400,
            "gateway-bad-request",
        ),
        (
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned(),
            400,
            "without TLS",
        ),
        (
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0".to_owned(),
            400,
            "h2c",
        ),
        (
            "GET /users HTTP/1.1\r\n\r\n".to_owned(),
            400,
            "gateway-bad-request",
        ),
        (
            head("GET", "/users", "Host: other\r\n"),
            400,
            "gateway-bad-request",
        ),
        (
            head("GET", "/users", "Authorization: a\r\nAuthorization: b\r\n"),
            400,
            "gateway-bad-request",
        ),
        (
            head(
                "POST",
                "/invites",
                "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            ) + "0\r\n\r\n",
            400,
            "gateway-bad-request",
        ),
        (
            head(
                "POST",
                "/invites",
                "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            ) + "0\r\n\r\n",
            400,
            "gateway-bad-request",
        ),
        (
            head(
                "POST",
                "/invites",
                "Content-Length: 3\r\nContent-Length: 4\r\n",
            ) + "abcd",
            400,
            "gateway-bad-request",
        ),
        (
            head("GET", "/users", "Connection: Authorization\r\n"),
            400,
            "gateway-bad-request",
        ),
        (
            "CONNECT api:443 HTTP/1.1\r\nHost: api:443\r\n\r\n".to_owned(),
            405,
            "gateway-method-refused",
        ),
        (head("TRACE", "/users", ""), 405, "gateway-method-refused"),
        (
            head("GET", "/_gateway/writes/1", "Connection: close\r\n"),
            404,
            "gateway-not-found",
        ),
        (head("GET", "/users", &long), 431, "gateway-head-too-large"),
        (
            head("GET", "/users", &"X-Many: 1\r\n".repeat(101)),
            431,
            "gateway-head-too-large",
        ),
        (
            head("POST", "/invites", "Transfer-Encoding: gzip, chunked\r\n") + "0\r\n\r\n",
            400,
            "gateway-bad-request",
        ),
        (
            head("POST", "/invites", &far_apart) + "0\r\n\r\n",
            400,
            "gateway-bad-request",
        ),
        // Its body is cut short.
        (
            head("POST", "/invites", "Content-Length: 3\r\n") + "a",
            400,
            "gateway-bad-request",
        ),
    ];
    for (bytes, status, kind) in cases {
        // Closed by the gateway: all of these read to the end.
        let shown: String = bytes.chars().take(120).collect();
        let mut stream = connect(address).await;
        // Whoever refuses a request need not read all of it.
        let _ = stream.write_all(bytes.as_bytes()).await;
        if shown.ends_with("\r\n\r\na") {
            stream.shutdown().await.unwrap();
        }
        let said = rest(&mut stream).await;
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status} ")),
            "{shown:?}: {said}"
        );
        assert!(said.contains(kind), "{shown:?}: {said}");
        assert!(said.contains("\"type\":\"gateway-"), "{shown:?}: {said}");
        assert!(said.contains("x-request-id: "), "{shown:?}: {said}");
        assert!(said.contains("connection: close"), "{shown:?}: {said}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{shown:?}: {said}");
    }
    assert_eq!(script.count(), 0, "nothing of it was sent");
    // Those that never became a request are counted apart.
    for line in [
        "segment_gateway_malformed_requests_total{reason=\"head\"} 4",
        "segment_gateway_malformed_requests_total{reason=\"http2\"} 1",
        "segment_gateway_malformed_requests_total{reason=\"too-large\"} 2",
        "segment_gateway_requests_total{code=\"4xx\",operation=\"none\",outcome=\"refused\"} 11",
    ] {
        let shown = shown(&world);
        assert!(shown.contains(line), "{line}\n{shown}");
    }
}

#[tokio::test]
async fn expect_100_continue_is_answered_by_the_gateway() {
    let (script, _world, address) = served().await;
    let mut stream = connect(address).await;
    let ask = head(
        "PUT",
        "/users/u/permissions",
        "Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n",
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    let interim = read_until(&mut stream, "\r\n\r\n").await;
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    assert_eq!(script.count(), 0);
    stream.write_all(b"{}").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200 "));
    let seen = script.seen();
    assert_eq!(seen[0].body, "{}");
    assert!(!seen[0].headers.contains_key("expect"));
}

#[tokio::test]
async fn a_hang_up_in_the_queue_is_noticed_and_a_half_closed_caller_is_served() {
    let script = Script::new(|_, n| match n {
        0 => Step::Later(Duration::from_secs(3), answer(200, "{}")),
        _ => Step::Answer(answer(200, "{}")),
    });
    let (script, world, address) = served_by(script).await;
    let put = head("PUT", "/users/u/permissions", "Content-Length: 0\r\n");
    let mut first = connect(address).await;
    first.write_all(put.as_bytes()).await.unwrap();
    // Its sending half is closed; it still waits.
    first.shutdown().await.unwrap();
    eventually("the first has left", async || script.count() == 1).await;
    let waiting = world.gateway.budgets().waiting();
    let mut second = connect(address).await;
    second.write_all(put.as_bytes()).await.unwrap();
    eventually("the second waits for its lane", async || {
        world.gateway.budgets().waiting() == waiting + 1
    })
    .await;
    drop(second);
    eventually("its hang-up is noticed", async || {
        world.gateway.budgets().waiting() == waiting
    })
    .await;
    let said = rest(&mut first).await;
    assert!(said.contains("HTTP/1.1 200 "), "{said}");
    assert!(said.ends_with("{}"), "{said}");
    assert_eq!(script.count(), 1, "the second never left");
}

#[tokio::test]
async fn an_ambiguous_request_behind_another_is_refused_too() {
    let (script, _world, address) = served().await;
    let first = head("GET", "/labels", "");
    let fields = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n";
    let second = head("POST", "/invites", fields) + "0\r\n\r\n";
    let said = exchange(address, (first + &second).as_bytes()).await;
    let statuses: Vec<&str> = said.matches("HTTP/1.1 200 ").collect();
    assert_eq!(statuses.len(), 1, "{said}");
    assert!(said.contains("HTTP/1.1 400 "), "{said}");
    assert_eq!(script.count(), 1, "only the first was sent");
}

/// More than the sockets between two programs hold.
const LONG: usize = 32 * 1024 * 1024;

fn long() -> String {
    "a".repeat(LONG)
}

#[tokio::test]
async fn a_half_closed_caller_has_the_whole_of_a_long_answer_and_nothing_else() {
    let script = Script::new(|_, _| Step::Answer(answer(200, &long())));
    let (_script, _world, address) = served_by(script).await;
    let mut stream = connect(address).await;
    let ask = head("GET", "/labels", "");
    stream.write_all(ask.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    // Long enough for a second question in the middle of the answer.
    sleep(Duration::from_millis(1_200)).await;
    let said = rest(&mut stream).await;
    let (_, said) = said.split_once("HTTP/1.1 200 ").expect("an answer");
    let (_, body) = said.split_once("\r\n\r\n").expect("a body");
    assert_eq!(body.len(), LONG);
    assert!(
        body.bytes().all(|byte| byte == b'a'),
        "all of it, and only that"
    );
}

#[tokio::test]
async fn a_half_closed_caller_of_http_1_0_is_served_too() {
    let script = Script::new(|_, _| Step::Later(Duration::from_secs(1), answer(200, "{}")));
    let (_script, _world, address) = served_by(script).await;
    let mut stream = connect(address).await;
    let ask = "GET /labels HTTP/1.0\r\nHost: gateway\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let said = rest(&mut stream).await;
    assert!(said.starts_with("HTTP/1.0 200 "), "{said}");
    assert!(said.ends_with("\r\n\r\n{}"), "{said}");
}

#[tokio::test]
async fn a_caller_that_does_not_read_its_answer_is_disconnected() {
    for (write, response) in [(300, 60_000), (60_000, 300)] {
        let script = Script::new(|_, _| Step::Answer(answer(200, &long())));
        let mut setup = Setup::new(SandboxSpec::default());
        setup.config.server.write_timeout = Duration::from_millis(write);
        setup.config.server.response_timeout = Duration::from_millis(response);
        let world = script.world_of(setup);
        let address = world.listen(pending()).await;
        let mut stream = connect(address).await;
        let ask = head("GET", "/labels", "");
        stream.write_all(ask.as_bytes()).await.unwrap();
        eventually("it is under way", async || script.count() == 1).await;
        eventually("it is closed", async || {
            world.gateway.metrics().connections().open() == 0
        })
        .await;
        assert!(rest(&mut stream).await.len() < LONG);
    }
}

#[tokio::test]
async fn beyond_the_cap_of_connections_the_answer_is_a_clear_503() {
    let script = Script::new(|_, _| Step::Silent);
    let mut setup = Setup::new(SandboxSpec::default());
    setup.config.server.connections = 2;
    let world = script.world_of(setup);
    let address = world.listen(pending()).await;
    let mut held = Vec::new();
    for n in 0..2 {
        let mut stream = connect(address).await;
        let ask = head("GET", &format!("/labels?n={n}"), "");
        stream.write_all(ask.as_bytes()).await.unwrap();
        held.push(stream);
    }
    eventually("both are under way", async || script.count() == 2).await;
    let said = exchange(address, head("GET", "/labels", "").as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
    assert!(said.contains("gateway-overloaded"), "{said}");
    let refused = said.to_lowercase();
    for field in [
        "retry-after: 1",
        "connection: close",
        "cache-status: segment-gateway;",
    ] {
        assert!(refused.contains(field), "{field}: {said}");
    }
    let refused = "requests_total{code=\"5xx\",operation=\"none\",outcome=\"refused\"} 1";
    assert!(shown(&world).contains(refused), "{}", shown(&world));
    // A place that becomes free is given to the next.
    drop(held);
}

#[tokio::test]
async fn bodies_are_bounded_alone_and_together() {
    let script = Script::new(|_, n| match n {
        0 => Step::Later(Duration::from_secs(1), answer(200, "{}")),
        _ => Step::Answer(answer(200, "{}")),
    });
    let mut setup = Setup::new(SandboxSpec::default());
    setup.config.server.body_bytes = Size(1_000);
    setup.config.server.bodies_bytes = Size(2_000);
    let world = script.world_of(setup);
    let address = world.listen(pending()).await;
    let post = |bytes: usize| {
        let fields = format!("Content-Length: {bytes}\r\nConnection: close\r\n");
        head("POST", "/labels", &fields) + &"x".repeat(bytes)
    };
    let chunked = head("POST", "/labels", "Transfer-Encoding: chunked\r\n")
        + &format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1_001));
    for large in [post(1_001), chunked] {
        let said = exchange(address, large.as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
        assert!(said.contains("cache-status: segment-gateway;"), "{said}");
    }
    let counted = "{operation=\"createLabel\",type=\"gateway-body-too-large\"} 2";
    assert!(shown(&world).contains(counted), "{}", shown(&world));
    // One peer has half: another one of 1,000 bytes has no room for as long as the first is under way.
    let mut first = connect(address).await;
    first.write_all(post(1_000).as_bytes()).await.unwrap();
    eventually("the first is under way", async || script.count() == 1).await;
    let said = exchange(address, post(1_000).as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
    assert!(said.contains("gateway-overloaded"), "{said}");
    assert!(rest(&mut first).await.starts_with("HTTP/1.1 200 "));
    let said = exchange(address, post(1_000).as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
}

/// A body that cannot be read.
struct Panics;

impl http_body::Body for Panics {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        panic!("on purpose")
    }
}

#[tokio::test]
async fn a_request_that_panics_has_failed_and_was_not_hung_up_on() {
    let log = Log::default();
    let _guard = log.listen();
    let (_script, world, _address) = served().await;
    let bounds = stack_bounds(&loaded().config);
    let connection = ConnectionServices::new(world.gateway.clone(), bounds)
        .connected(([127, 0, 0, 1], 1).into(), CertificateNames::default());
    let ask = request(Method::POST, "/labels", "t", "").map(|_| Panics);
    let answer = connection.answer(ask).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 500);
    let cache = answer.headers()["cache-status"].to_str().unwrap();
    assert!(cache.contains("gateway-internal"), "{cache}");
    let counted = "requests_total{code=\"5xx\",operation=\"createLabel\",outcome=\"failed\"} 1";
    assert!(shown(&world).contains(counted), "{}", shown(&world));
    assert!(log.text().contains("outcome=\"failed\""), "{}", log.text());
}

#[tokio::test]
async fn a_write_goes_on_without_its_caller_and_both_are_told_of() {
    let log = Log::default();
    let _guard = log.listen();
    let script = Script::new(|_, _| Step::Later(Duration::from_secs(1), answer(200, "{}")));
    let (script, world, address) = served_by(script).await;
    let fields = "Authorization: Bearer t\r\nX-Gateway-Caller: billing\r\nContent-Length: 0\r\n";
    let put = head("PUT", "/users/u/permissions", fields);
    let mut stream = connect(address).await;
    stream.write_all(put.as_bytes()).await.unwrap();
    eventually("it has left", async || script.count() == 1).await;
    drop(stream);
    eventually("it is carried through", async || {
        world.gateway.tasks().under_way() == 0
    })
    .await;
    let text = log.text();
    let line = |what: &str| {
        let line = text.lines().find(|line| line.contains(what));
        line.unwrap_or_else(|| panic!("{what} not in {text}"))
            .to_owned()
    };
    let (gone, result) = (
        line("outcome=\"hung-up\""),
        line("after its caller hung up"),
    );
    for field in [
        "method=\"PUT\"",
        "sent=true",
        "caller=\"billing\"",
        "peer=127",
        "credential=",
    ] {
        assert!(gone.contains(field), "{field}: {gone}");
    }
    assert!(result.contains("status=200"), "{result}");
}

#[tokio::test]
async fn stopping_lets_requests_end_and_takes_no_new_connection() {
    let script = Script::new(|_, _| Step::Later(Duration::from_millis(300), answer(200, "{}")));
    let world = script.world();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let address = world.listen(async { drop(stopped.await) }).await;
    let mut stream = connect(address).await;
    stream
        .write_all(head("GET", "/labels", "").as_bytes())
        .await
        .unwrap();
    eventually("it is under way", async || script.count() == 1).await;
    stop.send(()).unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200 "));
    eventually("nobody listens", async || {
        tokio::net::TcpStream::connect(address).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn what_belongs_to_one_hop_does_not_pass() {
    let script = Script::new(|_, _| {
        let hop = field(answer(200, "{}"), "connection", "x-answer-hop");
        let hop = field(hop, "x-answer-hop", "1");
        Step::Answer(field(hop, "x-request-id", "theirs"))
    });
    let (script, _world, address) = served_by(script).await;
    let fields = "Authorization: Bearer t\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\n\
        Keep-Alive: timeout=5\r\nProxy-Authorization: basic\r\nPrefer: wait=5\r\nPriority: u=1\r\n\
        Forwarded: for=a\r\nX-Forwarded-For: a\r\nX-Gateway-Caller: billing\r\nX-Gateway-Any: 1\r\n\
        X-Mine: 1\r\nUser-Agent: sdk\r\nX-Request-Id: mine-7\r\nVia: 1.1 balancer.internal\r\n\
        Baggage: user=42\r\nX-Envoy-Attempt-Count: 1\r\nX-Real-IP: 10.0.0.7\r\n";
    let said = exchange(address, head("GET", "/labels", fields).as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    assert!(!said.contains("x-answer-hop"), "{said}");
    assert!(said.contains("x-request-id: mine-7"), "{said}");
    assert!(!said.contains("theirs"), "the log knows another id: {said}");
    let seen = script.seen();
    let mut names: Vec<&str> = seen[0]
        .headers
        .keys()
        .map(http::HeaderName::as_str)
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["authorization", "host", "user-agent", "via", "x-mine"]
    );
    assert_eq!(
        seen[0].headers["host"], "127.0.0.1:1",
        "always the upstream's"
    );
    assert_eq!(seen[0].headers["via"], "1.1 segment-gateway");
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_a_harmful_one_is_replaced() {
    let (_script, _world, address) = served().await;
    let long = "i".repeat(129);
    for id in [
        "",
        "X-Request-Id: a b\r\n",
        "X-Request-Id: a\r\nX-Request-Id: b\r\n",
        &format!("X-Request-Id: {long}\r\n"),
    ] {
        let mut made = Vec::new();
        for target in ["/labels", "/_gateway/x"] {
            let fields = format!("{id}Connection: close\r\n");
            let said = exchange(address, head("GET", target, &fields).as_bytes()).await;
            let line = said.lines().find(|line| line.starts_with("x-request-id: "));
            made.push(line.unwrap_or_else(|| panic!("{id:?} {said}")).to_owned());
        }
        assert_ne!(made[0], made[1]);
        assert!(made[0].len() > 20 && !made[0].contains(&long), "{made:?}");
    }
}

#[tokio::test]
async fn no_token_is_in_a_log_an_error_or_a_metric() {
    let log = Log::default();
    let _guard = log.listen();
    let script = Script::new(|_, n| match n % 5 {
        0 => Step::Answer(answer(401, "{}")),
        1 => Step::Close,
        2 => Step::Answer(answer(500, "{}")),
        _ => Step::Answer(answer(200, "{}")),
    });
    let (script, world, address) = served_by(script).await;
    let token = format!(
        "Authorization: Bearer {SECRET}\r\nCookie: {SECRET}\r\nX-Api-Key: {SECRET}\r\n\
         Proxy-Authorization: {SECRET}\r\nConnection: close\r\n"
    );
    let mut answers = String::new();
    for (method, target) in [
        ("GET", "/users"),
        ("PUT", "/users/u/permissions"),
        ("GET", "/roles"),
        ("GET", "/users"),
        ("DELETE", "/users?userIds=other"),
        ("GET", &format!("/groups?token={SECRET}")),
        ("PATCH", "/groups/g"),
        ("GET", "/_gateway/x"),
        ("TRACE", "/users"),
        ("GET", "http://other/"),
    ] {
        answers += &exchange(address, head(method, target, &token).as_bytes()).await;
    }
    assert!(script.seen().iter().all(|seen| {
        seen.headers["authorization"]
            .as_bytes()
            .ends_with(SECRET.as_bytes())
    }));
    let metrics = shown(&world);
    let log = log.text();
    assert!(
        log.contains("credential="),
        "it was really listened to: {log}"
    );
    for text in [&answers, &metrics, &log, &format!("{:?}", world.gateway)] {
        assert!(!text.is_empty());
        assert!(!text.contains(SECRET), "{text}");
    }
}
