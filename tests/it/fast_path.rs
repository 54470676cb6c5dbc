//! The fast path of a hit: it gives what the full path would, or leaves it to the full path.

use crate::support::log::Log;
use crate::support::{Answer, Setup, World, request, whole, with};
use bytes::Bytes;
use http::{Method, Request, Version};
use http_body_util::Full;
use segment_gateway::config::{LogAccess, LogLevel};
use segment_gateway::sandbox::SandboxSpec;

const USER: &str = "/users/user-00001";
/// A field that the fast path does not know, so that it leaves the request to the full path; no key
/// holds it.
const UNKNOWN: &str = "x-correlation-id";

type Ask = Request<Full<Bytes>>;

fn get(target: &str, fields: &[(&str, &str)]) -> Ask {
    fields.iter().fold(
        request(Method::GET, target, "t", ""),
        |ask, (name, value)| with(ask, name, value),
    )
}

/// The answer, if it came by the fast path.
async fn at_once(world: &World, ask: Ask) -> Option<Answer> {
    let answer = world.connection(&ask).answer(ask);
    if answer.is_fast_path() {
        Some(whole(answer).await)
    } else {
        None
    }
}

/// A gateway that has some answers in its store.
async fn with_a_store() -> World {
    let world = World::new(SandboxSpec::default());
    for target in [
        USER,
        "/users/user%2D00002",
        "/users?pagination.count=2",
        "/groups",
        "/catalog/sources",
    ] {
        world.get(target, "t").await;
    }
    let json = get(USER, &[("accept", "application/json")]);
    world.send(json).await;
    world
}

#[tokio::test(start_paused = true)]
async fn what_is_plain_and_in_the_store_is_answered_at_once() {
    let world = with_a_store().await;
    let plain: [(&str, &[(&str, &str)]); 12] = [
        (USER, &[]),
        (USER, &[("if-none-match", "\"x\"")]),
        (USER, &[("if-none-match", "*"), ("accept-encoding", "gzip")]),
        (USER, &[("accept", "application/json")]),
        (USER, &[("user-agent", "sdk"), ("accept-encoding", "gzip")]),
        (USER, &[("connection", "Keep-Alive")]),
        (
            USER,
            &[
                ("connection", "Upgrade, HTTP2-Settings"),
                ("upgrade", "h2c"),
                ("http2-settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
            ],
        ),
        (USER, &[("x-request-id", "mine-1")]),
        (USER, &[("traceparent", "00-1-2-01"), ("tracestate", "a=b")]),
        ("/users?pagination.count=2", &[]),
        ("/users?pagination%5Bcount%5D=2", &[]),
        ("/groups", &[]),
    ];
    for (target, fields) in plain {
        let answer = at_once(&world, get(target, fields)).await;
        let answer = answer.unwrap_or_else(|| panic!("{target} {fields:?}"));
        assert!(answer.header("cache-status").contains("hit"), "{answer:?}");
    }
    let other: [(&str, &[(&str, &str)]); 26] = [
        ("/users/user-00009", &[]),
        ("/users/user%2D00002", &[]),
        ("/catalog/sources", &[]),
        ("/unmatched", &[]),
        ("/_gateway/users/user-00001", &[]),
        ("http://gateway/users/user-00001", &[]),
        ("/users?pagination.count=2&pagination.count=2", &[]),
        (USER, &[("host", "another")]),
        (USER, &[("authorization", "Bearer t")]),
        (USER, &[("content-type", "application/json")]),
        (USER, &[("accept", "text/plain")]),
        (USER, &[("origin", "https://a.example")]),
        (USER, &[("cache-control", "no-cache")]),
        (USER, &[("pragma", "no-cache")]),
        (USER, &[("cookie", "a=b")]),
        (USER, &[("range", "bytes=0-1")]),
        (USER, &[("if-none-match", "\"x\""), ("if-none-match", "*")]),
        (USER, &[("if-modified-since", "x")]),
        (USER, &[("connection", "close, authorization")]),
        (USER, &[("transfer-encoding", "chunked")]),
        (USER, &[("content-length", "0")]),
        (USER, &[("connection", "upgrade, close")]),
        (USER, &[("expect", "100-continue")]),
        (USER, &[("x-http-method-override", "DELETE")]),
        (USER, &[("x-gateway-caller", "billing")]),
        (USER, &[("x-request-id", "a"), ("x-request-id", "b")]),
    ];
    for (target, fields) in other {
        let answer = at_once(&world, get(target, fields)).await;
        assert!(answer.is_none(), "{target} {fields:?}");
    }
    for method in [Method::HEAD, Method::DELETE, Method::PUT, Method::OPTIONS] {
        let ask = request(method.clone(), USER, "t", "");
        assert!(at_once(&world, ask).await.is_none(), "{method}");
    }
    let body = request(Method::GET, USER, "t", "{}");
    assert!(at_once(&world, body).await.is_none());
    let mut old = get(USER, &[]);
    *old.version_mut() = Version::HTTP_10;
    assert!(at_once(&world, old).await.is_none());
    for names_nobody in ["Bearer ", ""] {
        let mut ask = get(USER, &[]);
        let value = names_nobody.parse().unwrap();
        ask.headers_mut().insert("authorization", value);
        assert!(at_once(&world, ask).await.is_none(), "{names_nobody:?}");
    }
}

/// Any request, put together from what callers send and what they should not.
fn any(random: &mut fastrand::Rng) -> Ask {
    const TARGETS: [&str; 10] = [
        USER,
        USER,
        "/users/user%2D00002",
        "/users/user-00003",
        "/users?pagination.count=2",
        "/users?pagination[count]=2",
        "/users?pagination.count=2&x",
        "/groups",
        "/groups?",
        "/catalog/sources",
    ];
    const FIELDS: [(&str, &str); 34] = [
        ("accept", "application/json"),
        ("accept-encoding", "gzip"),
        ("accept-language", "de"),
        ("authorization", "Bearer u"),
        ("baggage", "a=b"),
        ("cache-control", "max-age=60"),
        ("cache-control", "no-store"),
        ("connection", "close"),
        ("connection", "keep-alive"),
        ("connection", "keep-alive, accept"),
        ("content-encoding", "gzip"),
        ("content-length", "0"),
        ("content-type", "text/plain"),
        ("cookie", "a=b"),
        ("expect", "100-continue"),
        ("host", "another"),
        ("if-match", "*"),
        ("if-modified-since", "Fri, 27 Nov 2026 00:00:00 GMT"),
        ("if-none-match", "*"),
        ("if-none-match", "\"x\", W/\"y\""),
        ("if-none-match", "unquoted"),
        ("origin", "https://a.example"),
        ("pragma", "no-cache"),
        ("prefer", "wait=0"),
        ("priority", "u=1"),
        ("range", "bytes=0-1"),
        ("referer", "https://a.example"),
        ("te", "trailers"),
        ("traceparent", "00-1-2-01"),
        ("user-agent", "sdk/1"),
        ("x-gateway-caller", ""),
        ("x-http-method", "PUT"),
        ("x-request-id", "mine"),
        ("x-request-id", "not fit"),
    ];
    let method = if random.u8(..8) == 0 {
        Method::HEAD
    } else {
        Method::GET
    };
    let target = TARGETS[random.usize(..TARGETS.len())];
    let token = ["t", "t", "u", ""][random.usize(..4)];
    let mut ask = request(
        method,
        target,
        token,
        if random.u8(..16) == 0 { "{}" } else { "" },
    );
    for _ in 0..random.usize(..4) {
        let (name, value) = FIELDS[random.usize(..FIELDS.len())];
        ask = with(ask, name, value);
    }
    for removed in ["host", "content-type", "authorization"] {
        if random.u8(..16) == 0 {
            ask.headers_mut().remove(removed);
        }
    }
    ask
}

#[tokio::test(start_paused = true)]
async fn the_short_way_gives_the_very_answer_of_the_long_one() {
    let world = with_a_store().await;
    let mut random = fastrand::Rng::with_seed(7);
    let mut short = 0;
    for _ in 0..20_000 {
        let ask = any(&mut random);
        let shown = format!("{ask:?}");
        let the_same = with(ask.clone(), UNKNOWN, "1");
        let Some(mut answer) = at_once(&world, ask).await else {
            continue;
        };
        short += 1;
        let mut expected = world.send(the_same).await;
        assert!(!answer.header("x-request-id").is_empty(), "{shown}");
        if answer.header("x-request-id") != "mine" {
            answer.headers.remove("x-request-id");
            expected.headers.remove("x-request-id");
        }
        assert_eq!(answer.status, expected.status, "{shown}");
        assert_eq!(answer.headers, expected.headers, "{shown}");
        assert_eq!(answer.body, expected.body, "{shown}");
    }
    assert!(short > 1_000, "{short} by the fast path");
}

#[tokio::test(start_paused = true)]
async fn what_comes_by_the_short_way_is_counted_like_any_hit() {
    let world = with_a_store().await;
    let hits = "segment_gateway_requests_total{code=\"2xx\",operation=\"getUser\",outcome=\"hit\"}";
    for sent in 1..=3 {
        let ask = if sent == 2 {
            with(get(USER, &[]), UNKNOWN, "1")
        } else {
            get(USER, &[])
        };
        world.send(ask).await;
        let shown = crate::support::exposition::metrics(&world).await;
        assert!(shown.contains(&format!("{hits} {sent}\n")), "{shown}");
        assert!(shown.contains(&format!("hit_duration_seconds_count {sent}\n")));
        assert!(shown.contains("segment_gateway_response_bodies_in_flight 0\n"));
    }
    let unchanged = get(USER, &[("if-none-match", "*")]);
    let answer = at_once(&world, unchanged).await.expect("a hit");
    assert_eq!(answer.status, 304);
    let shown = crate::support::exposition::metrics(&world).await;
    let unchanged = hits.replace("2xx", "3xx");
    assert!(shown.contains(&format!("{unchanged} 1\n")), "{shown}");
    assert!(shown.contains("hit_duration_seconds_count 4\n"));
}

#[tokio::test(start_paused = true)]
async fn tokens_that_share_a_connection_share_no_answers() {
    let world = World::new(SandboxSpec::default());
    let ask = |token: &str| request(Method::GET, USER, token, "");
    for token in ["t", "u"] {
        assert!(at_once(&world, ask(token)).await.is_none(), "{token}");
        world.send(ask(token)).await;
    }
    for token in ["t", "u", "t", "t", "u"] {
        assert!(at_once(&world, ask(token)).await.is_some(), "{token}");
        for other in ["v", "tt", "T", ""] {
            assert!(at_once(&world, ask(other)).await.is_none(), "{other}");
        }
    }
    // One token in two spellings is one credential here as on the full path.
    let mut spelled = ask("t");
    let value = "bearer  t".parse().unwrap();
    spelled.headers_mut().insert("authorization", value);
    assert!(at_once(&world, spelled).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_comes_by_the_short_way_has_the_line_of_any_hit_where_all_have_one() {
    let mut setup = Setup::new(SandboxSpec::default());
    setup.config.log.access = LogAccess::All;
    let world = setup.start();
    world.get(USER, "t").await;
    let line = |ask: Ask| {
        let (world, log) = (&world, Log::default());
        async move {
            let _guard = log.listen();
            world.send(ask).await;
            let text = log.text();
            let line = text.lines().find(|line| line.contains("outcome=\"hit\""));
            let line = line.unwrap_or_else(|| panic!("{text}"));
            // Without its time, and the span that is heard here because the test hears all levels.
            line.split_once("report: ").unwrap().1.to_owned()
        }
    };
    let ask = || get(USER, &[("x-request-id", "mine")]);
    let short = line(ask()).await;
    assert_eq!(short, line(with(ask(), UNKNOWN, "1")).await);
    assert!(short.contains("request_id=\"mine\""), "{short}");
    assert!(at_once(&world, ask()).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn where_the_layers_tell_of_each_request_none_passes_them_by() {
    let mut setup = Setup::new(SandboxSpec::default());
    setup.config.log.level = LogLevel::Debug;
    let world = setup.start();
    world.get(USER, "t").await;
    assert!(at_once(&world, get(USER, &[])).await.is_none());
}
