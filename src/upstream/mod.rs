//! Bytes out: the one place that talks to the API.
//!
//! It promises three things. A request leaves at most once, because nothing below
//! [`Client::send`] sends anything again. What becomes of it is told without guessing: answered,
//! certainly not carried out, or unknown ([`Attempt`]). And everything is bounded: connecting, the
//! head, the silence within a body, the whole exchange, the size of a head, the age of a
//! connection.
//!
//! It does not decide when a request may leave, whether one is worth repeating, or which headers
//! pass; that is for those who call it.

mod base;
mod body;
mod classify;
mod client;
mod connect;
mod dial;
mod framing;
mod life;
mod outcome;
mod proxy;
mod start;
mod tls;

#[cfg(test)]
mod tests;

pub use base::{Base, BaseError};
pub use body::{AnswerBody, BodyError};
pub use client::{Attempt, Client, NewConnection, Spec};
pub use dial::MemoryConnector;
pub use outcome::{NotSent, UNREADABLE, Unknown};
pub use proxy::{ProxyRules, ProxyVariables};
pub use start::StartError;
pub use tls::check_ca_file;
