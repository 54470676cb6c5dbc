//! Pure. The checks of operation definitions. All problems are collected, so that an operator can
//! correct them at once.

use super::definition::{OperationDef, UNMATCHED_READ, UNMATCHED_WRITE};
use crate::route::names;
use crate::route::pattern::{self, TemplateSegment};
use crate::route::policy::{BudgetSpec, Directives, Effect, NameTemplate, Source};
use http::Method;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// A problem of one definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteProblem {
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

impl fmt::Display for RouteProblem {
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
    pub(super) found: Vec<RouteProblem>,
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
        self.found.push(RouteProblem {
            definition: index,
            operation,
            key,
            found,
            expected,
        });
    }

    /// The check of one definition.
    pub(super) fn of<'p>(&'p mut self, index: usize, def: &'p OperationDef) -> DefinitionCheck<'p> {
        DefinitionCheck {
            problems: self,
            index,
            def,
        }
    }

    /// Checks that names are valid and unique.
    pub(super) fn names(&mut self, defs: &[OperationDef]) {
        let mut seen = BTreeSet::new();
        for (index, def) in defs.iter().enumerate() {
            let expected = if !pattern::is_name(&def.name) {
                "a name: a letter, then letters, digits or `_`"
            } else if [UNMATCHED_READ, UNMATCHED_WRITE].contains(&&*def.name) {
                "another name: this one stands for paths that match nothing"
            } else if !seen.insert(&def.name) {
                "every operation defined once"
            } else {
                continue;
            };
            let mut check = self.of(index, def);
            check.wrong("name", format!("`{}`", def.name), expected);
        }
    }

    /// Checks that all definitions that share a budget by name agree about it.
    pub(super) fn budgets(&mut self, defs: &[OperationDef]) {
        let mut known: BTreeMap<&str, &BudgetSpec> = BTreeMap::new();
        for (index, def) in defs.iter().enumerate() {
            let Some(budget) = &def.budget else { continue };
            let mut check = self.of(index, def);
            let found = format!("`{}`", budget.name);
            if budget.rate.limit == 0 || budget.rate.window.is_zero() {
                check.wrong("limit", "a rate of nothing", "a limit and a window above 0");
            }
            let before = known.insert(&budget.name, budget);
            if before.is_some_and(|other| other != budget) {
                let expected = "one rate for all that share it";
                check.wrong("budget", &*found, expected);
            }
            let is_other =
                |other: &&OperationDef| other.name == budget.name && other.name != def.name;
            let other = defs.iter().find(is_other);
            if other.is_some_and(|other| other.budget.as_ref() != Some(budget))
                || [UNMATCHED_READ, UNMATCHED_WRITE].contains(&&*budget.name)
            {
                let expected = "a name that is not that of an operation with a budget of its own";
                check.wrong("budget", found, expected);
            }
        }
    }
}

/// The check of one definition by itself.
pub(super) struct DefinitionCheck<'p> {
    problems: &'p mut Problems,
    index: usize,
    pub(super) def: &'p OperationDef,
}

impl DefinitionCheck<'_> {
    /// Adds a problem.
    pub(super) fn wrong(
        &mut self,
        key: &'static str,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) {
        let name = &self.def.name;
        self.problems
            .add(self.index, name, key, found.into(), expected);
    }

    /// Checks everything that is not about other definitions, and returns the template.
    pub(super) fn run(&mut self) -> Option<Vec<TemplateSegment>> {
        let def = self.def;
        self.method();
        self.cache();
        self.write();
        for list in def.lists.iter().filter(|list| !pattern::is_name(list)) {
            self.wrong("lists", format!("`{list}`"), "names of query parameters");
        }
        match pattern::parse(&def.path) {
            Ok(template) => {
                self.placeholders(&template);
                Some(template)
            }
            Err(expected) => {
                self.wrong("path", format!("`{}`", def.path), expected);
                None
            }
        }
    }

    fn method(&mut self) {
        if !matches!(
            self.def.method,
            Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE
        ) {
            let found = format!("`{}`", self.def.method);
            self.wrong("method", found, "GET, POST, PUT, PATCH or DELETE");
        }
    }

    /// Checks that the caching keys fit each other. The first problem of a kind ends the check.
    fn cache(&mut self) {
        let def = self.def;
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
                self.wrong(key, "a write", expected);
            }
            return;
        }
        if ttl.is_some_and(|ttl| ttl.is_zero()) {
            for (key, _) in used.skip(1) {
                let expected = "no such key where nothing is stored";
                self.wrong(key, "`cache` of 0", expected);
            }
            return;
        }
        if ttl.is_some() && def.reads.is_empty() {
            let expected = "`reads` with the tags that tell when an answer is stale";
            self.wrong("cache", "no `reads`", expected);
        }
        if ttl.is_some() && caching.heuristic_percent > 0 {
            let expected = "one of `cache` and `heuristic_percent`";
            self.wrong("heuristic_percent", "both", expected);
        }
        if caching.heuristic_percent > 100 {
            let found = caching.heuristic_percent.to_string();
            self.wrong("heuristic_percent", found, "0 to 100");
        }
        if ttl.is_none() && caching.directives == Directives::Operator {
            let expected = "`cache` with the time that is to count";
            self.wrong("cache_directives", "no `cache`", expected);
        }
        for tag in &def.reads {
            if matches!(tag.source, Source::Body(_)) {
                let expected = "tags of an answer from its path or query";
                self.wrong("reads", format!("`{tag}`"), expected);
            }
        }
    }

    /// Checks that only a write has the keys of a write.
    fn write(&mut self) {
        let def = self.def;
        if Effect::of(&def.method) == Effect::Write {
            for class in def.barrier.iter().filter(|class| !pattern::is_name(class)) {
                let expected = "what stands before the colon of an order key, as in `person`";
                self.wrong("barrier", format!("`{class}`"), expected);
            }
            return;
        }
        let used = [
            ("writes", def.writes.is_some()),
            ("order", !def.order.is_empty()),
            ("barrier", !def.barrier.is_empty()),
        ];
        for (key, _) in used.into_iter().filter(|(_, used)| *used) {
            self.wrong(key, "a read", format!("`{key}` of a write only"));
        }
    }

    /// Checks that every placeholder stands for something that the operation has.
    fn placeholders(&mut self, template: &[TemplateSegment]) {
        let def = self.def;
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
                    if !template.contains(&TemplateSegment::Parameter((**parameter).into())) =>
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
            self.wrong(key, format!("`{name}`"), expected);
        }
    }
}
