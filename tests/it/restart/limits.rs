//! What a restart knows of a limit that answers have taught: it is found out again one request at a
//! time, however low it is and however long the gateway was quiet.

use super::*;
use crate::support::scripted::field;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// An API that allows `limit` requests in each minute, which begins with the first of them, and says
/// what is left. The rest is refused.
fn allows(limit: &Arc<AtomicU32>) -> Arc<Script> {
    let (limit, minute) = (Arc::clone(limit), Mutex::new((None, 0)));
    Script::new(move |seen, _| {
        let mut minute = minute.lock().unwrap();
        let (began, counted) = &mut *minute;
        if began.is_none_or(|began| seen.at >= began + MINUTE) {
            (*began, *counted) = (Some(seen.at), 0);
        }
        *counted += 1;
        let limit = limit.load(Ordering::SeqCst);
        let status = if *counted > limit { 429 } else { 200 };
        let said = [
            ("x-ratelimit-consumed", (*counted).min(limit)),
            ("x-ratelimit-remaining", limit.saturating_sub(*counted)),
        ];
        let said = said
            .into_iter()
            .fold(answer(status, "{}"), |said, (name, value)| {
                field(said, name, &value.to_string())
            });
        Step::Later(SOON, said)
    })
}

/// A write in a lane of its own that waits as long as it may.
fn put(user: usize) -> Request<Full<Bytes>> {
    let target = format!("/users/user-{user:05}/permissions");
    let put = request(Method::PUT, &target, "a", r#"{"permissions":[]}"#);
    with(put, "prefer", "wait=600")
}

/// A gateway learns the first limit, is quiet for so long, and is started again, when the second one
/// holds: never more than that arrive in a minute, and nothing is refused.
async fn found_out_again(learned: u32, quiet: Duration, now: u32) {
    let limit = Arc::new(AtomicU32::new(learned));
    let script = allows(&limit);
    let mut place = Place::new();
    let world = place.start(&script).await;
    assert_eq!(world.send(put(0)).await.status, 200);
    drop(world);
    sleep(quiet).await;
    limit.store(now, Ordering::SeqCst);
    let world = place.start(&script).await;
    let writes: Vec<_> = (1..=6).map(|user| world.spawn(put(user))).collect();
    let case = format!("{learned} {quiet:?} {now}");
    for write in writes {
        let answer = write.await.unwrap();
        assert_eq!(answer.status, 200, "{case}: {answer:?}");
    }
    let seen = script.seen();
    let arrived: Vec<_> = seen.iter().map(|seen| seen.at - place.began).collect();
    for from in &arrived {
        let within = arrived.iter();
        let within = within.filter(|at| *at >= from && **at < *from + MINUTE);
        assert!(within.count() <= now as usize, "{case}: {arrived:?}");
    }
    assert_eq!(arrived.len(), 7, "{case}: {arrived:?}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_one_or_two_that_was_learned_is_not_exceeded() {
    for limit in [1, 2] {
        for quiet in [Duration::ZERO, 10 * MINUTE, 3 * DAY] {
            found_out_again(limit, quiet, limit).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_was_learned_and_is_lower_now_is_not_exceeded() {
    for (learned, now) in [(2, 1), (30, 1), (30, 2)] {
        found_out_again(learned, 10 * MINUTE, now).await;
    }
}
