//! Writes that outlast a crash: acknowledged once they are kept, carried out once, answered once
//! more.

use super::support::exposition::{metrics, operator};
use super::support::scripted::{Script, Step, answer, field};
use super::support::{Answer, Setup, World, from_peer, left_by_crash, request, slow, with};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use segment_gateway::app::Keeping;
use segment_gateway::journal::{Filter, Journal};
use segment_gateway::sandbox::{Faults, SandboxSpec};
use segment_gateway::write::durable::{Recovered, Selection};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

mod estimates;
mod outcomes;
mod quota;
mod reconnecting;
mod retention;
mod tokens;
mod waiting;

/// How long a scripted API takes to answer.
const SOON: Duration = Duration::from_millis(50);
const NOTHING: &str = r#"{"permissions":[]}"#;
const ONE: &str =
    r#"{"permissions":[{"roleId":"source-admin","resources":[{"id":"s","type":"SOURCE"}]}]}"#;

/// A setup that keeps its writes here.
async fn keeping(spec: SandboxSpec, memory: &Journal) -> Setup {
    Setup {
        keeping: Keeping {
            journal: memory.clone(),
            outlasts: true,
            newest: memory.newest().await.unwrap(),
        },
        ..Setup::new(spec)
    }
}

fn put(user: usize) -> Request<Full<Bytes>> {
    let target = format!("/users/user-{user:05}/permissions");
    request(Method::PUT, &target, "a", NOTHING)
}

fn post(user: usize) -> Request<Full<Bytes>> {
    let target = format!("/users/user-{user:05}/permissions");
    request(Method::POST, &target, "a", ONE)
}

fn invite(email: &str) -> Request<Full<Bytes>> {
    let body = format!(r#"{{"invites":[{{"email":"{email}"}}]}}"#);
    request(Method::POST, "/invites", "a", &body)
}

fn deferred(request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    with(request, "prefer", "respond-async")
}

fn keyed(request: Request<Full<Bytes>>, key: &str) -> Request<Full<Bytes>> {
    with(request, "idempotency-key", key)
}

/// Sends a write that is to be deferred; where to ask for it.
async fn defer(world: &World, request: Request<Full<Bytes>>) -> String {
    let accepted = world.send(deferred(request)).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    assert_eq!(accepted.header("preference-applied"), "respond-async");
    assert!(accepted.header("retry-after").parse::<u64>().unwrap() > 0);
    let location = accepted.header("location").to_owned();
    let id = accepted.json()["data"]["write"]["id"].clone();
    assert_eq!(
        location,
        format!("/_gateway/writes/{}", id.as_str().unwrap())
    );
    location
}

async fn state(world: &World, location: &str) -> String {
    let shown = world.get(location, "a").await;
    let write = &shown.json()["data"]["write"];
    write["state"].as_str().unwrap_or_default().to_owned()
}

/// Asks until it has ended.
async fn ended(world: &World, location: &str) -> serde_json::Value {
    for _ in 0..1_000 {
        let shown = world.get(location, "a").await;
        assert_eq!(shown.status, 200, "{shown:?}");
        let write = shown.json()["data"]["write"].clone();
        if !matches!(write["state"].as_str(), Some("queued" | "dispatched")) {
            assert_eq!(shown.header("retry-after"), "");
            return write;
        }
        let after: u64 = shown.header("retry-after").parse().unwrap();
        sleep(Duration::from_secs(after)).await;
    }
    panic!("{location} does not end");
}

#[tokio::test(start_paused = true)]
async fn a_deferred_write_is_acknowledged_at_once_and_carried_out() {
    let world = World::new(slow());
    let began = Instant::now();
    let location = defer(&world, invite("new@example.com")).await;
    assert!(began.elapsed() < Duration::from_millis(10));
    assert_eq!(state(&world, &location).await, "dispatched");
    let write = ended(&world, &location).await;
    assert_eq!(write["state"], "succeeded");
    assert_eq!(write["operation"], "createInvites");
    assert_eq!(write["attempts"], 1);
    let answer = &write["answer"];
    assert_eq!(answer["status"], 201);
    assert_eq!(answer["body"]["data"]["emails"][0], "new@example.com");
    assert!(
        answer["headers"]["content-type"]
            .as_str()
            .unwrap()
            .contains("json")
    );
    assert!(write["acceptedAt"].as_str().unwrap().ends_with('Z'));
    assert!(
        world
            .sandbox
            .invites()
            .contains(&"new@example.com".to_owned())
    );
    // The outcome counts as an answer: nobody reads what was before.
    let read = world.get("/invites?pagination.count=1000", "a").await;
    assert!(String::from_utf8_lossy(&read.body).contains("new@example.com"));
}

#[tokio::test(start_paused = true)]
async fn a_bulk_is_handed_over_in_a_moment_and_leaves_as_the_budget_allows() {
    let world = World::new(slow());
    let began = Instant::now();
    let mut locations = Vec::new();
    for user in 1..=130 {
        locations.push(defer(&world, put(user)).await);
    }
    assert!(began.elapsed() < Duration::from_millis(100));
    let last = world.get(&locations[129], "a").await.json()["data"]["write"].clone();
    assert_eq!(last["state"], "queued");
    assert!(last["position"].as_u64().unwrap() > 100, "{last}");
    let estimate = last["estimatedWaitMs"].as_u64().unwrap();
    assert!((110_000..130_000).contains(&estimate), "{last}");
    for location in &locations {
        assert_eq!(ended(&world, location).await["state"], "succeeded");
    }
    let arrivals = world.sandbox.arrivals();
    assert_eq!(arrivals.len(), 130);
    assert!(arrivals.iter().all(|arrival| arrival.status == 200));
    let took = arrivals[129].at - arrivals[0].at;
    assert!((120..124).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_a_little_first_gets_the_answer_if_it_comes_in_time() {
    let world = World::new(slow());
    let quick = with(invite("a@example.com"), "prefer", "respond-async, wait=5");
    let answered = world.send(quick).await;
    assert_eq!(answered.status, 201, "{answered:?}");
    assert_eq!(answered.json()["data"]["emails"][0], "a@example.com");
    assert_ne!(answered.header("server-timing"), "");
    for user in 1..=60 {
        defer(&world, put(user)).await;
    }
    let began = Instant::now();
    let slow = with(put(61), "prefer", "respond-async, wait=5");
    let accepted = world.send(slow).await;
    assert_eq!(accepted.status, 202);
    assert_eq!(began.elapsed().as_secs(), 5);
    let location = accepted.header("location").to_owned();
    assert_eq!(ended(&world, &location).await["state"], "succeeded");
}

#[tokio::test(start_paused = true)]
async fn another_credential_sees_nothing_of_it() {
    let world = World::new(slow());
    let location = defer(&world, invite("new@example.com")).await;
    for method in [Method::GET, Method::DELETE] {
        let other = world
            .send(request(method.clone(), &location, "b", ""))
            .await;
        assert_eq!(other.status, 404, "{method}");
        assert_eq!(other.error_type(), "gateway-not-found");
    }
    let none = world.get("/_gateway/writes", "b").await;
    assert_eq!(none.json()["data"]["writes"], serde_json::json!([]));
    let mut nobody = request(Method::GET, "/_gateway/writes", "b", "");
    nobody.headers_mut().remove("authorization");
    assert_eq!(world.send(nobody).await.status, 401);
    let never = "/_gateway/writes/0192f0c1-2a3b-7c4d-8e5f-012345678901";
    for target in [never, "/_gateway/writes/1", "/_gateway/other", "/_gateway"] {
        assert_eq!(world.get(target, "a").await.status, 404, "{target}");
    }
    let wrong = world.send(request(Method::PUT, &location, "a", "")).await;
    assert_eq!(
        (wrong.status.as_u16(), wrong.header("allow")),
        (405, "GET, HEAD, DELETE")
    );
    assert_eq!(ended(&world, &location).await["state"], "succeeded");
    assert_eq!(
        world.sandbox.arrivals().len(),
        1,
        "nothing of these was forwarded"
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_is_paged_and_by_state() {
    let world = World::new(slow());
    for n in 0..7 {
        let location = defer(&world, invite(&format!("{n}@example.com"))).await;
        ended(&world, &location).await;
    }
    let mut seen = Vec::new();
    let mut target = "/_gateway/writes?limit=3".to_owned();
    loop {
        let page = world.get(&target, "a").await.json()["data"].clone();
        let writes = page["writes"].as_array().unwrap();
        seen.extend(
            writes
                .iter()
                .map(|write| write["id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["pagination"]["next"].as_str() else {
            break;
        };
        target = format!("/_gateway/writes?limit=3&after={next}");
    }
    assert_eq!(seen.len(), 7);
    assert!(seen.is_sorted());
    for (state, count) in [("succeeded", 7), ("queued", 0), ("unknown", 0)] {
        let page = world
            .get(&format!("/_gateway/writes?state={state}"), "a")
            .await;
        assert_eq!(
            page.json()["data"]["writes"].as_array().unwrap().len(),
            count
        );
    }
    let wrong = world.get("/_gateway/writes?state=done", "a").await;
    assert_eq!(wrong.error_type(), "gateway-bad-request");
}

#[tokio::test(start_paused = true)]
async fn one_that_has_not_left_can_be_taken_back() {
    let world = World::new(slow());
    for user in 1..=60 {
        defer(&world, put(user)).await;
    }
    let taken = defer(&world, put(100)).await;
    // A write of the same lane waits behind it.
    let behind = defer(&world, post(100)).await;
    assert_eq!(state(&world, &behind).await, "queued");
    for _ in 0..2 {
        let cancelled = world.send(request(Method::DELETE, &taken, "a", "")).await;
        assert_eq!(cancelled.status, 200, "{cancelled:?}");
        assert_eq!(cancelled.json()["data"]["write"]["state"], "cancelled");
    }
    assert_eq!(ended(&world, &behind).await["state"], "succeeded");
    assert_eq!(ended(&world, &taken).await["state"], "cancelled");
    let late = world.send(request(Method::DELETE, &behind, "a", "")).await;
    assert_eq!(
        (late.status.as_u16(), late.error_type().as_str()),
        (409, "gateway-write-sent")
    );
    sleep(Duration::from_secs(200)).await;
    let arrivals = world.sandbox.arrivals();
    assert_eq!(arrivals.len(), 61);
    assert_eq!(world.durable().queued, 0);
}

#[tokio::test(start_paused = true)]
async fn writes_of_one_lane_keep_their_order_whether_held_or_deferred() {
    let world = Arc::new(World::new(slow()));
    for user in 1..=60 {
        defer(&world, put(user)).await;
    }
    // Its budget is spent; the other one's is free, but it came later.
    let first = defer(&world, put(200)).await;
    let second = world.spawn(post(200));
    tokio::task::yield_now().await;
    let third = defer(&world, put(200)).await;
    assert_eq!(second.await.unwrap().status, 200);
    assert_eq!(ended(&world, &first).await["state"], "succeeded");
    assert_eq!(ended(&world, &third).await["state"], "succeeded");
    let arrivals = world.sandbox.arrivals();
    let of_200: Vec<_> = arrivals
        .iter()
        .filter(|arrival| arrival.target.contains("00200"))
        .map(|arrival| &*arrival.method)
        .collect();
    assert_eq!(of_200, ["PUT", "POST", "PUT"]);
}

#[tokio::test(start_paused = true)]
async fn a_bulk_of_one_caller_does_not_starve_a_write_of_another() {
    let world = Arc::new(World::new(slow()));
    for user in 1..=200 {
        defer(&world, from_peer(put(user), 1)).await;
    }
    let began = Instant::now();
    let held = world.spawn(from_peer(put(201), 2));
    let other = defer(&world, from_peer(put(202), 3)).await;
    assert_eq!(held.await.unwrap().status, 200);
    ended(&world, &other).await;
    assert!(
        began.elapsed() < Duration::from_secs(65),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn the_same_key_gets_the_same_answer() {
    let world = Arc::new(World::new(slow()));
    let first = world.send(keyed(invite("new@example.com"), "k1")).await;
    assert_eq!(
        (first.status.as_u16(), first.header("idempotency-replayed")),
        (201, "")
    );
    let again = world.send(keyed(invite("new@example.com"), "\"k1\"")).await;
    assert_eq!(again.status, 201);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("content-type"), first.header("content-type"));
    assert_eq!(world.sandbox.arrivals().len(), 1);
    // Another request, and another credential.
    let other = world.send(keyed(invite("other@example.com"), "k1")).await;
    assert_eq!(
        (other.status.as_u16(), other.error_type().as_str()),
        (422, "gateway-key-reused")
    );
    let mut elsewhere = keyed(invite("new@example.com"), "k1");
    let headers = elsewhere.headers_mut();
    headers.insert("authorization", "Bearer b".parse().unwrap());
    let elsewhere = world.send(elsewhere).await;
    assert_eq!(elsewhere.header("idempotency-replayed"), "");
    assert_eq!(world.sandbox.arrivals().len(), 2);
    // An error of the API is recorded as well.
    let refused = || {
        keyed(
            request(Method::PUT, "/users/nobody/permissions", "a", NOTHING),
            "k2",
        )
    };
    let first = world.send(refused()).await;
    let again = world.send(refused()).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (404, 404));
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(world.sandbox.arrivals().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_while_the_first_is_under_way_joins_it() {
    let world = Arc::new(World::new(slow()));
    let asks: Vec<_> = (0..5)
        .map(|_| world.spawn(keyed(invite("new@example.com"), "k")))
        .collect();
    let other = world.spawn(keyed(invite("other@example.com"), "k"));
    let mut replayed = 0;
    for ask in asks {
        let answer = ask.await.unwrap();
        assert_eq!(answer.status, 201);
        replayed += usize::from(answer.header("idempotency-replayed") == "true");
    }
    assert_eq!(replayed, 4);
    assert_eq!(other.await.unwrap().status, 422);
    assert_eq!(world.sandbox.arrivals().len(), 1);
    // One that does not want to wait is told where to ask, and then gets the answer.
    let deferred = world
        .send(deferred(keyed(invite("x@example.com"), "d")))
        .await;
    let again = world
        .send(self::deferred(keyed(invite("x@example.com"), "d")))
        .await;
    assert_eq!(
        (deferred.status.as_u16(), again.status.as_u16()),
        (202, 202)
    );
    assert_eq!(deferred.header("location"), again.header("location"));
    ended(&world, again.header("location")).await;
    let last = world
        .send(self::deferred(keyed(invite("x@example.com"), "d")))
        .await;
    assert_eq!(last.status, 201);
}

#[tokio::test(start_paused = true)]
async fn a_write_with_a_key_goes_on_when_its_caller_hangs_up_or_its_time_is_up() {
    let world = Arc::new(World::new(slow()));
    for user in 1..=60 {
        defer(&world, put(user)).await;
    }
    sleep(Duration::from_secs(10)).await;
    let ask = || keyed(with(put(99), "prefer", "wait=58"), "gone");
    let hung_up = timeout(Duration::from_secs(1), world.send(ask())).await;
    assert!(hung_up.is_err());
    let short = keyed(with(put(99), "prefer", "wait=3"), "gone");
    let pending = world.send(short).await;
    assert_eq!(pending.error_type(), "gateway-write-pending", "{pending:?}");
    let error = pending.json()["errors"][0].clone();
    assert_eq!(error["data"]["mayRetry"], true);
    let after: u64 = pending.header("retry-after").parse().unwrap();
    assert!((40..60).contains(&after), "{after}");
    sleep(Duration::from_secs(after)).await;
    let answer = world.send(ask()).await;
    assert_eq!(
        (
            answer.status.as_u16(),
            answer.header("idempotency-replayed")
        ),
        (200, "true")
    );
    assert_eq!(world.sandbox.arrivals().len(), 61);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_gateways_own_is_not_recorded_under_a_key() {
    let world = Arc::new(World::new(slow()));
    for user in 1..=60 {
        defer(&world, put(user)).await;
    }
    sleep(Duration::from_millis(1_050)).await;
    let now = keyed(with(put(99), "prefer", "wait=0"), "k");
    let refused = world.send(now).await;
    assert_eq!(refused.error_type(), "gateway-queue-wait", "{refused:?}");
    sleep(Duration::from_secs(70)).await;
    let later = world.send(keyed(put(99), "k")).await;
    assert_eq!(
        (later.status.as_u16(), later.header("idempotency-replayed")),
        (200, "")
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_none_is_refused_and_nothing_is_sent() {
    let world = World::new(slow());
    for key in ["", "\"", "a\"b", &"k".repeat(256)] {
        let refused = world.send(keyed(invite("a@example.com"), key)).await;
        assert_eq!(refused.error_type(), "gateway-bad-request", "{key:?}");
    }
    let two = keyed(keyed(invite("a@example.com"), "a"), "b");
    assert_eq!(world.send(two).await.status, 400);
    assert!(world.sandbox.arrivals().is_empty());
    // A read has no use for one, and a write without a credential cannot have one.
    let read = keyed(request(Method::GET, "/users", "a", ""), "k");
    assert_eq!(world.send(read).await.status, 200);
    let mut nobody = deferred(invite("a@example.com"));
    nobody.headers_mut().remove("authorization");
    assert_eq!(world.send(nobody).await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn without_room_on_the_disk_durable_writes_are_refused_and_others_pass() {
    let memory = Journal::in_memory().unwrap();
    let world = keeping(slow(), &memory).await.start();
    memory.fail_next(2);
    for write in [deferred(put(1)), keyed(put(1), "k")] {
        let refused = world.send(write).await;
        assert_eq!(refused.status, 507, "{refused:?}");
        assert_eq!(refused.error_type(), "gateway-journal-full");
    }
    assert!(world.sandbox.arrivals().is_empty());
    assert_eq!(world.durable().queued, 0);
    memory.fail_next(usize::MAX);
    assert_eq!(world.send(put(1)).await.status, 200);
    assert_eq!(world.get("/users/user-00001", "a").await.status, 200);
    memory.fail_next(0);
    // What cannot be recorded as sent is not sent before it can.
    let location = defer(&world, post(2)).await;
    memory.fail_next(3);
    assert_eq!(ended(&world, &location).await["state"], "succeeded");
    assert_eq!(world.sandbox.arrivals().len(), 3);
    assert_eq!(world.send(keyed(put(1), "k")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn without_a_disk_nobody_is_told_that_a_write_would_outlast_a_crash() {
    let setup = Setup {
        keeping: Keeping::in_memory().unwrap(),
        ..Setup::new(slow())
    };
    let world = setup.start();
    let held = world.send(deferred(invite("a@example.com"))).await;
    assert_eq!(
        (held.status.as_u16(), held.header("preference-applied")),
        (201, "")
    );
    // A key is as good as the process.
    for _ in 0..2 {
        assert_eq!(
            world.send(keyed(invite("b@example.com"), "k")).await.status,
            201
        );
    }
    assert_eq!(world.sandbox.arrivals().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_had_not_left_goes_on_in_order_after_a_restart() {
    let memory = Journal::in_memory().unwrap();
    // What leaves is refused, and waits again.
    let refuses = Script::new(|_, _| Step::Answer(field(answer(429, "{}"), "retry-after", "100")));
    let first = refuses.world_of(keeping(slow(), &memory).await);
    let mut locations = Vec::new();
    for write in [put(1), post(1), put(1), put(2)] {
        locations.push(defer(&first, write).await);
    }
    sleep(Duration::from_secs(1)).await;
    assert!(refuses.count() > 0);
    let memory = left_by_crash(&memory).await;
    let second = keeping(slow(), &memory).await.start();
    let expected = Recovered {
        queued: 4,
        ..Recovered::default()
    };
    assert_eq!(
        second.gateway.writes().recover(Some(&[])).await.unwrap(),
        expected
    );
    // A new one of the lane comes after those.
    let new = defer(&second, post(1)).await;
    assert!(new > locations[3], "ids grow");
    locations.push(new);
    for location in &locations {
        assert_eq!(ended(&second, location).await["state"], "succeeded");
    }
    let arrivals = second.sandbox.arrivals();
    let of_1: Vec<_> = arrivals
        .iter()
        .filter(|arrival| arrival.target.contains("00001"))
        .map(|arrival| &*arrival.method)
        .collect();
    assert_eq!(of_1, ["PUT", "POST", "PUT", "POST"]);
    assert_eq!(arrivals.len(), 5);
    assert_eq!(
        second.gateway.writes().recover(Some(&[])).await.unwrap(),
        Recovered::default()
    );
}

#[tokio::test(start_paused = true)]
async fn what_had_left_is_repeated_if_that_does_no_harm_and_unknown_otherwise() {
    let silent = Script::new(|_, _| Step::Silent);
    let memory = Journal::in_memory().unwrap();
    let first = silent.world_of(keeping(slow(), &memory).await);
    let safe = defer(&first, put(1)).await;
    let unsafe_ = defer(&first, post(2)).await;
    let listed = request(
        Method::DELETE,
        "/users?userIds.0=user-00003&userIds.1=user-00004",
        "a",
        "",
    );
    let listed = defer(&first, listed).await;
    let held = first.spawn(keyed(post(5), "k"));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(silent.count(), 4);
    let memory = left_by_crash(&memory).await;
    drop(held);
    let second = Arc::new(keeping(slow(), &memory).await.start());
    let expected = Recovered {
        queued: 0,
        repeated: 2,
        unknown: 2,
    };
    assert_eq!(
        second.gateway.writes().recover(Some(&[])).await.unwrap(),
        expected
    );
    let state = |write: serde_json::Value| {
        let attempts = write["attempts"].as_u64().unwrap();
        (write["state"].as_str().unwrap().to_owned(), attempts)
    };
    let write = ended(&second, &unsafe_).await;
    assert_eq!(state(write), ("unknown".to_owned(), 1));
    for location in [&safe, &listed] {
        let write = ended(&second, location).await;
        assert_eq!(state(write), ("succeeded".to_owned(), 2));
    }
    let again = second.send(keyed(post(5), "k")).await;
    assert_eq!(again.error_type(), "gateway-outcome-unknown", "{again:?}");
    // Whatever was sent may still take effect: its lanes are closed.
    let began = Instant::now();
    assert_eq!(second.send(post(2)).await.status, 200);
    let waited = began.elapsed();
    assert!((50..61).contains(&waited.as_secs()), "{waited:?}");
    // The list was deleted as a whole.
    assert_eq!(second.sandbox.arrivals().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_had_left_long_ago_is_not_repeated() {
    let silent = Script::new(|_, _| Step::Silent);
    let memory = Journal::in_memory().unwrap();
    let first = silent.world_of(keeping(slow(), &memory).await);
    let location = defer(&first, put(1)).await;
    sleep(Duration::from_secs(1)).await;
    let memory = left_by_crash(&memory).await;
    drop(first);
    sleep(Duration::from_secs(301)).await;
    let mut setup = keeping(slow(), &memory).await;
    // The same wall clock.
    setup.clock = segment_gateway::clock::Clock::simulated(
        std::time::SystemTime::UNIX_EPOCH + super::support::WALL + Duration::from_secs(302),
        Duration::from_secs(10_302),
    );
    let second = setup.start();
    assert_eq!(
        second
            .gateway
            .writes()
            .recover(Some(&[]))
            .await
            .unwrap()
            .unknown,
        1
    );
    assert_eq!(ended(&second, &location).await["state"], "unknown");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_asked_for_again_only_where_that_does_no_harm() {
    let script = Script::new(|_, before| match before {
        0 | 1 => Step::Close,
        2 => Step::Later(SOON, answer(503, "{}")),
        _ => Step::Later(SOON, answer(200, r#"{"data":{}}"#)),
    });
    let world = script.world();
    let location = defer(&world, put(1)).await;
    let write = ended(&world, &location).await;
    assert_eq!(
        (&write["state"], &write["attempts"]),
        (&"succeeded".into(), &4.into())
    );
    // The first attempts may take effect late: the lane stays closed for that.
    let began = Instant::now();
    assert_eq!(world.send(post(1)).await.status, 200);
    assert!(
        began.elapsed() > Duration::from_secs(50),
        "{:?}",
        began.elapsed()
    );
    let script = Script::new(|_, _| Step::Close);
    let world = script.world();
    let location = defer(&world, post(1)).await;
    let write = ended(&world, &location).await;
    assert_eq!(
        (&write["state"], &write["attempts"]),
        (&"unknown".into(), &1.into())
    );
    assert_eq!(script.count(), 1);
    let late = world
        .send(request(Method::DELETE, &location, "a", ""))
        .await;
    assert_eq!(late.status, 409);
}

#[tokio::test(start_paused = true)]
async fn repeating_ends_after_five_minutes() {
    let script = Script::new(|_, _| Step::Close);
    let world = script.world();
    let location = defer(&world, put(1)).await;
    let began = Instant::now();
    let write = ended(&world, &location).await;
    assert_eq!(write["state"], "unknown");
    let took = began.elapsed().as_secs();
    assert!((300..400).contains(&took), "{took}");
    let attempts = write["attempts"].as_u64().unwrap();
    assert!((10..30).contains(&attempts), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn what_the_retry_budget_does_not_give_is_waited_for() {
    let script = Script::new(|_, before| match before {
        0 => Step::Close,
        _ => Step::Answer(answer(200, r#"{"data":{}}"#)),
    });
    let world = script.world();
    world.spend_retry_budget(Duration::ZERO);
    let location = defer(&world, put(1)).await;
    let write = ended(&world, &location).await;
    assert_eq!(
        (&write["state"], &write["attempts"]),
        (&"succeeded".into(), &2.into())
    );
    let seen = script.seen();
    // A fifth of a repetition came with the write itself.
    assert!(seen[1].at - seen[0].at >= Duration::from_millis(4_800));
    let text = metrics(&world).await;
    for name in ["write_retries", "write_retries_denied"] {
        let once =
            format!("segment_gateway_{name}_total{{operation=\"replacePermissionsForUser\"}} 1\n");
        assert!(text.contains(&once), "{once} is not in {text}");
    }
    // If others take all that there is for so long, nobody knows what became of it.
    let script = Script::new(|_, _| Step::Answer(answer(503, "{}")));
    let world = script.world();
    world.spend_retry_budget(Duration::from_secs(300));
    let location = defer(&world, put(1)).await;
    let began = Instant::now();
    let write = ended(&world, &location).await;
    let took = began.elapsed().as_secs();
    assert_eq!(
        (
            &write["state"],
            &write["attempts"],
            &write["answer"]["status"]
        ),
        (&"unknown".into(), &1.into(), &503.into())
    );
    assert!((300..330).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_answer_had_deleted_counts_as_deleted() {
    let script = Script::new(|_, before| match before {
        0 => Step::Close,
        _ => Step::Answer(answer(404, "{}")),
    });
    let world = script.world();
    let target = "/users?userIds.0=user-00001";
    let location = defer(&world, request(Method::DELETE, target, "a", "")).await;
    let write = ended(&world, &location).await;
    assert_eq!(
        (&write["state"], &write["attempts"]),
        (&"succeeded".into(), &2.into())
    );
    let location = defer(&world, request(Method::DELETE, target, "a", "")).await;
    assert_eq!(ended(&world, &location).await["state"], "failed");
}

#[tokio::test(start_paused = true)]
async fn a_429_and_a_refused_connection_are_waited_out() {
    let script = Script::new(|_, before| match before {
        0 => Step::Answer(answer(429, "{}")),
        _ => Step::Answer(answer(200, r#"{"data":{}}"#)),
    });
    script.refuse(5);
    let world = script.world();
    let location = defer(&world, post(1)).await;
    let write = ended(&world, &location).await;
    assert_eq!(write["state"], "succeeded");
    assert_eq!(script.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_credential_pauses_what_was_deferred_with_it() {
    let script = Script::new(|seen, before| {
        let is_other = seen.headers["authorization"] == "Bearer b";
        let status = if before > 0 && is_other { 200 } else { 401 };
        Step::Later(SOON, answer(status, r#"{"data":{}}"#))
    });
    let world = script.world();
    let first = defer(&world, post(1)).await;
    sleep(Duration::from_secs(1)).await;
    let refused = world.send(deferred(post(2))).await;
    assert_eq!(refused.error_type(), "gateway-token-refused", "{refused:?}");
    sleep(Duration::from_secs(30)).await;
    let second = defer(&world, post(2)).await;
    sleep(Duration::from_secs(70)).await;
    for location in [&first, &second] {
        let write = world.get(location, "a").await.json()["data"]["write"].clone();
        assert_eq!(
            (&write["state"], &write["paused"]),
            (&"queued".into(), &true.into())
        );
    }
    assert_eq!(script.count(), 1);
    assert_eq!(world.durable().paused, 1);
    let mut other = deferred(post(3));
    let headers = other.headers_mut();
    headers.insert("authorization", "Bearer b".parse().unwrap());
    assert_eq!(world.send(other).await.status, 202);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(script.count(), 2);
    // Whoever waits for it hears the API's answer.
    let held: Answer = world.send(keyed(post(4), "k")).await;
    assert_eq!(held.status, 401);
    // After a day they have failed.
    sleep(Duration::from_secs(86_400 - 400)).await;
    world.gateway.writes().give_up_refused().await;
    assert_eq!(state(&world, &first).await, "queued");
    sleep(Duration::from_secs(500)).await;
    world.gateway.writes().give_up_refused().await;
    for location in [&first, &second] {
        assert_eq!(ended(&world, location).await["state"], "failed");
    }
    assert_eq!(world.durable().paused, 0);
}

#[tokio::test(start_paused = true)]
async fn stopping_leaves_what_has_not_left_to_the_next_process() {
    let memory = Journal::in_memory().unwrap();
    let world = Arc::new(keeping(slow(), &memory).await.start());
    for user in 1..=60 {
        defer(&world, put(user)).await;
    }
    sleep(Duration::from_secs(10)).await;
    let waits = defer(&world, put(99)).await;
    let held = world.spawn(keyed(put(98), "k"));
    tokio::task::yield_now().await;
    world.gateway.drain(Duration::from_secs(25));
    let told = held.await.unwrap();
    assert_eq!(told.error_type(), "gateway-write-pending", "{told:?}");
    assert_eq!(
        world.send(deferred(put(97))).await.error_type(),
        "gateway-draining"
    );
    world.gateway.tasks().idle().await;
    assert_eq!(state(&world, &waits).await, "queued");
    let second = Arc::new(keeping(slow(), &left_by_crash(&memory).await).await.start());
    assert_eq!(
        second
            .gateway
            .writes()
            .recover(Some(&[]))
            .await
            .unwrap()
            .queued,
        2
    );
    assert_eq!(ended(&second, &waits).await["state"], "succeeded");
    let again = second.send(keyed(put(98), "k")).await;
    assert_eq!(again.status, 200);
    assert_eq!(second.sandbox.arrivals().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_accepted_is_bounded_and_no_peer_has_more_than_half() {
    let mut setup = Setup::new(slow());
    setup.config.journal.writes = 100;
    let world = setup.start();
    let refused = |answer: &Answer| answer.error_type() == "gateway-queue-full";
    let mut accepted = 0;
    for user in 1..=120 {
        let answer = world.send(from_peer(deferred(put(user)), 1)).await;
        match answer.status.as_u16() {
            202 => accepted += 1,
            _ => assert!(refused(&answer), "{answer:?}"),
        }
    }
    // Sixty left at once in the meantime, or not: what has ended makes room.
    assert!((50..120).contains(&accepted), "{accepted}");
    let mut other = from_peer(deferred(put(130)), 2);
    let headers = other.headers_mut();
    headers.insert("authorization", "Bearer b".parse().unwrap());
    assert_eq!(world.send(other).await.status, 202);
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_forgotten_in_the_end() {
    let world = World::new(slow());
    let location = defer(&world, put(1)).await;
    ended(&world, &location).await;
    sleep(Duration::from_secs(86_000)).await;
    world.gateway.writes().forget_ended().await;
    assert_eq!(state(&world, &location).await, "succeeded");
    sleep(Duration::from_secs(1_000)).await;
    world.gateway.writes().forget_ended().await;
    assert_eq!(world.get(&location, "a").await.status, 404);
}

/// Nothing is done twice and nothing is lost when answers are, now and then.
#[tokio::test(start_paused = true)]
async fn lost_answers_double_nothing() {
    let spec = SandboxSpec {
        faults: Faults {
            lost_reply: 0.2,
            ..Faults::default()
        },
        ..slow()
    };
    let world = World::new(spec);
    let mut locations = Vec::new();
    for n in 0..40 {
        locations.push((n, defer(&world, invite(&format!("{n}@example.com"))).await));
    }
    let mut unknown = 0;
    for (n, location) in &locations {
        let write = ended(&world, location).await;
        let arrivals = world.sandbox.arrivals();
        let email = format!("\"{n}@example.com\"");
        let applied = arrivals
            .iter()
            .filter(|arrival| arrival.applied && arrival.body.contains(&email))
            .count();
        match write["state"].as_str().unwrap() {
            "succeeded" => assert_eq!(applied, 1),
            "unknown" => {
                unknown += 1;
                assert!(applied <= 1);
            }
            other => panic!("{other}"),
        }
    }
    assert!(unknown > 0);
}

#[tokio::test(start_paused = true)]
async fn operators_see_pause_and_cancel_the_writes_of_all() {
    let world = World::new(slow());
    let ask = async |method: Method, path: String| {
        let (status, text) = operator(&world, method, &path, true).await;
        let document: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        (status.as_u16(), document)
    };
    let pause = "/writes/pause?operation=replacePermissionsForUser".to_owned();
    let (status, _) = operator(&world, Method::POST, &pause, false).await;
    assert_eq!(status, 403, "a browser could have been made to send that");
    assert_eq!(ask(Method::POST, pause.clone()).await.1["changed"], true);
    assert_eq!(ask(Method::POST, pause).await.1["changed"], false);
    let first = defer(&world, put(1)).await;
    let second = defer(&world, put(2)).await;
    let other = defer(&world, invite("a@example.com")).await;
    assert_eq!(ended(&world, &other).await["state"], "succeeded");
    sleep(Duration::from_secs(100)).await;
    let listed = ask(Method::GET, "/writes?state=queued".into()).await.1;
    assert_eq!(listed["writes"].as_array().unwrap().len(), 2, "{listed}");
    assert_eq!(
        (&listed["queued"], &listed["ended"]["succeeded"]),
        (&2.into(), &1.into())
    );
    assert_eq!(
        listed["paused"][0]["operation"],
        "replacePermissionsForUser"
    );
    let whose = listed["writes"][0]["credential"].as_str().unwrap();
    let of_one = format!("/writes?credential={whose}&operation=createInvites");
    assert_eq!(
        ask(Method::GET, of_one).await.1["writes"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    // A path of the admin listener for each of them.
    let admin_path = |location: &str| location.trim_start_matches("/_gateway").to_owned();
    let shown = ask(Method::GET, admin_path(&first)).await.1;
    assert_eq!(
        (&shown["state"], &shown["paused"]),
        (&"queued".into(), &true.into())
    );
    let (status, cancelled) = ask(Method::DELETE, admin_path(&first)).await;
    assert_eq!((status, &cancelled["state"]), (200, &"cancelled".into()));
    assert_eq!(ask(Method::DELETE, admin_path(&other)).await.0, 409);
    for (path, expected) in [
        ("/writes/0192f0c1-2a3b-7c4d-8e5f-012345678901", 404),
        ("/writes/1", 404),
        ("/writes?state=x", 400),
        ("/writes?credential=00", 400),
        ("/writes?limit=0", 400),
        ("/writes?x=1", 400),
    ] {
        assert_eq!(ask(Method::GET, path.into()).await.0, expected, "{path}");
    }
    assert_eq!(ask(Method::POST, "/writes/pause".into()).await.0, 400);
    // Reads are never deferred, so a pause of one would only raise an alert.
    for action in ["pause", "resume"] {
        let read = format!("/writes/{action}?operation=getUser");
        let (status, answer) = ask(Method::POST, read).await;
        assert_eq!(status, 400);
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(message.contains("only writes"), "{answer}");
    }
    let resume = "/writes/resume?operation=replacePermissionsForUser".to_owned();
    assert_eq!(ask(Method::POST, resume).await.1["changed"], true);
    assert_eq!(ended(&world, &second).await["state"], "succeeded");
    // Of a credential.
    let of = |what: &str| format!("/writes/{what}?credential={whose}");
    assert_eq!(ask(Method::POST, of("pause")).await.0, 200);
    let third = defer(&world, put(3)).await;
    sleep(Duration::from_secs(100)).await;
    assert_eq!(state(&world, &third).await, "queued");
    assert_eq!(ask(Method::POST, of("resume")).await.0, 200);
    assert_eq!(ended(&world, &third).await["state"], "succeeded");
    let text = metrics(&world).await;
    for line in [
        "segment_gateway_durable_writes{state=\"queued\"} 0",
        "segment_gateway_durable_writes_ended_total{operation=\"createInvites\",state=\"succeeded\"} 1",
        "segment_gateway_durable_paused 0",
        "segment_gateway_journal_commit_duration_seconds_count{result=\"kept\"}",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_api_does_not_answer_writes_wait_and_one_at_a_time_asks() {
    let script = Script::new(|_, before| match before {
        0..20 => Step::Later(SOON, answer(503, "{}")),
        _ => Step::Later(SOON, answer(200, r#"{"data":{}}"#)),
    });
    let world = script.world();
    let mut locations = Vec::new();
    for user in 1..=30 {
        locations.push(defer(&world, put(user)).await);
    }
    sleep(Duration::from_secs(20)).await;
    // Eight and those under way with them opened it; the rest were probes, more and more rarely.
    let asked = script.count();
    assert!((8..18).contains(&asked), "{asked}");
    let text = metrics(&world).await;
    assert!(text.contains("segment_gateway_breaker_open 1\n"), "{text}");
    // Whoever cannot wait hears so at once, and nothing was sent.
    let refused = world.send(with(put(99), "prefer", "wait=0")).await;
    assert_eq!(
        refused.error_type(),
        "gateway-upstream-unreachable",
        "{refused:?}"
    );
    assert_eq!(refused.json()["errors"][0]["data"]["sent"], false);
    assert_eq!(script.count(), asked);
    for location in &locations {
        assert_eq!(ended(&world, location).await["state"], "succeeded");
    }
    assert!(
        metrics(&world)
            .await
            .contains("segment_gateway_breaker_open 0\n")
    );
}

/// A write that is admitted as the probe and then cannot be recorded leaves that to the next one.
#[tokio::test(start_paused = true)]
async fn a_probe_that_the_journal_cannot_record_holds_up_nobody() {
    let script = Script::new(|_, before| match before {
        0..8 => Step::Later(SOON, answer(503, "{}")),
        _ => Step::Later(SOON, answer(200, r#"{"data":{}}"#)),
    });
    let memory = Journal::in_memory().unwrap();
    let world = script.world_of(keeping(slow(), &memory).await);
    let happens = async |what: &str| {
        while !metrics(&world).await.contains(what) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let mut locations = Vec::new();
    for user in 1..=8 {
        locations.push(defer(&world, put(user)).await);
    }
    happens("segment_gateway_breaker_open 1\n").await;
    memory.fail_next(1);
    happens("segment_gateway_journal_commit_duration_seconds_count{result=\"failed\"} 1\n").await;
    // With nobody to take over, writes would wait for the time of a probe.
    let began = Instant::now();
    let held = world.send(put(99)).await;
    assert_eq!(held.status, 200, "{held:?}");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    for location in &locations {
        assert_eq!(ended(&world, location).await["state"], "succeeded");
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_does_not_count_as_not_answering() {
    let script = Script::new(|_, before| match before {
        0..30 => Step::Answer(field(answer(429, "{}"), "retry-after", "1")),
        _ => Step::Answer(answer(200, r#"{"data":{}}"#)),
    });
    let world = script.world();
    let location = defer(&world, put(1)).await;
    assert_eq!(ended(&world, &location).await["state"], "succeeded");
    assert_eq!(script.count(), 31);
}

#[tokio::test(start_paused = true)]
async fn stopping_amid_a_refused_union_loses_nothing() {
    let memory = Journal::in_memory().unwrap();
    let world = Arc::new(keeping(slow(), &memory).await.start());
    let delete = |email: &str| {
        let target = format!("/invites?emails.0={}", email.replace('@', "%40"));
        request(Method::DELETE, &target, "a", "")
    };
    let guest = |n: usize| format!("guest-{n}@example.com");
    let mut invites = Vec::new();
    for n in 0..80 {
        invites.push(world.spawn(invite(&guest(n))));
    }
    for ask in invites {
        assert_eq!(ask.await.unwrap().status, 201);
    }
    // All but two slots are used, and then a union with a wrong address is divided.
    for n in 0..58 {
        assert_eq!(world.send(delete(&guest(n))).await.status, 200);
    }
    sleep(Duration::from_secs(1)).await;
    let mut locations = vec![defer(&world, delete("nobody@example.com")).await];
    for n in 60..79 {
        locations.push(defer(&world, delete(&guest(n))).await);
    }
    sleep(Duration::from_secs(2)).await;
    let copy = left_by_crash(&memory).await;
    world.gateway.drain(Duration::from_secs(5));
    world.gateway.tasks().idle().await;
    let left: Vec<_> = memory.unfinished().await.unwrap();
    assert!(left.len() > 10, "{}", left.len());
    assert_eq!(
        left.len(),
        copy.unfinished().await.unwrap().len(),
        "as after a crash"
    );
    let mut setup = keeping(slow(), &left_by_crash(&memory).await).await;
    setup.sandbox = Arc::clone(&world.sandbox);
    let second = setup.start();
    let recovered = second.gateway.writes().recover(Some(&[])).await.unwrap();
    assert_eq!(recovered.unknown, 0, "{recovered:?}");
    for location in &locations[1..] {
        assert_eq!(ended(&second, location).await["state"], "succeeded");
    }
    assert_eq!(world.sandbox.invites(), [guest(58), guest(59), guest(79)]);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_could_not_be_taken_back_goes_on() {
    let memory = Journal::in_memory().unwrap();
    let world = Arc::new(keeping(slow(), &memory).await.start());
    let first = world.spawn(keyed(put(1), "k1"));
    let second = world.spawn(keyed(put(1), "k2"));
    let location = defer(&world, put(1)).await;
    let listed = world.get("/_gateway/writes?state=queued", "a").await.json();
    let queued = listed["data"]["writes"].as_array().unwrap().clone();
    memory.fail_next(queued.len());
    for write in &queued {
        let target = format!("/_gateway/writes/{}", write["id"].as_str().unwrap());
        let failed = world.send(request(Method::DELETE, &target, "a", "")).await;
        assert_eq!(failed.status, 507, "{failed:?}");
    }
    assert_eq!(
        (queued.len(), first.await.unwrap().status.as_u16()),
        (2, 200)
    );
    assert_eq!(second.await.unwrap().status, 200);
    assert_eq!(ended(&world, &location).await["state"], "succeeded");
    assert_eq!(world.send(put(1)).await.status, 200);
    assert_eq!(world.sandbox.arrivals().len(), 4);
}
