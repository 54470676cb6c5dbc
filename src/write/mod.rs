//! A write: accepted, queued in its lanes and its budget, sent, settled.

pub mod batch;
pub mod decision;
pub mod durable;
pub mod held;
pub mod held_limit;
pub mod idempotency;
pub mod late_arrivals;
pub mod locations;
pub mod retry;
pub mod settlement;
