//! How long the caller of a durable write waits for its answer.

use super::*;

/// An API that does this with the first requests, and answers the rest.
fn failing_at_first(failures: usize, step: Step) -> Arc<Script> {
    Script::new(move |_, before| match before {
        before if before < failures => step.clone(),
        _ => Step::Later(SOON, answer(200, r#"{"data":{}}"#)),
    })
}

/// Whatever the API does, and however often the write is repeated meanwhile.
#[tokio::test(start_paused = true)]
async fn a_callers_wait_bounds_every_answer() {
    let steps = [
        Step::Answer(answer(503, "{}")),
        Step::Close,
        Step::Silent,
        Step::Later(Duration::from_secs(20), answer(200, r#"{"data":{}}"#)),
    ];
    for step in steps {
        for (wait, within) in [(0, 1), (5, 5)] {
            let script = failing_at_first(6, step.clone());
            let world = script.world();
            let prefer = format!("wait={wait}");
            let ask = || keyed(with(put(1), "prefer", &prefer), "k");
            let began = Instant::now();
            let pending = world.send(ask()).await;
            let took = began.elapsed();
            assert_eq!(
                pending.error_type(),
                "gateway-write-pending",
                "{step:?}, {prefer}: {pending:?}"
            );
            assert!(took <= Duration::from_secs(within), "{step:?}: {took:?}");
            assert!(pending.header("retry-after").parse::<u64>().unwrap() > 0);
            let error = pending.json()["errors"][0].clone();
            assert_eq!(error["data"]["sent"], true, "{error}");
            // It says by which name to follow it, and the write goes on behind it.
            let location = format!(
                "/_gateway/writes/{}",
                error["data"]["writeId"].as_str().unwrap()
            );
            assert!(error["message"].as_str().unwrap().contains(&location));
            assert_eq!(state(&world, &location).await, "dispatched");
            assert_eq!(ended(&world, &location).await["state"], "succeeded");
            let again = world.send(ask()).await;
            assert_eq!(
                (again.status.as_u16(), again.header("idempotency-replayed")),
                (200, "true")
            );
        }
    }
}

/// One that waits to be repeated has been sent, and whoever hears of it is told so.
#[tokio::test(start_paused = true)]
async fn whoever_joins_a_write_waits_no_longer_than_it_asks_to() {
    let script = failing_at_first(6, Step::Answer(answer(503, "{}")));
    let world = script.world();
    let ask = |wait: &str| keyed(with(put(1), "prefer", wait), "k");
    let first = world.spawn(ask("wait=600"));
    sleep(Duration::from_secs(3)).await;
    for wait in [0, 2] {
        let began = Instant::now();
        let joined = world.send(ask(&format!("wait={wait}"))).await;
        assert!(began.elapsed() <= Duration::from_secs(wait.max(1)));
        assert_eq!(joined.error_type(), "gateway-write-pending", "{joined:?}");
        assert_eq!(joined.json()["errors"][0]["data"]["sent"], true);
    }
    assert_eq!(first.await.unwrap().status, 200);
}

/// `wait=0` asks for an answer now: one that comes at once is worth a moment.
#[tokio::test(start_paused = true)]
async fn a_write_that_leaves_at_once_is_waited_for_a_moment() {
    let script = failing_at_first(0, Step::Silent);
    let world = script.world();
    let now = keyed(with(put(1), "prefer", "wait=0"), "k");
    assert_eq!(world.send(now).await.status, 200);
}

/// A repetition is for five minutes, also where something else than the API held it up meanwhile.
#[tokio::test(start_paused = true)]
async fn what_waited_for_too_long_is_not_repeated() {
    let script = Script::new(|_, before| match before {
        0 => Step::Close,
        1 => Step::Later(SOON, answer(503, r#"{"errors":[]}"#)),
        2 => Step::Later(SOON, answer(401, "{}")),
        _ => Step::Later(SOON, answer(200, r#"{"data":{}}"#)),
    });
    let world = script.world();
    let location = defer(&world, put(1)).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!((script.count(), world.durable().paused), (3, 1));
    sleep(Duration::from_secs(300)).await;
    let listed = world.get("/_gateway/writes", "a").await.json();
    assert_eq!(listed["data"]["writes"][0]["state"], "dispatched");
    let mut headers = http::HeaderMap::new();
    headers.insert("authorization", "Bearer a".parse().unwrap());
    let of_a = Selection {
        credential: Some(
            world
                .gateway
                .router()
                .hasher
                .credential(&headers)
                .to_string(),
        ),
        operation: None,
    };
    assert!(
        world
            .gateway
            .writes()
            .operators_resume(&of_a)
            .await
            .unwrap()
    );
    let write = ended(&world, &location).await;
    assert_eq!((&write["state"], script.count()), (&"unknown".into(), 3));
}
