//! Pure. The stages of a durable write, and how it ended.
//!
//! ```text
//! Accepting ──► Queued ◄──► Sent ──► Ended
//!                 │ ▲
//!                 ▼ │
//!              Cancelling ──► Ended (cancelled) or HandedOver (rebound)
//! ```
//!
//! - `Accepting` → `Queued` only after the journal has committed the write.
//! - `Sent` → `Queued` only while none of its attempts may have taken effect.
//! - `Cancelling` → `Queued` if the journal fails, or the write cannot be rebound after all.
//! - `Queued` → `Parked` when the gateway stops or the task fails. `Parked` leads to `Cancelling`
//!   only.
//! - `Queued` → `Ended` if the API rejects the credential for a day. `Accepting` → `Ended` after a
//!   restart, for a sent write that must not be retried.
//! - Any stage → `Released` if the write is not in the journal, or not any more.
//!
//! [`PendingWrite`](super::PendingWrite) makes these steps, one at a time.

use crate::error::GatewayError;
use crate::journal::State;
use crate::limit::budgets::BudgetStatus;
use crate::write::durable::record::KeptAnswer;
use std::sync::Arc;
use std::time::Duration;

/// The stage of a write in this process. The journal knows only the [`State`].
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// Not in the journal yet.
    Accepting,
    /// Waiting for its turn.
    Queued,
    /// Being cancelled, or given to another credential. The write is not sent meanwhile.
    Cancelling,
    /// An attempt is in flight, or a retry waits after one with an unknown outcome.
    Sent,
    /// Left to the next process.
    Parked,
    /// Moved to another credential, under which it goes on with the same id.
    HandedOver,
    /// Not accepted, for this reason, or because its key is known already.
    Released(Option<GatewayError>),
    /// Ended, as the journal knows by now.
    Ended(Arc<Completion>),
}

impl Stage {
    /// Returns whether an attempt may begin.
    pub(super) fn may_be_sent(&self) -> bool {
        matches!(self, Self::Queued | Self::Sent)
    }

    /// Returns whether nothing more happens to the write under this entry. Then it needs its place
    /// in the lanes no longer.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Ended(_) | Self::Released(_) | Self::HandedOver)
    }
}

/// Why a write cannot be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooLate {
    /// The write was sent, or is about to end.
    Sent,
    /// Another request cancels it at this moment.
    Cancelling,
}

/// How a write ended.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) state: State,
    /// The API's last answer, if there was one.
    pub(crate) answer: Option<KeptAnswer>,
    /// The time from acceptance to its last attempt.
    pub(crate) queued: Duration,
    /// The time that the last attempt took.
    pub(crate) upstream: Duration,
    /// The number of 429s that it waited out.
    pub(crate) throttled: u32,
    /// The number of writes in its batch; 0 without a batch.
    pub(crate) merged: usize,
    /// The status of the budget that its last attempt used.
    pub(crate) standing: Option<BudgetStatus>,
}
