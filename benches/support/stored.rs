//! Answers stored as a fetch stores them: users, each under a key of its own.

use http::{HeaderMap, StatusCode};
use segment_gateway::cache::fence::Tag;
use segment_gateway::cache::headers::ReceivedResponse;
use segment_gateway::cache::key::{CacheKey, KeyParts, Lines};
use segment_gateway::cache::leader::Receipt;
use segment_gateway::cache::lifetime::Rules;
use segment_gateway::cache::request::Wants;
use segment_gateway::cache::{Cache, Join, JoinRequest, Purpose};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Whose answers they are.
pub(crate) const CREDENTIAL: [u8; 16] = [7; 16];
/// Longer than any bench.
const TTL: Duration = Duration::from_secs(3_600);

fn path(user: u32) -> String {
    format!("/users/user-{user:05}")
}

/// Where the answer about a user stands.
pub(crate) fn key(user: u32) -> CacheKey {
    CacheKey::new(&KeyParts {
        credential: &CREDENTIAL,
        operation: 1,
        path: &path(user),
        query: "",
        accept: Lines::Only(None),
        origin: Lines::Only(None),
        content: None,
    })
}

/// Looks for the answer about a user, and begins a fetch if there is none.
pub(crate) fn join(cache: &Arc<Cache>, user: u32, now: Instant) -> Join {
    let tags = [Tag::new("users"), Tag::new(format!("user:user-{user:05}"))];
    let request = HeaderMap::new();
    cache.join(
        &JoinRequest {
            at: &cache.locate(key(user), &request),
            tags: Some(&tags),
            path: &path(user),
            rules: &Rules {
                ttl: Some(TTL),
                ..Rules::default()
            },
            wants: &Wants::FRESH,
            purpose: Purpose::Show,
            waits: true,
        },
        now,
    )
}

/// Stores this header and body as the answer about a user, which has 2 tags.
pub(crate) fn store(
    cache: &Arc<Cache>,
    user: u32,
    (headers, body): (&HeaderMap, &[u8]),
    now: Instant,
) {
    let join = join(cache, user, now);
    let Join::Lead(mut leader) = join else {
        panic!("nobody else fetches, yet: {join:?}")
    };
    leader.start(now);
    let request = HeaderMap::new();
    let answer = ReceivedResponse {
        status: StatusCode::OK,
        headers,
        body,
    };
    let completed = leader.finish(
        &answer,
        &Receipt {
            request: &request,
            now,
            // Earlier than any `Date`, so that no answer has an age when it comes.
            wall: SystemTime::UNIX_EPOCH,
        },
    );
    assert_eq!(completed.stored, Ok(()));
}
