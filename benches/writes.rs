//! Bench: what writes that travel together save, and what a hundred thousand deferred ones take.
//!
//! ```sh
//! cargo bench --bench writes               # three minutes
//! cargo bench --bench writes -- --quick    # to see that it works
//! ```
//!
//! The program itself runs as a process of its own, in front of a sandbox in this one.
//!
//! - 1,200 invites of one person each are offered within 2.5 s to an empty budget of 60 a minute,
//!   200 ms away, and all are answered: once merged, once not. All times are divided by 20, and
//!   multiplied again where they are printed. The goal: merged at least 100 times faster.
//! - 100,000 deferred writes of 512 bytes: memory of each (the goal: below 2 KiB), and the time from a
//!   restart after a kill to the first request at the API (the goal: below 2 s).

#![allow(
    clippy::print_stdout,
    reason = "the figures are what this program is for"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a bench measures the time that passes"
)]

use segment_gateway::clock::Clock;
use segment_gateway::config::EMBEDDED_ROUTES;
use segment_gateway::sandbox::{Delay, Sandbox, SandboxSpec};
use segment_gateway::server::descriptors;
use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

const BINARY: &str = env!("CARGO_BIN_EXE_segment-gateway");
const SCALE: u32 = 20;
const CALLERS: usize = 64;

fn main() -> Fallible<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    if cfg!(debug_assertions) {
        println!("WARNING: a debug build, these figures mean nothing; use `cargo bench`");
    }
    let _ = descriptors::make_room(8_192);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let invites = if quick { 120 } else { 1_200 };
        let merged = invite(invites, true).await?;
        println!("{invites} invites, merged:   {merged:>8.1} s");
        let alone = invite(invites, false).await?;
        println!("{invites} invites, unmerged: {alone:>8.1} s");
        println!("merged is {:.0} times faster", alone / merged);
        let writes = if quick { 2_000 } else { 100_000 };
        deferred(writes).await
    })
}

/// Killed at the end.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a gateway and its sandbox are.
struct Place {
    folder: tempfile::TempDir,
    proxy: SocketAddr,
    admin: SocketAddr,
    upstream: SocketAddr,
    sandbox: Arc<Sandbox>,
}

fn free() -> Fallible<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Place {
    async fn new(routes: &str, half: Duration, scale: u32) -> Fallible<Self> {
        let folder = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
        std::fs::write(folder.path().join("routes.toml"), routes)?;
        let delay = Delay {
            base: half,
            jitter: Duration::ZERO,
        };
        let spec = SandboxSpec {
            time_scale: scale,
            arrive: delay,
            reply: delay,
            ..SandboxSpec::default()
        };
        let sandbox = Sandbox::new(spec, Clock::system());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let upstream = listener.local_addr()?;
        let serving = Arc::clone(&sandbox).serve(listener, std::future::pending());
        drop(tokio::spawn(serving));
        Ok(Self {
            folder,
            proxy: free()?,
            admin: free()?,
            upstream,
            sandbox,
        })
    }

    async fn start(&self, scale: u32) -> Fallible<Gateway> {
        let guard = format!("{}ms", 250 / scale);
        let late = format!("{}ms", 60_000 / scale);
        let child = Command::new(BINARY)
            .args(["serve", "--listen", &self.proxy.to_string()])
            .args(["--admin-listen", &self.admin.to_string()])
            .args(["--upstream", &format!("http://{}", self.upstream)])
            .envs([
                ("SEGMENT_GATEWAY__ROUTES__FILE", "routes.toml"),
                ("SEGMENT_GATEWAY__BUDGET__GUARD", &guard),
                ("SEGMENT_GATEWAY__BUDGET__LATE_ARRIVAL", &late),
                // A new node would not know that the budget is empty.
                ("SEGMENT_GATEWAY__BUDGET__UNKNOWN_SLOTS", "60"),
                ("SEGMENT_GATEWAY__WAIT__CAP", "1h"),
                ("SEGMENT_GATEWAY__WRITE__MAX_WAIT", "1h"),
                ("SEGMENT_GATEWAY__QUEUE__PER_BUDGET", "4000"),
                ("SEGMENT_GATEWAY__SERVER__CONNECTIONS", "8192"),
                ("SEGMENT_GATEWAY__JOURNAL__WRITES", "1000000"),
                ("SEGMENT_GATEWAY__CALLERS__RATE", "1000000 per 1s"),
                ("SEGMENT_GATEWAY__CALLERS__BURST", "1000000"),
                ("SEGMENT_GATEWAY__LOG__LEVEL", "error"),
            ])
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let gateway = Gateway(child);
        for listener in [self.proxy, self.admin] {
            while TcpStream::connect(listener).await.is_err() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        Ok(gateway)
    }
}

/// Sends one request, with one more field, and reads the status of its answer.
async fn ask(stream: &mut TcpStream, target: &str, field: &str, body: &str) -> Fallible<u16> {
    let request = format!(
        "{target} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer a\r\n\
         content-type: application/json\r\n{field}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut part = [0; 8_192];
    loop {
        let read = stream.read(&mut part).await?;
        if read == 0 {
            return Err("the gateway closed the connection".into());
        }
        answer.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        });
        if length.is_none_or(|length| body.len() >= length) {
            let status = head.split(' ').nth(1);
            return Ok(status.and_then(|status| status.parse().ok()).unwrap_or(0));
        }
    }
}

/// How long it takes until everybody has an answer, in unscaled seconds.
async fn invite(invites: usize, merged: bool) -> Fallible<f64> {
    let window = format!("\"60 per {}s\"", 60 / SCALE);
    let mut routes = EMBEDDED_ROUTES.replace("\"60 per 1m\"", &window);
    if !merged {
        let section = "[operations.createInvites.merge]";
        routes = routes.replace(section, &format!("{section}\nenabled = false"));
    }
    // The sandbox divides it.
    let place = Place::new(&routes, Duration::from_millis(100), SCALE).await?;
    let _gateway = place.start(SCALE).await?;
    let mut streams = Vec::new();
    for _ in 0..invites {
        streams.push(TcpStream::connect(place.proxy).await?);
    }
    let offered = Duration::from_millis(2_500) / SCALE;
    let began = Instant::now();
    let mut asks = JoinSet::new();
    for (n, mut stream) in streams.into_iter().enumerate() {
        let at = began + offered.mul_f64(n as f64 / invites as f64);
        asks.spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            let body = format!(r#"{{"invites":[{{"email":"person-{n}@example.com"}}]}}"#);
            ask(&mut stream, "POST /invites", "accept: */*", &body).await
        });
    }
    while let Some(answered) = asks.join_next().await {
        let status = answered??;
        if status != 201 {
            return Err(format!("an invite was answered with {status}").into());
        }
    }
    let took = began.elapsed().as_secs_f64() * f64::from(SCALE);
    let refused = place
        .sandbox
        .arrivals()
        .iter()
        .filter(|a| a.refused())
        .count();
    println!(
        "  {} requests reached the API, {refused} were refused",
        place.sandbox.arrivals().len()
    );
    Ok(took)
}

/// Resident memory of a process, in bytes.
fn resident(gateway: &Gateway) -> Fallible<usize> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.0.id()))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    Ok(kib.ok_or("no resident memory")? * 1_024)
}

/// Resident memory once it no longer falls: the allocator returns free memory some seconds late.
async fn settled(gateway: &Gateway) -> Fallible<usize> {
    let mut last = resident(gateway)?;
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = resident(gateway)?;
        if now + (last / 100) >= last {
            return Ok(now);
        }
        last = now;
    }
}

async fn deferred(writes: usize) -> Fallible<()> {
    let place = Place::new(EMBEDDED_ROUTES, Duration::from_millis(5), 1).await?;
    let gateway = place.start(1).await?;
    let mut admin = TcpStream::connect(place.admin).await?;
    let pause = "POST /writes/pause?operation=replacePermissionsForUser";
    let paused = ask(&mut admin, pause, "x-gateway-admin: 1", "").await?;
    let before = settled(&gateway).await?;
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (next, proxy) = (next.clone(), place.proxy);
        callers.spawn(async move {
            let mut stream = TcpStream::connect(proxy).await?;
            let filling = "x".repeat(512 - 96);
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= writes {
                    return Fallible::Ok(());
                }
                let target = format!("PUT /users/user-{n}/permissions");
                let body = format!(
                    r#"{{"permissions":[{{"roleId":"source-admin","resources":[{{"id":"{filling}","type":"SOURCE"}}]}}]}}"#
                );
                let field = "prefer: respond-async";
                let status = ask(&mut stream, &target, field, &body).await?;
                if status != 202 {
                    return Err(format!("a write was answered with {status}").into());
                }
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done??;
    }
    let took = began.elapsed().as_secs_f64();
    let after = settled(&gateway).await?;
    println!(
        "{writes} deferred writes accepted in {took:.1} s ({:.0}/s, {CALLERS} callers), paused: {}",
        writes as f64 / took,
        paused == 200
    );
    println!(
        "memory: {:.1} MB before, {:.1} MB after: {} bytes for each write",
        before as f64 / 1e6,
        after as f64 / 1e6,
        after.saturating_sub(before) / writes
    );
    drop(gateway);
    place.sandbox.clear_arrivals();
    let began = Instant::now();
    let _again = place.start(1).await?;
    let listens = began.elapsed();
    while place.sandbox.arrivals().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!(
        "after a kill: it listens after {:.2} s, and the first write reaches the API after {:.2} s",
        listens.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}
