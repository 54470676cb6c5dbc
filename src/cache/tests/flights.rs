//! Who fetches, who waits, and how it ends for them.

use super::*;
use crate::error::GatewayError;
use tokio::sync::oneshot;

#[tokio::test(start_paused = true)]
async fn a_hundred_readers_share_one_fetch() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let leader = leads(join(&cache, &key, now()));
    assert_eq!(leader.why(), Miss::Absent);
    let mut readers = JoinSet::new();
    for _ in 0..99 {
        readers.spawn(ended(follows(join(&cache, &key, now()))));
    }
    settle_tasks().await;
    let completed = finish(leader, "{}", now());
    assert_eq!(completed.stored, Ok(()));
    let mut answered = 0;
    while let Some(outcome) = readers.join_next().await {
        let entry = shared(outcome.unwrap());
        assert!(accepts(&cache, &entry));
        assert_eq!(entry.body().as_ref(), b"{}");
        answered += 1;
    }
    assert_eq!(answered, 99);
    assert!(matches!(join(&cache, &key, now()), Join::Hit(..)));
    assert_eq!(cache.stats().fetches, 0);
}

/// The task that fetches, as the gateway has it: it ends when the upstream answers.
fn fetch(leader: Leader) -> (oneshot::Sender<&'static str>, JoinHandle<()>) {
    let (upstream, answer) = oneshot::channel();
    let task = tokio::spawn(async move {
        match answer.await {
            Ok("panic") => panic!("on purpose"),
            Ok(body) => {
                finish(leader, body, now());
            }
            Err(_) => leader.fail(GatewayError::Internal),
        }
    });
    (upstream, task)
}

#[tokio::test(start_paused = true)]
async fn the_first_reader_hangs_up_and_the_others_do_not_notice() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let (of_first, first_leads) = oneshot::channel();
    let first = tokio::spawn({
        let (cache, key) = (cache.clone(), key.clone());
        async move {
            let leader = leads(join(&cache, &key, now()));
            let _ = of_first.send(fetch(leader));
            std::future::pending::<()>().await;
        }
    });
    let (upstream, _) = first_leads.await.unwrap();
    let second = tokio::spawn(ended(follows(join(&cache, &key, now()))));
    let third = tokio::spawn(ended(follows(join(&cache, &key, now()))));
    first.abort();
    third.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert!(third.await.unwrap_err().is_cancelled());
    upstream.send("{}").unwrap();
    assert_eq!(shared(second.await.unwrap()).body().as_ref(), b"{}");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_panics_frees_its_key_and_wakes_everyone() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let (upstream, task) = fetch(leads(join(&cache, &key, now())));
    let waiting = tokio::spawn(ended(follows(join(&cache, &key, now()))));
    settle_tasks().await;
    upstream.send("panic").unwrap();
    assert!(task.await.unwrap_err().is_panic());
    assert!(matches!(waiting.await.unwrap(), FetchOutcome::Lost));
    assert_eq!(cache.stats().fetches, 0);
    finish(leads(join(&cache, &key, now())), "{}", now());
    assert!(look(&cache, &key, now()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_is_aborted_or_fails_frees_its_key_and_wakes_everyone() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let (_upstream, task) = fetch(leads(join(&cache, &key, now())));
    let waiting = follows(join(&cache, &key, now()));
    task.abort();
    assert!(matches!(ended(waiting).await, FetchOutcome::Lost));

    let (upstream, _task) = fetch(leads(join(&cache, &key, now())));
    let waiting = follows(join(&cache, &key, now()));
    drop(upstream);
    assert!(matches!(
        ended(waiting).await,
        FetchOutcome::Failed(GatewayError::Internal)
    ));
    assert_eq!(cache.stats().fetches, 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_joined_learns_when_the_fetch_is_sent() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let mut leader = leads(join(&cache, &key, now()));
    let mut waiting = follows(join(&cache, &key, now()));
    let first = leader.flight.follow(Miss::Absent);
    let early = tokio::time::timeout(SECOND, waiting.started()).await;
    assert!(early.is_err() && !waiting.has_started() && !first.has_started());
    leader.start(now());
    waiting.started().await;
    let mut late = follows(join(&cache, &key, now()));
    late.started().await;
    assert!(waiting.has_started() && late.has_started() && first.has_started());
    // A 429: it waits for its budget again, and they with it.
    leader.flight.requeue();
    assert!(waiting.wait().await.is_none());
    let again = tokio::time::timeout(SECOND, waiting.started()).await;
    assert!(again.is_err() && !late.has_started());
    leader.start(now());
    waiting.started().await;
    finish(leader, "{}", now());
    for follower in [waiting, late, first] {
        assert_eq!(shared(ended(follower).await).body().as_ref(), b"{}");
    }
    // One that is given up before it was sent has ended as well.
    cache.purge(&Purge::Everything, now());
    let leader = leads(join(&cache, &key, now()));
    let mut waiting = follows(join(&cache, &key, now()));
    drop(leader);
    waiting.started().await;
    assert!(matches!(ended(waiting).await, FetchOutcome::Lost));
}

#[tokio::test]
async fn whoever_joined_learns_the_end_also_after_it() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let leader = leads(join(&cache, &key, now()));
    let late = follows(join(&cache, &key, now()));
    finish(leader, "{}", now());
    assert_eq!(shared(ended(late).await).body().as_ref(), b"{}");
}

#[tokio::test]
async fn an_error_is_shared_and_not_stored() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let leader = leads(join(&cache, &key, now()));
    let waiting = follows(join(&cache, &key, now()));
    let completed = finish_with(leader, 503, &HeaderMap::new(), "down", now());
    assert_eq!(completed.stored, Err(StoreRefusal::Status));
    let entry = shared(ended(waiting).await);
    assert!(accepts(&cache, &entry));
    assert_eq!(entry.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(look(&cache, &key, now()).unwrap_err(), Miss::Absent);
}

#[tokio::test]
async fn what_is_for_one_reader_is_not_shared() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let leader = leads(join(&cache, &key, now()));
    let waiting = follows(join(&cache, &key, now()));
    let mut headers = HeaderMap::new();
    headers.append("set-cookie", HeaderValue::from_static("a=b"));
    let completed = finish_with(leader, 200, &headers, "{}", now());
    assert!(completed.entry.is_none());
    let outcome = ended(waiting).await;
    assert!(matches!(
        outcome,
        FetchOutcome::NotShared(StoreRefusal::SetCookie)
    ));
    assert_eq!(look(&cache, &key, now()).unwrap_err(), Miss::Absent);

    // The body turned out to be endless while it was streamed to the first reader.
    let leader = leads(join(&cache, &key, now()));
    let waiting = follows(join(&cache, &key, now()));
    leader.refuse(StoreRefusal::TooLarge, StatusCode::OK, now());
    let outcome = ended(waiting).await;
    assert!(matches!(
        outcome,
        FetchOutcome::NotShared(StoreRefusal::TooLarge)
    ));
}

#[test]
fn no_more_fetches_than_the_bound() {
    let cache = cache();
    let path = |number: usize| key(ALICE, &format!("/users/{number}"));
    let mut leaders: Vec<_> = (0..4)
        .map(|number| leads(join(&cache, &path(number), now())))
        .collect();
    let why = alone(join(&cache, &path(4), now()));
    assert_eq!(why, Miss::TooManyFetches);
    // Joining costs nothing.
    follows(join(&cache, &path(0), now()));
    // A fetch that is no longer current counts as well.
    let at = now();
    leaders[0].start(at);
    let why = alone(board_as(&cache, &path(0), Wants::RELOAD, at));
    assert_eq!(why, Miss::TooManyFetches);
    leaders.pop();
    leads(join(&cache, &path(4), now()));
}

#[tokio::test]
async fn a_reload_neither_hits_nor_joins_what_has_left_and_takes_the_place_of_older_fetches() {
    let cache = cache();
    let key = key(ALICE, "/users");
    finish(leads(join(&cache, &key, now())), "old", now());
    let mut reload = leads(board_as(&cache, &key, Wants::RELOAD, now()));
    assert_eq!(reload.why(), Miss::Reload);
    // Others are content with what is stored.
    assert!(matches!(join(&cache, &key, now()), Join::Hit(..)));
    // It has not left: what it brings is new enough for another one who reloads.
    follows(board_as(&cache, &key, Wants::RELOAD, now()));
    reload.start(now());
    let newer = leads(board_as(&cache, &key, Wants::RELOAD, now()));
    assert_eq!(finish(newer, "newest", now()).stored, Ok(()));
    let completed = finish(reload, "late", now());
    assert_eq!(completed.stored, Err(StoreRefusal::Superseded));
    let stored = look(&cache, &key, now()).unwrap();
    assert_eq!(stored.body().as_ref(), b"newest");
}

#[test]
fn threads_that_race_for_a_key_never_fetch_it_twice() {
    let cache = cache();
    let at = now();
    let start = std::sync::Barrier::new(4);
    // How many of 500 keys this thread has fetched.
    let race = || {
        let fetch = |number: u32| {
            let key = key(ALICE, &format!("/users/{number}"));
            start.wait();
            // Whoever misses just before the answer is stored must still find it.
            match join(&cache, &key, at) {
                Join::Lead(leader) => finish(leader, "{}", at).stored.is_ok(),
                _ => false,
            }
        };
        (0..500).filter(|number| fetch(*number)).count()
    };
    let fetched: usize = std::thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(race));
        threads.map(|thread| thread.join().unwrap()).iter().sum()
    });
    assert_eq!(fetched, 500);
}

#[tokio::test(start_paused = true)]
async fn of_one_key_one_fetch_is_under_way_and_one_to_come() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let at = now();
    cache.settle(&wrote_users(), at + 60 * SECOND);
    // The first one finds nothing under way.
    let mut first = leads(join(&cache, &key, at));
    assert!(!first.flight.is_next());
    first.flight.turn().await;
    first.start(at);
    // The next one waits for it, and everybody who comes meanwhile joins that one.
    let mut next = leads(join(&cache, &key, at + SECOND));
    assert!(next.flight.is_next());
    let crowd: Vec<_> = (0..100)
        .map(|_| follows(join(&cache, &key, at + SECOND)))
        .collect();
    let early = tokio::time::timeout(SECOND, next.flight.turn()).await;
    assert!(early.is_err(), "the first has not ended");
    assert_eq!(finish(first, "1", at).stored, Err(StoreRefusal::Settling));
    // Whoever was given up while it waited does not wait again.
    next.flight.turn().await;
    next.start(at + 2 * SECOND);
    // A write comes between: its answer is for those who came before it left all the same.
    cache.settle(&wrote_users(), at + 60 * SECOND);
    let late = leads(join(&cache, &key, at + 2 * SECOND));
    assert!(late.flight.is_next());
    assert_eq!(finish(next, "2", at).stored, Err(StoreRefusal::Settling));
    for follower in crowd {
        let came = follower.came();
        assert!(came.is_some());
        let entry = shared(ended(follower).await);
        assert_eq!(entry.body().as_ref(), b"2");
        assert!(cache.accepts(&entry, came, &HeaderMap::new()));
        assert!(!accepts(&cache, &entry), "for others it is too old");
    }
    drop(late);
    assert_eq!(cache.stats().fetches, 0);
}

#[test]
fn a_crowd_that_reloads_does_not_keep_its_answers_out_of_the_store() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let at = now();
    let first = leaves(board_as(&cache, &key, Wants::RELOAD, at), at);
    let next = leads(board_as(&cache, &key, Wants::RELOAD, at));
    assert_eq!(finish(first, "1", at).stored, Ok(()));
    assert_eq!(look(&cache, &key, at).unwrap().body().as_ref(), b"1");
    let mut next = next;
    next.start(at + SECOND);
    assert_eq!(finish(next, "2", at + SECOND).stored, Ok(()));
    assert_eq!(look(&cache, &key, at).unwrap().body().as_ref(), b"2");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_whose_turn_it_waits_for_may_be_lost() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let at = now();
    cache.settle(&wrote_users(), at + 60 * SECOND);
    let first = leaves(join(&cache, &key, at), at);
    let mut next = leads(join(&cache, &key, at));
    drop(first);
    next.flight.turn().await;
    // It may be joined again after a 429: it has to leave once more.
    next.start(at);
    assert!(leads(join(&cache, &key, at)).flight.is_next());
    let mut next = leads(join(&cache, &key, at));
    next.start(at);
    next.flight.requeue();
    follows(join(&cache, &key, at));
}
