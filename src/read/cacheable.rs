//! A cacheable read: its key, what it requires, and the facts for its plan.
//!
//! Promises that two reads have the same key only if the API may give them the same response; see
//! [`key`](crate::cache::key). The fast path builds the same key from the same parts for the plain
//! requests that it accepts.
//!
//! Nothing is sent here, and no response is made.

use crate::cache::coding::Coding;
use crate::cache::entry::Entry;
use crate::cache::fence::Tag;
use crate::cache::key::{CacheKey, CacheKeyHash, Content, KeyParts, Lines};
use crate::cache::lifetime::{Precedence, Rules};
use crate::cache::reason::Bypass;
use crate::cache::request::{self, Spelling, Wants};
use crate::cache::reuse::{Freshness, Need};
use crate::cache::{Found, Join, JoinRequest, Located, Purpose, fields, vary};
use crate::exchange::request::RequestContext;
use crate::read::Reads;
use crate::read::plan::{ReadFacts, ReadPlan, plan};
use crate::read::representation::Recipient;
use crate::route::policy::{CachePolicy, Directives};
use crate::route::{names, query};
use http::header;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

/// A cacheable read: a request with the inputs of its lookup.
#[derive(Clone, Debug)]
pub(crate) struct CacheableRead {
    /// The request.
    pub(crate) context: RequestContext,
    /// The operation's configuration of the cache.
    pub(crate) rules: Rules,
    /// The key, and that of the variant, as far as it is known.
    pub(crate) at: Located,
    /// What the reader requires of a stored response.
    pub(crate) wants: Wants,
}

impl CacheableRead {
    /// Returns what the form of the response depends on.
    pub(crate) fn recipient(&self) -> Recipient<'_> {
        Recipient {
            method: &self.context.method,
            headers: &self.context.headers,
        }
    }

    /// Returns the public name of the key, for `Cache-Status` and logs.
    pub(crate) fn key(&self) -> CacheKeyHash {
        self.at.primary.hash()
    }

    /// Returns whether a compressed response would have to be decoded for the reader although the
    /// API or the reader forbids it (RFC 9111, sections 5.2.1.6 and 5.2.2.6).
    pub(crate) fn must_not_decode(&self, said_by_api: bool) -> bool {
        (said_by_api || self.wants.no_transform) && !self.recipient().accepts_gzip()
    }

    /// Returns whether this stored response would have to be decoded for the reader although that
    /// is forbidden.
    pub(crate) fn must_not_decode_entry(&self, entry: &Entry) -> bool {
        entry.coding() != Coding::Plain && self.must_not_decode(entry.no_transform())
    }

    /// Returns whether a shared fetch accepts `gzip` although its leader's reader does not.
    pub(crate) fn asks_for_others(&self) -> bool {
        let is_for_others = self.rules.ttl.is_some() && !self.wants.no_transform;
        is_for_others && !self.recipient().accepts_gzip()
    }

    /// Returns the tags that the response depends on, or `None` if any write may change it. They
    /// depend on the request alone, so a read that looks again needs them only once.
    ///
    /// # Errors
    /// [`Bypass::Names`] if the tags cannot be named. The read bypasses the cache then, since
    /// writes to what it depends on would go unnoticed.
    pub(crate) fn tags(&self) -> Result<Option<Vec<Tag>>, Bypass> {
        let context = &self.context;
        let templates = context.operation.cache.as_ref().map(|policy| &policy.tags);
        // An operation without tags is invalidated by any write.
        let Some(templates) = templates.filter(|templates| !templates.is_empty()) else {
            return Ok(None);
        };
        let expanded = names::expand(
            templates,
            &context.params,
            context.query(),
            &context.document(),
        );
        let names = expanded.map_err(|_| Bypass::Names)?;
        Ok(Some(names.into_iter().map(Tag::new).collect()))
    }

    /// Returns the facts for the plan if the store has this response.
    pub(crate) fn stored(
        &self,
        entry: Arc<Entry>,
        freshness: Freshness,
        now: Instant,
    ) -> ReadFacts {
        ReadFacts::Stored {
            freshness,
            is_due: entry.is_due(now),
            must_not_decode: self.must_not_decode_entry(&entry),
            entry,
        }
    }
}

impl Reads {
    /// Returns the inputs of a cache lookup: the rules of the operation, the key, and what the
    /// reader requires.
    ///
    /// # Errors
    /// With the reason why the read is not cacheable.
    pub(crate) fn examine(
        &self,
        context: &RequestContext,
    ) -> Result<(Rules, Located, Wants), Bypass> {
        // The cheapest check first: most operations are not cached.
        let policy = context.operation.cache.as_ref().ok_or(Bypass::Uncached)?;
        let canonical = canonical(context);
        // A query without a canonical form is no key. It is reported last, after better reasons.
        let spelling = if canonical.is_some() {
            Spelling::Canonical
        } else {
            Spelling::Odd
        };
        let wants = request::examine(&context.method, &context.headers, spelling)?;
        // The variants of a key are known once one of them is stored.
        let primary = key(context, canonical.as_deref().unwrap_or_default());
        let at = self.cache.locate(primary, &context.headers);
        let is_known = context.operation.method.is_some();
        Ok((rules(policy, is_known), at, wants))
    }

    /// Looks the read up in the store and returns its plan. `must_wait` says whether a request to
    /// the API would be queued now.
    pub(crate) fn plan(
        &self,
        reading: &CacheableRead,
        now: Instant,
        must_wait: impl FnOnce() -> bool,
    ) -> ReadPlan {
        let facts = match self.cache.find(&reading.at, &reading.wants, now) {
            Found::Shown(entry, freshness) => reading.stored(entry, freshness, now),
            // The reason of the miss is found again when the read joins a fetch.
            Found::Not(_, stale) => {
                // A stale response that could be shown is preferred to waiting for the budget.
                let stand_in = |entry| self.may_stand_in(reading, entry, Need::IfLimited, now);
                let context = &reading.context;
                ReadFacts::Missing {
                    asks_for_less: request::asks_for_less(&context.method, &context.headers),
                    has_ttl: reading.rules.ttl.is_some(),
                    may_stand_in: stale.as_deref().is_some_and(stand_in),
                    stale,
                }
            }
        };
        plan(facts, reading.wants.only_if_cached, must_wait)
    }

    /// Returns whether the stale `entry` may be shown to this reader because of `need`.
    pub(crate) fn may_stand_in(
        &self,
        reading: &CacheableRead,
        entry: &Entry,
        need: Need,
        now: Instant,
    ) -> bool {
        // Judged each time: a write may have invalidated it since it was found.
        self.cache.may_stand_in(entry, &reading.wants, need, now)
            && !reading.must_not_decode_entry(entry)
    }

    /// Joins the fetch of this read, or begins one. `tags` are [its own](CacheableRead::tags).
    pub(crate) fn join(
        &self,
        reading: &CacheableRead,
        tags: Option<&[Tag]>,
        purpose: Purpose,
        now: Instant,
    ) -> Join {
        let request = JoinRequest {
            at: &reading.at,
            tags,
            path: reading.context.target.path(),
            rules: &reading.rules,
            wants: &reading.wants,
            purpose,
            waits: !reading.context.patience.is_zero(),
        };
        self.cache.join(&request, now)
    }
}

/// Returns the query of a key: in canonical form if the operation is known, as received otherwise.
/// `None` if it has no canonical form.
fn canonical(context: &RequestContext) -> Option<Cow<'_, str>> {
    if context.operation.method.is_some() {
        let canonical = query::canonical(context.query(), &context.operation.lists);
        return canonical.ok().map(Cow::Owned);
    }
    // The spelling of an unknown operation's query may matter, and so may a `?` without a query.
    Some(match context.query() {
        Some(query) => Cow::Owned(format!("?{query}")),
        None => Cow::Borrowed(""),
    })
}

/// Returns the key of a request with this canonical query. Plain requests have the same key on the
/// fast path.
fn key(context: &RequestContext, query: &str) -> CacheKey {
    let key = CacheKey::new(&KeyParts {
        credential: context.credential.bytes(),
        operation: u32::try_from(context.operation.index).unwrap_or(u32::MAX),
        path: context.target.path(),
        query,
        accept: Lines::of(&context.headers, header::ACCEPT),
        origin: Lines::of(&context.headers, header::ORIGIN),
        // A GET with a body is a request of its own for each body.
        content: Content::of(&context.body, &context.headers),
    });
    // Unknown request fields may shape the response, so they separate readers.
    let keyed = fields::keyed(&context.headers);
    if keyed.is_empty() {
        return key;
    }
    key.with_fields(&keyed, &vary::selection(&keyed, &context.headers))
}

/// Returns the configuration of an operation in the cache's own terms. `is_known` says whether the
/// operation is in the route table.
fn rules(policy: &CachePolicy, is_known: bool) -> Rules {
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
        any_media_type: !is_known,
    }
}
