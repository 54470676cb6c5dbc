//! What the API is: its operations, and which of them a request means.

pub mod policy;
