//! The unit of systemd and the manifests of Kubernetes fit the program: paths, ports, flags, keys and
//! the time of a stop.

use super::{text, yaml};
use segment_gateway::config::{self, Config};
use std::collections::BTreeMap;
use std::process::Command;

type Values = BTreeMap<String, String>;

/// The documents of a file, by their kinds.
fn documents(path: &str) -> BTreeMap<String, Values> {
    let text = text(path);
    let documents = text.split("\n---\n").map(yaml::values);
    // Before the first one there may be comments only.
    let documents = documents.filter(|document| !document.is_empty());
    let by_kind = documents.map(|document| (document["kind"].clone(), document));
    by_kind.collect()
}

/// The settings of a unit or of a drop-in, in their order.
fn unit_of(path: &str) -> Vec<(String, String)> {
    let text = text(path);
    let lines = text.lines().filter(|line| !line.starts_with(['#', '[']));
    let pairs = lines.filter_map(|line| line.split_once('='));
    let owned = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    owned.collect()
}

fn unit() -> Vec<(String, String)> {
    unit_of("deploy/systemd/segment-gateway.service")
}

fn of<'u>(unit: &'u [(String, String)], name: &str) -> &'u str {
    let found = unit.iter().find(|(of, _)| of == name);
    &found.unwrap_or_else(|| panic!("no {name}")).1
}

fn drain() -> u64 {
    Config::default().shutdown.drain.as_secs()
}

#[test]
fn the_unit_runs_the_program_as_it_is() {
    let unit = unit();
    for command in ["ExecStartPre", "ExecStart"] {
        let words: Vec<&str> = of(&unit, command).split(' ').collect();
        let [program, name, flag, file] = words[..] else {
            panic!("{words:?}");
        };
        assert_eq!(program, "/usr/local/bin/segment-gateway");
        assert_eq!(file, "/etc/segment-gateway.toml");
        let help = Command::new(env!("CARGO_BIN_EXE_segment-gateway"))
            .args([name, "--help"])
            .output()
            .unwrap();
        assert!(help.status.success(), "{name}");
        let help = String::from_utf8(help.stdout).unwrap();
        assert!(help.contains(&format!("{flag} <FILE>")), "{help}");
    }
    let (key, directory) = of(&unit, "Environment").split_once('=').unwrap();
    let named = of(&unit, "StateDirectory");
    assert_eq!(directory, format!("/var/lib/{named}"));
    let set = [(key.to_owned(), directory.to_owned())];
    let loaded = config::load(None, set.into_iter()).unwrap();
    assert_eq!(
        loaded.config.state.directory.unwrap().display().to_string(),
        directory
    );
    let stop: u64 = of(&unit, "TimeoutStopSec").parse().unwrap();
    assert!(stop > drain());
    let most: usize = of(&unit, "LimitNOFILE").parse().unwrap();
    assert!(most > 2 * Config::default().server.connections);
    // What cannot be used ends with 2; see the command line's tests.
    assert_eq!(of(&unit, "RestartPreventExitStatus"), "2");
}

/// What `systemd-analyze verify` says about the unit with these drop-ins; nothing without it.
fn verified(drop_ins: &[String]) -> Option<Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("segment-gateway.service");
    // It looks for the program where the unit says.
    let program = env!("CARGO_BIN_EXE_segment-gateway");
    let unit = text("deploy/systemd/segment-gateway.service");
    std::fs::write(
        &path,
        unit.replace("/usr/local/bin/segment-gateway", program),
    )
    .unwrap();
    let more = directory.path().join("segment-gateway.service.d");
    std::fs::create_dir(&more).unwrap();
    for (nth, drop_in) in drop_ins.iter().enumerate() {
        std::fs::write(more.join(format!("{nth}.conf")), drop_in).unwrap();
    }
    let Ok(output) = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&path)
        .output()
    else {
        eprintln!("skipped: there is no systemd-analyze");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let about_it = said
        .lines()
        .filter(|line| line.contains("segment-gateway.service"));
    Some(about_it.map(str::to_owned).collect())
}

#[test]
fn systemd_agrees_with_the_unit_and_its_drop_in() {
    let drop_in = text("deploy/systemd/credentials.conf");
    let Some(said) = verified(&[]) else { return };
    assert_eq!(said, Vec::<String>::new());
    assert_eq!(verified(std::slice::from_ref(&drop_in)).unwrap(), said);
    // And it reads the drop-in.
    let wrong = drop_in.replace("LoadCredential=", "LoadCredentials=");
    assert!(!verified(&[wrong]).unwrap().is_empty());
}

#[test]
fn the_drop_in_fits_the_program_and_the_unit() {
    const PLACE: &str = "/run/credentials/segment-gateway.service";
    let drop_in = unit_of("deploy/systemd/credentials.conf");
    let all = |name: &str| {
        let found = drop_in.iter().filter(|(of, _)| of == name);
        found.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    let loaded = all("LoadCredential").into_iter();
    let loaded: Vec<_> = loaded.map(|it| it.split_once(':').unwrap().0).collect();
    let settings = all("Environment").into_iter();
    let settings: Vec<_> = settings.map(|it| it.split_once('=').unwrap()).collect();
    for (name, value) in &settings {
        let credential = value.strip_prefix("%d/").unwrap();
        assert!(loaded.contains(&credential), "{name}: {credential}");
    }
    let settings = settings.into_iter();
    let settings = settings.map(|(name, value)| (name.to_owned(), value.replace("%d", PLACE)));
    let config = config::load(None, settings).unwrap().config;
    let key = config.tls.key_file.unwrap();
    assert_eq!(key.display().to_string(), format!("{PLACE}/tls.key"));
    // The file of clients names the token as the comment says.
    let text = text("deploy/systemd/credentials.conf");
    let token = text.split("file = \"").nth(1).unwrap();
    let token = token.split_once('"').unwrap().0.strip_prefix(PLACE);
    assert!(loaded.contains(&token.unwrap().trim_start_matches('/')));
    // Commands without the credentials do not look for them, and the signal stays.
    assert_eq!(all("ExecStartPre"), [""]);
    let signal = unit().into_iter().rfind(|(name, _)| name == "ExecReload");
    assert_eq!(all("ExecReload"), ["", &signal.unwrap().1]);
}

#[test]
fn the_manifests_fit_the_program_and_each_other() {
    let documents = documents("deploy/kubernetes/gateway.yaml");
    let settings: Vec<(String, String)> = documents["ConfigMap"]
        .iter()
        .filter_map(|(path, value)| Some((path.strip_prefix("data.")?.to_owned(), value.clone())))
        .collect();
    let config = config::load(None, settings.into_iter()).unwrap().config;
    let pod = &documents["Deployment"];
    let container = "spec.template.spec.containers[0]";
    assert_eq!(pod["spec.replicas"], "1");
    assert_eq!(pod["spec.strategy.type"], "Recreate");
    assert_eq!(pod[&format!("{container}.args[0]")], "serve");
    let ports = [
        (0, "http", config.listen),
        (1, "admin", config.admin.listen),
    ];
    for (nth, name, listen) in ports {
        assert!(listen.ip().is_unspecified());
        assert_eq!(pod[&format!("{container}.ports[{nth}].name")], name);
        let port = &pod[&format!("{container}.ports[{nth}].containerPort")];
        assert_eq!(port.parse(), Ok(listen.port()));
        assert_eq!(
            documents["Service"][&format!("spec.ports[{nth}].targetPort")],
            name
        );
    }
    assert!(config.admin.public);
    // Neither may be forgotten: without the secret nobody is an operator, and the journal's key lies
    // beside it.
    for (nth, name) in ["SEGMENT_GATEWAY_JOURNAL_KEY", "SEGMENT_GATEWAY_ADMIN_TOKEN"]
        .iter()
        .enumerate()
    {
        assert_eq!(pod[&format!("{container}.env[{nth}].name")], *name);
        let secret = format!("{container}.env[{nth}].valueFrom.secretKeyRef");
        assert_eq!(pod[&format!("{secret}.name")], "segment-gateway");
        assert_eq!(pod[&format!("{secret}.key")], *name);
        assert!(!pod.contains_key(&format!("{secret}.optional")));
    }
    assert_eq!(pod["spec.template.spec.enableServiceLinks"], "false");
    for (probe, path) in [
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ] {
        assert_eq!(pod[&format!("{container}.{probe}.httpGet.path")], path);
        assert_eq!(pod[&format!("{container}.{probe}.httpGet.port")], "admin");
    }
    let state = config.state.directory.unwrap().display().to_string();
    // A directory of its own, below that of the volume.
    let volume = &pod[&format!("{container}.volumeMounts[0].mountPath")];
    assert!(state.starts_with(&format!("{volume}/")), "{state}");
    let stop: u64 = pod["spec.template.spec.terminationGracePeriodSeconds"]
        .parse()
        .unwrap();
    assert!(stop > drain());
    let image = &pod[&format!("{container}.image")];
    assert_eq!(
        *image,
        format!("segment-gateway:{}", env!("CARGO_PKG_VERSION"))
    );
    for label in ["name", "instance"].map(|label| format!("app.kubernetes.io/{label}")) {
        for selector in [
            pod[&format!("spec.selector.matchLabels.{label}")].as_str(),
            &documents["Service"][&format!("spec.selector.{label}")],
            &documents["NetworkPolicy"][&format!("spec.podSelector.matchLabels.{label}")],
        ] {
            assert_eq!(
                selector,
                pod[&format!("spec.template.metadata.labels.{label}")]
            );
        }
    }
    let monitor = &self::documents("deploy/kubernetes/monitor.yaml")["ServiceMonitor"];
    assert_eq!(monitor["spec.endpoints[0].port"], "admin");
    assert_eq!(monitor["spec.endpoints[0].path"], "/metrics");
    let job = &monitor["spec.endpoints[0].relabelings[0].replacement"];
    assert!(text("deploy/prometheus/alerts.yml").contains(&format!("job=\"{job}\"")));
}

#[test]
fn the_example_of_a_held_token_has_none_in_it() {
    let secret = &documents("deploy/kubernetes/token.yaml")["Secret"];
    assert_eq!(secret["stringData.token"], "REPLACE-WITH-THE-TOKEN");
    // The file of clients in another document is no YAML.
    let managed = text("deploy/kubernetes/managed.yaml");
    let mut objects = managed.split("\n---\n");
    let pod = objects.find(|object| object.contains("\nkind: Deployment\n"));
    let pod = yaml::values(pod.unwrap());
    let name = &secret["metadata.name"];
    let named = pod
        .iter()
        .any(|(path, value)| path.ends_with("secret.name") && value == name);
    assert!(named, "{name}");
    let certificate = &documents("deploy/kubernetes/certificate.yaml")["Certificate"];
    let issued = &certificate["spec.secretName"];
    let used = pod
        .iter()
        .any(|(path, value)| path.ends_with("secretName") && value == issued);
    assert!(used, "{issued}");
}
