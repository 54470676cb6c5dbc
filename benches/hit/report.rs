//! What is printed.

use crate::load::{self, Run};
use crate::machine::Usage;
use crate::{GOAL, Kind};
use std::time::Duration;

/// A figure of a run.
type Figure = fn(&Run) -> f64;

/// One run.
pub(crate) fn line(round: usize, name: &str, run: &Run) {
    println!(
        "run {}  {name:<31} {:>8.0} requests/s  p50 {:>5.0} µs  p99 {:>5.0} µs   server {}, load {}",
        round + 1,
        run.per_second(),
        micros(run.latency(50)),
        micros(run.latency(99)),
        used(run.server, run.lasted),
        used(run.load, run.lasted),
    );
}

/// The answer that all of them give.
pub(crate) fn answer(sample: &[u8], body_bytes: usize) {
    let head = sample.len().saturating_sub(body_bytes);
    println!("\n  the answer of all, with a body of {body_bytes} B:");
    for line in String::from_utf8_lossy(&sample[..head]).trim_end().lines() {
        println!("    {line}");
    }
    println!();
}

/// Medians, and each in proportion to the bare server's.
pub(crate) fn summary(runs: &[(Kind, Run)]) {
    let median_of = |kind: Kind, figure: Figure| {
        let of_kind = runs.iter().filter(|(of, _)| *of == kind);
        median(of_kind.map(|(_, run)| figure(run)).collect())
    };
    let columns: [(&str, Figure); 4] = [
        ("requests/s", Run::per_second),
        ("per s of its core", Run::per_core_second),
        ("p50 µs", |run| micros(run.latency(50))),
        ("p99 µs", |run| micros(run.latency(99))),
    ];
    print!("\n{:<33}", "medians (of the bare server's)");
    for (name, _) in columns {
        print!("  {name:>18}");
    }
    println!();
    for kind in [Kind::Bare, Kind::Gateway, Kind::GatewayLogsAll] {
        print!("  {:<31}", kind.name());
        for (_, figure) in columns {
            let value = median_of(kind, figure);
            let ratio = value / median_of(Kind::Bare, figure);
            print!("  {value:>10.0} ({ratio:>5.3})");
        }
        println!();
    }
    let ratios = ratios(runs);
    let ratio = median(ratios.clone());
    let rounds: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.3}")).collect();
    let rounds = rounds.join(" ");
    let verdict = if ratio >= GOAL { "met" } else { "NOT met" };
    println!(
        "\ngateway/bare in requests per second: {ratio:.3} (median of the rounds: {rounds}); the goal \
         of at least {GOAL:.2} is {verdict}"
    );
    for doubt in load::doubts(runs.iter().map(|(_, run)| run)) {
        println!("{doubt}");
    }
}

/// The ratio in each round, from the least to the most. What one round measures was measured at the
/// same time; the machine may have been another one in the next.
fn ratios(runs: &[(Kind, Run)]) -> Vec<f64> {
    let of = |kind: Kind| {
        let of_kind = runs.iter().filter(move |(of, _)| *of == kind);
        of_kind.map(|(_, run)| run.per_second())
    };
    let mut ratios: Vec<f64> = of(Kind::Gateway)
        .zip(of(Kind::Bare))
        .map(|(gateway, bare)| gateway / bare)
        .collect();
    ratios.sort_unstable_by(f64::total_cmp);
    ratios
}

fn used(usage: Option<Usage>, of: Duration) -> String {
    let percent = |part: Duration| 100.0 * part.as_secs_f64() / of.as_secs_f64();
    usage.map_or("unknown".to_owned(), |usage| {
        format!(
            "{:>3.0} % busy ({:.0} % waiting)",
            percent(usage.ran),
            percent(usage.waited)
        )
    })
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
