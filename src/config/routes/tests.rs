use crate::config::{
    EMBEDDED_ROUTES, Loaded, load, render_route, render_routes, route_document, routes_document,
};
use crate::route::{self, Effect, JsonBody, Match, NameTemplate, Table, Touches};
use http::Method;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::time::Duration;

fn routes_text(text: &str) -> Result<Loaded, Vec<String>> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let name = file.path().to_str().unwrap().to_owned();
    load(
        None,
        [("SEGMENT_GATEWAY__ROUTES__FILE".to_owned(), name.clone())].into_iter(),
    )
    .map_err(|problems| {
        problems
            .iter()
            .map(|p| p.to_string().replace(&name, "ROUTES"))
            .collect()
    })
}

#[test]
fn another_route_table_can_be_given() {
    let loaded = routes_text(
        "[budgets.both]\nlimit = '7 per 10s'\n\
         [operations.z]\nmethod='GET'\npath='/z'\nbudget='both'\ncache='1m'\nreads=['z']\n\
         [operations.a]\nmethod='PUT'\npath='/z'\nbudget='both'\nwrites=['z', 'y']\n",
    )
    .unwrap();
    let table = loaded.table(10).unwrap();
    let names: Vec<_> = table.operations().iter().map(|o| &*o.name).collect();
    assert_eq!(names, ["z", "a", "unmatchedRead", "unmatchedWrite"]);
    for operation in &table.operations()[..2] {
        assert_eq!(&*operation.budget.name, "both");
        assert_eq!(operation.budget.rate.limit, 7);
        assert_eq!(operation.budget.rate.window, Duration::from_secs(1));
        assert!(operation.budget.documented);
    }
    assert!(
        loaded
            .warnings
            .iter()
            .any(|w| w.ends_with("operations.a.writes: no cached operation reads \"y\""))
    );
    let left_out = ": 201 operations of the API are left out.";
    assert!(loaded.warnings.iter().any(|w| w.contains(left_out)));
}

#[test]
fn a_wrong_route_table_is_refused_with_lines() {
    let problems = routes_text(
        "[budgets.idle]\nlimit='1/s'\n\
         [operations.first]\nmethod='GET'\npath='/users/{id}'\n\
         [operations.second]\nmethod='GET'\npath='/users/{userId}'\n\
         [operations.third]\npath='/x'\nlimt='1/s'\n\
         [operations.fourth]\nmethod='OPTIONS'\npath='/y'\nbudget='none'\n\
         [operations.fifth]\nmethod='POST'\npath='/z'\nwrites=['user:{path.id}']\norder=['user:{x}']\n\
         [operations.sixth]\nmethod='POST'\npath='/s'\nbudget='first'\nlimit='1/s'\n\
         [operationz]\n",
    )
    .map(|loaded| loaded.operations.len())
    .unwrap_err();
    for expected in [
        "ROUTES:2: budgets.idle: found a budget that no operation draws on",
        "ROUTES:8: operations.second.path: found `/users/{userId}`, expected a path that differs from that of `first` (`/users/{id}`)",
        "ROUTES:9: operations.third.method: found nothing, expected `method`, which is required",
        "ROUTES:11: operations.third.limt: found an unknown key, expected `limit`",
        "ROUTES:13: operations.fourth.method: found \"OPTIONS\", expected GET, POST",
        "ROUTES:15: operations.fourth.budget: found \"none\", expected a table `[budgets.none]`",
        "ROUTES:19: operations.fifth.writes: found `user:{path.id}`, expected a parameter of `/z`",
        "ROUTES:20: operations.fifth.order: found [\"user:{x}\"], expected a list: {path.name}",
        "ROUTES:24: operations.sixth.budget: found `limit` beside `budget`",
        "ROUTES:26: operationz: found an unknown key, expected `operations`",
    ] {
        assert!(
            problems.iter().any(|p| p.starts_with(expected)),
            "{expected}\nin\n{}",
            problems.join("\n")
        );
    }
}

fn embedded() -> Table {
    load(None, std::iter::empty()).unwrap().table(1).unwrap()
}

#[test]
fn the_embedded_table_has_every_operation_and_documented_limit() {
    let table = embedded();
    let operations: Vec<_> = table
        .operations()
        .iter()
        .filter(|o| o.method.is_some())
        .collect();
    assert_eq!(operations.len(), 201);
    let count = |method| {
        operations
            .iter()
            .filter(|o| o.method.as_ref() == Some(&method))
            .count()
    };
    let methods = [
        Method::GET,
        Method::POST,
        Method::DELETE,
        Method::PATCH,
        Method::PUT,
    ];
    assert_eq!(methods.map(count), [100, 43, 28, 23, 7]);
    let mut documented = BTreeMap::new();
    for operation in operations.iter().filter(|o| o.budget.documented) {
        assert_eq!(operation.budget.name, operation.name);
        let rate = operation.budget.rate;
        *documented
            .entry((rate.window.as_secs(), rate.limit))
            .or_insert(0) += 1;
    }
    let expected = [
        ((60, 2), 6),
        ((60, 5), 4),
        ((60, 10), 3),
        ((60, 20), 2),
        ((60, 25), 10),
        ((60, 50), 11),
        ((60, 60), 21),
        ((60, 100), 2),
        ((60, 200), 2),
        ((60, 250), 1),
        ((60, 300), 1),
        ((60, 600), 3),
        ((86_400, 120), 1),
    ];
    assert_eq!(documented, BTreeMap::from(expected));
    assert_eq!(documented.values().sum::<i32>(), 67);
    let default = |effect| match effect {
        Effect::Read => 200,
        Effect::Write => 60,
    };
    assert!(
        operations
            .iter()
            .filter(|o| !o.budget.documented)
            .all(|o| o.budget.rate.limit == default(o.effect))
    );
}

#[test]
fn the_embedded_table_says_what_every_write_touches() {
    let table = embedded();
    for operation in table.operations().iter().filter(|o| o.method.is_some()) {
        assert_ne!(operation.touches, Touches::Everything, "{}", operation.name);
    }
    assert_eq!(table.unread_tags(), []);
    let cached: BTreeMap<_, _> = table
        .operations()
        .iter()
        .filter_map(|o| Some((&*o.name, o.cache.as_ref()?.ttl?.as_secs())))
        .collect();
    let expected = [
        ("listUsers", 60),
        ("getUser", 60),
        ("listUserGroupsFromUser", 60),
        ("listInvites", 30),
        ("listUserGroups", 60),
        ("getUserGroup", 60),
        ("listUsersFromUserGroup", 60),
        ("listInvitesFromUserGroup", 30),
        ("listRoles", 300),
    ];
    assert_eq!(cached, BTreeMap::from(expected));
}

#[test]
fn paths_of_the_api_find_their_operations() {
    let table = embedded();
    for (method, path, expected) in [
        (Method::GET, "/", "getWorkspace"),
        (Method::GET, "/users/x", "getUser"),
        (Method::PUT, "/group/g/users", "replaceUsersInUserGroup"),
        (Method::POST, "/groups/g/users", "addUsersToUserGroup"),
        (
            Method::GET,
            "/spaces/s/audiences/previews/p",
            "getAudiencePreview",
        ),
        (
            Method::POST,
            "/spaces/s/audiences/previews",
            "createAudiencePreview",
        ),
        (Method::GET, "/spaces/s/audiences/previews", "getAudience"),
        (
            Method::GET,
            "/regulations/sources/s",
            "listRegulationsFromSource",
        ),
        (Method::GET, "/regulations/r", "getRegulation"),
        (
            Method::POST,
            "/warehouses/validation",
            "createValidationInWarehouse",
        ),
        (Method::GET, "/usage/mtu/daily", "getDailyWorkspaceMTUUsage"),
        (
            Method::POST,
            "/destination/filters/preview",
            "previewDestinationFilter",
        ),
    ] {
        assert_eq!(
            &*table.find(&method, path).operation.name,
            expected,
            "{path}"
        );
    }
    // Each template finds its own operation, whatever fills its parameters.
    for operation in table.operations().iter().filter(|o| o.method.is_some()) {
        let path = operation.template.replace(['{', '}'], "~");
        let found = table.find(operation.method.as_ref().unwrap(), &path);
        assert_eq!(found.operation.name, operation.name);
    }
}

#[test]
fn the_embedded_table_says_which_writes_can_be_merged() {
    let table = embedded();
    let merged = table.operations().iter().filter_map(|operation| {
        let merge = operation.merge.as_ref()?;
        assert_eq!(merge.most, 50);
        let echoes = merge.echoes.as_deref();
        Some((&*operation.name, (merge.enabled, merge.people, echoes)))
    });
    let expected = [
        ("deleteInvites", (true, true, None)),
        ("createInvites", (true, true, Some("emails"))),
        ("deleteUsers", (true, false, None)),
        ("removeUsersFromUserGroup", (true, true, None)),
        ("addUsersToUserGroup", (true, true, None)),
        ("addPermissionsToUser", (false, false, None)),
        ("addPermissionsToUserGroup", (false, false, None)),
    ];
    assert_eq!(merged.collect::<BTreeMap<_, _>>(), BTreeMap::from(expected));
}

#[test]
fn wrong_merging_is_refused_with_lines() {
    let problems = routes_text(
        "[operations.a]\nmethod='DELETE'\npath='/a'\nwrites=[]\norder=['a:{query.ids}']\n\
         lists=['ids']\n\
         merge={ elements='{query.ids}', most=1, atom=true }\n\
         [operations.b]\nmethod='POST'\npath='/b'\nwrites=[]\norder=['b:{body.ids}']\n\
         [operations.b.merge]\nelements='{body}'\n\
         [operations.c]\nmethod='POST'\npath='/c'\nwrites=[]\norder=['c:{body.ids}']\n\
         [operations.c.merge]\nelements='{body.ids}'\nechoes='i.ds'\n\
         [operations.d]\nmethod='PUT'\npath='/d'\nwrites=[]\nmerge={}\n",
    )
    .map(|loaded| loaded.table(1).map(|table| table.operations().len()))
    .unwrap_err();
    for expected in [
        "ROUTES:7: operations.a.merge.most: found 1, expected a value from 2 to 1000",
        "ROUTES:7: operations.a.merge.atom: found an unknown key",
        "ROUTES:14: operations.b.merge.elements: found \"{body}\", expected {path.name}, {query",
        "ROUTES:22: operations.c.merge.echoes: found `i.ds`, expected a member of the answer's data",
        "ROUTES:27: operations.d.merge.elements: found nothing, expected `elements`",
    ] {
        assert!(
            problems.iter().any(|p| p.starts_with(expected)),
            "{expected}\nin\n{}",
            problems.join("\n")
        );
    }
}

/// The cached reads, with the names that the table below uses.
const READS: [(&str, &str); 13] = [
    ("users", "/users"),
    ("user", "/users/u"),
    ("user's groups", "/users/u/groups"),
    ("other user", "/users/o"),
    ("invites", "/invites"),
    ("groups", "/groups"),
    ("group", "/groups/g"),
    ("other group", "/groups/o"),
    ("members", "/groups/g/users"),
    ("group's invites", "/groups/g/invites"),
    ("others' members", "/groups/o/users"),
    ("others' invites", "/groups/o/invites"),
    ("roles", "/roles"),
];

/// What is stale after each write: written by hand from the reference and its audit events, not
/// from the table.
const STALE: [(&str, &str, &str); 13] = [
    (
        "POST /users/u/permissions",
        "",
        "user, users, user's groups",
    ),
    ("PUT /users/u/permissions", "", "user, users, user's groups"),
    ("POST /invites", "", "invites, users, user, other user"),
    (
        "DELETE /invites",
        "emails=a",
        "invites, group's invites, others' invites, groups, group, other group",
    ),
    (
        "DELETE /users",
        "userIds.0=u",
        "users, user, user's groups, members, others' members, groups, group, other group",
    ),
    (
        "POST /groups",
        "",
        "groups, group, other group, members, others' members, group's invites, others' invites, \
         user's groups",
    ),
    (
        "PATCH /groups/g",
        "",
        "groups, group, members, group's invites, user's groups",
    ),
    (
        "DELETE /groups/g",
        "",
        "groups, group, members, group's invites, user's groups, users, user, other user",
    ),
    (
        "POST /groups/g/permissions",
        "",
        "groups, group, members, group's invites, users, user, other user",
    ),
    (
        "DELETE /group/g/users",
        "emails=a",
        "groups, group, members, group's invites, user's groups, users, user, other user",
    ),
    (
        "DELETE /sources/s",
        "",
        "groups, group, other group, users, user, other user",
    ),
    (
        "DELETE /labels/k/v",
        "",
        "groups, group, other group, users, user, other user",
    ),
    ("POST /sources", "", ""),
];

#[test]
fn writes_reach_what_they_make_stale() {
    let table = embedded();
    let names = |templates: &[NameTemplate], found: &Match, query| {
        route::expand(templates, &found.params, query, &JsonBody::new(b"")).unwrap()
    };
    for (request, query, stale) in STALE {
        let (method, path) = request.split_once(' ').unwrap();
        let write = table.find(&method.parse().unwrap(), path);
        let Touches::Tags(templates) = &write.operation.touches else {
            panic!("{request}")
        };
        let touched = names(
            templates,
            &write,
            Some(query).filter(|query| !query.is_empty()),
        );
        let reached = READS.iter().filter(|(_, path)| {
            let read = table.find(&Method::GET, path);
            let tags = names(&read.operation.cache.as_ref().unwrap().tags, &read, None);
            tags.iter().any(|tag| touched.contains(tag))
        });
        let reached: BTreeSet<_> = reached.map(|(name, _)| *name).collect();
        let stale: BTreeSet<_> = stale.split(", ").filter(|name| !name.is_empty()).collect();
        assert_eq!(reached, stale, "{request}");
    }
}

#[test]
fn what_is_configured_of_caching_is_rendered() {
    let keys = "cache_directives = \"operator\"\nstale_while_revalidate = \"30s\"\n\
        stale_if_error = \"10m\"\nstale_if_limited = \"5m\"\n";
    let text = EMBEDDED_ROUTES
        .replacen("cache = \"30s\"\n", &format!("cache = \"30s\"\n{keys}"), 1)
        .replacen(
            "path = \"/labels\"\n",
            "path = \"/labels\"\nheuristic_percent = 10\n",
            1,
        );
    let loaded = routes_text(&text).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let table = loaded.table(1).unwrap();
    let shown = render_routes(&table);
    for cell in ["  30s+  ", "  api+  "] {
        assert!(shown.contains(cell), "{cell}\n{shown}");
    }
    let operations = table.operations().iter();
    let all: String = operations
        .map(|operation| render_route(operation))
        .collect();
    for line in [
        "cache      30s operator stale_while_revalidate=30s stale_if_error=10m stale_if_limited=5m\n",
        "cache      api heuristic=10%\n",
    ] {
        assert!(all.contains(line), "{line}");
    }
    let document = routes_document(&table);
    let mut operations = document["operations"].as_array().unwrap().iter();
    let changed = operations.find(|one| one["cache"]["directives"] == "operator");
    let expected = serde_json::json!({
        "seconds": 30.0, "directives": "operator", "heuristicPercent": 0,
        "staleWhileRevalidateSeconds": 30.0, "staleIfErrorSeconds": 600.0,
        "staleIfLimitedSeconds": 300.0,
    });
    assert_eq!(changed.unwrap()["cache"], expected);
}

/// A line fits into a terminal, and what is cut is a path.
#[test]
fn routes_are_rendered_in_columns_that_fit() {
    let table = embedded();
    let text = render_routes(&table);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 1 + 201 + 2);
    let widest = lines.iter().map(|line| line.chars().count()).max();
    assert!(
        widest.is_some_and(|widest| (100..=120).contains(&widest)),
        "{widest:?}"
    );
    assert!(lines[0].starts_with("OPERATION"));
    let path = lines[0].find("PATH").unwrap();
    for (line, expected) in lines[1..].iter().zip(table.operations()) {
        assert_eq!(
            line.split(' ').next(),
            Some(&*expected.name),
            "names are whole"
        );
        let shown = &line[path..];
        match shown.strip_suffix('…') {
            Some(begin) => assert!(expected.template.starts_with(begin), "{line}"),
            None if shown == "*" => assert_eq!(&*expected.template, ""),
            None => assert_eq!(shown, &*expected.template),
        }
    }
    for (name, expected) in [
        (
            "getUser ",
            " ~200 per 1m  1m     -      GET     /users/{userId}",
        ),
        ("deleteUsers ", " 60 per 1m    -      50     DELETE  /users"),
        ("unmatchedWrite ", " ~60 per 1m   -      -      *       *"),
    ] {
        let line = lines.iter().find(|line| line.starts_with(name)).unwrap();
        assert!(line.ends_with(expected), "{line}");
    }
}

#[test]
fn one_operation_is_shown_with_all_that_is_known() {
    let table = embedded();
    let mut operations = table.operations().iter();
    let operation = operations.find(|one| &*one.name == "deleteUsers").unwrap();
    assert_eq!(
        render_route(operation),
        "operation  deleteUsers\n\
         request    DELETE /users\n\
         budget     deleteUsers\n\
         limit      60 per 1m\n\
         cache      -\n\
         writes     user-lists user:{query.userIds} group-members groups group-lists\n\
         order      user:{query.userIds} | person\n\
         merge      50\n"
    );
    let expected = serde_json::json!({
        "name": "deleteUsers",
        "method": "DELETE",
        "path": "/users",
        "budget": {
            "name": "deleteUsers", "limit": 60, "windowSeconds": 60.0, "documented": true,
        },
        "cache": null,
        "reads": [],
        "writes": ["user-lists", "user:{query.userIds}", "group-members", "groups", "group-lists"],
        "order": ["user:{query.userIds}"],
        "barrier": ["person"],
        "merge": { "enabled": true, "most": 50 },
    });
    assert_eq!(route_document(operation), expected);
    let unmatched = table.operations().last().unwrap();
    let document = route_document(unmatched);
    assert_eq!(document["writes"], serde_json::json!(["*"]));
    assert_eq!(
        (&document["method"], &document["path"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
}
