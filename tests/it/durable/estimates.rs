//! What a write that has not ended says of its end: an estimate that holds, or none.

use super::*;
use serde_json::Value;

/// How long the API takes here.
const ANSWER: Duration = Duration::from_secs(2);

/// Returns what is shown of a write, and when its caller is to look again.
async fn shown(world: &World, location: &str) -> (Value, u32) {
    let shown = world.get(location, "a").await;
    let after = shown.header("retry-after").parse().unwrap();
    (shown.json()["data"]["write"].clone(), after)
}

/// The writes of one lane are not sent together, so each waits for the answers to all before it,
/// even with slots to spare.
#[tokio::test(start_paused = true)]
async fn a_write_behind_others_of_its_lane_is_not_promised_for_now() {
    let script = Script::new(|_, _| Step::Later(ANSWER, answer(200, r#"{"data":{}}"#)));
    let world = script.world();
    // The first says how long answers take.
    assert_eq!(world.send(put(1)).await.status, 200);
    let mut locations = Vec::new();
    for _ in 0..10 {
        locations.push(defer(&world, put(1)).await);
    }
    let alone = defer(&world, put(2)).await;
    let seconds = |write: &Value| write["estimatedWaitMs"].as_f64().unwrap() / 1_000.0;
    let began = Instant::now();
    let mut estimates = Vec::new();
    for location in &locations {
        let (write, after) = shown(&world, location).await;
        let estimate = seconds(&write);
        assert!(
            (estimate - f64::from(after)).abs() <= 1.0,
            "{after} and {write}"
        );
        estimates.push(estimate);
    }
    let (write, _) = shown(&world, &alone).await;
    assert!(seconds(&write) <= 2.1, "{write}");
    for (location, estimate) in locations.iter().zip(estimates) {
        while state(&world, location).await != "succeeded" {
            sleep(Duration::from_millis(10)).await;
        }
        let took = began.elapsed().as_secs_f64();
        assert!(
            took <= estimate + 0.1,
            "ended after {took} s, not {estimate}"
        );
        assert!(
            estimate <= took * 1.25 + 0.5,
            "ended after {took} s, long before {estimate}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_write_promises_nothing_until_it_is_resumed() {
    let world = World::new(slow());
    let waits = Selection {
        credential: None,
        operation: Some("replacePermissionsForUser".into()),
    };
    assert!(world.gateway.writes().operators_pause(&waits).unwrap());
    let location = defer(&world, put(1)).await;
    let (write, after) = shown(&world, &location).await;
    assert_eq!((&write["paused"], after), (&true.into(), 60), "{write}");
    assert_eq!(write.get("estimatedWaitMs"), Some(&Value::Null), "{write}");
    let resume = "/writes/resume?operation=replacePermissionsForUser";
    assert_eq!(operator(&world, Method::POST, resume, true).await.0, 200);
    let (write, after) = shown(&world, &location).await;
    assert!(write["estimatedWaitMs"].is_u64() && after < 60, "{write}");
}

#[tokio::test(start_paused = true)]
async fn while_the_api_does_not_respond_nothing_is_promised() {
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
    let (write, after) = shown(&world, &locations[29]).await;
    assert_eq!(write["state"], "queued", "{write}");
    assert_eq!(write.get("estimatedWaitMs"), Some(&Value::Null), "{write}");
    assert_eq!(after, 60);
}
