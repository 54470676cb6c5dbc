//! Segment's own SDK, unmodified, with a key of the gateway in place of its token.
//!
//! Needs node and the SDK, which `.ci/tools/install` installs. Where they are missing the test says
//! so and passes, unless `SEGMENT_GATEWAY_NEEDS_HELM` is set.

use super::deploy::root;
use super::deploy::tools::{run, tools};
use super::support::clients::key_block;
use super::support::program::Program;
use segment_gateway::clients::ClientKey;
use serde_json::{Value, json};
use std::process::Command;

const MANAGED: &str = "[callers]\ncredentials = 'managed'\nclients_file = 'clients.toml'\n";

#[tokio::test]
async fn the_typescript_sdk_works_with_a_key_as_its_token() {
    let Some(tools) = tools() else {
        return;
    };
    let key = ClientKey::generate().unwrap();
    let clients = format!(
        "[tokens.held]\nfile = 'token'\n[clients.reader]\ntoken = 'held'\nmay = ['iam-reads']\n{}",
        key_block("reader", &key)
    );
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("clients.toml"), clients).unwrap();
    std::fs::write(directory.path().join("token"), "a-token\n").unwrap();
    let gateway = Program::sandbox_in(directory, MANAGED).await;
    let mut node = Command::new("node");
    node.arg(root().join("tests/it/sdks/typescript.cjs"))
        .arg(format!("http://{}", gateway.proxy))
        .arg(tools)
        .env("SEGMENT_TOKEN", key.reveal());
    let said = tokio::task::spawn_blocking(move || run(node, "")).await;
    let said: Value = serde_json::from_str(&said.unwrap().unwrap()).unwrap();
    assert_eq!(said, json!({ "users": 2, "denied": "gateway-not-allowed" }));
}
