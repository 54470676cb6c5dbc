//! The fence among threads.
//!
//! Promises that once a raise has returned, no reader on any thread believes an older answer, and
//! that a reader of an answer that was judged before and overtaken by nothing since takes no lock:
//! while the generation stands still, so does every belief, and the generation is one atomic.

use super::entry::Entry;
use super::fence::{Dependency, Fence, Stamp};
use parking_lot::{RwLock, RwLockReadGuard};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The fence, shared.
#[derive(Debug)]
pub(super) struct Marks {
    fence: RwLock<Fence>,
    /// The fence's generation, published when a raise is complete.
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

    /// The fence for more than one question at once. Never to be held over an await.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Fence> {
        self.fence.read()
    }

    pub(super) fn stamp(&self, now: Instant) -> Stamp {
        self.read().stamp(now)
    }

    /// Whether the answer may be shown.
    pub(super) fn believes(&self, entry: &Entry) -> bool {
        if entry.is_believed_at(self.generation.load(Ordering::Acquire)) {
            return true;
        }
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
        // Before the lock is let go, hence before the write's caller hears and any reader who
        // comes after that.
        self.generation.store(fence.generation(), Ordering::Release);
    }
}
