//! A token of the API, as commands read it: from a file or from standard input, never from the
//! command line.

use http::header::HeaderValue;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Reads a token, marked so that nothing shows it. Not an argument of the command line: other users
/// of the machine can see those.
///
/// # Errors
/// If the file cannot be read, is empty, or has characters that no header can have.
pub(super) fn read_token(file: &Path) -> Result<HeaderValue, String> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)
    } else {
        File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|error| format!("cannot read the token from {}: {error}", file.display()))?;
    // Editors and `echo` end the file with a line break.
    let token = text.trim();
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let mut value = value
        .ok()
        .filter(|_| !token.is_empty())
        .ok_or_else(|| format!("{} has no token", file.display()))?;
    value.set_sensitive(true);
    Ok(value)
}
