//! The audit record of a request that was rejected because of who sent it.
//!
//! Only rejections of known clients are recorded, and of certificates that this gateway's authority
//! has signed. Anybody can send unknown keys, and must not fill a disk with them: the metrics count
//! those.

use crate::audit::AuditEvent;
use crate::error::{Denial, GatewayError};
use crate::exchange::request::short;
use crate::gateway::record::RequestRecord;
use http::Uri;

impl RequestRecord {
    /// Records the rejection of a request for `target`, if that is a matter of rights.
    pub(super) fn audit_rejection(&self, error: &GatewayError, target: Option<Uri>) {
        let (client, key, operation) = match error {
            GatewayError::KeyExpired(known) | GatewayError::KeyRevoked(known) => {
                (Some(&known.client), Some(&known.id), None)
            }
            GatewayError::Denied(Denial::Operation { client, operation }) => {
                (Some(client), None, Some(operation))
            }
            GatewayError::Denied(Denial::NoToken { client }) => (Some(client), None, None),
            GatewayError::Denied(Denial::Certificate) => (None, None, None),
            _ => return,
        };
        let Some(target) = target else { return };
        let source = self.source();
        self.audit().record(AuditEvent::Rejected {
            error: error.facts().kind,
            client: client.cloned(),
            key: key.cloned(),
            operation: operation.cloned(),
            method: short(&source.method).to_owned(),
            path: target.path().to_owned(),
            peer: source.peer.map(|peer| peer.0.ip().to_canonical()),
            request_id: source.ids.request().map(str::to_owned),
        });
    }
}
