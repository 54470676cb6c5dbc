//! The state directory: what `check` and `serve` find in it, and what a start makes of what is lost.

use super::super::support::wire::{ask, eventually, free};
use super::super::support::with;
use super::{BINARY, Running, complaints, put, refused_by_both, run};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// A configuration with a state directory, at free addresses.
const OWN: &str = "listen = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
                   [state]\ndirectory = \"state\"\n";

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

#[test]
fn check_and_serve_find_the_same_in_a_directory_that_was_never_used() {
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil); 6] = [
        ("others may write to it", |at| mode(at, 0o777)),
        ("symbolic link", |at| {
            symlink("/dev/null", at.join("journal.key")).unwrap();
        }),
        ("ledger in it is a directory", |at| {
            fs::create_dir(at.join("ledger")).unwrap();
        }),
        ("ledger in it is a named pipe", |at| {
            pipe(&at.join("ledger"))
        }),
        ("-wal file is there", |at| {
            fs::write(at.join("journal.db-wal"), "x").unwrap();
        }),
        ("it is not one", |at| {
            fs::write(at.join("journal.key"), [1; 40]).unwrap();
        }),
    ];
    for (why, spoil) in spoils {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        fs::create_dir(&state).unwrap();
        mode(&state, 0o700);
        spoil(&state);
        let before = fs::read_dir(&state).unwrap().count();
        fs::write(directory.path().join("own.toml"), OWN).unwrap();
        let checked = run(&["check", "--config", "own.toml"], directory.path());
        assert_eq!(checked.status.code(), Some(2), "{why}");
        assert_eq!(fs::read_dir(&state).unwrap().count(), before, "{why}");
        for complaint in refused_by_both(OWN, &[], directory.path()) {
            assert!(complaint.contains(why), "{why}: {complaint}");
        }
    }
}

/// Serves with a sandbox in front of an own state directory, carries out a write under a key of the
/// caller's, and is killed.
async fn used(directory: &Path) {
    let mut running = serve(directory).await;
    let keyed = with(put(1), "idempotency-key", "one");
    assert_eq!(ask(running.proxy, keyed).await.status, 200);
    running.child.kill().unwrap();
    running.child.wait().unwrap();
}

async fn serve(directory: &Path) -> Running {
    let sandbox = free().to_string();
    let own = ["--config", "served.toml", "--sandbox", "--sandbox-listen"];
    let text = "[state]\ndirectory = \"state\"\n";
    fs::write(directory.join("served.toml"), text).unwrap();
    Running::serve(&[&own[..], &[&sandbox]].concat(), directory).await
}

#[tokio::test]
async fn writes_whose_owners_would_not_be_known_again_stop_the_start() {
    let directory = tempfile::tempdir().unwrap();
    used(directory.path()).await;
    let key = directory.path().join("state/credential-hash.key");
    let kept = fs::read(&key).unwrap();
    let ledger = fs::read(directory.path().join("state/ledger")).unwrap();
    let configured = format!("{OWN}[credentials]\nkey_file = \"own.key\"\n");
    fs::write(directory.path().join("own.key"), "a key of the operator's").unwrap();
    for found in [Some(&kept[..7]), Some(&[7; 32][..]), None] {
        fs::remove_file(&key).unwrap();
        if let Some(found) = found {
            fs::write(&key, found).unwrap();
        }
        for complaint in refused_by_both(OWN, &[], directory.path()) {
            assert!(complaint.contains("credential-hash.key"), "{complaint}");
            assert!(complaint.contains("put back"), "{complaint}");
        }
        if found.is_none() {
            assert!(!key.exists(), "no other key takes its place");
        }
        // One that is configured is another key, too.
        for complaint in refused_by_both(&configured, &[], directory.path()) {
            assert!(complaint.contains("credentials.key_file"), "{complaint}");
        }
        fs::write(&key, &kept).unwrap();
    }
    let left = fs::read(directory.path().join("state/ledger")).unwrap();
    assert!(left == ledger, "what stops the start changes nothing");
    let again = serve(directory.path()).await;
    let keyed = with(put(1), "idempotency-key", "one");
    let answer = ask(again.proxy, keyed).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn a_start_that_was_killed_before_it_had_a_ledger_has_sent_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    mode(&state, 0o700);
    fs::write(state.join("lock"), "").unwrap();
    for is_lost in [false, true] {
        fs::write(directory.path().join("own.toml"), OWN).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut child = Command::new(BINARY)
            .args(["serve", "--config", "own.toml"])
            .current_dir(directory.path())
            .stderr(log)
            .spawn()
            .unwrap();
        let lines = || fs::read_to_string(directory.path().join("log")).unwrap();
        eventually("it listens", async || lines().contains("gateway listening")).await;
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(lines().contains("it is gone"), is_lost, "{}", lines());
        fs::remove_file(state.join("ledger")).unwrap();
    }
}

#[test]
fn keys_that_every_user_can_read_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    for name in ["journal.key", "credential-hash.key"] {
        fs::write(state.join(name), [1; 32]).unwrap();
        mode(&state.join(name), 0o644);
    }
    fs::write(directory.path().join("own.toml"), OWN).unwrap();
    mode(directory.path(), 0o755);
    for (open, warnings) in [(0o755, 2), (0o700, 0)] {
        mode(&state, open);
        let output = run(&["check", "--config", "own.toml"], directory.path());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let named = said.matches("every user can read").count();
        assert_eq!(named, warnings, "{said} {:?}", complaints(&output));
    }
}

/// The files lie as Kubernetes mounts a Secret: behind links, readable for the group.
#[test]
fn held_tokens_that_every_user_can_read_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("..2027")).unwrap();
    fs::write(at("..2027/token"), "a-held-token\n").unwrap();
    symlink("..2027", at("..data")).unwrap();
    symlink("..data/token", at("token")).unwrap();
    let clients = "[tokens.held]\nfile = 'token'\n[clients.ci]\ntoken = 'held'\nmay = ['reads']\n\
                   certificates = ['ci.example.com']\n";
    fs::write(at("clients.toml"), clients).unwrap();
    let managed = "[callers]\ncredentials = 'managed'\nclients_file = 'clients.toml'\n";
    fs::write(at("held.toml"), format!("{OWN}{managed}")).unwrap();
    mode(directory.path(), 0o755);
    for (open, warnings) in [(0o644, 1), (0o440, 0)] {
        mode(&at("..2027/token"), open);
        let output = run(&["check", "--config", "held.toml"], directory.path());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let warning = "tokens.held.file: every user can read token";
        let named = said.matches(warning).count();
        assert_eq!(named, warnings, "{said} {:?}", complaints(&output));
        assert!(!said.contains("a-held-token"), "{said}");
    }
}
