//! HTTP/2, chosen by ALPN, with frames written by a server of the test's own.

use h2::Reason;
use h2::server::{Connection, SendResponse};
use tokio_rustls::server::TlsStream;

use super::tls::{Authority, secure};
use super::*;

type Server = Connection<TlsStream<DuplexStream>, Bytes>;

async fn accept(far: &mut Far, ours: &Authority) -> Server {
    let acceptor = ours.acceptor("api.test", &["h2", "http/1.1"]);
    let stream = acceptor.accept(far.accept().await).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    h2::server::handshake(stream).await.unwrap()
}

fn ok() -> Response<()> {
    Response::builder().status(200).body(()).unwrap()
}

/// A server at work; it ends when the client closes.
struct Serving(tokio::task::JoinHandle<usize>);

impl Serving {
    /// How many requests arrived in all.
    async fn arrivals(self) -> usize {
        self.0.await.unwrap()
    }
}

/// Accepts one connection and does `act` for each request on it.
async fn serve<F>(far: &mut Far, ours: &Authority, mut act: F) -> Serving
where
    F: FnMut(Request<h2::RecvStream>, SendResponse<Bytes>) + Send + 'static,
{
    let mut server = accept(far, ours).await;
    Serving(tokio::spawn(async move {
        let mut arrivals = 0;
        while let Some(Ok((request, respond))) = server.accept().await {
            arrivals += 1;
            act(request, respond);
        }
        arrivals
    }))
}

#[tokio::test(start_paused = true)]
async fn requests_share_one_connection() {
    let ours = Authority::new();
    let (client, mut far) = secure(|spec| spec.ca_file = ours.file());
    let serving = serve(&mut far, &ours, |request, mut respond| {
        assert_eq!(request.uri(), "https://api.test/a?b=%5B");
        assert!(!request.headers().contains_key("host"));
        assert_eq!(request.headers()["via"], "1.1 segment-gateway");
        let mut body = respond.send_response(ok(), false).unwrap();
        body.send_data(Bytes::from_static(b"ok"), true).unwrap();
    });
    let (attempt, serving) = tokio::join!(client.send(get("/a?b=%5B")), serving);
    assert_eq!(text(answered(attempt)).await, "ok");
    for attempt in [
        tokio::join!(client.send(get("/a?b=%5B")), client.send(get("/a?b=%5B"))),
        tokio::join!(client.send(get("/a?b=%5B")), client.send(get("/a?b=%5B"))),
    ] {
        assert_eq!(text(answered(attempt.0)).await, "ok");
        assert_eq!(text(answered(attempt.1)).await, "ok");
    }
    assert_eq!(far.waiting(), 0, "a second connection");
    drop(client);
    assert_eq!(serving.arrivals().await, 5);
}

#[tokio::test(start_paused = true)]
async fn interim_responses_are_not_answers() {
    let ours = Authority::new();
    let (client, mut far) = secure(|spec| spec.ca_file = ours.file());
    let serving = serve(&mut far, &ours, |_, mut respond| {
        let hints = Response::builder().status(103).body(()).unwrap();
        respond.send_informational(hints).unwrap();
        respond.send_response(ok(), true).unwrap();
    });
    let (attempt, _serving) = tokio::join!(client.send(get("/x")), serving);
    assert_eq!(answered(attempt).status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_busy_connection_is_renewed_at_the_end_of_its_life() {
    let ours = Authority::new();
    let (client, mut far) = secure(|spec| spec.ca_file = ours.file());
    for life in 0..3 {
        let serving = serve(&mut far, &ours, |_, mut respond| {
            respond.send_response(ok(), true).unwrap();
        });
        let (first, serving) = tokio::join!(client.send(get("/x")), serving);
        answered(first);
        // Fifteen requests, 21 s apart, fit into each life of 300 s.
        for request in 1..15 {
            tokio::time::sleep(Duration::from_secs(21)).await;
            answered(client.send(get("/x")).await);
            assert_eq!(far.waiting(), 0, "request {request} of life {life}");
        }
        tokio::time::sleep(Duration::from_secs(21)).await;
        if life == 2 {
            drop(client);
            assert_eq!(serving.arrivals().await, 15);
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn http2_is_not_offered_where_it_is_switched_off() {
    let ours = Authority::new();
    let (client, mut far) = secure(|spec| {
        spec.ca_file = ours.file();
        spec.http2 = false;
    });
    let acceptor = ours.acceptor("api.test", &["h2", "http/1.1"]);
    let server = async {
        let mut stream = acceptor.accept(far.accept().await).await.unwrap();
        assert_eq!(
            stream.get_ref().1.alpn_protocol(),
            Some(b"http/1.1".as_slice())
        );
        read_head(&mut stream).await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
        stream
    };
    let (attempt, _held) = tokio::join!(client.send(get("/x")), server);
    assert_eq!(text(answered(attempt)).await, "ok");
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_not_sent_only_where_the_peer_promises_so() {
    for (reason, processed) in [
        (Reason::REFUSED_STREAM, false),
        (Reason::INTERNAL_ERROR, true),
        (Reason::CANCEL, true),
        (Reason::ENHANCE_YOUR_CALM, true),
        (Reason::NO_ERROR, true),
    ] {
        let ours = Authority::new();
        let (client, mut far) = secure(|spec| spec.ca_file = ours.file());
        let serving = serve(&mut far, &ours, move |request, mut respond| {
            match request.uri().path() {
                "/first" => drop(respond.send_response(ok(), true)),
                _ => respond.send_reset(reason),
            }
        });
        let told = |attempt| {
            if processed {
                assert_eq!(unknown(attempt), Unknown::Broken, "{reason}");
            } else {
                let reason = not_sent(attempt);
                assert_eq!((reason, reason.travelled()), (NotSent::Unprocessed, true));
            }
        };
        let (attempt, serving) = tokio::join!(client.send(get("/x")), serving);
        told(attempt);
        // Nor where its connection had been kept: that is there, and the peer has said what it did.
        answered(client.send(get("/first")).await);
        told(client.send(get("/x")).await);
        drop(client);
        assert_eq!(serving.arrivals().await, 3, "arrivals after {reason}");
        assert_eq!(far.waiting(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_goes_away_leaves_what_it_carried_unknown() {
    for reason in [Reason::NO_ERROR, Reason::PROTOCOL_ERROR] {
        let ours = Authority::new();
        let (client, mut far) = secure(|spec| spec.ca_file = ours.file());
        let serving = async {
            let mut server = accept(&mut far, &ours).await;
            let kept = server.accept().await.unwrap().unwrap();
            server.abrupt_shutdown(reason);
            while let Some(Ok(_)) = server.accept().await {}
            drop(kept);
        };
        let (attempt, ()) = tokio::join!(client.send(get("/x")), serving);
        assert_eq!(unknown(attempt), Unknown::Broken);
        assert_eq!(far.waiting(), 0, "sent again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_found_by_its_missing_ping() {
    let ours = Authority::new();
    let (client, mut far) = secure(|spec| {
        spec.ca_file = ours.file();
        spec.head = Duration::from_secs(100);
    });
    let begun = now();
    let serving = async {
        let mut server = accept(&mut far, &ours).await;
        // Held, but polled no more: no ping is answered.
        let request = server.accept().await.unwrap().unwrap();
        (server, request)
    };
    let (attempt, _held) = tokio::join!(client.send(get("/x")), serving);
    assert_eq!(unknown(attempt), Unknown::Broken);
    assert_eq!(begun.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn empty_frames_are_not_progress() {
    let ours = Authority::new();
    let (client, mut far) = secure(|spec| spec.ca_file = ours.file());
    let serving = serve(&mut far, &ours, |_, mut respond| {
        let mut body = respond.send_response(ok(), false).unwrap();
        tokio::spawn(async move {
            while body.send_data(Bytes::new(), false).is_ok() {
                tokio::time::sleep(Duration::from_secs(7)).await;
            }
        });
    });
    let (attempt, _serving) = tokio::join!(client.send(get("/x")), serving);
    let begun = now();
    let error = answered(attempt).into_body().collect().await.unwrap_err();
    assert_eq!(
        (error, begun.elapsed().as_secs()),
        (BodyError::IdleTimeout, 30)
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_is_whole_only_at_the_end_of_its_stream() {
    for (reset, length) in [
        (None, None),
        (Some(Reason::NO_ERROR), None),
        (Some(Reason::NO_ERROR), Some("100")),
        (Some(Reason::CANCEL), None),
    ] {
        let ours = Authority::new();
        let (client, mut far) = secure(|spec| spec.ca_file = ours.file());
        let serving = serve(&mut far, &ours, move |_, mut respond| {
            let mut head = ok();
            if let Some(length) = length {
                head.headers_mut()
                    .insert("content-length", HeaderValue::from_static(length));
            }
            let mut body = respond.send_response(head, false).unwrap();
            body.send_data(Bytes::from_static(b"half"), false).unwrap();
            tokio::spawn(end_in_a_second(body, reset));
        });
        let (attempt, _serving) = tokio::join!(client.send(get("/x")), serving);
        let whole = answered(attempt).into_body().collect().await;
        match reset {
            None => assert_eq!(whole.unwrap().trailers().unwrap()["x-end"], "1"),
            Some(reason) => {
                assert_eq!(whole.unwrap_err(), BodyError::Broken, "{reason} {length:?}")
            }
        }
    }
}

async fn end_in_a_second(mut body: h2::SendStream<Bytes>, reset: Option<Reason>) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    if let Some(reason) = reset {
        body.send_reset(reason);
        return;
    }
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-end", HeaderValue::from_static("1"));
    body.send_trailers(trailers).unwrap();
}
