//! The file of a held token: the token alone, on one line.
//!
//! No message shows what a file contains: it is a secret, or was meant to be one.

use crate::clients::is_key;
use crate::private_file;
use http::HeaderValue;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The largest file of a token, in bytes.
const LARGEST: u64 = 8 * 1024;

/// Reads the `Authorization` that a file's token makes. Blocks.
///
/// # Errors
/// If the file cannot be read, or does not contain one token and nothing else. The message never
/// shows what it contains.
pub(super) fn read(path: &Path) -> Result<HeaderValue, String> {
    let wrong = |what: &str| format!("{}: {what}", private_file::shown(path));
    let file = File::open(path).map_err(|error| wrong(&error.to_string()))?;
    let mut text = Vec::new();
    let read = file.take(LARGEST + 1).read_to_end(&mut text);
    read.map_err(|error| wrong(&error.to_string()))?;
    let token = text.trim_ascii();
    let problem = if token.is_empty() {
        "the file is empty; write the token into it"
    } else if text.len() as u64 > LARGEST {
        "the file is too large for a token; it must contain the token alone"
    } else if is_key(token) {
        "this is a key of a client and no token of the API"
    } else if !token.iter().all(u8::is_ascii_graphic) {
        "the file must contain the token alone: one line, without `Bearer`"
    } else {
        let value = [b"Bearer ", token].concat();
        let value = HeaderValue::from_bytes(&value);
        return value.map_err(|_| wrong("the token has characters that no header may have"));
    };
    Err(wrong(problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_token_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let read_as = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path)
        };
        for text in ["abc", "abc\n", " abc \r\n"] {
            assert_eq!(read_as(text).unwrap(), "Bearer abc", "{text:?}");
        }
        let long = "secret".repeat(2_000);
        for (text, problem) in [
            ("", "is empty"),
            (" \n", "is empty"),
            ("Bearer secret", "without `Bearer`"),
            ("secret\nsecret", "one line"),
            ("secret\u{e9}", "token alone"),
            ("sgw_secret", "key of a client"),
            (long.as_str(), "too large"),
        ] {
            let said = read_as(text).unwrap_err();
            assert!(said.contains(problem), "{said}");
            assert!(!said.contains("secret"), "{said}");
            assert!(said.starts_with(path.to_str().unwrap()), "{said}");
        }
        let missing = read(&folder.path().join("none")).unwrap_err();
        assert!(missing.contains("No such file"), "{missing}");
    }
}
