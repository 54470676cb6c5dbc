//! Reads through the whole stack: from the store, joined, fenced, isolated.

use super::support::{World, request};
use http::Method;
use segment_gateway::sandbox::{Delay, SandboxSpec};
use std::time::Duration;

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
        first.header("cache-status"),
        "segment-gateway; fwd=uri-miss; stored"
    );
    for spelling in [
        "/users?pagination%5Bcount%5D=2",
        "/users?pagination[count]=2",
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
async fn a_thousand_readers_cost_one_fetch_even_if_the_first_hangs_up() {
    let world = World::new(slow());
    let first = world.send(request(Method::GET, "/roles", "a", ""));
    assert!(
        tokio::time::timeout(Duration::from_millis(10), first)
            .await
            .is_err()
    );
    let mut readers = Vec::new();
    for _ in 0..1_000 {
        readers.push(world.get("/roles", "a"));
    }
    let mut answers = Vec::new();
    for reader in readers {
        answers.push(reader.await);
    }
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(world.sandbox.arrivals().len(), 1);
}
