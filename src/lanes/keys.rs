//! Pure. What a write acts on, as hashes: its order keys, and the classes against which it is a
//! barrier. Two writes conflict if they share a key, or if one is a barrier against a class of
//! which the other has a key; [`order`](super::order) decides who goes first.

use crate::credential::Hasher;
use std::collections::BTreeSet;

/// A class of order keys, such as `person`, as a keyed hash of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassHash(pub u32);

/// An order key, such as `user:u1`, as a keyed hash. Keys survive a restart on disk, where names
/// must not appear in clear. If two names had the same hash, their writes would only wait for each
/// other needlessly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrderKey {
    /// The part of the name before its first colon.
    pub class: ClassHash,
    /// The whole name.
    pub name: u64,
}

/// The order keys and barriers of a write. A hundred thousand writes may wait in their lanes, so
/// both are sorted slices and not sets, which would take several times their memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    keys: Box<[OrderKey]>,
    barriers: Box<[ClassHash]>,
}

impl ClassHash {
    /// Hashes the name of a class.
    pub fn new(hasher: &Hasher, class: &str) -> Self {
        let hash = hasher.hash(&[b"class", class.as_bytes()]);
        Self(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]))
    }
}

impl OrderKey {
    /// Hashes the name of an order key.
    pub fn new(hasher: &Hasher, name: &str) -> Self {
        let class = name.split_once(':').map_or(name, |(class, _)| class);
        let hash = hasher.hash(&[b"order-key", name.as_bytes()]);
        let [a, b, c, d, e, f, g, h, ..] = hash;
        Self {
            class: ClassHash::new(hasher, class),
            name: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        }
    }
}

impl Keys {
    /// Hashes the names of keys and barriers.
    pub fn new<'n>(
        hasher: &Hasher,
        keys: impl IntoIterator<Item = &'n str>,
        barriers: impl IntoIterator<Item = &'n str>,
    ) -> Self {
        let keys = keys.into_iter();
        let barriers = barriers.into_iter();
        Self::from_hashes(
            keys.map(|name| OrderKey::new(hasher, name)),
            barriers.map(|class| ClassHash::new(hasher, class)),
        )
    }

    /// Takes keys and barriers in any order, each once.
    pub fn from_hashes(
        keys: impl IntoIterator<Item = OrderKey>,
        barriers: impl IntoIterator<Item = ClassHash>,
    ) -> Self {
        let keys: BTreeSet<OrderKey> = keys.into_iter().collect();
        let barriers: BTreeSet<ClassHash> = barriers.into_iter().collect();
        Self {
            keys: keys.into_iter().collect(),
            barriers: barriers.into_iter().collect(),
        }
    }

    /// The things on which the write acts, in order.
    pub fn keys(&self) -> &[OrderKey] {
        &self.keys
    }

    /// The classes against which the write is a barrier, in order.
    pub fn barriers(&self) -> &[ClassHash] {
        &self.barriers
    }

    /// Whether the write conflicts with no other.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.barriers.is_empty()
    }

    /// The classes of the order keys, each once: keys are sorted by their classes first.
    pub(crate) fn classes(&self) -> impl Iterator<Item = ClassHash> {
        let same = |a: &OrderKey, b: &OrderKey| a.class == b.class;
        self.keys.chunk_by(same).map(|keys| keys[0].class)
    }
}
