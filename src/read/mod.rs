//! A read: planned, joined or fetched in a single flight, and served.

pub mod fetch;
pub mod pass;
pub mod refresh;
pub mod representation;
pub mod serve;
