//! A caching, rate-budgeting gateway in front of the Segment Public API.
//!
//! # The life of a request
//!
//! ```text
//! server    a connection's bytes become a request
//! gateway   connection: a plain read that is in the store is answered at once (fast_path), else
//!           stack: id, load shed, panic guard, sensitive headers, trace, deadlines
//!           flow:  edge -> route -> read | write | own resource -> respond
//! read      key -> store -> join or lead a fetch -> answer; what is not cacheable passes through
//! write     lanes -> budget -> one attempt -> settle -> answer
//! shadow    one attempt at once -> stream, and a report of what would have happened
//! attempt   one attempt with a permit of its own
//! upstream  a request becomes a connection's bytes, once
//! ```
//!
//! # Layers
//!
//! Imports go down only: `cli`, `app` → `config`, `state`, `telemetry` → `server`, `admin`,
//! `sandbox` → `gateway` → `shadow` → `read`, `write` (which do not know each other) → `attempt` →
//! `exchange` → `cache`, `journal`, `lanes`, `limit`, `merge` (which do not know each other),
//! `trace` → `upstream` → `clients` → `route` → `error` → `audit`, `metrics` → `buffer`, `caller`,
//! `clock`, `credential`, `network`, `private_file`, `swap`, `tasks`, `version`. The sandbox shares
//! nothing with the gateway but the clock and `tasks`: it is the second opinion.
//!
//! # Invariants
//!
//! - Files that begin `//! Pure.` read no clock, take no lock and await nothing: time is an
//!   argument, so every decision is tested at any instant.
//! - Only [`clock`] reads time, only `config/load.rs` the environment (the library of spans reads
//!   the variables that begin with `OTEL_`), only `error.rs` knows the status codes of the
//!   gateway's own errors, only [`metrics`] the names of metrics.
//! - Nothing but `attempt/send.rs` sends anything to the API, and each attempt has a permit of its
//!   own; but in shadow mode, in which what callers send has none, and in the command `doctor`. The
//!   command `import` sends to a gateway, over connections of the same kind.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "unit tests read tokio's paused clock and begin tasks as they like"
    )
)]

pub mod admin;
pub mod app;
pub mod attempt;
pub mod audit;
pub mod buffer;
pub mod cache;
pub mod caller;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod config;
pub mod credential;
pub mod error;
pub mod exchange;
pub mod gateway;
pub mod journal;
pub mod lanes;
pub mod limit;
pub mod merge;
pub mod metrics;
pub mod network;
pub mod private_file;
pub mod read;
pub mod route;
pub mod sandbox;
pub mod server;
pub mod shadow;
pub mod state;
pub mod swap;
pub mod tasks;
pub mod telemetry;
pub mod trace;
pub mod upstream;
pub mod version;
pub mod write;
