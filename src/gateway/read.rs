//! The life of a cacheable read: key → store → join or lead a fetch → answer.
//!
//! A fetch runs in a task of its own: whoever began it may hang up without taking it from those
//! who joined. What was joined is judged once more when it is handed over; a reader asks again at
//! most once, and then fetches alone.
//!
//! Those who join share the fetch, not the patience of whoever began it: while it waits for its
//! budget each waits as long as it may itself, and from then on for the answer.

use super::Gateway;
use super::attempt::Answer;
use super::body::{self, Body, Read};
use super::flow::{Ask, Reply, Timing};
use super::pass::{Asked, Move};
use super::request_id::REQUEST_ID;
use super::status::CacheStatus;
use super::write::refused;
use crate::cache::entry::{self, Entry};
use crate::cache::flight::{Follower, Outcome as Flown};
use crate::cache::key::{Content, Key, KeyParts, Lines};
use crate::cache::leader::{Landed, Leader};
use crate::cache::reason::{Bypass, Miss, Refusal};
use crate::cache::request::{self, Spelling};
use crate::cache::{self, Board, Mode, fence::Tag};
use crate::error::GatewayError;
use crate::metrics::Outcome;
use crate::route::policy::CachePolicy;
use crate::route::{names, query};
use crate::upstream::{AnswerBody, BodyError};
use http::header::{self, ACCEPT_ENCODING, HeaderMap, HeaderValue};
use http::{Response, response};
use http_body::Body as _;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

/// How long a reader who does not wait gives a fetch that has just begun to take a slot that is
/// free; longer than this, it waits for its budget.
const AT_ONCE: Duration = Duration::from_millis(20);

/// What a fetch tells the reader that began it.
type Told = Result<Reply, GatewayError>;

/// What came of a fetch that was joined.
enum Joined {
    Reply(Box<Reply>),
    /// It was overtaken by a write, lost, or refused for reasons of its leader's.
    Again,
    /// Its answer was for its leader alone.
    Alone(Miss),
}

impl Gateway {
    pub(super) async fn read(&self, ask: Ask) -> Result<Reply, GatewayError> {
        let operation = ask.operation.clone();
        let Some(policy) = &operation.cache else {
            return Box::pin(self.pass(ask, CacheStatus::uncached())).await;
        };
        let canonical = query::canonical(ask.query(), &operation.lists);
        let spelling = if canonical.is_ok() {
            Spelling::Canonical
        } else {
            Spelling::Odd
        };
        let mode = match request::examine(&ask.method, &ask.headers, spelling) {
            Ok(mode) => mode,
            Err(why) => return Box::pin(self.pass(ask, CacheStatus::bypass(why))).await,
        };
        let key = self.key(&ask, canonical.as_deref().unwrap_or_default());
        // Not the instant at which its head came: its body may have taken long since.
        let now = self.clock.now();
        if mode == Mode::Fresh
            && let Ok(entry) = self.cache.lookup(&key, now)
        {
            return Ok(self.hit(&ask, &entry, now));
        }
        // Boxed, because a hit needs none of it.
        Box::pin(self.fetch_or_join(ask, policy, &key, mode)).await
    }

    fn key(&self, ask: &Ask, query: &str) -> Key {
        Key::new(&KeyParts {
            credential: ask.credential.bytes(),
            operation: u32::try_from(ask.operation.index).unwrap_or(u32::MAX),
            path: ask.target.path(),
            query,
            accept: Lines::of(&ask.headers, header::ACCEPT),
            origin: Lines::of(&ask.headers, header::ORIGIN),
            content: Content::of(&ask.body, &ask.headers),
        })
    }

    async fn fetch_or_join(
        &self,
        ask: Ask,
        policy: &CachePolicy,
        key: &Key,
        mode: Mode,
    ) -> Result<Reply, GatewayError> {
        let expanded = names::expand(&policy.tags, &ask.params, ask.query(), &ask.document());
        let Ok(tags) = expanded.map(|names| names.into_iter().map(Tag::new).collect::<Vec<_>>())
        else {
            return self.pass(ask, CacheStatus::bypass(Bypass::Names)).await;
        };
        let wish = cache::Ask {
            key,
            tags: &tags,
            ttl: policy.ttl,
            mode,
        };
        let mut asked_again = false;
        loop {
            let now = self.clock.now();
            let follower = match self.cache.board(&wish, now) {
                Board::Hit(entry) => return Ok(self.hit(&ask, &entry, now)),
                Board::Alone(why) => return self.pass(ask, CacheStatus::alone(why)).await,
                Board::Lead(leader) => return self.lead(ask, leader).await,
                Board::Follow(follower) => follower,
            };
            match self.follow(&ask, follower).await? {
                Joined::Reply(reply) => return Ok(*reply),
                Joined::Alone(why) => return self.pass(ask, CacheStatus::alone(why)).await,
                Joined::Again if asked_again => {
                    return self.pass(ask, CacheStatus::alone(Miss::FencedTwice)).await;
                }
                Joined::Again => asked_again = true,
            }
        }
    }

    /// Waits for a fetch that another request began.
    async fn follow(
        &self,
        ask: &Ask,
        mut follower: Follower<GatewayError>,
    ) -> Result<Joined, GatewayError> {
        let why = follower.why();
        let in_line = (ask.accepted + ask.patience).max(self.clock.now() + AT_ONCE);
        let answered = ask.accepted + ask.patience + self.settings.longest_answer;
        let end = self
            .given_up_at(ask)
            .map_or(answered, |gone| gone.min(answered));
        let flown = loop {
            if timeout_at(in_line.into(), follower.departure())
                .await
                .is_err()
            {
                if ask.patience.is_zero() {
                    // Now or never: its own place in the line tells how long it would be.
                    return Ok(Joined::Alone(Miss::NotWaiting));
                }
                return Err(self.expired(ask));
            }
            match timeout_at(end.into(), follower.wait()).await {
                Ok(Some(flown)) => break flown,
                // A 429, or no connection: it waits for its budget again.
                Ok(None) => {}
                Err(_) => return Err(GatewayError::UpstreamTimeout),
            }
        };
        match flown {
            Flown::Shared(entry) if self.cache.accepts(&entry) => {
                let response = from_store(&entry, entry.shared_headers());
                let status = CacheStatus::joined(why);
                let timing = Timing::default();
                Ok(Joined::Reply(Box::new(Reply::read(
                    response,
                    Outcome::Joined,
                    status,
                    timing,
                    None,
                ))))
            }
            Flown::Shared(_) | Flown::Lost => Ok(Joined::Again),
            Flown::NotShared(_) => Ok(Joined::Alone(Miss::NotShared)),
            // The leader's patience and quota are its own.
            Flown::Failed(
                GatewayError::QueueWait { .. }
                | GatewayError::QueueExpired { .. }
                | GatewayError::QueueFull { .. }
                | GatewayError::CallerQuota { .. },
            ) => Ok(Joined::Again),
            Flown::Failed(error) => Err(error),
        }
    }

    /// It waited for its budget as long as it may. The line tells when to come back.
    pub(super) fn expired(&self, ask: &Ask) -> GatewayError {
        let refused = self.budgets.join(&self.wish(ask)).err().map(refused);
        let retry_after = refused.and_then(|refused| refused.retry_after());
        GatewayError::QueueExpired {
            retry_after: retry_after.unwrap_or(Duration::from_secs(1)),
        }
    }

    /// Fetches for this reader and everybody who joins.
    async fn lead(&self, ask: Ask, mut leader: Leader<GatewayError>) -> Told {
        self.quotas.charge(&ask.caller)?;
        let mut request = self.forwarded(&ask);
        // One answer for all who ask, whatever encodings they know.
        request
            .headers_mut()
            .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let (tell, told) = oneshot::channel();
        let progress = leader.follow();
        let gone = self.given_up_at(&ask);
        let (gateway, wish) = (self.clone(), ask.clone());
        self.tasks.spawn("fetch", async move {
            let mut timing = Timing::of(&wish);
            let asked = gateway
                .ask_api(&wish, request, &mut timing, |to| match to {
                    Move::Departs(now) => leader.departs(now),
                    Move::TurnsBack => leader.turns_back(),
                })
                .await;
            let reply = match asked {
                Ok(Asked::Answer(answer)) => gateway.land(answer, leader, timing).await,
                Ok(Asked::Throttled(response)) => {
                    let why = leader.why();
                    let status = CacheStatus::fetched(why, &leader.refuse(Refusal::Status));
                    Ok(Reply {
                        cache: Some(status),
                        ..Reply::throttled(response, timing)
                    })
                }
                Err(error) => {
                    leader.fail(error.clone());
                    Err(error)
                }
            };
            // The reader that began it may have hung up; the others have what they need.
            drop(tell.send(reply));
        });
        let told = async { told.await.unwrap_or(Err(GatewayError::Internal)) };
        let Some(gone) = gone else {
            return told.await;
        };
        // The fetch goes on for the others.
        match timeout_at(gone.into(), told).await {
            Ok(told) => told,
            Err(_) if progress.has_departed() => Err(GatewayError::UpstreamTimeout),
            Err(_) => Err(self.expired(&ask)),
        }
    }

    /// Stores and shares the answer as far as it may be, and gives it to the first reader.
    async fn land(&self, answer: Answer, leader: Leader<GatewayError>, mut timing: Timing) -> Told {
        let why = leader.why();
        let begun = self.clock.now();
        let (head, body) = answer.response.into_parts();
        let length = body.size_hint().lower();
        let (landed, body) =
            if let Some(refusal) = leader.refusal(head.status, &head.headers, length) {
                (leader.refuse(refusal), Body::Streamed(Box::new(body)))
            } else {
                self.read_whole(&head, body, leader).await?
            };
        // What is read here of the body is the API's time, not the gateway's.
        timing.upstream = answer.took + self.clock.now().saturating_duration_since(begun);
        let status = CacheStatus::fetched(why, &landed);
        let response = Response::from_parts(head, body);
        Ok(Reply::read(
            response,
            Outcome::Fetched,
            status,
            timing,
            answer.standing,
        ))
    }

    /// Reads an answer that others may have as well, and stores and shares it if it is not too long.
    async fn read_whole(
        &self,
        head: &response::Parts,
        body: AnswerBody,
        leader: Leader<GatewayError>,
    ) -> Result<(Landed, Body), GatewayError> {
        match body::read(body, self.settings.largest_stored).await {
            Read::Whole(bytes) => {
                let whole = entry::Answer {
                    status: head.status,
                    headers: &head.headers,
                    body: &bytes,
                };
                let landed = leader.finish(&whole, self.clock.now());
                Ok((landed, Body::held(bytes)))
            }
            Read::Longer(first, rest) => Ok((
                leader.refuse(Refusal::TooLarge),
                Body::Continued(Some(first), rest),
            )),
            Read::Broken(error) => {
                tracing::warn!(reason = error.as_str(), "an answer broke off");
                let error = match error {
                    BodyError::IdleTimeout | BodyError::TotalTimeout => {
                        GatewayError::UpstreamTimeout
                    }
                    BodyError::Broken => GatewayError::UpstreamBroken,
                };
                leader.fail(error.clone());
                Err(error)
            }
        }
    }

    fn hit(&self, ask: &Ask, entry: &Entry, now: Instant) -> Reply {
        let id = ask.headers.get(REQUEST_ID).cloned();
        Reply::hit(from_store(entry, entry.hit_headers(now, id)))
    }
}

/// The answer in the store, with this header.
pub(super) fn from_store(entry: &Entry, headers: HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::held(entry.body().clone()));
    *response.status_mut() = entry.status();
    *response.headers_mut() = headers;
    response
}
