//! Keys of clients as an operator handles them: made on the command line, written into the file of
//! clients, checked, listed, read by a gateway and reloaded.

use super::support::program::Program;
use super::support::wire::eventually;
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const RELOADS: &str = "segment_gateway_config_reloads_total";
const HELD: &str = "segment_gateway_held_token_accepted";
const EXPIRY: &str = "segment_gateway_client_key_expiry_timestamp_seconds";

const CONFIGURATION: &str = "[state]\ndirectory = 'state'\n[callers]\ncredentials = 'both'\nclients_file = 'clients.toml'\n";

const CLIENTS: &str = "[tokens.provisioning]\nfile = 'token'\n\
    [groups]\nonboarding = ['iam-reads', 'createInvites']\n\
    [clients.hr-sync]\ntoken = 'provisioning'\nmay = ['onboarding']\n";

/// Runs a command in a directory, with this on its standard input.
fn command(directory: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_segment-gateway"))
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Not every command reads it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The exit status of a command and what it printed on both outputs.
fn told(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command(directory, arguments, "");
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// A new key, and the block for the file.
fn new_key(directory: &Path, more: &[&str]) -> (String, String) {
    let arguments = [&["key", "new", "--client", "hr-sync"], more].concat();
    let (status, key, block) = told(directory, &arguments);
    assert_eq!(status, Some(0), "{block}");
    (key.trim().to_owned(), block)
}

#[test]
fn a_new_key_is_what_its_block_says() {
    let directory = tempfile::tempdir().unwrap();
    let (key, block) = new_key(directory.path(), &["--expires", "2099-03-31"]);
    assert!(key.starts_with("sgw_") && key.len() == 61, "{key}");
    assert!(!block.contains(&key), "{block}");
    let parsed: toml::Table = block.parse().unwrap();
    let keys = &parsed["clients"]["hr-sync"]["keys"][0];
    assert_eq!(
        keys["expires"].as_datetime().unwrap().to_string(),
        "2099-03-31"
    );
    // Its hash is that of the key alone, however the file with the key ends.
    fs::write(directory.path().join("key"), format!("{key}\n")).unwrap();
    let hashed = [
        command(directory.path(), &["key", "hash"], &key),
        command(
            directory.path(),
            &["key", "hash", "--key-file", "-"],
            &format!("{key}\r\n"),
        ),
        command(directory.path(), &["key", "hash", "--key-file", "key"], ""),
    ];
    for output in hashed {
        let lines: toml::Table = text(&output.stdout).parse().unwrap();
        assert_eq!(lines["id"], keys["id"]);
        assert_eq!(lines["sha256"], keys["sha256"]);
    }
    let cut = command(directory.path(), &["key", "hash"], &key[..60]);
    let why = text(&cut.stderr);
    assert_eq!(cut.status.code(), Some(1));
    assert!(
        why.contains("not a key") && !why.contains(&key[..60]),
        "{why}"
    );
    for (arguments, expected) in [
        (&["--client", "HR"][..], "--client: expected a name"),
        (
            &["--client", "hr", "--expires", "1d1h"],
            "--expires: found \"1d1h\"",
        ),
        (
            &["--client", "hr", "--expires", "2020-01-01"],
            "a time to come",
        ),
    ] {
        let (status, key, why) = told(directory.path(), &[&["key", "new"], arguments].concat());
        assert_eq!((status, key.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(why.contains(expected), "{why}");
    }
}

#[test]
fn clients_are_listed_and_their_rights_explained() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    let (key, block) = new_key(folder, &["--expires", "90d"]);
    let (_, second) = new_key(folder, &[]);
    fs::write(folder.join("gateway.toml"), CONFIGURATION).unwrap();
    fs::write(
        folder.join("clients.toml"),
        format!("{CLIENTS}{block}{second}"),
    )
    .unwrap();
    let run =
        |arguments: &[&str]| told(folder, &[arguments, &["--config", "gateway.toml"]].concat());
    let (status, list, why) = run(&["clients", "list"]);
    assert_eq!(status, Some(0), "{why}");
    for part in [
        "hr-sync",
        "token provisioning",
        "10 operations",
        "expires in",
        "never expires",
    ] {
        assert!(list.contains(part), "{part}: {list}");
    }
    assert!(!list.contains(&key), "{list}");
    let (_, json, _) = run(&["clients", "list", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let client = &json["clients"][0];
    assert_eq!(
        (&client["name"], &client["operations"]),
        (&"hr-sync".into(), &10.into())
    );
    assert_eq!(client["keys"][1]["expires"], Value::Null);
    // From 90 days some seconds have passed.
    assert_eq!(client["keys"][0]["daysLeft"], 89);

    for (operation, expected, why) in [
        (
            "createInvites",
            0,
            "hr-sync may use createInvites: by the group onboarding",
        ),
        (
            "listUsers",
            0,
            "hr-sync may use listUsers: by the group onboarding, in it iam-reads",
        ),
        ("deleteUsers", 1, "hr-sync may not use deleteUsers"),
        ("unmatchedRead", 1, "hr-sync may not use unmatchedRead"),
        (
            "deleteUser",
            2,
            "there is no operation deleteUser; there is deleteUsers",
        ),
    ] {
        let (status, out, wrong) = run(&["clients", "can", "hr-sync", operation]);
        assert_eq!(status, Some(expected), "{operation}: {out}{wrong}");
        assert!(format!("{out}{wrong}").contains(why), "{out}{wrong}");
    }
    let (status, _, why) = run(&["clients", "can", "hr", "listUsers"]);
    assert_eq!(status, Some(2));
    assert!(
        why.contains("there is no client hr; there is hr-sync"),
        "{why}"
    );
    let (status, _, why) = told(folder, &["clients", "list"]);
    assert_eq!(status, Some(1));
    assert!(why.contains("names no callers.clients_file"), "{why}");
}

#[test]
fn check_reads_the_file_of_clients() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    let check = |configuration: &str, clients: Option<&str>| {
        fs::write(folder.join("gateway.toml"), configuration).unwrap();
        let _ = fs::remove_file(folder.join("clients.toml"));
        if let Some(clients) = clients {
            fs::write(folder.join("clients.toml"), clients).unwrap();
        }
        told(
            folder,
            &["check", "--elsewhere", "--config", "gateway.toml"],
        )
    };
    let (_, block) = new_key(folder, &[]);
    let good = format!("{CLIENTS}{block}");
    let (status, out, why) = check(CONFIGURATION, Some(&good));
    assert_eq!(status, Some(0), "{out}{why}");
    let own = CONFIGURATION.replace("both", "own");
    let no_file = CONFIGURATION.replace("clients_file = 'clients.toml'\n", "");
    let misspelled = good.replace("createInvites", "createInvite");
    let large = format!("{good}#{}", "x".repeat(1024 * 1024));
    for (configuration, clients, expected) in [
        (
            CONFIGURATION,
            None,
            "gateway.toml:5: callers.clients_file: found \"clients.toml\" (no file of this name)",
        ),
        (
            CONFIGURATION,
            Some(large.as_str()),
            "(a larger file), expected a readable file of UTF-8 text, of 1 MiB at most",
        ),
        (
            CONFIGURATION,
            Some("[tokens"),
            "clients.toml:1: found invalid TOML",
        ),
        (
            CONFIGURATION,
            Some(&misspelled),
            "clients.toml:4: groups.onboarding: found \"createInvite\", expected `createInvites` (the nearest)",
        ),
        (
            &own,
            Some(&good),
            "gateway.toml:5: callers.clients_file: found a file, and callers.credentials is \"own\"",
        ),
        (
            &no_file,
            Some(&good),
            "gateway.toml:4: callers.credentials: found \"both\" without callers.clients_file",
        ),
    ] {
        let (status, _, why) = check(configuration, clients);
        assert_eq!(status, Some(2), "{why}");
        assert!(why.contains(expected), "{expected}: {why}");
    }
}

#[test]
fn a_new_key_fits_a_name_with_a_dot_and_is_not_lost_in_silence() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let (status, _, block) = told(place, &["key", "new", "--client", "a.b"]);
    assert_eq!(status, Some(0), "{block}");
    let clients = format!(
        "[tokens.t]\nfile = 'token'\n[clients.\"a.b\"]\ntoken = 't'\nmay = ['reads']\n{block}"
    );
    fs::write(place.join("clients.toml"), clients).unwrap();
    fs::write(place.join("token"), "held\n").unwrap();
    fs::write(place.join("gateway.toml"), CONFIGURATION).unwrap();
    let (status, said, why) = told(place, &["clients", "list", "--config", "gateway.toml"]);
    assert_eq!(status, Some(0), "{why}");
    assert!(said.starts_with("a.b "), "{said}");
    let full = fs::File::create("/dev/full").unwrap();
    let lost = Command::new(env!("CARGO_BIN_EXE_segment-gateway"))
        .args(["key", "new", "--client", "a"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(lost.status.code(), Some(1));
    assert!(
        text(&lost.stderr).contains("cannot show the key"),
        "{lost:?}"
    );
}

#[tokio::test]
async fn a_reload_takes_over_a_sound_file_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (_, block) = new_key(directory.path(), &["--expires", "2099-03-31"]);
    let good = format!("{CLIENTS}{block}");
    fs::write(directory.path().join("clients.toml"), &good).unwrap();
    fs::write(directory.path().join("token"), "held\n").unwrap();
    let running = Program::sandbox_in(directory, CONFIGURATION).await;
    let end = running.value(EXPIRY, Some("hr-sync")).await;
    assert_eq!(end, 4_078_684_800.0, "the end of that day, UTC");
    let reload = async |clients: &str, result: &str| {
        let before = running.value(RELOADS, Some(result)).await;
        fs::write(running.file("clients.toml"), clients).unwrap();
        running.signal("-HUP");
        eventually("it is read", async || {
            running.value(RELOADS, Some(result)).await > before
        })
        .await;
    };
    reload(&good.replace("createInvites", "createInvite"), "failed").await;
    running.logs(&["clients.toml:4: groups.onboarding"]).await;
    assert_eq!(running.value(EXPIRY, Some("hr-sync")).await, end);
    reload(&good.replace("2099-03-31", "2099-03-30"), "applied").await;
    running.logs(&["changed=\"the file of clients\""]).await;
    assert_eq!(running.value(EXPIRY, Some("hr-sync")).await, end - 86_400.0);
    // A token that is added and removed.
    let is_shown = async |name: &str| {
        let page = running.page("/metrics", "").await.unwrap().text();
        page.contains(&format!("{HELD}{{token=\"{name}\"}}"))
    };
    fs::write(running.file("other"), "another\n").unwrap();
    let with_other = format!("{good}[tokens.other]\nfile = 'other'\n");
    reload(&with_other, "applied").await;
    eventually("it is held", async || is_shown("other").await).await;
    reload(&good, "applied").await;
    eventually("it is forgotten", async || !is_shown("other").await).await;
    assert!(is_shown("provisioning").await);
}
