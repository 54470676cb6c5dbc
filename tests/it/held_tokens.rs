//! The files of held tokens through a running program: which token may take the place of another.

use super::support::clients::key_block;
use super::support::program::Program;
use super::support::wire::{ask, eventually, free};
use super::support::{Answer, request};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use segment_gateway::clients::ClientKey;
use std::convert::Infallible;
use std::fs;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpListener;

/// An API that accepts every token, and shows it in each response. A token begins with the name of
/// its workspace.
struct Api {
    address: SocketAddr,
    /// Whether it says which workspace a token belongs to.
    says_workspace: Arc<AtomicBool>,
}

impl Api {
    async fn start() -> Self {
        let address = free();
        let listener = TcpListener::bind(address).await.unwrap();
        let says_workspace = Arc::new(AtomicBool::new(true));
        tokio::spawn(serve(listener, says_workspace.clone()));
        Self {
            address,
            says_workspace,
        }
    }

    fn says_workspace(&self, says: bool) {
        self.says_workspace.store(says, Ordering::SeqCst);
    }
}

async fn serve(listener: TcpListener, says_workspace: Arc<AtomicBool>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let says = says_workspace.clone();
        let service = service_fn(move |asked| {
            let answer = answer(&asked, says.load(Ordering::SeqCst));
            ready(Ok::<_, Infallible>(answer))
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

fn answer(asked: &Request<Incoming>, says_workspace: bool) -> Response<Full<Bytes>> {
    let token = asked.headers().get("authorization");
    let token = token.map_or("Bearer nobody", |token| token.to_str().unwrap());
    let token = token.trim_start_matches("Bearer ");
    let (workspace, _) = token.split_once('-').unwrap_or((token, ""));
    let (status, body) = match asked.uri().path() {
        "/" if !says_workspace => (500, "{}".to_owned()),
        "/" => (
            200,
            format!(r#"{{"data":{{"workspace":{{"id":"{workspace}"}}}}}}"#),
        ),
        _ => (200, format!(r#"{{"data":{{"token":"{token}"}}}}"#)),
    };
    let response = Response::builder().status(status);
    let response = response.header("content-type", "application/json");
    response.body(Full::new(body.into())).unwrap()
}

/// A gateway that holds the tokens `t` and `u`, with a client for each.
struct Holder {
    gateway: Program,
    keys: [ClientKey; 2],
}

impl Holder {
    async fn start(api: &Api, t: &str, u: &str) -> Self {
        let keys = [(); 2].map(|()| ClientKey::generate().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        place("t", t);
        place("u", u);
        place("clients.toml", &clients(&keys));
        let configuration = "[state]\ndirectory = 'state'\n[callers]\ncredentials = 'both'\n\
            clients_file = 'clients.toml'\n";
        let upstream = format!("http://{}", api.address);
        let arguments = ["--upstream", &upstream];
        let gateway = Program::start_in(directory, configuration, &arguments, &[]).await;
        Self { gateway, keys }
    }

    /// What the API says to the client of a token, or the store.
    async fn read(&self, client: usize, target: &str) -> Answer {
        let asked = request(Method::GET, target, self.keys[client].reveal(), "");
        let answer = ask(self.gateway.proxy, asked).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }

    /// What the next process would find.
    fn remembered(&self) -> String {
        fs::read_to_string(self.gateway.file("state/tokens.json")).unwrap_or_default()
    }

    async fn knows_workspaces(&self) {
        eventually("both workspaces are known", async || {
            let text = self.remembered();
            text.contains("\"u\"") && !text.contains("null")
        })
        .await;
    }

    fn put(&self, file: &str, text: &str) {
        fs::write(self.gateway.file(file), text).unwrap();
        self.gateway.signal("-HUP");
    }
}

fn clients(keys: &[ClientKey; 2]) -> String {
    let names = ["t", "u"].iter().zip(keys);
    let clients = names.map(|(name, key)| {
        let block = key_block(name, key);
        format!(
            "[tokens.{name}]\nfile = '{name}'\n[clients.{name}]\ntoken = '{name}'\nmay = ['reads']\n{block}"
        )
    });
    clients.collect()
}

#[tokio::test]
async fn a_token_of_another_workspace_or_of_another_name_is_not_used() {
    let api = Api::start().await;
    let holder = Holder::start(&api, "w1-a", "w2-x").await;
    holder.knows_workspaces().await;
    holder.put("t", "w2-b");
    holder.gateway.logs(&["belongs to another workspace"]).await;
    assert!(holder.read(0, "/users").await.text().contains("w1-a"));
    holder.put("t", "w2-x");
    holder.gateway.logs(&["use one name for both"]).await;
    assert!(holder.read(0, "/groups").await.text().contains("w1-a"));
    holder.put("t", "w1-c");
    holder.gateway.logs(&["held token replaced"]).await;
    assert!(holder.read(0, "/roles").await.text().contains("w1-c"));
    let hit = holder.read(0, "/users").await;
    assert!(hit.cache_status().contains("hit"), "{hit:?}");
}

#[tokio::test]
async fn without_a_known_workspace_a_successor_gets_nothing_that_was_stored_before() {
    let api = Api::start().await;
    api.says_workspace(false);
    let holder = Holder::start(&api, "w1-a", "w1-x").await;
    assert!(holder.read(0, "/users").await.text().contains("w1-a"));
    assert!(
        holder
            .read(0, "/users")
            .await
            .cache_status()
            .contains("hit")
    );
    api.says_workspace(true);
    holder.put("t", "w2-b");
    holder.gateway.logs(&["held token replaced"]).await;
    let after = holder.read(0, "/users").await;
    assert!(after.text().contains("w2-b"), "{after:?}");
}

#[tokio::test]
async fn whoever_has_a_former_token_gets_nothing_that_its_successor_stored() {
    let api = Api::start().await;
    let holder = Holder::start(&api, "w1-a", "w1-x").await;
    let own = async |target: &str| {
        let asked = request(Method::GET, target, "w1-a", "");
        ask(holder.gateway.proxy, asked).await.text()
    };
    holder.knows_workspaces().await;
    holder.put("t", "w1-b");
    holder.gateway.logs(&["held token replaced"]).await;
    assert!(holder.read(0, "/users").await.text().contains("w1-b"));
    assert!(own("/users").await.contains("w1-a"));
    // The name is removed, and with it what was known of the token.
    let only_u = clients(&holder.keys).split_off(clients(&holder.keys).find("[tokens.u]").unwrap());
    holder.put("clients.toml", &only_u);
    eventually("it is forgotten", async || {
        !holder.remembered().contains("\"t\"")
    })
    .await;
    assert!(own("/users").await.contains("w1-a"));
}
