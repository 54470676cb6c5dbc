//! What operators ask of the cache: the state of a key, and that something be forgotten.

use super::support::exposition::{operator, shown};
use super::support::scripted::{Script, Step, answer, field};
use super::support::{Answer, World, request, with};
use http::{Method, StatusCode};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// An API whose answers differ, and vary by a field where the path asks for it.
fn api() -> Arc<Script> {
    Script::new(|seen, n| {
        let answered = answer(200, &n.to_string());
        Step::Answer(match &*seen.target {
            "/users/varied" => field(answered, "vary", "tracestate"),
            "/users/cookie" => field(answered, "set-cookie", "a=b"),
            _ => answered,
        })
    })
}

fn key(answer: &Answer) -> String {
    let status = answer.header("cache-status");
    let key = status
        .split("key=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    key.unwrap_or_else(|| panic!("no key in {status}"))
        .to_owned()
}

fn is_hit(answer: &Answer) -> bool {
    answer.header("cache-status").contains("; hit;")
}

async fn state(world: &World, key: &str) -> Value {
    let (status, text) = shown(world, &format!("/cache?key={key}")).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    serde_json::from_str(&text).unwrap()
}

async fn purge(world: &World, what: &str) -> Value {
    let path = format!("/cache/purge?{what}");
    let (status, text) = operator(world, Method::POST, &path, true).await;
    assert_eq!(status, StatusCode::OK, "{what}: {text}");
    serde_json::from_str::<Value>(&text).unwrap()["purged"].clone()
}

#[tokio::test(start_paused = true)]
async fn an_operator_sees_what_stands_under_a_key() {
    let world = api().world();
    let fetched = world.get("/users/u", "a").await;
    sleep(Duration::from_secs(7)).await;
    let hit = world.get("/users/u", "a").await;
    assert_eq!(key(&hit), key(&fetched), "a hit and its fetch have one key");
    let seen = state(&world, &key(&hit)).await;
    let stored = &seen["stored"][0];
    assert_eq!(stored["operation"], "getUser");
    assert_eq!(stored["status"], 200);
    assert_eq!(
        (&stored["ageSeconds"], &stored["freshForSeconds"]),
        (&7.into(), &53.into())
    );
    assert_eq!(stored["believed"], true);
    assert_eq!(stored["tags"], serde_json::json!(["users", "user:u"]));
    assert_eq!(stored["staleAfterAnyWrite"], false);
    assert_eq!(stored["shown"], 1);
    assert_eq!(seen["notStored"], Value::Null);
    world
        .write(Method::PUT, "/users/u/permissions", "b", "{}")
        .await;
    sleep(Duration::from_secs(60)).await;
    let after = state(&world, &key(&hit)).await;
    assert_eq!(after["stored"][0]["believed"], false);
    assert_eq!(after["stored"][0]["staleForSeconds"], 7);
}

#[tokio::test(start_paused = true)]
async fn an_operator_sees_why_nothing_is_stored_and_what_varies() {
    let world = api().world();
    let cookie = world.get("/users/cookie", "a").await;
    sleep(Duration::from_secs(3)).await;
    let seen = state(&world, &key(&cookie)).await;
    assert_eq!(seen["stored"], serde_json::json!([]));
    assert_eq!(seen["notStored"]["reason"], "set-cookie");
    assert_eq!(seen["notStored"]["secondsAgo"], 3);
    let role = |role: &str| {
        with(
            request(Method::GET, "/users/varied", "a", ""),
            "tracestate",
            role,
        )
    };
    let one = world.send(role("one")).await;
    let two = world.send(role("two")).await;
    assert_eq!(key(&one), key(&two), "variants of one key");
    let seen = state(&world, &key(&one)).await;
    assert_eq!(seen["stored"].as_array().unwrap().len(), 2);
    assert_eq!(
        seen["stored"][0]["variesBy"],
        serde_json::json!(["tracestate"])
    );
    let (status, text) = shown(&world, "/cache?key=0000000000000000").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(text.contains("Nothing is stored"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_purge_forgets_what_is_meant_and_says_how_much() {
    let targets = [
        ("/users/u", "a"),
        ("/users/u", "b"),
        ("/users/v", "a"),
        ("/roles", "a"),
    ];
    // What is purged, how many answers that is, and which of the targets are hits afterwards.
    let cases = [
        ("tag=user%3Au", 2, [false, false, true, true]),
        ("tag=users", 3, [false, false, false, true]),
        ("operation=getUser", 3, [false, false, false, true]),
        ("operation=listUsers", 0, [true; 4]),
        ("everything=true", 4, [false; 4]),
        ("KEY", 1, [false, true, true, true]),
        ("CREDENTIAL", 1, [true, false, true, true]),
    ];
    for (what, count, hits) in cases {
        let world = api().world();
        let mut first = Vec::new();
        for (target, token) in targets {
            first.push(world.get(target, token).await);
        }
        let stored = state(&world, &key(&first[1])).await;
        let what = match what {
            "KEY" => format!("key={}", key(&first[0])),
            "CREDENTIAL" => {
                let hash = stored["stored"][0]["credential"].as_str().unwrap();
                format!("credential={hash}")
            }
            what => what.to_owned(),
        };
        assert_eq!(purge(&world, &what).await, count, "{what}");
        for ((target, token), hit) in targets.into_iter().zip(hits) {
            let read = world.get(target, token).await;
            assert_eq!(is_hit(&read), hit, "{what}: {target} {token}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_being_fetched_at_a_purge_is_not_shown_afterwards() {
    for what in ["tag=users", "operation=getUser", "everything=true"] {
        let script =
            Script::new(|_, n| Step::Later(Duration::from_secs(1), answer(200, &n.to_string())));
        let world = script.world();
        let early = world.spawn(request(Method::GET, "/users/u", "a", ""));
        sleep(Duration::from_millis(500)).await;
        assert_eq!(purge(&world, what).await, 0, "{what}");
        let late = world.get("/users/u", "a").await;
        assert_eq!(early.await.unwrap().body, "0");
        assert_eq!(late.body, "1", "{what}: it did not join");
        assert_eq!(world.get("/users/u", "a").await.body, "1");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_asks_wrongly_is_refused_and_changes_nothing() {
    let world = api().world();
    world.get("/users/u", "a").await;
    for what in [
        "",
        "tag=",
        "tag=users&operation=getUser",
        "everything=yes",
        "operation=getUsers",
        "credential=0000",
        "key=xyz",
        "path=/users",
    ] {
        let path = format!("/cache/purge?{what}");
        let (status, text) = operator(&world, Method::POST, &path, true).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{what}: {text}");
        assert!(text.contains("gateway-bad-request"), "{text}");
    }
    let (status, _) = operator(&world, Method::POST, "/cache/purge?everything=true", false).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, _) = operator(&world, Method::GET, "/cache/purge?everything=true", true).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    let (status, _) = shown(&world, "/cache?key=12").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(is_hit(&world.get("/users/u", "a").await));
}
