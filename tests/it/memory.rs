//! What large answers may take together, whatever their readers do.

use super::support::scripted::{Script, Step, answer};
use super::support::{Setup, World, all_of, request};
use http::{Method, Response};
use segment_gateway::config::Size;
use segment_gateway::exchange::body::OuterBody;
use segment_gateway::sandbox::SandboxSpec;

const LONG: usize = 1 << 20;

/// Begins to read; the body is not taken.
async fn begin(world: &World, n: usize) -> Response<OuterBody> {
    let ask = request(Method::GET, "/users/u1", &format!("token-{n}"), "");
    let connection = world.connection(&ask);
    connection
        .answer(ask)
        .await
        .expect("a connection service never fails")
}

fn cache_status(answer: &Response<OuterBody>) -> String {
    let status = answer.headers()["cache-status"].to_str();
    status.expect("text").to_owned()
}

#[tokio::test(start_paused = true)]
async fn large_answers_that_nobody_takes_do_not_add_up() {
    let body = "x".repeat(LONG);
    let script = Script::new(move |_, _| Step::Answer(answer(200, &body)));
    let mut setup = Setup::new(SandboxSpec::default());
    // Room for two answers beside what is stored.
    setup.config.cache.bytes = Size::mib(2);
    setup.config.cache.largest_body = Size::mib(1);
    let world = script.world_of(setup);
    let mut slow = Vec::new();
    for n in 0..6 {
        let answer = begin(&world, n).await;
        assert_eq!(answer.status(), 200);
        let status = cache_status(&answer);
        assert_eq!(status.contains("stored"), n < 2, "{n}: {status}");
        assert_eq!(status.contains("detail=no-room"), n >= 2, "{n}: {status}");
        slow.push(answer);
    }
    // Those without room have the whole answer all the same.
    for answer in slow {
        assert_eq!(all_of(answer).await.body.len(), LONG);
    }
    // And there is room again.
    let answer = begin(&world, 7).await;
    assert!(cache_status(&answer).contains("stored"));
}
