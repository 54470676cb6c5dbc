//! Pure. The route table as programs read it, for `segment-gateway routes --json`.
//!
//! Names and units are those of the documents of the admin listener.

use super::words::directives;
use crate::route::{NameTemplate, Operation, Table, Touches};
use serde_json::{Value, json};
use std::time::Duration;

/// Returns the effective route table as a document.
pub fn routes_document(table: &Table) -> Value {
    let operations = table.operations().iter();
    let operations: Vec<Value> = operations.map(|one| route_document(one)).collect();
    json!({ "operations": operations })
}

/// Returns all that the table says of an operation as a document. `null` stands for every method or
/// path, and for what the operation does not have; `*` stands for every tag.
pub fn route_document(operation: &Operation) -> Value {
    let texts =
        |names: &[NameTemplate]| -> Vec<String> { names.iter().map(ToString::to_string).collect() };
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    let cache = operation.cache.as_ref().map(|cache| {
        json!({
            "seconds": seconds(cache.ttl),
            "directives": directives(cache.directives),
            "heuristicPercent": cache.heuristic_percent,
            "staleWhileRevalidateSeconds": seconds(cache.stale_while_revalidate),
            "staleIfErrorSeconds": seconds(cache.stale_if_error),
            "staleIfLimitedSeconds": seconds(cache.stale_if_limited),
        })
    });
    let every = || vec!["*".to_owned()];
    let reads = match &operation.cache {
        Some(cache) if cache.tags.is_empty() => every(),
        Some(cache) => texts(&cache.tags),
        None => Vec::new(),
    };
    let writes = match &operation.touches {
        Touches::Tags(tags) => texts(tags),
        Touches::Everything => every(),
    };
    let merge = operation
        .merge
        .as_ref()
        .map(|merge| json!({ "enabled": merge.enabled, "most": merge.most }));
    json!({
        "name": operation.name.as_ref(),
        "method": operation.method.as_ref().map(|method| method.as_str()),
        "path": Some(&*operation.template).filter(|path| !path.is_empty()),
        "budget": {
            "name": operation.budget.name.as_ref(),
            "limit": operation.budget.rate.limit,
            "windowSeconds": operation.budget.rate.window.as_secs_f64(),
            "documented": operation.budget.documented,
        },
        "cache": cache,
        "reads": reads,
        "writes": writes,
        "order": texts(&operation.order),
        "barrier": operation.barrier.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
        "merge": merge,
    })
}
