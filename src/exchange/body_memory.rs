//! The memory of request bodies, from their first byte until their request is done, wherever it is
//! queued meanwhile.
//!
//! Promises a bound on the sum. One peer gets at most half of it, so that its bodies leave room for
//! those of others.

use crate::error::GatewayError;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The memory shared by all bodies. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Room {
    most: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    peers: HashMap<IpAddr, usize>,
}

/// The memory reserved for one body, until this value is dropped.
#[derive(Debug)]
pub struct Taken {
    room: Room,
    peer: IpAddr,
    bytes: usize,
}

impl Room {
    /// Creates a memory of `most` bytes.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            state: Arc::default(),
        }
    }

    /// Returns an empty reservation for a body from `peer`.
    pub fn nothing(&self, peer: IpAddr) -> Taken {
        Taken {
            room: self.clone(),
            peer,
            bytes: 0,
        }
    }
}

impl Taken {
    /// Reserves `bytes` more.
    ///
    /// # Errors
    /// [`GatewayError::Overloaded`] if the memory or the peer's half of it is used up.
    pub fn grow(&mut self, bytes: usize) -> Result<(), GatewayError> {
        let most = self.room.most;
        let mut state = self.room.state.lock();
        let own = state.peers.get(&self.peer).copied().unwrap_or_default();
        if state.taken.saturating_add(bytes) > most || own.saturating_add(bytes) > most.div_ceil(2)
        {
            return Err(GatewayError::Overloaded);
        }
        state.taken += bytes;
        *state.peers.entry(self.peer).or_default() += bytes;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut state = self.room.state.lock();
        state.taken = state.taken.saturating_sub(self.bytes);
        if let Some(own) = state.peers.get_mut(&self.peer) {
            *own = own.saturating_sub(self.bytes);
            if *own == 0 {
                state.peers.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let room = Room::new(20);
        let mut first = room.nothing(peer(1));
        first.grow(4).unwrap();
        first.grow(4).unwrap();
        let mut second = room.nothing(peer(2));
        second.grow(10).unwrap();
        let mut third = room.nothing(peer(3));
        assert_eq!(third.grow(3), Err(GatewayError::Overloaded));
        third.grow(2).unwrap();
        drop(first);
        third.grow(8).unwrap();
        drop((second, third));
        assert_eq!(room.state.lock().taken, 0);
        assert!(room.state.lock().peers.is_empty());
    }

    #[test]
    fn one_peer_has_half_of_it() {
        let room = Room::new(20);
        let mut bodies: Vec<Taken> = (0..11).map(|_| room.nothing(peer(1))).collect();
        let accepted = bodies.iter_mut().filter_map(|body| body.grow(1).ok());
        assert_eq!(accepted.count(), 10);
        room.nothing(peer(2)).grow(10).unwrap();
    }
}
