//! What the program is built from: where the packages come from, under which licences, and which of
//! them are there twice.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: what cannot be read is the failure"
)]

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Licences that let anybody use the program, whatever they use it for. A package may be under any one
/// of those that it offers.
const LICENCES: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Packages of which two versions are built, because those that use them have not moved on yet.
const TWICE: [&str; 9] = [
    "base64",
    "getrandom",
    "hashbrown",
    "r-efi",
    "rand",
    "rand_core",
    "syn",
    "untrusted",
    "windows-sys",
];

/// All packages that are locked, on whatever platform they are used: name, version, source.
fn locked() -> Vec<[String; 3]> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");
    let lock: toml::Table = fs::read_to_string(file).unwrap().parse().unwrap();
    let packages = lock["package"].as_array().unwrap().iter();
    let text = |package: &toml::Value, key: &str| {
        let text = package.get(key).and_then(|value| value.as_str());
        text.unwrap_or("none").to_owned()
    };
    packages
        .map(|package| ["name", "version", "source"].map(|key| text(package, key)))
        .filter(|[name, ..]| name != "segment-gateway")
        .collect()
}

/// The packages that are used on this machine, with their licences.
fn licences() -> Vec<(String, String)> {
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(rustc.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .args(["--filter-platform", host.unwrap()])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    packages
        .map(|package| (text(&package["name"]), text(&package["license"])))
        .collect()
}

/// Whether an expression such as `(MIT OR Apache-2.0) AND Unicode-3.0` can be met.
fn is_met(expression: &str) -> bool {
    let whole = expression.replace('/', " OR ");
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for word in whole
        .replace('(', " ( ")
        .replace(')', " ) ")
        .split_whitespace()
    {
        match word {
            "(" => depth += 1,
            ")" => depth -= 1,
            "AND" if depth == 0 => parts.push(String::new()),
            word => {
                let part = parts.last_mut().unwrap();
                part.push(' ');
                part.push_str(word);
            }
        }
    }
    parts.iter().all(|part| {
        let mut offered = part.split(" OR ").map(str::trim);
        offered.any(|licence| LICENCES.contains(&licence))
    })
}

#[test]
fn every_package_comes_from_the_registry() {
    for [name, version, source] in locked() {
        assert_eq!(source, REGISTRY, "{name} {version}");
    }
}

#[test]
fn every_licence_is_permissive() {
    for (name, licence) in licences() {
        assert!(is_met(&licence), "{name}: {licence}");
    }
}

#[test]
fn a_second_version_of_a_package_is_known() {
    let mut versions: BTreeMap<String, usize> = BTreeMap::new();
    for [name, ..] in locked() {
        *versions.entry(name).or_default() += 1;
    }
    versions.retain(|_, count| *count > 1);
    assert_eq!(Vec::from_iter(versions.into_keys()), TWICE);
}

#[test]
fn a_licence_expression_is_read_as_it_is_meant() {
    for met in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
    ] {
        assert!(is_met(met), "{met}");
    }
    for unmet in ["GPL-3.0", "MIT AND GPL-3.0", "none", ""] {
        assert!(!is_met(unmet), "{unmet}");
    }
}
