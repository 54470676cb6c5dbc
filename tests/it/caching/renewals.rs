//! A reader and a fetch that no reader waits for, where their budget is spent: the reader has its
//! answer as soon as in a turn of its own.

use super::*;
use crate::support::from_peer;
use tokio::time::Instant;

/// One list in five seconds; each lives for ten, and is shown stale for so long.
fn world(script: &Arc<Script>, stale: &str) -> Arc<World> {
    let row = rule("").users(&format!(
        "cache = \"10s\"\nlimit = \"1 per 5s\"\nstale_while_revalidate = \"{stale}\""
    ));
    let mut setup = Setup::new(SandboxSpec::default());
    setup.routes = row.routes;
    script.world_of(setup)
}

fn list() -> http::Request<http_body_util::Full<Bytes>> {
    request(Method::GET, USERS, "a", "")
}

/// Reads of one caller that wait for the same budget.
fn backlog(world: &Arc<World>, reads: usize) {
    for count in 1..=reads {
        let target = format!("{USERS}?pagination.count={count}");
        drop(world.spawn(request(Method::GET, &target, "a", "")));
    }
}

/// The answer to another peer, and how long it took.
async fn other_peer(
    world: &World,
    ask: http::Request<http_body_util::Full<Bytes>>,
) -> (Answer, Duration) {
    let came = Instant::now();
    let answer = world.send(from_peer(ask, 9)).await;
    (answer, came.elapsed())
}

/// How often the whole list was asked for.
fn lists(script: &Script) -> usize {
    let seen = script.seen();
    seen.iter().filter(|seen| seen.target == USERS).count()
}

#[tokio::test(start_paused = true)]
async fn a_reader_does_not_wait_where_a_renewal_of_its_answer_does() {
    let script = Script::new(|_, n| Step::Answer(body(ok::<&str>(&[]), n.to_string())));
    let world = world(&script, "300s");
    world.get(USERS, "a").await;
    sleep(Duration::from_secs(15)).await;
    backlog(&world, 4);
    sleep(Duration::from_millis(1)).await;
    let shown = world.send(list()).await;
    assert!(shown.cache_status().contains("stale"), "{shown:?}");
    // The renewal waits behind what its caller reads. Peers take turns: one of the other's is first.
    let (answer, took) = other_peer(&world, with(list(), "cache-control", "no-cache")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(took < Duration::from_secs(11), "{took:?}");
    // It has the newer answer: there is nothing left to renew.
    assert_eq!(world.send(list()).await.body, answer.body);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(lists(&script), 2);
    assert_eq!(script.count(), 2 + 4);
}

#[tokio::test(start_paused = true)]
async fn a_reader_does_not_go_back_into_the_line_with_a_renewal() {
    let script = Script::new(|_, n| match n {
        1 => Step::Later(Duration::from_secs(3), says(429, &["retry-after: 5"])),
        _ => Step::Answer(body(ok::<&str>(&[]), n.to_string())),
    });
    let world = world(&script, "5s");
    world.get(USERS, "a").await;
    sleep(Duration::from_secs(14)).await;
    let shown = world.send(list()).await;
    assert!(shown.cache_status().contains("stale"), "{shown:?}");
    sleep(Duration::from_secs(2)).await;
    backlog(&world, 3);
    // The renewal has left, and what it brings will do.
    assert_eq!(script.count(), 2);
    let (answer, took) = other_peer(&world, list()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // A second until the refusal, five until the budget opens, and one turn of the other peer.
    assert!(took < Duration::from_secs(13), "{took:?}");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(lists(&script), 3);
}
