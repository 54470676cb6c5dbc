//! The upstream's allowance.

pub mod learn;
pub mod turns;
pub mod window;
