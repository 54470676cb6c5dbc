//! What writes, refused credentials and time do to answers.

use super::*;

#[test]
fn a_write_ends_what_any_credential_was_shown() {
    let cache = cache();
    let (mine, yours, other) = (
        key(ALICE, "/users"),
        key(BOB, "/users"),
        key(BOB, "/groups"),
    );
    let at = now();
    finish(leads(join(&cache, &mine, at)), "a", at);
    finish(leads(join(&cache, &yours, at)), "b", at);
    let groups = [Tag::new("groups")];
    let board_groups = board_with(&cache, &other, Some(&groups), Wants::FRESH, at);
    finish(leads(board_groups), "c", at);
    assert_eq!(look(&cache, &mine, at).unwrap().body().as_ref(), b"a");
    assert_eq!(look(&cache, &yours, at).unwrap().body().as_ref(), b"b");
    cache.settle(&wrote_users(), at);
    assert_eq!(look(&cache, &mine, at).unwrap_err(), Miss::Fenced);
    assert_eq!(look(&cache, &yours, at).unwrap_err(), Miss::Fenced);
    assert!(look(&cache, &other, at).is_ok());
    cache.settle(&touched(Vec::new()), at);
    assert!(look(&cache, &other, at).is_ok());
    cache.settle(&Invalidation::Everything, at);
    assert_eq!(look(&cache, &other, at).unwrap_err(), Miss::Fenced);
}

#[test]
fn answers_expire_by_the_clock_they_are_given() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let at = now();
    finish(leads(join(&cache, &key, at)), "a", at + 5 * SECOND);
    let entry = look(&cache, &key, at + 59 * SECOND).unwrap();
    assert_eq!(entry.age(at + 59 * SECOND), 59 * SECOND);
    let expired = look(&cache, &key, at + 60 * SECOND).unwrap_err();
    assert_eq!(expired, Miss::Expired);
}

#[tokio::test]
async fn a_fetch_that_began_before_a_write_is_not_joined_and_not_stored() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let at = now();
    let old = leaves(join(&cache, &key, at), at);
    let joined_before = follows(join(&cache, &key, at));
    cache.settle(&wrote_users(), at);
    // The write has ended: this reader must not get what was fetched before.
    let new = leads(join(&cache, &key, at));
    let joined_after = follows(join(&cache, &key, at));
    assert_eq!(finish(old, "old", at).stored, Err(StoreRefusal::Fenced));
    assert_eq!(look(&cache, &key, at).unwrap_err(), Miss::Absent);
    // The end of the old fetch did not end the new one for others.
    follows(join(&cache, &key, at));
    assert_eq!(finish(new, "new", at).stored, Ok(()));
    let before = shared(ended(joined_before).await);
    assert_eq!(before.body().as_ref(), b"old");
    assert!(
        !accepts(&cache, &before),
        "overtaken before it was handed over"
    );
    let after = shared(ended(joined_after).await);
    assert_eq!(after.body().as_ref(), b"new");
    assert!(accepts(&cache, &after));
}

#[test]
fn an_old_fetch_that_ends_last_does_not_land_on_the_new_answer() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let at = now();
    let old = leaves(join(&cache, &key, at), at);
    cache.settle(&wrote_users(), at);
    finish(leads(join(&cache, &key, at)), "new", at);
    finish(old, "old", at);
    assert_eq!(look(&cache, &key, at).unwrap().body().as_ref(), b"new");
}

#[test]
fn a_fetch_overtaken_by_a_write_is_not_stored() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let at = now();
    let leader = leads(join(&cache, &key, at));
    cache.settle(&wrote_users(), at);
    assert_eq!(finish(leader, "old", at).stored, Err(StoreRefusal::Fenced));
    assert_eq!(look(&cache, &key, at).unwrap_err(), Miss::Absent);
}

#[tokio::test]
async fn a_write_between_the_answer_and_its_hand_over_is_noticed() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let at = now();
    let leader = leaves(join(&cache, &key, at), at);
    let waiting = follows(join(&cache, &key, at));
    finish(leader, "old", at);
    let entry = shared(ended(waiting).await);
    assert!(accepts(&cache, &entry));
    cache.settle(&wrote_users(), at);
    assert!(!accepts(&cache, &entry));
    // It asks again, and this time it is the one who fetches.
    let again = leads(join(&cache, &key, at));
    assert_eq!(again.why(), Miss::Fenced);
}

#[test]
fn while_the_api_settles_nothing_is_stored_and_nothing_that_has_left_is_joined() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let at = now();
    let early = leaves(join(&cache, &key, at), at);
    cache.settle(&wrote_users(), at + 2 * SECOND);
    let completed = finish(early, "a", at + SECOND);
    assert_eq!(completed.stored, Err(StoreRefusal::Settling));
    for mode in [Wants::FRESH, Wants::RELOAD] {
        let leader = leads(board_as(&cache, &key, mode, at + SECOND));
        assert_eq!(leader.why(), Miss::Settling);
        follows(board_as(&cache, &key, mode, at + SECOND));
        let completed = finish(leader, "a", at + SECOND);
        assert_eq!(completed.stored, Err(StoreRefusal::Settling));
    }
    let after = at + 2 * SECOND;
    finish(leads(join(&cache, &key, after)), "b", after);
    assert!(look(&cache, &key, after).is_ok());
}

#[tokio::test]
async fn waiting_for_a_budget_does_not_make_an_answer_old() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let at = now();
    let mut leader = leads(join(&cache, &key, at));
    let waiting = follows(join(&cache, &key, at));
    cache.settle(&wrote_users(), at + SECOND);
    leader.start(at + 3 * SECOND);
    follows(join(&cache, &key, at + 3 * SECOND));
    assert_eq!(finish(leader, "new", at + 4 * SECOND).stored, Ok(()));
    let entry = shared(ended(waiting).await);
    assert!(accepts(&cache, &entry));
    assert_eq!(entry.age(at + 4 * SECOND), SECOND);
}

#[test]
fn a_fetch_that_lost_its_place_does_not_regain_it_by_departing() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let at = now();
    let mut old = leaves(join(&cache, &key, at), at);
    cache.settle(&wrote_users(), at);
    let new = leaves(join(&cache, &key, at), at);
    cache.settle(&wrote_users(), at);
    old.start(at);
    // Nor does the fetch in its place become younger by it.
    let newest = leaves(join(&cache, &key, at), at);
    assert_eq!(finish(old, "old", at).stored, Err(StoreRefusal::Superseded));
    assert_eq!(finish(new, "new", at).stored, Err(StoreRefusal::Superseded));
    assert_eq!(finish(newest, "newest", at).stored, Ok(()));
}

#[tokio::test]
async fn a_refused_credential_loses_what_it_was_shown() {
    let cache = cache();
    let at = now();
    let (mine, yours) = (key(ALICE, "/users"), key(BOB, "/users"));
    finish(leads(join(&cache, &mine, at)), "a", at);
    finish(leads(join(&cache, &yours, at)), "b", at);
    // Another operation (this one has index 7): one refusal says nothing of this one.
    cache.unauthorized(&ALICE, Refused::Operation(1), at);
    assert!(look(&cache, &mine, at).is_ok());
    cache.unauthorized(&ALICE, Refused::Operation(2), at + SECOND);
    assert_eq!(look(&cache, &mine, at).unwrap_err(), Miss::Fenced);
    assert!(look(&cache, &yours, at).is_ok());
    cache.unauthorized(&BOB, Refused::Operation(7), at);
    assert_eq!(look(&cache, &yours, at).unwrap_err(), Miss::Fenced);
}

#[tokio::test]
async fn those_who_wait_for_a_401_share_it() {
    let cache = cache();
    let key = key(ALICE, "/users");
    let at = now();
    let leader = leads(join(&cache, &key, at));
    let waiting = follows(join(&cache, &key, at));
    cache.unauthorized(&ALICE, Refused::Operation(7), at);
    let completed = finish_with(leader, 401, &HeaderMap::new(), "no", at);
    assert_eq!(completed.stored, Err(StoreRefusal::Status));
    assert!(accepts(&cache, &shared(ended(waiting).await)));
}

#[test]
fn a_purge_reaches_what_is_stored_and_what_is_under_way() {
    let cache = cache();
    let at = now();
    let (stored, fetched) = (key(ALICE, "/users"), key(ALICE, "/users/1"));
    finish(leads(join(&cache, &stored, at)), "a", at);
    let under_way = leads(join(&cache, &fetched, at));
    cache.purge(&Purge::Everything, at);
    assert_eq!(look(&cache, &stored, at).unwrap_err(), Miss::Absent);
    assert_eq!(finish(under_way, "b", at).stored, Err(StoreRefusal::Fenced));
    assert!(look(&cache, &fetched, at).is_err());
}

#[test]
fn what_a_write_ended_while_its_fetch_waited_is_renewed_by_a_strong_tag_alone() {
    for (tag, is_renewed) in [("W/\"1\"", false), ("\"1\"", true)] {
        let (cache, key, at) = (cache(), key(ALICE, "/users"), now());
        let mut headers = HeaderMap::new();
        headers.insert("etag", HeaderValue::from_static(tag));
        let first = leads(join(&cache, &key, at));
        finish_with(first, 200, &headers, "old", at);
        let later = at + 60 * SECOND;
        let mut leader = leads(join(&cache, &key, later));
        assert!(leader.validators().is_some(), "{tag}");
        cache.settle(&wrote_users(), later);
        leader.start(later);
        let receipt = Receipt {
            request: &HeaderMap::new(),
            now: later,
            wall: SystemTime::UNIX_EPOCH,
        };
        match leader.renew(&HeaderMap::new(), &receipt) {
            Ok(_) => assert!(is_renewed, "{tag}"),
            Err(again) => {
                assert!(!is_renewed, "{tag}");
                assert!(again.validators().is_none(), "the whole is asked for");
            }
        }
    }
}
