//! Pure. The route table as it is written: `[operations.<name>]` and `[budgets.<name>]`.

use super::problem::ConfigProblem;
use super::read::{Document, Environment, Findings, Section};
use super::value::ConfigValue;
use crate::route::{BudgetSpec, CachePolicy, MergeDef, OperationDef, Rate, Source, table};
use http::Method;
use std::collections::{BTreeMap, BTreeSet};

/// Returns the definitions in a document, in the order in which they are written. Mistakes are in
/// the findings; an operation without a path is left out.
pub fn read(document: &Document<'_>, findings: &mut Findings) -> Vec<OperationDef> {
    let environment = Environment::default();
    let mut definitions = Vec::new();
    let mut rates = BTreeMap::new();
    let mut drawn = BTreeSet::new();
    Section::root(Some(document), &environment, findings, |root| {
        root.section("budgets", |section| {
            for name in section.names() {
                section.section(&name, |section| {
                    let mut rate = None;
                    required(section, "limit", &mut rate);
                    rates.insert(name.clone(), rate);
                });
            }
        });
        root.section("operations", |section| {
            for name in section.names() {
                section.section(&name, |section| {
                    definitions.extend(operation(&name, section, &rates, &mut drawn));
                });
            }
        });
    });
    for name in rates.keys().filter(|name| !drawn.contains(*name)) {
        let key = format!("budgets.{name}");
        let place = findings.places.get(&format!("{key}.limit")).cloned();
        let found = "a budget that no operation draws on";
        let expected = "`budget` with this name in some operation";
        let problem = ConfigProblem::new(place, key, found, expected);
        findings.problems.push(problem);
    }
    definitions
}

fn required<T: ConfigValue>(section: &mut Section<'_>, key: &str, target: &mut Option<T>) {
    if !section.has(key) {
        section.missing(key);
    }
    section.key(key, target);
}

/// The rates of shared budgets, by name; `None` where the rate itself is wrong.
type Rates = BTreeMap<String, Option<Rate>>;

/// Stand-ins for a method that cannot be read.
const NO_WRITE: Method = Method::CONNECT;
const NO_READ: Method = Method::TRACE;

fn operation(
    name: &str,
    section: &mut Section<'_>,
    rates: &Rates,
    drawn: &mut BTreeSet<String>,
) -> Option<OperationDef> {
    let (mut method, mut path): (Option<Method>, Option<String>) = (None, None);
    required(section, "method", &mut method);
    required(section, "path", &mut path);
    let path = path?;
    let mut def = OperationDef::new(name, method.clone().unwrap_or(Method::GET), &path);
    def.budget = budget(name, section, rates, drawn);
    section.key("cache", &mut def.cache);
    caching(section, &mut def.caching);
    section.key("reads", &mut def.reads);
    section.key("writes", &mut def.writes);
    section.key("order", &mut def.order);
    section.key("barrier", &mut def.barrier);
    section.key("lists", &mut def.lists);
    if section.has("merge") {
        section.section("merge", |section| def.merge = merge(section));
    }
    if method.is_none() {
        // So that what else is wrong is found as well: one that nobody else has.
        let is_write = !def.order.is_empty() || def.writes.is_some();
        def.method = if is_write { NO_WRITE } else { NO_READ };
        def.merge = None;
    }
    Some(def)
}

/// Reads how responses are cached, besides `cache` and `reads`.
fn caching(section: &mut Section<'_>, caching: &mut CachePolicy) {
    section.key("cache_directives", &mut caching.directives);
    section.key(
        "stale_while_revalidate",
        &mut caching.stale_while_revalidate,
    );
    section.key("stale_if_error", &mut caching.stale_if_error);
    section.key("stale_if_limited", &mut caching.stale_if_limited);
    section.key("heuristic_percent", &mut caching.heuristic_percent);
}

/// Reads how writes are merged; `None` if `elements` is missing.
fn merge(section: &mut Section<'_>) -> Option<MergeDef> {
    let mut elements: Option<Source> = None;
    required(section, "elements", &mut elements);
    let mut def = MergeDef::new(elements.clone().unwrap_or(Source::Literal));
    section.key("enabled", &mut def.enabled);
    section.within("most", &mut def.most, 2..=MergeDef::MOST);
    section.key("echoes", &mut def.echoes);
    elements.map(|_| def)
}

/// Returns the budget of an operation: its own with a documented limit, a shared one, or `None` for
/// the default.
fn budget(
    name: &str,
    section: &mut Section<'_>,
    rates: &Rates,
    drawn: &mut BTreeSet<String>,
) -> Option<BudgetSpec> {
    let (mut limit, mut shared): (Option<Rate>, Option<String>) = (None, None);
    section.key("limit", &mut limit);
    section.key("budget", &mut shared);
    let spec = |name: &str, rate| BudgetSpec {
        name: name.into(),
        rate,
        documented: true,
    };
    let Some(shared) = shared else {
        return limit.map(|rate| spec(name, rate));
    };
    if limit.is_some() {
        section.problem(
            "budget",
            "`limit` beside `budget`",
            "one of them: the budget has its own",
        );
    }
    drawn.insert(shared.clone());
    let Some(rate) = rates.get(&shared) else {
        let expected = format!("a table `[budgets.{shared}]` with its `limit`");
        section.problem("budget", super::units::quoted(&shared), expected);
        return None;
    };
    rate.map(|rate| spec(&shared, rate))
}

/// Returns a problem of the table with the place at which its definition is written.
pub fn placed(problem: table::RouteProblem, findings: &Findings) -> ConfigProblem {
    let operation = format!("operations.{}", problem.operation);
    let key = format!("{operation}.{}", problem.key);
    let path = format!("{operation}.path");
    let (within, places) = (format!("{key}."), &findings.places);
    // A table stands where its first value does.
    let first = || places.iter().find(|(key, _)| key.starts_with(&within));
    let place = places
        .get(&key)
        .or_else(|| first().map(|(_, place)| place))
        .or_else(|| places.get(&path))
        .cloned();
    ConfigProblem::new(place, key, problem.found, problem.expected)
}

#[cfg(test)]
mod tests;
