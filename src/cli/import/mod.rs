//! `segment-gateway import`: invites and group members from a CSV file, as deferred writes of a
//! running gateway.
//!
//! ```text
//! table      the whole file is checked; a mistake ends the command before anything is sent
//! client     a gateway is recognised by its list of writes
//! hand_over  each row becomes a deferred write under a key that follows from its content
//! follow     the outcomes of the writes are asked for
//! report     a summary, the report, and what to do about the rest
//! ```
//!
//! Invariant: a row is sent once, however often the command runs, for as long as the gateway
//! remembers the row's key. The command keeps nothing: the gateway knows how far it came.

mod arguments;
mod client;
mod columns;
mod follow;
mod hand_over;
mod judgement;
mod outcome;
mod progress;
mod records;
mod reply;
mod report;
mod row;
mod run;
mod table;
mod values;

pub(super) use arguments::ImportCommand;

use super::output::{Failure, note, say};
use super::process;
use super::signals::first_of_two;
use super::token::read_token;
use crate::clock::Clock;
use crate::private_file;
use arguments::{Import, ImportSource};
use client::GatewayClient;
use row::{ImportKind, ImportRow};
use run::ImportRun;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use table::{ImportRules, MOST_BYTES, read_table};
use tokio::runtime::Builder;

/// Runs the command.
pub(super) fn run(command: &ImportCommand) -> Result<(), Failure> {
    let (kind, import, group) = match &command.what {
        ImportSource::Invites(import) => (ImportKind::Invites, import, None),
        ImportSource::Members { import, group } => (ImportKind::Members, import, group.as_deref()),
    };
    let rules = ImportRules {
        kind,
        group: group.map(str::to_owned),
        delimiter: import.delimiter,
    };
    let rows = checked(&import.file, &rules).map_err(Failure::Unusable)?;
    if import.dry_run {
        explain(kind, import, &rows);
        return Ok(());
    }
    let unusable = |why| Failure::Unusable(vec![why]);
    if let Some(report) = &import.report {
        check_report(report, &import.file).map_err(unusable)?;
    }
    // Required by clap unless it is a dry run.
    let token = import.token_file.as_deref().map(read_token).transpose();
    let token = token.map_err(unusable)?;
    let token = token.ok_or_else(|| unusable("--token-file is missing".to_owned()))?;
    let clock = Clock::system();
    let client = GatewayClient::new(&import.gateway, token, &clock).map_err(unusable)?;
    let run = Arc::new(ImportRun::new(rows, import.run.clone(), client));
    let runtime = process::runtime(&mut Builder::new_current_thread())?;
    let began = clock.now();
    runtime.block_on(carry_out(import, &run))?;
    finish(kind, import, &run, clock.now() - began)
}

/// Reads and checks the file.
///
/// # Errors
/// Its mistakes, each with the name of the file.
fn checked(path: &Path, rules: &ImportRules) -> Result<Vec<ImportRow>, Vec<String>> {
    let name = path.display();
    let bytes = read_bounded(path).map_err(|error| vec![format!("cannot read {name}: {error}")])?;
    if bytes.len() > MOST_BYTES {
        let most = MOST_BYTES / 1024 / 1024;
        return Err(vec![format!("{name} is larger than {most} MiB; split it")]);
    }
    let rows = read_table(&bytes, rules);
    rows.map_err(|mistakes| {
        let mistakes = mistakes.into_iter();
        mistakes
            .map(|mistake| format!("{name}: {mistake}"))
            .collect()
    })
}

/// Reads a file, but little beyond the largest that is accepted.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = MOST_BYTES as u64 + 1;
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Checks that the report can be written, and would not overwrite the file.
fn check_report(report: &Path, file: &Path) -> Result<(), String> {
    let name = report.display();
    if let (Ok(report), Ok(file)) = (report.canonicalize(), file.canonicalize())
        && report == file
    {
        return Err(format!("the report would overwrite {name}"));
    }
    private_file::check(report).map_err(|error| format!("cannot write the report {name}: {error}"))
}

/// Says what would be sent.
fn explain(kind: ImportKind, import: &Import, rows: &[ImportRow]) {
    let file = import.file.display();
    say(&format!("{file} is right: {}", kind.counted(rows.len())));
    if let Some(row) = rows.first() {
        say(&format!(
            "each would be handed over to {} as a deferred write, the first as\nPOST {} {}\n\
             Idempotency-Key: {}",
            import.gateway,
            row.path(),
            row.body,
            row.key(&import.run)
        ));
    }
}

/// Carries the import out, until every row has an outcome or the import stops.
async fn carry_out(import: &Import, run: &Arc<ImportRun>) -> Result<(), Failure> {
    run.client.recognise(&import.gateway).await?;
    let interrupted = first_of_two(|| {});
    let stop_at_signal = async {
        interrupted.await;
        note("stopping; a second signal ends the command at once");
        run.stop("interrupted".to_owned(), true);
        std::future::pending::<()>().await;
    };
    let follow_unless_stopped = async {
        if !import.no_wait {
            tokio::select! {
                () = follow::follow(run) => {}
                () = run.stopping() => {}
            }
        }
    };
    let work = async { tokio::join!(hand_over::hand_over_all(run), follow_unless_stopped) };
    tokio::select! {
        _ = work => {}
        () = stop_at_signal => {}
        () = progress::show(run) => {}
    }
    Ok(())
}

/// Prints the summary, writes the report, and says how the command ends.
fn finish(
    kind: ImportKind,
    import: &Import,
    run: &ImportRun,
    took: Duration,
) -> Result<(), Failure> {
    let results = run.results();
    for line in report::summary(kind, &run.rows, &results, took) {
        say(&line);
    }
    if let Some(path) = &import.report {
        let written = report::table(&run.rows, &results).map_err(io::Error::from);
        let written = written.and_then(|text| private_file::replace(path, &text));
        let name = path.display();
        written.map_err(|error| format!("cannot write the report {name}: {error}"))?;
    }
    let stopped = run.stopped();
    match report::shortfall(&run.counts(), stopped.as_ref(), !import.no_wait) {
        None => Ok(()),
        Some(why) => Err(Failure::Failed(why)),
    }
}
