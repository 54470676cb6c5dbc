//! The clocks: the only reader of time.
//!
//! All other code takes `now` as an argument, so that a decision can be tested at any instant. The
//! monotonic clock is tokio's. When a test pauses it, the wall clock and the boot clock of
//! [`Clock::simulated`] stop and jump with it.

#[cfg(target_os = "linux")]
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

/// The monotonic, the wall and the boot clock. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    System,
    /// Wall and boot time are derived from the monotonic clock.
    Simulated {
        start: Instant,
        wall: SystemTime,
        boot_id: [u8; 16],
    },
}

/// An instant of a clock that survives restarts of the process, but not of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootTime {
    /// The id of the machine's boot. Times of different boots cannot be compared.
    pub id: [u8; 16],
    /// The time since the boot, including suspended time.
    pub since: Duration,
}

impl Clock {
    /// Returns the clocks of this machine.
    pub fn system() -> Self {
        Self {
            source: Source::System,
        }
    }

    /// Returns clocks that move with tokio's clock alone. The wall clock starts at `wall`. The
    /// simulated machine has been up for `boot`.
    pub fn simulated(wall: SystemTime, boot: Duration) -> Self {
        let now = read_monotonic();
        let start = now.checked_sub(boot).unwrap_or(now);
        Self {
            source: Source::Simulated {
                start,
                wall: wall.checked_sub(boot).unwrap_or(wall),
                boot_id: [7; 16],
            },
        }
    }

    /// Returns the time of the monotonic clock.
    pub fn now(&self) -> Instant {
        read_monotonic()
    }

    /// Returns the time of the wall clock. Only people and other machines may read it; no decision
    /// about a budget may depend on it.
    pub fn wall(&self) -> SystemTime {
        match &self.source {
            Source::System => read_wall(),
            Source::Simulated { start, wall, .. } => *wall + (self.now() - *start),
        }
    }

    /// Returns the time of the boot clock, or `None` if the system has none. Then nothing is known
    /// about what an earlier process sent.
    pub fn boot(&self) -> Option<BootTime> {
        match &self.source {
            Source::System => read_boot(),
            Source::Simulated { start, boot_id, .. } => Some(BootTime {
                id: *boot_id,
                since: self.now() - *start,
            }),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one reader of the monotonic clock"
)]
fn read_monotonic() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one reader of the wall clock"
)]
fn read_wall() -> SystemTime {
    SystemTime::now()
}

/// Reads the boot clock of Linux, which includes suspended time. Called for each attempt, so only
/// the first call reads a file.
#[cfg(target_os = "linux")]
fn read_boot() -> Option<BootTime> {
    static BOOT_ID: OnceLock<Option<[u8; 16]>> = OnceLock::new();
    let id = (*BOOT_ID.get_or_init(read_boot_id))?;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let since = Duration::try_from(now).ok()?;
    Some(BootTime { id, since })
}

/// Reads the id of this boot, a UUID in text. It never changes while the process lives.
#[cfg(target_os = "linux")]
fn read_boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
}

#[cfg(not(target_os = "linux"))]
fn read_boot() -> Option<BootTime> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_of_this_machine_is_monotonic() {
        let clock = Clock::system();
        if let (Some(a), Some(b)) = (clock.boot(), clock.boot()) {
            assert_eq!(a.id, b.id);
            assert!(b.since >= a.since);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn simulated_clocks_move_with_tokio() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let clock = Clock::simulated(wall, Duration::from_secs(5));
        assert_eq!(clock.wall(), wall);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(clock.wall(), wall + Duration::from_secs(3));
        assert_eq!(clock.boot().unwrap().since, Duration::from_secs(8));
    }
}
