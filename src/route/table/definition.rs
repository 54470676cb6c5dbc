//! Pure. The definitions of operations, as configured.

use crate::route::names;
use crate::route::policy::{BudgetSpec, CachePolicy, Elements, NameTemplate, Rate, Source};
use http::Method;
use std::sync::Arc;
use std::time::Duration;

/// The name of the operation for reads of paths that match no template.
pub const UNMATCHED_READ: &str = "unmatchedRead";
/// The name of the operation for writes to paths that match no template. It touches everything.
pub const UNMATCHED_WRITE: &str = "unmatchedWrite";

/// The rates of operations without a documented one, including the unmatched ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// The rate of each operation that reads.
    pub reads: Rate,
    /// The rate of each operation that writes.
    pub writes: Rate,
}

impl Default for Defaults {
    /// 200 reads and 60 writes per minute.
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            reads: Rate {
                limit: 200,
                window: minute,
            },
            writes: Rate {
                limit: 60,
                window: minute,
            },
        }
    }
}

/// The definition of one operation, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationDef {
    /// The API's name: a letter, then letters, digits or `_`.
    pub name: Arc<str>,
    /// The method. HEAD, OPTIONS, TRACE and CONNECT cannot be defined; they follow fixed rules.
    pub method: Method,
    /// The path template.
    pub path: Box<str>,
    /// The budget. `None` for one of its own at the default rate.
    pub budget: Option<BudgetSpec>,
    /// The time to live of responses. Zero disables caching, `None` leaves the time to the API.
    pub cache: Option<Duration>,
    /// Further caching settings. Time to live and tags come from `cache` and `reads`.
    pub caching: CachePolicy,
    /// The tags of responses.
    pub reads: Vec<NameTemplate>,
    /// The tags that a write touches. `None` for everything.
    pub writes: Option<Vec<NameTemplate>>,
    /// The templates of order keys.
    pub order: Vec<NameTemplate>,
    /// The classes of order keys against which a write is a barrier.
    pub barrier: Vec<Box<str>>,
    /// The query parameters that are lists.
    pub lists: Vec<Box<str>>,
    /// The batching of writes.
    pub merge: Option<MergeDef>,
}

impl OperationDef {
    /// A definition without optional parts.
    pub fn new(name: &str, method: Method, path: &str) -> Self {
        Self {
            name: name.into(),
            method,
            path: path.into(),
            budget: None,
            cache: None,
            caching: CachePolicy::default(),
            reads: Vec::new(),
            writes: None,
            order: Vec::new(),
            barrier: Vec::new(),
            lists: Vec::new(),
            merge: None,
        }
    }
}

/// The configured `merge` of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeDef {
    /// Whether batching is enabled.
    pub enabled: bool,
    /// The place of the elements, with the member that identifies them.
    pub elements: Source,
    /// The largest number of elements in a batch.
    pub most: usize,
    /// The list in the `data` of a response that repeats the elements.
    pub echoes: Option<Box<str>>,
}

impl MergeDef {
    /// The upper bound of `most`: a batch has no more elements than one write may have names.
    pub const MOST: usize = names::MAX_NAMES;

    /// Batching with the defaults: up to 50 elements.
    pub fn new(elements: Source) -> Self {
        Self {
            enabled: true,
            elements,
            most: 50,
            echoes: None,
        }
    }

    /// The place of the elements. `None` if it is invalid.
    pub(super) fn place(&self) -> Option<Elements> {
        match &self.elements {
            Source::Query(list) => Some(Elements::Query(list.clone())),
            Source::Body(members) => match members.as_slice() {
                [list] => Some((list, None)),
                [list, name] => Some((list, Some(name))),
                _ => None,
            }
            .map(|(list, name)| Elements::Body {
                list: list.clone(),
                name: name.cloned(),
            }),
            Source::Literal | Source::Path(_) => None,
        }
    }
}
