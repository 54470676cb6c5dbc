//! Over real sockets: what memory cannot show.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use super::tls::Authority;
use super::*;
use crate::upstream::dial::Dial;

#[tokio::test]
async fn https_over_tcp() {
    let ours = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let spec = ClientSpec {
        ca_file: ours.file(),
        ..spec(&format!("https://localhost:{port}"))
    };
    let client = Client::new(spec, Clock::system()).unwrap();
    let acceptor = ours.acceptor("localhost", &["http/1.1"]);
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let head = read_head(&mut stream).await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
        (head, stream)
    };
    let (attempt, (head, _held)) = tokio::join!(client.send(get("/x")), server);
    assert_eq!(text(answered(attempt)).await, "ok");
    assert!(
        head.contains(&format!("host: localhost:{port}\r\n")),
        "{head}"
    );
}

#[tokio::test]
async fn a_port_without_a_listener_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(spec(&base), Clock::system()).unwrap();
    assert_eq!(not_sent(client.send(get("/x")).await), NotSent::Refused);
}

#[tokio::test]
async fn a_name_without_an_address_is_unresolved() {
    // A label of more than 63 bytes (RFC 1035 section 2.3.4) fails without asking any server.
    let target = format!("http://{}.test/", "x".repeat(64)).parse().unwrap();
    let Err(failure) = Dial::tcp(Duration::from_secs(5), Duration::from_secs(60))
        .oneshot(target)
        .await
    else {
        panic!("it was found");
    };
    assert_eq!(failure.reason, NotSent::Unresolved);
}

/// Gives up on a request after the peer has read its head; how the peer sees its connection end.
async fn given_up(client: Client, listener: TcpListener) -> std::io::Result<usize> {
    let mut sending = Box::pin(client.send(get("/slow")));
    let mut stream = tokio::select! {
        attempt = &mut sending => panic!("{attempt:?}"),
        stream = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await.unwrap();
            stream
        } => stream,
    };
    drop(sending);
    stream.read(&mut [0; 1]).await
}

#[tokio::test]
async fn the_connection_of_an_attempt_that_is_given_up_is_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let client = Client::new(spec(&base), Clock::system()).unwrap();
    let ended = given_up(client, listener).await;
    let error = ended.expect_err("a reset, not an end in order");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn the_same_under_tls() {
    let ours = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let spec = ClientSpec {
        ca_file: ours.file(),
        ..spec(&format!("https://localhost:{port}"))
    };
    let client = Client::new(spec, Clock::system()).unwrap();
    let acceptor = ours.acceptor("localhost", &["http/1.1"]);
    // Once it has been used nothing is left unread on it: that would make the system reset it.
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        read_head(&mut stream).await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
        stream
    };
    let (attempt, mut stream) = tokio::join!(client.send(get("/x")), server);
    assert_eq!(text(answered(attempt)).await, "ok");
    let mut sending = Box::pin(client.send(get("/slow")));
    tokio::select! {
        attempt = &mut sending => panic!("{attempt:?}"),
        head = read_head(&mut stream) => assert!(head.unwrap().contains("/slow")),
    }
    drop(sending);
    let error = stream.read(&mut [0; 1]).await.expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn the_connection_of_an_answer_ends_in_order() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let client = Client::new(spec(&base), Clock::system()).unwrap();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
        stream
    };
    let (attempt, mut stream) = tokio::join!(client.send(get("/x")), server);
    assert_eq!(text(answered(attempt)).await, "ok");
    drop(client);
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn nothing_is_sent_for_longer_than_it_may_be_late() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target: http::Uri = format!("http://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    for (late, expected) in [(60_000, 30_000), (10_000, 5_000), (3_600_000, 30_000)] {
        let late = Duration::from_millis(late);
        let stream = Dial::tcp(Duration::from_secs(5), late).oneshot(target.clone());
        let stream = stream.await.unwrap_or_else(|_| panic!("no connection"));
        let set = stream.inner().user_timeout();
        assert_eq!(set, Some(Duration::from_millis(expected)));
        assert!(Duration::from_millis(expected) < late);
    }
}

#[tokio::test]
async fn a_reset_after_the_request_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let client = Client::new(spec(&base), Clock::system()).unwrap();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        // Closing with unread bytes makes the kernel send a reset.
        drop(stream);
    };
    let (attempt, ()) = tokio::join!(client.send(get("/x")), server);
    assert_eq!(unknown(attempt), Unknown::Broken);
}

type Arrivals = Arc<Mutex<HashMap<String, usize>>>;

/// Accepts connections and mistreats each in its own way.
async fn serve_badly(listener: TcpListener, arrivals: Arrivals) {
    let mut number = 0;
    while let Ok((stream, _)) = listener.accept().await {
        number += 1;
        tokio::spawn(serve_a_few(stream, number, Arc::clone(&arrivals)));
    }
}

/// Answers a few requests, then closes: without an answer, after an answer without saying so, or
/// after half of one. Pooled connections vanish under the client's hands all the time.
async fn serve_a_few(mut stream: TcpStream, number: usize, arrivals: Arrivals) {
    for request in 0..=number % 5 {
        let Some(head) = read_head(&mut stream).await else {
            return;
        };
        let path = head.split(' ').nth(1).unwrap().to_owned();
        *arrivals.lock().entry(path).or_default() += 1;
        let last = request == number % 5;
        let answer = match number % 3 {
            0 if last => "",
            1 if last => &OK[..20],
            _ => OK,
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// Sends a hundred requests of distinct paths and tells how each ended.
async fn send_many(client: Client, worker: usize) -> Vec<(String, &'static str)> {
    let mut ends = Vec::new();
    for request in 0..100 {
        let path = format!("/{worker}/{request}");
        let attempt = client.send(get(&path)).await;
        let end = match &attempt {
            Attempt::Answered(_) => "answered",
            Attempt::NotSent(_) => "attempt failed: request not sent",
            Attempt::Unknown(_) => "unknown",
        };
        if let Attempt::Answered(response) = attempt {
            // Some break off, which is not the question here.
            let _ = response.into_body().collect().await;
        }
        ends.push((path, end));
    }
    ends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_nothing_arrives_twice_and_not_sent_means_never() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let arrivals = Arrivals::default();
    tokio::spawn(serve_badly(listener, Arc::clone(&arrivals)));
    let client = Client::new(spec(&base), Clock::system()).unwrap();
    let workers: Vec<_> = (0..8)
        .map(|worker| tokio::spawn(send_many(client.clone(), worker)))
        .collect();
    for worker in workers {
        for (path, end) in worker.await.unwrap() {
            let count = arrivals.lock().get(&path).copied().unwrap_or(0);
            match end {
                "answered" => assert_eq!(count, 1, "{path}"),
                "attempt failed: request not sent" => assert_eq!(count, 0, "{path}"),
                _ => assert!(count <= 1, "{path} arrived {count} times"),
            }
        }
    }
}
