//! The audit record of what an operator does: each request with access that is more than a look.

use super::AdminPeer;
use crate::audit::{Audit, AuditEvent};
use crate::exchange::request::short;
use http::{Method, Request, StatusCode};

/// An act of an operator. Dropping it records it, with the status of the response if there is one:
/// what an operator began who hung up may go on.
#[derive(Debug)]
pub(super) struct OperatorAct {
    audit: Audit,
    method: String,
    /// Path and query. Neither has a secret: the token of a rebinding is in a header.
    target: String,
    peer: AdminPeer,
    pub(super) status: Option<StatusCode>,
}

impl OperatorAct {
    /// Begins the record of a request. `None` if it only looks, or there is no audit log.
    pub(super) fn begin(audit: &Audit, request: &Request<()>, peer: AdminPeer) -> Option<Self> {
        let is_recorded = *request.method() != Method::GET && audit.is_enabled();
        is_recorded.then(|| Self {
            audit: audit.clone(),
            method: short(request.method()).to_owned(),
            target: request
                .uri()
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default(),
            peer,
            status: None,
        })
    }
}

impl Drop for OperatorAct {
    fn drop(&mut self) {
        self.audit.record(AuditEvent::Operator {
            method: std::mem::take(&mut self.method),
            target: std::mem::take(&mut self.target),
            status: self.status.map_or(0, |status| status.as_u16()),
            peer: match self.peer {
                AdminPeer::Address(address) => Some(address),
                AdminPeer::Socket => None,
            },
        });
    }
}
