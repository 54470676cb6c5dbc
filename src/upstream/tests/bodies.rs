//! Bodies: what passes, and when they are given up.

use http_body::Body as _;

use super::*;

const BEGINNING: &str = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nfirst";

/// The answer whose head and first bytes are here, and the stream the rest would come on.
async fn begun_answer(client: &Client, far: &mut Far) -> (Response<AnswerBody>, DuplexStream) {
    let (attempt, (_, stream)) = tokio::join!(client.send(get("/x")), serve_one(far, BEGINNING));
    let mut response = answered(attempt);
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "first");
    (response, stream)
}

#[tokio::test(start_paused = true)]
async fn length_and_trailers_pass() {
    let (client, mut far) = plain();
    let (attempt, _held) = tokio::join!(client.send(get("/x")), serve_one(&mut far, OK));
    let response = answered(attempt);
    assert_eq!(response.body().size_hint().exact(), Some(2));
    assert!(!response.body().is_end_stream());

    let (client, mut far) = plain();
    let answer =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-end: 1\r\n\r\n";
    let (attempt, _held) = tokio::join!(client.send(get("/x")), serve_one(&mut far, answer));
    let all = answered(attempt).into_body().collect().await.unwrap();
    assert_eq!(all.trailers().unwrap()["x-end"], "1");
    assert_eq!(all.to_bytes(), "ok");
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_body_after_the_idle_time() {
    let (client, mut far) = plain();
    let (mut response, mut stream) = begun_answer(&client, &mut far).await;
    let begun = now();
    let error = response.body_mut().frame().await.unwrap().unwrap_err();
    assert_eq!(
        (error, begun.elapsed().as_secs()),
        (BodyError::IdleTimeout, 30)
    );
    assert!(response.body_mut().frame().await.is_none());
    assert_eq!(
        read_head(&mut stream).await,
        None,
        "the connection must close"
    );
}

#[tokio::test(start_paused = true)]
async fn a_trickle_ends_after_the_total_time() {
    let (client, mut far) = plain();
    let begun = now();
    let (mut response, mut stream) = begun_answer(&client, &mut far).await;
    tokio::spawn(async move {
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    });
    let error = loop {
        match response.body_mut().frame().await.unwrap() {
            Ok(frame) => assert_eq!(frame.into_data().unwrap(), "x"),
            Err(error) => break error,
        }
    };
    assert_eq!(
        (error, begun.elapsed().as_secs()),
        (BodyError::TotalTimeout, 120)
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_always_ready_ends_after_the_total_time_too() {
    let (client, mut far) = plain_with(|spec| spec.total = Duration::from_secs(40));
    let endless = "HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n";
    let (attempt, (_, mut stream)) =
        tokio::join!(client.send(get("/x")), serve_one(&mut far, endless));
    tokio::spawn(async move { while stream.write_all(&[b'x'; 4096]).await.is_ok() {} });
    let mut response = answered(attempt);
    let mut frames = 0;
    let error = loop {
        // The reader takes a second for each piece and never waits for the upstream.
        tokio::time::sleep(Duration::from_secs(1)).await;
        match response.body_mut().frame().await.unwrap() {
            Ok(_) => frames += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((error, frames), (BodyError::TotalTimeout, 39));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_not_the_upstreams_silence() {
    let (client, mut far) = plain();
    let (mut response, mut stream) = begun_answer(&client, &mut far).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let writing = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        stream.write_all(b"second").await.unwrap();
    };
    let (frame, ()) = tokio::join!(response.body_mut().frame(), writing);
    assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "second");
}

#[tokio::test(start_paused = true)]
async fn a_body_shorter_than_announced_is_broken() {
    for rest in ["", "more"] {
        let (client, mut far) = plain();
        let (mut response, mut stream) = begun_answer(&client, &mut far).await;
        stream.write_all(rest.as_bytes()).await.unwrap();
        drop(stream);
        let error = loop {
            if let Err(error) = response.body_mut().frame().await.unwrap() {
                break error;
            }
        };
        assert_eq!(error, BodyError::Broken);
        assert!(response.body().is_end_stream());
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_chunk_is_broken() {
    let (client, mut far) = plain();
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    let (attempt, _held) = tokio::join!(client.send(get("/x")), serve_one(&mut far, answer));
    let error = answered(attempt).into_body().collect().await.unwrap_err();
    assert_eq!(error, BodyError::Broken);
}

#[tokio::test(start_paused = true)]
async fn what_must_have_no_body_has_none_and_no_length() {
    for (method, status) in [
        ("HEAD", 204),
        ("GET", 204),
        ("HEAD", 205),
        ("GET", 205),
        ("POST", 205),
    ] {
        let (client, mut far) = plain();
        let mut request = get("/x");
        *request.method_mut() = method.parse().unwrap();
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 5\r\n\r\nhello");
        let (attempt, _held) = tokio::join!(client.send(request), serve_one(&mut far, &answer));
        let response = answered(attempt);
        let length = response.headers().get("content-length");
        assert_eq!(length, None, "{method} {status}");
        assert_eq!(text(response).await, "", "{method} {status}");
    }
}
