//! Pure. The route table as people read it.

use super::units;
use crate::route::policy::Directives;
use crate::route::{CachePolicy, NameTemplate, Operation, Table, Touches};
use std::fmt::Write as _;

const HEADINGS: [&str; 9] = [
    "OPERATION",
    "METHOD",
    "PATH",
    "BUDGET",
    "LIMIT",
    "CACHE",
    "READS/WRITES",
    "ORDER",
    "MERGE",
];

/// Returns the effective route table in aligned columns, one line per operation. `~` marks a limit
/// that the API does not document; `-` is nothing, `*` is everything. CACHE has a time, or `api`
/// for as long as the API says, and what else is configured. MERGE has the most elements of a
/// batch, or `off` where merging is only described.
pub fn render_routes(table: &Table) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(table.operations().iter().map(|operation| row(operation)));
    let mut widths = [0; HEADINGS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn show_caching(policy: &CachePolicy) -> String {
    let mut text = match policy.ttl {
        Some(ttl) => units::show_duration(ttl),
        None => "api".to_owned(),
    };
    match policy.directives {
        Directives::Shorter => {}
        Directives::Upstream => text.push_str(" upstream"),
        Directives::Operator => text.push_str(" operator"),
    }
    if policy.heuristic_percent > 0 {
        let _ = write!(text, " heuristic={}%", policy.heuristic_percent);
    }
    for (name, time) in [
        ("stale_while_revalidate", policy.stale_while_revalidate),
        ("stale_if_error", policy.stale_if_error),
        ("stale_if_limited", policy.stale_if_limited),
    ] {
        if let Some(time) = time {
            let _ = write!(text, " {name}={}", units::show_duration(time));
        }
    }
    text
}

fn row(operation: &Operation) -> [String; HEADINGS.len()] {
    let rate = units::show_rate(operation.budget.rate);
    let names = |names: &[NameTemplate]| {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        if names.is_empty() {
            "-".to_owned()
        } else {
            names.join(" ")
        }
    };
    let tags = match (&operation.cache, &operation.touches) {
        (Some(cache), _) if cache.tags.is_empty() => "*".to_owned(),
        (Some(cache), _) => names(&cache.tags),
        (None, Touches::Tags(tags)) => names(tags),
        (None, Touches::Everything) => "*".to_owned(),
    };
    let mut order = names(&operation.order);
    for class in &operation.barrier {
        let _ = write!(order, " | {class}");
    }
    [
        operation.name.to_string(),
        operation
            .method
            .as_ref()
            .map_or_else(|| "*".to_owned(), ToString::to_string),
        if operation.template.is_empty() {
            "*".to_owned()
        } else {
            operation.template.to_string()
        },
        operation.budget.name.to_string(),
        if operation.budget.documented {
            rate
        } else {
            format!("~{rate}")
        },
        operation
            .cache
            .as_ref()
            .map_or_else(|| "-".to_owned(), show_caching),
        tags,
        order,
        match &operation.merge {
            Some(merge) if merge.enabled => merge.most.to_string(),
            Some(_) => "off".to_owned(),
            None => "-".to_owned(),
        },
    ]
}
