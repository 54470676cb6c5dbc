//! One test binary, so that everything is linked once.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests read tokio's clock, which most of them pause"
)]
#![allow(
    clippy::too_many_lines,
    reason = "a table of cases is read row by row, however long it is"
)]

mod access;
mod accounting;
mod alerts;
mod answers;
mod arguments;
mod audit;
mod binary;
mod browser;
mod caching;
mod catalogue;
mod ci;
mod client_keys;
mod clients;
mod connections;
mod crash;
mod credential_names;
mod crowds;
mod dependencies;
mod deploy;
mod docs;
mod doctor;
mod durable;
mod fast_path;
mod finding_out;
mod full;
mod held_tokens;
mod http2;
mod import;
mod intercepted;
mod live;
mod memory;
mod merging;
mod migration;
mod openapi;
mod operations;
mod operators;
#[cfg(unix)]
mod preflight;
mod prometheus;
mod purging;
mod reads;
mod release;
mod reload;
mod restart;
mod rotation;
mod sdks;
mod seeing;
mod server;
mod shadow;
mod shares;
mod simulation;
mod spans;
mod spellings;
mod support;
mod tidy;
mod tls;
mod tokens;
mod trouble;
mod writes;
