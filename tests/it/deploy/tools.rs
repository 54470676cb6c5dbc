//! What `.ci/tools/install` installs, for the tests of the chart and of the dashboard.
//!
//! Where it is missing the tests say so and pass, unless `SEGMENT_GATEWAY_NEEDS_HELM` is set.

use super::root;
use serde_json::Value;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The folder of the tools, if they are installed.
pub fn tools() -> Option<PathBuf> {
    let tools = root().join(".ci/tools");
    if tools.join("bin/helm").exists() && tools.join("node_modules/installed").exists() {
        return Some(tools);
    }
    let needed = std::env::var_os("SEGMENT_GATEWAY_NEEDS_HELM").is_some();
    assert!(!needed, "run .ci/tools/install");
    eprintln!("skipped: .ci/tools/install has not run");
    None
}

/// What the tool says with this input: its output, or its complaints.
pub fn run(mut command: Command, input: &str) -> Result<String, String> {
    let command = command.current_dir(root()).stdin(Stdio::piped());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut to = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || to.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
    if output.status.success() {
        Ok(out)
    } else {
        Err(err)
    }
}

/// The documents, if they have the published types (`kubernetes` or `grafana`), or what is wrong with
/// them. Nothing without the tools.
pub fn check(types: &str, documents: &str) -> Option<Result<Vec<Value>, String>> {
    let tools = tools()?;
    let mut node = Command::new("node");
    node.arg(tools.join("check.mjs")).arg(types);
    let list = run(node, documents);
    Some(list.map(|list| serde_json::from_str(&list).unwrap()))
}
