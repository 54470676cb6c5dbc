use super::super::lifetime::Precedence;
use super::*;
use http::HeaderValue;
use proptest::prelude::*;
use std::time::Duration;

const TTL: u64 = 60;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn judged_by(
    rules: &Rules,
    status: u16,
    lines: &[(&'static str, &str)],
    body: usize,
) -> Storability {
    let mut headers = headers(lines);
    let kind = headers.entry(header::CONTENT_TYPE);
    kind.or_insert(HeaderValue::from_static("application/json"));
    judge(&ResponseFacts {
        rules,
        status: StatusCode::from_u16(status).unwrap(),
        headers: &headers,
        body_bytes: body,
        largest_body: 1_000,
        now: SystemTime::UNIX_EPOCH,
    })
}

fn with_ttl() -> Rules {
    Rules {
        ttl: Some(Duration::from_secs(TTL)),
        ..Rules::default()
    }
}

fn judged(status: u16, lines: &[(&'static str, &str)], body: usize) -> Storability {
    judged_by(&with_ttl(), status, lines, body)
}

/// Seconds for which an answer is fresh, if it is stored.
fn fresh(verdict: Storability) -> Option<u64> {
    match verdict {
        Storability::Store(life) => Some(life.fresh_for.as_secs()),
        _ => None,
    }
}

#[test]
fn without_a_word_of_the_api_only_complete_successes_are_stored() {
    for status in [200, 203, 204] {
        assert_eq!(fresh(judged(status, &[], 10)), Some(60), "{status}");
    }
    for status in [401, 403, 404, 500, 502, 503, 504] {
        let shared = Storability::Share(StoreRefusal::Status);
        assert_eq!(judged(status, &[], 10), shared, "{status}");
    }
    for status in [
        201, 202, 205, 301, 302, 307, 400, 406, 409, 410, 412, 413, 415, 416, 417, 422, 429, 431,
    ] {
        let kept = Storability::Private(StoreRefusal::Status);
        assert_eq!(judged(status, &[], 10), kept, "{status}");
    }
}

#[test]
fn with_a_stated_lifetime_every_final_status_is_stored_unknown_ones_too() {
    const STATED: &[(&str, &str)] = &[("cache-control", "max-age=600")];
    for status in [
        201, 202, 205, 226, 299, 300, 301, 302, 303, 307, 308, 399, 400, 402, 403, 404, 405, 410,
        418, 422, 451, 499, 500, 501, 502, 503, 504, 599,
    ] {
        assert_eq!(fresh(judged(status, STATED, 10)), Some(600), "{status}");
    }
    // The operator's time is for successes, and the shorter word counts.
    assert_eq!(fresh(judged(200, STATED, 10)), Some(60));
    for status in [206, 304] {
        let partial = Storability::Private(StoreRefusal::Partial);
        assert_eq!(judged(status, STATED, 10), partial, "{status}");
    }
    for status in [100, 103, 199] {
        let kept = Storability::Private(StoreRefusal::Status);
        assert_eq!(judged(status, STATED, 10), kept, "{status}");
    }
    // What says that the credential is in doubt outlives no moment.
    assert_eq!(
        judged(401, STATED, 10),
        Storability::Share(StoreRefusal::Status)
    );
    for status in [407, 429] {
        assert_eq!(
            judged(status, STATED, 10),
            Storability::Private(StoreRefusal::Status)
        );
    }
}

#[test]
fn what_is_for_one_reader_alone() {
    let table: [(&[(&'static str, &str)], StoreRefusal); 14] = [
        (&[("cache-control", "no-store")], StoreRefusal::NoStore),
        (&[("cache-control", "no-cache")], StoreRefusal::NoCache),
        (&[("cache-control", "private=\"x")], StoreRefusal::NoStore),
        (&[("set-cookie", "a=b")], StoreRefusal::SetCookie),
        (&[("set-cookie2", "a=b")], StoreRefusal::SetCookie),
        (&[("vary", "accept, *")], StoreRefusal::Vary),
        (&[("vary", "a,b,c,d,e,f,g,h,i")], StoreRefusal::Vary),
        (&[("content-encoding", "br")], StoreRefusal::ContentEncoding),
        (
            &[("content-encoding", "identity, br")],
            StoreRefusal::ContentEncoding,
        ),
        (
            &[("content-encoding", "gzip, gzip")],
            StoreRefusal::ContentEncoding,
        ),
        (&[("content-range", "bytes 0-1/2")], StoreRefusal::Partial),
        (&[("trailer", "x")], StoreRefusal::Unsuitable),
        (
            &[("content-length", "2"), ("content-length", "3")],
            StoreRefusal::Unsuitable,
        ),
        (&[("cdn-cache-control", "no-store")], StoreRefusal::NoStore),
    ];
    for (lines, reason) in table {
        for status in [200, 503] {
            assert_eq!(
                judged(status, lines, 10),
                Storability::Private(reason),
                "{status} {lines:?}"
            );
        }
    }
    assert_eq!(
        judged(200, &[("cache-control", "max-age=0")], 10),
        Storability::Private(StoreRefusal::Expired)
    );
    assert_eq!(fresh(judged(200, &[], 1_000)), Some(60));
    assert_eq!(
        judged(200, &[], 1_001),
        Storability::Private(StoreRefusal::TooLarge)
    );
}

#[test]
fn what_may_be_stored_for_all_that_share_the_credential() {
    let table: [&[(&'static str, &str)]; 6] = [
        &[("cache-control", "private")],
        &[("cache-control", "private=\"x, y\"")],
        &[
            ("vary", "Accept, accept-encoding"),
            ("vary", "Origin,AUTHORIZATION,"),
        ],
        &[("vary", "x-role, user-agent")],
        &[("content-encoding", "gzip")],
        &[
            ("cache-control", "no-store"),
            ("cdn-cache-control", "max-age=60"),
        ],
    ];
    for lines in table {
        assert_eq!(fresh(judged(200, lines, 10)), Some(60), "{lines:?}");
    }
}

#[test]
fn must_understand_lifts_no_store_where_the_status_is_understood() {
    const FIELD: &[(&str, &str)] = &[("cache-control", "max-age=9, no-store, must-understand")];
    assert_eq!(fresh(judged(200, FIELD, 10)), Some(9));
    assert_eq!(fresh(judged(404, FIELD, 10)), Some(9));
    assert_eq!(
        judged(299, FIELD, 10),
        Storability::Private(StoreRefusal::NoStore)
    );
    let alone: &[_] = &[("cache-control", "max-age=9, must-understand")];
    assert_eq!(
        judged(299, alone, 10),
        Storability::Private(StoreRefusal::NotUnderstood)
    );
}

#[test]
fn what_cannot_be_used_at_once_is_stored_if_it_can_be_validated() {
    const TAG: (&str, &str) = ("etag", "\"x\"");
    for field in ["no-cache", "no-cache=\"a\"", "max-age=0"] {
        let verdict = judged(200, &[TAG, ("cache-control", field)], 10);
        assert!(
            matches!(verdict, Storability::Validate(life) if life.is_over()),
            "{field}"
        );
    }
    let api_alone = |lines: &[(&'static str, &str)]| judged_by(&Rules::default(), 200, lines, 10);
    assert!(matches!(api_alone(&[TAG]), Storability::Validate(_)));
    assert!(matches!(
        api_alone(&[("last-modified", "Mon, 23 Nov 2026 19:26:00 GMT")]),
        Storability::Validate(_)
    ));
    assert_eq!(
        api_alone(&[]),
        Storability::Private(StoreRefusal::NoLifetime)
    );
    assert_eq!(
        api_alone(&[("etag", "x")]),
        Storability::Private(StoreRefusal::NoLifetime)
    );
    let error = judged(404, &[TAG, ("cache-control", "max-age=0")], 10);
    assert_eq!(error, Storability::Share(StoreRefusal::Status));
}

#[test]
fn ages_and_lifetimes() {
    let table: [(&[(&'static str, &str)], Storability); 3] = [
        (
            &[("cache-control", "max-age=10"), ("age", "10")],
            Storability::Private(StoreRefusal::Expired),
        ),
        (
            &[("cache-control", "max-age=100"), ("age", "70")],
            Storability::Share(StoreRefusal::Expired),
        ),
        (&[("age", "70")], Storability::Share(StoreRefusal::Expired)),
    ];
    for (lines, expected) in table {
        assert_eq!(judged(200, lines, 10), expected, "{lines:?}");
    }
    assert_eq!(fresh(judged(200, &[("age", "-5")], 10)), Some(60));
}

#[test]
fn the_operators_word_is_not_for_cookies_and_parts() {
    let rules = Rules {
        precedence: Precedence::Operator,
        ..with_ttl()
    };
    for field in [
        "no-store",
        "no-cache",
        "max-age=0, must-revalidate",
        "private",
    ] {
        let verdict = judged_by(&rules, 200, &[("cache-control", field)], 10);
        assert_eq!(fresh(verdict), Some(60), "{field}");
    }
    for (line, reason) in [
        (("set-cookie", "a=b"), StoreRefusal::SetCookie),
        (("vary", "*"), StoreRefusal::Vary),
        (("content-range", "bytes 0-1/2"), StoreRefusal::Partial),
    ] {
        assert_eq!(
            judged_by(&rules, 200, &[line], 10),
            Storability::Private(reason)
        );
    }
    assert_eq!(
        judged_by(&rules, 404, &[], 10),
        Storability::Share(StoreRefusal::Status)
    );
}

proptest! {
    #[test]
    fn what_is_kept_by_its_head_is_kept_with_any_body(
        status in 100u16..600,
        line in prop::sample::select(vec![
            ("cache-control", "no-store"), ("cache-control", "max-age=5"), ("vary", "*"),
            ("set-cookie", "a"), ("content-encoding", "br"), ("age", "99"), ("x-plain", "1"),
            ("etag", "\"x\""), ("cdn-cache-control", "no-cache"),
        ]),
        body_bytes in 0usize..2_000,
    ) {
        let head = judged(status, &[line], 0);
        if matches!(head, Storability::Private(_)) {
            let whole = judged(status, &[line], body_bytes);
            prop_assert!(matches!(whole, Storability::Private(_)), "{whole:?}");
        }
    }

    #[test]
    fn nothing_forbidden_is_stored_whatever_else_is_said(
        status in 100u16..600,
        control in "[a-z0-9=,\" -]{0,24}",
        cookie: bool,
        no_store: bool,
    ) {
        let mut lines = vec![("cache-control", control.as_str())];
        lines.extend(cookie.then_some(("set-cookie", "a=b")));
        lines.extend(no_store.then_some(("cache-control", "no-store")));
        let verdict = judged(status, &lines, 10);
        if cookie || no_store {
            prop_assert!(matches!(verdict, Storability::Private(_)));
        }
        if let Storability::Store(life) = verdict {
            prop_assert!(status >= 200 && !life.is_over());
        }
    }
}

#[test]
fn what_is_in_another_media_type_is_a_page_of_something_else() {
    const STATED: (&str, &str) = ("cache-control", "max-age=600");
    const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");
    let (share, private) = (Storability::Share, Storability::Private);
    let page = StoreRefusal::MediaType;
    for (status, lines, expected) in [
        (200, &[HTML][..], share(page)),
        (203, &[HTML], share(page)),
        (204, &[HTML], share(page)),
        (200, &[HTML, STATED], share(page)),
        (200, &[HTML, ("etag", "\"a\"")], share(page)),
        (200, &[("content-type", "text/plain")], share(page)),
        (200, &[HTML, ("set-cookie", "a=b")], private(page)),
        (200, &[HTML, ("cache-control", "no-store")], private(page)),
        // A redirect to a login page, with or without a cookie, and a page for what is missing.
        (302, &[HTML], private(page)),
        (302, &[HTML, ("set-cookie", "a=b")], private(page)),
        (302, &[HTML, STATED], share(page)),
        (403, &[HTML], share(page)),
        (404, &[HTML, STATED], share(page)),
        // These say nothing of the data, whoever says them.
        (503, &[HTML], share(StoreRefusal::Status)),
        (503, &[HTML, STATED], share(page)),
        (401, &[HTML, STATED], share(StoreRefusal::Status)),
        (429, &[HTML, STATED], private(StoreRefusal::Status)),
    ] {
        assert_eq!(judged(status, lines, 10), expected, "{status} {lines:?}");
        // Of an operation that the route table does not know, nothing is documented.
        let unknown = Rules {
            any_media_type: true,
            ..with_ttl()
        };
        let found = judged_by(&unknown, status, lines, 10);
        assert_eq!(found, judged(status, &[&lines[1..], &[JSON]].concat(), 10));
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn without_a_media_type_only_what_has_no_content_is_stored() {
    let judged = |status| {
        judge(&ResponseFacts {
            rules: &with_ttl(),
            status,
            headers: &HeaderMap::new(),
            body_bytes: 0,
            largest_body: 1_000,
            now: SystemTime::UNIX_EPOCH,
        })
    };
    let page = Storability::Share(StoreRefusal::MediaType);
    assert_eq!(judged(StatusCode::OK), page);
    assert_eq!(fresh(judged(StatusCode::NO_CONTENT)), Some(60));
}
