//! Pure. The route table: built once from definitions (`build`), then used to find the operation of
//! each request.
//!
//! A lookup walks a small tree of segments. From left to right, a literal segment takes precedence
//! over a parameter. If that branch has no operation for the method, the other branch is tried. Two
//! definitions therefore conflict only if their templates are equal except for parameter names, and
//! building the table rejects those. Every other request has an operation too: one of the two
//! unmatched ones, by the effect of its method (RFC 9110, section 9.2.1).
//!
//! A lenient server may read a path that matches no template as one that matches. Such a request
//! uses the budget and the lanes of the matching operation. In all other respects it is treated as
//! unknown.

use super::pattern::{self, PathParams, TemplateSegment};
use super::policy::{Effect, Operation, Touches};
use foldhash::fast::RandomState;
use http::Method;
use std::collections::HashMap;
use std::sync::Arc;

mod build;
mod definition;
mod merging;
mod verify;

pub use definition::{Defaults, MergeDef, OperationDef, UNMATCHED_READ, UNMATCHED_WRITE};
pub use verify::RouteProblem;

/// The operation of a request.
#[derive(Clone, Debug)]
pub struct Match {
    /// The operation. Its `method` is `None` if no template matched exactly.
    pub operation: Arc<Operation>,
    /// The decoded values of the path parameters.
    pub params: PathParams,
}

/// All operations, and the tree of their templates.
#[derive(Debug)]
pub struct Table {
    operations: Vec<Arc<Operation>>,
    /// The variant of each operation for other spellings of its path, by index.
    lenient: Vec<Arc<Operation>>,
    nodes: Vec<Node>,
    unmatched_read: Arc<Operation>,
    unmatched_write: Arc<Operation>,
}

/// A node of the tree: what may follow the segments that lead to it.
#[derive(Debug, Default)]
struct Node {
    /// The next node by literal segment.
    literals: HashMap<Box<str>, usize, RandomState>,
    /// The next node for any other segment.
    parameter: Option<usize>,
    /// The templates that end here, at most one for each method.
    ends: Vec<TemplateEnd>,
}

/// The end of a template, for one method.
#[derive(Debug)]
struct TemplateEnd {
    method: Method,
    template: Vec<TemplateSegment>,
    operation: Arc<Operation>,
}

impl Table {
    /// Finds the operation of a request. `path` is the raw path, without the query.
    ///
    /// HEAD uses the operation of GET. A path that a lenient server may read as a matching one uses
    /// the budget and lanes of that operation. All others are unmatched: a read for GET, HEAD,
    /// OPTIONS and TRACE, a write for every other method, known or not.
    pub fn find(&self, method: &Method, path: &str) -> Match {
        // The exact spelling first, then a lenient reading, then by method alone.
        let exact = self.find_exactly(method, path, Case::Sensitive);
        exact
            .or_else(|| self.find_leniently(method, path))
            .unwrap_or_else(|| {
                let operation = match Effect::of(method) {
                    Effect::Read => &self.unmatched_read,
                    Effect::Write => &self.unmatched_write,
                };
                Match {
                    operation: operation.clone(),
                    params: PathParams::default(),
                }
            })
    }

    /// Matches the path as spelled. HEAD falls back to GET.
    fn find_exactly(&self, method: &Method, path: &str, case: Case) -> Option<Match> {
        let split = pattern::split(path)?;
        let segments = split.segments().iter().copied();
        let end = self
            .descend(method, 0, segments.clone(), case)
            .or_else(|| {
                (*method == Method::HEAD)
                    .then(|| self.descend(&Method::GET, 0, segments, case))
                    .flatten()
            })?;
        let params = PathParams::capture(&end.template, split.segments())?;
        Some(Match {
            operation: end.operation.clone(),
            params,
        })
    }

    /// Matches the path as a lenient server may read it, without regard to case.
    fn find_leniently(&self, method: &Method, path: &str) -> Option<Match> {
        let path = pattern::lenient(path)?;
        let matched = self.find_exactly(method, &path, Case::Insensitive)?;
        Some(Match {
            operation: self.lenient.get(matched.operation.index)?.clone(),
            params: matched.params,
        })
    }

    /// Finds the operation of a request quickly, without capturing parameters. `None` if no
    /// template matches, or if the path has an encoded character, a segment that begins with a dot,
    /// or anything else that no template may match.
    pub fn find_plain(&self, method: &Method, path: &str) -> Option<&Operation> {
        let rest = path.strip_prefix('/')?;
        // `before` is the byte before the present one, as if the path had begun behind a slash.
        let mut before = b'/';
        for byte in rest.bytes() {
            // Stricter than `pattern::split`, but a single pass over the bytes: every hit runs it.
            let odd_begin = before == b'/' && matches!(byte, b'/' | b'.');
            if odd_begin || matches!(byte, b'%' | b'\\' | b';') {
                return None;
            }
            before = byte;
        }
        if before == b'/' {
            return None;
        }
        let end = self.descend(method, 0, PlainSegments(Some(rest)), Case::Sensitive)?;
        Some(&end.operation)
    }

    /// The operation for writes to paths that match no template.
    pub fn unmatched_write(&self) -> Arc<Operation> {
        self.unmatched_write.clone()
    }

    /// Every operation in the order of definition, then the two unmatched ones. The position of
    /// each is its `index`.
    pub fn operations(&self) -> &[Arc<Operation>] {
        &self.operations
    }

    /// The configured tags that some write touches but no read has, each with the name of the
    /// writing operation. Most likely a misspelling, which would leave stale responses in the
    /// cache.
    pub fn unread_tags(&self) -> Vec<(Arc<str>, String)> {
        let caches = self
            .operations
            .iter()
            .filter_map(|operation| operation.cache.as_ref());
        let read: Vec<&str> = caches
            .flat_map(|cache| &cache.tags)
            .map(|tag| &*tag.prefix)
            .collect();
        let mut unread = Vec::new();
        for operation in &self.operations {
            let Touches::Tags(tags) = &operation.touches else {
                continue;
            };
            let missing = tags.iter().filter(|tag| !read.contains(&&*tag.prefix));
            unread.extend(missing.map(|tag| (operation.name.clone(), tag.to_string())));
        }
        unread
    }

    /// Visits each node at most once per path, so the tree bounds the work.
    fn descend<'p>(
        &self,
        method: &Method,
        node: usize,
        mut path: impl Iterator<Item = &'p str> + Clone,
        case: Case,
    ) -> Option<&TemplateEnd> {
        let node = self.nodes.get(node)?;
        let Some(first) = path.next() else {
            return node.ends.iter().find(|end| end.method == *method);
        };
        // A literal wins over a parameter, but only if it leads to an operation of the method.
        let literal = match case {
            Case::Sensitive => node.literals.get(first),
            Case::Insensitive => {
                let mut literals = node.literals.iter();
                let found = literals.find(|(literal, _)| literal.eq_ignore_ascii_case(first));
                found.map(|(_, next)| next)
            }
        };
        let literal = literal.and_then(|next| self.descend(method, *next, path.clone(), case));
        literal.or_else(|| self.descend(method, node.parameter?, path, case))
    }
}

/// The comparison of literals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Sensitive,
    Insensitive,
}

/// The segments of a path without its first slash. Paths are short, so a plain loop over the bytes
/// is faster than a search with a setup cost.
#[derive(Clone)]
struct PlainSegments<'p>(Option<&'p str>);

impl<'p> Iterator for PlainSegments<'p> {
    type Item = &'p str;

    fn next(&mut self) -> Option<&'p str> {
        let path = self.0?;
        let slash = path.bytes().position(|byte| byte == b'/');
        let (segment, rest) = match slash {
            Some(at) => (path.get(..at), path.get(at + 1..)),
            None => (Some(path), None),
        };
        self.0 = rest;
        segment
    }
}

#[cfg(test)]
mod tests;
