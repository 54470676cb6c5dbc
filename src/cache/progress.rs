//! A changing value, published to all waiting tasks in the order in which they began to wait.
//!
//! Replaces the runtime's watch channel, which wakes waiting tasks in random order. A simulation
//! that fails for one seed must fail for it again, so the order has to be reproducible.
//! Intermediate values may be missed: a subscriber sees the latest one.

use parking_lot::Mutex;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::Notify;

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

struct State<T> {
    value: T,
    is_over: bool,
}

/// Publishes the value. Dropping the handle marks the present value as final.
pub(super) struct Publisher<T>(Arc<Shared<T>>);

/// Waits for the value. Dropping the handle has no effect on others.
pub(super) struct Subscriber<T>(Arc<Shared<T>>);

impl<T> Publisher<T> {
    pub(super) fn new(value: T) -> Self {
        let state = State {
            value,
            is_over: false,
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            changed: Notify::new(),
        }))
    }

    pub(super) fn subscribe(&self) -> Subscriber<T> {
        Subscriber(Arc::clone(&self.0))
    }

    /// Replaces the value and wakes all subscribers. The old value is dropped outside the lock.
    pub(super) fn publish(&self, value: T) {
        let old = std::mem::replace(&mut self.0.state.lock().value, value);
        self.0.changed.notify_waiters();
        drop(old);
    }
}

impl<T> Drop for Publisher<T> {
    fn drop(&mut self) {
        self.0.state.lock().is_over = true;
        self.0.changed.notify_waiters();
    }
}

impl<T> Subscriber<T> {
    /// Calls `read` with the present value and whether it is final.
    pub(super) fn read<R>(&self, read: impl FnOnce(&T, bool) -> R) -> R {
        let state = self.0.state.lock();
        read(&state.value, state.is_over)
    }

    /// Waits until the value satisfies the condition or is final.
    pub(super) async fn until(&self, is_so: impl Fn(&T) -> bool) {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            // Registered before the value is checked, so that no change between check and wait is
            // missed.
            changed.as_mut().enable();
            if self.read(|value, is_over| is_over || is_so(value)) {
                return;
            }
            changed.await;
        }
    }
}

impl<T> Clone for Subscriber<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_wait_are_woken_in_their_order() {
        let publisher = Publisher::new(0);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let waiting: Vec<_> = (0..50)
            .map(|number| {
                let (subscriber, woken) = (publisher.subscribe(), Arc::clone(&woken));
                tokio::spawn(async move {
                    subscriber.until(|value| *value == 2).await;
                    woken.lock().push(number);
                })
            })
            .collect();
        for value in [1, 2] {
            tokio::task::yield_now().await;
            publisher.publish(value);
        }
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*woken.lock(), (0..50).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn nobody_waits_for_what_will_not_come() {
        let publisher = Publisher::new(0);
        let (early, late) = (publisher.subscribe(), publisher.subscribe());
        let early = tokio::spawn(async move { early.until(|value| *value == 2).await });
        tokio::task::yield_now().await;
        drop(publisher);
        early.await.unwrap();
        late.until(|value| *value == 2).await;
        assert!(late.read(|value, is_over| *value == 0 && is_over));
    }
}
