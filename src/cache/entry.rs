//! A stored response: its status, header and body, its age, and what it depends on.
//!
//! Promises that an entry keeps no more memory alive than its weight says. The body and every
//! header value are copied out of the much larger buffers in which they were received. An entry
//! holds nothing that belongs to one exchange: rate limits, ids, cookies and hop-by-hop fields are
//! left out. So are `Age` and `Content-Length`, which are computed when the entry is served.
//!
//! The stored header already contains placeholders for the values that differ from hit to hit. A
//! hit therefore clones the header once, and the clone does not grow.
//!
//! This module reads neither the clock nor the fence. Callers pass the present instant, and give
//! the entry's stamp to the fence.

use super::cache_status::{self, CACHE_STATUS};
use super::coding::Coding;
use super::conditional::Validators;
use super::fence::{Dependency, Stamp};
use super::headers::{ReceivedResponse, compact, own_fields};
use super::key::CacheKeyHash;
use super::lifetime::Lifetime;
use super::vary::Variance;
use crate::buffer;
use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Fixed memory of an entry in bytes: its own fields and the bookkeeping of the store.
const FIXED_BYTES: usize = 816;
/// Memory per header in bytes, besides its text: its slot in the map and its share of the index. A
/// map allocates capacity for up to twice as many headers as it holds.
const HEADER_BYTES: usize = 112;
/// Memory per further value of the same header in bytes, besides its text. Doubled, because the map
/// may have allocated capacity for twice as many.
const FURTHER_BYTES: usize = 2 * 72;
/// Memory per header name in bytes, besides its text. Well-known names need none, but are counted
/// too.
const NAME_BYTES: usize = 16;
/// Memory per dependency in bytes, besides its text.
const DEPENDENCY_BYTES: usize = 64;

/// The id of the request. Only the code that serves an entry knows the id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The placeholders that [`Entry::hit_headers`] fills in. They are the last values of a stored
/// header, in this order. The last one is missing if an upstream cache sent a `Cache-Status` of its
/// own.
const PLACES: [HeaderName; 3] = [header::AGE, REQUEST_ID, CACHE_STATUS];
/// The value of a placeholder in the store.
const UNFILLED: HeaderValue = HeaderValue::from_static("");

/// The facts about a response that its message does not contain.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub stamp: Stamp,
    pub depends: Arc<[Dependency]>,
    pub life: Lifetime,
    pub coding: Coding,
    /// Whether the bytes must not be changed, not even decoded.
    pub no_transform: bool,
    pub variance: Option<Variance>,
    /// The hash of the key, without the part that only variants have.
    pub key: CacheKeyHash,
    /// The wall-clock time at which the response was received.
    pub received: SystemTime,
}

/// The least number of hits in a lifetime that makes a refresh ahead of expiry worthwhile.
const OFTEN: u32 = 5;
/// The part of the lifetime in which that refresh may start: the last eighth.
const LAST_PART: u32 = 8;

/// The pause after the first failed refresh of a stale entry, and the longest pause, in
/// milliseconds.
const FIRST_REST: u64 = 1_000;
const LONGEST_REST: u64 = 60_000;

/// A response that may be served to several readers.
#[derive(Debug)]
pub struct Entry {
    status: StatusCode,
    headers: HeaderMap,
    /// The number of header values before the placeholders.
    own_values: usize,
    body: Bytes,
    about: About,
    /// The end of freshness. `None` if the response is never fresh.
    fresh_until: Option<Instant>,
    /// The instant from which a refresh ahead of expiry may start. `None` for never, as
    /// for an immutable response.
    due_from: Option<Instant>,
    /// The generation at which the fence last found this entry valid. 0 for never.
    believed_at: AtomicU64,
    /// The number of times that the entry was served.
    shown: AtomicU32,
    /// Whether the refresh ahead of expiry was claimed.
    renewed: AtomicBool,
    /// The number of claimed background refreshes of this entry while stale, and the end of the
    /// present pause, in milliseconds since the fetch of this entry began.
    attempts: AtomicU32,
    rests_until: AtomicU64,
    /// The `Cache-Status` of hits within one second, with the remaining lifetime for which it was
    /// made.
    status_of_hits: Mutex<Option<(u64, HeaderValue)>>,
}

impl Entry {
    pub(super) fn new(answer: &ReceivedResponse<'_>, about: About) -> Self {
        // A response that is shared but not stored keeps its rate limits and `Retry-After`:
        // they concern every reader that joined the fetch.
        let is_kept = !about.life.is_over() || answer.status.is_success();
        let own = own_fields(answer, about.coding);
        let headers = compact(answer.headers, &own, is_kept, PLACES.len());
        Self::of(answer.status, headers, buffer::copy(answer.body), about)
    }

    /// A copy of the response with the header that a 304 updated. Both entries share the bytes of
    /// the body.
    pub(super) fn renewed(&self, headers: &HeaderMap, about: About) -> Self {
        Self::of(
            self.status,
            compact(headers, &HeaderMap::new(), true, PLACES.len()),
            self.body.clone(),
            about,
        )
    }

    fn of(status: StatusCode, mut headers: HeaderMap, body: Bytes, about: About) -> Self {
        let own_values = headers.len();
        for name in PLACES {
            headers.entry(name).or_insert(UNFILLED);
        }
        // Hits compare instants, which is cheaper than computing an age.
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

    /// The headers that every reader gets, without placeholders.
    pub fn shared_headers(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        for name in PLACES {
            // A `Cache-Status` of an upstream cache belongs to the response and stays.
            if headers.get(&name) == Some(&UNFILLED) {
                headers.remove(name);
            }
        }
        headers
    }

    /// The complete header of a hit: the shared headers, `Age`, `Cache-Status` after those of
    /// upstream caches, and the id of the request if it has one.
    pub fn hit_headers(&self, now: Instant, id: Option<HeaderValue>) -> HeaderMap {
        let mut headers = self.headers.clone();
        let age = self.age(now);
        let mut status = Some(self.status_of_hit(age));
        // In the order of `PLACES`. A lookup by name would cost more than the rest of this
        // function.
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

    /// The `Cache-Status` of a hit. All hits within one second share it, so it is formatted once
    /// for them.
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

    /// The stored body. Cloning it copies no bytes.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The coding of the stored body.
    pub fn coding(&self) -> Coding {
        self.about.coding
    }

    /// Whether the bytes must not be changed, not even decoded (RFC 9111, section 5.2.2.6).
    pub fn no_transform(&self) -> bool {
        self.about.no_transform
    }

    /// The requests for which the response was chosen. `None` if it serves all requests with its
    /// key.
    pub fn variance(&self) -> Option<&Variance> {
        self.about.variance.as_ref()
    }

    /// The hash of the key, without the part that only variants have.
    pub fn key(&self) -> CacheKeyHash {
        self.about.key
    }

    /// The wall-clock time at which the response was received.
    pub fn received(&self) -> SystemTime {
        self.about.received
    }

    /// The lifetime.
    pub fn life(&self) -> &Lifetime {
        &self.about.life
    }

    /// The validators for a conditional request to the API.
    pub fn validators(&self) -> Option<Validators> {
        Validators::of(&self.headers)
    }

    /// The age for the `Age` field (RFC 9111, section 4.2.3): the age at receipt plus the time
    /// since the fetch began. The count starts with the fetch, so the time in transit is included.
    pub fn age(&self, now: Instant) -> Duration {
        self.about.life.initial_age + now.saturating_duration_since(self.about.stamp.at())
    }

    /// The remaining freshness. Zero if the entry is stale.
    pub fn remaining(&self, now: Instant) -> Duration {
        self.about.life.fresh_for.saturating_sub(self.age(now))
    }

    /// How long the entry has been stale. Zero if it is fresh.
    pub fn stale_for(&self, now: Instant) -> Duration {
        self.age(now).saturating_sub(self.about.life.fresh_for)
    }

    /// Whether the entry is within its lifetime. Says nothing about writes: the fence judges those.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.fresh_until.is_some_and(|end| now < end)
    }

    /// Counts one more use of the entry.
    pub fn note_shown(&self) {
        self.shown.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of times that the entry was served.
    pub fn shown(&self) -> u32 {
        self.shown.load(Ordering::Relaxed)
    }

    /// Returns whether to refresh the entry ahead of its expiry if it is served now: it is served
    /// often, the last part of its lifetime has begun, and no reader has claimed the refresh yet.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due_from.is_some_and(|begin| now > begin)
            && self.shown().saturating_add(1) >= OFTEN
            && !self.renewed.load(Ordering::Relaxed)
    }

    /// Claims the refresh ahead of expiry. Returns `true` to exactly one caller.
    pub fn claim_renewal(&self) -> bool {
        !self.renewed.swap(true, Ordering::Relaxed)
    }

    /// Claims a background refresh of a stale entry. Returns `true` to one caller per pause.
    ///
    /// After an attempt that did not replace the entry, the next is allowed a second later. Each
    /// further failure doubles the pause, up to a minute. Serving stale responses often must not
    /// mean calling a failing API often.
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

    /// The stamp of the fetch.
    pub fn stamp(&self) -> Stamp {
        self.about.stamp
    }

    /// The dependencies of the response.
    pub fn depends(&self) -> &[Dependency] {
        &self.about.depends
    }

    /// The memory that the entry takes in bytes, without its key.
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

    /// Whether the fence found the entry valid at this generation.
    pub(super) fn is_believed_at(&self, generation: u64) -> bool {
        self.believed_at.load(Ordering::Relaxed) == generation
    }

    /// Records that the fence found the entry valid at this generation. Racing readers may store
    /// different generations. Each is true, and a lower one only causes another check.
    pub(super) fn set_believed_at(&self, generation: u64) {
        self.believed_at.store(generation, Ordering::Relaxed);
    }
}

fn dependency_bytes(name: &Dependency) -> usize {
    match name {
        Dependency::Tag(tag) => tag.as_str().len() + DEPENDENCY_BYTES,
        Dependency::Path(path) => path.len() + DEPENDENCY_BYTES,
        _ => DEPENDENCY_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fence::{Fence, Tag};
    use super::*;
    use crate::clock::Clock;

    fn entry(status: u16, headers: &HeaderMap, body: &[u8], now: Instant) -> Entry {
        let answer = ReceivedResponse {
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
            ("set-cookie2", "a=b"),
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
