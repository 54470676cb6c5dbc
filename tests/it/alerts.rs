//! The alerts in `deploy/prometheus`: what they ask for exists, each has a runbook and cases in
//! which it fires and does not, and Prometheus itself agrees.
//!
//! What Prometheus says needs `promtool`, of Debian's package `prometheus`. Where it is missing the
//! test says so and passes, unless `SEGMENT_GATEWAY_NEEDS_PROMETHEUS` is set.

use super::catalogue::{eventful, families};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Labels that Prometheus adds, or that the rules make themselves.
const NOT_OF_THE_GATEWAY: [&str; 4] = ["instance", "job", "le", "severity"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The lines of each alert, by its name.
fn alerts() -> BTreeMap<String, Vec<String>> {
    let mut alerts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut name = None;
    let text = text("deploy/prometheus/alerts.yml");
    let lines = text.lines().map(str::trim);
    for line in lines.filter(|line| !line.starts_with('#')) {
        if let Some(next) = line.strip_prefix("- alert: ") {
            name = Some(next.to_owned());
        }
        if let Some(name) = &name {
            alerts
                .entry(name.clone())
                .or_default()
                .push(line.to_owned());
        }
    }
    alerts
}

fn expression(lines: &[String]) -> String {
    let from = lines.iter().position(|line| line == "expr: >-").unwrap() + 1;
    let ends = |line: &&String| !line.starts_with("for:") && !line.starts_with("labels:");
    let lines: Vec<&str> = lines[from..]
        .iter()
        .take_while(ends)
        .map(String::as_str)
        .collect();
    lines.join(" ")
}

/// The words of an expression that are not within quotes.
fn words(expression: &str) -> Vec<String> {
    let outside: String = expression
        .split('"')
        .step_by(2)
        .collect::<Vec<_>>()
        .join(" ");
    let words = outside.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_alerts_ask_for_is_exported() {
    let families = families(&eventful());
    let mut asked = 0;
    for (name, lines) in alerts() {
        let expression = expression(&lines);
        let mut labels = BTreeSet::new();
        for word in words(&expression) {
            if !word.starts_with("segment_gateway_") && !word.starts_with("process_") {
                continue;
            }
            let suffixes = ["", "_bucket", "_sum", "_count"].into_iter();
            let family = suffixes
                .filter_map(|suffix| families.get(word.strip_suffix(suffix)?))
                .next();
            let family = family.unwrap_or_else(|| panic!("{name}: {word}"));
            labels.extend(family.labels.iter().cloned());
            asked += 1;
        }
        let matched = expression.match_indices('=').filter_map(|(at, _)| {
            let before = expression[..at].trim_end_matches(['!', '>', '<']);
            let label = before
                .rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()?;
            Some(label.to_owned())
        });
        for label in matched.filter(|label| !label.is_empty() && !label.ends_with(' ')) {
            let known = labels.contains(&label) || NOT_OF_THE_GATEWAY.contains(&&*label);
            assert!(known, "{name}: {label}");
        }
    }
    assert!(asked > 18);
}

#[test]
fn every_alert_has_words_a_runbook_and_cases() {
    let runbooks = text("docs/runbooks.md");
    let headings: BTreeSet<&str> = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let cases = text("deploy/prometheus/alerts_test.yml");
    let alerts = alerts();
    for (name, lines) in &alerts {
        let has = |start: &str| lines.iter().any(|line| line.starts_with(start));
        assert!(has("summary: \"") && has("description: \""), "{name}");
        assert!(has("severity: page") || has("severity: ticket"), "{name}");
        assert!(
            has(&format!(
                "runbook_url: docs/runbooks.md#{}",
                name.to_lowercase()
            )),
            "{name}"
        );
        assert!(headings.contains(name.as_str()), "{name} has no runbook");
        for case in ["fires", "does not fire"] {
            assert!(
                cases.contains(&format!("# {name} {case}\n")),
                "{name} {case}"
            );
        }
    }
    let named: BTreeSet<&str> = alerts.keys().map(String::as_str).collect();
    assert_eq!(headings, named, "a runbook without an alert");
}

/// All of the program's sources, tests included.
fn sources(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let texts = entries.map(|entry| match entry.path() {
        path if path.is_dir() => sources(&path),
        path => std::fs::read_to_string(path).unwrap_or_default(),
    });
    texts.collect()
}

#[test]
fn runbooks_search_the_log_for_what_it_says_and_ask_with_the_admins_rights() {
    let runbooks = text("docs/runbooks.md");
    let sources = sources(&root().join("src"));
    let mut searched = 0;
    for command in runbooks.split("logs | grep ").skip(1) {
        let word = command.trim_start_matches("-i ");
        if word.starts_with('-') {
            // Fields of a line: a regular expression for both formats.
            continue;
        }
        let quoted = word
            .strip_prefix('\'')
            .and_then(|word| word.split_once('\''));
        let bare = word.split(['`', ' ', '\n']).next();
        let phrase = quoted.map_or(bare, |(phrase, _)| Some(phrase)).unwrap();
        assert!(sources.contains(phrase), "no log line says {phrase}");
        searched += 1;
    }
    assert!(searched >= 5, "{searched}");
    // A request that forgets the token or the socket stands in no section.
    let (head, sections) = runbooks.split_once("\n## ").unwrap();
    assert!(head.contains("\nask() {") && head.contains("\ngateway() {"));
    assert!(!sections.contains("curl ") && !sections.contains("`segment-gateway writes"));
}

#[test]
fn prometheus_agrees_with_the_rules_and_their_cases() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new("promtool");
        command
            .args(arguments)
            .current_dir(root().join("deploy/prometheus"));
        command.output()
    };
    for arguments in [
        &["check", "config", "prometheus.yml"][..],
        &["check", "rules", "alerts.yml", "recording.yml"],
        &["test", "rules", "alerts_test.yml"],
    ] {
        let Ok(output) = run(arguments) else {
            let needed = std::env::var_os("SEGMENT_GATEWAY_NEEDS_PROMETHEUS").is_some();
            assert!(!needed, "install Debian's package prometheus");
            eprintln!("skipped: there is no promtool");
            return;
        };
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}
