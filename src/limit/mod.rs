//! The upstream's allowance: no window of any budget is ever exceeded.
//!
//! What depends on time alone is pure ([`window`], [`releases`], [`evidence`], [`others`],
//! [`turns`], [`account`], [`learn`]); [`budgets`] puts one mutex around it and waits, [`ticket`]
//! is a place in a line and a permit; [`ledger`] remembers it across restarts.

pub mod account;
pub mod budgets;
pub mod evidence;
pub mod learn;
pub mod ledger;
pub mod others;
pub mod releases;
pub mod ticket;
pub mod turns;
pub mod window;
