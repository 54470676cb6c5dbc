//! The connections to the API. Only this module talks to it. The trace collector is reached by a
//! client of its own.
//!
//! Promises three things:
//!
//! - A request is sent at most once: nothing below [`Client::send`] retries.
//! - The outcome is reported without guessing: a response, certainly not carried out, or unknown
//!   ([`Attempt`]).
//! - Everything is bounded: connecting, the response head, silence within a body, the whole
//!   exchange, the size of a head, and the age of a connection.
//!
//! This module does not decide when to send a request, whether to retry it, or which headers to
//! forward. Its callers do.

mod attempt;
mod base;
mod body;
mod causes;
mod classify;
mod client;
mod connect;
mod dial;
mod failure;
mod framing;
mod hop;
mod life;
mod outcome;
mod pool;
mod proxy;
mod spec;
mod start;
mod tls;

#[cfg(test)]
mod tests;

pub use attempt::Attempt;
pub use base::{Base, BaseError};
pub use body::{AnswerBody, BodyError};
pub use client::{Client, NewConnection};
pub use dial::MemoryConnector;
pub use outcome::{NotSent, UNREADABLE, Unknown};
pub use proxy::{ProxyRules, ProxyVariables};
pub use spec::{ClientSpec, Destination};
pub use start::StartError;
pub use tls::{check_ca_file, client_tls};
