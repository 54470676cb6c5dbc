//! How much is remembered of the writes that have ended.

use super::*;
use segment_gateway::config::Size;

fn of(mut request: Request<Full<Bytes>>, token: &str) -> Request<Full<Bytes>> {
    let value = format!("Bearer {token}").parse().unwrap();
    request.headers_mut().insert("authorization", value);
    request
}

/// A write of this token under a key of its own.
fn write(token: &str, n: usize) -> Request<Full<Bytes>> {
    of(keyed(post(n), &format!("k{n}")), token)
}

fn answering(body: &str) -> Arc<Script> {
    let body = body.to_owned();
    Script::new(move |_, _| Step::Later(SOON, answer(200, &body)))
}

#[tokio::test(start_paused = true)]
async fn a_401_is_never_recorded_under_a_key() {
    let script = Script::new(|_, before| match before {
        0 => Step::Later(SOON, answer(401, "{}")),
        _ => Step::Later(SOON, answer(200, r#"{"data":{}}"#)),
    });
    let memory = Journal::in_memory().unwrap();
    let world = script.world_of(keeping(slow(), &memory).await);
    // Whoever joins it hears the same.
    let joins: Vec<_> = (0..2).map(|_| world.spawn(write("a", 1))).collect();
    for join in joins {
        assert_eq!(join.await.unwrap().status, 401);
    }
    assert_eq!(memory.list(Filter::default(), 9).await.unwrap(), []);
    let again = world.send(write("a", 1)).await;
    assert_eq!(
        (again.status.as_u16(), again.header("idempotency-replayed")),
        (200, "")
    );
    let replayed = world.send(write("a", 1)).await;
    assert_eq!(replayed.header("idempotency-replayed"), "true");
    assert_eq!(script.count(), 2);
}

/// A 401 to a repetition says nothing of the attempt before it.
#[tokio::test(start_paused = true)]
async fn a_401_after_a_lost_answer_leaves_the_outcome_unknown() {
    let script = Script::new(|_, before| match before {
        0 => Step::Close,
        _ => Step::Later(SOON, answer(401, "{}")),
    });
    let world = script.world();
    for _ in 0..2 {
        let unknown = world.send(keyed(put(1), "k")).await;
        assert_eq!(
            unknown.error_type(),
            "gateway-outcome-unknown",
            "{unknown:?}"
        );
    }
    assert_eq!(script.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_ended_writes_is_bounded_and_no_key_is_forgotten_within_an_hour() {
    let script = answering(r#"{"data":{}}"#);
    let memory = Journal::in_memory().unwrap();
    let mut setup = keeping(slow(), &memory).await;
    setup.config.journal.ended_writes = 16;
    let world = script.world_of(setup);
    let waits = Selection {
        credential: None,
        operation: Some("createInvites".into()),
    };
    assert!(world.gateway.writes().operators_pause(&waits).unwrap());
    let queued = defer(&world, invite("waits@example.com")).await;
    // One credential has half of it.
    for n in 1..=8 {
        assert_eq!(world.send(write("a", n)).await.status, 200);
    }
    for refused in [write("a", 9), deferred(post(9))] {
        let refused = world.send(refused).await;
        assert_eq!(refused.status, 507, "{refused:?}");
        assert_eq!(refused.error_type(), "gateway-too-many-ended");
        assert_eq!(refused.header("retry-after"), "60");
        assert_eq!(refused.json()["errors"][0]["data"]["sent"], false);
    }
    for n in 1..=8 {
        assert_eq!(world.send(write("b", n)).await.status, 200);
    }
    assert_eq!(world.send(write("c", 1)).await.status, 507);
    // Without a key it passes, and what is recorded is told again.
    assert_eq!(world.send(post(9)).await.status, 200);
    assert_eq!(script.count(), 17);
    world.gateway.writes().forget_ended().await;
    for (token, n) in [("a", 1), ("b", 8)] {
        let again = world.send(write(token, n)).await;
        assert_eq!(again.header("idempotency-replayed"), "true");
    }
    assert_eq!(world.send(write("c", 1)).await.status, 507);
    // After an hour the first that ended make room, and no more of them than have to.
    sleep(Duration::from_secs(3_601)).await;
    world.gateway.writes().forget_ended().await;
    let ended = async || {
        let all = memory.list(Filter::default(), 99).await.unwrap();
        all.iter().filter(|record| record.state.has_ended()).count()
    };
    assert_eq!(ended().await, 14);
    assert_eq!(state(&world, &queued).await, "queued");
    assert_eq!(world.send(write("c", 1)).await.status, 200);
    let kept = world.send(write("a", 3)).await;
    assert_eq!(kept.header("idempotency-replayed"), "true");
    let forgotten = world.send(write("a", 1)).await;
    assert_eq!(
        (
            forgotten.status.as_u16(),
            forgotten.header("idempotency-replayed")
        ),
        (200, "")
    );
    // The next process counts what is there.
    let mut setup = keeping(slow(), &left_by_crash(&memory).await).await;
    setup.config.journal.ended_writes = 16;
    let second = script.world_of(setup);
    second.gateway.writes().recover(Some(&[])).await.unwrap();
    assert_eq!(second.send(write("d", 1)).await.status, 507);
}

/// Each bound by itself: what one credential has beyond its share, and what all have together.
#[tokio::test(start_paused = true)]
async fn what_ended_first_makes_room_within_a_share_and_within_the_whole() {
    for (tokens, each, left) in [(&["a"][..], 8, 7), (&["a", "b", "c"], 5, 14)] {
        let memory = Journal::in_memory().unwrap();
        let mut setup = keeping(slow(), &memory).await;
        setup.config.journal.ended_writes = 16;
        let world = answering(r#"{"data":{}}"#).world_of(setup);
        for token in tokens {
            for n in 1..=each {
                assert_eq!(world.send(write(token, n)).await.status, 200);
            }
        }
        sleep(Duration::from_secs(3_601)).await;
        world.gateway.writes().forget_ended().await;
        let kept = memory.list(Filter::default(), 99).await.unwrap();
        assert_eq!(kept.len(), left, "{tokens:?}");
        // The first of all is not among them, and the second is.
        for (n, replayed) in [(2, "true"), (1, "")] {
            let again = world.send(write("a", n)).await;
            assert_eq!(again.header("idempotency-replayed"), replayed, "{n}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn beyond_the_bytes_an_answer_is_remembered_without_its_body() {
    let body = format!(r#"{{"data":"{}"}}"#, "x".repeat(1_000));
    let script = answering(&body);
    let mut setup = Setup::new(slow());
    setup.config.journal.ended_bytes = Size(5_000);
    let world = script.world_of(setup);
    for n in 1..=4 {
        let first = world.send(write("a", n)).await;
        assert_eq!((first.status.as_u16(), first.text()), (200, body.clone()));
    }
    let (kept, lost) = (
        world.send(write("a", 1)).await,
        world.send(write("a", 4)).await,
    );
    assert_eq!((kept.status.as_u16(), kept.text()), (200, body));
    assert_eq!(lost.error_type(), "gateway-answer-lost", "{lost:?}");
    assert!(
        lost.json()["errors"][0]["message"]
            .as_str()
            .unwrap()
            .contains("200")
    );
    assert_eq!(script.count(), 4, "nothing is carried out twice");
}

#[tokio::test(start_paused = true)]
async fn what_has_not_ended_is_shared_by_the_credentials() {
    let mut setup = Setup::new(slow());
    setup.config.journal.writes = 8;
    let world = answering(r#"{"data":{}}"#).world_of(setup);
    let waits = Selection {
        credential: None,
        operation: Some("addPermissionsToUser".into()),
    };
    assert!(world.gateway.writes().operators_pause(&waits).unwrap());
    // From an address each.
    for n in 1..=4 {
        let accepted = world.send(from_peer(deferred(post(n)), n as u8)).await;
        assert_eq!(accepted.status, 202);
    }
    let refused = world.send(from_peer(deferred(post(5)), 5)).await;
    assert_eq!(refused.error_type(), "gateway-queue-full", "{refused:?}");
    let other = world.send(from_peer(of(deferred(post(5)), "b"), 5)).await;
    assert_eq!(other.status, 202);
}

/// What is recorded is told again, however much waits.
#[tokio::test(start_paused = true)]
async fn a_recorded_answer_needs_no_room() {
    let mut setup = Setup::new(slow());
    setup.config.journal.writes = 2;
    let script = answering(r#"{"data":{}}"#);
    let world = script.world_of(setup);
    assert_eq!(world.send(write("a", 1)).await.status, 200);
    let waits = Selection {
        credential: None,
        operation: Some("createInvites".into()),
    };
    assert!(world.gateway.writes().operators_pause(&waits).unwrap());
    defer(&world, invite("waits@example.com")).await;
    assert_eq!(world.send(write("a", 2)).await.status, 503);
    let again = world.send(write("a", 1)).await;
    assert_eq!(again.header("idempotency-replayed"), "true", "{again:?}");
    let other = world.send(keyed(post(2), "k1")).await;
    assert_eq!(other.error_type(), "gateway-key-reused");
}
