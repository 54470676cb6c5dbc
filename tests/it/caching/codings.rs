//! Content codings (RFC 9110, sections 8.4 and 12.5.3): an answer is stored as it came and shown
//! to each reader as that understands it.

use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body::Body as _;
use std::io::Write;

const TEXT: &str = "a text that says the same again, a text that says the same again";
const PACKED: &str = "accept-encoding: gzip";

fn gzip(text: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).expect("a whole text");
    encoder.finish().expect("a whole text").into()
}

/// The text, compressed, with these fields.
fn packed<S: AsRef<str>>(fields: &[S]) -> Response<Bytes> {
    let mut answer = body(ok(fields), gzip(TEXT.as_bytes()));
    let coding = HeaderValue::from_static("gzip");
    answer.headers_mut().insert("content-encoding", coding);
    answer
}

/// What a reader sees who understands it.
fn as_it_is(row: Exchange) -> Exchange {
    row.body(gzip(TEXT.as_bytes()))
        .has("content-encoding: gzip")
        .has("etag: \"a\"")
}

/// What a reader sees who does not.
fn decoded(row: Exchange) -> Exchange {
    row.body(TEXT)
        .lacks("content-encoding")
        .has("etag: W/\"a\"")
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_stored_once_and_shown_as_each_reader_understands_it() {
    let row = |why: &str| rule(why).on(USERS).api(packed(&["etag: \"a\""]));
    hold([
        as_it_is(
            row("RFC 9110, 12.5.3: fetched by one that understands it")
                .get()
                .with(PACKED)
                .stored(),
        )
        .has("vary: accept-encoding"),
        as_it_is(
            decoded(
                row("RFC 9110, 12.5.3: fetched by one that does not")
                    .get()
                    .stored()
                    .api_saw("accept-encoding: gzip"),
            )
            .has("vary: accept-encoding")
            .get()
            .with(PACKED)
            .hit(60),
        )
        .has("vary: accept-encoding")
        .lacks("content-length"),
        decoded(
            row("RFC 9110, 8.8.3.3: a decoded copy has a weak tag")
                .get()
                .with(PACKED)
                .stored()
                .get()
                .hit(60),
        )
        .has("vary: accept-encoding")
        .lacks("content-length"),
        row("RFC 9110, 8.8.3: a tag that is weak already stays so")
            .get()
            .api(packed(&["etag: W/\"a\""]))
            .get()
            .with("cache-control: no-cache")
            .get()
            .hit(60)
            .has("etag: W/\"a\""),
        row("RFC 9110, 9.3.2: HEAD says how long each would be")
            .get()
            .stored()
            .head()
            .hit(60)
            .has(format!("content-length: {}", TEXT.len()))
            .lacks("content-encoding")
            .head()
            .with(PACKED)
            .hit(60)
            .has(format!("content-length: {}", gzip(TEXT.as_bytes()).len()))
            .has("content-encoding: gzip"),
        row("RFC 9110, 14.2: a part of the bytes that are stored")
            .get()
            .stored()
            .get()
            .with(PACKED)
            .with("range: bytes=0-3")
            .hit(60)
            .status(206)
            .body(gzip(TEXT.as_bytes()).slice(..4))
            .has("content-encoding: gzip")
            .get()
            .with("range: bytes=0-3")
            .hit(60)
            .body(TEXT)
            .lacks("content-range"),
        row("RFC 9110, 13.1.2: whoever has either has both")
            .get()
            .stored()
            .get()
            .with("if-none-match: W/\"a\"")
            .hit(60)
            .status(304)
            .has("etag: W/\"a\"")
            .get()
            .with("if-none-match: \"a\"")
            .hit(60)
            .status(304)
            .get()
            .with(PACKED)
            .with("if-none-match: W/\"a\"")
            .hit(60)
            .status(304)
            .has("etag: \"a\"")
            .has("vary: accept-encoding"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_12_5_3_who_understands_it() {
    let cases: &[(&str, bool)] = &[
        ("gzip", true),
        ("GZip", true),
        ("x-gzip", true),
        ("br, gzip;q=0.5", true),
        ("*", true),
        ("gzip;q=0.001", true),
        ("gzip;q=1.000, identity", true),
        ("gzip;q=0", false),
        ("gzip;q=0.0, *", false),
        ("*;q=0", false),
        ("br", false),
        ("identity", false),
        ("identity, gzip;q=0.5", false),
        ("gzip;q=2", false),
        ("", false),
    ];
    hold(cases.iter().map(|(value, understands)| {
        let row = rule(format!("RFC 9110, 12.5.3: {value}"))
            .on(USERS)
            .api(packed(&["etag: \"a\""]))
            .get()
            .stored()
            .get()
            .with(format!("accept-encoding: {value}"))
            .hit(60);
        if *understands {
            as_it_is(row)
        } else {
            decoded(row)
        }
    }))
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_the_api_is_asked_for() {
    let row = |why: &str, target| rule(why).on(target).api(ok::<&str>(&[]));
    hold([
        row("where the route stores it: for everybody", USERS)
            .get()
            .with("accept-encoding: br")
            .api_saw("accept-encoding: gzip"),
        row(
            "where nobody says that it is stored: what the reader understands",
            LABELS,
        )
        .get()
        .api_did_not_see("accept-encoding")
        .get()
        .with("accept-encoding: br")
        .api_saw("accept-encoding: br")
        .get()
        .with("accept-encoding: br, gzip")
        .api_saw("accept-encoding: gzip"),
        row("what is passed on: what the reader says", LABELS)
            .get()
            .with("accept-encoding: br, gzip")
            .with("if-match: *")
            .api_saw("accept-encoding: br, gzip"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_stored_is_decoded_on_its_way() {
    let row = |why: &str| {
        let answer = packed(&["cache-control: no-store", "etag: \"a\""]);
        rule(why).on(USERS).api(answer).get()
    };
    let other = |coding: &str| {
        let field = format!("content-encoding: {coding}");
        body(ok(&[field]), "bytes")
    };
    hold([
        decoded(row("for who does not understand it").sees("fwd=uri-miss; detail=no-store"))
            .lacks("content-length"),
        as_it_is(row("not for who does").with(PACKED)),
        rule("another coding passes as it is, and is not stored")
            .on(USERS)
            .api(other("br"))
            .get()
            .sees("fwd=uri-miss; detail=content-encoding")
            .body("bytes")
            .has("content-encoding: br"),
        rule("two codings as well")
            .on(USERS)
            .api(other("gzip, gzip"))
            .get()
            .sees("fwd=uri-miss; detail=content-encoding")
            .body("bytes")
            .has("content-encoding: gzip, gzip"),
        rule("RFC 9110, 8.4.1: identity is none")
            .on(USERS)
            .api(other("identity"))
            .get()
            .stored()
            .get()
            .hit(60)
            .body("bytes"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_what_it_says_is_not_stored() {
    let undecodable = "fwd=uri-miss; detail=undecodable";
    let too_large = "fwd=uri-miss; detail=too-large";
    let refused = |why: &str, bytes: Bytes, detail: &str| {
        let answer = packed::<&str>(&[]).map(|_| bytes.clone());
        let row = rule(why).on(USERS).api(answer);
        let row = row.get().with(PACKED).sees(detail).body(bytes.clone());
        row.get().with(PACKED).sees(detail).body(bytes)
    };
    let row = |why: &str, bytes| refused(why, bytes, undecodable);
    let whole = gzip(TEXT.as_bytes());
    let mut damaged = whole.to_vec();
    damaged[20] ^= 0xff;
    let trailing = [&whole[..], b"more"].concat();
    // It fits in the store as it is, but not decoded.
    let swollen = gzip(&vec![0; 5 << 20]);
    hold([
        row("no gzip at all", Bytes::from_static(TEXT.as_bytes())),
        row("an end that is missing", whole.slice(..whole.len() - 9)),
        row("a sum that is missing", whole.slice(..whole.len() - 4)),
        row("bytes that were damaged", damaged.into()),
        row("bytes behind the end", trailing.into()),
        refused("what swells beyond all bounds", swollen.clone(), too_large),
        rule("what swells beyond all bounds is shown to everybody as it can be read")
            .on(USERS)
            .api(packed::<&str>(&[]).map(|_| swollen))
            .get()
            .sees(too_large)
            .lacks("content-encoding")
            .body(vec![0; 5 << 20]),
        rule("several members are one text")
            .on(USERS)
            .api(packed::<&str>(&[]).map(|_| [gzip(b"ab"), gzip(b"cd")].concat().into()))
            .get()
            .stored()
            .body("abcd"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decoded_for_a_reader_is_asked_for_once_without_a_coding() {
    let whole = gzip(TEXT.as_bytes());
    let mut damaged = whole.to_vec();
    damaged[12] ^= 0xff;
    let none = Bytes::from_static(TEXT.as_bytes());
    let long = Bytes::from(vec![b'x'; 5 << 20]);
    for (why, fields, bytes) in [
        ("no gzip at all", "", none.clone()),
        ("an end that is missing", "", whole.slice(..20)),
        ("damaged", "", damaged.clone().into()),
        ("no gzip, not stored", "cache-control: no-store", none),
        (
            "damaged, not stored",
            "cache-control: no-store",
            damaged.into(),
        ),
        ("no gzip, too large to be stored", "", long),
    ] {
        let fields: Vec<&str> = Vec::from_iter((!fields.is_empty()).then_some(fields));
        let wrong = packed(&fields).map(|_| bytes.clone());
        hold([
            rule(why)
                .on(USERS)
                .api(wrong.clone())
                .api(body(ok::<&str>(&[]), "plain"))
                .get()
                .lacks("content-encoding")
                .body("plain")
                .asked(2)
                .api_did_not_see("accept-encoding"),
            rule(format!("{why}, for a reader who may have it"))
                .on(USERS)
                .api(wrong.clone())
                .get()
                .with(PACKED)
                .has("content-encoding: gzip")
                .body(bytes.clone())
                .asked(1),
        ])
        .await;
        // Another attempt does not leave in time.
        let wrong = field(wrong, "connection", "close");
        let script =
            Script::new(move |_: &Seen, _| Step::Later(Duration::from_secs(1), wrong.clone()));
        let world = script.world();
        let reader = world.spawn(request(Method::GET, USERS, "a", ""));
        while script.count() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        script.refuse(usize::MAX);
        let heard = reader.await.expect("an answer");
        assert_eq!(heard.status, 502, "{why}: {heard:?}");
        assert_eq!(heard.error_type(), "gateway-upstream-broken", "{why}");
        assert!(heard.text().contains("compressed"), "{why}: {heard:?}");
        assert_eq!(script.count(), 1, "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn section_5_2_2_6_what_must_not_be_changed_is_not_decoded() {
    let kept = || packed(&["cache-control: max-age=60, no-transform", "etag: \"a\""]);
    let plain = || body(ok(&["cache-control: max-age=60"]), "plain");
    let alone = "fwd=miss; detail=not-shared";
    let row = |why: &str| rule(format!("5.2.2.6: {why}")).on(USERS);
    hold([
        as_it_is(
            row("who understands it gets it")
                .api(kept())
                .get()
                .with(PACKED)
                .stored(),
        )
        .get()
        .with(PACKED)
        .hit(60),
        row("who does not asks for itself")
            .api(kept())
            .api(plain())
            .get()
            .with(PACKED)
            .stored()
            .get()
            .sees(alone)
            .body("plain")
            .api_did_not_see("accept-encoding")
            .get()
            .with(PACKED)
            .hit(60),
        row("who does not and wants only what is stored")
            .api(kept())
            .get()
            .with(PACKED)
            .stored()
            .get()
            .with("cache-control: only-if-cached")
            .not_cached(),
        row("it does not stand in for a failure, decoded")
            .api(packed(&[
                "cache-control: max-age=10, stale-if-error=60, no-transform",
                "etag: \"a\"",
            ]))
            .api(says::<&str>(503, &[]))
            .get()
            .with(PACKED)
            .stored()
            .wait(15)
            .get()
            .status(503),
        row("nor is it decoded for who fetches it")
            .api(kept())
            .api(plain())
            .get()
            .body("plain"),
        row("nor if it is not stored")
            .api(packed(&["cache-control: no-store, no-transform"]))
            .api(plain())
            .get()
            .body("plain"),
        row("nor once it is confirmed")
            .api(packed(&[
                "cache-control: max-age=10, no-transform",
                "etag: \"a\"",
            ]))
            .api(says::<&str>(304, &[]))
            .api(plain())
            .get()
            .with(PACKED)
            .stored()
            .wait(10)
            .get()
            .body("plain"),
        rule("5.2.1.6: nor if a reader says so, of what is stored")
            .on(USERS)
            .api(packed(&["etag: \"a\""]))
            .api(plain())
            .get()
            .with(PACKED)
            .stored()
            .get()
            .with("cache-control: no-transform")
            .sees(alone)
            .body("plain")
            .get()
            .hit(60)
            .body(TEXT),
        rule("5.2.1.6: nor of what it fetches")
            .on(USERS)
            .api(packed(&["etag: \"a\""]))
            .api(plain())
            .get()
            .with("cache-control: no-transform")
            .body("plain"),
        row("plain bytes are what they are")
            .api(body(ok(&["cache-control: max-age=60, no-transform"]), TEXT))
            .get()
            .stored()
            .get()
            .with(PACKED)
            .hit(60)
            .body(TEXT),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn rfc_9530_a_decoded_copy_does_not_have_the_digest_of_the_compressed_one() {
    hold([rule("RFC 9530, 2 and 3")
        .on(USERS)
        .api(packed(&[
            "content-digest: sha-256=:AA==:",
            "repr-digest: sha-256=:AA==:",
        ]))
        .get()
        .body(TEXT)
        .lacks("content-digest")
        .lacks("repr-digest")])
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_length_is_that_of_what_is_sent() {
    let script = Script::new(|_, _| Step::Answer(packed(&["etag: \"a\""])));
    let world = script.world();
    let short = gzip(TEXT.as_bytes()).len();
    // The first of each is fetched, the others are stored.
    for (target, coding) in [
        (USERS, "gzip"),
        (USERS, "gzip"),
        (USERS, "br"),
        ("/users/u", "br"),
        ("/users/u", "br"),
    ] {
        let ask = request(Method::GET, target, "a", "");
        let ask = with(ask, "accept-encoding", coding);
        let answer = world.gateway.answer(ask).await;
        let expected = if coding == "gzip" { short } else { TEXT.len() };
        let exact = answer.body().size_hint().exact();
        assert_eq!(exact, Some(expected as u64), "{target} {coding}");
        assert!(!answer.headers().contains_key("content-length"));
    }
}
