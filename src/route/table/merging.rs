//! Pure. The batching of an operation's writes: checks the definition and converts it into a
//! policy.

use super::OperationDef;
use super::verify::Problems;
use crate::route::names;
use crate::route::pattern;
use crate::route::policy::{Elements, MergePolicy, NameTemplate, Source};
use http::Method;
use std::sync::Arc;

/// The configured `merge` of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeDef {
    /// Whether batching is enabled.
    pub enabled: bool,
    /// The place of the elements, with the member that identifies them.
    pub elements: Source,
    /// The largest number of elements in a batch.
    pub most: usize,
    /// The list in the `data` of a response that repeats the elements.
    pub echoes: Option<Box<str>>,
}

impl MergeDef {
    /// The upper bound of `most`: a batch has no more elements than one write may have names.
    pub const MOST: usize = names::MAX_NAMES;

    /// Batching with the defaults: up to 50 elements.
    pub fn new(elements: Source) -> Self {
        Self {
            enabled: true,
            elements,
            most: 50,
            echoes: None,
        }
    }

    fn place(&self) -> Option<Elements> {
        match &self.elements {
            Source::Query(list) => Some(Elements::Query(list.clone())),
            Source::Body(members) => match members.as_slice() {
                [list] => Some((list, None)),
                [list, name] => Some((list, Some(name))),
                _ => None,
            }
            .map(|(list, name)| Elements::Body {
                list: list.clone(),
                name: name.cloned(),
            }),
            Source::Literal | Source::Path(_) => None,
        }
    }
}

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
            self.elements(index, def, merge);
            if let Some(list) = merge
                .echoes
                .as_deref()
                .filter(|list| !pattern::is_name(list))
            {
                let expected = "a member of the answer's data that is a list";
                self.add(
                    index,
                    &def.name,
                    "merge.echoes",
                    format!("`{list}`"),
                    expected,
                );
            }
        }
    }

    /// Checks that two writes with a common element share an order key. Otherwise they could
    /// overtake each other when one of them is batched with a third.
    fn elements(&mut self, index: usize, def: &OperationDef, merge: &MergeDef) {
        let mut wrong = |key, found: String, expected: &str| {
            self.add(index, &def.name, key, found, expected);
        };
        let elements = &merge.elements;
        if !matches!(def.method, Method::POST | Method::DELETE) {
            let expected = "`merge` with POST or DELETE only: the others replace what there was";
            wrong("merge", format!("`{}`", def.method), expected);
        }
        if merge.place().is_none() {
            let expected = "{query.list}, {body.list} or {body.list.member}";
            wrong("merge.elements", format!("`{elements}`"), expected);
        }
        if let Source::Query(list) = elements
            && !def.lists.contains(list)
        {
            let expected = "a list among the `lists` of the operation";
            wrong("merge.elements", format!("`{elements}`"), expected);
        }
        let shared = |key: &NameTemplate| {
            key.source == *elements || matches!(key.source, Source::Path(_) | Source::Literal)
        };
        if !def.order.iter().any(shared) {
            let expected = "an `order` key of the elements or of the path";
            wrong("merge.elements", format!("`{elements}`"), expected);
        }
        if !(2..=MergeDef::MOST).contains(&merge.most) {
            let expected = format!("2 to {} elements", MergeDef::MOST);
            wrong("merge.most", merge.most.to_string(), &expected);
        }
    }
}

#[cfg(test)]
mod tests;
