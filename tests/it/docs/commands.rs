//! The commands of the documents: each is one that a shell understands, and those of the README's
//! first two chapters run, in bash and, where it is installed, in zsh.

use super::{Block, documents, parse, root, text};
use crate::support::wire::{eventually, free, try_ask};
use http::Request;
use http_body_util::Full;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const SHELLS: [&str; 2] = ["bash", "zsh"];

/// Whether the shell is installed; a shell that is missing is said once and skipped, but bash is
/// needed.
fn is_installed(shell: &str) -> bool {
    let found = Command::new(shell).args(["-c", ":"]).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        assert_ne!(shell, "bash", "bash is needed");
        eprintln!("{shell} is not installed: skipped");
    }
    found
}

/// Whether a word outside of quotes has a character that a shell would expand, in a URL.
fn has_bare_url(command: &str) -> bool {
    let mut quote = None;
    let mut bare = String::new();
    for c in command.chars() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, c) => bare.push(c),
            (Some(_), _) => {}
        }
    }
    let is_url = |word: &str| word.contains("://") || word.contains("localhost:");
    bare.split_whitespace()
        .any(|word| is_url(word) && word.contains(['?', '*', '[', '{', '&', ';']))
}

#[test]
fn every_command_is_one_that_shells_understand() {
    assert!(has_bare_url("curl localhost:1/a?b=c") && !has_bare_url("curl 'localhost:1/a?b=c'"));
    let mut checked = 0;
    for document in documents() {
        let whole = text(&document);
        for block in parse(&whole)
            .1
            .iter()
            .filter(|block| block.language == "sh")
        {
            checked += 1;
            let at = format!("{}: {}", document.display(), block.text);
            assert!(!block.text.lines().any(has_bare_url), "a bare URL in {at}");
            for shell in SHELLS.into_iter().filter(|shell| is_installed(shell)) {
                let read = Command::new(shell).args(["-n", "-c", &block.text]).output();
                let read = read.expect("a shell");
                let said = String::from_utf8_lossy(&read.stderr);
                assert!(
                    read.status.success() && said.is_empty(),
                    "{shell}: {said}{at}"
                );
            }
        }
    }
    assert!(checked > 20, "{checked} blocks");
}

/// The files of the repository that a command uses and that are not there: what it runs by a
/// relative path, and what stands in a folder of the repository. What a build makes is below
/// `target`.
fn missing_from(command: &str) -> Vec<&str> {
    let (mut missing, mut runs) = (Vec::new(), true);
    for word in command.split_whitespace() {
        let name = word.trim_matches(['"', '\'', '(', ')', ';']);
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
        let is_path = name.contains('/') && name.chars().all(plain);
        let first = name.split('/').next().unwrap_or_default();
        let is_ours =
            !["", ".", "..", "target"].contains(&first) && (runs || root().join(first).is_dir());
        if is_path && is_ours && !root().join(name).exists() {
            missing.push(name);
        }
        runs = ["&&", "||", "|", ";", "sudo", "bash", "sh"].contains(&word);
    }
    missing
}

#[test]
fn every_file_that_a_command_uses_exists() {
    assert_eq!(
        missing_from("a/b c && no/deb target/x deploy/no | config/segment.toml"),
        ["a/b", "no/deb", "deploy/no"]
    );
    for document in documents() {
        let whole = text(&document);
        for block in parse(&whole).1 {
            let commands = block.text.lines().filter(|_| block.language == "sh");
            let missing: Vec<&str> = commands.flat_map(missing_from).collect();
            assert_eq!(missing, [""; 0], "{}: {}", document.display(), block.text);
        }
    }
}

/// A gateway that a block has started, with all of its processes.
struct Started {
    child: Child,
    proxy: SocketAddr,
    admin: SocketAddr,
    sandbox: SocketAddr,
}

impl Drop for Started {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}

/// `cargo` and `segment-gateway`, as a reader has them: both start the program that is tested.
fn programs(folder: &Path, sandbox: SocketAddr) {
    let program = env!("CARGO_BIN_EXE_segment-gateway");
    let run = format!(
        "case \" $* \" in *\" --sandbox \"*) set -- \"$@\" --sandbox-listen {sandbox};; esac\nexec {program} \"$@\"\n"
    );
    let cargo = format!("[ \"$1 $2 $3\" = 'run --release --' ] || exit 90\nshift 3\n{run}");
    for (name, script) in [("segment-gateway", &run), ("cargo", &cargo)] {
        let file = folder.join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}")).expect("a program");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a program");
    }
}

fn command(shell: &str, script: &str, folder: &Path) -> Command {
    let mut command = Command::new(shell);
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .args(["-e", "-c", script])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("SEGMENT_TOKEN", "demo");
    command
}

/// Runs a block that starts a gateway, and waits until it listens.
async fn start(shell: &str, block: &Block, folder: &Path) -> Started {
    let (proxy, admin, sandbox) = (free(), free(), free());
    programs(folder, sandbox);
    let child = command(shell, &block.text, folder)
        .env("SEGMENT_GATEWAY__LISTEN", proxy.to_string())
        .env("SEGMENT_GATEWAY__ADMIN__LISTEN", admin.to_string())
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let started = Started {
        child,
        proxy,
        admin,
        sandbox,
    };
    eventually("it listens", async || {
        let ask = Request::get("/livez").header("host", admin.to_string());
        let ask = ask.body(Full::default()).expect("a request");
        try_ask(admin, ask).await.is_some()
    })
    .await;
    started
}

/// The block with the addresses of this gateway in the place of the usual ones.
fn addressed(block: &Block, gateway: &Started) -> String {
    let mut script = block.text.clone();
    for (port, address) in [
        ("8080", gateway.proxy),
        ("8081", gateway.admin),
        ("8089", gateway.sandbox),
    ] {
        for host in ["localhost", "127.0.0.1"] {
            script = script.replace(&format!("{host}:{port}"), &address.to_string());
        }
    }
    script
}

/// Whether a line is as the document shows it; `…` stands for anything.
fn is_like(line: &str, shown: &str) -> bool {
    let mut rest = line.trim();
    let parts: Vec<&str> = shown.trim().split('…').collect();
    for (at, part) in parts.iter().enumerate() {
        let Some(found) = rest.find(part) else {
            return false;
        };
        if at == 0 && found != 0 {
            return false;
        }
        rest = &rest[found + part.len()..];
    }
    rest.is_empty() || shown.trim().ends_with('…')
}

/// That the block did what the document shows behind it.
fn check(shell: &str, block: &Block, shown: Option<&Block>, output: &Output) {
    let (said, wrong) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let at = format!("{shell}: {}{said}{wrong}", block.text);
    assert!(output.status.success(), "{at}");
    let Some(shown) = shown.filter(|shown| shown.language == "text") else {
        return;
    };
    let (said, shown): (Vec<&str>, Vec<&str>) =
        (said.lines().collect(), shown.text.lines().collect());
    let alike = said.len() == shown.len();
    let alike = alike
        && said
            .iter()
            .zip(&shown)
            .all(|(line, shown)| is_like(line, shown));
    assert!(alike, "{at}\nthe document shows\n{shown:#?}");
}

/// Everything in the order of the document; the gateway of the first block serves all others.
async fn follow(shell: &str, blocks: &[Block]) {
    let mut serving: Option<Started> = None;
    let mut ran = 0;
    let folder = tempfile::tempdir().expect("a folder");
    for (at, block) in blocks
        .iter()
        .enumerate()
        .filter(|(_, it)| it.language == "sh")
    {
        // Pasted into an interactive zsh, a comment is a command.
        assert!(!block.text.contains("# "), "a comment in {}", block.text);
        if block.text.contains(" serve") {
            let own = tempfile::tempdir().expect("a folder");
            let started = start(shell, block, own.path()).await;
            serving.get_or_insert(started);
            continue;
        }
        let gateway = serving.as_ref().expect("a gateway is started first");
        let script = addressed(block, gateway);
        let folder = folder.path().to_owned();
        let mut run = command(shell, &script, &folder);
        let output = tokio::task::spawn_blocking(move || run.output());
        let output = output.await.expect("a task").expect("a shell");
        check(shell, block, blocks.get(at + 1), &output);
        ran += 1;
    }
    assert!(ran >= 4, "{ran} blocks ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chapters_of_the_readme_that_need_one_gateway_run() {
    assert!(
        is_like("a; key=\"12\"", "a; key=\"…\"") && !is_like("b; a", "a") && !is_like("ab", "a")
    );
    let readme = text(&root().join("README.md"));
    let mut blocks = parse(&readme).1;
    // The variant with keys starts a gateway of its own; `access.rs` does what it does.
    let chapters = ["Try it in 60 seconds", "Use it with the real API"];
    blocks.retain(|block| chapters.contains(&&*block.chapter));
    assert!(blocks.len() > 8, "{} blocks", blocks.len());
    for shell in SHELLS.into_iter().filter(|shell| is_installed(shell)) {
        follow(shell, &blocks).await;
    }
}
