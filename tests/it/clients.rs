//! What clients of the field send by default, byte by byte: none of it is a reason to refuse them.

use super::support::log::Log;
use super::support::scripted::{Script, Step, answer};
use super::support::wire::{connect, exchange, read_until, rest};
use super::support::{Setup, World};
use segment_gateway::sandbox::SandboxSpec;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// `GET /users` as Java's `HttpClient` sends it over HTTP unless it is told to speak HTTP/1.1, each
/// time anew.
const JAVA: &str = "GET /users HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nHost: gateway:8080\r\n\
    HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n\
    User-Agent: Java-http-client/17.0.9\r\nAuthorization: Bearer t\r\n\r\n";
/// The same with a body.
const JAVA_PUT: &str = "PUT /users/u/permissions HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\n\
    Content-Length: 2\r\nHost: gateway:8080\r\n\
    HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n\
    User-Agent: Java-http-client/17.0.9\r\nAuthorization: Bearer t\r\n\
    Content-Type: application/json\r\n\r\n{}";
/// `curl --http2`.
const CURL: &str = "GET /users HTTP/1.1\r\nHost: gateway:8080\r\nUser-Agent: curl/8.5.0\r\n\
    Accept: */*\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
    HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nAuthorization: Bearer t\r\n\r\n";
/// Apache HttpClient 5.4, and Spring with it.
const APACHE: &str = "GET /users HTTP/1.1\r\nAccept-Encoding: gzip, x-gzip, deflate\r\n\
    Host: gateway:8080\r\nConnection: keep-alive\r\nUser-Agent: Apache-HttpClient/5.4 (Java/17)\r\n\
    Upgrade: TLS/1.2\r\nConnection: Upgrade\r\nAuthorization: Bearer t\r\n\r\n";

async fn served() -> (Arc<Script>, Arc<World>, SocketAddr) {
    let script = Script::new(|_, _| Step::Answer(answer(200, "{}")));
    let world = script.world_of(Setup::new(SandboxSpec::default()));
    let address = world.listen(pending()).await;
    (script, world, address)
}

#[tokio::test]
async fn an_offer_to_upgrade_is_ignored_and_not_passed_on() {
    for bytes in [JAVA, JAVA_PUT, CURL, APACHE] {
        let (script, _world, address) = served().await;
        let mut stream = connect(address).await;
        // Twice over one connection: it goes on as HTTP/1.1.
        for n in 1..=2 {
            stream.write_all(bytes.as_bytes()).await.unwrap();
            let said = read_until(&mut stream, "\r\n\r\n{}").await;
            assert!(said.starts_with("HTTP/1.1 200 "), "{n} {bytes}: {said}");
            assert!(!said.to_lowercase().contains("upgrade"), "{said}");
            assert!(!said.contains("connection: close"), "{said}");
        }
        for seen in script.seen() {
            for name in ["upgrade", "http2-settings", "connection"] {
                assert!(!seen.headers.contains_key(name), "{bytes}: {seen:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_hit_is_as_quick_for_a_client_that_offers_to_upgrade() {
    let (script, world, address) = served().await;
    for bytes in [JAVA, CURL, APACHE] {
        let mut stream = connect(address).await;
        for _ in 0..2 {
            stream.write_all(bytes.as_bytes()).await.unwrap();
            let said = read_until(&mut stream, "\r\n\r\n{}").await;
            assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        }
    }
    // One fetch for each spelling of Accept.
    assert_eq!(script.count(), 2);
    drop(world);
}

#[tokio::test]
async fn a_target_in_absolute_form_goes_to_the_api_whatever_it_names() {
    let (script, _world, address) = served().await;
    for (target, path) in [
        ("http://api.segmentapis.com/users", "/users"),
        ("https://api.segmentapis.com/users?a=%20", "/users?a=%20"),
        ("HTTP://Other:99/labels", "/labels"),
        ("http://other", "/"),
        ("http://other?x=1", "/?x=1"),
    ] {
        let ask = format!(
            "GET {target} HTTP/1.1\r\nHost: elsewhere\r\nProxy-Connection: keep-alive\r\n\
             Connection: close\r\nAuthorization: Bearer {path}\r\n\r\n"
        );
        let said = exchange(address, ask.as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 200 "), "{target}: {said}");
        let seen = script.seen().pop().unwrap();
        assert_eq!(seen.target, path, "{target}");
        assert_eq!(seen.headers["host"], "127.0.0.1:1", "always the upstream's");
        assert!(!seen.headers.contains_key("proxy-connection"));
    }
    let before = script.count();
    for refused in [
        "GET http://user:secret@api.segmentapis.com/users HTTP/1.1\r\nHost: a\r\n",
        "GET ftp://api.segmentapis.com/users HTTP/1.1\r\nHost: a\r\n",
        "GET api.segmentapis.com:443 HTTP/1.1\r\nHost: a\r\n",
        "GET http://api.segmentapis.com/users HTTP/1.1\r\n",
        "CONNECT api.segmentapis.com:443 HTTP/1.1\r\nHost: a\r\n",
        "GET http://api.segmentapis.com/_gateway/x HTTP/1.1\r\nHost: a\r\n",
    ] {
        let ask = format!("{refused}Connection: close\r\n\r\n");
        let said = exchange(address, ask.as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 40"), "{refused}: {said}");
        assert!(said.contains("\"type\":\"gateway-"), "{refused}: {said}");
    }
    assert_eq!(script.count(), before);
}

/// What many clients do: they send all of a body before they read anything.
const BODY: usize = 10 * 1024 * 1024;

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_sends_its_whole_body_first() {
    let mut setup = Setup::new(SandboxSpec::default());
    setup.config.server.body_timeout = Duration::from_millis(50);
    let script = Script::new(|_, _| Step::Answer(answer(200, "{}")));
    let world = script.world_of(setup);
    let address = world.listen(pending()).await;
    let length = format!("Content-Length: {BODY}\r\n");
    let announced = |target: &str, fields: &str| {
        format!("POST {target} HTTP/1.1\r\nHost: gateway\r\n{length}{fields}\r\n")
    };
    let cases = [
        (announced("/labels", "Authorization: Bearer t\r\n"), 413),
        (
            announced(
                "/labels",
                "Authorization: Bearer t\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n",
            ),
            413,
        ),
        (announced("/_gateway/writes", ""), 401),
        (
            announced("/_gateway/writes", "Authorization: Bearer t\r\n"),
            405,
        ),
        (
            announced("/labels", "Authorization: a\r\nAuthorization: b\r\n"),
            400,
        ),
        (announced("/labels", "no colon\r\n"), 400),
        (
            announced("/labels", &format!("X: {}\r\n", "x".repeat(40_000))),
            431,
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
    ];
    for (head, status) in cases {
        let shown: String = head.chars().take(100).collect();
        let mut stream = connect(address).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
            .write_all(&vec![b'x'; BODY])
            .await
            .expect("it is read");
        let said = rest(&mut stream).await;
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status} ")),
            "{shown}: {said}"
        );
        assert!(said.contains("connection: close"), "{shown}: {said}");
        assert!(said.contains("\"type\":\"gateway-"), "{shown}: {said}");
    }
    // One that stops in the middle of its body.
    let mut stream = connect(address).await;
    let small = "POST /labels HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer t\r\n\
        Content-Length: 1000\r\n\r\n";
    stream.write_all(small.as_bytes()).await.unwrap();
    stream.write_all(b"xxx").await.unwrap();
    let said = read_until(&mut stream, "\r\n\r\n").await;
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    stream.write_all(&[b'x'; 997]).await.expect("it is read");
    assert!(rest(&mut stream).await.contains("gateway-body-timeout"));
    assert_eq!(script.count(), 0);
}

#[tokio::test]
async fn what_was_no_request_is_found_in_the_log_by_its_id() {
    let log = Log::default();
    let _guard = log.listen();
    let (_script, _world, address) = served().await;
    let said = exchange(address, b"GARBAGE\r\n\r\n").await;
    let id = said
        .lines()
        .find_map(|line| line.strip_prefix("x-request-id: "));
    let id = id.unwrap_or_else(|| panic!("{said}"));
    assert!(log.text().contains(id), "{}", log.text());
}

#[tokio::test]
async fn text_in_a_body_is_no_field_of_the_next_request() {
    let (script, _world, address) = served().await;
    let mut stream = connect(address).await;
    let text = "content-length: 3\r\ntransfer-encoding: chunked\r\n";
    let first = format!(
        "POST /labels HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer t\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    let chunked = format!(
        "POST /labels HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer t\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{text}\r\n0\r\n\r\n",
        text.len()
    );
    for request in [&first, &chunked, &chunked, &first, &chunked] {
        stream.write_all(request.as_bytes()).await.unwrap();
        let said = read_until(&mut stream, "\r\n\r\n{}").await;
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    }
    assert!(script.seen().iter().all(|seen| seen.body == text));
    assert_eq!(script.count(), 5);
}
