use super::*;
use http::HeaderValue;
use proptest::prelude::*;

const TTL: u64 = 60;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn judged(status: u16, lines: &[(&'static str, &str)], body_bytes: usize) -> Verdict {
    judge(&Facts {
        ttl: Duration::from_secs(TTL),
        status: StatusCode::from_u16(status).unwrap(),
        headers: &headers(lines),
        body_bytes,
        largest_body: 1_000,
    })
}

fn store(fresh_for: u64, initial_age: u64) -> Verdict {
    Verdict::Store {
        fresh_for: Duration::from_secs(fresh_for),
        initial_age: Duration::from_secs(initial_age),
    }
}

#[test]
fn statuses() {
    for status in [200, 203, 204] {
        assert_eq!(judged(status, &[], 10), store(60, 0), "{status}");
    }
    for status in [401, 403, 404, 500, 502, 503, 504] {
        assert_eq!(
            judged(status, &[], 10),
            Verdict::Share(Refusal::Status),
            "{status}"
        );
    }
    for status in [
        201, 202, 205, 301, 302, 307, 400, 406, 409, 410, 412, 413, 415, 416, 417, 422, 429, 431,
    ] {
        assert_eq!(
            judged(status, &[], 10),
            Verdict::Keep(Refusal::Status),
            "{status}"
        );
    }
    for status in [206, 304] {
        assert_eq!(
            judged(status, &[], 10),
            Verdict::Keep(Refusal::Partial),
            "{status}"
        );
    }
}

#[test]
fn what_is_for_one_reader_alone() {
    let table = [
        (("cache-control", "no-store"), Refusal::NoStore),
        (("cache-control", "no-cache"), Refusal::NoCache),
        (("cache-control", "private=\"x"), Refusal::NoStore),
        (("set-cookie", "a=b"), Refusal::SetCookie),
        (("vary", "accept, x-role"), Refusal::Vary),
        (("vary", "*"), Refusal::Vary),
        (("vary", "cookie"), Refusal::Vary),
        (("content-encoding", "gzip"), Refusal::ContentEncoding),
        (
            ("content-encoding", "identity, br"),
            Refusal::ContentEncoding,
        ),
        (("content-range", "bytes 0-1/2"), Refusal::Partial),
        (("trailer", "x"), Refusal::Unsuitable),
        (("cache-control", "max-age=0"), Refusal::Expired),
    ];
    for (line, reason) in table {
        assert_eq!(judged(200, &[line], 10), Verdict::Keep(reason), "{line:?}");
        if reason != Refusal::Expired {
            assert_eq!(judged(503, &[line], 10), Verdict::Keep(reason), "{line:?}");
        }
    }
    assert_eq!(judged(200, &[], 1_000), store(60, 0));
    assert_eq!(judged(200, &[], 1_001), Verdict::Keep(Refusal::TooLarge));
}

#[test]
fn lifetimes() {
    const DATE: (&str, &str) = ("date", "Mon, 23 Nov 2026 19:26:00 GMT");
    let table: [(&[(&'static str, &str)], Verdict); 18] = [
        (&[("cache-control", "private")], store(60, 0)),
        (
            &[
                ("vary", "Accept, accept-encoding"),
                ("vary", "Origin,AUTHORIZATION,"),
            ],
            store(60, 0),
        ),
        (&[("content-encoding", "identity")], store(60, 0)),
        (&[("cache-control", "max-age=600")], store(60, 0)),
        (&[("cache-control", "max-age=10")], store(10, 0)),
        (
            &[("cache-control", "s-maxage=20, max-age=10")],
            store(20, 0),
        ),
        (
            &[("cache-control", "max-age=10"), ("age", "3")],
            store(10, 3),
        ),
        (
            &[("cache-control", "max-age=10"), ("age", "10")],
            Verdict::Keep(Refusal::Expired),
        ),
        (
            &[("cache-control", "max-age=100"), ("age", "70")],
            Verdict::Share(Refusal::Expired),
        ),
        (&[("age", "70")], Verdict::Share(Refusal::Expired)),
        (&[("age", "soon")], store(60, 0)),
        (&[("age", "3"), ("age", "5")], store(60, 5)),
        (
            &[DATE, ("expires", "Mon, 23 Nov 2026 19:26:29 GMT")],
            store(29, 0),
        ),
        (
            &[DATE, ("expires", "Mon, 23 Nov 2026 20:26:29 GMT")],
            store(60, 0),
        ),
        (&[DATE, ("expires", "0")], Verdict::Keep(Refusal::Expired)),
        (
            &[DATE, ("expires", "Mon, 23 Nov 2026 19:25:00 GMT")],
            Verdict::Keep(Refusal::Expired),
        ),
        (
            &[("expires", "Mon, 23 Nov 2099 19:25:00 GMT")],
            Verdict::Keep(Refusal::Expired),
        ),
        (
            &[DATE, ("expires", "0"), ("cache-control", "max-age=5")],
            store(5, 0),
        ),
    ];
    for (lines, expected) in table {
        assert_eq!(judged(200, lines, 10), expected, "{lines:?}");
    }
}

proptest! {
    #[test]
    fn what_is_kept_by_its_head_is_kept_with_any_body(
        status in 100u16..600,
        line in prop::sample::select(vec![
            ("cache-control", "no-store"), ("cache-control", "max-age=5"), ("vary", "*"),
            ("set-cookie", "a"), ("content-encoding", "br"), ("age", "99"), ("x-plain", "1"),
        ]),
        body_bytes in 0usize..2_000,
    ) {
        let head = judged(status, &[line], 0);
        if matches!(head, Verdict::Keep(_)) {
            let whole = judged(status, &[line], body_bytes);
            prop_assert!(matches!(whole, Verdict::Keep(_)), "{whole:?}");
        }
    }

    #[test]
    fn nothing_outlives_the_time_to_live_or_shares_what_is_private(
        status in 100u16..600,
        control in "[a-z0-9=,\" -]{0,24}",
        max_age in prop::option::of(0u64..200),
        upstream_age in prop::option::of(0u64..200),
        cookie: bool,
    ) {
        let max_age_text = max_age.map(|age| format!("max-age={age}"));
        let age_text = upstream_age.map(|age| age.to_string());
        let mut lines = vec![("cache-control", control.as_str())];
        lines.extend(max_age_text.as_deref().map(|text| ("cache-control", text)));
        lines.extend(age_text.as_deref().map(|text| ("age", text)));
        lines.extend(cookie.then_some(("set-cookie", "a=b")));
        let verdict = judged(status, &lines, 10);
        if cookie {
            prop_assert!(matches!(verdict, Verdict::Keep(_)));
        }
        if let Verdict::Store { fresh_for, initial_age } = verdict {
            prop_assert!(status < 300 && initial_age < fresh_for);
            prop_assert!(fresh_for <= Duration::from_secs(TTL));
            if !control.contains("s-maxage") {
                let stated = max_age.map(Duration::from_secs);
                prop_assert!(stated.is_none_or(|stated| fresh_for <= stated));
            }
        }
    }
}
