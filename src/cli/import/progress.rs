//! The progress of an import, on standard error: a bar on a terminal, else a line now and then.

use super::result::RowOutcome;
use super::run::ImportRun;
use super::state::RowCounts;
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
    if stderr().is_terminal() {
        draw(run).await;
    }
    loop {
        sleep(BETWEEN_LINES).await;
        note(&format!(
            "{}{}",
            line(&run.counts()),
            because(&run.obstacle())
        ));
    }
}

/// Draws the bar. Returns only if there can be none.
async fn draw(run: &ImportRun) {
    let Ok(style) = ProgressStyle::with_template("{bar:30} {wide_msg}") else {
        return;
    };
    let bar = ProgressBar::new(run.rows.len() as u64).with_style(style);
    loop {
        let counts = run.counts();
        bar.set_position(counts.ended() as u64);
        bar.set_message(format!("{}{}", line(&counts), because(&run.obstacle())));
        sleep(REDRAW).await;
    }
}

/// Returns the progress in one line.
fn line(counts: &RowCounts) -> String {
    let (ended, rows) = (counts.ended(), counts.rows());
    let bad: usize = [RowOutcome::Failed, RowOutcome::Unknown, RowOutcome::Refused]
        .map(|outcome| counts.of(outcome))
        .iter()
        .sum();
    let mut line = format!("{ended} of {rows} rows have ended");
    if bad > 0 {
        line += &format!(", {bad} of them without success");
    }
    for (outcome, what) in [
        (RowOutcome::Waiting, "queued"),
        (RowOutcome::Unsent, "not handed over yet"),
    ] {
        if counts.of(outcome) > 0 {
            line += &format!(", {} {what}", counts.of(outcome));
        }
    }
    line
}

/// Returns what keeps the import from going on, as the end of a line.
fn because(obstacle: &str) -> String {
    match obstacle {
        "" => String::new(),
        obstacle => format!("; {obstacle}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::result::RowResult;
    use super::super::state::ImportState;
    use super::*;

    #[test]
    fn a_line_says_how_far_the_import_is() {
        let mut state = ImportState::new(4);
        assert_eq!(
            line(&state.counts()),
            "0 of 4 rows have ended, 4 not handed over yet"
        );
        state.note(0, RowResult::new(RowOutcome::Succeeded, ""));
        state.note(1, RowResult::new(RowOutcome::Unknown, ""));
        state.note(2, RowResult::new(RowOutcome::Waiting, ""));
        assert_eq!(
            line(&state.counts()),
            "2 of 4 rows have ended, 1 of them without success, 1 queued, 1 not handed over yet"
        );
        assert_eq!(because("the gateway is busy"), "; the gateway is busy");
    }
}
