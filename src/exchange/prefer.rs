//! Pure. The supported part of `Prefer` (RFC 7240): `wait=N` and `respond-async`.
//!
//! An unknown preference, or one whose value is not a number, is ignored, as the RFC asks. Of
//! several preferences with one name the first counts. Commas and semicolons within quoted strings
//! do not separate, and an unterminated quoted string is no preference.

use http::header::{HeaderMap, HeaderName};
use std::time::Duration;

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Returns the value of the first preference with this name, or an empty string if it has none.
fn preference(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(PREFER).into_iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| elements(line, b','))
        .find_map(|element| {
            let preference = elements(element, b';').next()?;
            let (found, value) = preference.split_once('=').unwrap_or((preference, ""));
            let is_it = found.trim().eq_ignore_ascii_case(name);
            is_it.then(|| word(value.trim()))
        })
}

/// Returns the parts of `text` between separators outside quoted strings (RFC 9110, section 5.6.4).
/// A part that ends within a quoted string is dropped.
fn elements(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.bytes().position(|byte| {
            let is_end = byte == separator && !quoted;
            quoted ^= byte == b'"' && !escaped;
            escaped = byte == b'\\' && quoted && !escaped;
            is_end
        });
        match end {
            Some(at) => {
                rest = text.get(at + 1..);
                text.get(..at)
            }
            None => (!quoted).then_some(text),
        }
    })
}

/// Returns a token as it is, or the content of a quoted string.
fn word(value: &str) -> String {
    let inner = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let Some(inner) = inner else {
        return value.to_owned();
    };
    let mut escaped = false;
    let mut is_text = |c: &char| {
        escaped = *c == '\\' && !escaped;
        !escaped
    };
    inner.chars().filter(|c| is_text(c)).collect()
}

/// Returns whether the caller prefers a link to the outcome over waiting for it.
pub fn respond_async(headers: &HeaderMap) -> bool {
    // An empty value equals none (RFC 7240, section 2).
    preference(headers, "respond-async").is_some_and(|value| value.is_empty())
}

/// Returns how long the caller is willing to wait, if it says so.
pub fn wait(headers: &HeaderMap) -> Option<Duration> {
    let seconds = preference(headers, "wait")?.parse::<u32>().ok()?;
    Some(Duration::from_secs(u64::from(seconds)))
}

/// The configured limits of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The wait without a preference.
    pub usual: Duration,
    /// The longest preference that is honoured.
    pub cap: Duration,
    /// The shortest balancer timeout in front of the gateway, if configured. No wait is longer.
    pub caller_timeout: Option<Duration>,
}

impl Patience {
    /// Returns how long a request may wait for its budget.
    pub fn of(&self, headers: &HeaderMap) -> Duration {
        let wait = wait(headers).map_or(self.usual, |wait| wait.min(self.cap));
        self.caller_timeout
            .map_or(wait, |timeout| wait.min(timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefer(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("prefer", value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn wait_is_found_in_every_spelling() {
        let cases: &[(&[&str], Option<u64>)] = &[
            (&[], None),
            (&["wait=0"], Some(0)),
            (&["respond-async, wait=10"], Some(10)),
            (&["return=minimal", "Wait = \"7\"; foo=bar"], Some(7)),
            (&["wait=3, wait=9"], Some(3)),
            (&["wait=-1"], None),
            (&["wait=soon"], None),
            (&["wait"], None),
            (&["wait=99999999999"], None),
            (&["wait=soon, wait=5"], None),
            (&["foo=\"a, wait=9\", wait=4"], Some(4)),
            (
                &["foo=\"a; \\\", wait=9\"; x=\"y, wait=8\", wait=4"],
                Some(4),
            ),
            (&["foo=\"wait=9, ", "wait=4"], Some(4)),
            (&["wait=\"\\7\""], Some(7)),
            (&["wait=7\""], None),
            (&["foo; wait=9"], None),
        ];
        for (values, expected) in cases {
            assert_eq!(
                wait(&prefer(values)),
                expected.map(Duration::from_secs),
                "{values:?}"
            );
        }
    }

    #[test]
    fn whoever_does_not_want_to_wait_is_understood() {
        for (values, expected) in [
            (&["respond-async"][..], true),
            (&["wait=10, Respond-Async ;x=1"], true),
            (&["return=minimal", "respond-async=\"\""], true),
            (&["foo=\"a, respond-async, b\""], false),
            (&["foo=\"a, respond-async, b"], false),
            (&["foo=\"\\\", respond-async, b\""], false),
            (&["foo=\"a\", respond-async; x=\"y\""], true),
            (&["foo; respond-async"], false),
            (&["respond-async=no"], false),
            (&["respond-async=no, respond-async"], false),
            (&["respond-asynchronously", "x=respond-async"], false),
            (&[], false),
        ] {
            assert_eq!(respond_async(&prefer(values)), expected, "{values:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_field_is_too_strange(line in r#"[a-z",;=\\ ]{0,40}"#) {
            let headers = prefer(&[&line]);
            let _ = (wait(&headers), respond_async(&headers));
        }
    }

    #[test]
    fn no_wait_is_longer_than_the_balancer_in_front_allows() {
        let seconds = Duration::from_secs;
        let mut patience = Patience {
            usual: seconds(150),
            cap: seconds(600),
            caller_timeout: None,
        };
        assert_eq!(patience.of(&prefer(&[])), seconds(150));
        assert_eq!(patience.of(&prefer(&["wait=4000"])), seconds(600));
        patience.caller_timeout = Some(seconds(60));
        assert_eq!(patience.of(&prefer(&[])), seconds(60));
        assert_eq!(patience.of(&prefer(&["wait=5"])), seconds(5));
    }
}
