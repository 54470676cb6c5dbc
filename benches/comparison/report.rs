//! What is printed: a table of medians for each thing that is compared, and whether its goals are
//! met.

use super::load::Run;
use super::machine::Usage;
use super::{BODY_BYTES, Contender, Round};

/// A figure of a run.
type Figure = fn(&Run) -> f64;

/// A goal for the ratio of two contenders.
pub(crate) struct Goal {
    pub(crate) of: Contender,
    pub(crate) to: Contender,
    pub(crate) figure: Figure,
    /// What the figure is.
    pub(crate) what: &'static str,
    pub(crate) bound: Bound,
}

/// What the ratio should be.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// The head of the answer that all of them give.
pub(crate) fn answer(sample: &[u8]) {
    let head = sample.len().saturating_sub(BODY_BYTES);
    println!("\n  the answer to a hit:");
    for line in String::from_utf8_lossy(&sample[..head]).trim_end().lines() {
        println!("    {line}");
    }
}

/// The medians of all rounds, each in proportion to the baseline's.
pub(crate) fn table(title: &str, baseline: Contender, rounds: &[Round]) {
    let columns: [(&str, Figure); 4] = [
        ("requests/s", Run::per_second),
        ("µs of its core", Run::micros_of_core),
        ("p50 µs", |run| run.micros(50)),
        ("p99 µs", |run| run.micros(99)),
    ];
    println!("\n{title}: medians (relative to {})", baseline.name());
    print!("{:<33}", "");
    for (name, _) in columns {
        print!("  {name:>18}");
    }
    println!("  {:>20}", "core: busy, waiting");
    for (contender, _) in rounds.first().into_iter().flatten() {
        print!("  {:<31}", contender.name());
        for (_, figure) in columns {
            let value = median(figures(*contender, figure, rounds));
            let ratio = median(ratios([*contender, baseline], figure, rounds));
            let share = if ratio.is_nan() {
                String::new()
            } else {
                format!("({ratio:.3})")
            };
            print!("  {value:>10.1} {share:>7}");
        }
        let share = |part: fn(&Usage) -> f64| 100.0 * median(shares(*contender, part, rounds));
        println!(
            "  {:>11.0} %, {:>3.0} %",
            share(|usage| usage.ran.as_secs_f64()),
            share(|usage| usage.waited.as_secs_f64()),
        );
    }
}

/// Whether the median of the rounds' ratios is what it should be. What one round measures was
/// measured at the same time; the machine may have been another one in the next.
pub(crate) fn verdict(goal: &Goal, rounds: &[Round]) {
    let (of, to) = (goal.of.name(), goal.to.name());
    let mut ratios = ratios([goal.of, goal.to], goal.figure, rounds);
    if ratios.is_empty() {
        println!("{} in proportion to {to}: {to} is not installed", goal.what);
        return;
    }
    ratios.sort_unstable_by(f64::total_cmp);
    let texts: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.3}")).collect();
    let ratio = median(ratios);
    let (bound, is_met) = match goal.bound {
        Bound::AtLeast(least) => (format!("at least {least:.2}"), ratio >= least),
        Bound::AtMost(most) => (format!("at most {most:.2}"), ratio <= most),
    };
    println!(
        "{}, {of} / {to}: {ratio:.3} (median of the rounds: {}); the goal of {bound} is {}",
        goal.what,
        texts.join(" "),
        if is_met { "met" } else { "NOT met" },
    );
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The runs of a contender, one of each round that has it.
fn runs(of: Contender, rounds: &[Round]) -> impl Iterator<Item = &Run> {
    let all = rounds.iter().flatten();
    all.filter(move |(contender, _)| *contender == of)
        .map(|(_, run)| run)
}

fn figures(of: Contender, figure: Figure, rounds: &[Round]) -> Vec<f64> {
    runs(of, rounds).map(figure).collect()
}

/// The parts of the time of its runs.
fn shares(of: Contender, part: fn(&Usage) -> f64, rounds: &[Round]) -> Vec<f64> {
    runs(of, rounds)
        .filter_map(|run| Some(part(&run.server?) / run.lasted.as_secs_f64()))
        .collect()
}

/// The ratio of the first to the second in each round.
fn ratios([of, to]: [Contender; 2], figure: Figure, rounds: &[Round]) -> Vec<f64> {
    let to = runs(to, rounds).map(figure);
    runs(of, rounds)
        .map(figure)
        .zip(to)
        .map(|(of, to)| of / to)
        .collect()
}
