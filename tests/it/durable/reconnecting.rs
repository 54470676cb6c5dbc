//! A list that is deleted once more while the API accepts no connections.

use super::*;

/// Two elements, of whose deletion nobody knows the outcome.
async fn delete(script: &Arc<Script>, world: &World) -> String {
    let target = "/invites?emails.0=a%40b.c&emails.1=d%40e.f";
    let location = defer(world, request(Method::DELETE, target, "a", "")).await;
    while script.count() == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    location
}

fn closes_the_first() -> Arc<Script> {
    Script::new(|_, before| match before {
        0 => Step::Close,
        _ => Step::Answer(answer(200, r#"{"data":{"status":"SUCCESS"}}"#)),
    })
}

#[tokio::test(start_paused = true)]
async fn the_next_connection_is_tried_at_once() {
    let script = closes_the_first();
    let world = script.world();
    let location = delete(&script, &world).await;
    script.refuse(1);
    assert_eq!(ended(&world, &location).await["state"], "succeeded");
    let seen = script.seen();
    assert_eq!((seen.len(), script.refusals_left()), (2, 0));
    // Half a second at most before it is repeated, and a tenth of one after the refusal.
    let later = seen[1].at - seen[0].at;
    assert!(later < Duration::from_millis(700), "{later:?}");
}

#[tokio::test(start_paused = true)]
async fn connections_are_tried_less_and_less_often() {
    const MANY: usize = 1_000;
    let script = closes_the_first();
    let world = script.world();
    let location = delete(&script, &world).await;
    script.refuse(MANY);
    sleep(Duration::from_secs(60)).await;
    let tried = MANY - script.refusals_left();
    assert!((10..=30).contains(&tried), "{tried}");
    script.refuse(0);
    assert_eq!(ended(&world, &location).await["state"], "succeeded");
}
