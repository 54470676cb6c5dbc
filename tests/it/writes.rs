//! Writes through the whole stack: within the budget, in order, once, and never silently lost.

use super::support::scripted::{Script, Seen, Step, answer, field};
use super::support::{Answer, Setup, World, exposition, from_peer, request, with};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use segment_gateway::sandbox::{Delay, Faults, SandboxSpec};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

mod refused_retry;

const NOTHING: &str = r#"{"permissions":[]}"#;

fn slow(half: Duration) -> SandboxSpec {
    let half = Delay {
        base: half,
        jitter: Duration::ZERO,
    };
    SandboxSpec {
        arrive: half,
        reply: half,
        ..SandboxSpec::default()
    }
}

fn put(user: usize) -> Request<Full<Bytes>> {
    let target = format!("/users/user-{user:05}/permissions");
    request(Method::PUT, &target, "a", NOTHING)
}

/// Uses up the budget of `replacePermissionsForUser`, as the users from 101 on.
async fn spend(world: &Arc<World>, slots: usize) {
    let writes: Vec<_> = (0..slots).map(|n| world.spawn(put(101 + n))).collect();
    for write in writes {
        assert_eq!(write.await.unwrap().status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn seventy_writes_at_once_finish_without_a_429() {
    let world = Arc::new(World::new(slow(Duration::from_millis(100))));
    let began = Instant::now();
    spend(&world, 70).await;
    let arrivals = world.sandbox.arrivals();
    assert_eq!(arrivals.len(), 70);
    assert!(arrivals.iter().all(|arrival| arrival.status == 200));
    let took = began.elapsed();
    assert!((60..63).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn writes_of_one_user_are_carried_out_in_order_across_operations() {
    let world = Arc::new(World::new(slow(Duration::from_millis(100))));
    let one =
        r#"{"permissions":[{"roleId":"source-admin","resources":[{"id":"s","type":"SOURCE"}]}]}"#;
    let target = "/users/user-00001/permissions";
    let mut writes = Vec::new();
    for (method, target, body) in [
        (Method::POST, target, one),
        (Method::PUT, target, NOTHING),
        (Method::POST, target, one),
        (Method::DELETE, "/users?userIds%5B0%5D=user-00001", ""),
        (Method::PUT, target, one),
    ] {
        writes.push(world.spawn(request(method, target, "a", body)));
        tokio::task::yield_now().await;
    }
    let mut statuses = Vec::new();
    for write in writes {
        statuses.push(write.await.unwrap().status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 200, 404]);
    let arrivals = world.sandbox.arrivals();
    let methods: Vec<_> = arrivals.iter().map(|arrival| &*arrival.method).collect();
    assert_eq!(methods, ["POST", "PUT", "POST", "DELETE", "PUT"]);
    for two in arrivals.windows(2) {
        assert!(
            two[1].at - two[0].at >= Duration::from_millis(200),
            "answered first"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn deleting_users_by_id_keeps_apart_from_writes_that_name_people_by_email() {
    let world = Arc::new(World::new(slow(Duration::from_millis(100))));
    let writes = [
        (
            Method::POST,
            "/groups/group-00001/users",
            r#"{"emails":["user-00002@example.com"]}"#,
        ),
        (Method::DELETE, "/users?userIds=user-00002", ""),
        (
            Method::POST,
            "/invites",
            r#"{"invites":[{"email":"user-00002@example.com"}]}"#,
        ),
        // Another person's, and no barrier in between: travels with the one before.
        (
            Method::POST,
            "/invites",
            r#"{"invites":[{"email":"other@example.com"}]}"#,
        ),
    ];
    let mut tasks = Vec::new();
    for (method, target, body) in writes {
        tasks.push(world.spawn(request(method, target, "a", body)));
        tokio::task::yield_now().await;
    }
    for task in tasks {
        assert!(task.await.unwrap().status.is_success());
    }
    let arrivals = world.sandbox.arrivals();
    let names: Vec<_> = arrivals.iter().map(|arrival| arrival.operation).collect();
    assert_eq!(
        names,
        ["addUsersToUserGroup", "deleteUsers", "createInvites"]
    );
    let gap = |n: usize| arrivals[n + 1].at - arrivals[n].at;
    assert!(gap(0) >= Duration::from_millis(200) && gap(1) >= Duration::from_millis(200));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_hangs_up_in_the_queue_costs_nothing() {
    let world = Arc::new(World::new(slow(Duration::from_millis(100))));
    spend(&world, 60).await;
    let hung_up = world.spawn(put(1));
    sleep(Duration::from_secs(10)).await;
    hung_up.abort();
    sleep(Duration::from_secs(120)).await;
    assert_eq!(world.sandbox.arrivals().len(), 60, "it never left");
    assert_eq!(world.gateway.budgets().waiting(), 0);
    // Nor does it keep its lane.
    assert_eq!(
        world.send(with(put(1), "prefer", "wait=0")).await.status,
        200
    );
}

#[tokio::test(start_paused = true)]
async fn a_write_that_has_left_is_carried_through_without_its_caller() {
    let world = Arc::new(World::new(slow(Duration::from_secs(1))));
    world.get("/users/user-00001", "a").await;
    let write = timeout(Duration::from_millis(500), world.send(put(1))).await;
    assert!(write.is_err(), "hung up under way");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.sandbox.permissions("user-00001"), Some(Vec::new()));
    let read = world.get("/users/user-00001", "a").await;
    assert_eq!(
        read.json()["data"]["user"]["permissions"],
        serde_json::json!([])
    );
    let two = [world.spawn(put(1)), world.spawn(put(1))];
    for write in two {
        assert_eq!(write.await.unwrap().status, 200, "the lane is open");
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_want_to_wait_is_told_at_once_and_admitted_after_retry_after() {
    let world = Arc::new(World::new(slow(Duration::from_millis(100))));
    let now = || with(put(1), "prefer", "wait=0");
    assert_eq!(world.send(now()).await.status, 200, "now is possible");
    spend(&world, 59).await;
    let asked = Instant::now();
    let refused = world.send(now()).await;
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!(refused.status, 503);
    assert_eq!(refused.error_type(), "gateway-queue-wait");
    assert_eq!(refused.json()["errors"][0]["data"]["sent"], false);
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((50..=62).contains(&seconds), "{seconds}");
    let standing = refused.header("ratelimit");
    assert!(standing.contains(";r=0;"), "{standing}");
    assert!(refused.header("ratelimit-policy").contains(";q=60;w=60"));
    assert_eq!(world.sandbox.arrivals().len(), 60);
    sleep(Duration::from_secs(seconds)).await;
    assert_eq!(world.send(now()).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once_and_leaves_room_for_another_caller() {
    let mut setup = Setup::new(slow(Duration::from_millis(100)));
    setup.config.queue.per_budget = 8;
    let world = Arc::new(setup.start());
    let from = |peer: u8, user: usize| from_peer(put(user), peer);
    let sent: Vec<_> = (0..60)
        .map(|n| world.spawn(from(3 + u8::try_from(n / 4).unwrap(), 101 + n)))
        .collect();
    let mut done = 0;
    for write in sent {
        done += usize::from(write.await.unwrap().status == 200);
    }
    // Whatever was refused of the first wave: the budget is spent now, or will be by these.
    for n in done..60 {
        assert_eq!(world.send(from(99, 101 + n)).await.status, 200);
    }
    let flood: Vec<_> = (0..8).map(|n| world.spawn(from(1, 1 + n))).collect();
    sleep(Duration::from_secs(1)).await;
    let refused: Vec<_> = flood.iter().filter(|write| write.is_finished()).collect();
    assert_eq!(refused.len(), 4, "half of the line is for one caller");
    let other = world.spawn(from(2, 20));
    sleep(Duration::from_secs(1)).await;
    assert!(!other.is_finished(), "another one waits");
    let mut full = 0;
    for write in flood {
        let answer = write.await.unwrap();
        if answer.status == 503 {
            full += 1;
            assert_eq!(answer.error_type(), "gateway-queue-full");
            assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
        }
    }
    assert_eq!(full, 4);
    assert_eq!(other.await.unwrap().status, 200);
}

#[tokio::test(start_paused = true)]
async fn what_expires_in_the_queue_was_not_sent() {
    let script = Script::new(|_, _| Step::Later(Duration::from_secs(25), answer(200, "{}")));
    let world = script.world();
    let first = world.spawn(put(1));
    sleep(Duration::from_secs(1)).await;
    // The lane is expected to be free in half a second, and is not.
    let asked = Instant::now();
    let expired = world.send(with(put(1), "prefer", "wait=5")).await;
    assert_eq!(asked.elapsed(), Duration::from_secs(5));
    assert_eq!(expired.status, 503, "{expired:?}");
    assert_eq!(expired.error_type(), "gateway-queue-expired");
    assert_eq!(expired.json()["errors"][0]["data"]["sent"], false);
    assert!(!expired.header("retry-after").is_empty());
    assert_eq!(first.await.unwrap().status, 200);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(script.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_429_is_waited_out_and_not_seen() {
    let body = r#"{"errors":[{"type":"RequestError","message":"Too many requests","data":{"remainingPoints":0,"msBeforeNext":7000,"consumedPoints":61}}]}"#;
    let script = Script::new(move |_, n| match n {
        0 => Step::Answer(field(answer(429, body), "retry-after", "7")),
        _ => Step::Answer(answer(200, "{}")),
    });
    for method in [Method::PUT, Method::GET] {
        let world = script.world();
        let before = script.count();
        let asked = Instant::now();
        let answer = world
            .write(method.clone(), "/users/u/permissions", "a", "{}")
            .await;
        assert_eq!(answer.status, 200, "{method} {answer:?}");
        if before == 0 {
            assert_eq!(script.count(), 2);
            assert!((7..9).contains(&asked.elapsed().as_secs()));
        }
    }
    let world = Arc::new(World::new(SandboxSpec {
        faults: Faults {
            throttle: 0.3,
            ..Faults::default()
        },
        ..slow(Duration::from_millis(50))
    }));
    spend(&world, 20).await;
    assert!(
        world
            .sandbox
            .arrivals()
            .iter()
            .any(|arrival| arrival.refused())
    );
}

fn is_unknown(answer: &Answer, status: u16, may_retry: bool) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.error_type(), "gateway-outcome-unknown");
    let data = &answer.json()["errors"][0]["data"];
    assert_eq!(data["sent"], true);
    assert_eq!(data["mayRetry"], may_retry, "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_write_says_so_and_is_not_sent_again_where_that_could_do_more() {
    let overridden = with(put(1), "x-http-method-override", "PATCH");
    for request in [
        request(Method::POST, "/users/u/permissions", "a", "{}"),
        request(Method::PATCH, "/groups/g", "a", "{}"),
        request(Method::POST, "/v9/unknown", "a", "{}"),
        overridden,
    ] {
        for (step, status) in [(Step::Close, 502), (Step::Silent, 504)] {
            let script = Script::new(move |_, _| step.clone());
            let world = script.world();
            is_unknown(&world.send(request.clone()).await, status, false);
            sleep(Duration::from_secs(300)).await;
            assert_eq!(script.count(), 1, "{request:?}");
        }
        for status in [500, 502, 503, 504] {
            let script = Script::new(move |_, _| Step::Answer(answer(status, FAILED)));
            let world = script.world();
            is_passed_on(&world.send(request.clone()).await, status);
            sleep(Duration::from_secs(300)).await;
            assert_eq!(script.count(), 1, "{request:?}");
        }
    }
}

const FAILED: &str = r#"{"errors":[{"type":"internal"}]}"#;

fn is_passed_on(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.body, FAILED, "{answer:?}");
}

/// A write that does not wait, and so is not repeated either.
fn now(user: usize) -> Request<Full<Bytes>> {
    with(put(user), "prefer", "wait=0")
}

/// What the metrics say of `replacePermissionsForUser`.
async fn counted(world: &World, name: &str) -> f64 {
    let samples = exposition::samples(&exposition::metrics(world).await);
    let of_put = |labels: &[(String, String)]| {
        let mut labels = labels.iter();
        labels.any(|(_, value)| value == "replacePermissionsForUser")
    };
    let values = samples
        .iter()
        .filter(|(metric, labels, _)| metric == name && of_put(labels))
        .map(|(_, _, value)| value);
    values.sum()
}

#[tokio::test(start_paused = true)]
async fn a_write_that_may_have_taken_effect_is_repeated_if_that_does_no_more() {
    for lost in [
        Step::Close,
        Step::Silent,
        Step::Answer(answer(502, FAILED)),
        Step::Answer(answer(503, FAILED)),
        Step::Later(Duration::from_secs(5), answer(504, FAILED)),
    ] {
        let script = Script::new(move |_, n| match n {
            0 | 1 => lost.clone(),
            _ => Step::Answer(answer(200, r#"{"data":{}}"#)),
        });
        let world = script.world();
        let answer = world.send(put(1)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let seen = script.seen();
        assert_eq!(seen.len(), 3);
        for two in seen.windows(2) {
            assert!(two[1].at - two[0].at >= Duration::from_millis(250));
            assert_eq!(
                (&two[0].method, &two[0].target, &two[0].body),
                (&two[1].method, &two[1].target, &two[1].body)
            );
        }
        let repeated = counted(&world, "segment_gateway_write_retries_total").await;
        assert_eq!(repeated, 2.0);
        assert_eq!(counted(&world, "segment_gateway_requests_total").await, 1.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_is_not_repeated_once_its_caller_does_not_wait_or_there_is_no_repetition() {
    let (gone, failed) = (Step::Close, Step::Answer(answer(503, FAILED)));
    for (step, status) in [(gone, 502), (failed, 503)] {
        let heard = |answer: &Answer| match status {
            502 => is_unknown(answer, 502, true),
            _ => is_passed_on(answer, status),
        };
        let script = Script::new(move |_, _| step.clone());
        let world = script.world();
        heard(&world.send(now(1)).await);
        assert_eq!(script.count(), 1);
        let refused = "segment_gateway_write_retries_denied_total";
        assert_eq!(counted(&world, refused).await, 0.0);
        world.spend_retry_budget(Duration::ZERO);
        heard(&world.send(put(2)).await);
        assert_eq!(script.count(), 2);
        assert_eq!(counted(&world, refused).await, 1.0);
        // As many as there is time for.
        sleep(Duration::from_secs(120)).await;
        let began = Instant::now();
        heard(&world.send(put(3)).await);
        let took = began.elapsed().as_secs();
        assert!((60..=150).contains(&took), "{took}");
        let attempts = script.count() - 2;
        assert!((6..15).contains(&attempts), "{attempts}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_have_taken_effect_is_never_said_not_to_have_been_sent() {
    let too_long = || field(answer(429, "{}"), "retry-after", "600");
    for failed in [true, false] {
        let script = Script::new(move |_, n| match (n, failed) {
            (0, true) => Step::Answer(answer(503, FAILED)),
            (0, false) => Step::Close,
            _ => Step::Answer(too_long()),
        });
        let world = script.world();
        let heard = world.send(put(1)).await;
        match failed {
            true => is_passed_on(&heard, 503),
            false => is_unknown(&heard, 502, true),
        }
        assert!(script.count() >= 2);
        // The repetition does not even get a connection.
        let script = Script::new(move |_, _| match failed {
            true => Step::Answer(field(answer(503, FAILED), "connection", "close")),
            false => Step::Close,
        });
        let world = script.world();
        let write = world.spawn(put(1));
        while script.count() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        script.refuse(usize::MAX);
        let heard = write.await.unwrap();
        match failed {
            true => is_passed_on(&heard, 503),
            false => is_unknown(&heard, 502, true),
        }
        assert_eq!(script.count(), 1);
    }
    // The gateway stops between two attempts.
    let script = Script::new(|_, _| Step::Answer(answer(503, FAILED)));
    let world = script.world();
    let write = world.spawn(put(1));
    while script.count() < 4 {
        sleep(Duration::from_millis(1)).await;
    }
    world.gateway.drain(Duration::from_secs(25));
    world.gateway.budgets().end();
    is_passed_on(&write.await.unwrap(), 503);
    assert_eq!(script.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_answer_had_deleted_is_gone() {
    let script = Script::new(|_, n| match n {
        0 => Step::Close,
        _ => Step::Answer(answer(404, FAILED)),
    });
    let world = script.world();
    let target = "/users?userIds.0=u";
    is_passed_on(
        &world.send(request(Method::DELETE, target, "a", "")).await,
        404,
    );
    assert_eq!(script.count(), 2);
    let text = exposition::metrics(&world).await;
    let written = "segment_gateway_requests_total{code=\"4xx\",operation=\"deleteUsers\",outcome=\"written\"} 1";
    assert!(text.contains(written), "{text}");
}

#[tokio::test(start_paused = true)]
async fn no_other_write_of_its_lane_leaves_between_a_write_and_its_repetition() {
    // An answer of a balancer's, and one of the API's own.
    let balancers = answer(503, FAILED);
    let own = field(balancers.clone(), "x-ratelimit-remaining", "50");
    let own = field(own, "x-ratelimit-consumed", "10");
    for failed in [balancers, own] {
        let script = Script::new(move |_: &Seen, n| match n {
            0..3 => Step::Answer(failed.clone()),
            _ => Step::Answer(answer(200, "{}")),
        });
        let world = script.world();
        let first = world.spawn(put(1));
        while script.count() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        let target = "/users/user-00001/permissions";
        let other = r#"{"permissions":[1]}"#;
        let second = world.spawn(request(Method::PUT, target, "a", other));
        // Its lane is known not to open before the first attempt can no longer take effect.
        let refused = world.send(with(put(1), "prefer", "wait=10")).await;
        assert_eq!(refused.error_type(), "gateway-queue-wait", "{refused:?}");
        assert_eq!(first.await.unwrap().status, 200);
        assert_eq!(second.await.unwrap().status, 200);
        let seen = script.seen();
        let bodies: Vec<_> = seen.iter().map(|seen| seen.body.clone()).collect();
        assert_eq!(bodies, [NOTHING, NOTHING, NOTHING, NOTHING, other]);
        let closed = (seen[4].at - seen[2].at).as_secs();
        assert!((60..62).contains(&closed), "{closed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_is_not_repeated_for_a_caller_that_has_hung_up() {
    // Before the answer, and after it.
    for patience in [500, 1_100].map(Duration::from_millis) {
        let script = Script::new(|_: &Seen, n| match n {
            0 => Step::Later(Duration::from_secs(1), answer(503, FAILED)),
            _ => Step::Answer(answer(200, "{}")),
        });
        let world = script.world();
        let hung_up = timeout(patience, world.send(put(1))).await;
        assert!(hung_up.is_err());
        sleep(Duration::from_secs(30)).await;
        assert_eq!(script.count(), 1, "{patience:?}");
        assert_eq!(world.gateway.budgets().waiting(), 0);
        // Its lane stays closed, as after any unknown outcome.
        let refused = world.send(now(1)).await;
        assert_eq!(refused.error_type(), "gateway-queue-wait", "{refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_last_write_is_unknown_stays_closed_for_q() {
    let script = Script::new(|_: &Seen, n| match n {
        0 => Step::Close,
        _ => Step::Answer(answer(200, "{}")),
    });
    let world = script.world();
    let began = Instant::now();
    is_unknown(&world.send(now(1)).await, 502, true);
    let refused = world.send(with(put(1), "prefer", "wait=10")).await;
    assert_eq!(refused.error_type(), "gateway-queue-wait", "{refused:?}");
    assert_eq!(world.send(put(2)).await.status, 200, "another lane is open");
    assert_eq!(world.send(put(1)).await.status, 200);
    let waited = began.elapsed().as_secs();
    assert!((60..62).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn refused_connections_are_tried_again_and_then_reported() {
    let script = Script::new(|_, _| Step::Answer(answer(200, "{}")));
    for method in [Method::POST, Method::GET] {
        let world = script.world();
        let before = script.count();
        script.refuse(2);
        let answer = world
            .write(method.clone(), "/users/u/permissions", "a", "{}")
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(script.count(), before + 1);
        script.refuse(usize::MAX);
        let world = script.world();
        let answer = world.write(method, "/users/u/permissions", "a", "{}").await;
        script.refuse(0);
        assert_eq!(answer.status, 502, "{answer:?}");
        assert_eq!(answer.error_type(), "gateway-upstream-unreachable");
        let data = &answer.json()["errors"][0]["data"];
        assert_eq!(data["sent"], false);
        assert_eq!(data["mayRetry"], true);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_limit_is_refused_in_the_envelope() {
    let script = Script::new(|_, _| Step::Answer(answer(200, "{}")));
    let world = script.world();
    let most = " ".repeat(1 << 20);
    let target = "/users/u/permissions";
    assert_eq!(
        world.write(Method::PUT, target, "a", &most).await.status,
        200
    );
    let more = " ".repeat((1 << 20) + 1);
    let refused = world.write(Method::PUT, target, "a", &more).await;
    assert_eq!(refused.status, 413);
    assert_eq!(refused.error_type(), "gateway-body-too-large");
    assert_eq!(script.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn draining_carries_out_what_it_can_and_refuses_the_rest_at_once() {
    let world = Arc::new(World::new(slow(Duration::from_millis(100))));
    let writes: Vec<_> = (0..130).map(|n| world.spawn(put(1 + n))).collect();
    sleep(Duration::from_secs(40)).await;
    assert_eq!(
        writes.iter().filter(|write| write.is_finished()).count(),
        60
    );
    world.gateway.drain(Duration::from_secs(25));
    let late = world.spawn(put(200));
    sleep(Duration::from_millis(10)).await;
    let refused = writes.iter().filter(|write| write.is_finished()).count() - 60;
    assert_eq!(refused, 10, "what would leave after the deadline");
    assert_eq!(late.await.unwrap().error_type(), "gateway-draining");
    let (mut done, mut draining) = (0, 0);
    for write in writes {
        let answer = write.await.unwrap();
        match answer.status.as_u16() {
            200 => done += 1,
            _ => {
                assert_eq!(answer.status, 503, "{answer:?}");
                assert_eq!(answer.error_type(), "gateway-draining");
                assert_eq!(answer.json()["errors"][0]["data"]["sent"], false);
                draining += 1;
            }
        }
    }
    assert_eq!((done, draining), (120, 10));
    assert_eq!(world.sandbox.arrivals().len(), 120);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_caller_leaves_another_unrefused() {
    let mut setup = Setup::new(slow(Duration::from_millis(100)));
    // So slow that the test's own time does not matter.
    setup.config.callers.rate.limit = 1;
    setup.config.callers.rate.window = Duration::from_secs(86_400);
    setup.config.callers.burst = 10;
    assert!(NonZeroU32::new(setup.config.callers.burst).is_some());
    let world = Arc::new(setup.start());
    let get = |peer, user: usize| {
        let target = format!("/users/user-{user:05}");
        from_peer(request(Method::GET, &target, "a", ""), peer)
    };
    let mut flood = Vec::new();
    for n in 1..=20 {
        flood.push(world.spawn(get(1, n)));
        flood.push(world.spawn(from_peer(put(n), 1)));
    }
    let (mut served, mut refused) = (0, 0);
    for task in flood {
        let answer = task.await.unwrap();
        match answer.status.as_u16() {
            429 => {
                assert_eq!(answer.error_type(), "gateway-caller-quota");
                assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
                refused += 1;
            }
            _ => served += 1,
        }
    }
    assert_eq!((served, refused), (10, 30));
    assert_eq!(world.sandbox.arrivals().len(), 10);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.send(get(2, 100)).await.status, 200);
    assert_eq!(world.send(from_peer(put(101), 2)).await.status, 200);
    let free = world.send(get(1, 100)).await;
    assert_eq!(free.status, 200, "what is stored is free");
    assert!(free.header("cache-status").contains("; hit;"));
}

#[tokio::test(start_paused = true)]
async fn stopping_refuses_those_whose_lanes_stay_closed_and_everybody_at_its_end() {
    let script = Script::new(|_: &Seen, n| match n {
        0 => Step::Close,
        _ => Step::Answer(answer(200, "{}")),
    });
    let world = script.world();
    is_unknown(&world.send(now(1)).await, 502, true);
    let behind = world.spawn(put(1));
    sleep(Duration::from_secs(5)).await;
    assert!(!behind.is_finished());
    world.gateway.drain(Duration::from_secs(25));
    let refused = behind.await.unwrap();
    assert_eq!(refused.error_type(), "gateway-draining", "{refused:?}");
    assert_eq!(refused.json()["errors"][0]["data"]["sent"], false);
    assert_eq!(script.count(), 1);

    // One that is thought to leave in time, and does not.
    let script = Script::new(|_: &Seen, n| match n {
        0 => Step::Later(Duration::from_secs(25), answer(200, "{}")),
        _ => Step::Answer(answer(200, "{}")),
    });
    let world = script.world();
    let first = world.spawn(put(1));
    sleep(Duration::from_secs(1)).await;
    let second = world.spawn(put(1));
    sleep(Duration::from_secs(1)).await;
    world.gateway.drain(Duration::from_secs(10));
    sleep(Duration::from_secs(10)).await;
    assert!(!second.is_finished());
    world.gateway.budgets().end();
    assert_eq!(second.await.unwrap().error_type(), "gateway-draining");
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(script.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn caller_timeout_bounds_every_wait_and_leaves_room_for_the_answer() {
    let mut setup = Setup::new(slow(Duration::from_secs(2)));
    setup.config.wait.caller_timeout = Some(Duration::from_secs(70));
    let world = Arc::new(setup.start());
    world.get("/users/user-00001", "a").await;
    spend(&world, 60).await;
    let asked = Instant::now();
    let waits = world.send(put(1)).await;
    assert_eq!(waits.status, 200, "{waits:?}");
    assert!(asked.elapsed() < Duration::from_secs(70));
    // An answer that does not come is an unknown outcome before anybody in front gives up.
    let script = Script::new(|seen: &Seen, _| match seen.method {
        Method::PUT => Step::Later(Duration::from_secs(20), answer(200, "{}")),
        _ => Step::Answer(answer(200, "{}")),
    });
    let mut setup = Setup::new(SandboxSpec::default());
    setup.config.wait.caller_timeout = Some(Duration::from_secs(8));
    let world = script.world_of(setup);
    world.get("/users/user-00001", "a").await;
    let asked = Instant::now();
    is_unknown(&world.send(put(1)).await, 504, true);
    assert_eq!(asked.elapsed(), Duration::from_secs(8));
    let read = world.get("/users/user-00001", "a").await;
    assert!(!read.header("cache-status").contains("; hit"), "{read:?}");
    sleep(Duration::from_secs(30)).await;
    assert_eq!(script.count(), 3, "it was carried through, once");
}

#[tokio::test(start_paused = true)]
async fn one_callers_held_writes_leave_room_for_anothers() {
    let mut setup = Setup::new(slow(Duration::from_millis(100)));
    setup.config.server.connections = 16;
    let world = Arc::new(setup.start());
    for n in 0..60 {
        assert_eq!(world.send(put(101 + n)).await.status, 200);
    }
    let flood: Vec<_> = (1..=8).map(|n| world.spawn(from_peer(put(n), 1))).collect();
    sleep(Duration::from_secs(1)).await;
    let refused = flood.iter().filter(|write| write.is_finished()).count();
    assert_eq!(refused, 4, "half of half of the connections");
    let other = world.spawn(from_peer(put(20), 2));
    sleep(Duration::from_secs(1)).await;
    assert!(!other.is_finished());
    for write in flood {
        let answer = write.await.unwrap();
        if answer.status != 200 {
            assert_eq!(answer.error_type(), "gateway-queue-full");
            let after: u64 = answer.header("retry-after").parse().unwrap();
            assert!((40..=61).contains(&after), "{after}");
        }
    }
    assert_eq!(other.await.unwrap().status, 200);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_closed_lane_is_in_nobodys_way() {
    let script = Script::new(|_: &Seen, n| match n {
        0 => Step::Close,
        _ => Step::Answer(answer(200, "{}")),
    });
    let world = script.world();
    is_unknown(&world.send(now(1)).await, 502, true);
    let behind: Vec<_> = (0..20).map(|_| world.spawn(put(1))).collect();
    sleep(Duration::from_secs(1)).await;
    let now = world.send(with(put(2), "prefer", "wait=0")).await;
    assert_eq!(
        now.status, 200,
        "a slot is free, and so is its lane: {now:?}"
    );
    for write in behind {
        assert_eq!(write.await.unwrap().status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn the_urgent_of_a_caller_go_before_its_own_and_not_before_anothers() {
    let mut setup = Setup::new(slow(Duration::from_millis(100)));
    setup.config.budget.writes_at_once = 1;
    let world = Arc::new(setup.start());
    for n in 0..60 {
        world.send(put(101 + n)).await;
    }
    let sandbox = Arc::clone(&world.sandbox);
    let mut sent = Vec::new();
    let mut spawn = |user: usize, peer: u8, priority: &str| {
        let ask = with(from_peer(put(user), peer), "priority", priority);
        sent.push(world.spawn(with(ask, "prefer", "wait=300")));
    };
    for n in 0..8 {
        spawn(1 + n, 1, "u=5");
    }
    sleep(Duration::from_millis(10)).await;
    spawn(20, 2, "u=7");
    spawn(21, 1, "u=1");
    spawn(22, 1, "u=1, i");
    for write in sent {
        assert_eq!(write.await.unwrap().status, 200);
    }
    let arrivals = sandbox.arrivals();
    let users: Vec<&str> = arrivals[60..]
        .iter()
        .map(|arrival| &arrival.target["/users/user-000".len()..][..2])
        .collect();
    // The other caller has its turn, however urgent the first one's are.
    assert_eq!(users[..4], ["21", "20", "22", "01"], "{users:?}");
    assert_eq!(users.len(), 11);
}
