//! Reads the plain YAML of this repository's own files: maps and lists in block form, one value per
//! line. Not a YAML parser: no flow collections, no anchors, no text over several lines.

use std::collections::BTreeMap;

/// Every value by its path, such as `services.gateway.ports[0]`, without quotes.
pub fn values(text: &str) -> BTreeMap<String, String> {
    struct Open {
        indent: usize,
        path: String,
        items: usize,
    }
    let mut values = BTreeMap::new();
    let mut open: Vec<Open> = Vec::new();
    let mut root_items = 0;
    for line in text.lines() {
        let mut rest = line.trim();
        if rest.is_empty() || rest.starts_with('#') {
            continue;
        }
        let mut indent = line.len() - line.trim_start().len();
        while open.last().is_some_and(|open| open.indent >= indent) {
            open.pop();
        }
        let mut path = open
            .last()
            .map(|open| open.path.clone())
            .unwrap_or_default();
        if let Some(item) = rest.strip_prefix("- ") {
            let items = open
                .last_mut()
                .map_or(&mut root_items, |open| &mut open.items);
            path = format!("{path}[{items}]");
            *items += 1;
            open.push(Open {
                indent,
                path: path.clone(),
                items: 0,
            });
            indent += 2;
            rest = item;
        }
        let (key, value) = match (rest.split_once(": "), rest.strip_suffix(':')) {
            _ if rest.starts_with('"') => ("", rest),
            (Some((key, value)), _) => (key, value),
            (None, Some(key)) => (key, ""),
            (None, None) => ("", rest),
        };
        let dot = if path.is_empty() || key.is_empty() {
            ""
        } else {
            "."
        };
        let path = format!("{path}{dot}{key}");
        // A key without a value is noted too: it may be a declaration, such as a volume's.
        let value = value.trim().trim_matches('"').to_owned();
        assert!(
            values.insert(path.clone(), value).is_none(),
            "{path} stands twice"
        );
        open.push(Open {
            indent,
            path,
            items: 0,
        });
    }
    values
}

/// The values of a list, in order.
pub fn list(values: &BTreeMap<String, String>, path: &str) -> Vec<String> {
    (0..)
        .map_while(|n| values.get(&format!("{path}[{n}]")).cloned())
        .collect()
}

/// The names directly below a path.
pub fn keys(values: &BTreeMap<String, String>, path: &str) -> Vec<String> {
    let below = format!("{path}.");
    let names = values.keys().filter_map(|key| key.strip_prefix(&below));
    names
        .filter(|name| !name.contains(['.', '[']))
        .map(str::to_owned)
        .collect()
}

#[test]
fn values_have_their_paths() {
    let text = "a:\n  # no\n  b: \"1\"\n  c:\n    - x:y\n    - name: n\n      of: m\n    - \"p: q\"\n  d:\n";
    let found = values(text);
    for (path, value) in [
        ("a.b", "1"),
        ("a.c[0]", "x:y"),
        ("a.c[1].name", "n"),
        ("a.c[1].of", "m"),
        ("a.c[2]", "p: q"),
        ("a.d", ""),
    ] {
        assert_eq!(
            found.get(path).map(String::as_str),
            Some(value),
            "{path} in {found:?}"
        );
    }
    assert_eq!(keys(&found, "a"), ["b", "c", "d"]);
}
