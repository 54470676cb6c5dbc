//! A disk without room: a restart serves reads and held writes all the same.

use super::support::program::Program;
use super::support::wire::try_ask;
use super::support::{request, with};
use http::{Method, Request};
use http_body_util::Full;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// A small file system of its own, where this user may mount one.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args([
            "-t",
            "tmpfs",
            "-o",
            &format!("mode=700,size={size}"),
            "tmpfs",
        ]);
        let mounted = mount.arg(directory.path()).output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.path().join("filler")).unwrap();
        while file.write_all(&[1; 512]).is_ok() {}
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

async fn status(program: &Program, request: Request<Full<bytes::Bytes>>) -> u16 {
    let answer = try_ask(program.proxy, request).await.expect("an answer");
    answer.status.as_u16()
}

/// Where the ledger is gone, writes wait for Q.
fn configuration(state: &Path) -> String {
    let state = state.display();
    format!(
        "[state]\ndirectory = \"{state}\"\n[budget]\nlate_arrival = \"1s\"\n[cache]\nsettling = \"1s\"\n"
    )
}

async fn serves_all_but_durable_writes(state: &Path) {
    let configuration = configuration(state);
    let program = Program::sandbox(&configuration, &[], &[]).await;
    let put = || {
        let nothing = r#"{"permissions":[]}"#;
        request(Method::PUT, "/users/user-00001/permissions", "a", nothing)
    };
    let read = request(Method::GET, "/users", "a", "");
    assert_eq!(status(&program, read).await, 200);
    assert_eq!(status(&program, put()).await, 200);
    let deferred = with(put(), "prefer", "respond-async");
    assert_eq!(status(&program, deferred).await, 507);
    program.logs(&["no ledger is kept"]).await;
}

#[tokio::test]
async fn a_restart_on_a_full_disk_serves_reads_and_held_writes() {
    let Some(disk) = Small::mount("512k") else {
        eprintln!("not tried: this user may not mount a file system");
        return;
    };
    let state = disk.path().join("state");
    let configuration = configuration(&state);
    let mut first = Program::sandbox(&configuration, &[], &[]).await;
    let read = request(Method::GET, "/users", "a", "");
    assert_eq!(status(&first, read).await, 200);
    first.signal("-TERM");
    assert!(first.ended().await);
    disk.fill();
    serves_all_but_durable_writes(&state).await;
    // What had been kept is not there any more either.
    for file in ["journal.db", "journal.key", "journal.count", "ledger"] {
        let _ = std::fs::remove_file(state.join(file));
    }
    disk.fill();
    serves_all_but_durable_writes(&state).await;
}

/// What each refused write has to say is said once in a while.
#[tokio::test]
async fn a_disk_that_fills_up_does_not_fill_the_log() {
    const WRITES: usize = 12;
    let Some(disk) = Small::mount("512k") else {
        eprintln!("not tried: this user may not mount a file system");
        return;
    };
    let mut program = Program::sandbox(&configuration(&disk.path().join("state")), &[], &[]).await;
    let deferred = |n: usize| {
        let nothing = r#"{"permissions":[]}"#;
        let target = format!("/users/user-{n:05}/permissions");
        let put = request(Method::PUT, &target, "a", nothing);
        with(put, "prefer", "respond-async")
    };
    assert_eq!(status(&program, deferred(1)).await, 202);
    disk.fill();
    let mut refused = 0;
    for n in 1..=WRITES {
        // A page of the journal may have room for one more.
        refused += usize::from(status(&program, deferred(n)).await == 507);
    }
    assert!(refused > WRITES / 2, "{refused}");
    let status = program.page("/status", "").await.unwrap().json();
    let findings = status["findings"].to_string();
    assert!(
        findings.contains("The disk takes no durable writes"),
        "{findings}"
    );
    program.signal("-TERM");
    assert!(program.ended().await);
    let log = program.log();
    let said = "the journal's disk is full";
    let told: Vec<&str> = log.lines().filter(|line| line.contains(said)).collect();
    assert!(told.len() < refused, "{log}");
    assert!(told.iter().all(|line| line.contains(" ERROR ")), "{log}");
    let requests = log.lines().filter(|line| line.contains("status=507"));
    assert_eq!(requests.count(), refused, "{log}");
}
