//! Pure. What an import says at its end: a summary for people, a file for programs, and what to do
//! about the rows that did not succeed.

use super::result::{RowOutcome, RowResult};
use super::row::{ImportKind, ImportRow};
use super::state::RowCounts;
use super::stop::StopCause;
use std::time::Duration;

/// The most rows without success that the summary names.
const MOST_NAMED: usize = 20;

/// Returns the lines of the summary: the numbers, then the rows without success.
pub(super) fn summary(
    kind: ImportKind,
    rows: &[ImportRow],
    results: &[RowResult],
    took: Duration,
) -> Vec<String> {
    let counts = RowCounts::of_all(results);
    let (total, seconds) = (kind.counted(rows.len()), took.as_secs());
    let mut lines = vec![format!("{total} in {seconds} s: {}", counts.in_words())];
    let without_success = |result: &RowResult| {
        !matches!(
            result.outcome,
            RowOutcome::Succeeded | RowOutcome::Waiting | RowOutcome::Unsent
        )
    };
    let mut named = rows
        .iter()
        .zip(results)
        .filter(|(_, result)| without_success(result));
    let shown = named.by_ref().take(MOST_NAMED);
    lines.extend(shown.map(|(row, result)| one(row, result)));
    match named.count() {
        0 => {}
        more => lines.push(format!("… and {more} more")),
    }
    lines
}

/// Returns the line of a row.
fn one(row: &ImportRow, result: &RowResult) -> String {
    let status = result.status.map(|status| status.to_string());
    let within = row.group.as_ref().map(|group| format!("in {group}"));
    let parts = [
        Some(format!("line {}: {}", row.line, row.email)),
        within,
        Some(format!("{}:", result.outcome.as_str())),
        status,
        Some(result.error.kind.clone()),
        Some(result.error.message.clone()),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(" ")
}

/// Returns the report as CSV: a line for each row, in the order of the file.
///
/// # Errors
/// Never in practice, because the bytes are written to memory.
pub(super) fn table(rows: &[ImportRow], results: &[RowResult]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "line", "email", "group", "outcome", "status", "type", "message", "write",
    ])?;
    for (row, result) in rows.iter().zip(results) {
        let optional = |value: Option<String>| value.unwrap_or_default();
        writer.write_record([
            &row.line.to_string(),
            &row.email,
            row.group.as_deref().unwrap_or_default(),
            result.outcome.as_str(),
            &optional(result.status.map(|status| status.to_string())),
            &result.error.kind,
            &result.error.message,
            &optional(result.id.map(|id| id.to_string())),
        ])?;
    }
    writer
        .into_inner()
        .map_err(|error| error.into_error().into())
}

/// Returns why an import is not complete and what to do, or `None` if it is. Waiting rows are part
/// of a complete import if nobody wants to wait for them.
pub(super) fn shortfall(
    counts: &RowCounts,
    stopped: Option<&StopCause>,
    waits: bool,
) -> Option<String> {
    let has = |outcome| counts.of(outcome) > 0;
    let queued = if waits {
        0
    } else {
        counts.of(RowOutcome::Waiting)
    };
    let missing = counts.rows() - counts.of(RowOutcome::Succeeded) - queued;
    if missing == 0 {
        return None;
    }
    let why = stopped.map_or_else(
        || format!("{missing} of {} rows did not succeed", counts.rows()),
        ToString::to_string,
    );
    let mut sentences = vec![why];
    let is_left = has(RowOutcome::Unsent) || waits && has(RowOutcome::Waiting);
    // Not after a stop that the user has to mend first, and that says how.
    if is_left && !matches!(stopped, Some(StopCause::NotDeferred { .. })) {
        sentences.push(
            "Rows that were handed over are carried out. Run the command again to go on: nothing is \
             sent twice"
                .to_owned(),
        );
    }
    if has(RowOutcome::Failed) || has(RowOutcome::Refused) {
        sentences.push(
            "Correct the rows that failed, or send them unchanged in a run of another name (--run NAME)"
                .to_owned(),
        );
    }
    if has(RowOutcome::Unknown) {
        sentences
            .push("An unknown row may have taken effect: look before you send it again".to_owned());
    }
    Some(sentences.join(". "))
}

#[cfg(test)]
mod tests {
    use super::super::reply::ErrorText;
    use super::*;

    fn rows() -> Vec<ImportRow> {
        vec![
            ImportRow::invite(2, "a@b.example", &[]),
            ImportRow::member(3, "c@d.example", "g1".into()),
        ]
    }

    fn failed() -> RowResult {
        RowResult {
            outcome: RowOutcome::Failed,
            status: Some(422),
            error: ErrorText {
                kind: "Conflict".to_owned(),
                message: "is, \"already\" there".to_owned(),
            },
            id: "0192f0c1-2a3b-7c4d-8e5f-012345678901".parse().ok(),
        }
    }

    #[test]
    fn a_summary_counts_and_names_what_did_not_succeed() {
        let results = [RowResult::new(RowOutcome::Succeeded, ""), failed()];
        let lines = summary(
            ImportKind::Members,
            &rows(),
            &results,
            Duration::from_millis(78_900),
        );
        assert_eq!(
            lines,
            [
                "2 memberships in 78 s: 1 succeeded, 1 failed",
                "line 3: c@d.example in g1 failed: 422 Conflict is, \"already\" there",
            ]
        );
        let many = vec![ImportRow::invite(2, "a@b.example", &[]); MOST_NAMED + 2];
        let results = vec![failed(); MOST_NAMED + 2];
        let lines = summary(ImportKind::Invites, &many, &results, Duration::ZERO);
        assert_eq!(lines.len(), MOST_NAMED + 2);
        assert_eq!(lines.last().unwrap(), "… and 2 more");
    }

    #[test]
    fn a_report_has_a_line_for_each_row() {
        let results = [RowResult::new(RowOutcome::Unsent, ""), failed()];
        let text = String::from_utf8(table(&rows(), &results).unwrap()).unwrap();
        assert_eq!(
            text,
            "line,email,group,outcome,status,type,message,write\n\
             2,a@b.example,,unsent,,,,\n\
             3,c@d.example,g1,failed,422,Conflict,\"is, \"\"already\"\" there\",\
             0192f0c1-2a3b-7c4d-8e5f-012345678901\n"
        );
    }

    #[test]
    fn what_is_missing_is_said_with_its_remedy() {
        let of = |outcomes: &[RowOutcome], stopped: Option<&StopCause>, waits| {
            let results: Vec<_> = outcomes
                .iter()
                .map(|one| RowResult::new(*one, ""))
                .collect();
            shortfall(&RowCounts::of_all(&results), stopped, waits)
        };
        use RowOutcome::{Failed, Refused, Succeeded, Unknown, Unsent, Waiting};
        assert_eq!(of(&[Succeeded], None, true), None);
        assert_eq!(of(&[Succeeded], Some(&StopCause::Interrupted), true), None);
        assert_eq!(of(&[Succeeded, Waiting], None, false), None);
        for (outcomes, stopped, part) in [
            (
                &[Waiting][..],
                Some(StopCause::Interrupted),
                "interrupted. Rows that were handed over",
            ),
            (
                &[Unsent],
                Some(StopCause::Unavailable("x".into())),
                "Run the command again",
            ),
            (&[Succeeded, Failed], None, "--run NAME"),
            (&[Refused], None, "--run NAME"),
            (&[Unknown], None, "look before you send it again"),
            (
                &[Succeeded, Refused],
                None,
                "1 of 2 rows did not succeed. Correct",
            ),
        ] {
            let found = of(outcomes, stopped.as_ref(), true).unwrap();
            assert!(found.contains(part), "{found}");
        }
        let at_once = StopCause::NotDeferred {
            line: 2,
            is_shadowed: false,
        };
        let found = of(&[Succeeded, Unsent], Some(&at_once), true).unwrap();
        assert!(
            found.contains("the row of line 2 was sent at once. Set state.directory"),
            "{found}"
        );
        assert!(!found.contains("nothing is sent twice"), "{found}");
    }
}
