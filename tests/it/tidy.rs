//! The rules of the code base that a compiler does not check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

mod circles;

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                found.push((path, text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    found
        .into_iter()
        .map(|(path, text)| {
            (
                path.strip_prefix(&root).expect("below src").to_owned(),
                text,
            )
        })
        .collect()
}

/// The code of a file without its comments and its tests.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end]
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn is_test(path: &Path) -> bool {
    path.components()
        .any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
}

/// Every file says what it promises.
#[test]
fn every_file_begins_with_what_it_is_for() {
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test(path)) {
        assert!(
            text.starts_with("//! "),
            "{} has no module documentation",
            path.display()
        );
    }
}

/// A pure file decides; it neither waits, nor locks, nor reads a clock.
#[test]
fn pure_files_are_pure() {
    let banned = [
        "async ",
        ".await",
        "tokio::",
        "hyper::",
        "moka::",
        "parking_lot::",
        "Mutex",
        "RwLock",
        "Instant::now",
        "SystemTime::now",
        ".now()",
        "std::env",
        "std::fs",
    ];
    let mut pure = 0;
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test(path)) {
        if !text.starts_with("//! Pure.") {
            continue;
        }
        pure += 1;
        let code = code(&text);
        for word in banned {
            assert!(
                !code.contains(word),
                "{} says it is pure and has `{word}`",
                path.display()
            );
        }
    }
    assert!(pure > 20, "{pure} pure files");
}

/// What the parts of the request path may use, besides what stands below them on it.
const FEATURES: [&str; 20] = [
    "audit",
    "buffer",
    "cache",
    "caller",
    "clients",
    "clock",
    "credential",
    "error",
    "journal",
    "lanes",
    "limit",
    "merge",
    "metrics",
    "network",
    "route",
    "swap",
    "tasks",
    "trace",
    "upstream",
    "version",
];

/// The request path, from the bottom up: each part may use those above it in this list, but `read`
/// and `write` do not know each other.
const PATH: [&str; 6] = ["exchange", "attempt", "read", "write", "shadow", "gateway"];

/// What a module may import. `app`, `cli` and the crate's roots may import anything but each other
/// upwards.
fn may_import(module: &str, used: &str) -> bool {
    let own = |allowed: &[&str]| allowed.contains(&used);
    if let Some(height) = PATH.iter().position(|part| *part == module) {
        let is_beside = (module, used) == ("write", "read");
        return own(&FEATURES) || own(&PATH[..height]) && !is_beside;
    }
    match module {
        "buffer" | "caller" | "clock" | "credential" | "network" | "private_file" | "swap"
        | "tasks" | "version" => false,
        "audit" => own(&["clock", "private_file"]),
        "error" => own(&["metrics"]),
        "metrics" => own(&["version"]),
        "route" => false,
        "clients" => own(&[
            "clock",
            "credential",
            "error",
            "private_file",
            "swap",
            "metrics",
            "network",
            "route",
        ]),
        "limit" => own(&[
            "caller",
            "clients",
            "clock",
            "credential",
            "private_file",
            "route",
            "swap",
        ]),
        "merge" => own(&["route"]),
        "lanes" => own(&["clock", "credential"]),
        "journal" => own(&["clock", "credential", "private_file", "tasks"]),
        "cache" => own(&["buffer", "clock", "credential", "error"]),
        "upstream" | "sandbox" => own(&["clock", "tasks"]),
        "trace" => own(&["clock", "metrics", "upstream"]),
        "config" => own(&["clients", "credential", "network", "route"]),
        "state" => own(&["private_file"]),
        "telemetry" => own(&["audit", "clock", "config", "credential", "swap"]),
        // A server of anything: it knows neither the gateway nor the configuration.
        "server" => own(&["clock", "error", "exchange", "metrics", "swap", "tasks"]),
        "admin" => own(&FEATURES) || own(&PATH) || own(&["config", "telemetry"]),
        "app" => used != "cli",
        "cli" | "lib" | "main" => true,
        other => panic!("say what {other} may import"),
    }
}

/// The modules that a file of `module` names: by `use` or inline, also through a `super` that leads
/// out of its own module.
fn named(path: &Path, code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let is_own = code[..at]
            .chars()
            .next_back()
            .is_none_or(|before| !before.is_alphanumeric() && before != '_' && before != ':');
        if !is_own {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let end = group.find("};").unwrap_or(group.len());
            let mut depth = 0;
            for part in group[..end].split_inclusive(['{', '}', ',']) {
                if depth == 0 {
                    names.push(first_word(part.trim_start()));
                }
                depth += part.matches('{').count();
                depth -= part.matches('}').count();
            }
        } else {
            names.push(first_word(rest));
        }
    }
    let depth = path.components().count() - usize::from(path.ends_with("mod.rs"));
    let out = "super::".repeat(depth);
    for (at, _) in code.match_indices(&out) {
        names.push(first_word(&code[at + out.len()..]));
    }
    names.retain(|name| !name.is_empty());
    names
}

fn first_word(text: &str) -> String {
    let word = text.chars();
    word.take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// The module of the crate that a file belongs to.
fn module_of(path: &Path) -> String {
    let first = path.components().next().expect("a name");
    let first = first.as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules that lead to a file from the crate's root.
fn module_path(path: &Path) -> Vec<String> {
    let parts = path.with_extension("");
    let mut parts: Vec<String> = parts
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if parts.last().is_some_and(|last| last == "mod") || parts == ["lib"] {
        parts.pop();
    }
    parts
}

/// Imports go down only; see the crate's documentation.
#[test]
fn layers_import_downwards_only() {
    let mut upwards = Vec::new();
    let modules: BTreeSet<String> = sources().iter().map(|(path, _)| module_of(path)).collect();
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test(path)) {
        let module = module_of(&path);
        for used in named(&path, &code(&text)) {
            if modules.contains(&used) && used != module && !may_import(&module, &used) {
                upwards.push(format!("{} imports {used}", path.display()));
            }
        }
    }
    assert!(upwards.is_empty(), "{upwards:#?}");
}

#[test]
fn an_import_is_found_however_it_is_written() {
    let path = Path::new("cache/key.rs");
    let found = |code: &str| named(path, code);
    assert_eq!(found("use crate::read::serve;"), ["read"]);
    assert_eq!(
        found("use crate::{clock, read::{a, b}};"),
        ["clock", "read"]
    );
    assert_eq!(found("let x = crate::write::now();"), ["write"]);
    assert_eq!(found("use super::super::gateway::Gateway;"), ["gateway"]);
    assert_eq!(found("use super::entry::Entry; $crate::x"), ["x"]);
}

/// The code of a file, comments included, without its tests.
fn without_tests(text: &str) -> &str {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    &text[..end]
}

/// The most lines of a file without its tests.
const MOST_LINES: usize = 400;

#[test]
fn a_file_can_be_read_in_one_go() {
    let files = sources().into_iter().filter(|(path, _)| !is_test(path));
    let long = files
        .filter(|(_, text)| without_tests(text).trim_end().lines().count() > MOST_LINES)
        .map(|(path, _)| path.display().to_string());
    assert_none("too long", long.collect());
}

#[test]
fn a_comment_fits_into_its_line() {
    for (path, text) in sources() {
        for (at, line) in text.lines().enumerate() {
            let is_comment = line.trim_start().starts_with("//");
            let fits = line.chars().count() <= 100;
            assert!(fits || !is_comment, "{}:{}", path.display(), at + 1);
        }
    }
}

/// The types that a file defines, each with whether others may use it.
fn declared(text: &str) -> impl Iterator<Item = (bool, String)> {
    without_tests(text).lines().filter_map(|line| {
        let shown = match line.strip_prefix("pub(") {
            Some(rest) => Some(rest.split_once(") ")?.1),
            None => line.strip_prefix("pub "),
        };
        let kinds = ["struct ", "enum ", "trait ", "type "];
        let name = kinds
            .iter()
            .find_map(|kind| shown.unwrap_or(line).strip_prefix(kind))?;
        Some((shown.is_some(), first_word(name)))
    })
}

#[test]
fn a_name_means_one_thing() {
    let mut defined: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test(path)) {
        // Private types of two files may share a name.
        for (_, name) in declared(&text).filter(|(is_public, _)| *is_public) {
            defined.entry(name).or_default().insert(path.clone());
        }
    }
    defined.retain(|_, files| files.len() > 1);
    assert_none("defined twice", defined.into_keys().collect());
}

/// Files from which imports lead back to themselves, for guards that give back what they hold.
#[rustfmt::skip]
const IN_CIRCLES: &[&str] = &[
    "limit/budgets/state.rs",
    "limit/budgets.rs",
    "limit/ticket.rs",
];

#[test]
fn no_circle_of_files() {
    let uses = circles::Crate::new(sources()).uses();
    let found: Vec<String> = circles::in_circles(&uses)
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    assert_eq!(found, IN_CIRCLES);
}

/// Lines of a file that explains itself.
const SHORT: usize = 200;
/// The least lines of comment per hundred lines of a longer file.
const COMMENTS: usize = 20;

#[test]
fn long_files_are_explained() {
    let files = sources().into_iter().filter(|(path, _)| !is_test(path));
    let sparse = files.filter(|(_, text)| {
        let lines: Vec<&str> = without_tests(text).trim_end().lines().collect();
        let is_comment = |line: &&&str| line.trim_start().starts_with("//");
        let comments = lines.iter().filter(is_comment).count();
        lines.len() > SHORT && comments * 100 < lines.len() * COMMENTS
    });
    let sparse = sparse.map(|(path, _)| path.display().to_string());
    assert_none("sparsely commented", sparse.collect());
}

#[test]
fn methods_stand_where_their_type_is_defined() {
    let sources: Vec<_> = sources()
        .into_iter()
        .filter(|(path, _)| !is_test(path))
        .collect();
    let mut defined: BTreeMap<String, Vec<&Path>> = BTreeMap::new();
    for (path, text) in &sources {
        for (_, name) in declared(text) {
            defined.entry(name).or_default().push(path);
        }
    }
    let mut elsewhere = Vec::new();
    for (path, text) in &sources {
        for name in code(text).lines().filter_map(with_methods) {
            let homes = defined.get(&name);
            if homes.is_some_and(|homes| !homes.iter().any(|home| is_at_home(path, home))) {
                elsewhere.push(format!("{name} in {}", path.display()));
            }
        }
    }
    elsewhere.dedup();
    assert_none("has methods elsewhere", elsewhere);
}

/// The type whose own methods begin on this line.
fn with_methods(line: &str) -> Option<String> {
    let rest = line.strip_prefix("impl")?;
    let rest = match rest.strip_prefix('<') {
        // A bound may have brackets of its own.
        Some(generics) => {
            let mut depth = 1;
            let end = generics.find(|c| {
                depth += usize::from(c == '<');
                depth -= usize::from(c == '>');
                depth == 0
            })?;
            &generics[end + 1..]
        }
        None => rest,
    };
    (!rest.contains(" for ")).then(|| first_word(rest.trim_start()))
}

/// Whether a file is the home of a type, in its folder, or in the folder of that name.
fn is_at_home(path: &Path, home: &Path) -> bool {
    let folder = home.parent().expect("a folder");
    let own = home.with_extension("");
    let is_beside = folder != Path::new("") && path.starts_with(folder);
    path == home || path.starts_with(own) || is_beside
}

fn assert_none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}: {found:#?}");
}

/// The life of a request is the first thing that the file of that name shows.
#[test]
fn the_flow_of_a_request_begins_its_file() {
    let (_, text) = sources()
        .into_iter()
        .find(|(path, _)| path == Path::new("gateway/flow.rs"))
        .expect("gateway/flow.rs");
    let at = text
        .lines()
        .position(|line| line.contains("async fn handle"));
    assert!(at.is_some_and(|at| at < 60), "{at:?}");
}
