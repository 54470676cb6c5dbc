//! The timers of a connection of HTTP/2: how long it may be idle, and whether its caller is still
//! there.
//!
//! Neither costs anything for a request that is answered at once but a reading of the clock. What
//! follows from them is not decided here.

use h2::{Ping, PingPong};
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// A timer that restarts with every request without being set for each: it runs on, and is compared
/// with the real deadline when it fires.
pub(super) struct IdleTimer {
    timer: Pin<Box<Sleep>>,
    time: Duration,
    by: Instant,
}

impl IdleTimer {
    pub(super) fn new(time: Duration) -> Self {
        let timer = Box::pin(sleep(time));
        let by = timer.deadline();
        Self { timer, time, by }
    }

    pub(super) fn restart(&mut self) {
        self.by = sleep(self.time).deadline();
    }

    /// Restarts with a shorter time from now on.
    pub(super) fn shorten(&mut self, time: Duration) {
        self.time = time;
        self.restart();
        self.timer.as_mut().reset(self.by);
    }

    /// Resolves when the time has passed since the last restart.
    pub(super) async fn overdue(&mut self) {
        loop {
            self.timer.as_mut().await;
            if self.timer.deadline() >= self.by {
                return;
            }
            self.timer.as_mut().reset(self.by);
        }
    }
}

/// The question whether the caller is still there, asked again and again while it waits.
pub(super) struct KeepAlive {
    pings: Option<PingPong>,
    every: Duration,
    timer: Pin<Box<Sleep>>,
    is_asked: bool,
}

impl KeepAlive {
    pub(super) fn new(pings: Option<PingPong>, every: Duration) -> Self {
        Self {
            pings,
            every,
            timer: Box::pin(sleep(every)),
            is_asked: false,
        }
    }

    /// Resolves when a question was not answered before the next one is due.
    pub(super) async fn lost(&mut self) {
        let Some(pings) = &mut self.pings else {
            return std::future::pending().await;
        };
        loop {
            let is_asked = self.is_asked;
            tokio::select! {
                biased;
                // An error means that the connection has ended, which is noticed elsewhere.
                _ = poll_fn(|context| pings.poll_pong(context)), if is_asked => self.is_asked = false,
                () = self.timer.as_mut() => {
                    if self.is_asked {
                        return;
                    }
                    self.is_asked = pings.send_ping(Ping::opaque()).is_ok();
                    let next = sleep(self.every).deadline();
                    self.timer.as_mut().reset(next);
                }
            }
        }
    }
}
