//! The target of log lines that are records: each says something that is said nowhere else.
//!
//! This is about the ordinary log, not about the audit log. A line under this target is written at
//! whatever level the log has, and none is left out when there are many. It is for what an operator
//! has done, and for what an operator has to look after for one write or one token. The level of
//! such a line is its own: an operator's deed is no error.

/// The target, for the macros of `tracing`.
pub const AUDIT: &str = "segment_gateway::audit";
