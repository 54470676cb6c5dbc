//! Reads through the whole stack: from the store, joined, fenced, isolated.

use super::support::scripted::{Script, Seen, Step, answer, field};
use super::support::{Answer, Setup, World, request, with};
use bytes::Bytes;
use http::Method;
use http_body::Frame;
use http_body_util::BodyExt;
use segment_gateway::sandbox::{Delay, SandboxSpec};
use segment_gateway::upstream::MemoryConnector;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};

fn slow() -> SandboxSpec {
    let half = Delay {
        base: Duration::from_millis(100),
        jitter: Duration::ZERO,
    };
    SandboxSpec {
        arrive: half,
        reply: half,
        ..SandboxSpec::default()
    }
}

#[tokio::test(start_paused = true)]
async fn every_spelling_of_a_query_is_one_key_and_a_write_is_seen_at_once() {
    let world = World::new(slow());
    let first = world.get("/users?pagination.count=2", "a").await;
    assert_eq!(
        first.cache_status(),
        "segment-gateway; fwd=uri-miss; stored"
    );
    for spelling in [
        "/users?pagination%5Bcount%5D=2",
        "/users?pagination[count]=2",
        "/users?pagination=%7B%22count%22%3A%202%7D",
    ] {
        let hit = world.get(spelling, "a").await;
        assert!(hit.header("cache-status").contains("; hit;"), "{spelling}");
        assert_eq!(hit.body, first.body);
    }
    let body =
        r#"{"permissions":[{"roleId":"source-admin","resources":[{"id":"s1","type":"SOURCE"}]}]}"#;
    let write = world
        .write(Method::PUT, "/users/user-00001/permissions", "b", body)
        .await;
    assert_eq!(write.status, 200, "{write:?}");
    let after = world.get("/users?pagination.count=2", "a").await;
    assert_ne!(after.body, first.body, "a write by another token is seen");
    assert!(
        after.header("cache-status").contains("settling"),
        "{after:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn no_credential_sees_the_answer_of_another() {
    let world = World::new(slow());
    world.get("/users/user-00001", "a").await;
    assert!(
        world
            .get("/users/user-00001", "a")
            .await
            .header("cache-status")
            .contains("hit")
    );
    let other = world.get("/users/user-00001", "b").await;
    assert!(
        other.header("cache-status").contains("uri-miss"),
        "{other:?}"
    );
    assert_eq!(world.sandbox.arrivals().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_token_in_another_spelling_is_one_credential_and_passes_as_it_is() {
    let script = Script::new(|_, n| Step::Answer(answer(200, &n.to_string())));
    let world = script.world();
    let spelt = |value: &str| {
        let mut ask = request(Method::GET, "/users", "", "");
        let headers = ask.headers_mut();
        headers.insert("authorization", value.parse().unwrap());
        ask
    };
    world.send(spelt("Bearer T")).await;
    for same in ["bearer T", "Bearer  T"] {
        assert!(is_hit(&world.send(spelt(same)).await), "{same:?}");
        world
            .send(with(spelt(same), "cache-control", "no-cache"))
            .await;
    }
    assert_eq!(world.gateway.budgets().snapshot().len(), 1, "one budget");
    for nobody in ["", "Bearer "] {
        let before = script.count();
        let refused = world.send(spelt(nobody)).await;
        assert_eq!(refused.error_type(), "gateway-no-credential");
        assert_eq!(script.count(), before);
    }
    world.send(spelt("bEARER  U")).await;
    let arrived = script.seen().pop().unwrap();
    assert_eq!(arrived.headers["authorization"], "bEARER  U");
}

#[tokio::test(start_paused = true)]
async fn an_empty_token_neither_makes_nor_lists_durable_writes() {
    let script = Script::new(|_, _| Step::Answer(answer(200, "{}")));
    let world = script.world();
    for nobody in ["", "Bearer", "bearer \t ", "Basic"] {
        let spelt = |method: Method, target: &str| {
            let mut ask = request(method, target, "", "{}");
            let value = nobody.parse().unwrap();
            ask.headers_mut().insert("authorization", value);
            ask
        };
        for (name, value) in [("prefer", "respond-async"), ("idempotency-key", "k")] {
            let ask = with(spelt(Method::POST, "/labels"), name, value);
            let refused = world.send(ask).await;
            assert_eq!(refused.status, 401, "{nobody:?}");
            assert_eq!(refused.error_type(), "gateway-no-credential");
        }
        let listed = world.send(spelt(Method::GET, "/_gateway/writes")).await;
        assert_eq!(listed.error_type(), "gateway-unauthorized", "{nobody:?}");
    }
    assert_eq!(script.count(), 0);
    let levels = world.durable();
    assert_eq!(levels.queued + levels.dispatched, 0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_readers_cost_one_fetch_even_if_the_first_hangs_up() {
    let world = Arc::new(World::new(slow()));
    let first = world.send(request(Method::GET, "/roles", "a", ""));
    assert!(
        tokio::time::timeout(Duration::from_millis(10), first)
            .await
            .is_err()
    );
    let mut readers = JoinSet::new();
    for _ in 0..1_000 {
        let world = Arc::clone(&world);
        readers.spawn(async move { world.get("/roles", "a").await });
    }
    let answers = readers.join_all().await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    let joined = |answer: &&Answer| answer.cache_status().ends_with("; collapsed");
    assert_eq!(answers.iter().filter(joined).count(), 1_000);
    assert_eq!(world.sandbox.arrivals().len(), 1);
}

const WRITE: &str = "/users/u/permissions";

fn is_hit(answer: &Answer) -> bool {
    answer.header("cache-status").contains("; hit;")
}

/// An API whose reads answer how many writes it had carried out when they arrived, after `delay`.
fn counting(delay: Duration) -> Arc<Script> {
    let writes = AtomicUsize::new(0);
    Script::new(move |seen: &Seen, _| {
        if seen.method == Method::GET {
            let state = writes.load(Ordering::SeqCst).to_string();
            return Step::Later(delay, answer(200, &state));
        }
        writes.fetch_add(1, Ordering::SeqCst);
        Step::Answer(answer(200, "{}"))
    })
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_a_write_overtook_is_not_joined_nor_handed_over() {
    let script = counting(Duration::from_secs(1));
    let world = script.world();
    let leader = world.spawn(request(Method::GET, "/users/u", "a", ""));
    sleep(Duration::from_millis(200)).await;
    let follower = world.spawn(request(Method::GET, "/users/u", "a", ""));
    sleep(Duration::from_millis(300)).await;
    assert_eq!(script.count(), 1, "the follower joined");
    // By another token: tags are the upstream's, not the credential's.
    assert_eq!(world.write(Method::PUT, WRITE, "b", "{}").await.status, 200);
    let late = world.spawn(request(Method::GET, "/users/u", "a", ""));
    assert_eq!(leader.await.unwrap().body, "0", "it began before the write");
    assert_eq!(follower.await.unwrap().body, "1", "judged at hand-over");
    assert_eq!(late.await.unwrap().body, "1", "did not join");
    sleep(Duration::from_secs(3)).await;
    assert_eq!(
        world.get("/users/u", "a").await.body,
        "1",
        "nothing old is stored"
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_lagging_api_shows_after_a_write_is_not_kept() {
    let world = World::new(SandboxSpec {
        replication_lag: Duration::from_secs(1),
        ..SandboxSpec::default()
    });
    let target = "/users/user-00001/permissions";
    let old = world.get("/users/user-00001", "a").await;
    let body = r#"{"permissions":[]}"#;
    assert_eq!(
        world.write(Method::PUT, target, "a", body).await.status,
        200
    );
    let lagging = world.get("/users/user-00001", "a").await;
    assert_eq!(lagging.body, old.body, "so would a direct read have been");
    assert!(lagging.header("cache-status").contains("detail=settling"));
    sleep(Duration::from_millis(1_100)).await;
    let new = world.get("/users/user-00001", "a").await;
    assert_ne!(new.body, old.body);
    assert!(!is_hit(&new));
    sleep(Duration::from_secs(1)).await;
    assert!(!is_hit(&world.get("/users/user-00001", "a").await));
    assert!(is_hit(&world.get("/users/user-00001", "a").await));
}

#[tokio::test(start_paused = true)]
async fn a_write_without_an_outcome_is_taken_for_carried_out_by_reads() {
    for step in [
        Step::Close,
        Step::Silent,
        Step::Answer(answer(500, "{}")),
        Step::Answer(answer(503, "unavailable")),
    ] {
        let what = step.clone();
        let script = Script::new(move |seen: &Seen, _| match seen.method {
            Method::GET => Step::Answer(answer(200, "{}")),
            _ => step.clone(),
        });
        let world = script.world();
        world.get("/users/u", "a").await;
        assert!(is_hit(&world.get("/users/u", "a").await));
        assert!(
            world
                .write(Method::PUT, WRITE, "a", "{}")
                .await
                .status
                .is_server_error()
        );
        // Q begins with the end of the last attempt. Where another was to follow, but did not leave
        // in time, the caller heard up to 15 s after that.
        for wait in [0, 30, 14] {
            sleep(Duration::from_secs(wait)).await;
            let read = world.get("/users/u", "a").await;
            assert!(
                !is_hit(&read),
                "{what:?}: it may take effect for Q: {read:?}"
            );
        }
        sleep(Duration::from_secs(17)).await;
        assert!(!is_hit(&world.get("/users/u", "a").await), "{what:?}");
        assert!(is_hit(&world.get("/users/u", "a").await), "{what:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_is_not_served_from_the_store() {
    let revoked = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&revoked);
    let script = Script::new(move |seen: &Seen, _| {
        let is_a = seen.headers["authorization"] == "Bearer a";
        if is_a && flag.load(Ordering::SeqCst) {
            Step::Answer(answer(401, "{}"))
        } else {
            Step::Answer(answer(200, "{}"))
        }
    });
    let world = script.world();
    for target in ["/users/u", "/roles", "/groups"] {
        world.get(target, "a").await;
        world.get(target, "b").await;
    }
    revoked.store(true, Ordering::SeqCst);
    assert!(
        is_hit(&world.get("/users/u", "a").await),
        "nobody knows yet"
    );
    assert_eq!(world.get("/users/other", "a").await.status, 401);
    assert_eq!(
        world.get("/users/u", "a").await.status,
        401,
        "its operation"
    );
    assert!(
        is_hit(&world.get("/roles", "a").await),
        "one operation alone"
    );
    assert_eq!(world.get("/invites", "a").await.status, 401);
    assert_eq!(
        world.get("/roles", "a").await.status,
        401,
        "a second one: all"
    );
    assert_eq!(world.get("/groups", "a").await.status, 401);
    for target in ["/users/u", "/roles", "/groups"] {
        assert!(is_hit(&world.get(target, "b").await), "another token's own");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_not_for_the_cache_pass_and_leave_it_alone() {
    let script = Script::new(|_, n| Step::Answer(answer(200, &n.to_string())));
    let world = script.world();
    let plain = || request(Method::GET, "/users", "a", "");
    let odd = request(
        Method::GET,
        "/users?pagination.count=1&pagination.count=2",
        "a",
        "",
    );
    let mixed = request(
        Method::GET,
        "/users?pagination.count=1&pagination[cursor]=x",
        "a",
        "",
    );
    let cases = [
        ("query", odd),
        ("query", mixed),
        ("conditional", with(plain(), "if-match", "\"x\"")),
        (
            "conditional",
            with(
                plain(),
                "if-unmodified-since",
                "Mon, 23 Nov 2026 19:26:29 GMT",
            ),
        ),
        ("cookie", with(plain(), "cookie", "a=b")),
        (
            "request-no-store",
            with(plain(), "cache-control", "no-store"),
        ),
    ];
    let stored = world.send(plain()).await;
    for (why, ask) in cases {
        let before = script.count();
        let shown = format!("{why} {ask:?}");
        let names: Vec<_> = ask.headers().keys().cloned().collect();
        let passed = world.send(ask).await;
        let status = passed.header("cache-status");
        assert!(
            status.contains(&format!("detail={why}")) || status.contains(&format!("fwd={why}")),
            "{shown}: {status}"
        );
        assert_eq!(script.count(), before + 1, "{shown}");
        let arrived = script.seen().pop().unwrap();
        for name in names {
            assert!(arrived.headers.contains_key(&name), "{name} passes");
        }
        let again = world.send(plain()).await;
        assert!(is_hit(&again), "{shown}");
        assert_eq!(again.body, stored.body, "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_fetches_and_renews_what_is_stored() {
    let script = Script::new(|_, n| Step::Answer(answer(200, &n.to_string())));
    let world = script.world();
    let plain = || request(Method::GET, "/users", "a", "");
    assert_eq!(world.send(plain()).await.body, "0");
    for (n, directive) in ["no-cache", "max-age=0"].into_iter().enumerate() {
        let reload = world.send(with(plain(), "cache-control", directive)).await;
        assert_eq!(reload.body, (n + 1).to_string(), "{directive}");
        let after = world.send(plain()).await;
        assert!(is_hit(&after) && after.body == reload.body, "{directive}");
    }
    sleep(Duration::from_secs(7)).await;
    assert_eq!(world.send(plain()).await.header("age"), "7");
}

/// A body without a byte that takes a while to say so.
struct EndsLate(Pin<Box<Sleep>>);

impl http_body::Body for EndsLate {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.get_mut().0.as_mut().poll(context).map(|()| None)
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_expires_while_the_request_arrives_is_not_shown() {
    let script = Script::new(|_, n| Step::Answer(answer(200, &n.to_string())));
    let world = script.world();
    world.get("/users", "a").await;
    for (pause, expected) in [(40, true), (0, false)] {
        sleep(Duration::from_secs(pause)).await;
        let slow = EndsLate(Box::pin(sleep(Duration::from_secs(15))));
        let ask = request(Method::GET, "/users", "a", "").map(|_| slow);
        let answered = world.gateway.answer(ask).await;
        let status = answered.headers()["cache-status"].to_str().unwrap();
        assert_eq!(status.contains("; hit;"), expected, "{status}");
    }
}

/// The embedded routes, with one list of users in a minute.
fn one_list_a_minute() -> Setup {
    let routes = include_str!("../../config/segment.toml");
    let list = "path = \"/users\"\ncache = \"60s\"\n";
    assert!(routes.contains(list));
    let mut setup = Setup::new(SandboxSpec::default());
    setup.routes = Some(routes.replace(list, &format!("{list}limit = \"1 per 1m\"\n")));
    setup
}

#[tokio::test(start_paused = true)]
async fn those_who_join_a_fetch_in_line_wait_as_long_as_they_may_themselves() {
    let late = Duration::from_secs(20);
    let script = Script::new(move |_, n| match n {
        0 => Step::Answer(answer(200, "{}")),
        _ => Step::Later(late, answer(200, "{}")),
    });
    let world = script.world_of(one_list_a_minute());
    let began = Instant::now();
    let ask = |wait: &str| with(request(Method::GET, "/users", "a", ""), "prefer", wait);
    world.get("/users?pagination.count=1", "a").await;
    let leader = world.spawn(ask("wait=120"));
    sleep(Duration::from_secs(1)).await;
    let patient = world.spawn(ask("wait=100"));

    let refused = world.send(ask("wait=0")).await;
    assert!(began.elapsed() < Duration::from_secs(2), "at once");
    assert_eq!(refused.status, 503);
    assert_eq!(refused.error_type(), "gateway-queue-wait");
    let estimate = refused.json()["errors"][0]["data"]["estimatedWaitMs"].as_u64();
    assert!(estimate.is_some_and(|wait| wait > 59_000), "{refused:?}");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 59);

    let expired = world.send(ask("wait=10")).await;
    let waited = began.elapsed().as_millis();
    assert!((10_900..11_200).contains(&waited), "{waited} ms");
    assert_eq!(expired.status, 503);
    assert_eq!(expired.error_type(), "gateway-queue-expired");

    // Once it has been sent, everyone waits for the answer.
    sleep(Duration::from_secs(55)).await;
    assert_eq!(script.count(), 2);
    let joined = world.send(ask("wait=0")).await;
    assert!(joined.cache_status().ends_with("; collapsed"));
    assert!(joined.header("ratelimit").contains(";r="), "{joined:?}");
    for reader in [leader, patient] {
        assert_eq!(reader.await.unwrap().status, 200);
    }
    assert_eq!(script.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn many_who_do_not_wait_share_a_fetch_whose_slot_is_free() {
    let world = World::new(slow());
    let world = Arc::new(world);
    let ask = || with(request(Method::GET, "/roles", "a", ""), "prefer", "wait=0");
    let readers: Vec<_> = (0..300).map(|_| world.spawn(ask())).collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap().status, 200);
    }
    assert_eq!(world.sandbox.arrivals().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_fetch_longer_than_the_balancer_in_front_does() {
    let late = Duration::from_secs(25);
    let script = Script::new(move |_, _| Step::Later(late, answer(200, "{}")));
    let mut setup = Setup::new(SandboxSpec::default());
    setup.config.wait.caller_timeout = Some(Duration::from_secs(20));
    let world = script.world_of(setup);
    let ask = || world.spawn(request(Method::GET, "/users", "a", ""));
    let began = Instant::now();
    let first = ask();
    sleep(Duration::from_secs(1)).await;
    let second = ask();
    sleep(Duration::from_secs(9)).await;
    let third = ask();
    for (reader, at) in [(first, 20), (second, 21)] {
        let answered = reader.await.unwrap();
        assert_eq!(began.elapsed().as_secs(), at);
        assert_eq!(answered.status, 504);
        assert_eq!(answered.error_type(), "gateway-upstream-timeout");
    }
    assert_eq!(third.await.unwrap().status, 200, "the fetch went on");
    assert!(is_hit(&world.get("/users", "a").await));
    assert_eq!(script.count(), 1);
}

/// An API of one answer, which it writes by hand: `fields` after a second, then piece by piece of
/// the body after so many seconds each, of 6 bytes that it announces; then it closes, or hangs.
fn by_hand(
    fields: &str,
    body: &'static [(u64, &str)],
    hangs: bool,
) -> (Arc<World>, Arc<AtomicUsize>) {
    let arrived = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&arrived);
    let head = format!("{fields}\r\ncontent-length: 6\r\n\r\n");
    let connector = MemoryConnector::new(move || {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let (head, count) = (head.clone(), Arc::clone(&count));
        drop(tokio::spawn(async move {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(theirs.read_u8().await?);
            }
            count.fetch_add(1, Ordering::SeqCst);
            sleep(Duration::from_secs(1)).await;
            theirs.write_all(head.as_bytes()).await?;
            for (pause, piece) in body {
                sleep(Duration::from_secs(*pause)).await;
                theirs.write_all(piece.as_bytes()).await?;
            }
            if hangs {
                std::future::pending::<()>().await;
            }
            std::io::Result::Ok(())
        }));
        std::future::ready(Ok(ours))
    });
    let world = Setup::new(SandboxSpec::default()).start_over(connector);
    (Arc::new(world), arrived)
}

#[tokio::test(start_paused = true)]
async fn what_is_not_stored_streams_and_keeps_nobody_waiting() {
    for fields in [
        "200 OK\r\ncache-control: no-store",
        "200 OK\r\ncache-control: no-cache",
        "200 OK\r\nset-cookie: a=b",
        "200 OK\r\nvary: *",
        "200 OK\r\ncontent-encoding: br",
        "206 Partial Content\r\ncontent-range: bytes 0-5/9",
        "400 Bad Request\r\nx-harmless: 1",
    ] {
        let head = format!("HTTP/1.1 {fields}");
        let (world, arrived) = by_hand(&head, &[(0, "abc"), (10, "def")], false);
        let began = Instant::now();
        let first = request(Method::GET, "/users", "a", "");
        let first = tokio::spawn({
            let world = Arc::clone(&world);
            async move { world.gateway.answer(first).await }
        });
        sleep(Duration::from_millis(500)).await;
        let second = world.spawn(request(Method::GET, "/users", "a", ""));
        let mut body = first.await.unwrap().into_body();
        let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(piece, "abc", "{fields}");
        assert_eq!(
            began.elapsed().as_secs(),
            1,
            "{fields}: it is not held back"
        );
        sleep(Duration::from_secs(1)).await;
        assert_eq!(arrived.load(Ordering::SeqCst), 2, "{fields}: fetches alone");
        assert_eq!(body.collect().await.unwrap().to_bytes(), "def");
        let second = second.await.unwrap();
        assert_eq!(second.body, "abcdef", "{fields}");
        assert!(
            second
                .header("cache-status")
                .ends_with("; detail=not-shared")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_ends_in_the_middle_is_an_error_for_everyone_and_frees_its_key() {
    // Silence of 30 s, and drops of a body until its 120 s are over.
    let drops: &[(u64, &str)] = &[(25, "a"), (25, "b"), (25, "c"), (25, "d"), (25, "e")];
    for (body, hangs, status, kind) in [
        (&[(0, "abc")][..], false, 502, "gateway-upstream-broken"),
        (&[(0, "abc")][..], true, 504, "gateway-upstream-timeout"),
        (drops, true, 504, "gateway-upstream-timeout"),
    ] {
        let (world, arrived) = by_hand("HTTP/1.1 200 OK\r\nx-harmless: 1", body, hangs);
        let ask = || request(Method::GET, "/users", "a", "");
        let first = world.spawn(ask());
        sleep(Duration::from_millis(500)).await;
        let second = world.spawn(ask());
        for reader in [first, second] {
            let answered = reader.await.unwrap();
            assert_eq!(answered.status, status, "{kind} {answered:?}");
            assert_eq!(answered.error_type(), kind);
        }
        assert_eq!(arrived.load(Ordering::SeqCst), 1, "they shared it");
        let stats = world.gateway.cache().stats();
        assert_eq!((stats.entries, stats.fetches), (0, 0));
        drop(world.spawn(ask()));
        sleep(Duration::from_millis(500)).await;
        assert_eq!(arrived.load(Ordering::SeqCst), 2, "another may begin");
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_that_cannot_be_waited_out_says_how_the_cache_dealt_with_it() {
    let refusal = r#"{"errors":[{"type":"RequestError","data":{"msBeforeNext":57647}}]}"#;
    let script = Script::new(move |_, _| Step::Answer(answer(429, refusal)));
    let world = script.world();
    for (target, expected) in [
        ("/users", "segment-gateway; fwd=uri-miss; detail=status"),
        ("/sources", "segment-gateway; fwd=uri-miss; detail=status"),
    ] {
        let throttled = world.get(target, "a").await;
        assert_eq!(throttled.status, 429);
        assert_eq!(throttled.cache_status(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_named_at_length_is_not_remembered() {
    let script = Script::new(|_, _| Step::Answer(answer(200, "{}")));
    let world = script.world();
    let long = "x".repeat(20_000);
    let user = format!("/users/{long}");
    for _ in 0..2 {
        let passed = world.get(&user, "a").await;
        let status = passed.header("cache-status");
        assert_eq!(status, "segment-gateway; fwd=bypass; detail=names");
    }
    world.get("/roles", "a").await;
    assert!(is_hit(&world.get("/roles", "a").await));
    let write = format!("{user}/permissions");
    assert_eq!(
        world.write(Method::PUT, &write, "a", "{}").await.status,
        200
    );
    assert_eq!(world.gateway.cache().stats().marks, 0);
    assert!(
        !is_hit(&world.get("/roles", "a").await),
        "it may be anything"
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_that_may_stand_elsewhere_makes_everything_stale() {
    let script = Script::new(|_, _| Step::Answer(answer(200, "{}")));
    // Target and body of a DELETE, and which of these users it makes stale.
    let cases = [
        ("/users?userIds.0=u&userIds.1=v", "", [true, true, false]),
        ("/users?userIds=u,v", "", [true, true, false]),
        ("/users?userIds.0=u", r#"{"userIds":["w"]}"#, [true; 3]),
        ("/users", r#"{"userIds":["w"]}"#, [true; 3]),
    ];
    for (target, body, stale) in cases {
        let world = script.world();
        let users = ["/users/u", "/users/v", "/users/w"];
        for user in users {
            world.get(user, "a").await;
        }
        let write = world.write(Method::DELETE, target, "a", body).await;
        assert_eq!(write.status, 200);
        for (user, stale) in users.into_iter().zip(stale) {
            let hit = is_hit(&world.get(user, "a").await);
            assert_eq!(hit, !stale, "{target} {body} {user}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_joins_a_fetch_that_began_before_what_it_asks_for_was_created() {
    for target in ["/groups/g", "/groups/g/users", "/groups/g/invites"] {
        let created = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&created);
        let script = Script::new(move |seen: &Seen, _| {
            if seen.method == Method::POST {
                flag.store(true, Ordering::SeqCst);
                return Step::Answer(answer(201, "{}"));
            }
            let status = if flag.load(Ordering::SeqCst) {
                200
            } else {
                404
            };
            Step::Later(Duration::from_secs(1), answer(status, "{}"))
        });
        let world = script.world();
        let early = world.spawn(request(Method::GET, target, "a", ""));
        sleep(Duration::from_millis(500)).await;
        let body = r#"{"name":"g"}"#;
        let write = world.write(Method::POST, "/groups", "b", body).await;
        assert_eq!(write.status, 201);
        assert_eq!(world.get(target, "a").await.status, 200, "{target}");
        assert_eq!(early.await.unwrap().status, 404);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_key_holds_tells_requests_apart_and_nothing_else_does() {
    let script = Script::new(|_, n| Step::Answer(answer(200, &n.to_string())));
    let world = script.world();
    let ask = |body: &str, fields: &[(&str, &str)]| {
        let plain = request(Method::GET, "/users", "a", body);
        let fields = fields.iter();
        fields.fold(plain, |ask, (name, value)| with(ask, name, value))
    };
    let page = r#"{"pagination":{"count":3}}"#;
    let cases: [(&str, &[(&str, &str)]); 8] = [
        ("", &[]),
        ("", &[("accept", "application/json")]),
        ("", &[("accept", "application/vnd.segment.v1+json")]),
        ("", &[("origin", "https://a.example")]),
        (page, &[]),
        (r#"{"pagination":{"count":4}}"#, &[]),
        (page, &[("content-encoding", "gzip")]),
        (page, &[("accept", "application/json")]),
    ];
    for (n, (body, fields)) in cases.into_iter().enumerate() {
        let first = world.send(ask(body, fields)).await;
        assert!(!is_hit(&first), "{body} {fields:?}");
        assert_eq!(first.body, n.to_string());
        let arrived = script.seen().pop().unwrap();
        assert_eq!(arrived.body, body);
        assert!(
            fields
                .iter()
                .all(|(name, value)| arrived.headers[*name] == *value)
        );
        // What one reader's client understands or is called makes no other answer.
        for other in [("accept-encoding", "gzip, br"), ("user-agent", "sdk/1")] {
            let again = world.send(with(ask(body, fields), other.0, other.1)).await;
            assert!(is_hit(&again), "{body} {fields:?} {other:?}");
            assert_eq!(again.body, first.body);
        }
    }
    let encoded = with(ask("", &[("accept", "x")]), "accept-encoding", "gzip, br");
    world.send(encoded).await;
    let arrived = script.seen().pop().unwrap();
    let codings: Vec<_> = arrived.headers.get_all("accept-encoding").iter().collect();
    assert_eq!(codings, ["gzip"], "one answer for all who ask");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_may_not_see_its_workspace_sees_nothing_of_the_store() {
    let revoked = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&revoked);
    let script = Script::new(move |_, _| {
        let status = if flag.load(Ordering::SeqCst) {
            401
        } else {
            200
        };
        Step::Answer(answer(status, "{}"))
    });
    let world = script.world();
    for target in ["/users/u", "/roles", "/groups"] {
        world.get(target, "a").await;
        world.get(target, "b").await;
    }
    revoked.store(true, Ordering::SeqCst);
    assert!(is_hit(&world.get("/roles", "a").await), "nobody knows yet");
    assert_eq!(world.get("/", "a").await.status, 401);
    for target in ["/users/u", "/roles", "/groups"] {
        assert_eq!(world.get(target, "a").await.status, 401, "{target}");
        assert!(is_hit(&world.get(target, "b").await), "another token's own");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_answered_401_raises_the_doubt_as_well() {
    let script = Script::new(|seen: &Seen, _| {
        let status = if seen.method == Method::GET { 200 } else { 401 };
        Step::Answer(answer(status, "{}"))
    });
    let world = script.world();
    world.get("/roles", "a").await;
    for path in ["/users/u/permissions", "/groups/g/permissions"] {
        assert!(is_hit(&world.get("/roles", "a").await), "{path}");
        let write = world.write(Method::PUT, path, "a", "{}").await;
        assert_eq!(write.status, 401);
    }
    assert!(!is_hit(&world.get("/roles", "a").await), "two operations");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_fails_fails_for_everyone_once_and_frees_its_key() {
    for (step, status, kind) in [
        (Step::Close, 502, "gateway-upstream-broken"),
        (Step::Silent, 504, "gateway-upstream-timeout"),
    ] {
        let script = Script::new(move |_, n| match n {
            0 => step.clone(),
            _ => Step::Answer(answer(200, "{}")),
        });
        let world = script.world();
        let readers: Vec<_> = (0..5)
            .map(|_| world.spawn(request(Method::GET, "/users", "a", "")))
            .collect();
        for reader in readers {
            let failed = reader.await.unwrap();
            assert_eq!(failed.status, status);
            assert_eq!(failed.error_type(), kind);
        }
        assert_eq!(script.count(), 1, "{kind}");
        assert_eq!(world.gateway.cache().stats().fetches, 0);
        let next = world.get("/users", "a").await;
        assert_eq!(next.cache_status(), "segment-gateway; fwd=uri-miss; stored");
    }
}

#[tokio::test(start_paused = true)]
async fn no_error_is_stored_if_the_api_does_not_say_so() {
    for status in [400, 401, 403, 404, 409, 410, 422, 500, 502, 503] {
        let script = Script::new(move |_, _| Step::Answer(answer(status, "{}")));
        let world = script.world();
        for _ in 0..2 {
            let answered = world.get("/users/u", "a").await;
            assert_eq!(answered.status, status);
            assert!(!is_hit(&answered), "{status}");
        }
        assert_eq!(script.count(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn every_answer_says_how_the_cache_dealt_with_it() {
    let script = Script::new(|_, _| Step::Answer(answer(200, "{}")));
    let world = script.world();
    let zero = |ask| with(ask, "prefer", "wait=0");
    for (ask, expected) in [
        (
            request(Method::GET, "/roles", "a", ""),
            "; fwd=uri-miss; stored",
        ),
        (request(Method::GET, "/roles", "a", ""), "; hit; ttl=300"),
        (
            request(Method::GET, "/sources", "a", ""),
            "; fwd=uri-miss; detail=no-lifetime",
        ),
        (
            request(Method::GET, "/v9/x", "a", ""),
            "; fwd=uri-miss; detail=no-lifetime",
        ),
        (zero(request(Method::PUT, WRITE, "a", "{}")), "; fwd=method"),
        (
            request(Method::TRACE, "/", "a", ""),
            "; detail=gateway-method-refused",
        ),
        (
            request(Method::GET, "/_gateway/x", "a", ""),
            "; detail=gateway-not-found",
        ),
    ] {
        let shown = format!("{ask:?}");
        let answered = world.send(ask).await;
        let status = answered.cache_status();
        assert_eq!(status, format!("segment-gateway{expected}"), "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_api_says_what_may_be_stored_and_for_how_long() {
    // Field, value, seconds for which it is served from the store (ours is 60).
    let cases = [
        ("cache-control", "no-store", 0),
        ("cache-control", "no-cache", 0),
        ("cache-control", "private", 60),
        ("cache-control", "private, max-age=5", 5),
        ("cache-control", "max-age=5", 5),
        ("cache-control", "max-age=3600", 60),
        ("vary", "Accept, accept-encoding, Origin, Authorization", 60),
        ("vary", "Accept, User-Agent", 60),
        ("vary", "*", 0),
        ("set-cookie", "a=b", 0),
        ("content-encoding", "gzip", 0),
        ("x-harmless", "1", 60),
    ];
    for (name, value, seconds) in cases {
        let script = Script::new(move |_, _| Step::Answer(field(answer(200, "x"), name, value)));
        let world = script.world();
        let first = world.get("/users", "a").await;
        assert_eq!(first.header(name), value, "passes");
        assert_eq!(first.body, "x");
        assert_eq!(script.seen()[0].headers["accept-encoding"], "gzip");
        let within = Duration::from_secs(seconds).saturating_sub(Duration::from_millis(500));
        sleep(within).await;
        let hit = is_hit(&world.get("/users", "a").await);
        assert_eq!(hit, seconds > 0, "{name}: {value}");
        sleep(Duration::from_secs(1)).await;
        if seconds > 0 {
            assert!(!is_hit(&world.get("/users", "a").await), "{name}: {value}");
        }
    }
    let script = Script::new(|_, _| Step::Answer(answer(404, "{}")));
    let world = script.world();
    world.get("/users/u", "a").await;
    assert!(
        !is_hit(&world.get("/users/u", "a").await),
        "errors are not stored"
    );
}

#[tokio::test(start_paused = true)]
async fn a_path_that_no_route_matches_passes_byte_for_byte_uncached() {
    let script = Script::new(|_, _| Step::Answer(answer(200, "{}")));
    let world = script.world();
    for target in [
        "/v9/things/x%2fy?a=%41&b&&c=%zz",
        "/users/",
        "/users//groups",
        "/users/./x",
        "/users/x;y",
        "/users/x\\y",
        "/users/x%5cy",
        "/users/%75",
        "/",
    ] {
        for _ in 0..2 {
            let before = script.count();
            let passed = world.get(target, "a").await;
            assert_eq!(passed.status, 200, "{target}: {passed:?}");
            assert!(!is_hit(&passed));
            assert_eq!(script.count(), before + 1, "{target}");
            assert_eq!(script.seen()[before].target, target);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_nobody_knows_makes_everything_stale() {
    let script = Script::new(|_, _| Step::Answer(answer(200, "{}")));
    let hidden = |name: &str| with(request(Method::GET, "/labels", "a", ""), name, "DELETE");
    let writes = [
        request(Method::POST, "/v9/unknown", "a", "{}"),
        request(Method::from_bytes(b"MERGE").unwrap(), "/users", "a", "{}"),
        request(Method::PUT, "/users/u/permissions/", "a", "{}"),
        hidden("x-http-method-override"),
        hidden("x-http-method"),
        hidden("x-method-override"),
    ];
    for write in writes {
        let world = script.world();
        for target in ["/users/u", "/roles", "/groups"] {
            world.get(target, "a").await;
            assert!(is_hit(&world.get(target, "a").await));
        }
        let shown = format!("{write:?}");
        assert_eq!(world.send(write).await.status, 200, "{shown}");
        for target in ["/users/u", "/roles", "/groups"] {
            assert!(!is_hit(&world.get(target, "a").await), "{shown} {target}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_joined_do_not_wait_with_a_fetch_that_went_back_into_the_line() {
    let script = Script::new(|_, n| match n {
        0 => Step::Later(
            Duration::from_secs(1),
            field(answer(429, "{}"), "retry-after", "40"),
        ),
        _ => Step::Answer(answer(200, "{}")),
    });
    let world = script.world();
    let began = Instant::now();
    let ask = |wait: &str| with(request(Method::GET, "/users", "a", ""), "prefer", wait);
    let leader = world.spawn(ask("wait=120"));
    sleep(Duration::from_millis(100)).await;
    let patient = world.spawn(ask("wait=100"));
    let expired = world.send(ask("wait=5")).await;
    assert_eq!(expired.error_type(), "gateway-queue-expired");
    assert_eq!(began.elapsed().as_millis(), 5_100);
    for reader in [leader, patient] {
        assert_eq!(reader.await.unwrap().status, 200);
    }
    assert!(began.elapsed() > Duration::from_secs(40));
    assert_eq!(script.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_passed_through_ends_with_its_callers_timeout() {
    let script = Script::new(|_, _| Step::Silent);
    let mut setup = Setup::new(SandboxSpec::default());
    setup.config.wait.caller_timeout = Some(Duration::from_secs(7));
    let world = script.world_of(setup);
    let began = Instant::now();
    let answer = world.get("/labels", "a").await;
    assert_eq!(answer.error_type(), "gateway-upstream-timeout");
    assert_eq!(began.elapsed().as_secs(), 7);
}
