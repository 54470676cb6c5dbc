//! What operators say of the answers of a route, and whose word counts.

use super::*;

/// An answer with these fields, of a route with a minute and these lines, is stored and fresh for
/// so long.
fn lives(why: &str, lines: &str, fields: &[&str], seconds: u64) -> Exchange {
    let row = rule(why).users(&format!("cache = \"60s\"\n{lines}"));
    let row = row.api(ok(fields)).get().stored().get().hit(seconds);
    let row = row.wait(seconds - 1).get().hit(1).shows(1);
    row.wait(1).get().renewed()
}

/// It is not stored.
fn refused(why: &str, lines: &str, fields: &[&str], detail: &str) -> Exchange {
    let row = rule(why).users(&format!("cache = \"60s\"\n{lines}"));
    let sees = format!("fwd=uri-miss; detail={detail}");
    row.api(ok(fields))
        .get()
        .sees(sees.clone())
        .get()
        .sees(sees)
}

#[tokio::test(start_paused = true)]
async fn the_shorter_time_of_both_counts_if_nothing_else_is_said() {
    for (name, lines) in [
        ("by itself", ""),
        ("as it is told", "cache_directives = \"shorter\""),
    ] {
        let why = |text: &str| format!("shorter, {name}: {text}");
        hold([
            lives(&why("nothing is said"), lines, &["x: 1"], 60),
            lives(
                &why("the API's is shorter"),
                lines,
                &["cache-control: max-age=10"],
                10,
            ),
            lives(
                &why("the route's is shorter"),
                lines,
                &["cache-control: max-age=99"],
                60,
            ),
            lives(
                &why("by s-maxage"),
                lines,
                &["cache-control: s-maxage=10"],
                10,
            ),
            lives(
                &why("by CDN-Cache-Control"),
                lines,
                &["cdn-cache-control: max-age=10", "cache-control: max-age=20"],
                10,
            ),
            refused(
                &why("no-store"),
                lines,
                &["cache-control: no-store"],
                "no-store",
            ),
            refused(
                &why("no-cache"),
                lines,
                &["cache-control: no-cache"],
                "no-cache",
            ),
            refused(
                &why("max-age=0"),
                lines,
                &["cache-control: max-age=0"],
                "expired",
            ),
            refused(&why("Expires is past"), lines, &["expires: 0"], "expired"),
        ])
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_apis_word_counts_where_it_has_one() {
    let lines = "cache_directives = \"upstream\"";
    let soon = [
        format!("date: {}", date(0)),
        format!("expires: {}", date(90)),
    ];
    hold([
        lives("upstream: nothing is said", lines, &["x: 1"], 60),
        lives(
            "upstream: shorter",
            lines,
            &["cache-control: max-age=10"],
            10,
        ),
        lives(
            "upstream: longer",
            lines,
            &["cache-control: max-age=99"],
            99,
        ),
        lives("upstream: by Expires", lines, &[&soon[0], &soon[1]], 90),
        lives(
            "upstream: no word on time",
            lines,
            &["cache-control: public"],
            60,
        ),
        refused(
            "upstream: no-store",
            lines,
            &["cache-control: no-store"],
            "no-store",
        ),
        refused(
            "upstream: max-age=0",
            lines,
            &["cache-control: max-age=0"],
            "expired",
        ),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_operators_word_alone_counts_where_it_says_so() {
    let lines = "cache_directives = \"operator\"";
    hold([
        lives("operator: nothing is said", lines, &["x: 1"], 60),
        lives(
            "operator: shorter",
            lines,
            &["cache-control: max-age=10"],
            60,
        ),
        lives(
            "operator: longer",
            lines,
            &["cache-control: max-age=99"],
            60,
        ),
        lives(
            "operator: no-store",
            lines,
            &["cache-control: no-store"],
            60,
        ),
        lives(
            "operator: no-cache",
            lines,
            &["cache-control: no-cache"],
            60,
        ),
        lives("operator: Expires", lines, &["expires: 0"], 60),
        lives(
            "operator: CDN-Cache-Control",
            lines,
            &["cdn-cache-control: no-store"],
            60,
        ),
        lives("operator: an age from upstream", lines, &["age: 1000"], 60),
        refused(
            "operator: what varies by everything",
            lines,
            &["vary: *"],
            "vary",
        ),
        refused(
            "operator: a cookie",
            lines,
            &["set-cookie: a=b"],
            "set-cookie",
        ),
        rule("operator: errors have no time")
            .users("cache = \"60s\"\ncache_directives = \"operator\"")
            .api(says(404, &["cache-control: max-age=60"]))
            .get()
            .status(404)
            .sees("fwd=uri-miss; detail=status")
            .get()
            .status(404)
            .sees("fwd=uri-miss; detail=status"),
        rule("operator: a reader's word counts all the same")
            .users("cache = \"60s\"\ncache_directives = \"operator\"")
            .api(ok(&["cache-control: no-store"]))
            .get()
            .stored()
            .get()
            .with("cache-control: no-cache")
            .sees("fwd=request; stored"),
        rule("operator: staleness that the API forbids")
            .users("cache = \"60s\"\ncache_directives = \"operator\"\nstale_if_error = \"60s\"")
            .api(ok(&["cache-control: must-revalidate"]))
            .api(says::<&str>(503, &[]))
            .get()
            .stored()
            .wait(65)
            .get()
            .sees("fwd=stale; fwd-status=503; ttl=-5; detail=stale-if-error"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_route_may_say_how_stale() {
    let behind = |by: u64| format!("hit; ttl=-{by}; detail=stale-while-revalidate");
    let row = |why: &str, lines: &str, directives: &str| {
        rule(why)
            .users(&format!("cache = \"10s\"\n{lines}"))
            .api(ok(&[format!("cache-control: {directives}")]))
            .get()
            .stored()
            .wait(15)
    };
    let revalidate = "stale_while_revalidate = \"30s\"";
    let error = "stale_if_error = \"30s\"";
    hold([
        row("stale_while_revalidate", revalidate, "public")
            .get()
            .sees(behind(5))
            .asked(1),
        row("the same, not after its time", revalidate, "public")
            .wait(25)
            .get()
            .renewed(),
        row(
            "of two times the shorter counts",
            revalidate,
            "stale-while-revalidate=3",
        )
        .get()
        .renewed(),
        row(
            "of two times the route's is the shorter",
            revalidate,
            "stale-while-revalidate=3000",
        )
        .wait(25)
        .get()
        .renewed(),
        row(
            "of two times the API's counts where it has the word",
            "stale_while_revalidate = \"30s\"\ncache_directives = \"upstream\"",
            "stale-while-revalidate=3000",
        )
        .wait(25)
        .get()
        .sees(behind(30))
        .asked(1),
        row(
            "of two times the route's counts where it alone has the word",
            "stale_while_revalidate = \"30s\"\ncache_directives = \"operator\"",
            "stale-while-revalidate=3",
        )
        .get()
        .sees(behind(5))
        .asked(1),
        row("stale_if_error", error, "public")
            .api(says::<&str>(503, &[]))
            .get()
            .sees("fwd=stale; fwd-status=503; ttl=-5; detail=stale-if-error"),
        row("the same, not after its time", error, "public")
            .api(says::<&str>(503, &[]))
            .wait(25)
            .get()
            .status(503),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn where_answers_are_stored_at_all() {
    let fresh = || ok(&["cache-control: max-age=20"]);
    let uncached = "fwd=bypass; detail=uncached";
    let stored = |why: &str, target: &'static str| {
        let row = rule(why).on(target).api(fresh()).get().stored();
        row.get().hit(20).wait(20).get().renewed()
    };
    hold([
        rule("cache = \"0s\": never")
            .users("cache = \"0s\"")
            .api(fresh())
            .get()
            .sees(uncached)
            .get()
            .sees(uncached)
            .head()
            .sees(uncached),
        stored("a route without a time: as the API says", LABELS),
        stored("a path that nobody knows: as the API says", UNKNOWN),
        stored("the same, with a query", "/v9/x?a=%41&b&&c=%zz"),
        rule("a path that nobody knows: each spelling is another one")
            .on("/v9/x?a=b")
            .api(fresh())
            .get()
            .stored()
            .ask_for(Method::GET, "/v9/x?a=%62")
            .stored()
            .ask_for(Method::GET, "/v9/x?")
            .stored()
            .ask_for(Method::GET, UNKNOWN)
            .stored(),
        rule("a route without a time, and an API that says nothing")
            .api(ok::<&str>(&[]))
            .get()
            .sees("fwd=uri-miss; detail=no-lifetime")
            .lacks("etag")
            .get()
            .sees("fwd=uri-miss; detail=no-lifetime"),
    ])
    .await;
}
