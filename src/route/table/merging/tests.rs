use super::*;
use crate::route::table::{Defaults, Problem, Table};

fn def(name: &str, method: &str, path: &str) -> OperationDef {
    OperationDef::new(name, Method::from_bytes(method.as_bytes()).unwrap(), path)
}

fn build(defs: Vec<OperationDef>) -> Result<Table, Vec<Problem>> {
    Table::build(defs, Defaults::default(), 1)
}

fn names(template: &str) -> Vec<NameTemplate> {
    vec![names::parse(template).unwrap()]
}

/// A list that is deleted, one that is created, and the reads beside them, all of it right.
fn merged() -> Vec<OperationDef> {
    let merge = |elements| Some(MergeDef::new(names::parse_placeholder(elements).unwrap()));
    let mut delete = def("delete", "DELETE", "/groups/{id}/users");
    (delete.order, delete.lists) = (names("person:{query.emails}"), vec!["emails".into()]);
    delete.merge = merge("{query.emails}");
    let mut create = def("create", "POST", "/groups/{id}/users");
    create.order = names("group:{path.id}");
    create.merge = merge("{body.users.email}");
    let how = create.merge.as_mut().unwrap();
    how.read_back = vec![("list".into(), vec!["users".into(), "email".into()])];
    how.shown_by = Some("show".into());
    let (list, show) = ("/groups/{id}/users", "/groups/{id}");
    vec![
        delete,
        create,
        def("list", "GET", list),
        def("show", "GET", show),
    ]
}

#[test]
fn what_is_known_of_merging_is_resolved() {
    let table = build(merged()).unwrap();
    let policy = |at: usize| table.operations()[at].merge.clone().unwrap();
    let read = |operation: &str, template: &str, members: &[&str]| ReadBack {
        operation: operation.into(),
        template: template.into(),
        members: members.iter().map(|member| (*member).into()).collect(),
    };
    let delete = MergePolicy {
        enabled: true,
        elements: Elements::Query("emails".into()),
        people: true,
        most: 50,
        refused: Refused::Repeatable,
        answers: Answers::Alike,
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
        refused: Refused::Shown(vec![read(
            "list",
            "/groups/{id}/users",
            &["users", "email"],
        )]),
        answers: Answers::State(read("show", "/groups/{id}", &[])),
    };
    assert_eq!(*policy(1), create);
    assert!(table.operations()[2..].iter().all(|o| o.merge.is_none()));
    let mut defs = merged();
    defs[0].merge.as_mut().unwrap().atomic = true;
    let atomic = build(defs).unwrap().operations()[0].merge.clone().unwrap();
    assert_eq!(atomic.refused, Refused::Nothing);
}

#[test]
fn what_cannot_be_merged_is_refused() {
    type Spoil = (usize, fn(&mut OperationDef, &mut MergeDef), &'static str);
    let cases: [Spoil; 15] = [
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
            |_, m| m.elements = names::parse_placeholder("{body.a.b.c}").unwrap(),
            "merge.elements",
        ),
        (0, |_, m| m.most = 1, "merge.most"),
        (0, |_, m| m.most = 1001, "merge.most"),
        (
            0,
            |_, m| m.read_back = vec![("list".into(), vec!["a".into()])],
            "merge.read_back",
        ),
        (1, |_, m| m.read_back.clear(), "merge"),
        (
            1,
            |_, m| m.read_back[0].0 = "create".into(),
            "merge.read_back",
        ),
        (
            1,
            |_, m| m.read_back[0].1 = vec!["".into()],
            "merge.read_back",
        ),
        (1, |_, m| m.shown_by = None, "merge.read_back"),
        (
            1,
            |_, m| m.shown_by = Some("nothing".into()),
            "merge.shown_by",
        ),
        (1, |_, m| m.echoes = Some("emails".into()), "merge.shown_by"),
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
    // What is only described need not be safe.
    let mut defs = merged();
    let merge = defs[1].merge.as_mut().unwrap();
    (merge.enabled, merge.shown_by) = (false, None);
    merge.read_back.clear();
    assert!(build(defs).is_ok());
    // A read below something that the write does not name.
    let mut defs = merged();
    defs[3].path = "/others/{other}".into();
    assert_eq!(build(defs).unwrap_err()[0].key, "merge.shown_by");
}
