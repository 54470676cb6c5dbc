//! Pure. Groups of operations: those that come with the gateway, and those of the file of clients.
//!
//! The gateway's own follow from the route table, so an operation that a new table has is in them
//! at once. The two operations for unmatched requests are in no group: whoever may send them may
//! send anything.

use crate::route::table::{UNMATCHED_READ, UNMATCHED_WRITE};
use crate::route::{Effect, Operation, Table};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The groups that come with the gateway.
pub const SHIPPED_GROUPS: [&str; 4] = ["reads", "writes", "iam-reads", "iam-writes"];

/// The first segments of the paths that are about people and what they may do.
const IAM: [&str; 4] = ["invites", "users", "groups", "roles"];

/// All operations and groups that a name may stand for.
#[derive(Debug)]
pub struct OperationGroups<'a> {
    operations: BTreeSet<&'a str>,
    shipped: BTreeMap<&'static str, Vec<&'a str>>,
    own: &'a BTreeMap<Box<str>, Vec<Box<str>>>,
}

impl<'a> OperationGroups<'a> {
    /// Returns the groups of a table, and these own ones.
    pub fn new(table: &'a Table, own: &'a BTreeMap<Box<str>, Vec<Box<str>>>) -> Self {
        let operations = table.operations();
        let shipped = SHIPPED_GROUPS.map(|group| {
            let members = operations.iter().filter(|one| is_in(group, one));
            (group, members.map(|one| &*one.name).collect())
        });
        Self {
            operations: operations.iter().map(|one| &*one.name).collect(),
            shipped: shipped.into(),
            own,
        }
    }

    /// Returns whether the name is that of an operation.
    pub fn is_operation(&self, name: &str) -> bool {
        self.operations.contains(name)
    }

    /// Returns whether the name is that of an operation or group.
    pub fn knows(&self, name: &str) -> bool {
        self.is_operation(name) || self.shipped.contains_key(name) || self.own.contains_key(name)
    }

    /// Returns all names, for a proposal.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let shipped = self.shipped.keys().copied();
        let own = self.own.keys().map(AsRef::as_ref);
        shipped.chain(own).chain(self.operations.iter().copied())
    }

    /// Returns the operations that are listed, by themselves or in groups.
    pub fn expand<'n>(&'n self, listed: &'n [Box<str>]) -> HashSet<&'n str> {
        let walked = self.walk(listed);
        let names = walked.into_iter().map(|step| step.name);
        names.filter(|name| self.is_operation(name)).collect()
    }

    /// Returns whether an own group is listed in itself, directly or through others.
    pub fn contains_itself(&self, group: &str) -> bool {
        let listed = self.own.get(group).map_or(&[][..], |listed| listed);
        self.walk(listed).iter().any(|step| step.name == group)
    }

    /// Returns how the listed names lead to an operation: groups, the outermost first, then the
    /// operation. `None` if they do not.
    pub fn way_to<'n>(&'n self, listed: &'n [Box<str>], operation: &str) -> Option<Vec<&'n str>> {
        let walked = self.walk(listed);
        let mut at = walked.iter().position(|step| step.name == operation)?;
        let mut way = vec![walked[at].name];
        while let Some(from) = walked[at].from {
            at = from;
            way.push(walked[at].name);
        }
        way.reverse();
        Some(way)
    }

    /// Returns every name that can be reached, each once, the nearest first. A group that contains
    /// itself is no harm here.
    fn walk<'n>(&'n self, listed: &'n [Box<str>]) -> Vec<Step<'n>> {
        let mut steps = Vec::new();
        let mut seen = HashSet::new();
        let mut add = |steps: &mut Vec<Step<'n>>, name: &'n str, from| {
            if seen.insert(name) {
                steps.push(Step { name, from });
            }
        };
        for name in listed {
            add(&mut steps, name, None);
        }
        let mut at = 0;
        while let Some(step) = steps.get(at) {
            let name = step.name;
            let shipped = self.shipped.get(name).into_iter().flatten().copied();
            let own = self.own.get(name).into_iter().flatten().map(AsRef::as_ref);
            for member in shipped.chain(own) {
                add(&mut steps, member, Some(at));
            }
            at += 1;
        }
        steps
    }
}

/// A name that was reached.
struct Step<'n> {
    name: &'n str,
    /// The position of the group through which it was.
    from: Option<usize>,
}

/// Returns whether an operation is in a group that comes with the gateway.
fn is_in(group: &str, operation: &Operation) -> bool {
    if [UNMATCHED_READ, UNMATCHED_WRITE].contains(&&*operation.name) {
        return false;
    }
    let mut segments = operation.template.trim_start_matches('/').split('/');
    let is_iam = segments.next().is_some_and(|first| IAM.contains(&first));
    match group {
        "reads" => operation.effect == Effect::Read,
        "writes" => operation.effect == Effect::Write,
        "iam-reads" => is_iam && operation.effect == Effect::Read,
        "iam-writes" => is_iam && operation.effect == Effect::Write,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Defaults, OperationDef};
    use http::Method;

    fn table() -> Table {
        let defs = [
            ("listUsers", Method::GET, "/users"),
            ("createInvites", Method::POST, "/invites"),
            ("getSource", Method::GET, "/sources/{sourceId}"),
            ("deleteSource", Method::DELETE, "/sources/{sourceId}"),
        ];
        let defs = defs.map(|(name, method, path)| OperationDef::new(name, method, path));
        Table::build(defs.into(), Defaults::default(), 1).unwrap()
    }

    fn list(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|name| (*name).into()).collect()
    }

    #[test]
    fn a_table_of_lists() {
        let table = table();
        let own = BTreeMap::from([
            ("onboarding".into(), list(&["iam-reads", "createInvites"])),
            ("all".into(), list(&["onboarding", "reads", "writes"])),
            ("loop".into(), list(&["loop-back", "getSource"])),
            ("loop-back".into(), list(&["loop"])),
        ]);
        let groups = OperationGroups::new(&table, &own);
        for (listed, expected) in [
            (&[][..], &[][..]),
            (&["getSource"], &["getSource"]),
            (&["reads"], &["getSource", "listUsers"]),
            (&["writes"], &["createInvites", "deleteSource"]),
            (&["iam-reads"], &["listUsers"]),
            (&["iam-writes"], &["createInvites"]),
            (&["onboarding"], &["createInvites", "listUsers"]),
            (
                &["all"],
                &["createInvites", "deleteSource", "getSource", "listUsers"],
            ),
            (&["loop"], &["getSource"]),
            (&["unknown"], &[]),
            (&["unmatchedRead"], &["unmatchedRead"]),
        ] {
            let listed = list(listed);
            let mut found: Vec<_> = groups.expand(&listed).into_iter().collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{listed:?}");
        }
        assert!(groups.contains_itself("loop") && groups.contains_itself("loop-back"));
        assert!(!groups.contains_itself("all"));
    }

    #[test]
    fn the_way_to_an_operation_is_the_shortest() {
        let table = table();
        let own = BTreeMap::from([
            ("onboarding".into(), list(&["iam-reads", "createInvites"])),
            ("all".into(), list(&["onboarding", "reads"])),
        ]);
        let groups = OperationGroups::new(&table, &own);
        for (listed, operation, expected) in [
            (
                &["all"][..],
                "listUsers",
                Some(&["all", "reads", "listUsers"][..]),
            ),
            (&["all", "listUsers"], "listUsers", Some(&["listUsers"])),
            (
                &["all"],
                "createInvites",
                Some(&["all", "onboarding", "createInvites"]),
            ),
            (&["all"], "deleteSource", None),
            (&["all"], "unmatchedRead", None),
        ] {
            let listed = list(listed);
            let found = groups.way_to(&listed, operation);
            assert_eq!(found.as_deref(), expected, "{listed:?} {operation}");
        }
    }
}
