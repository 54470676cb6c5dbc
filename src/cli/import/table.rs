//! Pure. A whole file, read and checked before anything of it is sent.
//!
//! Promises that a file is either right in every row, or rejected with its mistakes, each with its
//! line. Memory and time grow with the file alone, which is bounded in bytes and in rows.

use super::checked_rows::{CheckedRows, ImportRules};
use super::columns::ImportHeader;
use super::lines::{LineCount, decoded};
use super::mistakes::Mistakes;
use super::row::ImportRow;
use csv::{ReaderBuilder, StringRecord, Trim};

/// The largest file, in bytes.
pub(super) const MOST_BYTES: usize = 64 * 1024 * 1024;

/// Reads a file.
///
/// # Errors
/// Its mistakes, a bounded number of them and the number of the others.
pub(super) fn read_table(file: &[u8], rules: &ImportRules) -> Result<Vec<ImportRow>, Vec<String>> {
    let text = decoded(file).map_err(|mistake| vec![mistake])?;
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        // Rows of another width are found below, with a message of our own.
        .flexible(true)
        .trim(Trim::All)
        .delimiter(rules.delimiter)
        .from_reader(text.as_bytes());
    let mut lines = LineCount::new(text.as_bytes());
    let mut record = StringRecord::new();
    let mut next = |record: &mut StringRecord| match reader.read_record(record) {
        Ok(true) => Ok(Some(lines.at(record))),
        Ok(false) => Ok(None),
        // The text is UTF-8 and every width is accepted, so nothing else is left to go wrong.
        Err(error) => Err(vec![error.to_string()]),
    };
    let Some(line) = next(&mut record)? else {
        return Err(vec![
            "the file is empty; expected a line with the names of the columns".into(),
        ]);
    };
    let header = ImportHeader::read(&record, rules.kind, rules.group.is_some());
    let header = header.map_err(|mistakes| {
        let mut found = Mistakes::default();
        mistakes.iter().for_each(|text| found.add(line, text));
        found.into_lines()
    })?;
    let mut checked = CheckedRows::new(header, rules);
    while let Some(line) = next(&mut record)? {
        checked.add(line, &record)?;
    }
    checked.finish()
}

#[cfg(test)]
mod tests;
