//! Pure. The requests that the gateway rejected recently, grouped, for operators who ask why.
//!
//! A group is an operation, a kind of error and a status. It has a count for each of the last 15
//! minutes. Groups are bounded in number, and noting a rejection takes a time that does not depend
//! on how many there were. A group contains nothing that a caller chose.

use crate::credential::Credential;
use foldhash::HashMap;
use http::StatusCode;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most groups that are kept. There are a few in a bad hour.
const MOST: usize = 64;
/// The number of minutes that are counted.
const MINUTES: u64 = 15;

/// A rejected request.
#[derive(Clone, Debug)]
pub struct RecentRejection {
    /// The instant of the response.
    pub at: Instant,
    /// The operation, or `none` if it was not known.
    pub operation: Arc<str>,
    /// The type of the error.
    pub kind: &'static str,
    /// The status of the response.
    pub status: StatusCode,
    /// The credential, if it was known.
    pub credential: Option<Credential>,
    /// The name of the client, if one is known.
    pub client: Option<Arc<str>>,
    /// The address of the connection, unless the request came from within.
    pub peer: Option<IpAddr>,
}

/// Rejections of one operation, kind and status.
#[derive(Clone, Debug)]
pub struct RejectionGroup {
    /// The latest of them.
    pub latest: RecentRejection,
    /// The number of them in each minute, by the minute modulo [`MINUTES`].
    counts: [u32; MINUTES as usize],
    /// The minute of the latest one, counted from the first rejection of all.
    minute: u64,
}

/// The recent rejections.
#[derive(Debug, Default)]
pub struct RecentRejections {
    /// The instant of the first rejection, from which minutes are counted.
    start: Option<Instant>,
    groups: HashMap<(Arc<str>, &'static str, StatusCode), RejectionGroup>,
}

impl RecentRejections {
    /// Counts a rejection, and drops the group that is oldest if there are too many.
    pub fn note(&mut self, rejection: RecentRejection) {
        let minute = self.minute(rejection.at);
        let key = (
            rejection.operation.clone(),
            rejection.kind,
            rejection.status,
        );
        if self.groups.len() >= MOST && !self.groups.contains_key(&key) {
            let oldest = self.groups.iter().min_by_key(|(_, group)| group.latest.at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.groups.remove(&oldest);
            }
        }
        let group = self.groups.entry(key).or_insert_with(|| RejectionGroup {
            latest: rejection.clone(),
            counts: [0; MINUTES as usize],
            minute,
        });
        group.count(minute);
        group.latest = rejection;
    }

    /// Returns the groups of the last 15 minutes with the number of rejections in them, the one
    /// with most first.
    pub fn groups(&mut self, now: Instant) -> Vec<(RejectionGroup, u32)> {
        let minute = self.minute(now);
        self.groups
            .retain(|_, group| group.since(minute, MINUTES) > 0);
        let groups = self.groups.values();
        let mut groups: Vec<_> = groups
            .map(|group| (group.clone(), group.since(minute, MINUTES)))
            .collect();
        groups.sort_by(|(one, n), (other, m)| {
            // The name decides last, so that equal groups do not change places at each look.
            m.cmp(n)
                .then_with(|| other.latest.at.cmp(&one.latest.at))
                .then_with(|| one.latest.operation.cmp(&other.latest.operation))
        });
        groups
    }

    /// Returns the minute of an instant.
    fn minute(&mut self, at: Instant) -> u64 {
        let start = *self.start.get_or_insert(at);
        at.saturating_duration_since(start).as_secs() / 60
    }
}

impl RejectionGroup {
    /// Counts one more in this minute, and forgets the minutes that are over.
    fn count(&mut self, minute: u64) {
        for over in (self.minute + 1..=minute).take(MINUTES as usize) {
            self.counts[slot(over)] = 0;
        }
        self.minute = minute.max(self.minute);
        let count = &mut self.counts[slot(minute)];
        *count = count.saturating_add(1);
    }

    /// Returns the number in the last minutes, the present one included.
    fn since(&self, minute: u64, minutes: u64) -> u32 {
        let first = (minute + 1).saturating_sub(minutes);
        // Of the minutes after the latest rejection the counts are those of an earlier round.
        let counted = first.max((self.minute + 1).saturating_sub(MINUTES))..=self.minute;
        let counts = counted.map(|minute| self.counts[slot(minute)]);
        counts.fold(0, u32::saturating_add)
    }

    /// Returns the time since the latest rejection.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.latest.at)
    }
}

/// Returns the place of a minute among the counts.
fn slot(minute: u64) -> usize {
    usize::try_from(minute % MINUTES).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn rejection(at: Instant, operation: &str) -> RecentRejection {
        RecentRejection {
            at,
            operation: operation.into(),
            kind: "gateway-queue-wait",
            status: StatusCode::SERVICE_UNAVAILABLE,
            credential: None,
            client: None,
            peer: None,
        }
    }

    fn shown(recent: &mut RecentRejections, now: Instant) -> Vec<(String, u32)> {
        let groups = recent.groups(now).into_iter();
        groups
            .map(|(group, count)| (group.latest.operation.to_string(), count))
            .collect()
    }

    #[test]
    fn alike_ones_are_counted_together_and_forgotten_after_15_minutes() {
        let start = Clock::system().now();
        let at = |minute: u64| start + Duration::from_secs(60 * minute);
        let mut recent = RecentRejections::default();
        for (minute, operation) in [
            (0, "a"),
            (0, "a"),
            (5, "b"),
            (14, "a"),
            (14, "b"),
            (14, "b"),
        ] {
            recent.note(rejection(at(minute), operation));
        }
        let of = |name: &str, count| (name.to_owned(), count);
        let by_name = [of("a", 3), of("b", 3)];
        assert_eq!(shown(&mut recent, at(14)), by_name);
        assert_eq!(shown(&mut recent, at(15)), [of("b", 3), of("a", 1)]);
        assert_eq!(shown(&mut recent, at(20)), [of("b", 2), of("a", 1)]);
        // The same places of the ring, a round later.
        recent.note(rejection(at(29), "a"));
        assert_eq!(shown(&mut recent, at(29)), [of("a", 1)]);
        recent.note(rejection(at(300), "a"));
        assert_eq!(shown(&mut recent, at(314)), [of("a", 1)]);
        assert_eq!(shown(&mut recent, at(315)), []);
    }

    #[test]
    fn groups_are_bounded_and_the_oldest_goes() {
        let start = Clock::system().now();
        let mut recent = RecentRejections::default();
        for n in 0..1_000 {
            let at = start + Duration::from_millis(n);
            recent.note(rejection(at, &n.to_string()));
            recent.note(rejection(at, "often"));
        }
        let groups = shown(&mut recent, start + Duration::from_secs(1));
        assert_eq!(groups.len(), MOST);
        assert_eq!(groups[0], ("often".to_owned(), 1_000));
        assert!(groups.contains(&("999".to_owned(), 1)));
        assert!(!groups.contains(&("900".to_owned(), 1)));
    }
}
