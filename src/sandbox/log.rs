//! Pure. What arrived at the sandbox: the facts by which a gateway is judged.

use std::collections::VecDeque;
use std::time::Instant;

use serde_json::{Value, json};

/// How many arrivals are kept; older ones are forgotten.
pub const MOST_ARRIVALS: usize = 100_000;
/// How many bytes of a request's body and of its target are kept: enough for a list of 50 emails.
const MOST_BYTES: usize = 4_096;
/// How many bytes of bodies and targets are kept in all.
const MOST_BYTES_IN_ALL: usize = 64 << 20;

/// One request as it was counted.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its number, from 0, never given twice.
    pub index: u64,
    /// When it was counted and, where it was applied, took effect.
    pub at: Instant,
    /// Who made it.
    pub by: By,
    /// The number of its token in the order of first use, from 1; 0: none that is accepted.
    pub token: u32,
    /// The name of its operation; `unknown` where no operation has this path.
    pub operation: &'static str,
    /// Its method, as it came.
    pub method: Box<str>,
    /// Path and query, as they came (the first 4 KiB).
    pub target: Box<str>,
    /// The body, as it came (the first 4 KiB, bytes that are not UTF-8 replaced).
    pub body: Box<str>,
    /// The status of its answer, even where that was lost.
    pub status: u16,
    /// What the limit said.
    pub count: Count,
    /// Whether it changed the state, be it in part.
    pub effect: Effect,
    /// The version of the state that it saw (reads) or left (writes).
    pub version: u64,
}

/// Who made a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// It came over a connection.
    Gateway,
    /// Another user of the token, simulated.
    Other,
}

/// What the limit of its operation said to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Counted and within the limit.
    Admitted,
    /// Refused with 429, because the limit was reached.
    Refused,
    /// Counted and within the limit, but refused with 429 by an injected fault.
    Injected,
    /// Never counted: no operation, no token, or answered by a balancer ahead of the API.
    Uncounted,
}

/// Whether a request changed the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It did.
    Applied,
    /// It did not.
    Nothing,
}

impl Arrival {
    /// Whether it was answered with 429, for whatever reason.
    pub fn refused(&self) -> bool {
        matches!(self.count, Count::Refused | Count::Injected)
    }

    /// Whether it changed the state.
    pub fn applied(&self) -> bool {
        self.effect == Effect::Applied
    }

    fn bytes(&self) -> usize {
        self.target.len() + self.body.len()
    }

    /// As `GET /_sandbox/requests` shows it; times in milliseconds since `start`.
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
                Count::Admitted => "admitted",
                Count::Refused => "refused",
                Count::Injected => "injected",
                Count::Uncounted => "uncounted",
            },
            "refused": self.refused(),
            "applied": self.applied(),
            "version": self.version,
        })
    }
}

/// The first 4 KiB of a text.
pub(super) fn shortened(bytes: &[u8]) -> Box<str> {
    let end = bytes.len().min(MOST_BYTES);
    String::from_utf8_lossy(&bytes[..end]).into()
}

/// The latest arrivals, in the order in which they were noted. Those of others are noted when
/// the next request of the same operation is counted, so theirs may be earlier instants.
#[derive(Default)]
pub(super) struct Log {
    kept: VecDeque<Arrival>,
    next: u64,
    bytes: usize,
}

impl Log {
    /// Notes an arrival; its index is given here.
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

    /// What is kept of the arrivals from `index` on.
    pub(super) fn since(&self, index: u64) -> impl Iterator<Item = &Arrival> {
        let first = self.next - self.kept.len() as u64;
        let skipped = usize::try_from(index.saturating_sub(first))
            .unwrap_or(usize::MAX)
            .min(self.kept.len());
        self.kept.range(skipped..)
    }

    /// The index of the next arrival.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Forgets all arrivals; the numbers go on.
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
            count: Count::Admitted,
            effect: Effect::Nothing,
            version: 0,
        }
    }

    #[test]
    fn the_log_is_bounded_and_numbers_go_on() {
        let mut log = Log::default();
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
        let mut log = Log::default();
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
