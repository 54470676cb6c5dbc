//! Bench: how the cost of one event grows with what else is there.
//!
//! ```sh
//! cargo bench --bench scale               # about four minutes
//! cargo bench --bench scale -- --quick    # to see that it works
//! ```
//!
//! Each row is one event with 10, with 1,000 and with 10,000 others present: the medians in
//! nanoseconds, and the exponent of the power law that fits them best (0 is constant, 1 is linear).
//! The goal is an exponent below 0.25, which a logarithm keeps. It is printed whether it is met.
//!
//! What is looked at in turn, such as stored answers, is warm: the question is how many steps an
//! event takes, not what a miss of the processor's caches costs. For that see `reads -- keys`.

#![allow(
    clippy::print_stdout,
    reason = "the figures are what this program is for"
)]

#[path = "../support/stored.rs"]
mod stored;
#[path = "../support/table.rs"]
mod table;

mod deferred;
mod held;
mod lanes;
mod shared;

use segment_gateway::caller::Caller;
use segment_gateway::credential::Credential;
use std::net::{IpAddr, Ipv4Addr};
use table::Bench;

/// The numbers of others.
const SIZES: [u32; 3] = [10, 1_000, 10_000];
/// The exponent below which growth counts as none.
const GOAL: f64 = 0.25;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    if cfg!(debug_assertions) {
        println!("WARNING: a debug build, these figures mean nothing; use `cargo bench`");
    }
    let scale = Scale {
        bench: Bench::new(quick),
    };
    // A ticket sets a timer when it is asked for its permit.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let _inside = runtime.as_ref().map(tokio::runtime::Runtime::enter);
    // First, for what is freed is taken again and does not show.
    held::memory();
    held::measure(&scale);
    lanes::measure(&scale);
    deferred::measure(&scale);
    shared::measure(&scale);
}

/// Measures events, and prints a table of how they grow.
pub(crate) struct Scale {
    pub(crate) bench: Bench,
}

impl Scale {
    pub(crate) fn title(&self, title: &str) {
        let [few, more, many] = SIZES;
        println!("\n{title:<64} {few:>9} {more:>9} {many:>10}   slope");
    }

    /// Prints what an event costs among so many others, which `among` prepares.
    pub(crate) fn row<F: FnMut()>(&self, name: &str, among: impl Fn(u32) -> F) {
        let medians = SIZES.map(|others| self.bench.repeated(among(others)).median);
        let slope = slope(&medians);
        let met = if slope < GOAL { "met" } else { "NOT MET" };
        let [few, more, many] = medians;
        println!("  {name:<62} {few:>9.0} {more:>9.0} {many:>10.0}   {slope:>5.2}  {met}");
    }
}

/// The exponent of the power law through these medians: least squares of the logarithms.
fn slope(medians: &[f64]) -> f64 {
    let points = SIZES.iter().zip(medians);
    let points: Vec<(f64, f64)> = points.map(|(n, y)| (f64::from(*n).ln(), y.ln())).collect();
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let rise: f64 = points
        .iter()
        .map(|(x, y)| (x - mean_x) * (y - mean_y))
        .sum();
    let run: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    rise / run
}

/// The nth credential.
pub(crate) fn credential(n: u32) -> Credential {
    let mut hash = [7; 16];
    hash[..4].copy_from_slice(&n.to_be_bytes());
    Credential::from_bytes(hash)
}

/// The nth peer, which is a caller of its own.
pub(crate) fn peer(n: u32) -> Caller {
    Caller {
        principal: IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)).into(),
        name: None,
    }
}
