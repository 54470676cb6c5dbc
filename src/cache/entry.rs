//! A stored answer: what is shown of it, how old it is, and what it depends on.
//!
//! Promises that an entry holds on to no more memory than its weight says: the body and every
//! header value are copied out of the buffers they were received in, which are much larger. It
//! holds nothing that belongs to one exchange only: rate limits, ids, cookies and hop-by-hop
//! fields are left out, and so are `Age` and `Content-Length`, which follow from it.
//!
//! What differs from hit to hit has its places in the stored header already, so that showing an
//! answer takes one copy of it and nothing grows.
//!
//! It does not know the clock or the fence; both are asked with its instants and its stamp.

use super::cache_status::{self, CACHE_STATUS};
use super::coding::{Coding, is_gzip};
use super::conditional::{Validators, own_tag, shows_another};
use super::control::{is_hop_by_hop, lists_token, tokens};
use super::fence::{Dependency, Stamp};
use super::key::KeyHash;
use super::lifetime::Lifetime;
use super::vary::Variance;
use crate::buffer;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// What an entry takes besides its parts, in bytes: its own fields, the store's bookkeeping.
const FIXED_BYTES: usize = 816;
/// What a header takes in the map besides its text, in bytes, its share of the index included.
/// The map has room for more headers than it holds: up to twice as many.
const HEADER_BYTES: usize = 112;
/// What a further value of the same header takes besides its text, in bytes; there is room for up
/// to twice as many of these, too.
const FURTHER_BYTES: usize = 2 * 72;
/// What a name that is not one of the well-known takes besides its text, in bytes.
const NAME_BYTES: usize = 16;
/// What a dependency takes besides its text, in bytes.
const DEPENDENCY_BYTES: usize = 64;

/// The id of the request that is answered; whoever shows an entry knows it.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Where [`Entry::hit_headers`] fills something in: the last values of a stored header, in this
/// order. The last of them is not there if an upstream cache said something of its own.
const PLACES: [HeaderName; 3] = [header::AGE, REQUEST_ID, CACHE_STATUS];
/// What stands there in the store.
const UNFILLED: HeaderValue = HeaderValue::from_static("");

/// An answer as it came from upstream.
#[derive(Clone, Debug)]
pub struct Answer<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, all of them.
    pub headers: &'a HeaderMap,
    /// Its body, complete.
    pub body: &'a [u8],
}

/// What is known about an answer besides itself.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub stamp: Stamp,
    pub depends: Arc<[Dependency]>,
    pub life: Lifetime,
    pub coding: Coding,
    /// Its bytes are not to be changed, not even decoded.
    pub no_transform: bool,
    pub variance: Option<Variance>,
    /// The key without what varies.
    pub key: KeyHash,
    /// When it came, by the wall clock.
    pub received: SystemTime,
}

/// How often an answer has to be asked for in its lifetime to be worth a new one before its end.
const OFTEN: u32 = 5;
/// The last part of a lifetime, in which a new one is fetched: one of so many.
const LAST_PART: u32 = 8;

/// How long a stale answer rests after the first attempt to replace it, and at most, in
/// milliseconds.
const FIRST_REST: u64 = 1_000;
const LONGEST_REST: u64 = 60_000;

/// An answer that may be shown to more than one reader.
#[derive(Debug)]
pub struct Entry {
    status: StatusCode,
    headers: HeaderMap,
    /// How many values of the header precede the places.
    own_values: usize,
    body: Bytes,
    about: About,
    /// Until when it is fresh; `None` if it never is.
    fresh_until: Option<Instant>,
    /// From when on a new one may be fetched before it is stale; `None` if never.
    due_from: Option<Instant>,
    /// The generation of the fence at which the stamp was last believed; 0 is none.
    believed_at: AtomicU64,
    /// How often it was shown.
    shown: AtomicU32,
    /// Whether somebody has begun to fetch a new one before its end.
    renewed: AtomicBool,
    /// How often a new one was fetched behind it in vain, and when that may be tried again, in
    /// milliseconds since its fetch began.
    attempts: AtomicU32,
    rests_until: AtomicU64,
    /// What its hits of one second say in `Cache-Status`, and of which second of its lifetime.
    status_of_hits: Mutex<Option<(u64, HeaderValue)>>,
}

impl Entry {
    pub(super) fn new(answer: &Answer<'_>, about: About) -> Self {
        // What is shared at once and not kept may say what is left of the limit, and when to come
        // again: it concerns all who wait for it.
        let is_kept = !about.life.is_over() || answer.status.is_success();
        let headers = compact(answer.headers, &own_fields(answer, &about), is_kept);
        Self::of(answer.status, headers, buffer::copy(answer.body), about)
    }

    /// The same answer with the header that a 304 has renewed. Its bytes are shared with the older
    /// one.
    pub(super) fn renewed(&self, headers: &HeaderMap, about: About) -> Self {
        Self::of(
            self.status,
            compact(headers, &HeaderMap::new(), true),
            self.body.clone(),
            about,
        )
    }

    fn of(status: StatusCode, mut headers: HeaderMap, body: Bytes, about: About) -> Self {
        let own_values = headers.len();
        for name in PLACES {
            headers.entry(name).or_insert(UNFILLED);
        }
        // Hits compare instants: cheaper than what follows from ages.
        let life = &about.life;
        let span = life.fresh_for.saturating_sub(life.initial_age);
        let after = |time: Duration| {
            let begun = about.stamp.at();
            (!span.is_zero()).then(|| begun.checked_add(time).unwrap_or(begun))
        };
        let fresh_until = after(span);
        let due_from = after(span - span / LAST_PART).filter(|_| !life.immutable);
        Self {
            status,
            headers,
            own_values,
            body,
            about,
            fresh_until,
            due_from,
            believed_at: AtomicU64::new(0),
            shown: AtomicU32::new(0),
            renewed: AtomicBool::new(false),
            attempts: AtomicU32::new(0),
            rests_until: AtomicU64::new(0),
            status_of_hits: Mutex::new(None),
        }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers that belong to the answer itself.
    pub fn shared_headers(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        for name in PLACES {
            // An upstream cache's word on it is the answer's own.
            if headers.get(&name) == Some(&UNFILLED) {
                headers.remove(name);
            }
        }
        headers
    }

    /// The whole header of a hit: besides the answer's own, its `Age`, its `Cache-Status` (behind
    /// what upstream caches said) and the id of the request that it answers, if that has one.
    pub fn hit_headers(&self, now: Instant, id: Option<HeaderValue>) -> HeaderMap {
        let mut headers = self.headers.clone();
        let age = self.age(now);
        let mut status = Some(self.status_of_hit(age));
        // In the order of PLACES: a look-up by name would cost more than all else here.
        let mut places = headers.values_mut().skip(self.own_values);
        if let Some(place) = places.next() {
            *place = cache_status::age(age);
        }
        let named = id.is_some();
        if let (Some(place), Some(id)) = (places.next(), id) {
            *place = id;
        }
        if let Some(place) = places.next() {
            *place = status.take().unwrap_or(UNFILLED);
        }
        if let Some(status) = status {
            headers.append(CACHE_STATUS, status);
        }
        if !named {
            headers.remove(REQUEST_ID);
        }
        headers
    }

    /// It is the same for all hits of one second, so it is written once for them.
    fn status_of_hit(&self, age: Duration) -> HeaderValue {
        let left = self.about.life.fresh_for.saturating_sub(age).as_secs();
        let mut last = self.status_of_hits.lock();
        match &*last {
            Some((second, value)) if *second == left => value.clone(),
            _ => {
                let value = cache_status::hit(left, self.about.key);
                *last = Some((left, value.clone()));
                value
            }
        }
    }

    /// The body as it is stored. A clone of it copies nothing.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// How the body stands for the answer.
    pub fn coding(&self) -> Coding {
        self.about.coding
    }

    /// Whether its bytes must not be changed, not even decoded (RFC 9111, section 5.2.2.6).
    pub fn no_transform(&self) -> bool {
        self.about.no_transform
    }

    /// Which requests it is for, if not for all under its key.
    pub fn variance(&self) -> Option<&Variance> {
        self.about.variance.as_ref()
    }

    /// Its key without what varies.
    pub fn key(&self) -> KeyHash {
        self.about.key
    }

    /// When it came, by the wall clock.
    pub fn received(&self) -> SystemTime {
        self.about.received
    }

    /// Its life.
    pub fn life(&self) -> &Lifetime {
        &self.about.life
    }

    /// What the API can be asked about it with.
    pub fn validators(&self) -> Option<Validators> {
        Validators::of(&self.headers)
    }

    /// Whether a HEAD that was answered with this header shows that there is another answer now.
    pub fn is_another_than(&self, head: &HeaderMap) -> bool {
        let bytes = match (self.about.coding, is_gzip(head)) {
            (Coding::Plain, Some(false)) | (Coding::Gzip(_), Some(true)) => Some(self.body.len()),
            (Coding::Gzip(decoded), Some(false)) => Some(decoded),
            _ => None,
        };
        shows_another(head, &self.headers, bytes)
    }

    /// Its age for the `Age` field (RFC 9111, section 4.2.3): counted from the beginning of its
    /// fetch, so that the time on the way is included, plus the age it came with.
    pub fn age(&self, now: Instant) -> Duration {
        self.about.life.initial_age + now.saturating_duration_since(self.about.stamp.at())
    }

    /// How much longer it is fresh; zero if it no longer is.
    pub fn remaining(&self, now: Instant) -> Duration {
        self.about.life.fresh_for.saturating_sub(self.age(now))
    }

    /// For how long it has been stale; zero if it is fresh.
    pub fn stale_for(&self, now: Instant) -> Duration {
        self.age(now).saturating_sub(self.about.life.fresh_for)
    }

    /// Whether it may be shown as far as its lifetime goes.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.fresh_until.is_some_and(|end| now < end)
    }

    /// It is shown once more.
    pub fn note_shown(&self) {
        self.shown.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was shown.
    pub fn shown(&self) -> u32 {
        self.shown.load(Ordering::Relaxed)
    }

    /// Whether a new one should be fetched before it is stale: it is asked for often, the last
    /// part of its lifetime has begun, and nobody has done so yet.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due_from.is_some_and(|begin| now > begin)
            && self.shown() >= OFTEN
            && !self.renewed.load(Ordering::Relaxed)
    }

    /// Whether the caller is the one who fetches the new one.
    pub fn claim_renewal(&self) -> bool {
        !self.renewed.swap(true, Ordering::Relaxed)
    }

    /// Whether the caller is the one who fetches a new one behind it now that it is stale. After an
    /// attempt that did not replace it the next one is made a second later, and after each more in
    /// vain twice as long, a minute at most: stale answers must not ask an API in trouble as often as
    /// they are shown.
    pub fn claim_attempt(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.about.stamp.at());
        let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let until = self.rests_until.load(Ordering::Relaxed);
        if since < until {
            return false;
        }
        let attempts = self.attempts.load(Ordering::Relaxed);
        let rest = (FIRST_REST << attempts.min(6)).min(LONGEST_REST);
        let next = since.saturating_add(rest);
        let claimed =
            self.rests_until
                .compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed);
        if claimed.is_ok() {
            self.attempts.store(attempts + 1, Ordering::Relaxed);
        }
        claimed.is_ok()
    }

    /// When its fetch began.
    pub fn stamp(&self) -> Stamp {
        self.about.stamp
    }

    /// What it depends on.
    pub fn depends(&self) -> &[Dependency] {
        &self.about.depends
    }

    /// What it takes in memory, in bytes, its key not included.
    pub fn weight_bytes(&self) -> usize {
        let map = &self.headers;
        let names = map.keys().map(|name| name.as_str().len() + NAME_BYTES);
        let values = map.values().map(HeaderValue::len);
        let further = map.len() - map.keys_len();
        let headers = map.capacity() * HEADER_BYTES
            + further * FURTHER_BYTES
            + names.chain(values).sum::<usize>();
        let depends: usize = self.about.depends.iter().map(dependency_bytes).sum();
        FIXED_BYTES + self.body.len() + headers + depends
    }

    /// Whether the stamp was already judged, and believed, at this generation.
    pub(super) fn is_believed_at(&self, generation: u64) -> bool {
        self.believed_at.load(Ordering::Relaxed) == generation
    }

    /// Remembers that the stamp was believed at this generation. Readers that race set different
    /// generations; either is true, and a lower one costs another judgement.
    pub(super) fn set_believed_at(&self, generation: u64) {
        self.believed_at.store(generation, Ordering::Relaxed);
    }
}

/// What the gateway adds to an answer that is stored: a tag where there is none, and that readers
/// get it in different codings.
pub(super) fn own_fields(answer: &Answer<'_>, about: &About) -> HeaderMap {
    let mut own = HeaderMap::new();
    let whole = matches!(answer.status.as_u16(), 200 | 203);
    if whole && !answer.headers.contains_key(header::ETAG) {
        own.insert(header::ETAG, own_tag(answer.body));
    }
    let said = lists_token(answer.headers.get_all(header::VARY), "accept-encoding");
    if about.coding != Coding::Plain && !said {
        own.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    own
}

fn dependency_bytes(name: &Dependency) -> usize {
    match name {
        Dependency::Tag(tag) => tag.as_str().len() + DEPENDENCY_BYTES,
        Dependency::Path(path) => path.len() + DEPENDENCY_BYTES,
        _ => DEPENDENCY_BYTES,
    }
}

/// Copies the headers that are kept, and `own` ones, their values into one buffer of exactly their
/// length. Limits belong to one moment: they are left out of what is kept for longer.
fn compact(headers: &HeaderMap, own: &HeaderMap, without_limits: bool) -> HeaderMap {
    let kept = || {
        let of_the_answer = headers
            .iter()
            .filter(|(name, _)| is_kept(name, headers) && !(without_limits && is_of_limits(name)));
        of_the_answer.chain(own)
    };
    let mut buffer = BytesMut::with_capacity(kept().map(|(_, value)| value.len()).sum());
    for (_, value) in kept() {
        buffer.extend_from_slice(value.as_bytes());
    }
    let mut buffer = buffer.freeze();
    let mut copy = HeaderMap::with_capacity(kept().count() + PLACES.len());
    for (name, value) in kept() {
        let bytes = buffer.split_to(value.len());
        // Both were valid a moment ago; a name or value that no longer is would be left out.
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_maybe_shared(bytes)) {
            copy.append(name, value);
        }
    }
    copy
}

fn is_kept(name: &HeaderName, headers: &HeaderMap) -> bool {
    !is_of_exchange(name) && !is_hop_by_hop(name) && !is_named_by_connection(name, headers)
}

fn is_of_limits(name: &HeaderName) -> bool {
    let name = name.as_str();
    name == "retry-after" || name.starts_with("x-ratelimit") || name.starts_with("ratelimit")
}

/// Fields of one exchange: its ids, its timing, its cookies, and what follows from the copy.
fn is_of_exchange(name: &HeaderName) -> bool {
    const NAMES: [&str; 14] = [
        "age",
        "cf-ray",
        "content-length",
        "request-id",
        "server-timing",
        "set-cookie",
        "set-cookie2",
        "traceparent",
        "tracestate",
        "x-amz-cf-id",
        "x-amzn-requestid",
        "x-amzn-trace-id",
        "x-correlation-id",
        "x-request-id",
    ];
    NAMES.contains(&name.as_str())
}

fn is_named_by_connection(name: &HeaderName, headers: &HeaderMap) -> bool {
    tokens(headers.get_all(header::CONNECTION))
        .any(|named| named.eq_ignore_ascii_case(name.as_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::fence::{Fence, Tag};
    use super::*;
    use crate::clock::Clock;

    fn entry(status: u16, headers: &HeaderMap, body: &[u8], now: Instant) -> Entry {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body,
        };
        let stored = status < 400;
        let about = About {
            stamp: Fence::new(1).stamp(now),
            depends: Arc::from([Dependency::Tag(Tag::new("users"))]),
            life: Lifetime {
                fresh_for: Duration::from_secs(if stored { 10 } else { 0 }),
                initial_age: Duration::from_secs(3),
                ..Lifetime::default()
            },
            coding: Coding::Plain,
            no_transform: false,
            variance: None,
            key: "00000000000000ff".parse().unwrap(),
            received: SystemTime::UNIX_EPOCH,
        };
        Entry::new(&answer, about)
    }

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "application/json"),
            ("content-length", "2"),
            ("date", "Mon, 23 Nov 2026 19:26:00 GMT"),
            ("etag", "\"x\""),
            ("link", "a"),
            ("link", "b"),
            ("age", "3"),
            ("x-ratelimit-remaining", "3"),
            ("x-ratelimit-reset", "Mon, 23 Nov 2026 19:26:00 GMT"),
            ("retry-after", "3"),
            ("x-request-id", "1"),
            ("set-cookie", "a=b"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("x-custom", "kept"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_what_belongs_to_the_answer_is_kept() {
        let now = Clock::system().now();
        let kept = |entry: &Entry| {
            let headers = entry.shared_headers();
            let mut names: Vec<_> = headers.keys().map(|n| n.to_string()).collect();
            names.sort();
            names.join(" ")
        };
        let stored = entry(200, &headers(), b"{}", now);
        assert_eq!(kept(&stored), "content-type date etag link x-custom");
        let headers = stored.shared_headers();
        let links: Vec<_> = headers.get_all("link").iter().collect();
        assert_eq!(links, ["a", "b"]);
        assert_eq!(headers["x-custom"], "kept");
        let shared = entry(503, &self::headers(), b"{}", now);
        assert_eq!(
            kept(&shared),
            "content-type date etag link retry-after x-custom x-ratelimit-remaining x-ratelimit-reset"
        );
    }

    const HIT: &str = "segment-gateway; hit; ttl=3; key=\"00000000000000ff\"";

    #[test]
    fn a_hit_says_its_age_its_status_and_its_request_without_growing() {
        let now = Clock::system().now();
        let later = now + Duration::from_secs(4);
        let stored = entry(200, &headers(), b"{}", now);
        let id = Some(HeaderValue::from_static("one"));
        let shown = stored.hit_headers(later, id.clone());
        assert_eq!(shown["age"], "7");
        assert_eq!(shown["cache-status"], HIT);
        assert_eq!(shown["x-request-id"], "one");
        assert_eq!(shown.len(), stored.headers.len());
        let mut without_id = shown.clone();
        without_id.remove("x-request-id");
        assert_eq!(stored.hit_headers(later, None), without_id);

        let mut headers = headers();
        headers.append("cache-status", HeaderValue::from_static("CDN; hit"));
        let stored = entry(200, &headers, b"{}", now);
        assert_eq!(stored.shared_headers()["cache-status"], "CDN; hit");
        let shown = stored.hit_headers(later, id);
        let said: Vec<_> = shown.get_all("cache-status").iter().collect();
        assert_eq!(said, ["CDN; hit", HIT]);
    }

    #[test]
    fn nothing_keeps_a_larger_buffer_alive() {
        let large = Bytes::from(vec![b'x'; 1 << 20]);
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_maybe_shared(large.slice(..5)).unwrap();
        headers.insert("x-custom", value);
        let stored = entry(200, &headers, &large.slice(..7), Clock::system().now());
        drop(headers);
        assert_eq!(stored.shared_headers()["x-custom"], "xxxxx");
        assert!(large.is_unique(), "a part of the buffer is still in use");
        assert!(stored.weight_bytes() < 2_000);
    }

    #[test]
    fn the_room_that_a_map_of_headers_takes_is_weighed() {
        // A place in the map: hash, name, value and links to further values.
        let place = 8 + size_of::<HeaderName>() + size_of::<HeaderValue>() + 24;
        let now = Clock::system().now();
        let depends = dependency_bytes(&Dependency::Tag(Tag::new("users")));
        for count in [1, 3, 7, 13, 25, 49, 97] {
            let mut headers = HeaderMap::new();
            for number in 0..count {
                let name = HeaderName::try_from(format!("x-{number}")).unwrap();
                headers.insert(name, HeaderValue::from_static("value"));
            }
            let stored = entry(200, &headers, b"", now);
            let map = &stored.headers;
            let own = map["etag"].len();
            assert_eq!(map.len(), count + 1 + PLACES.len());
            let least = map.capacity() * place + count * "value".len() + own;
            let weight = stored.weight_bytes() - FIXED_BYTES - depends;
            assert!(weight >= least, "{count}: {weight} of {least}");
            assert!(weight <= least * 3 / 2, "{count}: {weight} of {least}");
        }
    }

    #[test]
    fn the_fixed_part_is_not_larger_than_is_weighed() {
        // Besides it: two counts, what hits say, and what the store keeps of each key.
        let rest = 16 + 96 + 200;
        let fixed = size_of::<Entry>() + rest;
        assert!(fixed <= FIXED_BYTES, "{fixed}");
    }

    #[test]
    fn age_counts_from_the_beginning_of_the_fetch() {
        let now = Clock::system().now();
        let stored = entry(200, &HeaderMap::new(), b"", now);
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(stored.age(at(4)), Duration::from_secs(7));
        assert_eq!(stored.remaining(at(4)), Duration::from_secs(3));
        assert!(stored.is_fresh(at(6)));
        assert!(!stored.is_fresh(at(7)));
        assert_eq!(stored.remaining(at(8)), Duration::ZERO);
    }
}
