//! Which stored answer is chosen (RFC 9111, sections 2, 4 and 4.1).

use super::*;

fn varies(by: &str) -> Response<Bytes> {
    ok(&[
        "cache-control: max-age=60".to_owned(),
        format!("vary: {by}"),
    ])
}

#[tokio::test(start_paused = true)]
async fn section_4_1_answers_that_vary_are_stored_side_by_side() {
    const MISS: &str = "fwd=uri-miss; stored";
    let twice = |why: &str, by: &str| rule(why).api(varies(by)).api(varies(by)).api(varies(by));
    hold([
        twice("4.1: each selection has its own", "Accept-Language")
            .get()
            .with("accept-language: en")
            .stored()
            .get()
            .with("accept-language: de")
            .sees(MISS)
            .shows(2)
            .get()
            .with("accept-language: en")
            .hit(60)
            .shows(1)
            .get()
            .with("accept-language: de")
            .hit(60)
            .shows(2)
            .get()
            .sees(MISS)
            .shows(3),
        twice("4.1: by several fields", "accept-language, X-A")
            .get()
            .with("accept-language: en")
            .with("x-a: 1")
            .stored()
            .get()
            .with("accept-language: en")
            .with("x-a: 2")
            .sees(MISS)
            .get()
            .with("x-a: 1")
            .with("accept-language: en")
            .hit(60)
            .shows(1),
        rule("4.1: named in several lines")
            .api(ok(&["cache-control: max-age=60", "vary: x-a", "vary: x-b"]))
            .get()
            .stored()
            .get()
            .with("x-b: 1")
            .sees(MISS)
            .get()
            .with("x-a: 1")
            .sees(MISS)
            .get()
            .hit(60),
        twice("4.1: what is absent is not what is empty", "x-a")
            .get()
            .stored()
            .get()
            .with("x-a: ")
            .sees(MISS)
            .get()
            .hit(60)
            .shows(1),
        twice("4.1: lines mean nothing, but spaces might", "x-a")
            .get()
            .with("x-a: 1, 2")
            .stored()
            .get()
            .with("x-a: 1")
            .with("x-a: 2")
            .hit(60)
            .get()
            .with("x-a: 1,2")
            .sees(MISS)
            .get()
            .with("x-a: 2, 1")
            .sees(MISS)
            .get()
            .with("x-a: 12")
            .sees(MISS),
        twice("4.1: spaces within a quoted string do", "x-a")
            .get()
            .with("x-a: \"1, 2\"")
            .stored()
            .get()
            .with("x-a: \"1,2\"")
            .sees(MISS),
        twice("4.1: values have their case", "x-a")
            .get()
            .with("x-a: a")
            .stored()
            .get()
            .with("x-a: A")
            .sees(MISS),
        twice(
            "4.1: a field that is not sent means nothing",
            "x-a, user-agent",
        )
        .get()
        .with("x-a: 1")
        .with("user-agent: sdk/1")
        .stored()
        .get()
        .with("x-a: 1")
        .with("user-agent: sdk/2")
        .hit(60),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_4_1_what_varies_is_stale_and_compared_by_itself() {
    let tagged = |tag: &str| {
        ok(&[
            "cache-control: max-age=10".to_owned(),
            "vary: x-a".to_owned(),
            format!("etag: {tag}"),
        ])
    };
    hold([
        rule("4.3.1: each selection is asked about with its own tag")
            .api(tagged("\"a\""))
            .api(tagged("\"b\""))
            .api(says(304, &["etag: \"a\""]))
            .get()
            .with("x-a: 1")
            .stored()
            .get()
            .with("x-a: 2")
            .stored()
            .api_did_not_see("if-none-match")
            .wait(10)
            .get()
            .with("x-a: 1")
            .confirmed()
            .shows(1)
            .api_saw("if-none-match: \"a\"")
            .get()
            .with("x-a: 1")
            .hit(10),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_4_1_what_varies_too_much_is_not_stored() {
    let not = "fwd=uri-miss; detail=vary";
    let row = |why: &str, by: &str| rule(why).api(varies(by)).get().sees(not).get().sees(not);
    hold([
        row("4.1: an asterisk matches nothing", "*"),
        row("4.1: also among others", "x-a, *"),
        row("4.1: more fields than are told apart", "a,b,c,d,e,f,g,h,i"),
        row("4.1: what is no name of a field", "x a"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_4_1_what_every_key_holds_parts_answers_whether_they_vary_or_not() {
    hold([
        rule("4.1: Accept, Accept-Encoding, Authorization and Origin")
            .api(varies("Accept, accept-encoding, Authorization, Origin"))
            .get()
            .stored()
            .get()
            .with("accept-encoding: br")
            .hit(60)
            .get()
            .with("accept: text/html")
            .stored()
            .get()
            .with("origin: https://a.example")
            .stored()
            .get()
            .by("b")
            .stored(),
        rule("2: without a word of Vary")
            .api(ok(&["cache-control: max-age=60"]))
            .get()
            .stored()
            .get()
            .with("accept: text/html")
            .stored()
            .get()
            .with("accept-language: *")
            .with("user-agent: sdk/2")
            .hit(60)
            .ask_for(Method::GET, "/labels?a=b")
            .stored()
            .ask_for(Method::GET, "/sources")
            .stored(),
    ])
    .await;
}

/// A request for the list of users in this language.
fn in_language(language: &str) -> http::Request<http_body_util::Full<Bytes>> {
    with(
        request(Method::GET, USERS, "a", ""),
        "accept-language",
        language,
    )
}

#[tokio::test(start_paused = true)]
async fn section_4_1_who_joins_a_fetch_with_other_fields_gets_an_answer_of_its_own() {
    let script = Script::new(|seen: &Seen, _| {
        let language = seen.headers["accept-language"].to_str().expect("text");
        let answer = body(varies("accept-language"), language.to_owned());
        Step::Later(Duration::from_secs(1), answer)
    });
    let world = script.world();
    let mut readers = Vec::new();
    for language in ["en", "de", "en", "fr", "de"] {
        readers.push((language, world.spawn(in_language(language))));
        sleep(Duration::from_millis(10)).await;
    }
    for (nth, (language, reader)) in readers.into_iter().enumerate() {
        let answer = reader.await.expect("an answer");
        assert_eq!(answer.body, language);
        if nth == 2 {
            let sees = "segment-gateway; fwd=uri-miss; collapsed";
            assert_eq!(answer.cache_status(), sees);
        }
    }
    let before = script.count();
    for language in ["en", "de", "fr"] {
        let answer = world.send(in_language(language)).await;
        assert_eq!(answer.body, language);
    }
    let asked_for: Vec<_> = script.seen().split_off(before);
    // What was fetched for a reader alone is not stored.
    assert!(asked_for.len() <= 1, "{asked_for:?}");
}

#[tokio::test(start_paused = true)]
async fn section_4_a_reload_does_not_join_a_fetch_that_began_before_it() {
    for directive in ["no-cache", "max-age=0"] {
        let script = Script::new(|_, n| {
            let answer = body(ok::<&str>(&[]), n.to_string());
            Step::Later(Duration::from_secs(1), answer)
        });
        let world = script.world();
        let early = world.spawn(request(Method::GET, USERS, "a", ""));
        sleep(Duration::from_millis(500)).await;
        let reload = request(Method::GET, USERS, "a", "");
        let reload = world.spawn(with(reload, "cache-control", directive));
        sleep(Duration::from_millis(100)).await;
        let late = world.spawn(request(Method::GET, USERS, "a", ""));
        assert_eq!(early.await.expect("an answer").body, "0");
        assert_eq!(reload.await.expect("an answer").body, "1", "{directive}");
        assert_eq!(late.await.expect("an answer").body, "1", "the newest");
        assert_eq!(world.get(USERS, "a").await.body, "1");
        assert_eq!(script.count(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_costs_one_fetch_for_each_variant() {
    for (target, fields, fetches) in [
        (LABELS, &["cache-control: max-age=60"][..], 6),
        (LABELS, &["cache-control: max-age=60", "vary: x-a"], 6),
        (USERS, &["vary: x-a"], 6),
    ] {
        let script = Script::new(move |seen, _| {
            let shown = seen
                .headers
                .get("x-a")
                .map_or("", |value| value.to_str().expect("text"));
            Step::Later(Duration::from_secs(1), body(ok(fields), shown.to_owned()))
        });
        let world = script.world();
        for is_second in [false, true] {
            let readers: Vec<_> = (0..60)
                .map(|n| {
                    let ask = request(Method::GET, target, "a", "");
                    let variant = (n % 6).to_string();
                    world.spawn(with(ask, "x-a", &variant))
                })
                .collect();
            for (n, reader) in readers.into_iter().enumerate() {
                let answer = reader.await.expect("an answer");
                assert_eq!(answer.body, (n % 6).to_string(), "{target} {fields:?}");
                assert_eq!(answer.cache_status().contains("; hit"), is_second);
            }
            assert_eq!(script.count(), fetches, "{target} {fields:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_that_varies_by_this_and_then_by_that_answers_everybody() {
    const MINUTE: &str = "cache-control: max-age=60";
    let script = Script::new(|seen, n| {
        let of = |name| seen.headers[name].to_str().expect("text").to_owned();
        let vary = [
            "vary: x-a, x-b",
            "vary: x-b, x-a, x-c",
            "vary: x-a, x-b, x-d",
        ][n % 3];
        let shown = format!("{} {}", of("x-a"), of("x-b"));
        Step::Later(Duration::from_secs(1), body(ok(&[MINUTE, vary]), shown))
    });
    let world = script.world();
    let readers: Vec<_> = (0..60)
        .map(|n| {
            let ask = request(Method::GET, LABELS, "a", "");
            let ask = with(ask, "x-a", &(n % 3).to_string());
            world.spawn(with(ask, "x-b", &(n % 5).to_string()))
        })
        .collect();
    for (n, reader) in readers.into_iter().enumerate() {
        let answer = reader.await.expect("an answer");
        assert_eq!(answer.body, format!("{} {}", n % 3, n % 5));
    }
    assert!(script.count() <= 60, "{}", script.count());
}

/// What SDKs send beside what matters, each time something else.
const TELEMETRY: [&str; 12] = [
    "user-agent",
    "referer",
    "baggage",
    "sentry-trace",
    "x-request-id",
    "x-correlation-id",
    "x-b3-traceid",
    "x-datadog-trace-id",
    "x-amzn-trace-id",
    "x-stainless-retry-count",
    "sec-fetch-mode",
    "idempotency-key",
];

#[tokio::test(start_paused = true)]
async fn no_readers_own_fields_shape_what_others_are_shown() {
    // The API answers by what it is asked with, and says nothing of it.
    let script = Script::new(|seen: &Seen, _| {
        let of = |name| seen.headers.get(name).map(HeaderValue::as_bytes);
        let of = |name| String::from_utf8_lossy(of(name).unwrap_or(b"-")).into_owned();
        let shown = format!("{} {}", of("accept-language"), of("x-tenant"));
        Step::Answer(body(ok(&["cache-control: max-age=60"]), shown))
    });
    let world = script.world();
    let ask = |language: &str, tenant: &str| {
        let mut ask = request(Method::GET, USERS, "a", "");
        for (name, value) in [("accept-language", language), ("x-tenant", tenant)] {
            if !value.is_empty() {
                ask = with(ask, name, value);
            }
        }
        ask
    };
    for _ in 0..2 {
        for (language, tenant, shown) in [
            ("", "", "- -"),
            ("de", "", "de -"),
            ("en", "", "en -"),
            ("", "one", "- one"),
            ("de", "one", "de one"),
            ("*", "", "- -"),
        ] {
            let answer = world.send(ask(language, tenant)).await;
            assert_eq!(answer.text(), shown);
        }
    }
    assert_eq!(script.count(), 5, "each of them is stored");
    for (nth, name) in TELEMETRY.iter().enumerate() {
        let answer = world.send(with(ask("", ""), name, &nth.to_string())).await;
        assert!(
            answer.cache_status().contains("; hit"),
            "{name}: {answer:?}"
        );
    }
    // And no fetch for others sends what is not theirs.
    let mut first = request(Method::GET, ROLES, "a", "");
    for name in TELEMETRY {
        first = with(first, name, "mine");
    }
    world
        .send(with(first, "cache-control", "max-stale=9"))
        .await;
    let seen = script.seen().pop().expect("a request");
    for name in TELEMETRY
        .iter()
        .skip(1)
        .chain(&["cache-control", "content-type"])
    {
        assert!(!seen.headers.contains_key(*name), "{name}");
    }
    let agent = seen.headers["user-agent"].to_str().expect("text");
    assert!(agent.starts_with("segment-gateway/"), "{agent}");
}
