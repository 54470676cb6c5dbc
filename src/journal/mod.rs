//! Durable writes: those accepted to be sent later, and those with an `Idempotency-Key`, kept where
//! a crash does not lose them.
//!
//! Promises:
//! - *Durable.* When [`Journal::commit`] has returned `Ok`, its changes survive the process and the
//!   machine. When it has returned an error, none of them is kept. One case is open: after
//!   [`JournalError::Broken`] by a disk that failed during the commit, a crash may bring it back.
//!   A journal in memory keeps the same promises until its process ends.
//! - *Atomic.* All changes of one commit are kept, or none.
//! - *Ordered.* [`Journal::unfinished`] returns writes in the order in which they were accepted.
//! - *Secret.* At rest, the contents of requests and responses (path, header, body) are encrypted,
//!   and so is the summary of a write, which stays when its request is erased. Times, states,
//!   operations and credential hashes are not. No `Debug` here shows a secret.
//! - *Bounded by its callers.* Commits that wait for the disk are in memory. So the caller bounds
//!   how many it makes at once, and how much it accepts without forgetting.
//!
//! The journal does not decide what becomes of a write; it records what `write` has decided.
//!
//! `store.rs` is the interface, `writer.rs` commits, `rows.rs` and `query.rs` have every statement,
//! `open.rs` opens, checks and makes the file.

mod commit_count;
mod error;
mod lock;
mod open;
mod query;
mod record;
mod rows;
mod seal;
mod store;
#[cfg(test)]
mod tests;
mod write_id;
mod writer;

pub use error::{JournalError, OpenError};
pub use open::{exists, inspect, rekey};
pub use record::{
    Change, Filter, KeyHash, OwnerFilter, Record, Remembered, State, WorkspaceHash, WriteOwner,
};
pub use seal::{KeyError, SealingKey};
pub use store::Journal;
pub use write_id::{NotAWriteId, WriteId, WriteIds};
