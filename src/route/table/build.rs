//! Pure. Building the route table from its definitions.

use super::definition::{Defaults, OperationDef, UNMATCHED_READ, UNMATCHED_WRITE};
use super::merging;
use super::verify::{Problems, RouteProblem};
use super::{Node, Table, TemplateEnd};
use crate::route::pattern::TemplateSegment;
use crate::route::policy::{BudgetSpec, CachePolicy, Effect, Operation, Touches};
use http::Method;
use std::sync::Arc;
use std::time::Duration;

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
    ) -> Result<Self, Vec<RouteProblem>> {
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
            let template = problems.of(index, &def).run();
            let path = def.path.clone();
            let operation = Arc::new(operation(index, def, defaults, time_scale));
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
        // Their definitions only supply the defaults of a read and of a write.
        let mut unmatched = |name, method| {
            let def = OperationDef::new(name, method, "");
            let operation = Arc::new(Operation {
                method: None,
                ..operation(operations.len(), def, defaults, time_scale)
            });
            operations.push(operation.clone());
            operation
        };
        let unmatched_read = unmatched(UNMATCHED_READ, Method::GET);
        let unmatched_write = unmatched(UNMATCHED_WRITE, Method::POST);
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
}

/// The tree while it grows.
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
        template: Vec<TemplateSegment>,
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
        node.ends.push(TemplateEnd {
            method,
            template,
            operation: operation.clone(),
        });
        Ok(())
    }

    /// The child of a node for this segment. It is added if it is missing.
    fn child(&mut self, at: usize, segment: &TemplateSegment) -> usize {
        let next = self.nodes.len();
        let node = &mut self.nodes[at];
        let child = match segment {
            TemplateSegment::Parameter(_) => *node.parameter.get_or_insert(next),
            TemplateSegment::Literal(text) => *node.literals.entry(text.clone()).or_insert(next),
        };
        if child == next {
            self.nodes.push(Node::default());
        }
        child
    }
}

/// Builds an operation from its definition. A read touches nothing; a write is not cached.
fn operation(index: usize, def: OperationDef, defaults: Defaults, time_scale: u32) -> Operation {
    let effect = Effect::of(&def.method);
    let merge = merging::policy(&def);
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
        merge,
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
