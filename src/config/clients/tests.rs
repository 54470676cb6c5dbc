use super::names::is_certificate_name;
use super::*;
use crate::clients::{ClientKey, PresentedCredentials, admit};
use crate::config::EMBEDDED_ROUTES;
use crate::config::routes;
use crate::route::Defaults;
use http::Method;
use std::time::{Duration, SystemTime};

/// The hash in the examples: 64 digits.
const HASH: &str = "9b74c9897bac770ffc029102a200c5de9b74c9897bac770ffc029102a200c5de";

const EXAMPLE: &str = r#"
[tokens.provisioning]
file = "/run/secrets/segment-provisioning"

[groups]
onboarding = ["iam-reads", "createInvites", "addUsersToUserGroup"]

[clients.hr-sync]
token = "provisioning"
may = ["onboarding"]
rate = "60 per 1m"
share = 2
certificates = ["spiffe://example.com/hr-sync"]

[[clients.hr-sync.keys]]
id = "k7Qm2x"
sha256 = "9b74c9897bac770ffc029102a200c5de9b74c9897bac770ffc029102a200c5de"
expires = 2027-03-31T00:00:00Z

[[clients.hr-sync.keys]]
id = "Pq81zA"
sha256 = "0000000000000000000000000000000000000000000000000000000000000001"
expires = 2027-06-30

[clients.reports]
may = ["reads", "unmatchedRead"]
certificates = ["reports.example.com"]
"#;

fn table() -> Table {
    let document = Document::parse("segment.toml", EMBEDDED_ROUTES).unwrap();
    let operations = routes::read(&document, &mut Findings::default());
    Table::build(operations, Defaults::default(), 1).unwrap()
}

/// What is read of a text: the file, problems and warnings.
fn read_text(text: &str, mode: CredentialMode) -> (ClientsFile, Vec<String>, Vec<String>) {
    let table = table();
    let mut findings = Findings::default();
    let document = Document::parse("clients.toml", text).unwrap();
    let (file, warnings) = read(&document, mode, Some(&table), &mut findings);
    let problems = findings.problems.iter().map(ToString::to_string);
    (file, problems.collect(), warnings)
}

fn problems(text: &str) -> Vec<String> {
    read_text(text, CredentialMode::Both).1
}

#[test]
fn the_example_is_read_as_it_stands() {
    let (file, problems, warnings) = read_text(EXAMPLE, CredentialMode::Both);
    assert_eq!((problems, warnings), (Vec::new(), Vec::new()));
    let [hr, reports] = &file.clients[..] else {
        panic!("{file:?}")
    };
    assert_eq!(hr.token.as_deref(), Some("provisioning"));
    assert_eq!((hr.share, reports.share), (2, 1));
    assert_eq!(hr.rate.map(|rate| rate.limit), Some(60));
    let ends = hr.keys.iter().map(|key| key.expires.unwrap());
    let ends: Vec<_> = ends
        .map(|at| humantime::format_rfc3339(at).to_string())
        .collect();
    assert_eq!(ends, ["2027-03-31T00:00:00Z", "2027-07-01T00:00:00Z"]);

    let table = table();
    let clients = file.registry(CredentialMode::Both, &table);
    let client = |name: &str| {
        let mut clients = clients.clients().iter();
        clients.find(|client| *client.name == *name).unwrap()
    };
    for (name, method, path, expected) in [
        ("hr-sync", Method::POST, "/invites", true),
        ("hr-sync", Method::GET, "/users", true),
        ("hr-sync", Method::GET, "/users/1", true),
        ("hr-sync", Method::DELETE, "/users", false),
        ("hr-sync", Method::GET, "/sources", false),
        ("hr-sync", Method::GET, "/nowhere", false),
        ("reports", Method::GET, "/sources", true),
        ("reports", Method::GET, "/nowhere", true),
        ("reports", Method::POST, "/nowhere", false),
        ("reports", Method::POST, "/sources", false),
    ] {
        let operation = table.find(&method, path).operation;
        let may = client(name).may(&operation, false);
        assert_eq!(may.is_ok(), expected, "{name} {method} {path}");
    }
    assert_eq!(clients.keys().count(), 2);
    assert!(clients.by_certificate("reports.example.com").is_some());
    assert_eq!(clients.tokens().len(), 1);
}

#[test]
fn a_key_of_the_file_is_admitted() {
    let key = ClientKey::generate().unwrap();
    let text = format!(
        "[tokens.t]\nfile = \"t\"\n[clients.a]\ntoken = \"t\"\nmay = [\"reads\"]\n\
         [[clients.a.keys]]\nid = \"{}\"\nsha256 = \"{}\"\n",
        key.id(),
        key.digest()
    );
    let (file, problems, _) = read_text(&text, CredentialMode::Managed);
    assert_eq!(problems, Vec::<String>::new());
    let clients = file.registry(CredentialMode::Managed, &table());
    let presented = PresentedCredentials {
        authorization: Some(key.reveal().as_bytes()),
        ..PresentedCredentials::default()
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let principal = admit(&clients, &presented, now).unwrap();
    assert_eq!(&*principal.client.unwrap().name, "a");
}

/// A client that is right, to which a mistake is added.
fn with(more: &str) -> String {
    format!(
        "[tokens.t]\nfile = \"t\"\n[clients.a]\ntoken = \"t\"\nmay = [\"reads\"]\n\
         [[clients.a.keys]]\nid = \"k7Qm2x\"\nsha256 = \"{HASH}\"\n{more}\n"
    )
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_table_of_mistakes() {
    assert_eq!(problems(&with("")), Vec::<String>::new());
    for (more, line, expected) in [
        // Names.
        (
            "[clients.B]\nmay = []",
            9,
            "found \"B\", expected a name of 1 to 64",
        ),
        (
            "[tokens.\"-\"]\nfile = \"t\"",
            9,
            "tokens: found \"-\", expected a name",
        ),
        (
            "[groups]\nreads = []",
            10,
            "groups.reads: found a group of this name",
        ),
        (
            "[groups]\ngetuser = [\"getUser\"]\ng = [\"getUsr\"]",
            11,
            "`getUser` (the nearest)",
        ),
        (
            "[groups]\na = [\"b\"]\nb = [\"a\"]",
            10,
            "a group that contains itself",
        ),
        ("[groups]\na = [\"a\"]", 10, "a group that contains itself"),
        ("[groups]\na = \"reads\"", 10, "a value that is no list"),
        // Keys.
        (
            "[clients.b]\nmay = []",
            9,
            "clients.b: found a client without keys and certificates",
        ),
        (
            "[[clients.a.keys]]\nid = \"k7Qm2x\"\nsha256 = \"0000000000000000000000000000000000000000000000000000000000000001\"",
            10,
            "the id `k7Qm2x`, which a key of client `a` has",
        ),
        (
            "[clients.b]\nmay = []\n[[clients.b.keys]]\nid = \"AAAAAA\"\nsha256 = \"9b74c9897bac770ffc029102a200c5de9b74c9897bac770ffc029102a200c5de\"",
            13,
            "a hash that a key of client `a` has",
        ),
        (
            "[[clients.a.keys]]\nid = \"AAAAAA\"",
            9,
            "clients.a.keys.sha256: found nothing",
        ),
        (
            "[[clients.a.keys]]\nid = \"AAAAA\"\nsha256 = \"00\"",
            10,
            "clients.a.keys.id: found a text of 5 characters",
        ),
        (
            "[[clients.a.keys]]\nid = \"AAAAA\"\nsha256 = \"00\"",
            11,
            "clients.a.keys.sha256: found a text of 2 characters",
        ),
        (
            "expires = \"2027-01-01\"",
            9,
            "clients.a.keys.expires: found \"2027-01-01\", expected a date",
        ),
        (
            "expires = 2027-01-01T00:00:00",
            9,
            "found 2027-01-01T00:00:00, expected a date",
        ),
        (
            "expire = 2027-01-01",
            9,
            "an unknown key \"expire\", expected `expires` (the nearest)",
        ),
        // References.
        (
            "[clients.b]\ntoken = \"tt\"\nmay = []\ncertificates = [\"b\"]",
            10,
            "clients.b.token: found \"tt\", expected the name of a table",
        ),
        (
            "[clients.b]\ncertificates = [\"b\"]",
            9,
            "clients.b.may: found nothing, expected `may`, which is required",
        ),
        (
            "[clients.b]\nmay = [\"listUsers\",\n\"deleteUserz\"]\ncertificates = [\"b\"]",
            11,
            "found \"deleteUserz\", expected `deleteUsers` (the nearest)",
        ),
        (
            "[clients.b]\nmay = []\nshare = 17\ncertificates = [\"b\"]",
            11,
            "clients.b.share: found 17, expected a value from 1 to 16",
        ),
        (
            "[clients.b]\nmay = []\nrate = \"fast\"\ncertificates = [\"b\"]",
            11,
            "clients.b.rate: found \"fast\", expected a rate",
        ),
        (
            "[clients.b]\nmay = []\nview = \"own\"\ncertificates = [\"b\"]",
            11,
            "clients.b.view: found an unknown key",
        ),
        // Names in certificates.
        (
            "[clients.b]\nmay = []\ncertificates = [\"*.example.com\"]",
            11,
            "expected a name in client certificates",
        ),
        (
            "[clients.b]\nmay = []\ncertificates = [\"B.example.com\"]",
            11,
            "expected a name in client certificates",
        ),
        (
            "[clients.b]\nmay = []\ncertificates = [\"spiffe://example.com/\"]",
            11,
            "expected a name in client certificates",
        ),
        (
            "[clients.b]\nmay = []\ncertificates = [\"b\"]\n[clients.c]\nmay = []\ncertificates = [\"b\"]",
            14,
            "a name that client `b` has",
        ),
        ("[tokens.u]", 9, "tokens.u.file: found nothing"),
        ("[quotas]", 9, "quotas: found an unknown key"),
    ] {
        let found = problems(&with(more));
        let start = format!("clients.toml:{line}: ");
        let is_there = |problem: &String| problem.starts_with(&start) && problem.contains(expected);
        assert!(found.iter().any(is_there), "{more:?}: {found:#?}");
    }
}

#[test]
fn without_a_token_of_their_own_clients_need_one_of_the_gateway() {
    let text = with("[clients.b]\nmay = []\ncertificates = [\"b\"]");
    assert_eq!(problems(&text), Vec::<String>::new());
    let (_, managed, _) = read_text(&text, CredentialMode::Managed);
    assert!(managed[0].starts_with("clients.toml:9: clients.b: found a client without a token"));
    assert_eq!(managed.len(), 1, "{managed:#?}");
    let (_, empty, _) = read_text(
        &text.replace("may = []", "may = []\ntoken = \"\""),
        CredentialMode::Managed,
    );
    assert!(
        empty[0].starts_with("clients.toml:11: clients.b.token: found \"\""),
        "{empty:?}"
    );
}

#[test]
fn a_token_that_nobody_uses_is_a_warning() {
    let (_, problems, warnings) =
        read_text(&with("[tokens.u]\nfile = \"u\""), CredentialMode::Both);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(
        warnings,
        ["clients.toml:10: tokens.u: no client uses this token"]
    );
}

#[test]
fn the_number_of_names_and_keys_is_bounded() {
    let clients = |count: usize| -> String {
        let client = |n| format!("[clients.c{n}]\nmay = []\ncertificates = [\"c{n}\"]\n");
        (0..count).map(client).collect()
    };
    assert_eq!(problems(&clients(200)), Vec::<String>::new());
    let found = problems(&clients(201));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("clients: found 201 clients, expected 200 clients at most"));
    let keys = |count: usize| -> String {
        let key = |n| format!("[[clients.a.keys]]\nid = \"{n:06}\"\nsha256 = \"{n:064}\"\n");
        "[clients.a]\nmay = []\n".to_owned() + &(0..count).map(key).collect::<String>()
    };
    assert_eq!(problems(&keys(1000)), Vec::<String>::new());
    let found = problems(&keys(1001));
    assert!(
        found[0].contains("found 1001 keys of all clients together"),
        "{found:?}"
    );
}

#[test]
fn no_message_shows_what_may_be_a_secret() {
    let key = ClientKey::generate().unwrap();
    let key = key.reveal();
    let token = "sgp_aToken";
    for text in [
        with(&format!(
            "[[clients.a.keys]]\nid = \"{key}\"\nsha256 = \"{key}\""
        )),
        with(&format!(
            "[[clients.a.keys]]\nid = \"AAAAAA\"\nsha256 = \"{HASH}0\""
        )),
        with(&format!("expires = \"{key}\"")),
        with(&format!(
            "[clients.b]\ntoken = \"{token}\"\nmay = [\"{token}\", \"{key}\"]\nkeys = \"{key}\"\ncertificates = [\"{key}\", \"{token}\"]"
        )),
        with(&format!(
            "[clients.b]\nmay = \"{key}\"\nkeys = [\"{key}\"]\ncertificates = \"{token}\""
        )),
        with(&format!("[clients.{key}]\nmay = []")),
    ] {
        let found = problems(&text).join("\n");
        assert!(!found.is_empty());
        for secret in [key, token, HASH] {
            assert!(!found.contains(secret), "{found}");
        }
    }
    let found = problems(&with(&format!(
        "[[clients.a.keys]]\nid = \"AAAAAA\"\nsha256 = \"{key}\""
    )));
    assert!(
        found[0].contains("a whole key, which is now exposed"),
        "{found:?}"
    );
}

#[test]
fn a_name_in_a_certificate_has_one_of_two_forms() {
    for (text, expected) in [
        ("spiffe://example.com", true),
        ("spiffe://example.com/ns/prod/sa/hr-sync", true),
        ("spiffe://example.com/Hr_Sync.1", true),
        ("reports.example.com", true),
        ("localhost", true),
        ("", false),
        ("spiffe://", false),
        ("spiffe:///hr", false),
        ("spiffe://Example.com/hr", false),
        ("spiffe://example.com//hr", false),
        ("spiffe://example.com/../hr", false),
        ("spiffe://example.com/hr?x", false),
        ("https://example.com", false),
        ("reports..example.com", false),
        ("reports.example.com.", false),
        ("a b", false),
    ] {
        assert_eq!(is_certificate_name(text), expected, "{text:?}");
    }
}
