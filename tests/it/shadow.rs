//! Shadow mode through the whole stack: everything is forwarded as if the gateway were not there, and
//! what would have become of it is told.

use super::support::exposition::{metrics, samples, shown};
use super::support::log::Log;
use super::support::scripted::{Script, Seen, Step, answer, field};
use super::support::{Answer, Setup, World, all, request, slow, with};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use segment_gateway::config::{self, Mode, Size};
use segment_gateway::sandbox::SandboxSpec;
use segment_gateway::upstream::MemoryConnector;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

const NOTHING: &str = r#"{"permissions":[]}"#;
const USER: &str = "/users/user-00001";

fn setup(spec: SandboxSpec) -> Setup {
    let mut setup = Setup::new(spec);
    setup.config.mode = Mode::Shadow;
    setup
}

fn over(script: &Arc<Script>) -> Arc<World> {
    script.world_of(setup(SandboxSpec::default()))
}

fn get(target: &str) -> Request<Full<Bytes>> {
    request(Method::GET, target, "a", "")
}

fn put(user: usize) -> Request<Full<Bytes>> {
    let target = format!("/users/user-{user:05}/permissions");
    request(Method::PUT, &target, "a", NOTHING)
}

fn said(answer: &Answer) -> &str {
    answer.header("x-gateway-shadow")
}

/// The values of a metric by the value of one of its labels, summed over the others.
async fn by(world: &World, metric: &str, label: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for (name, labels, value) in samples(&metrics(world).await) {
        if name != metric {
            continue;
        }
        let label = labels.iter().find(|(name, _)| name == label);
        *sums.entry(label.unwrap().1.clone()).or_default() += value;
    }
    sums
}

fn counts<const N: usize>(of: [(&str, f64); N]) -> BTreeMap<String, f64> {
    of.map(|(name, value)| (name.to_owned(), value)).into()
}

const REQUESTS: &str = "segment_gateway_shadow_requests_total";
const COMPARED: &str = "segment_gateway_shadow_compared_total";

#[tokio::test(start_paused = true)]
async fn two_hundred_writes_reach_the_api_at_once_and_once() {
    let world = Arc::new(setup(slow()).start());
    let began = Instant::now();
    let answers = all(&world, (0..200).map(put).collect()).await;
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    let arrivals = world.sandbox.arrivals();
    let targets: BTreeSet<_> = arrivals.iter().map(|arrival| &arrival.target).collect();
    assert_eq!((arrivals.len(), targets.len()), (200, 200));
    let refused = answers.iter().filter(|answer| answer.status == 429);
    assert_eq!(refused.clone().count(), 140);
    for answer in refused {
        assert!(
            answer.json()["errors"][0]["data"]["msBeforeNext"].is_number(),
            "{answer:?}"
        );
        assert_eq!(answer.header("cache-status"), "segment-gateway; fwd=method");
    }
    // Three rounds of 60 fit into 150 s.
    assert_eq!(said(&answers[59]), "at-once");
    assert_eq!(said(&answers[60]), "queued; wait=60.310");
    assert_eq!(said(&answers[179]), "queued; wait=120.620");
    assert_eq!(said(&answers[180]), "refused; reason=wait; wait=180.930");
    let verdicts = counts([("at-once", 60.0), ("queued", 120.0), ("refused", 20.0)]);
    assert_eq!(by(&world, REQUESTS, "verdict").await, verdicts);
    assert_eq!(
        by(&world, REQUESTS, "cache").await,
        counts([("none", 200.0)])
    );
    // It was the API that refused what would have been spread.
    let throttled = by(&world, "segment_gateway_shadow_throttled_total", "verdict").await;
    assert_eq!(throttled, counts([("queued", 120.0), ("refused", 20.0)]));
    let waits = by(
        &world,
        "segment_gateway_shadow_queue_duration_seconds_count",
        "operation",
    )
    .await;
    assert_eq!(waits, counts([("replacePermissionsForUser", 180.0)]));
    let outcomes = by(&world, "segment_gateway_requests_total", "outcome").await;
    assert_eq!(outcomes, counts([("written", 200.0)]));
    assert_eq!(world.gateway.budgets().waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_429_of_the_api_reaches_the_caller_unaltered() {
    const BODY: &str = r#"{"errors":[{"type":"too-many","data":{"msBeforeNext":7000}}], "x": 1}"#;
    for method in [Method::GET, Method::PUT] {
        let script = Script::new(|_, _| {
            let refusal = field(answer(429, BODY), "retry-after", "7");
            let refusal = field(refusal, "x-ratelimit-remaining", "0");
            Step::Answer(field(refusal, "x-mine", "kept"))
        });
        let world = over(&script);
        let target = "/users/user-00001/permissions";
        let heard = world.write(method, target, "a", NOTHING).await;
        assert_eq!(heard.status, 429);
        assert_eq!(heard.body, BODY);
        for (name, value) in [
            ("retry-after", "7"),
            ("x-ratelimit-remaining", "0"),
            ("x-mine", "kept"),
            ("content-type", "application/json"),
        ] {
            assert_eq!(heard.header(name), value);
        }
        assert_eq!(script.count(), 1);
        let throttled = by(&world, "segment_gateway_throttled_total", "origin").await;
        assert_eq!(throttled["upstream"], 1.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_would_be_hit_is_forwarded_and_compared() {
    let script = Script::new(|_, before| {
        let body = if before < 3 {
            r#"{"data":1}"#
        } else {
            r#"{"data":2}"#
        };
        Step::Answer(answer(200, body))
    });
    let world = over(&script);
    let log = Log::default();
    let listening = log.listen();
    for (expected, data) in [
        ("at-once; cache=miss", 1),
        ("hit; compared=same", 1),
        ("hit; compared=same", 1),
        // Somebody has changed it behind the gateway's back.
        ("hit; compared=different", 2),
    ] {
        let heard = world.send(get(USER)).await;
        assert_eq!(said(&heard), expected);
        assert_eq!(heard.json()["data"], data);
        assert_eq!(
            heard.cache_status(),
            "segment-gateway; fwd=bypass; detail=shadow"
        );
    }
    drop(listening);
    assert_eq!(script.count(), 4);
    assert_eq!(
        by(&world, REQUESTS, "verdict").await,
        counts([("at-once", 1.0), ("hit", 3.0)])
    );
    let compared = counts([("different", 1.0), ("same", 2.0)]);
    assert_eq!(by(&world, COMPARED, "result").await, compared);
    let text = log.text();
    assert!(
        text.contains("shadow=\"hit; compared=different\""),
        "{text}"
    );
    assert!(
        text.contains("differs from the API's response operation=\"getUser\""),
        "{text}"
    );
    // It would have been shown until the end of its time, so it is stored for as long.
    sleep(Duration::from_secs(61)).await;
    assert_eq!(said(&world.send(get(USER)).await), "at-once; cache=miss");
    assert_eq!(said(&world.send(get(USER)).await), "hit; compared=same");
}

#[tokio::test(start_paused = true)]
async fn what_an_answer_is_compared_by() {
    let reply: Arc<std::sync::Mutex<Response<Bytes>>> = Arc::default();
    let next = Arc::clone(&reply);
    let script = Script::new(move |_, _| Step::Answer(next.lock().unwrap().clone()));
    let world = over(&script);
    let stored = field(answer(200, "{}"), "etag", "\"one\"");
    let not_modified = |tag| {
        let mut answer = field(answer(304, ""), "etag", tag);
        answer.headers_mut().remove("content-type");
        answer
    };
    let asking = |tag| with(get(USER), "if-none-match", tag);
    *reply.lock().unwrap() = stored.clone();
    assert_eq!(said(&world.send(get(USER)).await), "at-once; cache=miss");
    for (ask, answered, expected) in [
        (get(USER), stored.clone(), "hit; compared=same"),
        (get(USER), answer(200, "{ }"), "hit; compared=different"),
        (get(USER), answer(404, "{}"), "hit; compared=different"),
        // They say nothing of the data.
        (get(USER), answer(500, "{}"), "hit"),
        (get(USER), answer(429, "{}"), "hit"),
        (
            asking("\"one\""),
            not_modified("\"one\""),
            "hit; compared=same",
        ),
        (
            asking("\"two\""),
            not_modified("\"two\""),
            "hit; compared=different",
        ),
        (asking("\"two\""), stored.clone(), "hit; compared=same"),
        (
            with(get(USER), "range", "bytes=0-0"),
            answer(206, "{"),
            "hit",
        ),
        (request(Method::HEAD, USER, "a", ""), answer(200, ""), "hit"),
    ] {
        let status = answered.status();
        *reply.lock().unwrap() = answered;
        let heard = world.send(ask).await;
        assert_eq!((said(&heard), heard.status), (expected, status));
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_makes_the_next_read_a_miss() {
    let world = setup(slow()).start();
    for expected in ["at-once; cache=miss", "hit; compared=same"] {
        assert_eq!(said(&world.send(get(USER)).await), expected);
    }
    let other = "/users/user-00002";
    assert_eq!(said(&world.send(get(other)).await), "at-once; cache=miss");
    assert_eq!(world.send(put(1)).await.status, 200);
    assert_eq!(said(&world.send(get(other)).await), "hit; compared=same");
    // While the API may lag nothing is stored.
    for _ in 0..2 {
        assert_eq!(said(&world.send(get(USER)).await), "at-once; cache=miss");
    }
    sleep(Duration::from_secs(3)).await;
    for expected in ["at-once; cache=miss", "hit; compared=same"] {
        assert_eq!(said(&world.send(get(USER)).await), expected);
    }
    // One that was refused has changed nothing.
    let script = Script::new(|seen, _| {
        Step::Answer(answer(
            if seen.method == Method::PUT { 429 } else { 200 },
            "{}",
        ))
    });
    let world = over(&script);
    world.send(get(USER)).await;
    assert_eq!(world.send(put(1)).await.status, 429);
    assert_eq!(said(&world.send(get(USER)).await), "hit; compared=same");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_collapsed_and_joiners_are_told() {
    let script = Script::new(|_, _| Step::Later(Duration::from_secs(1), answer(200, "{}")));
    let world = over(&script);
    let answers = all(&world, (0..5).map(|_| get(USER)).collect()).await;
    assert_eq!(script.count(), 5);
    let verdicts: Vec<_> = answers.iter().map(said).collect();
    assert_eq!(verdicts[0], "at-once; cache=miss");
    assert_eq!(verdicts[1..], ["joined"; 4]);
}

#[tokio::test(start_paused = true)]
async fn writes_that_would_have_travelled_together_are_counted() {
    let script = Script::new(|_, _| Step::Answer(answer(201, r#"{"data":{}}"#)));
    let world = over(&script);
    let invite = |n: usize| {
        let body = format!(r#"{{"invites":[{{"email":"guest-{n}@example.com"}}]}}"#);
        request(Method::POST, "/invites", "a", &body)
    };
    let answers = all(&world, (0..200).map(invite).collect()).await;
    assert_eq!(script.count(), 200);
    assert_eq!(said(&answers[60]), "queued; wait=60.310");
    assert_eq!(said(&answers[61]), "merged; wait=60.310");
    // Of fifty each, the last of forty.
    let verdicts = counts([("at-once", 60.0), ("merged", 137.0), ("queued", 3.0)]);
    assert_eq!(by(&world, REQUESTS, "verdict").await, verdicts);
}

#[tokio::test(start_paused = true)]
async fn the_edge_still_refuses_what_is_malformed() {
    let script = Script::new(|_, _| Step::Answer(answer(200, "{}")));
    let world = over(&script);
    let twice = with(get(USER), "authorization", "Bearer b");
    let caller = with(get(USER), "x-gateway-caller", "");
    for ask in [twice, caller] {
        let refused = world.send(ask).await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.error_type(), "gateway-bad-request");
        assert_eq!(said(&refused), "");
    }
    assert_eq!(script.count(), 0);
    let outcomes = by(&world, "segment_gateway_requests_total", "outcome").await;
    assert_eq!(outcomes, counts([("refused", 2.0)]));
    assert_eq!(by(&world, REQUESTS, "verdict").await, counts([]));
}

/// What a caller sent, and what of it arrived.
fn differences(sent: &HeaderMap, seen: &Seen) -> BTreeSet<String> {
    let lines = |headers: &HeaderMap| -> BTreeSet<(String, Bytes)> {
        let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (name.to_string(), Bytes::copy_from_slice(value.as_bytes()))
        };
        headers.iter().map(line).collect()
    };
    let (sent, arrived) = (lines(sent), lines(&seen.headers));
    let differing = sent.symmetric_difference(&arrived);
    differing.map(|(name, _)| name.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn whatever_is_odd_is_as_without_the_gateway() {
    let script = Script::new(|seen, _| {
        let status = if seen.headers.contains_key("if-none-match") {
            304
        } else {
            206
        };
        let mut reply = answer(status, if status == 304 { "" } else { "a part" });
        if status == 304 {
            reply.headers_mut().remove("content-type");
        }
        Step::Answer(field(reply, "set-cookie", "x=y"))
    });
    let world = over(&script);
    let fields = [
        ("if-none-match", "\"sg-0123\", W/\"x\""),
        ("if-modified-since", "yesterday"),
        ("if-match", "*"),
        ("range", "bytes=0-1"),
        ("cookie", "a=b"),
        ("cache-control", "only-if-cached, no-store, max-age=0"),
        ("pragma", "no-cache"),
        ("accept-encoding", "br, zstd"),
        ("x-http-method-override", "PATCH"),
        ("idempotency-key", "\"one\""),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
    ];
    let own = [
        ("prefer", "wait=0, respond-async"),
        ("priority", "u=0"),
        ("x-gateway-caller", "job"),
    ];
    let target = "/users/user-00001?a=1&a=2&b[0]=%41&&c";
    let odd = |without: &[&str]| {
        let fields = fields.into_iter().chain(own);
        let mut ask = get(target);
        for (name, value) in fields.filter(|(name, _)| !without.contains(name)) {
            ask = with(ask, name, value);
        }
        ask
    };
    for (without, status) in [
        (&[][..], 304),
        (&["if-none-match"], 206),
        (&["x-http-method-override"], 304),
        (&["x-http-method-override", "cookie", "if-match"], 304),
    ] {
        let ask = odd(without);
        let sent = ask.headers().clone();
        let heard = world.send(ask).await;
        assert_eq!(heard.status, status, "{without:?} {heard:?}");
        assert_eq!(heard.header("set-cookie"), "x=y");
        assert!(!said(&heard).is_empty());
        let seen = script.seen().pop().unwrap();
        assert_eq!((seen.method.clone(), &*seen.target), (Method::GET, target));
        let hop = ["host", "prefer", "priority", "via", "x-gateway-caller"];
        let differences = differences(&sent, &seen);
        let expected: BTreeSet<String> = hop.map(str::to_owned).into();
        assert_eq!(differences, expected);
    }
    assert_eq!(script.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_to_outlast_a_crash_is_forwarded_plainly() {
    let script = Script::new(|_, _| Step::Answer(answer(201, r#"{"data":{}}"#)));
    let world = over(&script);
    let invite = || {
        request(
            Method::POST,
            "/invites",
            "a",
            r#"{"invites":[{"email":"a@b.c"}]}"#,
        )
    };
    let keyed = || with(invite(), "idempotency-key", "\"one\"");
    let deferred = || with(invite(), "prefer", "respond-async");
    for ask in [
        keyed(),
        keyed(),
        deferred(),
        with(keyed(), "prefer", "respond-async"),
    ] {
        let has_key = ask.headers().contains_key("idempotency-key");
        let heard = world.send(ask).await;
        assert_eq!((heard.status.as_u16(), said(&heard)), (201, "at-once"));
        assert_eq!(heard.header("idempotency-replayed"), "");
        let seen = script.seen().pop().unwrap();
        assert_eq!(seen.headers.contains_key("idempotency-key"), has_key);
        assert!(!seen.headers.contains_key("prefer"));
    }
    assert_eq!(script.count(), 4);
    assert_eq!(world.durable().queued + world.durable().dispatched, 0);
    // What is no key would be refused, and is for the API to judge.
    let heard = world.send(with(invite(), "idempotency-key", "")).await;
    assert_eq!(
        (heard.status.as_u16(), said(&heard)),
        (201, "refused; reason=key")
    );
    // What nobody waits for waits as long as it takes; what asks not to wait does not.
    let writes: Vec<_> = (0..70)
        .map(|n| with(put(n), "prefer", "respond-async"))
        .collect();
    let answers = all(&world, writes).await;
    assert_eq!(said(&answers[69]), "queued; wait=60.310");
    let impatient = world.send(with(put(1), "prefer", "wait=0")).await;
    assert_eq!(said(&impatient), "refused; reason=wait; wait=60.310");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_hangs_up_does_not_end_its_write() {
    let script = Script::new(|seen, _| {
        if seen.method == Method::GET {
            return Step::Answer(answer(200, "{}"));
        }
        Step::Later(Duration::from_secs(5), answer(200, "{}"))
    });
    let world = over(&script);
    world.send(get(USER)).await;
    assert_eq!(said(&world.send(get(USER)).await), "hit; compared=same");
    let write = world.spawn(put(1));
    sleep(Duration::from_secs(1)).await;
    write.abort();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(script.count(), 3);
    let outcomes = by(&world, "segment_gateway_requests_total", "outcome").await;
    assert_eq!(outcomes["hung-up"], 1.0);
    assert_eq!(said(&world.send(get(USER)).await), "at-once; cache=miss");
}

#[tokio::test(start_paused = true)]
async fn a_write_of_unknown_outcome_is_told_so_and_not_repeated() {
    let script = Script::new(|seen, _| {
        if seen.method == Method::GET {
            return Step::Answer(answer(200, "{}"));
        }
        Step::Close
    });
    let world = over(&script);
    world.send(get(USER)).await;
    let heard = world.send(put(1)).await;
    assert_eq!(heard.error_type(), "gateway-outcome-unknown");
    assert_eq!(said(&heard), "at-once");
    assert_eq!(script.count(), 2);
    sleep(Duration::from_secs(5)).await;
    // For as long as it may still take effect nothing is stored.
    for _ in 0..2 {
        assert_eq!(said(&world.send(get(USER)).await), "at-once; cache=miss");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_not_accepted_is_not_tried_again() {
    let script = Script::new(|_, _| Step::Answer(answer(200, "{}")));
    let world = over(&script);
    script.refuse(2);
    for ask in [get(USER), put(1)] {
        let heard = world.send(ask).await;
        assert_eq!(heard.status, StatusCode::BAD_GATEWAY);
        assert_eq!(heard.error_type(), "gateway-upstream-unreachable");
        assert!(said(&heard).starts_with("at-once"));
    }
    assert_eq!(script.count(), 0);
    assert_eq!(world.send(put(1)).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_body_is_passed_on_whatever_its_length() {
    let long = "x".repeat(300_000);
    let body = long.clone();
    let script = Script::new(move |_, _| Step::Answer(answer(200, &body)));
    let mut setup = setup(SandboxSpec::default());
    setup.config.cache.largest_body = Size(300_000);
    let world = script.world_of(setup);
    for expected in ["at-once; cache=miss", "hit; compared=same"] {
        let heard = world.send(get(USER)).await;
        assert_eq!((said(&heard), heard.body.len()), (expected, long.len()));
        assert_eq!(heard.header("content-length"), "300000");
        assert!(heard.body == long);
    }
    let mut setup = self::setup(SandboxSpec::default());
    setup.config.cache.largest_body = Size(299_999);
    let world = script.world_of(setup);
    for _ in 0..2 {
        let heard = world.send(get(USER)).await;
        assert_eq!(said(&heard), "at-once; cache=miss");
        assert!(heard.body == long);
    }
}

/// An API that writes these pieces for its connections, one list for each, with ten seconds before
/// each further piece, and then closes.
fn in_pieces(answers: &'static [&'static [&'static str]]) -> World {
    let given = Arc::new(AtomicUsize::new(0));
    let connector = MemoryConnector::new(move || {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let pieces = answers[given.fetch_add(1, Ordering::SeqCst)];
        drop(tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(theirs.read_u8().await?);
            }
            for (index, piece) in pieces.iter().enumerate() {
                if index > 0 {
                    sleep(Duration::from_secs(10)).await;
                }
                theirs.write_all(piece.as_bytes()).await?;
            }
            theirs.shutdown().await
        }));
        std::future::ready(Ok(ours))
    });
    setup(SandboxSpec::default()).start_over(connector)
}

#[tokio::test(start_paused = true)]
async fn a_body_is_passed_on_as_it_comes() {
    let world = in_pieces(&[
        &["HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\ntext"],
        &["HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nte", "xt"],
        &[
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nte\r\n",
            "2\r\nxt\r\n",
            "0\r\n\r\n",
        ],
        &["HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nte"],
        &["HTTP/1.1 200 OK\r\n\r\ntext"],
    ]);
    assert_eq!(said(&world.send(get(USER)).await), "at-once; cache=miss");
    for (pieces, expected, same) in [
        (&["te", "xt"][..], "hit", 1.0),
        (&["te", "xt"], "hit", 2.0),
        // It broke off, and tells nothing.
        (&["te"], "hit", 2.0),
        (&["text"], "hit; compared=same", 3.0),
    ] {
        let began = Instant::now();
        let ask = get(USER);
        let heard = world.connection(&ask).answer(ask).await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(100), "{pieces:?}");
        assert_eq!(heard.headers()["x-gateway-shadow"], expected, "{pieces:?}");
        let mut body = heard.into_body();
        for (index, piece) in pieces.iter().enumerate() {
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), piece);
            assert_eq!(began.elapsed().as_secs(), 10 * index as u64, "{pieces:?}");
        }
        let end = body.frame().await;
        assert_eq!(end.is_some_and(|end| end.is_err()), pieces == ["te"]);
        assert_eq!(by(&world, COMPARED, "result").await["same"], same);
    }
}

#[tokio::test(start_paused = true)]
async fn reads_have_a_budget_too_and_stale_answers_would_stand_in() {
    let routes = include_str!("../../config/segment.toml").replace(
        "[operations.getUser]\n",
        "[operations.getUser]\nlimit = \"2 per 1m\"\nstale_if_limited = \"10m\"\n",
    );
    let script = Script::new(|_, _| Step::Answer(answer(200, "{}")));
    let mut setup = setup(SandboxSpec::default());
    setup.routes = Some(routes);
    let world = script.world_of(setup);
    let of = |user: u32| get(&format!("/users/user-{user:05}"));
    assert_eq!(said(&world.send(of(1)).await), "at-once; cache=miss");
    sleep(Duration::from_secs(50)).await;
    assert_eq!(said(&world.send(of(2)).await), "at-once; cache=miss");
    sleep(Duration::from_secs(11)).await;
    assert_eq!(said(&world.send(of(3)).await), "at-once; cache=miss");
    // 30 s are not enough; where there is something stale it would not even wait.
    assert_eq!(
        said(&world.send(of(4)).await),
        "refused; cache=miss; reason=wait; wait=49.310"
    );
    assert_eq!(said(&world.send(of(1)).await), "stale");
    assert_eq!(script.count(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_the_api_shows_is_the_one_that_counts() {
    let script = Script::new(|_, _| {
        let reply = field(answer(200, "{}"), "x-ratelimit-consumed", "1");
        Step::Answer(field(reply, "x-ratelimit-remaining", "1"))
    });
    let world = over(&script);
    let mut said_of = Vec::new();
    for user in 0..3 {
        said_of.push(said(&world.send(put(user)).await).to_owned());
    }
    assert_eq!(said_of, ["at-once", "at-once", "queued; wait=60.310"]);
}

#[tokio::test(start_paused = true)]
async fn operators_see_which_mode_it_is() {
    for (mode, name, value) in [(Mode::Shadow, "shadow", 1), (Mode::Enforce, "enforce", 0)] {
        let mut setup = setup(SandboxSpec::default());
        setup.config.mode = mode;
        let world = setup.start();
        let (_, status) = shown(&world, "/status").await;
        assert!(
            status.contains(&format!("\"mode\": \"{name}\"")),
            "{status}"
        );
        let line = format!("\nsegment_gateway_shadow_mode {value}\n");
        assert!(metrics(&world).await.contains(&line));
        let heard = world.send(get(USER)).await;
        assert_eq!(said(&heard).is_empty(), mode == Mode::Enforce);
        let own = world.send(get("/_gateway/writes")).await;
        assert_eq!((own.status.as_u16(), said(&own)), (200, ""));
    }
    let set = [("SEGMENT_GATEWAY__MODE".to_owned(), "shadow".to_owned())];
    let loaded = config::load(None, set.into_iter()).unwrap();
    assert_eq!(loaded.config.mode, Mode::Shadow);
    assert!(loaded.warnings[0].contains("limits are NOT enforced"));
}
