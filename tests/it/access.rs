//! Clients with keys of their own, and tokens that the gateway holds for them.

use super::support::clients;
use super::support::exposition::metrics;
use super::support::program::Program;
use super::support::scripted::{Script, Seen, Step, answer};
use super::support::tls::{Authority, try_ask_secure};
use super::support::wire::ask;
use super::support::{Answer, Setup, World, from_peer, left_by_crash, request, with};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use segment_gateway::app::Keeping;
use segment_gateway::clients::{ClientKey, Clients, CredentialMode};
use segment_gateway::config::Mode;
use segment_gateway::journal::Journal;
use segment_gateway::sandbox::SandboxSpec;
use segment_gateway::write::durable::Selection;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::time::sleep;

const SOON: Duration = Duration::from_millis(50);
const ONE: &str =
    r#"{"permissions":[{"roleId":"source-admin","resources":[{"id":"s","type":"SOURCE"}]}]}"#;

/// An API that accepts all tokens but `first` once that is revoked, and nothing without a token.
struct Api {
    script: Arc<Script>,
    revoked: Arc<AtomicBool>,
}

impl Api {
    fn new() -> Self {
        let revoked = Arc::new(AtomicBool::new(false));
        let is_revoked = Arc::clone(&revoked);
        let script = Script::new(move |seen, _| {
            let token = seen.headers.get("authorization").map(|_| token(seen));
            let is_refused = match token.as_deref() {
                None => true,
                Some("first") => is_revoked.load(Ordering::SeqCst),
                Some(_) => false,
            };
            Step::Later(
                SOON,
                match is_refused {
                    true => answer(401, r#"{"errors":[{"type":"unauthorized"}]}"#),
                    false => answer(200, r#"{"data":{"workspace":{"id":"w"}}}"#),
                },
            )
        });
        Self { script, revoked }
    }

    fn revoke(&self) {
        self.revoked.store(true, Ordering::SeqCst);
    }

    fn start(&self, journal: &Journal) -> Arc<World> {
        self.start_in(Mode::Enforce, journal)
    }

    fn start_in(&self, mode: Mode, journal: &Journal) -> Arc<World> {
        let mut setup = Setup::new(SandboxSpec::default());
        setup.config.mode = mode;
        setup.keeping = Keeping {
            journal: journal.clone(),
            outlasts: true,
            newest: None,
        };
        self.script.world_of(setup)
    }

    /// The tokens of all requests, in the order in which they came.
    fn tokens(&self) -> Vec<String> {
        self.script.seen().iter().map(token).collect()
    }
}

fn token(seen: &Seen) -> String {
    let value = seen.headers["authorization"].to_str().unwrap();
    value.trim_start_matches("Bearer ").to_owned()
}

/// Clients `a` and `b`, which share the token `held`, with a key each. `a` may write.
struct Keys {
    a: ClientKey,
    b: ClientKey,
}

impl Keys {
    fn new() -> Self {
        let key = || ClientKey::generate().unwrap();
        Self { a: key(), b: key() }
    }

    fn clients(&self, world: &World, mode: CredentialMode, expires: Option<SystemTime>) -> Clients {
        let client = |name, may| clients::client(world, name, "held", may);
        let a = client("a", &["listUsers", "addPermissionsToUser", "getWorkspace"]);
        let b = client("b", &["getUser", "addPermissionsToUser"]);
        let entry = |key, client| clients::entry(key, client, expires);
        let keys = vec![entry(&self.a, &a), entry(&self.b, &b)];
        Clients::new(mode, vec![a, b], keys, Vec::new())
    }

    /// Gives the gateway its clients, and the token `first` to hold.
    fn install(&self, world: &World, mode: CredentialMode) {
        let router = world.gateway.router();
        router.clients.set(self.clients(world, mode, None));
        hold(world, "first");
    }

    fn of_a(&self, method: Method, target: &str, body: &str) -> Request<Full<Bytes>> {
        request(method, target, self.a.reveal(), body)
    }

    fn of_b(&self, method: Method, target: &str, body: &str) -> Request<Full<Bytes>> {
        let request = request(method, target, self.b.reveal(), body);
        from_peer(request, 2)
    }
}

/// Lets the gateway hold this token under the name `held`, whose first token was `first`.
fn hold(world: &World, token: &str) {
    let held = clients::held(world, "held", "first", Some(token));
    world.gateway.router().tokens.set(vec![held]);
}

/// A gateway before this API, which has the clients of these keys.
fn managed(api: &Api) -> (Arc<World>, Keys) {
    let world = api.start(&Journal::in_memory().unwrap());
    let keys = Keys::new();
    keys.install(&world, CredentialMode::Managed);
    (world, keys)
}

fn write(user: usize) -> String {
    format!("/users/user-{user:05}/permissions")
}

async fn status(world: &World, request: Request<Full<Bytes>>) -> u16 {
    world.send(request).await.status.as_u16()
}

fn says(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.error_type())
}

#[tokio::test(start_paused = true)]
async fn a_key_is_replaced_by_the_token_and_never_sent() {
    let api = Api::new();
    let (world, keys) = managed(&api);
    for expected in ["fwd=uri-miss", "hit"] {
        let answer = world.send(keys.of_a(Method::GET, "/users", "")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.cache_status().contains(expected), "{answer:?}");
    }
    let written = world.send(keys.of_a(Method::POST, &write(1), ONE)).await;
    assert_eq!(written.status, 200, "{written:?}");
    assert_eq!(api.tokens(), ["first", "first"]);
    for seen in api.script.seen() {
        let text = format!("{:?}", seen.headers);
        assert!(!text.contains("sgw_") && !text.contains("Held"), "{text}");
    }
    let counted = metrics(&world).await;
    for outcome in ["fetched", "hit", "written"] {
        let line = format!(
            "segment_gateway_client_requests_total{{client=\"a\",outcome=\"{outcome}\"}} 1"
        );
        assert!(counted.contains(&line), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_may_not_use_an_operation_gets_no_stored_response_of_it() {
    let api = Api::new();
    let (world, keys) = managed(&api);
    // Stored under the token that both share.
    assert_eq!(
        status(&world, keys.of_a(Method::GET, "/users", "")).await,
        200
    );
    let rejected = (403, "gateway-not-allowed".to_owned());
    for target in ["/users", "/users?x=1", "/groups", "/%75sers", "/nowhere"] {
        let answer = world.send(keys.of_b(Method::GET, target, "")).await;
        assert_eq!(says(&answer), rejected, "{target}");
    }
    let overridden = with(
        keys.of_b(Method::GET, "/users/u", ""),
        "x-http-method-override",
        "DELETE",
    );
    assert_eq!(says(&world.send(overridden).await), rejected);
    assert_eq!(api.tokens().len(), 1, "nothing of it was sent");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_not_accepted_ends_at_the_door() {
    let api = Api::new();
    let journal = Journal::in_memory().unwrap();
    let world = api.start(&journal);
    let keys = Keys::new();
    keys.install(&world, CredentialMode::Managed);
    let other = ClientKey::generate().unwrap();
    let key = keys.a.reveal();
    let (cut, upper) = (&key[..key.len() - 1], key.to_uppercase());
    let twice = format!("{key}, {key}");
    for bad in [other.reveal(), cut, &upper, &twice, "sgw_", "own-token"] {
        for method in [Method::GET, Method::POST] {
            let target = if method == Method::GET {
                "/users".to_owned()
            } else {
                write(1)
            };
            let asked = with(
                request(method, &target, bad, ONE),
                "prefer",
                "respond-async",
            );
            let answer = world.send(asked).await;
            assert_eq!(answer.status, 401, "{bad} {answer:?}");
            assert!(
                answer.error_type().starts_with("gateway-key-"),
                "{answer:?}"
            );
        }
    }
    let doubled = with(
        keys.of_a(Method::GET, "/users", ""),
        "authorization",
        "Bearer x",
    );
    assert_eq!(world.send(doubled).await.status, 400);
    let confused = with(
        keys.of_a(Method::GET, "/users", ""),
        "x-gateway-key",
        other.reveal(),
    );
    assert_eq!(world.send(confused).await.status, 401);
    assert!(api.tokens().is_empty());
    assert_eq!(journal.newest().await.unwrap(), None);
    let counted = metrics(&world).await;
    let marks = "\nsegment_gateway_cache_invalidation_marks 0\n";
    assert!(counted.contains(marks), "nothing is invalidated");
}

/// Whatever keys are sent, the gateway has no more to remember, and no series more to show.
#[tokio::test(start_paused = true)]
async fn unknown_keys_leave_nothing_behind() {
    let api = Api::new();
    let (world, keys) = managed(&api);
    let send = async |key: &str| {
        let answer = world.send(request(Method::GET, "/users", key, "")).await;
        assert_eq!(says(&answer), (401, "gateway-key-unknown".to_owned()));
    };
    send(ClientKey::generate().unwrap().reveal()).await;
    let series = |text: &str| {
        let names = text.lines().filter_map(|line| line.rsplit_once(' '));
        let names = names.map(|(name, _)| name.to_owned());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let before = metrics(&world).await;
    for _ in 0..10_000 {
        send(ClientKey::generate().unwrap().reveal()).await;
    }
    let after = metrics(&world).await;
    assert_eq!(series(&before), series(&after));
    assert!(after.contains("\nsegment_gateway_callers 0\n"), "{after}");
    assert!(api.tokens().is_empty());
    assert_eq!(
        status(&world, keys.of_a(Method::GET, "/users", "")).await,
        200
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_is_replaced_while_its_client_goes_on() {
    let api = Api::new();
    let (world, keys) = managed(&api);
    let new = ClientKey::generate().unwrap();
    let clients = |accepted: &[&ClientKey]| {
        let a = clients::client(&world, "a", "held", &["listUsers", "getUser"]);
        let entries = accepted.iter().map(|key| clients::entry(key, &a, None));
        let entries = entries.collect();
        Clients::new(CredentialMode::Managed, vec![a], entries, Vec::new())
    };
    let set = |accepted: &[&ClientKey]| world.gateway.set_clients(clients(accepted));
    set(&[&keys.a, &new]);
    let asks = |key: &ClientKey, n: usize| {
        let target = format!("/users?n={}", n % 7);
        let connection = u8::try_from(n % 5).unwrap();
        world.spawn(from_peer(
            request(Method::GET, &target, key.reveal(), ""),
            connection,
        ))
    };
    let old: Vec<_> = (0..50).map(|n| asks(&keys.a, n)).collect();
    for one in old {
        assert_eq!(one.await.unwrap().status, 200);
    }
    let mut waiting = Vec::new();
    for n in 0..200 {
        waiting.push(asks(&new, n));
        if n == 100 {
            set(&[&new]);
        }
        tokio::task::yield_now().await;
    }
    for one in waiting {
        assert_eq!(one.await.unwrap().status, 200);
    }
    assert_eq!(asks(&keys.a, 0).await.unwrap().status, 401);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_worth_nothing_where_callers_have_their_own_tokens() {
    let api = Api::new();
    let world = api.start(&Journal::in_memory().unwrap());
    let keys = Keys::new();
    keys.install(&world, CredentialMode::Own);
    for method in [Method::GET, Method::POST] {
        let answer = world.send(keys.of_a(method, "/users", "")).await;
        assert_eq!(says(&answer), (401, "gateway-key-unknown".to_owned()));
    }
    assert!(api.tokens().is_empty());
}

#[tokio::test(start_paused = true)]
async fn revocation_and_expiry_hold_for_the_next_request_of_an_open_connection() {
    let api = Api::new();
    let (world, keys) = managed(&api);
    let router = world.gateway.router();
    let ask = || world.send(keys.of_a(Method::GET, "/users", ""));
    assert_eq!(ask().await.status, 200);
    assert!(ask().await.cache_status().contains("hit"));
    let expires = world.gateway.clock().wall() + Duration::from_secs(10);
    router
        .clients
        .set(keys.clients(&world, CredentialMode::Managed, Some(expires)));
    assert!(ask().await.cache_status().contains("hit"));
    sleep(Duration::from_millis(9_900)).await;
    assert_eq!(ask().await.status, 200);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(says(&ask().await), (401, "gateway-key-expired".to_owned()));
    router
        .clients
        .set(keys.clients(&world, CredentialMode::Managed, None));
    assert!(ask().await.cache_status().contains("hit"));
    let nobody = Clients::new(CredentialMode::Managed, Vec::new(), Vec::new(), Vec::new());
    router.clients.set(nobody);
    assert_eq!(says(&ask().await), (401, "gateway-key-unknown".to_owned()));
    assert_eq!(api.tokens().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_is_seen_and_taken_back_by_the_client_that_made_it() {
    let api = Api::new();
    let (world, keys) = managed(&api);
    let keyed = |request| {
        with(
            with(request, "idempotency-key", "k"),
            "prefer",
            "respond-async",
        )
    };
    let of_a = world
        .send(keyed(keys.of_a(Method::POST, &write(1), ONE)))
        .await;
    let of_b = world
        .send(keyed(keys.of_b(Method::POST, &write(1), ONE)))
        .await;
    let (at_a, at_b) = (of_a.header("location"), of_b.header("location"));
    assert!(of_a.status == 202 && of_b.status == 202 && at_a != at_b);
    let shown = |request| async { world.send(request).await.status.as_u16() };
    assert_eq!(shown(keys.of_a(Method::GET, at_a, "")).await, 200);
    assert_eq!(shown(keys.of_b(Method::GET, at_a, "")).await, 404);
    assert_eq!(shown(keys.of_b(Method::DELETE, at_a, "")).await, 404);
    let listed = world
        .send(keys.of_b(Method::GET, "/_gateway/writes", ""))
        .await;
    let listed = listed.json();
    let listed = listed["data"]["writes"].as_array().unwrap();
    assert_eq!(listed.len(), 1);
    assert!(at_b.ends_with(listed[0]["id"].as_str().unwrap()));
    sleep(Duration::from_secs(200)).await;
    for request in [
        keys.of_a(Method::GET, at_a, ""),
        keys.of_b(Method::GET, at_b, ""),
    ] {
        let write = world.send(request).await.json()["data"]["write"].clone();
        assert_eq!(write["state"], "succeeded");
    }
    let writes = api.script.seen();
    let writes = writes.iter().filter(|seen| seen.method == Method::POST);
    assert_eq!(writes.count(), 2, "each client has its own");
}

#[tokio::test(start_paused = true)]
async fn writes_that_wait_are_sent_with_the_token_of_their_turn_and_none_is_kept() {
    let api = Api::new();
    let journal = Journal::in_memory().unwrap();
    let world = api.start(&journal);
    let keys = Keys::new();
    keys.install(&world, CredentialMode::Managed);
    let defer = |user| {
        with(
            keys.of_a(Method::POST, &write(user), ONE),
            "prefer",
            "respond-async",
        )
    };
    for user in 0..1_000 {
        assert_eq!(world.send(defer(user)).await.status, 202);
    }
    for record in journal.unfinished().await.unwrap() {
        let kept = String::from_utf8_lossy(&record.request).into_owned();
        assert!(!kept.contains("sgw_") && !kept.contains("first"), "{kept}");
        assert!(kept.contains("user-00"), "{kept}");
    }
    hold(&world, "second");
    sleep(Duration::from_secs(10)).await;
    let left = journal.unfinished().await.unwrap().len();
    assert!(left > 0, "some are left for the next process");
    let tokens = api.tokens();
    let swapped = tokens.iter().position(|token| token != "first").unwrap();
    let after = &tokens[swapped..];
    assert!(after.iter().all(|token| token == "second"), "{tokens:?}");
    // The next process, with another token.
    let journal = left_by_crash(&journal).await;
    let api = Api::new();
    let world = api.start(&journal);
    keys.install(&world, CredentialMode::Managed);
    hold(&world, "third");
    world.gateway.writes().recover(None).await.unwrap();
    sleep(Duration::from_secs(2_000)).await;
    assert!(journal.unfinished().await.unwrap().is_empty());
    let tokens = api.tokens();
    assert!(tokens.len() >= left, "{} of {left}", tokens.len());
    assert!(tokens.iter().all(|token| token == "third"), "{tokens:?}");
}

#[tokio::test(start_paused = true)]
async fn a_held_token_that_the_api_rejects_is_nobodys_fault_and_its_writes_wait() {
    let api = Api::new();
    let (world, keys) = managed(&api);
    let defer = |user| {
        with(
            keys.of_a(Method::POST, &write(user), ONE),
            "prefer",
            "respond-async",
        )
    };
    let keyed = |user| {
        with(
            keys.of_a(Method::POST, &write(user), ONE),
            "idempotency-key",
            "k",
        )
    };
    let deferred = world.send(defer(1)).await;
    api.revoke();
    let deferred_late = world.send(defer(2)).await;
    let held = (503, "gateway-token-refused".to_owned());
    assert_eq!(
        says(&world.send(keys.of_a(Method::GET, "/users", "")).await),
        held
    );
    let plain = world.send(keys.of_a(Method::POST, &write(3), ONE)).await;
    assert_eq!(says(&plain), held);
    let waits = world.send(keyed(4)).await;
    assert_eq!(waits.status, 503, "{waits:?}");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.durable().paused, 1);
    let rejected = "segment_gateway_held_token_accepted{token=\"held\"} 0";
    assert!(metrics(&world).await.contains(rejected));
    let deferred_meanwhile = world.send(defer(5)).await;
    hold(&world, "second");
    let first = clients::credential(&world, "first");
    world.gateway.writes().token_accepted(first).await;
    sleep(Duration::from_secs(100)).await;
    for answer in [&deferred, &deferred_late, &deferred_meanwhile] {
        let location = answer.header("location");
        let write = world
            .send(keys.of_a(Method::GET, location, ""))
            .await
            .json();
        assert_eq!(write["data"]["write"]["state"], "succeeded", "{write}");
    }
    let again = world.send(keyed(4)).await;
    assert_eq!(
        (again.status.as_u16(), again.header("idempotency-replayed")),
        (200, "true")
    );
    assert_eq!(
        status(&world, keys.of_a(Method::GET, "/users", "")).await,
        200
    );
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_the_held_token_has_its_credential_until_it_is_replaced() {
    let api = Api::new();
    let world = api.start(&Journal::in_memory().unwrap());
    let keys = Keys::new();
    keys.install(&world, CredentialMode::Both);
    assert_eq!(world.get("/users", "first").await.status, 200);
    let hit = world.send(keys.of_a(Method::GET, "/users", "")).await;
    assert!(hit.cache_status().contains("hit"), "{hit:?}");
    let beside = with(
        request(Method::GET, "/users", "first", ""),
        "x-gateway-key",
        keys.b.reveal(),
    );
    assert_eq!(
        world.send(beside).await.status,
        403,
        "b may not, with whatever token"
    );
    hold(&world, "second");
    api.revoke();
    // Also over the connection that knew it.
    let former = world.get("/users", "first").await;
    assert_eq!(former.status, 401, "{former:?}");
    let hit = world.send(keys.of_a(Method::GET, "/users", "")).await;
    assert!(
        hit.cache_status().contains("hit"),
        "a rejected one harms nobody: {hit:?}"
    );
    assert_eq!(world.get("/users", "second").await.status, 200);
    assert_eq!(api.tokens(), ["first", "first"]);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_client_stays_out_until_the_file_no_longer_has_its_key() {
    let api = Api::new();
    let (world, keys) = managed(&api);
    let defer = |request| with(request, "prefer", "respond-async");
    // The first of each is sent before the revocation.
    let (of_a, of_b) = (
        |user| defer(keys.of_a(Method::POST, &write(user), ONE)),
        |user| defer(keys.of_b(Method::POST, &write(user), ONE)),
    );
    let pause = Selection {
        credential: None,
        operation: Some("addPermissionsToUser".into()),
    };
    world.gateway.writes().operators_pause(&pause).unwrap();
    for user in 1..=3 {
        assert_eq!(world.send(of_a(user)).await.status, 202);
    }
    let kept = world.send(of_b(4)).await;
    assert_eq!(kept.status, 202);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("revoked");
    let in_file = || keys.clients(&world, CredentialMode::Managed, None);
    let remember = |clients| world.gateway.keep_revocations(clients, Some(file.clone()));
    remember(in_file()).unwrap();
    let nobody = world.gateway.revoke_client("nobody", false).await;
    assert_eq!(nobody.unwrap_err().facts().status, 400);
    let done = world.gateway.revoke_client("a", false).await.unwrap();
    assert_eq!((done.names, done.writes), (1, 3));
    let asks = || world.send(keys.of_a(Method::GET, "/users", ""));
    assert_eq!(asks().await.status, 401);
    let location = kept.header("location");
    let shown = world
        .send(keys.of_b(Method::GET, location, ""))
        .await
        .json();
    assert_eq!(shown["data"]["write"]["state"], "queued");
    // A reload of the same file, and another process.
    world.gateway.set_clients(in_file());
    assert_eq!(asks().await.status, 401);
    remember(in_file()).unwrap();
    assert_eq!(asks().await.status, 401);
    // Switched off for a while, and on again with the same file.
    world.gateway.set_clients(Clients::default());
    world.gateway.set_clients(in_file());
    assert_eq!(asks().await.status, 401);
    // The file without the key, and one day with it again.
    let nobody = Clients::new(CredentialMode::Managed, Vec::new(), Vec::new(), Vec::new());
    world.gateway.set_clients(nobody);
    world.gateway.set_clients(in_file());
    assert_eq!(asks().await.status, 200);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_client_is_revoked_while_it_waits_is_not_sent() {
    let api = Api::new();
    let (world, keys) = managed(&api);
    let of_a = |user| world.spawn(keys.of_a(Method::POST, &write(user), ONE));
    let of_b = |user| world.spawn(keys.of_b(Method::POST, &write(user), ONE));
    // One is on its way, and the slots of the first minute are used up.
    let on_its_way = of_b(500);
    let first: Vec<_> = (0..59).map(of_a).collect();
    sleep(SOON / 2).await;
    // One alone, and two that fit into one batch.
    let waiting = [of_b(501), of_b(600), of_a(600)];
    sleep(SOON / 4).await;
    world.gateway.revoke_client("b", false).await.unwrap();
    assert_eq!(on_its_way.await.unwrap().status, 200, "it was sent before");
    for one in first {
        assert_eq!(one.await.unwrap().status, 200);
    }
    let [alone, with_another, other] = waiting;
    for one in [alone, with_another] {
        let answer = one.await.unwrap();
        assert_eq!(says(&answer), (401, "gateway-key-unknown".to_owned()));
    }
    assert_eq!(other.await.unwrap().status, 200);
    assert_eq!(api.tokens().len(), 61);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_being_accepted_when_its_client_is_revoked_is_not_kept() {
    let api = Api::new();
    let journal = Journal::in_memory().unwrap();
    let mut setup = Setup::new(SandboxSpec::default());
    // The API is asked about the token first, which takes a while.
    setup.config.journal.workspaces = true;
    setup.keeping = Keeping {
        journal: journal.clone(),
        outlasts: true,
        newest: None,
    };
    let world = api.script.world_of(setup);
    let keys = Keys::new();
    keys.install(&world, CredentialMode::Managed);
    let asked = keys.of_b(Method::POST, &write(1), ONE);
    let asked = world.spawn(with(asked, "prefer", "respond-async"));
    sleep(SOON / 2).await;
    assert_eq!(api.tokens().len(), 1, "the question");
    world.gateway.revoke_client("b", false).await.unwrap();
    let answer = asked.await.unwrap();
    assert_eq!(says(&answer), (401, "gateway-key-unknown".to_owned()));
    assert_eq!(journal.newest().await.unwrap(), None);
}

/// A disk that is full keeps neither a stolen key alive nor what was deferred with it.
#[tokio::test(start_paused = true)]
async fn a_revocation_holds_although_it_cannot_be_written_down() {
    let api = Api::new();
    let (world, keys) = managed(&api);
    let pause = Selection {
        credential: None,
        operation: Some("addPermissionsToUser".into()),
    };
    world.gateway.writes().operators_pause(&pause).unwrap();
    let deferred = with(
        keys.of_a(Method::POST, &write(1), ONE),
        "prefer",
        "respond-async",
    );
    assert_eq!(world.send(deferred).await.status, 202);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("revoked");
    let in_file = keys.clients(&world, CredentialMode::Managed, None);
    world.gateway.keep_revocations(in_file, Some(file)).unwrap();
    drop(folder);
    let failed = world.gateway.revoke_client("a", false).await.unwrap_err();
    assert_eq!(failed.facts().status, 503);
    let answer = world.send(keys.of_a(Method::GET, "/users", "")).await;
    assert_eq!(answer.status, 401);
    assert_eq!(world.durable().queued, 0);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_nobodys_fault_in_shadow_mode_either() {
    let api = Api::new();
    let world = api.start_in(Mode::Shadow, &Journal::in_memory().unwrap());
    let keys = Keys::new();
    keys.install(&world, CredentialMode::Managed);
    api.revoke();
    for asked in [
        keys.of_a(Method::GET, "/users", ""),
        keys.of_a(Method::POST, &write(1), ONE),
    ] {
        let answer = world.send(asked).await;
        assert_eq!(says(&answer), (503, "gateway-token-refused".to_owned()));
    }
    let other = world.get("/users", "second").await;
    assert_eq!(says(&other), (401, "gateway-key-required".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_in_the_name_of_a_token_that_may_not_be_used_yet() {
    let api = Api::new();
    let journal = Journal::in_memory().unwrap();
    let world = api.start(&journal);
    let keys = Keys::new();
    keys.install(&world, CredentialMode::Managed);
    let defer = |user| {
        let asked = keys.of_a(Method::POST, &write(user), ONE);
        world.send(with(asked, "prefer", "respond-async"))
    };
    let pause = Selection {
        credential: None,
        operation: Some("addPermissionsToUser".into()),
    };
    world.gateway.writes().operators_pause(&pause).unwrap();
    let deferred = defer(1).await;
    // As after a start with another token than the last process had.
    let unusable = clients::held(&world, "held", "first", None);
    world.gateway.router().tokens.set(vec![unusable]);
    world
        .gateway
        .writes()
        .operators_resume(&pause)
        .await
        .unwrap();
    for asked in [
        keys.of_a(Method::GET, "/users", ""),
        keys.of_a(Method::POST, &write(2), ONE),
    ] {
        let answer = world.send(asked).await;
        assert_eq!(says(&answer), (503, "gateway-token-refused".to_owned()));
    }
    sleep(Duration::from_secs(10)).await;
    let seen = api.script.seen();
    assert!(
        seen.iter()
            .all(|seen| !seen.headers.contains_key("authorization"))
    );
    assert_eq!(world.durable().paused, 1, "{seen:?}");
    hold(&world, "second");
    let first = clients::credential(&world, "first");
    world.gateway.writes().token_accepted(first).await;
    sleep(Duration::from_secs(10)).await;
    let location = deferred.header("location");
    let shown = world.send(keys.of_a(Method::GET, location, "")).await;
    assert_eq!(shown.json()["data"]["write"]["state"], "succeeded");
}

/// The configuration of a gateway that holds a token for its client.
const MANAGED: &str = "[callers]\ncredentials = 'managed'\nclients_file = 'clients.toml'\n\
    [state]\ndirectory = 'state'\n";

fn clients_file(more: &str) -> String {
    format!(
        "[tokens.held]\nfile = 'token'\n[clients.hr-sync]\ntoken = 'held'\nmay = ['reads', 'iam-writes']\n{more}"
    )
}

#[tokio::test]
async fn a_key_is_made_used_and_revoked_and_its_token_rotated() {
    // At the level that shows most.
    let configuration = format!("{MANAGED}[log]\nlevel = 'trace'\naccess = 'all'\n");
    let made = Command::new(env!("CARGO_BIN_EXE_segment-gateway"))
        .args(["key", "new", "--client", "hr-sync"])
        .output()
        .unwrap();
    let key = String::from_utf8(made.stdout).unwrap();
    let block = String::from_utf8(made.stderr).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str, text: &str| std::fs::write(directory.path().join(name), text);
    place("clients.toml", &clients_file(&block)).unwrap();
    place("token", "the-first-token\n").unwrap();
    let gateway = Program::sandbox_in(directory, &configuration).await;
    let send = |method, target: &str, body: &str| {
        let request = request(method, target, key.trim(), body);
        ask(gateway.proxy, request)
    };
    assert_eq!(send(Method::GET, "/users", "").await.status, 200);
    let invite = r#"{"invites":[{"email":"a@example.com"}]}"#;
    assert_eq!(send(Method::POST, "/invites", invite).await.status, 201);
    let denied = send(Method::POST, "/sources", "{}").await;
    assert_eq!(denied.error_type(), "gateway-not-allowed");
    std::fs::write(gateway.file("token"), "the-second-token\n").unwrap();
    gateway.signal("-HUP");
    gateway.logs(&["held token replaced"]).await;
    assert_eq!(send(Method::GET, "/groups", "").await.status, 200);
    let revoked = Command::new(env!("CARGO_BIN_EXE_segment-gateway"))
        .args(["clients", "revoke", "hr-sync", "--admin"])
        .arg(gateway.admin.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&revoked.stdout).into_owned();
    assert!(said.starts_with("hr-sync: 1 keys"), "{said} {revoked:?}");
    let after = send(Method::GET, "/users", "").await;
    assert_eq!(after.error_type(), "gateway-key-unknown");
    let log = gateway.log();
    for secret in ["the-first-token", "the-second-token", key.trim()] {
        assert!(!log.contains(secret), "{secret}");
    }
    let remembered = std::fs::read_to_string(gateway.file("state/tokens.json")).unwrap();
    assert!(remembered.contains("held") && !remembered.contains("token\n"));
}

#[tokio::test]
async fn a_certificate_stands_for_a_client() {
    let authority = Authority::new();
    let listener = authority.pair(2099);
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str, text: &str| std::fs::write(directory.path().join(name), text);
    place(
        "clients.toml",
        &clients_file("certificates = ['localhost']\n"),
    )
    .unwrap();
    place("token", "a-token").unwrap();
    place("tls.crt", &listener.certificate).unwrap();
    place("tls.key", &listener.key).unwrap();
    place("ca.crt", &authority.certificate).unwrap();
    let tls = "[tls]\ncertificate_file = 'tls.crt'\nkey_file = 'tls.key'\n\
        client_auth = 'optional'\nclient_ca_file = 'ca.crt'\n";
    let gateway = Program::sandbox_in(directory, &format!("{MANAGED}{tls}")).await;
    let unnamed = |target: &str| {
        let mut request = request(Method::GET, target, "", "");
        request.headers_mut().remove("authorization");
        request
    };
    let certified = authority.client(Some(&authority.pair(2099)));
    let known = try_ask_secure(gateway.proxy, &certified, unnamed("/users")).await;
    assert_eq!(known.unwrap().status, 200);
    let denied = try_ask_secure(gateway.proxy, &certified, unnamed("/nowhere")).await;
    assert_eq!(denied.unwrap().status, 403);
    let without = authority.client(None);
    let unknown = try_ask_secure(gateway.proxy, &without, unnamed("/users")).await;
    assert_eq!(unknown.unwrap().error_type(), "gateway-no-credential");
}
