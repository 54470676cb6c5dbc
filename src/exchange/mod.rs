//! Requests and responses: callers, headers at the edge, bodies, and the gateway's own errors as
//! responses.
//!
//! Nothing here waits for a budget or decides what happens to a request.

pub mod answer_memory;
pub mod body;
pub mod callers;
pub mod decoding;
pub mod edge;
pub mod error_response;
pub mod identity;
pub mod ids;
pub mod prefer;
pub mod priority;
pub(crate) mod progress;
pub mod request;
pub mod request_id;
pub mod response;
pub mod router;
pub mod settings;
pub mod share;
pub mod source;
pub mod timing;
