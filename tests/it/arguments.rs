//! What operators ask of a running program: arguments of the command line, and HEAD for every page.

use super::support::program::Program;
use super::support::wire::{connect, read_until, rest};
use std::net::SocketAddr;
use std::process::{Command, Output};
use tokio::io::AsyncWriteExt;

const BINARY: &str = env!("CARGO_BIN_EXE_segment-gateway");

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[tokio::test]
async fn an_argument_is_one_value_whatever_stands_in_it() {
    let running = Program::sandbox("", &[], &[]).await;
    let admin = running.admin.to_string();
    for (command, complaint) in [
        (
            &["writes", "list", "--state", "queued&limit=7"][..],
            "no such state",
        ),
        (
            &["writes", "list", "--after", "x&state=queued"],
            "`after` is not the id",
        ),
        (
            &["writes", "list", "--operation", "a=b&c%2"],
            "no such operation",
        ),
        (
            &["writes", "pause", "--operation", "a=b&c%2"],
            "no such operation",
        ),
        (&["writes", "show", "a/../../status"], "no such write"),
        (&["writes", "show", "?limit=1"], "no such write"),
        (&["writes", "cancel", "a b#c"], "no such write"),
        (&["log", "info&level=debug"], "Say the level"),
        (
            &["cache", "purge", "--operation", "a&b=1"],
            "no such operation",
        ),
        (&["cache", "show", "a&key=b"], "`key` is not a key"),
    ] {
        let output = Command::new(BINARY)
            .args(command)
            .args(["--admin", &admin])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        assert!(
            said(&output).contains(complaint),
            "{command:?}: {}",
            said(&output)
        );
    }
}

/// One answer to a request over a connection of its own: status line, media type and length.
async fn headed(address: SocketAddr, method: &str, target: &str) -> (String, String) {
    let ask = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer t\r\n\
         Connection: close\r\n\r\n"
    );
    let mut stream = connect(address).await;
    stream.write_all(ask.as_bytes()).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    let mut lines = head.lines();
    let status = lines.next().unwrap().to_owned();
    let kind = lines.find(|line| line.starts_with("content-type: "));
    let body = match method {
        "HEAD" => rest(&mut stream).await,
        _ => String::new(),
    };
    assert_eq!(body, "", "{method} {target}");
    (status, kind.unwrap_or_default().to_owned())
}

#[tokio::test]
async fn head_is_answered_wherever_get_is() {
    let running = Program::sandbox("", &[], &[]).await;
    let of_admin = [
        "/",
        "/live",
        "/metrics",
        "/livez",
        "/readyz",
        "/status",
        "/log",
        "/writes",
        "/cache?key=x",
        "/writes/x",
        "/nowhere",
    ];
    let of_callers = [
        "/_gateway/writes",
        "/_gateway/writes?limit=x",
        "/_gateway/writes/0192f0c1-2a3b-7c4d-8e5f-012345678901",
        "/_gateway/x",
    ];
    let all = of_admin.map(|target| (running.admin, target)).into_iter();
    for (address, target) in all.chain(of_callers.map(|target| (running.proxy, target))) {
        let got = headed(address, "GET", target).await;
        let seen = headed(address, "HEAD", target).await;
        assert_eq!(got, seen, "{target}");
    }
}
