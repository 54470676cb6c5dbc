//! What one operation costs: the least, the median and the most over a number of batches, as a row
//! of a table.

#![allow(dead_code, reason = "not every bench prints these rows")]

use segment_gateway::clock::Clock;
use std::time::Duration;

/// Measures, and prints a table.
pub(crate) struct Bench {
    pub(crate) clock: Clock,
    batches: usize,
    /// A batch is made long enough that reading the clock twice does not matter.
    lasting: Duration,
}

/// Nanoseconds for one operation.
pub(crate) struct Spread {
    least: f64,
    pub(crate) median: f64,
    most: f64,
}

impl Bench {
    pub(crate) fn new(quick: bool) -> Self {
        Self {
            clock: Clock::system(),
            batches: if quick { 5 } else { 51 },
            lasting: Duration::from_millis(if quick { 1 } else { 10 }),
        }
    }

    pub(crate) fn title(&self, title: &str) {
        println!(
            "\n{title:<72} {:>10} {:>10} {:>10}",
            "least", "median", "most"
        );
    }

    /// Prints what something costs that can be done any number of times.
    pub(crate) fn row(&self, name: &str, one: impl FnMut()) {
        print(name, &self.repeated(one));
    }

    /// Prints what something costs that can be done `count` times after each preparation. Returns
    /// the median.
    pub(crate) fn prepared(
        &self,
        name: &str,
        count: usize,
        prepare: impl Fn(),
        mut one: impl FnMut(usize),
    ) -> f64 {
        // Each batch is short, so there are more of them; the first one is the warm-up.
        let batches = (0..self.batches * 10).map(|_| {
            prepare();
            (count, self.time(count, &mut one))
        });
        let spread = Spread::of(batches.skip(1));
        print(name, &spread);
        spread.median
    }

    /// Measures something that can be done any number of times.
    pub(crate) fn repeated(&self, mut one: impl FnMut()) -> Spread {
        let mut count = 1;
        // The warm-up finds out how often it has to be done.
        while self.time(count, |_| one()) < self.lasting {
            count *= 2;
        }
        Spread::of((0..self.batches).map(|_| (count, self.time(count, |_| one()))))
    }

    fn time(&self, count: usize, mut one: impl FnMut(usize)) -> Duration {
        let start = self.clock.now();
        for n in 0..count {
            one(n);
        }
        self.clock.now() - start
    }
}

impl Spread {
    fn of(batches: impl Iterator<Item = (usize, Duration)>) -> Self {
        let mut each: Vec<f64> = batches
            .map(|(count, took)| took.as_secs_f64() * 1e9 / count as f64)
            .collect();
        each.sort_unstable_by(f64::total_cmp);
        let at = |n: usize| each.get(n).copied().unwrap_or(f64::NAN);
        Self {
            least: at(0),
            median: at(each.len() / 2),
            most: at(each.len().saturating_sub(1)),
        }
    }
}

fn print(name: &str, spread: &Spread) {
    println!(
        "  {name:<70} {:>10.1} {:>10.1} {:>10.1}",
        spread.least, spread.median, spread.most
    );
}
