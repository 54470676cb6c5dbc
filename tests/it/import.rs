//! `segment-gateway import`, run against a real gateway and its sandbox: every row is sent once,
//! however often the command runs, and each outcome is told as what it is.

use super::support::Answer;
use super::support::program::Program;
use super::support::wire::{ask, eventually, free, try_ask};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_segment-gateway");
const STATE: &str = "[state]\ndirectory = \"state\"\n";
const NO_STATE: &str = "[state]\ndirectory = \"\"\n";
const TOKEN: &str = "token-of-an-import";

/// A gateway with a sandbox of its own, and a directory for files.
struct Place {
    gateway: Program,
    sandbox: SocketAddr,
}

/// What a command did.
#[derive(Debug)]
struct Done {
    status: Option<i32>,
    said: String,
    complaint: String,
}

impl Done {
    fn new(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let done = Self {
            status: output.status.code(),
            said: text(&output.stdout),
            complaint: text(&output.stderr),
        };
        assert!(
            !done.said.contains(TOKEN) && !done.complaint.contains(TOKEN),
            "{done:?}"
        );
        done
    }
}

impl Place {
    async fn new(configuration: &str, arguments: &[&str]) -> Self {
        let sandbox = free();
        let address = sandbox.to_string();
        let own = [
            "--sandbox",
            "--sandbox-listen",
            &address,
            "--time-scale",
            "60",
        ];
        Self::with(configuration, &[&own, arguments].concat(), sandbox).await
    }

    async fn with(configuration: &str, arguments: &[&str], sandbox: SocketAddr) -> Self {
        let gateway = Program::start(configuration, arguments, &[]).await;
        fs::write(gateway.file("token"), format!("{TOKEN}\n")).unwrap();
        Self { gateway, sandbox }
    }

    /// The command, for a file with this content.
    fn command(&self, kind: &str, csv: &str, arguments: &[&str]) -> Command {
        let file = self.gateway.file("people.csv");
        fs::write(&file, csv).unwrap();
        let mut command = Command::new(BINARY);
        command
            .args(["import", kind])
            .arg(file)
            .args(["--gateway", &format!("http://{}", self.gateway.proxy)])
            .arg("--token-file")
            .arg(self.gateway.file("token"))
            .args(arguments);
        command
    }

    async fn import(&self, kind: &str, csv: &str, arguments: &[&str]) -> Done {
        finished(self.command(kind, csv, arguments)).await
    }

    /// Runs the import with a report, whose outcomes are returned by address.
    async fn reported(&self, csv: &str) -> (Done, BTreeMap<String, Vec<String>>) {
        let path = self.report();
        let done = self
            .import("invites", csv, &["--report", path.to_str().unwrap()])
            .await;
        (done, self.outcomes())
    }

    fn report(&self) -> PathBuf {
        self.gateway.file("report.csv")
    }

    fn outcomes(&self) -> BTreeMap<String, Vec<String>> {
        outcomes(&self.report())
    }

    /// The writes that the sandbox has seen, of this operation.
    async fn arrivals(&self, operation: &str) -> Vec<Value> {
        let get = Request::get("/_sandbox/requests").header("host", "sandbox");
        let seen = ask(self.sandbox, get.body(Full::default()).unwrap())
            .await
            .json();
        let seen = seen["requests"].as_array().unwrap().iter();
        seen.filter(|one| one["operation"] == operation)
            .cloned()
            .collect()
    }

    /// The number of writes that the gateway has accepted.
    async fn accepted(&self) -> usize {
        let get = Request::get("/_gateway/writes?limit=500")
            .header("host", "gateway")
            .header("authorization", format!("Bearer {TOKEN}"));
        let list = ask(self.gateway.proxy, get.body(Full::default()).unwrap()).await;
        list.json()["data"]["writes"].as_array().unwrap().len()
    }

    async fn control(&self, path: &str, body: &Value) {
        let put = Request::builder()
            .method(Method::PUT)
            .uri(path)
            .header("host", "sandbox");
        let answer = ask(
            self.sandbox,
            put.body(Full::from(body.to_string())).unwrap(),
        )
        .await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// The columns of a report behind the address, by address.
fn outcomes(report: &Path) -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(report).unwrap();
    assert!(!text.contains(TOKEN), "{text}");
    let mut rows = csv::Reader::from_reader(text.as_bytes());
    rows.records()
        .map(|row| {
            let row: Vec<String> = row.unwrap().iter().map(str::to_owned).collect();
            (row[1].clone(), row[2..].to_vec())
        })
        .collect()
}

async fn finished(mut command: Command) -> Done {
    let output = tokio::task::spawn_blocking(move || command.output());
    Done::new(&output.await.unwrap().unwrap())
}

/// A file with so many people.
fn people(n: usize) -> String {
    let rows: String = (0..n)
        .map(|n| format!("p{n}@example.com,source-admin,SOURCE:s{n}\r\n"))
        .collect();
    format!("\u{feff}email,role,resources\r\n{rows}")
}

#[tokio::test(flavor = "multi_thread")]
async fn everyone_is_invited_once_however_often_it_runs() {
    let place = Place::new(STATE, &[]).await;
    let csv = people(600);
    let (done, outcomes) = place.reported(&csv).await;
    assert_eq!(done.status, Some(0), "{done:?}");
    assert!(done.said.starts_with("600 invites in "), "{done:?}");
    assert!(done.said.ends_with("s: 600 succeeded\n"), "{done:?}");
    assert_eq!(outcomes.len(), 600);
    for columns in outcomes.values() {
        assert_eq!(columns[..3], ["", "succeeded", "201"], "{columns:?}");
        assert_eq!(columns[5].len(), 36, "the id of the write: {columns:?}");
    }
    let requests = place.arrivals("createInvites").await;
    assert!(requests.len() < 600, "{} requests", requests.len());
    assert!(
        requests[0]["body"]
            .as_str()
            .unwrap()
            .contains(r#""roleId":"source-admin""#)
    );
    // Again, and with one more.
    let (done, outcomes) = place.reported(&csv).await;
    assert_eq!(done.status, Some(0), "{done:?}");
    assert!(done.said.ends_with("s: 600 succeeded\n"), "{done:?}");
    let is_replayed = |columns: &Vec<String>| columns[2] == "201" && columns[5].is_empty();
    assert!(outcomes.values().all(is_replayed), "{outcomes:?}");
    assert_eq!(place.arrivals("createInvites").await.len(), requests.len());
    let (done, _) = place.reported(&people(601)).await;
    assert!(done.said.ends_with("s: 601 succeeded\n"), "{done:?}");
    assert_eq!(
        place.arrivals("createInvites").await.len(),
        requests.len() + 1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn members_join_the_group_of_their_row_or_of_all() {
    let place = Place::new(STATE, &[]).await;
    let csv = "email;group\nuser-00001@example.com;group-00001\nuser-00002@example.com;group-00002\n\
        user-00001@example.com;group-00002\n";
    let done = place.import("members", csv, &["--delimiter", ";"]).await;
    assert_eq!(done.status, Some(0), "{done:?}");
    assert!(done.said.contains("3 memberships in"), "{done:?}");
    let csv = "email\nuser-00003@example.com\n";
    let done = place
        .import("members", csv, &["--group", "group-00003"])
        .await;
    assert_eq!(done.status, Some(0), "{done:?}");
    let missing = place
        .import("members", csv, &["--group", "group-99999"])
        .await;
    assert_eq!(missing.status, Some(1), "{missing:?}");
    assert!(
        missing
            .said
            .contains("line 2: user-00003@example.com in group-99999 failed: 404")
    );
    let targets = place.arrivals("addUsersToUserGroup").await;
    let mut targets: Vec<_> = targets
        .iter()
        .map(|one| one["target"].as_str().unwrap())
        .collect();
    targets.sort_unstable();
    targets.dedup();
    let path = |n: usize| format!("/groups/group-{n:05}/users");
    assert_eq!(targets, [1, 2, 3, 99_999].map(path));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_wait_share_their_requests() {
    let place = Place::new(STATE, &[]).await;
    place
        .control("/_sandbox/faults", &json!({ "throttle": 1.0 }))
        .await;
    let done = place.import("invites", &people(600), &["--no-wait"]).await;
    assert_eq!(done.status, Some(0), "{done:?}");
    place
        .control("/_sandbox/faults", &json!({ "throttle": 0.0 }))
        .await;
    let done = place.import("invites", &people(600), &[]).await;
    assert_eq!(done.status, Some(0), "{done:?}");
    let requests = place.arrivals("createInvites").await;
    let accepted = requests.iter().filter(|one| one["status"] == 201).count();
    // 50 fit into one. Those that were before their budget when the throttling ended go with fewer.
    assert!(accepted <= 600 / 10, "{accepted} requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_was_killed_goes_on_when_it_runs_again() {
    let place = Place::new(STATE, &[]).await;
    // No row ends meanwhile, so no import does.
    place
        .control("/_sandbox/faults", &json!({ "throttle": 1.0 }))
        .await;
    for (signal, rows) in [("-KILL", 300), ("-INT", 450)] {
        let csv = people(rows);
        let report = place.report();
        let mut command = place.command("invites", &csv, &["--report", report.to_str().unwrap()]);
        let before = place.accepted().await;
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // More than what the import before may have left in flight.
        eventually("this import hands rows over", async || {
            place.accepted().await > before + 16
        })
        .await;
        let id = child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
        let killed = signal == "-KILL";
        if killed {
            child.wait().unwrap();
            assert!(!report.exists());
            continue;
        }
        let output = tokio::task::spawn_blocking(move || child.wait_with_output());
        let done = Done::new(&output.await.unwrap().unwrap());
        assert_eq!(done.status, Some(1), "{done:?}");
        assert!(
            done.complaint
                .contains("interrupted. Rows that were handed over"),
            "{done:?}"
        );
        assert!(done.complaint.contains("Run the command again"), "{done:?}");
        let outcomes = place.outcomes();
        assert_eq!(outcomes.len(), 450);
        let is_left = |columns: &Vec<String>| ["waiting", "unsent"].contains(&&*columns[1]);
        assert!(outcomes.values().all(is_left), "{outcomes:?}");
    }
    place
        .control("/_sandbox/faults", &json!({ "throttle": 0.0 }))
        .await;
    let done = place.import("invites", &people(450), &[]).await;
    // The sandbox rejects whoever is invited already, so each was sent once.
    assert_eq!(done.status, Some(0), "{done:?}");
    assert!(done.said.ends_with("s: 450 succeeded\n"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_waited_for() {
    let place = Place::new(
        "[state]\ndirectory = \"state\"\n[journal]\nwrites = 10\n",
        &[],
    )
    .await;
    let done = place.import("invites", &people(40), &[]).await;
    assert_eq!(done.status, Some(0), "{done:?}");
    assert!(done.said.ends_with("s: 40 succeeded\n"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_file_with_a_mistake_is_sent() {
    let place = Place::new(STATE, &[]).await;
    for (csv, complaints) in [
        (
            "mail\na@example.com\n",
            &[
                "people.csv: line 1: unknown column \"mail\"; expected email",
                "no column email",
            ][..],
        ),
        (
            "email\na@example.com\nA@example.com\n",
            &["people.csv: line 3: \"A@example.com\" is on line 2 too"],
        ),
        (
            "email\na@example.com\nb\"@example.com\n",
            &["people.csv: line 3: \"b\\\"@example.com\" is not an email"],
        ),
        (
            "email,role\na@example.com,Source Admin\n",
            &["people.csv: line 2: \"Source Admin\" is not the id of a role"],
        ),
        ("email\n", &["people.csv: the file has no rows"]),
        ("", &["people.csv: the file is empty"]),
    ] {
        for arguments in [&[][..], &["--dry-run"]] {
            let done = place.import("invites", csv, arguments).await;
            assert_eq!((done.status, done.said.as_str()), (Some(2), ""), "{done:?}");
            let lines: Vec<&str> = done.complaint.lines().collect();
            assert_eq!(lines.len(), complaints.len(), "{done:?}");
            for (line, part) in lines.iter().zip(complaints) {
                assert!(line.contains(part), "{line}");
            }
        }
    }
    // What else is wrong with the command line.
    let right = "email\na@example.com\n";
    let own = place.gateway.file("people.csv");
    for (arguments, part) in [
        (&["--report", own.to_str().unwrap()][..], "would overwrite"),
        (
            &["--report", "/nowhere/report.csv"],
            "cannot write the report",
        ),
        (&["--delimiter", "ab"], "expected one character"),
        (&["--group", "g"], "unexpected argument"),
    ] {
        let done = place.import("invites", right, arguments).await;
        assert_eq!(done.status, Some(2), "{done:?}");
        assert!(done.complaint.contains(part), "{done:?}");
    }
    let missing = ["import", "invites", "/nowhere.csv", "--dry-run"];
    let done = Done::new(&Command::new(BINARY).args(missing).output().unwrap());
    assert_eq!(done.status, Some(2), "{done:?}");
    assert!(
        done.complaint.contains("cannot read /nowhere.csv"),
        "{done:?}"
    );
    let sent = place
        .gateway
        .value("segment_gateway_requests_total", None)
        .await;
    assert_eq!(sent, 0.0);
}

#[test]
fn a_dry_run_checks_a_hundred_thousand_rows_without_a_gateway_or_a_token() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("people.csv");
    fs::write(&file, people(100_000)).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["import", "invites", "--dry-run"]).arg(&file);
    let done = Done::new(&command.output().unwrap());
    assert_eq!(
        (done.status, done.complaint.as_str()),
        (Some(0), ""),
        "{done:?}"
    );
    for part in [
        "is right: 100000 invites",
        "POST /invites {\"invites\":[",
        "Idempotency-Key: import-",
    ] {
        assert!(done.said.contains(part), "{done:?}");
    }
    fs::write(&file, people(100_001)).unwrap();
    let done = Done::new(&command.output().unwrap());
    assert_eq!(done.status, Some(2), "{done:?}");
    assert!(
        done.complaint
            .contains("line 100002: more than 100000 rows"),
        "{done:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_and_an_unknown_outcome_are_told_apart_and_stay() {
    let place = Place::new(STATE, &[]).await;
    let csv = "email\nnew@example.com\nuser-00001@example.com\n";
    for _ in 0..2 {
        let (done, outcomes) = place.reported(csv).await;
        assert_eq!(done.status, Some(1), "{done:?}");
        assert!(done.said.contains(": 1 succeeded, 1 failed\n"), "{done:?}");
        assert!(
            done.said
                .contains("line 3: user-00001@example.com failed: 4"),
            "{done:?}"
        );
        assert!(done.complaint.contains("--run NAME"), "{done:?}");
        let failed = &outcomes["user-00001@example.com"];
        assert_eq!(failed[1], "failed", "{failed:?}");
        assert!(
            failed[4].contains("already invited or a user"),
            "{failed:?}"
        );
        assert_eq!(outcomes["new@example.com"][1], "succeeded");
    }
    let before = place.arrivals("createInvites").await.len();
    // Under another name the row is sent again, and fails again.
    let failed = "email\nuser-00001@example.com\n";
    let done = place.import("invites", failed, &["--run", "second"]).await;
    assert_eq!(done.status, Some(1), "{done:?}");
    assert_eq!(place.arrivals("createInvites").await.len(), before + 1);
    // An invite that gets a 5xx may have been carried out.
    place
        .control("/_sandbox/faults", &json!({ "server_error": 1.0 }))
        .await;
    for faults in [1.0, 0.0] {
        place
            .control("/_sandbox/faults", &json!({ "server_error": faults }))
            .await;
        let (done, outcomes) = place.reported("email\nlost@example.com\n").await;
        assert_eq!(done.status, Some(1), "{done:?}");
        assert!(done.said.contains("s: 1 unknown\n"), "{done:?}");
        assert!(
            done.complaint.contains("look before you send it again"),
            "{done:?}"
        );
        assert!(!done.complaint.contains("--run"), "{done:?}");
        assert_eq!(outcomes["lost@example.com"][1], "unknown", "{outcomes:?}");
    }
    assert_eq!(place.arrivals("createInvites").await.len(), before + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handed_over_without_waiting_is_carried_out() {
    let place = Place::new(STATE, &["--latency", "5s"]).await;
    let csv = people(20);
    let done = place.import("invites", &csv, &["--no-wait"]).await;
    assert_eq!(done.status, Some(0), "{done:?}");
    assert!(done.said.contains(" waiting\n"), "{done:?}");
    let done = place.import("invites", &csv, &[]).await;
    assert_eq!(done.status, Some(0), "{done:?}");
    assert!(done.said.ends_with("s: 20 succeeded\n"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_defers_nothing_gets_one_row() {
    // The sandbox within a gateway always gives it a state.
    let sandbox = free();
    let address = sandbox.to_string();
    let child = Command::new(BINARY)
        .args(["sandbox", "--listen", &address])
        .stderr(Stdio::null())
        .spawn();
    let _sandbox = Killed(child.unwrap());
    let upstream = format!("http://{address}");
    let without_state = Place::with(NO_STATE, &["--upstream", &upstream], sandbox).await;
    let in_shadow = Place::new(STATE, &["--shadow"]).await;
    for (place, part) in [
        (without_state, "Set state.directory"),
        (in_shadow, "shadow mode"),
    ] {
        let (done, outcomes) = place.reported(&people(30)).await;
        assert_eq!(done.status, Some(1), "{done:?}");
        assert!(done.complaint.contains(part), "{done:?}");
        assert!(
            done.complaint
                .contains("the row of line 2 was sent at once"),
            "{done:?}"
        );
        assert!(done.said.contains(": 1 succeeded, 29 unsent\n"), "{done:?}");
        assert_eq!(outcomes["p0@example.com"][1], "succeeded");
        assert_eq!(outcomes["p1@example.com"][1], "unsent");
        assert_eq!(place.arrivals("createInvites").await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gateway_or_with_a_token_that_is_none_nothing_is_sent() {
    let place = Place::new(STATE, &[]).await;
    let nobody = free();
    let admin = place.gateway.admin;
    for (address, part) in [
        (place.sandbox, "there is no segment-gateway for callers"),
        (admin, "there is no segment-gateway for callers"),
        (nobody, "cannot reach the gateway"),
    ] {
        // The last value of a flag that is given twice is an error, so it is given once.
        let csv = place.gateway.file("people.csv");
        fs::write(&csv, people(3)).unwrap();
        let mut command = Command::new(BINARY);
        command
            .args(["import", "invites"])
            .arg(csv)
            .args(["--gateway", &format!("http://{address}")])
            .arg("--token-file")
            .arg(place.gateway.file("token"));
        let done = finished(command).await;
        assert_eq!(done.status, Some(1), "{done:?}");
        assert!(done.complaint.contains(part), "{done:?}");
        assert!(done.complaint.contains("nothing was sent"), "{done:?}");
    }
    place
        .control("/_sandbox/revoked", &json!({ "tokens": [TOKEN] }))
        .await;
    let (done, outcomes) = place.reported(&people(30)).await;
    assert_eq!(done.status, Some(1), "{done:?}");
    assert!(
        done.complaint
            .contains("the token is not accepted: 401 gateway-token-refused"),
        "{done:?}"
    );
    assert!(done.said.contains(": 30 unsent\n"), "{done:?}");
    for part in ["nothing is sent twice", "--run", ".."] {
        assert!(!done.complaint.contains(part), "{part}: {done:?}");
    }
    assert_eq!(outcomes["p0@example.com"][3], "gateway-token-refused");
    assert_eq!(place.arrivals("createInvites").await.len(), 0);
}

/// A gateway with a sandbox beside it, each of which can be killed and started again.
struct Pair {
    directory: tempfile::TempDir,
    proxy: SocketAddr,
    admin: SocketAddr,
    sandbox: SocketAddr,
}

impl Pair {
    fn new(rows: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // No question whether the API accepts the token: it may not be there.
        let configuration = format!("{STATE}[journal]\nworkspaces = false\n");
        fs::write(directory.path().join("gateway.toml"), configuration).unwrap();
        fs::write(directory.path().join("token"), TOKEN).unwrap();
        // The sandbox logs the first 4 KiB of a request: room for 50 addresses alone.
        let csv: String = (0..rows).map(|n| format!("p{n}@example.com\n")).collect();
        fs::write(directory.path().join("people.csv"), format!("email\n{csv}")).unwrap();
        Self {
            directory,
            proxy: free(),
            admin: free(),
            sandbox: free(),
        }
    }

    fn start(&self, arguments: &[&str]) -> Killed {
        let child = Command::new(BINARY)
            .args(arguments)
            .current_dir(self.directory.path())
            .stderr(Stdio::null())
            .spawn();
        Killed(child.unwrap())
    }

    async fn start_gateway(&self) -> Killed {
        let upstream = format!("http://{}", self.sandbox);
        let (listen, operators) = (self.proxy.to_string(), self.admin.to_string());
        let gateway = self.start(
            &[
                &["serve", "--config", "gateway.toml", "--upstream", &upstream][..],
                &["--listen", &listen, "--admin-listen", &operators],
            ]
            .concat(),
        );
        eventually("it listens", async || {
            self.page(self.admin, "/livez").await.is_some()
        })
        .await;
        gateway
    }

    fn start_sandbox(&self, latency: &str) -> Killed {
        let listen = self.sandbox.to_string();
        self.start(&["sandbox", "--listen", &listen, "--latency", latency])
    }

    fn import(&self) -> tokio::task::JoinHandle<Done> {
        let at = |name: &str| self.directory.path().join(name);
        let mut command = Command::new(BINARY);
        command
            .args(["import", "invites"])
            .arg(at("people.csv"))
            .args(["--gateway", &format!("http://{}", self.proxy)])
            .arg("--token-file")
            .arg(at("token"))
            .arg("--report")
            .arg(at("report.csv"));
        tokio::spawn(finished(command))
    }

    async fn page(&self, address: SocketAddr, path: &str) -> Option<Answer> {
        let get = Request::get(path).header("host", address.to_string());
        try_ask(address, get.body(Full::default()).unwrap()).await
    }

    /// The number of writes that the gateway has and that have not ended.
    async fn queued(&self) -> u64 {
        let page = self.page(self.admin, "/writes?limit=1").await;
        page.map_or(0, |page| {
            let page = page.json();
            let of = |state| page[state].as_u64().unwrap();
            of("queued") + of("dispatched")
        })
    }

    /// How often the sandbox has got each address.
    async fn invited(&self) -> BTreeMap<String, usize> {
        let seen = self.page(self.sandbox, "/_sandbox/requests").await;
        let seen = seen.map_or(Value::Null, |seen| seen.json());
        let mut invited = BTreeMap::new();
        for request in seen["requests"].as_array().into_iter().flatten() {
            if request["operation"] == "createInvites" {
                let body = request["body"].as_str().unwrap();
                let body: Value = serde_json::from_str(body).unwrap();
                for invite in body["invites"].as_array().unwrap() {
                    let email = invite["email"].as_str().unwrap().to_owned();
                    *invited.entry(email).or_insert(0) += 1;
                }
            }
        }
        invited
    }
}

/// A row whose hand-over had no reply is handed over again under the same key. One that the journal
/// had as dispatched at the kill is unknown, although the API was not there yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_killed_while_rows_are_handed_over_gets_each_once() {
    let pair = Pair::new(800);
    let first = pair.start_gateway().await;
    let import = pair.import();
    eventually("rows are handed over", async || pair.queued().await > 0).await;
    let accepted = pair.queued().await;
    drop(first);
    assert!(accepted < 800, "killed too late");
    let _second = pair.start_gateway().await;
    let _sandbox = pair.start_sandbox("1ms");
    // Two windows of the API's limit, if the batches of the first one are small.
    let done = tokio::time::timeout(Duration::from_secs(150), import).await;
    let done = done.expect("it ends").unwrap();
    let outcomes = outcomes(&pair.directory.path().join("report.csv"));
    assert_eq!(outcomes.len(), 800, "{done:?}");
    let invited = pair.invited().await;
    for (email, columns) in &outcomes {
        let times = invited.get(email).copied().unwrap_or(0);
        let (outcome, message) = (columns[1].as_str(), columns[4].as_str());
        match (outcome, message) {
            ("succeeded", _) => assert_eq!(times, 1, "{email}"),
            ("unknown", "sent, and its outcome is unknown") => assert_eq!(times, 0, "{email}"),
            other => panic!("{email}: {other:?}"),
        }
    }
}

/// A row that was on its way when the gateway was killed is unknown, and not sent again. All others
/// succeed.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_killed_while_rows_are_sent_sends_none_again() {
    let pair = Pair::new(30);
    let _sandbox = pair.start_sandbox("3s");
    let first = pair.start_gateway().await;
    let import = pair.import();
    eventually("rows are sent", async || !pair.invited().await.is_empty()).await;
    drop(first);
    let sent = pair.invited().await;
    let _second = pair.start_gateway().await;
    let done = tokio::time::timeout(Duration::from_secs(100), import).await;
    let done = done.expect("it ends").unwrap();
    assert_eq!(done.status, Some(1), "{done:?}");
    assert!(
        done.complaint.contains("look before you send it again"),
        "{done:?}"
    );
    let outcomes = outcomes(&pair.directory.path().join("report.csv"));
    assert_eq!(outcomes.len(), 30);
    let invited = pair.invited().await;
    for (email, columns) in &outcomes {
        let times = invited.get(email).copied().unwrap_or(0);
        match columns[1].as_str() {
            "succeeded" => assert_eq!(times, 1, "{email}"),
            // The journal has it as sent before it arrives.
            "unknown" => assert!(times <= 1, "{email} arrived {times} times"),
            other => panic!("{email} is {other}"),
        }
        assert!(
            !sent.contains_key(email) || columns[1] == "unknown",
            "{email}"
        );
    }
    // The keys of unknown rows are remembered: another run sends nothing.
    let again = pair.import().await.unwrap();
    assert_eq!(again.status, Some(1), "{again:?}");
    assert_eq!(pair.invited().await, invited);
}

/// A process that is killed when it is dropped.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
