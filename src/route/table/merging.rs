//! Pure. How writes of an operation are merged, as it is written down: what can be wrong with it,
//! and what comes of it.

use super::OperationDef;
use super::verify::Problems;
use crate::route::names;
use crate::route::pattern::{self, Segment};
use crate::route::policy::{
    Answers, Elements, MergePolicy, NameTemplate, ReadBack, Refused, Source,
};
use http::Method;
use std::collections::BTreeMap;
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
    /// Whether the API applies such a list as a whole or not at all.
    pub atomic: bool,
    /// Reads that show which elements have taken effect, and where in their `data`.
    pub read_back: Vec<(Arc<str>, Vec<Box<str>>)>,
    /// The list in the `data` of an answer that repeats the elements.
    pub echoes: Option<Box<str>>,
    /// The read that answers the same as the write.
    pub shown_by: Option<Box<str>>,
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
            atomic: false,
            read_back: Vec::new(),
            echoes: None,
            shown_by: None,
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

/// The templates of all operations that read, by name.
pub(super) fn reads(defs: &[OperationDef]) -> BTreeMap<Arc<str>, Box<str>> {
    let reads = defs.iter().filter(|def| def.method == Method::GET);
    reads
        .map(|def| (def.name.clone(), def.path.clone()))
        .collect()
}

/// What the definition says; `None` as well where something is wrong with it.
pub(super) fn policy(
    def: &OperationDef,
    reads: &BTreeMap<Arc<str>, Box<str>>,
) -> Option<Arc<MergePolicy>> {
    let merge = def.merge.as_ref()?;
    let read = |name: &str, members: &[Box<str>]| {
        let (operation, template) = reads.get_key_value(name)?;
        Some(ReadBack {
            operation: operation.clone(),
            template: template.clone(),
            members: members.to_vec(),
        })
    };
    let read_back = merge.read_back.iter();
    let refused = match (merge.atomic, def.method == Method::DELETE) {
        (true, _) => Refused::Nothing,
        (false, true) => Refused::Repeatable,
        (false, false) => Refused::Shown(
            read_back
                .map(|(name, members)| read(name, members))
                .collect::<Option<_>>()?,
        ),
    };
    let answers = match (&merge.echoes, &merge.shown_by) {
        (Some(list), _) => Answers::Echo(list.clone()),
        (None, Some(name)) => Answers::State(read(name, &[])?),
        (None, None) => Answers::Alike,
    };
    Some(Arc::new(MergePolicy {
        enabled: merge.enabled,
        elements: merge.place()?,
        people: def.order.iter().any(|key| names_people(key, merge)),
        most: merge.most,
        refused,
        answers,
    }))
}

/// Whether the elements are people, by the order keys that they stand for.
fn names_people(key: &NameTemplate, merge: &MergeDef) -> bool {
    names::names_people(key) && key.source == merge.elements
}

impl Problems {
    /// What reads back must be known as a read; the rest concerns one definition alone.
    pub(super) fn merges(&mut self, defs: &[OperationDef]) {
        let reads = reads(defs);
        for (index, def) in defs.iter().enumerate() {
            let Some(merge) = &def.merge else { continue };
            self.elements(index, def, merge);
            self.outcome(index, def, merge);
            let shown_by = merge.shown_by.as_deref();
            let named = merge
                .read_back
                .iter()
                .map(|(name, _)| ("merge.read_back", &**name));
            for (key, name) in named.chain(shown_by.map(|name| ("merge.shown_by", name))) {
                if !reads
                    .get(name)
                    .is_some_and(|read| is_within(read, &def.path))
                {
                    let expected = format!(
                        "an operation with GET and no other path parameters than `{}`",
                        def.path
                    );
                    self.add(index, &def.name, key, format!("`{name}`"), expected);
                }
            }
            let members = merge.read_back.iter().flat_map(|(_, members)| members);
            for member in members.filter(|member| !pattern::is_name(member)) {
                let expected = "members of the answer's data, as in `users.email`";
                self.add(
                    index,
                    &def.name,
                    "merge.read_back",
                    format!("`{member}`"),
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

    /// What is not idempotent must not be sent again before it is known what took effect.
    fn outcome(&mut self, index: usize, def: &OperationDef, merge: &MergeDef) {
        let mut wrong = |key, found: &str, expected: &str| {
            self.add(index, &def.name, key, found.to_owned(), expected);
        };
        let told_by_reading = def.method != Method::DELETE && !merge.atomic;
        if merge.enabled && told_by_reading && merge.read_back.is_empty() {
            let expected = "`read_back`, or `atomic = true` if the API never applies a part of it";
            wrong(
                "merge",
                "a refusal that leaves in doubt what took effect",
                expected,
            );
        }
        if !told_by_reading && !merge.read_back.is_empty() {
            let expected = "`read_back` only where the operation is neither DELETE nor atomic";
            wrong("merge.read_back", "nothing that has to be read", expected);
        }
        match (&merge.echoes, &merge.shown_by) {
            (Some(_), Some(_)) => {
                wrong(
                    "merge.shown_by",
                    "`echoes` beside `shown_by`",
                    "one of them",
                );
            }
            (None, None) if !merge.read_back.is_empty() => {
                let expected = "`echoes` or `shown_by`, to answer what was read to be done";
                wrong("merge.read_back", "no answer for it", expected);
            }
            (Some(list), None) if !pattern::is_name(list) => {
                let expected = "a member of the answer's data that is a list";
                wrong("merge.echoes", &format!("`{list}`"), expected);
            }
            _ => {}
        }
    }
}

/// Whether all parameters of one template are among those of another.
fn is_within(read: &str, write: &str) -> bool {
    let (Ok(read), Ok(write)) = (pattern::parse(read), pattern::parse(write)) else {
        return false;
    };
    let mut parameters = read.iter().filter(|s| matches!(s, Segment::Parameter(_)));
    parameters.all(|parameter| write.contains(parameter))
}

#[cfg(test)]
mod tests;
