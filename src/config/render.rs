//! Pure. The route table as people read it: a table of one line per operation, and all that is
//! known of one operation. Programs get `route_document.rs`.
//!
//! Invariant: no line of the table of the shipped operations is longer than [`WIDEST`]. What does
//! not fit is a path, which ends with `…` then.

use super::units;
use super::words::directives;
use crate::route::policy::Directives;
use crate::route::{CachePolicy, NameTemplate, Operation, Table, Touches};
use std::fmt::Write as _;

/// The columns of a line, for a terminal of usual width.
const WIDEST: usize = 120;
/// The least columns of a path. Names of an own table may be so long that nothing else fits.
const SHORTEST_PATH: usize = 20;

/// The last column takes what is left.
const HEADINGS: [&str; 6] = ["OPERATION", "LIMIT", "CACHE", "MERGE", "METHOD", "PATH"];

/// Returns the effective route table in aligned columns, one line per operation. `~` marks a limit
/// that the API does not document; `-` is nothing, `*` is everything. CACHE has a time, or `api`
/// for as long as the API says, and `+` if more is configured. MERGE has the most elements of a
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
    let last = HEADINGS.len() - 1;
    let before: usize = widths[..last].iter().map(|width| width + 2).sum();
    widths[last] = WIDEST.saturating_sub(before).max(SHORTEST_PATH);
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{:<width$}  ", cut(cell, *width));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Returns all that the table says of an operation, a line for each part.
pub fn render_route(operation: &Operation) -> String {
    let cache = operation.cache.as_ref();
    let tags = match (cache, &operation.touches) {
        (Some(cache), _) if cache.tags.is_empty() => ("reads", "*".to_owned()),
        (Some(cache), _) => ("reads", names(&cache.tags)),
        (None, Touches::Tags(tags)) => ("writes", names(tags)),
        (None, Touches::Everything) => ("writes", "*".to_owned()),
    };
    let mut order = names(&operation.order);
    for class in &operation.barrier {
        let _ = write!(order, " | {class}");
    }
    let parts = [
        ("operation", operation.name.to_string()),
        (
            "request",
            format!("{} {}", method(operation), path(operation)),
        ),
        ("budget", operation.budget.name.to_string()),
        ("limit", limit(operation)),
        (
            "cache",
            cache.map_or_else(
                || "-".to_owned(),
                |policy| cache_time(policy) + &caching(policy),
            ),
        ),
        tags,
        ("order", order),
        ("merge", merging(operation)),
    ];
    let lines = parts
        .iter()
        .map(|(part, text)| format!("{part:<11}{text}\n"));
    lines.collect()
}

fn row(operation: &Operation) -> [String; HEADINGS.len()] {
    let cache = operation.cache.as_ref().map(|policy| {
        let more = if caching(policy).is_empty() { "" } else { "+" };
        cache_time(policy) + more
    });
    [
        operation.name.to_string(),
        limit(operation),
        cache.unwrap_or_else(|| "-".to_owned()),
        merging(operation),
        method(operation).to_owned(),
        path(operation).to_owned(),
    ]
}

/// Returns a cell that fits into its column.
fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    let kept: String = cell.chars().take(width.saturating_sub(1)).collect();
    kept + "…"
}

fn method(operation: &Operation) -> &str {
    operation
        .method
        .as_ref()
        .map_or("*", |method| method.as_str())
}

fn path(operation: &Operation) -> &str {
    match &*operation.template {
        "" => "*",
        template => template,
    }
}

fn limit(operation: &Operation) -> String {
    let rate = units::show_rate(operation.budget.rate);
    let mark = if operation.budget.documented { "" } else { "~" };
    format!("{mark}{rate}")
}

fn merging(operation: &Operation) -> String {
    match &operation.merge {
        Some(merge) if merge.enabled => merge.most.to_string(),
        Some(_) => "off".to_owned(),
        None => "-".to_owned(),
    }
}

fn names(names: &[NameTemplate]) -> String {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        "-".to_owned()
    } else {
        names.join(" ")
    }
}

fn cache_time(policy: &CachePolicy) -> String {
    policy
        .ttl
        .map_or_else(|| "api".to_owned(), units::show_duration)
}

/// Returns what is configured of caching besides the time; empty if nothing is.
fn caching(policy: &CachePolicy) -> String {
    let mut text = String::new();
    if policy.directives != Directives::default() {
        let _ = write!(text, " {}", directives(policy.directives));
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
