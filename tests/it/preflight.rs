//! What `check` finds in a state directory without starting: whatever keeps `serve` from starting.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

const CONFIGURATION: &str = "listen = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
    [upstream]\nurl = \"http://127.0.0.1:1\"\n[state]\ndirectory = \"state\"\n";

/// What a command says that does not start.
fn refused(command: &str, directory: &Path) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_segment-gateway"));
    program.args([command, "--config", "gateway.toml"]);
    let output = program.current_dir(directory).output().unwrap();
    let said =
        String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    assert!(!output.status.success(), "{command}: {said}");
    said
}

#[test]
fn check_finds_whatever_is_wrong_with_a_state_directory() {
    type Wrong<'a> = (&'a str, fn(&Path), &'a str);

    let cases: [Wrong<'_>; 7] = [
        (
            "others may write to it",
            |state| fs::set_permissions(state, fs::Permissions::from_mode(0o777)).unwrap(),
            "others may write",
        ),
        (
            "a link",
            |state| symlink("/etc/passwd", state.join("ledger")).unwrap(),
            "a symbolic link",
        ),
        (
            "a key that is none",
            |state| fs::create_dir(state.join("credential-hash.key")).unwrap(),
            "credential-hash.key",
        ),
        (
            "a ledger that is none",
            |state| fs::create_dir(state.join("ledger")).unwrap(),
            "ledger",
        ),
        (
            "a journal that is none",
            |state| fs::create_dir(state.join("journal.db")).unwrap(),
            "journal",
        ),
        (
            "a journal that is gone",
            |state| fs::write(state.join("journal.db-wal"), "x").unwrap(),
            "its -wal file is there",
        ),
        (
            "a lock that is none",
            |state| fs::create_dir(state.join("journal.lock")).unwrap(),
            "journal.lock",
        ),
    ];
    for (name, spoil, part) in cases {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("gateway.toml"), CONFIGURATION).unwrap();
        let state = directory.path().join("state");
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
        // It has been used before.
        fs::write(state.join("lock"), "").unwrap();
        spoil(&state);
        for command in ["check", "serve"] {
            let said = refused(command, directory.path());
            assert!(said.contains(part), "{command}, {name}: {said}");
        }
    }
}
