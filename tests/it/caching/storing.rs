//! What may be stored (RFC 9111, section 3), and what of it is kept.

use super::*;

#[tokio::test(start_paused = true)]
async fn section_3_only_the_answer_to_a_get_is_stored() {
    let fresh = || ok(&["cache-control: max-age=60"]);
    hold([
        rule("3: the answer to a GET is stored")
            .api(fresh())
            .get()
            .stored()
            .get()
            .hit(60)
            .shows(1),
        rule("3: the answer to a HEAD is not")
            .api(fresh())
            .head()
            .sees("fwd=method")
            .get()
            .stored(),
        rule("3: the answer to an OPTIONS is not")
            .api(fresh())
            .ask(Method::OPTIONS)
            .sees("fwd=method")
            .ask(Method::OPTIONS)
            .sees("fwd=method")
            .get()
            .stored(),
        rule("3: the answer to a POST is not, with whatever freshness")
            .on(UNKNOWN)
            .api(fresh())
            .ask(Method::POST)
            .sees("fwd=method")
            .wait(3)
            .get()
            .stored(),
        rule("3: a stored GET does not answer an OPTIONS")
            .api(fresh())
            .get()
            .stored()
            .ask(Method::OPTIONS)
            .sees("fwd=method")
            .api_method(Method::OPTIONS),
    ])
    .await;
}

/// Asks for a path of each final status twice; whether the second answer came from the store.
async fn stored_statuses(prefix: &'static str, fields: &'static [&'static str]) -> Vec<u16> {
    let script = Script::new(move |seen: &Seen, _| {
        let status = seen.target.rsplit('/').next().expect("a segment");
        let status = status.parse().expect("a status");
        let text = match status {
            204 | 205 | 304 => "",
            _ => "text",
        };
        Step::Answer(body(says(status, fields), text))
    });
    let world = script.world();
    let mut stored = Vec::new();
    // A 429 is waited out, and shown elsewhere.
    for status in (200..600).filter(|status| *status != 429) {
        let target = format!("{prefix}/{status}");
        // The API may have lost sight of a request that it answered with 5xx: its slot comes late.
        sleep(Duration::from_secs(2)).await;
        for is_second in [false, true] {
            let answer = world.get(&target, "a").await;
            // That nothing has changed since nobody knows what is no answer.
            let expected = if status == 304 { 502 } else { status };
            assert_eq!(answer.status.as_u16(), expected, "{target}");
            if is_second && answer.cache_status().contains("; hit;") {
                stored.push(status);
            }
        }
    }
    stored
}

#[tokio::test(start_paused = true)]
async fn section_3_every_final_status_with_a_stated_lifetime_is_stored() {
    // Parts and confirmations are not answers in themselves; a credential that is not accepted and
    // a limit belong to their moment.
    let never = [206, 304, 401, 407, 429];
    let fields = &["cache-control: max-age=60"];
    let mut expected: Vec<u16> = (200..600).collect();
    expected.retain(|status| !never.contains(status));
    assert_eq!(stored_statuses("/v9/x", fields).await, expected);
}

#[tokio::test(start_paused = true)]
async fn section_3_the_time_of_a_route_is_for_successes_alone() {
    let nothing = &["x-harmless: 1"];
    assert_eq!(stored_statuses("/users", nothing).await, [200, 203, 204]);
    assert_eq!(stored_statuses("/v9/x", nothing).await, [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn section_3_what_an_answer_says_against_its_storing() {
    let stored = |why: &str, status: u16, fields: &[&str]| {
        rule(format!("{why}: is stored"))
            .api(says(status, fields))
            .get()
            .status(status)
            .stored()
            .get()
            .status(status)
            .hit(60)
            .shows(1)
    };
    let not = |why: &str, detail: &str, status: u16, fields: &[&str]| {
        let sees = format!("fwd=uri-miss; detail={detail}");
        let rule = rule(format!("{why}: is not stored")).api(says(status, fields));
        let rule = rule.get().status(status).sees(sees.clone());
        rule.get().status(status).sees(sees)
    };
    hold([
        not(
            "3: no-store",
            "no-store",
            200,
            &["cache-control: max-age=60, no-store"],
        ),
        not(
            "5.2: names of directives have no case",
            "no-store",
            200,
            &["cache-control: max-age=60, No-STORE"],
        ),
        not(
            "5.2: an argument that a directive does not have is no excuse",
            "no-store",
            200,
            &["cache-control: max-age=60, no-store=\"x\""],
        ),
        not(
            "5.2: all lines of a field count",
            "no-store",
            200,
            &["cache-control: max-age=60", "cache-control: no-store"],
        ),
        stored(
            "5.2.2.7: private, since the key holds the credential",
            200,
            &["cache-control: private, max-age=60"],
        ),
        stored(
            "5.2.2.7: qualified private",
            200,
            &["cache-control: private=\"x-a\", max-age=60"],
        ),
        stored(
            "3.5: with Authorization and nothing said of it, since the key holds the credential",
            200,
            &["cache-control: max-age=60"],
        ),
        stored(
            "3.5: with Authorization and public",
            200,
            &["cache-control: public, max-age=60"],
        ),
        stored(
            "3.5: with Authorization and s-maxage",
            200,
            &["cache-control: s-maxage=60"],
        ),
        stored(
            "3.5: with Authorization and must-revalidate",
            200,
            &["cache-control: must-revalidate, max-age=60"],
        ),
        stored(
            "5.2.2.3: must-understand lifts no-store where the status is understood",
            200,
            &["cache-control: must-understand, no-store, max-age=60"],
        ),
        not(
            "5.2.2.3: must-understand with a status that is not understood",
            "not-understood",
            299,
            &["cache-control: must-understand, max-age=60"],
        ),
        not(
            "5.2.2.3: the same with no-store beside it",
            "no-store",
            299,
            &["cache-control: must-understand, no-store, max-age=60"],
        ),
        not(
            "7.3: an answer that sets a cookie",
            "set-cookie",
            200,
            &["cache-control: max-age=60", "set-cookie: a=b"],
        ),
        not(
            "7.3: the same by its other name",
            "set-cookie",
            200,
            &["cache-control: max-age=60", "set-cookie2: a=b"],
        ),
        not(
            "3: nobody gives it a lifetime",
            "no-lifetime",
            200,
            &["x-harmless: 1"],
        ),
        not(
            "3.3: a part",
            "partial",
            206,
            &["cache-control: max-age=60", "content-range: bytes 0-7/9"],
        ),
        not(
            "3.3: a part that does not say of what",
            "partial",
            206,
            &["cache-control: max-age=60"],
        ),
        not(
            "3.3: a part under the name of the whole",
            "partial",
            200,
            &["cache-control: max-age=60", "content-range: bytes 0-7/9"],
        ),
        not(
            "3: the answer says that the credential is not accepted",
            "status",
            401,
            &["cache-control: max-age=60"],
        ),
        rule("3: a limit belongs to its moment")
            .api(says(429, &["cache-control: max-age=60", "retry-after: 50"]))
            .api(ok(&["cache-control: max-age=60"]))
            .get()
            .status(429)
            .sees("fwd=uri-miss; detail=status")
            .wait(60)
            .get()
            .stored(),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_3_1_what_belongs_to_one_exchange_is_not_kept() {
    let first = ok(&[
        "cache-control: max-age=60",
        "connection: x-hop",
        "x-hop: 1",
        "keep-alive: 5",
        "proxy-authenticate: Basic",
        "x-request-id: theirs",
        "x-ratelimit-remaining: 5",
        "retry-after: 1",
        "x-kept: 1",
        "x-kept: 2",
        "content-language: en",
    ]);
    hold([rule("3.1: hop-by-hop fields, ids and limits are left out")
        .api(first)
        .get()
        .lacks("x-hop")
        .has("x-ratelimit-remaining: 5")
        .stored()
        .get()
        .hit(60)
        .lacks("connection")
        .lacks("x-hop")
        .lacks("keep-alive")
        .lacks("proxy-authenticate")
        .lacks("x-ratelimit-remaining")
        .lacks("retry-after")
        .has("cache-control: max-age=60")
        .has("x-kept: 1")
        .has("x-kept: 2")
        .has("content-language: en")])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_7_2_no_credential_is_shown_what_another_one_was() {
    hold([rule("3.5: stored for one credential alone")
        .api(ok(&["cache-control: public, max-age=60"]))
        .api(ok(&["cache-control: public, max-age=60"]))
        .get()
        .stored()
        .get()
        .by("b")
        .stored()
        .shows(2)
        .get()
        .hit(60)
        .shows(1)
        .get()
        .by("b")
        .hit(60)
        .shows(2)])
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_4_the_most_recent_answer_ends_an_older_one_although_it_is_not_stored() {
    let row = |why: &str, newer: Response<Bytes>| {
        let status = newer.status().as_u16();
        rule(format!("4: {why}"))
            .on(USERS)
            .api(ok::<&str>(&[]))
            .api(newer)
            .api(ok::<&str>(&[]))
            .get()
            .stored()
            .wait(3)
            .get()
            .with("cache-control: no-cache")
            .status(status)
            .shows(2)
            .get()
    };
    let ended = |why, status, fields: &[&str]| row(why, says(status, fields)).stored().shows(3);
    let kept = |why, status| row(why, says::<&str>(status, &[])).hit(57).shows(1);
    hold([
        ended("there is nothing any more", 404, &[]),
        ended("gone", 410, &[]),
        ended("not for this credential", 403, &[]),
        ended("no-store", 200, &["cache-control: no-store"]),
        ended("a cookie", 200, &["set-cookie: a=b"]),
        ended("no two are the same", 200, &["vary: *"]),
        ended("another coding", 200, &["content-encoding: br"]),
        kept("an error of the API does not", 500),
        kept("nor that it is not there", 503),
        kept("nor a time-out", 408),
        rule("4: nor what a reader asked for itself alone, unless there is nothing")
            .on(USERS)
            .api(ok::<&str>(&[]))
            .api(ok::<&str>(&[]))
            .get()
            .stored()
            .get()
            .with("cache-control: no-store")
            .shows(2)
            .get()
            .hit(60),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_page_of_something_in_front_of_the_api_is_not_stored_and_ends_nothing() {
    const HTML: &str = "content-type: text/html; charset=utf-8";
    const LIVES: &str = "cache-control: max-age=60";
    const COOKIE: &str = "set-cookie: session=1";
    let not = |why: &str, on: &'static str, fields: &[&str]| {
        let sees = "fwd=uri-miss; detail=media-type";
        rule(why)
            .on(on)
            .api(ok(fields))
            .get()
            .sees(sees)
            .get()
            .sees(sees)
    };
    // A stored response, which a reader wants newer, and a page in place of the newer one.
    let outlives = |status: u16, fields: &[&str]| {
        rule(format!("{status} {fields:?}"))
            .on(USERS)
            .api(ok::<&str>(&[]))
            .api(says(status, &[&[HTML], fields].concat()))
            .get()
            .stored()
            .wait(1)
            .get()
            .with("cache-control: no-cache")
            .status(status)
            .sees("fwd=request; detail=media-type")
            .get()
            .hit(59)
            .shows(1)
    };
    hold([
        not("by the time of its route", USERS, &[HTML]),
        not("nor by its own", LABELS, &[HTML, LIVES]),
        not("nor to validate it", USERS, &[HTML, "etag: \"a\""]),
        not("nor as plain text", USERS, &["content-type: text/plain"]),
        rule("a path that the table does not know may return anything")
            .on(UNKNOWN)
            .api(ok(&[HTML, LIVES]))
            .get()
            .stored()
            .get()
            .hit(60),
        outlives(200, &[]),
        outlives(200, &[LIVES]),
        outlives(200, &[COOKIE]),
        outlives(302, &["location: https://login.example/"]),
        outlives(302, &["location: https://login.example/", COOKIE]),
        outlives(403, &[]),
        outlives(404, &[]),
        outlives(410, &[LIVES]),
        rule("but the API's own word ends it")
            .on(USERS)
            .api(ok::<&str>(&[]))
            .api(says::<&str>(404, &[]))
            .get()
            .stored()
            .wait(1)
            .get()
            .with("cache-control: no-cache")
            .status(404)
            .sees("fwd=request; detail=status")
            .get()
            .status(404),
    ])
    .await;
}
