//! Validation (RFC 9111, section 4.3): of stored answers with the API, and of what readers have.

use super::*;

fn tagged(tag: &str) -> Response<Bytes> {
    ok(&[
        "cache-control: max-age=10".to_owned(),
        format!("etag: {tag}"),
    ])
}

fn not_modified(tag: &str) -> Response<Bytes> {
    says(304, &[format!("etag: {tag}")])
}

#[tokio::test(start_paused = true)]
async fn section_4_3_1_the_api_is_asked_with_what_it_gave() {
    let changed = format!("last-modified: {}", date(-100));
    let since = format!("if-modified-since: {}", date(-100));
    let dated = ok(&["cache-control: max-age=10", &changed]);
    let both = ok(&["cache-control: max-age=10", "etag: W/\"a\"", &changed]);
    let stale = |why: &str, answer: Response<Bytes>| {
        rule(why)
            .api(answer)
            .api(says::<&str>(304, &[]))
            .get()
            .stored()
            .api_did_not_see("if-none-match")
            .api_did_not_see("if-modified-since")
            .wait(10)
            .get()
            .confirmed()
            .shows(1)
    };
    hold([
        stale("4.3.1: a strong tag", tagged("\"a\""))
            .api_saw("if-none-match: \"a\"")
            .api_did_not_see("if-modified-since"),
        stale("4.3.1: a weak tag", tagged("W/\"a\"")).api_saw("if-none-match: W/\"a\""),
        stale("4.3.1: an empty tag is one", tagged("\"\"")).api_saw("if-none-match: \"\""),
        stale("4.3.1: the time of its change", dated)
            .api_saw(since.clone())
            .api_did_not_see("if-none-match"),
        stale("4.3.1: both", both)
            .api_saw("if-none-match: W/\"a\"")
            .api_saw(since.clone()),
        rule("4.3.1: not with a tag of our own")
            .api(ok(&["cache-control: max-age=10"]))
            .get()
            .stored()
            .wait(10)
            .get()
            .renewed()
            .api_did_not_see("if-none-match"),
        rule("4.3.1: not with a reader's, which may be ours")
            .api(ok(&["cache-control: max-age=10", &changed]))
            .api(says(304, &[&changed]))
            .get()
            .stored()
            .wait(10)
            .get()
            .with("if-none-match: \"sg-00\"")
            .confirmed()
            .shows(1)
            .api_saw(since)
            .api_did_not_see("if-none-match"),
        rule("4.3.1: a reader's tag passes where nothing is stored, ours does not")
            .api(ok::<&str>(&[]))
            .get()
            .with("if-none-match: \"a\"")
            .sees("fwd=bypass; detail=conditional")
            .api_saw("if-none-match: \"a\"")
            .get()
            .with("if-none-match: \"sg-00\"")
            .sees("fwd=bypass; detail=conditional")
            .api_did_not_see("if-none-match")
            .get()
            .with("if-none-match: \"a\", W/\"sg-00\"")
            .api_did_not_see("if-none-match")
            .head()
            .with("if-none-match: \"sg-00\"")
            .api_did_not_see("if-none-match"),
        rule("4.3.1: not with a tag that is malformed")
            .api(tagged("a"))
            .get()
            .stored()
            .has("etag: a")
            .get()
            .hit(10)
            .has("etag: a")
            .wait(10)
            .get()
            .renewed()
            .api_did_not_see("if-none-match"),
        rule("4.3.1: not with one of two tags")
            .api(ok(&[
                "cache-control: max-age=10",
                "etag: \"a\"",
                "etag: \"b\"",
            ]))
            .get()
            .stored()
            .wait(10)
            .get()
            .renewed()
            .api_did_not_see("if-none-match"),
        rule("5.2.2.4: no-cache is confirmed before each use")
            .api(ok(&["cache-control: no-cache, max-age=60", "etag: \"a\""]))
            .api(not_modified("\"a\""))
            .get()
            .stored()
            .get()
            .confirmed()
            .shows(1)
            .get()
            .confirmed()
            .shows(1)
            .api_saw("if-none-match: \"a\""),
        rule("5.2.2.4: qualified no-cache as well")
            .api(ok(&[
                "cache-control: no-cache=\"x-a\", max-age=60",
                "etag: \"a\"",
            ]))
            .api(not_modified("\"a\""))
            .get()
            .stored()
            .get()
            .confirmed()
            .shows(1),
        rule("3: what has no lifetime but a tag is stored to be compared")
            .api(ok(&["etag: \"a\""]))
            .api(not_modified("\"a\""))
            .get()
            .stored()
            .get()
            .confirmed()
            .shows(1),
        rule("5.2.1.4: a reload is a comparison too")
            .api(tagged("\"a\""))
            .api(not_modified("\"a\""))
            .get()
            .stored()
            .wait(5)
            .get()
            .with("cache-control: no-cache")
            .sees("fwd=request; fwd-status=304; stored")
            .shows(1)
            .api_saw("if-none-match: \"a\"")
            .get()
            .hit(10),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_4_3_3_what_the_api_says_to_that() {
    let stale = |why: &str, tag: &str| rule(why).api(tagged(tag));
    hold([
        stale("4.3.3: a 304 makes it fresh, and young", "\"a\"")
            .api(not_modified("\"a\""))
            .get()
            .stored()
            .wait(12)
            .get()
            .confirmed()
            .shows(1)
            .has("etag: \"a\"")
            .get()
            .hit(10)
            .age(0)
            .wait(9)
            .get()
            .hit(1)
            .age(9)
            .wait(1)
            .get()
            .confirmed(),
        stale("4.2.3: it is as old as the 304 says", "\"a\"")
            .api_late(2, says(304, &["etag: \"a\"", "age: 3"]))
            .get()
            .stored()
            .wait(12)
            .get()
            .confirmed()
            .get()
            .hit(5)
            .age(5),
        stale("4.3.3: a whole answer takes its place", "\"a\"")
            .api(tagged("\"b\""))
            .api(not_modified("\"b\""))
            .get()
            .stored()
            .wait(10)
            .get()
            .renewed()
            .shows(2)
            .get()
            .hit(10)
            .shows(2)
            .wait(10)
            .get()
            .confirmed()
            .shows(2)
            .api_saw("if-none-match: \"b\""),
        stale(
            "4.3.3: a failure is passed on, and what is stored can be compared later",
            "\"a\"",
        )
        .api(says::<&str>(503, &[]))
        .api(not_modified("\"a\""))
        .get()
        .stored()
        .wait(10)
        .get()
        .status(503)
        .sees("fwd=stale; detail=status")
        .get()
        .confirmed()
        .shows(1),
        stale(
            "4.3.4: a 304 of another tag is about another answer",
            "\"a\"",
        )
        .api(not_modified("\"b\""))
        .api(tagged("\"b\""))
        .get()
        .stored()
        .wait(10)
        .get()
        .renewed()
        .asked(2)
        .shows(3)
        .api_did_not_see("if-none-match")
        .get()
        .hit(10)
        .shows(3),
        stale("4.3.4: a strong tag does not confirm a weak one", "W/\"a\"")
            .api(not_modified("\"a\""))
            .api(tagged("\"a\""))
            .get()
            .stored()
            .wait(10)
            .get()
            .renewed()
            .asked(2)
            .shows(3),
        stale("4.3.4: a weak tag confirms a weak one", "W/\"a\"")
            .api(not_modified("W/\"a\""))
            .get()
            .stored()
            .wait(10)
            .get()
            .confirmed()
            .shows(1),
        stale(
            "4.3.4: a weak tag confirms what was asked about with the same strong one",
            "\"a\"",
        )
        .api(not_modified("W/\"a\""))
        .get()
        .stored()
        .wait(10)
        .get()
        .confirmed()
        .shows(1),
        rule("4.3.4: another time of change is another answer")
            .api(ok(&[
                "cache-control: max-age=10".to_owned(),
                format!("last-modified: {}", date(-100)),
            ]))
            .api(says(304, &[format!("last-modified: {}", date(-50))]))
            .api(ok(&["cache-control: max-age=10"]))
            .get()
            .stored()
            .wait(10)
            .get()
            .renewed()
            .asked(2)
            .shows(3)
            .api_did_not_see("if-modified-since"),
        stale(
            "4.3.4: an API that only says 304 is not asked for ever",
            "\"a\"",
        )
        .api(not_modified("\"b\""))
        .get()
        .stored()
        .wait(10)
        .get()
        .error(502, "gateway-upstream-broken")
        .asked(2),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_3_2_what_a_304_changes_of_what_is_stored() {
    let first = || {
        ok(&[
            "cache-control: max-age=10",
            "etag: \"a\"",
            "content-type: application/json",
            "content-language: en",
            "x-old: 1",
            "x-both: 1",
            "x-both: 2",
        ])
    };
    let later = format!("date: {}", date(10));
    let renewing = || {
        says(
            304,
            &[
                "cache-control: max-age=100",
                "etag: \"a\"",
                &later,
                "content-type: text/html",
                "connection: x-hop",
                "x-hop: 1",
                "x-both: 3",
                "x-new: 4",
            ],
        )
    };
    let row = |why: &str| rule(why).api(first()).get().stored().wait(10);
    hold([
        row("3.2: what it says replaces what was said, all else is kept")
            .api(renewing())
            .get()
            .confirmed()
            .has("x-both: 3")
            .has("x-new: 4")
            .get()
            .hit(100)
            .shows(1)
            .has("cache-control: max-age=100")
            .has(later.clone())
            .has("content-language: en")
            .has("x-old: 1")
            .has("x-both: 3")
            .has("x-new: 4"),
        row("3.2: but not what says something of the bytes, or of the hop")
            .api(renewing())
            .get()
            .has("content-type: application/json")
            .lacks("x-hop")
            .get()
            .hit(100)
            .has("content-type: application/json")
            .lacks("content-length")
            .lacks("x-hop"),
        row("3.2: it may shorten the lifetime")
            .api(says(304, &["cache-control: max-age=3"]))
            .get()
            .confirmed()
            .get()
            .hit(3)
            .wait(3)
            .get()
            .confirmed(),
        row("3.2: it may end it")
            .api(says(304, &["cache-control: no-cache"]))
            .get()
            .confirmed()
            .shows(1)
            .get()
            .confirmed()
            .shows(1),
        row("4.3.4: who asked for the whole gets the whole, even if it may no longer be kept")
            .api(says(304, &["cache-control: no-store"]))
            .get()
            .status(200)
            .shows(1),
        row("4.3.4: also if the 304 sets a cookie")
            .api(says(304, &["set-cookie: a=b"]))
            .get()
            .status(200)
            .shows(1),
        row("4.3.4: also if the 304 varies by everything")
            .api(says(304, &["vary: *"]))
            .get()
            .status(200)
            .shows(1),
        rule("4.3.4: also where the 304 ends the lifetime of what is no success")
            .api(says(410, &["cache-control: max-age=10", "etag: \"a\""]))
            .api(says(304, &["cache-control: max-age=0"]))
            .get()
            .status(410)
            .stored()
            .wait(10)
            .get()
            .status(410)
            .shows(1),
        row("3.2: a coding that a 304 names is not that of the bytes")
            .api(says(304, &["content-encoding: gzip"]))
            .get()
            .confirmed()
            .lacks("content-encoding"),
        row("3.2: all lines of a field that is not kept reach the first reader")
            .api(says(304, &["x-ratelimit-a: 1", "x-ratelimit-a: 2"]))
            .get()
            .confirmed()
            .has("x-ratelimit-a: 1")
            .has("x-ratelimit-a: 2"),
    ])
    .await;
}

/// An answer with all that a 304 has to say, and what it must not.
fn complete() -> Response<Bytes> {
    ok(&[
        "cache-control: max-age=60".to_owned(),
        "etag: \"a\"".to_owned(),
        "content-type: application/json".to_owned(),
        "content-language: en".to_owned(),
        "content-location: /labels".to_owned(),
        "vary: x-a".to_owned(),
        format!("date: {}", date(0)),
        format!("expires: {}", date(60)),
        format!("last-modified: {}", date(-100)),
    ])
}

#[tokio::test(start_paused = true)]
async fn section_4_3_2_a_reader_with_a_tag() {
    let with_tag = |why: &str, tag: &str, status: u16| {
        let row = rule(format!("{why}: {tag}")).api(complete()).get().stored();
        let row = row.get().with(format!("if-none-match: {tag}"));
        let row = row.status(status).hit(60);
        match status {
            304 => row.body(""),
            _ => row.shows(1),
        }
    };
    hold([
        with_tag("RFC 9110, 13.1.2: the same", "\"a\"", 304),
        with_tag("RFC 9110, 13.1.2: compared weakly", "W/\"a\"", 304),
        with_tag("RFC 9110, 13.1.2: any", "*", 304),
        with_tag("RFC 9110, 13.1.2: one of a list", "\"x\", \"a\"", 304),
        with_tag(
            "RFC 9110, 13.1.2: weakly, of a list",
            "\"x\",W/\"a\",\"y\"",
            304,
        ),
        with_tag("RFC 9110, 13.1.2: after empty elements", ", , \"a\"", 304),
        with_tag("RFC 9110, 8.8.3: a comma in a tag", "\"x,\", \"a\"", 304),
        with_tag("RFC 9110, 13.1.2: another", "\"b\"", 200),
        with_tag("RFC 9110, 8.8.3: tags have their case", "\"A\"", 200),
        with_tag("RFC 9110, 8.8.3: one without quotes", "a", 200),
        with_tag("RFC 9110, 8.8.3: a small w", "w/\"a\"", 200),
        with_tag("RFC 9110, 8.8.3: one that does not end", "\"a", 200),
        with_tag("RFC 9110, 13.1.2: none at all", "", 200),
        rule("RFC 9110, 15.4.5: what a 304 says")
            .api(complete())
            .get()
            .stored()
            .wait(7)
            .get()
            .with("if-none-match: \"a\"")
            .hit(53)
            .status(304)
            .body("")
            .age(7)
            .has("etag: \"a\"")
            .has("cache-control: max-age=60")
            .has("content-location: /labels")
            .has("vary: x-a")
            .has(format!("date: {}", date(0)))
            .has(format!("expires: {}", date(60)))
            .lacks("content-type")
            .lacks("content-length")
            .lacks("content-language")
            .lacks("last-modified"),
        rule("RFC 9110, 13.1.2: in two lines")
            .api(complete())
            .get()
            .stored()
            .get()
            .with("if-none-match: \"x\"")
            .with("if-none-match: \"a\"")
            .hit(60)
            .status(304),
        rule("4.3.2: the fetch of a whole is for everybody")
            .on(USERS)
            .api(ok(&["etag: \"a\""]))
            .get()
            .with("if-none-match: \"a\"")
            .stored()
            .status(304)
            .body("")
            .api_did_not_see("if-none-match")
            .get()
            .hit(60)
            .shows(1),
        rule("4.3.2: what is stale is asked about with its own tag, and judged by the new one")
            .api(tagged("\"a\""))
            .api(tagged("\"b\""))
            .get()
            .stored()
            .wait(10)
            .get()
            .with("if-none-match: \"b\"")
            .renewed()
            .status(304)
            .api_saw("if-none-match: \"a\"")
            .get()
            .hit(10)
            .shows(2),
        rule("4.3.2: a reader that has what the API confirms")
            .api(tagged("\"a\""))
            .api(not_modified("\"a\""))
            .get()
            .stored()
            .wait(10)
            .get()
            .with("if-none-match: \"a\"")
            .status(304)
            .asked(1)
            .get()
            .hit(10),
        rule("RFC 9110, 13.2.1: conditions are for successes")
            .api(says(404, &["cache-control: max-age=60", "etag: \"a\""]))
            .get()
            .status(404)
            .stored()
            .get()
            .with("if-none-match: \"a\"")
            .status(404)
            .hit(60)
            .shows(1),
        rule("4.3.2: where nothing is stored the API answers, as it can")
            .api(not_modified("\"a\""))
            .get()
            .with("if-none-match: \"a\"")
            .status(304)
            .sees("fwd=bypass; detail=conditional"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_4_3_2_our_own_tag_is_good_for_readers() {
    let script = Script::new(|_, _| Step::Answer(body(ok::<&str>(&[]), "text")));
    let world = script.world();
    let first = world.get(USERS, "a").await;
    let tag = first.header("etag").to_owned();
    assert!(tag.starts_with("\"sg-"), "{tag}");
    let conditional = || {
        let plain = request(Method::GET, USERS, "a", "");
        with(plain, "if-none-match", &tag)
    };
    let hit = world.send(conditional()).await;
    assert_eq!((hit.status.as_u16(), hit.header("etag")), (304, &*tag));
    sleep(Duration::from_secs(60)).await;
    let renewed = world.send(conditional()).await;
    assert_eq!(renewed.status, 304, "the same text has the same tag");
    assert_eq!(script.count(), 2);
    assert!(!script.seen()[1].headers.contains_key("if-none-match"));
}

#[tokio::test(start_paused = true)]
async fn section_4_3_2_a_reader_with_a_date() {
    let at = |name: &str, seconds: i64| format!("{name}: {}", date(seconds));
    let since = |seconds: i64| at("if-modified-since", seconds);
    let (now, changed) = (at("date", 0), at("last-modified", -100));
    let dated = || ok(&["cache-control: max-age=60", &now, &changed]);
    let undated = || ok(&["cache-control: max-age=60", &now]);
    let tagged = || ok(&["cache-control: max-age=60", "etag: \"a\"", &now, &changed]);
    let row = |why: &str, answer: Response<Bytes>, fields: &[String], status: u16| {
        let row = rule(why).api(answer).get().stored().get();
        let row = fields.iter().fold(row, |row, field| row.with(field));
        row.status(status).hit(60)
    };
    let garbage = ["if-modified-since: yesterday".to_owned()];
    let old = ["if-modified-since: Wednesday, 18-Nov-26 11:05:00 GMT".to_owned()];
    let tag = |tag: &str| format!("if-none-match: {tag}");
    hold([
        row(
            "RFC 9110, 13.1.3: as it changed",
            dated(),
            &[since(-100)],
            304,
        )
        .lacks("content-type"),
        row("RFC 9110, 13.1.3: later", dated(), &[since(-99)], 304),
        row("RFC 9110, 13.1.3: earlier", dated(), &[since(-101)], 200),
        row("RFC 9110, 5.6.7: as RFC 850 wrote it", dated(), &old, 304),
        row("RFC 9110, 13.1.3: what is no date", dated(), &garbage, 200),
        row(
            "RFC 9110, 13.1.3: two dates",
            dated(),
            &[since(0), since(0)],
            200,
        ),
        row(
            "4.3.2: by Date where no change is known",
            undated(),
            &[since(0)],
            304,
        ),
        row("4.3.2: the same, earlier", undated(), &[since(-1)], 200),
        row(
            "RFC 9110, 13.2.2: the tag comes first, and differs",
            tagged(),
            &[tag("\"b\""), since(0)],
            200,
        ),
        row(
            "RFC 9110, 13.2.2: the tag comes first, and is the same",
            tagged(),
            &[tag("\"a\""), since(-500)],
            304,
        ),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_4_3_2_conditions_that_are_the_apis_pass() {
    let row = |field: &str| {
        let pass = "fwd=bypass; detail=conditional";
        rule(format!("RFC 9110, 13.1: {field}"))
            .api(complete())
            .api(says::<&str>(412, &[]))
            .get()
            .stored()
            .get()
            .with(field)
            .status(412)
            .sees(pass)
            .api_saw(field)
            .get()
            .hit(60)
            .shows(1)
    };
    hold([
        row("if-match: \"a\""),
        row("if-match: *"),
        row(&format!("if-unmodified-since: {}", date(0))),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_4_3_5_head() {
    let long = || ok(&["cache-control: max-age=60", "etag: \"a\""]);
    let other = || ok(&["cache-control: max-age=60", "etag: \"b\""]);
    let row = |why: &str| rule(why).api(long()).get().stored();
    hold([
        row("4: HEAD is answered by a stored GET")
            .head()
            .hit(60)
            .body("")
            .has("content-length: 8")
            .has("etag: \"a\"")
            .age(0),
        row("RFC 9110, 13.1.2: HEAD with a condition")
            .head()
            .with("if-none-match: \"a\"")
            .hit(60)
            .status(304)
            .lacks("content-length"),
        row("RFC 9110, 9.3.2: what is stale is fetched with GET")
            .wait(60)
            .head()
            .renewed()
            .body("")
            .api_method(Method::GET)
            .get()
            .hit(60),
        row("4.3.5: what HEAD shows is what GET shows from then on")
            .api(other())
            .head()
            .with("cache-control: no-cache")
            .sees("fwd=request; stored")
            .has("etag: \"b\"")
            .has("content-length: 8")
            .body("")
            .get()
            .hit(60)
            .shows(2),
        row("4.3.4: what has not changed is confirmed")
            .api(says(304, &["etag: \"a\""]))
            .head()
            .with("cache-control: no-cache")
            .sees("fwd=request; fwd-status=304; stored")
            .body("")
            .get()
            .hit(60)
            .shows(1),
        row("a HEAD that fails ends nothing")
            .api(says::<&str>(500, &[]))
            .head()
            .with("cache-control: no-cache")
            .status(500)
            .get()
            .hit(60)
            .shows(1),
        rule("RFC 9110, 9.3.2: what is absent is fetched with GET, for those who ask with it too")
            .on(USERS)
            .api(long())
            .head()
            .stored()
            .body("")
            .api_method(Method::GET)
            .get()
            .hit(60)
            .shows(1),
        rule("what nobody says would be stored is asked for with HEAD")
            .api(long())
            .head()
            .sees("fwd=method")
            .api_method(Method::HEAD)
            .get()
            .stored()
            .api_method(Method::GET),
    ])
    .await;
}
