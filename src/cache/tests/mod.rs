//! The cache as a whole.

use super::*;
use crate::clock::Clock;
use flight::FetchOutcome;
use headers::ReceivedResponse;
use http::{HeaderValue, StatusCode};
use inspect::Purge;
use key::{KeyParts, Lines};
use leader::Receipt;
use reason::StoreRefusal;
use std::time::{Duration, SystemTime};
use tokio::task::{JoinHandle, JoinSet};

mod bounds;
mod flights;
mod freshness;
mod schedules;

const SECOND: Duration = Duration::from_secs(1);
const ALICE: CredentialHash = [1; 16];
const BOB: CredentialHash = [2; 16];

fn cache() -> Arc<Cache> {
    Arc::new(Cache::new(&CacheSpec {
        bytes: 1 << 20,
        largest_body: 10_000,
        fetches: 4,
        marks: 64,
    }))
}

fn now() -> Instant {
    Clock::system().now()
}

fn key(credential: CredentialHash, path: &str) -> CacheKey {
    CacheKey::new(&KeyParts {
        credential: &credential,
        operation: 7,
        path,
        query: "",
        accept: Lines::Only(None),
        origin: Lines::Only(None),
        content: None,
    })
}

fn users() -> Vec<Tag> {
    vec![Tag::new("users")]
}

fn wrote_users() -> Invalidation {
    touched(users())
}

fn touched(tags: Vec<Tag>) -> Invalidation {
    Invalidation::Named {
        tags,
        paths: Vec::new(),
    }
}

fn at(key: &CacheKey) -> Located {
    Located {
        primary: key.clone(),
        variant: None,
    }
}

fn minute() -> Rules {
    Rules {
        ttl: Some(60 * SECOND),
        ..Rules::default()
    }
}

fn board_as(cache: &Arc<Cache>, key: &CacheKey, wants: Wants, now: Instant) -> Join {
    board_with(cache, key, Some(&users()), wants, now)
}

fn board_with(
    cache: &Arc<Cache>,
    key: &CacheKey,
    tags: Option<&[Tag]>,
    wants: Wants,
    now: Instant,
) -> Join {
    let ask = JoinRequest {
        at: &cache.locate(key.clone(), &HeaderMap::new()),
        tags,
        path: "/path",
        rules: &minute(),
        wants: &wants,
        purpose: Purpose::Show,
        waits: true,
    };
    cache.join(&ask, now)
}

fn join(cache: &Arc<Cache>, key: &CacheKey, now: Instant) -> Join {
    board_as(cache, key, Wants::FRESH, now)
}

/// What a reader is shown who wants nothing in particular.
fn look(cache: &Arc<Cache>, key: &CacheKey, now: Instant) -> Result<Arc<Entry>, Miss> {
    match cache.find(&at(key), &Wants::FRESH, now) {
        Found::Shown(entry, _) => Ok(entry),
        Found::Not(why, _) => Err(why),
    }
}

/// Whether whoever joined a fetch after it had left may be shown its answer.
fn accepts(cache: &Arc<Cache>, entry: &Entry) -> bool {
    cache.accepts(entry, None, &HeaderMap::new())
}

#[track_caller]
fn leads(join: Join) -> Leader {
    match join {
        Join::Lead(leader) => leader,
        other => panic!("expected to lead: {other:?}"),
    }
}

/// Leads a fetch that leaves at once.
#[track_caller]
fn leaves(join: Join, now: Instant) -> Leader {
    let mut leader = leads(join);
    leader.start(now);
    leader
}

#[track_caller]
fn follows(join: Join) -> Follower {
    match join {
        Join::Follow(follower) => follower,
        other => panic!("expected to follow: {other:?}"),
    }
}

#[track_caller]
fn alone(join: Join) -> Miss {
    match join {
        Join::Alone(why) => why,
        other => panic!("expected to be alone: {other:?}"),
    }
}

fn finish(leader: Leader, body: &str, now: Instant) -> leader::Completed {
    finish_with(leader, 200, &HeaderMap::new(), body, now)
}

fn finish_with(
    leader: Leader,
    status: u16,
    headers: &HeaderMap,
    body: &str,
    now: Instant,
) -> leader::Completed {
    let mut headers = headers.clone();
    let kind = headers.entry(http::header::CONTENT_TYPE);
    kind.or_insert(HeaderValue::from_static("application/json"));
    let answer = ReceivedResponse {
        status: StatusCode::from_u16(status).unwrap(),
        headers: &headers,
        body: body.as_bytes(),
    };
    let receipt = Receipt {
        request: &HeaderMap::new(),
        now,
        wall: SystemTime::UNIX_EPOCH,
    };
    leader.finish(&answer, &receipt)
}

/// How a fetch ends for somebody who joined it, however often it goes back into the line.
async fn ended(mut follower: Follower) -> FetchOutcome {
    loop {
        follower.started().await;
        if let Some(outcome) = follower.wait().await {
            return outcome;
        }
    }
}

#[track_caller]
fn shared(outcome: FetchOutcome) -> Arc<Entry> {
    match outcome {
        FetchOutcome::Shared(entry) => entry,
        other => panic!("expected an answer: {other:?}"),
    }
}

/// Lets every task of this runtime go as far as it can.
async fn settle_tasks() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}
