use super::*;
use crate::exchange::body::LayeredBody;
use h2::client::{self, SendRequest};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::service::service_fn;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const DEADLINES: StreamDeadlines = StreamDeadlines {
    idle: Duration::from_secs(75),
    head: Duration::from_secs(10),
    piece: Duration::from_secs(30),
    answer: Duration::from_secs(300),
};
const BOUNDS: ConnectionBounds = ConnectionBounds {
    head_bytes: 32 * 1024,
    deadlines: DEADLINES,
};
/// More than the window of a stream that a client opens by default, in bytes.
const LONG: usize = 1_000_000;

/// What the service was asked and has not answered.
#[derive(Clone, Default)]
struct Answering {
    open: Arc<AtomicUsize>,
    begun: Arc<Notify>,
    go: Arc<Notify>,
}

struct OpenCall(Arc<AtomicUsize>);

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Answering {
    /// `/now` is answered at once, `/long` with a long body, `/body` after the body of the request,
    /// anything else when it may go on.
    async fn answer(self, request: Request<RequestBody>) -> Response<OuterBody> {
        let path = request.uri().path().to_owned();
        self.open.fetch_add(1, Ordering::SeqCst);
        let _open = OpenCall(self.open.clone());
        self.begun.notify_one();
        match &*path {
            "/now" => Response::new(OuterBody::plain("now")),
            "/long" => Response::new(OuterBody::plain(vec![b'x'; LONG])),
            "/body" => {
                let length = request
                    .into_body()
                    .collect()
                    .await
                    .unwrap()
                    .to_bytes()
                    .len();
                Response::new(OuterBody::plain(length.to_string()))
            }
            "/trailers" => {
                let mut trailers = HeaderMap::new();
                trailers.insert("x-end", "yes".parse().unwrap());
                let body = http_body_util::Full::new(Bytes::from_static(b"with"))
                    .with_trailers(std::future::ready(Some(Ok(trailers))));
                let body =
                    body.map_err(|never| -> crate::exchange::body::BoxError { match never {} });
                Response::new(OuterBody::layered(LayeredBody::new(body)))
            }
            _ => {
                self.go.notified().await;
                Response::new(OuterBody::plain("late"))
            }
        }
    }
}

struct Serving {
    service: Answering,
    stop: watch::Sender<bool>,
    ended: JoinHandle<Option<Malformed>>,
}

/// A connection to the service, as it is on the wire.
fn open() -> (DuplexStream, Serving) {
    let (ours, theirs) = duplex(1024 * 1024);
    let (stop, stopped) = watch::channel(false);
    let service = Answering::default();
    let answering = service.clone();
    let service_fn = service_fn(move |request| {
        let answering = answering.clone();
        async move { Ok::<_, Infallible>(answering.answer(request).await) }
    });
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let seen = Connections::unseen().unwrap();
    let ended = tokio::spawn(serve(theirs, peer, service_fn, BOUNDS, seen, stopped));
    let serving = Serving {
        service,
        stop,
        ended,
    };
    (ours, serving)
}

async fn client() -> (
    SendRequest<Bytes>,
    JoinHandle<Result<(), h2::Error>>,
    Serving,
) {
    let (ours, serving) = open();
    // The window of the connection is larger than that of a stream, as browsers and SDKs have it.
    let mut builder = client::Builder::new();
    builder.initial_connection_window_size(4 * 1024 * 1024);
    let (sender, connection) = builder.handshake(ours).await.unwrap();
    (
        sender.ready().await.unwrap(),
        tokio::spawn(connection),
        serving,
    )
}

fn get(path: &str) -> Request<()> {
    let target = format!("https://gateway{path}");
    Request::get(target).body(()).unwrap()
}

fn now() -> Instant {
    sleep(Duration::ZERO).deadline()
}

async fn text(body: &mut RecvStream) -> Result<String, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(String::from_utf8(all).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_window_that_stays_closed_costs_its_stream_alone() {
    let (mut sender, _connection, serving) = client().await;
    let from = now();
    let (stalled, _) = sender.send_request(get("/long"), true).unwrap();
    let (late, _) = sender.send_request(get("/late"), true).unwrap();
    let mut stalled = stalled.await.unwrap().into_body();
    // What is within the first window comes; nothing of it is given back.
    let error = loop {
        match stalled.data().await.expect("no end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
    assert_eq!((now() - from).as_secs(), DEADLINES.piece.as_secs());
    serving.service.go.notify_one();
    let mut late = late.await.unwrap().into_body();
    assert_eq!(text(&mut late).await.unwrap(), "late");
    // The window of the connection is free again.
    drop(stalled);
    let (long, _) = sender.send_request(get("/long"), true).unwrap();
    let mut long = long.await.unwrap().into_body();
    assert_eq!(text(&mut long).await.unwrap().len(), LONG);
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_its_answer_bit_by_bit_is_given_up_on_in_the_end() {
    let (mut sender, _connection, _serving) = client().await;
    let from = now();
    let (slow, _) = sender.send_request(get("/long"), true).unwrap();
    let mut slow = slow.await.unwrap().into_body();
    let error = loop {
        match slow.data().await.expect("no end") {
            Ok(data) => {
                // The library announces half of its window at once, which is two frames.
                sleep(Duration::from_secs(10)).await;
                let _ = slow.flow_control().release_capacity(data.len());
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
    let took = now() - from;
    assert!(took >= DEADLINES.answer, "{took:?}");
    assert!(
        took < DEADLINES.answer + Duration::from_secs(60),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_reset_or_lost_is_a_hang_up() {
    let (mut sender, connection, serving) = client().await;
    let (first, mut stream) = sender.send_request(get("/late"), true).unwrap();
    let (_second, _) = sender.send_request(get("/late"), true).unwrap();
    let service = &serving.service;
    while service.open.load(Ordering::SeqCst) < 2 {
        service.begun.notified().await;
    }
    stream.send_reset(h2::Reason::CANCEL);
    drop(first);
    while service.open.load(Ordering::SeqCst) > 1 {
        tokio::task::yield_now().await;
    }
    connection.abort();
    drop(sender);
    assert_eq!(serving.ended.await.unwrap(), None);
    assert_eq!(service.open.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_preface_the_connection_ends() {
    let from = now();
    let (mut silent, serving) = open();
    assert_eq!(serving.ended.await.unwrap(), Some(Malformed::Timeout));
    assert_eq!((now() - from).as_secs(), DEADLINES.head.as_secs());
    silent.read_to_end(&mut Vec::new()).await.unwrap();
    let (mut other, serving) = open();
    other
        .write_all(b"GET / HTTP/1.1\r\nhost: gateway\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(serving.ended.await.unwrap(), Some(Malformed::Head));
    // A listener that stops does not wait for one.
    let (_silent, serving) = open();
    let from = now();
    serving.stop.send_replace(true);
    assert_eq!(serving.ended.await.unwrap(), None);
    assert_eq!(now(), from);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_in_time() {
    let (mut sender, connection, serving) = client().await;
    sleep(Duration::from_secs(74)).await;
    for path in ["/now", "/body"] {
        let (answer, _) = sender.send_request(get(path), true).unwrap();
        text(answer.await.unwrap().body_mut()).await.unwrap();
        sleep(Duration::from_secs(74)).await;
    }
    let from = now();
    connection.await.unwrap().unwrap();
    assert_eq!((now() - from).as_secs(), 1);
    assert_eq!(serving.ended.await.unwrap(), None);
}

/// It answers no frame, as a machine that has lost its power.
#[tokio::test(start_paused = true)]
async fn a_dead_caller_is_noticed() {
    for waits in [true, false] {
        let (ours, serving) = open();
        let (mut sender, connection) = client::handshake(ours).await.unwrap();
        let mut connection = Box::pin(connection);
        let path = if waits { "/late" } else { "/now" };
        let (answer, _) = sender.send_request(get(path), true).unwrap();
        tokio::select! {
            ended = &mut connection => panic!("{ended:?}"),
            () = serving.service.begun.notified() => {}
            _ = answer => {}
        }
        let from = now();
        assert_eq!(serving.ended.await.unwrap(), None);
        let took = (now() - from).as_secs();
        let expected = match waits {
            true => DEADLINES.piece.as_secs() * 2,
            // GOAWAY is not answered either.
            false => DEADLINES.idle.as_secs() + FAREWELL.as_secs(),
        };
        assert_eq!(took, expected);
        assert_eq!(serving.service.open.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_answers_may_wait_for_long() {
    let (mut sender, _connection, serving) = client().await;
    let (answer, _) = sender.send_request(get("/late"), true).unwrap();
    sleep(Duration::from_secs(3600)).await;
    serving.service.go.notify_one();
    assert_eq!(
        text(answer.await.unwrap().body_mut()).await.unwrap(),
        "late"
    );
}

#[tokio::test(start_paused = true)]
async fn stopping_lets_streams_end_and_takes_no_new_one() {
    let (mut sender, connection, serving) = client().await;
    let (answer, _) = sender.send_request(get("/late"), true).unwrap();
    serving.service.begun.notified().await;
    serving.stop.send_replace(true);
    // The client has got GOAWAY once it says so.
    sleep(Duration::from_secs(5)).await;
    let refused = match sender.send_request(get("/now"), true) {
        Ok((answer, _)) => answer.await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    serving.service.go.notify_one();
    assert_eq!(
        text(answer.await.unwrap().body_mut()).await.unwrap(),
        "late"
    );
    connection.await.unwrap().unwrap();
    assert_eq!(serving.ended.await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_streams_are_open_at_once_and_one_more_waits() {
    let (sender, _connection, serving) = client().await;
    let mut answers = Vec::new();
    for _ in 0..MOST_STREAMS {
        let mut ready = sender.clone().ready().await.unwrap();
        answers.push(ready.send_request(get("/late"), true).unwrap().0);
    }
    while serving.service.open.load(Ordering::SeqCst) < MOST_STREAMS as usize {
        serving.service.begun.notified().await;
    }
    // A client that keeps to the settings does not send it yet.
    let mut ready = sender.clone().ready().await.unwrap();
    let (mut next, _) = ready.send_request(get("/now"), true).unwrap();
    let waited = timeout(Duration::from_secs(5), &mut next).await;
    assert!(waited.is_err());
    assert_eq!(serving.service.open.load(Ordering::SeqCst), 100);
    for _ in 0..MOST_STREAMS {
        serving.service.go.notify_one();
        tokio::task::yield_now().await;
    }
    for answer in answers {
        let mut answer = answer.await.unwrap();
        assert_eq!(text(answer.body_mut()).await.unwrap(), "late");
    }
    let mut next = next.await.unwrap();
    assert_eq!(text(next.body_mut()).await.unwrap(), "now");
}

#[tokio::test(start_paused = true)]
async fn bodies_arrive_whole_and_trailers_are_passed_on() {
    let (mut sender, _connection, _serving) = client().await;
    let post = Request::post("https://gateway/body").body(()).unwrap();
    let (answer, mut stream) = sender.send_request(post, false).unwrap();
    let mut left = LONG;
    while left > 0 {
        stream.reserve_capacity(left);
        let open = poll_fn(|context| stream.poll_capacity(context)).await;
        let part = open.unwrap().unwrap().min(left);
        left -= part;
        stream
            .send_data(vec![b'x'; part].into(), left == 0)
            .unwrap();
    }
    let said = text(answer.await.unwrap().body_mut()).await.unwrap();
    assert_eq!(said, LONG.to_string());
    let (answer, _) = sender.send_request(get("/trailers"), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    assert_eq!(text(&mut body).await.unwrap(), "with");
    assert_eq!(body.trailers().await.unwrap().unwrap()["x-end"], "yes");
}

/// Frames as they are on the wire: a head of HPACK's static table, and resets.
mod wire {
    pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    /// A frame of this type with these flags.
    pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// `GET / https` of `:authority: g`, with the end of the stream.
    pub(super) fn get(stream: u32) -> Vec<u8> {
        frame(1, 5, stream, &[0x82, 0x87, 0x84, 0x01, 0x01, b'g'])
    }

    pub(super) fn reset(stream: u32) -> Vec<u8> {
        frame(3, 0, stream, &8_u32.to_be_bytes())
    }
}

/// What the HTTP library rejects: fields of a single connection, and pseudo-header fields that are
/// missing, repeated, misplaced or not agreed on.
#[tokio::test(start_paused = true)]
async fn malformed_heads_are_stream_errors() {
    const GET: &[u8] = &[0x82, 0x87, 0x84, 0x01, 0x01, b'g'];
    let field = |name: &str, value: &str| {
        let length = |text: &str| u8::try_from(text.len()).unwrap();
        let (name, value) = ([&[0, length(name)], name.as_bytes()].concat(), value);
        [&name[..], &[length(value)], value.as_bytes()].concat()
    };
    let with = |name: &str, value: &str| [GET, &field(name, value)].concat();
    let (mut ours, serving) = open();
    ours.write_all(wire::PREFACE).await.unwrap();
    let mut said = Vec::new();
    for (n, head) in (0..).zip([
        with("connection", "x-mine"),
        with("transfer-encoding", "chunked"),
        with("upgrade", "h2c"),
        with("keep-alive", "5"),
        with("proxy-connection", "close"),
        with("te", "gzip"),
        with(":method", "GET"),
        with("x-mine", "1").into_iter().chain([0x84]).collect(),
        // Without a path, without a scheme, without a method.
        vec![0x82, 0x87, 0x01, 0x01, b'g'],
        vec![0x82, 0x84, 0x01, 0x01, b'g'],
        vec![0x87, 0x84, 0x01, 0x01, b'g'],
        // Extended CONNECT (RFC 8441), which the settings do not offer.
        [
            &field(":method", "CONNECT"),
            &field(":protocol", "websocket"),
            &GET[1..],
        ]
        .concat(),
    ]) {
        let stream = 2 * n + 1;
        ours.write_all(&wire::frame(1, 5, stream, &head))
            .await
            .unwrap();
        let reset = wire::frame(3, 0, stream, &1_u32.to_be_bytes());
        while !said.windows(reset.len()).any(|part| part == reset) {
            let read = timeout(Duration::from_secs(5), ours.read_buf(&mut said)).await;
            let read = read.unwrap_or_else(|_| panic!("accepted: {head:02x?}"));
            assert_ne!(read.unwrap(), 0, "{head:02x?}");
        }
    }
    assert_eq!(serving.service.open.load(Ordering::SeqCst), 0);
    assert!(!serving.ended.is_finished());
}

#[tokio::test(start_paused = true)]
async fn rapid_resets_end_the_connection() {
    let (mut ours, serving) = open();
    let mut flood = wire::PREFACE.to_vec();
    for n in 0..1000 {
        flood.extend(wire::get(2 * n + 1));
        flood.extend(wire::reset(2 * n + 1));
    }
    ours.write_all(&flood).await.unwrap();
    assert_eq!(serving.ended.await.unwrap(), Some(Malformed::Head));
    let mut said = Vec::new();
    ours.read_to_end(&mut said).await.unwrap();
    // The last frame is GOAWAY with ENHANCE_YOUR_CALM.
    assert!(said.windows(4).any(|four| four == 11_u32.to_be_bytes()));
    assert_eq!(serving.service.open.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_opens_one_more_is_refused() {
    let (mut ours, serving) = open();
    let mut all = wire::PREFACE.to_vec();
    for n in 0..=MOST_STREAMS {
        all.extend(wire::get(2 * n + 1));
    }
    ours.write_all(&all).await.unwrap();
    let refused = wire::frame(3, 0, 2 * MOST_STREAMS + 1, &7_u32.to_be_bytes());
    let mut said = Vec::new();
    while !said.windows(refused.len()).any(|part| part == refused) {
        ours.read_buf(&mut said).await.unwrap();
    }
    assert_eq!(serving.service.open.load(Ordering::SeqCst), 100);
}

#[tokio::test(start_paused = true)]
async fn heads_that_are_too_large_are_refused() {
    let (mut sender, _connection, serving) = client().await;
    let large = Request::get("https://gateway/now").header("x-large", "x".repeat(40_000));
    let (answer, _) = sender.send_request(large.body(()).unwrap(), true).unwrap();
    let refused = match answer.await {
        Ok(answer) => answer.status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Err(error) => error.is_reset(),
    };
    assert!(refused);
    let (answer, _) = sender.send_request(get("/now"), true).unwrap();
    assert_eq!(text(answer.await.unwrap().body_mut()).await.unwrap(), "now");
    assert_eq!(serving.service.open.load(Ordering::SeqCst), 0);
}

/// The bound of RFC 9113, section 10.5.1, for a head that never ends.
#[tokio::test(start_paused = true)]
async fn continuations_without_end_end_the_connection() {
    let (mut ours, serving) = open();
    let mut flood = wire::PREFACE.to_vec();
    flood.extend(wire::frame(1, 0, 1, &[0x82, 0x87, 0x84]));
    let literal = [&[0x00, 0x01, b'x', 0x7f, 0xc1, 0x7d][..], &[b'y'; 16_192]].concat();
    for _ in 0..40 {
        flood.extend(wire::frame(9, 0, 1, &literal));
    }
    // Whoever refuses it need not read all of it.
    let _ = ours.write_all(&flood).await;
    assert_eq!(serving.ended.await.unwrap(), Some(Malformed::Head));
}
