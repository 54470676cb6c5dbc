//! How much memory the bodies of requests take together: from their first byte until their request
//! is done with, wherever it waits meanwhile.

use crate::error::GatewayError;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The memory that all bodies share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Room {
    taken: Arc<AtomicUsize>,
    most: usize,
}

/// What one body takes, for as long as it lives.
#[derive(Debug)]
pub struct Taken {
    room: Room,
    bytes: usize,
}

impl Room {
    /// Room for `most` bytes.
    pub fn new(most: usize) -> Self {
        Self {
            taken: Arc::default(),
            most,
        }
    }

    /// The place of a body that has not begun.
    pub fn nothing(&self) -> Taken {
        Taken {
            room: self.clone(),
            bytes: 0,
        }
    }
}

impl Taken {
    /// Takes so many bytes more, if there is room for them.
    pub fn grow(&mut self, bytes: usize) -> Result<(), GatewayError> {
        let before = self.room.taken.fetch_add(bytes, Ordering::AcqRel);
        self.bytes += bytes;
        if before.saturating_add(bytes) > self.room.most {
            // Given back with the rest, when the request has been refused.
            return Err(GatewayError::Overloaded);
        }
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let room = Room::new(10);
        let mut first = room.nothing();
        first.grow(4).unwrap();
        first.grow(4).unwrap();
        assert_eq!(room.nothing().grow(3), Err(GatewayError::Overloaded));
        let mut second = room.nothing();
        second.grow(2).unwrap();
        drop(first);
        room.nothing().grow(8).unwrap();
        second.grow(8).unwrap();
    }
}
