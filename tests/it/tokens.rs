//! Tokens that the API refuses, expires and replaces: what readers get from the API and from the
//! store.

use super::support::program::Program;
use super::support::wire::{ask, free};
use super::support::{Answer, Setup, World, request};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use segment_gateway::sandbox::SandboxSpec;
use std::fs;
use std::process::Command;
use std::time::Duration;
use tokio::time::sleep;

/// Longer than a response to any of these reads lives.
const LATER: Duration = Duration::from_secs(301);

/// A gateway in front of an API that accepts these tokens.
fn accepting(tokens: &[&str]) -> World {
    let tokens = tokens.iter().map(|token| (*token).to_owned());
    let spec = SandboxSpec {
        tokens: Some(tokens.collect()),
        ..SandboxSpec::default()
    };
    Setup::new(spec).start()
}

fn accept(world: &World, tokens: &[&str]) {
    let tokens = tokens.iter().map(|token| (*token).to_owned());
    world.sandbox.accept_tokens(Some(tokens.collect()));
}

fn arrivals(world: &World) -> usize {
    world.sandbox.arrivals().len()
}

/// Asserts that the API itself refused the token, with the envelope that it documents.
fn assert_refused(world: &World, answer: &Answer) {
    assert_eq!(answer.status, 401, "{answer:?}");
    let error = &answer.json()["errors"][0];
    assert_eq!(error["type"], "UnauthorizedError", "{answer:?}");
    assert_eq!(error["status"], 401, "{answer:?}");
    assert!(answer.json().get("data").is_none(), "{answer:?}");
    let arrival = world.sandbox.arrivals().pop().unwrap();
    assert_eq!((arrival.status, arrival.token), (401, 0));
}

fn is_hit(answer: &Answer) -> bool {
    answer.status == 200 && answer.header("cache-status").contains("; hit;")
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_neither_stored_nor_shown_to_anybody_else() {
    let world = accepting(&["good"]);
    for round in 1..=3 {
        let refused = world.get("/users", "bad").await;
        assert_refused(&world, &refused);
        assert_eq!(arrivals(&world), round, "each goes to the API");
        assert!(!refused.header("cache-status").contains("stored"));
    }
    let admitted = world.get("/users", "good").await;
    assert_eq!(admitted.status, 200, "{admitted:?}");
    assert!(is_hit(&world.get("/users", "good").await));
    // What is stored for one is not shown to the other.
    assert_refused(&world, &world.get("/users", "bad").await);
}

#[tokio::test(start_paused = true)]
async fn a_rotated_token_reads_for_itself_and_the_old_one_only_from_the_store_and_not_for_long() {
    let world = accepting(&["old"]);
    for target in ["/users", "/roles"] {
        assert_eq!(world.get(target, "old").await.status, 200);
    }
    accept(&world, &["new"]);
    let before = arrivals(&world);
    // The new one works at once, and gets nothing that was fetched for the old one.
    for target in ["/users", "/roles"] {
        assert_eq!(world.get(target, "new").await.status, 200);
        assert!(is_hit(&world.get(target, "new").await));
    }
    assert_eq!(arrivals(&world), before + 2);
    // Nobody has asked the API about the old one.
    assert!(is_hit(&world.get("/users", "old").await));
    // Once it has refused an operation, nothing is shown of that operation.
    let other = world.get("/users?pagination.count=2", "old").await;
    assert_refused(&world, &other);
    assert_refused(&world, &world.get("/users", "old").await);
    assert!(is_hit(&world.get("/roles", "old").await));
    // `GET /` is for every token, so its refusal is about the token.
    assert_refused(&world, &world.get("/", "old").await);
    assert_refused(&world, &world.get("/roles", "old").await);
    for target in ["/users", "/roles"] {
        assert!(is_hit(&world.get(target, "new").await), "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_sees_hits_until_the_responses_expire_and_works_again_when_accepted() {
    let world = accepting(&["a"]);
    assert_eq!(world.get("/roles", "a").await.status, 200);
    accept(&world, &[]);
    assert!(is_hit(&world.get("/roles", "a").await));
    sleep(LATER).await;
    assert_refused(&world, &world.get("/roles", "a").await);
    accept(&world, &["a"]);
    let again = world.get("/roles", "a").await;
    assert_eq!(again.status, 200, "{again:?}");
    assert!(is_hit(&world.get("/roles", "a").await));
}

/// The tokens of a file are in force from the start, and others from the request that sets them.
#[tokio::test]
async fn the_simulated_api_accepts_the_tokens_of_a_file_until_told_others() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    fs::write(&file, "one\n\n  two \n").unwrap();
    let sandbox = free();
    let own = ["--sandbox", "--sandbox-listen", &sandbox.to_string()];
    let tokens = ["--tokens", file.to_str().unwrap()];
    let program = Program::start("", &[&own[..], &tokens[..]].concat(), &[]).await;
    let get = |target: &str, token: &str| request(Method::GET, target, token, "");
    for (token, status) in [("one", 200), ("two", 200), ("three", 401)] {
        let answer = ask(program.proxy, get("/users", token)).await;
        assert_eq!(answer.status, status, "{token}");
    }
    let set = |body: &str| {
        let set = Request::put("/_sandbox/tokens").header("host", "sandbox");
        let body = Full::new(Bytes::from(body.to_owned()));
        ask(sandbox, set.body(body).unwrap())
    };
    for (body, status, said) in [
        (r#"{"tokens":["three"]}"#, 200, r#"{"accepted":1}"#),
        (r#"{"tokens":"three"}"#, 422, "at most 1000 tokens"),
        (r#"{}"#, 422, "at most 1000 tokens"),
    ] {
        let answer = set(body).await;
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.text().contains(said), "{}", answer.text());
    }
    for (token, status) in [("two", 401), ("three", 200)] {
        let answer = ask(program.proxy, get("/roles", token)).await;
        assert_eq!(answer.status, status, "{token}");
    }
    assert_eq!(
        set(r#"{"tokens":null}"#).await.text(),
        r#"{"accepted":null}"#
    );
    let anybody = ask(program.proxy, get("/roles", "four")).await;
    assert_eq!(anybody.status, 200);
    let log = program.log();
    assert!(!log.contains("three"), "{log}");
}

#[test]
fn a_file_without_tokens_is_an_error_that_says_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("empty"), "\n \n").unwrap();
    fs::write(directory.path().join("many"), "t\n".repeat(1_001)).unwrap();
    for (file, complaint) in [
        ("missing", "cannot read it: No such file"),
        ("empty", "no token in it; write one per line"),
        ("many", "1001 tokens in it; at most 1000"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_segment-gateway"))
            .args(["sandbox", "--tokens", file])
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{file}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(complaint), "{said}");
        assert!(said.contains("--tokens"), "{said}");
    }
}
