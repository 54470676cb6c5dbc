//! What the cache takes, whatever is asked of it.

use super::*;

#[test]
fn the_store_stays_within_its_bytes() {
    let cache = Arc::new(Cache::new(&CacheSpec {
        bytes: 50_000,
        largest_body: 10_000,
        fetches: 1,
        marks: 1,
    }));
    let at = now();
    let body = "x".repeat(5_000);
    for number in 0..200 {
        let key = key(ALICE, &format!("/users/{number}"));
        finish(leads(join(&cache, &key, at)), &body, at);
        cache.tidy();
        assert!(cache.stats().bytes <= 50_000);
        assert!(
            look(&cache, &key, at).is_ok(),
            "the newest is never turned away"
        );
    }
    let stats = cache.stats();
    assert!((5..10).contains(&stats.entries), "{stats:?}");
    assert_eq!(stats.evictions + stats.entries, 200);
}

#[test]
fn an_answer_larger_than_the_store_is_refused() {
    let cache = Arc::new(Cache::new(&CacheSpec {
        bytes: 4_000,
        largest_body: 10_000,
        fetches: 1,
        marks: 1,
    }));
    let key = key(ALICE, "/users");
    let at = now();
    let completed = finish(leads(join(&cache, &key, at)), &"x".repeat(9_000), at);
    assert_eq!(completed.stored, Err(StoreRefusal::TooLarge));
    assert!(completed.entry.is_some(), "those who wait can have it");
    assert_eq!(look(&cache, &key, at).unwrap_err(), Miss::Absent);
}

#[test]
fn marks_and_refused_credentials_are_bounded() {
    let cache = cache();
    let at = now();
    let key = key(BOB, "/users");
    finish(leads(join(&cache, &key, at)), "{}", at);
    for number in 0..20_000u32 {
        let mut credential = [0; 16];
        credential[..4].copy_from_slice(&number.to_le_bytes());
        cache.unauthorized(&credential, Refused::Operation(0), at);
        cache.settle(&touched(vec![Tag::new(format!("user:{number}"))]), at);
    }
    let stats = cache.stats();
    assert_eq!(stats.marks, 64);
    assert!(stats.floor_moves > 0);
    assert!(cache.unauthorized.lock().len() <= MAX_UNAUTHORIZED);
    // Forgetting marks only disbelieves.
    assert_eq!(look(&cache, &key, at).unwrap_err(), Miss::Fenced);
}

#[tokio::test]
async fn those_who_come_and_go_leave_no_trace() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let at = now();
    for _ in 0..1_000 {
        let leader = leads(join(&cache, &key, at));
        for _ in 0..10 {
            drop(follows(join(&cache, &key, at)));
        }
        drop(leader);
    }
    assert_eq!(cache.stats().fetches, 0);
    assert_eq!(cache.flights.current(), 0);
    assert_eq!(Arc::strong_count(&cache.flights), 1);
}
