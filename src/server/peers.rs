//! The number of connections of each peer. Nothing is kept of a peer without connections.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The number of connections per peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A guard that counts one connection of a peer until it is dropped.
#[derive(Debug)]
pub(super) struct PeerConnection(Peers, IpAddr);

impl Peers {
    /// Counts one more connection of `peer`, until the guard is dropped. `None` if it has `most`
    /// already: one peer must not keep the others out.
    pub(super) fn take(&self, peer: IpAddr, most: usize) -> Option<PeerConnection> {
        let mut peers = self.0.lock();
        let own = peers.entry(peer).or_default();
        // A rejected connection leaves no entry behind: the peer has connections already.
        if *own >= most {
            return None;
        }
        *own += 1;
        Some(PeerConnection(self.clone(), peer))
    }
}

impl Drop for PeerConnection {
    fn drop(&mut self) {
        let mut peers = self.0.0.lock();
        if let Some(own) = peers.get_mut(&self.1) {
            *own -= 1;
            if *own == 0 {
                peers.remove(&self.1);
            }
        }
    }
}
