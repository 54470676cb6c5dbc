//! No request changes what another one gets, whatever fields it has: a response in the cache, or of
//! a fetch that is under way, depends on nothing but what is in its key.

use super::super::support::clients::{client, entry, held};
use super::super::support::scripted::{Script, Seen, Step, answer};
use super::super::support::{World, from_peer, request, with};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use segment_gateway::clients::{ClientKey, Clients, CredentialMode};
use std::sync::Arc;
use std::time::Duration;

/// Fields that an API, or a balancer in front of it, may read.
const FIELDS: [(&str, &str); 26] = [
    ("accept", "application/json"),
    ("accept", "application/vnd.segment.v1beta+json"),
    ("accept", "text/html"),
    ("accept-language", "de"),
    ("accept-language", "*"),
    ("cookie", "session=1"),
    ("origin", "https://evil.example"),
    ("user-agent", "evil/1"),
    ("x-forwarded-host", "evil.example"),
    ("x-forwarded-for", "192.0.2.1"),
    ("x-forwarded-proto", "http"),
    ("forwarded", "host=evil.example"),
    ("x-original-url", "/groups"),
    ("x-rewrite-url", "/groups"),
    ("x-http-method-override", "DELETE"),
    ("x-http-method", "POST"),
    ("x-api-version", "0"),
    ("content-type", "text/plain"),
    ("range", "bytes=0-0"),
    ("cache-control", "no-cache"),
    ("cache-control", "no-transform"),
    ("if-none-match", "\"other\""),
    ("prefer", "return=minimal"),
    ("x-unknown", "1"),
    ("x-unknown", "2"),
    ("referer", "https://evil.example/"),
];
/// Spellings of what is read.
const TARGETS: [&str; 6] = [
    "/users",
    "/users?pagination[count]=10",
    "/users?pagination%5Bcount%5D=10",
    "/users?x=1&y=2",
    "/users?y=2&x=1",
    "/%75sers",
];
/// Fields that differ between attempts, that say how the body is packed, or that are for caches on
/// the way: none of them selects a response (RFC 9110, section 12.5.3; RFC 9111, section 5.2.1).
const NOT_SELECTING: [&str; 5] = [
    "traceparent",
    "tracestate",
    "x-request-id",
    "accept-encoding",
    "cache-control",
];

/// One of the two clients, a target and fields.
#[derive(Clone, Debug)]
struct Read {
    by_first: bool,
    target: &'static str,
    fields: Vec<(&'static str, &'static str)>,
}

fn reads() -> impl Strategy<Value = Read> {
    let fields = vec(select(&FIELDS[..]), 0..4);
    (any::<bool>(), select(&TARGETS[..]), fields).prop_map(|(by_first, target, fields)| Read {
        by_first,
        target,
        fields,
    })
}

/// An API whose response shows everything that it was sent.
fn showing() -> Arc<Script> {
    Script::new(|seen: &Seen, _| {
        let fields = seen.headers.iter();
        let fields = fields.filter(|(name, _)| !NOT_SELECTING.contains(&name.as_str()));
        let mut lines: Vec<String> = fields.map(|field| format!("{field:?}")).collect();
        lines.sort();
        let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
        // Spellings of one query are one key.
        let query = percent_decode_str(query).decode_utf8_lossy();
        let mut query: Vec<&str> = query.split('&').collect();
        query.sort_unstable();
        let body = format!("{:?}", (&seen.method, path, query, lines));
        Step::Later(Duration::from_millis(50), answer(200, &body))
    })
}

/// A gateway with two clients that share a token.
struct Shared {
    world: Arc<World>,
    keys: [ClientKey; 2],
}

impl Shared {
    fn start() -> Self {
        let world = showing().world();
        let keys = [(); 2].map(|()| ClientKey::generate().unwrap());
        let clients = ["a", "b"].map(|name| {
            let may = ["listUsers", "unmatchedRead", "unmatchedWrite"];
            client(&world, name, "held", &may)
        });
        let entries = keys.iter().zip(&clients);
        let entries = entries.map(|(key, client)| entry(key, client, None));
        let clients = Clients::new(
            CredentialMode::Managed,
            clients.to_vec(),
            entries.collect(),
            Vec::new(),
        );
        let router = world.gateway.router();
        router.clients.set(clients);
        router
            .tokens
            .set(vec![held(&world, "held", "t", Some("t"))]);
        Self { world, keys }
    }

    fn request(&self, read: &Read) -> Request<Full<Bytes>> {
        let (key, peer) = match read.by_first {
            true => (&self.keys[0], 1),
            false => (&self.keys[1], 2),
        };
        let plain = request(Method::GET, read.target, key.reveal(), "");
        let asked = from_peer(plain, peer);
        let fields = read.fields.iter();
        fields.fold(asked, |asked, (name, value)| with(asked, name, value))
    }

    /// What a reader gets: the status and the body.
    async fn read(&self, read: &Read) -> (u16, String) {
        let answer = self.world.send(self.request(read)).await;
        (answer.status.as_u16(), answer.text())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// What a reader gets after others, or while their fetches are under way, is what it gets alone.
    #[test]
    fn no_field_of_one_request_reaches_the_response_to_another(
        others in vec(reads(), 1..4),
        read in reads(),
        under_way in any::<bool>(),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        let (alone, shared) = runtime.block_on(async {
            let alone = Shared::start().read(&read).await;
            let shared = Shared::start();
            let asked = others.iter().map(|other| {
                shared.world.spawn(shared.request(other))
            });
            let asked: Vec<_> = asked.collect();
            if under_way {
                tokio::time::sleep(Duration::from_millis(1)).await;
            } else {
                for one in asked {
                    one.await.unwrap();
                }
            }
            (alone, shared.read(&read).await)
        });
        prop_assert_eq!(alone, shared);
    }
}
