//! Writes that travel together: fewer requests, the same outcomes.

use super::support::exposition::metrics;
use super::support::scripted::{Script, Step, answer, field};
use super::support::{Answer, Setup, World, all, from_peer, request, slow, unmerged, with};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use segment_gateway::config::EMBEDDED_ROUTES;
use segment_gateway::sandbox::{ListMode, SandboxSpec};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

mod attribution;
mod refused;

fn invite(email: &str) -> Request<Full<Bytes>> {
    let body = format!(r#"{{"invites":[{{"email":"{email}"}}]}}"#);
    request(Method::POST, "/invites", "a", &body)
}

fn uninvite(email: &str) -> Request<Full<Bytes>> {
    let email = email.replace('@', "%40");
    request(
        Method::DELETE,
        &format!("/invites?emails.0={email}"),
        "a",
        "",
    )
}

fn join(group: usize, email: &str) -> Request<Full<Bytes>> {
    let target = format!("/groups/group-{group:05}/users");
    request(
        Method::POST,
        &target,
        "a",
        &format!(r#"{{"emails":["{email}"]}}"#),
    )
}

fn guest(n: usize) -> String {
    format!("guest-{n}@example.com")
}

fn merged(answer: &Answer) -> usize {
    let timing = answer.header("server-timing");
    let desc = timing.split("merged;desc=\"").nth(1);
    desc.and_then(|desc| desc.split('"').next()?.parse().ok())
        .unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn what_waits_already_travels_together_and_each_hears_its_own() {
    let world = Arc::new(World::new(slow()));
    let began = Instant::now();
    let answers = all(&world, (0..200).map(|n| invite(&guest(n))).collect()).await;
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(
            answer.json()["data"]["emails"],
            serde_json::json!([guest(n)])
        );
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    let arrivals = world.sandbox.arrivals();
    // Four leave at once alone; the others find them under way, and travel by fifty.
    assert_eq!(arrivals.len(), 8, "{arrivals:#?}");
    assert_eq!(world.sandbox.invites().len(), 200);
    assert_eq!(merged(&answers[0]), 0);
    assert_eq!(merged(&answers[4]), 50);
    let text = metrics(&world).await;
    for line in [
        "segment_gateway_batched_writes_total{operation=\"createInvites\"} 196",
        "segment_gateway_batches_total{operation=\"createInvites\"} 4",
        "segment_gateway_batch_requests_saved_total{operation=\"createInvites\"} 192",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn deferred_writes_travel_together_as_well() {
    let world = Arc::new(World::new(slow()));
    let mut locations = Vec::new();
    for n in 0..120 {
        let ask = with(invite(&guest(n)), "prefer", "respond-async");
        let ask = with(ask, "idempotency-key", &format!("key-{n}"));
        let answer = world.send(ask).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        locations.push(answer.header("location").to_owned());
    }
    let began = Instant::now();
    for (n, location) in locations.iter().enumerate() {
        let write = loop {
            let shown = world.get(location, "a").await.json()["data"]["write"].clone();
            if shown["state"] == "succeeded" {
                break shown;
            }
            sleep(Duration::from_millis(100)).await;
        };
        let body = &write["answer"]["body"];
        assert_eq!(
            body["data"]["emails"],
            serde_json::json!([guest(n)]),
            "{write}"
        );
    }
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert!(
        world.sandbox.arrivals().len() <= 10,
        "{}",
        world.sandbox.arrivals().len()
    );
    assert_eq!(world.sandbox.invites().len(), 120);
    let again = with(invite(&guest(7)), "idempotency-key", "key-7");
    let again = world.send(again).await;
    assert_eq!(
        (again.status.as_u16(), again.header("idempotency-replayed")),
        (201, "true")
    );
    assert_eq!(world.durable().queued, 0);
}

#[tokio::test(start_paused = true)]
async fn lanes_hold_and_what_is_listed_twice_waits_for_the_next() {
    let world = Arc::new(World::new(slow()));
    // Four under way, so that the rest waits together.
    let mut asks: Vec<_> = (0..4).map(|n| invite(&guest(n))).collect();
    asks.extend([
        invite(&guest(10)),
        uninvite(&guest(10)),
        invite(&guest(10)),
        invite(&guest(11)),
        uninvite(&guest(11)),
        uninvite(&guest(0)),
    ]);
    let answers = all(&world, asks).await;
    assert!(
        answers.iter().all(|answer| answer.status.is_success()),
        "{answers:#?}"
    );
    let left = world.sandbox.invites();
    assert!(left.contains(&guest(10)) && !left.contains(&guest(11)) && !left.contains(&guest(0)));
    // Members of one group act on one lane, and travel together all the same.
    let before = world.sandbox.arrivals().len();
    let users: Vec<String> = (1..=60)
        .map(|n| format!("user-{n:05}@example.com"))
        .collect();
    let answers = all(&world, users.iter().map(|user| join(1, user)).collect()).await;
    assert!(
        answers.iter().all(|answer| answer.status == 200),
        "{answers:#?}"
    );
    assert!(world.sandbox.arrivals().len() - before <= 4);
    let members = world.sandbox.members("group-00001").unwrap();
    assert!(
        users.iter().all(|user| members.contains(user)),
        "{members:?}"
    );
}

/// A union of which one element is refused: everybody hears what it would have heard alone.
#[tokio::test(start_paused = true)]
async fn a_refused_union_harms_nobody() {
    for lists in [ListMode::Whole, ListMode::Partly] {
        // Where lists are applied in part, nothing is merged.
        let routes = match lists {
            ListMode::Whole => EMBEDDED_ROUTES.to_owned(),
            ListMode::Partly => unmerged(EMBEDDED_ROUTES),
        };
        let setup = Setup {
            routes: Some(routes),
            ..Setup::new(SandboxSpec { lists, ..slow() })
        };
        let world = Arc::new(setup.start());
        let mut asks: Vec<_> = (0..4).map(|n| invite(&guest(n))).collect();
        asks.extend((10..20).map(|n| invite(&guest(n))));
        asks.insert(9, invite("not-an-address"));
        let answers = all(&world, asks).await;
        for (at, answer) in answers.iter().enumerate() {
            let expected = if at == 9 { 4 } else { 2 };
            assert_eq!(
                answer.status.as_u16() / 100,
                expected,
                "{lists:?} {at}: {answer:?}"
            );
        }
        let invites = world.sandbox.invites();
        assert!(
            (10..20).all(|n| invites.contains(&guest(n))),
            "{lists:?} {invites:?}"
        );
        // Nothing was invited twice.
        for n in 10..20 {
            let email = format!("\"{}\"", guest(n));
            let arrivals = world.sandbox.arrivals();
            let applied = arrivals
                .iter()
                .filter(|arrival| arrival.status == 201 && arrival.body.contains(&email));
            assert!(applied.count() <= 1, "{lists:?} {n}");
        }
        // The same of a DELETE, which names one that is not there.
        let mut asks: Vec<_> = (0..4).map(|n| uninvite(&guest(n))).collect();
        asks.extend((10..20).map(|n| uninvite(&guest(n))));
        asks.insert(9, uninvite("nobody@example.com"));
        let answers = all(&world, asks).await;
        let refused: Vec<_> = answers
            .iter()
            .enumerate()
            .filter(|(_, answer)| !answer.status.is_success())
            .map(|(at, _)| at)
            .collect();
        assert_eq!(refused, [9], "{lists:?}");
        assert!(
            world.sandbox.invites().is_empty(),
            "{lists:?} {:?}",
            world.sandbox.invites()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_union_without_an_answer_is_unknown_to_all() {
    let script = Script::new(|seen, _| {
        if seen.body.iter().filter(|byte| **byte == b'@').count() > 1 {
            Step::Close
        } else {
            Step::Later(
                Duration::from_millis(200),
                answer(201, r#"{"data":{"emails":[]}}"#),
            )
        }
    });
    let world = script.world();
    let answers = all(&world, (0..10).map(|n| invite(&guest(n))).collect()).await;
    for (n, answer) in answers.iter().enumerate() {
        match n {
            0..4 => assert_eq!(answer.status, 201),
            _ => {
                assert_eq!(
                    answer.error_type(),
                    "gateway-outcome-unknown",
                    "{n} {answer:?}"
                );
                assert_eq!(answer.json()["errors"][0]["data"]["mayRetry"], false);
            }
        }
    }
    assert_eq!(script.count(), 5);
    // Their lanes are closed.
    let began = Instant::now();
    assert_eq!(world.send(invite(&guest(7))).await.status, 201);
    assert!(
        began.elapsed() > Duration::from_secs(55),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_429_to_a_union_is_waited_out_by_all() {
    let script = Script::new(|_, before| match before {
        4 => Step::Answer(field(answer(429, "{}"), "retry-after", "3")),
        _ => Step::Later(
            Duration::from_millis(200),
            answer(201, r#"{"data":{"emails":[]}}"#),
        ),
    });
    let world = script.world();
    let answers = all(&world, (0..10).map(|n| invite(&guest(n))).collect()).await;
    assert!(
        answers.iter().all(|answer| answer.status == 201),
        "{answers:#?}"
    );
    assert_eq!(script.count(), 6);
}

#[tokio::test(start_paused = true)]
async fn whoever_hangs_up_is_not_taken_along_and_whoever_was_is_carried_through() {
    let world = Arc::new(World::new(slow()));
    let first: Vec<_> = (0..4).map(|n| world.spawn(invite(&guest(n)))).collect();
    tokio::task::yield_now().await;
    let stays = world.spawn(invite(&guest(10)));
    let early = timeout(Duration::from_millis(50), world.send(invite(&guest(11)))).await;
    assert!(early.is_err());
    // These are taken along after 200 ms; one of them hangs up before its answer.
    let late = timeout(Duration::from_millis(300), world.send(invite(&guest(12)))).await;
    assert!(late.is_err());
    assert_eq!(stays.await.unwrap().status, 201);
    for ask in first {
        assert_eq!(ask.await.unwrap().status, 201);
    }
    sleep(Duration::from_secs(1)).await;
    let invites = world.sandbox.invites();
    assert!(
        invites.contains(&guest(10)) && invites.contains(&guest(12)),
        "{invites:?}"
    );
    assert!(!invites.contains(&guest(11)));
    assert_eq!(world.sandbox.arrivals().len(), 5);
    assert_eq!(world.gateway.budgets().waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_differs_travels_apart() {
    let world = Arc::new(World::new(slow()));
    let mut asks: Vec<_> = (0..4)
        .map(|n| join(2, &format!("user-{:05}@example.com", n + 1)))
        .collect();
    for n in 10..13 {
        asks.push(join(1, &format!("user-{n:05}@example.com")));
        asks.push(join(3, &format!("user-{n:05}@example.com")));
        asks.push(with(
            join(1, &format!("user-{n:04}5@example.com")),
            "accept",
            "x/y",
        ));
    }
    // Not JSON: it travels alone, untouched.
    asks.push(request(
        Method::POST,
        "/groups/group-00001/users",
        "a",
        "{\"emails\":",
    ));
    let answers = all(&world, asks).await;
    assert!(
        answers[..13].iter().all(|answer| answer.status == 200),
        "{answers:#?}"
    );
    assert_eq!(answers[13].status.as_u16() / 100, 4);
    let bodies: Vec<_> = world
        .sandbox
        .arrivals()
        .iter()
        .map(|a| a.body.to_string())
        .collect();
    assert!(bodies.contains(&"{\"emails\":".to_owned()), "{bodies:?}");
    assert!(
        bodies
            .iter()
            .all(|body| !body.contains("00010@") || !body.contains("00105@"))
    );
}

#[tokio::test(start_paused = true)]
async fn peers_travel_together_and_off_means_off() {
    let world = Arc::new(World::new(slow()));
    let asks: Vec<_> = (0..24)
        .map(|n| from_peer(invite(&guest(n)), n as u8 % 6))
        .collect();
    let answers = all(&world, asks).await;
    assert!(answers.iter().all(|answer| answer.status == 201));
    assert_eq!(world.sandbox.arrivals().len(), 5);
    let setup = Setup {
        routes: Some(unmerged(EMBEDDED_ROUTES)),
        ..Setup::new(slow())
    };
    let world = Arc::new(setup.start());
    let answers = all(&world, (0..24).map(|n| invite(&guest(n))).collect()).await;
    assert!(answers.iter().all(|answer| answer.status == 201));
    assert_eq!(world.sandbox.arrivals().len(), 24);
}

#[tokio::test(start_paused = true)]
async fn deferred_members_of_one_group_travel_together() {
    let world = Arc::new(World::new(slow()));
    let mut locations = Vec::new();
    for n in 1..=120 {
        let ask = join(1, &format!("user-{n:05}@example.com"));
        let answer = world.send(with(ask, "prefer", "respond-async")).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        locations.push(answer.header("location").to_owned());
    }
    sleep(Duration::from_secs(5)).await;
    for location in &locations {
        let write = world.get(location, "a").await.json()["data"]["write"].clone();
        assert_eq!(write["state"], "succeeded", "{write}");
    }
    let dispatches = world.sandbox.arrivals().len();
    assert!(dispatches <= 8, "{dispatches}");
}

#[tokio::test(start_paused = true)]
async fn whoever_gets_no_permit_leaves_alone_and_nobody_hangs() {
    let world = Arc::new(World::new(slow()));
    // The budget is spent, each of them alone.
    for n in 0..60 {
        assert_eq!(world.send(invite(&guest(n))).await.status, 201);
    }
    let mut asks = Vec::new();
    for n in 100..300 {
        asks.push(world.spawn(from_peer(
            with(invite(&guest(n)), "prefer", "wait=40"),
            n as u8 % 4,
        )));
    }
    sleep(Duration::from_secs(1)).await;
    world.gateway.drain(Duration::from_secs(5));
    for ask in asks {
        let answer = timeout(Duration::from_secs(60), ask)
            .await
            .expect("an answer")
            .unwrap();
        assert!(
            matches!(
                answer.error_type().as_str(),
                "gateway-draining" | "gateway-queue-wait"
            ),
            "{answer:?}"
        );
    }
    assert_eq!(world.gateway.budgets().waiting(), 0);
}

/// A keyed write is admitted because of those with which it can travel.
#[tokio::test(start_paused = true)]
async fn keyed_writes_are_admitted_as_those_they_travel_with() {
    let world = Arc::new(World::new(slow()));
    let asks = (0..200)
        .map(|n| with(invite(&guest(n)), "idempotency-key", &format!("k{n}")))
        .map(|ask| with(ask, "prefer", "wait=20"));
    let answers = all(&world, asks.collect()).await;
    assert!(
        answers.iter().all(|answer| answer.status == 201),
        "{answers:#?}"
    );
}
