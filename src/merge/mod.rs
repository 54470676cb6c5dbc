//! Waiting writes that travel as one.
//!
//! A write of a list asks for nothing that its elements, one by one, would not ask for as well. So
//! writes of one operation and credential that wait at the same time can leave as one dispatch whose
//! list is the union of theirs, where everything else about them is equal:
//!
//! - [`Parts`] are the elements of one request and the rest of it. What cannot be taken apart with
//!   certainty has none, and travels alone, byte for byte.
//! - [`choose`] says which of the waiting may join the first: those that list other elements and
//!   wait in their lanes for nobody else.
//! - [`outcomes`] says what the answer means to each of them. Where the API refuses the batch, that
//!   is nothing: each is sent again, and [`Batching`] says with how many others.
//!
//! Nothing here does I/O, waits or reads a clock.

mod batching;
mod json;
mod named;
mod outcome;
mod parts;
mod union;

pub use batching::{Batching, Debt};
pub use outcome::{Outcome, is_refusal, outcomes};
pub use parts::Parts;
pub use union::{Bounds, choose, union};

#[cfg(test)]
mod tests;
