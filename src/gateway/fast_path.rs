//! The fast path of a hit: a plain read that is stored, answered before the layers.
//!
//! Promises exactly the response that the layers would give, counted under the same outcome, or
//! none. If there is none, nothing has happened yet and the request takes the layers. The fast path
//! never waits and never reads a body.
//!
//! The steps, cheapest first: form of the request → headers → operation → sender → key → store
//! → [plan](crate::read::plan) → response → report. A hit takes no lock that another connection
//! may hold for long, and allocates little more than its key and its headers.
//!
//! The fast path accepts only what it knows to be harmless: the headers on its list, in their usual
//! form. An unknown header, an unusual form or debug logging of every request sends the request
//! through the layers. So a rule that is added to the layers holds here too, as long as its header
//! is not on the list. Add a header there only if no layer acts on it in a read.

use crate::cache::cache_status::CacheStatus;
use crate::cache::coding::{Coding, accepts_gzip};
use crate::cache::key::{CacheKey, KeyParts, Lines};
use crate::exchange::body::Body;
use crate::exchange::edge;
use crate::exchange::identity::Admitted;
use crate::exchange::ids::Ids;
use crate::exchange::progress::Progress;
use crate::exchange::request::Peer;
use crate::exchange::request_id::{self, REQUEST_ID, RequestIds};
use crate::exchange::settings::AccessLog;
use crate::exchange::timing::Timing;
use crate::gateway::Gateway;
use crate::gateway::report::RequestReport;
use crate::gateway::sender_cache::SenderCache;
use crate::metrics::Outcome;
use crate::read::plan::{ReadFacts, ReadPlan, StoredServing, plan};
use crate::read::representation::{Recipient, show};
use crate::read::stored::{from_store, whole};
use crate::route::policy::Operation;
use crate::route::query;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Requests with more header lines take the layers.
const MOST_FIELDS: usize = 32;

/// Headers without meaning for the gateway in a read without a body, however often they occur. No
/// cache key contains them (see [`fields`](crate::cache::fields)).
const HARMLESS: [HeaderName; 7] = [
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
    header::USER_AGENT,
    header::REFERER,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
];

/// The headers of a plain request that matter to the fast path. Each of them occurs once at most.
#[derive(Clone, Copy, Debug, Default)]
struct Plain<'r> {
    /// Whether there was an `Authorization`.
    authorization: bool,
    accept: Option<&'r HeaderValue>,
    origin: Option<&'r HeaderValue>,
    /// The id that the caller gave the request. Without one the gateway makes one.
    id: Option<&'r HeaderValue>,
    /// Not a part of the key: a stored coding is shown only to a reader that accepts it.
    accept_encoding: Option<&'r HeaderValue>,
    if_none_match: Option<&'r HeaderValue>,
    /// Whether there was a `Host`. Its value is not used.
    host: bool,
    /// Whether there was a `Content-Type`. Without a body it has no meaning.
    content_type: bool,
}

impl<'r> Plain<'r> {
    /// Reads the headers once. Returns `None` if any header needs the rules of the layers.
    fn of(headers: &'r HeaderMap) -> Option<Self> {
        if headers.len() > MOST_FIELDS {
            return None;
        }
        // One pass over all headers, since an unknown one anywhere ends the fast path.
        let mut plain = Self::default();
        for (name, value) in headers {
            // True if the header occurs once and in its usual form. A second line of the same name
            // takes the layers, which have the rules for repeated headers.
            let first = if *name == header::AUTHORIZATION {
                !std::mem::replace(&mut plain.authorization, true)
            } else if *name == header::HOST {
                !std::mem::replace(&mut plain.host, true) && is_plain_host(value)
            } else if *name == header::ACCEPT {
                plain.accept.replace(value).is_none()
            } else if *name == header::ACCEPT_ENCODING {
                plain.accept_encoding.replace(value).is_none()
            } else if *name == header::IF_NONE_MATCH {
                plain.if_none_match.replace(value).is_none()
            } else if *name == header::ORIGIN {
                plain.origin.replace(value).is_none()
            } else if *name == header::CONTENT_TYPE {
                !std::mem::replace(&mut plain.content_type, true)
            } else if *name == header::CONNECTION {
                is_plain_connection(value)
            } else if HARMLESS.contains(name) {
                true
            } else if *name == header::ACCEPT_LANGUAGE {
                value == "*"
            } else if *name == REQUEST_ID {
                plain.id.replace(value).is_none() && request_id::is_fit(value)
            } else {
                false
            };
            if !first {
                return None;
            }
        }
        plain.host.then_some(plain)
    }
}

/// Returns whether the request is a `GET` over HTTP/1.1 or HTTP/2, in origin form and without a
/// body.
fn is_plain<B: http_body::Body>(request: &Request<B>) -> bool {
    let uri = request.uri();
    *request.method() == Method::GET
        && matches!(request.version(), Version::HTTP_11 | Version::HTTP_2)
        && request.body().is_end_stream()
        && uri.authority().is_none()
        && uri.scheme().is_none()
}

/// Returns whether `Host` is a name or an address in its usual form, perhaps with a port.
fn is_plain_host(host: &HeaderValue) -> bool {
    let usual = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
    let colons = host.as_bytes().iter().filter(|byte| **byte == b':');
    host.as_bytes().iter().all(usual) && colons.count() <= 1
}

/// Returns whether the connection is kept alive, with no option besides an offer to upgrade.
fn is_plain_connection(value: &HeaderValue) -> bool {
    let options: [&[u8]; 3] = [b"keep-alive", b"upgrade", b"http2-settings"];
    let value = value.as_bytes();
    value.eq_ignore_ascii_case(options[0])
        || value.split(|byte| *byte == b',').all(|option| {
            let option = option.trim_ascii();
            options
                .iter()
                .any(|plain| option.eq_ignore_ascii_case(plain))
        })
}

/// A hit that is about to be reported. Borrowed from the request, so that nothing is copied for the
/// report.
struct Hit<'r> {
    operation: &'r Operation,
    method: &'r Method,
    version: Version,
    status: StatusCode,
    sender: &'r Admitted,
    peer: Peer,
    /// The instant at which the request was received.
    from: Instant,
}

impl Hit<'_> {
    /// Returns the name of the client, if one is known.
    fn client(&self) -> Option<&str> {
        self.sender.identity.client.as_deref()
    }
}

impl Gateway {
    /// Returns the response if it is stored, valid and fresh, and the request asks for nothing
    /// else.
    ///
    /// The checks that cost least come first. Nothing is counted or noted before the last of them
    /// has passed, so `None` leaves nothing in metrics, log or spans.
    pub(crate) fn try_fast_path<B: http_body::Body>(
        &self,
        request: &Request<B>,
        peer: Peer,
        senders: &SenderCache,
        ids: &RequestIds,
    ) -> Option<Response<Body>> {
        // At debug level the layers log every request. In shadow mode callers never see a hit.
        if self.shadow.is_some() || self.debug.load(Ordering::Relaxed) || !is_plain(request) {
            return None;
        }
        // The only reading of the clock before the response: freshness and latency count from it.
        let now = self.clock.now();
        let (uri, headers) = (request.uri(), request.headers());
        let path = uri.path();
        let plain = Plain::of(headers)?;
        // The table matches one spelling of a path only, so the prefix of the gateway's own paths
        // is compared literally.
        let table = self.router.table.get();
        // Only operations with a cache policy can have a hit; the others take the layers. Paths in
        // another spelling than the template's are not found here.
        let operation = table.find_plain(request.method(), path)?;
        if path.starts_with(edge::OWN) {
            return None;
        }
        operation.cache.as_ref()?;
        // A query without a canonical form has no key.
        let query = query::canonical(uri.query(), &operation.lists).ok()?;
        // Without a credential there is no key. A client may read what is stored only if it may ask
        // the API for it: its rights are judged for each request.
        let sender = senders.sender(headers, &self.router, || self.clock.wall())?;
        sender.may(operation, false).ok()?;
        let credential = sender.identity.credential;
        // The key must equal the one that `crate::read::cacheable` builds. Headers that would add
        // to it are not on the list of harmless ones.
        let key = CacheKey::new(&KeyParts {
            credential: credential.bytes(),
            operation: u32::try_from(operation.index).unwrap_or(u32::MAX),
            path,
            query: &query,
            accept: Lines::Only(plain.accept),
            origin: Lines::Only(plain.origin),
            content: None,
        });
        // The same plan as behind the layers, for a reader that requires nothing.
        let facts = ReadFacts::fresh(self.cache.lookup(&key, now)?, now);
        // An entry that is due for a refresh takes the layers, which start the refresh.
        let ReadPlan::Serve(StoredServing {
            entry,
            renew: false,
            ..
        }) = plan(facts, false, || false)
        else {
            return None;
        };
        // Hits with another status are counted by that status, which the layers do.
        if !entry.status().is_success() {
            return None;
        }
        // A response that would have to be decoded is left to the layers, too.
        if entry.coding() != Coding::Plain && !accepts_gzip(plain.accept_encoding) {
            return None;
        }
        // From here on the response is certain: nothing below returns `None`.
        entry.note_shown();
        let id = plain.id.cloned().unwrap_or_else(|| ids.next());
        let trail = self
            .tracer
            .as_ref()
            .and_then(|tracer| tracer.begin(headers));
        let is_logged = self.router.settings.get().access == AccessLog::All;
        // Ids are collected only for a log line or a span.
        let named =
            (is_logged || trail.is_some()).then(|| Ids::at(Some(id.clone()), headers, trail));
        // The headers of a hit are complete here; no layer adds to them.
        let shown = entry.hit_headers(now, Some(id));
        // Without a condition the stored response is the answer. With one it may be a 304.
        let answer = match plain.if_none_match {
            None => from_store(&entry, shown),
            Some(_) => {
                let method = request.method();
                show(&Recipient { method, headers }, whole(&entry, shown))
            }
        };
        let hit = Hit {
            operation,
            method: request.method(),
            version: request.version(),
            status: answer.status(),
            sender: &sender,
            peer,
            from: now,
        };
        self.report_hit(&hit, named.as_ref());
        Some(answer)
    }

    /// Counts a hit, and writes its span and its log line where these are wanted.
    ///
    /// The record of the layers is not used: it would be created before it is known that there is a
    /// hit, and allocates.
    fn report_hit(&self, hit: &Hit<'_>, named: Option<&Ids>) {
        let elapsed = self.clock.now().saturating_duration_since(hit.from);
        if let Some(client) = hit.client() {
            self.metrics.client(client, Outcome::Hit);
        }
        // Counters are found by index. A map look-up would cost more than the rest of the report.
        if hit.status.is_success() {
            self.metrics.hit(hit.operation.index, elapsed);
        } else {
            let status = hit.status.as_u16();
            self.metrics.other_hit(&hit.operation.name, status, elapsed);
        }
        let Some(ids) = named else {
            return;
        };
        // The whole time of a hit is its lookup.
        let progress = Progress::default();
        progress.looked((hit.from, hit.from + elapsed));
        let report = RequestReport {
            ids,
            method: hit.method,
            version: hit.version,
            operation: Some(hit.operation),
            credential: Some(hit.sender.identity.credential),
            client: hit.client(),
            key: hit.sender.identity.key,
            peer: Some(hit.peer),
            caller: None,
            outcome: Outcome::Hit,
            status: Some(hit.status),
            error: None,
            cache: Some(&CacheStatus::hit()),
            shadow: None,
            write_id: None,
            // Neither queued nor sent.
            timing: &Timing::default(),
            progress: Some(&progress),
            from: hit.from,
            elapsed,
        };
        self.report_spans(&report);
        if self.router.settings.get().access == AccessLog::All {
            report.write_line();
        }
    }
}
