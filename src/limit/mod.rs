//! The upstream's allowance.

pub mod learn;
pub mod ledger;
pub mod turns;
pub mod window;
