//! What answers tell of the cache (RFC 9211; RFC 9111, section 5.1).

use super::*;

#[tokio::test(start_paused = true)]
async fn rfc_9211_section_2_every_way_has_its_name() {
    let fresh = || ok(&["cache-control: max-age=60"]);
    let row = |why: &str| rule(format!("RFC 9211, {why}")).api(fresh());
    hold([
        row("2.1 and 2.6: hit, and how long it is fresh")
            .get()
            .stored()
            .wait(12)
            .get()
            .hit(48),
        row("2.6: a negative ttl is how long it has been stale")
            .get()
            .stored()
            .wait(72)
            .get()
            .with("cache-control: max-stale")
            .sees("hit; ttl=-12; detail=max-stale"),
        row("2.2: uri-miss").get().sees("fwd=uri-miss; stored"),
        row("2.2: vary-miss")
            .on(UNKNOWN)
            .api(ok(&["cache-control: max-age=60", "vary: tracestate"]))
            .get()
            .stored()
            .get()
            .with("cache-control: no-cache")
            .get()
            .with("tracestate: a=1")
            .sees("fwd=vary-miss; stored"),
        row("2.2: stale")
            .get()
            .stored()
            .wait(60)
            .get()
            .sees("fwd=stale; stored"),
        row("2.2: request")
            .get()
            .stored()
            .get()
            .with("cache-control: no-cache")
            .sees("fwd=request; stored"),
        row("2.2: method").ask(Method::OPTIONS).sees("fwd=method"),
        row("2.2: method of a write")
            .ask_for(Method::PUT, WRITE)
            .sees("fwd=method"),
        row("2.2: bypass, and why")
            .get()
            .with("cookie: a=b")
            .sees("fwd=bypass; detail=cookie"),
        row("2.3: what the API said where the reader sees something else")
            .api(ok(&["cache-control: max-age=60", "etag: \"a\""]))
            .api(says::<&str>(304, &[]))
            .get()
            .stored()
            .get()
            .with("cache-control: no-cache")
            .sees("fwd=request; stored")
            .get()
            .with("cache-control: no-cache")
            .sees("fwd=request; fwd-status=304; stored"),
        row("2.5 and 2.8: not stored, and why")
            .api(ok(&["cache-control: no-store"]))
            .get()
            .stored()
            .get()
            .with("cache-control: no-cache")
            .sees("fwd=request; detail=no-store"),
        row("2: an error of our own is neither a hit nor forwarded")
            .get()
            .with("cache-control: only-if-cached")
            .not_cached(),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn rfc_9211_section_2_6_those_who_joined_say_so() {
    let script = Script::new(|_, _| {
        let answer = body(ok::<&str>(&[]), "text");
        Step::Later(Duration::from_secs(1), answer)
    });
    let world = script.world();
    let first = world.spawn(request(Method::GET, USERS, "a", ""));
    sleep(Duration::from_millis(500)).await;
    let second = world.get(USERS, "a").await;
    let first = first.await.expect("an answer");
    assert_eq!(
        first.cache_status(),
        "segment-gateway; fwd=uri-miss; stored"
    );
    let sees = "segment-gateway; fwd=uri-miss; collapsed";
    assert_eq!(second.cache_status(), sees);
    assert_eq!(second.body, "text");
    assert_eq!(script.count(), 1);
}

/// The key in `Cache-Status`.
fn key(answer: &Answer) -> &str {
    let status = answer.header("cache-status");
    let (_, rest) = status.split_once("key=\"").expect("a key");
    rest.split('"').next().expect("its end")
}

#[tokio::test(start_paused = true)]
async fn rfc_9211_section_2_7_the_key_is_that_of_what_is_asked_for() {
    let script = Script::new(|_, _| Step::Answer(body(ok(&["cache-control: max-age=60"]), "text")));
    let world = script.world();
    let miss = world.get(USERS, "a").await;
    let hit = world.get(USERS, "a").await;
    assert_eq!(key(&miss), key(&hit));
    let reload = request(Method::GET, USERS, "a", "");
    let reload = with(reload, "cache-control", "no-cache");
    assert_eq!(key(&world.send(reload).await), key(&hit));
    let others = [
        world.get("/users/u", "a").await,
        world.get("/users?pagination.count=1", "a").await,
        world.get(USERS, "b").await,
    ];
    for other in &others {
        assert_ne!(key(other), key(&hit));
        assert!(!key(other).contains("Bearer"), "no secret");
    }
}

#[tokio::test(start_paused = true)]
async fn rfc_9211_section_2_what_caches_behind_us_say_stays_before_what_we_say() {
    let theirs = "Theirs; hit; ttl=3";
    let script = Script::new(move |_, _| {
        let fields = [
            "cache-control: max-age=60".to_owned(),
            format!("cache-status: {theirs}"),
        ];
        Step::Answer(body(ok(&fields), "text"))
    });
    let world = script.world();
    for ours in ["fwd=uri-miss; stored", "hit; ttl=60"] {
        let answer = world.get(LABELS, "a").await;
        let all: Vec<_> = answer.headers.get_all("cache-status").iter().collect();
        assert_eq!(all[0], theirs);
        let last = all[1].to_str().expect("text");
        assert!(
            last.starts_with(&format!("segment-gateway; {ours}")),
            "{last}"
        );
        assert_eq!(all.len(), 2);
    }
}
