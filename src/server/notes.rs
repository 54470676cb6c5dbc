//! What the service of a connection and the line below it tell each other.

use crate::metrics::Malformed;
use http::HeaderValue;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// What the service tells the line, and the line the service. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Some head had both a length and a transfer encoding.
    ambiguous: AtomicBool,
    /// How far the present request has come; see [`Stage`].
    stage: AtomicU8,
    /// Counts heads, of requests and of answers. Only the connection's own task counts.
    heads: AtomicU32,
    /// Whether a request's body has not ended yet.
    body: AtomicBool,
    /// Whether the body of the last request was not read to its end.
    unread: AtomicBool,
    /// Why the line has answered instead of the service, and under which id.
    refused: OnceLock<(Malformed, HeaderValue)>,
}

/// How far the request that a connection serves has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is none.
    None,
    /// It waits for the head of its answer, and its caller cannot be asked whether it is still
    /// there.
    WaitingSilently,
    /// It waits for the head of its answer.
    Waiting,
    /// The head of its answer is there, and perhaps not all of the body.
    Answered,
}

const STAGES: [Stage; 4] = [
    Stage::None,
    Stage::WaitingSilently,
    Stage::Waiting,
    Stage::Answered,
];

/// Whether a caller understands interim responses: those of HTTP/1.0 do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interim {
    /// HTTP/1.1.
    Understood,
    /// HTTP/1.0.
    Unknown,
}

/// Marks a request as being served for as long as it lives, which is to the end of its answer.
#[derive(Debug)]
pub struct Exchange(Notes);

impl Exchange {
    /// The head of the answer is there.
    pub fn answered(&self) {
        self.0.head();
        self.0.enter(Stage::Answered);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.enter(Stage::None);
    }
}

/// Marks the body of a request as coming for as long as it lives.
#[derive(Debug)]
pub struct BodyComing(Notes);

impl BodyComing {
    /// All of it has been read.
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
    /// Whether some head of the connection had both a length and a transfer encoding.
    pub fn is_ambiguous(&self) -> bool {
        self.shared.ambiguous.load(Ordering::Acquire)
    }

    /// A request has been taken up.
    pub fn taken_up(&self, interim: Interim) -> Exchange {
        self.head();
        self.enter(match interim {
            Interim::Understood => Stage::Waiting,
            Interim::Unknown => Stage::WaitingSilently,
        });
        Exchange(self.clone())
    }

    /// A request has been taken up whose body is still to come, for all that is known.
    pub fn body_coming(&self) -> BodyComing {
        self.shared.body.store(true, Ordering::Release);
        self.shared.unread.store(true, Ordering::Release);
        BodyComing(self.clone())
    }

    /// Whether the body of the last request was not read to its end, or not yet.
    pub fn is_body_unread(&self) -> bool {
        self.shared.unread.load(Ordering::Acquire)
    }

    /// Why the line has answered instead of the service, and under which id.
    pub fn refused(&self) -> Option<&(Malformed, HeaderValue)> {
        self.shared.refused.get()
    }

    pub(super) fn note_ambiguous(&self) {
        self.shared.ambiguous.store(true, Ordering::Release);
    }

    pub(super) fn note_refused(&self, why: Malformed, id: HeaderValue) {
        let _ = self.shared.refused.set((why, id));
    }

    pub(super) fn stage(&self) -> Stage {
        let stage = usize::from(self.shared.stage.load(Ordering::Acquire));
        STAGES.get(stage).copied().unwrap_or(Stage::None)
    }

    pub(super) fn heads(&self) -> u32 {
        self.shared.heads.load(Ordering::Acquire)
    }

    /// Whether what is read now is the head of a request, or nothing.
    pub(super) fn is_head_next(&self) -> bool {
        self.stage() == Stage::None && !self.shared.body.load(Ordering::Acquire)
    }

    fn enter(&self, stage: Stage) {
        self.shared.stage.store(stage as u8, Ordering::Release);
    }

    fn head(&self) {
        let heads = self.heads().wrapping_add(1);
        self.shared.heads.store(heads, Ordering::Release);
    }
}
