//! Pure. The id of a write: a UUID of version 7 (RFC 9562, section 5.7).
//!
//! Promises:
//! - The ids of one maker grow strictly, also within a millisecond and when the wall clock goes
//!   back. The time and the twelve bits after it count as one number, which is at least the last
//!   one plus one (section 6.2, method 1, whose overflow moves the time ahead).
//! - The ids of two makers differ, by 62 random bits.
//! - An id has one text: lowercase with hyphens. Nothing else is parsed.
//!
//! An id is a name, not a secret: knowing one gives no right to anything.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// The bits of the counter behind the milliseconds.
const COUNTER: u32 = 12;
/// The places of the hyphens in the text, and its length.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];
const LENGTH: usize = 36;

/// The id of a write. The order of the bytes is the order in which one maker made them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriteId([u8; 16]);

/// The error of a text or bytes that are not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAWriteId;

impl WriteId {
    /// Checks and wraps the bytes of an id.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, NotAWriteId> {
        let is_one = bytes[6] >> 4 == 0b0111 && bytes[8] >> 6 == 0b10;
        is_one.then_some(Self(bytes)).ok_or(NotAWriteId)
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    fn assemble(step: u64, random: [u8; 8]) -> Self {
        let millis = step >> COUNTER << 16;
        let counter = step & ((1 << COUNTER) - 1);
        let high = millis | 0x7000 | counter;
        let low = u64::from_be_bytes(random) >> 2 | 0b10 << 62;
        Self((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    /// Returns the time and the counter as one number.
    fn step(self) -> u64 {
        let high = (u128::from_be_bytes(self.0) >> 64) as u64;
        high >> 16 << COUNTER | high & ((1 << COUNTER) - 1)
    }
}

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, byte) in self.0.iter().enumerate() {
            let hyphen = if matches!(n, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{hyphen}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteId({self})")
    }
}

impl FromStr for WriteId {
    type Err = NotAWriteId;

    fn from_str(text: &str) -> Result<Self, NotAWriteId> {
        if text.len() != LENGTH {
            return Err(NotAWriteId);
        }
        let mut value = 0_u128;
        for (place, byte) in text.bytes().enumerate() {
            let digit = match byte {
                b'-' if HYPHENS.contains(&place) => continue,
                _ if HYPHENS.contains(&place) => return Err(NotAWriteId),
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                _ => return Err(NotAWriteId),
            };
            value = value << 4 | u128::from(digit);
        }
        Self::from_bytes(value.to_be_bytes())
    }
}

impl fmt::Display for NotAWriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the name of a write: 36 characters, a UUID of version 7 in lowercase")
    }
}

impl std::error::Error for NotAWriteId {}

/// A maker of ids, which threads may share.
#[derive(Debug, Default)]
pub struct WriteIds {
    /// The time and the counter of the last id.
    last: AtomicU64,
}

impl WriteIds {
    /// Creates a maker whose ids follow this one, the newest of an earlier process, however the
    /// wall clock has changed since.
    pub fn after(newest: WriteId) -> Self {
        Self {
            last: AtomicU64::new(newest.step()),
        }
    }

    /// Returns the next id, at this time.
    pub fn next(&self, wall: SystemTime) -> WriteId {
        let mut random = [0; 8];
        // Without randomness the ids still differ within this process, and a journal rejects an id
        // of another process that it has already.
        let _ = getrandom::fill(&mut random);
        let since = wall.duration_since(SystemTime::UNIX_EPOCH);
        let millis = since.map_or(0, |since| since.as_millis() as u64) & ((1 << 48) - 1);
        let follow = |last: u64| (millis << COUNTER).max(last.wrapping_add(1));
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            let step = follow(last);
            let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
            match self
                .last
                .compare_exchange_weak(last, step, success, failure)
            {
                Ok(_) => return WriteId::assemble(step, random),
                Err(other) => last = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn the_layout_is_that_of_the_rfc() {
        // The example of RFC 9562, appendix A.6.
        let millis = 0x017F_22E2_79B0_u64;
        let id = WriteId::assemble(
            millis << COUNTER | 0xCC3,
            (0x18C4_DC0C_0C07_398F_u64 << 2).to_be_bytes(),
        );
        assert_eq!(id.to_string(), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
        assert_eq!(id.step(), millis << COUNTER | 0xCC3);
        let made = WriteIds::default().next(at(millis)).to_string();
        assert!(made.starts_with("017f22e2-79b0-7000-"), "{made}");
    }

    #[test]
    fn ids_grow_whatever_the_clock_does() {
        let ids = WriteIds::default();
        let mut last = ids.next(at(1_000));
        for (millis, times) in [(1_000, 5_000), (999, 3), (0, 3), (1_000, 1), (1_002, 9)] {
            for _ in 0..times {
                let next = ids.next(at(millis));
                assert!(next > last, "{last} {next} at {millis}");
                last = next;
            }
        }
        let next = WriteIds::after(last).next(at(0));
        assert!(next > last, "{last} {next} of the next process");
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert!(ids.next(before) > last);
    }

    #[test]
    fn threads_share_a_maker() {
        let ids = WriteIds::default();
        let made = std::thread::scope(|scope| {
            let make = || (0..1_000).map(|_| ids.next(at(7))).collect::<Vec<_>>();
            let threads = [(); 4].map(|()| scope.spawn(make));
            threads.map(|thread| thread.join().unwrap())
        });
        let mut steps: Vec<u64> = made.iter().flatten().map(|id| id.step()).collect();
        for one in &made {
            assert!(one.is_sorted());
        }
        steps.sort_unstable();
        steps.dedup();
        assert_eq!(steps.len(), 4_000);
    }

    #[test]
    fn two_processes_differ() {
        let [a, b] = [(); 2].map(|()| WriteIds::default().next(at(7)));
        assert_ne!(a, b);
        assert_eq!(a.step(), b.step());
    }

    #[test]
    fn one_text_per_id_and_nothing_else() {
        let text = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
        let id: WriteId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(WriteId::from_bytes(*id.bytes()), Ok(id));
        for bad in [
            "",
            "017F22E2-79B0-7CC3-98C4-DC0C0C07398F",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398f0",
            " 17f22e2-79b0-7cc3-98c4-dc0c0c07398f",
            "017f22e279b07cc398c4dc0c0c07398f",
            "017f22e279b0-7cc3-98c4-dc0c0c07398f--",
            "017f22e2079b0-7cc3-98c4-dc0c0c07398f",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
            "{17f22e2-79b0-7cc3-98c4-dc0c0c07398}",
            "017f22e2-79b0-4cc3-98c4-dc0c0c07398f",
            "017f22e2-79b0-7cc3-c8c4-dc0c0c07398f",
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "017f22e2-79b0-7cc3-98c4-dc0c0c0739é",
        ] {
            assert_eq!(bad.parse::<WriteId>(), Err(NotAWriteId), "{bad:?}");
        }
    }
}
