//! Finds the metrics and labels that a PromQL expression depends on.
//!
//! Understands the form that the dashboard keeps to: groupings stand before what they group
//! (`sum by (x) (…)`). It does not check an expression; Prometheus does.

use std::collections::BTreeSet;

/// Added by Prometheus to what it scrapes, not exported by the gateway.
pub const OF_THE_SCRAPE: [&str; 2] = ["job", "instance"];
/// The metrics that Prometheus makes itself: of each scrape, and of each alert.
pub const OF_PROMETHEUS: [&str; 2] = ["up", "ALERTS"];

/// One metric in an expression.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Its name as written, such as `x_bucket`.
    pub metric: String,
    /// The labels that it is selected, grouped or matched by.
    pub labels: BTreeSet<String>,
    /// Values that are asked for literally, with their labels.
    pub values: Vec<(String, String)>,
}

/// All metrics in an expression, in the order of their appearance.
pub fn selectors(expression: &str) -> Vec<Selector> {
    let mut found: Vec<Selector> = Vec::new();
    let mut everywhere: Vec<String> = Vec::new();
    // The labels of each open parenthesis, and those of the next one.
    let mut open: Vec<Vec<String>> = Vec::new();
    let mut next: Vec<String> = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if word == 0 {
            match first {
                '(' => open.push(std::mem::take(&mut next)),
                ')' => drop(open.pop()),
                '[' => rest = rest.split_once(']').expect("a closed range").1,
                '{' => {
                    let (matchers, after) = rest[1..].split_once('}').expect("closed matchers");
                    matched(found.last_mut().expect("a metric before {"), matchers);
                    rest = after;
                }
                '"' => panic!("text in {expression}"),
                _ => {}
            }
            if !matches!(first, '[' | '{') {
                rest = &rest[first.len_utf8()..];
            }
            continue;
        }
        let (name, after) = rest.split_at(word);
        rest = after.trim_start();
        match name {
            "by" | "on" => {
                let (labels, after) = group(rest);
                rest = after.trim_start();
                if name == "on" {
                    everywhere.extend(labels);
                } else {
                    assert!(
                        rest.starts_with('('),
                        "write the grouping first in {expression}"
                    );
                    next = labels;
                }
            }
            "without" | "ignoring" | "group_left" | "group_right" | "offset" => {
                panic!("{name} in {expression}: not known here")
            }
            "and" | "or" | "unless" => {}
            // A function, or an aggregation with its grouping.
            _ if rest.starts_with('(') || rest.starts_with("by ") => {}
            _ if name.starts_with(|c: char| c.is_ascii_digit()) => {}
            _ => found.push(Selector {
                metric: name.to_owned(),
                labels: open.iter().flatten().cloned().collect(),
                values: Vec::new(),
            }),
        }
    }
    for selector in &mut found {
        selector.labels.extend(everywhere.iter().cloned());
        selector
            .labels
            .retain(|label| !OF_THE_SCRAPE.contains(&label.as_str()));
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.')
}

fn group(text: &str) -> (Vec<String>, &str) {
    let (labels, after) = text
        .strip_prefix('(')
        .and_then(|text| text.split_once(')'))
        .expect("labels in parentheses");
    (
        labels
            .split(',')
            .map(|label| label.trim().to_owned())
            .collect(),
        after,
    )
}

fn matched(selector: &mut Selector, matchers: &str) {
    for matcher in matchers.split(',') {
        let word = matcher.trim();
        let (label, test) = word.split_at(word.find(|c| !is_word(c)).expect("a comparison"));
        selector.labels.insert(label.to_owned());
        let value = test.trim_start_matches(['=', '!', '~']).trim_matches('"');
        if !value.contains('$') {
            let values = value.split('|');
            let values = values.map(|value| (label.to_owned(), value.to_owned()));
            selector.values.extend(values);
        }
    }
}

#[test]
fn metrics_and_labels_are_found() {
    let of = |metric: &str, labels: &[&str], values: &[(&str, &str)]| Selector {
        metric: metric.to_owned(),
        labels: labels.iter().map(|&label| label.to_owned()).collect(),
        values: values
            .iter()
            .map(|&(label, value)| (label.to_owned(), value.to_owned()))
            .collect(),
    };
    for (expression, expected) in [
        ("min(a)", vec![of("a", &[], &[])]),
        (
            "a{x=~\"1|2\"}",
            vec![of("a", &["x"], &[("x", "1"), ("x", "2")])],
        ),
        (
            "histogram_quantile(0.9, sum by (le, x) (rate(a_bucket{y=~\"$y\", z!=\"1\"}[$__rate_interval])))",
            vec![of("a_bucket", &["le", "x", "y", "z"], &[("z", "1")])],
        ),
        (
            "max by (x) (a) / max by (y) (b) > 0",
            vec![of("a", &["x"], &[]), of("b", &["y"], &[])],
        ),
        (
            "max(rate(a[5m]) and on (job, z) b)",
            vec![of("a", &["z"], &[]), of("b", &["z"], &[])],
        ),
    ] {
        assert_eq!(selectors(expression), expected, "{expression}");
    }
}
