//! Pure. Why the program, or a command that needs its state, cannot start.

use std::error::Error;
use std::fmt;

/// Why the program does not start; one line that says what to do.
#[derive(Debug)]
pub struct AppError(pub String);

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for AppError {}

pub(super) fn failed(error: impl Error) -> AppError {
    AppError(causes(&error))
}

/// Returns an error with what is behind it, on one line.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
