use super::*;
use crate::config::{LogFormat, Size};
use std::io::Write as _;

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
    let shown = |problem: &ConfigProblem| problem.to_string().replace(&name, "FILE");
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
    assert_eq!(loaded.warnings, Vec::<String>::new());
    // Without a directory there is nowhere to keep the key either.
    let loaded = load(None, pairs(&[("SEGMENT_GATEWAY__STATE__DIRECTORY", "")])).unwrap();
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    assert!(loaded.warnings[1].contains("credentials.key_file"));
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
    assert_eq!(config.trusted().len(), 2);
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
        "FILE:2: cash: found an unknown key, expected `cache` (the nearest)",
        "FILE:4: admin.listen: found \"localhost:1\", expected an IP address and a port",
        "FILE:5: admin.publik: found an unknown key, expected one of `listen`, `token_file`, `hosts`",
        "FILE:7: upstream.head_timeout: found 30, expected a duration with its unit",
        "FILE:8: upstream.total_timeout: found \"2 min\", expected a duration with its unit",
        "FILE:9: upstream.http2: found \"yes\", expected true or false, without quotes",
        "FILE:11: budget.unknown_slots: found 0, expected a value from 1 to 1000000",
        "FILE:13: cache.bytes: found 1048576, expected a size with its unit",
        "FILE:15: callers.rate: found \"100\", expected a rate, such as",
        "FILE:16: callers.trust_header_from: found [\"127.0.0.1/8\"], expected a list: networks",
        "FILE:18: log.level: found \"loud\", expected one of \"error\", \"warn\"",
        "FILE:19: serverr: found an unknown key, expected `server` (the nearest)",
        "environment variable SEGMENT_GATEWAY__QUEUE__TOTAL: queue.total: found \"many\", expected a whole number",
        "environment variable SEGMENT_GATEWAY__QUEUE__TOTALS: queue.totals: found an unknown key, expected SEGMENT_GATEWAY__QUEUE__TOTAL (the nearest)",
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
    let in_order = problems
        .iter()
        .zip(expected)
        .all(|(problem, line)| problem.starts_with(line));
    assert!(in_order, "{}", problems.join("\n"));
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
        ("[admin]\nopen=true", "admin.open is true"),
        (
            "[admin]\nlisten='10.0.0.5:8081'\ntoken_file='t'",
            "admin.listen is 10.0.0.5:8081, which other machines reach, and there is no TLS: the \
             admin token travels in the clear",
        ),
        ("[state]\ndirectory=''", "state.directory is empty"),
    ] {
        let warnings = load_text(text, &[]).unwrap().warnings;
        assert!(
            warnings.iter().any(|w| w.contains(part)),
            "{part} in {warnings:?}"
        );
    }
    // Without a token nobody sends one, a loopback address is reached from here alone, and TLS
    // hides it.
    for text in [
        "[admin]\nlisten='10.0.0.5:8081'\npublic=true",
        "[admin]\ntoken_file='t'",
        "[admin]\nlisten='10.0.0.5:8081'\ntoken_file='t'\n\
         [admin.tls]\ncertificate_file='c'\nkey_file='k'",
    ] {
        let warnings = load_text(text, &[]).unwrap().warnings;
        assert_eq!(warnings, Vec::<String>::new(), "{text}");
    }
    // It is counted from the head of the answer, so waiting before it does not matter.
    let longer = "[server]\nresponse_timeout='120s'";
    assert_eq!(
        load_text(longer, &[]).unwrap().warnings,
        Vec::<String>::new()
    );
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
    let shown = problems[0].to_string();
    let named = "environment variable SEGMENT_GATEWAY__ROUTES__FILE: routes.file: found";
    assert!(shown.starts_with(named), "{shown}");
    assert!(
        shown.contains("(no file of this name), expected a readable file"),
        "{shown}"
    );
}

#[test]
fn the_first_error_of_syntax_has_its_line() {
    let problems = refused("listen = '127.0.0.1:1'\n[cache\nbytes = \n", &[]);
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("FILE:2: found invalid TOML ("),
        "{problems:?}"
    );
    for (text, found) in [
        (
            "listen = '127.0.0.1:1'\nlisten = '127.0.0.1:2'",
            "FILE:2: found \"listen\" a second",
        ),
        (
            "[cache]\n[log]\n[cache]\n",
            "FILE:3: found \"cache\" a second",
        ),
    ] {
        let problems = refused(text, &[]);
        assert!(problems[0].starts_with(found), "{problems:?}");
    }
}

/// Whoever mistypes a key must not be led to open something.
#[test]
fn no_message_proposes_a_key_that_opens_something() {
    let unsafe_keys = ["open", "public", "allow_plain_http", "trust_header_from"];
    for (section, key) in [
        ("admin", "token"),
        ("admin", "opne"),
        ("admin", "publi"),
        ("admin", "x"),
        ("upstream", "allow_plain_htttp"),
        ("upstream", "plain_http"),
        ("upstream", "x"),
        ("callers", "trust_header_form"),
        ("callers", "x"),
    ] {
        let variable = format!(
            "SEGMENT_GATEWAY__{}__{}",
            section.to_uppercase(),
            key.to_uppercase()
        );
        let stranger = variable.replace("__", "_");
        let mut problems = refused(&format!("[{section}]\n{key} = true\n"), &[]);
        problems.extend(refused("", &[(&variable, "true")]));
        if stranger != "SEGMENT_GATEWAY_ADMIN_TOKEN" {
            problems.extend(refused("", &[(&stranger, "true")]));
        }
        for problem in problems {
            let (_, expected) = problem.split_once("expected ").unwrap();
            for proposed in unsafe_keys {
                let expected = expected.to_lowercase();
                assert!(!expected.contains(proposed), "{problem}");
            }
        }
    }
    let told = refused("[admin]\ntoken = 'secret-of-operators'\n", &[]);
    assert!(told[0].contains("expected `token_file`"), "{told:?}");
    assert!(!told[0].contains("secret"), "{told:?}");
}

#[test]
fn the_header_of_callers_is_believed_from_loopback_where_only_this_machine_connects() {
    for (text, trusted) in [
        ("", &["127.0.0.0/8", "::1/128"][..]),
        ("listen = '[::1]:8080'", &["127.0.0.0/8", "::1/128"]),
        ("listen = '0.0.0.0:8080'", &[]),
        ("listen = '[::]:8080'", &[]),
        ("listen = '10.0.0.1:8080'", &[]),
        (
            "listen = '0.0.0.0:8080'\n[callers]\ntrust_header_from = ['127.0.0.0/8']",
            &["127.0.0.0/8"],
        ),
        ("[callers]\ntrust_header_from = []", &[]),
    ] {
        let config = load_text(text, &[]).unwrap().config;
        let found: Vec<String> = config.trusted().iter().map(ToString::to_string).collect();
        assert_eq!(found, trusted, "{text}");
    }
}

#[test]
fn names_of_credentials_are_checked_one_by_one() {
    let text = "[credentials.names]\n\
         terraform = '5773d8e37a48758f'\n\
         Terraform = '5773d8e37a48758e'\n\
         ci = 'sgp_a-token-pasted-by-mistake'\n\
         nightly = '5773d8e37a48758f'\n\
         number = 5\n\
         5773d8e37a48758d = 'ops'\n\
         sgp_a-token-pasted-by-mistake-in-place-of-a-name = '5773d8e37a48758d'\n";
    let problems = refused(text, &[]);
    let expected = [
        "FILE:3: credentials.names: found \"Terraform\", expected a name of 1 to 32 lower-case",
        "FILE:4: credentials.names.ci: found a value of 29 characters that is no hash, expected 16 hexadecimal",
        "FILE:5: credentials.names.nightly: found the hash that `terraform` stands for, expected one name",
        "FILE:6: credentials.names.number: found a value that is not text, expected 16 hexadecimal",
        "FILE:7: credentials.names: found \"5773d8e37a48758d\", expected a name",
        "FILE:8: credentials.names: found a name of 48 characters, expected a name",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem}\n{expected}");
        assert!(!problem.contains("pasted"), "{problem}");
    }
    let whole = refused("[credentials]\nnames = 'a=5773d8e37a48758f'", &[]);
    assert!(
        whole[0].contains("found a value that is no table, expected a table of names"),
        "{whole:?}"
    );
    // TOML itself knows no key twice.
    let twice = refused(
        "[credentials.names]\na = '5773d8e37a48758f'\na = '5773d8e37a48758e'",
        &[],
    );
    assert!(
        twice[0].contains("FILE:3: found \"a\" a second time"),
        "{twice:?}"
    );
}

#[test]
fn a_variable_names_credentials_too() {
    const NAMES: &str = "SEGMENT_GATEWAY__CREDENTIALS__NAMES";
    let text = "[credentials]\nnames = { ops = '5773d8e37a48758f' }";
    let names = |value: &str| {
        let names = load_text(text, &[(NAMES, value)])
            .unwrap()
            .config
            .credentials
            .names;
        let entries = names.entries().into_iter();
        entries
            .map(|(name, hash)| format!("{name}={hash}"))
            .collect::<Vec<_>>()
    };
    let of_file = load_text(text, &[]).unwrap().config.credentials.names;
    assert_eq!(of_file.of("5773d8e37a48758f"), Some("ops"));
    assert_eq!(
        names("terraform=5773d8e37a48758f, ci = 00000000000000ff ,"),
        ["ci=00000000000000ff", "terraform=5773d8e37a48758f"]
    );
    assert_eq!(names(""), Vec::<String>::new());
    for (value, expected) in [
        (
            "a=5773d8e37a48758f,a=00000000000000ff",
            "credentials.names.a: found this name a second time",
        ),
        (
            "sgp_token",
            "credentials.names: found an entry without `=`, expected `name=hash`",
        ),
        (
            "a=sgp_token",
            "credentials.names.a: found a value of 9 characters that is no hash",
        ),
    ] {
        let problems = refused(text, &[(NAMES, value)]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        let expected = format!("environment variable {NAMES}: {expected}");
        assert!(problems[0].starts_with(&expected), "{problems:?}");
        assert!(!problems[0].contains("token"), "{problems:?}");
    }
    // Hashes that change with each start fit no name.
    let env = [
        (NAMES, "a=5773d8e37a48758f"),
        ("SEGMENT_GATEWAY__STATE__DIRECTORY", ""),
    ];
    let warnings = load_text("", &env).unwrap().warnings;
    assert!(
        warnings[1].ends_with("so credentials.names will name none of them"),
        "{warnings:?}"
    );
}
