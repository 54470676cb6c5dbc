use super::*;
use crate::config::{ClientAuth, contradictions};
use crate::metrics::Levels;
use rcgen::{CertificateParams, KeyPair};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A certificate and its key as PEM, valid up to a year.
fn pair(to: i32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["gateway.test".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn config(folder: &Path) -> Config {
    let mut config = Config::default();
    config.tls.certificate_file = Some(folder.join("tls.crt"));
    config.tls.key_file = Some(folder.join("tls.key"));
    config
}

/// The certificates of a folder with this pair.
fn opened(folder: &Path, (certificate, key): &(String, String)) -> (Arc<Certificates>, Metrics) {
    fs::write(folder.join("tls.crt"), certificate).unwrap();
    fs::write(folder.join("tls.key"), key).unwrap();
    let metrics = Metrics::new(&[]).unwrap();
    let certificates = Certificates::open(&config(folder), &metrics, Clock::system()).unwrap();
    (Arc::new(certificates), metrics)
}

/// The year in which the certificate in use ends.
fn year(certificates: &Certificates) -> String {
    let end = certificates.each[0].identity.get().not_after();
    let date = humantime::format_rfc3339_seconds(end).to_string();
    date.split('-').next().unwrap().to_owned()
}

fn has(metrics: &Metrics, line: &str) -> bool {
    let text = String::from_utf8(metrics.render(&[], &Levels::default())).unwrap();
    text.lines().any(|shown| shown == line)
}

const SOUND: &str = "segment_gateway_tls_certificate_last_reload_successful{listener=\"callers\"}";
const RELOADS: &str = "segment_gateway_tls_certificate_reloads_total{listener=\"callers\",result=";

#[test]
fn a_pair_is_replaced_as_a_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (pair(2090), pair(2091));
    let (certificates, metrics) = opened(folder.path(), &first);
    certificates.refresh();
    assert_eq!(year(&certificates), "2090");
    assert!(has(&metrics, &format!("{RELOADS}\"applied\"}} 0")));
    // One file after the other, and the first of them in two halves.
    let (half, rest) = second.0.split_at(second.0.len() / 2);
    for content in [half.to_owned(), format!("{half}{rest}")] {
        fs::write(folder.path().join("tls.crt"), content).unwrap();
        for _ in 0..3 {
            certificates.refresh();
            assert_eq!(year(&certificates), "2090");
            assert!(has(&metrics, &format!("{SOUND} 0")));
        }
    }
    // Each mistake once, however often it is seen.
    assert!(has(&metrics, &format!("{RELOADS}\"failed\"}} 2")));
    fs::write(folder.path().join("tls.key"), &second.1).unwrap();
    certificates.refresh();
    assert_eq!(year(&certificates), "2091");
    assert!(has(&metrics, &format!("{SOUND} 1")));
    assert!(has(&metrics, &format!("{RELOADS}\"applied\"}} 1")));
    // A file that is gone, and back.
    fs::remove_file(folder.path().join("tls.key")).unwrap();
    certificates.refresh();
    assert!(has(&metrics, &format!("{SOUND} 0")));
    fs::write(folder.path().join("tls.key"), &second.1).unwrap();
    certificates.refresh();
    assert!(has(&metrics, &format!("{SOUND} 1")));
    assert!(has(&metrics, &format!("{RELOADS}\"applied\"}} 1")));
}

/// As Kubernetes updates a mounted secret: the files are links through a link that is renamed.
#[tokio::test(start_paused = true)]
async fn a_link_that_is_renamed_is_noticed_within_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, (certificate, key)) in [("..1", pair(2090)), ("..2", pair(2091))] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("tls.crt"), certificate).unwrap();
        fs::write(at(name).join("tls.key"), key).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), at(name)).unwrap();
    }
    let metrics = Metrics::new(&[]).unwrap();
    let config = config(folder.path());
    let certificates = Certificates::open(&config, &metrics, Clock::system()).unwrap();
    let certificates = Arc::new(certificates);
    let watching = tokio::spawn(certificates.clone().watch());
    symlink("..2", at("..next")).unwrap();
    fs::rename(at("..next"), at("..data")).unwrap();
    let begun = tokio::time::Instant::now();
    while year(&certificates) == "2090" {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(begun.elapsed() <= LOOK_EVERY + Duration::from_secs(1));
    watching.abort();
}

#[test]
fn what_cannot_be_used_is_found_at_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.admin.tls.certificate_file = Some(folder.path().join("tls.crt"));
    config.admin.tls.key_file = config.admin.tls.certificate_file.clone();
    let keys = |config: &Config| -> Vec<ValueSource> {
        let found = unusable_certificates(config, Clock::system().wall());
        found.into_iter().map(|unusable| unusable.source).collect()
    };
    let named = |names: &[&'static str]| -> Vec<ValueSource> {
        names.iter().map(|name| ValueSource::Key(name)).collect()
    };
    assert_eq!(
        keys(&config),
        named(&[
            "tls.certificate_file",
            "tls.key_file",
            "admin.tls.certificate_file",
            "admin.tls.key_file"
        ])
    );
    let (certificate, key) = pair(2090);
    fs::write(folder.path().join("tls.crt"), certificate).unwrap();
    fs::write(folder.path().join("tls.key"), key).unwrap();
    assert_eq!(keys(&config), named(&["admin.tls.key_file"]));
    config.admin.tls.key_file = Some(folder.path().join("tls.key"));
    assert_eq!(keys(&config), []);
    config.tls.client_auth = ClientAuth::Required;
    assert_eq!(keys(&config), named(&["tls.client_ca_file"]));
    assert_eq!(keys(&Config::default()), []);
}

#[test]
fn a_listener_never_has_less_than_was_asked_for() {
    let file = || Some(PathBuf::from("x"));
    let sound = |config: &Config| contradictions(config).is_empty();
    for change in [
        |config: &mut Config| config.tls.key_file = None,
        |config: &mut Config| config.tls.certificate_file = None,
        |config: &mut Config| config.tls.client_auth = ClientAuth::Optional,
        |config: &mut Config| config.tls.client_ca_file = Some(PathBuf::from("x")),
        |config: &mut Config| config.admin.tls.key_file = Some(PathBuf::from("x")),
        |config: &mut Config| config.admin.tls.client_auth = ClientAuth::Required,
    ] {
        let mut config = Config::default();
        config.tls.certificate_file = file();
        config.tls.key_file = file();
        assert!(sound(&config));
        change(&mut config);
        assert!(!sound(&config), "{:?} {:?}", config.tls, config.admin.tls);
    }
}
