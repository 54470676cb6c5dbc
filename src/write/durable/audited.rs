//! What the audit log says of a durable write: the same as of a held one, and the id of the write.
//!
//! The end is recorded once the journal has it, by the process that brought it there. So a write
//! that several processes carried has one record, with all its attempts. A crash between the two
//! leaves it without one; the journal then has its end.

use crate::audit::{AuditEvent, AuditedEnd, AuditedRequest};
use crate::exchange::request::{RequestContext, short};
use crate::write::Writes;
use crate::write::durable::pending::PendingWrite;
use crate::write::durable::stage::Completion;
use crate::write::intent::body_digest;

impl PendingWrite {
    /// Returns who asked for what, as memory has it: with a few short names of many long ones.
    pub(crate) fn audited(&self) -> AuditedRequest {
        let principal = &self.caller.principal;
        AuditedRequest {
            operation: self.operation.name.clone(),
            method: short(&self.summary.method).into(),
            path: self.summary.path.as_str().into(),
            subjects: self.summary.elements.clone(),
            client: principal.client().cloned(),
            caller: self.caller.name.clone(),
            peer: principal.peer(),
            credential: self.credential.to_string(),
            request_id: self.request_id().map(Into::into),
            write_id: Some(self.id.to_string()),
            body_sha256: self.body_digest.as_deref().copied(),
        }
    }
}

impl Writes {
    /// Returns the SHA-256 of the body of a write, if there is one and an audit log.
    pub(super) fn body_digest(&self, context: &RequestContext) -> Option<Box<[u8; 32]>> {
        let is_wanted = self.audit.is_enabled();
        let digest = is_wanted.then(|| body_digest(&context.body))?;
        digest.map(Box::new)
    }

    /// Records how a write ended.
    pub(super) fn record_end(&self, pending: &PendingWrite, completion: &Completion) {
        if !self.audit.is_enabled() {
            return;
        }
        let (tries, answer) = (pending.tries(), completion.answer.as_ref());
        let end = AuditedEnd {
            outcome: completion.state.as_str(),
            status: answer.map(|answer| answer.status.as_u16()),
            error: None,
            attempts: tries.attempts,
            batch: tries.batch.map(|batch| batch.to_string()),
        };
        self.audit.record(AuditEvent::Write(pending.audited(), end));
    }
}
