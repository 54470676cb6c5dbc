//! The metrics as an interface: `docs/metrics.md` lists what the program exports, no more and no
//! less, as the program says it of itself.
//!
//! `SEGMENT_GATEWAY_BLESS=1 cargo test catalogue` writes the list anew. What dashboards and alerts
//! elsewhere rely on changes with it, so a change of it belongs in the notes of a release.

use segment_gateway::metrics::{
    AuditLevels, BudgetGauge, Levels, Malformed, Metrics, Origin, Outcome,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const HEAD: &str = "| metric | type | labels | meaning | alerts |
|---|---|---|---|---|
";

/// One metric.
#[derive(Debug, Default)]
pub struct Family {
    help: String,
    kind: String,
    /// The names of its labels.
    pub labels: BTreeSet<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What is exported once everything has happened.
pub fn eventful() -> String {
    const SOON: Duration = Duration::from_millis(1);
    let metrics = Metrics::new(&[Arc::from("getUser")]).unwrap();
    metrics.hit(0, SOON);
    metrics.request(Some(0), Outcome::Fetched, Some(200), SOON);
    metrics.overhead(SOON);
    metrics.refreshed("getUser", "ahead");
    metrics.not_a_hit("getUser", "miss", "absent");
    metrics.rejected("getUser", "gateway-queue-wait");
    metrics.throttled("getUser", Origin::Upstream);
    metrics.queued(0, SOON);
    metrics.answered(0, 200, SOON);
    metrics.invalidated("tags");
    metrics.foreign("getUser", 1);
    metrics.retried("getUser");
    metrics.retry_denied("getUser");
    metrics.connections().malformed(Malformed::Head);
    let tls = metrics.tls("callers");
    tls.certificate(std::time::UNIX_EPOCH + SOON);
    metrics.client_keys([("hr-sync", "k7Qm2x", std::time::UNIX_EPOCH + SOON)].into_iter());
    metrics.durable_ended("getUser", "succeeded");
    metrics.batched("getUser", 2, 1);
    metrics.journal_committed(true, SOON);
    metrics.admin_rejected("host");
    metrics.client("hr-sync", Outcome::Hit);
    metrics.held_token("provisioning", true);
    metrics.audit(&AuditLevels {
        records: &[("write", 1)].into(),
        lost: 0,
        failing: false,
    });
    metrics.in_shadow(false);
    metrics.predicted("getUser", "queued", "miss", Some(SOON));
    metrics.compared("getUser", "same");
    metrics.throttled_in_shadow("getUser", "queued");
    let budgets = [(Arc::from("getUser"), BudgetGauge::default())];
    String::from_utf8(metrics.render(&budgets, &Levels::default())).unwrap()
}

/// What such a text has, by name.
pub fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            families.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
        }
    }
    for (name, labels, _) in crate::support::exposition::samples(text) {
        let suffixes = ["_bucket", "_sum", "_count"].into_iter();
        let family = suffixes
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|family| families.contains_key(*family));
        let family = family.unwrap_or(&name).to_owned();
        let family = families.get_mut(&family).unwrap();
        let names = labels.into_iter().map(|(name, _)| name);
        family.labels.extend(names.filter(|name| name != "le"));
    }
    families
}

/// The alerts that use a metric, by the metric.
fn alerts() -> BTreeMap<String, BTreeSet<String>> {
    let path = root().join("deploy/prometheus/alerts.yml");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut alert = String::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("- alert: ") {
            name.clone_into(&mut alert);
        }
        let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words
            .filter(|word| word.starts_with("segment_gateway_") || word.starts_with("process_"))
        {
            used.entry(word.to_owned())
                .or_default()
                .insert(alert.clone());
        }
    }
    used
}

fn catalogue(families: &BTreeMap<String, Family>) -> String {
    let alerts = alerts();
    let mut text = HEAD.to_owned();
    for (name, family) in families {
        let series = ["", "_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}"));
        let used: BTreeSet<&str> = series
            .iter()
            .filter_map(|series| alerts.get(series))
            .flatten()
            .map(String::as_str)
            .collect();
        let labels: Vec<String> = family
            .labels
            .iter()
            .map(|name| format!("`{name}`"))
            .collect();
        let used: Vec<&str> = used.into_iter().collect();
        text.push_str(&format!(
            "| `{name}` | {} | {} | {} | {} |\n",
            family.kind,
            labels.join(", "),
            family.help,
            used.join(", ")
        ));
    }
    text
}

#[test]
fn the_catalogue_lists_what_is_exported() {
    let catalogue = catalogue(&families(&eventful()));
    super::docs::generated("docs/metrics.md", "catalogue", &catalogue);
}

#[test]
fn every_metric_has_happened() {
    // A metric without a sample would be missing in the catalogue.
    let exported = families(&eventful());
    let table = std::fs::read_to_string(root().join("src/metrics/families.rs")).unwrap();
    for name in table
        .split('"')
        .filter(|name| name.starts_with("segment_gateway_"))
    {
        assert!(exported.contains_key(name), "{name}");
    }
}

#[test]
fn names_follow_the_conventions_of_prometheus() {
    for (name, family) in families(&eventful()) {
        let is_total = name.ends_with("_total");
        assert_eq!(
            family.kind == "counter",
            is_total,
            "{name} is a {}",
            family.kind
        );
        assert!(
            !family.help.is_empty() && !family.help.ends_with('.'),
            "{name}"
        );
        if family.kind == "histogram" {
            assert!(
                name.ends_with("_seconds") || name.ends_with("_bytes"),
                "{name}"
            );
        }
        for unit in ["_ms", "_millis", "_minutes", "_kb", "_percent"] {
            assert!(!name.ends_with(unit), "{name}");
        }
    }
}
