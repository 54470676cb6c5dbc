//! A caching, rate-budgeting gateway in front of the Segment Public API.

pub mod clock;
pub mod config;
pub mod credential;
pub mod limit;
pub mod queue;
pub mod route;
pub mod sandbox;
pub mod upstream;
