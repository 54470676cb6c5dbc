use super::*;
use crate::route::policy::Elements;
use crate::route::table::{Defaults, RouteProblem, Table};
use crate::route::template;

fn def(name: &str, method: &str, path: &str) -> OperationDef {
    OperationDef::new(name, Method::from_bytes(method.as_bytes()).unwrap(), path)
}

fn build(defs: Vec<OperationDef>) -> Result<Table, Vec<RouteProblem>> {
    Table::build(defs, Defaults::default(), 1)
}

fn names(template: &str) -> Vec<NameTemplate> {
    vec![template::parse(template).unwrap()]
}

/// A list that is deleted and one that is created, all of it right.
fn merged() -> Vec<OperationDef> {
    let merge = |elements| {
        Some(MergeDef::new(
            template::parse_placeholder(elements).unwrap(),
        ))
    };
    let mut delete = def("delete", "DELETE", "/groups/{id}/users");
    (delete.order, delete.lists) = (names("person:{query.emails}"), vec!["emails".into()]);
    delete.merge = merge("{query.emails}");
    let mut create = def("create", "POST", "/groups/{id}/users");
    create.order = names("group:{path.id}");
    create.merge = merge("{body.users.email}");
    create.merge.as_mut().unwrap().echoes = Some("emails".into());
    vec![delete, create, def("list", "GET", "/groups/{id}/users")]
}

#[test]
fn what_is_known_of_merging_is_resolved() {
    let table = build(merged()).unwrap();
    let policy = |at: usize| table.operations()[at].merge.clone().unwrap();
    let delete = MergePolicy {
        enabled: true,
        elements: Elements::Query("emails".into()),
        people: true,
        most: 50,
        echoes: None,
    };
    assert_eq!(*policy(0), delete);
    let create = MergePolicy {
        enabled: true,
        elements: Elements::Body {
            list: "users".into(),
            name: Some("email".into()),
        },
        people: false,
        most: 50,
        echoes: Some("emails".into()),
    };
    assert_eq!(*policy(1), create);
    assert!(table.operations()[2..].iter().all(|o| o.merge.is_none()));
}

#[test]
fn what_cannot_be_merged_is_refused() {
    type Spoil = (usize, fn(&mut OperationDef, &mut MergeDef), &'static str);
    let cases: [Spoil; 9] = [
        (0, |d, _| d.method = Method::PUT, "merge"),
        (
            0,
            |_, m| m.elements = Source::Path("id".into()),
            "merge.elements",
        ),
        (
            0,
            |_, m| m.elements = Source::Query("ids".into()),
            "merge.elements",
        ),
        (0, |d, _| d.lists.clear(), "merge.elements"),
        (0, |d, _| d.order.clear(), "merge.elements"),
        (
            1,
            |_, m| m.elements = template::parse_placeholder("{body.a.b.c}").unwrap(),
            "merge.elements",
        ),
        (0, |_, m| m.most = 1, "merge.most"),
        (0, |_, m| m.most = 1001, "merge.most"),
        (1, |_, m| m.echoes = Some("".into()), "merge.echoes"),
    ];
    for (at, spoil, key) in cases {
        let mut defs = merged();
        let mut merge = defs[at].merge.take().unwrap();
        spoil(&mut defs[at], &mut merge);
        defs[at].merge = Some(merge);
        let problems = build(defs).unwrap_err();
        let keys: Vec<_> = problems.iter().map(|problem| problem.key).collect();
        assert!(keys.contains(&key), "{key} in {problems:?}");
        assert!(problems.iter().all(|problem| problem.definition == at));
    }
}
