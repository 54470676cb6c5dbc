//! Pure. The operations that a client may use.
//!
//! Rights are decided on the operation that the route table has found, the same one that is
//! dispatched. Operations that are not listed are denied. A request whose path spells a template
//! differently, or whose method may be overridden, needs the right to unmatched requests as well:
//! nobody knows which operation the API takes it for.
//!
//! Rights belong to one route table. Beside a table with other operations in other places they
//! never allow an operation of another name.

use crate::route::table::{UNMATCHED_READ, UNMATCHED_WRITE};
use crate::route::{Effect, Operation, Table};
use std::sync::Arc;

/// The names of a route table's operations by their index. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationIndex(Arc<[Arc<str>]>);

impl OperationIndex {
    /// Returns that of a table.
    pub fn of(table: &Table) -> Self {
        let operations = table.operations().iter();
        Self(operations.map(|operation| operation.name.clone()).collect())
    }

    /// Returns the index of an operation.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|known| **known == *name)
    }
}

/// A set of operations: one bit for each in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    words: Box<[u64]>,
    index: OperationIndex,
    unmatched_read: bool,
    unmatched_write: bool,
}

impl Rights {
    /// Returns the rights to nothing.
    pub fn none(index: &OperationIndex) -> Self {
        Self {
            words: vec![0; index.0.len().div_ceil(64)].into(),
            index: index.clone(),
            unmatched_read: false,
            unmatched_write: false,
        }
    }

    /// Adds the operation with this index. One that the table does not have is ignored.
    pub fn grant(&mut self, index: usize) {
        let Some(name) = self.index.0.get(index) else {
            return;
        };
        self.unmatched_read |= **name == *UNMATCHED_READ;
        self.unmatched_write |= **name == *UNMATCHED_WRITE;
        if let Some(word) = self.words.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// Returns the operation to which a request has no right, of those to which it needs one;
    /// `None` if it is allowed. `operation` is what it was resolved to. `is_overridden` says that a
    /// field of the request may change its method.
    pub fn missing(&self, operation: &Operation, is_overridden: bool) -> Option<Arc<str>> {
        if !self.has(operation) {
            return Some(operation.name.clone());
        }
        let (unmatched, has_unmatched) = match operation.effect {
            Effect::Read if !is_overridden => (UNMATCHED_READ, self.unmatched_read),
            Effect::Read | Effect::Write => (UNMATCHED_WRITE, self.unmatched_write),
        };
        let is_certain = operation.method.is_some() && !is_overridden;
        (!is_certain && !has_unmatched).then(|| unmatched.into())
    }

    /// Returns the number of operations.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Returns the names of the operations in the order of the table.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let names = self.index.0.iter().enumerate();
        names.filter(|(at, _)| self.bit(*at)).map(|(_, name)| name)
    }

    /// The name decides, not the index alone: see above.
    fn has(&self, operation: &Operation) -> bool {
        let name = self.index.0.get(operation.index);
        self.bit(operation.index) && name.is_some_and(|name| *name == operation.name)
    }

    fn bit(&self, at: usize) -> bool {
        let word = self.words.get(at / 64);
        word.is_some_and(|word| word >> (at % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Defaults, OperationDef};
    use http::Method;
    use proptest::prelude::*;

    fn table(names: &[&str]) -> Table {
        let defs = names.iter().map(|name| {
            let path = format!("/{name}/{{id}}");
            OperationDef::new(name, Method::GET, &path)
        });
        Table::build(defs.collect(), Defaults::default(), 1).unwrap()
    }

    fn rights(table: &Table, granted: &[&str]) -> Rights {
        let index = OperationIndex::of(table);
        let mut rights = Rights::none(&index);
        for name in granted {
            rights.grant(index.position(name).unwrap());
        }
        rights
    }

    #[test]
    fn a_table_of_requests() {
        let table = table(&["one", "two"]);
        let one = rights(&table, &["one"]);
        let unmatched = rights(&table, &["unmatchedRead"]);
        let both = rights(&table, &["one", "unmatchedRead"]);
        let all = rights(&table, &["one", "unmatchedRead", "unmatchedWrite"]);
        for (rights, method, path, is_overridden, expected) in [
            (&one, Method::GET, "/one/1", false, true),
            (&one, Method::HEAD, "/one/1", false, true),
            (&one, Method::GET, "/two/1", false, false),
            (&one, Method::GET, "/three", false, false),
            (&one, Method::POST, "/one/1", false, false),
            (
                &one,
                Method::from_bytes(b"BREW").unwrap(),
                "/one/1",
                false,
                false,
            ),
            // Another spelling of a path may be anything to the API.
            (&one, Method::GET, "/one/1/", false, false),
            (&unmatched, Method::GET, "/one/1/", false, false),
            (&both, Method::GET, "/one/1/", false, true),
            (&unmatched, Method::GET, "/three", false, true),
            (&unmatched, Method::DELETE, "/three", false, false),
            // An overridden method may be any write.
            (&both, Method::GET, "/one/1", true, false),
            (&all, Method::GET, "/one/1", true, true),
            (&all, Method::GET, "/two/1", true, false),
        ] {
            let operation = table.find(&method, path).operation;
            let found = rights.missing(&operation, is_overridden).is_none();
            assert_eq!(found, expected, "{method} {path} {is_overridden}");
        }
        assert_eq!((one.count(), all.count()), (1, 3));
        assert_eq!(
            all.names().map(|name| &**name).collect::<Vec<_>>(),
            ["one", "unmatchedRead", "unmatchedWrite"]
        );
    }

    #[test]
    fn rights_of_one_table_are_none_in_another_place() {
        let (old, new) = (table(&["one", "two"]), table(&["zero", "one", "two"]));
        let rights = rights(&old, &["two"]);
        for path in ["/zero/1", "/one/1", "/two/1"] {
            let operation = new.find(&Method::GET, path).operation;
            assert!(rights.missing(&operation, false).is_some(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_is_granted_is_permitted_and_nothing_else(granted in proptest::collection::vec(0_usize..140, 0..20)) {
            let names: Vec<String> = (0..130).map(|n| format!("o{n}")).collect();
            let table = table(&names.iter().map(String::as_str).collect::<Vec<_>>());
            let mut rights = Rights::none(&OperationIndex::of(&table));
            granted.iter().for_each(|index| rights.grant(*index));
            for operation in &table.operations()[..130] {
                let is_allowed = rights.missing(operation, false).is_none();
                prop_assert_eq!(is_allowed, granted.contains(&operation.index));
            }
        }
    }
}
