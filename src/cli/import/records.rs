//! Pure. The text of a file, and its records with the lines on which they begin.

use csv::{ReaderBuilder, StringRecord, Trim};

/// Returns the text of a file, its lines ended by `\n` alone, and without the mark that some
/// programs put before UTF-8.
///
/// # Errors
/// If it is in another encoding.
pub(super) fn decoded(file: &[u8]) -> Result<String, String> {
    const REMEDY: &str = "save it as \"CSV UTF-8\"";
    if file.starts_with(b"\xff\xfe") || file.starts_with(b"\xfe\xff") {
        return Err(format!("the file is in UTF-16; {REMEDY}"));
    }
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let with_line_feeds = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n");
    let text = std::str::from_utf8(file).map_err(|error| {
        let right = file.get(..error.valid_up_to()).unwrap_or_default();
        let right = with_line_feeds(&String::from_utf8_lossy(right));
        let line = 1 + right.matches('\n').count();
        format!("line {line}: the file is not in UTF-8; {REMEDY}")
    })?;
    Ok(with_line_feeds(text))
}

/// Returns the records of a text, each with the line on which it begins, from 1. The library of CSV
/// knows another line of a record that follows empty ones.
pub(super) fn records(text: &str, delimiter: u8) -> impl Iterator<Item = (usize, StringRecord)> {
    let reader = ReaderBuilder::new()
        .has_headers(false)
        // Rows of another width are found later, with a message of our own.
        .flexible(true)
        .trim(Trim::All)
        .delimiter(delimiter)
        .from_reader(text.as_bytes());
    let (mut at, mut line) = (0, 1);
    // The text is UTF-8 and every width is accepted, so no record is in error.
    reader
        .into_records()
        .map_while(Result::ok)
        .map(move |record| {
            let start = record.position().map_or(0, |position| position.byte());
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            let rest = text.get(start..).unwrap_or_default();
            let start = start + rest.len() - rest.trim_start_matches('\n').len();
            line += text
                .get(at..start)
                .unwrap_or_default()
                .matches('\n')
                .count();
            at = start;
            (line, record)
        })
}
