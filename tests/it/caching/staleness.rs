//! What is shown although it is stale, or fetched before it is (RFC 9111, section 4.2.4; RFC 5861;
//! what operators permit besides).

use super::*;

const BEHIND: &str = "hit; ttl=-5; detail=stale-while-revalidate";

/// Stored for 10 s, with these directives besides, and stale since 5 s.
fn stale(why: impl Into<String>, directives: &str) -> Exchange {
    let control = format!("cache-control: max-age=10, {directives}");
    rule(why).api(ok(&[control])).get().stored().wait(15)
}

fn fresh() -> Response<Bytes> {
    ok(&["cache-control: max-age=10"])
}

fn failure(status: u16) -> Response<Bytes> {
    says::<&str>(status, &[])
}

/// What a reader sees of a stale answer in place of this status.
fn in_place_of(status: u16) -> String {
    format!("fwd=stale; fwd-status={status}; ttl=-5; detail=stale-if-error")
}

#[tokio::test(start_paused = true)]
async fn section_4_2_4_what_forbids_staleness_forbids_it_to_everyone() {
    let permits = "stale-while-revalidate=60, stale-if-error=60";
    let forbids = [
        "max-age=10, must-revalidate",
        "max-age=10, proxy-revalidate",
        "s-maxage=10",
        "max-age=10, no-cache",
    ];
    let forbidden = |directive: &str| {
        rule(format!("4.2.4: {directive}"))
            .users("cache = \"60s\"\nstale_if_error = \"60s\"\nstale_while_revalidate = \"60s\"")
            .api(ok(&[
                format!("cache-control: {directive}, {permits}"),
                "etag: \"a\"".to_owned(),
            ]))
            .get()
            .stored()
            .wait(15)
    };
    hold(forbids.iter().flat_map(|directive| {
        [
            forbidden(directive).api(fresh()).get().renewed(),
            forbidden(directive)
                .api(fresh())
                .get()
                .with("cache-control: max-stale")
                .renewed(),
            forbidden(directive)
                .api(failure(503))
                .get()
                .with("cache-control: max-stale, stale-if-error=60")
                .status(503)
                .sees("fwd=stale; detail=status"),
            forbidden(directive)
                .step(Step::Close)
                .get()
                .error(502, "gateway-upstream-broken")
                // The kept connection, and a new one.
                .asked(2),
        ]
    }))
    .await;
}

#[tokio::test(start_paused = true)]
async fn rfc_5861_section_3_stale_while_revalidate() {
    let row = |why: &str| {
        let why = format!("RFC 5861, 3: {why}");
        stale(why, "stale-while-revalidate=30")
    };
    hold([
        row("shown at once, and fetched once behind it")
            .api(fresh())
            .get()
            .sees(BEHIND)
            .asked(1)
            .age(15)
            .shows(1)
            .get()
            .hit(10)
            .shows(2),
        row("not after its time")
            .api(fresh())
            .wait(25)
            .get()
            .renewed()
            .shows(2),
        row("as long as the fetch takes, without another one")
            .api_late(3, fresh())
            .get()
            .sees(BEHIND)
            .asked(1)
            .get()
            .sees(BEHIND)
            .asked(0)
            .wait(2)
            .get()
            .sees("hit; ttl=-7; detail=stale-while-revalidate")
            .asked(0)
            .wait(1)
            .get()
            .hit(7)
            .age(3)
            .shows(2),
        row("a fetch that fails takes nothing away")
            .api(failure(500))
            .get()
            .sees(BEHIND)
            .asked(1)
            .get()
            .sees(BEHIND)
            .asked(0)
            .shows(1),
        row("after one that fails it rests, and ever longer")
            .api(failure(500))
            .get()
            .asked(1)
            .wait(1)
            .get()
            .asked(1)
            .wait(1)
            .get()
            .asked(0)
            .wait(1)
            .get()
            .asked(1)
            .wait(3)
            .get()
            .asked(0)
            .shows(1),
        row("what is there now but may not be stored ends it")
            .api(ok(&["cache-control: no-store"]))
            .get()
            .sees(BEHIND)
            .asked(1)
            .shows(1)
            .get()
            .sees("fwd=uri-miss; detail=no-store"),
        row("that there is nothing any more ends it")
            .api(failure(404))
            .get()
            .sees(BEHIND)
            .asked(1)
            .shows(1)
            .get()
            .sees("fwd=uri-miss; detail=status")
            .status(404),
        row("for HEAD as well, behind which the whole is fetched")
            .api(fresh())
            .head()
            .sees(BEHIND)
            .asked(1)
            .body("")
            .api_method(Method::GET)
            .get()
            .hit(10)
            .shows(2),
        row("a part, behind which the whole is fetched")
            .api(fresh())
            .get()
            .with("range: bytes=0-2")
            .sees(BEHIND)
            .asked(1)
            .status(206)
            .body("ans")
            .api_did_not_see("range")
            .get()
            .hit(10)
            .shows(2),
        row("a reader that has it, behind which the whole is fetched")
            .api(fresh())
            .get()
            .with("if-none-match: *")
            .sees(BEHIND)
            .asked(1)
            .status(304)
            .api_did_not_see("if-none-match")
            .get()
            .hit(10)
            .shows(2),
        row("not for a reader that says no-cache")
            .api(fresh())
            .get()
            .with("cache-control: no-cache")
            .sees("fwd=request; stored"),
        row("not for a reader that names an age, which does not accept what is stale")
            .api(fresh())
            .get()
            .with("cache-control: max-age=100")
            .renewed(),
        row("not after a write")
            .ask_for(Method::PUT, WRITE)
            .get()
            .sees("fwd=bypass; detail=settling"),
        rule("RFC 5861, 3: the comparison goes on behind it too")
            .api(ok(&[
                "cache-control: max-age=10, stale-while-revalidate=30",
                "etag: \"a\"",
            ]))
            .api(says(304, &["etag: \"a\""]))
            .get()
            .stored()
            .wait(15)
            .get()
            .sees(BEHIND)
            .asked(1)
            .api_saw("if-none-match: \"a\"")
            .get()
            .hit(10)
            .shows(1),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn rfc_5861_section_3_many_readers_cost_one_fetch() {
    let script = Script::new(|_, n| {
        let answer = ok(&["cache-control: max-age=10, stale-while-revalidate=30"]);
        Step::Later(Duration::from_secs(1), body(answer, n.to_string()))
    });
    let world = script.world();
    world.get(USERS, "a").await;
    sleep(Duration::from_secs(15)).await;
    let ask = || world.spawn(request(Method::GET, USERS, "a", ""));
    let readers: Vec<_> = (0..100).map(|_| ask()).collect();
    for reader in readers {
        assert_eq!(reader.await.expect("an answer").body, "0");
    }
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.get(USERS, "a").await.body, "1");
    assert_eq!(script.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn rfc_5861_section_4_stale_if_error() {
    let row = |why: &str| {
        let why = format!("RFC 5861, 4: {why}");
        stale(why, "stale-if-error=30")
    };
    let failing = |status: u16| {
        row(&format!("in place of {status}"))
            .api(failure(status))
            .api(fresh())
            .get()
            .sees(in_place_of(status))
            .age(15)
            .shows(1)
            .get()
            .renewed()
            .shows(3)
    };
    let passed = |status: u16| {
        row(&format!("{status} is no failure of the API"))
            .api(failure(status))
            .get()
            .status(status)
            .shows(2)
    };
    hold([500, 502, 503, 504].map(failing)).await;
    hold([400, 403, 404, 410, 501, 505].map(passed)).await;
    hold([
        rule("RFC 5861, 4: a failure that could be stored takes nothing away that has a tag")
            .api(ok(&[
                "cache-control: max-age=10, stale-if-error=30",
                "etag: \"a\"",
            ]))
            .api(says(503, &["cache-control: max-age=60"]))
            .get()
            .stored()
            .wait(15)
            .get()
            .sees(in_place_of(503))
            .get()
            .sees(in_place_of(503))
            .shows(1),
        row("a failure that could be stored takes nothing away, tag or not")
            .api(says(503, &["cache-control: max-age=60"]))
            .get()
            .sees(in_place_of(503))
            .get()
            .sees(in_place_of(503))
            .shows(1),
        row("what was not there in between is not shown again")
            .api(failure(404))
            .api(failure(503))
            .get()
            .status(404)
            .get()
            .status(503),
        row("a connection that breaks")
            .step(Step::Close)
            .get()
            .sees("fwd=stale; ttl=-5; detail=stale-if-error")
            .asked(2)
            .shows(1),
        stale(
            "RFC 5861, 4: an answer that does not come in time",
            "stale-if-error=60",
        )
        .step(Step::Silent)
        .get()
        .sees("fwd=stale; ttl=-35; detail=stale-if-error")
        .age(45)
        .shows(1),
        row("not once the time is over while the reader waits")
            .step(Step::Silent)
            .get()
            .error(504, "gateway-upstream-timeout")
            .asked(1),
        row("not after its time")
            .api(failure(503))
            .wait(25)
            .get()
            .status(503)
            .shows(2),
        row("a part of it")
            .api(failure(503))
            .get()
            .with("range: bytes=0-2")
            .sees(in_place_of(503))
            .status(206)
            .body("ans"),
        row("not for a reader that says no-cache")
            .api(failure(503))
            .get()
            .with("cache-control: no-cache")
            .status(503)
            .sees("fwd=request; detail=status"),
        row("not for a reader that names an age")
            .api(failure(503))
            .get()
            .with("cache-control: max-age=5")
            .status(503),
        stale("RFC 5861, 4: nobody permits it", "public")
            .api(failure(503))
            .get()
            .status(503)
            .shows(2),
        stale("RFC 5861, 4: the reader permits it", "public")
            .api(failure(503))
            .get()
            .with("cache-control: stale-if-error=6")
            .sees(in_place_of(503))
            .shows(1),
        stale("RFC 5861, 4: the reader permits less", "public")
            .api(failure(503))
            .get()
            .with("cache-control: stale-if-error=4")
            .status(503),
        stale(
            "RFC 5861, 4: both permit it, the longer time counts",
            "stale-if-error=1",
        )
        .api(failure(503))
        .get()
        .with("cache-control: stale-if-error=30")
        .sees(in_place_of(503)),
        row("never in place of what a write has ended")
            .api(ok::<&str>(&[]))
            .api(failure(503))
            .ask_for(Method::PUT, WRITE)
            .wait(3)
            .get()
            .status(503)
            .sees("fwd=stale; detail=fenced"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn rfc_5861_section_4_where_the_api_accepts_no_connection() {
    let script = Script::new(|_, n| {
        let control = "cache-control: max-age=10, stale-if-error=30";
        let answer = ok(&[control, "connection: close"]);
        Step::Answer(body(answer, n.to_string()))
    });
    let world = script.world();
    world.get(LABELS, "a").await;
    sleep(Duration::from_secs(15)).await;
    script.refuse(usize::MAX);
    let stale = world.get(LABELS, "a").await;
    let sees = "segment-gateway; fwd=stale; ttl=-6; detail=stale-if-error";
    assert_eq!((stale.status.as_u16(), &*stale.cache_status()), (200, sees));
    assert_eq!(stale.body, "0");
    let reload = request(Method::GET, LABELS, "a", "");
    let reload = with(reload, "cache-control", "no-cache");
    let reload = world.send(reload).await;
    assert_eq!(reload.error_type(), "gateway-upstream-unreachable");
    assert_eq!(script.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn rfc_5861_section_4_those_who_wait_together_get_it_together() {
    for step in [
        Step::Later(Duration::from_secs(1), failure(503)),
        Step::Silent,
    ] {
        let script = Script::new(move |_, n| match n {
            0 => Step::Answer(body(ok::<&str>(&[]), "stale")),
            _ => step.clone(),
        });
        let mut setup = Setup::new(SandboxSpec::default());
        let row = rule("").users("cache = \"10s\"\nstale_if_error = \"60s\"");
        setup.routes = row.routes;
        let world = script.world_of(setup);
        world.get(USERS, "a").await;
        sleep(Duration::from_secs(15)).await;
        let ask = || world.spawn(request(Method::GET, USERS, "a", ""));
        let readers: Vec<_> = (0..20).map(|_| ask()).collect();
        for reader in readers {
            let answer = reader.await.expect("an answer");
            assert_eq!(
                (answer.status.as_u16(), &*answer.body),
                (200, &b"stale"[..])
            );
            assert!(answer.cache_status().ends_with("detail=stale-if-error"));
        }
        assert_eq!(script.count(), 2);
    }
}

const LIMITED: &str = "hit; ttl=-25; detail=stale-if-limited";

/// One list in a minute, and the list is stale since 25 s: the next one may leave in 25 s.
fn limited(why: &str, times: &str, directives: &str) -> Exchange {
    rule(format!("stale_if_limited: {why}"))
        .users(&format!("cache = \"10s\"\nlimit = \"1 per 1m\"\n{times}"))
        .api(ok(&[format!("cache-control: {directives}")]))
        .get()
        .stored()
        .wait(35)
}

#[tokio::test(start_paused = true)]
async fn what_is_stale_is_better_than_waiting_for_a_budget() {
    let long = "stale_if_limited = \"300s\"";
    hold([
        limited("shown at once, and a new one waits in line", long, "public")
            .api(ok::<&str>(&[]))
            .get()
            .sees(LIMITED)
            .asked(0)
            .age(35)
            .shows(1)
            .get()
            .sees(LIMITED)
            .asked(0)
            .wait(30)
            .get()
            .asked(0)
            .shows(2),
        limited("without it the reader waits", "", "public")
            .api(ok::<&str>(&[]))
            .get()
            .renewed()
            .shows(2),
        limited("not after its time", "stale_if_limited = \"20s\"", "public")
            .get()
            .renewed(),
        limited("not for a reader that says no-cache", long, "public")
            .get()
            .with("cache-control: no-cache")
            .sees("fwd=request; stored"),
        limited("not where the API forbids it", long, "must-revalidate")
            .get()
            .renewed(),
        limited("not where nobody has to wait", long, "public")
            .wait(30)
            .get()
            .renewed(),
        rule("stale_if_limited: the API says that the budget is spent")
            .users("cache = \"10s\"\nstale_if_limited = \"300s\"")
            .api(ok::<&str>(&[]))
            .api(says(429, &["retry-after: 20"]))
            .api(ok::<&str>(&[]))
            .get()
            .stored()
            .wait(15)
            .get()
            .sees("fwd=stale; ttl=-5; detail=stale-if-limited")
            .shows(1)
            .wait(25)
            .get()
            .asked(0)
            .shows(3),
        rule("stale_if_limited: not after a write")
            .users("cache = \"10s\"\nlimit = \"1 per 1m\"\nstale_if_limited = \"300s\"")
            .api(ok::<&str>(&[]))
            .get()
            .stored()
            .wait(35)
            .ask_for(Method::PUT, WRITE)
            .wait(3)
            .get()
            .sees("fwd=stale; stored; detail=fenced"),
    ])
    .await;
}

/// A list that lives for 40 s and has 4 s left, after so many readers; so many lists in a minute.
fn ending(why: &str, readers: usize, lists: u32) -> Exchange {
    let row = rule(format!("refresh ahead: {why}"))
        .users(&format!("cache = \"40s\"\nlimit = \"{lists} per 1m\""))
        .api(ok::<&str>(&[]))
        .get()
        .stored();
    let row = (0..readers).fold(row, |row, _| row.get().hit(40));
    row.wait(36)
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_often_is_fetched_before_it_is_stale() {
    hold([
        ending("shown, and fetched behind it", 5, 4)
            .api(ok::<&str>(&[]))
            .get()
            .hit(4)
            .asked(1)
            .shows(1)
            .get()
            .hit(40)
            .shows(2),
        ending("not what is asked for seldom", 3, 4)
            .get()
            .hit(4)
            .asked(0),
        ending("not where half of the budget is used", 5, 2)
            .get()
            .hit(4)
            .asked(0)
            .wait(4)
            .get()
            .renewed(),
        ending("once, as long as it takes", 5, 9)
            .api_late(3, ok::<&str>(&[]))
            .get()
            .hit(4)
            .asked(1)
            .get()
            .hit(4)
            .asked(0)
            .wait(2)
            .get()
            .hit(2)
            .asked(0)
            .shows(1)
            .wait(1)
            .get()
            .hit(37)
            .shows(2),
        ending("once, even if it fails", 5, 9)
            .api(failure(500))
            .get()
            .hit(4)
            .asked(1)
            .get()
            .hit(4)
            .asked(0)
            .wait(3)
            .get()
            .hit(1)
            .asked(0)
            .shows(1),
        ending("only in the last eighth", 5, 4)
            .api(ok(&["cache-control: max-age=400"]))
            .get()
            .hit(4)
            .asked(1)
            .wait(34)
            .get()
            .hit(6)
            .asked(0),
        rule("refresh ahead: not what cannot change")
            .users("cache = \"40s\"")
            .api(ok(&["cache-control: max-age=40, immutable"]))
            .get()
            .stored()
            .get()
            .get()
            .get()
            .get()
            .get()
            .get()
            .wait(36)
            .get()
            .hit(4)
            .asked(0),
    ])
    .await;
}
