//! A token is replaced while writes wait that were deferred with it.

use super::support::exposition::operators;
use super::support::scripted::{Script, Seen, Step, answer};
use super::support::{Setup, World, left_by_crash, request, with};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::{Empty, Full};
use segment_gateway::app::Keeping;
use segment_gateway::error::GatewayError;
use segment_gateway::journal::Journal;
use segment_gateway::sandbox::SandboxSpec;
use segment_gateway::write::durable::{Listing, Selection};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::sleep;

const SOON: Duration = Duration::from_millis(50);
const ONE: &str =
    r#"{"permissions":[{"roleId":"source-admin","resources":[{"id":"s","type":"SOURCE"}]}]}"#;

const ALL: Listing = Listing {
    credential: None,
    operation: None,
    state: None,
    after: None,
    limit: 10,
};

/// Tokens `a` and `b` are of one workspace, `other` of another one, and `bad` of none.
struct Api {
    script: Arc<Script>,
    /// Whether `a` is accepted no longer.
    revoked: Arc<AtomicBool>,
}

impl Api {
    fn new() -> Self {
        let revoked = Arc::new(AtomicBool::new(false));
        let is_revoked = Arc::clone(&revoked);
        let script = Script::new(move |seen, _| {
            let token = token(seen);
            let refused = token == "bad" || (token == "a" && is_revoked.load(Ordering::SeqCst));
            let workspace = if token == "other" { "w2" } else { "w1" };
            let answered = match &seen.method {
                _ if refused => answer(401, "{}"),
                &Method::GET => answer(
                    200,
                    &format!(r#"{{"data":{{"workspace":{{"id":"{workspace}"}}}}}}"#),
                ),
                _ => answer(200, r#"{"data":{}}"#),
            };
            Step::Later(SOON, answered)
        });
        Self { script, revoked }
    }

    fn revoke(&self) {
        self.revoked.store(true, Ordering::SeqCst);
    }

    fn start(&self, memory: &Journal, workspaces: bool) -> Arc<World> {
        let mut setup = Setup::new(SandboxSpec::default());
        setup.config.journal.workspaces = workspaces;
        setup.keeping = Keeping {
            journal: memory.clone(),
            outlasts: true,
            newest: None,
        };
        self.script.world_of(setup)
    }

    /// The token and the target of every write that took effect.
    fn written(&self) -> Vec<(String, String)> {
        let seen = self.script.seen();
        let writes = seen.iter().filter(|seen| seen.method != Method::GET);
        let accepted = writes.filter(|seen| token(seen) == "b" || !self.was_refused(seen));
        accepted
            .map(|seen| (token(seen), seen.target.clone()))
            .collect()
    }

    /// In these tests `a` is revoked before any write, or not at all.
    fn was_refused(&self, seen: &Seen) -> bool {
        token(seen) == "a" && self.revoked.load(Ordering::SeqCst)
    }
}

fn token(seen: &Seen) -> String {
    let value = seen.headers["authorization"].to_str().unwrap();
    value.trim_start_matches("Bearer ").to_owned()
}

fn post(user: usize) -> Request<Full<Bytes>> {
    let target = format!("/users/user-{user:05}/permissions");
    request(Method::POST, &target, "a", ONE)
}

fn of(mut request: Request<Full<Bytes>>, token: &str) -> Request<Full<Bytes>> {
    request.headers_mut().insert("authorization", bearer(token));
    request
}

fn bearer(token: &str) -> HeaderValue {
    format!("Bearer {token}").parse().unwrap()
}

async fn defer(world: &World, request: Request<Full<Bytes>>) -> String {
    let accepted = world.send(with(request, "prefer", "respond-async")).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    accepted.header("location").to_owned()
}

async fn shown(world: &World, location: &str, token: &str) -> Value {
    world.get(location, token).await.json()["data"]["write"].clone()
}

fn hash(world: &World, token: &str) -> String {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", bearer(token));
    world
        .gateway
        .router()
        .hasher
        .credential(&headers)
        .to_string()
}

async fn rebind(world: &World, to: Option<&str>, unchecked: bool) -> Result<Value, GatewayError> {
    let to = to.map(bearer);
    let from = hash(world, "a");
    world
        .gateway
        .writes()
        .operators_rebind(&from, to.as_ref(), unchecked)
        .await
}

fn why(refused: Result<Value, GatewayError>) -> String {
    refused.unwrap_err().message()
}

#[tokio::test(start_paused = true)]
async fn writes_go_on_with_the_token_that_replaces_a_revoked_one() {
    let api = Api::new();
    let world = api.start(&Journal::in_memory().unwrap(), true);
    // The workspace is asked for while the token is good, once.
    let mut locations = vec![defer(&world, post(1)).await];
    sleep(Duration::from_secs(1)).await;
    assert_eq!(api.written().len(), 1);
    api.revoke();
    locations.clear();
    let keyed = |request| with(request, "idempotency-key", "k");
    locations.push(defer(&world, post(2)).await);
    locations.push(defer(&world, keyed(post(2))).await);
    locations.push(defer(&world, post(3)).await);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(world.durable().paused, 1);
    let asked = api.script.seen();
    let reads = asked.iter().filter(|seen| seen.method == Method::GET);
    assert_eq!(reads.count(), 1);
    // A token that is none, the old one, a bad one, or of another workspace changes nothing.
    for (to, expected) in [
        (None, "missing"),
        (Some(""), "missing"),
        (Some("a"), "have already"),
        (Some("bad"), "rejects"),
        (Some("other"), "another workspace"),
    ] {
        let said = why(rebind(&world, to, false).await);
        assert!(said.contains(expected), "{to:?}: {said}");
    }
    for location in &locations {
        assert_eq!(shown(&world, location, "a").await["state"], "queued");
    }
    let moved = rebind(&world, Some("b"), false).await.unwrap();
    assert_eq!((&moved["moved"], &moved["left"]), (&3.into(), &0.into()));
    assert_eq!(moved["credential"], hash(&world, "b"));
    sleep(Duration::from_secs(100)).await;
    for location in &locations {
        assert_eq!(shown(&world, location, "b").await["state"], "succeeded");
        assert_eq!(world.get(location, "a").await.status, 404);
    }
    let of_b: Vec<_> = api
        .written()
        .into_iter()
        .filter(|(by, _)| by == "b")
        .collect();
    // The second one waits for the first, which has the same lane.
    let users: Vec<_> = of_b.iter().map(|(_, target)| &target[12..17]).collect();
    assert_eq!(users, ["00002", "00003", "00002"]);
    let listing = world.gateway.writes().operators_list(&ALL).await;
    assert_eq!(listing.unwrap()["paused"], serde_json::json!([]));
    // The same request under the same key is the same write, with the new token.
    let again = world.send(of(keyed(post(2)), "b")).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    // With the old one nobody has it carried out once more.
    let old = world.send(keyed(post(2))).await;
    assert_eq!(old.error_type(), "gateway-outcome-unknown", "{old:?}");
    let moved_back = rebind(&world, Some("b"), true).await.unwrap();
    assert_eq!(moved_back["moved"], 0);
    assert_eq!(api.written().len(), 4 - 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_write_hears_what_becomes_of_it_with_the_new_token() {
    let api = Api::new();
    let world = api.start(&Journal::in_memory().unwrap(), false);
    api.revoke();
    let waits = with(post(1), "prefer", "respond-async, wait=20");
    let waits = world.spawn(waits);
    let keyed = |request| with(request, "idempotency-key", "k");
    let joins = with(keyed(post(2)), "prefer", "respond-async, wait=20");
    let first = defer(&world, keyed(post(2))).await;
    let joins = world.spawn(joins);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(rebind(&world, Some("b"), true).await.unwrap()["moved"], 2);
    for waiting in [waits, joins] {
        let heard = waiting.await.unwrap();
        assert_eq!(heard.status, 200, "{heard:?}");
    }
    assert_eq!(shown(&world, &first, "b").await["state"], "succeeded");
    assert_eq!(api.written().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_a_known_workspace_an_operator_has_to_say_that_it_is_the_same() {
    let api = Api::new();
    api.revoke();
    let world = api.start(&Journal::in_memory().unwrap(), false);
    let location = defer(&world, post(1)).await;
    sleep(Duration::from_secs(10)).await;
    let said = why(rebind(&world, Some("b"), false).await);
    assert!(said.contains("(`unchecked`)"), "{said}");
    assert_eq!(shown(&world, &location, "a").await["state"], "queued");
    assert_eq!(rebind(&world, Some("b"), true).await.unwrap()["moved"], 1);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(shown(&world, &location, "b").await["state"], "succeeded");
}

#[tokio::test(start_paused = true)]
async fn a_write_leaves_once_however_far_it_had_come() {
    let api = Api::new();
    let world = api.start(&Journal::in_memory().unwrap(), false);
    let mut locations = Vec::new();
    for user in 1..=200 {
        // Some of them wait for each other.
        locations.push(defer(&world, post(user % 150)).await);
    }
    // Some have ended, one is under way, others stand before the budget, the rest waits.
    sleep(Duration::from_millis(120)).await;
    let moved = rebind(&world, Some("b"), true).await.unwrap();
    assert!(moved["moved"].as_u64().unwrap() > 100, "{moved}");
    sleep(Duration::from_secs(400)).await;
    for location in &locations {
        let by_a = shown(&world, location, "a").await;
        let by_b = shown(&world, location, "b").await;
        let states = [&by_a["state"], &by_b["state"]];
        let succeeded = states.iter().filter(|state| **state == "succeeded");
        assert_eq!(succeeded.count(), 1, "{states:?}");
    }
    let written = api.written();
    assert_eq!(written.len(), 200);
    let by_a = written.iter().filter(|(token, _)| token == "a").count();
    let moved = moved["moved"].as_u64().unwrap() as usize;
    assert_eq!((by_a, written.len() - by_a), (200 - moved, moved));
    assert_eq!(world.durable().queued, 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_new_credential_has_under_the_same_key_stays_its_own() {
    let api = Api::new();
    let world = api.start(&Journal::in_memory().unwrap(), false);
    api.revoke();
    let keyed = |request| with(request, "idempotency-key", "k");
    let first = defer(&world, keyed(post(1))).await;
    sleep(Duration::from_secs(10)).await;
    let theirs = defer(&world, of(keyed(post(1)), "b")).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(shown(&world, &theirs, "b").await["state"], "succeeded");
    let moved = rebind(&world, Some("b"), true).await.unwrap();
    assert_eq!((&moved["moved"], &moved["left"]), (&0.into(), &1.into()));
    assert_eq!(shown(&world, &first, "a").await["state"], "queued");
    assert_eq!(api.written().len(), 1);
    let taken_back = world.send(request(Method::DELETE, &first, "a", "")).await;
    assert_eq!(taken_back.status, 200, "{taken_back:?}");
}

#[tokio::test(start_paused = true)]
async fn the_next_process_knows_the_new_owner() {
    let api = Api::new();
    api.revoke();
    let memory = Journal::in_memory().unwrap();
    let world = api.start(&memory, false);
    let location = defer(&world, post(1)).await;
    sleep(Duration::from_secs(10)).await;
    // A full disk changes nothing.
    memory.fail_next(1);
    assert!(matches!(
        rebind(&world, Some("b"), true).await,
        Err(GatewayError::JournalFull)
    ));
    assert_eq!(shown(&world, &location, "a").await["state"], "queued");
    // It is not to leave before the crash.
    let all = Selection {
        credential: None,
        operation: Some("addPermissionsToUser".into()),
    };
    assert!(world.gateway.writes().operators_pause(&all).unwrap());
    assert_eq!(rebind(&world, Some("b"), true).await.unwrap()["moved"], 1);
    let second = api.start(&left_by_crash(&memory).await, false);
    assert_eq!(
        second
            .gateway
            .writes()
            .recover(Some(&[]))
            .await
            .unwrap()
            .queued,
        1
    );
    sleep(Duration::from_secs(10)).await;
    assert_eq!(shown(&second, &location, "b").await["state"], "succeeded");
}

#[tokio::test(start_paused = true)]
async fn operators_ask_for_it_on_their_listener() {
    let api = Api::new();
    api.revoke();
    let world = api.start(&Journal::in_memory().unwrap(), false);
    let location = defer(&world, post(1)).await;
    sleep(Duration::from_secs(10)).await;
    let from = hash(&world, "a");
    let path = |query: &str| format!("/writes/rebind?{query}");
    for (query, status) in [
        ("", 400),
        ("credential=0000", 400),
        (&*format!("credential={from}&unchecked=maybe"), 400),
        (&*format!("credential={from}&token=b"), 400),
        (&*format!("credential={from}"), 400),
        (&*format!("credential={from}&unchecked=true"), 200),
    ] {
        let asked = Request::post(path(query))
            .header("x-gateway-admin", "1")
            .header("x-gateway-new-authorization", bearer("b"))
            .body(Empty::<Bytes>::new());
        let (answered, text) = operators(&world, asked.unwrap()).await;
        assert_eq!(answered.as_u16(), status, "{query}: {text}");
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(shown(&world, &location, "b").await["state"], "succeeded");
}
