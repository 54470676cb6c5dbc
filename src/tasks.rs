//! Work that goes on without the caller that began it: attempts and shared fetches.
//!
//! They are counted, so that stopping can wait for them, and a panic in one is counted and logged
//! rather than lost; the layers around a request do not see it.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Counts detached tasks. Cheap to clone.
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

/// Counts as a task under way until it is dropped.
pub struct Running {
    tasks: Tasks,
    name: &'static str,
    finished: bool,
}

impl Tasks {
    /// Runs `work` to its end, whoever waits for it.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let running = self.begin(name);
        drop(tokio::spawn(async move {
            // The whole guard moves in, so that it ends with the task.
            let mut running = running;
            work.await;
            running.finished = true;
        }));
    }

    /// Counts something as a task from now on.
    pub fn begin(&self, name: &'static str) -> Running {
        self.shared.under_way.fetch_add(1, Ordering::AcqRel);
        Running {
            tasks: self.clone(),
            name,
            finished: false,
        }
    }

    /// Tasks under way.
    pub fn under_way(&self) -> usize {
        self.shared.under_way.load(Ordering::Acquire)
    }

    /// Tasks that panicked since the start.
    pub fn panicked(&self) -> usize {
        self.shared.panicked.load(Ordering::Acquire)
    }

    /// Waits until no task is under way.
    pub async fn idle(&self) {
        loop {
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
            tracing::error!(task = self.name, "a task panicked");
        }
        if self.tasks.shared.under_way.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.tasks.shared.idle.notify_waiters();
        }
    }
}

/// What a panic said.
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
