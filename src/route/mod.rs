//! What the API is: its operations, and which of them a request means.
//!
//! A [`Table`] is total (every method and path has an operation, if only one of the two unmatched
//! ones), unambiguous (building it fails where two operations could be meant) and immutable. The
//! rest reads requests for it: [`query`] gives the canonical form of a query string, [`names`] the
//! tags and order keys. Nothing here does I/O, waits or reads a clock.

pub mod names;
pub mod pattern;
pub mod policy;
pub mod query;
pub mod table;

pub use names::{Body, Unreadable, expand};
pub use pattern::Params;
pub use policy::{
    BudgetSpec, CachePolicy, Directives, Effect, Elements, MergePolicy, NameTemplate, Operation,
    Rate, Source, Touches,
};
pub use table::{Defaults, Match, MergeDef, OperationDef, Problem, Table};
