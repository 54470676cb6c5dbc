//! The fence, shared among threads.
//!
//! Promises that once a raise has returned, no reader on any thread finds an older response valid.
//! A reader takes no lock if the entry was checked at the present generation: validity changes only
//! with the generation, and the generation is one atomic.

use super::entry::Entry;
use super::fence::{Dependency, Fence, Stamp};
use parking_lot::{RwLock, RwLockReadGuard};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The shared fence.
#[derive(Debug)]
pub(super) struct Marks {
    fence: RwLock<Fence>,
    /// The generation of the fence, published when a raise is complete.
    generation: AtomicU64,
}

impl Marks {
    pub(super) fn new(max_marks: usize) -> Self {
        let fence = Fence::new(max_marks);
        Self {
            generation: AtomicU64::new(fence.generation()),
            fence: RwLock::new(fence),
        }
    }

    /// Locks the fence for several questions. The guard must not be held across an `await`.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Fence> {
        self.fence.read()
    }

    pub(super) fn stamp(&self, now: Instant) -> Stamp {
        self.read().stamp(now)
    }

    /// Whether the response may be served.
    pub(super) fn believes(&self, entry: &Entry) -> bool {
        if entry.is_believed_at(self.generation.load(Ordering::Acquire)) {
            return true;
        }
        // The recorded generation is read under the same guard as the marks. Read after the guard
        // is dropped, it could include a raise that this check has not seen.
        let fence = self.read();
        let believed = fence.believes(&entry.stamp(), entry.depends());
        if believed {
            entry.set_believed_at(fence.generation());
        }
        believed
    }

    pub(super) fn raise(&self, names: impl IntoIterator<Item = Dependency>, settled: Instant) {
        self.change(|fence| fence.raise(names, settled));
    }

    pub(super) fn raise_floor(&self, settled: Instant) {
        self.change(|fence| fence.raise_floor(settled));
    }

    fn change(&self, change: impl FnOnce(&mut Fence)) {
        let mut fence = self.fence.write();
        change(&mut fence);
        // Published before the lock is released, hence before the write's caller gets its response.
        // A read that this caller sends afterwards sees the new generation.
        self.generation.store(fence.generation(), Ordering::Release);
    }
}
