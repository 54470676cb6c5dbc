//! The id of a request: the caller's own if it is harmless, otherwise a generated one.
//!
//! The response and every log line about the request contain the id. The API does not get it.

use http::header::{HeaderMap, HeaderValue};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The header of the id, in requests and responses.
pub use crate::cache::entry::REQUEST_ID;

/// The longest id of a caller that is used, in bytes.
const LONGEST: usize = 128;
/// Sixteen digits and a hyphen.
const PREFIX: usize = 17;

/// Generates ids that are unique across processes, without randomness for each. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct RequestIds {
    prefix: [u8; PREFIX],
    next: Arc<AtomicU64>,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        let mut seed = [0; 8];
        // Without randomness the ids are still unique within this process.
        let _ = getrandom::fill(&mut seed);
        let mut prefix = [b'-'; PREFIX];
        let text = format!("{:016x}", u64::from_ne_bytes(seed));
        for (place, digit) in prefix.iter_mut().zip(text.bytes()) {
            *place = digit;
        }
        Self {
            prefix,
            next: Arc::default(),
        }
    }

    /// Returns the next id. Written without a formatter, because every hit needs one.
    pub(crate) fn next(&self) -> HeaderValue {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
        let mut text = [0; PREFIX + 16];
        text[..PREFIX].copy_from_slice(&self.prefix);
        let mut end = PREFIX;
        for digit in (0..digits).rev() {
            let value = (number >> (digit * 4)) & 15;
            text[end] = b"0123456789abcdef"[value as usize];
            end += 1;
        }
        // Hexadecimal digits and a hyphen are a valid value.
        HeaderValue::from_bytes(&text[..end]).unwrap_or(HeaderValue::from_static("none"))
    }
}

/// Returns whether a caller's id may be used: printable ASCII without spaces, not too long.
pub(crate) fn is_fit(id: &HeaderValue) -> bool {
    let id = id.as_bytes();
    !id.is_empty() && id.len() <= LONGEST && id.iter().all(|byte| (0x21..0x7f).contains(byte))
}

/// Returns the id of a request, which its headers have from now on: the caller's if there is one
/// and it may be used, otherwise the next one of `ids`.
pub(crate) fn settle(headers: &mut HeaderMap, ids: &RequestIds) -> HeaderValue {
    let mut given = headers.get_all(REQUEST_ID).iter();
    if let (Some(id), None) = (given.next(), given.next())
        && is_fit(id)
    {
        return id.clone();
    }
    let id = ids.next();
    headers.insert(REQUEST_ID, id.clone());
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbered_in_hexadecimal_behind_what_names_the_process() {
        let ids = RequestIds::new();
        for number in [0, 1, 15, 16, 0x1234, u64::MAX] {
            ids.next.store(number, Ordering::Relaxed);
            let id = ids.next();
            let text = id.to_str().unwrap();
            let (process, rest) = text.split_once('-').unwrap();
            assert_eq!(process.len(), 16);
            assert_eq!(rest, format!("{number:x}"));
            assert!(is_fit(&id));
        }
    }

    #[test]
    fn a_callers_id_is_kept_only_if_there_is_one_and_it_is_harmless() {
        let ids = RequestIds::new();
        let long = "x".repeat(LONGEST);
        let longer = "x".repeat(LONGEST + 1);
        let cases: &[(&[&str], bool)] = &[
            (&["abc-1"], true),
            (&[&long], true),
            (&[&longer], false),
            (&[""], false),
            (&["a b"], false),
            (&["a", "a"], false),
            (&[], false),
        ];
        for (values, kept) in cases {
            let mut headers = HeaderMap::new();
            for value in *values {
                headers.append(REQUEST_ID, value.parse().unwrap());
            }
            let id = settle(&mut headers, &ids);
            let is_own = id.as_bytes().starts_with(&ids.prefix);
            assert_eq!(is_own, !kept, "{values:?}");
            let shown: Vec<_> = headers.get_all(REQUEST_ID).iter().collect();
            assert_eq!(shown, [&id], "{values:?}");
        }
    }
}
