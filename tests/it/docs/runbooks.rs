//! The commands of the runbooks run, with each of the three sets of functions that the document
//! gives: on the gateway's machine, in Kubernetes, and from elsewhere with the admin token. What
//! they search the log for is what the log writes, as text and as JSON.

use super::{Block, documents, parse, root, text};
use crate::support::program::Program;
use crate::support::request;
use crate::support::wire::ask;
use http::Method;
use segment_gateway::metrics::Outcome;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const TOKEN: &str = "the-token-of-operators";
const RUNBOOKS: &str = "docs/runbooks.md";
/// The functions that the commands use.
const FUNCTIONS: [&str; 4] = ["ask ", "gateway ", "configured ", "logs "];

/// The blocks that define the functions, and the commands that use them, in the order of the
/// document.
fn runbooks() -> (Vec<Block>, Vec<String>) {
    let document = text(&root().join(RUNBOOKS));
    let (prose, blocks) = parse(&document);
    let (definitions, blocks): (Vec<_>, Vec<_>) = blocks
        .into_iter()
        .partition(|block| block.text.contains("ask() {"));
    let mut commands = Vec::new();
    for block in blocks.iter().filter(|block| block.language == "sh") {
        let whole = block.text.replace("\\\n", "");
        commands.extend(whole.lines().map(|line| {
            let bare = line.split("  #").next().unwrap_or_default();
            bare.trim().to_owned()
        }));
    }
    for line in prose {
        commands.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    let uses = |command: &String| {
        let mut functions = FUNCTIONS.iter();
        functions.any(|function| command.starts_with(function))
    };
    commands.retain(uses);
    (definitions, commands)
}

/// Whether a command changes something or needs a second token: other tests run those.
fn is_left_out(command: &str) -> bool {
    command.contains(" rebind ")
}

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Programs that stand for those of a reader: the gateway's own, and a `kubectl` whose container is
/// this machine.
fn programs(running: &Program) -> PathBuf {
    let folder = running.file("bin");
    fs::create_dir(&folder).unwrap();
    let gateway = env!("CARGO_BIN_EXE_segment-gateway");
    script(
        &folder.join("segment-gateway"),
        &format!("exec {gateway} \"$@\""),
    );
    let state = running.file("state");
    let kubectl = format!(
        "case \"$1\" in\n\
         get) printf %s {TOKEN} | base64 ;;\n\
         port-forward) ;;\n\
         logs) exec cat {log} ;;\n\
         exec) while [ \"$1\" != -- ]; do shift; done; shift\n\
         SEGMENT_GATEWAY__STATE__DIRECTORY={state} exec \"$@\" ;;\n\
         *) echo \"no such command: $1\" >&2; exit 90 ;;\n\
         esac",
        log = running.file("log").display(),
        state = state.display(),
    );
    script(&folder.join("kubectl"), &kubectl);
    script(
        &folder.join("journalctl"),
        &format!("exec cat {}", running.file("log").display()),
    );
    folder
}

/// The functions with the places of this gateway.
fn placed(block: &Block, running: &Program) -> String {
    let state = running.file("state").display().to_string();
    let admin = running.admin.to_string();
    block
        .text
        .replace("/var/lib/segment-gateway", &state)
        .replace("/etc/segment-gateway.toml", "gateway.toml")
        .replace("localhost:8081", &admin)
        .replace("10.0.0.5:8081", &admin)
        .replace("gateway.log", "log")
}

fn run(running: &Program, functions: &str, command: &str) -> Output {
    let path = std::env::var("PATH").unwrap_or_default();
    let bin = running.file("bin").display().to_string();
    let script = format!("set -o pipefail\n{functions}\n{command}");
    Command::new("bash")
        .args(["-c", &script])
        .current_dir(running.file(""))
        .env("PATH", format!("{bin}:{path}"))
        .env_remove("SEGMENT_GATEWAY_ADMIN_TOKEN")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A gateway with an admin token, a stored response and a queued write. Returns the key and the id.
async fn gateway(format: &str) -> (Program, String, String) {
    let configuration = format!("[state]\ndirectory = \"state\"\n[log]\nformat = \"{format}\"\n");
    let environment = [("SEGMENT_GATEWAY_ADMIN_TOKEN", TOKEN)];
    let running = Program::sandbox(&configuration, &[], &environment).await;
    fs::write(running.file("admin-token"), format!("{TOKEN}\n")).unwrap();
    let read = || request(Method::GET, "/users/user-00001", "t", "");
    let answer = ask(running.proxy, read()).await;
    let status = answer.header("cache-status").to_owned();
    let key = status.split("key=\"").nth(1).unwrap_or_default();
    let key = key.split('"').next().unwrap_or_default().to_owned();
    let mut write = request(
        Method::POST,
        "/invites",
        "t",
        r#"{"invites":[{"email":"a@example.com"}]}"#,
    );
    write
        .headers_mut()
        .insert("prefer", "respond-async".parse().unwrap());
    let answer = ask(running.proxy, write).await;
    let id = answer
        .header("location")
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    // A request that the gateway rejects, from a caller with a name.
    let mut refused = request(Method::PUT, "/users/user-00001/permissions", "t", "{}");
    refused.headers_mut().remove("authorization");
    refused
        .headers_mut()
        .insert("x-gateway-caller", "billing".parse().unwrap());
    assert_eq!(ask(running.proxy, refused).await.status, 401);
    running.logs(&["gateway-no-credential"]).await;
    (running, key, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_runs_with_an_admin_token_and_in_kubernetes() {
    let (definitions, commands) = runbooks();
    assert_eq!(
        definitions.len(),
        3,
        "on the machine, in Kubernetes, elsewhere"
    );
    assert!(commands.len() >= 20, "{commands:#?}");
    let (running, key, id) = gateway("text").await;
    programs(&running);
    for block in &definitions {
        let functions = placed(block, &running);
        for command in commands.iter().filter(|command| !is_left_out(command)) {
            let words = command.split(' ').map(|word| match word {
                "ID" => &id,
                "KEY" => &key,
                "NAME" => "getUser",
                word => word,
            });
            let command: String = words.collect::<Vec<_>>().join(" ");
            let output = run(&running, &functions, &command);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (said, wrong) = (text(&output.stdout), text(&output.stderr));
            let status = output.status.code();
            // A search that finds nothing is no mistake; whether it could find something is
            // another test's. The API of this configuration cannot be reached, as doctor says.
            let fine = match command.split(' ').next() {
                Some("logs") => matches!(status, Some(0 | 1)) && wrong.is_empty(),
                _ if command.starts_with("configured doctor") => {
                    matches!(status, Some(0 | 3..=6))
                }
                // A write that has ended cannot be cancelled.
                _ if command.contains(" cancel ") => wrong.is_empty() || wrong.contains("sent"),
                _ => status == Some(0),
            };
            assert!(fine, "{command}\n{functions}\n{status:?} {said}{wrong}");
            // What `ask` prints is a page, and curl succeeds with any. A log may have every word.
            let page = if command.starts_with("ask ") {
                &*said
            } else {
                ""
            };
            for denied in [
                "this needs the admin token",
                "not the admin token",
                "no such page",
            ] {
                assert!(!page.contains(denied), "{command}: {page}");
            }
            for denied in ["admin token", "not found", "unexpected argument"] {
                assert!(!wrong.contains(denied), "{command}: {wrong}");
            }
        }
    }
}

/// A search of the log: the options of `grep`, and its pattern.
#[derive(Debug)]
struct Search {
    options: Vec<String>,
    pattern: String,
    at: String,
}

/// Every search of the log in a text.
fn searches(document: &Path) -> Vec<Search> {
    let whole = text(document).replace("\\\n", "");
    let mut found = Vec::new();
    for line in whole.lines().filter(|line| line.contains("logs | ")) {
        let command = line
            .split("logs | ")
            .skip(1)
            .map(|rest| rest.split('`').next());
        for command in command.flatten() {
            for rest in command.split("grep ").skip(1) {
                let (mut options, mut rest) = (Vec::new(), rest.trim_start());
                while rest.starts_with('-') {
                    let (option, more) = rest.split_once(' ').expect("a pattern");
                    options.push(option.to_owned());
                    rest = more.trim_start();
                }
                let pattern = match rest.strip_prefix('\'') {
                    Some(quoted) => quoted.split('\'').next(),
                    None => rest.split(' ').next(),
                };
                found.push(Search {
                    options,
                    pattern: pattern.expect("a pattern").to_owned(),
                    at: format!("{}: {command}", document.display()),
                });
            }
        }
    }
    found
}

/// The patterns that a pattern with a group of alternatives stands for; each must find something.
fn alternatives(pattern: &str) -> Vec<String> {
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in pattern.chars() {
        depth += usize::from(c == '(');
        depth -= usize::from(c == ')');
        match (c, depth) {
            ('|', 0) => parts.push(String::new()),
            (c, _) => parts.last_mut().expect("a part").push(c),
        }
    }
    let each = parts
        .into_iter()
        .flat_map(|part| match (part.find('('), part.find(')')) {
            (Some(open), Some(close)) => {
                let (before, after) = (&part[..open], &part[close + 1..]);
                let each = part[open + 1..close].split('|');
                each.map(|one| format!("{before}{one}{after}")).collect()
            }
            _ => vec![part],
        });
    each.collect()
}

/// Whether `grep` finds a pattern in these lines.
fn finds(options: &[String], pattern: &str, lines: &str) -> bool {
    let mut grep = Command::new("grep");
    grep.args(options).args(["--", pattern]);
    let mut grep = grep
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = grep.stdin.take().unwrap();
    let lines = lines.to_owned();
    let writing = std::thread::spawn(move || {
        // It may have found what it looks for before it has read everything.
        let _ = input.write_all(lines.as_bytes());
    });
    let output = grep.wait_with_output().unwrap();
    writing.join().unwrap();
    output.status.success()
}

/// The texts of a source file in double quotes, with the lines that a `\` joins.
fn literals(source: &str) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), None::<String>);
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, &mut open) {
            ('"', None) => open = Some(String::new()),
            ('"', Some(_)) => found.extend(open.take()),
            ('\\', Some(text)) => match chars.next() {
                Some('\n') => while chars.next_if(|c| c.is_whitespace()).is_some() {},
                Some('n') => text.push('\n'),
                Some(escaped) => text.push(escaped),
                None => {}
            },
            (c, Some(text)) => text.push(c),
            (_, None) => {}
        }
    }
    found
}

/// The texts in the calls of `tracing` in this code.
fn logged(code: &str) -> Vec<String> {
    let levels = ["error", "warn", "info", "debug"];
    let calls = levels.iter().flat_map(|level| {
        let begin = format!("tracing::{level}!(");
        let calls: Vec<String> = code.split(&begin).skip(1).map(str::to_owned).collect();
        calls
    });
    let texts = calls.flat_map(|call| literals(call.split(");").next().unwrap_or_default()));
    texts.collect()
}

/// The messages that the program can log: the texts in its calls of `tracing`, and the warnings
/// about a configuration, which are logged as they are.
fn messages() -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let is_source = path.extension().is_some_and(|kind| kind == "rs");
            if path.is_dir() && !path.ends_with("tests") {
                walk(&path, found);
            } else if is_source && !path.ends_with("tests.rs") {
                let whole = text(&path);
                found.extend(logged(
                    whole.split("#[cfg(test)]").next().unwrap_or_default(),
                ));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join("src"), &mut found);
    let check = text(&root().join("src/config/check.rs"));
    let warnings = check.split("pub fn warnings").nth(1).expect("warnings");
    found.extend(literals(
        warnings.split("\n}\n").next().expect("a function"),
    ));
    found.retain(|message| message.contains(' '));
    found
}

/// Lines about requests in the format of a log: those that a gateway wrote, with each outcome,
/// each documented error and a 5xx in place of what it wrote.
fn variants(log: &str) -> String {
    let errors = text(&root().join("docs/errors.md"));
    let errors = errors
        .split('`')
        .filter(|word| word.starts_with("gateway-"));
    let errors: Vec<&str> = errors.collect();
    let mut lines = log.to_owned();
    for line in log
        .lines()
        .filter(|line| line.contains("gateway-no-credential"))
    {
        for error in &errors {
            lines += &format!("{}\n", line.replace("gateway-no-credential", error));
        }
        for outcome in Outcome::ALL {
            let own = format!("\"{}\"", Outcome::Refused.as_str());
            let other = format!("\"{}\"", outcome.as_str());
            lines += &format!("{}\n", line.replace(&own, &other));
        }
        lines += &format!("{}\n", line.replace("401", "503"));
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_searched_for_is_what_the_log_writes() {
    let searches: Vec<Search> = documents().iter().flat_map(|path| searches(path)).collect();
    assert!(searches.len() >= 12, "{searches:#?}");
    let messages = messages();
    assert!(messages.len() >= 60, "{messages:#?}");
    let messages = messages.join("\n");
    let (text, ..) = gateway("text").await;
    let (json, ..) = gateway("json").await;
    let logs = [variants(&text.log()), variants(&json.log())];
    let mut missed = Vec::new();
    for search in &searches {
        for pattern in alternatives(&search.pattern) {
            let finds = |lines: &str| finds(&search.options, &pattern, lines);
            // A pattern with fields finds them in both formats, any other a message.
            let is_found = match pattern.contains("[=:]") {
                true => logs.iter().all(|log| finds(log)),
                false => finds(&messages),
            };
            if !is_found {
                missed.push(format!("{}: {pattern}", search.at));
            }
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
    // The test itself finds what is wrong.
    assert!(!finds(&["-E".to_owned()], r#"outcom"?[=:]"#, &logs[0]));
    assert!(!finds(&[], "other users of that token", &messages));
}

/// The lines of the log that documents show, and the messages that they name, are those of the
/// program.
#[test]
fn the_lines_that_are_shown_are_those_of_the_program() {
    let messages = messages();
    let mut checked = 0;
    for document in documents()
        .iter()
        .filter(|path| !path.ends_with("CHANGELOG.md"))
    {
        let whole = text(document);
        let (prose, blocks) = parse(&whole);
        let mut shown = Vec::new();
        for block in blocks.iter().filter(|block| block.language == "text") {
            for line in block.text.lines() {
                let line = ["INFO ", "WARN ", "ERROR "]
                    .iter()
                    .find_map(|level| line.strip_prefix(level));
                // The message ends where the fields begin: at the word before the first `=`.
                let message = line.map(|line| match line.split_once('=') {
                    Some((before, _)) => before.rsplit_once(' ').map_or("", |(message, _)| message),
                    None => line,
                });
                shown.extend(message.map(str::to_owned));
            }
        }
        for words in ["log `", "line `", "warns `", "lines `"] {
            for line in &prose {
                let named = line
                    .split(words)
                    .skip(1)
                    .filter_map(|rest| rest.split('`').next());
                // A setting or a field is no message.
                shown.extend(named.filter(|text| text.contains(' ')).map(str::to_owned));
            }
        }
        for message in shown {
            checked += 1;
            let is_one = messages.iter().any(|known| known.starts_with(&message));
            assert!(
                is_one,
                "{}: no line begins with {message:?}",
                document.display()
            );
        }
    }
    assert!(checked >= 8, "{checked} lines");
}
