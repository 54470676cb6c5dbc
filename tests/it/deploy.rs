//! The files in `deploy/` fit the program: metrics, labels and words of the dashboard here, paths,
//! ports, flags and settings of the containers in `deploy/containers.rs`, of systemd and Kubernetes in
//! `deploy/cluster.rs`, of the Helm chart in `deploy/chart.rs`, of the Alertmanager in
//! `deploy/alertmanager.rs`.
//!
//! They are read as they are shipped; nothing is started. What is out of date in them shows only
//! when somebody needs it, so every reference that can be followed is followed.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests: a file that cannot be read is the failure"
)]

mod alertmanager;
mod chart;
mod cluster;
mod containers;
mod promql;
pub mod tools;
mod yaml;

use super::catalogue::{eventful as all_metrics, families};
use promql::{OF_PROMETHEUS, OF_THE_SCRAPE, Selector, selectors};
use segment_gateway::metrics::{
    AuditLevels, BudgetGauge, Levels, Malformed, Metrics, Origin, Outcome,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Panels that every Grafana has.
const BUILT_IN: [&str; 3] = ["stat", "table", "timeseries"];
/// What no question of somebody on call needs.
const NOT_SHOWN: [&str; 2] = [
    // The time since the start is shown.
    "process_start_time_seconds",
    // It tells nothing: what is resident is shown.
    "process_virtual_memory_bytes",
];
/// The errors by which the gateway rejects requests for want of room.
const LOAD: [&str; 5] = [
    "gateway-queue-wait",
    "gateway-queue-full",
    "gateway-queue-expired",
    "gateway-caller-quota",
    "gateway-overloaded",
];
/// Columns of Grafana's grid.
const COLUMNS: u64 = 24;
/// The rows that are open, and the most panels in them: what can be taken in at a glance.
const OPEN_ROWS: usize = 4;
const OPEN_PANELS: usize = 30;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn text(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn dashboard() -> Value {
    serde_json::from_str(&text("deploy/grafana/dashboard.json")).unwrap()
}

/// All rows and panels, those in collapsed rows included.
fn everything(dashboard: &Value) -> Vec<&Value> {
    let all = dashboard["panels"].as_array().unwrap().iter();
    let with_details = all.flat_map(|panel| {
        let details = panel["panels"].as_array().into_iter().flatten();
        std::iter::once(panel).chain(details)
    });
    with_details.collect()
}

/// The panels that show something: all but the rows' titles.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let mut all = everything(dashboard);
    all.retain(|panel| panel["type"] != "row");
    all
}

/// The recording rules: the expression of each, by its name.
pub fn recorded() -> BTreeMap<String, String> {
    let text = text("deploy/prometheus/recording.yml");
    let mut rules: BTreeMap<String, String> = BTreeMap::new();
    let mut name = "";
    for line in text.lines().map(str::trim) {
        if let Some(next) = line.strip_prefix("- record: ") {
            name = next;
        } else if !name.is_empty() && !line.starts_with('#') && line != "expr: >-" {
            let expression = rules.entry(name.to_owned()).or_default();
            *expression = format!("{expression} {line}").trim().to_owned();
        }
    }
    rules
}

/// The metrics of the gateway behind these selectors. A recorded metric stands for those of its rule,
/// which must keep every label that is asked for.
fn resolved(found: Vec<Selector>, rules: &BTreeMap<String, String>) -> Vec<Selector> {
    let mut all = Vec::new();
    for selector in found {
        if OF_PROMETHEUS.contains(&&*selector.metric) {
            continue;
        }
        if !selector.metric.contains(':') {
            all.push(selector);
            continue;
        }
        let rule = rules.get(&selector.metric);
        let rule = rule.unwrap_or_else(|| panic!("{} is not recorded", selector.metric));
        let sources = selectors(rule);
        for label in &selector.labels {
            let kept = sources.iter().all(|source| source.labels.contains(label));
            assert!(kept, "{} has no {label}", selector.metric);
        }
        all.extend(resolved(sources, rules));
    }
    all
}

fn str_of<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

/// Every query of the dashboard's panels.
pub fn expressions() -> Vec<String> {
    let dashboard = dashboard();
    let targets = panels(&dashboard)
        .into_iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    targets
        .map(|target| str_of(target, "expr").to_owned())
        .collect()
}

/// Every metric of every query of the dashboard, its variables included.
fn selected() -> Vec<Selector> {
    let dashboard = dashboard();
    let mut found = Vec::new();
    for panel in panels(&dashboard) {
        for target in panel["targets"].as_array().unwrap() {
            found.extend(selectors(str_of(target, "expr")));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if variable["type"] != "query" {
            continue;
        }
        let query = str_of(&variable["query"], "query");
        let values = query
            .strip_prefix("label_values(")
            .and_then(|q| q.strip_suffix(')'));
        let (metric, label) = values.unwrap().rsplit_once(", ").unwrap();
        let mut of = selectors(metric);
        if !OF_THE_SCRAPE.contains(&label) {
            of[0].labels.insert(label.to_owned());
        }
        found.extend(of);
    }
    resolved(found, &recorded())
}

/// Every metric that the dashboard queries, with all labels that any query needs of it.
pub fn queried() -> Vec<(String, Vec<String>)> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for selector in selected() {
        all.entry(selector.metric)
            .or_default()
            .extend(selector.labels);
    }
    all.into_iter()
        .map(|(metric, labels)| (metric, labels.into_iter().collect()))
        .collect()
}

/// What the dashboard queries and this text in Prometheus' format does not have: metrics, labels
/// and values of labels that are asked for literally. Empty if all is there.
pub fn missing(exposition: &str) -> Vec<String> {
    let mut samples: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in exposition.lines().filter(|line| !line.starts_with('#')) {
        let name = line.find(['{', ' ']).unwrap_or(line.len());
        samples
            .entry(&line[..name])
            .or_default()
            .push(&line[name..]);
    }
    let mut missing = BTreeSet::new();
    for Selector {
        metric,
        labels,
        values,
    } in selected()
    {
        let Some(samples) = samples.get(metric.as_str()) else {
            missing.insert(metric);
            continue;
        };
        // No value of ours has a quote or a comma in it.
        let has = |sample: &str, what: &str| {
            sample.contains(&format!("{{{what}")) || sample.contains(&format!(",{what}"))
        };
        for label in labels {
            if !samples
                .iter()
                .all(|sample| has(sample, &format!("{label}=\"")))
            {
                missing.insert(format!("{metric}{{{label}}}"));
            }
        }
        for (label, value) in values {
            let what = format!("{label}=\"{value}\"");
            if !samples.iter().any(|sample| has(sample, &what)) {
                missing.insert(format!("{metric}{{{what}}}"));
            }
        }
    }
    missing.into_iter().collect()
}

/// Metrics after one event of every kind that the dashboard asks for by name.
fn eventful() -> String {
    const SOON: Duration = Duration::from_millis(1);
    let metrics = Metrics::new(&[Arc::from("getUser")]).unwrap();
    metrics.hit(0, SOON);
    for outcome in Outcome::ALL {
        metrics.request(Some(0), outcome, Some(500), SOON);
    }
    metrics.overhead(SOON);
    metrics.not_a_hit("getUser", "miss", "absent");
    metrics.not_a_hit("getUser", "stale", "if-error");
    metrics.refreshed("getUser", "ahead");
    for kind in LOAD {
        metrics.rejected("getUser", kind);
    }
    for origin in [Origin::Upstream, Origin::Start, Origin::Gateway] {
        metrics.throttled("getUser", origin);
    }
    metrics.queued(0, SOON);
    metrics.answered(0, 500, SOON);
    for result in ["not-sent", "unknown"] {
        metrics.unanswered("getUser", result);
    }
    for kind in ["tags", "everything", "unauthorized"] {
        metrics.invalidated(kind);
    }
    metrics.foreign("getUser", 1);
    metrics.retried("getUser");
    metrics.retry_denied("getUser");
    metrics.connections().malformed(Malformed::TooLarge);
    metrics.admin_rejected("wrong-token");
    let tls = metrics.tls("callers");
    tls.certificate(std::time::UNIX_EPOCH + SOON);
    metrics.client_keys([("hr-sync", "k7Qm2x", std::time::UNIX_EPOCH + SOON)].into_iter());
    metrics.client("hr-sync", Outcome::Hit);
    metrics.held_token("provisioning", true);
    metrics.audit(&AuditLevels {
        records: &[("write", 1)].into(),
        lost: 0,
        failing: false,
    });
    for state in ["succeeded", "failed", "unknown", "cancelled"] {
        metrics.durable_ended("getUser", state);
    }
    metrics.batched("getUser", 2, 1);
    for kept in [true, false] {
        metrics.journal_committed(kept, SOON);
    }
    metrics.in_shadow(true);
    for verdict in ["hit", "stale", "joined"] {
        metrics.predicted("getUser", verdict, verdict, None);
    }
    for verdict in ["at-once", "refused"] {
        metrics.predicted("getUser", verdict, "none", Some(SOON));
        metrics.throttled_in_shadow("getUser", verdict);
    }
    let budgets = [(Arc::from("getUser"), BudgetGauge::default())];
    String::from_utf8(metrics.render(&budgets, &Levels::default())).unwrap()
}

#[test]
fn every_metric_and_label_in_the_dashboard_exists() {
    assert_eq!(missing(&eventful()), Vec::<String>::new());
    // And the check sees what is not there.
    let without = eventful()
        .replace("origin=", "from=")
        .replace("task_panics", "task_panic");
    let expected = [
        "segment_gateway_task_panics_total",
        "segment_gateway_throttled_total{origin=\"upstream\"}",
        "segment_gateway_throttled_total{origin}",
    ];
    assert_eq!(missing(&without), expected);
    assert!(queried().contains(&(
        "segment_gateway_throttled_total".to_owned(),
        vec!["origin".to_owned()]
    )));
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let shown: BTreeSet<String> = selected().into_iter().map(|it| it.metric).collect();
    let is_shown = |name: &str| {
        ["", "_bucket"]
            .iter()
            .any(|end| shown.contains(&format!("{name}{end}")))
    };
    let mut hidden: Vec<String> = families(&all_metrics()).into_keys().collect();
    hidden.retain(|name| !is_shown(name));
    assert_eq!(hidden, NOT_SHOWN);
}

#[test]
fn four_rows_answer_at_a_glance_and_the_rest_is_collapsed() {
    let dashboard = dashboard();
    let all = dashboard["panels"].as_array().unwrap();
    let (rows, open): (Vec<&Value>, Vec<&Value>) = all.iter().partition(|p| p["type"] == "row");
    let is_collapsed = |row: &Value| row["collapsed"] == true;
    let collapsed = rows.iter().position(|row| is_collapsed(row)).unwrap();
    assert_eq!(collapsed, OPEN_ROWS);
    assert!(rows[collapsed..].iter().all(|row| is_collapsed(row)));
    assert!(open.len() <= OPEN_PANELS, "{} panels", open.len());
    // An open row is followed by its panels, a collapsed one has them inside.
    assert!(all[0]["type"] == "row");
    for two in all.windows(2).filter(|two| two[0]["type"] == "row") {
        assert_eq!(is_collapsed(&two[0]), two[1]["type"] == "row", "{}", two[0]);
    }
    for row in rows {
        let inside = row["panels"].as_array().unwrap().len();
        assert_eq!(inside > 0, is_collapsed(row), "{}", row["title"]);
    }
}

#[test]
fn every_panel_asks_for_the_chosen_gateways() {
    let dashboard = dashboard();
    let mut titles = BTreeSet::new();
    for panel in everything(&dashboard) {
        let title = str_of(panel, "title");
        assert!(titles.insert(title), "two are called {title}");
    }
    for expression in expressions() {
        for (before, selector) in expression.split('{').zip(expression.split('{').skip(1)) {
            let matchers = selector.split('}').next().unwrap();
            // Alerts on sums have lost their job, and the one on nothing has no instance.
            let expected: &[&str] = if before.ends_with("ALERTS") {
                &[r#"instance=~"$instance|""#]
            } else {
                &[r#"job=~"$job""#, r#"instance=~"$instance""#]
            };
            for matcher in expected {
                assert!(matchers.contains(matcher), "{expression}");
            }
        }
    }
}

#[test]
fn every_recording_rule_is_used_and_names_what_exists() {
    let rules = recorded();
    assert!(rules.len() > 8);
    let used: BTreeSet<String> = expressions()
        .iter()
        .chain(rules.values())
        .flat_map(|expression| selectors(expression))
        .map(|selector| selector.metric)
        .collect();
    let unused: Vec<&String> = rules.keys().filter(|name| !used.contains(*name)).collect();
    assert_eq!(unused, Vec::<&String>::new());
    let errors = text("src/error.rs");
    for file in ["alerts.yml", "recording.yml"] {
        let rules = text(&format!("deploy/prometheus/{file}"));
        assert!(rules.contains(&format!("type=~\n          \"{}\"", LOAD.join("|"))));
    }
    for kind in LOAD {
        assert!(errors.contains(&format!("\"{kind}\"")), "{kind}");
    }
}

#[test]
fn the_dashboard_has_the_types_of_grafana() {
    let shipped = text("deploy/grafana/dashboard.json");
    if tools::check("grafana", &shipped).is_none() {
        return;
    }
    // And the check sees what Grafana does not know.
    for (right, wrong) in [
        (r#""graphMode""#, r#""graphMod""#),
        (r#""fillOpacity": 10"#, r#""fillOpacity": "10""#),
        (r#""schemaVersion": 41"#, r#""schemaVersion": "41""#),
    ] {
        assert!(shipped.contains(right), "{right}");
        let problems = tools::check("grafana", &shipped.replace(right, wrong));
        assert!(problems.unwrap().is_err(), "{wrong}");
    }
}

#[test]
fn every_panel_says_what_it_shows_and_what_to_do() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39);
    assert!(dashboard["id"].is_null(), "the server numbers it");
    let panels = panels(&dashboard);
    assert!(panels.len() >= 12);
    for panel in panels {
        let title = str_of(panel, "title");
        assert!(!title.is_empty());
        assert!(BUILT_IN.contains(&str_of(panel, "type")), "{title}");
        assert!(str_of(panel, "description").len() > 80, "{title}");
        assert!(
            !str_of(&panel["fieldConfig"]["defaults"], "unit").is_empty(),
            "{title}"
        );
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        let names: BTreeSet<_> = targets
            .iter()
            .map(|target| str_of(target, "refId"))
            .collect();
        assert_eq!(names.len(), targets.len(), "{title}");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let mut selectors = selectors(str_of(target, "expr"));
            assert!(!selectors.is_empty(), "{title}");
            selectors.retain(|selector| !OF_PROMETHEUS.contains(&&*selector.metric));
            let legend = str_of(target, "legendFormat");
            for label in legend.split("{{").skip(1) {
                let label = label.split_once("}}").unwrap().0;
                if OF_THE_SCRAPE.contains(&label) {
                    continue;
                }
                for selector in &selectors {
                    assert!(
                        selector.labels.contains(label),
                        "{title}: {label} in {selector:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn descriptions_name_only_what_exists() {
    let dashboard = dashboard();
    let errors = text("src/error.rs");
    let keys = configuration_keys();
    let runbooks = text("docs/runbooks.md");
    let mut sections: BTreeSet<&str> = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let known_sections = sections.clone();
    let all = everything(&dashboard);
    let titles: Vec<_> = all.iter().map(|p| str_of(p, "title")).collect();
    for panel in panels(&dashboard) {
        let description = str_of(panel, "description");
        for word in description.split([' ', ',', ';', ':', '(', ')']) {
            let word = word.trim_end_matches('.');
            if let Some((section, key)) = word.split_once('.') {
                let named = format!("{section}.{key}");
                assert!(keys.contains(&named), "{named} is not a configuration key");
            }
            if word.starts_with("Segment") {
                assert!(known_sections.contains(word), "{word} has no runbook");
                sections.remove(word);
            }
            if word.starts_with("gateway-") && !word.ends_with('*') {
                assert!(
                    errors.contains(&format!("\"{word}\"")),
                    "{word} is not an error"
                );
            }
        }
        for quoted in description.split(" '").skip(1) {
            let quoted = quoted.split_once('\'').unwrap().0;
            let known = titles.contains(&quoted)
                || eventful().contains(&format!("=\"{quoted}\""))
                || matches!(
                    quoted,
                    "closed" | "panicked" | "everything" | "unauthorized"
                );
            assert!(known, "{quoted} is neither a panel nor a legend");
        }
    }
    assert_eq!(sections, BTreeSet::new(), "no panel leads there");
}

#[test]
fn the_documents_lead_to_every_row_and_every_runbook() {
    let monitoring = text("docs/monitoring.md");
    let dashboard = dashboard();
    let all = dashboard["panels"].as_array().unwrap().iter();
    for row in all.filter(|panel| panel["type"] == "row") {
        let title = str_of(row, "title");
        assert!(monitoring.contains(&format!("\n| {title} | ")), "{title}");
    }
    let runbooks = text("docs/runbooks.md");
    for alert in runbooks.lines().filter_map(|line| line.strip_prefix("## ")) {
        let link = format!("[{alert}](runbooks.md#{})", alert.to_lowercase());
        assert!(monitoring.contains(&link), "{link}");
    }
}

/// The keys of the shipped configuration, those behind a `#` included.
fn configuration_keys() -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in text("config/segment-gateway.toml").lines() {
        let line = line.trim_start_matches("# ");
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = format!("{name}.");
        } else if let Some((key, _)) = line.split_once(" = ") {
            keys.insert(format!("{section}{key}"));
        }
    }
    keys
}

#[test]
fn no_panel_covers_another() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    for panel in everything(&dashboard) {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}", panel["id"]);
    }
    let open = dashboard["panels"].as_array().unwrap();
    let inside = open.iter().filter_map(|row| row["panels"].as_array());
    for together in std::iter::once(open).chain(inside) {
        let mut taken = BTreeSet::new();
        for panel in together {
            let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            let (x, y) = (place("x"), place("y"));
            assert!(x + place("w") <= COLUMNS, "{}", panel["title"]);
            for cell in (x..x + place("w")).flat_map(|x| (y..y + place("h")).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{} covers another", panel["title"]);
            }
        }
    }
}
