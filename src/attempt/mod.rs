//! One attempt at the API and the line before it.
//!
//! [`send`] is the only sender. Whoever sends again takes a new permit.

pub mod breaker;
pub mod estimate;
pub mod estimate_budget;
pub mod retry_budget;
pub mod send;
