//! Reads that are not cached: they wait for their budget and stream through.
//!
//! The same way of asking the API serves shared fetches, which run it in a task of their own.

use super::Gateway;
use super::attempt::{Answer, Came};
use super::body::Body;
use super::flow::{Ask, Reply, Timing};
use super::status::CacheStatus;
use super::write::refused;
use crate::error::GatewayError;
use crate::limit::ticket::Permit;
use crate::metrics::Outcome;
use crate::queue::lanes::Keys;
use bytes::Bytes;
use http::{Request, Response};
use std::time::Instant;
use tokio::sync::oneshot;

/// What asking the API came to.
#[derive(Debug)]
pub(super) enum Asked {
    /// A final answer.
    Answer(Answer),
    /// A 429 that could not be waited out within the deadline.
    Throttled(Response<Body>),
}

impl Gateway {
    /// Passes a read through. `cache` says why it is not a matter for the cache.
    pub(super) async fn pass(&self, ask: Ask, cache: CacheStatus) -> Result<Reply, GatewayError> {
        self.quotas.charge(&ask.caller)?;
        let request = self.forwarded(&ask);
        let mut timing = Timing::of(&ask);
        match self.ask_api(&ask, request, &mut timing, |_| ()).await? {
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
            Asked::Throttled(response) => Ok(Reply {
                cache: Some(cache),
                ..Reply::throttled(response, timing)
            }),
        }
    }

    /// Waits for the budget and asks; again after a 429 or a connection that could not be opened,
    /// within the deadline. `departs` is told before each attempt.
    pub(super) async fn ask_api(
        &self,
        ask: &Ask,
        request: Request<Bytes>,
        timing: &mut Timing,
        mut departs: impl FnMut(Instant),
    ) -> Result<Asked, GatewayError> {
        let wish = self.wish(ask);
        let ticket = match self.budgets.join(&wish) {
            Err(refusal) => self.look_closer(wish, &Keys::default(), refusal),
            joined => joined,
        };
        let mut ticket = ticket.map_err(refused)?;
        let mut connects = 0;
        loop {
            let permit = ticket
                .granted()
                .await
                .map_err(|why| self.not_permitted(why, ask, &ticket))?;
            departs(self.clock.now());
            self.leaves(ask, timing);
            match self.dispatch_read(ask, permit, request.clone()).await? {
                Came::Answer(answer) => return Ok(Asked::Answer(answer)),
                Came::Unknown(why) if why.is_timeout() => {
                    return Err(GatewayError::UpstreamTimeout);
                }
                Came::Unknown(_) => return Err(GatewayError::UpstreamBroken),
                Came::Throttled(response) => {
                    timing.throttled += 1;
                    if ticket.estimate_again() > ticket.deadline() {
                        return Ok(Asked::Throttled(response));
                    }
                }
                Came::NotSent(why) => {
                    connects += 1;
                    self.pause_or_fail(why, connects, ticket.deadline()).await?;
                }
            }
            ticket.again();
        }
    }

    async fn dispatch_read(
        &self,
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
                        .attempt(&operation, credential, permit, request)
                        .await,
                ),
            );
        });
        told.await.map_err(|_| GatewayError::Internal)
    }
}
