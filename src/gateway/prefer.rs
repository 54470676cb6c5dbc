//! Pure. The part of `Prefer` (RFC 7240) that the gateway understands: `wait=N` and `respond-async`.
//!
//! A preference that is not understood, or whose value is not a number, is ignored, as the RFC
//! asks; the first of several `wait` preferences counts.

use http::HeaderMap;
use std::time::Duration;

fn preferences(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all("prefer").into_iter();
    lines
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
}

/// Whether the caller would rather be told where to ask than wait for the outcome.
pub fn respond_async(headers: &HeaderMap) -> bool {
    preferences(headers).any(|preference| {
        let preference = preference.split(';').next().unwrap_or_default();
        // An empty value is as good as none (RFC 7240, section 2).
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        name.trim().eq_ignore_ascii_case("respond-async") && matches!(value.trim(), "" | "\"\"")
    })
}

/// How long the caller is willing to wait, if it says so.
pub fn wait(headers: &HeaderMap) -> Option<Duration> {
    preferences(headers)
        .find_map(|preference| {
            let (name, rest) = preference.split_once('=')?;
            if !name.trim().eq_ignore_ascii_case("wait") {
                return None;
            }
            let value = rest.split(';').next()?.trim().trim_matches('"');
            value.parse::<u32>().ok()
        })
        .map(|seconds| Duration::from_secs(u64::from(seconds)))
}

/// The configured limits of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Without a preference.
    pub usual: Duration,
    /// The longest preference that is honoured.
    pub cap: Duration,
    /// The shortest balancer timeout in front of the gateway, where known: no wait is longer.
    pub caller_timeout: Option<Duration>,
}

impl Patience {
    /// How long this request may wait for its budget.
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
            (&["respond-async=no"], false),
            (&["respond-asynchronously", "x=respond-async"], false),
            (&[], false),
        ] {
            assert_eq!(respond_async(&prefer(values)), expected, "{values:?}");
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
