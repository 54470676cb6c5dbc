//! The audit record of a held write: exactly one, made when nobody can learn more about it.
//!
//! The engine and the attempts of a write share a [`WriteAudit`], note what they learn, and the
//! last of them to be dropped makes the record. So a caller that hangs up, an attempt that outlives
//! its caller, and a panic all end in one record, with what is known by then.
//!
//! A durable write is recorded when the journal has its end; see `durable/audited.rs`. Without an
//! audit log nothing here allocates.

use crate::audit::{Audit, AuditEvent, AuditedEnd, AuditedRequest};
use crate::exchange::request::RequestContext;
use crate::journal::{State, WriteId};
use crate::write::answer::Heard;
use crate::write::decision::{Decision, OutcomeClass, WriteFacts, decide, is_in_doubt};
use http::StatusCode;
use parking_lot::Mutex;
use std::sync::Arc;

/// One holder of the record of a held write. Dropping the last one makes the record. Empty if there
/// is no audit log, and for durable writes.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteAudit(Option<Arc<HeldRecord>>);

/// The record of a held write, which is made when this is dropped.
#[derive(Debug)]
struct HeldRecord {
    audit: Audit,
    request: AuditedRequest,
    known: Mutex<Known>,
}

/// What is known of a write.
#[derive(Clone, Debug, Default)]
struct Known {
    attempts: u32,
    /// The batch of the last attempt.
    batch: Option<WriteId>,
    /// Whether an attempt has begun and not reported.
    is_in_flight: bool,
    /// Whether an attempt may have taken effect.
    is_in_doubt: bool,
    /// Whether the API refused a batch in which it was sent, and did not say that no part of it
    /// took effect.
    is_divided: bool,
    /// The end, as far as attempt or engine know it by now.
    end: Option<KnownEnd>,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KnownEnd {
    /// `None` if it was not sent, or without effect.
    state: Option<State>,
    /// The status of the API's answer.
    status: Option<StatusCode>,
    /// The type of the gateway's own error.
    error: Option<&'static str>,
}

impl WriteAudit {
    /// Begins the record of a held write that has a place in its line.
    pub(super) fn new(audit: Audit, request: AuditedRequest) -> Self {
        Self(Some(Arc::new(HeldRecord {
            audit,
            request,
            known: Mutex::default(),
        })))
    }

    /// Returns who asks for what.
    pub(super) fn request(&self) -> Option<&AuditedRequest> {
        self.0.as_ref().map(|record| &record.request)
    }

    /// Notes that an attempt begins, alone or in this batch.
    pub(crate) fn sent(&self, batch: Option<WriteId>) {
        if let Some(record) = &self.0 {
            let mut known = record.known.lock();
            known.attempts = known.attempts.saturating_add(1);
            known.batch = batch;
            known.is_in_flight = true;
            known.end = None;
        }
    }

    /// Notes that the API refused the batch in which it was sent.
    pub(super) fn divided(&self) {
        if let Some(record) = &self.0 {
            record.known.lock().is_divided = true;
        }
    }

    /// Notes the outcome of an attempt, as it stands if no other one follows. Call it before the
    /// engine hears, which may know better.
    pub(crate) fn answered(&self, context: &RequestContext, class: OutcomeClass) {
        let Some(record) = &self.0 else { return };
        let mut known = record.known.lock();
        let facts = WriteFacts::last(context, known.is_in_doubt);
        known.end = match decide(class, &facts) {
            Decision::End(state) => Some(KnownEnd {
                state: Some(state),
                status: match class {
                    OutcomeClass::Status(status) => Some(status),
                    OutcomeClass::NoAnswer | OutcomeClass::NoEffect => None,
                },
                error: None,
            }),
            // It had no effect.
            Decision::Requeue | Decision::Retry | Decision::Pause => None,
        };
        known.is_in_flight = false;
        known.is_in_doubt |= is_in_doubt(class);
    }

    /// Notes how the engine leaves the write.
    pub(super) fn ended(&self, state: State, heard: &Heard) {
        let Some(record) = &self.0 else { return };
        record.known.lock().end = Some(match heard {
            Ok(answer) => KnownEnd {
                state: Some(state),
                status: Some(answer.status()),
                error: None,
            },
            // The state of an error is that of the journal. Whether it was sent says the error.
            Err(error) => KnownEnd {
                state: error.facts().sent.then_some(State::Unknown),
                status: None,
                error: Some(error.facts().kind),
            },
        });
    }
}

impl Known {
    /// Returns the end for the record.
    fn end(&self) -> AuditedEnd {
        let may_have_happened = self.is_in_flight || self.is_in_doubt || self.is_divided;
        let end = self.end.unwrap_or(KnownEnd {
            state: may_have_happened.then_some(State::Unknown),
            status: None,
            error: None,
        });
        AuditedEnd {
            outcome: end.state.map_or("not-sent", State::as_str),
            status: end.status.map(|status| status.as_u16()),
            error: end.error,
            attempts: self.attempts,
            batch: self.batch.map(|batch| batch.to_string()),
        }
    }
}

impl Drop for HeldRecord {
    fn drop(&mut self) {
        let request = std::mem::take(&mut self.request);
        let end = self.known.get_mut().end();
        self.audit.record(AuditEvent::Write(request, end));
    }
}
