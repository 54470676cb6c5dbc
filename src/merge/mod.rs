//! Batches: several queued writes in one request.
//!
//! A write of a list has the same effect as one write for each of its elements. Queued writes of
//! one operation and credential can therefore share a request whose list is the union of theirs, if
//! they are equal in everything else:
//!
//! - [`Parts`] are the elements of one request and the rest of it. A request that cannot be taken
//!   apart with certainty has none, and is sent alone, byte for byte.
//! - [`choose`] selects the queued writes that join the first: those that list other elements and
//!   wait in their lanes only for members of the batch.
//! - [`outcomes`] says what the response means for each member. If the API rejects the batch, it
//!   means nothing for any of them: each is retried, and [`Batching`] says with how many others.
//!
//! Nothing here does I/O, waits, or reads a clock.

mod batching;
mod json;
mod named;
mod outcome;
mod parts;
mod union;

pub use batching::{Batching, Debt};
pub use outcome::{MemberOutcome, is_refusal, outcomes};
pub use parts::Parts;
pub use union::{Bounds, choose, union};

#[cfg(test)]
mod tests;
