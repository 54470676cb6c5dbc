//! Loading a deferred write from the journal into the line of its budget.
//!
//! The request is read back only now: of a hundred thousand deferred writes, memory holds little
//! more than their ids.

use crate::credential::Credential;
use crate::error::GatewayError;
use crate::exchange::identity::{Identity, is_masked};
use crate::exchange::ids::Ids;
use crate::exchange::request::{Peer, RequestContext};
use crate::exchange::source::RequestSource;
use crate::limit::budgets::{Admission, BudgetRefusal, BudgetRequest, Readiness};
use crate::limit::ticket::Ticket;
use crate::write::Writes;
use crate::write::durable::pending::PendingWrite;
use crate::write::durable::record::KeptRequest;
use crate::write::durable::{NEVER, PAUSE};
use http::Request;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

impl Writes {
    /// Reads a deferred write back and joins the line of its budget. `None` if that cannot be done
    /// in this process.
    pub(super) async fn stand_in_line(
        &self,
        pending: &Arc<PendingWrite>,
        blocked: bool,
    ) -> Option<(RequestContext, Ticket)> {
        let context = self.read_back(pending).await?;
        let ticket = self.join(pending, &context, blocked).await?;
        Some((context, ticket))
    }

    /// Joins the line of its budget, whatever the bounds of that. `None` if the gateway stops.
    pub(crate) async fn join(
        &self,
        pending: &PendingWrite,
        context: &RequestContext,
        blocked: bool,
    ) -> Option<Ticket> {
        loop {
            let budget_request = BudgetRequest {
                urgency: pending.urgency,
                deadline: self.clock.now() + NEVER,
                answer_by: None,
                admission: Admission::Taken,
                readiness: if blocked {
                    Readiness::Blocked
                } else {
                    Readiness::Ready
                },
                ..self.attempts.budget_request(context)
            };
            match self.budgets.join(&budget_request) {
                Ok(ticket) => return Some(ticket),
                Err(BudgetRefusal::Draining) => return None,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn read_back(&self, pending: &PendingWrite) -> Option<RequestContext> {
        loop {
            match self.durable.journal().get(pending.id).await {
                Ok(Some(record)) => {
                    let kept = KeptRequest::decode(&record.request)?;
                    return self.ask_of(kept, pending.credential, pending.accepted).ok();
                }
                Ok(None) => return None,
                Err(error) => {
                    tracing::error!(
                        id = %pending.id,
                        request_id = pending.request_id(),
                        %error,
                        "cannot read a durable write from the journal"
                    );
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Interprets a kept request of this credential by the present routes.
    pub(super) fn ask_of(
        &self,
        kept: KeptRequest,
        credential: Credential,
        accepted: Instant,
    ) -> Result<RequestContext, GatewayError> {
        let mut request = Request::new(());
        *request.method_mut() = kept.method;
        *request.uri_mut() = kept.target.into();
        *request.headers_mut() = kept.headers;
        let identity = Identity {
            credential,
            is_held: kept.client.is_some() && is_masked(request.headers()),
            client: kept.client,
            key: None,
        };
        let ids = Ids::resumed(request.headers(), self.tracer.as_ref());
        let source = RequestSource {
            peer: Some(Peer(SocketAddr::new(kept.peer, 0))),
            ..RequestSource::within(&request, ids)
        };
        let (head, ()) = request.into_parts();
        let mut context = self.router.understand(head, &source, &identity, accepted)?;
        context.body = kept.body;
        Ok(context)
    }
}
