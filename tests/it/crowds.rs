//! Many who read one thing while it is written, or while its budget is spent: they cost one fetch for
//! each round trip, not one each.

use super::support::scripted::{Script, Step, answer};
use super::support::{Answer, Setup, request, with};
use http::Method;
use segment_gateway::sandbox::SandboxSpec;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const ROUND_TRIP: Duration = Duration::from_millis(200);
/// Between two readers: 120 in a second.
const APART: Duration = Duration::from_nanos(1_000_000_000 / 120);

/// What became of a crowd.
struct Crowd {
    /// What each reader was told, and how long after it came.
    told: Vec<(Answer, Duration)>,
    /// When the fetches of the list arrived at the API.
    fetches: Vec<Instant>,
}

/// What a crowd does.
struct Plan {
    settling: Duration,
    /// 120 readers in each.
    seconds: u32,
    /// A field of each reader's request.
    field: Option<(&'static str, &'static str)>,
    /// What the n-th reader asks for.
    read: fn(u32) -> (Method, String),
    /// What is written in the middle of the first second.
    write: &'static str,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            settling: Duration::from_secs(2),
            seconds: 6,
            field: None,
            read: |_| (Method::GET, "/users".to_owned()),
            write: "/users/u/permissions",
        }
    }
}

impl Plan {
    async fn carry_out(self) -> Crowd {
        let script = Script::new(|_, _| Step::Later(ROUND_TRIP, answer(200, "{}")));
        let mut setup = Setup::new(SandboxSpec::default());
        setup.config.cache.settling = self.settling;
        let world = script.world_of(setup);
        let mut readers = Vec::new();
        for number in 0..self.seconds * 120 {
            if number == 60 {
                let write = request(Method::PUT, self.write, "writer", "{}");
                drop(world.spawn(write));
            }
            let (method, target) = (self.read)(number);
            let mut ask = request(method, &target, "reader", "");
            if let Some((name, value)) = self.field {
                ask = with(ask, name, value);
            }
            let (world, came) = (Arc::clone(&world), Instant::now());
            readers.push(tokio::spawn(async move {
                let answer = world.send(ask).await;
                (answer, came.elapsed())
            }));
            sleep(APART).await;
        }
        let mut told = Vec::new();
        for reader in readers {
            told.push(reader.await.expect("an answer"));
        }
        let fetches = script.seen().into_iter();
        let fetches = fetches.filter(|seen| seen.method != Method::PUT);
        Crowd {
            told,
            fetches: fetches.map(|seen| seen.at).collect(),
        }
    }
}

impl Crowd {
    /// How many got no answer.
    fn refused(&self) -> usize {
        let refused = self.told.iter().filter(|(answer, _)| answer.status != 200);
        refused.count()
    }

    /// Nobody is refused, and one fetch at a time is under way.
    fn is_served(&self) {
        assert_eq!(self.refused(), 0);
        let at_once = self.fetches.windows(2);
        let at_once = at_once.filter(|pair| pair[1] - pair[0] < ROUND_TRIP);
        assert_eq!(at_once.count(), 0, "{:?}", self.fetches);
    }

    fn longest(&self) -> Duration {
        let times = self.told.iter().map(|(_, time)| *time);
        times.max().unwrap_or_default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_of_what_a_crowd_reads_costs_one_fetch_for_each_round_trip() {
    let crowd = Plan::default().carry_out().await;
    crowd.is_served();
    let longest = crowd.longest();
    assert!(longest <= 2 * ROUND_TRIP, "{longest:?}");
    // One before the write, ten in a second while it settles, and one that is stored.
    let fetches = crowd.fetches.len();
    assert!(fetches <= 2 + 11, "{fetches}");
    let (last, _) = crowd.told.last().expect("a reader");
    assert!(last.header("cache-status").contains("hit"), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn those_who_ask_with_head_share_the_fetches_of_those_who_ask_with_get() {
    let all: fn(u32) -> _ = |_| (Method::HEAD, "/users".to_owned());
    let every_other: fn(u32) -> _ = |number| match number % 2 {
        0 => (Method::HEAD, "/users".to_owned()),
        _ => (Method::GET, "/users".to_owned()),
    };
    for read in [all, every_other] {
        let plan = Plan {
            read,
            ..Plan::default()
        };
        let crowd = plan.carry_out().await;
        crowd.is_served();
        let fetches = crowd.fetches.len();
        assert!(fetches <= 2 + 11, "{fetches}");
        let (last, _) = crowd.told.last().expect("a reader");
        assert!(last.header("cache-status").contains("hit"), "{last:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_reloads_costs_one_fetch_for_each_round_trip() {
    let plan = Plan {
        field: Some(("cache-control", "no-cache")),
        ..Plan::default()
    };
    let crowd = plan.carry_out().await;
    crowd.is_served();
    let longest = crowd.longest();
    assert!(longest <= 2 * ROUND_TRIP, "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_waits_for_a_slot_waits_for_one() {
    // Five fetches in a second spend the budget of 200 in a minute after 40 s.
    let plan = Plan {
        settling: Duration::from_secs(90),
        seconds: 70,
        ..Plan::default()
    };
    let crowd = plan.carry_out().await;
    crowd.is_served();
    let first = crowd.fetches[0];
    let minute = Duration::from_secs(60);
    let in_a_minute = crowd.fetches.iter().filter(|at| **at < first + minute);
    assert_eq!(in_a_minute.count(), 200);
}

/// Forty users who are written together, by way of a group.
const MANY: Plan = Plan {
    settling: Duration::from_secs(2),
    seconds: 10,
    field: None,
    read: |number| (Method::GET, format!("/users/u{}", number % 40)),
    write: "/groups/g/permissions",
};

#[tokio::test(start_paused = true)]
async fn a_write_of_what_many_keys_show_does_not_spend_the_budget() {
    let crowd = MANY.carry_out().await;
    assert_eq!(crowd.refused(), 0);
    // One of each before the write, one that is stored after it, and no more than half of the budget
    // before that.
    let fetches = crowd.fetches.len();
    assert!(fetches <= 101 + 40, "{fetches}");
    let longest = crowd.longest();
    let most = MANY.settling + 4 * ROUND_TRIP;
    assert!(longest <= most, "{longest:?}");
    for (answer, _) in crowd.told.iter().rev().take(40) {
        assert!(answer.header("cache-status").contains("hit"), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_cannot_wait_for_the_end_of_the_settling_does_not() {
    let script = Script::new(|_, _| Step::Later(ROUND_TRIP, answer(200, "{}")));
    let world = script.world();
    let user = |number: u32| request(Method::GET, &format!("/users/u{number}"), "reader", "");
    let hasty = |number| with(user(number), "prefer", "wait=1");
    // More than half of the budget is spent.
    let first: Vec<_> = (0..101).map(|number| world.spawn(user(number))).collect();
    for one in first {
        assert_eq!(one.await.expect("an answer").status, 200);
    }
    let write = request(Method::PUT, "/groups/g/permissions", "writer", "{}");
    assert_eq!(world.send(write).await.status, 200);
    let before = script.count();
    let patient = world.spawn(user(0));
    sleep(ROUND_TRIP).await;
    assert_eq!(script.count(), before, "it waits for the end");
    // Whoever joins takes it along, and whoever leads does not wait.
    for (number, asked) in [(0, 1), (1, 2)] {
        let came = Instant::now();
        assert_eq!(world.send(hasty(number)).await.status, 200);
        assert!(came.elapsed() < 2 * ROUND_TRIP, "{:?}", came.elapsed());
        assert_eq!(script.count(), before + asked);
    }
    assert_eq!(patient.await.expect("an answer").status, 200);
}

/// Another token may not do what it asks for, again and again.
#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_takes_nothing_from_the_readers_of_others() {
    let script = Script::new(|seen, _| match seen.method {
        Method::PUT => Step::Later(ROUND_TRIP, answer(403, "{}")),
        _ => Step::Later(ROUND_TRIP, answer(200, "{}")),
    });
    let world = script.world();
    let job = Arc::clone(&world);
    drop(tokio::spawn(async move {
        loop {
            let body = r#"{"permissions":[{"roleId":"r","resources":[]}]}"#;
            let write = request(Method::PUT, "/users/u/permissions", "job", body);
            assert_eq!(job.send(write).await.status, 403);
            sleep(3 * ROUND_TRIP).await;
        }
    }));
    let read = || request(Method::GET, "/users", "reader", "");
    assert_eq!(world.send(read()).await.status, 200);
    for _ in 0..200 {
        sleep(ROUND_TRIP).await;
        let answer = world.send(read()).await;
        assert!(answer.header("cache-status").contains("hit"), "{answer:?}");
    }
}
