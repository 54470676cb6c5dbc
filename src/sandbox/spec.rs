//! Pure. The options of a sandbox.

use std::fmt;
use std::time::Duration;

use super::call::ListMode;
use super::rate_window::WindowKind;

/// The most tokens that a list of accepted or revoked ones may name.
pub const MOST_TOKENS_NAMED: usize = 1_000;

/// The behaviour of a sandbox. The default is a well-behaved API without delay.
#[derive(Clone)]
pub struct SandboxSpec {
    /// The seed of everything random: population, delays, faults, other users.
    pub seed: u64,
    /// The way of counting requests against a limit.
    pub window: WindowKind,
    /// Divides the windows, [`Self::arrive`] and [`Self::reply`]; 0 counts as 1. Replication lag
    /// and lateness are not divided.
    pub time_scale: u32,
    /// The time from a request's last byte to the moment at which it is counted and takes effect.
    pub arrive: Delay,
    /// The time from that moment to the response.
    pub reply: Delay,
    /// The faults and their probabilities.
    pub faults: Faults,
    /// The age of the state that reads see. Writes see and change the present state.
    pub replication_lag: Duration,
    /// The requests that other programs make with the same token on each operation in use, per
    /// window-minute (a real minute divided by the time scale).
    pub other_users: f64,
    /// The treatment of a list with a wrong element.
    pub lists: ListMode,
    /// Whether reads have an `ETag`, and a 304 for clients that have it already.
    pub validators: bool,
    /// Whether reads are compressed for clients that accept it.
    pub gzip: bool,
    /// The limit per minute of reads without a documented one.
    pub default_reads: u32,
    /// The limit per minute of writes without a documented one.
    pub default_writes: u32,
    /// The number of users at the start: `user-00001`, `user-00002`, … (at most 20,000).
    pub users: usize,
    /// The number of groups at the start: `group-00001`, … (at most 2,000).
    pub groups: usize,
    /// The bearer tokens accepted at the start; `None` accepts any (at most 10,000 different ones).
    pub tokens: Option<Vec<String>>,
}

/// A delay, uniform between `base` and `base` plus `jitter`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// The shortest delay.
    pub base: Duration,
    /// The range of the delay.
    pub jitter: Duration,
}

/// The faults. Each number is a probability per request from 0 to 1; others are clamped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// A 429 although the limit is not reached.
    pub throttle: f64,
    /// A 5xx, each kind a third: from a balancer in front of the API (not counted, no effect), from
    /// the API before the request takes effect, or after it did.
    pub server_error: f64,
    /// A lost response: the request takes effect, but the connection is closed or stays silent.
    pub lost_reply: f64,
    /// A late arrival: by [`Self::late_by`], even if the client no longer waits.
    pub late: f64,
    /// The lateness of a late request.
    pub late_by: Duration,
}

impl Default for SandboxSpec {
    fn default() -> Self {
        Self {
            seed: 1,
            window: WindowKind::Fixed,
            time_scale: 1,
            arrive: Delay::default(),
            reply: Delay::default(),
            faults: Faults::default(),
            replication_lag: Duration::ZERO,
            other_users: 0.0,
            lists: ListMode::Whole,
            validators: false,
            gzip: false,
            default_reads: 200,
            default_writes: 60,
            users: 250,
            groups: 10,
            tokens: None,
        }
    }
}

// Written by hand, so that no token is ever printed.
impl fmt::Debug for SandboxSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxSpec")
            .field("seed", &self.seed)
            .field("window", &self.window)
            .field("time_scale", &self.time_scale)
            .field("arrive", &self.arrive)
            .field("reply", &self.reply)
            .field("faults", &self.faults)
            .field("replication_lag", &self.replication_lag)
            .field("other_users", &self.other_users)
            .field("lists", &self.lists)
            .field("validators", &self.validators)
            .field("gzip", &self.gzip)
            .field("users", &self.users)
            .field("groups", &self.groups)
            .field("tokens", &self.tokens.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}
