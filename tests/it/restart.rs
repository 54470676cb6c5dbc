//! What a restart knows of writes whose outcome is unknown: while they may still take effect their
//! lanes are closed and what they change is not stored, however often and however it is started.

use super::support::exposition::operator;
use super::support::program::Program;
use super::support::scripted::{Script, Step, answer, field};
use super::support::{Setup, World, clock, left_by_crash, request, with};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use segment_gateway::app::Keeping;
use segment_gateway::clock::Clock;
use segment_gateway::journal::Journal;
use segment_gateway::limit::ledger::{Ledger, LedgerSpec, PastUsage};
use segment_gateway::sandbox::SandboxSpec;
use segment_gateway::write::decision::RETRY_FOR;
use segment_gateway::write::durable::Recovered;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

mod limits;

const SOON: Duration = Duration::from_millis(50);
/// How long an attempt waits for its answer, and Q.
const GIVEN_UP: Duration = Duration::from_secs(30);
const Q: Duration = Duration::from_secs(60);
/// The slack of the boot clock, and of an answer.
const SLACK: Duration = Duration::from_millis(200);

/// What outlasts a gateway.
struct Place {
    directory: tempfile::TempDir,
    memory: Journal,
    clock: Clock,
    starts: usize,
    began: Instant,
}

impl Place {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            memory: Journal::in_memory().unwrap(),
            clock: clock(),
            starts: 0,
            began: Instant::now(),
        }
    }

    fn ledger(&self) -> PathBuf {
        self.directory.path().join("ledger")
    }

    /// Starts a gateway with what the last one has left. That one is not told: whatever it does from
    /// now on reaches neither the ledger nor the journal, as if it had been killed.
    async fn start(&mut self, script: &Arc<Script>) -> Arc<World> {
        let (world, _) = self.start_with(script, |_| {}).await;
        world
    }

    async fn start_with(
        &mut self,
        script: &Arc<Script>,
        change: impl FnOnce(&mut Setup),
    ) -> (Arc<World>, Recovered) {
        let spec = LedgerSpec {
            key_check: [1; 16],
            keep: RETRY_FOR,
            expected: self.starts > 0,
        };
        let opened = Ledger::open(&self.ledger(), spec, self.clock.clone()).unwrap();
        self.memory = left_by_crash(&self.memory).await;
        let mut setup = Setup {
            keeping: Keeping {
                journal: self.memory.clone(),
                outlasts: true,
                newest: self.memory.newest().await.unwrap(),
            },
            ledger: opened.ledger,
            history: opened.history.or_else(|| Some(PastUsage::new())),
            clock: self.clock.clone(),
            ..Setup::new(SandboxSpec::default())
        };
        change(&mut setup);
        let world = script.world_of(setup);
        let recovered = world
            .gateway
            .writes()
            .recover(opened.left.as_deref())
            .await
            .unwrap();
        self.starts += 1;
        (world, recovered)
    }

    /// So long after the beginning.
    async fn reach(&self, after: Duration) {
        sleep_until(self.began + after).await;
    }
}

/// The target of A, and of what must not overtake it.
const PERMISSIONS: &str = "/users/user-00001/permissions";
const ONE: &str =
    r#"{"permissions":[{"roleId":"source-admin","resources":[{"id":"s","type":"SOURCE"}]}]}"#;

fn a() -> Request<Full<Bytes>> {
    request(Method::POST, PERMISSIONS, "a", ONE)
}

fn b() -> Request<Full<Bytes>> {
    request(Method::PUT, PERMISSIONS, "a", r#"{"permissions":[]}"#)
}

/// Never answers a POST, which takes effect after all when `late` has passed; reads show whether it
/// has.
fn takes_effect_after(late: Duration) -> Arc<Script> {
    let began = Instant::now();
    Script::new(move |seen, _| match seen.method {
        Method::POST => Step::Silent,
        Method::GET if seen.at >= began + late => {
            Step::Later(SOON, answer(200, r#"{"data":"late"}"#))
        }
        _ => Step::Later(SOON, answer(200, r#"{"data":"early"}"#)),
    })
}

/// When the first request of this method arrived.
fn arrived(script: &Script, method: Method, began: Instant) -> Option<Duration> {
    let seen = script.seen().into_iter();
    let mut of = seen.filter(|seen| seen.method == method);
    of.next().map(|seen| seen.at - began)
}

fn is_about(found: Option<Duration>, expected: Duration) {
    let found = found.expect("it arrives");
    assert!(
        found + SLACK >= expected && found <= expected + SLACK,
        "{found:?} instead of {expected:?}"
    );
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Held,
    Deferred,
    Keyed,
}

/// A is sent as this, the gateway is started again at these instants, and then B is sent: when B
/// arrives, and what is shown to readers before and after the late effect of A.
async fn overtaken(kind: Kind, restarts: &[u64]) -> Option<Duration> {
    let late = Duration::from_secs(55);
    let script = takes_effect_after(late);
    let mut place = Place::new();
    let first = place.start(&script).await;
    let a = match kind {
        Kind::Held => a(),
        Kind::Deferred => with(a(), "prefer", "respond-async"),
        Kind::Keyed => with(a(), "idempotency-key", "k"),
    };
    let sent = first.spawn(a);
    let mut world = first;
    for at in restarts {
        place.reach(Duration::from_secs(*at)).await;
        world = place.start(&script).await;
    }
    let read = world.get("/users/user-00001", "a").await;
    assert_eq!(read.text(), r#"{"data":"early"}"#);
    let later = world.spawn(b());
    place.reach(late + SOON).await;
    let read = world.get("/users/user-00001", "a").await;
    assert_eq!(read.text(), r#"{"data":"late"}"#, "{}", read.cache_status());
    assert_eq!(later.await.unwrap().status, 200);
    sent.abort();
    arrived(&script, Method::PUT, place.began)
}

#[tokio::test(start_paused = true)]
async fn nothing_overtakes_a_write_that_was_given_up_before_a_restart() {
    for kind in [Kind::Held, Kind::Deferred, Kind::Keyed] {
        for restarts in [&[31][..], &[31, 40]] {
            let b = overtaken(kind, restarts).await;
            is_about(b, GIVEN_UP + Q);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_overtakes_a_write_that_was_under_way_at_a_kill() {
    for kind in [Kind::Held, Kind::Deferred, Kind::Keyed] {
        // It ended with the process that had sent it.
        for restarts in [&[10][..], &[10, 20], &[10, 11, 12]] {
            let b = overtaken(kind, restarts).await;
            is_about(b, Duration::from_secs(10) + Q);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_overtakes_writes_that_were_sent_together() {
    let invite = |email: &str| {
        let body = format!(r#"{{"invites":[{{"email":"{email}"}}]}}"#);
        request(Method::POST, "/invites", "a", &body)
    };
    for durable in [false, true] {
        let script = Script::new(|seen, before| match (&seen.method, before) {
            (&Method::POST, 0) => Step::Later(
                Duration::from_secs(1),
                answer(201, r#"{"data":{"emails":["0@x.y"]}}"#),
            ),
            (&Method::POST, _) => Step::Silent,
            _ => Step::Later(SOON, answer(200, r#"{"data":{"status":"SUCCESS"}}"#)),
        });
        let mut place = Place::new();
        let one_at_once = |setup: &mut Setup| setup.config.budget.writes_at_once = 1;
        let (first, _) = place.start_with(&script, one_at_once).await;
        for n in 0..3 {
            let mut one = invite(&format!("{n}@x.y"));
            if durable {
                one = with(one, "prefer", "respond-async");
            }
            drop(first.spawn(one));
            sleep(SOON).await;
        }
        place.reach(Duration::from_secs(5)).await;
        assert_eq!(script.count(), 2, "two of them were sent as one");
        let second = place.start(&script).await;
        let delete = |n: usize| {
            let target = format!("/invites?emails={n}%40x.y");
            request(Method::DELETE, &target, "a", "")
        };
        assert_eq!(second.send(delete(0)).await.status, 200);
        is_about(
            arrived(&script, Method::DELETE, place.began),
            Duration::from_secs(5),
        );
        for n in [1, 2] {
            assert_eq!(second.send(delete(n)).await.status, 200);
        }
        let seen = script.seen().into_iter();
        let deleted: Vec<_> = seen.filter(|seen| seen.method == Method::DELETE).collect();
        is_about(
            Some(deleted[1].at - place.began),
            Duration::from_secs(5) + Q,
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_else_is_written_and_read_after_a_restart_is_not_held_up() {
    let script = takes_effect_after(Duration::from_secs(600));
    let mut place = Place::new();
    let first = place.start(&script).await;
    drop(first.spawn(a()));
    place.reach(Duration::from_secs(5)).await;
    let second = place.start(&script).await;
    let other = request(
        Method::PUT,
        "/users/user-00002/permissions",
        "a",
        r#"{"permissions":[]}"#,
    );
    assert_eq!(second.send(other).await.status, 200);
    let another = request(Method::PUT, PERMISSIONS, "another", r#"{"permissions":[]}"#);
    assert_eq!(second.send(another).await.status, 200);
    assert!(place.began.elapsed() < Duration::from_secs(6));
    // Invitations are not what it changes.
    for expected in ["fwd=uri-miss", "hit"] {
        let read = second.get("/invites", "a").await;
        assert!(
            read.cache_status().contains(expected),
            "{}",
            read.cache_status()
        );
    }
    for _ in 0..2 {
        let read = second.get("/users/user-00001", "a").await;
        assert!(
            !read.cache_status().contains("hit"),
            "{}",
            read.cache_status()
        );
    }
}

/// What is read after a restart is not stored while these writes may take effect: one that was answered
/// with a 5xx of the API's own, and one that may change anything because nobody can read what it names.
#[tokio::test(start_paused = true)]
async fn what_may_have_been_changed_is_not_stored_after_a_restart() {
    let unreadable = request(Method::DELETE, "/users?userIds.0=user-00001", "a", "{}");
    for (write, shows) in [(b(), "/users/user-00001"), (unreadable, "/invites")] {
        let script = Script::new(|seen, _| match seen.method {
            Method::PUT => {
                let counted = field(answer(500, "{}"), "x-ratelimit-consumed", "1");
                Step::Answer(field(counted, "x-ratelimit-remaining", "59"))
            }
            Method::DELETE => Step::Silent,
            _ => Step::Later(SOON, answer(200, "{}")),
        });
        let mut place = Place::new();
        let first = place.start(&script).await;
        drop(first.spawn(write));
        place.reach(Duration::from_secs(5)).await;
        assert_eq!(script.count(), 1);
        let second = place.start(&script).await;
        for _ in 0..2 {
            let read = second.get(shows, "a").await;
            let status = read.cache_status();
            assert!(!status.contains("hit"), "{shows}: {status}");
        }
        sleep(Q + SLACK).await;
        second.get(shows, "a").await;
        let read = second.get(shows, "a").await;
        assert!(read.cache_status().contains("hit"), "{shows}");
    }
}

/// The retry of a list may take effect late as well: the lanes stay closed from its end on.
#[tokio::test(start_paused = true)]
async fn nothing_overtakes_a_list_that_was_deleted_once_more() {
    let script = Script::new(|seen, before| match seen.method {
        Method::DELETE if before == 0 => Step::Close,
        Method::DELETE => Step::Silent,
        _ => Step::Later(SOON, answer(200, "{}")),
    });
    let mut place = Place::new();
    let first = place.start(&script).await;
    let list = "/users?userIds.0=user-00002&userIds.1=user-00001";
    let list = with(request(Method::DELETE, list, "a", ""), "prefer", "wait=20");
    let deleted = first.spawn(list);
    assert_eq!(
        deleted.await.unwrap().error_type(),
        "gateway-outcome-unknown"
    );
    let sent = script.seen().last().unwrap().at - place.began;
    assert_eq!(script.count(), 2);
    place.reach(Duration::from_secs(40)).await;
    let second = place.start(&script).await;
    assert_eq!(second.send(b()).await.status, 200);
    let arrives = arrived(&script, Method::PUT, place.began);
    is_about(arrives, sent + GIVEN_UP + Q);
}

#[tokio::test(start_paused = true)]
async fn a_read_under_way_at_a_kill_keeps_nothing_from_being_stored() {
    let script = Script::new(|_, before| match before {
        0 => Step::Silent,
        _ => Step::Later(SOON, answer(200, "{}")),
    });
    let mut place = Place::new();
    let first = place.start(&script).await;
    drop(first.spawn(request(Method::GET, "/users/user-00001", "a", "")));
    place.reach(Duration::from_secs(5)).await;
    let second = place.start(&script).await;
    for expected in ["fwd=uri-miss", "hit"] {
        let read = second.get("/users/user-00001", "a").await;
        assert!(
            read.cache_status().contains(expected),
            "{}",
            read.cache_status()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_ledger_that_can_be_believed_any_write_may_be_under_way() {
    let script = takes_effect_after(Duration::from_secs(600));
    for damage in ["cut", "removed"] {
        let mut place = Place::new();
        let first = place.start(&script).await;
        drop(first.spawn(a()));
        place.reach(Duration::from_secs(5)).await;
        match damage {
            "cut" => {
                let file = std::fs::OpenOptions::new().write(true).open(place.ledger());
                file.unwrap().set_len(128).unwrap();
            }
            _ => std::fs::remove_file(place.ledger()).unwrap(),
        }
        let second = place.start(&script).await;
        for _ in 0..2 {
            let read = second.get("/invites", "a").await;
            assert!(
                !read.cache_status().contains("hit"),
                "{}",
                read.cache_status()
            );
        }
        // Whoever looks hears how long writes wait, and so does the caller of a deferred one.
        let other = "/users/user-00002/permissions";
        let deferred = request(Method::PUT, other, "a", r#"{"permissions":[]}"#);
        let deferred = second.send(with(deferred, "prefer", "respond-async"));
        let deferred = deferred.await.json()["data"]["write"].clone();
        let estimate = deferred["estimatedWaitMs"].as_f64().unwrap() / 1_000.0;
        assert!((59.0..62.0).contains(&estimate), "{deferred}");
        let held = second.spawn(b());
        sleep(Duration::from_secs(1)).await;
        let status = status(&second).await;
        let left = status["lanesClosedSeconds"].as_f64().unwrap();
        assert!((58.0..59.5).contains(&left), "{status}");
        let starting = status["findings"][0]["message"].as_str().unwrap();
        let wait = format!("Writes wait {} s more.", left.ceil());
        assert!(starting.ends_with(&wait), "{starting}");
        let mut budgets = status["budgets"].as_array().unwrap().iter();
        let of_write = budgets.find(|budget| budget["budget"] == "replacePermissionsForUser");
        let next = of_write.unwrap()["nextSlotSeconds"].as_f64().unwrap();
        assert!(next >= left, "{status}");
        assert_eq!(held.await.unwrap().status, 200);
        let waited = place.began.elapsed();
        is_about(Some(waited), Duration::from_secs(5) + Q + SOON);
        let status = self::status(&second).await;
        assert_eq!(status["lanesClosedSeconds"], Value::Null, "{status}");
        assert_eq!(status["findings"], serde_json::json!([]), "{status}");
    }
}

/// Returns the document of `/status`.
async fn status(world: &World) -> Value {
    let (_, status) = operator(world, Method::GET, "/status", false).await;
    serde_json::from_str(&status).unwrap()
}

/// A durable write that was sent is repeated for five minutes after its first attempt by the boot
/// clock, whatever the wall clock says at the restart.
#[tokio::test(start_paused = true)]
async fn the_wall_clock_decides_nothing_at_a_restart() {
    for (seconds, is_repeated) in [(10, true), (290, true), (310, false)] {
        for shift in [-100_000, 0, 100_000] {
            let script = Script::new(|_, _| Step::Silent);
            let mut place = Place::new();
            let first = place.start(&script).await;
            let sent = first.send(with(b(), "prefer", "respond-async")).await;
            assert_eq!(sent.status, 202);
            place.reach(Duration::from_secs(5)).await;
            // It is killed, and started again later.
            place.memory = left_by_crash(&place.memory).await;
            let left = std::fs::read(place.ledger()).unwrap();
            place.reach(Duration::from_secs(seconds)).await;
            std::fs::remove_file(place.ledger()).unwrap();
            std::fs::write(place.ledger(), left).unwrap();
            let uptime = place.clock.boot().unwrap().since;
            let wall = place.clock.wall();
            let shifted = match shift {
                ..0 => wall - Duration::from_secs(100_000),
                0 => wall,
                _ => wall + Duration::from_secs(100_000),
            };
            place.clock = Clock::simulated(shifted, uptime);
            let (_, recovered) = place.start_with(&script, |_| {}).await;
            let told = (recovered.repeated, recovered.unknown);
            let expected = if is_repeated { (1, 0) } else { (0, 1) };
            assert_eq!(told, expected, "after {seconds} s, set by {shift}");
        }
    }
}

/// Without the ledger only the wall clock says how long ago a write was sent; if it was set back, that
/// is not known.
#[tokio::test(start_paused = true)]
async fn a_write_that_was_sent_in_the_future_is_not_repeated() {
    let script = Script::new(|_, _| Step::Silent);
    let mut place = Place::new();
    let first = place.start(&script).await;
    let sent = first.send(with(b(), "prefer", "respond-async")).await;
    assert_eq!(sent.status, 202);
    place.reach(Duration::from_secs(5)).await;
    std::fs::remove_file(place.ledger()).unwrap();
    let uptime = place.clock.boot().unwrap().since;
    let before = place.clock.wall() - Duration::from_secs(1_000);
    place.clock = Clock::simulated(before, uptime);
    let (_, recovered) = place.start_with(&script, |_| {}).await;
    assert_eq!((recovered.repeated, recovered.unknown), (0, 1));
}

/// A directory that was used before has a ledger, or it was lost.
#[tokio::test]
async fn a_ledger_that_was_removed_is_missed_at_the_start() {
    let state = tempfile::tempdir().unwrap();
    let configuration = format!("[state]\ndirectory = \"{}\"\n", state.path().display());
    let gone = "it is gone, although this directory has been used before";
    for is_removed in [false, false, true] {
        if is_removed {
            std::fs::remove_file(state.path().join("ledger")).unwrap();
        }
        // It is killed at the end.
        let program = Program::sandbox(&configuration, &[], &[]).await;
        let log = program.logs(&["gateway listening"]).await;
        assert_eq!(log.contains(gone), is_removed);
    }
}
