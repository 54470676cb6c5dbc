//! Pure. The log of arrivals at the sandbox: the facts by which a gateway is judged.

use std::collections::VecDeque;
use std::time::Instant;

use serde_json::{Value, json};

/// The most arrivals kept; the oldest are dropped.
pub const MOST_ARRIVALS: usize = 100_000;
/// The most bytes kept of a body and of a target: enough for a list of 50 email addresses.
const MOST_BYTES: usize = 4_096;
/// The most bytes kept of all bodies and targets.
const MOST_BYTES_IN_ALL: usize = 64 << 20;

/// One request as it was counted.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The number of the arrival, from 0, never given twice.
    pub index: u64,
    /// The instant at which it was counted and, if applied, took effect.
    pub at: Instant,
    /// The sender.
    pub by: By,
    /// The number of its token in the order of first use, from 1; 0 without an accepted token.
    pub token: u32,
    /// The name of its operation, or `unknown` if no operation has this path.
    pub operation: &'static str,
    /// The method as received.
    pub method: Box<str>,
    /// Path and query as received (the first 4 KiB).
    pub target: Box<str>,
    /// The body as received (the first 4 KiB, with bytes that are not UTF-8 replaced).
    pub body: Box<str>,
    /// The status of its response, even if that was lost.
    pub status: u16,
    /// The decision of the limit.
    pub count: CountResult,
    /// Whether it changed the state, at least in part.
    pub applied: bool,
    /// The version of the state that it saw (reads) or left (writes).
    pub version: u64,
}

/// The sender of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A client with a connection.
    Gateway,
    /// Another user of the token, simulated.
    Other,
}

/// The decision of the operation's limit about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountResult {
    /// Counted and within the limit.
    Admitted,
    /// Rejected with 429, because the limit was reached.
    Refused,
    /// Counted and within the limit, but rejected with 429 by an injected fault.
    Injected,
    /// Never counted: no operation, no token, or answered by a balancer in front of the API.
    Uncounted,
}

impl Arrival {
    /// Returns whether it was answered with 429, for whatever reason.
    pub fn refused(&self) -> bool {
        matches!(self.count, CountResult::Refused | CountResult::Injected)
    }

    fn bytes(&self) -> usize {
        self.target.len() + self.body.len()
    }

    /// Returns the JSON of `GET /_sandbox/requests`; times in milliseconds since `start`.
    pub(super) fn to_json(&self, start: Instant) -> Value {
        let millis = self.at.saturating_duration_since(start).as_secs_f64() * 1_000.0;
        json!({
            "index": self.index,
            "atMs": millis,
            "by": if self.by == By::Gateway { "gateway" } else { "other" },
            "token": self.token,
            "operation": self.operation,
            "method": &*self.method,
            "target": &*self.target,
            "body": &*self.body,
            "status": self.status,
            "count": match self.count {
                CountResult::Admitted => "admitted",
                CountResult::Refused => "refused",
                CountResult::Injected => "injected",
                CountResult::Uncounted => "uncounted",
            },
            "refused": self.refused(),
            "applied": self.applied,
            "version": self.version,
        })
    }
}

/// Returns the first 4 KiB of a text.
pub(super) fn shortened(bytes: &[u8]) -> Box<str> {
    let end = bytes.len().min(MOST_BYTES);
    String::from_utf8_lossy(&bytes[..end]).into()
}

/// The latest arrivals, in the order in which they were logged. Arrivals of others are logged when
/// the next request of the same operation is counted, so their instants may be earlier.
#[derive(Default)]
pub(super) struct ArrivalLog {
    kept: VecDeque<Arrival>,
    next: u64,
    bytes: usize,
}

impl ArrivalLog {
    /// Logs an arrival and gives it an index.
    pub(super) fn note(&mut self, mut arrival: Arrival) {
        self.bytes += arrival.bytes();
        while self.kept.len() >= MOST_ARRIVALS || self.bytes > MOST_BYTES_IN_ALL {
            let Some(oldest) = self.kept.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes();
        }
        arrival.index = self.next;
        self.next += 1;
        self.kept.push_back(arrival);
    }

    /// Returns the kept arrivals from `index` on.
    pub(super) fn since(&self, index: u64) -> impl Iterator<Item = &Arrival> {
        let first = self.next - self.kept.len() as u64;
        let skipped = usize::try_from(index.saturating_sub(first))
            .unwrap_or(usize::MAX)
            .min(self.kept.len());
        self.kept.range(skipped..)
    }

    /// Returns the index of the next arrival.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Forgets all arrivals; the numbers continue.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(status: u16) -> Arrival {
        Arrival {
            index: 0,
            at: super::super::some_instant(),
            by: By::Gateway,
            token: 1,
            operation: "getUser",
            method: "GET".into(),
            target: "/users/u".into(),
            body: "".into(),
            status,
            count: CountResult::Admitted,
            applied: false,
            version: 0,
        }
    }

    #[test]
    fn the_log_is_bounded_and_numbers_go_on() {
        let mut log = ArrivalLog::default();
        for _ in 0..MOST_ARRIVALS + 5 {
            log.note(arrival(200));
        }
        assert_eq!(log.since(0).count(), MOST_ARRIVALS);
        assert_eq!(log.since(0).next().unwrap().index, 5);
        assert_eq!(log.since(MOST_ARRIVALS as u64 + 3).count(), 2);
        assert_eq!(log.since(u64::MAX).count(), 0);
        log.clear();
        log.note(arrival(201));
        let left: Vec<(u64, u16)> = log.since(0).map(|a| (a.index, a.status)).collect();
        assert_eq!(left, [(MOST_ARRIVALS as u64 + 5, 201)]);
    }

    #[test]
    fn long_texts_push_out_old_arrivals_sooner() {
        let mut log = ArrivalLog::default();
        for _ in 0..20_000 {
            log.note(Arrival {
                body: shortened(&[b'a'; 5_000]),
                ..arrival(200)
            });
        }
        let bytes: usize = log.since(0).map(Arrival::bytes).sum();
        assert_eq!(bytes, log.bytes);
        assert!(bytes <= MOST_BYTES_IN_ALL && bytes > MOST_BYTES_IN_ALL - 2 * MOST_BYTES);
        assert_eq!(log.since(0).last().map(|a| a.index), Some(19_999));
    }

    #[test]
    fn texts_are_shortened() {
        assert_eq!(shortened(&[b'a'; 5_000]).len(), MOST_BYTES);
        assert_eq!(&*shortened(b"\xFFok"), "\u{FFFD}ok");
    }
}
