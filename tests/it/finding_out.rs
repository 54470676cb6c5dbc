//! Budgets of which no answer has told anything yet.

use super::support::scripted::{Script, Step, answer, field};
use super::support::{Setup, with};
use super::support::{World, request};
use http::{Method, Response};
use segment_gateway::sandbox::SandboxSpec;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// An answer of the API that tells what its budget allows.
fn told(consumed: u32, limit: u32) -> Response<bytes::Bytes> {
    let told = field(
        answer(200, "{}"),
        "x-ratelimit-consumed",
        &consumed.to_string(),
    );
    field(
        told,
        "x-ratelimit-remaining",
        &limit.saturating_sub(consumed).to_string(),
    )
}

/// A gateway that knows nothing of what was sent before.
fn new_node(script: &Arc<Script>) -> Arc<World> {
    let mut setup = Setup::new(SandboxSpec::default());
    setup.history = None;
    script.world_of(setup)
}

/// The status of a read that is not shared, and how long it took.
async fn read(world: &World, n: usize) -> (u16, Duration) {
    let before = Instant::now();
    let ask = request(Method::GET, &format!("/users/user-{n:05}"), "a", "");
    let status = world.send(with(ask, "cache-control", "no-store")).await;
    (status.status.as_u16(), before.elapsed())
}

#[tokio::test(start_paused = true)]
async fn two_answers_that_tell_nothing_keep_no_budget_closed() {
    for status in [404, 502] {
        let script = Script::new(move |_, n| match n {
            0 | 1 => Step::Answer(answer(status, "{}")),
            _ => Step::Answer(told(3, 200)),
        });
        let world = new_node(&script);
        for n in 0..2 {
            assert_eq!(read(&world, n).await.0, status);
        }
        for n in 2..40 {
            let (answered, took) = read(&world, n).await;
            assert_eq!(answered, 200, "{status}: {n}");
            assert!(
                took <= Duration::from_millis(310),
                "{status}: {n}: {took:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_without_rate_fields_is_used_at_the_pace_of_the_limit() {
    let script = Script::new(|_, _| Step::Answer(answer(200, "{}")));
    let world = new_node(&script);
    let before = Instant::now();
    for n in 0..100 {
        assert_eq!(read(&world, n).await.0, 200);
    }
    let took = before.elapsed();
    assert!(
        took <= Duration::from_secs(30),
        "100 of 200 a minute: {took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_is_finding_out_says_so() {
    let script = Script::new(|_, n| match n {
        0 => Step::Answer(answer(404, "{}")),
        _ => Step::Answer(told(2, 200)),
    });
    let world = new_node(&script);
    for (used, starting) in [(1, true), (2, false)] {
        read(&world, used).await;
        let budgets = world.gateway.budgets().snapshot();
        assert_eq!(budgets[0].occupied as usize, used, "what is known");
        assert_eq!(budgets[0].starting, starting);
    }
}
