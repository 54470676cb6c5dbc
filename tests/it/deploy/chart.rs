//! The Helm chart: Helm renders it, the objects have the types of Kubernetes and of the Prometheus
//! operator, their settings are those of the program, and values that contradict each other are refused.
//!
//! They are skipped without the tools of `.ci/tools/install`. Nothing is installed into a cluster.

use super::tools::{check, run, tools};
use super::{configuration_keys, root, text};
use crate::support::tls::Authority;
use segment_gateway::config::{self, Config};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Values that set every option.
const FULL: &[&str] = &["--values", "deploy/helm/ci/full-values.yaml"];
/// Values for clients with keys, a held token and TLS.
const MANAGED: &[&str] = &["--values", "deploy/helm/ci/managed-values.yaml"];
/// What Helm adds for itself, and what follows from values that a plain manifest does not have.
const OF_HELM: [&str; 5] = [
    "# Source: ",
    "helm.sh/chart:",
    "app.kubernetes.io/managed-by:",
    "helm.sh/resource-policy:",
    "checksum/config:",
];

/// The chart as Helm renders it as the release `segment-gateway`.
fn render(tools: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut helm = Command::new(tools.join("bin/helm"));
    helm.args(["template", "segment-gateway", "deploy/helm"]);
    helm.args(arguments);
    run(helm, "")
}

/// The objects of a rendered chart, which have the types of Kubernetes.
fn objects(rendered: &str) -> Vec<Value> {
    let checked = check("kubernetes", rendered).expect("the tools");
    checked.unwrap_or_else(|problems| panic!("{problems}"))
}

fn of<'o>(objects: &'o [Value], kind: &str) -> &'o Value {
    let found = objects.iter().find(|object| object["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}"))
}

/// The settings of the gateway's ConfigMap.
fn settings(objects: &[Value]) -> Vec<(String, String)> {
    let all = objects
        .iter()
        .filter(|object| object["kind"] == "ConfigMap");
    let mut data = all.filter_map(|object| object["data"].as_object());
    let data = data.find(|data| data.contains_key("SEGMENT_GATEWAY__MODE"));
    let pairs = data.unwrap().iter().map(|(name, value)| {
        let value = value.as_str().expect("settings are text");
        (name.clone(), value.to_owned())
    });
    pairs.collect()
}

fn items<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    value[key].as_array().into_iter().flatten()
}

fn str_at<'v>(value: &'v Value, pointer: &str) -> &'v str {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

/// The files that the pod's volumes have, below a folder in place of the root of its file system, with
/// the modes of Kubernetes. What the chart does not render is made up: certificates, a token, a secret.
fn place_volumes(objects: &[Value], folder: &Path) {
    let authority = Authority::new();
    let pair = authority.pair(2099);
    let of_a_secret = |key: &str| match key {
        "tls.crt" => pair.certificate.clone(),
        "tls.key" => pair.key.clone(),
        _ => "a-secret-of-some-length".to_owned(),
    };
    let rendered = |name: &str, key: &str| {
        let mut maps = objects
            .iter()
            .filter(|object| object["kind"] == "ConfigMap");
        let map = maps.find(|object| object["metadata"]["name"] == name);
        // Another is the operator's: authorities.
        map.map_or(authority.certificate.clone(), |map| {
            str_at(map, &format!("/data/{}", key.replace('/', "~1"))).to_owned()
        })
    };
    let pod = &of(objects, "Deployment")["spec"]["template"]["spec"];
    for mount in items(&pod["containers"][0], "volumeMounts") {
        assert!(mount["subPath"].is_null(), "{mount} would not be updated");
        let mut volumes = items(pod, "volumes");
        let volume = volumes.find(|volume| volume["name"] == mount["name"]);
        let volume = volume.unwrap_or_else(|| panic!("no volume for {mount}"));
        let at = folder.join(str_at(mount, "/mountPath").trim_start_matches('/'));
        // The files: their paths, texts and modes.
        let mut files: Vec<(PathBuf, String, u64)> = Vec::new();
        let mode = |of: &Value| of["defaultMode"].as_u64().unwrap_or(0o644);
        let map = &volume["configMap"];
        for item in items(map, "items") {
            let text = rendered(str_at(map, "/name"), str_at(item, "/key"));
            files.push((at.join(str_at(item, "/path")), text, mode(map)));
        }
        let (secret, projected) = (&volume["secret"], &volume["projected"]);
        let sources =
            items(projected, "sources").flat_map(|source| items(&source["secret"], "items"));
        let of_secrets = items(secret, "items").map(|item| (item, mode(secret)));
        for (item, mode) in of_secrets.chain(sources.map(|item| (item, mode(projected)))) {
            let path = at.join(str_at(item, "/path"));
            files.push((path, of_a_secret(str_at(item, "/key")), mode));
        }
        if secret.is_object() && secret["items"].is_null() {
            let names = ["tls.crt", "tls.key"];
            files.extend(names.map(|name| (at.join(name), of_a_secret(name), mode(secret))));
        }
        for (path, text, mode) in files {
            // The file of clients names the files of the tokens.
            let moved = format!("\"{}/run/secrets/", folder.display());
            let text = text.replace("\"/run/secrets/", &moved);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            let mode = fs::Permissions::from_mode(u32::try_from(mode).unwrap());
            fs::set_permissions(&path, mode).unwrap();
        }
    }
}

/// The settings of the rendered chart, with paths below a folder that has the files of its volumes.
fn placed_settings(objects: &[Value], folder: &Path) -> Vec<(String, String)> {
    place_volumes(objects, folder);
    let mut settings = settings(objects);
    for (name, value) in &mut settings {
        if name.ends_with("FILE") || name.ends_with("DIRECTORY") {
            *value = format!("{}{value}", folder.display());
        }
    }
    settings
}

/// A rendered chart without what only Helm needs.
fn plain(rendered: &str) -> String {
    let lines: Vec<&str> = rendered
        .lines()
        .filter(|line| !OF_HELM.iter().any(|own| line.trim().starts_with(own)))
        .collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut text = String::new();
    for (nth, line) in lines.iter().enumerate() {
        let next = lines.get(nth + 1).map_or(0, |next| indent(next));
        // Annotations of which nothing is left.
        if line.trim() != "annotations:" || next > indent(line) {
            writeln!(text, "{line}").unwrap();
        }
    }
    text
}

#[test]
fn the_plain_manifests_are_what_the_chart_renders() {
    let Some(tools) = tools() else { return };
    let monitor = ["--set", "serviceMonitor.enabled=true"];
    let only = ["--show-only", "templates/servicemonitor.yaml"];
    let without = ["--set", "tls.certManager.enabled=false"];
    let certificate = ["--show-only", "templates/certificate.yaml"];
    for (file, arguments) in [
        ("gateway.yaml", &[][..]),
        ("monitor.yaml", &[monitor, only].concat()),
        ("managed.yaml", &[MANAGED, &without].concat()),
        ("certificate.yaml", &[MANAGED, &certificate].concat()),
    ] {
        let path = root().join("deploy/kubernetes").join(file);
        let now = fs::read_to_string(&path).unwrap();
        // The comment at its head is the file's own.
        let head: Vec<&str> = now.lines().take_while(|l| l.starts_with('#')).collect();
        let rendered = plain(&render(&tools, arguments).unwrap());
        let expected = format!("{}\n{rendered}", head.join("\n"));
        if std::env::var_os("SEGMENT_GATEWAY_BLESS").is_some() {
            fs::write(&path, &expected).unwrap();
        } else {
            assert_eq!(
                now, expected,
                "{file}: SEGMENT_GATEWAY_BLESS=1 cargo test --test it deploy"
            );
        }
    }
}

#[test]
fn helm_agrees_with_the_chart_and_its_version_is_the_programs() {
    let Some(tools) = tools() else { return };
    let mut helm = Command::new(tools.join("bin/helm"));
    helm.args(["lint", "--strict", "deploy/helm"]).args(FULL);
    run(helm, "").unwrap();
    let chart = text("deploy/helm/Chart.yaml");
    let version = env!("CARGO_PKG_VERSION");
    assert!(chart.contains(&format!("\nversion: {version}\n")));
    assert!(chart.contains(&format!("\nappVersion: \"{version}\"\n")));
}

#[test]
fn the_objects_have_the_types_of_kubernetes() {
    let Some(tools) = tools() else { return };
    for (arguments, kinds) in [(&[][..], 5), (FULL, 11), (MANAGED, 7)] {
        let rendered = render(&tools, arguments).unwrap();
        let objects = objects(&rendered);
        let found: BTreeSet<_> = objects
            .iter()
            .map(|o| (o["kind"].to_string(), o["metadata"]["name"].to_string()))
            .collect();
        assert_eq!(
            found.len(),
            kinds + usize::from(arguments == FULL),
            "{found:?}"
        );
    }
}

#[test]
fn the_settings_of_the_chart_are_those_of_the_program() {
    let Some(tools) = tools() else { return };
    for arguments in [&[][..], FULL, MANAGED] {
        let objects = objects(&render(&tools, arguments).unwrap());
        let pod = &of(&objects, "Deployment")["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        // The program reads the files that settings name: they are mounted, and stand here elsewhere.
        let mounts: Vec<&str> = container["volumeMounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mount| mount["mountPath"].as_str().unwrap())
            .collect();
        let directory = tempfile::tempdir().unwrap();
        for (name, value) in settings(&objects) {
            if name.ends_with("FILE") || name.ends_with("DIRECTORY") {
                let folder = mounts.iter().find(|mount| value.starts_with(*mount));
                assert!(folder.is_some(), "{name}: {value} is not on {mounts:?}");
            }
        }
        let settings = placed_settings(&objects, directory.path());
        let loaded = config::load(None, settings.into_iter());
        let config = match loaded {
            Ok(loaded) => loaded.config,
            Err(problems) => {
                let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
                panic!("{}", all.join("\n"));
            }
        };
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace > config.shutdown.drain.as_secs());
        let ports = container["ports"].as_array().unwrap().iter();
        let ports: Vec<_> = ports.map(|port| port["containerPort"].clone()).collect();
        assert_eq!(ports, [config.listen.port(), config.admin.listen.port()]);
    }
}

#[test]
fn the_program_accepts_the_files_of_the_chart() {
    let Some(tools) = tools() else { return };
    for arguments in [FULL, MANAGED] {
        let objects = objects(&render(&tools, arguments).unwrap());
        let directory = tempfile::tempdir().unwrap();
        // The modes of the files decide who can read them.
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory.path(), open).unwrap();
        let settings = placed_settings(&objects, directory.path());
        let named = settings.iter().filter(|(name, _)| name.ends_with("FILE"));
        assert!(named.count() >= 5, "{settings:?}");
        let mut check = Command::new(env!("CARGO_BIN_EXE_segment-gateway"));
        check.arg("check").envs(settings);
        let said = run(check, "").unwrap_or_else(|problems| panic!("{problems}"));
        assert!(said.contains("no problems"), "{said}");
        assert!(!said.contains("every user can read"), "{said}");
        // And it has read them: without any one it says so.
        let pod = &of(&objects, "Deployment")["spec"]["template"]["spec"];
        let mut missed = 0;
        for mount in items(&pod["containers"][0], "volumeMounts") {
            let at = str_at(mount, "/mountPath");
            if at.starts_with("/var/lib/") || at.starts_with("/run/secrets/") {
                continue;
            }
            missed += 1;
            let directory = tempfile::tempdir().unwrap();
            let settings = placed_settings(&objects, directory.path());
            let gone = directory.path().join(at.trim_start_matches('/'));
            fs::remove_dir_all(&gone).unwrap();
            let mut check = Command::new(env!("CARGO_BIN_EXE_segment-gateway"));
            check.arg("check").envs(settings);
            let problems = run(check, "").expect_err(at);
            assert!(problems.contains(at), "{at}: {problems}");
        }
        assert!(missed >= 3, "{missed}");
    }
}

/// What changes while the pod runs reaches the gateway, and what does not replaces the pod.
#[test]
fn a_changed_file_of_clients_replaces_the_pod() {
    let Some(tools) = tools() else { return };
    let checksum = |more: &[&str]| {
        let rendered = render(&tools, &[MANAGED, more].concat()).unwrap();
        let line = rendered
            .lines()
            .find(|line| line.contains("checksum/config"));
        line.unwrap().trim().to_owned()
    };
    let before = checksum(&[]);
    assert_ne!(before, checksum(&["--set", "clients.inline=[clients]"]));
    assert_eq!(before, checksum(&["--set", "service.port=444"]));
}

#[test]
fn with_a_certificate_probes_and_prometheus_use_tls() {
    let Some(tools) = tools() else { return };
    for (arguments, scheme) in [
        (&[][..], None),
        (FULL, Some("HTTPS")),
        (MANAGED, Some("HTTPS")),
    ] {
        let objects = objects(&render(&tools, arguments).unwrap());
        let pod = &of(&objects, "Deployment")["spec"]["template"]["spec"];
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let get = &pod["containers"][0][probe]["httpGet"];
            assert_eq!(get["scheme"].as_str(), scheme, "{get}");
            assert_eq!(get["port"], "admin");
        }
        if arguments == FULL {
            let endpoint = &of(&objects, "ServiceMonitor")["spec"]["endpoints"][0];
            assert_eq!(endpoint["scheme"], "https");
            assert_eq!(endpoint["tlsConfig"]["ca"]["secret"]["key"], "ca.crt");
        }
        if scheme.is_some() {
            let issued = str_at(of(&objects, "Certificate"), "/spec/secretName");
            let mut volumes = items(pod, "volumes");
            let used = volumes.any(|volume| volume["secret"]["secretName"] == issued);
            assert!(used, "{issued} is not mounted");
        }
    }
}

#[test]
fn values_may_name_every_key_of_the_program_and_no_other() {
    let schema: Value = serde_json::from_str(&text("deploy/helm/values.schema.json")).unwrap();
    let sections = schema["properties"]["config"]["properties"].as_object();
    let mut named = BTreeSet::new();
    for (section, keys) in sections.unwrap() {
        for (key, value) in keys["properties"].as_object().unwrap() {
            let name = format!("{section}.{key}");
            // A section within a section, as [admin.tls] is.
            match value["properties"].as_object() {
                None => drop(named.insert(name)),
                Some(keys) => named.extend(keys.keys().map(|key| format!("{name}.{key}"))),
            }
        }
    }
    // `mode` and `listen` stand outside of sections; the chart has values of its own for them.
    let keys = configuration_keys().into_iter();
    let keys: BTreeSet<String> = keys.filter(|key| key.contains('.')).collect();
    assert_eq!(named, keys);
}

#[test]
fn values_that_contradict_each_other_are_refused_with_what_to_do() {
    let Some(tools) = tools() else { return };
    let ingress = "ingress.enabled=true,ingress.host=h,ingress.tls.secretName=s";
    let timeout = "config.wait.caller_timeout=60s";
    for (set, says) in [
        ("replicas=2", "two gateways do not share budgets"),
        ("routes.inline=a,routes.configMap=b", "Remove one of them"),
        (
            "ingress.enabled=true,ingress.host=h",
            "ingress.tls.secretName",
        ),
        ("ingress.enabled=true", "name the host that callers use"),
        ("ingress.host=h", "ingress.enabled is false"),
        (ingress, "config.wait.caller_timeout"),
        (
            &format!("{ingress},{timeout}"),
            "networkPolicy.ingressController",
        ),
        (
            "serviceMonitor.enabled=true,networkPolicy.scrapers=null",
            "networkPolicy.scrapers",
        ),
        (
            "persistence.enabled=false,persistence.existingClaim=c",
            "persistence.enabled is false",
        ),
        ("upstream.url=http://proxy", "allow_plain_http"),
        (
            "sandbox=true,upstream.url=https://a.example",
            "sandbox is true",
        ),
        (
            "config.state.directory=/x",
            "config.state.directory: use persistence",
        ),
        (
            "config.admin.listen=x",
            "config.admin.listen: the chart sets it",
        ),
        (
            "config.admin.tls.client_auth=required",
            "config.admin.tls.client_auth: the kubelet has no certificate",
        ),
        (
            "config.tls.key_file=/x",
            "config.tls.key_file: use tls.secretName",
        ),
        (
            "config.callers.clients_file=/x",
            "config.callers.clients_file: use clients.inline",
        ),
        (
            "clients.inline=a,clients.configMap=b",
            "the gateway reads one file of clients",
        ),
        ("clients.inline=a", "nobody would have a key"),
        (
            "config.callers.credentials=managed",
            "set clients.inline or clients.configMap",
        ),
        (
            "tokens.a.secretName=s,tokens.a.key=k",
            "nobody would use them",
        ),
        (
            "tls.secretName=s,tls.clientCA.configMap=c",
            "config.tls.client_auth is \"none\"",
        ),
        (
            "tls.secretName=s,config.tls.client_auth=required",
            "name their ConfigMap in tls.clientCA.configMap",
        ),
        (
            "config.tls.client_auth=required",
            "without a certificate of the gateway",
        ),
        (
            "tls.certManager.enabled=true",
            "name the issuer of the certificate",
        ),
        (
            "tls.admin.secretName=s,serviceMonitor.enabled=true",
            "how Prometheus trusts the certificate",
        ),
        (
            "extraEnv[0].name=SEGMENT_GATEWAY__LISTEN,extraEnv[0].value=x",
            "use config for keys of the gateway",
        ),
        // These contradict the schema.
        ("config.write.max_wit=1s", "max_wit"),
        ("persistence.accessMode=ReadWriteMany", "accessMode"),
        ("secrets.adminToken.name=", "adminToken"),
        ("imag=x", "imag"),
        ("tokens.Own.secretName=s,tokens.Own.key=k", "Own"),
        ("tokens.a.secretName=s", "key"),
    ] {
        let refused = render(&tools, &["--set", set]).expect_err(set);
        assert!(refused.contains(says), "{set}: {refused}");
    }
    // All problems are named at once.
    let two = "replicas=2,upstream.url=http://proxy";
    let refused = render(&tools, &["--set", two]).unwrap_err();
    assert!(refused.contains("share budgets") && refused.contains("allow_plain_http"));
    // What the same values are accepted with.
    let mended = format!("{ingress},{timeout},networkPolicy.enabled=false");
    render(&tools, &["--set", &mended]).unwrap();
    render(&tools, &["--set", "sandbox=true,replicas=0"]).unwrap();
}

#[test]
fn without_a_volume_nothing_is_promised_to_last() {
    let Some(tools) = tools() else { return };
    let rendered = render(&tools, &["--set", "persistence.enabled=false"]).unwrap();
    let objects = objects(&rendered);
    assert!(!rendered.contains("PersistentVolumeClaim"));
    let config = config::load(None, settings(&objects).into_iter());
    assert_eq!(config.unwrap().config.state.directory, None);
    assert_ne!(Config::default().state.directory, None);
    let pod = &of(&objects, "Deployment")["spec"]["template"]["spec"];
    assert!(pod["volumes"].is_null() && pod["containers"][0]["volumeMounts"].is_null());
}

#[test]
fn the_rules_and_the_dashboard_of_the_chart_are_those_of_the_files() {
    let Some(tools) = tools() else { return };
    let objects = objects(&render(&tools, FULL).unwrap());
    let rule = of(&objects, "PrometheusRule")["spec"].to_string();
    for name in super::recorded().keys() {
        assert!(rule.contains(&format!("\"record\":\"{name}\"")), "{name}");
    }
    let file = text("deploy/prometheus/alerts.yml");
    let base = "https://git.example.com/segment-gateway/blob/main/";
    for name in file
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        assert!(rule.contains(&format!("\"alert\":\"{name}\"")), "{name}");
        let url = format!("{base}docs/runbooks.md#{}", name.to_lowercase());
        assert!(
            rule.contains(&format!("\"runbook_url\":\"{url}\"")),
            "{name}"
        );
    }
    let shown = objects
        .iter()
        .find_map(|o| o["data"]["gw-eu.json"].as_str());
    let shown: Value = serde_json::from_str(shown.unwrap()).unwrap();
    assert_eq!(shown, super::dashboard());
}
