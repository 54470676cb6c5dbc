//! Answers of the API as callers see them on the wire: framing, version, reason phrase and fields
//! that must not pass. Both sides are written and read as bytes.

use super::support::wire::exchange;
use super::support::{Setup, World};
use segment_gateway::config::Mode;
use segment_gateway::sandbox::SandboxSpec;
use segment_gateway::upstream::MemoryConnector;
use std::future::{pending, ready};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Gateways in front of an API that answers each request with the bytes that are set and then closes.
struct Gateways {
    answer: Arc<Mutex<String>>,
    enforcing: SocketAddr,
    shadow: SocketAddr,
    asked: usize,
    _worlds: [Arc<World>; 2],
}

impl Gateways {
    async fn start() -> Self {
        let answer = Arc::new(Mutex::new(String::new()));
        let [enforcing, shadow] = [Mode::Enforce, Mode::Shadow].map(|mode| {
            let mut setup = Setup::new(SandboxSpec::default());
            setup.config.mode = mode;
            Arc::new(setup.start_over(by_hand(&answer)))
        });
        Self {
            answer,
            enforcing: enforcing.listen(pending()).await,
            shadow: shadow.listen(pending()).await,
            asked: 0,
            _worlds: [enforcing, shadow],
        }
    }

    /// The head and the decoded body of what a caller gets, each time with another token.
    async fn answer_to(&mut self, path: &Path, answer: &str) -> (String, String) {
        *self.answer.lock().expect("not poisoned") = answer.to_owned();
        self.asked += 1;
        let address = if path.shadow {
            self.shadow
        } else {
            self.enforcing
        };
        let is_write = path.request.starts_with("PUT");
        let body = if is_write { "{}" } else { "" };
        let token = self.asked;
        let request = format!(
            "{}host: gateway\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n{body}",
            path.request
        );
        let all = exchange(address, request.as_bytes()).await;
        let (head, body) = all.split_once("\r\n\r\n").expect("a head");
        let head = format!("{head}\r\n");
        let body = if head.contains("\r\ntransfer-encoding: chunked\r\n") {
            assert!(!head.contains("\r\ncontent-length: "), "{head}");
            unchunked(body)
        } else {
            body.to_owned()
        };
        (head, body)
    }
}

/// Connections to an API that answers the first request on each as is set by then.
fn by_hand(answer: &Arc<Mutex<String>>) -> MemoryConnector {
    let answer = Arc::clone(answer);
    MemoryConnector::new(move || {
        let (ours, mut theirs) = tokio::io::duplex(256 * 1024);
        let answer = Arc::clone(&answer);
        drop(tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(theirs.read_u8().await?);
            }
            let answer = answer.lock().expect("not poisoned").clone();
            theirs.write_all(answer.as_bytes()).await?;
            theirs.shutdown().await
        }));
        ready(Ok(ours))
    })
}

/// One way through the gateway, and a request that takes it.
struct Path {
    name: &'static str,
    request: &'static str,
    shadow: bool,
}

const UNSTORED: Path = Path {
    name: "a read that is not stored",
    request: "GET /labels HTTP/1.1\r\ncookie: a=b\r\n",
    shadow: false,
};
const STORED: Path = Path {
    name: "a read that is stored",
    request: "GET /users HTTP/1.1\r\n",
    shadow: false,
};
const HELD: Path = Path {
    name: "a held write",
    request: "PUT /groups/g1/users HTTP/1.1\r\ncontent-length: 2\r\n",
    shadow: false,
};
const DURABLE: Path = Path {
    name: "a durable write",
    request: "PUT /groups/g1/users HTTP/1.1\r\nidempotency-key: k\r\ncontent-length: 2\r\n",
    shadow: false,
};
const SHADOWED: Path = Path {
    name: "a read in shadow mode",
    request: "GET /labels HTTP/1.1\r\n",
    shadow: true,
};
const PATHS: [Path; 5] = [UNSTORED, STORED, HELD, DURABLE, SHADOWED];

const HEAD: Path = Path {
    name: "HEAD",
    request: "HEAD /labels HTTP/1.1\r\n",
    shadow: false,
};
const HEAD_FETCHED: Path = Path {
    name: "HEAD of what is fetched with GET",
    request: "HEAD /users HTTP/1.1\r\n",
    shadow: false,
};
const HEAD_SHADOWED: Path = Path {
    name: "HEAD in shadow mode",
    request: "HEAD /labels HTTP/1.1\r\n",
    shadow: true,
};

fn unchunked(mut text: &str) -> String {
    let mut whole = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n").expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a number");
        if size == 0 {
            return whole;
        }
        whole.push_str(&rest[..size]);
        text = &rest[size + 2..];
    }
}

#[tokio::test]
async fn rfc_9112_section_6_3_chunks_win_over_a_length_on_every_path() {
    let mut gateways = Gateways::start().await;
    for length in ["3", "11", "40", "abc", "3\r\ncontent-length: 4"] {
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n\
            5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
        );
        for path in &PATHS {
            let (head, body) = gateways.answer_to(path, &answer).await;
            assert!(
                head.starts_with("HTTP/1.1 200 OK\r\n"),
                "{}: {head}",
                path.name
            );
            assert_eq!(body, "hello world", "{}: {length}: {head}", path.name);
        }
    }
}

#[tokio::test]
async fn rfc_9110_section_8_6_what_is_no_length_does_not_pass() {
    let mut gateways = Gateways::start().await;
    for length in ["abc", "-1", "+1", "", "4, 5", "99999999999999999999", "4.0"] {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        for path in [&HEAD, &HEAD_SHADOWED] {
            let (head, _) = gateways.answer_to(path, &answer).await;
            assert!(
                head.starts_with("HTTP/1.1 200 OK\r\n"),
                "{}: {head}",
                path.name
            );
            let has_length = head.contains("\r\ncontent-length:");
            assert!(!has_length, "{}: {length:?}: {head}", path.name);
        }
    }
    // What is one passes, and so does one of nothing.
    for length in ["0", "4711"] {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        for path in [&HEAD, &HEAD_SHADOWED] {
            let (head, _) = gateways.answer_to(path, &answer).await;
            let field = format!("\r\ncontent-length: {length}\r\n");
            assert!(head.contains(&field), "{}: {head}", path.name);
        }
    }
    // RFC 9112, 6.3: chunks that HEAD does not show have no length either.
    let both = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n";
    for path in [&HEAD, &HEAD_SHADOWED] {
        let (head, _) = gateways.answer_to(path, both).await;
        assert!(
            !head.contains("\r\ncontent-length:"),
            "{}: {head}",
            path.name
        );
        assert!(
            !head.contains("\r\ntransfer-encoding:"),
            "{}: {head}",
            path.name
        );
    }
}

#[tokio::test]
async fn rfc_9110_section_9_3_2_head_has_the_fields_of_the_answer_to_get() {
    let mut gateways = Gateways::start().await;
    let (chunked, known) = ("transfer-encoding: chunked\r\n", "content-length: 5\r\n");
    // A kept answer has a length in any case; one that is passed on has what the API said.
    for (fields, length) in [
        (known.to_owned(), Some(5)),
        (chunked.to_owned(), Some(5)),
        (format!("{known}vary: *\r\n"), Some(5)),
        (format!("{chunked}vary: *\r\n"), None),
    ] {
        let body = if fields.starts_with(known) {
            "hello"
        } else {
            "5\r\nhello\r\n0\r\n\r\n"
        };
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}x-kept: 1\r\n\r\n{body}");
        let (head, body) = gateways.answer_to(&HEAD_FETCHED, &answer).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nx-kept: 1\r\n"), "{head}");
        assert!(!head.contains("\r\ntransfer-encoding:"), "{head}");
        let said = head.split_once("\r\ncontent-length: ");
        let said = said.and_then(|(_, rest)| rest.split_once('\r')?.0.parse().ok());
        assert_eq!(said, length, "{fields}: {head}");
        assert_eq!(body, "");
    }
}

#[tokio::test]
async fn rfc_9110_section_8_6_an_answer_without_content_has_no_length() {
    let mut gateways = Gateways::start().await;
    for fields in [
        "content-length: 5\r\n",
        "transfer-encoding: chunked\r\n",
        "",
    ] {
        let answer = format!("HTTP/1.1 204 No Content\r\n{fields}\r\n");
        for path in &PATHS {
            let (head, body) = gateways.answer_to(path, &answer).await;
            assert!(head.starts_with("HTTP/1.1 204 "), "{}: {head}", path.name);
            assert!(
                !head.contains("\r\ncontent-length:"),
                "{}: {head}",
                path.name
            );
            assert!(
                !head.contains("\r\ntransfer-encoding:"),
                "{}: {head}",
                path.name
            );
            assert_eq!(body, "", "{}", path.name);
        }
    }
}

#[tokio::test]
async fn rfc_9110_section_2_5_the_version_is_that_of_this_hop() {
    let mut gateways = Gateways::start().await;
    for answer in [
        "HTTP/1.0 200 OK\r\ncontent-length: 4\r\n\r\ntext",
        "HTTP/1.0 200 OK\r\n\r\ntext",
        "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.0 200 OK\r\n\r\ntext",
    ] {
        for path in &PATHS {
            let (head, body) = gateways.answer_to(path, answer).await;
            assert!(
                head.starts_with("HTTP/1.1 200 OK\r\n"),
                "{}: {head}",
                path.name
            );
            assert!(!head.contains("\r\nlink:"), "{}: {head}", path.name);
            assert_eq!(body, "text", "{}", path.name);
        }
    }
}

#[tokio::test]
async fn rfc_9112_section_4_a_status_without_a_usual_phrase_has_its_own_or_none() {
    let mut gateways = Gateways::start().await;
    for (sent, shown) in [
        ("299 ", "299 "),
        ("299", "299 "),
        ("299 Quite fine", "299 Quite fine"),
        ("201 Done", "201 Done"),
        ("201 Created", "201 Created"),
        ("599 ", "599 "),
    ] {
        let answer = format!("HTTP/1.1 {sent}\r\ncontent-length: 4\r\n\r\ntext");
        for path in [&UNSTORED, &HELD, &SHADOWED] {
            let (head, body) = gateways.answer_to(path, &answer).await;
            let line = format!("HTTP/1.1 {shown}\r\n");
            assert!(head.starts_with(&line), "{}: {head}", path.name);
            assert_eq!(body, "text", "{}", path.name);
        }
    }
    // What was kept in between has the usual phrase, or none.
    let answer = "HTTP/1.1 299 Quite fine\r\ncontent-length: 4\r\n\r\ntext";
    let (head, _) = gateways.answer_to(&DURABLE, answer).await;
    assert!(head.starts_with("HTTP/1.1 299 \r\n"), "{head}");
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_a_502_that_says_so() {
    const POST: Path = Path {
        name: "a write that is not idempotent",
        request: "POST /groups/g1/users HTTP/1.1\r\ncontent-length: 0\r\n",
        shadow: false,
    };
    let mut gateways = Gateways::start().await;
    let fields = |count: usize| -> String { (0..count).map(|n| format!("x-{n}: 1\r\n")).collect() };
    let answer = |fields: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n{fields}\r\ntext");
    for path in &PATHS {
        let (head, body) = gateways.answer_to(path, &answer(&fields(99))).await;
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\n"),
            "{}: {head}",
            path.name
        );
        assert_eq!(body, "text", "{}", path.name);
    }
    let long = format!("x-long: {}\r\n", "x".repeat(128 * 1024));
    for unreadable in [
        answer(&fields(100)),
        answer(&long),
        "HTTP/9\r\n\r\n".to_owned(),
    ] {
        for path in [&UNSTORED, &STORED, &SHADOWED, &HEAD, &POST] {
            let (head, body) = gateways.answer_to(path, &unreadable).await;
            assert!(head.starts_with("HTTP/1.1 502 "), "{}: {head}", path.name);
            if path.name == POST.name {
                assert!(body.contains("gateway-outcome-unknown"), "{body}");
                assert!(body.contains("could not be read"), "{body}");
            } else if path.name != HEAD.name {
                assert!(
                    body.contains("gateway-upstream-broken"),
                    "{}: {body}",
                    path.name
                );
                assert!(
                    body.contains("more than 100 fields"),
                    "{}: {body}",
                    path.name
                );
            }
        }
    }
}

#[tokio::test]
async fn fields_that_only_the_gateway_may_say_do_not_pass() {
    let mut gateways = Gateways::start().await;
    let answer = "HTTP/1.1 200 OK\r\nidempotency-replayed: true\r\nx-gateway-shadow: hit\r\n\
        X-Gateway-Anything: 1\r\nx-gateways: kept\r\ncontent-length: 4\r\n\r\ntext";
    for path in PATHS.iter().chain([&HEAD]) {
        let (head, _) = gateways.answer_to(path, answer).await;
        let head = head.to_ascii_lowercase();
        assert!(
            !head.contains("\r\nidempotency-replayed:"),
            "{}: {head}",
            path.name
        );
        assert!(
            !head.contains("x-gateway-anything:"),
            "{}: {head}",
            path.name
        );
        assert!(
            !head.contains("x-gateway-shadow: hit"),
            "{}: {head}",
            path.name
        );
        assert!(
            head.contains("\r\nx-gateways: kept\r\n"),
            "{}: {head}",
            path.name
        );
    }
}
