//! Byte ranges of stored answers (RFC 9110, section 14; RFC 9111, section 3.3).

use super::*;

const DIGITS: &str = "0123456789";

fn digits<S: AsRef<str>>(fields: &[S]) -> Response<Bytes> {
    body(ok(fields), DIGITS)
}

/// What is stored of the list of users, which readers ask for parts of.
fn stored(why: impl Into<String>) -> Exchange {
    let now = format!("date: {}", date(0));
    let changed = format!("last-modified: {}", date(-100));
    rule(why)
        .on(USERS)
        .api(digits(&["etag: \"a\"", &now, &changed]))
        .get()
        .stored()
}

#[tokio::test(start_paused = true)]
async fn section_14_parts_of_what_is_stored() {
    // `Range`, the status, the body, what `Content-Range` says.
    let cases: &[(&str, &str, u16, &str, &str)] = &[
        ("the first", "bytes=0-3", 206, "0123", "0-3/10"),
        ("the middle", "bytes=4-6", 206, "456", "4-6/10"),
        ("one byte", "bytes=9-9", 206, "9", "9-9/10"),
        ("the last", "bytes=-3", 206, "789", "7-9/10"),
        ("an open one", "bytes=7-", 206, "789", "7-9/10"),
        ("all of it", "bytes=0-", 206, DIGITS, "0-9/10"),
        ("beyond the end", "bytes=8-99", 206, "89", "8-9/10"),
        (
            "a suffix longer than all",
            "bytes=-99",
            206,
            DIGITS,
            "0-9/10",
        ),
        (
            "a number too large",
            "bytes=1-99999999999999999999",
            206,
            "123456789",
            "1-9/10",
        ),
        ("a unit in capitals", "Bytes=0-0", 206, "0", "0-0/10"),
        ("an empty element", "bytes=0-0,", 206, "0", "0-0/10"),
        ("behind the end", "bytes=10-", 416, "", "*/10"),
        ("behind the end, closed", "bytes=10-12", 416, "", "*/10"),
        ("a suffix of nothing", "bytes=-0", 416, "", "*/10"),
    ];
    hold(cases.iter().map(|(why, range, status, body, of)| {
        stored(format!("RFC 9110, 14.1.2: {why}"))
            .get()
            .with(format!("range: {range}"))
            .hit(60)
            .status(*status)
            .body(*body)
            .has(format!("content-range: bytes {of}"))
    }))
    .await;
    let whole = [
        ("several", "bytes=0-1,3-4"),
        ("the end before the beginning", "bytes=3-1"),
        ("what is no number", "bytes=a-b"),
        ("a negative one", "bytes=--1"),
        ("nothing", "bytes="),
        ("no range", "bytes"),
        ("another unit", "lines=0-1"),
    ];
    hold(whole.iter().map(|(why, range)| {
        stored(format!("RFC 9110, 14.2: {why} is the whole"))
            .get()
            .with(format!("range: {range}"))
            .hit(60)
            .body(DIGITS)
            .lacks("content-range")
    }))
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_14_what_parts_say_and_who_gets_them() {
    hold([
        stored("RFC 9110, 15.3.7: what a part says")
            .wait(5)
            .get()
            .with("range: bytes=0-3")
            .hit(55)
            .status(206)
            .has("etag: \"a\"")
            .has(format!("date: {}", date(0)))
            .age(5),
        stored("RFC 9110, 14.2: two lines are the whole")
            .get()
            .with("range: bytes=0-1")
            .with("range: bytes=0-1")
            .hit(60)
            .body(DIGITS),
        stored("RFC 9110, 14.2: HEAD ignores it")
            .head()
            .with("range: bytes=0-3")
            .hit(60)
            .has("content-length: 10")
            .lacks("content-range"),
        stored("RFC 9110, 13.2.2: conditions come first")
            .get()
            .with("range: bytes=0-3")
            .with("if-none-match: \"a\"")
            .hit(60)
            .status(304)
            .lacks("content-range"),
        stored("RFC 9110, 13.2.2: and then the range")
            .get()
            .with("range: bytes=0-3")
            .with("if-none-match: \"b\"")
            .hit(60)
            .status(206),
        rule("RFC 9110, 14.2: what is no 200 is shown whole")
            .api(says(404, &["cache-control: max-age=60"]))
            .get()
            .status(404)
            .stored()
            .get()
            .with("range: bytes=0-3")
            .hit(60)
            .status(404)
            .shows(1),
        rule("RFC 9110, 14.2: a stale answer is shown in part as well")
            .api(digits(&["cache-control: max-age=10"]))
            .get()
            .stored()
            .wait(15)
            .get()
            .with("range: bytes=0-3")
            .with("cache-control: max-stale")
            .sees("hit; ttl=-5; detail=max-stale")
            .status(206)
            .body("0123"),
        rule("RFC 9530, 2: a part does not have the digest of the whole content")
            .on(USERS)
            .api(digits(&["content-digest: sha-256=:AA==:"]))
            .get()
            .stored()
            .get()
            .with("range: bytes=0-3")
            .status(206)
            .lacks("content-digest"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_13_1_5_if_range() {
    let now = format!("date: {}", date(0));
    let at = |seconds: i64| format!("if-range: {}", date(seconds));
    let part = |row: Exchange, condition: &str| {
        row.get()
            .with("range: bytes=0-3")
            .with(condition)
            .hit(60)
            .status(206)
            .body("0123")
    };
    let whole = |row: Exchange, condition: &str| {
        row.get()
            .with("range: bytes=0-3")
            .with(condition)
            .hit(60)
            .body(DIGITS)
    };
    let row = |why: &str, fields: &[&str]| {
        let row = rule(format!("RFC 9110, 13.1.5: {why}")).on(USERS);
        row.api(digits(fields)).get().stored()
    };
    let changed = format!("last-modified: {}", date(-100));
    let just_now = format!("last-modified: {}", date(0));
    let strong = ["etag: \"a\"", &changed, &now];
    hold([
        part(row("the same strong tag", &strong), "if-range: \"a\""),
        whole(row("another tag", &strong), "if-range: \"b\""),
        whole(row("the same tag, weakened", &strong), "if-range: W/\"a\""),
        whole(
            row("two weak tags", &["etag: W/\"a\"", &now]),
            "if-range: W/\"a\"",
        ),
        whole(row("a tag without quotes", &strong), "if-range: a"),
        part(row("the time of change", &strong), &at(-100)),
        whole(row("a later time", &strong), &at(-99)),
        whole(row("an earlier time", &strong), &at(-101)),
        whole(
            row(
                "a change within the second in which it was sent",
                &[&just_now, &now],
            ),
            &at(0),
        ),
        whole(
            row("a time where none is known", &["etag: \"a\"", &now]),
            &at(0),
        ),
        row("without a range it means nothing", &strong)
            .get()
            .with("if-range: \"a\"")
            .hit(60)
            .body(DIGITS),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_3_3_a_range_of_what_is_not_stored() {
    hold([
        rule("3.3: where the route stores it, the whole is fetched")
            .on(USERS)
            .api(digits::<&str>(&[]))
            .get()
            .with("range: bytes=2-4")
            .with("if-range: \"x\"")
            .stored()
            .body(DIGITS)
            .api_did_not_see("range")
            .api_did_not_see("if-range")
            .get()
            .with("range: bytes=2-4")
            .hit(60)
            .status(206)
            .body("234"),
        rule("3.3: and shown in part")
            .on(USERS)
            .api(digits::<&str>(&[]))
            .get()
            .with("range: bytes=2-4")
            .stored()
            .status(206)
            .body("234")
            .has("content-range: bytes 2-4/10")
            .lacks("content-length")
            .api_did_not_see("range")
            .get()
            .hit(60)
            .body(DIGITS),
        rule("3.3: of what was stored before, the whole is fetched again")
            .api(digits(&["cache-control: max-age=10"]))
            .get()
            .stored()
            .wait(10)
            .get()
            .with("range: bytes=2-4")
            .renewed()
            .status(206)
            .body("234")
            .api_did_not_see("range")
            .get()
            .hit(10)
            .body(DIGITS),
        rule("3.3: else it passes, and the part is not stored")
            .api(body(
                says(
                    206,
                    &["cache-control: max-age=60", "content-range: bytes 2-4/10"],
                ),
                "234",
            ))
            .api(digits(&["cache-control: max-age=60"]))
            .get()
            .with("range: bytes=2-4")
            .sees("fwd=bypass; detail=range")
            .status(206)
            .body("234")
            .api_saw("range: bytes=2-4")
            .get()
            .stored()
            .body(DIGITS),
    ])
    .await;
}
