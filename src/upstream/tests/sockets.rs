//! Over real sockets: what memory cannot show.

use tokio::net::TcpListener;
use tower::ServiceExt as _;

use super::tls::Authority;
use super::*;
use crate::upstream::dial::Dial;

#[tokio::test]
async fn https_over_tcp() {
    let ours = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let spec = Spec {
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
    let Err(failure) = Dial::tcp(Duration::from_secs(5)).oneshot(target).await else {
        panic!("it was found");
    };
    assert_eq!(failure.reason, NotSent::Unresolved);
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
