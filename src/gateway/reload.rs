//! What can be replaced while the gateway runs, and how: budgets, queues and stored writes keep
//! their state.
//!
//! Whoever has been understood goes on as it was understood; what comes from then on is treated
//! anew. So only what may differ between the two is replaced.

use crate::cache::Touched;
use crate::exchange::callers::Allowed;
use crate::exchange::settings::Settings;
use crate::gateway::Gateway;
use crate::limit::budgets::LineBounds;
use crate::route::policy::{BudgetSpec, CachePolicy, Operation};
use crate::route::table::Table;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// New values for all that can be replaced.
#[derive(Debug)]
pub struct Replacement {
    /// The operations, if they are not as they were. They must be the same, in the same order, as
    /// [`is_same`](Self::is_same) says; their terms may differ.
    pub table: Option<Table>,
    /// Plain values.
    pub settings: Settings,
    /// The callers' quotas, if they are not as they were: all begin anew.
    pub quotas: Option<Allowed>,
    /// How much may wait.
    pub lines: LineBounds,
}

impl Replacement {
    /// Whether requests that were understood with one table may go on beside those that were with
    /// the other: each place has the same operation, whose writes are kept in the same order, touch
    /// the same data and draw on the same budget. Otherwise a write that waits would not make stale
    /// what a read depends on by then, or a budget would begin anew beside the one that is used.
    pub fn is_same(one: &Table, other: &Table) -> bool {
        let same = |(a, b): (&Arc<Operation>, &Arc<Operation>)| {
            let tags = |op: &Operation| op.cache.as_ref().map(|cache| cache.tags.clone());
            (&a.name, &a.method, &a.template) == (&b.name, &b.method, &b.template)
                && (&a.order, &a.barrier) == (&b.order, &b.barrier)
                && (&a.touches, tags(a)) == (&b.touches, tags(b))
                && a.budget.name == b.budget.name
                && a.budget.rate.window == b.budget.rate.window
        };
        let (one, other) = (one.operations(), other.operations());
        one.len() == other.len() && one.iter().zip(other).all(same)
    }
}

impl Gateway {
    /// Takes over what is new.
    pub fn replace(&self, new: Replacement) {
        self.router.settings.set(new.settings);
        self.budgets.set_line_bounds(new.lines);
        if let Some(allowed) = new.quotas {
            self.quotas.configure(allowed);
        }
        if let Some(table) = new.table {
            let running = self.router.table.get();
            let changed = changed(&budgets(&running), budgets(&table));
            let caches_otherwise = caching(&running).ne(caching(&table));
            self.router.table.set(table);
            self.budgets.configure(&changed);
            if caches_otherwise {
                // What is stored was stored for other times. The API has changed nothing, so the
                // next answer may be stored and shared at once.
                self.writes.settle(&Touched::Everything, Duration::ZERO);
            }
        }
    }

    /// Says whether lines at debug level are wanted.
    pub fn set_debug(&self, wanted: bool) {
        self.debug.store(wanted, Ordering::Relaxed);
    }
}

/// How the answers of each operation are cached.
fn caching(table: &Table) -> impl Iterator<Item = Option<&CachePolicy>> {
    let operations = table.operations().iter();
    operations.map(|operation| operation.cache.as_ref())
}

type Specs = HashMap<Arc<str>, BudgetSpec>;

/// The budgets that a table names.
fn budgets(table: &Table) -> Specs {
    let specs = table.operations().iter().map(|operation| &operation.budget);
    specs
        .map(|spec| (spec.name.clone(), spec.clone()))
        .collect()
}

fn changed(before: &Specs, mut now: Specs) -> Specs {
    now.retain(|name, spec| {
        let old = before.get(name);
        old.is_some_and(|old| (old.rate, old.documented) != (spec.rate, spec.documented))
    });
    now
}
