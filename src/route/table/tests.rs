use super::*;
use crate::route::policy::{BudgetSpec, Directives, NameTemplate, Rate, Source};
use crate::route::template;
use proptest::prelude::*;
use std::time::Duration;

fn def(name: &str, method: &str, path: &str) -> OperationDef {
    OperationDef::new(name, Method::from_bytes(method.as_bytes()).unwrap(), path)
}

fn build(defs: Vec<OperationDef>) -> Result<Table, Vec<RouteProblem>> {
    Table::build(defs, Defaults::default(), 1)
}

fn names(templates: &[&str]) -> Vec<NameTemplate> {
    templates
        .iter()
        .map(|text| template::parse(text).unwrap())
        .collect()
}

fn found(table: &Table, method: &str, path: &str) -> String {
    let found = table.find(&Method::from_bytes(method.as_bytes()).unwrap(), path);
    let mut text = found.operation.name.to_string();
    if found.operation.method.is_none() && !text.starts_with("unmatched") {
        text.insert(0, '~');
    }
    for (name, value) in found.params.iter() {
        text += &format!(" {name}={value}");
    }
    text
}

#[test]
fn requests_mean_operations() {
    let table = build(vec![
        def("root", "GET", "/"),
        def("listUsers", "GET", "/users"),
        def("deleteUsers", "DELETE", "/users"),
        def("getUser", "GET", "/users/{userId}"),
        def("getMe", "GET", "/users/me"),
        def("replace", "PUT", "/users/{id}/permissions"),
        def("myGroups", "GET", "/users/me/groups"),
        def("label", "DELETE", "/labels/{key}/{value}"),
        def("createPreview", "POST", "/audiences/previews"),
        def("getAudience", "GET", "/audiences/{id}"),
        def("deep", "GET", "/{a}/b/{c}/d"),
    ])
    .unwrap();
    for (method, path, expected) in [
        ("GET", "/", "root"),
        ("GET", "/users", "listUsers"),
        ("HEAD", "/users", "listUsers"),
        ("DELETE", "/users", "deleteUsers"),
        ("GET", "/users/a%40b", "getUser userId=a@b"),
        // A literal beats a parameter ...
        ("GET", "/users/me", "getMe"),
        ("HEAD", "/users/me", "getMe"),
        // ... unless it leads nowhere: then the parameter is tried.
        ("PUT", "/users/me/permissions", "replace id=me"),
        ("GET", "/users/me/groups", "myGroups"),
        ("GET", "/users/b/x/d", "deep a=users c=x"),
        ("GET", "/x/b/users/d", "deep a=x c=users"),
        ("GET", "/labels/b/users/d", "deep a=labels c=users"),
        ("POST", "/audiences/previews", "createPreview"),
        ("GET", "/audiences/previews", "getAudience id=previews"),
        ("HEAD", "/audiences/previews", "getAudience id=previews"),
        ("DELETE", "/labels/a%20b/c", "label key=a b value=c"),
        // Methods that are not in the table, by their effect.
        ("POST", "/users", "unmatchedWrite"),
        ("HEAD", "/nowhere", "unmatchedRead"),
        ("OPTIONS", "/users", "unmatchedRead"),
        ("TRACE", "/users", "unmatchedRead"),
        ("PROPFIND", "/users", "unmatchedWrite"),
        ("get", "/users", "unmatchedWrite"),
        ("CONNECT", "/users", "unmatchedWrite"),
        // Spellings that a lenient server may take for one that matches.
        ("GET", "/users/", "~listUsers"),
        ("GET", "//users", "~listUsers"),
        ("GET", "/users/%61", "~getUser userId=a"),
        ("DELETE", "/users/../users", "~deleteUsers"),
        ("GET", "/Users", "~listUsers"),
        // Spellings that match nothing.
        ("GET", "/users/a%2Fb", "unmatchedRead"),
        ("GET", "/users/%ff", "unmatchedRead"),
        ("GET", "/users/%", "unmatchedRead"),
        ("GET", "*", "unmatchedRead"),
        ("GET", "", "unmatchedRead"),
    ] {
        assert_eq!(found(&table, method, path), expected, "{method} {path}");
    }
}

#[test]
fn operations_are_dense_and_end_with_the_unmatched() {
    let mut write = def("w", "POST", "/w");
    write.writes = Some(vec![]);
    let table = build(vec![def("r", "GET", "/r"), write, def("x", "PUT", "/x")]).unwrap();
    let listed: Vec<_> = table
        .operations()
        .iter()
        .map(|o| {
            (
                &*o.name,
                o.index,
                o.effect,
                o.budget.rate.limit,
                o.touches.clone(),
            )
        })
        .collect();
    let none = Touches::Tags(vec![]);
    assert_eq!(
        listed,
        [
            ("r", 0, Effect::Read, 200, none.clone()),
            ("w", 1, Effect::Write, 60, none.clone()),
            ("x", 2, Effect::Write, 60, Touches::Everything),
            (UNMATCHED_READ, 3, Effect::Read, 200, none),
            (UNMATCHED_WRITE, 4, Effect::Write, 60, Touches::Everything),
        ]
    );
    assert!(table.operations().iter().all(|o| !o.budget.documented));
    assert!(
        table.operations()[3..]
            .iter()
            .all(|o| o.method.is_none() && o.cache.is_some() == (o.effect == Effect::Read))
    );
}

#[test]
fn the_time_scale_divides_every_window() {
    let minute = Duration::from_secs(60);
    for (scale, window) in [(0, minute), (1, minute), (60, Duration::from_secs(1))] {
        let mut documented = def("d", "POST", "/d");
        let rate = Rate {
            limit: 5,
            window: minute,
        };
        documented.budget = Some(BudgetSpec {
            name: "d".into(),
            rate,
            documented: true,
        });
        let defs = vec![documented, def("r", "GET", "/r")];
        let table = Table::build(defs, Defaults::default(), scale).unwrap();
        assert!(
            table
                .operations()
                .iter()
                .all(|o| o.budget.rate.window == window),
            "{scale}"
        );
    }
}

#[test]
fn templates_equal_up_to_names_are_refused_with_both_names() {
    let problems = build(vec![
        def("first", "GET", "/users/{userId}/x"),
        def("other", "POST", "/users/{id}/x"),
        def("second", "GET", "/users/{id}/x"),
    ])
    .unwrap_err();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].definition, 2);
    let text = problems[0].to_string();
    for part in [
        "operations.second.path",
        "`first`",
        "/users/{userId}/x",
        "/users/{id}/x",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

/// A change to a definition, and the key it makes wrong.
type Spoil = (fn(&mut OperationDef), &'static str);

#[test]
fn wrong_definitions_are_refused() {
    let read: [Spoil; 14] = [
        (|d| d.name = "a b".into(), "name"),
        (|d| d.name = UNMATCHED_READ.into(), "name"),
        (|d| d.path = "users".into(), "path"),
        (|d| d.method = Method::OPTIONS, "method"),
        (|d| d.cache = Some(Duration::from_secs(1)), "cache"),
        (|d| d.caching.heuristic_percent = 101, "heuristic_percent"),
        (
            |d| d.caching.directives = Directives::Operator,
            "cache_directives",
        ),
        (
            |d| {
                d.cache = Some(Duration::from_secs(1));
                d.reads = names(&["users"]);
                d.caching.heuristic_percent = 10;
            },
            "heuristic_percent",
        ),
        (|d| d.writes = Some(vec![]), "writes"),
        (|d| d.order = names(&["users"]), "order"),
        (|d| d.barrier = vec!["person".into()], "barrier"),
        (|d| d.lists = vec!["a.b".into()], "lists"),
        (
            |d| {
                d.cache = Some(Duration::ZERO);
                d.caching.stale_if_error = Some(Duration::from_secs(1));
            },
            "stale_if_error",
        ),
        (
            |d| {
                d.cache = Some(Duration::from_secs(1));
                d.reads = names(&["user:{body.id}"]);
            },
            "reads",
        ),
    ];
    let write: [Spoil; 8] = [
        (
            |d| d.caching.stale_if_limited = Some(Duration::from_secs(1)),
            "stale_if_limited",
        ),
        (|d| d.cache = Some(Duration::from_secs(1)), "cache"),
        (|d| d.writes = Some(names(&["user:{path.other}"])), "writes"),
        (|d| d.order = names(&["user:{query.ids}"]), "order"),
        (|d| d.barrier = vec!["per:son".into()], "barrier"),
        (
            |d| {
                d.order = vec![NameTemplate {
                    prefix: "a{b".into(),
                    source: Source::Literal,
                }]
            },
            "order",
        ),
        (|d| d.budget = Some(budget("b", 0)), "limit"),
        (|d| d.budget = Some(budget("other", 1)), "budget"),
    ];
    let reads = read.into_iter().map(|spoil| ("GET", spoil));
    for (method, (spoil, key)) in reads.chain(write.into_iter().map(|spoil| ("POST", spoil))) {
        let mut wrong = def("wrong", method, "/users/{userId}");
        spoil(&mut wrong);
        let problems = build(vec![def("other", "GET", "/other"), wrong.clone()]).unwrap_err();
        let keys: Vec<_> = problems.iter().map(|problem| problem.key).collect();
        assert!(keys.contains(&key), "{key} in {problems:?}");
        assert!(
            problems.iter().all(|problem| problem.definition == 1),
            "{problems:?}"
        );
    }
    let twice = build(vec![def("a", "GET", "/a"), def("a", "GET", "/b")]).unwrap_err();
    assert_eq!((twice.len(), twice[0].key), (1, "name"));
}

fn budget(name: &str, limit: u32) -> BudgetSpec {
    let rate = Rate {
        limit,
        window: Duration::from_secs(60),
    };
    BudgetSpec {
        name: name.into(),
        rate,
        documented: true,
    }
}

#[test]
fn a_shared_budget_has_one_rate() {
    let pair = |one, other| {
        let (mut a, mut b) = (def("a", "POST", "/a"), def("b", "POST", "/b"));
        (a.budget, b.budget) = (Some(budget("shared", one)), Some(budget("shared", other)));
        build(vec![a, b])
    };
    let table = pair(5, 5).unwrap();
    assert_eq!(table.operations()[0].budget, table.operations()[1].budget);
    assert_eq!(pair(5, 6).unwrap_err()[0].key, "budget");
}

#[test]
fn all_problems_are_found_at_once() {
    let mut cached = def("c", "POST", "/c/");
    cached.cache = Some(Duration::from_secs(1));
    let problems = build(vec![def("1", "GET", "x"), cached, def("d", "TRACE", "/d")]).unwrap_err();
    let mut keys: Vec<_> = problems.iter().map(|p| (p.definition, p.key)).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            (0, "name"),
            (0, "path"),
            (1, "cache"),
            (1, "path"),
            (2, "method")
        ]
    );
}

#[test]
fn tags_that_nothing_reads_are_told() {
    let mut read = def("r", "GET", "/r");
    read.cache = Some(Duration::from_secs(1));
    read.reads = names(&["users", "user:{query.id}"]);
    read.lists = vec!["id".into()];
    let mut write = def("w", "POST", "/w/{x}");
    write.writes = Some(names(&[
        "users",
        "user:{path.x}",
        "userz",
        "group:{path.x}",
    ]));
    let table = build(vec![read, write]).unwrap();
    let unread: Vec<_> = table
        .unread_tags()
        .into_iter()
        .map(|(_, tag)| tag)
        .collect();
    assert_eq!(unread, ["userz", "group:{path.x}"]);
}

/// The specification of look-up without a tree: of all templates that match, the one that has a
/// literal at the first segment where they differ.
fn naive<'d>(defs: &'d [OperationDef], method: &Method, path: &str) -> Option<&'d str> {
    let split = pattern::split(path)?;
    let candidates = defs
        .iter()
        .filter(|def| def.method == *method)
        .filter_map(|def| {
            let template = pattern::parse(&def.path).unwrap();
            let fits = template.len() == split.segments().len()
                && template
                    .iter()
                    .zip(split.segments())
                    .all(|(segment, raw)| match segment {
                        TemplateSegment::Literal(text) => **text == **raw,
                        TemplateSegment::Parameter(_) => true,
                    });
            let rank: Vec<bool> = template
                .iter()
                .map(|s| matches!(s, TemplateSegment::Parameter(_)))
                .collect();
            fits.then_some((rank, &*def.name))
        });
    candidates.min().map(|(_, name)| name)
}

proptest! {
    #[test]
    fn lookup_agrees_with_its_specification(
        shapes in prop::collection::btree_set(
            (prop::sample::select(vec!["GET", "PUT"]), prop::collection::vec(prop::sample::select(vec!["a", "b", "{}"]), 0..4)),
            0..12,
        ),
        path in prop::collection::vec("[abc]", 0..5),
        method in prop::sample::select(vec!["GET", "PUT"]),
    ) {
        let defs: Vec<_> = shapes.iter().enumerate().map(|(index, (method, shape))| {
            let path: Vec<_> = shape.iter().enumerate().map(|(at, segment)| match *segment {
                "{}" => format!("{{p{index}x{at}}}"),
                literal => literal.to_owned(),
            }).collect();
            def(&format!("o{index}"), method, &format!("/{}", path.join("/")))
        }).collect();
        let table = build(defs.clone()).unwrap();
        let path = format!("/{}", path.join("/"));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let found = table.find(&method, &path);
        let expected = naive(&defs, &method, &path);
        let name = found.operation.method.is_some().then_some(&*found.operation.name);
        prop_assert_eq!(name, expected, "{} {}", method, path);
        let plain = table.find_plain(&method, &path).map(|operation| &*operation.name);
        prop_assert_eq!(plain, expected.filter(|_| path != "/"), "{} {}", method, path);
    }

    #[test]
    fn what_is_found_quickly_is_what_is_found(path in "/[ab/.%25;\\\\-]{0,12}|\\PC*") {
        let defs = ["/{a}", "/a", "/{a}/b", "/a/{b}", "/{a}/{b}/{c}"];
        let defs = defs.iter().enumerate();
        let defs = defs.map(|(index, path)| def(&format!("o{index}"), "GET", path));
        let table = build(defs.collect()).unwrap();
        if let Some(plain) = table.find_plain(&Method::GET, &path) {
            prop_assert_eq!(plain.index, table.find(&Method::GET, &path).operation.index);
        }
    }

    #[test]
    fn every_request_has_an_operation(method in "[A-Z]{1,8}", path in "\\PC*") {
        let table = build(vec![def("a", "GET", "/{a}"), def("b", "GET", "/{a}/b")]).unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let found = table.find(&method, &path);
        prop_assert_eq!(found.operation.effect, Effect::of(&method));
    }
}

#[test]
fn another_spelling_has_the_budget_and_the_lanes_of_the_operation_and_nothing_else() {
    let mut put = OperationDef::new("putUser", Method::PUT, "/users/{userId}/permissions");
    put.order = names(&["user:{path.userId}"]);
    put.writes = Some(names(&["users"]));
    let mut get = OperationDef::new("getUser", Method::GET, "/users/{userId}");
    get.cache = Some(Duration::from_secs(60));
    get.reads = names(&["users"]);
    let table = Table::build(vec![put, get], Defaults::default(), 1).unwrap();
    for path in [
        "/users/u1/permissions/",
        "//users/u1/permissions",
        "/users//u1/permissions//",
        "/users/u1/./permissions",
        "/users/x/../u1/permissions",
        "/users/%751/permissions",
        "/%75sers/u1/permissions",
        "/USERS/u1/Permissions",
        "/users/u1/permissions;v=1",
        "/users/u1%2Fpermissions",
        "/users\\u1\\permissions",
        "/users/u1/permission%73/.",
    ] {
        let found = table.find(&Method::PUT, path);
        let operation = &found.operation;
        assert_eq!(&*operation.budget.name, "putUser", "{path}");
        assert_eq!(operation.order.len(), 1, "{path}");
        assert_eq!(found.params.get("userId"), Some("u1"), "{path}");
        assert_eq!(operation.touches, Touches::Everything, "{path}");
        assert!(
            operation.method.is_none() && operation.merge.is_none(),
            "{path}"
        );
    }
    for path in ["/users/u1/", "/Users/u1", "/users/%75%31"] {
        for method in [Method::GET, Method::HEAD] {
            let found = table.find(&method, path);
            assert_eq!(&*found.operation.budget.name, "getUser", "{path}");
            assert!(found.operation.cache.is_none(), "{path}");
        }
    }
    // What is encoded for a reason, and another case of a value, is another value.
    let found = table.find(&Method::PUT, "/users/U%40x/permissions/");
    assert_eq!(found.params.get("userId"), Some("U@x"));
    for path in [
        "/users",
        "/userss/u1/permissions/",
        "/",
        "/users/u1/permissions/x/",
        "/..",
        "%",
    ] {
        let found = table.find(&Method::PUT, path);
        assert_eq!(&*found.operation.name, UNMATCHED_WRITE, "{path}");
    }
}

proptest::proptest! {
    #[test]
    fn no_path_is_too_strange(path in r"[/a-bA-B.;%0-9\\]{0,30}") {
        let table = Table::build(
            vec![OperationDef::new("a", Method::GET, "/a/{b}")],
            Defaults::default(),
            1,
        );
        let _ = table.unwrap().find(&Method::GET, &path);
    }
}
