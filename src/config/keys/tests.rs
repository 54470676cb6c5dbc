use super::*;
use crate::config::check;

const SHIPPED: &str = include_str!("../../../config/segment-gateway.toml");

fn read_text(text: &str) -> (Config, Findings) {
    let document = Document::parse("f", text).unwrap();
    let mut findings = Findings::default();
    let config = read(Some(&document), &Environment::default(), &mut findings);
    (config, findings)
}

#[test]
fn the_shipped_file_equals_the_defaults() {
    let (config, findings) = read_text(SHIPPED);
    assert_eq!(findings.problems, []);
    assert_eq!(config, Config::default());
    assert_eq!(check::problems(&config, &findings.places), []);
}

/// Each key stands in the file, in its section, and is explained there; the optional ones as
/// comments that are right when the `#` is removed.
#[test]
fn the_shipped_file_shows_every_key() {
    let mut findings = Findings::default();
    read(None, &Environment::default(), &mut findings);
    assert_eq!(findings.known.len(), 86);
    let uncommented: Vec<String> = SHIPPED
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest
                    .split_once(" = ")
                    .is_some_and(|(key, _)| !key.contains(' ')) =>
            {
                rest.to_owned()
            }
            _ => line.to_owned(),
        })
        .collect();
    let (_, shown) = read_text(&uncommented.join("\n"));
    assert_eq!(shown.problems, []);
    let missing: Vec<_> = findings
        .known
        .iter()
        .filter(|key| !shown.places.contains_key(*key))
        .collect();
    assert_eq!(missing, Vec::<&String>::new());
    let explained = SHIPPED
        .lines()
        .filter(|line| line.starts_with("# "))
        .count();
    assert!(explained > findings.known.len());
}

/// The path of the first field that is not the default, as the debug form shows it: sections are
/// indented by four spaces, their fields by eight, and those of a section within by twelve.
fn changed_field(config: &Config) -> Option<String> {
    let (now, before) = (format!("{config:#?}"), format!("{:#?}", Config::default()));
    let at = now.lines().zip(before.lines()).position(|(a, b)| a != b)?;
    let lines: Vec<_> = before.lines().take(at + 1).collect();
    let field = |indent: usize| {
        let line = lines.iter().rposition(|line| {
            line.len() - line.trim_start().len() == indent && line.contains(": ")
        })?;
        Some((line, lines[line].trim_start().split(':').next()?))
    };
    let (section_line, section) = field(4)?;
    let mut path = section.to_owned();
    let mut above = section_line;
    for indent in [8, 12] {
        // Only these have keys; what other fields have within is the form of their values.
        let has_keys = indent == 8 || path.ends_with(".tls");
        let Some((line, name)) = field(indent).filter(|(line, _)| has_keys && *line > above) else {
            break;
        };
        path = format!("{path}.{name}");
        above = line;
    }
    Some(path)
}

/// A key that is read into the wrong place would leave the default in the right one.
#[test]
fn every_key_changes_the_configuration() {
    let mut section = "";
    for line in SHIPPED.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with('[') {
            section = line;
        }
        if !line.contains(" = ") {
            continue;
        }
        let (key, value) = line.split_once(" = ").unwrap();
        let other = match (key, value) {
            ("mode", _) => "\"shadow\"".to_owned(),
            ("format", _) => "\"json\"".to_owned(),
            ("level", _) => "\"debug\"".to_owned(),
            ("credentials", _) => "\"both\"".to_owned(),
            ("access", _) => "\"all\"".to_owned(),
            ("client_auth", _) => "\"required\"".to_owned(),
            ("hosts", _) => "[\"10.0.0.1\"]".to_owned(),
            ("when", _) => "\"before\"".to_owned(),
            ("subjects", _) => "\"hashed\"".to_owned(),
            ("largest_file", _) => "\"70 KiB\"".to_owned(),
            ("header_bytes", _) => "\"10 KiB\"".to_owned(),
            (_, "true") => "false".to_owned(),
            (_, "false") => "true".to_owned(),
            (_, value) if value.contains(" per ") => "\"7 per 7m\"".to_owned(),
            (_, value) if value.contains("iB") => "\"7 KiB\"".to_owned(),
            ("listen", _) => "\"127.0.0.1:7\"".to_owned(),
            ("url" | "directory", _) => "\"https://x\"".to_owned(),
            (_, value) if value.starts_with('"') => "\"7s\"".to_owned(),
            _ => "7".to_owned(),
        };
        let (config, findings) = read_text(&format!("{}\n{key} = {other}", section));
        assert_eq!(findings.problems, [], "{line}");
        let changed = changed_field(&config).unwrap();
        assert_eq!(
            changed,
            format!("{}{key}", section.replace('[', "").replace(']', "."))
        );
    }
}
