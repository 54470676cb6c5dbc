//! What the documents list is what the program has: keys of the configuration, errors, reasons.

use super::{generated, root, text};
use segment_gateway::config::{self, ConfigKey};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A key of the example file, with the comment above it.
#[derive(Debug, PartialEq, Eq)]
struct Explained {
    section: String,
    name: String,
    comment: String,
}

/// The keys of the example file in its order, those behind a `#` included.
fn explained(file: &str) -> Vec<Explained> {
    let (mut section, mut comment) = (String::new(), Vec::new());
    let mut found = Vec::new();
    for line in file.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let key = bare.split_once(" = ").map(|(key, _)| key);
        if let Some(key) = key.filter(|key| !key.contains(' ')) {
            found.push(Explained {
                section: section.clone(),
                name: format!("{section}.{key}")
                    .trim_start_matches('.')
                    .to_owned(),
                comment: std::mem::take(&mut comment).join(" "),
            });
        } else if line.starts_with("# ") {
            comment.push(bare);
        } else {
            comment.clear();
            if let Some(name) = line.strip_prefix('[') {
                name.trim_end_matches(']').clone_into(&mut section);
            }
        }
    }
    found
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn accepts(key: &ConfigKey) -> String {
    let bounds = key.accepts.strip_prefix("a value from ");
    match bounds.and_then(|bounds| bounds.split_once(" to ")) {
        Some(("\"\"", high)) => format!("up to {high}"),
        Some((low, high)) => format!("{low} to {high}"),
        None if !key.accepts.is_empty() => key.accepts.clone(),
        None if key.default.starts_with('[') => "a list of texts".to_owned(),
        None => "text".to_owned(),
    }
}

/// The tables of all keys, one for each section.
fn tables(explained: &[Explained], keys: &[ConfigKey]) -> String {
    let keys: BTreeMap<&str, &ConfigKey> = keys.iter().map(|key| (key.name, key)).collect();
    let mut tables = String::new();
    let mut section = None;
    for Explained {
        section: within,
        name,
        comment,
    } in explained
    {
        if section != Some(within) {
            section = Some(within);
            let title = match within.as_str() {
                "" => "General".to_owned(),
                name => format!("[{name}]"),
            };
            let _ = write!(
                tables,
                "\n### {title}\n\n| key | default | accepts | new value | meaning |\n|---|---|---|---|---|\n"
            );
        }
        let key = keys[name.as_str()];
        let default = match key.default.as_str() {
            "\"\"" => "none".to_owned(),
            value => format!("`{value}`"),
        };
        let when = if key.on_reload { "reload" } else { "restart" };
        let _ = writeln!(
            tables,
            "| `{name}` | {default} | {} | {when} | {} |",
            cell(&accepts(key)),
            cell(comment)
        );
    }
    tables + "\n"
}

#[test]
fn the_reference_of_the_configuration_has_every_key() {
    let explained = explained(&text(&root().join("config/segment-gateway.toml")));
    let keys = config::keys();
    let names = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(
        names(explained.iter().map(|key| key.name.clone()).collect()),
        names(keys.iter().map(|key| key.name.to_owned()).collect()),
        "the example file and the program have the same keys"
    );
    for key in &explained {
        assert!(key.comment.ends_with('.'), "{} is not explained", key.name);
    }
    generated("docs/configuration.md", "docs", &tables(&explained, &keys));
}

/// What stands in backticks in a document.
fn quoted(document: &str) -> Vec<String> {
    let text = text(&root().join(document));
    let words = text.split('`').skip(1).step_by(2);
    words.map(str::to_owned).collect()
}

/// The string literals behind `=>` in a source file.
fn labels(source: &str) -> Vec<String> {
    let text = text(&root().join(source));
    let code = text.split("#[cfg(test)]").next().expect("code");
    let literals = code.split("=> \"").skip(1);
    literals
        .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
        .collect()
}

/// The errors are compared with their document beside their table, in `src/error.rs`.
#[test]
fn every_reason_is_documented() {
    let (labels, quoted) = (labels("src/cache/reason.rs"), quoted("docs/caching.md"));
    assert!(labels.len() >= 30, "{labels:?}");
    for label in &labels {
        assert!(quoted.contains(label), "docs/caching.md lacks `{label}`");
    }
}
