//! Reads that are not cached: they wait for their budget and stream through.
//!
//! The same way of asking the API serves shared fetches, which run it in a task of their own.

use crate::attempt::send::{Answer, Came};
use crate::attempt::wait::refused;
use crate::cache::conditional::{has_condition, without_own};
use crate::cache::flight::Hurry;
use crate::error::GatewayError;
use crate::exchange::body::Body;
use crate::exchange::cache_status::CacheStatus;
use crate::exchange::request::Ask;
use crate::exchange::response::Reply;
use crate::exchange::timing::Timing;
use crate::limit::budgets::{Readiness, Wish};
use crate::limit::ticket::{Permit, Ticket};
use crate::metrics::Outcome;
use crate::queue::lanes::Keys;
use crate::read::Reads;
use crate::read::pace::{Facts, leaves_at};
use crate::upstream::{NewConnection, UNREADABLE, Unknown};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout_at};

/// What asking the API came to.
#[derive(Debug)]
pub(crate) enum Asked {
    /// A final answer.
    Answer(Answer),
    /// A 429 that could not be waited out within the deadline.
    Throttled(Response<Bytes>),
    /// A kept connection that was lost, where no time was left to repeat the request.
    Lost,
}

/// What those who wait for an attempt of another are told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Move {
    /// It is about to leave.
    Departs(Instant),
    /// It came to nothing, and another one waits for the budget.
    TurnsBack,
}

/// What is known of a read before it is asked for, as far as it is fetched for others too.
#[derive(Debug, Default)]
pub(crate) struct Outlook {
    /// No connection is waited for longer than this after the first one that failed.
    pub(crate) connect_for: Option<Duration>,
    /// When its answer can be stored, and whether somebody cannot wait for that.
    pub(crate) settling: Option<(Instant, Hurry)>,
}

/// What the caller of a read hears that was not answered.
pub(crate) fn unanswered(why: Unknown) -> GatewayError {
    match why {
        Unknown::HeadTimeout | Unknown::TotalTimeout => GatewayError::UpstreamTimeout,
        Unknown::Broken | Unknown::StaleConnection => GatewayError::UpstreamBroken,
        Unknown::Malformed => GatewayError::UpstreamUnreadable(UNREADABLE),
    }
}

impl Reads {
    /// Passes a read through. `cache` says why it is not a matter for the cache.
    pub(crate) async fn pass(
        self: &Arc<Self>,
        ask: Ask,
        cache: CacheStatus,
    ) -> Result<Reply, GatewayError> {
        self.quotas.charge(&ask.caller)?;
        let mut request = ask.forwarded();
        without_own(request.headers_mut());
        let has_condition = has_condition(request.headers());
        let mut timing = Timing::of(&ask);
        let mut under_way = false;
        let asked = self.ask_api(&ask, request, &mut timing, Outlook::default(), |to| {
            under_way = matches!(to, Move::Departs(_));
            Ok(())
        });
        let asked = match self.attempts.given_up_at(&ask) {
            None => Ok(asked.await),
            Some(gone) => timeout_at(gone.into(), asked).await,
        };
        // Whoever has given up by then no longer waits for it.
        let asked = asked.unwrap_or_else(|_| {
            Err(if under_way {
                GatewayError::UpstreamTimeout
            } else {
                self.attempts.expired(&ask)
            })
        });
        match asked? {
            Asked::Answer(answer)
                if answer.response.status() == StatusCode::NOT_MODIFIED && !has_condition =>
            {
                // Whoever has nothing can do nothing with it.
                tracing::warn!(
                    request_id = ask.ids.request(),
                    trace_id = ask.ids.trace(),
                    "the API answered 304 to a request without a condition"
                );
                Err(GatewayError::UpstreamBroken)
            }
            Asked::Answer(answer) => {
                timing.upstream = answer.took;
                let standing = answer.standing;
                let response = answer.response.map(|body| Body::Streamed(Box::new(body)));
                Ok(Reply::read(
                    response,
                    Outcome::Passed,
                    cache,
                    timing,
                    standing,
                ))
            }
            Asked::Lost => Err(GatewayError::UpstreamBroken),
            Asked::Throttled(response) => Ok(Reply {
                cache: Some(cache),
                ..Reply::throttled(response, timing)
            }),
        }
    }

    /// Waits for the budget and asks; again after a 429 or a connection that could not be opened,
    /// within the deadline, and once, on a new connection, after a kept one that was lost.
    /// `moves` is told before each attempt, and when it came to nothing; its error ends the asking.
    pub(crate) async fn ask_api(
        self: &Arc<Self>,
        ask: &Ask,
        mut request: Request<Bytes>,
        timing: &mut Timing,
        outlook: Outlook,
        mut moves: impl FnMut(Move) -> Result<(), GatewayError>,
    ) -> Result<Asked, GatewayError> {
        let mut ticket = self.take_place(ask, outlook.settling).await?;
        // A read has no lane: nothing but its budget keeps it.
        ask.progress.ready(Some(self.clock.now()));
        let mut connects = 0;
        let mut connect_by = None;
        let mut is_repeated = false;
        loop {
            let permit = match ticket.granted().await {
                Ok(permit) => permit,
                // Something was sent.
                Err(_) if is_repeated => return Ok(Asked::Lost),
                Err(why) => return Err(self.attempts.not_permitted(why, ask, &ticket)),
            };
            moves(Move::Departs(self.clock.now()))?;
            self.attempts.leaves(ask, timing);
            match self.dispatch_read(ask, permit, request.clone()).await? {
                Came::Answer(answer) => return Ok(Asked::Answer(answer)),
                Came::Unknown(Unknown::StaleConnection) if !is_repeated => {
                    if ticket.estimate_again() > ticket.deadline() {
                        return Ok(Asked::Lost);
                    }
                    moves(Move::TurnsBack)?;
                    is_repeated = true;
                    request.extensions_mut().insert(NewConnection);
                }
                Came::Unknown(why) => return Err(unanswered(why)),
                Came::Throttled(response) => {
                    timing.throttled += 1;
                    if ticket.estimate_again() > ticket.deadline() {
                        return Ok(Asked::Throttled(response));
                    }
                    moves(Move::TurnsBack)?;
                }
                Came::NotSent(why) => {
                    moves(Move::TurnsBack)?;
                    connects += 1;
                    let by = *connect_by.get_or_insert_with(|| {
                        let long = outlook.connect_for;
                        long.map_or(ticket.deadline(), |long| self.clock.now() + long)
                    });
                    self.attempts
                        .pause_or_fail(why, connects, ticket.place(), by)
                        .await?;
                }
            }
            ticket.again();
        }
    }

    /// Takes a place in the budget's line, and waits there for the end of the settling if the read is
    /// to leave no sooner.
    async fn take_place(
        &self,
        ask: &Ask,
        settling: Option<(Instant, Hurry)>,
    ) -> Result<Ticket, GatewayError> {
        let mut wish = self.attempts.wish(ask);
        let wait = settling.and_then(|(settled, hurry)| {
            let leaves = self.leaves_settled(&wish, settled)?;
            Some((leaves, hurry))
        });
        if let Some((leaves, _)) = &wait {
            wish.not_before = Some(*leaves);
            wish.readiness = Readiness::Blocked;
        }
        let ticket = match self.budgets.join(&wish) {
            Err(refusal) => self.attempts.look_closer(wish, &Keys::default(), refusal),
            joined => joined,
        };
        let mut ticket = ticket.map_err(refused)?;
        if let Some((leaves, hurry)) = wait {
            let refused = tokio::select! {
                biased;
                () = sleep_until(leaves.into()) => None,
                () = hurry.is_wanted() => None,
                // Nobody is let go who is not ready: the gateway stops.
                granted = ticket.granted() => Some(granted.err()),
            };
            if let Some(why) = refused {
                let why = why.map(|why| self.attempts.not_permitted(why, ask, &ticket));
                return Err(why.unwrap_or(GatewayError::Internal));
            }
            ticket.ready();
        }
        Ok(ticket)
    }

    /// When a read leaves whose answer can be stored from `settled` on, if it waits for that.
    fn leaves_settled(&self, wish: &Wish<'_>, settled: Instant) -> Option<Instant> {
        let now = self.clock.now();
        if settled <= now {
            return None;
        }
        let (free, limit) = self.budgets.unclaimed(wish.credential, wish.budget);
        let keys = Keys::default();
        leaves_at(&Facts {
            free,
            limit,
            settled,
            longest: self.settings.get().settling,
            now,
            leave_by: now + self.attempts.newcomer(wish, &keys).patience,
        })
    }

    async fn dispatch_read(
        self: &Arc<Self>,
        ask: &Ask,
        permit: Permit,
        request: Request<Bytes>,
    ) -> Result<Came, GatewayError> {
        let (tell, told) = oneshot::channel();
        let (gateway, operation) = (self.clone(), ask.operation.clone());
        let credential = ask.credential;
        self.tasks.spawn("read", async move {
            drop(
                tell.send(
                    gateway
                        .attempts
                        .attempt(&operation, credential, permit, request)
                        .await,
                ),
            );
        });
        told.await.map_err(|_| GatewayError::Internal)
    }
}
