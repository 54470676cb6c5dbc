use super::*;
use proptest::prelude::*;

fn parse(lines: &[&[u8]]) -> CacheControl {
    let values: Vec<_> = lines
        .iter()
        .map(|line| HeaderValue::from_bytes(line).unwrap())
        .collect();
    CacheControl::parse(&values)
}

fn secs(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

#[test]
fn flags() {
    let table: [(&[u8], bool, bool); 17] = [
        // field, no-store, no-cache
        (b"", false, false),
        (b"no-store", true, false),
        (b"No-Store , NO-CACHE", true, true),
        (b"private, no-cache=\"set-cookie, x\"", false, true),
        (b"private=\"no-store\"", false, false),
        (b"private=\"x, no-store\"", false, false),
        (b"private=\"x\\\", no-store\"", false, false),
        (b"private=\"x\\\\\", no-store", true, false),
        (b"private=\"x, max-age=5", true, false),
        (b"private=\"x\\", true, false),
        (b"foo\"bar, no-store\"", true, false),
        (b"\"no-store\"", true, false),
        (b"no-store; max-age=10", true, false),
        (b"no-storeage, x-no-cache", false, false),
        (b"no-store=yes", true, false),
        (b",,;=,\"", false, false),
        (b"\xff\xfe, no-cache", false, true),
    ];
    for (field, no_store, no_cache) in table {
        let found = parse(&[field]);
        let text = String::from_utf8_lossy(field);
        assert_eq!(
            (found.no_store, found.no_cache),
            (no_store, no_cache),
            "{text}"
        );
    }
}

#[test]
fn lifetimes() {
    let table: [(&[&[u8]], Option<u64>); 17] = [
        (&[b"private"], None),
        (&[b"max-age=60"], Some(60)),
        (&[b"MAX-AGE=\"60\""], Some(60)),
        (&[b"max-age=60, max-age=10"], Some(0)),
        (&[b"max-age=10", b"max-age=60"], Some(0)),
        (&[b"max-age=10", b"max-age=10"], Some(10)),
        (&[b"max-age=60, s-maxage=600"], Some(600)),
        (&[b"s-maxage=5, max-age=60"], Some(5)),
        (&[b"max-age"], Some(0)),
        (&[b"max-age="], Some(0)),
        (&[b"max-age=-1"], Some(0)),
        (&[b"max-age= 60"], Some(0)),
        (&[b"max-age=60s"], Some(0)),
        (&[b"max-age=1.5"], Some(0)),
        (&[b"max-age=60, max-age=soon"], Some(0)),
        (&[b"max-age=99999999999999999999999999"], Some(LONGEST)),
        (&[b"x=\"max-age=5\", max-age=007 "], Some(7)),
    ];
    for (lines, expected) in table {
        assert_eq!(
            parse(lines).lifetime(),
            expected.and_then(secs),
            "{lines:?}"
        );
    }
}

#[test]
fn the_words_of_requests_and_of_stale_answers() {
    let found = parse(&[
        b"max-stale, min-fresh=5, Only-If-Cached, no-transform",
        b"must-revalidate, proxy-revalidate, must-understand, public, immutable",
        b"stale-while-revalidate=7, stale-if-error=\"9\"",
    ]);
    assert_eq!(found.max_stale, secs(LONGEST));
    assert_eq!(found.min_fresh, secs(5));
    assert_eq!(found.stale_while_revalidate, secs(7));
    assert_eq!(found.stale_if_error, secs(9));
    assert!(found.only_if_cached && found.no_transform && found.public);
    assert!(found.must_revalidate && found.proxy_revalidate);
    assert!(found.must_understand && found.immutable);
    let unclear = parse(&[b"max-stale=x, min-fresh=soon, stale-if-error, stale-while-revalidate="]);
    assert_eq!(unclear.max_stale, secs(0));
    assert_eq!(unclear.min_fresh, secs(LONGEST));
    assert_eq!(unclear.stale_if_error, secs(0));
    assert_eq!(unclear.stale_while_revalidate, secs(0));
    let twice = parse(&[b"max-stale=9, max-stale, min-fresh=1, min-fresh=3"]);
    assert_eq!((twice.max_stale, twice.min_fresh), (secs(0), secs(3)));
}

#[test]
fn what_forbids_staleness() {
    let forbids: [&[u8]; 4] = [
        b"must-revalidate",
        b"proxy-revalidate",
        b"no-cache",
        b"s-maxage=5",
    ];
    for field in forbids {
        assert!(!parse(&[field]).may_be_stale());
    }
    assert!(parse(&[b"max-age=5, public"]).may_be_stale());
}

#[test]
fn lists() {
    let values = [
        HeaderValue::from_static("a,, B ,c"),
        HeaderValue::from_static("*"),
    ];
    assert!(lists_token(&values, "b"));
    assert!(lists_token(&values, "*"));
    assert!(!lists_token(&values, ""));
    assert_eq!(tokens(&values).count(), 4);
}

proptest! {
    #[test]
    fn no_field_is_too_strange(line in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(value) = HeaderValue::from_bytes(&line) {
            CacheControl::parse([&value]);
            tokens([&value]).count();
        }
    }

    #[test]
    fn more_directives_never_permit_more(
        a in "(max-age|s-maxage|no-store|no-cache|x)(=[0-9\"x]{0,3})?",
        b in "[a-z\"=,; \\\\0-9-]{0,20}",
        c in "(max-age|no-store|no-cache|x)(=[0-9\"x]{0,3})?",
    ) {
        let alone = parse(&[a.as_bytes()]);
        let more = parse(&[a.as_bytes(), b.as_bytes(), c.as_bytes()]);
        prop_assert!(more.no_store || !alone.no_store);
        prop_assert!(more.no_cache || !alone.no_cache);
        for (more, alone) in [(more.max_age, alone.max_age), (more.s_maxage, alone.s_maxage)] {
            prop_assert!(alone.is_none_or(|alone| more.is_some_and(|more| more <= alone)));
        }
    }
}
