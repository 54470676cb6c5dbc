//! A retry of a write that may have taken effect, and that the API refuses.
//!
//! The oracle is the same request alone against the same state: the gateway sends nothing but that,
//! and its refusal says nothing of an earlier attempt.

use super::super::support::scripted::{Script, Step, answer};
use super::super::support::{Answer, World, request, with};
use super::{FAILED, is_passed_on, is_unknown, put};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

const LIST: &str = "/users?userIds.0=u1&userIds.1=typo&userIds.2=u2";
const REFUSALS: [u16; 5] = [400, 403, 404, 409, 422];

fn delete(target: &str) -> Request<Full<Bytes>> {
    request(Method::DELETE, target, "a", "")
}

/// What an attempt comes to that may have taken effect.
fn uncertain() -> [Step; 2] {
    [Step::Close, Step::Answer(answer(503, FAILED))]
}

/// An API whose first answer is lost or uncertain, and all later ones are these.
fn api(first: Step, status: u16) -> Arc<Script> {
    Script::new(move |_, before| match before {
        0 => first.clone(),
        _ => Step::Answer(answer(status, FAILED)),
    })
}

fn targets(script: &Script) -> Vec<String> {
    script.seen().into_iter().map(|seen| seen.target).collect()
}

fn is_refused_retry(heard: &Answer) {
    is_unknown(heard, 502, true);
    let message = heard.json()["errors"][0]["message"].to_string();
    assert!(message.contains("refused the retry"), "{message}");
}

/// Sends a deferred write and waits for its end.
async fn deferred_end(world: &World, write: Request<Full<Bytes>>) -> Value {
    let accepted = world.send(with(write, "prefer", "respond-async")).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    loop {
        let shown = world.get(accepted.header("location"), "a").await;
        let write = shown.json()["data"]["write"].clone();
        if !matches!(write["state"].as_str(), Some("queued" | "dispatched")) {
            return write;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_is_retried_as_a_whole() {
    for first in uncertain() {
        let script = api(first.clone(), 200);
        is_passed_on(&script.world().send(delete(LIST)).await, 200);
        assert_eq!(targets(&script), [LIST; 2]);
        for status in REFUSALS {
            let script = api(first.clone(), status);
            is_refused_retry(&script.world().send(delete(LIST)).await);
            assert_eq!(targets(&script), [LIST; 2], "{status}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_retry_is_no_refusal_of_the_write() {
    let one = "/users?userIds.0=u1";
    for first in uncertain() {
        for status in REFUSALS.into_iter().chain([401]) {
            let script = api(first.clone(), status);
            is_refused_retry(&script.world().send(put(1)).await);
            assert_eq!(script.count(), 2);
            let script = api(first.clone(), status);
            let heard = script.world().send(delete(one)).await;
            match status {
                // It is gone, as was asked.
                404 => is_passed_on(&heard, 404),
                _ => is_refused_retry(&heard),
            }
            assert_eq!(targets(&script), [one; 2]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deferred_list_that_is_refused_on_the_retry_is_unknown() {
    for first in uncertain() {
        for (target, status, state) in [
            (LIST, 200, "succeeded"),
            (LIST, 404, "unknown"),
            (LIST, 422, "unknown"),
            ("/users?userIds.0=u1", 404, "succeeded"),
            ("/users?userIds.0=u1", 422, "unknown"),
        ] {
            let script = api(first.clone(), status);
            let write = deferred_end(&script.world(), delete(target)).await;
            assert_eq!(write["state"], state, "{target} {status}: {write}");
            // What the API said is shown, whatever it means.
            assert_eq!(write["answer"]["status"], status, "{write}");
            let seen = targets(&script);
            assert!(seen.ends_with(&[target.into(), target.into()]), "{seen:?}");
            assert!(
                !seen
                    .iter()
                    .any(|seen| seen.contains("userIds") && seen != target)
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_replays_that_the_outcome_is_unknown() {
    for (target, status, unknown) in [(LIST, 404, true), (LIST, 200, false)] {
        let script = api(Step::Close, status);
        let world = script.world();
        let send = || world.send(with(delete(target), "idempotency-key", "k"));
        for _ in 0..2 {
            let heard = send().await;
            match unknown {
                true => assert_eq!(heard.error_type(), "gateway-outcome-unknown", "{heard:?}"),
                false => is_passed_on(&heard, status),
            }
        }
        assert_eq!(targets(&script), [target; 2]);
    }
}
