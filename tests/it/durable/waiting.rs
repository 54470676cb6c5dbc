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
