//! The rules of the code base that a compiler does not check.

use std::fs;
use std::path::{Path, PathBuf};

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

/// Imports go down only; see the crate's documentation.
#[test]
fn layers_import_downwards_only() {
    let layers: [(&str, &[&str]); 18] = [
        ("buffer", &[]),
        ("clock", &[]),
        ("error", &[]),
        ("version", &[]),
        ("swap", &[]),
        ("metrics", &["version"]),
        ("network", &[]),
        ("credential", &[]),
        ("route", &[]),
        ("limit", &["clock", "credential", "route", "swap"]),
        ("merge", &["route"]),
        ("queue", &["clock", "credential"]),
        ("cache", &["buffer", "clock", "credential"]),
        ("journal", &["clock", "credential"]),
        ("upstream", &["clock"]),
        ("sandbox", &["clock"]),
        ("trace", &["clock", "metrics", "upstream"]),
        ("config", &["network", "route"]),
    ];
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test(path)) {
        let first = path
            .components()
            .next()
            .expect("a name")
            .as_os_str()
            .to_string_lossy();
        let module = first.trim_end_matches(".rs");
        let Some((_, allowed)) = layers.iter().find(|(name, _)| *name == module) else {
            continue;
        };
        for line in code(&text).lines() {
            let Some(rest) = line.trim_start().strip_prefix("use crate::") else {
                continue;
            };
            let used = rest
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap_or("");
            assert!(
                used == module || allowed.contains(&used),
                "{} imports {used}, which is not below it",
                path.display()
            );
        }
    }
}

/// The gateway never knows the configuration, the command line or the sandbox.
#[test]
fn the_path_knows_nothing_above_it() {
    for (path, text) in sources() {
        let below = ["gateway", "server"]
            .iter()
            .any(|name| path.starts_with(name));
        for above in ["config", "app", "cli", "sandbox", "admin", "telemetry"] {
            let used = code(&text).contains(&format!("use crate::{above}"));
            assert!(!(below && used), "{} imports {above}", path.display());
        }
    }
}
