//! Which tokens the API takes: asked before the first write that is deferred with one.

use super::*;
use crate::support::{WALL, all};
use http::{HeaderMap, HeaderValue};
use segment_gateway::clock::Clock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// An API that takes every token but `bad`, and `a` only as long as it is not revoked.
struct Api {
    script: Arc<Script>,
    revoked: Arc<AtomicBool>,
}

impl Api {
    /// Answers `GET /` with this step, if the token is good.
    fn with(workspace: Step) -> Self {
        let revoked = Arc::new(AtomicBool::new(false));
        let is_revoked = revoked.clone();
        let script = Script::new(move |seen, _| {
            let token = seen.headers["authorization"].to_str().unwrap();
            let refused = match token {
                "Bearer a" => is_revoked.load(Ordering::SeqCst),
                token => token.starts_with("Bearer bad"),
            };
            match &seen.method {
                _ if refused => Step::Later(SOON, answer(401, "{}")),
                &Method::GET => workspace.clone(),
                _ => Step::Later(SOON, answer(200, r#"{"data":{}}"#)),
            }
        });
        Self { script, revoked }
    }

    fn new() -> Self {
        let told = answer(200, r#"{"data":{"workspace":{"id":"w1"}}}"#);
        Self::with(Step::Later(SOON, told))
    }

    fn revoke(&self, is_revoked: bool) {
        self.revoked.store(is_revoked, Ordering::SeqCst);
    }

    async fn start(&self, memory: &Journal) -> Arc<World> {
        self.start_at(memory, Duration::ZERO).await
    }

    /// So long after the first.
    async fn start_at(&self, memory: &Journal, later: Duration) -> Arc<World> {
        let mut setup = keeping(slow(), memory).await;
        setup.config.journal.workspaces = true;
        setup.clock = Clock::simulated(
            SystemTime::UNIX_EPOCH + WALL + later,
            Duration::from_secs(10_000) + later,
        );
        self.script.world_of(setup)
    }

    /// The writes that arrived.
    fn writes(&self) -> usize {
        let seen = self.script.seen();
        seen.iter()
            .filter(|seen| seen.method != Method::GET)
            .count()
    }

    fn reads(&self) -> usize {
        self.script.count() - self.writes()
    }
}

fn of(token: &str, n: usize) -> Request<Full<Bytes>> {
    let mut request = deferred(post(n));
    let value = format!("Bearer {token}").parse().unwrap();
    request.headers_mut().insert("authorization", value);
    request
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_api_does_not_take_gets_no_202_and_nothing_is_kept() {
    let api = Api::new();
    let memory = Journal::in_memory().unwrap();
    let world = api.start(&memory).await;
    let refused = async |n: usize| {
        let asks = (0..n).map(|n| of("bad", n)).collect();
        for refused in all(&world, asks).await {
            assert_eq!(refused.status, 401, "{refused:?}");
            assert_eq!(refused.error_type(), "gateway-token-refused");
        }
    };
    refused(50).await;
    sleep(Duration::from_secs(9)).await;
    refused(50).await;
    assert_eq!(
        api.script.count(),
        1,
        "one asks for all, and it is remembered"
    );
    // After a while one asks again.
    sleep(Duration::from_secs(21)).await;
    refused(50).await;
    assert_eq!((api.script.count(), api.writes()), (2, 0));
    assert_eq!(memory.list(Filter::default(), 9).await.unwrap(), []);
    assert_eq!(memory.refused().await.unwrap(), []);
    // Whose token is good is not concerned, and is asked about once.
    for n in 0..5 {
        defer(&world, post(n)).await;
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!((api.reads(), api.writes()), (3, 5));
}

#[tokio::test(start_paused = true)]
async fn the_first_write_waits_for_the_answer_and_others_with_it() {
    let told = answer(200, r#"{"data":{"workspace":{"id":"w1"}}}"#);
    let api = Api::with(Step::Later(Duration::from_secs(2), told));
    let world = api.start(&Journal::in_memory().unwrap()).await;
    let began = Instant::now();
    let asks = (0..20).map(|n| of("a", n)).collect();
    for accepted in all(&world, asks).await {
        assert_eq!(accepted.status, 202);
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(3));
    defer(&world, post(21)).await;
    assert_eq!(api.reads(), 1);
}

/// That a write outlasts such a time is what it is deferred for.
#[tokio::test(start_paused = true)]
async fn while_the_api_cannot_be_asked_writes_are_accepted() {
    for step in [Step::Silent, Step::Close, Step::Answer(answer(503, "{}"))] {
        let api = Api::with(step.clone());
        let world = api.start(&Journal::in_memory().unwrap()).await;
        let began = Instant::now();
        let locations = [defer(&world, post(1)).await, defer(&world, post(2)).await];
        let took = began.elapsed();
        assert!(took <= Duration::from_secs(6), "{step:?}: {took:?}");
        for location in &locations {
            assert_eq!(ended(&world, location).await["state"], "succeeded");
        }
    }
}

/// A 403 is an answer to somebody whom the API knows.
#[tokio::test(start_paused = true)]
async fn a_token_that_may_not_see_its_workspace_is_taken() {
    let api = Api::with(Step::Later(SOON, answer(403, "{}")));
    let world = api.start(&Journal::in_memory().unwrap()).await;
    let location = defer(&world, post(1)).await;
    defer(&world, post(2)).await;
    assert_eq!(ended(&world, &location).await["state"], "succeeded");
    assert_eq!(api.reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_pause_of_a_refused_token_and_its_beginning_survive_a_restart() {
    let api = Api::new();
    let memory = Journal::in_memory().unwrap();
    let world = api.start(&memory).await;
    let mut locations = vec![defer(&world, post(0)).await];
    api.revoke(true);
    for n in 1..60 {
        locations.push(defer(&world, post(n)).await);
    }
    sleep(Duration::from_secs(100)).await;
    // Those that stood in line when the first was refused are not sent to hear the same.
    let asked = api.script.count();
    assert!(asked < 12, "{asked} requests");
    assert_eq!(world.durable().paused, 1);
    sleep(Duration::from_secs(40_000)).await;
    let later = Duration::from_secs(40_100);
    let kept = left_by_crash(&memory).await;
    let second = api.start_at(&kept, later).await;
    second.gateway.writes().recover(Some(&[])).await.unwrap();
    assert_eq!(second.durable().paused, 1);
    let oldest = second.durable().oldest;
    assert!(
        oldest >= 40_000.0,
        "it was accepted before the restart: {oldest}"
    );
    sleep(Duration::from_secs(1_000)).await;
    assert_eq!(
        api.script.count(),
        asked,
        "the next process asks nothing again"
    );
    // A day after the first 401, not after the restart.
    sleep(Duration::from_secs(86_400 - 41_200)).await;
    second.gateway.writes().give_up_refused().await;
    assert_eq!(state(&second, &locations[59]).await, "queued");
    sleep(Duration::from_secs(200)).await;
    second.gateway.writes().give_up_refused().await;
    assert_eq!(ended(&second, &locations[59]).await["state"], "failed");
    assert_eq!(kept.refused().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_api_takes_again_goes_on_by_itself() {
    let api = Api::new();
    let memory = Journal::in_memory().unwrap();
    let world = api.start(&memory).await;
    api.revoke(true);
    let refused = world.send(of("a", 1)).await;
    assert_eq!(refused.status, 401);
    api.revoke(false);
    sleep(Duration::from_secs(31)).await;
    let first = defer(&world, post(1)).await;
    api.revoke(true);
    let second = defer(&world, post(1)).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(state(&world, &second).await, "queued");
    assert_eq!(memory.refused().await.unwrap().len(), 1);
    // Until then it is answered here.
    let asked = api.script.count();
    assert_eq!(world.send(of("a", 3)).await.status, 401);
    assert_eq!(api.script.count(), asked);
    api.revoke(false);
    sleep(Duration::from_secs(31)).await;
    let third = defer(&world, post(3)).await;
    for location in [&first, &second, &third] {
        assert_eq!(ended(&world, location).await["state"], "succeeded");
    }
    assert_eq!(world.durable().paused, 0);
    assert_eq!(memory.refused().await.unwrap(), []);
}

/// That the API took a token once, and told its workspace, says nothing once it has refused it.
#[tokio::test(start_paused = true)]
async fn a_token_that_was_taken_once_and_is_refused_is_asked_about_again() {
    let api = Api::new();
    let world = api.start(&Journal::in_memory().unwrap()).await;
    defer(&world, post(0)).await;
    sleep(Duration::from_secs(5)).await;
    api.revoke(true);
    // Nothing is deferred, so nothing waits and nothing is paused.
    assert_eq!(world.send(keyed(post(1), "k")).await.status, 401);
    assert_eq!(world.durable().paused, 0);
    let asked = api.script.count();
    for (seconds, asks) in [(0, 0), (16, 1), (0, 1), (16, 2)] {
        sleep(Duration::from_secs(seconds)).await;
        let refused = world.send(of("a", 2)).await;
        assert_eq!(refused.error_type(), "gateway-token-refused", "{refused:?}");
        assert_eq!(api.script.count(), asked + asks);
    }
}

/// The next process knows nothing of the token but that its writes wait.
#[tokio::test(start_paused = true)]
async fn after_a_restart_a_refused_token_is_asked_about_before_it_is_given_more_to_keep() {
    let api = Api::new();
    let memory = Journal::in_memory().unwrap();
    let world = api.start(&memory).await;
    defer(&world, post(0)).await;
    api.revoke(true);
    let waits = defer(&world, post(1)).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.durable().paused, 1);
    let second = api
        .start_at(&left_by_crash(&memory).await, Duration::from_secs(100))
        .await;
    second.gateway.writes().recover(Some(&[])).await.unwrap();
    let refused = second.send(of("a", 2)).await;
    assert_eq!(refused.error_type(), "gateway-token-refused", "{refused:?}");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(second.durable().paused, 1);
    assert_eq!(state(&second, &waits).await, "queued");
}

/// Nothing waits any more when the API takes the token again, so nothing but the next write can end
/// the pause.
#[tokio::test(start_paused = true)]
async fn a_token_that_the_api_takes_again_goes_on_also_if_nothing_waited_for_it() {
    let api = Api::new();
    let memory = Journal::in_memory().unwrap();
    let world = api.start(&memory).await;
    defer(&world, post(0)).await;
    api.revoke(true);
    let waiting = [defer(&world, post(1)).await, defer(&world, post(1)).await];
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.durable().paused, 1);
    for location in &waiting {
        let cancelled = world.send(request(Method::DELETE, location, "a", "")).await;
        assert_eq!(cancelled.status, 200, "{cancelled:?}");
    }
    api.revoke(false);
    sleep(Duration::from_secs(31)).await;
    let next = defer(&world, post(2)).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(state(&world, &next).await, "succeeded");
    assert_eq!(world.durable().paused, 0);
    assert_eq!(memory.refused().await.unwrap(), []);
}

/// Before writes are given to a token, the API has said that it takes it.
#[tokio::test(start_paused = true)]
async fn a_refused_token_that_is_given_writes_goes_on_with_its_own_too() {
    let api = Api::new();
    let memory = Journal::in_memory().unwrap();
    let world = api.start(&memory).await;
    defer(&world, post(0)).await;
    api.revoke(true);
    let own = defer(&world, post(1)).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.durable().paused, 1);
    api.revoke(false);
    let operation = Some("addPermissionsToUser".into());
    let all = Selection {
        credential: None,
        operation,
    };
    assert!(world.gateway.writes().operators_pause(&all).unwrap());
    let given = world.send(of("b", 2)).await.header("location").to_owned();
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Bearer b"));
    let from = world
        .gateway
        .router()
        .hasher
        .credential(&headers)
        .to_string();
    let to = HeaderValue::from_static("Bearer a");
    let moved = world
        .gateway
        .writes()
        .operators_rebind(&from, Some(&to), false);
    assert_eq!(moved.await.unwrap()["moved"], 1);
    assert!(world.gateway.writes().operators_resume(&all).await.unwrap());
    sleep(Duration::from_secs(5)).await;
    for location in [&own, &given] {
        assert_eq!(state(&world, location).await, "succeeded");
    }
    assert_eq!(memory.refused().await.unwrap(), []);
}

/// The same of writes that could travel together; each of these fills a list.
#[tokio::test(start_paused = true)]
async fn lists_that_stand_in_line_when_their_token_is_refused_are_not_sent() {
    let api = Api::new();
    let world = api.start(&Journal::in_memory().unwrap()).await;
    defer(&world, post(0)).await;
    api.revoke(true);
    for n in 0..60 {
        let emails = (0..50).map(|at| format!(r#"{{"email":"guest-{n}-{at}@x.com"}}"#));
        let body = format!(
            r#"{{"invites":[{}]}}"#,
            emails.collect::<Vec<_>>().join(",")
        );
        defer(&world, request(Method::POST, "/invites", "a", &body)).await;
    }
    sleep(Duration::from_secs(100)).await;
    assert!(api.script.count() < 12, "{} requests", api.script.count());
    assert_eq!(world.durable().paused, 1);
}
