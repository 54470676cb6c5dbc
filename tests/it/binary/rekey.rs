//! `segment-gateway journal rekey`: the journal goes on under another key, or nothing changes.

use super::super::support::request;
use super::super::support::wire::{ask, eventually, free, try_ask};
use super::{BINARY, Running, complaints, put, run, with};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a configuration for this upstream whose journal is sealed under this key file, if one is
/// named.
fn configure(directory: &Path, upstream: SocketAddr, key_file: &str) {
    let key = match key_file {
        "" => String::new(),
        name => format!("key_file = \"{name}\"\n"),
    };
    let text = format!(
        "[upstream]\nurl = \"http://{upstream}\"\n[state]\ndirectory = \"state\"\n\
         [journal]\nworkspaces = false\n{key}"
    );
    std::fs::write(directory.join("gateway.toml"), text).unwrap();
}

/// A directory with key files.
fn place() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["first.key", "second.key", "other.key"] {
        let secret = format!("the secret of {name}");
        std::fs::write(directory.path().join(name), secret).unwrap();
    }
    directory
}

async fn serve(directory: &Path) -> Running {
    Running::serve(&["--config", "gateway.toml"], directory).await
}

/// Runs the command; its exit status and what it said.
fn rekey(arguments: &[&str], directory: &Path) -> (Option<i32>, String) {
    let own = ["journal", "rekey", "--config", "gateway.toml"];
    let output = run(&[&own, arguments].concat(), directory);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), said + &complaints(&output).join("\n"))
}

/// Hands over a write that waits for an API which does not answer yet; where to ask for it.
async fn defer(running: &Running, user: usize) -> String {
    let accepted = ask(running.proxy, with(put(user), "prefer", "respond-async")).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    accepted.header("location").to_owned()
}

async fn shown(running: &Running, location: &str) -> Value {
    let get = request(Method::GET, location, "a", "");
    ask(running.proxy, get).await.json()["data"]["write"].clone()
}

/// Whether the gateway knows a write and goes on with it.
async fn is_kept(running: &Running, location: &str) -> bool {
    let write = shown(running, location).await;
    let is_under_way = matches!(write["state"].as_str(), Some("queued" | "dispatched"));
    is_under_way && write["operation"] == "replacePermissionsForUser"
}

/// The state directory as it is: each file and what is in it.
fn state(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(directory.join("state")) else {
        return BTreeMap::new();
    };
    let files = entries.map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(&path).unwrap())
        })
        .collect()
}

/// Gives the state directory and its files to a user. `false` if this is not root, who alone can.
fn give(directory: &Path, user: u32) -> bool {
    let state = directory.join("state");
    let entries = std::fs::read_dir(&state).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let mut all = files.chain([state]);
    all.all(|path| chown(path, Some(user), Some(user)).is_ok())
}

/// Starts the simulated API there.
async fn api(address: SocketAddr, directory: &Path) -> Running {
    let child = Command::new(BINARY)
        .args(["sandbox", "--listen", &address.to_string()])
        .current_dir(directory)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running {
        child,
        proxy: address,
        admin: address,
    };
    eventually("the API listens", async || {
        arrivals(address).await.is_some()
    })
    .await;
    running
}

async fn arrivals(api: SocketAddr) -> Option<Vec<String>> {
    let ask = Request::get("/_sandbox/requests").header("host", "sandbox");
    let answer = try_ask(api, ask.body(Full::default()).unwrap()).await?;
    let all = answer.json()["requests"].as_array()?.clone();
    let target = |arrival: &Value| arrival["target"].as_str().unwrap_or_default().to_owned();
    Some(all.iter().map(target).collect())
}

#[tokio::test]
async fn writes_that_wait_go_on_under_the_new_key() {
    let (directory, upstream) = (place(), free());
    let directory = directory.path();
    configure(directory, upstream, "first.key");
    let mut running = serve(directory).await;
    let locations = [defer(&running, 1).await, defer(&running, 2).await];
    running.child.kill().unwrap();
    running.child.wait().unwrap();

    configure(directory, upstream, "second.key");
    let check = run(&["check", "--config", "gateway.toml"], directory);
    let refused = complaints(&check).join("\n");
    assert!(
        refused.contains("segment-gateway journal rekey"),
        "{refused}"
    );
    let is_root = give(directory, 65_532);
    let (status, said) = rekey(&["--old-key-file", "first.key"], directory);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("2 writes"), "{said}");
    if is_root {
        // Root works for the user of the service, who can then open every file.
        let check = run(&["check", "--config", "gateway.toml"], directory);
        let said = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(check.status.success(), "{:?}", complaints(&check));
        assert!(said.contains("belongs to user 65532"), "{said}");
        for entry in std::fs::read_dir(directory.join("state")).unwrap() {
            let entry = entry.unwrap();
            let owner = entry.metadata().unwrap().uid();
            assert_eq!(owner, 65_532, "{}", entry.path().display());
        }
        give(directory, 0);
    }

    let running = serve(directory).await;
    for location in &locations {
        assert!(is_kept(&running, location).await);
    }
    let _api = api(upstream, directory).await;
    for location in &locations {
        eventually("it takes effect", async || {
            shown(&running, location).await["state"] == "succeeded"
        })
        .await;
    }
    let mut seen = arrivals(upstream).await.unwrap();
    seen.sort_unstable();
    let target = |user: usize| format!("/users/user-{user:05}/permissions");
    assert_eq!(seen, [target(1), target(2)]);
    drop(running);
    configure(directory, upstream, "first.key");
    let check = run(&["check", "--config", "gateway.toml"], directory);
    assert!(complaints(&check).join("\n").contains("another key"));
}

#[tokio::test]
async fn the_key_that_was_made_beside_the_journal_is_the_old_one() {
    let (directory, upstream) = (place(), free());
    let directory = directory.path();
    configure(directory, upstream, "");
    let running = serve(directory).await;
    let location = defer(&running, 1).await;
    drop(running);
    configure(directory, upstream, "second.key");
    let (status, said) = rekey(&[], directory);
    assert_eq!(status, Some(0), "{said}");
    std::fs::remove_file(directory.join("state/journal.key")).unwrap();
    let running = serve(directory).await;
    assert!(is_kept(&running, &location).await);
}

#[tokio::test]
async fn what_cannot_be_done_changes_nothing_and_says_what_to_do() {
    let (directory, upstream) = (place(), free());
    let directory = directory.path();
    std::fs::write(directory.join("short.key"), "short").unwrap();
    configure(directory, upstream, "first.key");
    let running = serve(directory).await;
    let location = defer(&running, 1).await;

    // A gateway that runs goes on.
    configure(directory, upstream, "second.key");
    let (status, said) = rekey(&["--old-key-file", "first.key"], directory);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("another segment-gateway uses it"), "{said}");
    assert!(is_kept(&running, &location).await);
    drop(running);

    let before = state(directory);
    let new = |name: &str| configure(directory, upstream, name);
    for (new_key, arguments, part) in [
        (
            "second.key",
            &["--old-key-file", "second.key"][..],
            "it is not sealed under the key in second.key",
        ),
        (
            "first.key",
            &["--old-key-file", "second.key"],
            "already sealed under the configured key",
        ),
        (
            "second.key",
            &["--old-key-file", "other.key"],
            "it is not sealed under the key in other.key",
        ),
        ("second.key", &["--old-key-file", "none.key"], "none.key"),
        ("second.key", &["--old-key-file", "short.key"], "short.key"),
        ("second.key", &[], "--old-key-file"),
        ("none.key", &["--old-key-file", "first.key"], "none.key"),
        ("", &["--old-key-file", "first.key"], "journal.key_file"),
    ] {
        new(new_key);
        let (status, said) = rekey(arguments, directory);
        assert_eq!(status, Some(2), "{new_key} {arguments:?}: {said}");
        assert!(said.contains(part), "{new_key} {arguments:?}: {said}");
        assert!(!said.contains("move the journal away"), "{said}");
        assert_eq!(state(directory), before, "{new_key} {arguments:?}");
    }

    // Where there is no journal, none is made.
    new("second.key");
    std::fs::rename(directory.join("state"), directory.join("aside")).unwrap();
    let (status, said) = rekey(&["--old-key-file", "first.key"], directory);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("there is no journal"), "{said}");
    assert!(!directory.join("state").exists());

    // Nothing was lost.
    std::fs::rename(directory.join("aside"), directory.join("state")).unwrap();
    new("first.key");
    let running = serve(directory).await;
    assert!(is_kept(&running, &location).await);
}
