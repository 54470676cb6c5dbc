//! Pure. The checks of operation definitions. All problems are collected, so that an operator can
//! correct them at once.

use super::{OperationDef, UNMATCHED_READ, UNMATCHED_WRITE, effect};
use crate::route::names;
use crate::route::pattern::{self, Segment};
use crate::route::policy::{BudgetSpec, Directives, Effect, NameTemplate, Source};
use http::Method;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A problem of one definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The index of the definition.
    pub definition: usize,
    /// The name of the operation.
    pub operation: Arc<str>,
    /// The member of the definition, as named in the configuration.
    pub key: &'static str,
    /// The text that was found.
    pub found: String,
    /// The text that says what is expected.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            operation,
            key,
            found,
            expected,
            ..
        } = self;
        write!(
            f,
            "operations.{operation}.{key}: found {found}, expected {expected}"
        )
    }
}

/// Collects problems.
#[derive(Default)]
pub(super) struct Problems {
    pub(super) found: Vec<Problem>,
}

impl Problems {
    pub(super) fn add(
        &mut self,
        index: usize,
        name: &Arc<str>,
        key: &'static str,
        found: String,
        expected: impl Into<String>,
    ) {
        let (operation, expected) = (name.clone(), expected.into());
        self.found.push(Problem {
            definition: index,
            operation,
            key,
            found,
            expected,
        });
    }

    pub(super) fn names(&mut self, defs: &[OperationDef]) {
        let mut seen = BTreeMap::new();
        for (index, def) in defs.iter().enumerate() {
            let found = format!("`{}`", def.name);
            if !pattern::is_name(&def.name) {
                let expected = "a name: a letter, then letters, digits or `_`";
                self.add(index, &def.name, "name", found, expected);
            } else if [UNMATCHED_READ, UNMATCHED_WRITE].contains(&&*def.name) {
                let expected = "another name: this one stands for paths that match nothing";
                self.add(index, &def.name, "name", found, expected);
            } else if seen.insert(def.name.clone(), index).is_some() {
                self.add(
                    index,
                    &def.name,
                    "name",
                    found,
                    "every operation defined once",
                );
            }
        }
    }

    /// Checks that all definitions that share a budget by name agree about it.
    pub(super) fn budgets(&mut self, defs: &[OperationDef]) {
        let mut known: BTreeMap<&str, &BudgetSpec> = BTreeMap::new();
        for (index, def) in defs.iter().enumerate() {
            let Some(budget) = &def.budget else { continue };
            let found = format!("`{}`", budget.name);
            if budget.rate.limit == 0 || budget.rate.window.is_zero() {
                self.add(
                    index,
                    &def.name,
                    "limit",
                    "a rate of nothing".into(),
                    "a limit and a window above 0",
                );
            }
            if known
                .insert(&budget.name, budget)
                .is_some_and(|other| other != budget)
            {
                self.add(
                    index,
                    &def.name,
                    "budget",
                    found.clone(),
                    "one rate for all that share it",
                );
            }
            let other = defs
                .iter()
                .find(|other| other.name == budget.name && other.name != def.name);
            if other.is_some_and(|other| other.budget.as_ref() != Some(budget))
                || [UNMATCHED_READ, UNMATCHED_WRITE].contains(&&*budget.name)
            {
                let expected = "a name that is not that of an operation with a budget of its own";
                self.add(index, &def.name, "budget", found, expected);
            }
        }
    }

    /// Checks one definition by itself and returns its template.
    pub(super) fn definition(&mut self, index: usize, def: &OperationDef) -> Option<Vec<Segment>> {
        let template = pattern::parse(&def.path);
        self.method(index, def);
        self.cache(index, def);
        self.write(index, def);
        for list in def.lists.iter().filter(|list| !pattern::is_name(list)) {
            self.add(
                index,
                &def.name,
                "lists",
                format!("`{list}`"),
                "names of query parameters",
            );
        }
        match template {
            Ok(template) => {
                self.placeholders(index, def, &template);
                Some(template)
            }
            Err(expected) => {
                self.add(
                    index,
                    &def.name,
                    "path",
                    format!("`{}`", def.path),
                    expected,
                );
                None
            }
        }
    }

    fn method(&mut self, index: usize, def: &OperationDef) {
        if !matches!(
            def.method,
            Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE
        ) {
            let found = format!("`{}`", def.method);
            self.add(
                index,
                &def.name,
                "method",
                found,
                "GET, POST, PUT, PATCH or DELETE",
            );
        }
    }

    fn cache(&mut self, index: usize, def: &OperationDef) {
        let (caching, ttl) = (&def.caching, def.cache);
        let stale = [
            ("stale_while_revalidate", caching.stale_while_revalidate),
            ("stale_if_error", caching.stale_if_error),
            ("stale_if_limited", caching.stale_if_limited),
        ];
        let mut used = vec![
            ("cache", ttl.is_some()),
            (
                "cache_directives",
                caching.directives != Directives::default(),
            ),
            ("heuristic_percent", caching.heuristic_percent > 0),
        ];
        used.extend(stale.map(|(key, time)| (key, time.is_some())));
        let used = used.into_iter().filter(|(_, is_used)| *is_used);
        if def.method != Method::GET {
            for (key, _) in used {
                let expected = format!("`{key}` with GET only");
                self.add(index, &def.name, key, "a write".into(), expected);
            }
            return;
        }
        if ttl.is_some_and(|ttl| ttl.is_zero()) {
            for (key, _) in used.skip(1) {
                let expected = "no such key where nothing is stored";
                self.add(index, &def.name, key, "`cache` of 0".into(), expected);
            }
            return;
        }
        if ttl.is_some() && def.reads.is_empty() {
            let expected = "`reads` with the tags that tell when an answer is stale";
            self.add(index, &def.name, "cache", "no `reads`".into(), expected);
        }
        if ttl.is_some() && caching.heuristic_percent > 0 {
            let expected = "one of `cache` and `heuristic_percent`";
            self.add(
                index,
                &def.name,
                "heuristic_percent",
                "both".into(),
                expected,
            );
        }
        if caching.heuristic_percent > 100 {
            let found = caching.heuristic_percent.to_string();
            self.add(index, &def.name, "heuristic_percent", found, "0 to 100");
        }
        if ttl.is_none() && caching.directives == Directives::Operator {
            let expected = "`cache` with the time that is to count";
            self.add(
                index,
                &def.name,
                "cache_directives",
                "no `cache`".into(),
                expected,
            );
        }
        for tag in &def.reads {
            if matches!(tag.source, Source::Body(_)) {
                let expected = "tags of an answer from its path or query";
                self.add(index, &def.name, "reads", format!("`{tag}`"), expected);
            }
        }
    }

    fn write(&mut self, index: usize, def: &OperationDef) {
        if effect(&def.method) == Effect::Write {
            for class in def.barrier.iter().filter(|class| !pattern::is_name(class)) {
                let expected = "what stands before the colon of an order key, as in `person`";
                self.add(index, &def.name, "barrier", format!("`{class}`"), expected);
            }
            return;
        }
        let used = [
            ("writes", def.writes.is_some()),
            ("order", !def.order.is_empty()),
            ("barrier", !def.barrier.is_empty()),
        ];
        for (key, _) in used.into_iter().filter(|(_, used)| *used) {
            self.add(
                index,
                &def.name,
                key,
                "a read".into(),
                format!("`{key}` of a write only"),
            );
        }
    }

    fn placeholders(&mut self, index: usize, def: &OperationDef, template: &[Segment]) {
        let of = |key, templates: &[NameTemplate]| {
            templates
                .iter()
                .map(|t| (key, t.clone()))
                .collect::<Vec<_>>()
        };
        let mut all = of("reads", &def.reads);
        all.extend(of("writes", def.writes.as_deref().unwrap_or_default()));
        all.extend(of("order", &def.order));
        for (key, name) in all {
            let expected = match &name.source {
                Source::Path(parameter)
                    if !template.contains(&Segment::Parameter((**parameter).into())) =>
                {
                    format!("a parameter of `{}`", def.path)
                }
                Source::Query(list) if !def.lists.contains(list) => {
                    format!("`{list}` among the `lists` of the operation")
                }
                _ => match names::parse(&name.to_string()) {
                    Ok(parsed) if parsed == name => continue,
                    _ => "a name with at most one placeholder, at its end".to_owned(),
                },
            };
            self.add(index, &def.name, key, format!("`{name}`"), expected);
        }
    }
}
