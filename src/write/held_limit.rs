//! How many writes are held at present, in all and by each peer.
//!
//! Held writes use at most half of the callers' connections, so that reads go on; and one peer at
//! most half of that, so that its flood leaves room for the writes of others.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Counts held writes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Holds {
    most: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    held: usize,
    peers: HashMap<IpAddr, usize>,
}

/// Why there is no room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// For nobody.
    AtAll,
    /// This peer has its share.
    ForThisPeer,
}

/// A held write, for as long as it lives.
#[derive(Debug)]
pub struct Hold {
    holds: Holds,
    peer: IpAddr,
}

impl Holds {
    /// Room for `most` writes, at least two.
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(2),
            state: Arc::default(),
        }
    }

    /// Room for one more of this peer's.
    pub fn take(&self, peer: IpAddr) -> Result<Hold, NoRoom> {
        let mut state = self.state.lock();
        if state.held >= self.most {
            return Err(NoRoom::AtAll);
        }
        let own = state.peers.entry(peer).or_default();
        if *own >= self.most / 2 {
            return Err(NoRoom::ForThisPeer);
        }
        *own += 1;
        state.held += 1;
        let holds = self.clone();
        Ok(Hold { holds, peer })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.holds.state.lock();
        state.held = state.held.saturating_sub(1);
        if let Some(own) = state.peers.get_mut(&self.peer) {
            *own -= 1;
            if *own == 0 {
                state.peers.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_leaves_room_for_others() {
        let peer = |n: u8| IpAddr::from([10, 0, 0, n]);
        let holds = Holds::new(4);
        let first = holds.take(peer(1)).unwrap();
        let _second = holds.take(peer(1)).unwrap();
        assert_eq!(holds.take(peer(1)).unwrap_err(), NoRoom::ForThisPeer);
        let _third = holds.take(peer(2)).unwrap();
        let _fourth = holds.take(peer(3)).unwrap();
        assert_eq!(holds.take(peer(4)).unwrap_err(), NoRoom::AtAll);
        drop(first);
        let last = holds.take(peer(1)).unwrap();
        drop((last, _second, _third, _fourth));
        let state = holds.state.lock();
        assert!(state.held == 0 && state.peers.is_empty());
    }
}
