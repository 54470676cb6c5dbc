//! What readers ask of the cache (RFC 9111, sections 5.2.1 and 5.4; RFC 8246).

use super::*;

fn fresh() -> Response<Bytes> {
    ok(&["cache-control: max-age=60"])
}

/// A stored answer that is 10 s old and fresh for 50 s more.
fn old(why: impl Into<String>) -> Exchange {
    rule(why).api(fresh()).get().stored().wait(10)
}

/// One that has been stale for 10 s.
fn stale(why: impl Into<String>) -> Exchange {
    rule(why).api(fresh()).get().stored().wait(70)
}

const ASKED: &str = "fwd=request; stored";

#[tokio::test(start_paused = true)]
async fn section_5_2_1_what_a_reader_accepts() {
    let cases: &[(&str, &str, bool)] = &[
        ("5.2.1.1: not older", "max-age=10", true),
        ("5.2.1.1: older", "max-age=9", false),
        ("5.2.1.1: nothing that is stored", "max-age=0", false),
        ("5.2.1.1: quoted, in capitals", "MAX-AGE=\"9\"", false),
        ("5.2.1.1: what is no number is nothing", "max-age=x", false),
        ("5.2.1.2: stale, which it is not", "max-stale=5", true),
        ("5.2.1.3: fresh for long enough", "min-fresh=50", true),
        ("5.2.1.3: not fresh for long enough", "min-fresh=51", false),
        (
            "5.2.1.3: what is no number is for ever",
            "min-fresh=x",
            false,
        ),
        (
            "5.2.1.3: not outweighed by max-stale",
            "min-fresh=51, max-stale",
            false,
        ),
        ("5.2.1.4: only what is confirmed", "no-cache", false),
        (
            "5.2.1.4: whatever else is accepted",
            "no-cache, max-stale",
            false,
        ),
        ("5.2.1.6: the bytes as they are", "no-transform", true),
        ("5.2.1.7: what is stored", "only-if-cached", true),
        ("5.2.2.10: s-maxage is for answers", "s-maxage=0", true),
        (
            "5.2.2: so is must-revalidate",
            "must-revalidate, private",
            true,
        ),
        (
            "5.2.3: what is unknown means nothing",
            "x-a=\"no-cache\", b",
            true,
        ),
    ];
    hold(cases.iter().map(|(why, value, accepted)| {
        let row = old(format!("{why}: {value}")).get();
        let row = row.with(format!("cache-control: {value}"));
        if *accepted {
            row.hit(50).age(10).get().hit(50)
        } else {
            row.sees(ASKED).get().hit(60).age(0)
        }
    }))
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_5_2_1_2_what_is_stale_is_shown_to_who_accepts_it() {
    let shown = "hit; ttl=-10; detail=max-stale";
    let cases: &[(&str, &str, Option<&str>)] = &[
        ("by any time", "max-stale", Some(shown)),
        ("by more than it is", "max-stale=11", Some(shown)),
        ("by less than it is", "max-stale=9", None),
        ("what is no number", "max-stale=x", None),
        ("and not older", "max-stale, max-age=70", Some(shown)),
        ("and not that old", "max-stale, max-age=69", None),
        ("but fresh for a while", "max-stale, min-fresh=1", None),
        ("but confirmed", "max-stale, no-cache", None),
        ("but of nothing stored", "max-stale, max-age=0", None),
    ];
    hold(cases.iter().map(|(why, value, sees)| {
        let row = stale(format!("5.2.1.2: {why}: {value}")).get();
        let row = row.with(format!("cache-control: {value}"));
        match sees {
            Some(sees) => row.sees(*sees).age(70).shows(1).get().renewed(),
            None => row.asked(1).get().hit(60),
        }
    }))
    .await;
    hold([
        stale("4.2.4: nobody else is shown it").get().renewed(),
        rule("4.2.4: whose time the route gives as well")
            .on(USERS)
            .api(ok::<&str>(&[]))
            .get()
            .stored()
            .wait(65)
            .get()
            .with("cache-control: max-stale=30")
            .sees("hit; ttl=-5; detail=max-stale"),
        rule("4.2.4: what never had a lifetime is not stale but unknown")
            .api(ok(&["etag: \"a\""]))
            .get()
            .stored()
            .get()
            .with("cache-control: max-stale")
            .renewed(),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_5_2_1_5_no_store() {
    let bypass = "fwd=bypass; detail=request-no-store";
    hold([
        rule("5.2.1.5: the answer is not stored")
            .api(fresh())
            .get()
            .with("cache-control: no-store")
            .sees(bypass)
            .get()
            .stored(),
        old("5.2.1.5: what is stored stays")
            .get()
            .with("cache-control: max-age=60, no-store")
            .sees(bypass)
            .shows(1)
            .get()
            .hit(50),
        rule("5.2.1.5: also where the route gives a time")
            .on(USERS)
            .api(ok::<&str>(&[]))
            .get()
            .with("cache-control: no-store")
            .sees(bypass)
            .get()
            .stored(),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_5_2_1_7_only_if_cached() {
    const ONLY: &str = "cache-control: only-if-cached";
    let none = |why: &str| rule(why).api(fresh());
    hold([
        none("5.2.1.7: nothing is stored")
            .get()
            .with(ONLY)
            .not_cached(),
        none("5.2.1.7: nothing is stored, of a route with a time")
            .on(USERS)
            .get()
            .with(ONLY)
            .not_cached(),
        none("5.2.1.7: nothing is stored, of a path that nobody knows")
            .on(UNKNOWN)
            .get()
            .with(ONLY)
            .not_cached(),
        none("5.2.1.7: nothing is stored, for HEAD")
            .head()
            .with(ONLY)
            .sees("detail=gateway-not-cached")
            .status(504)
            .asked(0),
        old("5.2.1.7: HEAD of what is stored")
            .head()
            .with(ONLY)
            .hit(50),
        stale("5.2.1.7: stale").get().with(ONLY).not_cached(),
        stale("5.2.1.7: stale, and accepted")
            .get()
            .with("cache-control: only-if-cached, max-stale")
            .sees("hit; ttl=-10; detail=max-stale"),
        old("5.2.1.7: too old")
            .get()
            .with("cache-control: only-if-cached, max-age=5")
            .not_cached(),
        old("5.2.1.7: with no-cache")
            .get()
            .with("cache-control: only-if-cached, no-cache")
            .not_cached(),
        old("5.2.1.7: with no-store, which is not answered from the store")
            .get()
            .with("cache-control: only-if-cached, no-store")
            .not_cached(),
        old("5.2.1.7: with a condition that only the API can judge")
            .get()
            .with(ONLY)
            .with("if-match: \"a\"")
            .not_cached(),
        old("5.2.1.7: with a cookie, which no key holds")
            .get()
            .with(ONLY)
            .with("cookie: a=b")
            .not_cached(),
        none("5.2.1.7: with a query that has no canonical form")
            .ask_for(Method::GET, "/users?pagination.count=1&pagination.count=2")
            .with(ONLY)
            .not_cached(),
        none("5.2.1.7: with a range of what is not stored")
            .get()
            .with(ONLY)
            .with("range: bytes=0-1")
            .not_cached(),
        old("5.2.1.7: with a range of what is stored")
            .get()
            .with(ONLY)
            .with("range: bytes=0-1")
            .status(206)
            .hit(50),
        none("5.2.1.7: another variant is stored")
            .api(ok(&["cache-control: max-age=60", "vary: x-a"]))
            .get()
            .stored()
            .get()
            .with("cache-control: no-cache")
            .get()
            .with("x-a: 1")
            .with(ONLY)
            .not_cached(),
        none("5.2.1.7: an operation whose answers are never stored")
            .users("cache = \"0s\"")
            .get()
            .with(ONLY)
            .not_cached(),
        old("5.2.1.7: a write has made it stale")
            .ask_for(Method::PUT, WRITE)
            .get()
            .with(ONLY)
            .not_cached(),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_5_4_pragma() {
    hold([
        old("5.4: no-cache")
            .get()
            .with("pragma: no-cache")
            .sees(ASKED),
        old("5.4: in whatever case, among others")
            .get()
            .with("pragma: x, No-Cache")
            .sees(ASKED),
        old("5.4: anything else means nothing")
            .get()
            .with("pragma: x=no-cache")
            .hit(50),
        old("5.4: nor does it beside Cache-Control")
            .get()
            .with("pragma: no-cache")
            .with("cache-control: max-age=60")
            .hit(50),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn rfc_8246_what_cannot_change_is_not_asked_for_by_a_reload() {
    let row = |why: &str| {
        rule(format!("RFC 8246, 2: {why}"))
            .api(ok(&["cache-control: max-age=60, immutable"]))
            .get()
            .stored()
    };
    hold([
        row("max-age=0 is what browsers say to that")
            .get()
            .with("cache-control: max-age=0")
            .hit(60)
            .wait(59)
            .get()
            .with("cache-control: max-age=5")
            .hit(1),
        row("no-cache is meant")
            .get()
            .with("cache-control: no-cache")
            .sees(ASKED),
        row("min-fresh is about the time to come")
            .wait(10)
            .get()
            .with("cache-control: min-fresh=51")
            .sees(ASKED),
        row("only as long as it is fresh")
            .wait(60)
            .get()
            .with("cache-control: max-age=0")
            .sees(ASKED)
            .wait(60)
            .get()
            .renewed(),
    ])
    .await;
}
