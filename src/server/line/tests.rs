use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATIENCE: Patience = Patience {
    head: Duration::from_secs(10),
    piece: Duration::from_secs(30),
    answer: Duration::from_secs(300),
};

/// A flush, again and again, as the HTTP library does: ends with the error.
async fn watched<I: AsyncRead + AsyncWrite + Unpin>(line: &mut Line<I>) -> io::Error {
    let flushed = std::future::poll_fn(|context| match Pin::new(&mut *line).poll_flush(context) {
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
        let mut line = Line::new(accepted, notes.clone(), PATIENCE);
        let waiting = notes.taken_up(Interim::Understood);
        if gone {
            drop(caller);
            let kind = watched(&mut line).await.kind();
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
                error = watched(&mut line) => panic!("it is still there: {error}"),
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
        let mut line = Line::new(server, notes.clone(), PATIENCE);
        let waiting = notes.taken_up(interim);
        caller.shutdown().await.unwrap();
        tokio::select! {
            error = watched(&mut line) => panic!("it is still there: {error}"),
            () = sleep(RESET_WITHIN / 2) => {}
        }
        waiting.answered();
        line.write_all(b"head ").await.unwrap();
        tokio::select! {
            error = watched(&mut line) => panic!("it is still there: {error}"),
            () = sleep(RESET_WITHIN * 2) => {}
        }
        line.write_all(b"body").await.unwrap();
        drop(line);
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
    let mut line = Line::new(server, notes.clone(), PATIENCE);
    let waiting = notes.taken_up(Interim::Understood);
    let sent: Vec<u8> = (0..3_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    caller.write_all(&sent).await.unwrap();
    tokio::select! {
        error = watched(&mut line) => panic!("it is still there: {error}"),
        () = sleep(RESET_WITHIN) => {}
    }
    drop(waiting);
    let mut seen = vec![0; sent.len()];
    line.read_exact(&mut seen).await.unwrap();
    assert_eq!(seen, sent);
}

#[tokio::test]
async fn without_a_request_the_end_is_the_end() {
    let (caller, server) = tokio::io::duplex(100);
    drop(caller);
    let mut line = Line::new(server, Notes::default(), PATIENCE);
    assert_eq!(line.read(&mut [0; 10]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_take_its_answer_is_given_up_on() {
    let start = sleep(Duration::ZERO).deadline();
    let since = || sleep(Duration::ZERO).deadline() - start;
    let (mut caller, server) = tokio::io::duplex(10);
    let notes = Notes::default();
    let mut line = Line::new(server, notes.clone(), PATIENCE);
    notes.taken_up(Interim::Understood).answered();
    // A piece every 20 s is progress, until the whole takes too long.
    let reads = async {
        loop {
            sleep(Duration::from_secs(20)).await;
            caller.read_exact(&mut [0; 5]).await.unwrap();
        }
    };
    let error = tokio::select! {
        written = line.write_all(&[0; 10_000]) => written.unwrap_err(),
        () = reads => unreachable!("it reads for ever"),
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(since().as_secs(), PATIENCE.answer.as_secs());
    // The next one reads nothing at all.
    let (_caller, server) = tokio::io::duplex(10);
    let mut line = Line::new(server, Notes::default(), PATIENCE);
    let error = line.write_all(&[0; 100]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(
        since().as_secs(),
        (PATIENCE.answer + PATIENCE.piece).as_secs()
    );
}

#[tokio::test(start_paused = true)]
async fn a_head_has_its_time_from_the_end_of_the_answer_before() {
    let start = sleep(Duration::ZERO).deadline();
    let since = || sleep(Duration::ZERO).deadline() - start;
    let (mut caller, server) = tokio::io::duplex(100);
    let notes = Notes::default();
    let mut line = Line::new(server, notes.clone(), PATIENCE);
    let mut four = [0; 4];
    // Two requests in time, each of them a little before its deadline.
    for _ in 0..2 {
        let sends = async {
            sleep(PATIENCE.head - Duration::from_secs(1)).await;
            caller.write_all(b"head").await.unwrap();
        };
        let (read, ()) = tokio::join!(line.read_exact(&mut four), sends);
        assert_eq!(read.unwrap(), 4);
        let waiting = notes.taken_up(Interim::Understood);
        // Neither waiting for an answer nor a body that takes long is a late head.
        let coming = notes.body_coming();
        let body = async {
            sleep(PATIENCE.head * 3).await;
            caller.write_all(b"body").await.unwrap();
        };
        waiting.answered();
        let (read, ()) = tokio::join!(line.read_exact(&mut four), body);
        assert_eq!(read.unwrap(), 4);
        drop(coming);
    }
    // Bytes that keep coming do not put it off.
    let from = since();
    let drips = async {
        loop {
            caller.write_all(b"x").await.unwrap();
            sleep(Duration::from_millis(700)).await;
        }
    };
    let mut rest = Vec::new();
    let error = tokio::select! {
        read = line.read_to_end(&mut rest) => read.unwrap_err(),
        () = drips => unreachable!("it sends for ever"),
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(since() - from, PATIENCE.head);
    assert!(!rest.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_at_its_time() {
    let start = sleep(Duration::ZERO).deadline();
    let since = || sleep(Duration::ZERO).deadline() - start;
    let (_caller, server) = tokio::io::duplex(100);
    let mut line = Line::new(server, Notes::default(), PATIENCE);
    let error = line.read(&mut [0; 10]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(since(), PATIENCE.head);
}
