//! The way from callers' tokens to keys, step by step as docs/access.md has it, under load.

use super::support::clients::key_block;
use super::support::program::Program;
use super::support::wire::{ask, eventually};
use super::support::{Answer, request, with};
use http::Method;
use segment_gateway::clients::ClientKey;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const RELOADS: &str = "segment_gateway_config_reloads_total";
const OWN: &str = "[state]\ndirectory = 'state'\n[log]\naccess = 'all'\n";
/// The services, each with a user that it writes.
const SERVICES: [&str; 3] = ["billing", "hr-sync", "terraform"];

/// A service that asks all the time.
struct Service {
    /// Its token, later its key.
    secret: Mutex<String>,
    asked: AtomicUsize,
    /// Whether it is to write once, besides its reads: writes have narrow limits.
    writes: AtomicBool,
    failed: Mutex<Vec<Answer>>,
}

impl Service {
    fn start(gateway: SocketAddr, user: usize, stop: Arc<AtomicBool>) -> Arc<Self> {
        let service = Arc::new(Self {
            secret: Mutex::new("the-first-token".to_owned()),
            asked: AtomicUsize::new(0),
            writes: AtomicBool::new(true),
            failed: Mutex::default(),
        });
        let own = service.clone();
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                own.ask_all(gateway, user).await;
            }
        });
        service
    }

    /// Reads, and hands over a write if it is to.
    async fn ask_all(&self, gateway: SocketAddr, user: usize) {
        let user = format!("/users/user-{user:05}");
        let permissions = r#"{"permissions":[]}"#;
        for (method, target, body) in [
            (Method::GET, "/users".to_owned(), ""),
            (Method::GET, user.clone(), ""),
            (Method::PUT, format!("{user}/permissions"), permissions),
        ] {
            if method == Method::PUT && !self.writes.swap(false, Ordering::SeqCst) {
                continue;
            }
            let secret = self.secret.lock().unwrap().clone();
            let asked = request(method.clone(), &target, &secret, body);
            let asked = match method {
                Method::PUT => with(asked, "prefer", "respond-async"),
                _ => asked,
            };
            let answer = ask(gateway, asked).await;
            self.asked.fetch_add(1, Ordering::SeqCst);
            if !answer.status.is_success() {
                self.failed.lock().unwrap().push(answer);
            }
        }
    }
}

/// Waits until each service has got several answers since now, one of them to a write.
async fn all_go_on(services: &[Arc<Service>]) {
    for service in services {
        service.writes.store(true, Ordering::SeqCst);
    }
    let counts = || services.iter().map(|one| one.asked.load(Ordering::SeqCst));
    let before: Vec<usize> = counts().collect();
    eventually("all services go on", async || {
        let have_written = services
            .iter()
            .all(|one| !one.writes.load(Ordering::SeqCst));
        have_written && counts().zip(&before).all(|(now, before)| now >= before + 9)
    })
    .await;
}

#[tokio::test]
async fn callers_change_from_tokens_to_keys_without_a_failed_request() {
    let gateway = Program::sandbox(OWN, &[], &[]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let start = |user| Service::start(gateway.proxy, user, stop.clone());
    let services: Vec<Arc<Service>> = (1..=SERVICES.len()).map(start).collect();
    all_go_on(&services).await;
    let reload = async |configuration: &str| {
        fs::write(gateway.file("gateway.toml"), configuration).unwrap();
        let before = gateway.value(RELOADS, Some("applied")).await;
        gateway.signal("-HUP");
        eventually("the reload is applied", async || {
            gateway.value(RELOADS, Some("applied")).await > before
        })
        .await;
        all_go_on(&services).await;
    };

    // 1. Describe what is there.
    let keys = SERVICES.map(|_| ClientKey::generate().unwrap());
    let clients = SERVICES.iter().zip(&keys).map(|(name, key)| {
        let rights = "may = ['iam-reads', 'iam-writes']";
        let block = key_block(name, key);
        format!("[clients.{name}]\ntoken = 'shared'\n{rights}\n{block}")
    });
    let clients: String = clients.collect();
    let clients = format!("[tokens.shared]\nfile = 'token'\n{clients}");
    fs::write(gateway.file("token"), "the-first-token\n").unwrap();
    fs::write(gateway.file("clients.toml"), clients).unwrap();
    let with_clients = |credentials: &str| {
        format!("{OWN}[callers]\ncredentials = '{credentials}'\nclients_file = 'clients.toml'\n")
    };
    reload(&with_clients("both")).await;

    // 2. Give each service its key.
    for (service, key) in services.iter().zip(&keys) {
        key.reveal().clone_into(&mut service.secret.lock().unwrap());
        all_go_on(&services).await;
    }

    // 3. Close the door.
    reload(&with_clients("managed")).await;
    let late = request(Method::GET, "/users", "the-first-token", "");
    let late = ask(gateway.proxy, late).await;
    assert_eq!(late.error_type(), "gateway-key-required");

    // 4. Replace the token.
    fs::write(gateway.file("token"), "the-second-token\n").unwrap();
    gateway.logs(&["held token replaced"]).await;
    all_go_on(&services).await;

    // Each step can be taken back.
    reload(&with_clients("both")).await;
    stop.store(true, Ordering::SeqCst);
    for (service, name) in services.iter().zip(SERVICES) {
        let failed = service.failed.lock().unwrap();
        assert!(failed.is_empty(), "{name}: {failed:?}");
    }
    let log = gateway.log();
    for name in SERVICES {
        assert!(log.contains(name), "the log names {name}");
    }
    let secrets = keys.iter().map(ClientKey::reveal);
    for secret in secrets.chain(["the-first-token", "the-second-token"]) {
        assert!(!log.contains(secret));
    }
}
