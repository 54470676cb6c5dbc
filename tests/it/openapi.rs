//! The description of the gateway's own resources fits the answers: each path and method of it is asked,
//! each answer is one that it describes, and the admin listener serves nothing else.

mod schema;

use super::support::Answer;
use super::support::program::Program;
use super::support::wire::{ask, connect, read_until};
use http::{Method, Request};
use http_body_util::Full;
use schema::mistakes;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use tokio::io::AsyncWriteExt;

const ADMIN: &str = "Bearer the-token-of-operators";
const CALLER: &str = "Bearer demo";
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// A gateway with an admin token, and what has been asked of it.
struct Described {
    gateway: Program,
    description: Value,
    asked: BTreeSet<(String, String)>,
}

impl Described {
    async fn start() -> Self {
        let environment = [("SEGMENT_GATEWAY_ADMIN_TOKEN", "the-token-of-operators")];
        let state = "[state]\ndirectory = \"state\"\n";
        let gateway = Program::sandbox(state, &[], &environment).await;
        let description = gateway.page("/openapi.json", ADMIN).await.expect("it");
        Self {
            description: serde_json::from_slice(&description.body).expect("JSON"),
            gateway,
            asked: BTreeSet::new(),
        }
    }

    /// The operation of a path and a method, if it is described.
    fn operation(&self, path: &str, method: &str) -> Option<&Value> {
        self.description["paths"].get(path)?.get(method)
    }

    /// Sends a request, as a caller or an operator.
    async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let is_callers =
            target.starts_with("/_gateway") || ["/invites", "/roles"].contains(&target);
        let address = if is_callers {
            self.gateway.proxy
        } else {
            self.gateway.admin
        };
        let mut request = Request::builder()
            .method(Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method"))
            .uri(target)
            .header("host", address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if (method, target) == ("post", "/invites") {
            r#"{"invites":[{"email":"a@example.com"}]}"#
        } else {
            ""
        };
        ask(address, request.body(Full::from(body)).expect("a request")).await
    }

    /// That the answer to a request is described, and has this status.
    async fn expect(
        &mut self,
        (method, path, target): (&str, &str, &str),
        headers: &[(&str, &str)],
        status: u16,
    ) -> Value {
        let answer = self.send(method, target, headers).await;
        let at = format!("{method} {target} {status}");
        assert_eq!(answer.status, status, "{at}: {}", answer.text());
        self.asked.insert((path.to_owned(), method.to_owned()));
        let operation = self.operation(path, method);
        let operation = operation.unwrap_or_else(|| panic!("{at}: not described"));
        let described = &operation["responses"][status.to_string()];
        let described = match described["$ref"].as_str() {
            Some(name) => self.description.pointer(&name[1..]).expect("a response"),
            None => described,
        };
        let kind = answer.headers["content-type"].to_str().expect("a type");
        let kind = kind.split(';').next().expect("a type");
        let content = described["content"].get(kind);
        let content = content.unwrap_or_else(|| panic!("{at}: {kind} is not described"));
        if kind != "application/json" {
            return Value::Null;
        }
        let value: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let wrong = mistakes(&self.description, &content["schema"], &value, "");
        assert_eq!(wrong, Vec::<String>::new(), "{at}");
        value
    }
}

const OWN: &str = "/_gateway/writes";
const OWN_ONE: &str = "/_gateway/writes/{id}";
const ONE: &str = "/writes/{id}";
const NOBODY: &str = "01a20dd3-1a21-7000-962f-416076a7eb8a";

/// The requests of a caller. Returns the ids of a write that has ended and one that is queued.
async fn of_callers(described: &mut Described) -> (String, String) {
    let token = [("authorization", CALLER)];
    let keyed = [("authorization", CALLER), ("idempotency-key", "k")];
    let deferred = [("authorization", CALLER), ("prefer", "respond-async")];
    let made = described.send("post", "/invites", &keyed).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let ended = described
        .expect(("get", OWN, "/_gateway/writes?limit=1"), &token, 200)
        .await;
    let ended = ended["data"]["writes"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();

    let change = [("authorization", ADMIN), ("x-gateway-admin", "1")];
    for (action, path) in [("pause", "/writes/pause"), ("resume", "/writes/resume")] {
        let target = format!("{path}?operation=createInvites");
        let done = described
            .expect(("post", path, &target), &change, 200)
            .await;
        assert_eq!(done["changed"], true, "{action}");
        described.expect(("post", path, path), &change, 400).await;
    }
    let target = "/clients/revoke?client=nobody";
    described
        .expect(("post", "/clients/revoke", target), &change, 400)
        .await;
    let target = "/writes/pause?operation=createInvites";
    described
        .expect(("post", "/writes/pause", target), &change, 200)
        .await;
    let queued = described.send("post", "/invites", &deferred).await;
    assert_eq!(queued.status, 202, "{}", queued.text());
    let queued = queued.headers["location"]
        .to_str()
        .expect("a path")
        .to_owned();
    let shown = described
        .expect(("get", OWN_ONE, &queued), &token, 200)
        .await;
    assert_eq!(shown["data"]["write"]["state"], "queued");

    let id = format!("{OWN}/{ended}");
    let shown = described.expect(("get", OWN_ONE, &id), &token, 200).await;
    assert_eq!(shown["data"]["write"]["answer"]["status"], 201);
    described
        .expect(("delete", OWN_ONE, &id), &token, 409)
        .await;
    let nobody = format!("{OWN}/{NOBODY}");
    described
        .expect(("get", OWN_ONE, &nobody), &token, 404)
        .await;
    described
        .expect(("delete", OWN_ONE, &nobody), &token, 404)
        .await;
    described.expect(("get", OWN, OWN), &[], 401).await;
    described
        .expect(("get", OWN, "/_gateway/writes?state=x"), &token, 400)
        .await;
    let queued = queued.rsplit('/').next().expect("an id").to_owned();
    (ended, queued)
}

/// The requests of an operator for writes.
async fn of_writes(described: &mut Described, ended: &str, queued: &str) {
    let read = [("authorization", ADMIN)];
    let change = [("authorization", ADMIN), ("x-gateway-admin", "1")];
    let target = "/writes?state=queued&limit=1";
    let listed = described
        .expect(("get", "/writes", target), &read, 200)
        .await;
    assert_eq!(listed["writes"][0]["id"], queued);
    assert_eq!(listed["paused"][0]["operation"], "createInvites");
    described
        .expect(("get", "/writes", "/writes?limit=0"), &read, 400)
        .await;
    let hash = listed["writes"][0]["credential"]
        .as_str()
        .expect("a hash")
        .to_owned();

    let rebind = [("x-gateway-new-authorization", "Bearer other")];
    let target = format!("/writes/rebind?credential={hash}");
    let both = [&change[..], &rebind].concat();
    let moved = described
        .expect(("post", "/writes/rebind", &target), &both, 200)
        .await;
    assert_eq!(moved["moved"], 1);
    described
        .expect(("post", "/writes/rebind", &target), &change, 400)
        .await;

    for (id, status) in [(ended, 200), (queued, 200), (NOBODY, 404)] {
        let target = format!("/writes/{id}");
        described.expect(("get", ONE, &target), &read, status).await;
    }
    for (id, status) in [(ended, 409), (queued, 200), (NOBODY, 404)] {
        let target = format!("/writes/{id}");
        described
            .expect(("delete", ONE, &target), &change, status)
            .await;
    }
}

/// The requests of an operator for everything else.
async fn of_operators(described: &mut Described) {
    let read = [("authorization", ADMIN)];
    let change = [("authorization", ADMIN), ("x-gateway-admin", "1")];
    for path in [
        "/",
        "/livez",
        "/readyz",
        "/metrics",
        "/status",
        "/log",
        "/openapi.json",
    ] {
        described.expect(("get", path, path), &read, 200).await;
    }
    let target = "/status?filter=listUsers";
    described
        .expect(("get", "/status", target), &read, 200)
        .await;
    described
        .expect(("get", "/status", "/status?x=1"), &read, 400)
        .await;
    described
        .expect(("post", "/log", "/log?level=warn"), &change, 200)
        .await;
    described
        .expect(("post", "/log", "/log?level=loud"), &change, 400)
        .await;

    // Not what the write has touched: that is not stored for a while.
    let roles = described
        .send("get", "/roles", &[("authorization", CALLER)])
        .await;
    let status = roles.headers["cache-status"].to_str().expect("text");
    let key = status
        .split("key=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let target = format!("/cache?key={}", key.expect("a key"));
    let known = described
        .expect(("get", "/cache", &target), &read, 200)
        .await;
    assert_eq!(known["stored"][0]["operation"], "listRoles");
    described
        .expect(("get", "/cache", "/cache?key=x"), &read, 400)
        .await;
    described
        .expect(("get", "/cache", "/cache?key=0000000000000000"), &read, 404)
        .await;
    let target = "/cache/purge?everything=true";
    let purged = described
        .expect(("post", "/cache/purge", target), &change, 200)
        .await;
    assert_ne!(purged["purged"], 0);
    described
        .expect(("post", "/cache/purge", "/cache/purge"), &change, 400)
        .await;

    described
        .expect(("get", "/status", "/status"), &[], 401)
        .await;
    described
        .expect(("post", "/log", "/log?level=info"), &read, 403)
        .await;
    let wrong = [("authorization", "Bearer wrong")];
    described
        .expect(("get", "/status", "/status"), &wrong, 401)
        .await;
    described
        .expect(("get", "/status", "/status"), &wrong, 429)
        .await;
}

/// The stream has no end, so its head and its first event are read.
async fn of_the_stream(described: &mut Described) {
    let mut stream = connect(described.gateway.admin).await;
    let host = described.gateway.admin;
    let request = format!("GET /live HTTP/1.1\r\nhost: {host}\r\nauthorization: {ADMIN}\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it is read");
    let said = read_until(&mut stream, "event: status").await;
    assert!(said.contains("content-type: text/event-stream"), "{said}");
    let described_as = described.operation("/live", "get").expect("described");
    assert!(!described_as["responses"]["200"]["content"]["text/event-stream"].is_null());
    described
        .asked
        .insert(("/live".to_owned(), "get".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_path_and_method_is_answered_as_described() {
    let mut described = Described::start().await;
    assert_eq!(
        described.description["info"]["version"],
        env!("CARGO_PKG_VERSION")
    );
    let (ended, queued) = of_callers(&mut described).await;
    of_writes(&mut described, &ended, &queued).await;
    of_the_stream(&mut described).await;
    of_operators(&mut described).await;

    let paths = described.description["paths"].as_object().expect("paths");
    let all = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("methods").keys();
        let methods = methods.filter(|method| METHODS.contains(&method.as_str()));
        methods.map(|method| (path.clone(), method.clone()))
    });
    assert_eq!(described.asked, all.collect(), "each is asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_method_is_allowed() {
    let described = Described::start().await;
    for path in described.description["paths"]
        .as_object()
        .expect("paths")
        .keys()
    {
        let target = path.replace("{id}", NOBODY);
        let headers = match path.starts_with(OWN) {
            true => vec![("authorization", CALLER)],
            false => vec![("authorization", ADMIN), ("x-gateway-admin", "1")],
        };
        for method in METHODS {
            if described.operation(path, method).is_some() {
                continue;
            }
            let answer = described.send(method, &target, &headers).await;
            // `GET /writes/pause` asks for a write of that name.
            let is_no_write = method == "get" || method == "delete";
            let is_refused = answer.status == 405 || is_no_write && answer.status == 404;
            assert!(is_refused, "{method} {path}: {}", answer.status);
        }
    }
}

/// The paths that the sources of the admin listener name: whole ones in quotes, and the actions on writes.
fn served() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin");
    for file in ["mod.rs", "cache.rs", "clients.rs", "log.rs", "writes.rs"] {
        let text = fs::read_to_string(folder.join(file)).expect("a source file");
        let code = text.split("#[cfg(test)]").next().expect("code");
        let lines = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in lines {
            let is_match = line.contains("=>") || line.contains("path ==");
            let mut quoted = line.split('"').skip(1).step_by(2);
            if let Some(path) = quoted.next().filter(|_| is_match) {
                if path.starts_with('/') {
                    found.insert(path.to_owned());
                } else if line.contains("(&Method::POST, \"") {
                    found.insert(format!("/writes/{path}"));
                }
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_serves_nothing_that_is_not_described() {
    let described = Described::start().await;
    let paths = described.description["paths"].as_object().expect("paths");
    let paths: BTreeSet<String> = paths
        .keys()
        .filter(|path| !path.starts_with(OWN))
        .cloned()
        .collect();
    let mut served = served();
    served.insert(ONE.to_owned());
    assert_eq!(served, paths);
    let nothing = described
        .send("get", "/nothing", &[("authorization", ADMIN)])
        .await;
    assert_eq!(nothing.status, 404);
    for path in paths.iter().filter(|path| path.rfind('/') == Some(0)) {
        assert!(nothing.text().contains(path), "{path}");
    }
}
