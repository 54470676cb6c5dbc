//! A caching, rate-budgeting gateway in front of the Segment Public API.

pub mod admin;
pub mod app;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credential;
pub mod error;
pub mod gateway;
pub mod limit;
pub mod metrics;
pub mod network;
pub mod queue;
pub mod route;
pub mod sandbox;
pub mod server;
pub mod state;
pub mod telemetry;
pub mod upstream;
