//! The quota of a caller and its share of the journal, through the program.

use super::{deferred, invite, put};
use crate::support::program::Program;
use crate::support::request;
use crate::support::wire::{NEVER, free};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpSocket;
use tokio::time::timeout;

const CONNECTIONS: usize = 64;

/// Connects from this address of the loopback network.
async fn connect_from(peer: Ipv4Addr, to: SocketAddr) -> SendRequest<Full<Bytes>> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((peer, 0))).unwrap();
    let stream = socket.connect(to).await.unwrap();
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Sends a request, and returns the status and the body of its response.
async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> (StatusCode, String) {
    let answering = async {
        sender.ready().await.unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, String::from_utf8_lossy(&body).into_owned())
    };
    timeout(NEVER, answering).await.expect("a response")
}

/// Sends so many requests over 64 connections at once, and counts the responses by status.
async fn flood(
    to: SocketAddr,
    count: usize,
    nth: impl Fn(usize) -> Request<Full<Bytes>> + Clone + Send + 'static,
) -> BTreeMap<u16, usize> {
    let next = Arc::new(AtomicUsize::new(0));
    let connections = (0..CONNECTIONS).map(|_| {
        let (next, nth) = (next.clone(), nth.clone());
        tokio::spawn(async move {
            let mut sender = connect_from(Ipv4Addr::LOCALHOST, to).await;
            let mut statuses = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return statuses;
                }
                statuses.push(send(&mut sender, nth(n)).await.0.as_u16());
            }
        })
    });
    let connections: Vec<_> = connections.collect();
    let mut counts = BTreeMap::new();
    for connection in connections {
        for status in connection.await.unwrap() {
            *counts.entry(status).or_default() += 1;
        }
    }
    counts
}

/// A thousand people, and some: far more than the quota lets through, which reads still have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hand_overs_are_not_charged_to_the_quota_and_reads_are() {
    let configuration = "[state]\ndirectory = \"state\"\n\
        [callers]\nrate = \"1 per 1d\"\nburst = 20\n";
    let program = Program::sandbox(configuration, &[], &[]).await;
    let hand_over = |n| deferred(invite(&format!("{n}@example.com")));
    let counts = flood(program.proxy, 1_200, hand_over).await;
    assert_eq!(counts, BTreeMap::from([(202, 1_200)]));
    // One of the quota went to the question whether the API accepts the token.
    let read = |n| request(Method::GET, &format!("/users/user-{:05}", n + 1), "a", "");
    let counts = flood(program.proxy, 40, read).await;
    assert_eq!(counts, BTreeMap::from([(200, 19), (429, 21)]));
    // A write whose caller waits is charged as well.
    let mut sender = connect_from(Ipv4Addr::LOCALHOST, program.proxy).await;
    let (status, body) = send(&mut sender, put(1)).await;
    assert_eq!(status, 429, "{body}");
}

/// Nothing of what is deferred ends: the API is away.
#[tokio::test]
async fn a_caller_cannot_fill_the_journal_of_others() {
    let configuration = "[state]\ndirectory = \"state\"\n[journal]\nwrites = 20\n";
    let away = format!("http://{}", free());
    let program = Program::start(configuration, &["--upstream", &away], &[]).await;
    let hand_over = |token: &str, n: usize| {
        let mut write = deferred(put(n));
        let token = format!("Bearer {token}").parse().unwrap();
        write.headers_mut().insert("authorization", token);
        write
    };
    let mut own = connect_from(Ipv4Addr::LOCALHOST, program.proxy).await;
    for n in 1..=10 {
        let (status, body) = send(&mut own, hand_over("a", n)).await;
        assert_eq!(status, 202, "{body}");
    }
    // Neither another token of the same address nor the same token elsewhere has more.
    let mut other = connect_from(Ipv4Addr::new(127, 0, 0, 2), program.proxy).await;
    for (is_own, token) in [(true, "a"), (true, "b"), (false, "a")] {
        let sender = if is_own { &mut own } else { &mut other };
        let (status, body) = send(sender, hand_over(token, 11)).await;
        assert_eq!(status, 503, "{token} {body}");
        assert!(body.contains("gateway-queue-full"), "{body}");
    }
    let (status, body) = send(&mut other, hand_over("c", 11)).await;
    assert_eq!(status, 202, "{body}");
}
