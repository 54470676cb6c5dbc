//! The progress of an import, on standard error: a bar on a terminal, else a line now and then.

use super::outcome::{RowCounts, RowOutcome};
use super::run::ImportRun;
use crate::cli::output::note;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::time::Duration;
use tokio::time::sleep;

/// The time between two looks for the bar, and between two lines.
const REDRAW: Duration = Duration::from_millis(200);
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Shows the progress until the future is dropped, which removes the bar.
pub(super) async fn show(run: &ImportRun) {
    let style = ProgressStyle::with_template("{bar:30} {wide_msg}");
    let bar = style.ok().filter(|_| stderr().is_terminal());
    let bar = bar.map(|style| ProgressBar::new(run.rows.len() as u64).with_style(style));
    loop {
        sleep(bar.as_ref().map_or(BETWEEN_LINES, |_| REDRAW)).await;
        let counts = run.counts();
        let line = line(&counts, &run.obstacle());
        match &bar {
            None => note(&line),
            Some(bar) => {
                bar.set_position(counts.ended() as u64);
                bar.set_message(line);
            }
        }
    }
}

/// Returns the progress in one line, with what keeps the import from going on.
fn line(counts: &RowCounts, obstacle: &str) -> String {
    let (ended, rows) = (counts.ended(), counts.rows());
    let mut parts = vec![format!("{ended} of {rows} rows have ended")];
    let mut add = |rows: usize, what: &str| {
        if rows > 0 {
            parts.push(format!("{rows} {what}"));
        }
    };
    let succeeded = counts.of(RowOutcome::Succeeded);
    add(ended - succeeded, "of them without success");
    add(counts.of(RowOutcome::Waiting), "queued");
    add(counts.of(RowOutcome::Unsent), "not handed over yet");
    let line = parts.join(", ");
    match obstacle {
        "" => line,
        obstacle => format!("{line}; {obstacle}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::RowResult;
    use super::*;

    #[test]
    fn a_line_says_how_far_the_import_is() {
        let line = |outcomes: [RowOutcome; 4], obstacle| {
            let results = outcomes.map(|outcome| RowResult::new(outcome, ""));
            line(&RowCounts::of_all(&results), obstacle)
        };
        use RowOutcome::{Succeeded, Unknown, Unsent, Waiting};
        assert_eq!(
            line([Unsent; 4], ""),
            "0 of 4 rows have ended, 4 not handed over yet"
        );
        assert_eq!(
            line([Succeeded, Unknown, Waiting, Unsent], "it is busy"),
            "2 of 4 rows have ended, 1 of them without success, 1 queued, 1 not handed over yet; it \
             is busy"
        );
    }
}
