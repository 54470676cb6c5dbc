//! How long an answer is fresh and how old it is (RFC 9111, section 4.2), also by
//! `CDN-Cache-Control` (RFC 9213).

use super::*;

/// An answer with these fields is shown from the store for exactly so long. An answer that has no
/// time at all is not stored.
fn lives(why: &str, fields: &[&str], seconds: u64) -> Exchange {
    lives_by(rule(why), 200, fields, seconds)
}

fn lives_by(row: Exchange, status: u16, fields: &[&str], seconds: u64) -> Exchange {
    let row = row.api(says(status, fields)).get().status(status);
    if seconds == 0 {
        let sees = "fwd=uri-miss; detail=expired";
        return row.sees(sees).get().status(status).sees(sees);
    }
    let row = row.stored().get().status(status).hit(seconds);
    let row = row.wait(seconds - 1).get().status(status).hit(1).shows(1);
    row.wait(1).get().status(status).asked(1)
}

#[tokio::test(start_paused = true)]
async fn section_4_2_1_by_directives() {
    let cases: &[(&str, &str, u64)] = &[
        ("max-age", "max-age=10", 10),
        (
            "s-maxage comes before max-age",
            "max-age=100, s-maxage=10",
            10,
        ),
        (
            "s-maxage comes before a shorter max-age",
            "s-maxage=10, max-age=5",
            10,
        ),
        (
            "s-maxage=0 comes before max-age",
            "s-maxage=0, max-age=9",
            0,
        ),
        ("names have no case", "MAX-Age=10", 10),
        ("an argument may be quoted", "max-age=\"10\"", 10),
        (
            "spaces and empty elements mean nothing",
            " ,, max-age=10 ,",
            10,
        ),
        ("unknown directives are ignored", "x, y=z, max-age=10", 10),
        (
            "what is quoted in an unknown directive is no directive",
            "x=\"a, no-store, max-age=1\", max-age=10",
            10,
        ),
        (
            "an escaped quote ends nothing",
            "x=\"a\\\", no-store\", max-age=10",
            10,
        ),
        ("the same twice is the same", "max-age=10, max-age=10", 10),
        ("two different ones are stale", "max-age=10, max-age=20", 0),
        ("s-maxage too", "s-maxage=10, max-age=10, s-maxage=20", 0),
        ("what is no number is stale", "max-age=abc", 0),
        ("a negative number is stale", "max-age=-1", 0),
        ("a fraction is stale", "max-age=1.5", 0),
        ("a number with a unit is stale", "max-age=10s", 0),
        ("no argument is stale", "max-age", 0),
        ("an empty argument is stale", "max-age=", 0),
        ("an empty quoted one too", "max-age=\"\"", 0),
        ("max-age=0", "max-age=0", 0),
    ];
    hold(cases.iter().map(|(why, value, seconds)| {
        let field = format!("cache-control: {value}");
        lives(&format!("4.2.1: {why}: {value}"), &[&field], *seconds)
    }))
    .await;
    hold([
        lives(
            "4.2.1: two different ones in two lines are stale",
            &["cache-control: max-age=10", "cache-control: max-age=20"],
            0,
        ),
        rule("1.2.2: a number too large for anyone is 2^31 seconds")
            .api(ok(&["cache-control: max-age=99999999999999999999999"]))
            .get()
            .stored()
            .get()
            .hit(1 << 31),
        rule("5.2: a quoted string that never ends may have hidden anything")
            .api(ok(&["cache-control: x=\"y, max-age=10"]))
            .get()
            .sees("fwd=uri-miss; detail=no-store"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_4_2_1_by_expires() {
    let at = |name: &str, seconds: i64| format!("{name}: {}", date(seconds));
    let (now, soon) = (at("date", 0), at("expires", 10));
    let (past, now_too) = (at("expires", -10), at("expires", 0));
    let soon_in_lower_case = soon.to_lowercase();
    let soon_in_upper_case = soon.to_uppercase();
    // The beginning of each row in the two obsolete formats.
    assert_eq!(date(10), "Wed, 18 Nov 2026 11:06:50 GMT");
    let rfc_850 = "expires: Wednesday, 18-Nov-26 11:06:50 GMT";
    let asctime = "expires: Wed Nov 18 11:06:50 2026";
    let cases: Vec<(&str, Vec<&str>, u64)> = vec![
        ("5.3: from Date to Expires", vec![&now, &soon], 10),
        (
            "RFC 9110, 5.6.7: as RFC 850 wrote it",
            vec![&now, rfc_850],
            10,
        ),
        (
            "RFC 9110, 5.6.7: as asctime writes it",
            vec![&now, asctime],
            10,
        ),
        ("4.2: in lower case", vec![&now, &soon_in_lower_case], 10),
        ("4.2: in upper case", vec![&now, &soon_in_upper_case], 10),
        ("5.3: a past one is stale", vec![&now, &past], 0),
        ("5.3: the same as Date is stale", vec![&now, &now_too], 0),
        ("5.3: 0 is stale", vec![&now, "expires: 0"], 0),
        ("5.3: -1 is stale", vec![&now, "expires: -1"], 0),
        (
            "5.3: what is no date is stale",
            vec![&now, "expires: tomorrow"],
            0,
        ),
        ("4.2.1: two are stale", vec![&now, &soon, &soon], 0),
        (
            "5.3: max-age comes before it",
            vec![&now, &past, "cache-control: max-age=10"],
            10,
        ),
        (
            "5.3: a max-age that cannot be read too",
            vec![&now, &soon, "cache-control: max-age=x"],
            0,
        ),
        (
            "5.3: s-maxage comes before it",
            vec![&now, &past, "cache-control: s-maxage=10"],
            10,
        ),
        (
            "5.3: other directives do not",
            vec![&now, &soon, "cache-control: public"],
            10,
        ),
        (
            "RFC 9110, 6.6.1: without a Date that can be read it came now",
            vec!["date: yesterday", &soon],
            10,
        ),
        (
            "RFC 9110, 6.6.1: two dates are none",
            vec!["date: Wed, 18 Nov 2026 10:00:00 GMT", &now, &soon],
            10,
        ),
    ];
    let rows = cases
        .iter()
        .map(|(why, fields, seconds)| lives(why, fields, *seconds));
    hold(rows).await;
    let (their_now, their_soon) = (at("date", -7_200), at("expires", -7_190));
    let (ahead, ahead_soon) = (at("date", 7_200), at("expires", 7_210));
    hold([
        lives(
            "4.2.1: clocks need not agree: theirs is behind",
            &[&their_now, &their_soon],
            10,
        ),
        lives(
            "4.2.1: clocks need not agree: theirs is ahead",
            &[&ahead, &ahead_soon],
            10,
        ),
        rule("RFC 9110, 6.6.1: an answer is given the date at which it came")
            .api_late(5, ok(&["date: yesterday", "cache-control: max-age=60"]))
            .get()
            .stored()
            .has(format!("date: {}", date(5)))
            .wait(2)
            .get()
            .hit(53)
            .has(format!("date: {}", date(5))),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_4_2_2_a_lifetime_is_guessed_only_where_the_operator_wants_it() {
    let at = |name: &str, seconds: i64| format!("{name}: {}", date(seconds));
    let (now, modified) = (at("date", 0), at("last-modified", -1_000));
    let (ages_ago, future) = (at("last-modified", -400 * 86_400), at("last-modified", 9));
    let guessing = |why: &str| rule(why).labels("heuristic_percent = 10");
    let twice = modified.clone();
    hold([
        lives_by(
            guessing("4.2.2: a tenth of the time since it changed"),
            200,
            &[&now, &modified],
            100,
        ),
        lives_by(
            guessing("4.2.2: never more than a day"),
            200,
            &[&now, &ages_ago],
            86_400,
        ),
        lives_by(
            guessing("4.2.2: a stated time comes first"),
            200,
            &[&now, &modified, "cache-control: max-age=10"],
            10,
        ),
        lives_by(
            guessing("RFC 9110, 15.1: for a 404 too"),
            404,
            &[&now, &modified],
            100,
        ),
        lives_by(
            guessing("4.2.2: with public for any status"),
            302,
            &[&now, &modified, "cache-control: public"],
            100,
        ),
        guessing("4.2.2: not for a status that is not known for it")
            .api(says(302, &[&now, &modified]))
            .get()
            .status(302)
            .sees("fwd=uri-miss; detail=status")
            .get()
            .status(302)
            .sees("fwd=uri-miss; detail=status"),
        guessing("4.2.2: not from a change that is still to come")
            .api(ok(&[&now, &future]))
            .get()
            .stored()
            .get()
            .renewed(),
        guessing("4.2.2: not from two times of change")
            .api(ok(&[&now, &modified, &twice]))
            .get()
            .sees("fwd=uri-miss; detail=no-lifetime"),
        guessing("4.2.2: not without one")
            .api(ok(&[&now]))
            .get()
            .sees("fwd=uri-miss; detail=no-lifetime"),
        rule("4.2.2: not where nobody wants it: it is compared before each use")
            .api(ok(&[&now, &modified]))
            .api(says(304, &[&now]))
            .get()
            .stored()
            .get()
            .confirmed()
            .shows(1)
            .get()
            .confirmed(),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_4_2_3_the_age_with_which_it_comes() {
    let fresh = "cache-control: max-age=10";
    let (back, ahead) = (format!("date: {}", date(-4)), format!("date: {}", date(4)));
    let cases: Vec<(&str, Vec<&str>, u64)> = vec![
        ("5.1: it counts", vec!["age: 4"], 6),
        ("5.1: of a list the first member", vec!["age: 4, 9"], 6),
        ("5.1: of two lines the first", vec!["age: 4", "age: 9"], 6),
        ("5.1: a negative one is ignored", vec!["age: -4"], 10),
        ("5.1: a fraction is ignored", vec!["age: 4.5"], 10),
        ("5.1: what is no number is ignored", vec!["age: old"], 10),
        ("5.1: also before one that is", vec!["age: old, 4"], 10),
        ("4.2: as old as its lifetime", vec!["age: 10"], 0),
        (
            "5.1: a number too large",
            vec!["age: 99999999999999999999"],
            0,
        ),
        (
            "4.2.3: Date alone says nothing where all hops know Age",
            vec![&back, "via: 1.1 cache"],
            10,
        ),
        (
            "4.2.3: behind an HTTP/1.0 hop the time since Date counts",
            vec![&back, "via: 1.0 cache"],
            6,
        ),
        (
            "4.2.3: wherever the hop is, and however it is written",
            vec![&back, "via: 1.1 a, HTTP/1.0 b (c)"],
            6,
        ),
        (
            "4.2.3: the larger of both",
            vec![&back, "via: 1.0 cache", "age: 5"],
            5,
        ),
        (
            "4.2.3: the larger of both, the other way round",
            vec![&back, "via: 1.0 cache", "age: 3"],
            6,
        ),
        (
            "4.2.3: a Date still to come is no age",
            vec![&ahead, "via: 1.0 cache"],
            10,
        ),
    ];
    hold(cases.into_iter().map(|(why, mut fields, seconds)| {
        fields.push(fresh);
        lives(why, &fields, seconds)
    }))
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_4_2_3_how_it_grows() {
    let long = || ok(&["cache-control: max-age=60"]);
    let old = ok(&["cache-control: max-age=60", "age: 20"]);
    hold([
        rule("5.1: every answer from the store says how old it is")
            .api(long())
            .get()
            .stored()
            .lacks("age")
            .get()
            .hit(60)
            .age(0)
            .wait(7)
            .get()
            .hit(53)
            .age(7),
        rule("4.2.3: the time on the way is in it")
            .api_late(4, long())
            .get()
            .stored()
            .get()
            .hit(56)
            .age(4)
            .wait(5)
            .get()
            .hit(51)
            .age(9),
        rule("4.2.3: an age from upstream and the time on the way are added")
            .api_late(4, old)
            .get()
            .stored()
            .has("age: 20")
            .wait(1)
            .get()
            .hit(35)
            .age(25),
        rule("4.2: an answer that was longer on the way than it lives is asked for again")
            .api_late(12, ok(&["cache-control: max-age=10"]))
            .get()
            .get()
            .renewed(),
        rule("4.2.3: the time since Date has the way in it already")
            .api_late(
                4,
                ok(&[
                    "cache-control: max-age=60",
                    "via: 1.0 cache",
                    &format!("date: {}", date(0)),
                ]),
            )
            .get()
            .stored()
            .get()
            .hit(56)
            .age(4),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn rfc_9213_what_is_said_to_shared_caches_alone() {
    // `CDN-Cache-Control`, `Cache-Control`, seconds.
    let cases: &[(&str, &str, &str, u64)] = &[
        ("2.2: it comes first", "max-age=10", "max-age=20", 10),
        ("2.2: before no-store", "max-age=10", "no-store", 10),
        (
            "2.2: before no-cache",
            "max-age=10",
            "no-cache, private",
            10,
        ),
        ("2.1: s-maxage in it", "max-age=20, s-maxage=10", "", 10),
        (
            "2.1: the last member counts",
            "max-age=20, max-age=10",
            "",
            10,
        ),
        ("2.1: parameters mean nothing", "max-age=10;x=1", "", 10),
        (
            "2.1: what is false is not said",
            "no-store=?0, max-age=10",
            "",
            10,
        ),
        (
            "2.1: unknown members are ignored",
            "x=(a b), max-age=10",
            "",
            10,
        ),
        (
            "2.1: what is no integer is unclear",
            "max-age=\"10\"",
            "max-age=9",
            0,
        ),
        ("2.1: a negative one too", "max-age=-1", "max-age=9", 0),
        ("2.2: one that is empty is not there", "", "max-age=10", 10),
        (
            "2.2: one that is malformed is not there",
            "max-age=5, =",
            "max-age=10",
            10,
        ),
        (
            "2.2: a comma at its end is malformed",
            "max-age=5,",
            "max-age=10",
            10,
        ),
        (
            "2.2: a name in capitals is malformed",
            "MAX-AGE=5",
            "max-age=10",
            10,
        ),
        (
            "2.2: a quote that never ends is malformed",
            "a=\"b",
            "max-age=10",
            10,
        ),
    ];
    let expires = format!("expires: {}", date(500));
    let now = format!("date: {}", date(0));
    hold(cases.iter().map(|(why, targeted, general, seconds)| {
        let targeted = format!("cdn-cache-control: {targeted}");
        let general = format!("cache-control: {general}");
        let fields: [&str; 4] = [&targeted, &general, &expires, &now];
        let fields = if general.ends_with(": ") {
            &fields[..1]
        } else {
            &fields[..]
        };
        lives(&format!("RFC 9213, {why}"), fields, *seconds)
    }))
    .await;
    let both = |targeted: &str| {
        let targeted = format!("cdn-cache-control: {targeted}");
        ok(&[
            targeted.as_str(),
            "cache-control: max-age=60",
            &expires,
            &now,
        ])
    };
    hold([
        rule("RFC 9213, 2.2: it forbids what Cache-Control permits")
            .api(both("no-store"))
            .get()
            .sees("fwd=uri-miss; detail=no-store"),
        rule("RFC 9213, 2.2: no-cache in it")
            .api(both("no-cache"))
            .get()
            .sees("fwd=uri-miss; detail=no-cache"),
        rule("RFC 9213, 2.2: without a time in it there is none, whatever the others say")
            .api(both("public"))
            .get()
            .sees("fwd=uri-miss; detail=no-lifetime"),
        rule("RFC 9213, 2.2: several lines are one dictionary")
            .api(ok(&[
                "cdn-cache-control: max-age=50",
                "cdn-cache-control: max-age=10",
                "cache-control: max-age=60",
            ]))
            .get()
            .stored()
            .has("cdn-cache-control: max-age=50")
            .get()
            .hit(10)
            .has("cache-control: max-age=60"),
        rule("RFC 9213, 2.2: must-revalidate in it forbids what is stale")
            .api(both("max-age=10, must-revalidate"))
            .get()
            .stored()
            .wait(15)
            .get()
            .with("cache-control: max-stale")
            .renewed(),
        rule("RFC 9213, 2.2: must-revalidate beside it does not count")
            .api(ok(&[
                "cdn-cache-control: max-age=10",
                "cache-control: max-age=10, must-revalidate",
            ]))
            .get()
            .stored()
            .wait(15)
            .get()
            .with("cache-control: max-stale")
            .sees("hit; ttl=-5; detail=max-stale"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_5_4_pragma_in_an_answer_means_nothing() {
    hold([lives(
        "5.4: Pragma in an answer",
        &["pragma: no-cache", "cache-control: max-age=10"],
        10,
    )])
    .await;
}
