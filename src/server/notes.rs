//! The notes that a connection's service and the stream below it exchange.

use crate::metrics::Malformed;
use http::HeaderValue;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// The shared notes of one connection. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Whether some head had both a length and a transfer encoding.
    ambiguous: AtomicBool,
    /// The stage of the present request; see [`ConnectionStage`].
    stage: AtomicU8,
    /// The number of heads so far, of requests and of responses. Only the connection's own task
    /// counts.
    heads: AtomicU32,
    /// Whether the body of a request is still arriving.
    body: AtomicBool,
    /// Whether the body of the last request was not read to its end.
    unread: AtomicBool,
    /// The reason why the stream responded instead of the service, and the id of that response.
    refused: OnceLock<(Malformed, HeaderValue)>,
}

/// The stage of the request that a connection serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionStage {
    /// No request is served.
    None,
    /// The request waits for its response head, and its caller cannot be asked whether it is still
    /// there.
    WaitingSilently,
    /// The request waits for its response head.
    Waiting,
    /// The response head is there; the body may be incomplete.
    Answered,
}

const STAGES: [ConnectionStage; 4] = [
    ConnectionStage::None,
    ConnectionStage::WaitingSilently,
    ConnectionStage::Waiting,
    ConnectionStage::Answered,
];

/// Whether a caller understands interim responses. HTTP/1.0 has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interim {
    /// HTTP/1.1.
    Understood,
    /// HTTP/1.0.
    Unknown,
}

/// A guard that marks a request as served, up to the end of its response.
#[derive(Debug)]
pub struct Exchange(Notes);

impl Exchange {
    /// Notes that the response head is there.
    pub fn answered(&self) {
        self.0.head();
        self.0.enter(ConnectionStage::Answered);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.enter(ConnectionStage::None);
    }
}

/// A guard that marks the body of a request as arriving.
#[derive(Debug)]
pub struct BodyComing(Notes);

impl BodyComing {
    /// Notes that the body was read to its end.
    pub fn ended(self) {
        self.0.shared.unread.store(false, Ordering::Release);
    }
}

impl Drop for BodyComing {
    fn drop(&mut self) {
        self.0.shared.body.store(false, Ordering::Release);
    }
}

impl Notes {
    /// Returns whether some head had both a length and a transfer encoding.
    pub fn is_ambiguous(&self) -> bool {
        self.shared.ambiguous.load(Ordering::Acquire)
    }

    /// Notes the start of a request.
    pub fn taken_up(&self, interim: Interim) -> Exchange {
        self.head();
        self.enter(match interim {
            Interim::Understood => ConnectionStage::Waiting,
            Interim::Unknown => ConnectionStage::WaitingSilently,
        });
        Exchange(self.clone())
    }

    /// Notes that the body of the present request may still be arriving.
    pub fn body_coming(&self) -> BodyComing {
        self.shared.body.store(true, Ordering::Release);
        self.shared.unread.store(true, Ordering::Release);
        BodyComing(self.clone())
    }

    /// Returns whether the body of the last request was not read to its end, or not yet.
    pub fn is_body_unread(&self) -> bool {
        self.shared.unread.load(Ordering::Acquire)
    }

    /// Returns the reason why the stream responded instead of the service, and the id of that
    /// response.
    pub fn refused(&self) -> Option<&(Malformed, HeaderValue)> {
        self.shared.refused.get()
    }

    pub(super) fn note_ambiguous(&self) {
        self.shared.ambiguous.store(true, Ordering::Release);
    }

    pub(super) fn note_refused(&self, why: Malformed, id: HeaderValue) {
        let _ = self.shared.refused.set((why, id));
    }

    pub(super) fn stage(&self) -> ConnectionStage {
        let stage = usize::from(self.shared.stage.load(Ordering::Acquire));
        STAGES.get(stage).copied().unwrap_or(ConnectionStage::None)
    }

    pub(super) fn heads(&self) -> u32 {
        self.shared.heads.load(Ordering::Acquire)
    }

    /// Returns whether bytes read now belong to the head of a request.
    pub(super) fn is_head_next(&self) -> bool {
        self.stage() == ConnectionStage::None && !self.shared.body.load(Ordering::Acquire)
    }

    fn enter(&self, stage: ConnectionStage) {
        self.shared.stage.store(stage as u8, Ordering::Release);
    }

    fn head(&self) {
        let heads = self.heads().wrapping_add(1);
        self.shared.heads.store(heads, Ordering::Release);
    }
}
