//! Finds the commit of the build, for `--version`.
//!
//! In this order: the environment variable `SEGMENT_GATEWAY_COMMIT`; the history of this checkout,
//! with `-dirty` behind the commit if a tracked file differs from it; the file `.commit`, which
//! `git archive` fills in. Otherwise the commit is `unknown`. Nothing here fails a build.
//!
//! Only release builds look into the history: a debug build would be compiled again after each
//! commit. No date and no path enters the program.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The characters of an abbreviated commit.
const ABBREVIATED: &str = "--abbrev=12";

fn main() {
    println!("cargo::rerun-if-env-changed=SEGMENT_GATEWAY_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let commit = given().or_else(checked_out).or_else(archived);
    let commit = commit.unwrap_or_else(|| "unknown".to_owned());
    // Cargo gives it to tests as well, and the program rejects variables that begin like its own.
    println!("cargo::rustc-env=BUILD_COMMIT={commit}");
}

/// Returns the commit that the environment names.
fn given() -> Option<String> {
    let given = std::env::var_os("SEGMENT_GATEWAY_COMMIT")?;
    named(given.to_str()?)
}

/// Returns the commit of the checkout, if this folder is the root of one. A source archive that is
/// unpacked inside of another project's checkout is not.
fn checked_out() -> Option<String> {
    if std::env::var_os("PROFILE")? != "release" {
        return None;
    }
    let root = std::env::var_os("CARGO_MANIFEST_DIR")?;
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if fs::canonicalize(top).ok()? != fs::canonicalize(root).ok()? {
        return None;
    }
    // What may change the result: a commit or a checkout, and the files that are built.
    for file in [
        git(&["rev-parse", "--git-path", "logs/HEAD"])?.as_str(),
        "src",
        "config",
    ] {
        if Path::new(file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    for file in ["Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={file}");
    }
    named(&git(&[
        "describe",
        "--always",
        "--dirty",
        "--exclude=*",
        ABBREVIATED,
    ])?)
}

/// Returns the commit of a source archive.
fn archived() -> Option<String> {
    println!("cargo::rerun-if-changed=.commit");
    named(&fs::read_to_string(".commit").ok()?)
}

/// Returns the text if it can be a commit, and is not the placeholder of `.commit`.
fn named(text: &str) -> Option<String> {
    let text = text.trim();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (!text.is_empty() && text.chars().all(is_plain)).then(|| text.to_owned())
}

/// Returns what git prints; `None` without git or outside of a checkout.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
