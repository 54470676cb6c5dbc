//! Reads that are not cached: they wait for their budget and are streamed.
//!
//! Shared fetches ask the API in the same way, with `Reads::ask_api`, in a task of their own.

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

/// The outcome of asking the API.
#[derive(Debug)]
pub(crate) enum Asked {
    /// A final response.
    Answer(Answer),
    /// A 429 that could not be waited out before the deadline.
    Throttled(Response<Bytes>),
    /// A lost kept connection, with no time left to retry.
    Lost,
}

/// A step of the asking, for those who wait for it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Move {
    /// An attempt is about to be sent.
    Departs(Instant),
    /// An attempt failed, and another one is queued for the budget.
    TurnsBack,
}

/// The limits of the asking for a shared fetch.
#[derive(Debug, Default)]
pub(crate) struct Outlook {
    /// The longest time for new connections after the first one failed.
    pub(crate) connect_for: Option<Duration>,
    /// The instant from which the response can be stored, and whether a reader cannot wait for it.
    pub(crate) settling: Option<(Instant, Hurry)>,
}

/// Returns the error for a read that was sent without a response.
pub(crate) fn unanswered(why: Unknown) -> GatewayError {
    match why {
        Unknown::HeadTimeout | Unknown::TotalTimeout => GatewayError::UpstreamTimeout,
        Unknown::Broken | Unknown::StaleConnection => GatewayError::UpstreamBroken,
        Unknown::Malformed => GatewayError::UpstreamUnreadable(UNREADABLE),
    }
}

impl Reads {
    /// Sends a read that bypasses the cache and streams the response. `cache` says why.
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
        // A caller that gave up by then no longer waits for the response.
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
                // A caller without a stored response cannot use a 304.
                tracing::warn!(
                    request_id = ask.ids.request(),
                    trace_id = ask.ids.trace(),
                    "unexpected 304: the request had no condition"
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

    /// Waits for the budget and asks the API.
    ///
    /// Retries, within the deadline, after a 429 or a connection that could not be opened. A kept
    /// connection that was lost is retried once, on a new connection. `moves` is called before each
    /// attempt and after each failed one; its error ends the asking.
    ///
    /// # Errors
    /// If the request is rejected or expires in the queue, cannot be sent, or gets no response.
    pub(crate) async fn ask_api(
        self: &Arc<Self>,
        ask: &Ask,
        mut request: Request<Bytes>,
        timing: &mut Timing,
        outlook: Outlook,
        mut moves: impl FnMut(Move) -> Result<(), GatewayError>,
    ) -> Result<Asked, GatewayError> {
        let mut ticket = self.take_place(ask, outlook.settling).await?;
        // A read has no lanes: only its budget keeps it waiting.
        ask.progress.ready(Some(self.clock.now()));
        let mut connects = 0;
        let mut connect_by = None;
        let mut is_repeated = false;
        loop {
            let permit = match ticket.granted().await {
                Ok(permit) => permit,
                // An earlier attempt was sent, so the request did not expire unsent.
                Err(_) if is_repeated => return Ok(Asked::Lost),
                Err(why) => return Err(self.attempts.not_permitted(why, ask, &ticket)),
            };
            // The order matters: followers learn of the departure before the request can leave. A
            // reader that arrives later must not join it during a settle time.
            moves(Move::Departs(self.clock.now()))?;
            self.attempts.leaves(ask, timing);
            match self.dispatch_read(ask, permit, request.clone()).await? {
                Came::Answer(answer) => return Ok(Asked::Answer(answer)),
                Came::Unknown(Unknown::StaleConnection) if !is_repeated => {
                    // Without a slot before the deadline the retry would only expire in the queue.
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
                    // The time for connections begins at the first failure, not at the request.
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

    /// Takes a place in the budget's line. If the read is to wait for the end of the settle time,
    /// it waits there.
    ///
    /// # Errors
    /// If the line rejects the read, or the gateway stops meanwhile.
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
            // The place is taken now and becomes ready later, so that waiting costs no turn.
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
                // A ticket that is not ready is granted nothing, so the gateway is stopping.
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

    /// Returns when a read departs whose response can be stored from `settled` on, if it waits for
    /// that.
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
        // A task of its own: a caller that hangs up must not cut off the request, which costs a
        // slot.
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
