//! The sample for clients that can run here: the Python program of `docs/clients.md`, where Python
//! has `requests`.

use super::{parse, root, text};
use crate::support::program::Program;
use std::process::{Command, Output};

const CONFIGURATION: &str = "[state]\ndirectory = \"state\"\n";

/// What a command did, with its words.
async fn run(mut command: Command) -> (Option<i32>, String, String) {
    let output = tokio::task::spawn_blocking(move || command.output());
    let Output {
        status,
        stdout,
        stderr,
    } = output.await.expect("a task").expect("a program");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sample_runs() {
    let has_requests = Command::new("python3")
        .args(["-c", "import requests"])
        .output();
    if !has_requests.is_ok_and(|output| output.status.success()) {
        eprintln!("python3 has no requests: skipped");
        return;
    }
    let gateway = Program::sandbox(CONFIGURATION, &[], &[]).await;
    let document = text(&root().join("docs/clients.md"));
    let (_, blocks) = parse(&document);
    let mut blocks = blocks
        .into_iter()
        .filter(|block| block.language == "python");
    let sample = blocks.next().expect("a sample").text;
    let sample = sample.replace("127.0.0.1:8080", &gateway.proxy.to_string());
    let invite = |email: &'static str| {
        let mut command = Command::new("python3");
        command
            .args(["-c", &sample, email])
            .env("SEGMENT_TOKEN", "demo");
        run(command)
    };
    let (status, said, wrong) = invite("new@example.com").await;
    assert_eq!(
        (status, said.trim()),
        (Some(0), "['new@example.com'] 250"),
        "{wrong}"
    );
    let (status, _, said) = invite("no-address").await;
    assert!(status == Some(1) && said.contains("422"), "{said}");
}
