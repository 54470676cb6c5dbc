//! The program: builds every part from the configuration, wires the parts, and starts and stops
//! them in order.
//!
//! `serve.rs` is the life of the process, in order: listeners, state, gateway, admin listener,
//! callers, then the drain. `start.rs` opens what the last process left and builds the gateway,
//! `assembly.rs` turns configuration values into each part's own terms, `drain.rs` ends. Nothing
//! here handles a request.

mod assembly;
mod audit_log;
mod certificates;
mod diagnosis;
mod doctor;
mod drain;
mod held_tokens;
mod keeping;
mod listen;
mod operators;
mod preflight;
mod reload;
mod sandbox;
mod serve;
mod start;
mod start_error;

pub use assembly::{
    Assembly, client, collector, scale_times, server_bounds, stack_bounds, upstream_spec,
};
pub use audit_log::{audit_key, unusable_audit_log};
pub use certificates::unusable_certificates;
pub use diagnosis::{Blame, CheckResult, Diagnosis};
pub use doctor::examine;
pub use keeping::{Keeping, rekey};
pub use operators::admin_token;
pub use preflight::{machine_notes, open_secrets, preflight};
pub use reload::{ConfigSource, Reloads};
pub use sandbox::{Inside, sandbox};
pub use serve::serve;
pub use start_error::{AppError, causes};
