//! Bench: what reads cost that are not plain hits, and what many stored answers cost.
//!
//! ```sh
//! cargo bench --bench reads                 # about two minutes
//! cargo bench --bench reads -- --quick      # to see that it works; the figures are rough
//! ```
//!
//! - *Stored keys*: a look-up in a cache with a million answers beside one with a thousand, and what
//!   an answer takes in memory: what the cache counts, and what the process has more of. The library
//!   itself, in this process.
//! - *Hits*: a 304 beside the hit that it spares, and a compressed answer that is decoded for its
//!   reader beside the same answer as it is stored. The program itself over loopback, as in the
//!   bench `hit`: servers and load on a core each, answers checked, all in turn in short slices,
//!   because a virtual machine changes its speed; each round has a new process. The ratio is that of
//!   one round, to the plain hit beside it.
//! - *A crowd*: a thousand readers ask at once for what is not stored and is fetched once, beside as
//!   many hits of it on the same connections.
//!
//! The exit status tells whether it could measure.

#![allow(
    clippy::print_stdout,
    reason = "the figures are what this program is for"
)]

mod crowd;
mod hits;
mod keys;
#[path = "../support/load.rs"]
mod load;
#[path = "../support/machine.rs"]
mod machine;
#[path = "../support/servers.rs"]
mod servers;
#[path = "../support/stored.rs"]
mod stored;
#[path = "../support/upstream.rs"]
mod upstream;

use machine::Cores;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

/// Any reason why it cannot go on.
type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cannot measure: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<(), Failure> {
    let mut quick = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            // Cargo says so to every bench.
            "--bench" => {}
            "--quick" => quick = true,
            other => return Err(format!("{other}: expected --quick").into()),
        }
    }
    if cfg!(debug_assertions) {
        println!("WARNING: a debug build, these figures mean nothing; use `cargo bench`");
    }
    // Before any other thread begins, so that all of them run where the load runs.
    let cores = Cores::choose();
    println!("{cores}");
    let at = (&cores, gateway());
    // The first, so that no memory is there that was used before.
    keys::measure(quick)?;
    hits::measure(quick, at)?;
    crowd::measure(quick, at)
}

/// The program itself.
fn gateway() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_segment-gateway"))
}

/// The least, the median and the most.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_unstable_by(f64::total_cmp);
    let at = |n: usize| values.get(n).copied().unwrap_or(f64::NAN);
    [
        at(0),
        at(values.len() / 2),
        at(values.len().saturating_sub(1)),
    ]
}

fn median(values: Vec<f64>) -> f64 {
    spread(values)[1]
}

/// A whole number as people read it.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
