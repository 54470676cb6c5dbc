//! The short way of a hit: a plain read that is in the store, answered before the layers.
//!
//! Promises the very answer that the long way would give, counted under the same outcome, or none:
//! then nothing has happened yet and the long way is to be taken. It never waits, and never reads a
//! body.
//!
//! It takes only what it knows to be harmless. A field that is not on its list, whatever is odd,
//! all requests where the layers are to tell of each: that goes the long way, so a rule that is
//! added there holds here as long as its field is not listed here.

use crate::cache::coding::{Coding, accepts_gzip};
use crate::cache::key::{Key, KeyParts, Lines};
use crate::credential::{self, Credential, Hasher};
use crate::exchange::body::Body;
use crate::exchange::cache_status::CacheStatus;
use crate::exchange::edge;
use crate::exchange::ids::Ids;
use crate::exchange::request::Peer;
use crate::exchange::request_id::{self, REQUEST_ID, RequestIds};
use crate::exchange::settings::AccessLog;
use crate::exchange::timing::Timing;
use crate::gateway::Gateway;
use crate::gateway::record::Line;
use crate::metrics::Outcome;
use crate::read::representation::{Reader, show};
use crate::read::serve::{from_store, whole};
use crate::route::policy::Operation;
use crate::route::query;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use parking_lot::Mutex;
use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Longer values of `Authorization`, in bytes, are not remembered.
const LONGEST_REMEMBERED: usize = 4 * 1024;
/// More fields than this are not looked through.
const MOST_FIELDS: usize = 32;

/// Fields that mean nothing to the gateway in a read without a body, however often they come: no
/// key holds them (see [`fields`](crate::cache::fields)).
const HARMLESS: [HeaderName; 7] = [
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
    header::USER_AGENT,
    header::REFERER,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
];

/// What a connection remembers of its last request: the credential, because naming it takes a hash
/// over the token. Nothing shows the token.
#[derive(Default)]
pub(crate) struct Memory(Mutex<Option<(Box<[u8]>, Credential)>>);

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

impl Memory {
    /// The credential of these headers, which have this one `Authorization`; none if it names
    /// nobody.
    fn credential(
        &self,
        authorization: &HeaderValue,
        headers: &HeaderMap,
        hasher: &Hasher,
    ) -> Option<Credential> {
        let mut last = self.0.lock();
        if let Some((value, credential)) = &*last
            && **value == *authorization.as_bytes()
        {
            return Some(*credential);
        }
        if !credential::is_named(headers) {
            return None;
        }
        let credential = hasher.credential(headers);
        // A copy: the value is a part of what was read from the connection, which is much larger.
        if authorization.len() <= LONGEST_REMEMBERED {
            *last = Some((authorization.as_bytes().into(), credential));
        }
        Some(credential)
    }
}

/// What matters of the header of a plain request.
#[derive(Clone, Copy, Debug, Default)]
struct Plain<'r> {
    authorization: Option<&'r HeaderValue>,
    accept: Option<&'r HeaderValue>,
    origin: Option<&'r HeaderValue>,
    id: Option<&'r HeaderValue>,
    accept_encoding: Option<&'r HeaderValue>,
    if_none_match: Option<&'r HeaderValue>,
    host: bool,
    content_type: bool,
}

impl<'r> Plain<'r> {
    /// Looks through the fields once; `None` if any of them needs a closer look.
    fn of(headers: &'r HeaderMap) -> Option<Self> {
        if headers.len() > MOST_FIELDS {
            return None;
        }
        let mut plain = Self::default();
        for (name, value) in headers {
            let first = if *name == header::AUTHORIZATION {
                plain.authorization.replace(value).is_none()
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

/// Whether it asks for a path, as it is, and has no body.
fn is_plain<B: http_body::Body>(request: &Request<B>) -> bool {
    let uri = request.uri();
    *request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && request.body().is_end_stream()
        && uri.authority().is_none()
        && uri.scheme().is_none()
}

/// Whether it is a host name or address, perhaps with a port, in its usual form.
fn is_plain_host(host: &HeaderValue) -> bool {
    let usual = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
    host.as_bytes().iter().all(usual)
}

/// Whether the connection is to be kept, and an offer to upgrade it is all that it says besides.
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

/// A hit that is about to be answered.
struct Hit<'r> {
    operation: &'r Operation,
    method: &'r Method,
    status: StatusCode,
    credential: Credential,
    peer: Peer,
    from: Instant,
}

impl Gateway {
    /// The answer, if it is in the store and nothing but the answer is asked for.
    pub(crate) fn at_once<B: http_body::Body>(
        &self,
        request: &Request<B>,
        peer: Peer,
        memory: &Memory,
        ids: &RequestIds,
    ) -> Option<Response<Body>> {
        // The layers tell of each request at debug level; in shadow mode nobody is shown a hit.
        if self.shadow.is_some() || self.debug.load(Ordering::Relaxed) || !is_plain(request) {
            return None;
        }
        let now = self.clock.now();
        let (uri, headers) = (request.uri(), request.headers());
        let path = uri.path();
        let plain = Plain::of(headers)?;
        // It is spelled in one way only, so that an own path would be known by its beginning.
        let table = self.router.table.get();
        let operation = table.find_plain(request.method(), path)?;
        if path.starts_with(edge::OWN) {
            return None;
        }
        operation.cache.as_ref()?;
        let query = query::canonical(uri.query(), &operation.lists).ok()?;
        let credential = memory.credential(plain.authorization?, headers, &self.router.hasher)?;
        let key = Key::new(&KeyParts {
            credential: credential.bytes(),
            operation: u32::try_from(operation.index).unwrap_or(u32::MAX),
            path,
            query: &query,
            accept: Lines::Only(plain.accept),
            origin: Lines::Only(plain.origin),
            content: None,
        });
        let entry = self.cache.lookup(&key, now)?;
        // Others are counted by their status.
        if !entry.status().is_success() {
            return None;
        }
        if entry.coding() != Coding::Plain && !accepts_gzip(plain.accept_encoding) {
            return None;
        }
        // The long way fetches a new one.
        if entry.is_due(now) {
            return None;
        }
        entry.note_shown();
        let id = plain.id.cloned().unwrap_or_else(|| ids.next());
        let trail = self
            .tracer
            .as_ref()
            .and_then(|tracer| tracer.begin(headers));
        let is_logged = self.router.settings.get().access == AccessLog::All;
        // Only where somebody is told of it.
        let named = (is_logged || trail.is_some()).then(|| Ids::of_hit(headers, &id, trail));
        let shown = entry.hit_headers(now, Some(id));
        let answer = match plain.if_none_match {
            None => from_store(&entry, shown),
            Some(_) => {
                let method = request.method();
                show(&Reader { method, headers }, whole(&entry, shown))
            }
        };
        let hit = Hit {
            operation,
            method: request.method(),
            status: answer.status(),
            credential,
            peer,
            from: now,
        };
        self.tell_of_hit(&hit, named.as_ref());
        Some(answer)
    }

    /// Counts a hit, and tells whoever is to be told of it.
    fn tell_of_hit(&self, hit: &Hit<'_>, named: Option<&Ids>) {
        let elapsed = self.clock.now().saturating_duration_since(hit.from);
        if hit.status.is_success() {
            self.metrics.hit(hit.operation.index, elapsed);
        } else {
            let status = hit.status.as_u16();
            self.metrics.other_hit(&hit.operation.name, status, elapsed);
        }
        let Some(ids) = named else {
            return;
        };
        let stretch = (hit.from, elapsed);
        self.tell_hit(ids, hit.method, hit.operation, hit.status, stretch);
        if self.router.settings.get().access == AccessLog::All {
            let line = Line {
                operation: &hit.operation.name,
                method: hit.method,
                status: hit.status,
                outcome: Outcome::Hit,
                error: None,
                cache: Some(CacheStatus::hit().reason()),
                shadow: None,
                elapsed,
                timing: &Timing::default(),
                credential: Some(hit.credential),
                peer: Some(hit.peer),
                caller: None,
                ids,
                write_id: None,
            };
            line.write();
        }
    }
}
