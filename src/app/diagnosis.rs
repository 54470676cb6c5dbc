//! Pure. What the answer of the API, or its absence, says: whether all is well, and if not, whose
//! fault that is.
//!
//! The request was `GET /`, which shows the workspace of a token and changes nothing. Each function
//! judges one part of its outcome. Nothing is asked here, and nothing is printed.
//!
//! A fault is put where an operator can do most about it, and the text names the alternatives. What
//! may be all right is at most notable: a check that cries wolf is not read.

use crate::limit::learn::Allowance;
use crate::upstream::{NotSent, Unknown};
use http::{HeaderMap, StatusCode, header};
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// The difference of two clocks that is reported, and the one that is a fault. `Date` has whole
/// seconds, and the answer travels for a while.
const NOTABLE_OFFSET: Duration = Duration::from_secs(5);
const WRONG_OFFSET: Duration = Duration::from_secs(60);

/// Where a fault has to be mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// On this machine: its addresses, its directory, its clock.
    Machine,
    /// Between this machine and the API: names, routes, firewalls, proxies, or a wrong
    /// `upstream.url`.
    Network,
    /// At the API, or at what answers in its place.
    Api,
    /// The token.
    Token,
}

impl Blame {
    /// Returns where to look, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "this machine",
            Self::Network => "the network or upstream.url",
            Self::Api => "the API",
            Self::Token => "the token",
        }
    }
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    /// All is well.
    Fine,
    /// Worth knowing, and no fault.
    Notable,
    /// Not checked, because something else is missing.
    Skipped,
    /// Something is wrong.
    Wrong(Blame),
}

/// One check: what was looked at, how it is, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// The part, in a word or two.
    pub part: &'static str,
    /// How it is.
    pub result: CheckResult,
    /// What was seen and, if something is wrong, what to do.
    pub text: String,
}

impl Diagnosis {
    /// Creates a finding.
    pub fn new(part: &'static str, result: CheckResult, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { part, result, text }
    }
}

/// Judges an attempt that was not sent. A certificate that is not accepted is more often a wrong
/// clock, a wrong URL or an inspecting proxy than the API's mistake.
pub fn of_not_sent(why: NotSent) -> Diagnosis {
    let part = match why {
        NotSent::Unresolved => "name",
        NotSent::Certificate | NotSent::Tls => "TLS",
        NotSent::Proxy => "proxy",
        _ => "connection",
    };
    let blame = match why {
        // The API answered, if only on the level of the connection.
        NotSent::Unprocessed => Blame::Api,
        _ => Blame::Network,
    };
    Diagnosis::new(part, CheckResult::Wrong(blame), why.message())
}

/// Judges an attempt without an answer. The connection was ready, so what is wrong is behind it:
/// the API, or what listens in its place.
pub fn of_unknown(why: Unknown) -> Diagnosis {
    // A read is harmless, so what it may have done is of no interest here, unlike in the messages
    // for callers.
    let seen = match why {
        Unknown::HeadTimeout | Unknown::TotalTimeout => {
            "the connection is ready, but no answer came in time"
        }
        Unknown::Malformed => "what answers does not speak HTTP as the API does",
        Unknown::Broken | Unknown::StaleConnection => {
            "the connection broke before an answer; does upstream.url have the right scheme and \
             port?"
        }
    };
    Diagnosis::new("answer", CheckResult::Wrong(Blame::Api), seen)
}

/// Judges the clock of this machine by the `Date` of an answer, which came between the two times.
pub fn of_clock(headers: &HeaderMap, asked: SystemTime, answered: SystemTime) -> Diagnosis {
    let date = headers.get(header::DATE);
    let date = date.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    let Some(date) = date else {
        return Diagnosis::new("clock", CheckResult::Skipped, "the answer has no Date");
    };
    // The header was written in some moment of that second.
    let late = asked.duration_since(date + Duration::from_secs(1));
    let early = date.duration_since(answered);
    // The truth lies between asking and the answer: a slow answer says less, but nothing wrong.
    let (offset, way) = match (late, early) {
        (Ok(offset), _) => (offset, "ahead of"),
        (_, Ok(offset)) => (offset, "behind"),
        _ => (Duration::ZERO, "like"),
    };
    let seconds = offset.as_secs();
    if offset < NOTABLE_OFFSET {
        return Diagnosis::new("clock", CheckResult::Fine, "the API has the same time");
    }
    let seen = format!("this machine is {seconds} s {way} the API");
    if offset < WRONG_OFFSET {
        return Diagnosis::new("clock", CheckResult::Notable, seen);
    }
    let text = format!(
        "{seen}; set the clock, e.g. by NTP: certificates and the times in logs depend on it"
    );
    Diagnosis::new("clock", CheckResult::Wrong(Blame::Machine), text)
}

/// Judges the answer to a request with a token. Nothing of the answer but the name of the workspace
/// is shown.
pub fn of_token(status: StatusCode, body: &[u8]) -> Diagnosis {
    let wrong = |fault, text: String| Diagnosis::new("token", CheckResult::Wrong(fault), text);
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let workspace = &document["data"]["workspace"];
    let name = workspace["name"].as_str().or(workspace["slug"].as_str());
    match status {
        // Any web server answers 200; only the API shows a workspace.
        StatusCode::OK => match workspace["id"].as_str() {
            Some(id) => {
                let text = format!("it belongs to the workspace {}", name.unwrap_or(id));
                Diagnosis::new("token", CheckResult::Fine, text)
            }
            None => wrong(
                Blame::Api,
                "200 without a workspace: is upstream.url the Segment Public API?".to_owned(),
            ),
        },
        // Tokens of the other region are unknown to the API as well.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => wrong(
            Blame::Token,
            format!(
                "the API answers {}: it is wrong or revoked, or belongs to a workspace of the other \
                 region",
                status.as_u16()
            ),
        ),
        StatusCode::TOO_MANY_REQUESTS => {
            let text = "the API answers 429: others use up its limit; try again in a minute";
            Diagnosis::new("token", CheckResult::Notable, text)
        }
        status => wrong(
            Blame::Api,
            format!(
                "the API answers {}: {}",
                status.as_u16(),
                if status.is_server_error() {
                    "it has a problem; try again later"
                } else {
                    "is upstream.url the Segment Public API?"
                }
            ),
        ),
    }
}

/// Judges the answer to a request without a token, which the API rejects.
pub fn of_no_token(status: StatusCode) -> Diagnosis {
    // The right answer of the API.
    if status == StatusCode::UNAUTHORIZED {
        let text = "not checked; name one with --token-file";
        return Diagnosis::new("token", CheckResult::Skipped, text);
    }
    let found = of_token(status, b"");
    Diagnosis {
        part: "answer",
        ..found
    }
}

/// Judges the headers from which budgets are learned. Only a success has them. Without them the
/// gateway still works.
pub fn of_rate_headers(status: StatusCode, headers: &HeaderMap) -> Diagnosis {
    let part = "rate headers";
    if !status.is_success() {
        return Diagnosis::new(part, CheckResult::Skipped, "only a success has them");
    }
    // The gateway reads them by the same function, so that what is fine here is fine there.
    match Allowance::of(headers) {
        Some(allowance) => {
            let text = format!(
                "{} of {} requests are left in this window",
                allowance.remaining,
                allowance.limit()
            );
            Diagnosis::new(part, CheckResult::Fine, text)
        }
        None => {
            let text = "the answer has none that can be read; a proxy may remove them. The gateway \
                then uses the documented limits and does not see other users of the token";
            Diagnosis::new(part, CheckResult::Notable, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn every_failure_has_a_place_to_look() {
        for why in NotSent::ALL {
            let found = of_not_sent(why);
            assert!(matches!(found.result, CheckResult::Wrong(_)), "{why:?}");
            assert_eq!(found.text, why.message());
        }
        for why in Unknown::ALL {
            assert_eq!(of_unknown(why).result, CheckResult::Wrong(Blame::Api));
        }
        assert_eq!(of_not_sent(NotSent::Unresolved).part, "name");
        assert_eq!(of_not_sent(NotSent::Certificate).part, "TLS");
    }

    #[test]
    fn a_clock_is_wrong_by_a_minute_and_notable_by_seconds() {
        let date = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let headers = headers(&[("date", &httpdate::fmt_http_date(date))]);
        let at = |asked: i64, answered: i64| {
            let at = |seconds: i64| {
                let whole = Duration::from_secs(seconds.unsigned_abs());
                if seconds < 0 {
                    date - whole
                } else {
                    date + whole
                }
            };
            of_clock(&headers, at(asked), at(answered)).result
        };
        let wrong = CheckResult::Wrong(Blame::Machine);
        for (asked, answered, result) in [
            (0, 0, CheckResult::Fine),
            // A slow answer is no wrong clock.
            (-300, 300, CheckResult::Fine),
            (5, 6, CheckResult::Fine),
            (6, 7, CheckResult::Notable),
            (60, 60, CheckResult::Notable),
            (61, 62, wrong),
            (-5, -4, CheckResult::Fine),
            (-6, -5, CheckResult::Notable),
            (-3_600, -3_599, wrong),
            (3_600, 3_601, wrong),
        ] {
            assert_eq!(at(asked, answered), result, "{asked} {answered}");
        }
        let found = of_clock(
            &headers,
            date - Duration::from_secs(3_601),
            date - WRONG_OFFSET * 60,
        );
        assert!(
            found.text.contains("3600 s behind the API"),
            "{}",
            found.text
        );
        let none = of_clock(&HeaderMap::new(), date, date);
        assert_eq!(none.result, CheckResult::Skipped);
    }

    #[test]
    fn a_token_is_judged_by_status_and_workspace() {
        let of = |status: u16, body: &str| {
            of_token(StatusCode::from_u16(status).unwrap(), body.as_bytes()).result
        };
        let workspace = r#"{"data":{"workspace":{"id":"w","name":"Acme"}}}"#;
        for (status, body, result) in [
            (200, workspace, CheckResult::Fine),
            (200, "<html>", CheckResult::Wrong(Blame::Api)),
            (401, "", CheckResult::Wrong(Blame::Token)),
            (403, "", CheckResult::Wrong(Blame::Token)),
            (404, "", CheckResult::Wrong(Blame::Api)),
            (429, "", CheckResult::Notable),
            (503, "", CheckResult::Wrong(Blame::Api)),
            (302, "", CheckResult::Wrong(Blame::Api)),
        ] {
            assert_eq!(of(status, body), result, "{status} {body}");
        }
        let found = of_token(StatusCode::OK, workspace.as_bytes());
        assert!(found.text.contains("Acme"), "{}", found.text);
        assert_eq!(
            of_no_token(StatusCode::UNAUTHORIZED).result,
            CheckResult::Skipped
        );
        assert_eq!(
            of_no_token(StatusCode::NOT_FOUND).result,
            CheckResult::Wrong(Blame::Api)
        );
    }

    #[test]
    fn rate_headers_are_read_from_a_success_alone() {
        let rates = headers(&[
            ("x-ratelimit-consumed", "1"),
            ("x-ratelimit-remaining", "59"),
        ]);
        let found = of_rate_headers(StatusCode::OK, &rates);
        assert_eq!(found.result, CheckResult::Fine);
        assert!(found.text.contains("59 of 60"), "{}", found.text);
        let none = of_rate_headers(StatusCode::OK, &HeaderMap::new());
        assert_eq!(none.result, CheckResult::Notable);
        let refused = of_rate_headers(StatusCode::UNAUTHORIZED, &rates);
        assert_eq!(refused.result, CheckResult::Skipped);
    }
}
