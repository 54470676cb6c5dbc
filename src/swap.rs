//! A value that is replaced as a whole while it is in use.

use parking_lot::RwLock;
use std::sync::Arc;

/// A replaceable value. A holder of the old value keeps it after a replacement.
#[derive(Debug, Default)]
pub struct Swap<T>(RwLock<Arc<T>>);

impl<T> Swap<T> {
    /// Creates one with this value.
    pub fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    /// Returns the present value. The lock is held only while a pointer is copied.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read())
    }

    /// Replaces the value.
    pub fn set(&self, value: T) {
        let value = Arc::new(value);
        // The old value is dropped after the lock is released.
        let _old = std::mem::replace(&mut *self.0.write(), value);
    }
}

impl<T> From<T> for Swap<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}
