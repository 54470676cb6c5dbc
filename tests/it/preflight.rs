//! What `check` finds in a state directory without starting: whatever keeps `serve` from starting.

use segment_gateway::config;
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
        for command in ["check", "serve", "doctor"] {
            let said = refused(command, directory.path());
            assert!(said.contains(part), "{command}, {name}: {said}");
            // Wherever the mistake shows, it is the key that is to be changed.
            let place = "gateway.toml:7: ";
            assert!(said.contains(place), "{command}, {name}: {said}");
        }
    }
}

/// Each key whose value is a path, with a path that cannot be used, is answered with the file, the
/// line and the key, by whatever command reads the configuration.
#[test]
fn a_path_that_cannot_be_used_is_named_with_its_line_and_key() {
    let keys = config::keys().into_iter();
    let paths = keys.filter(|key| key.accepts == "the path of a file or directory");
    let paths: Vec<&str> = paths.map(|key| key.name).collect();
    assert!(paths.len() >= 7, "{paths:?}");
    for key in paths {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        fs::write(place.join("file"), "").unwrap();
        let (section, name) = key.rsplit_once('.').unwrap();
        // No user can make anything in a file, not even root.
        let path = if ["state.directory", "audit.file"].contains(&key) {
            "file/x"
        } else {
            "absent"
        };
        let mut text = format!("# The first line.\n[{section}]\n{name} = \"{path}\"\n");
        // A certificate needs its key, and one for clients needs both.
        if section.ends_with("tls") {
            let others = ["certificate_file", "key_file", "client_ca_file"];
            for other in others.into_iter().filter(|other| *other != name) {
                text += &format!("{other} = \"file\"\n");
            }
            text += "client_auth = \"required\"\n";
        }
        fs::write(place.join("gateway.toml"), text).unwrap();
        for command in ["check", "serve", "doctor"] {
            let said = refused(command, place);
            let found = said.contains(&format!("gateway.toml:3: {key}"));
            assert!(found && said.contains(path), "{command}, {key}: {said}");
        }
    }
}

#[test]
fn a_route_table_that_cannot_be_read_is_a_mistake_beside_others() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[routes]\nfile = \"absent.toml\"\n[queue]\ntotal = 0\n";
    fs::write(directory.path().join("gateway.toml"), text).unwrap();
    let said = refused("check", directory.path());
    let lines: Vec<&str> = said.lines().collect();
    let expected = "segment-gateway: gateway.toml:2: routes.file: found \"absent.toml\" (no file of this \
                    name), expected a readable file of UTF-8 text, of 16 MiB at most";
    assert_eq!(lines[0], expected);
    assert!(lines[1].starts_with("segment-gateway: gateway.toml:4: queue.total: found 0"));
    assert_eq!(lines.len(), 2, "{said}");
    // As a variable, it is the variable that is to be changed.
    let mut program = Command::new(env!("CARGO_BIN_EXE_segment-gateway"));
    program
        .arg("check")
        .env("SEGMENT_GATEWAY__ROUTES__FILE", ".");
    let output = program.current_dir(directory.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let named = "environment variable SEGMENT_GATEWAY__ROUTES__FILE: routes.file: found \".\"";
    assert!(said.contains(named), "{said}");
}

/// A flag is answered with the flag, and neither with its key nor with its variable.
#[test]
fn a_flag_is_named_as_it_was_given() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (arguments, expected) in [
        (
            &["serve", "--upstream", "ftp://x"][..],
            "segment-gateway: --upstream: found \"ftp://x\", expected",
        ),
        (
            &["doctor", "--upstream", "ftp://x"],
            "segment-gateway: --upstream: found \"ftp://x\", expected",
        ),
        (
            &[
                "serve",
                "--listen",
                "127.0.0.1:1",
                "--admin-listen",
                "127.0.0.1:1",
            ],
            "segment-gateway: --admin-listen: found 127.0.0.1:1 and 127.0.0.1:1, expected two",
        ),
        (
            &["serve", "--listen", &taken],
            "segment-gateway: --listen: cannot listen on",
        ),
        (
            &["serve", "--admin-listen", "0.0.0.0:0"],
            "segment-gateway: --admin-listen: found 0.0.0.0:0, which other machines reach, and no token",
        ),
    ] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_segment-gateway"));
        program.args(arguments).current_dir(directory.path());
        let output = program.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert!(!said.contains("SEGMENT_GATEWAY__"), "{arguments:?}: {said}");
    }
}
