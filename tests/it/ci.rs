//! `.ci/packages`: what it says where the tests' programs are missing and cannot be installed. That it
//! installs them shows where it runs.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: what cannot be made is the failure"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// What the script itself uses.
const TOOLS: [&str; 2] = ["bash", "env"];

fn program(directory: &Path, name: &str, text: &str) {
    let file = directory.join(name);
    fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The exit status and the words of the script where only these programs are there, for whoever is not
/// root.
fn run(programs: &[&str]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    for tool in TOOLS {
        let places = std::env::var_os("PATH").unwrap();
        let place = std::env::split_paths(&places).find(|place| place.join(tool).exists());
        symlink(place.unwrap().join(tool), directory.path().join(tool)).unwrap();
    }
    program(directory.path(), "id", "echo 1000");
    for name in programs {
        program(directory.path(), name, "exit 0");
    }
    let output = Command::new("bash")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/packages"))
        .env("PATH", directory.path())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn it_is_silent_where_all_is_there_and_names_what_is_missing() {
    const ALL: [&str; 13] = [
        "chromium",
        "chromedriver",
        "prometheus",
        "promtool",
        "prometheus-alertmanager",
        "amtool",
        "yamllint",
        "shellcheck",
        "dpkg-shlibdeps",
        "mmdebstrap",
        "node",
        "npm",
        "unzip",
    ];
    let without = |gone: &[&str]| -> Vec<&str> {
        let all = ALL.iter().chain(&["apt-get"]).copied();
        all.filter(|name| !gone.contains(name)).collect()
    };
    assert_eq!(run(&ALL), (Some(0), String::new()));
    let says = |programs: &[&str], what: &str| {
        assert_eq!(run(programs), (Some(1), format!("ci: {what}\n")));
    };
    says(
        &[],
        "there is no apt-get: install Debian's packages: chromium chromium-driver prometheus \
         prometheus-alertmanager yamllint shellcheck dpkg-dev mmdebstrap nodejs npm unzip",
    );
    says(
        &without(&["chromedriver", "promtool", "dpkg-shlibdeps"]),
        "not root: install Debian's packages: chromium-driver prometheus dpkg-dev",
    );
    says(
        &without(&["amtool", "yamllint", "shellcheck", "mmdebstrap", "unzip"]),
        "not root: install Debian's packages: prometheus-alertmanager yamllint shellcheck mmdebstrap \
         unzip",
    );
}
