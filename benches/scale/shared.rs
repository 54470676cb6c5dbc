//! What all requests share: the quotas of callers, the shares of peers, and the cache.

use crate::stored::{self, CREDENTIAL, key};
use crate::{Scale, peer};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use segment_gateway::cache::fence::Tag;
use segment_gateway::cache::{Cache, CacheSpec, Invalidation, Join};
use segment_gateway::clock::Clock;
use segment_gateway::exchange::callers::{Allowed, Quotas};
use segment_gateway::exchange::share::Share;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// No caller comes near its quota, and no cache is full.
const PLENTY: u32 = 1_000_000_000;
const BODY: [u8; 600] = [b'x'; 600];

pub(crate) fn measure(scale: &Scale) {
    scale.title("callers and shares, with other peers");
    scale.row(
        "a request is charged to the quota of its caller",
        |others| {
            let quotas = quotas();
            (0..=others).for_each(|n| charge(&quotas, n));
            move || charge(&quotas, others / 2)
        },
    );
    scale.row(
        "a body takes its share of the memory, and returns it",
        |others| {
            let share = Share::new(usize::MAX);
            let taken: Vec<_> = (1..=others).map(|n| portion(&share, n)).collect();
            move || {
                drop(black_box(portion(&share, 0)));
                black_box(taken.len());
            }
        },
    );
    caches(scale);
}

fn caches(scale: &Scale) {
    let clock = &scale.bench.clock;
    scale.title("the cache, with other answers");
    scale.row("look-up of a stored answer", |others| {
        let (cache, key, now) = (filled(others, clock), key(others / 2), clock.now());
        move || assert!(black_box(cache.lookup(&key, now)).is_some())
    });
    scale.row("store an answer", |others| {
        let (cache, now) = (filled(others, clock), clock.now());
        let write = touched(&[Tag::new(format!("user:user-{:05}", others / 2))]);
        let header = json();
        move || {
            // Else the stored answer would be served.
            cache.settle(&write, now);
            stored::store(&cache, others / 2, (&header, &BODY), now);
        }
    });
    scale.row("settle a write that names one tag", |others| {
        let (cache, now) = (filled(others, clock), clock.now());
        let write = touched(&[Tag::new("user:user-00001")]);
        move || cache.settle(&write, now)
    });
    scale.row("settle a write that changes a credential", |others| {
        let (cache, now) = (filled(others, clock), clock.now());
        let write = Invalidation::Credential(CREDENTIAL);
        move || cache.settle(&write, now)
    });
    scale.row(
        "settle a write with other marks, and the first look-up",
        |others| {
            let (cache, now) = (filled(others, clock), clock.now());
            let others_tags: Vec<Tag> = (0..others)
                .map(|n| Tag::new(format!("other:{n}")))
                .collect();
            cache.settle(&touched(&others_tags), now);
            let (write, key) = (touched(&others_tags[..1]), key(others / 2));
            move || {
                cache.settle(&write, now);
                assert!(black_box(cache.lookup(&key, now)).is_some());
            }
        },
    );
    scale.title("a fetch, with other fetches in flight");
    scale.row("it is begun, and ends", |others| {
        let (cache, now) = (cache(), clock.now());
        let flights: Vec<Join> = (1..=others).map(|n| stored::join(&cache, n, now)).collect();
        move || {
            let Join::Lead(leader) = stored::join(&cache, 0, now) else {
                panic!("nobody else fetches")
            };
            drop(black_box(leader));
            black_box(flights.len());
        }
    });
}

fn quotas() -> Quotas {
    let plenty = NonZeroU32::new(PLENTY).unwrap_or(NonZeroU32::MIN);
    let allowed = Allowed {
        rate: plenty,
        per: Duration::from_secs(1),
        burst: plenty,
        tracked: PLENTY as usize,
    };
    Quotas::new(allowed, governor::clock::QuantaClock::default())
}

fn charge(quotas: &Quotas, n: u32) {
    assert!(quotas.charge(&peer(n)).is_ok());
}

fn portion(share: &Share, n: u32) -> segment_gateway::exchange::share::Portion {
    let mut portion = share.portion(&peer(n).principal);
    assert!(portion.grow(600).is_ok());
    portion
}

/// The header of an answer that is stored.
fn json() -> HeaderMap {
    let json = HeaderValue::from_static("application/json");
    HeaderMap::from_iter([(CONTENT_TYPE, json)])
}

fn cache() -> Arc<Cache> {
    Arc::new(Cache::new(&CacheSpec {
        bytes: PLENTY.into(),
        largest_body: 4 << 20,
        fetches: PLENTY as usize,
        marks: 100_000,
    }))
}

/// A cache with so many answers, and one more.
fn filled(answers: u32, clock: &Clock) -> Arc<Cache> {
    let cache = cache();
    let (header, now) = (json(), clock.now());
    (0..=answers).for_each(|user| stored::store(&cache, user, (&header, &BODY), now));
    cache.tidy();
    cache
}

fn touched(tags: &[Tag]) -> Invalidation {
    Invalidation::Named {
        tags: tags.to_vec(),
        paths: Vec::new(),
    }
}
