use super::*;
use crate::cache::headers::ReceivedResponse;
use crate::cache::key::{CacheKey, KeyParts, Lines};
use crate::cache::leader::Receipt;
use crate::cache::lifetime::Rules;
use crate::cache::request::Wants;
use crate::cache::{Cache, CacheSpec, Join, JoinRequest, Purpose};
use crate::clock::Clock;
use http::{HeaderMap, StatusCode};
use std::time::{Duration, SystemTime};

/// A stored response. Its freshness is an argument of the plan.
fn entry() -> Arc<Entry> {
    let cache = Cache::new(&CacheSpec {
        bytes: 1 << 20,
        largest_body: 1_000,
        fetches: 1,
        marks: 1,
    });
    let now = Clock::system().now();
    let key = CacheKey::new(&KeyParts {
        credential: &[1; 16],
        operation: 1,
        path: "/users",
        query: "",
        accept: Lines::Only(None),
        origin: Lines::Only(None),
        content: None,
    });
    let headers = HeaderMap::new();
    let request = JoinRequest {
        at: &cache.locate(key, &headers),
        tags: None,
        path: "/users",
        rules: &Rules {
            ttl: Some(Duration::from_secs(60)),
            ..Rules::default()
        },
        wants: &Wants::FRESH,
        purpose: Purpose::Show,
        waits: true,
    };
    let Join::Lead(leader) = cache.join(&request, now) else {
        panic!("nothing is stored yet")
    };
    let response = ReceivedResponse {
        status: StatusCode::OK,
        headers: &headers,
        body: b"{}",
    };
    let receipt = Receipt {
        request: &headers,
        now,
        wall: SystemTime::UNIX_EPOCH,
    };
    leader.finish(&response, &receipt).entry.unwrap()
}

/// The plan in a word.
fn shown(plan: ReadPlan) -> String {
    match plan {
        ReadPlan::Serve(stored) => {
            let how = match stored.freshness {
                Freshness::Fresh => "fresh",
                Freshness::Stale(need) => need.as_str(),
            };
            let and = if stored.renew { " and renew" } else { "" };
            format!("{how}{and}")
        }
        ReadPlan::JoinOrLead { stale, .. } if stale.is_some() => "join, else stale".to_owned(),
        ReadPlan::JoinOrLead { .. } => "join".to_owned(),
        ReadPlan::Alone(why) => format!("alone: {}", why.as_str()),
        ReadPlan::PassThrough(why) => format!("pass: {}", why.as_str()),
        ReadPlan::NotCached => "504".to_owned(),
    }
}

#[test]
fn what_the_reader_accepts_is_served() {
    let entry = entry();
    let fresh = Freshness::Fresh;
    let (accepted, revalidate) = (
        Freshness::Stale(Need::Accepted),
        Freshness::Stale(Need::WhileRevalidate),
    );
    // Freshness, due, must not be decoded, only if cached.
    for (freshness, is_due, must_not_decode, only_if_cached, expected) in [
        (fresh, false, false, false, "fresh"),
        (fresh, false, false, true, "fresh"),
        (fresh, true, false, false, "fresh and renew"),
        (fresh, false, true, false, "alone: not-shared"),
        (fresh, true, true, true, "504"),
        (accepted, false, false, false, "max-stale"),
        (accepted, true, false, false, "max-stale"),
        (accepted, false, true, false, "alone: not-shared"),
        (
            revalidate,
            false,
            false,
            false,
            "stale-while-revalidate and renew",
        ),
        (
            revalidate,
            false,
            false,
            true,
            "stale-while-revalidate and renew",
        ),
    ] {
        let facts = ReadFacts::Stored {
            entry: entry.clone(),
            freshness,
            is_due,
            must_not_decode,
        };
        let plan = plan(facts, only_if_cached, || panic!("no budget is asked for"));
        assert_eq!(shown(plan), expected);
    }
}

#[test]
fn what_is_missing_is_fetched_unless_something_stale_is_better() {
    let entry = entry();
    let range = Some(Bypass::Range);
    // Wants less, has a time to live, a stale one is stored, it may stand in, the budget is
    // exhausted.
    for (asks_for_less, has_ttl, has_stale, may_stand_in, must_wait, expected) in [
        (None, true, false, false, true, "join"),
        (None, false, false, false, false, "join"),
        (range, true, false, false, false, "join"),
        (range, false, false, false, false, "pass: range"),
        (range, false, true, false, true, "join, else stale"),
        (None, true, true, false, true, "join, else stale"),
        (None, true, true, true, false, "join, else stale"),
        (None, true, true, true, true, "stale-if-limited and renew"),
        (range, false, true, true, true, "stale-if-limited and renew"),
    ] {
        let facts = || ReadFacts::Missing {
            asks_for_less,
            has_ttl,
            stale: has_stale.then(|| entry.clone()),
            may_stand_in,
        };
        assert_eq!(shown(plan(facts(), false, || must_wait)), expected);
        assert_eq!(shown(plan(facts(), true, || must_wait)), "504");
    }
}

#[test]
fn what_is_not_cacheable_bypasses_the_cache() {
    let facts = || ReadFacts::Uncacheable(Bypass::Cookie);
    assert_eq!(shown(plan(facts(), false, || true)), "pass: cookie");
    assert_eq!(shown(plan(facts(), true, || true)), "504");
}
