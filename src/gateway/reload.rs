//! Replacing configuration while the gateway runs. Budgets, queues and stored responses keep their
//! state.
//!
//! Promises that a request goes on under the configuration with which it was understood. Later
//! requests use the new one. Therefore only what may differ between the two is replaced. Which keys
//! those are is decided in `config/keys.rs`. One thing is looked at again: a write that waits is
//! not sent for a client whose key is no longer accepted.

use crate::cache::Invalidation;
use crate::clients::Clients;
use crate::exchange::callers::Allowed;
use crate::exchange::settings::Settings;
use crate::gateway::Gateway;
use crate::limit::budgets::LineBounds;
use crate::route::policy::{BudgetSpec, CachePolicy, Operation};
use crate::route::table::Table;
use foldhash::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// New values for everything that can be replaced.
#[derive(Debug)]
pub struct Replacement {
    /// The operations, if they changed. They must be the same ones in the same order, as
    /// [`is_same`](Self::is_same) says; their terms may differ.
    pub table: Option<Table>,
    /// The clients, if they changed.
    pub clients: Option<Clients>,
    /// The settings.
    pub settings: Settings,
    /// The quotas of callers, if they changed. All of them start again with nothing used.
    pub quotas: Option<Allowed>,
    /// The bounds of the queues.
    pub lines: LineBounds,
}

impl Replacement {
    /// Returns whether requests that were understood with either table may run side by side.
    ///
    /// At each index both tables must have the same operation, with the same write order, the same
    /// data touched and the same budget. Otherwise a queued write would not invalidate what a read
    /// depends on by then, or a second budget would start beside the one in use.
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
    /// Applies the new values.
    pub fn replace(&self, new: Replacement) {
        // Values that stand alone come first. The table comes last: it changes budgets, and may
        // invalidate the cache.
        if let Some(clients) = new.clients {
            self.set_clients(clients);
        }
        self.router.settings.set(new.settings);
        self.budgets.set_line_bounds(new.lines);
        if let Some(allowed) = new.quotas {
            self.quotas.configure(allowed);
        }
        if let Some(table) = new.table {
            let running = self.router.table.get();
            let changed = changed(&budgets(&running), budgets(&table));
            let caches_otherwise = caching(&running).ne(caching(&table));
            // The table first, then the invalidation below: a fetch that began under the old terms
            // has an older stamp, so its response is not kept.
            self.router.table.set(table);
            self.budgets.configure(&changed);
            if caches_otherwise {
                // Stored responses have the lifetimes of the old terms. Nothing changed at the API,
                // so the settle time is zero and the next response may be stored and shared at
                // once.
                self.writes
                    .settle(&Invalidation::Everything, Duration::ZERO);
            }
        }
    }

    /// Sets whether debug lines are wanted.
    pub fn set_debug(&self, wanted: bool) {
        self.debug.store(wanted, Ordering::Relaxed);
    }
}

/// Returns how the responses of each operation are cached.
fn caching(table: &Table) -> impl Iterator<Item = Option<&CachePolicy>> {
    let operations = table.operations().iter();
    operations.map(|operation| operation.cache.as_ref())
}

type Specs = HashMap<Arc<str>, BudgetSpec>;

/// Returns the budgets that a table names.
fn budgets(table: &Table) -> Specs {
    let specs = table.operations().iter().map(|operation| &operation.budget);
    specs
        .map(|spec| (spec.name.clone(), spec.clone()))
        .collect()
}

// Keeps the budgets that exist in both and whose limits differ. A new budget is created at its
// first use.
fn changed(before: &Specs, mut now: Specs) -> Specs {
    now.retain(|name, spec| {
        let old = before.get(name);
        old.is_some_and(|old| (old.rate, old.documented) != (spec.rate, spec.documented))
    });
    now
}
