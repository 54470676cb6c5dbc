//! From the journal into a budget's line.

use crate::error::GatewayError;
use crate::exchange::ids::Ids;
use crate::exchange::request::{Ask, Peer};
use crate::limit::budgets::{Admission, Readiness, Refusal, Wish};
use crate::limit::ticket::Ticket;
use crate::write::Writes;
use crate::write::durable::pending::Live;
use crate::write::durable::record::KeptRequest;
use crate::write::durable::run::{NEVER, PAUSE};
use http::Request;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

impl Writes {
    /// Reads what a deferred write asks for and joins its budget's line; `None` if that cannot be
    /// done in this process.
    pub(super) async fn stand_in_line(
        &self,
        live: &Arc<Live>,
        blocked: bool,
    ) -> Option<(Ask, Ticket)> {
        let ask = self.read_back(live).await?;
        let ticket = self.join(live, &ask, blocked).await?;
        Some((ask, ticket))
    }

    /// A place in the line of its budget, whatever the bounds of that; `None` if the gateway stops.
    pub(super) async fn join(&self, live: &Live, ask: &Ask, blocked: bool) -> Option<Ticket> {
        loop {
            let wish = Wish {
                urgency: live.urgency,
                deadline: self.clock.now() + NEVER,
                answer_by: None,
                admission: Admission::Taken,
                readiness: if blocked {
                    Readiness::Blocked
                } else {
                    Readiness::Ready
                },
                ..self.attempts.wish(ask)
            };
            match self.budgets.join(&wish) {
                Ok(ticket) => return Some(ticket),
                Err(Refusal::Draining) => return None,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn read_back(&self, live: &Live) -> Option<Ask> {
        loop {
            match self.durable.journal().get(live.id).await {
                Ok(Some(record)) => {
                    let kept = KeptRequest::decode(&record.request)?;
                    return self.ask_of(kept, live.accepted).ok();
                }
                Ok(None) => return None,
                Err(error) => {
                    tracing::error!(
                        id = %live.id,
                        request_id = live.request_id(),
                        %error,
                        "cannot read a durable write from the journal"
                    );
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// What a kept request asks for, by the routes of today.
    pub(super) fn ask_of(&self, kept: KeptRequest, accepted: Instant) -> Result<Ask, GatewayError> {
        let mut request = Request::new(());
        *request.method_mut() = kept.method;
        *request.uri_mut() = kept.target.into();
        *request.headers_mut() = kept.headers;
        request
            .extensions_mut()
            .insert(Peer(SocketAddr::new(kept.peer, 0)));
        let ids = Ids::resumed(request.headers(), self.tracer.as_ref());
        let mut ask = self.router.understand(request.into_parts().0, accepted)?;
        ask.ids = ids;
        ask.body = kept.body;
        Ok(ask)
    }
}
