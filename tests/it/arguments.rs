//! What operators ask of a running program: arguments of the command line, and HEAD for every page.

use super::support::program::Program;
use super::support::request;
use super::support::wire::{ask, connect, read_until, rest};
use http::Method;
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output};
use tokio::io::AsyncWriteExt;

const BINARY: &str = env!("CARGO_BIN_EXE_segment-gateway");

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// What the gateway decides, it answers in its own words.
#[tokio::test]
async fn an_argument_is_one_value_whatever_stands_in_it() {
    let running = Program::sandbox("", &[], &[]).await;
    let admin = running.admin.to_string();
    for (command, complaint) in [
        (
            &["writes", "list", "--operation", "a=b&c%2"][..],
            "no such operation",
        ),
        (
            &["writes", "list", "--credential", "a=b&limit=2"],
            "No credential of this hash or name",
        ),
        (
            &["writes", "pause", "--operation", "a=b&c%2"],
            "no such operation",
        ),
        (
            &["writes", "show", "01a20dd3-1a21-7000-962f-416076a7eb8a"],
            "no such write",
        ),
        (
            &["cache", "purge", "--operation", "a&b=1"],
            "no such operation",
        ),
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

/// What has no form that the gateway could take is rejected before it is asked, with the words that
/// were typed: the flag or the argument, and neither a parameter of the admin listener nor a key of
/// the configuration.
#[test]
fn a_malformed_argument_is_answered_in_the_words_of_the_command_line() {
    let key = "expected 16 hexadecimal digits";
    for (command, complaint) in [
        (
            &["writes", "list", "--state", "queued&limit=7"][..],
            "invalid value 'queued&limit=7' for '--state <STATE>'\n  [possible values: queued, \
             dispatched, succeeded, failed, unknown, cancelled]",
        ),
        (
            &["writes", "list", "--after", "x&state=queued"],
            "for '--after <ID>': expected the id of a write",
        ),
        (
            &["writes", "list", "--limit", "1001"],
            "invalid value '1001' for '--limit <N>': 1001 is not in 1..=1000",
        ),
        (&["writes", "list", "--limit", "0"], "is not in 1..=1000"),
        (
            &["writes", "show", "a/../../status"],
            "for '<ID>': expected the id of a write",
        ),
        (&["writes", "cancel", "a b#c"], "expected the id of a write"),
        (
            &["writes", "pause"],
            "<--credential <HASH>|--operation <NAME>>",
        ),
        (
            &["writes", "resume"],
            "<--credential <HASH>|--operation <NAME>>",
        ),
        (
            &["log", "info&level=debug"],
            "invalid value 'info&level=debug' for '[LEVEL]'\n  [possible values: error, warn, info, \
             debug, trace]",
        ),
        (&["log", "INFO"], "invalid value 'INFO' for '[LEVEL]'"),
        (&["cache", "show", "a&key=b"], key),
        (&["cache", "purge", "--key", "x"], key),
        (&["cache", "purge", "--tag", ""], "'--tag <TAG>'"),
        (
            &["cache", "purge"],
            "<--tag <TAG>|--operation <NAME>|--credential <HASH>|--key <KEY>|--everything>",
        ),
    ] {
        // Nobody listens there: the gateway is not asked.
        let output = Command::new(BINARY)
            .args(command)
            .args(["--admin", "127.0.0.1:1"])
            .output()
            .unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
        assert!(said.contains(complaint), "{command:?}: {said}");
        for foreign in ["log.level", "level=", "`limit`", "`after`", "parameter"] {
            let own = command.iter().any(|argument| argument.contains(foreign));
            assert!(own || !said.contains(foreign), "{command:?}: {said}");
        }
    }
}

#[tokio::test]
async fn an_admin_token_that_is_missing_or_wrong_is_asked_for_by_its_flag() {
    let variable = "SEGMENT_GATEWAY_ADMIN_TOKEN";
    let running = Program::sandbox("", &[], &[(variable, "the-token-of-operators")]).await;
    let admin = running.admin.to_string();
    fs::write(running.file("wrong"), "the-token-of-others\n").unwrap();
    fs::write(running.file("empty"), "\n").unwrap();
    let not_the_token = format!("this is not the admin token of the gateway at {admin}");
    for (flags, environment, complaint) in [
        (
            &[][..],
            None,
            "this needs the admin token; name its file with --admin-token-file, or set \
             SEGMENT_GATEWAY_ADMIN_TOKEN",
        ),
        (
            &["--admin-token-file", "wrong"],
            None,
            &*format!("--admin-token-file wrong: {not_the_token}"),
        ),
        (
            &[],
            Some("the-token-of-others"),
            &format!("SEGMENT_GATEWAY_ADMIN_TOKEN: {not_the_token}"),
        ),
        (
            &["--admin-token-file", "empty"],
            None,
            "--admin-token-file empty: it is empty",
        ),
        (
            &[],
            Some(""),
            "SEGMENT_GATEWAY_ADMIN_TOKEN is set and empty",
        ),
        (
            &["--admin-token-file", "absent"],
            None,
            "--admin-token-file absent: cannot be read",
        ),
    ] {
        for command in [
            &["writes", "list"][..],
            &["log"],
            &["cache", "purge", "--everything"],
        ] {
            let mut program = Command::new(BINARY);
            program.args(command).args(["--admin", &admin]).args(flags);
            program.current_dir(running.file("")).env_remove(variable);
            program.envs(environment.map(|token| (variable, token)));
            let output = program.output().unwrap();
            let said = said(&output);
            assert_eq!(
                output.status.code(),
                Some(1),
                "{command:?} {flags:?}: {said}"
            );
            assert!(said.contains(complaint), "{command:?} {flags:?}: {said}");
            assert!(!said.contains("Authorization"), "{said}");
        }
    }
}

/// With `--json` a command prints one document and nothing else, and what is not data goes to
/// standard error in either form.
#[tokio::test]
async fn json_is_one_document_and_notes_are_on_standard_error() {
    let state = "[state]\ndirectory = \"state\"\n";
    let running = Program::sandbox(state, &[], &[]).await;
    let admin = running.admin.to_string();
    let gateway = |arguments: &[&str]| {
        let output = Command::new(BINARY)
            .args(arguments)
            .args(["--admin", &admin])
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, wrong) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {wrong}");
        (out, wrong)
    };
    let json = |arguments: &[&str]| {
        let (out, wrong) = gateway(&[arguments, &["--json"]].concat());
        assert_eq!(wrong, "", "{arguments:?}");
        serde_json::from_str::<Value>(&out).unwrap_or_else(|_| panic!("{arguments:?}: {out}"))
    };
    let pause = ["writes", "pause", "--operation", "createInvites"];
    assert_eq!(json(&pause)["changed"], true);
    for n in 0..3 {
        let body = format!(r#"{{"invites":[{{"email":"a{n}@example.com"}}]}}"#);
        let mut write = request(Method::POST, "/invites", "t", &body);
        write
            .headers_mut()
            .insert("prefer", "respond-async".parse().unwrap());
        assert_eq!(ask(running.proxy, write).await.status, 202);
    }
    // A page: two lines of data, and two notes.
    let (out, wrong) = gateway(&["writes", "list", "--limit", "2", "--state", "queued"]);
    let ids: Vec<_> = out
        .lines()
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 2, "{out}");
    let notes: Vec<&str> = wrong.lines().collect();
    assert_eq!(notes.len(), 2, "{wrong}");
    assert!(
        notes[0].starts_with("segment-gateway: paused: createInvites, by an operator, since 20"),
        "{wrong}"
    );
    let next = format!(
        "segment-gateway: there are more; the next page: segment-gateway writes list --state queued \
         --limit 2 --after {} --admin {admin}",
        ids[1]
    );
    assert_eq!(notes[1], next);
    // The command that was noted is one.
    let (_, next) = next.split_once("the next page: segment-gateway ").unwrap();
    let next: Vec<&str> = next.split(' ').collect();
    let output = Command::new(BINARY).args(next).output().unwrap();
    let last = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(last.lines().count(), 1, "{last}");
    assert!(!last.contains(&ids[0]) && !last.contains(&ids[1]), "{last}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("there are more"));

    let page = json(&["writes", "list", "--limit", "2"]);
    assert_eq!(page["writes"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        (&page["next"], &page["queued"]),
        (&ids[1].as_str().into(), &3.into())
    );
    assert_eq!(page["paused"][0]["operation"], "createInvites");
    assert_eq!(json(&["writes", "show", &ids[0]])["id"], *ids[0]);
    assert_eq!(json(&["writes", "cancel", &ids[0]])["state"], "cancelled");
    assert_eq!(
        json(&["writes", "resume", "--operation", "createInvites"])["paused"],
        false
    );
    let watched = json(&["writes", "watch"]);
    assert_eq!(
        (&watched["queued"], &watched["dispatched"]),
        (&0.into(), &0.into())
    );
    assert_eq!(json(&["log"])["level"], "info");
    assert_eq!(json(&["log", "debug"])["level"], "debug");
    assert_eq!(json(&["cache", "purge", "--everything"])["purged"], 0);
}

/// One answer to a request over a connection of its own: status line, media type and length.
async fn headed(address: SocketAddr, method: &str, target: &str) -> (String, String) {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer t\r\n\
         Connection: close\r\n\r\n"
    );
    let mut stream = connect(address).await;
    stream.write_all(head.as_bytes()).await.unwrap();
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
