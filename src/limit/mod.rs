//! The rate limits of the API: no window of any budget is ever exceeded.
//!
//! A **budget** is the limit L per window W of one credential for one operation, or for several
//! that share it. It has L **slots**. A request joins the **line** of its budget, gets a slot when
//! it is its turn, and becomes an attempt:
//!
//! ```text
//! budgets   all budgets behind one lock: requests join, the driver serves, operators look
//! ticket    a position in a line; a permit for one attempt. Both are guards
//! account   one budget: its window, its line, its attempts in flight; estimates
//! turns     the line: principals take turns by their weights, and the callers of each within it
//! window    the slots, and the proof that they suffice; opening and closing after a 429
//! releases  when the occupied slots are returned
//! evidence  the limit and the window, learned from response headers
//! others    the slots that are left to other users of the token
//! learn     what a response says of its budget
//! ledger    what was sent, recorded for the next process
//! ```
//!
//! What depends on time alone is pure: time is an argument, so each rule is tested at any instant.
//! Only [`budgets`] and [`ticket`] take a lock or wait; only [`ledger`] does I/O. The order of
//! writes that act on the same thing is not decided here, but in `lanes`.

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
