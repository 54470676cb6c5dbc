//! The API's operations, and the operation that a request means.
//!
//! A [`Table`] is total: every method and path has an operation, if only one of the two unmatched
//! ones. It is unambiguous: building it fails if two operations could match the same request. It is
//! immutable. [`query`] gives the canonical form of a query string, [`names`] the tags and order
//! keys of a request. Nothing here does I/O, waits, or reads a clock.

pub mod names;
mod page;
pub mod pattern;
pub mod policy;
pub mod query;
pub mod table;
pub mod template;

pub use names::{JsonBody, Unreadable, expand};
pub use pattern::PathParams;
pub use policy::{
    BudgetSpec, CachePolicy, Directives, Effect, Elements, MergePolicy, NameTemplate, Operation,
    Rate, Source, Touches,
};
pub use table::{Defaults, Match, MergeDef, OperationDef, RouteProblem, Table};
