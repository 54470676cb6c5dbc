//! Single flight: a read joins the fetch of its key, or leads one.
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

use crate::cache::cache_status::CacheStatus;
use crate::cache::entry::Entry;
use crate::cache::flight::{FetchOutcome, Follower};
use crate::cache::leader::Leader;
use crate::cache::reason::Miss;
use crate::cache::reuse::Need;
use crate::cache::{Join, Purpose};
use crate::error::GatewayError;
use crate::exchange::response::Reply;
use crate::exchange::timing::Timing;
use crate::metrics::Outcome;
use crate::read::cacheable::CacheableRead;
use crate::read::plan::{ReadPlan, plan};
use crate::read::representation::show;
use crate::read::stored::whole;
use crate::read::{ReadResult, Reads};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

/// How long a reader that does not wait gives a new fetch to take a free slot. A fetch without a
/// slot by then is queued for its budget.
const SLOT_GRACE: Duration = Duration::from_millis(20);

/// How often a reader follows `Vary` to another key, if the API keeps changing it.
const MOST_MOVES: u32 = 2;

/// The outcome of a joined fetch, for one follower.
enum FollowResult {
    /// The response, in the form for this reader.
    Reply(Box<Reply>),
    /// No response: it was overtaken by a write, lost, or denied for reasons that are the leader's
    /// own. The follower looks into the store again.
    Again,
    /// The leader found no connection as long as it tried.
    NoConnection(GatewayError),
    /// The response may not be shared.
    Alone(Miss),
}

impl Reads {
    /// Joins the fetch of this read or leads one. `stale` may be served if that fails. An
    /// `impatient` reader would rather get it than wait for a budget.
    ///
    /// # Errors
    /// If the reader's patience ends, or the fetch fails and trying again would not help.
    ///
    /// Each way back to the lookup is bounded: one retry for an invalidated response, one for a
    /// failed connection, and [`MOST_MOVES`] changes of the key.
    pub(crate) async fn join_or_lead(
        self: &Arc<Self>,
        mut reading: Arc<CacheableRead>,
        stale: Option<&Arc<Entry>>,
        impatient: bool,
    ) -> ReadResult {
        let tags = match reading.tags() {
            Ok(tags) => tags,
            // Nothing is ever stored for it, so it is no miss.
            Err(why) => return self.pass(&reading.context, CacheStatus::bypass(why)).await,
        };
        let (mut asked_again, mut connected_again, mut moves) = (false, false, 0);
        loop {
            let now = self.clock.now();
            // The store is searched again here, under the lock of the fetches.
            let follower = match self.join(&reading, tags.as_deref(), Purpose::Show, now) {
                Join::Hit(entry, freshness) => {
                    let facts = reading.stored(entry, freshness, now);
                    return match plan(facts, false, || false) {
                        ReadPlan::Serve(stored) => {
                            Ok(self.serve_stored(Arc::unwrap_or_clone(reading), stored, now))
                        }
                        _ => self.alone(&reading, Miss::NotShared).await,
                    };
                }
                Join::Alone(why) => return self.alone(&reading, why).await,
                Join::Lead(leader) => return self.lead(&reading, leader, impatient).await,
                Join::Follow(follower) => follower,
            };
            match self.follow(&reading, follower, impatient).await? {
                FollowResult::Reply(reply) => return Ok(*reply),
                FollowResult::Alone(why) => return self.alone(&reading, why).await,
                FollowResult::NoConnection(error) => {
                    // No reader fetches alone here: in an outage all of them would.
                    let now = self.clock.now();
                    let has_stand_in = stale.is_some_and(|entry| {
                        self.may_stand_in(&reading, entry, Need::IfError, now)
                    });
                    if has_stand_in || std::mem::replace(&mut connected_again, true) {
                        return Err(error);
                    }
                }
                FollowResult::Again => {
                    // Meanwhile the cache may have learned from a `Vary` by which fields the
                    // responses differ. Then this variant has a key of its own.
                    let primary = reading.at.primary.clone();
                    let at = self.cache.locate(primary, &reading.context.headers);
                    let is_elsewhere = at.key() != reading.at.key() && moves < MOST_MOVES;
                    Arc::make_mut(&mut reading).at = at;
                    moves += 1;
                    // A second invalidation: writes come faster than fetches end. Alone, the
                    // reader gets its response whatever is written.
                    if !is_elsewhere && std::mem::replace(&mut asked_again, true) {
                        return self.alone(&reading, Miss::FencedTwice).await;
                    }
                }
            }
        }
    }

    /// Leads a fetch for this reader and its followers. The fetch goes on if this reader gives up.
    ///
    /// # Errors
    /// If the caller's quota is used up, the fetch fails, or the reader's patience ends first.
    async fn lead(
        self: &Arc<Self>,
        reading: &Arc<CacheableRead>,
        leader: Leader,
        impatient: bool,
    ) -> ReadResult {
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
            // The fetch itself has a deadline.
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
        let soon = self.clock.now() + SLOT_GRACE;
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
            // A fetch waits at most a usual settle time before it departs, so that its response can
            // be stored. A reader that may give up before that signals that it cannot wait.
            follower.hurry();
        }
        let outcome = loop {
            // Queued for the budget: the follower's own patience counts.
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
            // In flight: the response is awaited, as with a request of its own.
            match timeout_at(end.into(), follower.wait()).await {
                Ok(Some(outcome)) => break outcome,
                // After a 429 or a failed connection the fetch is queued again.
                Ok(None) => {}
                Err(_) => return Err(GatewayError::UpstreamTimeout),
            }
        };
        match outcome {
            // Judged again: a write may have settled since the reader joined.
            FetchOutcome::Shared(entry)
                if self
                    .cache
                    .accepts(&entry, follower.came(), &context.headers) =>
            {
                if reading.must_not_decode_entry(&entry) {
                    return Ok(FollowResult::Alone(Miss::NotShared));
                }
                let status = CacheStatus::joined(why, reading.key());
                Ok(FollowResult::Reply(Box::new(Reply::read(
                    show(&reading.recipient(), whole(&entry, entry.shared_headers())),
                    Outcome::Joined,
                    status,
                    Timing::default(),
                    None,
                ))))
            }
            FetchOutcome::Shared(_) | FetchOutcome::Lost => Ok(FollowResult::Again),
            // A response for the leader's reader alone, such as one that sets a cookie.
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
}
