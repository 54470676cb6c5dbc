//! Pure. How much is remembered of the writes that have ended.
//!
//! They are remembered for a configured time, and within two bounds: their number and their bytes.
//! One credential may have half of each. Beyond a bound the first that ended are forgotten first,
//! but none within [`AT_LEAST`]: an `Idempotency-Key` that was forgotten would let a write be
//! carried out twice. So if what ended within that time reaches the number, new durable writes are
//! refused; if it reaches the bytes, the bodies of further answers are not kept.

use crate::credential::Credential;
use crate::journal::Remembered;
use std::collections::HashMap;
use std::time::Duration;

/// The time for which a write that has ended is remembered in any case, unless `keep` is shorter.
pub(super) const AT_LEAST: Duration = Duration::from_secs(3_600);

/// The bounds of all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    /// How many, and how many bytes.
    pub(super) most: Remembered,
}

/// What is remembered at present, by credential.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended {
    of: HashMap<Credential, Remembered>,
    all: Remembered,
}

impl Ended {
    /// Takes over what the journal has counted.
    pub(super) fn counted(of: HashMap<Credential, Remembered>) -> Self {
        let mut all = Remembered::default();
        for one in of.values() {
            all.writes = all.writes.saturating_add(one.writes);
            all.bytes = all.bytes.saturating_add(one.bytes);
        }
        Self { of, all }
    }

    /// Counts one that ended.
    pub(super) fn add(&mut self, credential: Credential, bytes: u64) {
        self.of.entry(credential).or_default().add(bytes);
        self.all.add(bytes);
    }

    fn own(&self, credential: Credential) -> Remembered {
        self.of.get(&credential).copied().unwrap_or_default()
    }
}

impl Retention {
    fn share(&self) -> Remembered {
        Remembered {
            writes: self.most.writes.div_ceil(2),
            bytes: self.most.bytes.div_ceil(2),
        }
    }

    /// Returns whether one more write of this credential can be remembered when it ends.
    pub(super) fn takes(&self, ended: &Ended, credential: Credential) -> bool {
        ended.all.writes < self.most.writes && ended.own(credential).writes < self.share().writes
    }

    /// Returns whether a body of so many bytes can be remembered.
    pub(super) fn keeps(&self, ended: &Ended, credential: Credential, bytes: u64) -> bool {
        ended.all.bytes.saturating_add(bytes) <= self.most.bytes
            && ended.own(credential).bytes.saturating_add(bytes) <= self.share().bytes
    }

    /// Returns what each credential has beyond its share, in the order of the credentials.
    pub(super) fn beyond_shares(&self, ended: &Ended) -> Vec<(Credential, Remembered)> {
        let own = ended.of.iter();
        let beyond = own.filter_map(|(of, own)| Some((*of, beyond(*own, self.share())?)));
        let mut beyond: Vec<_> = beyond.collect();
        beyond.sort_unstable_by_key(|(of, _)| *of);
        beyond
    }

    /// Returns what all have together beyond the bounds, once this has been forgotten.
    pub(super) fn beyond(&self, ended: &Ended, forgotten: Remembered) -> Option<Remembered> {
        let left = Remembered {
            writes: ended.all.writes.saturating_sub(forgotten.writes),
            bytes: ended.all.bytes.saturating_sub(forgotten.bytes),
        };
        beyond(left, self.most)
    }
}

/// Returns how much is to be forgotten so that an eighth of the bound is free for what ends until
/// the next look; nothing while there is some room.
fn beyond(there: Remembered, most: Remembered) -> Option<Remembered> {
    let comfortable = |most: u64| most - most / 8;
    let surplus = Remembered {
        writes: there.writes.saturating_sub(comfortable(most.writes)),
        bytes: there.bytes.saturating_sub(comfortable(most.bytes)),
    };
    (surplus != Remembered::default()).then_some(surplus)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Retention = Retention {
        most: Remembered {
            writes: 160,
            bytes: 16_000,
        },
    };

    fn credential(n: u8) -> Credential {
        Credential::from_bytes([n; 16])
    }

    fn ended(of: &[(u8, u64, u64)]) -> Ended {
        let of = of.iter();
        let of = of.map(|(n, writes, bytes)| {
            let (writes, bytes) = (*writes, *bytes);
            (credential(*n), Remembered { writes, bytes })
        });
        Ended::counted(of.collect())
    }

    #[test]
    fn one_more_is_taken_within_the_share_and_the_whole() {
        for (there, takes) in [
            (&[][..], true),
            (&[(1, 79, 0)], true),
            (&[(1, 80, 0)], false),
            (&[(2, 80, 0)], true),
            (&[(2, 80, 0), (3, 79, 0)], true),
            (&[(2, 80, 0), (3, 80, 0)], false),
            // Bytes refuse nobody.
            (&[(1, 1, 99_999)], true),
        ] {
            assert_eq!(
                BOUNDS.takes(&ended(there), credential(1)),
                takes,
                "{there:?}"
            );
        }
    }

    #[test]
    fn a_body_is_kept_within_the_share_and_the_whole() {
        for (there, keeps) in [
            (&[][..], true),
            (&[(1, 1, 7_000)], true),
            (&[(1, 1, 7_001)], false),
            (&[(2, 1, 8_000), (3, 1, 7_001)], false),
        ] {
            let keeps_it = BOUNDS.keeps(&ended(there), credential(1), 1_000);
            assert_eq!(keeps_it, keeps, "{there:?}");
        }
    }

    #[test]
    fn whoever_has_more_than_its_share_forgets_before_others_do() {
        let some = |writes, bytes| Remembered { writes, bytes };
        let there = ended(&[(1, 90, 100), (2, 70, 9_000), (3, 20, 0)]);
        let shares = BOUNDS.beyond_shares(&there);
        let expected = [(1, some(20, 0)), (2, some(0, 2_000))];
        assert_eq!(shares, expected.map(|(n, much)| (credential(n), much)));
        // 180 in all, of which 140 are comfortable.
        let beyond = |forgotten| BOUNDS.beyond(&there, forgotten);
        assert_eq!(beyond(some(20, 2_000)), Some(some(20, 0)));
        assert_eq!(beyond(some(40, 2_000)), None);
        assert_eq!(BOUNDS.beyond(&ended(&[(1, 140, 14_000)]), some(0, 0)), None);
    }

    #[test]
    fn what_ends_counts_for_its_credential_and_for_all() {
        let mut there = ended(&[(1, 79, 0)]);
        there.add(credential(1), 500);
        assert_eq!(there.own(credential(1)).bytes, 500);
        assert_eq!((there.all.writes, there.all.bytes), (80, 500));
        assert!(!BOUNDS.takes(&there, credential(1)));
    }
}
