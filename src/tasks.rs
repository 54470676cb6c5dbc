//! Tasks that outlive their caller: attempts and shared fetches.
//!
//! Tasks are counted, so that stopping can wait for them. A panic in a task is counted and logged;
//! the layers around a request do not see it. Tasks are never cancelled here.
//!
//! Everything that runs beside its caller begins here, so that each such place says whether
//! stopping waits for it: [`Tasks::spawn`] if it does, [`detached`] if it does not.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// The counter of detached tasks. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    under_way: AtomicUsize,
    panicked: AtomicUsize,
    idle: Notify,
}

/// A guard that counts as a task until it is dropped.
pub struct Running {
    tasks: Tasks,
    name: &'static str,
    finished: bool,
}

impl Tasks {
    /// Runs `work` to its end, even if nothing waits for it.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let running = self.begin(name);
        // Boxed here: the block below would have room for it twice, as captured and as awaited.
        let work = Box::pin(work);
        detached(async move {
            // The whole guard moves in, so that it is dropped with the task, at a panic as well.
            let mut running = running;
            work.await;
            running.finished = true;
        });
    }

    /// Counts a task from now until the returned guard is dropped.
    pub fn begin(&self, name: &'static str) -> Running {
        self.shared.under_way.fetch_add(1, Ordering::AcqRel);
        Running {
            tasks: self.clone(),
            name,
            finished: false,
        }
    }

    /// Returns the number of running tasks.
    pub fn under_way(&self) -> usize {
        self.shared.under_way.load(Ordering::Acquire)
    }

    /// Returns the number of tasks that panicked since the start.
    pub fn panicked(&self) -> usize {
        self.shared.panicked.load(Ordering::Acquire)
    }

    /// Waits until no task is running.
    pub async fn idle(&self) {
        loop {
            // Registered before the check, so that a task that ends in between is not missed.
            let idle = self.shared.idle.notified();
            if self.under_way() == 0 {
                return;
            }
            idle.await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.finished && std::thread::panicking() {
            self.tasks.shared.panicked.fetch_add(1, Ordering::AcqRel);
            tracing::error!(task = self.name, "task panicked");
        }
        if self.tasks.shared.under_way.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.tasks.shared.idle.notify_waiters();
        }
    }
}

/// Runs `work` beside its caller, and to its end even if the returned handle is dropped. Stopping
/// does not wait for it: what must not be lost belongs into [`Tasks::spawn`].
///
/// The future is boxed, so that the runtime's code for a task is compiled once for each output and
/// not once for each caller.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place at which a task begins"
)]
pub fn detached<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    let work: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(work);
    tokio::spawn(work)
}

/// Returns the message of a panic.
pub fn panic_text(cause: &(dyn Any + Send)) -> &str {
    let text = cause.downcast_ref::<&str>().copied();
    text.or_else(|| cause.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown cause")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn tasks_are_counted_to_their_end_even_if_they_panic() {
        let tasks = Tasks::default();
        let (go, wait) = oneshot::channel::<()>();
        tasks.spawn("test", async {
            let _ = wait.await;
        });
        tasks.spawn("test", async { panic!("on purpose") });
        assert!(tasks.under_way() > 0);
        go.send(()).unwrap();
        tasks.idle().await;
        assert_eq!((tasks.under_way(), tasks.panicked()), (0, 1));
    }
}
