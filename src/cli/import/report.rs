//! Pure. What an import says at its end: a summary for people, a file for programs, and what to do
//! about the rows that did not succeed.

use super::outcome::{RowCounts, RowOutcome, RowResult};
use super::row::{ImportKind, ImportRow};
use super::run::StopCause;
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
    let there = RowOutcome::ALL
        .into_iter()
        .filter(|one| counts.of(*one) > 0);
    let there = there.map(|one| format!("{} {}", counts.of(one), one.as_str()));
    let numbers: Vec<String> = there.collect();
    let (total, seconds) = (kind.counted(rows.len()), took.as_secs());
    let mut lines = vec![format!("{total} in {seconds} s: {}", numbers.join(", "))];
    let mut named = rows
        .iter()
        .zip(results)
        .filter(|(_, result)| result.outcome.is_final() && result.outcome != RowOutcome::Succeeded);
    lines.extend(named.by_ref().take(MOST_NAMED).map(|(row, result)| {
        let group = row.group.as_ref();
        let within = group
            .map(|group| format!(" in {group}"))
            .unwrap_or_default();
        let (line, email, outcome) = (row.line, &row.email, result.outcome.as_str());
        let error = result.error.in_words(result.status);
        format!("line {line}: {email}{within} {outcome}: {error}")
    }));
    match named.count() {
        0 => {}
        more => lines.push(format!("… and {more} more")),
    }
    lines
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
        let status = result.status.map(|status| status.to_string());
        let write = result.id.map(|id| id.to_string());
        writer.write_record([
            &row.line.to_string(),
            &row.email,
            row.group.as_deref().unwrap_or_default(),
            result.outcome.as_str(),
            &status.unwrap_or_default(),
            &result.error.kind,
            &result.error.message,
            &write.unwrap_or_default(),
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
    let queued = match waits {
        true => 0,
        false => counts.of(RowOutcome::Waiting),
    };
    let missing = counts.rows() - counts.of(RowOutcome::Succeeded) - queued;
    if missing == 0 {
        return None;
    }
    let mut sentences = vec![match stopped {
        Some(cause) => cause.why.clone(),
        None => format!("{missing} of {} rows did not succeed", counts.rows()),
    }];
    let mut add = |sentence: &str| sentences.push(sentence.to_owned());
    if has(RowOutcome::Waiting) {
        add("Rows that were handed over are carried out");
    }
    if stopped.is_some_and(|cause| cause.is_resumable) {
        add("Run the command again to go on: nothing is sent twice");
    }
    if has(RowOutcome::Failed) || has(RowOutcome::Refused) {
        add(
            "Correct the rows that failed, or send them unchanged, in a file of their own, with --run NAME",
        );
    }
    if has(RowOutcome::Unknown) {
        add("An unknown row may have taken effect: look before you send it again");
    }
    Some(sentences.join(". "))
}

#[cfg(test)]
mod tests {
    use super::super::reply::ErrorText;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn rows() -> Vec<ImportRow> {
        vec![
            ImportRow::invite(2, "a@b.example", Vec::new()),
            ImportRow::member(3, "c@d.example", "g1"),
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
        let many = vec![ImportRow::invite(2, "a@b.example", Vec::new()); MOST_NAMED + 2];
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
        let cause = |is_resumable| StopCause {
            why: "why".to_owned(),
            is_resumable,
        };
        let of = |outcomes: &[RowOutcome], stopped: Option<StopCause>, waits| {
            let results: Vec<_> = outcomes
                .iter()
                .map(|one| RowResult::new(*one, ""))
                .collect();
            shortfall(&RowCounts::of_all(&results), stopped.as_ref(), waits)
        };
        use RowOutcome::{Failed, Refused, Succeeded, Unknown, Unsent, Waiting};
        assert_eq!(of(&[Succeeded], None, true), None);
        assert_eq!(of(&[Succeeded], Some(cause(true)), true), None);
        assert_eq!(of(&[Succeeded, Waiting], None, false), None);
        for (outcomes, stopped, part) in [
            (
                &[Waiting][..],
                Some(cause(true)),
                "why. Rows that were handed over are carried out. Run the command again",
            ),
            (&[Unsent], Some(cause(true)), "Run the command again"),
            (&[Succeeded, Failed], None, "--run NAME"),
            (&[Refused], None, "--run NAME"),
            (&[Unknown], None, "look before you send it again"),
            (
                &[Succeeded, Refused],
                None,
                "1 of 2 rows did not succeed. Correct",
            ),
        ] {
            let found = of(outcomes, stopped, true).unwrap();
            assert!(found.contains(part), "{found}");
        }
        let found = of(&[Succeeded, Unsent], Some(cause(false)), true);
        assert_eq!(found.as_deref(), Some("why"));
    }

    proptest! {
        /// Each row is counted once, under its own outcome, and is one line of the report.
        #[test]
        fn every_row_is_counted_once(
            outcomes in prop::collection::vec(prop::sample::select(&RowOutcome::ALL[..]), 0..60),
        ) {
            let row = |n| ImportRow::invite(n + 2, &format!("p{n}@b.example"), Vec::new());
            let rows: Vec<_> = (0..outcomes.len()).map(row).collect();
            let of = |outcome: &RowOutcome| RowResult::new(*outcome, "why");
            let results: Vec<_> = outcomes.iter().map(of).collect();
            let mut expected = BTreeMap::new();
            for outcome in &outcomes {
                *expected.entry(outcome.as_str().to_owned()).or_insert(0) += 1;
            }

            let lines = summary(ImportKind::Invites, &rows, &results, Duration::ZERO);
            let (total, numbers) = lines[0].split_once(" in 0 s: ").unwrap();
            prop_assert_eq!(total, ImportKind::Invites.counted(rows.len()));
            let numbers = numbers.split(", ").filter_map(|part| part.split_once(' '));
            let counted: Vec<(String, usize)> = numbers
                .map(|(rows, outcome)| (outcome.to_owned(), rows.parse().unwrap()))
                .collect();
            prop_assert_eq!(counted.len(), expected.len());
            prop_assert_eq!(counted.into_iter().collect::<BTreeMap<_, _>>(), expected);

            let report = table(&rows, &results).unwrap();
            let reported: Vec<(String, String)> = csv::Reader::from_reader(&report[..])
                .records()
                .map(|line| line.map(|line| (line[1].to_owned(), line[3].to_owned())).unwrap())
                .collect();
            let told = rows.iter().zip(&outcomes);
            let told: Vec<_> = told
                .map(|(row, outcome)| (row.email.clone(), outcome.as_str().to_owned()))
                .collect();
            prop_assert_eq!(reported, told);
        }
    }
}
