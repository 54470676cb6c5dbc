//! The life of a cacheable read: key → store → join or lead a fetch → response, fresh or stale.
//!
//! A fetch runs in a task of its own ([`fetch`](super::fetch)), so its leader may hang up without
//! cancelling it for the followers. A shared response is judged again when a follower receives it.
//! A reader whose response was invalidated asks again at most once (and once more under the key of
//! its variant, as soon as that is known), and then fetches alone. After a failed connection it
//! also asks again once, and then reports the failure.
//!
//! Followers share the fetch, but not the leader's patience. While the fetch is queued for its
//! budget, each follower waits as long as it may itself; once the fetch is in flight, it waits for
//! the response.

use crate::cache::cache_status::{self, Stale};
use crate::cache::coding::Coding;
use crate::cache::entry::Entry;
use crate::cache::flight::{FetchOutcome, Follower};
use crate::cache::key::{Content, Key, KeyHash, KeyParts, Lines};
use crate::cache::leader::{Leader, is_failure};
use crate::cache::lifetime::{Precedence, Rules};
use crate::cache::reason::{Bypass, Miss};
use crate::cache::request::{self, Spelling, Wants};
use crate::cache::reuse::{Freshness, Need};
use crate::cache::{self, Found, Join, Located, Purpose, fence::Tag, fields, vary};
use crate::error::GatewayError;
use crate::exchange::cache_status::CacheStatus;
use crate::exchange::request::RequestContext;
use crate::exchange::request_id::REQUEST_ID;
use crate::exchange::response::Reply;
use crate::exchange::timing::Timing;
use crate::metrics::Outcome;
use crate::read::Reads;
use crate::read::fetch::FetchResult;
use crate::read::representation::{Recipient, Whole, show};
use crate::route::policy::{CachePolicy, Directives};
use crate::route::{names, query};
use http::header;
use http::{HeaderMap, Response, StatusCode};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

/// How long a reader that does not wait gives a new fetch to take a free slot. A fetch without a
/// slot by then is queued for its budget.
const AT_ONCE: Duration = Duration::from_millis(20);

/// How often a reader follows `Vary` to another key, if the API keeps changing it.
const MOST_MOVES: u32 = 2;

/// A cacheable read.
#[derive(Clone, Debug)]
pub(crate) struct CacheableRead {
    pub(crate) context: RequestContext,
    pub(crate) rules: Rules,
    pub(crate) at: Located,
    pub(crate) wants: Wants,
}

impl CacheableRead {
    pub(crate) fn reader(&self) -> Recipient<'_> {
        Recipient {
            method: &self.context.method,
            headers: &self.context.headers,
        }
    }

    fn key(&self) -> KeyHash {
        self.at.primary.hash()
    }

    /// Returns whether a compressed response would have to be decoded for the reader although the
    /// API or the reader forbids it (RFC 9111, sections 5.2.1.6 and 5.2.2.6).
    pub(crate) fn must_not_decode(&self, said_by_api: bool) -> bool {
        (said_by_api || self.wants.no_transform) && !self.reader().accepts_gzip()
    }
}

/// The outcome of a joined fetch.
enum FollowResult {
    Reply(Box<Reply>),
    /// The response was overtaken by a write, lost, or denied for reasons of the leader's.
    Again,
    /// The leader found no connection as long as it tried.
    NoConnection(GatewayError),
    /// The response may not be shared.
    Alone(Miss),
}

impl Reads {
    /// Serves a read: from the store, from a fetch, or uncached.
    pub(crate) async fn read(
        self: &Arc<Self>,
        context: RequestContext,
    ) -> Result<Reply, GatewayError> {
        let looks = context.ids.trail().map(|_| self.clock.now());
        let reading = match self.reading(&context) {
            Ok((rules, at, wants)) => CacheableRead {
                context,
                rules,
                at,
                wants,
            },
            Err(_) if request::is_only_if_cached(&context.headers) => {
                return Err(GatewayError::NotCached);
            }
            Err(why) => return Box::pin(self.pass(context, CacheStatus::bypass(why))).await,
        };
        // Not the arrival of the head: the body may have taken long since.
        let now = self.clock.now();
        let found = self.cache.find(&reading.at, &reading.wants, now);
        if let Some(looks) = looks {
            reading.context.progress.looked((looks, self.clock.now()));
        }
        match found {
            Found::Shown(entry, how) => self.stored(reading, &entry, how, now).await,
            // Boxed, because a hit needs none of it.
            Found::Not(_, stale) => Box::pin(self.ask_for(reading, stale)).await,
        }
    }

    /// Returns the inputs of a cache lookup.
    ///
    /// # Errors
    /// With the reason why the read is not cacheable.
    pub(crate) fn reading(
        &self,
        context: &RequestContext,
    ) -> Result<(Rules, Located, Wants), Bypass> {
        let policy = context.operation.cache.as_ref().ok_or(Bypass::Uncached)?;
        let canonical = canonical(context);
        let spelling = if canonical.is_some() {
            Spelling::Canonical
        } else {
            Spelling::Odd
        };
        let wants = request::examine(&context.method, &context.headers, spelling)?;
        let primary = key(context, canonical.as_deref().unwrap_or_default());
        Ok((
            rules(policy),
            self.cache.locate(primary, &context.headers),
            wants,
        ))
    }

    /// Serves a stored response.
    async fn stored(
        self: &Arc<Self>,
        reading: CacheableRead,
        entry: &Arc<Entry>,
        how: Freshness,
        now: Instant,
    ) -> Result<Reply, GatewayError> {
        if must_not_decode(&reading, entry) {
            // The reader needs the original bytes. The API has them in a coding that it accepts.
            if reading.wants.only_if_cached {
                return Err(GatewayError::NotCached);
            }
            return Box::pin(self.alone(&reading, Miss::NotShared)).await;
        }
        // Noted before the decision on a refresh, which depends on how often it is read.
        entry.note_shown();
        Ok(match how {
            Freshness::Fresh => {
                let reply = self.hit(&reading, entry, now);
                if entry.is_due(now) {
                    self.refresh_ahead(reading, entry);
                }
                reply
            }
            Freshness::Stale(need) => {
                let reply = self.stale(&reading, entry, need, None);
                if need == Need::WhileRevalidate {
                    self.refresh_behind(reading, entry, need);
                }
                reply
            }
        })
    }

    /// Serves a read for which the store has nothing to show as it is.
    async fn ask_for(
        self: &Arc<Self>,
        reading: CacheableRead,
        stale: Option<Arc<Entry>>,
    ) -> Result<Reply, GatewayError> {
        if reading.wants.only_if_cached {
            return Err(GatewayError::NotCached);
        }
        let less = request::asks_for_less(&reading.context.method, &reading.context.headers);
        if let (Some(less), None, None) = (less, reading.rules.ttl, &stale) {
            // Without a `ttl` the whole might not be stored, and the API may respond with less.
            return self.pass(reading.context, CacheStatus::bypass(less)).await;
        }
        let limited = Need::IfLimited;
        if let Some(entry) = &stale
            && self.may_stand_in(&reading, entry, limited)
            && self
                .budgets
                .must_wait(&self.attempts.budget_request(&reading.context))
        {
            let reply = self.stale(&reading, entry, limited, None);
            self.refresh_behind(reading, entry, limited);
            return Ok(reply);
        }
        let result = self.fetch_or_join(&reading, stale.as_ref()).await;
        self.or_stale(&reading, stale.as_ref(), result)
    }

    async fn fetch_or_join(
        self: &Arc<Self>,
        reading: &CacheableRead,
        stale: Option<&Arc<Entry>>,
    ) -> FetchResult {
        let Some(tags) = tags(&reading.context) else {
            let status = CacheStatus::bypass(Bypass::Names);
            return self.pass(reading.context.clone(), status).await;
        };
        let mut reading = reading.clone();
        // A stale response is better than waiting for a budget.
        let impatient =
            stale.is_some_and(|entry| self.may_stand_in(&reading, entry, Need::IfLimited));
        // Each way back to the lookup is bounded: one retry for an invalidated response, one for a
        // failed connection, and [`MOST_MOVES`] changes of the key.
        let (mut asked_again, mut connected_again, mut on_event) = (false, false, 0);
        loop {
            let now = self.clock.now();
            let joined = {
                let join_request = join_request(&reading, tags.as_deref(), Purpose::Show);
                self.cache.join(&join_request, now)
            };
            let follower = match joined {
                Join::Hit(entry, how) => return self.stored(reading, &entry, how, now).await,
                Join::Alone(why) => return self.alone(&reading, why).await,
                Join::Lead(leader) => return self.lead(&reading, leader, impatient).await,
                Join::Follow(follower) => follower,
            };
            match self.follow(&reading, follower, impatient).await? {
                FollowResult::Reply(reply) => return Ok(*reply),
                FollowResult::Alone(why) => return self.alone(&reading, why).await,
                FollowResult::NoConnection(error) => {
                    // No reader fetches alone here: in an outage all of them would.
                    let has_stand_in = stale
                        .is_some_and(|entry| self.may_stand_in(&reading, entry, Need::IfError));
                    if has_stand_in || std::mem::replace(&mut connected_again, true) {
                        return Err(error);
                    }
                }
                FollowResult::Again => {
                    // Meanwhile the cache may have learned the variants: then this one has its own
                    // key.
                    let primary = reading.at.primary.clone();
                    let at = self.cache.locate(primary, &reading.context.headers);
                    let is_elsewhere = at.key() != reading.at.key() && on_event < MOST_MOVES;
                    reading.at = at;
                    on_event += 1;
                    if !is_elsewhere && std::mem::replace(&mut asked_again, true) {
                        return self.alone(&reading, Miss::FencedTwice).await;
                    }
                }
            }
        }
    }

    /// Fetches for this reader alone.
    async fn alone(self: &Arc<Self>, reading: &CacheableRead, why: Miss) -> FetchResult {
        let status = CacheStatus::alone(why, Some(reading.key()));
        let began = self.clock.now();
        let reply = self.pass(reading.context.clone(), status).await?;
        let answered = reply.response.status();
        self.cache.answered_alone(&reading.at, answered, began);
        Ok(reply)
    }

    /// Leads a fetch for this reader and its followers.
    async fn lead(
        self: &Arc<Self>,
        reading: &CacheableRead,
        leader: Leader,
        impatient: bool,
    ) -> FetchResult {
        let context = &reading.context;
        self.quotas.charge(&context.caller)?;
        // The follower is created before the fetch starts, so that it misses no departure.
        let (sender, result) = oneshot::channel();
        let progress = leader.flight.follow(leader.why());
        self.fetch(reading.clone(), leader, Some(sender));
        let result = async { result.await.unwrap_or(Err(GatewayError::Internal)) };
        let result = async {
            tokio::select! {
                biased;
                result = result => result,
                // After a 429 or a failed connection the fetch is queued again, and continues for
                // the others.
                () = progress.requeued(), if impatient => Err(self.attempts.expired(context)),
            }
        };
        let Some(gone) = self.attempts.given_up_at(context) else {
            return result.await;
        };
        match timeout_at(gone.into(), result).await {
            Ok(result) => result,
            Err(_) if progress.has_started() => Err(GatewayError::UpstreamTimeout),
            Err(_) => Err(self.attempts.expired(context)),
        }
    }

    /// Waits for a fetch that another request leads.
    ///
    /// Two deadlines apply: `in_line` while the fetch is queued, `end` for its response.
    async fn follow(
        &self,
        reading: &CacheableRead,
        mut follower: Follower,
        impatient: bool,
    ) -> Result<FollowResult, GatewayError> {
        let (context, why) = (&reading.context, follower.why());
        let soon = self.clock.now() + AT_ONCE;
        let in_line = if impatient {
            soon
        } else {
            (context.accepted + context.patience).max(soon)
        };
        let settings = self.settings.get();
        let answered = context.accepted + context.patience + settings.longest_answer;
        let end = self
            .attempts
            .given_up_at(context)
            .map_or(answered, |gone| gone.min(answered));
        if in_line.min(end) < self.clock.now() + settings.settling {
            // No fetch waits longer than a usual settle time before it departs.
            follower.hurry();
        }
        let flown = loop {
            if timeout_at(in_line.into(), follower.started())
                .await
                .is_err()
            {
                if context.patience.is_zero() {
                    // This reader does not wait. A request of its own tells it how long the queue
                    // is.
                    return Ok(FollowResult::Alone(Miss::NotWaiting));
                }
                return Err(self.attempts.expired(context));
            }
            match timeout_at(end.into(), follower.wait()).await {
                Ok(Some(flown)) => break flown,
                // After a 429 or a failed connection the fetch is queued again.
                Ok(None) => {}
                Err(_) => return Err(GatewayError::UpstreamTimeout),
            }
        };
        match flown {
            // Judged again: a write may have settled since the reader joined.
            FetchOutcome::Shared(entry)
                if self
                    .cache
                    .accepts(&entry, follower.came(), &context.headers) =>
            {
                if must_not_decode(reading, &entry) {
                    return Ok(FollowResult::Alone(Miss::NotShared));
                }
                let status = CacheStatus::joined(why, reading.key());
                Ok(FollowResult::Reply(Box::new(Reply::read(
                    show(&reading.reader(), whole(&entry, entry.shared_headers())),
                    Outcome::Joined,
                    status,
                    Timing::default(),
                    None,
                ))))
            }
            FetchOutcome::Shared(_) | FetchOutcome::Lost => Ok(FollowResult::Again),
            FetchOutcome::NotShared(_) => Ok(FollowResult::Alone(Miss::NotShared)),
            // The leader's patience and quota are not the follower's.
            FetchOutcome::Failed(
                GatewayError::QueueWait { .. }
                | GatewayError::QueueExpired { .. }
                | GatewayError::QueueFull { .. }
                | GatewayError::CallerQuota { .. },
            ) => Ok(FollowResult::Again),
            FetchOutcome::Failed(error @ GatewayError::UpstreamUnreachable { .. })
                if self.clock.now() < context.accepted + context.patience =>
            {
                Ok(FollowResult::NoConnection(error))
            }
            FetchOutcome::Failed(error) => Err(error),
        }
    }

    /// Replaces a failure or a rejection by a stale response, where that is permitted.
    fn or_stale(
        &self,
        reading: &CacheableRead,
        stale: Option<&Arc<Entry>>,
        result: FetchResult,
    ) -> FetchResult {
        let Some(entry) = stale else {
            return result;
        };
        let (need, outcome) = match &result {
            Ok(reply) if reply.outcome == Outcome::Expired => {
                (Need::IfLimited, Some(Some(reply.response.status())))
            }
            Ok(reply) if is_failure(reply.response.status()) => {
                (Need::IfError, Some(Some(reply.response.status())))
            }
            Err(
                GatewayError::UpstreamUnreachable { .. }
                | GatewayError::UpstreamTimeout
                | GatewayError::UpstreamBroken,
            ) => (Need::IfError, Some(None)),
            Err(
                GatewayError::QueueWait { .. }
                | GatewayError::QueueExpired { .. }
                | GatewayError::QueueFull { .. },
            ) => {
                // A request that got a 429 was forwarded nonetheless.
                let left = reading.context.progress.seen();
                (Need::IfLimited, left.map(|_| None))
            }
            _ => return result,
        };
        if !self.may_stand_in(reading, entry, need) {
            return result;
        }
        let mut reply = self.stale(reading, entry, need, outcome);
        if let Ok(failed) = result {
            reply.timing = failed.timing;
        }
        Ok(reply)
    }

    /// Returns whether the stale `entry` may be shown to this reader because of `need`.
    pub(crate) fn may_stand_in(
        &self,
        reading: &CacheableRead,
        entry: &Arc<Entry>,
        need: Need,
    ) -> bool {
        let now = self.clock.now();
        self.cache.may_stand_in(entry, &reading.wants, need, now)
            && !must_not_decode(reading, entry)
    }

    fn hit(&self, reading: &CacheableRead, entry: &Entry, now: Instant) -> Reply {
        let id = reading.context.headers.get(REQUEST_ID).cloned();
        let headers = entry.hit_headers(now, id);
        Reply::hit(show(&reading.reader(), whole(entry, headers)))
    }

    fn stale(
        &self,
        reading: &CacheableRead,
        entry: &Entry,
        need: Need,
        outcome: Option<Option<StatusCode>>,
    ) -> Reply {
        let now = self.clock.now();
        let mut headers = entry.shared_headers();
        let age = cache_status::age(entry.age(now));
        headers.insert(header::AGE, age);
        let status = CacheStatus::stale(&Stale {
            need,
            by: entry.stale_for(now),
            asked: outcome,
            key: entry.key(),
        });
        Reply::stale(show(&reading.reader(), whole(entry, headers)), status)
    }
}

/// Returns whether a stored response would have to be decoded for the reader although that is
/// forbidden.
pub(crate) fn must_not_decode(reading: &CacheableRead, entry: &Entry) -> bool {
    entry.coding() != Coding::Plain && reading.must_not_decode(entry.no_transform())
}

/// Returns a stored response with these headers, to be adapted to a reader.
pub(crate) fn whole(entry: &Entry, headers: HeaderMap) -> Whole {
    Whole {
        status: entry.status(),
        headers,
        body: entry.body().clone(),
        coding: entry.coding(),
        received: entry.received(),
    }
}

/// Returns a stored response with these headers, as it is stored.
pub(crate) fn from_store(
    entry: &Entry,
    headers: HeaderMap,
) -> Response<crate::exchange::body::Body> {
    let mut response = Response::new(crate::exchange::body::Body::held(entry.body().clone()));
    *response.status_mut() = entry.status();
    *response.headers_mut() = headers;
    response
}

/// Returns the query of a key: in canonical form if the operation is known, as received otherwise.
fn canonical(context: &RequestContext) -> Option<Cow<'_, str>> {
    if context.operation.method.is_some() {
        let canonical = query::canonical(context.query(), &context.operation.lists);
        return canonical.ok().map(Cow::Owned);
    }
    // No query differs from an empty one.
    Some(match context.query() {
        Some(query) => Cow::Owned(format!("?{query}")),
        None => Cow::Borrowed(""),
    })
}

fn key(context: &RequestContext, query: &str) -> Key {
    let key = Key::new(&KeyParts {
        credential: context.credential.bytes(),
        operation: u32::try_from(context.operation.index).unwrap_or(u32::MAX),
        path: context.target.path(),
        query,
        accept: Lines::of(&context.headers, header::ACCEPT),
        origin: Lines::of(&context.headers, header::ORIGIN),
        content: Content::of(&context.body, &context.headers),
    });
    let keyed = fields::keyed(&context.headers);
    if keyed.is_empty() {
        return key;
    }
    key.with_fields(&keyed, &vary::selection(&keyed, &context.headers))
}

/// Returns the tags that the response depends on, `Some(None)` if any write may change it, or
/// `None` if they cannot be named.
#[allow(clippy::option_option, reason = "three cases, each said above")]
pub(crate) fn tags(context: &RequestContext) -> Option<Option<Vec<Tag>>> {
    let templates = context.operation.cache.as_ref().map(|policy| &policy.tags);
    let Some(templates) = templates.filter(|templates| !templates.is_empty()) else {
        return Some(None);
    };
    let expanded = names::expand(
        templates,
        &context.params,
        context.query(),
        &context.document(),
    );
    let names = expanded.ok()?;
    Some(Some(names.into_iter().map(Tag::new).collect()))
}

pub(crate) fn join_request<'a>(
    reading: &'a CacheableRead,
    tags: Option<&'a [Tag]>,
    purpose: Purpose,
) -> cache::JoinRequest<'a> {
    cache::JoinRequest {
        at: &reading.at,
        tags,
        path: reading.context.target.path(),
        rules: &reading.rules,
        wants: &reading.wants,
        purpose,
        waits: !reading.context.patience.is_zero(),
    }
}

fn rules(policy: &CachePolicy) -> Rules {
    Rules {
        ttl: policy.ttl,
        precedence: match policy.directives {
            Directives::Shorter => Precedence::Shorter,
            Directives::Upstream => Precedence::Upstream,
            Directives::Operator => Precedence::Operator,
        },
        while_revalidate: policy.stale_while_revalidate,
        if_error: policy.stale_if_error,
        if_limited: policy.stale_if_limited,
        heuristic_percent: policy.heuristic_percent,
    }
}
