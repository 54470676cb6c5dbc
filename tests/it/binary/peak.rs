//! What the program keeps of its memory after a peak.

use super::{BINARY, Running};
use crate::support::wire::{eventually, free};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;

/// Fewer than `server.connections` permits, and enough for some 60 MiB.
const CONNECTIONS: usize = 3_000;

/// The resident memory of a process, in KiB.
fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.unwrap().parse().unwrap()
}

/// Lets this process have that many sockets besides its other files.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Some(CONNECTIONS as u64 + 1024);
    if limit.current.is_some_and(|current| Some(current) < wanted) {
        let raised = Rlimit {
            current: wanted,
            ..limit
        };
        setrlimit(Resource::Nofile, raised).expect("the hard limit of open files is too low");
    }
}

async fn is_serving(running: &Running, connections: usize) -> bool {
    let (_, metrics) = running.page("/metrics").await.unwrap();
    let line = format!("\nsegment_gateway_connections {connections}\n");
    metrics.contains(&line)
}

// What is free in the allocator must not count against the limit of a container for good.
#[tokio::test]
async fn the_memory_of_closed_connections_is_given_back() {
    raise_limit();
    let directory = tempfile::tempdir().unwrap();
    let upstream = format!("http://{}", free());
    let mut patient = Command::new(BINARY);
    // No connection is closed before all are open, however slow the machine is.
    patient.env("SEGMENT_GATEWAY__SERVER__HEADER_TIMEOUT", "5m");
    let running = Running::start(patient, &["--upstream", &upstream], directory.path()).await;
    let id = running.child.id();
    let before = resident(id);
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = TcpStream::connect(running.proxy).unwrap();
        let half = b"GET /users/user-00001 HTTP/1.1\r\nhost: x\r\n";
        connection.write_all(half).unwrap();
        held.push(connection);
    }
    eventually("all are open", async || {
        is_serving(&running, CONNECTIONS).await
    })
    .await;
    let peak = resident(id);
    assert!(peak - before > 30 * 1024, "{before} {peak}");
    drop(held);
    eventually("all are closed", async || is_serving(&running, 0).await).await;
    let most = before + (peak - before) / 4;
    eventually("the memory is given back", async || resident(id) <= most).await;
}
