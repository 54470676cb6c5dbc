//! What goes out, and how each way of not getting a head back is told.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_request_goes_out_as_it_is_but_for_authority_framing_and_via() {
    let (client, mut far) = plain();
    let request = Request::builder()
        .method("POST")
        .uri("//users/a%2Fb/../c?pagination%5Bcount%5D=2&&x=%zz")
        .version(http::Version::HTTP_2)
        .header("host", "evil.test")
        .header("content-length", "999")
        .header("transfer-encoding", "chunked")
        .header("authorization", "Bearer t")
        .header("via", "1.0 before")
        .body(Bytes::from_static(b"{}"))
        .unwrap();
    let server = async {
        let (head, mut stream) = serve_one(&mut far, OK).await;
        let mut body = [0; 2];
        stream.read_exact(&mut body).await.unwrap();
        (head, body, stream)
    };
    let (attempt, (head, body, _stream)) = tokio::join!(client.send(request), server);
    assert_eq!(text(answered(attempt)).await, "ok");
    assert_eq!(&body, b"{}");
    let mut lines: Vec<&str> = head.trim_end().split("\r\n").collect();
    assert_eq!(
        lines.remove(0),
        "POST //users/a%2Fb/../c?pagination%5Bcount%5D=2&&x=%zz HTTP/1.1"
    );
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "authorization: Bearer t",
            "content-length: 2",
            "host: api.test",
            "via: 1.0 before",
            "via: 1.1 segment-gateway"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_empty_body_has_a_length_only_where_the_method_expects_one() {
    let (client, mut far) = plain();
    for (method, length) in [
        ("GET", false),
        ("DELETE", false),
        ("POST", true),
        ("PUT", true),
    ] {
        let mut request = get("/x");
        *request.method_mut() = method.parse().unwrap();
        let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let (attempt, (head, _)) = tokio::join!(client.send(request), serve_one(&mut far, answer));
        answered(attempt);
        assert_eq!(head.contains("content-length: 0\r\n"), length, "{head}");
    }
}

#[tokio::test(start_paused = true)]
async fn interim_responses_are_not_answers() {
    let (client, mut far) = plain();
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    let answer = format!("{hints}{OK}");
    let (attempt, _held) = tokio::join!(client.send(get("/x")), serve_one(&mut far, &answer));
    let response = answered(attempt);
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("link"));

    // Interim responses without end are ended by the head time.
    let (client, mut far) = plain();
    let begun = now();
    let server = async {
        let mut stream = far.accept().await;
        read_head(&mut stream).await.unwrap();
        while stream
            .write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            .await
            .is_ok()
        {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let (attempt, ()) = tokio::join!(client.send(get("/x")), server);
    assert_eq!(unknown(attempt), Unknown::HeadTimeout);
    assert!(begun.elapsed() < Duration::from_secs(32));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_speaks_first_never_sees_the_request() {
    let (client, mut far) = plain();
    let server = async {
        let mut stream = far.accept().await;
        stream.write_all(b"220 mail.test ESMTP\r\n").await.unwrap();
        read_head(&mut stream).await
    };
    let (attempt, head) = tokio::join!(client.send(get("/x")), server);
    match (attempt, head) {
        (Attempt::NotSent(NotSent::ClosedBeforeSending), None) => {}
        (Attempt::Unknown(Unknown::Broken | Unknown::Malformed), _) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_an_answer_is_unknown() {
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    let long = "x".repeat(70_000);
    for (answer, reason) in [
        ("".to_owned(), Unknown::Broken),
        ("SSH-2.0-OpenSSH\r\n\r\n".to_owned(), Unknown::Malformed),
        ("HTTP/1.1 20".to_owned(), Unknown::Broken),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n".to_owned(),
            Unknown::Malformed,
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
                .to_owned(),
            Unknown::Malformed,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n".to_owned(),
            Unknown::Malformed,
        ),
        (format!("HTTP/1.1 200 OK\r\n{many}\r\n"), Unknown::Malformed),
        (
            format!("HTTP/1.1 200 OK\r\nx: {long}\r\n\r\n"),
            Unknown::Malformed,
        ),
    ] {
        let (client, mut far) = plain();
        let server = async {
            let mut stream = far.accept().await;
            let head = read_head(&mut stream).await;
            // The client may close before it has read all of a long head.
            let _ = stream.write_all(answer.as_bytes()).await;
            drop(stream);
            head
        };
        let (attempt, head) = tokio::join!(client.send(get("/x")), server);
        let start: String = answer.chars().take(40).collect();
        assert_eq!(unknown(attempt), reason, "{start:?}");
        assert!(head.is_some());
        assert_eq!(far.waiting(), 0, "sent again after {start:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_not_ready_in_time_is_not_sent() {
    let connector = MemoryConnector::new(std::future::pending);
    let client = Client::over(connector, spec("http://api.test"), Clock::system());
    let begun = now();
    assert_eq!(
        not_sent(client.send(get("/x")).await),
        NotSent::ConnectTimeout
    );
    assert_eq!(begun.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn errors_of_connecting_are_not_sent() {
    use std::io::ErrorKind::*;
    for (kind, reason) in [
        (ConnectionRefused, NotSent::Refused),
        (HostUnreachable, NotSent::Refused),
        (TimedOut, NotSent::ConnectTimeout),
    ] {
        let connector = MemoryConnector::new(move || async move { Err(kind.into()) });
        let client = Client::over(connector, spec("http://api.test"), Clock::system());
        assert_eq!(not_sent(client.send(get("/x")).await), reason);
    }
}

#[tokio::test(start_paused = true)]
async fn the_head_time_begins_when_the_connection_is_ready() {
    let connector = MemoryConnector::new(|| async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        let (near, far) = tokio::io::duplex(1024);
        // The upstream reads and says nothing.
        tokio::spawn(async move {
            let mut far = far;
            while read_head(&mut far).await.is_some() {}
        });
        Ok(near)
    });
    for (total, end, reason) in [
        (120, 4 + 30, Unknown::HeadTimeout),
        (10, 4 + 10, Unknown::TotalTimeout),
    ] {
        let spec = ClientSpec {
            total: Duration::from_secs(total),
            ..spec("http://api.test")
        };
        let client = Client::over(connector.clone(), spec, Clock::system());
        let begun = now();
        assert_eq!(unknown(client.send(get("/x")).await), reason);
        assert_eq!(begun.elapsed().as_secs(), end);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_attempt_gives_its_connection_up() {
    let (client, mut far) = plain();
    let mut stream = {
        let mut sending = Box::pin(client.send(get("/slow")));
        tokio::select! {
            attempt = &mut sending => panic!("{attempt:?}"),
            stream = async {
                let mut stream = far.accept().await;
                read_head(&mut stream).await.unwrap();
                stream
            } => stream,
        }
    };
    assert_eq!(
        read_head(&mut stream).await,
        None,
        "the connection must close"
    );
    let (attempt, _) = tokio::join!(client.send(get("/next")), serve_one(&mut far, OK));
    assert_eq!(text(answered(attempt)).await, "ok");
}

#[tokio::test(start_paused = true)]
async fn limits_without_end_do_not_overflow() {
    let (client, mut far) = plain_with(|spec| {
        spec.connect = Duration::MAX;
        spec.head = Duration::MAX;
        spec.idle_body = Duration::MAX;
        spec.total = Duration::MAX;
        spec.connection_lifetime = Duration::MAX;
        spec.connection_idle = Duration::MAX;
    });
    let (attempt, _held) = tokio::join!(client.send(get("/x")), serve_one(&mut far, OK));
    assert_eq!(text(answered(attempt)).await, "ok");
}
