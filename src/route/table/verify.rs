//! Pure. The checks of operation definitions. All problems are collected, so that an operator can
//! correct them at once.
//!
//! Promises that a table which is built keeps what the caches, the lanes and the budgets rely on:
//! names are unique, shared budgets have one rate, every placeholder has a source, and a read has
//! no keys of a write. A mistake that passes here does not fail later. It serves stale data or lets
//! writes overtake each other, without any message.
//!
//! Not here: whether two templates match the same path (`build.rs`), whether a batch keeps its
//! order (`merging.rs`), and whether a tag that is written is ever read, which is only a warning.

use super::definition::{OperationDef, UNMATCHED_READ, UNMATCHED_WRITE};
use crate::route::pattern::{self, TemplateSegment};
use crate::route::policy::{BudgetSpec, Directives, Effect, NameTemplate, Source};
use crate::route::template;
use http::Method;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// A problem of one definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteProblem {
    /// The index of the definition in the file, for code that knows where each was written.
    pub definition: usize,
    /// The name of the operation, even if the problem is the name.
    pub operation: Arc<str>,
    /// The member of the definition, as named in the configuration. The problem is placed there if
    /// it was written.
    pub key: &'static str,
    /// The text that was found. Names and templates are in backticks, descriptions are not.
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

/// The problems found so far, in the order of the checks. A table is built only if there are none.
#[derive(Default)]
pub(super) struct Problems {
    pub(super) found: Vec<RouteProblem>,
}

impl Problems {
    /// Adds a problem of the definition at `index`.
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

    /// Returns the check of one definition, which adds its problems here.
    pub(super) fn of<'p>(&'p mut self, index: usize, def: &'p OperationDef) -> DefinitionCheck<'p> {
        DefinitionCheck {
            problems: self,
            index,
            def,
        }
    }

    /// Checks that names are valid and unique. A name is a label of metrics, a key of the
    /// configuration, and by default the name of a budget. Only the first mistake of a name counts.
    pub(super) fn names(&mut self, defs: &[OperationDef]) {
        // Exact comparison: names that differ in case are different operations.
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
            // Without a budget the operation has one of its own, at the default rate: nothing to
            // compare.
            let Some(budget) = &def.budget else { continue };
            let mut check = self.of(index, def);
            let found = format!("`{}`", budget.name);
            // No request would ever be sent: `limit` slots that return after `window`.
            if budget.rate.limit == 0 || budget.rate.window.is_zero() {
                check.wrong("limit", "a rate of nothing", "a limit and a window above 0");
            }
            // Compared with the last definition that names it. If there are three, each that
            // differs from the one before is reported.
            let before = known.insert(&budget.name, budget);
            if before.is_some_and(|other| other != budget) {
                let expected = "one rate for all that share it";
                check.wrong("budget", &*found, expected);
            }
            // An operation without a budget uses one with its own name. Another must not take that
            // name for a shared budget, or the two would be counted as one.
            let is_other =
                |other: &&OperationDef| other.name == budget.name && other.name != def.name;
            let other = defs.iter().find(is_other);
            if other.is_some_and(|other| other.budget.as_ref() != Some(budget))
                // The unmatched operations have budgets of their own names too.
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
    /// The collection to which this check adds.
    problems: &'p mut Problems,
    /// The index of the definition in the table, for its problems.
    index: usize,
    /// The definition. The checks of batches, which are elsewhere, read it as well.
    pub(super) def: &'p OperationDef,
}

impl DefinitionCheck<'_> {
    /// Adds a problem of this definition.
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

    /// Checks everything that is not about other definitions, and returns the template. `None` if
    /// the path does not parse; its placeholders cannot be checked then.
    pub(super) fn run(&mut self) -> Option<Vec<TemplateSegment>> {
        // Copied out, so that problems can be added while it is read.
        let def = self.def;
        // The order is that of the problems in the output. No check depends on another but that of
        // placeholders, which needs the template.
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

    /// Checks that the method can be defined. HEAD uses the operation of GET, and the others follow
    /// fixed rules.
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
        // The keys that were written, or differ from their default. `cache` must stay the first:
        // below, `skip(1)` leaves it out.
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
        // Only responses to GET are stored, so such a key would promise what never happens.
        if def.method != Method::GET {
            for (key, _) in used {
                let expected = format!("`{key}` with GET only");
                self.wrong(key, "a write", expected);
            }
            return;
        }
        // `cache` of 0 switches the cache off for the operation; the other keys contradict that.
        if ttl.is_some_and(|ttl| ttl.is_zero()) {
            for (key, _) in used.skip(1) {
                let expected = "no such key where nothing is stored";
                self.wrong(key, "`cache` of 0", expected);
            }
            return;
        }
        // Without tags any write makes the response stale, so a time of its own would rarely be
        // reached.
        if ttl.is_some() && def.reads.is_empty() {
            let expected = "`reads` with the tags that tell when an answer is stale";
            self.wrong("cache", "no `reads`", expected);
        }
        // A heuristic applies only to a response without any other lifetime (RFC 9111, section
        // 4.2.2).
        if ttl.is_some() && caching.heuristic_percent > 0 {
            let expected = "one of `cache` and `heuristic_percent`";
            self.wrong("heuristic_percent", "both", expected);
        }
        // More than the time since the last change would be no estimate. RFC 9111 suggests 10
        // percent.
        if caching.heuristic_percent > 100 {
            let found = caching.heuristic_percent.to_string();
            self.wrong("heuristic_percent", found, "0 to 100");
        }
        // `operator` ignores the API's times, and there is no other.
        if ttl.is_none() && caching.directives == Directives::Operator {
            let expected = "`cache` with the time that is to count";
            self.wrong("cache_directives", "no `cache`", expected);
        }
        // A read has no body to take a value from.
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
        // Whether a method writes follows from RFC 9110, section 9.2.1, not from a key. Any method
        // that is not known to be safe is a write.
        if Effect::of(&def.method) == Effect::Write {
            for class in def.barrier.iter().filter(|class| !pattern::is_name(class)) {
                let expected = "what stands before the colon of an order key, as in `person`";
                self.wrong("barrier", format!("`{class}`"), expected);
            }
            return;
        }
        // `writes` may be an empty list, which is a statement, so it counts as written.
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
        // `barrier` names classes and has no placeholders.
        let mut all = of("reads", &def.reads);
        all.extend(of("writes", def.writes.as_deref().unwrap_or_default()));
        all.extend(of("order", &def.order));
        for (key, name) in all {
            let expected = match &name.source {
                // A source that no request has would make every name unreadable: reads would never
                // be stored, and every write would invalidate everything.
                Source::Path(parameter)
                    if !template.contains(&TemplateSegment::Parameter((**parameter).into())) =>
                {
                    format!("a parameter of `{}`", def.path)
                }
                Source::Query(list) if !def.lists.contains(list) => {
                    format!("`{list}` among the `lists` of the operation")
                }
                // Written and parsed again: a definition that was not read from a file has not been
                // parsed yet.
                _ => match template::parse(&name.to_string()) {
                    Ok(parsed) if parsed == name => continue,
                    _ => "a name with at most one placeholder, at its end".to_owned(),
                },
            };
            self.wrong(key, format!("`{name}`"), expected);
        }
    }
}
