//! What a request and an answer are: who asks, what the fields at the edge mean, bodies, and the
//! gateway's own errors as answers.
//!
//! Nothing here waits for a budget or decides what becomes of a request.

pub mod answer_memory;
pub mod body;
pub mod body_memory;
pub mod cache_status;
pub mod callers;
pub mod decoding;
pub mod edge;
pub mod error_response;
pub mod ids;
pub mod prefer;
pub mod priority;
pub mod request;
pub mod request_id;
pub mod response;
pub mod router;
pub mod settings;
pub mod timing;
