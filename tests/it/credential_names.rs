//! Names for credentials: a reload gives a hash its name, and whatever shows the hash to a person
//! shows the name beside it.

use super::support::program::Program;
use super::support::request;
use super::support::wire::{ask, eventually};
use http::Method;
use serde_json::Value;
use std::fs;
use std::process::{Command, Output, Stdio};

const RELOADS: &str = "segment_gateway_config_reloads_total";
const SECRET: &str = "sixteen bytes or more of a secret";

/// A configuration whose hashes are known before the start, with these lines about names.
fn configuration(names: &str) -> String {
    format!(
        "[state]\ndirectory = 'state'\n[credentials]\nkey_file = 'key'\n{names}\n[log]\naccess = 'all'\n"
    )
}

/// The output of a command of the command line, in the directory of the program.
fn command(running: &Program, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_segment-gateway"));
    command.args(arguments).current_dir(running.file(""));
    command.stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The standard output of a command that succeeds.
fn printed(running: &Program, arguments: &[&str]) -> String {
    let output = command(running, arguments);
    let wrong = text(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {wrong}");
    text(&output.stdout)
}

/// What `credential hash` says of a token: the hash, and the note about its name.
fn hash_of(running: &Program, token: &str) -> (String, String) {
    fs::write(running.file("token"), format!("{token}\n")).unwrap();
    let arguments = [
        "credential",
        "hash",
        "--config",
        "gateway.toml",
        "--token-file",
        "token",
    ];
    let output = command(running, &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout).trim().to_owned(), text(&output.stderr))
}

/// Writes the configuration and waits until it is read.
async fn reload(running: &Program, names: &str, result: &str) {
    let before = running.value(RELOADS, Some(result)).await;
    fs::write(running.file("gateway.toml"), configuration(names)).unwrap();
    running.signal("-HUP");
    eventually("it is read", async || {
        running.value(RELOADS, Some(result)).await > before
    })
    .await;
}

async fn status(running: &Program, query: &str) -> Value {
    let page = running.page(&format!("/status{query}"), "").await.unwrap();
    serde_json::from_slice(&page.body).unwrap()
}

#[tokio::test]
async fn a_name_stands_beside_the_hash_wherever_a_person_meets_it() {
    let running = Program::with_file(&configuration(""), ("key", SECRET)).await;
    let (hash, note) = hash_of(&running, "t");
    assert_eq!((hash.len(), note.as_str()), (16, ""));
    let read = || request(Method::GET, "/users/user-00001", "t", "");
    assert_eq!(ask(running.proxy, read()).await.status, 200);
    let unnamed = status(&running, "").await;
    assert_eq!(unnamed["budgets"][0]["credential"], *hash);
    assert_eq!(unnamed["budgets"][0]["credentialName"], Value::Null);

    reload(
        &running,
        &format!("names = {{ terraform = '{hash}' }}"),
        "applied",
    )
    .await;
    let (same, note) = hash_of(&running, "t");
    assert_eq!(same, hash);
    assert!(
        note.contains("credentials.names calls it terraform"),
        "{note}"
    );
    // The log.
    let named = format!("credential={hash} credential_name=\"terraform\"");
    assert!(!running.log().contains(&named));
    assert_eq!(ask(running.proxy, read()).await.status, 200);
    running
        .logs(&[&named, "changed=\"credentials.names\""])
        .await;
    // The status, and its filter.
    for query in [
        "",
        "?filter=terraform",
        "?filter=TERRA",
        &format!("?filter={hash}"),
    ] {
        let budget = &status(&running, query).await["budgets"][0];
        assert_eq!(budget["credential"], *hash, "{query}");
        assert_eq!(budget["credentialName"], "terraform", "{query}");
    }
    assert_eq!(
        status(&running, "?filter=nobody").await["budgets"][0],
        Value::Null
    );

    // Commands take the name for the hash, and lists show both.
    let admin = running.admin.to_string();
    let gateway =
        |arguments: &[&str]| printed(&running, &[arguments, &["--admin", &admin]].concat());
    assert_eq!(
        gateway(&["writes", "pause", "--credential", "terraform"]),
        "paused\n"
    );
    let paused = format!("deferred writes paused by an operator {named}");
    running.logs(&[&paused]).await;
    let body = r#"{"invites":[{"email":"a@example.com"}]}"#;
    let mut write = request(Method::POST, "/invites", "t", body);
    write
        .headers_mut()
        .insert("prefer", "respond-async".parse().unwrap());
    assert_eq!(ask(running.proxy, write).await.status, 202);
    let listed = gateway(&["writes", "list", "--credential", "terraform"]);
    let line = listed.lines().next().unwrap_or_default().to_owned();
    assert!(line.contains(&format!("{hash}  terraform")), "{listed}");
    let id = line.split_whitespace().next().unwrap().to_owned();
    let shown: Value = serde_json::from_str(&gateway(&["writes", "show", &id])).unwrap();
    assert_eq!(
        (&shown["credential"], &shown["credentialName"]),
        (&hash.as_str().into(), &"terraform".into())
    );
    let page = running.page("/writes", "").await.unwrap();
    let page: Value = serde_json::from_slice(&page.body).unwrap();
    assert_eq!(page["paused"][0]["credentialName"], "terraform");
    assert_eq!(
        gateway(&["writes", "resume", "--credential", &hash]),
        "resumed\n"
    );
    assert_eq!(
        gateway(&["cache", "purge", "--credential", "terraform"]),
        "1 answer purged\n"
    );
    // Metrics have neither.
    let metrics = running.page("/metrics", "").await.unwrap().text();
    assert!(!metrics.contains(&hash) && !metrics.contains("terraform"));

    // A rename is a reload as well, and a bad one changes nothing.
    reload(
        &running,
        &format!("names = {{ ci = '{hash}', ops = '{hash}' }}"),
        "failed",
    )
    .await;
    running
        .logs(&["gateway.toml:5: credentials.names.ops: found the hash that `ci` stands for"])
        .await;
    assert_eq!(
        status(&running, "").await["budgets"][0]["credentialName"],
        "terraform"
    );
    reload(&running, &format!("names = {{ ci = '{hash}' }}"), "applied").await;
    assert_eq!(
        status(&running, "").await["budgets"][0]["credentialName"],
        "ci"
    );
    let unknown = command(
        &running,
        &[
            "writes",
            "pause",
            "--credential",
            "terraform",
            "--admin",
            &admin,
        ],
    );
    assert!(text(&unknown.stderr).contains("No credential of this hash or name"));
}
