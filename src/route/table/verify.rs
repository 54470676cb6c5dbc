//! Pure. What can be wrong with the definitions of operations.

use super::{OperationDef, UNMATCHED_READ, UNMATCHED_WRITE, effect};
use crate::route::names;
use crate::route::pattern::{self, Segment};
use crate::route::policy::{BudgetSpec, Effect, NameTemplate, Source};
use http::Method;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A definition that cannot stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Index of the definition.
    pub definition: usize,
    /// The name of the operation.
    pub operation: Arc<str>,
    /// The member of the definition, as the configuration names it.
    pub key: &'static str,
    /// What was found.
    pub found: String,
    /// What is expected.
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

/// Collects what is wrong.
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

    /// A budget is shared by name, so whoever names it must mean the same one.
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

    /// Checks one definition by itself and gives its template.
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
        let reads = def.reads.len();
        match def.cache {
            Some(_) if def.method != Method::GET => {
                self.add(
                    index,
                    &def.name,
                    "cache",
                    "a write".into(),
                    "`cache` with GET only",
                );
            }
            Some(ttl) if ttl.is_zero() => {
                self.add(
                    index,
                    &def.name,
                    "cache",
                    "0".into(),
                    "a time above 0, or no `cache`",
                );
            }
            Some(_) if reads == 0 => {
                let expected = "`reads` with the tags that tell when an answer is stale";
                self.add(index, &def.name, "cache", "no `reads`".into(), expected);
            }
            None if reads > 0 => {
                self.add(
                    index,
                    &def.name,
                    "reads",
                    "no `cache`".into(),
                    "`reads` beside `cache` only",
                );
            }
            _ => {}
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
