//! Pure. The route table: built once from definitions, then used to find the operation of each
//! request.
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

use super::pattern::{self, Params, Segment};
use super::policy::{BudgetSpec, CachePolicy, Effect, NameTemplate, Operation, Rate, Touches};
use foldhash::fast::RandomState;
use http::Method;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

mod merging;
mod verify;

pub use merging::MergeDef;
pub use verify::Problem;
use verify::Problems;

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

/// The operation of a request.
#[derive(Clone, Debug)]
pub struct Match {
    /// The operation. Its `method` is `None` if no template matched exactly.
    pub operation: Arc<Operation>,
    /// The decoded values of the path parameters.
    pub params: Params,
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

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, usize, RandomState>,
    parameter: Option<usize>,
    ends: Vec<End>,
}

/// The end of a template, for one method.
#[derive(Debug)]
struct End {
    method: Method,
    template: Vec<Segment>,
    operation: Arc<Operation>,
}

impl Table {
    /// Builds the table. Every window is divided by `time_scale` (0 counts as 1), for simulations
    /// that run faster than real time.
    ///
    /// # Errors
    /// All problems of the definitions at once.
    pub fn build(
        defs: Vec<OperationDef>,
        defaults: Defaults,
        time_scale: u32,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let mut tree = Tree {
            nodes: vec![Node::default()],
        };
        let mut operations = Vec::with_capacity(defs.len() + 2);
        // Everything is checked before the table is rejected, so that all problems are reported.
        problems.names(&defs);
        problems.budgets(&defs);
        problems.merges(&defs);
        for (index, def) in defs.into_iter().enumerate() {
            let template = problems.definition(index, &def);
            let path = def.path.clone();
            let merge = merging::policy(&def);
            let mut operation = operation(index, def, defaults, time_scale);
            operation.merge = merge;
            let operation = Arc::new(operation);
            if let Some(template) = template
                && let Err(other) = tree.insert(template, &operation)
            {
                problems.add(index, &operation.name, "path", format!("`{path}`"), format!(
                    "a path that differs from that of `{}` (`{}`) in more than the names of parameters",
                    other.name, other.template,
                ));
            }
            operations.push(operation);
        }
        if !problems.found.is_empty() {
            return Err(problems.found);
        }
        let mut unmatched = |name, effect| {
            let operation = Arc::new(unmatched(
                operations.len(),
                name,
                effect,
                defaults,
                time_scale,
            ));
            operations.push(operation.clone());
            operation
        };
        let unmatched_read = unmatched(UNMATCHED_READ, Effect::Read);
        let unmatched_write = unmatched(UNMATCHED_WRITE, Effect::Write);
        let lenient = operations
            .iter()
            .map(|operation| Arc::new(lenient(operation)));
        Ok(Self {
            lenient: lenient.collect(),
            operations,
            nodes: tree.nodes,
            unmatched_read,
            unmatched_write,
        })
    }

    /// Finds the operation of a request. `path` is the raw path, without the query.
    ///
    /// HEAD uses the operation of GET. A path that a lenient server may read as a matching one uses
    /// the budget and lanes of that operation. All others are unmatched: a read for GET, HEAD,
    /// OPTIONS and TRACE, a write for every other method, known or not.
    pub fn find(&self, method: &Method, path: &str) -> Match {
        let exact = self.find_exactly(method, path, Case::Sensitive);
        exact
            .or_else(|| self.find_leniently(method, path))
            .unwrap_or_else(|| {
                let operation = match effect(method) {
                    Effect::Read => &self.unmatched_read,
                    Effect::Write => &self.unmatched_write,
                };
                Match {
                    operation: operation.clone(),
                    params: Params::default(),
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
        let params = Params::capture(&end.template, split.segments())?;
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
    ) -> Option<&End> {
        let node = self.nodes.get(node)?;
        let Some(first) = path.next() else {
            return node.ends.iter().find(|end| end.method == *method);
        };
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

/// The effect of a method. Unknown methods are writes.
pub fn effect(method: &Method) -> Effect {
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE => Effect::Read,
        _ => Effect::Write,
    }
}

struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    /// Adds a template.
    ///
    /// # Errors
    /// The operation that already has an equal template and method.
    fn insert(
        &mut self,
        template: Vec<Segment>,
        operation: &Arc<Operation>,
    ) -> Result<(), Arc<Operation>> {
        let mut at = 0;
        for segment in &template {
            at = self.child(at, segment);
        }
        let (Some(method), Some(node)) = (operation.method.clone(), self.nodes.get_mut(at)) else {
            return Ok(());
        };
        if let Some(end) = node.ends.iter().find(|end| end.method == method) {
            return Err(end.operation.clone());
        }
        node.ends.push(End {
            method,
            template,
            operation: operation.clone(),
        });
        Ok(())
    }

    /// The child of a node for this segment. It is added if it is missing.
    fn child(&mut self, at: usize, segment: &Segment) -> usize {
        let next = self.nodes.len();
        let node = &mut self.nodes[at];
        let child = match segment {
            Segment::Parameter(_) => *node.parameter.get_or_insert(next),
            Segment::Literal(text) => *node.literals.entry(text.clone()).or_insert(next),
        };
        if child == next {
            self.nodes.push(Node::default());
        }
        child
    }
}

/// Builds an operation from its definition. A read touches nothing; a write is not cached.
fn operation(index: usize, def: OperationDef, defaults: Defaults, time_scale: u32) -> Operation {
    let effect = effect(&def.method);
    let is_cached = effect == Effect::Read && def.cache.is_none_or(|ttl| !ttl.is_zero());
    let budget = def
        .budget
        .unwrap_or_else(|| own_budget(&def.name, effect, defaults));
    Operation {
        index,
        budget: scaled(budget, time_scale),
        cache: is_cached.then_some(CachePolicy {
            ttl: def.cache,
            tags: def.reads,
            ..def.caching
        }),
        touches: match (effect, def.writes) {
            (Effect::Read, _) => Touches::Tags(Vec::new()),
            (Effect::Write, None) => Touches::Everything,
            (Effect::Write, Some(tags)) => Touches::Tags(tags),
        },
        name: def.name,
        method: Some(def.method),
        template: def.path,
        effect,
        order: def.order,
        barrier: def.barrier,
        lists: def.lists,
        merge: None,
    }
}

/// Builds one of the two operations for paths that match no template.
fn unmatched(
    index: usize,
    name: &str,
    effect: Effect,
    defaults: Defaults,
    time_scale: u32,
) -> Operation {
    let name: Arc<str> = name.into();
    Operation {
        index,
        budget: scaled(own_budget(&name, effect, defaults), time_scale),
        name,
        method: None,
        template: "".into(),
        effect,
        cache: (effect == Effect::Read).then(CachePolicy::default),
        touches: match effect {
            Effect::Read => Touches::Tags(Vec::new()),
            Effect::Write => Touches::Everything,
        },
        order: Vec::new(),
        barrier: Vec::new(),
        lists: Vec::new(),
        merge: None,
    }
}

/// The variant of an operation for other spellings of its path: same budget, same lanes. Whether
/// the API reads the path in this way is uncertain. So its responses are not stored, it is not
/// batched, and its changes are unknown, as for any path that matches no template.
fn lenient(operation: &Operation) -> Operation {
    Operation {
        method: None,
        cache: None,
        touches: match operation.effect {
            Effect::Read => Touches::Tags(Vec::new()),
            Effect::Write => Touches::Everything,
        },
        merge: None,
        ..operation.clone()
    }
}

/// A budget for the operation alone, at the default rate.
fn own_budget(name: &Arc<str>, effect: Effect, defaults: Defaults) -> BudgetSpec {
    let rate = match effect {
        Effect::Read => defaults.reads,
        Effect::Write => defaults.writes,
    };
    BudgetSpec {
        name: name.clone(),
        rate,
        documented: false,
    }
}

/// Divides the window by the time scale.
fn scaled(mut budget: BudgetSpec, time_scale: u32) -> BudgetSpec {
    // At least a microsecond: the scale is for simulations and must not switch off the budget.
    budget.rate.window = (budget.rate.window / time_scale.max(1)).max(Duration::from_micros(1));
    budget
}

#[cfg(test)]
mod tests;
