//! Pure. What is wrong at this moment, whose fault it is, and what to do: the first lines of the
//! live page.
//!
//! A finding is about now and about everything, unlike an alert, which is about some minutes and
//! one operation. Where both exist, a finding names the alert's runbook. No finding means that all
//! is well. A queue alone is no finding: queueing is what the gateway is for.

use super::advice::{Cause, advice};
use super::history::Recent;
use crate::limit::budgets::AccountState;
use serde_json::{Value, json};
use std::time::Duration;

/// A wait from which on a queue is a finding. A shorter one is a burst that ends by itself.
const LONG_WAIT: Duration = Duration::from_secs(30);
/// The fewest events of which a share means something: one failure of one is no outage.
const FEWEST: u64 = 5;

/// How bad a finding is, by what it means for callers: a few notice, or most do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    /// Some callers wait, are rejected or get errors.
    Warning,
    /// Most of them do, or nothing is sent.
    Critical,
}

/// What the findings are made of: numbers of this moment, and of the last minute where a number of
/// this moment says nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    /// Why the gateway takes no requests.
    pub(super) not_ready: &'a [&'static str],
    /// Whether writes wait because the API does not respond.
    pub(super) broken: bool,
    /// How long all lanes stay closed after a start that does not know what was sent before.
    pub(super) lanes_closed_for: Option<Duration>,
    /// Tasks that panicked since the start.
    pub(super) panics: usize,
    /// Credentials and operations whose deferred writes an operator paused.
    pub(super) paused: usize,
    /// Credentials whose deferred writes wait because the API rejects them.
    pub(super) rejected_credentials: usize,
    /// What was counted in the last minute.
    pub(super) minute: &'a Recent,
    /// The most frequent rejection of late, by operation, type and number.
    pub(super) rejection: Option<(&'a str, &'static str, u32)>,
    /// The type of error with which the journal rejected a write in the last minute.
    pub(super) journal: Option<&'static str>,
    /// The budget in most trouble; see [`overview`](super::overview).
    pub(super) worst: Option<&'a AccountState>,
}

/// Something that is wrong, in the order in which a person on call asks: how bad, whose fault,
/// what, and what to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    severity: Severity,
    cause: Cause,
    message: String,
    action: &'static str,
    /// The alert whose runbook says more.
    runbook: Option<&'static str>,
}

impl Finding {
    /// Returns the finding as the page shows it, and as `/status` has it for scripts. No text in it
    /// comes from a caller.
    pub(super) fn document(&self) -> Value {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        };
        json!({
            "severity": severity,
            "cause": self.cause.as_str(),
            "message": self.message,
            "action": self.action,
            "runbook": self.runbook,
        })
    }
}

/// Returns what is wrong, the worst first.
///
/// Each kind of finding comes at most once, so the list is as short as a person can read while
/// everything fails.
pub(super) fn findings(facts: &Facts<'_>) -> Vec<Finding> {
    let mut found: Vec<Finding> = facts.not_ready.iter().map(|why| not_ready(why)).collect();
    let upstream = upstream(facts);
    let is_api = |finding: &Finding| finding.cause == Cause::Api;
    if !upstream.as_ref().is_some_and(is_api) {
        // Otherwise failed requests are a consequence.
        found.extend(failed(facts));
    }
    found.extend(upstream);
    found.extend(facts.lanes_closed_for.map(starting));
    found.extend(throttled(facts));
    found.extend(facts.journal.map(journal));
    found.extend(rejected(facts));
    found.extend(queued(facts));
    // Two kinds of pause, because the remedies differ: writes of a token that the API rejects would
    // be paused again at once if somebody resumed them.
    if facts.rejected_credentials > 0 {
        found.push(Finding {
            severity: Severity::Warning,
            cause: Cause::Operator,
            message: format!(
                "The deferred writes of {} wait: the API answers 401.",
                plural(facts.rejected_credentials as u64, "token", "tokens")
            ),
            action: "Give them a new token: segment-gateway writes rebind. /writes names the old one.",
            runbook: Some("SegmentGatewayDurablePaused"),
        });
    }
    if facts.paused > 0 {
        found.push(Finding {
            severity: Severity::Warning,
            cause: Cause::Operator,
            message: format!(
                "The deferred writes of {} are paused.",
                plural(
                    facts.paused as u64,
                    "token or operation",
                    "tokens or operations"
                )
            ),
            action: "Resume them when the reason is gone: segment-gateway writes resume.",
            runbook: Some("SegmentGatewayDurablePaused"),
        });
    }
    // Shown until the next restart: a task that is gone does not come back by itself, and what it
    // was to do may wait for ever.
    if facts.panics > 0 {
        found.push(Finding {
            severity: Severity::Warning,
            cause: Cause::Gateway,
            message: format!(
                "{} panicked since the start.",
                plural(facts.panics as u64, "task has", "tasks have")
            ),
            action: "Report the panic in the log. Restart the gateway if requests hang.",
            runbook: Some("SegmentGatewayPanicked"),
        });
    }
    // Stable: within a severity the order above, which is that of what to look at first. While the
    // API fails, rejections and queues are a consequence.
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

/// Returns a reason for which no requests are taken.
fn not_ready(why: &str) -> Finding {
    Finding {
        severity: Severity::Critical,
        cause: Cause::Gateway,
        message: format!("Not ready. {why}."),
        action: "If nobody stopped it, read the log and restart the gateway.",
        runbook: Some("SegmentGatewayNotReady"),
    }
}

/// Returns that writes wait because the ledger does not say what was sent before the start. It ends
/// by itself within the late-arrival bound, so there is nothing to mend, but an operator who sees
/// free slots and waiting writes looks for a fault.
fn starting(left: Duration) -> Finding {
    Finding {
        severity: Severity::Warning,
        cause: Cause::Gateway,
        message: format!(
            "Starting without a ledger: earlier writes are unknown and may still take effect. Writes wait {} s more.",
            left.as_secs() + u64::from(left.subsec_nanos() > 0),
        ),
        action: "Nothing, once. If each start says so, keep state.directory from one start to the next.",
        runbook: None,
    }
}

/// Returns what is wrong with the API's responses. The breaker says more than the rates: while it
/// is open hardly anything is sent.
fn upstream(facts: &Facts<'_>) -> Option<Finding> {
    let (attempts, failures) = (facts.minute.attempts(), facts.minute.failures());
    let of_all = |failures: u64| {
        let attempts = plural(attempts, "attempt", "attempts");
        format!("{failures} of {attempts} in the last minute")
    };
    if facts.broken {
        return Some(Finding {
            severity: Severity::Critical,
            cause: Cause::Api,
            message:
                "The API does not respond. One probe at a time is sent; deferred writes wait, \
                      held ones fail unless they can wait for the next probe."
                    .to_owned(),
            action: "Check the status page of Segment and the network. Queued writes continue by themselves.",
            runbook: Some("SegmentApiDown"),
        });
    }
    // A tenth, sooner than the alert, which waits for a fifth over five minutes: a person who looks
    // at the page wants to see the beginning. Half of a few is an accident, so it takes some more.
    if failures > 0 && failures * 10 >= attempts {
        let is_half = failures >= FEWEST && failures * 2 >= attempts;
        return Some(Finding {
            severity: if is_half {
                Severity::Critical
            } else {
                Severity::Warning
            },
            cause: Cause::Api,
            message: format!("The API failed {}.", of_all(failures)),
            action: "Check the status page of Segment and the network. The chart below shows the statuses.",
            runbook: Some("SegmentApiFailing"),
        });
    }
    // Some 404s are normal. When half of the attempts are rejected, a token has expired or a caller
    // has a bug.
    let rejected = facts.minute.client_errors();
    (rejected >= FEWEST && rejected * 2 >= attempts).then(|| Finding {
        severity: Severity::Warning,
        cause: Cause::Callers,
        message: format!("The API answered {} with 4xx.", of_all(rejected)),
        action: "Check the tokens and the requests. The log names the operation and the caller of each.",
        runbook: None,
    })
}

/// Returns whether so many of the requests in the last minute are trouble, and no mistake of one
/// caller, which the list below shows: one in a hundred of all, or one in fifty of those that the
/// cache did not answer, as the alerts have it.
fn is_trouble(minute: &Recent, count: u64) -> bool {
    let is_of_all = count > 0 && count * 100 >= minute.requests();
    is_of_all || count >= FEWEST && count * 50 >= minute.beyond_cache()
}

/// Returns how bad it is if so many of the requests in the last minute had no success.
fn severity(minute: &Recent, count: u64) -> Severity {
    if count >= FEWEST && count * 2 >= minute.requests() {
        Severity::Critical
    } else {
        Severity::Warning
    }
}

/// Returns what callers see of failures that the results of attempts do not show: a response that
/// breaks off has a good status, and a bug has none.
fn failed(facts: &Facts<'_>) -> Option<Finding> {
    let (requests, failed) = (facts.minute.requests(), facts.minute.failed());
    is_trouble(facts.minute, failed).then(|| Finding {
        severity: severity(facts.minute, failed),
        cause: Cause::Api,
        message: format!(
            "{failed} of {} failed in the last minute although the API answers.",
            plural(requests, "request", "requests"),
        ),
        action: "The log has the error of each request. Check the network to the API.",
        runbook: Some("SegmentGatewayCallersFail"),
    })
}

/// Returns what 429s mean: the gateway stays within the limits, so somebody else does not. Those at
/// the start of a budget without history are left out, because they are expected.
fn throttled(facts: &Facts<'_>) -> Option<Finding> {
    let throttled = facts.minute.throttled;
    (throttled > 0).then(|| Finding {
        severity: Severity::Warning,
        cause: Cause::OtherPrograms,
        message: format!(
            "The API answered {} in the last minute although the gateway stays within its limits.",
            plural(throttled, "attempt with 429", "attempts with 429")
        ),
        action: "Find the program that uses the same token, or lower the limit in the route table.",
        runbook: Some("SegmentApiRefuses"),
    })
}

/// Returns that the journal takes no writes. Other rejections may be many more, and none of them
/// needs an operator as soon.
fn journal(kind: &'static str) -> Finding {
    Finding {
        severity: Severity::Warning,
        cause: advice(kind).0,
        message: "The disk takes no durable writes. Other requests are served.".to_owned(),
        action: advice(kind).1,
        runbook: Some("SegmentGatewayJournalFailing"),
    }
}

/// Returns what the gateway rejects. The cause is that of the rejection that was the most
/// frequent in 15 minutes, among those that still occur.
fn rejected(facts: &Facts<'_>) -> Option<Finding> {
    let (requests, rejected) = (facts.minute.requests(), facts.minute.rejected());
    // Without a group the rejections are older than what is kept of them.
    let (operation, kind, _) = facts.rejection?;
    is_trouble(facts.minute, rejected).then(|| Finding {
        severity: severity(facts.minute, rejected),
        cause: advice(kind).0,
        message: format!(
            "The gateway rejected {rejected} of {} in the last minute, most with {} ({operation}).",
            plural(requests, "request", "requests"),
            kind.trim_start_matches("gateway-"),
        ),
        action: advice(kind).1,
        runbook: None,
    })
}

/// Returns the budget in most trouble, if its requests wait for long. Others may wait as well; the
/// table below has them all.
fn queued(facts: &Facts<'_>) -> Option<Finding> {
    let worst = facts.worst?;
    let waited = worst.oldest.filter(|waited| *waited >= LONG_WAIT)?;
    // Never critical: requests that wait are answered, and those that would wait too long are
    // rejected, which is a finding of its own.
    Some(Finding {
        severity: Severity::Warning,
        cause: Cause::Callers,
        message: format!(
            "{} for {} exceed its limit of {} in {} s; the first has waited {} s.",
            plural(worst.waiting as u64, "queued request", "queued requests"),
            worst.budget,
            worst.rate.limit,
            worst.rate.window.as_secs(),
            waited.as_secs(),
        ),
        action: "Look below who waits. Spread or batch the requests, or ask Segment for a higher limit.",
        runbook: Some("SegmentGatewayBudgetSaturated"),
    })
}

/// Returns a number with its noun.
fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::history::{History, QueueLevel, STEP};
    use crate::admin::tests::account;
    use crate::clock::Clock;
    use crate::metrics::{Counts, Totals};

    fn counts(of: &[(&str, u64)]) -> Counts {
        of.iter()
            .map(|(name, n)| ((*name).to_owned(), *n))
            .collect()
    }

    /// A minute with these requests, results and 429s.
    fn minute(requests: &[(&str, u64)], results: &[(&str, u64)], throttled: u64) -> Recent {
        let now = Clock::system().now();
        let mut history = History::default();
        history.record(now, Totals::default(), QueueLevel::default());
        let totals = Totals {
            requests: counts(requests),
            upstream: counts(results),
            throttled: counts(&[("upstream", throttled), ("start", 3)]),
            ..Totals::default()
        };
        history.record(now + STEP, totals, QueueLevel::default());
        history.recent(now + STEP, Duration::from_secs(60))
    }

    /// What is shown of each: severity, cause, and the beginning of the message.
    fn shown(facts: &Facts<'_>) -> Vec<String> {
        let found = findings(facts);
        let shown = found.iter().map(|one| {
            let words: Vec<_> = one.message.split(' ').take(4).collect();
            format!("{:?} {:?} {}", one.severity, one.cause, words.join(" "))
        });
        shown.collect()
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn a_table_of_what_is_wrong() {
        let well = minute(&[("hit", 90), ("fetched", 9)], &[("2xx", 9), ("429", 1)], 0);
        let mut base = Facts {
            not_ready: &[],
            broken: false,
            lanes_closed_for: None,
            panics: 0,
            paused: 0,
            rejected_credentials: 0,
            minute: &well,
            rejection: None,
            journal: None,
            worst: None,
        };
        assert_eq!(shown(&base), Vec::<String>::new());
        // A queue is what the gateway is for, a long wait is not.
        let (short, long) = (account(1, 10, 29, 0), account(1, 10, 31, 0));
        base.worst = Some(&short);
        assert_eq!(shown(&base), Vec::<String>::new());
        base.worst = Some(&long);
        assert_eq!(shown(&base), ["Warning Callers 31 queued requests for"]);
        base.worst = None;
        for (requests, results, throttled, expected) in [
            (
                &[("hit", 9)][..],
                &[("5xx", 1), ("2xx", 10)][..],
                0,
                &[][..],
            ),
            (
                &[("hit", 9)],
                &[("5xx", 1), ("2xx", 9)],
                0,
                &["Warning Api The API failed 1"],
            ),
            (
                &[("hit", 9)],
                &[("unknown", 5), ("2xx", 5)],
                0,
                &["Critical Api The API failed 5"],
            ),
            // The others got a 429, which says nothing about the API's health.
            (
                &[("hit", 9)],
                &[("5xx", 1), ("429", 99)],
                0,
                &["Warning Api The API failed 1"],
            ),
            (
                &[("hit", 9)],
                &[("4xx", 5), ("2xx", 5)],
                0,
                &["Warning Callers The API answered 5"],
            ),
            (
                &[("hit", 9)],
                &[("2xx", 5)],
                2,
                &["Warning OtherPrograms The API answered 2"],
            ),
            (
                &[("refused", 1), ("hit", 9)],
                &[],
                0,
                &["Warning Callers The gateway rejected 1"],
            ),
            (&[("refused", 1), ("hit", 100)], &[], 0, &[]),
            // Hits do not hide that nothing else is accepted.
            (&[("refused", 4), ("hit", 1_000)], &[], 0, &[]),
            (
                &[("refused", 5), ("hit", 1_000)],
                &[],
                0,
                &["Warning Callers The gateway rejected 5"],
            ),
            (
                &[("expired", 5), ("written", 246), ("hit", 1_000)],
                &[],
                0,
                &[],
            ),
            (
                &[("expired", 5), ("written", 245), ("hit", 1_000)],
                &[],
                0,
                &["Warning Callers The gateway rejected 5"],
            ),
            // Responses that break off have a good status.
            (
                &[("failed", 1), ("fetched", 99)],
                &[("2xx", 100)],
                0,
                &["Warning Api 1 of 100 requests"],
            ),
            (
                &[("unknown", 5), ("written", 5)],
                &[("2xx", 10)],
                0,
                &["Critical Api 5 of 10 requests"],
            ),
            (&[("failed", 1), ("hit", 100)], &[("2xx", 1)], 0, &[]),
            // What the attempts say explains them.
            (
                &[("failed", 5)],
                &[("not-sent", 5)],
                0,
                &["Critical Api The API failed 5"],
            ),
            (
                &[("expired", 5), ("hit", 5)],
                &[],
                0,
                &["Critical Callers The gateway rejected 5"],
            ),
            (
                &[("refused", 9)],
                &[("5xx", 1)],
                1,
                &[
                    "Critical Callers The gateway rejected 9",
                    "Warning Api The API failed 1",
                    "Warning OtherPrograms The API answered 1",
                ],
            ),
        ] {
            let minute = minute(requests, results, throttled);
            let facts = Facts {
                minute: &minute,
                rejection: Some(("getUser", "gateway-queue-wait", 7)),
                ..base
            };
            assert_eq!(shown(&facts), expected, "{requests:?} {results:?}");
        }
        let facts = Facts {
            not_ready: &["stopping: no new requests are taken"],
            broken: true,
            lanes_closed_for: Some(Duration::from_millis(41_200)),
            panics: 1,
            paused: 2,
            rejected_credentials: 1,
            journal: Some("gateway-journal-full"),
            ..base
        };
        assert_eq!(
            shown(&facts),
            [
                "Critical Gateway Not ready. stopping: no",
                "Critical Api The API does not",
                "Warning Gateway Starting without a ledger:",
                "Warning Operator The disk takes no",
                "Warning Operator The deferred writes of",
                "Warning Operator The deferred writes of",
                "Warning Gateway 1 task has panicked",
            ]
        );
    }

    #[test]
    fn a_start_without_a_ledger_says_how_long_writes_wait() {
        let shown = starting(Duration::from_millis(41_200)).document();
        let message = shown["message"].as_str().unwrap();
        assert!(message.ends_with("Writes wait 42 s more."), "{message}");
    }

    #[test]
    fn every_runbook_exists() {
        let runbooks = include_str!("../../docs/runbooks.md");
        let own = include_str!("findings.rs");
        let named = own.split("runbook: Some(\"").skip(1);
        let named = named.filter_map(|rest| rest.split('"').next());
        let named: Vec<_> = named.filter(|name| name.starts_with("Segment")).collect();
        assert!(named.len() >= 6, "{named:?}");
        for name in named {
            assert!(runbooks.contains(&format!("## {name}\n")), "{name}");
        }
    }
}
