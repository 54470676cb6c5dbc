//! Pure. Wrong admin tokens: the pause of a peer after one.
//!
//! Each wrong token of a peer starts a pause in which another wrong one is answered with 429. The
//! right one is accepted at any time: peers behind a proxy share an address, and the length of a
//! token is what protects it from guessing. The table is bounded; while it is full of pauses, peers
//! that are not in it share one.

use super::access::AdminPeer;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// The pause of a peer after a wrong token.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// The most peers with a pause of their own.
const MOST_PEERS: usize = 1_024;

/// Recent wrong tokens.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    paused: HashMap<IpAddr, Instant>,
    /// The shared pause of peers that found no room.
    others: Option<Instant>,
}

impl Guesses {
    /// Returns whether a token of this peer was wrong a moment ago.
    pub(super) fn is_paused(&self, peer: AdminPeer, now: Instant) -> bool {
        let AdminPeer::Address(address) = peer else {
            return false;
        };
        let until = self.paused.get(&whose(address)).or(self.others.as_ref());
        until.is_some_and(|until| now < *until)
    }

    /// Notes a wrong token of this peer.
    pub(super) fn wrong(&mut self, peer: AdminPeer, now: Instant) {
        if let AdminPeer::Address(address) = peer {
            self.pause(whose(address), now);
        }
    }

    fn pause(&mut self, peer: IpAddr, now: Instant) {
        if self.paused.len() >= MOST_PEERS && !self.paused.contains_key(&peer) {
            self.paused.retain(|_, until| now < *until);
        }
        if self.paused.len() < MOST_PEERS || self.paused.contains_key(&peer) {
            self.paused.insert(peer, now + PAUSE);
        } else {
            self.others = Some(now + PAUSE);
        }
    }
}

/// Returns the address under which a peer is counted. The addresses that one machine can choose
/// from are one: an IPv6 network of 64 bits (RFC 4291, section 2.5.4).
fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn peer(n: u32) -> AdminPeer {
        AdminPeer::Address(IpAddr::from((0x0A00_0000 + n).to_be_bytes()))
    }

    #[test]
    fn a_wrong_token_makes_a_pause_for_its_peer_alone() {
        let now = Clock::system().now();
        let mut guesses = Guesses::default();
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let same: IpAddr = "2001:db8::2".parse().unwrap();
        let other: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        guesses.wrong(AdminPeer::Address(one), now);
        guesses.wrong(peer(1), now);
        for (peer, is_paused) in [
            (peer(1), true),
            (AdminPeer::Address("::ffff:10.0.0.1".parse().unwrap()), true),
            (peer(2), false),
            (AdminPeer::Address(one), true),
            (AdminPeer::Address(same), true),
            (AdminPeer::Address(other), false),
            (AdminPeer::Socket, false),
        ] {
            assert_eq!(guesses.is_paused(peer, now), is_paused, "{peer:?}");
            assert!(!guesses.is_paused(peer, now + PAUSE), "{peer:?}");
        }
    }

    #[test]
    fn however_many_guess_the_table_is_bounded_and_none_goes_free() {
        let now = Clock::system().now();
        let mut guesses = Guesses::default();
        for n in 0..5_000 {
            assert!(!guesses.is_paused(peer(n), now) || n > 1_024);
            guesses.wrong(peer(n), now);
            assert!(guesses.is_paused(peer(n), now));
        }
        assert_eq!(guesses.paused.len(), MOST_PEERS);
        // They make room as their pauses end.
        guesses.wrong(peer(9_999), now + PAUSE);
        assert_eq!(guesses.paused.len(), 1);
        assert!(!guesses.is_paused(peer(9_998), now + PAUSE));
    }
}
