//! Reads the text of a file whose size is bounded.
//!
//! It knows nothing of what the text says, and no message quotes any of it.

use super::problem::{ConfigProblem, Place};
use super::units::Size;
use std::io;
use std::path::Path;

/// Returns the text of a file, or the problem that names it. The size is bounded while reading: a
/// device or a pipe has no length.
pub fn text_of(path: &Path, largest: Size) -> Result<String, ConfigProblem> {
    let read = || {
        let mut text = String::new();
        // One byte more than the bound tells a file that is too large from one that just fits.
        let mut file = io::Read::take(std::fs::File::open(path)?, largest.0 as u64 + 1);
        io::Read::read_to_string(&mut file, &mut text)?;
        Ok::<_, io::Error>(text)
    };
    let problem = |found: String| ConfigProblem {
        place: Some(Place::Line(path.display().to_string().into(), 0)),
        key: String::new(),
        found,
        expected: format!("a readable file of UTF-8 text, of {largest} at most"),
    };
    match read() {
        Ok(text) if text.len() > largest.0 => Err(problem("a larger file".to_owned())),
        Ok(text) => Ok(text),
        Err(error) => Err(problem(match error.kind() {
            io::ErrorKind::NotFound => "no file of this name".to_owned(),
            io::ErrorKind::InvalidData => "a file that is not UTF-8 text".to_owned(),
            _ => format!("a file that cannot be read ({error})"),
        })),
    }
}
