//! Pure. The batching of an operation's writes: checks the definition and converts it into a
//! policy.

use super::definition::{MergeDef, OperationDef};
use super::verify::{DefinitionCheck, Problems};
use crate::route::names;
use crate::route::pattern;
use crate::route::policy::{MergePolicy, NameTemplate, Source};
use http::Method;
use std::sync::Arc;

/// The policy of a definition. `None` if it has none or if the elements are invalid.
pub(super) fn policy(def: &OperationDef) -> Option<Arc<MergePolicy>> {
    let merge = def.merge.as_ref()?;
    Some(Arc::new(MergePolicy {
        enabled: merge.enabled,
        elements: merge.place()?,
        people: def.order.iter().any(|key| names_people(key, merge)),
        most: merge.most,
        echoes: merge.echoes.clone(),
    }))
}

/// Whether this order key consists of the elements and names people.
fn names_people(key: &NameTemplate, merge: &MergeDef) -> bool {
    names::names_people(key) && key.source == merge.elements
}

impl Problems {
    /// Checks the batching of each definition by itself.
    pub(super) fn merges(&mut self, defs: &[OperationDef]) {
        for (index, def) in defs.iter().enumerate() {
            let Some(merge) = &def.merge else { continue };
            let mut check = self.of(index, def);
            check.elements(merge);
            let list = merge.echoes.as_deref();
            if let Some(list) = list.filter(|list| !pattern::is_name(list)) {
                let expected = "a member of the answer's data that is a list";
                check.wrong("merge.echoes", format!("`{list}`"), expected);
            }
        }
    }
}

impl DefinitionCheck<'_> {
    /// Checks that two writes with a common element share an order key. Otherwise they could
    /// overtake each other when one of them is batched with a third.
    fn elements(&mut self, merge: &MergeDef) {
        let (def, elements) = (self.def, &merge.elements);
        if !matches!(def.method, Method::POST | Method::DELETE) {
            let expected = "`merge` with POST or DELETE only: the others replace what there was";
            self.wrong("merge", format!("`{}`", def.method), expected);
        }
        if merge.place().is_none() {
            let expected = "{query.list}, {body.list} or {body.list.member}";
            self.wrong("merge.elements", format!("`{elements}`"), expected);
        }
        if let Source::Query(list) = elements
            && !def.lists.contains(list)
        {
            let expected = "a list among the `lists` of the operation";
            self.wrong("merge.elements", format!("`{elements}`"), expected);
        }
        let shared = |key: &NameTemplate| {
            key.source == *elements || matches!(key.source, Source::Path(_) | Source::Literal)
        };
        if !def.order.iter().any(shared) {
            let expected = "an `order` key of the elements or of the path";
            self.wrong("merge.elements", format!("`{elements}`"), expected);
        }
        if !(2..=MergeDef::MOST).contains(&merge.most) {
            let expected = format!("2 to {} elements", MergeDef::MOST);
            self.wrong("merge.most", merge.most.to_string(), expected);
        }
    }
}

#[cfg(test)]
mod tests;
