//! The upstream's allowance: no window of any budget is ever exceeded.
//!
//! What depends on time alone is pure ([`window`], [`turns`], [`account`], [`learn`]); [`budgets`]
//! puts one mutex around it and waits; [`ledger`] remembers it across restarts.

pub mod account;
pub mod budgets;
pub mod learn;
pub mod ledger;
pub mod turns;
pub mod window;
