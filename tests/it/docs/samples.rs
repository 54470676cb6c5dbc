//! The samples for clients that can run here: the bulk import, and the Python program of
//! `docs/clients.md` where Python has `requests`.

use super::{parse, root, text};
use crate::support::program::Program;
use std::fs;
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

/// An import of this file.
async fn import(gateway: &Program, csv: &str) -> (Option<i32>, String, String) {
    let file = gateway.file("people.csv");
    fs::write(&file, csv).expect("a file");
    let mut command = Command::new(root().join("docs/samples/import-invites"));
    command
        .arg(file)
        .env("GATEWAY", format!("http://{}", gateway.proxy))
        .env("SEGMENT_TOKEN", "demo");
    run(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_import_invites_everyone_once_and_names_what_failed() {
    let gateway = Program::sandbox(CONFIGURATION, &["--time-scale", "60"], &[]).await;
    let rows: String = (0..70)
        .map(|n| format!("p{n}@example.com,P {n}\r\n"))
        .collect();
    let csv = format!("email,name\r\n{rows}");
    for attempt in 1..=2 {
        let (status, said, _) = import(&gateway, &csv).await;
        assert_eq!((status, said.trim()), (Some(0), "70 201"), "{attempt}");
    }
    // The API's own rejection: the address is taken by a user.
    let taken = "email\nnew@example.com\nuser-00001@example.com\n";
    let (status, said, _) = import(&gateway, taken).await;
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("user-00001@example.com: {\"errors\""),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_import_sends_nothing_of_a_file_with_a_mistake() {
    let gateway = Program::sandbox(CONFIGURATION, &[], &[]).await;
    for (csv, complaint) in [
        (
            "mail\na@example.com\n",
            "line 1: the first column is not called email",
        ),
        (
            "email\na@example.com\nA@example.com\n",
            "line 3: A@example.com is on line 2 too",
        ),
        (
            "email\na@example.com\nb\"@example.com\n",
            "line 3: not an address",
        ),
        ("email\n", "has no addresses"),
    ] {
        let (status, _, said) = import(&gateway, csv).await;
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(complaint), "{said}");
    }
    let sent = gateway.value("segment_gateway_requests_total", None).await;
    assert_eq!(sent, 0.0);
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
