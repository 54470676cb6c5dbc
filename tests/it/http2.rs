//! HTTP/2 of callers: what they get is what callers of HTTP/1.1 get, and so is what ends them.

use super::support::program::Program;
use super::support::scripted::{Script, Step, answer};
use super::support::tls::{Authority, try_secure};
use super::support::wire::{eventually, exchange};
use super::support::{Answer, Setup, World, request, with};
use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use segment_gateway::app::{server_bounds, stack_bounds};
use segment_gateway::config::Config;
use segment_gateway::exchange::identity::CertificateNames;
use segment_gateway::gateway::connection::ConnectionServices;
use segment_gateway::metrics::Malformed;
use segment_gateway::sandbox::SandboxSpec;
use segment_gateway::server::refusals::MalformedReplies;
use segment_gateway::server::{conn, http2 as server_http2};
use std::fs;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const TLS: &str = "[tls]\ncertificate_file = 'tls.crt'\nkey_file = 'tls.key'\n";
const USER: &str = "/users/user-00001";

type Ask = Request<Full<Bytes>>;
type Serving = JoinHandle<Option<Malformed>>;

/// A connection in memory to a gateway, which serves it with this version of HTTP.
fn open(world: &World, config: &Config, version: Version) -> (DuplexStream, Serving) {
    let bounds = server_bounds(config).each;
    let front = ConnectionServices::new(world.gateway.clone(), stack_bounds(config));
    let (ours, theirs) = duplex(256 * 1024);
    // The listener stops only when the gateway does.
    let (stop, stopped) = watch::channel(false);
    std::mem::forget(stop);
    let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
    let service = front.connected(peer, CertificateNames::default());
    let seen = world.gateway.metrics().connections().clone();
    let serving = if version == Version::HTTP_2 {
        tokio::spawn(server_http2::serve(
            theirs, peer, service, bounds, seen, stopped,
        ))
    } else {
        let refusals = MalformedReplies::new(bounds.head_bytes);
        tokio::spawn(conn::serve(
            theirs, peer, service, bounds, refusals, stopped,
        ))
    };
    (ours, serving)
}

async fn frames(world: &World, config: &Config) -> (SendRequest<Bytes>, Serving) {
    let (ours, serving) = open(world, config, Version::HTTP_2);
    let (sender, connection) = h2::client::handshake(ours).await.unwrap();
    drop(tokio::spawn(connection));
    (sender.ready().await.unwrap(), serving)
}

/// The answers of one gateway over both versions.
struct Both<'w> {
    world: &'w World,
    http2: http2::SendRequest<Full<Bytes>>,
}

impl<'w> Both<'w> {
    async fn new(world: &'w World) -> Self {
        let (ours, _) = open(world, &Config::default(), Version::HTTP_2);
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(ours));
        let (http2, connection) = handshake.await.unwrap();
        drop(tokio::spawn(connection));
        Self { world, http2 }
    }

    async fn ask(&mut self, version: Version, mut ask: Ask) -> Answer {
        ask.extensions_mut().clear();
        let answer = if version == Version::HTTP_2 {
            // As clients of HTTP/2 do: `:authority` in place of `Host`.
            let target = format!("https://gateway{}", ask.uri());
            *ask.uri_mut() = target.parse::<Uri>().unwrap();
            ask.headers_mut().remove("host");
            self.http2.send_request(ask).await.unwrap()
        } else {
            // A connection of its own: a rejected body ends it.
            let (ours, _) = open(self.world, &Config::default(), version);
            let (mut sender, connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
            drop(tokio::spawn(connection));
            sender.send_request(ask).await.unwrap()
        };
        let (head, body) = answer.into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }
}

/// The headers without those that differ from one request to the next, or belong to the connection.
fn lasting(mut headers: HeaderMap) -> HeaderMap {
    for name in [
        "connection",
        "keep-alive",
        "transfer-encoding",
        "x-request-id",
        "ratelimit",
        "x-ratelimit-consumed",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        // How often something was written so far.
        "x-sandbox-version",
        "server-timing",
        // The clock of the machine, for an answer of the gateway itself.
        "date",
    ] {
        headers.remove(name);
    }
    headers
}

fn asks() -> Vec<Ask> {
    let get = |target: &str| request(Method::GET, target, "t", "");
    let mut asks = Vec::new();
    for target in [
        USER,
        "/users?pagination.count=2",
        "/groups",
        "/catalog/sources",
    ] {
        asks.push(get(target));
        asks.push(request(Method::HEAD, target, "t", ""));
        asks.push(with(get(target), "accept-encoding", "gzip"));
        asks.push(with(get(target), "if-none-match", "*"));
        asks.push(with(get(target), "range", "bytes=0-9"));
        asks.push(with(get(target), "cache-control", "no-cache"));
        asks.push(with(get(target), "x-trace-id", "1"));
        asks.push(with(get(target), "cookie", "a=b"));
    }
    for method in [
        Method::OPTIONS,
        Method::TRACE,
        Method::PUT,
        Method::DELETE,
        Method::from_bytes(b"BREW").unwrap(),
    ] {
        asks.push(request(method, USER, "t", ""));
    }
    for target in [
        "/",
        "/users/none",
        "/users/../groups",
        "//users",
        "/%75sers",
        "/_gateway/writes",
        "/_gateway/nothing",
        "/metrics",
        "/users?pagination.count=x",
    ] {
        asks.push(get(target));
    }
    let mut anonymous = get(USER);
    anonymous.headers_mut().remove("authorization");
    asks.push(anonymous);
    asks.push(with(get(USER), "authorization", "Bearer u"));
    let body = |text: &str| request(Method::POST, "/labels", "t", text);
    // A write that is the same however often it is sent.
    let permissions =
        r#"{"permissions":[{"roleId":"source-admin","resources":[{"id":"s1","type":"SOURCE"}]}]}"#;
    let put = format!("{USER}/permissions");
    asks.push(request(Method::PUT, &put, "t", permissions));
    asks.push(request(Method::PUT, &put, "t", "{}"));
    asks.push(body(&"x".repeat(2 * 1024 * 1024)));
    asks
}

#[tokio::test(start_paused = true)]
async fn both_versions_give_the_same_answers() {
    let world = World::new(SandboxSpec::default());
    let mut both = Both::new(&world).await;
    let mut hits = 0;
    // The second time what can be stored is.
    for round in 0..2 {
        for ask in asks() {
            let shown = format!(
                "{round}: {} {} {:?}",
                ask.method(),
                ask.uri(),
                ask.headers()
            );
            if round == 0 {
                // One of them may find what the other one left.
                both.ask(Version::HTTP_11, ask.clone()).await;
            }
            let expected = both.ask(Version::HTTP_11, ask.clone()).await;
            let found = both.ask(Version::HTTP_2, ask).await;
            assert_eq!(found.status, expected.status, "{shown}");
            for name in ["connection", "keep-alive", "transfer-encoding"] {
                assert!(!found.headers.contains_key(name), "{shown}: {name}");
            }
            assert!(found.headers.contains_key("date"), "{shown}");
            assert!(found.headers.contains_key("x-request-id"), "{shown}");
            let (one, other) = (lasting(found.headers.clone()), lasting(expected.headers));
            assert_eq!(one, other, "{shown}");
            assert_eq!(found.body, expected.body, "{shown}");
            hits += usize::from(found.cache_status().contains("hit"));
        }
    }
    assert!(hits > 20, "{hits}");
}

#[tokio::test(start_paused = true)]
async fn what_a_head_of_http2_may_say() {
    let script = Script::new(|_, _| Step::Answer(answer(200, "{}")));
    let world = script.world();
    let (mut sender, _serving) = frames(&world, &Config::default()).await;
    let head = |target: &str| {
        let uri: Uri = target.parse().unwrap();
        Request::get(uri).header("authorization", "Bearer t")
    };
    let mut status = async |ask: Request<()>| {
        let answer = sender.send_request(ask, true);
        match answer.unwrap().0.await {
            Ok(answer) => answer.status().as_u16(),
            Err(error) if error.reason() == Some(Reason::PROTOCOL_ERROR) => 0,
            Err(error) => panic!("{error}"),
        }
    };
    let url = "https://gateway/users";
    for (ask, expected) in [
        (head(url), 200),
        (head(url).header("host", "GATEWAY"), 200),
        (head(url).header("host", "another"), 400),
        (
            head(url)
                .header("host", "gateway")
                .header("host", "gateway"),
            400,
        ),
        (head("https://me@gateway/users"), 400),
        (head("ftp://gateway/users"), 400),
        (head(url).header("te", "trailers"), 200),
        (head("gateway:443").method("CONNECT"), 405),
        (head(url).method("TRACE"), 405),
    ] {
        let ask = ask.body(()).unwrap();
        let shown = format!("{ask:?}");
        assert_eq!(status(ask).await, expected, "{shown}");
    }
    let crumbs = head(url)
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("cookie", "c=3");
    assert_eq!(status(crumbs.body(()).unwrap()).await, 200);
    let seen = script.seen().pop().unwrap();
    assert_eq!(seen.headers["cookie"], "a=1; b=2; c=3");
    assert_eq!(seen.headers.get_all("cookie").iter().count(), 1);
    assert_eq!(seen.target, "/users");
}

#[tokio::test(start_paused = true)]
async fn a_queued_write_whose_stream_is_reset_is_never_sent() {
    let script = Script::new(|_, n| match n {
        0 => Step::Later(Duration::from_secs(3), answer(200, "{}")),
        _ => Step::Answer(answer(200, "{}")),
    });
    let world = script.world();
    let (sender, _serving) = frames(&world, &Config::default()).await;
    let put = || {
        let put = Request::put("https://gateway/users/u/permissions");
        put.header("authorization", "Bearer t").body(()).unwrap()
    };
    let (first, _) = sender.clone().send_request(put(), true).unwrap();
    eventually("the first has left", async || script.count() == 1).await;
    let waiting = world.gateway.budgets().waiting();
    let (second, mut stream) = sender.clone().send_request(put(), true).unwrap();
    eventually("the second waits for its lane", async || {
        world.gateway.budgets().waiting() == waiting + 1
    })
    .await;
    stream.send_reset(Reason::CANCEL);
    eventually("its hang-up is noticed", async || {
        world.gateway.budgets().waiting() == waiting
    })
    .await;
    drop(second);
    assert_eq!(first.await.unwrap().status(), 200);
    assert_eq!(script.count(), 1, "the second never left");
    let shown = crate::support::exposition::metrics(&world).await;
    assert!(shown.contains("outcome=\"hung-up\"} 1\n"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_answered_at_the_deadline_of_a_body() {
    let script = Script::new(|_, _| Step::Answer(answer(200, "{}")));
    let world = script.world();
    let config = Config::default();
    let (mut sender, _serving) = frames(&world, &config).await;
    let post = Request::post("https://gateway/labels").header("authorization", "Bearer t");
    let from = Instant::now();
    let (stalled, mut stream) = sender.send_request(post.body(()).unwrap(), false).unwrap();
    stream.send_data("{".into(), false).unwrap();
    assert_eq!(stalled.await.unwrap().status(), 408);
    assert_eq!(
        from.elapsed().as_secs(),
        config.server.body_timeout.as_secs()
    );
    assert_eq!(script.count(), 0);
    // The rest is not wanted, and the connection goes on.
    let reset = poll_fn(|context| stream.poll_reset(context)).await.unwrap();
    assert_eq!(reset, Reason::NO_ERROR);
    let get = Request::get("https://gateway/users").header("authorization", "Bearer t");
    let (answer, _) = sender.send_request(get.body(()).unwrap(), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn requests_are_bounded_and_not_connections() {
    let script = Script::new(|_, _| Step::Silent);
    let setup = Setup::new(SandboxSpec::default());
    let world = script.world_of(setup);
    let mut config = Config::default();
    config.server.connections = 8;
    let (sender, _serving) = frames(&world, &config).await;
    let get = |n: usize| {
        let get = Request::get(format!("https://gateway/users/{n}"));
        get.header("authorization", "Bearer t").body(()).unwrap()
    };
    let mut held = Vec::new();
    for n in 0..8 {
        held.push(sender.clone().send_request(get(n), true).unwrap());
    }
    let (shed, _) = sender.clone().send_request(get(8), true).unwrap();
    assert_eq!(shed.await.unwrap().status(), 503);
    let shown = crate::support::exposition::metrics(&world).await;
    assert!(
        shown.contains("segment_gateway_http2_streams 8\n"),
        "{shown}"
    );
    drop(held);
    eventually("they have ended", async || {
        let shown = crate::support::exposition::metrics(&world).await;
        shown.contains("segment_gateway_http2_streams 0\n")
    })
    .await;
}

#[tokio::test]
async fn expect_100_continue_is_answered() {
    let world = Script::new(|_, _| Step::Answer(answer(200, "{}"))).world();
    let (mut sender, _serving) = frames(&world, &Config::default()).await;
    let post = Request::post("https://gateway/labels")
        .header("authorization", "Bearer t")
        .header("expect", "100-continue");
    let (mut answer, mut stream) = sender.send_request(post.body(()).unwrap(), false).unwrap();
    let interim = poll_fn(|context| answer.poll_informational(context)).await;
    assert_eq!(interim.unwrap().unwrap().status(), 100);
    stream.send_data("{}".into(), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
}

/// A gateway with a certificate of this authority, and with more configuration.
async fn gateway(authority: &Authority, more: &str) -> Program {
    let directory = tempfile::tempdir().unwrap();
    let pair = authority.pair(2090);
    fs::write(directory.path().join("tls.crt"), &pair.certificate).unwrap();
    fs::write(directory.path().join("tls.key"), &pair.key).unwrap();
    fs::write(directory.path().join("ca.crt"), &authority.certificate).unwrap();
    Program::sandbox_in(directory, &format!("{TLS}{more}")).await
}

#[tokio::test]
async fn http2_can_be_switched_off() {
    let authority = Authority::new();
    let running = gateway(&authority, "http2 = false\n").await;
    let mut client = (*authority.client(None)).clone();
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let client = Arc::new(client);
    let stream = try_secure(running.proxy, &client).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn alpn_chooses_and_clients_with_certificates_may_share_a_connection() {
    let authority = Authority::new();
    let more = "client_auth = 'required'\nclient_ca_file = 'ca.crt'\n[log]\naccess = 'all'\n";
    let mut running = gateway(&authority, more).await;
    let own = authority.pair(2090);
    let with_alpn = |protocols: &[&str]| {
        let mut client = (*authority.client(Some(&own))).clone();
        client.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(client)
    };
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let stream = try_secure(running.proxy, &with_alpn(offered))
            .await
            .unwrap();
        let found = stream.get_ref().1.alpn_protocol();
        assert_eq!(found, chosen.map(str::as_bytes), "{offered:?}");
    }
    let stream = try_secure(running.proxy, &with_alpn(&["h2"]))
        .await
        .unwrap();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let asks = (0..100).map(|n| {
        let mut sender = sender.clone();
        let mut ask = request(Method::GET, USER, "t", "");
        ask.extensions_mut().clear();
        ask.headers_mut().remove("host");
        *ask.uri_mut() = format!("https://gateway{USER}?n={}", n % 3)
            .parse()
            .unwrap();
        tokio::spawn(async move {
            let answer = sender.send_request(ask).await.unwrap();
            let status = answer.status();
            (
                status,
                answer.into_body().collect().await.unwrap().to_bytes(),
            )
        })
    });
    for asked in asks.collect::<Vec<_>>() {
        let (status, body) = asked.await.unwrap();
        assert_eq!(status, 200);
        assert!(!body.is_empty());
    }
    running.logs(&["http_version=\"2\""]).await;
    // It stops although the connection is open, and says so with GOAWAY.
    running.signal("-TERM");
    connection.await.unwrap().unwrap();
    assert!(running.ended().await);
}

#[tokio::test]
async fn curl_speaks_http2() {
    let authority = Authority::new();
    let running = gateway(&authority, "").await;
    let curl = |arguments: &[&str], target: &str| {
        let output = Command::new("curl")
            .args([
                "-sS",
                "--noproxy",
                "*",
                "--max-time",
                "20",
                "--cacert",
                "ca.crt",
            ])
            .args([
                "-o",
                "/dev/null",
                "-w",
                "%{http_code} %{http_version} %header{cache-status}",
            ])
            .args(["-H", "authorization: Bearer t"])
            .args(arguments)
            .arg(format!("https://{}{target}", running.proxy))
            .current_dir(running.file(""))
            .output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Ok(first) = curl(&["--http2"], USER) else {
        eprintln!("skipped: there is no curl");
        return;
    };
    assert!(first.starts_with("200 2 "), "{first}");
    let second = curl(&["--http2", "--compressed"], USER).unwrap();
    assert!(
        second.starts_with("200 2 ") && second.contains("hit"),
        "{second}"
    );
    let older = curl(&["--http1.1"], USER).unwrap();
    assert!(
        older.starts_with("200 1.1 ") && older.contains("hit"),
        "{older}"
    );
    let large = "@large";
    fs::write(running.file("large"), "x".repeat(900_000)).unwrap();
    let posted = curl(
        &["--http2", "-X", "POST", "--data-binary", large],
        "/labels",
    )
    .unwrap();
    assert!(posted.starts_with("422 2 "), "{posted}");
    // HTTP/2 without TLS gets a 400 of HTTP/1.1, and the connection ends.
    let said = exchange(running.proxy, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
}
