//! Many stored answers: what it costs to find one of them, and what each takes in memory.
//!
//! The keys of a batch are made before it is measured and are chosen by chance, so that with a
//! million answers hardly any part of one is in the processor's caches, and its key is, as in the
//! gateway.

use crate::stored::{key, store};
use crate::{Failure, grouped, spread};
use http::{HeaderMap, HeaderName, HeaderValue};
use segment_gateway::cache::key::CacheKey;
use segment_gateway::cache::{Cache, CacheSpec};
use segment_gateway::clock::Clock;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// Large enough for all of them.
const CACHE_BYTES: u64 = 4 << 30;
const BODY: [u8; 600] = [b'x'; 600];
/// Look-ups in a batch.
const BATCH: u32 = 20_000;

/// A cache with answers about so many users.
struct Filled {
    cache: Arc<Cache>,
    users: u32,
    /// What storing took for each, in microseconds.
    storing: f64,
    /// What an answer takes by the cache's own account, in bytes.
    weight: f64,
    /// What the process has more of for each, in bytes.
    resident: f64,
}

pub(crate) fn measure(quick: bool) -> Result<(), Failure> {
    let (users, batches) = if quick {
        ([1_000, 20_000], 5)
    } else {
        ([1_000, 1_000_000], 101)
    };
    let clock = Clock::system();
    let mut random = fastrand::Rng::with_seed(7);
    let filled = users
        .into_iter()
        .map(|users| Filled::new(users, &clock))
        .collect::<Result<Vec<_>, _>>()?;
    let mut took = vec![Vec::new(); filled.len()];
    // In turn, and the first batch of each is the warm-up.
    for turn in 0..=batches {
        for (filled, took) in filled.iter().zip(&mut took) {
            let keys: Vec<CacheKey> = (0..BATCH)
                .map(|_| key(random.u32(..filled.users)))
                .collect();
            let each = filled.look_up(&keys, &clock)?;
            if turn > 0 {
                took.push(each);
            }
        }
    }
    println!(
        "\nstored keys: a body of {} B, {batches} batches of {} look-ups of keys by chance, in turn\n\
         {:>14}  {:>8} {:>8} {:>8}  {:>14}  {:>16}  {:>12}",
        BODY.len(),
        grouped(BATCH as usize),
        "look-up, ns:",
        "least",
        "median",
        "most",
        "weight, B each",
        "resident, B each",
        "to store, µs",
    );
    for (filled, took) in filled.iter().zip(took) {
        let [least, median, most] = spread(took);
        println!(
            "{:>14}  {least:>8.0} {median:>8.0} {most:>8.0}  {:>14.0}  {:>16.0}  {:>12.1}",
            grouped(filled.users as usize),
            filled.weight,
            filled.resident,
            filled.storing,
        );
    }
    Ok(())
}

impl Filled {
    fn new(users: u32, clock: &Clock) -> Result<Self, Failure> {
        let cache = Arc::new(Cache::new(&CacheSpec {
            bytes: CACHE_BYTES,
            largest_body: 4 << 20,
            fetches: 256,
            marks: 100_000,
        }));
        let headers = headers();
        let before = resident()?;
        let began = clock.now();
        for user in 0..users {
            store(&cache, user, (&headers, &BODY), began);
        }
        let took = clock.now() - began;
        cache.tidy();
        let stats = cache.stats();
        if stats.entries != u64::from(users) || stats.evictions > 0 {
            return Err(format!("not all are stored: {stats:?}").into());
        }
        let each = |whole: u64| whole as f64 / f64::from(users);
        Ok(Self {
            users,
            storing: took.as_secs_f64() * 1e6 / f64::from(users),
            weight: each(stats.bytes),
            resident: each(resident()?.saturating_sub(before)),
            cache,
        })
    }

    /// What a look-up takes, in nanoseconds.
    fn look_up(&self, keys: &[CacheKey], clock: &Clock) -> Result<f64, Failure> {
        let now = clock.now();
        let found = |key: &CacheKey| usize::from(self.find(key, now));
        let hits: usize = keys.iter().map(found).sum();
        let took = clock.now() - now;
        if hits != keys.len() {
            return Err(format!("{hits} of {} were found", keys.len()).into());
        }
        Ok(took.as_secs_f64() * 1e9 / keys.len() as f64)
    }

    fn find(&self, key: &CacheKey, now: Instant) -> bool {
        black_box(self.cache.lookup(black_box(key), now)).is_some()
    }
}

/// What the API says in the header of every answer, with a few fields of whoever stands before it.
fn headers() -> HeaderMap {
    let fields = [
        ("content-type", "application/vnd.segment.v1+json"),
        ("content-length", "600"),
        ("date", "Mon, 23 Nov 2026 19:26:00 GMT"),
        ("x-ratelimit-consumed", "1"),
        ("x-ratelimit-remaining", "199"),
        ("x-ratelimit-reset", "Mon, 23 Nov 2026 19:26:29 GMT"),
        ("x-request-id", "5a0b7a1e-6d0c-4c6f-9e0f-2f1f4d8e7c11"),
        ("strict-transport-security", "max-age=31536000"),
        ("x-content-type-options", "nosniff"),
    ];
    let field = |(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    fields.into_iter().map(field).collect()
}

/// The resident memory of this process, in bytes.
fn resident() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.ok_or("the system does not tell the resident memory")? * 1_024)
}
