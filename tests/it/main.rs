//! One test binary, so that everything is linked once.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

mod binary;
mod deploy;
mod operations;
mod reads;
mod seeing;
mod server;
mod support;
mod tidy;
mod writes;
