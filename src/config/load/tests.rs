use super::*;
use crate::config::{LogFormat, Size, render_routes};
use crate::route::{Effect, Match, Params, Touches};
use http::Method;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

fn pairs(env: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    let pairs: Vec<_> = env
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect();
    pairs.into_iter()
}

fn load_text(text: &str, env: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let name = file.path().display().to_string();
    let shown = |problem: &Problem| problem.to_string().replace(&name, "FILE");
    load(Some(file.path()), pairs(env)).map_err(|problems| problems.iter().map(shown).collect())
}

fn refused(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    load_text(text, env)
        .map(|loaded| loaded.config)
        .unwrap_err()
}

#[test]
fn without_a_file_the_defaults_hold() {
    let loaded = load(None, pairs(&[])).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains("credentials.key_file"));
}

#[test]
fn the_environment_wins_over_the_file() {
    let text = "listen = '127.0.0.1:1'\n[cache]\nbytes = '8 MiB'\nfetches = 3\n[wait]\ncaller_timeout = '200s'";
    let env = [
        ("SEGMENT_GATEWAY__LISTEN", "[::1]:9"),
        ("SEGMENT_GATEWAY__CACHE__BYTES", "9 MiB"),
        ("SEGMENT_GATEWAY__CACHE__MARKS", "5"),
        ("SEGMENT_GATEWAY__UPSTREAM__HTTP2", "false"),
        (
            "SEGMENT_GATEWAY__UPSTREAM__URL",
            "https://eu1.api.segmentapis.com/",
        ),
        (
            "SEGMENT_GATEWAY__CALLERS__TRUST_HEADER_FROM",
            "10.0.0.0/8, ::1",
        ),
        ("SEGMENT_GATEWAY__WAIT__CALLER_TIMEOUT", ""),
        ("SEGMENT_GATEWAY__LOG__FORMAT", "json"),
        ("SEGMENT_GATEWAY__STATE__DIRECTORY", ""),
        ("SEGMENT_GATEWAY__ADMIN__HOSTS", ""),
    ];
    let config = load_text(text, &env).unwrap().config;
    assert_eq!(config.listen.to_string(), "[::1]:9");
    assert_eq!(
        (config.cache.bytes, config.cache.fetches, config.cache.marks),
        (Size::mib(9), 3, 5)
    );
    assert!(!config.upstream.http2);
    assert_eq!(config.upstream.url, "https://eu1.api.segmentapis.com");
    assert_eq!(config.callers.trust_header_from.len(), 2);
    assert_eq!(config.wait.caller_timeout, None);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.state.directory, None);
}

#[test]
fn all_problems_are_told_at_once() {
    let problems = refused(
        "listen = 8080\n\
         cash = 1\n\
         [admin]\n\
         listen = 'localhost:1'\n\
         publik = true\n\
         [upstream]\n\
         head_timeout = 30\n\
         total_timeout = '2 min'\n\
         http2 = 'yes'\n\
         [budget]\n\
         unknown_slots = 0\n\
         [cache]\n\
         bytes = 1048576\n\
         [callers]\n\
         rate = '100'\n\
         trust_header_from = ['127.0.0.1/8']\n\
         [log]\n\
         level = 'loud'\n\
         [serverr]\n\
         connections = 1\n",
        &[
            ("SEGMENT_GATEWAY__QUEUE__TOTAL", "many"),
            ("SEGMENT_GATEWAY__QUEUE__TOTALS", "hunter2"),
            ("SEGMENT_GATEWAY__TOKEN", "hunter2"),
        ],
    );
    let expected = [
        "FILE:1: listen: found 8080, expected an IP address and a port",
        "FILE:2: cash: found an unknown key, expected `cache`, to which it comes nearest",
        "FILE:4: admin.listen: found \"localhost:1\", expected an IP address and a port",
        "FILE:5: admin.publik: found an unknown key, expected `public`, to which it comes nearest",
        "FILE:7: upstream.head_timeout: found 30, expected a duration with its unit",
        "FILE:8: upstream.total_timeout: found \"2 min\", expected a duration with its unit",
        "FILE:9: upstream.http2: found \"yes\", expected true or false, without quotes",
        "FILE:11: budget.unknown_slots: found 0, expected a value from 1 to 1000000",
        "FILE:13: cache.bytes: found 1048576, expected a size with its unit",
        "FILE:15: callers.rate: found \"100\", expected a rate, such as",
        "FILE:16: callers.trust_header_from: found [\"127.0.0.1/8\"], expected a list: networks",
        "FILE:18: log.level: found \"loud\", expected one of \"error\", \"warn\"",
        "FILE:19: serverr: found an unknown key, expected `server`, to which it comes nearest",
        "environment variable SEGMENT_GATEWAY__QUEUE__TOTAL: queue.total: found \"many\", expected a whole number",
        "environment variable SEGMENT_GATEWAY__QUEUE__TOTALS: queue.totals: found an unknown key, expected SEGMENT_GATEWAY__QUEUE__TOTAL, to which",
        "environment variable SEGMENT_GATEWAY__TOKEN: token: found an unknown key, expected SEGMENT_GATEWAY__SECTION__KEY",
    ];
    for line in expected {
        assert!(
            problems.iter().any(|p| p.starts_with(line)),
            "{line}\nin\n{}",
            problems.join("\n")
        );
    }
    assert_eq!(problems.len(), expected.len(), "{}", problems.join("\n"));
    assert!(
        problems
            .iter()
            .any(|p| p.contains("a bare number does not say its unit"))
    );
    assert!(
        problems
            .iter()
            .any(|p| p.contains("minutes are written `m`"))
    );
    assert!(!problems.iter().any(|p| p.contains("hunter2")));
}

#[test]
fn values_must_agree_with_each_other() {
    for (text, expected) in [
        (
            "[admin]\nlisten='127.0.0.1:8080'",
            "FILE:2: admin.listen: found 127.0.0.1:8080 and 127.0.0.1:8080, expected two",
        ),
        ("listen='0.0.0.0:8081'", "FILE:1: listen: found"),
        (
            "[wait]\ncap='60s'",
            "FILE:2: wait.cap: found write.max_wait 150s and wait.cap 1m, expected write.max_wait of at most wait.cap",
        ),
        ("[read]\nmax_wait='1h'", "FILE:2: read.max_wait: found"),
        (
            "[wait]\ncaller_timeout='0s'",
            "FILE:2: wait.caller_timeout: found 0s, expected",
        ),
        ("[cache]\nsettling='2m'", "FILE:2: cache.settling: found"),
        (
            "[cache]\nlargest_body='1 GiB'",
            "FILE:2: cache.largest_body: found cache.largest_body 1 GiB",
        ),
        (
            "[server]\nbody_bytes='65 MiB'",
            "FILE:2: server.body_bytes: found",
        ),
        (
            "[server]\nheader_bytes='4 KiB'",
            "FILE:2: server.header_bytes: found \"4 KiB\", expected a value from 8 KiB",
        ),
        ("[queue]\ntotal=5", "FILE:2: queue.total: found"),
        (
            "[upstream]\ntotal_timeout='1s'",
            "FILE:2: upstream.total_timeout: found",
        ),
        (
            "[upstream]\nconnection_lifetime='1s'",
            "FILE:2: upstream.connection_lifetime: found",
        ),
        ("[admin]\nhosts=['Https://x']", "FILE:2: admin.hosts: found"),
        (
            "upstream = 3",
            "FILE:1: upstream: found 3, expected a table `[upstream]`",
        ),
        (
            "[listen]\nx=1",
            "FILE:1: listen: found a table, expected an IP address",
        ),
    ] {
        let problems = refused(text, &[]);
        assert!(
            problems.iter().any(|p| p.starts_with(expected)),
            "{expected}\nin\n{problems:?}"
        );
    }
}

#[test]
fn the_address_of_the_api_is_checked() {
    for url in [
        "https://api.segmentapis.com",
        "https://api.segmentapis.com/",
        "HTTPS://x:8443",
        "https://[::1]:1",
        "http://127.0.0.1:8089",
        "http://localhost:8089/",
        "http://[::1]:8089",
    ] {
        assert!(
            load_text(&format!("[upstream]\nurl='{url}'"), &[]).is_ok(),
            "{url}"
        );
    }
    let plain = "[upstream]\nallow_plain_http=true\nurl='http://api.example.com'";
    assert!(load_text(plain, &[]).is_ok());
    for (url, expected) in [
        ("", "expected `http://`"),
        ("api.segmentapis.com", "expected `http://`"),
        ("ftp://x", "expected `http://`"),
        ("https://", "expected `http://`"),
        ("https://x:0", "expected `http://`"),
        ("https://x:99999", "expected `http://`"),
        ("https://x:", "expected `http://`"),
        ("https://x y", "expected `http://`"),
        ("https://x/v1", "without a path"),
        ("https://x?a=b", "without query"),
        ("https://x/#a", "without query"),
        ("https://user:hunter2@x", "without user information"),
        ("http://api.segmentapis.com", "allow_plain_http"),
        ("http://127.0.0.1.example.com", "allow_plain_http"),
    ] {
        let problems = refused(&format!("[upstream]\nurl='{url}'"), &[]);
        assert_eq!(problems.len(), 1, "{url}: {problems:?}");
        assert!(
            problems[0].starts_with("FILE:2: upstream.url: found "),
            "{url}: {problems:?}"
        );
        assert!(problems[0].contains(expected), "{url}: {problems:?}");
        assert!(!problems[0].contains("hunter2"));
    }
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    for (text, part) in [
        (
            "[wait]\ncaller_timeout='60s'",
            "write.max_wait is 150s, but wait.caller_timeout is 1m",
        ),
        (
            "[server]\nresponse_timeout='60s'",
            "server.response_timeout is 1m",
        ),
        ("[admin]\nlisten='0.0.0.0:8081'", "admin.public is false"),
        ("[state]\ndirectory=''", "state.directory is empty"),
    ] {
        let warnings = load_text(text, &[]).unwrap().warnings;
        assert!(
            warnings.iter().any(|w| w.contains(part)),
            "{part} in {warnings:?}"
        );
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("absent.toml");
    let binary = directory.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    for path in [absent.as_path(), binary.as_path(), directory.path()] {
        let problems = load(Some(path), pairs(&[])).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0]
                .to_string()
                .starts_with(&format!("{}: found", path.display()))
        );
    }
    let env = [("SEGMENT_GATEWAY__ROUTES__FILE", absent.to_str().unwrap())];
    let problems = load(None, pairs(&env)).unwrap_err();
    assert!(problems[0].to_string().contains("absent.toml"));
}

#[test]
fn the_first_error_of_syntax_has_its_line() {
    let problems = refused("listen = '127.0.0.1:1'\n[cache\nbytes = \n", &[]);
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("FILE:2: found wrong TOML ("),
        "{problems:?}"
    );
}

fn routes_text(text: &str) -> Result<Loaded, Vec<String>> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let name = file.path().to_str().unwrap().to_owned();
    load(None, pairs(&[("SEGMENT_GATEWAY__ROUTES__FILE", &name)])).map_err(|problems| {
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
        "ROUTES:1: budgets.idle: found a budget that no operation draws on",
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
    load(None, pairs(&[])).unwrap().table(1).unwrap()
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
        .filter_map(|o| Some((&*o.name, o.cache.as_ref()?.ttl.as_secs())))
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

fn find(table: &Table, method: Method, path: &str) -> Match {
    table.find(&method, path)
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
            &*find(&table, method, path).operation.name,
            expected,
            "{path}"
        );
    }
    // Each template finds its own operation, whatever fills its parameters.
    for operation in table.operations().iter().filter(|o| o.method.is_some()) {
        let path = operation.template.replace(['{', '}'], "~");
        let found = find(&table, operation.method.clone().unwrap(), &path);
        assert_eq!(found.operation.name, operation.name);
    }
}

/// What is stale after each write, written by hand from the reference: for each write, the cached
/// reads with which it must share a name, given ids `u` and `g`.
#[test]
fn writes_reach_what_they_make_stale() {
    let table = embedded();
    let reads = [
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
    let expand = |templates: &[crate::route::NameTemplate], params: &Params, query| {
        crate::route::expand(templates, params, query, &crate::route::Body::new(b"{}")).unwrap()
    };
    for (method, path, query, stale) in [
        (
            Method::POST,
            "/users/u/permissions",
            None,
            vec!["user", "users", "user's groups"],
        ),
        (
            Method::PUT,
            "/users/u/permissions",
            None,
            vec!["user", "users", "user's groups"],
        ),
        (Method::POST, "/invites", None, vec!["invites", "users"]),
        (
            Method::DELETE,
            "/invites",
            Some("emails=a"),
            vec![
                "invites",
                "group's invites",
                "others' invites",
                "groups",
                "group",
                "other group",
            ],
        ),
        (
            Method::DELETE,
            "/users",
            Some("userIds.0=u"),
            vec![
                "users",
                "user",
                "user's groups",
                "members",
                "others' members",
                "groups",
                "group",
                "other group",
            ],
        ),
        (
            Method::POST,
            "/groups",
            None,
            vec!["groups", "user's groups"],
        ),
        (
            Method::PATCH,
            "/groups/g",
            None,
            vec![
                "groups",
                "group",
                "members",
                "group's invites",
                "user's groups",
            ],
        ),
        (
            Method::DELETE,
            "/groups/g",
            None,
            vec![
                "groups",
                "group",
                "members",
                "group's invites",
                "user's groups",
                "users",
                "user",
                "other user",
            ],
        ),
        (
            Method::POST,
            "/groups/g/permissions",
            None,
            vec![
                "groups",
                "group",
                "members",
                "group's invites",
                "users",
                "user",
                "other user",
            ],
        ),
        (
            Method::DELETE,
            "/group/g/users",
            Some("emails=a"),
            vec![
                "groups",
                "group",
                "members",
                "group's invites",
                "user's groups",
                "users",
                "user",
                "other user",
            ],
        ),
        (
            Method::DELETE,
            "/sources/s",
            None,
            vec![
                "groups",
                "group",
                "other group",
                "users",
                "user",
                "other user",
            ],
        ),
        (
            Method::DELETE,
            "/labels/k/v",
            None,
            vec![
                "groups",
                "group",
                "other group",
                "users",
                "user",
                "other user",
            ],
        ),
        (Method::POST, "/sources", None, vec![]),
    ] {
        let write = find(&table, method.clone(), path);
        let Touches::Tags(templates) = &write.operation.touches else {
            panic!("{path}")
        };
        let touched = expand(templates, &write.params, query);
        let mut reached: Vec<_> = reads
            .iter()
            .filter(|(_, path)| {
                let read = find(&table, Method::GET, path);
                let tags = expand(
                    &read.operation.cache.as_ref().unwrap().tags,
                    &read.params,
                    None,
                );
                tags.iter().any(|tag| touched.contains(tag))
            })
            .map(|(name, _)| *name)
            .collect();
        let mut stale = stale;
        reached.sort_unstable();
        stale.sort_unstable();
        assert_eq!(reached, stale, "{method} {path}");
    }
}

#[test]
fn routes_are_rendered_in_columns() {
    let text = render_routes(&embedded());
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 1 + 201 + 2);
    assert!(lines[0].starts_with("OPERATION"));
    let path = lines[0].find("PATH").unwrap();
    for (line, expected) in [
        ("getUser ", "/users/{userId}  "),
        ("deleteUsers ", "/users  "),
        ("unmatchedWrite ", "*  "),
    ] {
        let line = lines.iter().find(|l| l.starts_with(line)).unwrap();
        assert!(line[path..].starts_with(expected), "{line}");
    }
    let line = lines
        .iter()
        .find(|l| l.starts_with("deleteUsers "))
        .unwrap();
    for part in [" DELETE ", " 60 per 1m ", " user:{query.userIds} | person"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(
        lines
            .iter()
            .any(|l| l.starts_with("getUser ") && l.contains(" ~200 per 1m  1m  users user:"))
    );
}
