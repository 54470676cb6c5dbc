//! The response of a read that is answered from the store, fresh or stale.
//!
//! Promises the headers of RFC 9111, section 5.1 (`Age`), and RFC 9211 (`Cache-Status`), and that a
//! refresh that the plan asks for starts after the response is made. What may be served is decided
//! in [`plan`](super::plan), the form for one reader in [`representation`](super::representation).

use crate::cache::cache_status::{self, ApiAttempt, CacheStatus, Stale};
use crate::cache::entry::Entry;
use crate::cache::reuse::{Freshness, Need};
use crate::exchange::body::Body;
use crate::exchange::request_id::REQUEST_ID;
use crate::exchange::response::Reply;
use crate::read::Reads;
use crate::read::cacheable::CacheableRead;
use crate::read::plan::StoredServing;
use crate::read::representation::{Whole, show};
use http::{HeaderMap, Response, header};
use std::sync::Arc;
use std::time::Instant;

impl Reads {
    /// Serves a stored response, and starts its refresh if it is due.
    pub(crate) fn serve_stored(
        self: &Arc<Self>,
        reading: CacheableRead,
        stored: StoredServing,
        now: Instant,
    ) -> Reply {
        let StoredServing {
            entry,
            freshness,
            renew,
        } = stored;
        let reply = match freshness {
            Freshness::Fresh => self.hit(&reading, &entry, now),
            Freshness::Stale(need) => self.stale(&reading, &entry, need, ApiAttempt::None),
        };
        match freshness {
            Freshness::Fresh if renew => self.refresh_ahead(reading, &entry),
            Freshness::Stale(need) if renew => self.refresh_behind(reading, &entry, need),
            _ => {}
        }
        reply
    }

    /// Returns the reply with a fresh response.
    fn hit(&self, reading: &CacheableRead, entry: &Entry, now: Instant) -> Reply {
        entry.note_shown();
        let id = reading.context.headers.get(REQUEST_ID).cloned();
        let headers = entry.hit_headers(now, id);
        Reply::hit(show(&reading.recipient(), whole(entry, headers)))
    }

    /// Returns the reply with a stale response, after the request to the API that was `tried`.
    pub(crate) fn stale(
        &self,
        reading: &CacheableRead,
        entry: &Entry,
        need: Need,
        tried: ApiAttempt,
    ) -> Reply {
        entry.note_shown();
        let now = self.clock.now();
        let mut headers = entry.shared_headers();
        let age = cache_status::age(entry.age(now));
        headers.insert(header::AGE, age);
        let status = CacheStatus::stale(&Stale {
            need,
            by: entry.stale_for(now),
            tried,
            key: entry.key(),
        });
        Reply::stale(show(&reading.recipient(), whole(entry, headers)), status)
    }
}

/// Returns a stored response with these headers, to be adapted to a reader.
pub(crate) fn whole(entry: &Entry, headers: HeaderMap) -> Whole {
    Whole {
        status: entry.status(),
        headers,
        body: entry.body().clone(),
        coding: entry.coding(),
        received: entry.received(),
    }
}

/// Returns a stored response with these headers, as it is stored.
pub(crate) fn from_store(entry: &Entry, headers: HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::held(entry.body().clone()));
    *response.status_mut() = entry.status();
    *response.headers_mut() = headers;
    response
}
