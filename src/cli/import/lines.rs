//! Pure. The text of a file, and the lines on which its records begin.
//!
//! Lines are counted here and not by the library of CSV, which takes the end of a line in the form
//! of Windows for the beginning of the next one.

use csv::StringRecord;

/// Returns the text of a file without the mark that some programs put before UTF-8.
///
/// # Errors
/// If it is in another encoding.
pub(super) fn decoded(file: &[u8]) -> Result<&str, String> {
    const REMEDY: &str = "save it as \"CSV UTF-8\"";
    if file.starts_with(b"\xff\xfe") || file.starts_with(b"\xfe\xff") {
        return Err(format!("the file is in UTF-16; {REMEDY}"));
    }
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    std::str::from_utf8(file).map_err(|error| {
        let right = file.get(..error.valid_up_to()).unwrap_or_default();
        let line = LineCount::new(right).count_to(right.len());
        format!("line {line}: the file is not in UTF-8; {REMEDY}")
    })
}

/// The number of the line at a place that only moves forward.
pub(super) struct LineCount<'f> {
    text: &'f [u8],
    at: usize,
    line: usize,
}

impl<'f> LineCount<'f> {
    pub(super) fn new(text: &'f [u8]) -> Self {
        Self {
            text,
            at: 0,
            line: 1,
        }
    }

    /// Returns the line on which a record begins. Its position is the end of the record before it,
    /// so empty lines, and the rest of the end of a line, are skipped.
    pub(super) fn at(&mut self, record: &StringRecord) -> usize {
        let start = record.position().map_or(0, |position| position.byte());
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let rest = self.text.get(start..).unwrap_or_default();
        let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
        self.count_to(start + blank.count())
    }

    /// Returns the line of a place, from 1. `\n`, `\r\n` and `\r` end a line.
    fn count_to(&mut self, place: usize) -> usize {
        let passed = self.text.get(self.at..place).unwrap_or_default();
        for (n, byte) in passed.iter().enumerate() {
            let is_end = match byte {
                b'\n' => true,
                b'\r' => self.text.get(self.at + n + 1) != Some(&b'\n'),
                _ => false,
            };
            self.line += usize::from(is_end);
        }
        self.at = place.max(self.at);
        self.line
    }
}
