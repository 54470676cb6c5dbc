//! The memory of responses that are read as a whole, from their first byte until their first reader
//! has them. The store counts its own copy.
//!
//! Promises a bound on the sum, whatever the readers do. A response that finds no room is streamed
//! and not stored.

use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit of accounting, in bytes.
const PIECE: usize = 16 * 1_024;

/// The memory shared by all such responses. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AnswerMemory {
    room: Arc<Semaphore>,
}

/// The memory reserved for one response, until this value is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    answers: AnswerMemory,
    /// Bytes reserved, a multiple of [`PIECE`].
    room: Option<OwnedSemaphorePermit>,
    taken: usize,
    /// Bytes received.
    used: usize,
    was_refused: bool,
}

impl AnswerMemory {
    /// Creates a memory of `most` bytes.
    pub fn new(most: usize) -> Self {
        let pieces = (most / PIECE).min(Semaphore::MAX_PERMITS);
        Self {
            room: Arc::new(Semaphore::new(pieces)),
        }
    }

    /// Reserves memory for a response of `bytes`, at most for `most`. If the length is unknown,
    /// nothing is reserved yet. Returns `None` if there is no room.
    pub(crate) fn take(&self, bytes: Option<u64>, most: usize) -> Option<Reservation> {
        let bytes = bytes.map(|bytes| usize::try_from(bytes).unwrap_or(most).min(most));
        let mut taken = Reservation {
            answers: self.clone(),
            room: None,
            taken: 0,
            used: 0,
            was_refused: false,
        };
        taken.widen(bytes.unwrap_or_default()).then_some(taken)
    }
}

impl Reservation {
    /// Adds received bytes, and returns whether there is room for them.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        self.used += bytes;
        let has_room = self.widen(self.used);
        self.was_refused |= !has_room;
        has_room
    }

    /// Returns whether a reservation failed at any time.
    pub(crate) fn was_refused(&self) -> bool {
        self.was_refused
    }

    // Never waits for memory: readers that wait for each other's memory could deadlock.
    fn widen(&mut self, bytes: usize) -> bool {
        let Some(more) = bytes.checked_sub(self.taken).filter(|more| *more > 0) else {
            return true;
        };
        let pieces = more.div_ceil(PIECE);
        let room = u32::try_from(pieces).ok();
        let room = room.and_then(|n| self.answers.room.clone().try_acquire_many_owned(n).ok());
        let Some(room) = room else {
            return false;
        };
        self.taken += pieces * PIECE;
        match &mut self.room {
            Some(all) => all.merge(room),
            None => self.room = Some(room),
        }
        true
    }

    /// Returns the same bytes, which keep the reservation until the last clone is dropped.
    pub(crate) fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(ReservedBytes { bytes, _room: self })
    }
}

struct ReservedBytes {
    bytes: Bytes,
    _room: Reservation,
}

impl AsRef<[u8]> for ReservedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(answers: &AnswerMemory, bytes: usize) -> Option<Reservation> {
        answers.take(Some(bytes as u64), 100 * PIECE)
    }

    #[test]
    fn room_is_taken_until_nobody_has_the_bytes() {
        let answers = AnswerMemory::new(8 * PIECE);
        let first = take(&answers, 4 * PIECE).unwrap();
        let mut second = answers.take(None, 1).unwrap();
        for _ in 0..4 {
            assert!(second.grow(PIECE));
        }
        assert!(!second.was_refused());
        assert!(!second.grow(1));
        assert!(second.was_refused());
        assert!(take(&answers, 1).is_none());
        // What is longer is not read to its end.
        assert!(answers.take(Some(u64::MAX), 0).is_some());
        assert!(take(&answers, 0).is_some() && answers.take(None, 1).is_some());
        let held = first.hold(Bytes::from_static(b"abc"));
        let reader = held.slice(1..);
        drop((held, second));
        assert!(take(&answers, 4 * PIECE + 1).is_none());
        assert_eq!(reader, "bc");
        drop(reader);
        assert!(take(&answers, 8 * PIECE).is_some());
    }

    #[test]
    fn what_was_taken_before_is_used_first() {
        let answers = AnswerMemory::new(3 * PIECE);
        let mut taken = take(&answers, 2 * PIECE).unwrap();
        for _ in 0..20 {
            assert!(taken.grow(PIECE / 10));
        }
        assert!(take(&answers, PIECE).is_some());
        assert!(taken.grow(PIECE));
        assert!(take(&answers, 1).is_none());
    }
}
