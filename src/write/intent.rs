//! What the audit log says of a write before it is sent: who asks for what.
//!
//! Promises that nothing is sent unless its intent is on the disk, if the log records writes before
//! they are sent. Without an audit log nothing is hashed.

use crate::audit::{AuditEvent, AuditedRequest};
use crate::exchange::request::{RequestContext, short};
use crate::journal::WriteId;
use crate::write::Writes;
use crate::write::accept::order_names;
use crate::write::audited::WriteAudit;
use crate::write::member::Member;
use bytes::Bytes;
use sha2::{Digest, Sha256};

impl Writes {
    /// Begins the record of a held write that has a place in its line.
    pub(crate) fn audit_of(&self, context: &RequestContext) -> WriteAudit {
        match self.audit.is_enabled() {
            true => WriteAudit::new(self.audit.clone(), audited(context)),
            false => WriteAudit::default(),
        }
    }

    /// Records that these members are about to be sent, if that is to be recorded before. Returns
    /// `false` if it could not be: then nothing may be sent.
    pub(super) async fn record_intents(&self, members: &[Member], batch: Option<WriteId>) -> bool {
        if !self.audit.is_before() {
            return true;
        }
        let intents = members.iter().map(|member| {
            let recipient = &member.recipient;
            let request = match (&member.entry, recipient.audit.request()) {
                (Some(entry), _) => entry.audited(),
                (None, Some(request)) => request.clone(),
                (None, None) => audited(&recipient.context),
            };
            AuditEvent::Intent(request, batch.map(|batch| batch.to_string()))
        });
        self.audit.record_synced(intents.collect()).await.is_ok()
    }
}

/// Returns who asks for what.
fn audited(context: &RequestContext) -> AuditedRequest {
    let (mut subjects, _) = order_names(context);
    subjects.sort_unstable();
    subjects.dedup();
    AuditedRequest {
        operation: context.operation.name.clone(),
        method: short(&context.method).into(),
        path: context.target.path().into(),
        subjects,
        client: context.caller.principal.client().cloned(),
        caller: context.caller.name.clone(),
        peer: Some(context.peer),
        credential: context.credential.to_string(),
        request_id: context.ids.request().map(Into::into),
        write_id: None,
        body_sha256: body_digest(&context.body),
    }
}

/// Returns the SHA-256 of a body; `None` without one.
pub(super) fn body_digest(body: &Bytes) -> Option<[u8; 32]> {
    (!body.is_empty()).then(|| Sha256::digest(body).into())
}
