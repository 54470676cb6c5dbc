//! The audit log: each write has one record of its end, whatever became of it and of its caller.

use super::support::clients;
use super::support::exposition::operator;
use super::support::program::Program;
use super::support::scripted::{Script, Seen, Step, answer, field};
use super::support::wire::{ask, eventually};
use super::support::{Setup, World, left_by_crash, request, slow, with};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use segment_gateway::app::Keeping;
use segment_gateway::audit::{Audit, AuditFileSpec, AuditKey, SubjectForm, verify};
use segment_gateway::clients::{ClientKey, Clients, CredentialMode};
use segment_gateway::clock::Clock;
use segment_gateway::journal::Journal;
use segment_gateway::sandbox::SandboxSpec;
use segment_gateway::write::durable::Recovered;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_millis(50);
/// Longer than any of these writes takes.
const LATER: Duration = Duration::from_secs(600);
const ONE: &str =
    r#"{"permissions":[{"roleId":"source-admin","resources":[{"id":"s","type":"SOURCE"}]}]}"#;

/// The audit log of a test.
struct Log {
    folder: tempfile::TempDir,
    key: AuditKey,
    audit: Audit,
}

impl Log {
    fn new(is_before: bool) -> Self {
        // Larger than all lines of a test.
        Self::rotating(is_before, 1024 * 1024)
    }

    /// A log that begins another file as soon as one has so many bytes.
    fn rotating(is_before: bool, largest: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = AuditKey::new(&[7; 32]);
        let spec = AuditFileSpec {
            path: folder.path().join("audit.log"),
            key: key.clone(),
            form: SubjectForm::Plain,
            largest,
            kept: 1_000,
        };
        let audit = Audit::open(spec, is_before, Clock::system()).unwrap();
        Self { folder, key, audit }
    }

    /// All lines. Their chain is whole, and none has a token, a key or a body.
    async fn lines(&self) -> Vec<Value> {
        // On another thread, because a paused clock would go on while this one waits.
        let (audit, runtime) = (self.audit.clone(), tokio::runtime::Handle::current());
        let flushed = spawn_blocking(move || runtime.block_on(audit.flush()));
        flushed.await.unwrap();
        let files = verify::files(&self.folder.path().join("audit.log")).unwrap();
        let mut lines = Vec::new();
        let read = verify::for_each_line(&files, |_, _, line| {
            lines.push(serde_json::from_slice(line).unwrap());
            Ok(())
        });
        read.unwrap();
        let verified = verify::verify(&files, &self.key, None).unwrap();
        assert_eq!(verified.records as usize, lines.len());
        for line in &lines {
            let text = Value::to_string(line);
            for secret in ["sgw_", "Bearer", "source-admin"] {
                assert!(!text.contains(secret), "{text}");
            }
        }
        lines
    }

    /// Makes the log fail, if it rotates with each line: the name that comes next is taken.
    async fn fail(&self) -> PathBuf {
        let file = std::fs::read_to_string(self.folder.path().join("audit.log")).unwrap();
        let line: Value = serde_json::from_str(file.lines().next().unwrap()).unwrap();
        let taken = self
            .folder
            .path()
            .join(format!("audit-{}.log", line["seq"]));
        std::fs::create_dir(&taken).unwrap();
        taken
    }

    async fn of(&self, kind: &str) -> Vec<Value> {
        let mut lines = self.lines().await;
        lines.retain(|line| line["kind"] == kind);
        lines
    }

    /// The records of writes.
    async fn writes(&self) -> Vec<Value> {
        self.of("write").await
    }
}

fn setup(log: &Log) -> Setup {
    Setup {
        audit: log.audit.clone(),
        ..Setup::new(SandboxSpec::default())
    }
}

fn keeping(log: &Log, journal: &Journal) -> Setup {
    Setup {
        keeping: Keeping {
            journal: journal.clone(),
            outlasts: true,
            newest: None,
        },
        ..setup(log)
    }
}

/// A write to the permissions of a user, under this id.
fn write(method: Method, user: usize, id: &str) -> Request<Full<Bytes>> {
    let target = format!("/users/user-{user:05}/permissions");
    with(request(method, &target, "a", ONE), "x-request-id", id)
}

/// What of a record the tests below expect: outcome, status or error, attempts.
fn told(line: &Value) -> String {
    let status = match (&line["status"], &line["error"]) {
        (Value::Null, Value::Null) => "-".to_owned(),
        (Value::Null, error) => error.as_str().unwrap_or_default().to_owned(),
        (status, _) => status.to_string(),
    };
    let outcome = line["outcome"].as_str().unwrap_or_default();
    format!("{outcome} {status} {}", line["attempts"])
}

/// An API that does with each write what its user says: the number of a kind, behind hundreds.
fn faulty() -> Arc<Script> {
    let attempts: Mutex<BTreeMap<String, usize>> = Mutex::default();
    Script::new(move |seen: &Seen, _| {
        let (_, user) = seen.target.split_once("user-").unwrap();
        let user: usize = user[..5].parse().unwrap();
        let (kind, _) = KINDS[user % 100];
        let mut attempts = attempts.lock().unwrap();
        let before = attempts.entry(seen.target.clone()).or_default();
        *before += 1;
        let is_first = *before == 1;
        let good = answer(200, r#"{"data":{}}"#);
        match kind {
            "error" => Step::Later(SOON, answer(500, "{}")),
            "invalid" => Step::Later(SOON, answer(422, "{}")),
            "throttled" if is_first => Step::Answer(field(answer(429, "{}"), "retry-after", "1")),
            "reset" => Step::Close,
            "retried" if is_first => Step::Close,
            "silent" | "gone" => Step::Silent,
            "leaves" => Step::Later(Duration::from_secs(9), good),
            _ => Step::Later(SOON, good),
        }
    })
}

/// The kinds of writes, and the record that each ends in. `-` stands for neither status nor error.
const KINDS: [(&str, &str); 10] = [
    ("good", "succeeded 200 1"),
    ("error", "unknown 500 1"),
    ("invalid", "failed 422 1"),
    ("throttled", "succeeded 200 2"),
    ("reset", "unknown gateway-outcome-unknown 1"),
    ("retried", "succeeded 200 2"),
    ("silent", "unknown gateway-outcome-unknown 1"),
    // Its caller hangs up while the attempt is under way, and the API answers later, or never.
    ("leaves", "succeeded 200 1"),
    ("gone", "unknown - 1"),
    // Its caller hangs up while it waits for its lane.
    ("waits", "not-sent - 0"),
];

#[tokio::test(start_paused = true)]
async fn each_write_has_one_record_whatever_becomes_of_it_and_of_its_caller() {
    const OF_EACH: usize = 4;
    let log = Log::new(false);
    let script = faulty();
    let mut setup = setup(&log);
    // Those to which the API does not answer are in nobody's way.
    setup.config.budget.writes_at_once = 60;
    let world = script.world_of(setup);
    let mut expected = BTreeMap::new();
    let mut callers = Vec::new();
    for round in 0..OF_EACH {
        for (number, (kind, record)) in KINDS.into_iter().enumerate() {
            let id = format!("{kind}.{round}");
            // Behind the one to which the API does not answer.
            let user = match kind {
                "waits" => round * 100 + 6,
                _ => round * 100 + number,
            };
            // Only a PUT is retried after it may have taken effect. A 429 closes the budget, and
            // those whose callers hang up have another one.
            let method = match kind {
                "retried" | "throttled" => Method::PUT,
                _ => Method::POST,
            };
            let patience = match kind {
                "leaves" | "gone" | "waits" => Duration::from_secs(5),
                _ => LATER,
            };
            expected.insert(id.clone(), record.to_owned());
            let (world, write) = (world.clone(), write(method, user, &id));
            callers.push(tokio::spawn(async move {
                let _ = timeout(patience, world.send(write)).await;
            }));
            sleep(SOON).await;
        }
    }
    for caller in callers {
        caller.await.unwrap();
    }
    sleep(LATER).await;
    let writes = log.writes().await;
    let found: BTreeMap<_, _> = writes
        .iter()
        .map(|line| (line["request_id"].as_str().unwrap().to_owned(), told(line)))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(writes.len(), expected.len(), "one of each: {writes:#?}");
    // Each attempt that the API saw is counted.
    let attempts: u64 = writes
        .iter()
        .filter_map(|line| line["attempts"].as_u64())
        .sum();
    assert_eq!(attempts as usize, script.count());
    assert_eq!(world.gateway.tasks().panicked(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_its_caller_heard_as_unknown_is_recorded_with_what_was_learned_later() {
    let log = Log::new(false);
    let script = faulty();
    let mut setup = setup(&log);
    setup.config.wait.caller_timeout = Some(Duration::from_secs(8));
    let world = script.world_of(setup);
    let heard = world.send(write(Method::POST, 7, "late")).await;
    assert_eq!(heard.error_type(), "gateway-outcome-unknown", "{heard:?}");
    assert!(log.writes().await.is_empty(), "more may be learned");
    sleep(LATER).await;
    let writes = log.writes().await;
    let told: Vec<_> = writes.iter().map(told).collect();
    assert_eq!(told, ["succeeded 200 1"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_rejected_before_it_has_a_place_is_no_write() {
    let log = Log::new(false);
    let script = faulty();
    let mut setup = setup(&log);
    setup.config.queue.per_budget = 1;
    let world = script.world_of(setup);
    let malformed = with(write(Method::POST, 0, "malformed"), "idempotency-key", "\"");
    assert_eq!(world.send(malformed).await.status, 400);
    world.gateway.drain(Duration::ZERO);
    let late = world.send(write(Method::POST, 1, "late")).await;
    assert_eq!(late.error_type(), "gateway-draining", "{late:?}");
    assert_eq!(script.count(), 0);
    assert_eq!(log.lines().await, Vec::<Value>::new());
}

#[tokio::test(start_paused = true)]
async fn a_durable_write_has_one_record_over_restarts() {
    let log = Log::new(false);
    let journal = Journal::in_memory().unwrap();
    let silent = Script::new(|_, _| Step::Silent);
    let first = silent.world_of(keeping(&log, &journal));
    let deferred = |method, user, id: &str| {
        let write = with(write(method, user, id), "prefer", "respond-async");
        with(write, "idempotency-key", id)
    };
    for (method, user, id) in [
        (Method::PUT, 1, "retried"),
        (Method::POST, 2, "unknown"),
        // Behind the first in its lane.
        (Method::POST, 1, "queued"),
        (Method::POST, 1, "cancelled"),
    ] {
        let accepted = first.send(deferred(method, user, id)).await;
        assert_eq!(accepted.status, 202, "{accepted:?}");
        if id == "cancelled" {
            let location = accepted.header("location").to_owned();
            let cancelled = first.write(Method::DELETE, &location, "a", "").await;
            assert_eq!(cancelled.status, 200, "{cancelled:?}");
        }
    }
    sleep(Duration::from_secs(1)).await;
    let writes = log.writes().await;
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert_eq!(told(&writes[0]), "cancelled - 0");
    let left = left_by_crash(&journal).await;
    let good = Script::new(|_, _| Step::Later(SOON, answer(200, r#"{"data":{}}"#)));
    // The first one is gone: what it still writes is not what a crash would leave.
    let log = Log::new(false);
    let second = good.world_of(keeping(&log, &left));
    let recovered = second.gateway.writes().recover(Some(&[])).await.unwrap();
    let expected = Recovered {
        queued: 1,
        repeated: 1,
        unknown: 1,
    };
    assert_eq!(recovered, expected);
    // Its client asks again under its key: that is no new write.
    sleep(Duration::from_secs(90)).await;
    let again = second.send(deferred(Method::PUT, 1, "retried")).await;
    assert_eq!(again.header("idempotency-replayed"), "true", "{again:?}");
    let writes = log.writes().await;
    let found: BTreeMap<_, _> = writes
        .iter()
        .map(|line| (line["request_id"].as_str().unwrap(), told(line)))
        .collect();
    let expected = [
        ("queued", "succeeded 200 1"),
        ("retried", "succeeded 200 2"),
        ("unknown", "unknown - 1"),
    ];
    assert_eq!(
        found,
        expected.map(|(id, told)| (id, told.to_owned())).into()
    );
    assert_eq!(writes.len(), 3, "{writes:#?}");
    for line in &writes {
        assert!(
            line["write_id"].is_string() && line["body_sha256"].is_string(),
            "{line}"
        );
        let subjects = line["subjects"].to_string();
        assert!(subjects.contains("user-0000"), "{line}");
    }
    drop(first);
}

/// Clients `a` and `b` with a key each, which share the token `held` and may create invitations.
struct Keys {
    a: ClientKey,
    b: ClientKey,
}

impl Keys {
    /// The key of `b` may expire.
    fn install(world: &World, expires: Option<SystemTime>) -> Self {
        let keys = Self {
            a: ClientKey::generate().unwrap(),
            b: ClientKey::generate().unwrap(),
        };
        let client = |name| clients::client(world, name, "held", &["createInvites"]);
        let (a, b) = (client("a"), client("b"));
        let entries = vec![
            clients::entry(&keys.a, &a, None),
            clients::entry(&keys.b, &b, expires),
        ];
        let registry = Clients::new(CredentialMode::Managed, vec![a, b], entries, Vec::new());
        world.gateway.set_clients(registry);
        let held = clients::held(world, "held", "first", Some("first"));
        world.gateway.router().tokens.set(vec![held]);
        keys
    }
}

fn invite(key: &ClientKey, email: &str) -> Request<Full<Bytes>> {
    let body = format!(r#"{{"invites":[{{"email":"{email}"}}]}}"#);
    request(Method::POST, "/invites", key.reveal(), &body)
}

#[tokio::test]
async fn each_member_of_a_batch_has_a_record_that_names_the_batch_and_its_own_client() {
    for deferred in [false, true] {
        let log = Log::new(true);
        let mut setup = keeping(&log, &Journal::in_memory().unwrap());
        setup.sandbox = Setup::new(slow()).sandbox;
        let world = Arc::new(setup.start());
        let keys = Keys::install(&world, None);
        // Four leave at once alone; the others find them under way.
        let mut asks = Vec::new();
        for n in 0..6 {
            let key = if n % 2 == 0 { &keys.a } else { &keys.b };
            let mut ask = invite(key, &format!("guest-{n}@example.com"));
            if deferred {
                ask = with(ask, "prefer", "respond-async");
            }
            asks.push(world.spawn(ask));
        }
        for ask in asks {
            assert!(ask.await.unwrap().status.is_success());
        }
        eventually("all have ended", async || log.writes().await.len() >= 6).await;
        let writes = log.writes().await;
        assert_eq!(writes.len(), 6, "{writes:#?}");
        let mut batches: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in &writes {
            assert_eq!(told(line), "succeeded 201 1");
            if let Some(batch) = line["batch"].as_str() {
                let client = line["client"].as_str().unwrap().to_owned();
                batches.entry(batch.to_owned()).or_default().push(client);
            }
        }
        let [members] = &batches.values().collect::<Vec<_>>()[..] else {
            panic!("{batches:?}");
        };
        let mut members = (*members).clone();
        members.sort_unstable();
        assert_eq!(members, ["a", "b"]);
        assert_eq!(world.sandbox.arrivals().len(), 5);
        // Both were announced under the same name.
        let (batch, _) = batches.first_key_value().unwrap();
        let intents = log.of("intent").await;
        assert_eq!(intents.len(), 6);
        let of_batch = intents.iter().filter(|line| line["batch"] == **batch);
        assert_eq!(of_batch.count(), 2, "{intents:#?}");
    }
}

#[tokio::test]
async fn a_write_that_cannot_be_recorded_before_is_not_sent() {
    let log = Log::rotating(true, 1);
    let good = Script::new(|_, _| Step::Answer(answer(200, r#"{"data":{}}"#)));
    let world = good.world_of(keeping(&log, &Journal::in_memory().unwrap()));
    let deferred = |id| with(write(Method::POST, 2, id), "prefer", "respond-async");
    let sent = world.send(write(Method::POST, 1, "good")).await;
    assert_eq!(sent.status, 200, "{sent:?}");
    let lines = log.lines().await;
    let kinds: Vec<_> = lines.iter().map(|line| &line["kind"]).collect();
    assert_eq!(kinds, ["intent", "write"]);
    // A durable write alone, with nothing else that waits to be recorded.
    let taken = log.fail().await;
    assert_eq!(world.send(deferred("durable")).await.status, 202);
    eventually("the log fails", async || log.audit.is_failing()).await;
    std::fs::remove_dir(taken).unwrap();
    eventually("it is sent", async || good.count() == 2).await;
    eventually("it has ended", async || log.writes().await.len() == 2).await;
    // A held write is not sent, and neither is the next one.
    let taken = log.fail().await;
    for id in ["refused", "rejected"] {
        let refused = world.send(write(Method::POST, 1, id)).await;
        assert_eq!(refused.error_type(), "gateway-audit-unavailable");
        assert_eq!((refused.status.as_u16(), good.count()), (503, 2));
        assert_eq!(refused.header("retry-after"), "10");
        let error = &refused.json()["errors"][0]["data"];
        assert_eq!(error["sent"], false, "{refused:?}");
        assert_eq!(error["mayRetry"], true, "{refused:?}");
    }
    std::fs::remove_dir(taken).unwrap();
    eventually("the log is written again", async || !log.audit.is_failing()).await;
    let sent = world.send(write(Method::POST, 1, "again")).await;
    assert_eq!(sent.status, 200, "{sent:?}");
    // The one that was rejected had no place, so it was no write.
    let writes = log.writes().await;
    let told: Vec<_> = writes.iter().map(told).collect();
    let expected = [
        "succeeded 200 1",
        "succeeded 200 1",
        "not-sent gateway-audit-unavailable 0",
        "succeeded 200 1",
    ];
    assert_eq!(told, expected);
    // Each that was sent was announced before.
    let lines = log.lines().await;
    for line in writes.iter().filter(|line| line["attempts"] == 1) {
        let is_intent =
            |other: &&Value| other["kind"] == "intent" && other["request_id"] == line["request_id"];
        let intent = lines.iter().find(is_intent).expect("an intent");
        assert!(intent["seq"].as_u64() < line["seq"].as_u64(), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejection_of_a_known_client_is_recorded_and_that_of_an_unknown_key_is_not() {
    let log = Log::new(false);
    let world = Arc::new(setup(&log).start());
    let expires = world.gateway.clock().wall() + Duration::from_secs(10);
    let keys = Keys::install(&world, Some(expires));
    sleep(Duration::from_secs(10)).await;
    let unknown = ClientKey::generate().unwrap();
    let get = |key: &ClientKey| request(Method::GET, "/users", key.reveal(), "");
    for (key, status) in [(&keys.a, 403), (&keys.b, 401), (&unknown, 401)] {
        assert_eq!(world.send(get(key)).await.status, status);
    }
    let (status, _) = operator(&world, Method::POST, "/clients/revoke?client=a", true).await;
    assert_eq!(status, 200);
    assert_eq!(world.send(get(&keys.a)).await.status, 401);
    let (status, _) = operator(&world, Method::POST, "/cache/purge?everything=true", true).await;
    assert_eq!(status, 200);
    // A look, and a request without access.
    assert_eq!(operator(&world, Method::GET, "/status", true).await.0, 200);
    assert_eq!(
        operator(&world, Method::POST, "/log?level=info", false)
            .await
            .0,
        403
    );
    let lines = log.lines().await;
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    let id = format!("\"key\":\"{}\"", keys.b.id());
    let [of_a, of_b] = ["a", "b"].map(|client| format!("\"client\":\"{client}\""));
    let expected = [
        &[
            "rejected",
            "gateway-not-allowed",
            "listUsers",
            "/users",
            &of_a,
        ][..],
        &["rejected", "gateway-key-expired", &of_b, &id],
        &["operator", "\"/clients/revoke?client=a\"", "\"status\":200"],
        &["rejected", "gateway-key-unknown", &of_a],
        &["operator", "\"/cache/purge?", "\"status\":200"],
    ];
    assert_eq!(text.len(), expected.len(), "{text:#?}");
    for (line, parts) in text.iter().zip(expected) {
        for part in parts {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
    for secret in [keys.a.reveal(), keys.b.reveal(), "first"] {
        assert!(text.iter().all(|line| !line.contains(secret)), "{text:?}");
    }
}

#[tokio::test]
async fn a_program_records_acts_reloads_and_tokens_and_its_log_is_verified() {
    const CONFIGURATION: &str = "[state]\ndirectory = 'state'\n[audit]\nfile = 'audit.log'\n\
        [callers]\ncredentials = 'managed'\nclients_file = 'clients.toml'\n";
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_segment-gateway"));
        command.args(arguments).output().unwrap()
    };
    let [(key, block), (other, other_block)] = [(); 2].map(|()| {
        let made = run(&["key", "new", "--client", "hr-sync"]);
        (text(&made.stdout), text(&made.stderr))
    });
    let file = "[tokens.provisioning]\nfile = 'token'\n[clients.hr-sync]\ntoken = 'provisioning'\n\
        may = ['createInvites']\n";
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("clients.toml"),
        format!("{file}{block}"),
    )
    .unwrap();
    std::fs::write(directory.path().join("token"), "the-first-token\n").unwrap();
    let mut gateway = Program::sandbox_in(directory, CONFIGURATION).await;
    let body = r#"{"invites":[{"email":"new@example.com"}]}"#;
    let invite = with(
        request(Method::POST, "/invites?secret=1", key.trim(), body),
        "x-request-id",
        "an-invitation",
    );
    assert_eq!(ask(gateway.proxy, invite).await.status, 201);
    let purge = Request::post("/cache/purge?everything=true")
        .header("host", "localhost")
        .header("x-gateway-admin", "1");
    let purge = purge.body(Full::default()).unwrap();
    assert_eq!(ask(gateway.admin, purge).await.status, 200);
    std::fs::write(gateway.file("token"), "the-second-token\n").unwrap();
    std::fs::write(gateway.file("clients.toml"), format!("{file}{other_block}")).unwrap();
    gateway.signal("-HUP");
    gateway
        .logs(&["held token replaced", "configuration reloaded"])
        .await;
    std::fs::write(gateway.file("clients.toml"), "[clients").unwrap();
    gateway.signal("-HUP");
    gateway.logs(&["configuration reload failed"]).await;
    gateway.signal("-TERM");
    assert!(gateway.ended().await);
    let log = gateway.file("audit.log").display().to_string();
    let verified = run(&["audit", "verify", "--log", &log]);
    assert!(verified.status.success(), "{verified:?}");
    let ordinary = gateway.log();
    let head = ordinary
        .lines()
        .rev()
        .find_map(|line| line.split_once("head="));
    let head = head.unwrap().1.trim();
    let verify_head = |head: &str| run(&["audit", "verify", "--log", &log, "--head", head]);
    assert!(verify_head(head).status.success(), "{head}");
    let written = std::fs::read_to_string(gateway.file("audit.log")).unwrap();
    let list = |more: &[&str]| {
        let listed = run(&[&["audit", "list", "--log", &log], more].concat());
        assert!(listed.status.success(), "{listed:?}");
        text(&listed.stdout)
    };
    assert_eq!(list(&["--json"]), written);
    assert_eq!(list(&["--since", "2999-01-01"]), "");
    assert_eq!(list(&["--client", "nobody"]), "");
    for found in [
        list(&["--subject", "new@example.com"]),
        list(&[
            "--subject",
            "person:new@example.com",
            "--since",
            "2026-01-01",
        ]),
        list(&["--client", "hr-sync", "--subject", "new@example.com"]),
    ] {
        assert_eq!(found.lines().count(), 1, "{found}");
        assert!(found.contains(" outcome=succeeded "), "{found}");
        assert!(found.contains(" status=201 "), "{found}");
    }
    // The newest record is cut off: only a head that was seen shows it.
    let cut = written.trim_end().rsplit_once('\n').unwrap().0;
    std::fs::write(gateway.file("audit.log"), format!("{cut}\n")).unwrap();
    assert!(run(&["audit", "verify", "--log", &log]).status.success());
    let found = verify_head(head);
    assert_eq!(found.status.code(), Some(1));
    assert!(
        text(&found.stderr).contains("of --head is missing"),
        "{found:?}"
    );
    // Without its key, the log is named and no other key of the configuration.
    std::fs::remove_file(gateway.file("audit.key")).unwrap();
    let found = text(&run(&["audit", "verify", "--log", &log]).stderr);
    assert!(found.contains("audit.key: No such file"), "{found}");
    assert!(!found.contains("credentials"), "{found}");
    let lines: Vec<Value> = written
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let one = |kind: &str, name: &str, value: Value| {
        let is_one = |line: &&Value| line["kind"] == kind && line[name] == value;
        let found: Vec<_> = lines.iter().filter(is_one).collect();
        assert_eq!(found.len(), 1, "{kind} {name} {value}: {written}");
        found[0].clone()
    };
    let write = one("write", "request_id", "an-invitation".into());
    assert_eq!(told(&write), "succeeded 201 1");
    assert_eq!(write["subjects"][0], "person:new@example.com");
    assert_eq!(
        (&write["client"], &write["path"]),
        (&"hr-sync".into(), &"/invites".into())
    );
    one("operator", "target", "/cache/purge?everything=true".into());
    one("token", "state", "replaced".into());
    let reload = one("reload", "problems", 0.into());
    for (name, key) in [("keys_removed", &key), ("keys_added", &other)] {
        let named = reload[name][0].as_str().unwrap();
        assert_eq!(named, format!("hr-sync/{}", &key[4..10]), "{reload}");
    }
    one("reload", "problems", 1.into());
    assert_eq!(lines[0]["kind"], "start");
    assert_eq!(lines.last().unwrap()["kind"], "stop");
    for secret in [
        key.trim(),
        other.trim(),
        "the-first-token",
        "the-second-token",
        "secret=1",
        "{\"invites",
    ] {
        assert!(!written.contains(secret), "{secret}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
