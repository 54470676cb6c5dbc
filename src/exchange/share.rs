//! A bound that principals share: the memory of request bodies, and the writes that are held.
//!
//! Promises a bound on the sum. One principal gets at most half of it, so that its flood leaves
//! room for others.

use crate::caller::Principal;
use crate::error::GatewayError;
use foldhash::HashMap;
use parking_lot::Mutex;
use std::sync::Arc;

/// The whole. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Share {
    most: usize,
    load: Arc<Mutex<Load>>,
}

#[derive(Debug, Default)]
struct Load {
    taken: usize,
    principals: HashMap<Principal, usize>,
}

/// The part of the whole that one request has, until this value is dropped.
#[derive(Debug)]
pub struct Portion {
    share: Share,
    principal: Principal,
    taken: usize,
}

/// Who has to wait for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Everybody: the whole is taken.
    ForAll,
    /// A principal that has its half.
    ForPrincipal,
}

impl From<Full> for GatewayError {
    fn from(_: Full) -> Self {
        Self::Overloaded
    }
}

impl Share {
    /// Creates a whole of `most`, at least two.
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(2),
            load: Arc::default(),
        }
    }

    /// Returns an empty portion for a request from `principal`.
    pub fn portion(&self, principal: &Principal) -> Portion {
        Portion {
            share: self.clone(),
            principal: principal.clone(),
            taken: 0,
        }
    }
}

impl Portion {
    /// Takes `more`.
    ///
    /// # Errors
    /// If the whole or the principal's half of it would be exceeded. Nothing is taken then.
    pub fn grow(&mut self, more: usize) -> Result<(), Full> {
        let most = self.share.most;
        let mut load = self.share.load.lock();
        if load.taken.saturating_add(more) > most {
            return Err(Full::ForAll);
        }
        let own = load
            .principals
            .get(&self.principal)
            .copied()
            .unwrap_or_default();
        if own.saturating_add(more) > most / 2 {
            return Err(Full::ForPrincipal);
        }
        load.taken += more;
        *load.principals.entry(self.principal.clone()).or_default() += more;
        self.taken += more;
        Ok(())
    }
}

impl Drop for Portion {
    fn drop(&mut self) {
        let mut load = self.share.load.lock();
        load.taken = load.taken.saturating_sub(self.taken);
        if let Some(own) = load.principals.get_mut(&self.principal) {
            *own = own.saturating_sub(self.taken);
            if *own == 0 {
                load.principals.remove(&self.principal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn principal(n: u8) -> Principal {
        IpAddr::from([10, 0, 0, n]).into()
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let share = Share::new(20);
        let mut first = share.portion(&principal(1));
        first.grow(4).unwrap();
        first.grow(4).unwrap();
        let mut second = share.portion(&principal(2));
        second.grow(10).unwrap();
        let mut third = share.portion(&principal(3));
        assert_eq!(third.grow(3), Err(Full::ForAll));
        third.grow(2).unwrap();
        drop(first);
        third.grow(8).unwrap();
        drop((second, third));
        let load = share.load.lock();
        assert!(load.taken == 0 && load.principals.is_empty());
    }

    #[test]
    fn one_peer_has_half_of_it() {
        let share = Share::new(20);
        let mut portions: Vec<Portion> = (0..11).map(|_| share.portion(&principal(1))).collect();
        let accepted = portions.iter_mut().filter_map(|one| one.grow(1).ok());
        assert_eq!(accepted.count(), 10);
        assert_eq!(
            share.portion(&principal(1)).grow(1),
            Err(Full::ForPrincipal)
        );
        share.portion(&principal(2)).grow(10).unwrap();
    }
}
