//! Pure. What a sandbox can be told to be.

use std::fmt;
use std::time::Duration;

use super::call::ListMode;
use super::window::WindowKind;

/// How a sandbox behaves. The default is a well-behaved API without delay.
#[derive(Clone)]
pub struct SandboxSpec {
    /// The seed of everything that is left to chance: population, delays, faults, other users.
    pub seed: u64,
    /// How requests are counted against a limit.
    pub window: WindowKind,
    /// Divides the windows, [`Self::arrive`] and [`Self::reply`]; 0 counts as 1. The lag and the
    /// lateness of requests are taken as they are.
    pub time_scale: u32,
    /// From the request's last byte to the moment at which it is counted and takes effect.
    pub arrive: Delay,
    /// From that moment to the answer.
    pub reply: Delay,
    /// What goes wrong, and how often.
    pub faults: Faults,
    /// Reads see the state as it was this long ago; writes see and change it as it is.
    pub replication_lag: Duration,
    /// Requests per window-minute (real minute divided by the time scale) that other programs make
    /// with the same token on each operation in use.
    pub other_users: f64,
    /// What becomes of a list of which one element is wrong.
    pub lists: ListMode,
    /// Reads are answered with an `ETag`, and with 304 to who has that already.
    pub validators: bool,
    /// Reads are answered compressed to who understands it.
    pub gzip: bool,
    /// The limit per minute of reads that document none.
    pub default_reads: u32,
    /// The limit per minute of writes that document none.
    pub default_writes: u32,
    /// How many users there are in the beginning: `user-00001`, `user-00002`, … (at most 20,000).
    pub users: usize,
    /// How many groups there are in the beginning: `group-00001`, … (at most 2,000).
    pub groups: usize,
    /// The bearer tokens that are accepted; `None`: any (at most 10,000 different ones).
    pub tokens: Option<Vec<String>>,
}

/// A delay of at least `base`, and up to `jitter` longer, uniformly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// The least that it takes.
    pub base: Duration,
    /// How much longer it may take.
    pub jitter: Duration,
}

/// What goes wrong. Each number is a probability per request from 0 to 1, others are clamped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// A 429 although the limit is not reached.
    pub throttle: f64,
    /// A 5xx: by a balancer ahead of the API (not counted, no effect), by the API before the
    /// request took effect, or after it; each a third.
    pub server_error: f64,
    /// The request takes effect, but the connection is closed or left without an answer.
    pub lost_reply: f64,
    /// The request arrives [`Self::late_by`] late, whether or not the client still waits.
    pub late: f64,
    /// How late a late request arrives.
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

// By hand, so that no token is ever printed.
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
