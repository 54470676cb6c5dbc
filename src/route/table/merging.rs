//! Pure. How writes of an operation are merged, as it is written down: what can be wrong with it,
//! and what comes of it.

use super::OperationDef;
use super::verify::Problems;
use crate::route::names;
use crate::route::pattern;
use crate::route::policy::{Elements, MergePolicy, NameTemplate, Source};
use http::Method;
use std::sync::Arc;

/// `merge` of an operation as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeDef {
    /// Whether its writes are merged.
    pub enabled: bool,
    /// Where the elements are, by what names them.
    pub elements: Source,
    /// The most elements of a dispatch.
    pub most: usize,
    /// The list in the `data` of an answer that repeats the elements.
    pub echoes: Option<Box<str>>,
}

impl MergeDef {
    /// No dispatch has more elements than one write may have names.
    pub const MOST: usize = names::MAX_NAMES;

    /// Merging with the defaults: up to 50 elements.
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

/// What the definition says; `None` as well where something is wrong with it.
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

/// Whether the elements are people, by the order keys that they stand for.
fn names_people(key: &NameTemplate, merge: &MergeDef) -> bool {
    names::names_people(key) && key.source == merge.elements
}

impl Problems {
    /// Each concerns one definition alone.
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

    /// Two writes that name one element have to share an order key: merged with a third they would
    /// otherwise overtake each other.
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
