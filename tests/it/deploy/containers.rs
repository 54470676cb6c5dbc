//! `Dockerfile`, `compose.yaml`, `prometheus.yml` and the provisioning of Grafana fit the program
//! and each other.

use super::{root, text, yaml};
use segment_gateway::config::{self, Config, Loaded};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

type Values = BTreeMap<String, String>;

fn compose() -> Values {
    yaml::values(&text("deploy/compose.yaml"))
}

/// The instructions of the Dockerfile, a list for each stage.
fn stages() -> Vec<Vec<(String, String)>> {
    let mut stages: Vec<Vec<(String, String)>> = Vec::new();
    let code: Vec<_> = text("deploy/Dockerfile")
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(str::to_owned)
        .collect();
    for line in code.join("\n").replace("\\\n", " ").lines() {
        let Some((word, rest)) = line.trim().split_once(' ') else {
            continue;
        };
        if word == "FROM" {
            stages.push(Vec::new());
        }
        let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
        stages
            .last_mut()
            .expect("FROM first")
            .push((word.to_owned(), rest));
    }
    stages
}

fn all<'s>(stage: &'s [(String, String)], word: &str) -> Vec<&'s str> {
    stage
        .iter()
        .filter(|(w, _)| w == word)
        .map(|(_, rest)| rest.as_str())
        .collect()
}

/// The settings of the image.
fn image_environment() -> Values {
    let stages = stages();
    let set = all(stages.last().unwrap(), "ENV");
    set.iter()
        .map(|set| set.split_once('=').unwrap())
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

/// The settings of the container: those of the image, and over them those of compose.yaml.
fn container_environment(compose: &Values) -> Values {
    const AT: &str = "services.gateway.environment";
    let mut environment = image_environment();
    for key in yaml::keys(compose, AT) {
        environment.insert(key.clone(), compose[&format!("{AT}.{key}")].clone());
    }
    environment
}

fn load(environment: Values) -> Loaded {
    match config::load(None, environment.into_iter()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
            panic!("{}", all.join("\n"))
        }
    }
}

fn default_ports() -> [u16; 2] {
    let usual = Config::default();
    [usual.listen.port(), usual.admin.listen.port()]
}

#[test]
fn the_image_is_what_the_program_expects() {
    let stages = stages();
    let (build, last) = (&stages[0], stages.last().unwrap());
    let config = load(image_environment()).config;
    let [port, admin_port] = default_ports();
    assert_eq!(config.listen, SocketAddr::from(([0, 0, 0, 0], port)));
    assert!(config.admin.listen.ip().is_loopback() && !config.admin.public);
    assert_eq!(all(last, "EXPOSE"), [format!("{port} {admin_port}")]);

    let state = config.state.directory.unwrap();
    assert_eq!(all(last, "VOLUME"), [format!("[\"{}\"]", state.display())]);
    let user = all(last, "USER")[0];
    assert!(!user.starts_with('0') && user != "root");
    let copies = all(last, "COPY");
    let owned = format!("--chown={user} --chmod=0700 /out/state {}", state.display());
    assert!(
        copies.iter().any(|copy| copy.ends_with(&owned)),
        "{copies:?}"
    );

    let name = env!("CARGO_PKG_NAME");
    assert_eq!(all(last, "ENTRYPOINT"), [format!("[\"{name}\"]")]);
    assert_eq!(all(last, "CMD"), ["[\"serve\"]"]);
    assert!(
        copies
            .iter()
            .any(|copy| copy.ends_with(&format!(" /usr/local/bin/{name}")))
    );
    assert_eq!(all(last, "STOPSIGNAL"), ["SIGTERM"]);
    let health = all(last, "HEALTHCHECK")[0];
    assert!(
        health.contains("CMD [\"wget\""),
        "exec form: there is no shell"
    );
    assert!(
        copies
            .iter()
            .any(|copy| copy.ends_with(" /usr/local/bin/wget"))
    );
    assert!(
        health.contains(&format!("\"http://127.0.0.1:{admin_port}/livez\"")),
        "{health}"
    );

    let names: Vec<_> = stages
        .iter()
        .filter_map(|stage| all(stage, "FROM")[0].split_once(" AS "))
        .collect();
    for from in copies
        .iter()
        .filter_map(|copy| copy.strip_prefix("--from="))
    {
        let from = from.split(' ').next().unwrap();
        assert!(names.iter().any(|(_, name)| *name == from), "{from}");
    }
    assert!(
        names[0]
            .0
            .starts_with(&format!("rust:{}-", env!("CARGO_PKG_RUST_VERSION")))
    );
    assert!(all(build, "RUN")[0].contains("cargo build --release --locked --bin segment-gateway"));
}

#[test]
fn the_build_gets_what_it_reads_and_no_more() {
    let list = text("deploy/Dockerfile.dockerignore");
    let mut lines = list.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(lines.next(), Some("*"), "all is left out but what is named");
    let named: BTreeSet<_> = lines.map(|line| line.strip_prefix('!').unwrap()).collect();
    // Cargo wants every target that the manifest names, those it does not build included.
    let wanted = [
        ".cargo",
        "Cargo.lock",
        "Cargo.toml",
        "benches",
        "build.rs",
        "config",
        "src",
        "tests",
    ];
    assert_eq!(named, wanted.into());
    for path in wanted {
        assert!(root().join(path).exists(), "{path}");
    }
}

#[test]
fn compose_runs_the_gateway_as_it_wants_to_be_run() {
    let compose = compose();
    let of = |key: &str| {
        compose
            .get(&format!("services.gateway.{key}"))
            .unwrap_or_else(|| panic!("{key}"))
    };
    let config = load(container_environment(&compose)).config;
    assert!(config.admin.public, "Prometheus is not on loopback");
    let ports: Vec<u16> = yaml::list(&compose, "services.gateway.ports")
        .iter()
        .map(|port| port.rsplit_once(':').unwrap().1.parse().unwrap())
        .collect();
    assert_eq!(ports, [config.listen.port(), config.admin.listen.port()]);
    assert_eq!(ports, default_ports(), "what the documentation says");

    let grace = config::units::duration(of("stop_grace_period")).unwrap();
    assert!(grace > config.shutdown.drain);
    let mounts = yaml::list(&compose, "services.gateway.volumes");
    assert_eq!(
        mounts,
        [format!(
            "state:{}",
            config.state.directory.unwrap().display()
        )]
    );
    let context = root().join("deploy").join(of("build.context"));
    assert!(context.join(of("build.dockerfile")).is_file());
    assert!(
        context
            .join(format!("{}.dockerignore", of("build.dockerfile")))
            .is_file()
    );
}

#[test]
fn compose_publishes_on_loopback_and_mounts_what_exists() {
    let compose = compose();
    let services = yaml::keys(&compose, "services");
    assert_eq!(services, ["gateway", "grafana", "prometheus"]);
    for service in services {
        for port in yaml::list(&compose, &format!("services.{service}.ports")) {
            assert!(port.starts_with("127.0.0.1:"), "{service}: {port}");
        }
        for mount in yaml::list(&compose, &format!("services.{service}.volumes")) {
            let source = mount.split(':').next().unwrap();
            if source.starts_with('.') {
                assert!(
                    root().join("deploy").join(source).exists(),
                    "{service}: {mount}"
                );
                assert!(mount.ends_with(":ro"), "{service}: {mount}");
            } else {
                assert!(
                    compose.contains_key(&format!("volumes.{source}")),
                    "{service}: {mount}"
                );
            }
        }
        if let Some(image) = compose.get(&format!("services.{service}.image")) {
            assert!(
                service == "gateway" || image.contains(':'),
                "{image} has no version"
            );
        }
    }
}

#[test]
fn the_commands_in_the_files_are_those_of_the_program() {
    let compose_text = text("deploy/compose.yaml");
    let compose = yaml::values(&compose_text);
    // `${NAME:-value}` stands for the value, unless somebody sets the name.
    let command = compose["services.gateway.command"]
        .replace("${GATEWAY_API:-", "")
        .replace('}', "");
    assert_eq!(command, "serve --sandbox");
    let help = Command::new(env!("CARGO_BIN_EXE_segment-gateway"))
        .args(["serve", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let settings = compose_text
        .split("GATEWAY_API=\"")
        .skip(1)
        .map(|rest| rest.split_once('"').unwrap().0);
    let settings: Vec<_> = settings.collect();
    assert_eq!(settings.len(), 2, "US and EU");
    for word in settings
        .iter()
        .flat_map(|set| set.split(' '))
        .chain(command.split(' '))
    {
        if word.starts_with("--") {
            assert!(
                help.contains(&format!("{word} ")) || help.contains(&format!("{word}\n")),
                "{word} in:\n{help}"
            );
        }
    }
}

#[test]
fn prometheus_scrapes_the_gateway_and_grafana_asks_prometheus() {
    let compose = compose();
    let config = load(container_environment(&compose)).config;
    let scrape = yaml::values(&text("deploy/prometheus/prometheus.yml"));
    let listed = &scrape["scrape_configs[0].file_sd_configs[0].files[0]"];
    let mount = format!("./prometheus/targets-compose.yml:/etc/prometheus/{listed}:ro");
    assert!(yaml::list(&compose, "services.prometheus.volumes").contains(&mount));
    let target = |file: &str| yaml::values(&text(&format!("deploy/prometheus/{file}")));
    let local = target(listed);
    let usual = Config::default().admin.listen.to_string();
    assert_eq!(yaml::list(&local, "[0].targets"), [usual]);
    let inside = target("targets-compose.yml");
    let (host, port) = inside["[0].targets[0]"].split_once(':').unwrap();
    assert!(compose.contains_key(&format!("services.{host}")), "{host}");
    assert!(
        config.admin.hosts.iter().any(|known| known == host),
        "{host} is refused as Host"
    );
    assert_eq!(port.parse(), Ok(config.admin.listen.port()));
    assert_eq!(scrape["scrape_configs[0].metrics_path"], "/metrics");
    assert!(
        yaml::list(&compose, "services.prometheus.command")
            .contains(&"--config.file=/etc/prometheus/prometheus.yml".to_owned())
    );

    let source = yaml::values(&text(
        "deploy/grafana/provisioning/datasources/prometheus.yaml",
    ));
    assert_eq!(
        source["datasources[0].jsonData.timeInterval"],
        scrape["global.scrape_interval"]
    );
    let published = yaml::list(&compose, "services.prometheus.ports");
    let port = published[0].rsplit_once(':').unwrap().1;
    assert_eq!(
        source["datasources[0].url"],
        format!("http://prometheus:{port}")
    );
}

#[test]
fn grafana_finds_the_dashboard() {
    let compose = compose();
    let provider = yaml::values(&text(
        "deploy/grafana/provisioning/dashboards/segment-gateway.yaml",
    ));
    let folder = Path::new(&provider["providers[0].options.path"]);
    let mounts = yaml::list(&compose, "services.grafana.volumes");
    let places: Vec<PathBuf> = mounts
        .iter()
        .filter(|mount| mount.starts_with("./grafana/dashboard.json:"))
        .map(|mount| mount.split(':').nth(1).unwrap().into())
        .collect();
    assert_eq!(places.len(), 1);
    assert_eq!(places[0].parent(), Some(folder));
    let home = &compose["services.grafana.environment.GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"];
    assert_eq!(Path::new(home), places[0]);
    for kind in ["dashboards", "datasources"] {
        let mount = format!("./grafana/provisioning/{kind}:/etc/grafana/provisioning/{kind}:ro");
        assert!(mounts.contains(&mount), "{mount}");
    }
}

/// What compose.managed.yaml adds, with its folder in place of the mount.
#[test]
fn the_program_accepts_the_clients_of_compose() {
    let compose = yaml::values(&text("deploy/compose.managed.yaml"));
    let mounts = yaml::list(&compose, "services.gateway.volumes");
    let [mount] = &mounts[..] else {
        panic!("{mounts:?}")
    };
    let parts: Vec<&str> = mount.split(':').collect();
    let [source, at, "ro"] = parts[..] else {
        panic!("{mount}")
    };
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().display().to_string();
    let clients = root().join("deploy").join(source).join("clients.toml");
    let clients = std::fs::read_to_string(clients).unwrap();
    let moved = clients.replace(at, &folder);
    assert_ne!(moved, clients, "the token is elsewhere than on {at}");
    std::fs::write(directory.path().join("clients.toml"), moved).unwrap();
    let mut settings = container_environment(&compose);
    for value in settings.values_mut() {
        *value = value.replace(at, &folder);
    }
    let loaded = load(settings);
    assert_eq!(loaded.clients.tokens.len(), 1);
    assert_eq!(loaded.clients.clients.len(), 1);
    let token = loaded.clients.tokens[0].path.strip_prefix(directory.path());
    let source = source.trim_start_matches("./");
    let token = Path::new("deploy").join(source).join(token.unwrap());
    // The folder of the token is not committed, and the comment says how to make it.
    let ignored = text(".gitignore");
    let of_token = token.parent().unwrap().display().to_string();
    assert!(ignored.lines().any(|line| line == format!("/{of_token}")));
    let head = text("deploy/compose.managed.yaml");
    assert!(
        head.contains(&token.display().to_string()),
        "{}",
        token.display()
    );
}
