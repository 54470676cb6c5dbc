//! Answers that no API should give: none is stored as what it is not, and nothing breaks.

use super::*;
use http_body_util::BodyExt;
use segment_gateway::upstream::MemoryConnector;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// An API that writes each of its answers by hand, the last one for ever, and then closes.
fn by_hand(answers: &[&str]) -> (Arc<World>, Arc<AtomicUsize>) {
    let answers: Vec<String> = answers.iter().copied().map(str::to_owned).collect();
    over(
        move |nth| (nth.min(answers.len() - 1), answers.clone()),
        |mut stream, (nth, answers)| async move {
            stream.write_all(answers[nth].as_bytes()).await?;
            stream.shutdown().await
        },
    )
}

/// An API whose connections do this once they have been asked; `given` is told how many were before.
fn over<G, F>(
    given: impl Fn(usize) -> G + Send + Sync + 'static,
    act: impl Fn(DuplexStream, G) -> F + Copy + Send + Sync + 'static,
) -> (Arc<World>, Arc<AtomicUsize>)
where
    G: Send + 'static,
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, given) = (Arc::clone(&asked), Arc::new(given));
    let connector = MemoryConnector::new(move || {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let (count, given) = (Arc::clone(&count), Arc::clone(&given));
        drop(tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(theirs.read_u8().await?);
            }
            let nth = count.fetch_add(1, Ordering::SeqCst);
            act(theirs, given(nth)).await
        }));
        std::future::ready(Ok(ours))
    });
    let world = Setup::new(SandboxSpec::default()).start_over(connector);
    (Arc::new(world), asked)
}

/// An answer of 200 with these lines and this body.
fn raw(lines: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{lines}\r\n{body}")
}

const LONG: &str = "cache-control: max-age=60\r\n";

#[tokio::test(start_paused = true)]
async fn what_can_be_understood_in_one_way_only_is_stored() {
    let now = format!("date: {}\r\n", date(0));
    let soon = format!("expires: {}\r\n", date(60));
    let plain = raw(&format!("{LONG}content-length: 4\r\n"), "text");
    let cases = [
        (
            "RFC 9110, 15.2: an interim answer comes before the final one",
            format!("HTTP/1.1 103 Early Hints\r\ncache-control: no-store\r\n\r\n{plain}"),
        ),
        (
            "RFC 9110, 15.2: several of them",
            format!("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n{plain}"),
        ),
        (
            "RFC 9110, 6.6.1: no Date",
            raw(&format!("{soon}content-length: 4\r\n"), "text"),
        ),
        (
            "5.3: a Date",
            raw(&format!("{now}{soon}content-length: 4\r\n"), "text"),
        ),
        (
            "RFC 9112, 7.1: chunks",
            raw(
                &format!("{LONG}transfer-encoding: chunked\r\n"),
                "2\r\nte\r\n2\r\nxt\r\n0\r\n\r\n",
            ),
        ),
        (
            "RFC 9112, 6.3: the end of the connection ends the answer",
            raw(LONG, "text"),
        ),
        (
            "RFC 9112, 2.3: an answer of HTTP/1.0",
            format!("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n{LONG}\r\ntext"),
        ),
        (
            "RFC 9112, 6.3: more than was promised",
            raw(&format!("{LONG}content-length: 4\r\n"), "text and more"),
        ),
    ];
    for (why, answer) in cases {
        let (world, asked) = by_hand(&[&answer]);
        let first = world.get(LABELS, "a").await;
        assert_eq!(
            (first.status.as_u16(), &*first.body),
            (200, &b"text"[..]),
            "{why}"
        );
        assert!(first.headers.contains_key("date"), "{why}");
        let second = world.get(LABELS, "a").await;
        assert_eq!(
            second.cache_status(),
            "segment-gateway; hit; ttl=60",
            "{why}"
        );
        assert_eq!(
            (second.status.as_u16(), &*second.body),
            (200, &b"text"[..]),
            "{why}"
        );
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_whole_or_not_clear_is_not_stored() {
    let good = raw("content-length: 4\r\ncache-control: max-age=5\r\n", "good");
    let cases = [
        (
            "3.3: shorter than was promised",
            raw(&format!("{LONG}content-length: 9\r\n"), "text"),
        ),
        (
            "3.3: a chunk that breaks off",
            raw(
                &format!("{LONG}transfer-encoding: chunked\r\n"),
                "9\r\ntext",
            ),
        ),
        (
            "3.3: no last chunk",
            raw(
                &format!("{LONG}transfer-encoding: chunked\r\n"),
                "4\r\ntext\r\n",
            ),
        ),
        (
            "RFC 9112, 7.1: a chunk without a size",
            raw(
                &format!("{LONG}transfer-encoding: chunked\r\n"),
                "x\r\ntext\r\n0\r\n\r\n",
            ),
        ),
        (
            "RFC 9112, 6.3: two lengths",
            raw(
                &format!("{LONG}content-length: 4\r\ncontent-length: 5\r\n"),
                "text",
            ),
        ),
        (
            "RFC 9112, 6.3: a list of different lengths",
            raw(&format!("{LONG}content-length: 4, 5\r\n"), "text"),
        ),
        (
            "RFC 9112, 6.3: a length that is none",
            raw(&format!("{LONG}content-length: -4\r\n"), "text"),
        ),
        (
            "RFC 9110, 5.5: bytes that are no text, in Cache-Control",
            raw(
                "cache-control: max-age=60\u{e9}\r\ncontent-length: 4\r\n",
                "text",
            ),
        ),
        (
            "RFC 9110, 6.5: trailers",
            raw(
                &format!("{LONG}trailer: x-a\r\ntransfer-encoding: chunked\r\n"),
                "4\r\ntext\r\n0\r\nx-a: 1\r\n\r\n",
            ),
        ),
        ("no HTTP at all", "SSH-2.0-x\r\n\r\n".to_owned()),
        ("nothing", String::new()),
    ];
    for (why, answer) in cases {
        let (world, asked) = by_hand(&[&answer, &good]);
        let first = world.get(LABELS, "a").await;
        match first.status.as_u16() {
            200 => assert_eq!(first.body, "text", "{why}"),
            status => assert_eq!(
                (status, &*first.error_type()),
                (502, "gateway-upstream-broken"),
                "{why}"
            ),
        }
        assert_eq!(world.gateway.cache().stats().fetches, 0, "{why}");
        let second = world.get(LABELS, "a").await;
        assert_eq!(
            second.cache_status(),
            "segment-gateway; fwd=uri-miss; stored",
            "{why}"
        );
        assert_eq!(second.body, "good", "{why}");
        assert_eq!(asked.load(Ordering::SeqCst), 2, "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn rfc_5861_section_4_what_breaks_off_has_failed_although_it_could_not_be_stored() {
    let good = raw(
        "cache-control: max-age=10, stale-if-error=60\r\ncontent-length: 4\r\n",
        "good",
    );
    for header in ["cache-control: no-store\r\n", ""] {
        let cut = raw(&format!("{header}content-length: 40\r\n"), "cut");
        let (world, asked) = by_hand(&[&good, &cut]);
        world.get(LABELS, "a").await;
        sleep(Duration::from_secs(15)).await;
        let answer = world.get(LABELS, "a").await;
        assert_eq!(answer.body, "good", "{header:?}");
        assert_eq!(
            answer.cache_status(),
            "segment-gateway; fwd=stale; ttl=-5; detail=stale-if-error"
        );
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn rfc_9110_section_8_6_equal_lengths_are_one() {
    for lengths in [
        "content-length: 4, 4\r\n",
        "content-length: 4\r\ncontent-length: 4\r\n",
    ] {
        let (world, _) = by_hand(&[&raw(&format!("{LONG}{lengths}"), "text")]);
        for cache in ["fwd=uri-miss; stored", "hit; ttl=60"] {
            let answer = world.get(LABELS, "a").await;
            assert_eq!(answer.body, "text", "{lengths:?}");
            assert_eq!(answer.cache_status(), format!("segment-gateway; {cache}"));
        }
        let passed = with(request(Method::GET, LABELS, "a", ""), "cookie", "a=b");
        let answer = world.send(passed).await;
        let shown: Vec<_> = answer.headers.get_all("content-length").iter().collect();
        assert_eq!(shown, ["4"], "{lengths:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rfc_9112_section_6_3_chunks_beside_a_length_are_never_taken_for_something_else() {
    let both = raw(
        &format!("{LONG}content-length: 3\r\ntransfer-encoding: chunked\r\n"),
        "4\r\ntext\r\n0\r\n\r\n",
    );
    let (world, _) = by_hand(&[&both]);
    for _ in 0..2 {
        let answer = world.get(LABELS, "a").await;
        assert!(!answer.headers.contains_key("content-length"));
        match answer.status.as_u16() {
            200 => assert_eq!(answer.body, "text"),
            status => assert_eq!(status, 502),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rfc_9112_section_6_1_bytes_in_a_transfer_coding_that_nobody_knows_are_not_the_answer() {
    let coded = raw(&format!("{LONG}transfer-encoding: gzip\r\n"), "coded");
    let (world, _) = by_hand(&[&coded]);
    for _ in 0..2 {
        let answer = world.get(LABELS, "a").await;
        assert_eq!(answer.error_type(), "gateway-upstream-broken");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_an_answer_is_not_the_next_one() {
    let first = raw(&format!("{LONG}content-length: 4\r\n"), "text");
    let smuggled = raw(&format!("{LONG}content-length: 4\r\n"), "evil");
    let (world, asked) = by_hand(&[&format!("{first}{smuggled}"), &first]);
    for target in [LABELS, "/sources", "/labels?a=b"] {
        assert_eq!(world.get(target, "a").await.body, "text", "{target}");
        assert_eq!(world.get(target, "a").await.body, "text", "{target}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_an_end_streams_and_is_not_stored() {
    const PIECE: [u8; 1024] = [b'x'; 1024];
    for lines in [
        LONG,
        "cache-control: max-age=60\r\ncontent-encoding: gzip\r\n",
    ] {
        let head = raw(lines, "");
        let (world, asked) = over(
            move |_| head.clone(),
            |mut stream, head| async move {
                stream.write_all(head.as_bytes()).await?;
                loop {
                    stream.write_all(&PIECE).await?;
                }
            },
        );
        for n in 1..=2 {
            let ask = request(Method::GET, USERS, "a", "");
            let ask = with(ask, "accept-encoding", "gzip");
            let answer = world.gateway.answer(ask).await;
            let status = answer.headers()["cache-status"].to_str().expect("text");
            assert!(status.ends_with("detail=too-large"), "{status}");
            let mut body = answer.into_body();
            let mut bytes = 0;
            while bytes < 8 << 20 {
                let frame = body.frame().await.expect("more").expect("a frame");
                bytes += frame.into_data().expect("bytes").len();
            }
            drop(body);
            assert_eq!(asked.load(Ordering::SeqCst), n);
            let stats = world.gateway.cache().stats();
            assert_eq!((stats.entries, stats.fetches), (0, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_beginning_is_an_error_in_time() {
    let (world, _) = over(
        |_| (),
        |mut stream, ()| async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                stream.write_all(b"x-a: 1\r\n").await?;
                sleep(Duration::from_secs(1)).await;
            }
        },
    );
    let answer = world.get(USERS, "a").await;
    assert_eq!(answer.error_type(), "gateway-upstream-timeout");
    assert_eq!(world.gateway.cache().stats().fetches, 0);
}

#[tokio::test(start_paused = true)]
async fn section_4_3_4_an_unasked_304_is_no_answer() {
    hold([
        rule("nothing is stored")
            .on(USERS)
            .api(says(304, &["etag: \"a\"", "cache-control: max-age=60"]))
            .api(ok::<&str>(&[]))
            .get()
            .error(502, "gateway-upstream-broken")
            .asked(1)
            .get()
            .stored()
            .shows(2),
        rule("what is stored has no validators")
            .api(ok(&["cache-control: max-age=10"]))
            .api(says(304, &["etag: \"a\"", "cache-control: max-age=60"]))
            .api(ok(&["cache-control: max-age=10"]))
            .get()
            .stored()
            .wait(10)
            .get()
            .error(502, "gateway-upstream-broken")
            .asked(1)
            .get()
            .renewed()
            .shows(3),
        rule("something stale may stand in for it")
            .api(ok(&["cache-control: max-age=10, stale-if-error=60"]))
            .api(says(304, &["etag: \"a\""]))
            .get()
            .stored()
            .wait(15)
            .get()
            .sees("fwd=stale; ttl=-5; detail=stale-if-error")
            .shows(1),
        rule("nor is it one to a read that passes by")
            .api(says(304, &["etag: \"a\""]))
            .get()
            .with("cookie: a=b")
            .error(502, "gateway-upstream-broken")
            .asked(1)
            .get()
            .with("cookie: a=b")
            .with("if-none-match: \"a\"")
            .status(304)
            .sees("fwd=bypass; detail=cookie"),
    ])
    .await;
}

/// Values that a field should not have, and some that only some fields should have.
const ODD: [&str; 26] = [
    "",
    ",",
    ", ,",
    "\"",
    "\"\"",
    "'",
    "=",
    "max-age",
    "max-age=",
    "max-age=\"",
    "max-age=-1",
    "max-age=99999999999999999999",
    "no-cache=\"",
    "-1",
    "0",
    "99999999999999999999",
    "1.5",
    "*",
    "W/",
    "W/\"",
    "W/\"a\"",
    "a b",
    "gzip",
    "bytes 0-1/2",
    "Mon, 32 Foo 2026 99:99:99 GMT",
    "Friday, 01-Jan-99 00:00:00 GMT",
];

#[tokio::test(start_paused = true)]
async fn no_field_of_an_answer_is_too_odd() {
    const NAMES: [&str; 16] = [
        "age",
        "cache-control",
        "cache-status",
        "cdn-cache-control",
        "content-encoding",
        "content-range",
        "date",
        "etag",
        "expires",
        "last-modified",
        "location",
        "pragma",
        "retry-after",
        "vary",
        "via",
        "warning",
    ];
    let script = Script::new(|seen: &Seen, _| {
        let (_, numbers) = seen.target.split_once("?n=").expect("numbers");
        let (name, value) = numbers.split_once('-').expect("two");
        let name = NAMES[name.parse::<usize>().expect("a number")];
        let value = ODD[value.parse::<usize>().expect("a number")];
        let odd = format!("{name}: {value}");
        let answer = ok(&[odd.as_str(), "etag: \"t\"", "cache-control: max-age=60"]);
        Step::Answer(body(answer, "text"))
    });
    let mut setup = Setup::new(SandboxSpec::default());
    setup.config.callers.burst = 100_000;
    let world = script.world_of(setup);
    let conditions = [
        None,
        Some(("if-none-match", "\"x\"")),
        Some(("if-modified-since", "Mon, 01 Jan 1990 00:00:00 GMT")),
        Some(("range", "bytes=0-99")),
        Some(("cache-control", "max-stale")),
    ];
    for (name, value) in (0..NAMES.len()).flat_map(|n| (0..ODD.len()).map(move |v| (n, v))) {
        let target = format!("/v9/x?n={name}-{value}");
        let shown = format!("{}: {:?}", NAMES[name], ODD[value]);
        for condition in conditions {
            sleep(Duration::from_secs(1)).await;
            let plain = request(Method::GET, &target, "a", "");
            let ask = match condition {
                Some((name, value)) => with(plain, name, value),
                None => plain,
            };
            let answer = world.send(ask).await;
            assert!(
                matches!(answer.status.as_u16(), 200 | 206),
                "{shown}: {answer:?}"
            );
            assert_eq!(answer.body, "text", "{shown}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_field_of_a_request_is_too_odd() {
    const NAMES: [&str; 9] = [
        "accept-encoding",
        "cache-control",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "pragma",
        "range",
        "accept-language",
        "x-a",
    ];
    let script = Script::new(|_, _| {
        let answer = ok(&["cache-control: max-age=60", "vary: x-a", "etag: \"t\""]);
        Step::Answer(body(answer, "text"))
    });
    let mut setup = Setup::new(SandboxSpec::default());
    setup.config.callers.burst = 100_000;
    let world = script.world_of(setup);
    for name in NAMES {
        for value in ODD {
            sleep(Duration::from_secs(1)).await;
            let ask = request(Method::GET, LABELS, "a", "");
            let ask = with(ask, "range", "bytes=0-9");
            let ask = with(ask, name, value);
            let answer = world.send(ask).await;
            let status = answer.status.as_u16();
            assert!(
                matches!(status, 200 | 206 | 304),
                "{name}: {value}: {answer:?}"
            );
            let expected = if status == 304 { "" } else { "text" };
            assert_eq!(answer.body, expected, "{name}: {value}");
        }
    }
}
