//! What a release is made of: every step of the workflow is a script of this repository, and only a tag
//! that fits version and changelog is released.
//!
//! The scripts themselves run elsewhere: `.ci/run` builds and tries the Debian package.

use super::deploy::text;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commands of the workflow, without `sudo`.
fn commands() -> Vec<String> {
    let workflow = text(".github/workflows/release.yml");
    let commands = workflow
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- run: "));
    commands
        .map(|command| command.trim_start_matches("sudo ").to_owned())
        .collect()
}

#[test]
fn every_step_of_the_workflow_is_a_script_that_can_be_run_by_hand() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut used: Vec<String> = Vec::new();
    for command in commands() {
        let program = command.split(' ').next().expect("a word").to_owned();
        if program == "echo" {
            assert!(command.ends_with("--password-stdin"), "{command}");
            continue;
        }
        used.push(program);
    }
    used.sort();
    used.dedup();
    let mut scripts: Vec<String> = fs::read_dir(root.join("deploy/release"))
        .expect("a folder")
        .map(|entry| {
            let name = entry.expect("an entry").file_name();
            format!("deploy/release/{}", name.to_string_lossy())
        })
        .filter(|script| script != "deploy/release/lib.sh")
        .collect();
    scripts.sort();
    assert_eq!(used, scripts, "none is missing and none is unused");
    for script in scripts {
        let mode = fs::metadata(root.join(&script)).expect("a file");
        assert!(mode.permissions().mode() & 0o111 != 0, "{script}");
    }
}

/// What `deploy/release/check` says of a tag where the changelog is this.
fn check(tag: &str, changelog: &str) -> (bool, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(folder.path().join("deploy/release")).expect("a folder");
    for file in [
        "Cargo.toml",
        "Cargo.lock",
        "deploy/release/check",
        "deploy/release/lib.sh",
    ] {
        fs::copy(root.join(file), folder.path().join(file)).expect("a copy");
    }
    fs::write(folder.path().join("CHANGELOG.md"), changelog).expect("a file");
    let output = Command::new(folder.path().join("deploy/release/check"))
        .arg(tag)
        .env("GIT_CEILING_DIRECTORIES", "/")
        .output()
        .expect("a shell");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).trim().to_owned(),
    )
}

#[test]
fn only_a_tag_that_fits_version_and_changelog_is_released() {
    let tag = format!("v{VERSION}");
    let section = |title: &str, text: &str| {
        format!(
            "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- More.\n\n{title}\n{text}\n## [0.0.1] - 2026-01-01\n\n- First.\n"
        )
    };
    let title = format!("## [{VERSION}] - 2026-12-01");
    let good = section(&title, "\n- A feature.\n");
    assert_eq!(
        check(&tag, &good),
        (true, format!("release: {tag} can be released"))
    );
    for (tag, changelog, complaint) in [
        ("v99.0.0", good.as_str(), "Cargo.toml has version"),
        (VERSION, &good, "Cargo.toml has version"),
        (&tag, &section(&title, "\n"), "is empty"),
        (
            &tag,
            &section(&format!("## [{VERSION}]"), "\n- A feature.\n"),
            "has no section",
        ),
        (
            &tag,
            &section(&format!("## [{VERSION}9] - 2026-12-01"), "\n- A feature.\n"),
            "has no section",
        ),
    ] {
        let (can_be_released, said) = check(tag, changelog);
        assert!(
            !can_be_released && said.contains(complaint),
            "{tag}: {said}"
        );
    }
}

/// The titles of Keep a Changelog, newest first.
#[test]
fn the_changelog_has_the_form_that_the_scripts_read() {
    let changelog = text("CHANGELOG.md");
    let titles: Vec<&str> = changelog
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    assert_eq!(titles[0], "[Unreleased]");
    for title in &titles[1..] {
        let (version, date) = title.split_once(" - ").expect("a date");
        assert!(
            version.starts_with('[') && version.ends_with(']'),
            "{title}"
        );
        assert!(date.len() == 10 && date.split('-').count() == 3, "{title}");
    }
    let kinds = [
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    ];
    for kind in changelog
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
    {
        assert!(kinds.contains(&kind), "{kind}");
    }
}
