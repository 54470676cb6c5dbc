use super::*;
use proptest::prelude::*;

const MODIFIED: &str = "Mon, 23 Nov 2026 19:00:00 GMT";
const SENT: &str = "Mon, 23 Nov 2026 19:26:00 GMT";

fn received() -> SystemTime {
    httpdate::parse_http_date(SENT).unwrap()
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[test]
fn tags_are_read_strictly() {
    for (text, expected) in [
        ("\"a\"", Some((false, "\"a\""))),
        ("W/\"a\"", Some((true, "\"a\""))),
        (" \"\" ", Some((false, "\"\""))),
        ("\"a,b\"", Some((false, "\"a,b\""))),
        ("\"\u{e9}\"", Some((false, "\"\u{e9}\""))),
        ("a", None),
        ("\"a", None),
        ("\"a\"b", None),
        ("w/\"a\"", None),
        ("W/ \"a\"", None),
        ("\"a b\"", None),
        ("\"a\", \"b\"", None),
        ("*", None),
        ("", None),
    ] {
        let tag = EntityTag::parse(text.as_bytes());
        let tag = tag.map(|tag| (tag.weak, std::str::from_utf8(tag.opaque).unwrap()));
        assert_eq!(tag, expected, "{text:?}");
    }
    assert!(EntityTag::of(&headers(&[("etag", "\"a\""), ("etag", "\"b\"")])).is_none());
}

#[test]
fn comparisons() {
    // RFC 9110, section 8.8.3.2.
    for (a, b, strong, weak) in [
        ("W/\"1\"", "W/\"1\"", false, true),
        ("W/\"1\"", "W/\"2\"", false, false),
        ("W/\"1\"", "\"1\"", false, true),
        ("\"1\"", "\"1\"", true, true),
    ] {
        let tag = |text: &'static str| EntityTag::parse(text.as_bytes()).unwrap();
        assert_eq!(tag(a).is_same(&tag(b)), strong, "{a} {b}");
        assert_eq!(tag(a).is_like(&tag(b)), weak, "{a} {b}");
    }
}

#[test]
fn what_a_reader_has_already() {
    const TAGGED: &[(&str, &str)] = &[
        ("etag", "\"x\""),
        ("last-modified", MODIFIED),
        ("date", SENT),
    ];
    const WEAK: &[(&str, &str)] = &[("etag", "W/\"x\"")];
    const DATED: &[(&str, &str)] = &[("date", SENT)];
    const MALFORMED: &[(&str, &str)] = &[("etag", "x")];
    const AT: (&str, &str) = ("if-modified-since", MODIFIED);
    const BEFORE: (&str, &str) = ("if-modified-since", "Mon, 23 Nov 2026 18:59:59 GMT");
    const AFTER: (&str, &str) = ("if-modified-since", "Monday, 23-Nov-26 19:26:00 GMT");
    let none = |value: &'static str| ("if-none-match", value);
    for (request, shown, expected) in [
        (vec![none("\"x\"")], TAGGED, true),
        (vec![none("\"a\", W/\"x\" ,\"b\"")], TAGGED, true),
        (vec![none("\"a\""), none("\"x\"")], TAGGED, true),
        (vec![none("\"a\"")], TAGGED, false),
        (vec![none("*")], TAGGED, true),
        (vec![none("*")], &[], true),
        (vec![none("\"x\"")], WEAK, true),
        (vec![none("W/\"x\"")], WEAK, true),
        (vec![none("x")], TAGGED, false),
        (vec![none("x")], MALFORMED, false),
        (vec![none("\"a\" \"x\"")], TAGGED, false),
        (vec![none("")], TAGGED, false),
        // The tag counts, whatever the date says.
        (vec![none("\"a\""), AFTER], TAGGED, false),
        (vec![AT], TAGGED, true),
        (vec![BEFORE], TAGGED, false),
        (vec![AFTER], TAGGED, true),
        (vec![AT, AT], TAGGED, false),
        (vec![("if-modified-since", "soon")], TAGGED, false),
        // Without a time of change, that of its sending or its coming counts.
        (vec![AT], DATED, false),
        (vec![AFTER], DATED, true),
        (vec![AFTER], &[], true),
        (vec![AT], &[], false),
    ] {
        let found = is_not_modified(&headers(&request), &headers(shown), received());
        assert_eq!(found, expected, "{request:?} {shown:?}");
    }
}

#[test]
fn what_the_api_is_asked_with() {
    let asked = |lines: &[(&str, &str)]| {
        let mut request = HeaderMap::new();
        Validators::of(&headers(lines))?.put(&mut request);
        let text = |name| {
            request
                .get(name)
                .map(|v: &HeaderValue| v.to_str().unwrap().to_owned())
        };
        Some((text("if-none-match"), text("if-modified-since")))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(asked(&[("etag", "W/\"x\"")]), Some((some("W/\"x\""), None)));
    assert_eq!(
        asked(&[("etag", "\"x\""), ("last-modified", MODIFIED)]),
        Some((some("\"x\""), some(MODIFIED)))
    );
    assert_eq!(
        asked(&[("last-modified", MODIFIED)]),
        Some((None, some(MODIFIED)))
    );
    for nothing in [
        &[][..],
        &[("etag", "x")],
        &[("etag", "\"a\""), ("etag", "\"b\"")],
        &[("last-modified", "soon")],
        &[("last-modified", MODIFIED), ("last-modified", MODIFIED)],
    ] {
        assert_eq!(asked(nothing), None, "{nothing:?}");
    }
    let own = own_tag(b"body").to_str().unwrap().to_owned();
    assert_eq!(asked(&[("etag", &own)]), None, "{own}");
}

#[test]
fn our_own_tags_stay_here() {
    let own = own_tag(b"body");
    assert!(is_own(&own) && is_own(&weakened(&own)));
    assert_ne!(own, own_tag(b"bodz"));
    assert_eq!(own, own_tag(b"body"));
    let list = format!("\"a\", {}", weakened(&own).to_str().unwrap());
    let mut request = headers(&[("if-none-match", &list), ("if-match", "\"a\"")]);
    without_own(&mut request);
    assert!(!request.contains_key("if-none-match"));
    assert_eq!(request["if-match"], "\"a\"");
    assert_eq!(weakened(&HeaderValue::from_static("W/\"a\"")), "W/\"a\"");
    assert_eq!(weakened(&HeaderValue::from_static("\"a\"")), "W/\"a\"");
}

#[test]
fn a_304_that_names_another_answer_is_not_believed() {
    const STRONG: &[(&str, &str)] = &[("etag", "\"x\"")];
    const WEAK: &[(&str, &str)] = &[("etag", "W/\"x\"")];
    const DATED: &[(&str, &str)] = &[("last-modified", MODIFIED)];
    for (stored, named, expected) in [
        (STRONG, &[][..], true),
        (STRONG, STRONG, true),
        (STRONG, WEAK, true),
        (STRONG, &[("etag", "\"y\"")], false),
        (WEAK, WEAK, true),
        (WEAK, STRONG, false),
        (WEAK, &[("etag", "W/\"y\"")], false),
        (DATED, DATED, true),
        (DATED, &[("last-modified", SENT)], false),
        (DATED, STRONG, false),
        (DATED, &[], true),
    ] {
        let validators = Validators::of(&headers(stored)).unwrap();
        let confirmed = validators.are_confirmed_by(&headers(named));
        assert_eq!(confirmed, expected, "{stored:?} {named:?}");
    }
}

#[test]
fn a_304_renews_the_header_but_not_what_belongs_to_the_bytes() {
    let stored = headers(&[
        ("etag", "\"x\""),
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
        ("cache-control", "max-age=1"),
        ("x-kept", "1"),
        ("x-two", "1"),
        ("x-two", "2"),
    ]);
    let renewed = renewed(
        &stored,
        &headers(&[
            ("cache-control", "max-age=9"),
            ("content-type", "text/plain"),
            ("content-encoding", "br"),
            ("content-length", "0"),
            ("content-range", "bytes 0-1/2"),
            ("x-two", "3"),
            ("x-new", "a"),
            ("x-new", "b"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "1"),
        ]),
    );
    let mut lines: Vec<_> = renewed
        .iter()
        .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    let expected = [
        "cache-control=max-age=9",
        "content-encoding=gzip",
        "content-type=application/json",
        "etag=\"x\"",
        "x-kept=1",
        "x-new=a",
        "x-new=b",
        "x-two=3",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn who_may_have_a_part() {
    const TAGGED: &[(&str, &str)] = &[
        ("etag", "\"x\""),
        ("last-modified", MODIFIED),
        ("date", SENT),
    ];
    const WEAK: &[(&str, &str)] = &[("etag", "W/\"x\"")];
    const JUST_NOW: &[(&str, &str)] = &[("last-modified", SENT), ("date", SENT)];
    for (condition, shown, expected) in [
        (None, WEAK, true),
        (Some("\"x\""), TAGGED, true),
        (Some("\"y\""), TAGGED, false),
        (Some("W/\"x\""), TAGGED, false),
        (Some("W/\"x\""), WEAK, false),
        (Some(MODIFIED), TAGGED, true),
        (Some(SENT), TAGGED, false),
        (Some(SENT), JUST_NOW, false),
        (Some("x"), TAGGED, false),
    ] {
        let request: Vec<_> = condition.iter().map(|value| ("if-range", *value)).collect();
        let permitted = permits_range(&headers(&request), &headers(shown), received());
        assert_eq!(permitted, expected, "{condition:?} {shown:?}");
    }
}

proptest! {
    #[test]
    fn no_list_of_tags_is_too_strange(list in "[W/\", a*x]{0,24}", tag in "[W/\"a]{0,8}") {
        let request = headers(&[("if-none-match", &list), ("if-range", &list)]);
        let shown = headers(&[("etag", &tag)]);
        let _ = is_not_modified(&request, &shown, received());
        let _ = permits_range(&request, &shown, received());
        let _ = Validators::of(&shown);
    }
}
