use super::super::linger::{LINGER, LINGER_BYTES};
use super::super::notes::Interim;
use super::super::presence::{INTERIM, RESET_WITHIN};
use super::*;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};

const DEADLINES: StreamDeadlines = StreamDeadlines {
    idle: Duration::from_secs(75),
    head: Duration::from_secs(10),
    piece: Duration::from_secs(30),
    answer: Duration::from_secs(300),
};

fn over<I>(inner: I, notes: &Notes) -> WatchedStream<I> {
    WatchedStream::new(
        inner,
        notes.clone(),
        DEADLINES,
        MalformedReplies::new(32 * 1024),
    )
}

/// A flush, again and again, as the HTTP library does: ends with the error.
async fn watched<I: AsyncRead + AsyncWrite + Unpin>(stream: &mut WatchedStream<I>) -> io::Error {
    let flushed =
        std::future::poll_fn(|context| match Pin::new(&mut *stream).poll_flush(context) {
            Poll::Ready(Err(error)) => Poll::Ready(error),
            _ => Poll::Pending,
        });
    flushed.await
}

#[tokio::test]
async fn a_caller_that_has_gone_is_told_from_one_that_only_listens() {
    for gone in [true, false] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut caller = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let notes = Notes::default();
        let mut stream = over(accepted, &notes);
        let waiting = notes.taken_up(Interim::Understood);
        if gone {
            drop(caller);
            let kind = watched(&mut stream).await.kind();
            assert!(
                matches!(
                    kind,
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ),
                "{kind}"
            );
        } else {
            caller.shutdown().await.unwrap();
            let mut interim = [0; INTERIM.len()];
            tokio::select! {
                error = watched(&mut stream) => panic!("it is still there: {error}"),
                seen = caller.read_exact(&mut interim) => assert_eq!(seen.unwrap(), INTERIM.len()),
            }
            assert_eq!(interim, INTERIM);
        }
        drop(waiting);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_put_into_an_answer_or_sent_to_whom_does_not_understand_it() {
    for interim in [Interim::Understood, Interim::Unknown] {
        let (mut caller, server) = tokio::io::duplex(1000);
        let notes = Notes::default();
        let mut stream = over(server, &notes);
        let waiting = notes.taken_up(interim);
        caller.shutdown().await.unwrap();
        tokio::select! {
            error = watched(&mut stream) => panic!("it is still there: {error}"),
            () = sleep(RESET_WITHIN / 2) => {}
        }
        waiting.answered();
        stream.write_all(b"head ").await.unwrap();
        tokio::select! {
            error = watched(&mut stream) => panic!("it is still there: {error}"),
            () = sleep(RESET_WITHIN * 2) => {}
        }
        stream.write_all(b"body").await.unwrap();
        drop(stream);
        let mut seen = String::new();
        caller.read_to_string(&mut seen).await.unwrap();
        let expected = match interim {
            Interim::Understood => "HTTP/1.1 100 Continue\r\n\r\nhead body",
            Interim::Unknown => "head body",
        };
        assert_eq!(seen, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_read_while_a_request_waits_is_not_lost() {
    let (mut caller, server) = tokio::io::duplex(10_000);
    let notes = Notes::default();
    let mut stream = over(server, &notes);
    let waiting = notes.taken_up(Interim::Understood);
    let sent: Vec<u8> = (0..3_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    caller.write_all(&sent).await.unwrap();
    tokio::select! {
        error = watched(&mut stream) => panic!("it is still there: {error}"),
        () = sleep(RESET_WITHIN) => {}
    }
    drop(waiting);
    let mut seen = vec![0; sent.len()];
    stream.read_exact(&mut seen).await.unwrap();
    assert_eq!(seen, sent);
}

#[tokio::test]
async fn without_a_request_the_end_is_the_end() {
    let (caller, server) = tokio::io::duplex(100);
    drop(caller);
    let mut stream = over(server, &Notes::default());
    assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_take_its_answer_is_given_up_on() {
    let start = sleep(Duration::ZERO).deadline();
    let since = || sleep(Duration::ZERO).deadline() - start;
    let (mut caller, server) = tokio::io::duplex(10);
    let notes = Notes::default();
    let mut stream = over(server, &notes);
    let exchange = notes.taken_up(Interim::Understood);
    exchange.answered();
    // A piece every 20 s is progress, until the whole takes too long.
    let reads = async {
        loop {
            sleep(Duration::from_secs(20)).await;
            caller.read_exact(&mut [0; 5]).await.unwrap();
        }
    };
    let error = tokio::select! {
        written = stream.write_all(&[0; 10_000]) => written.unwrap_err(),
        () = reads => unreachable!("it reads for ever"),
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(since().as_secs(), DEADLINES.answer.as_secs());
    // The next one reads nothing at all.
    let (_caller, server) = tokio::io::duplex(10);
    let notes = Notes::default();
    let mut stream = over(server, &notes);
    let _exchange = notes.taken_up(Interim::Understood);
    let error = stream.write_all(&[0; 100]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(
        since().as_secs(),
        (DEADLINES.answer + DEADLINES.piece).as_secs()
    );
}

/// How long it takes until the stream gives up reading, in seconds.
async fn given_up_after<I: AsyncRead + AsyncWrite + Unpin>(stream: &mut WatchedStream<I>) -> u64 {
    let from = sleep(Duration::ZERO).deadline();
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    (sleep(Duration::ZERO).deadline() - from).as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_head_has_its_time_from_its_first_byte() {
    let (mut caller, server) = tokio::io::duplex(100);
    let notes = Notes::default();
    let mut stream = over(server, &notes);
    let mut four = [0; 4];
    // Two requests in time: each begins a little before the end of the idle time, and its second
    // half comes a little before the end of the head's.
    for _ in 0..2 {
        let sends = async {
            sleep(DEADLINES.idle - Duration::from_secs(1)).await;
            caller.write_all(b"he").await.unwrap();
            sleep(DEADLINES.head - Duration::from_secs(1)).await;
            caller.write_all(b"ad").await.unwrap();
        };
        let (read, ()) = tokio::join!(stream.read_exact(&mut four), sends);
        assert_eq!(read.unwrap(), 4);
        let exchange = notes.taken_up(Interim::Understood);
        // Neither a body that takes long, nor waiting for an answer, nor an answer that takes long
        // is a late head.
        let coming = notes.body_coming();
        let body = async {
            sleep(DEADLINES.idle * 3).await;
            caller.write_all(b"body").await.unwrap();
        };
        exchange.answered();
        let (read, ()) = tokio::join!(stream.read_exact(&mut four), body);
        assert_eq!(read.unwrap(), 4);
        coming.ended();
        assert!(
            timeout(DEADLINES.idle * 2, stream.read(&mut four))
                .await
                .is_err()
        );
        drop(exchange);
    }
    // Bytes that keep coming do not put it off.
    let drips = async {
        loop {
            caller.write_all(b"x").await.unwrap();
            sleep(Duration::from_millis(700)).await;
        }
    };
    let from = sleep(Duration::ZERO).deadline();
    stream.flush().await.unwrap();
    let mut seen = Vec::new();
    tokio::select! {
        read = stream.read_to_end(&mut seen) => assert!(read.is_ok()),
        () = drips => unreachable!("it sends for ever"),
    }
    let seconds = (sleep(Duration::ZERO).deadline() - from).as_secs();
    assert_eq!(seconds, DEADLINES.head.as_secs());
    assert_eq!(notes.refused().unwrap().0, Malformed::Timeout);
}

#[tokio::test(start_paused = true)]
async fn a_late_head_is_not_answered_into_an_answer_that_has_not_left() {
    let (mut caller, server) = tokio::io::duplex(100);
    let notes = Notes::default();
    let mut stream = over(server, &notes);
    notes.taken_up(Interim::Understood).answered();
    caller.write_all(b"he").await.unwrap();
    assert_eq!(given_up_after(&mut stream).await, DEADLINES.head.as_secs());
    assert!(notes.refused().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_at_its_time() {
    let (mut caller, server) = tokio::io::duplex(100);
    let notes = Notes::default();
    let mut stream = over(server, &notes);
    assert_eq!(given_up_after(&mut stream).await, DEADLINES.idle.as_secs());
    // After an answer, too, however long that took.
    caller.write_all(b"head").await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
    let exchange = notes.taken_up(Interim::Understood);
    sleep(DEADLINES.idle * 2).await;
    exchange.answered();
    sleep(DEADLINES.idle * 2).await;
    drop(exchange);
    assert_eq!(given_up_after(&mut stream).await, DEADLINES.idle.as_secs());
}

/// What the library writes to a caller that it does not understand.
const BARE: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn the_bare_answer_of_the_library_alone_is_replaced() {
    for requests in [0, 1] {
        let (mut caller, server) = tokio::io::duplex(10_000);
        let notes = Notes::default();
        let mut stream = over(server, &notes);
        for _ in 0..requests {
            let exchange = notes.taken_up(Interim::Understood);
            exchange.answered();
            for part in ["head ", "body "] {
                stream.write_all(part.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
            }
            drop(exchange);
            // The last of an answer may be written when its body is gone already.
            stream.write_all(b"end ").await.unwrap();
            stream.flush().await.unwrap();
        }
        stream.write_all(BARE).await.unwrap();
        stream.write_all(b"and more").await.unwrap();
        drop(caller.write_all(b"rest").await);
        let closed = tokio::spawn(stream.close(std::future::pending()));
        let mut seen = String::new();
        caller.read_to_string(&mut seen).await.unwrap();
        drop(caller);
        closed.await.unwrap();
        let seen = seen.strip_prefix(&"head body end ".repeat(requests));
        let (head, body) = seen.unwrap().split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"));
        let (reason, id) = notes.refused().unwrap();
        assert_eq!(*reason, Malformed::TooLarge);
        assert!(head.contains(&format!("x-request-id: {}", id.to_str().unwrap())));
        assert!(head.contains(&format!("content-length: {}", body.len())));
        assert!(body.contains("gateway-head-too-large"), "{body}");
    }
}

/// Reads until nothing more comes, or the end does.
async fn read_what_is_there<I: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut WatchedStream<I>,
    seen: &mut Vec<u8>,
) {
    let within = Duration::from_millis(1);
    while let Ok(Ok(1..)) = timeout(within, stream.read_buf(seen)).await {}
}

#[tokio::test(start_paused = true)]
async fn the_preface_of_http_2_is_answered_and_what_only_begins_like_it_is_read() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0";
    let other = b"PRI * HTTP/1.1\r\nhost: a\r\n\r\n";
    for size in 1..preface.len() {
        for (bytes, is_http2) in [(&preface[..], true), (&other[..], false)] {
            let (mut caller, server) = tokio::io::duplex(10_000);
            let notes = Notes::default();
            let mut stream = over(server, &notes);
            let mut seen = Vec::new();
            for part in bytes.chunks(size) {
                caller.write_all(part).await.unwrap();
                read_what_is_there(&mut stream, &mut seen).await;
            }
            let refused = notes.refused().map(|(why, _)| *why);
            if is_http2 {
                assert_eq!(
                    (seen.len(), refused),
                    (0, Some(Malformed::Http2)),
                    "by {size}"
                );
            } else {
                assert_eq!((&seen[..], refused), (bytes, None), "by {size}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_body_is_dropped_but_not_for_ever() {
    let (mut caller, server) = tokio::io::duplex(100);
    let notes = Notes::default();
    let stream = over(server, &notes);
    drop(notes.body_coming());
    let from = sleep(Duration::ZERO).deadline();
    let sends = async {
        while caller.write_all(&[0; 10]).await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::join!(stream.close(std::future::pending()), sends);
    assert_eq!(
        (sleep(Duration::ZERO).deadline() - from).as_secs(),
        LINGER.as_secs()
    );
    // However much comes in that time, not all of it is read.
    let (mut caller, server) = tokio::io::duplex(64 * 1024);
    let notes = Notes::default();
    let stream = over(server, &notes);
    drop(notes.body_coming());
    let sends = async move {
        let piece = vec![0; 1024 * 1024];
        let mut pieces = 0;
        while pieces < (2 * LINGER_BYTES) >> 20 && caller.write_all(&piece).await.is_ok() {
            pieces += 1;
        }
        pieces
    };
    let ((), pieces) = tokio::join!(stream.close(std::future::pending()), sends);
    assert_eq!(pieces, LINGER_BYTES >> 20);
    // A caller that has sent its whole request is not waited for.
    let (_caller, server) = tokio::io::duplex(100);
    let notes = Notes::default();
    let stream = over(server, &notes);
    notes.body_coming().ended();
    let from = sleep(Duration::ZERO).deadline();
    stream.close(std::future::pending()).await;
    assert_eq!(sleep(Duration::ZERO).deadline(), from);
}
