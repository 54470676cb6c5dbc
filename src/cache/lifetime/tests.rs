use super::*;
use http::HeaderValue;
use proptest::prelude::*;

const NOW: &str = "Mon, 23 Nov 2026 19:26:00 GMT";

fn now() -> SystemTime {
    httpdate::parse_http_date(NOW).unwrap()
}

type Lines = [(&'static str, &'static str)];

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn lifetime(rules: &Rules, status: u16, lines: &[(&'static str, &str)]) -> Option<Lifetime> {
    let headers = headers(lines);
    let said = Said::of(&headers, rules.precedence, now());
    Lifetime::of(rules, &said, StatusClass::of(status), &headers, now())
}

fn with_ttl(ttl: u64, precedence: Precedence) -> Rules {
    Rules {
        ttl: Some(secs(ttl)),
        precedence,
        ..Rules::default()
    }
}

/// Seconds of freshness from arrival.
fn fresh(rules: &Rules, status: u16, lines: &[(&'static str, &str)]) -> Option<u64> {
    let life = lifetime(rules, status, lines)?;
    Some(life.fresh_for.saturating_sub(life.initial_age).as_secs())
}

#[test]
fn stated_lifetimes_in_their_order() {
    const SOON: (&str, &str) = ("expires", "Mon, 23 Nov 2026 19:26:29 GMT");
    const DATE: (&str, &str) = ("date", NOW);
    let table: [(&Lines, Option<u64>); 16] = [
        (&[], None),
        (&[("cache-control", "public")], None),
        (&[("cache-control", "max-age=10")], Some(10)),
        (&[("cache-control", "max-age=10, s-maxage=20")], Some(20)),
        (&[("cache-control", "max-age=10"), DATE, SOON], Some(10)),
        (&[DATE, SOON], Some(29)),
        // Without a Date, or with a broken one, it was sent when it came.
        (&[SOON], Some(29)),
        (&[("date", "yesterday"), SOON], Some(29)),
        (&[DATE, ("expires", "0")], Some(0)),
        (&[DATE, SOON, SOON], Some(0)),
        (
            &[DATE, ("expires", "Mon, 23 Nov 2026 19:25:00 GMT")],
            Some(0),
        ),
        (
            &[DATE, ("expires", "Monday, 23-Nov-26 19:26:10 GMT")],
            Some(10),
        ),
        (&[DATE, ("expires", "Mon Nov 23 19:26:10 2026")], Some(10)),
        (
            &[
                ("cdn-cache-control", "max-age=7"),
                ("cache-control", "max-age=10, no-store"),
                SOON,
            ],
            Some(7),
        ),
        (
            &[
                ("cdn-cache-control", "public"),
                ("cache-control", "max-age=10"),
                SOON,
            ],
            None,
        ),
        (
            &[
                ("cdn-cache-control", "Max-Age=7"),
                ("cache-control", "max-age=10"),
            ],
            Some(10),
        ),
    ];
    for (lines, expected) in table {
        for status in [200, 299, 404, 503] {
            assert_eq!(
                fresh(&Rules::default(), status, lines),
                expected,
                "{status} {lines:?}"
            );
        }
    }
}

#[test]
fn whose_word_counts() {
    use Precedence::{Operator, Shorter, Upstream};
    const LONG: &[(&str, &str)] = &[("cache-control", "max-age=600, must-revalidate")];
    const SHORT: &[(&str, &str)] = &[("cache-control", "max-age=5")];
    const OLD: &[(&str, &str)] = &[("cache-control", "max-age=5"), ("age", "30")];
    const NONE: &[(&str, &str)] = &[];
    for (precedence, lines, status, expected) in [
        (Shorter, LONG, 200, Some(60)),
        (Shorter, SHORT, 200, Some(5)),
        (Shorter, OLD, 200, Some(0)),
        (Shorter, NONE, 200, Some(60)),
        (Shorter, NONE, 404, None),
        (Shorter, SHORT, 404, Some(5)),
        (Shorter, LONG, 404, Some(600)),
        (Upstream, LONG, 200, Some(600)),
        (Upstream, SHORT, 200, Some(5)),
        (Upstream, NONE, 200, Some(60)),
        (Operator, LONG, 200, Some(60)),
        (Operator, OLD, 200, Some(60)),
        (Operator, SHORT, 404, None),
    ] {
        let rules = with_ttl(60, precedence);
        assert_eq!(
            fresh(&rules, status, lines),
            expected,
            "{precedence:?} {status} {lines:?}"
        );
    }
    let life = |precedence| lifetime(&with_ttl(60, precedence), 200, LONG).unwrap();
    assert!(!life(Shorter).may_be_stale && !life(Upstream).may_be_stale);
    assert!(life(Operator).may_be_stale);
}

#[test]
fn times_of_staleness() {
    use Precedence::{Operator, Shorter, Upstream};
    let said: &[_] = &[(
        "cache-control",
        "max-age=1, stale-while-revalidate=30, stale-if-error=40",
    )];
    let silent: &[_] = &[("cache-control", "max-age=1")];
    for (precedence, lines, operator, expected) in [
        (Shorter, said, None, (30, 40, 0)),
        (Shorter, said, Some(10), (10, 10, 10)),
        (Shorter, said, Some(90), (30, 40, 90)),
        (Shorter, silent, Some(90), (90, 90, 90)),
        (Shorter, silent, None, (0, 0, 0)),
        (Upstream, said, Some(90), (30, 40, 90)),
        (Upstream, silent, Some(90), (90, 90, 90)),
        (Operator, said, Some(90), (90, 90, 90)),
        (Operator, said, None, (0, 0, 0)),
    ] {
        let rules = Rules {
            while_revalidate: operator.map(secs),
            if_error: operator.map(secs),
            if_limited: operator.map(secs),
            ..with_ttl(60, precedence)
        };
        let life = lifetime(&rules, 200, lines).unwrap();
        let times = (life.while_revalidate, life.if_error, life.if_limited);
        let expected = (secs(expected.0), secs(expected.1), secs(expected.2));
        assert_eq!(times, expected, "{precedence:?} {lines:?} {operator:?}");
    }
}

#[test]
fn ages() {
    const DATE: (&str, &str) = ("date", "Mon, 23 Nov 2026 19:25:20 GMT");
    let table: [(&Lines, u64); 13] = [
        (&[], 0),
        (&[("age", "7")], 7),
        (&[("age", "7, 9")], 7),
        (&[("age", "7"), ("age", "9")], 7),
        (&[("age", "-7")], 0),
        (&[("age", "7.5")], 0),
        (&[("age", "soon")], 0),
        (&[("age", "99999999999")], 1 << 31),
        // Our clock and theirs need not agree.
        (&[DATE], 0),
        (&[DATE, ("via", "1.1 x")], 0),
        (&[DATE, ("via", "1.1 x, 1.0 y")], 40),
        (&[DATE, ("via", "HTTP/1.0 y"), ("age", "50")], 50),
        (
            &[("date", "Mon, 23 Nov 2026 19:29:20 GMT"), ("via", "1.0 y")],
            0,
        ),
    ];
    for (lines, expected) in table {
        assert_eq!(
            initial_age(&headers(lines), now()),
            secs(expected),
            "{lines:?}"
        );
    }
}

#[test]
fn guesses_only_where_the_operator_wants_them() {
    const DATE: (&str, &str) = ("date", NOW);
    const HOUR_AGO: (&str, &str) = ("last-modified", "Mon, 23 Nov 2026 18:26:00 GMT");
    const YEARS_AGO: (&str, &str) = ("last-modified", "Fri, 23 Nov 2018 18:26:00 GMT");
    const LATER: (&str, &str) = ("last-modified", "Mon, 23 Nov 2026 20:26:00 GMT");
    const PUBLIC: (&str, &str) = ("cache-control", "public");
    let tenth = Rules {
        heuristic_percent: 10,
        ..Rules::default()
    };
    assert_eq!(fresh(&Rules::default(), 200, &[DATE, HOUR_AGO]), None);
    for (status, lines, expected) in [
        (200, &[DATE, HOUR_AGO][..], Some(360)),
        (404, &[DATE, HOUR_AGO], Some(360)),
        (299, &[DATE, HOUR_AGO], None),
        (299, &[DATE, HOUR_AGO, PUBLIC], Some(360)),
        (200, &[DATE, YEARS_AGO], Some(86_400)),
        (200, &[DATE, LATER], None),
        (200, &[DATE, HOUR_AGO, HOUR_AGO], None),
        (
            200,
            &[DATE, HOUR_AGO, ("cache-control", "max-age=5")],
            Some(5),
        ),
    ] {
        assert_eq!(fresh(&tenth, status, lines), expected, "{status} {lines:?}");
    }
}

#[test]
fn no_cache_is_never_fresh_nor_shown_stale() {
    let life = lifetime(
        &with_ttl(60, Precedence::Shorter),
        200,
        &[("cache-control", "no-cache")],
    );
    let life = life.unwrap();
    assert!(life.is_over() && !life.may_be_stale);
}

proptest! {
    #[test]
    fn the_shorter_word_never_lengthens(
        ttl in 1u64..200,
        control in "[a-z0-9=,\" -]{0,24}",
        max_age in prop::option::of(0u64..400),
    ) {
        let text = max_age.map(|age| format!("max-age={age}"));
        let mut lines = vec![("cache-control", control.as_str())];
        lines.extend(text.as_deref().map(|text| ("cache-control", text)));
        let life = lifetime(&with_ttl(ttl, Precedence::Shorter), 200, &lines).unwrap();
        prop_assert!(life.fresh_for <= secs(ttl));
        if !control.contains("s-maxage") {
            prop_assert!(max_age.is_none_or(|age| life.fresh_for <= secs(age)));
        }
    }
}
