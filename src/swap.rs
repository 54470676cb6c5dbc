//! A value that is replaced as a whole while it is used.

use parking_lot::RwLock;
use std::sync::Arc;

/// Hands out the present value. Whoever has one keeps it, whatever comes after.
#[derive(Debug)]
pub struct Swap<T>(RwLock<Arc<T>>);

impl<T> Swap<T> {
    /// With this value to begin with.
    pub fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    /// The present value. Waits for no one: the lock is held for as long as a pointer is copied.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read())
    }

    /// Puts another in its place.
    pub fn set(&self, value: T) {
        let value = Arc::new(value);
        // What it replaces is dropped without the lock.
        let _old = std::mem::replace(&mut *self.0.write(), value);
    }
}

impl<T> From<T> for Swap<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}
