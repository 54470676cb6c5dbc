//! Pure. What a reply means for the row that was handed over, and how often and how fast a row is
//! handed over again.
//!
//! Promises that a row is handed over again only where that is safe: the gateway rejected it before
//! it had any effect, or knows its `Idempotency-Key`. A reply that shows that writes are not
//! deferred ends the import, because the next rows would go through at once.

use super::outcome::{RowOutcome, RowResult};
use super::reply::{GatewayReply, NoReply};
use std::time::Duration;

/// The waits between tries in trouble, in seconds. Together they last as long as a restart.
const WAITS: [u64; 8] = [1, 1, 2, 4, 8, 15, 15, 15];
/// The longest time of the gateway's own that is waited for at once.
const LONGEST: Duration = Duration::from_secs(600);

/// What a reply to a row means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HandOver {
    /// The gateway has the write, or the outcome of the row is known.
    Known {
        result: RowResult,
        /// Whether the gateway has deferred the write, now or in an earlier run.
        is_deferred: bool,
    },
    /// The row is to be handed over again.
    Again(NextTry),
    /// No other row is to be handed over. The user has to do what the message says.
    Stop { result: RowResult, why: String },
}

/// When and why a row is handed over again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NextTry {
    /// Whether the gateway said that it is only a matter of time. It is then asked for as long as
    /// it says so, and else a bounded number of times.
    pub(super) is_patient: bool,
    /// Whether the gateway may have accepted the row.
    pub(super) may_be_accepted: bool,
    /// When to come back, in the gateway's words.
    pub(super) retry_after: Option<Duration>,
    /// What is known of the row if there is no other try.
    pub(super) otherwise: RowResult,
    /// What happened, as the end of a sentence about the gateway.
    pub(super) why: String,
}

impl NextTry {
    /// Returns the wait until the next try after so many in trouble, or `None` if it is in vain.
    pub(super) fn wait(&self, troubles: usize) -> Option<Duration> {
        let own = match self.is_patient {
            true => WAITS.first(),
            false => WAITS.get(troubles),
        };
        let own = Duration::from_secs(*own?);
        Some(self.retry_after.unwrap_or(own).clamp(own, LONGEST))
    }
}

/// Judges the reply to the row of this line.
pub(super) fn judge(line: usize, reply: Result<GatewayReply, NoReply>) -> HandOver {
    let reply = match reply {
        Ok(reply) => reply,
        Err(silence) => {
            return HandOver::Again(NextTry {
                is_patient: false,
                may_be_accepted: silence.may_have_arrived,
                retry_after: None,
                otherwise: RowResult::new(RowOutcome::Unsent, &silence.why),
                why: silence.why,
            });
        }
    };
    let of = |outcome| RowResult::of_reply(outcome, &reply);
    let known = |result, is_deferred| HandOver::Known {
        result,
        is_deferred,
    };
    let again = |is_patient, may_be_accepted| {
        HandOver::Again(NextTry {
            is_patient,
            may_be_accepted,
            retry_after: reply.retry_after,
            otherwise: of(RowOutcome::Unsent),
            why: format!("it answers {}", reply.in_words()),
        })
    };
    let not_admitted = |what| HandOver::Stop {
        result: of(RowOutcome::Unsent),
        why: format!("{what}: {}", reply.in_words()),
    };
    if let Some(id) = reply.deferred {
        return known(RowResult::waiting(id), true);
    }
    // The order matters: keys mean nothing to a gateway in shadow mode.
    if reply.is_shadowed {
        return not_deferred(line, &reply);
    }
    if reply.is_replayed {
        return known(of(by_status(&reply)), true);
    }
    let kind = reply.error.kind.as_str();
    let is_own = kind.starts_with("gateway-");
    match (kind, reply.status) {
        // Each other row would be rejected for the same reason.
        (_, 401) if is_own => not_admitted("the token is not accepted"),
        ("gateway-not-allowed", _) => not_admitted("the gateway does not allow this"),
        ("gateway-outcome-unknown" | "gateway-answer-lost", _) => {
            known(of(RowOutcome::Unknown), true)
        }
        ("gateway-write-cancelled", _) => known(of(RowOutcome::Refused), true),
        ("gateway-given-up", _) => known(of(RowOutcome::Failed), true),
        ("gateway-write-pending", _) => again(true, true),
        // Trouble of its disk or of the way to it: perhaps not for long.
        ("gateway-journal-full" | "gateway-journal-broken", _) | (_, 408) => again(false, false),
        (_, 429) if !is_own => again(false, false),
        // A matter of time: of the quota, the queue, a token that operators replace, or what is
        // remembered of ended writes.
        _ if is_own && reply.retry_after.is_some() => again(true, false),
        (_, 400..500) if is_own => known(of(RowOutcome::Refused), false),
        // Of the gateway, or of what stands in front of it: the key makes another try safe.
        (_, 500..) => again(false, true),
        _ => not_deferred(line, &reply),
    }
}

/// Returns the outcome of a row that got the answer of the API.
fn by_status(reply: &GatewayReply) -> RowOutcome {
    match reply.status {
        ..400 => RowOutcome::Succeeded,
        400..500 => RowOutcome::Failed,
        _ => RowOutcome::Unknown,
    }
}

/// Judges a row that went through at once.
fn not_deferred(line: usize, reply: &GatewayReply) -> HandOver {
    let (why, remedy) = match reply.is_shadowed {
        true => (
            "is in shadow mode and defers no write",
            "Set mode = \"enforce\"",
        ),
        false => (
            "does not defer writes",
            "Set state.directory in its configuration, so that writes survive a crash. Keys that were \
             used before are forgotten then",
        ),
    };
    HandOver::Stop {
        result: RowResult::of_reply(by_status(reply), reply),
        why: format!(
            "the gateway {why}: the row of line {line} was sent at once. {remedy}. Take that row out of \
             the file, and run the command again"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::import::reply::tests::{ID, reply};

    fn again(status: u16, kind: &str, retry_after: Option<&str>) -> NextTry {
        let field = retry_after.map(|seconds| ("retry-after", seconds));
        let reply = reply(status, field.as_slice(), kind);
        match judge(2, Ok(reply)) {
            HandOver::Again(next) => next,
            other => panic!("{kind}: {other:?}"),
        }
    }

    #[test]
    fn a_reply_says_whether_to_try_again() {
        let path = format!("/_gateway/writes/{ID}");
        let fields = [
            ("location", &*path),
            ("preference-applied", "respond-async"),
        ];
        let accepted = RowResult::waiting(ID.parse().unwrap());
        let expected = HandOver::Known {
            result: accepted,
            is_deferred: true,
        };
        assert_eq!(judge(2, Ok(reply(202, &fields, ""))), expected);
        for (status, kind, what) in [
            (401, "gateway-token-refused", "the token is not accepted"),
            (401, "gateway-unauthorized", "the token is not accepted"),
            (401, "gateway-key-expired", "the token is not accepted"),
            (
                403,
                "gateway-not-allowed",
                "the gateway does not allow this",
            ),
        ] {
            let reply = reply(status, &[], kind);
            let expected = HandOver::Stop {
                result: RowResult::of_reply(RowOutcome::Unsent, &reply),
                why: format!("{what}: {status} {kind} why"),
            };
            assert_eq!(judge(2, Ok(reply)), expected);
        }
        for (status, kind, retry_after, is_patient, may_be_accepted) in [
            (429, "gateway-caller-quota", Some("1"), true, false),
            (503, "gateway-queue-full", Some("1"), true, false),
            (503, "gateway-draining", Some("1"), true, false),
            (503, "gateway-token-refused", Some("60"), true, false),
            (507, "gateway-too-many-ended", Some("60"), true, false),
            (503, "gateway-write-pending", Some("1"), true, true),
            (507, "gateway-journal-full", Some("10"), false, false),
            (503, "gateway-journal-broken", Some("10"), false, false),
            (408, "gateway-body-timeout", None, false, false),
            (500, "gateway-internal", None, false, true),
            (502, "", None, false, true),
            (503, "Unavailable", Some("1"), false, true),
            (429, "RequestError", Some("1"), false, false),
        ] {
            let found = again(status, kind, retry_after);
            assert_eq!(
                (found.is_patient, found.may_be_accepted),
                (is_patient, may_be_accepted),
                "{kind}"
            );
            assert_eq!(found.otherwise.outcome, RowOutcome::Unsent);
            assert_eq!(found.otherwise.error.kind, kind);
        }
    }

    #[test]
    fn a_reply_says_how_a_row_ended() {
        use RowOutcome::{Failed, Refused, Succeeded, Unknown};
        let replayed = &[("idempotency-replayed", "true")][..];
        let is_remembered = |kind: &str| {
            let parts = ["cancelled", "given-up", "unknown", "lost"];
            parts.iter().any(|part| kind.contains(part))
        };
        for (fields, status, kind, outcome) in [
            (replayed, 201, "", Succeeded),
            (replayed, 422, "Conflict", Failed),
            (replayed, 503, "Unavailable", Unknown),
            (&[], 422, "gateway-key-reused", Refused),
            (&[], 400, "gateway-bad-request", Refused),
            (&[], 413, "gateway-body-too-large", Refused),
            (&[], 409, "gateway-write-cancelled", Refused),
            (&[], 409, "gateway-given-up", Failed),
            (&[], 502, "gateway-outcome-unknown", Unknown),
            (&[], 502, "gateway-answer-lost", Unknown),
        ] {
            let reply = reply(status, fields, kind);
            // What was rejected without a look at its key says nothing about other rows.
            let expected = HandOver::Known {
                result: RowResult::of_reply(outcome, &reply),
                is_deferred: reply.is_replayed || is_remembered(kind),
            };
            assert_eq!(judge(2, Ok(reply)), expected, "{kind}");
        }
    }

    /// Keys mean nothing in shadow mode, so a reply there is never one to try again.
    #[test]
    fn a_row_that_went_through_at_once_is_recognised() {
        use RowOutcome::{Failed, Succeeded, Unknown};
        let shadow = &[
            ("x-gateway-shadow", "at-once"),
            ("idempotency-replayed", "true"),
        ][..];
        for (fields, status, kind, outcome) in [
            (&[][..], 201, "", Succeeded),
            (&[], 202, "", Succeeded),
            (&[], 422, "Conflict", Failed),
            (&[], 401, "Unauthorized", Failed),
            (shadow, 201, "", Succeeded),
            (shadow, 503, "Unavailable", Unknown),
            (shadow, 429, "RequestError", Failed),
        ] {
            let reply = reply(status, fields, kind);
            let expected = RowResult::of_reply(outcome, &reply);
            let part = match fields.is_empty() {
                true => "does not defer writes: the row of line 2 was sent at once. Set state",
                false => "in shadow mode and defers no write: the row of line 2 was sent at once",
            };
            match judge(2, Ok(reply)) {
                HandOver::Stop { result, why } => {
                    assert_eq!(result, expected);
                    assert!(why.contains(part), "{why}");
                }
                other => panic!("{kind}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_matter_of_time_is_waited_for_and_trouble_ends_after_about_a_minute() {
        let seconds = |next: &NextTry, troubles| next.wait(troubles).map(|wait| wait.as_secs());
        let quota = again(429, "gateway-caller-quota", Some("7"));
        assert_eq!(
            [0, 99].map(|troubles| seconds(&quota, troubles)),
            [Some(7); 2]
        );
        let ended = again(507, "gateway-too-many-ended", Some("86400"));
        assert_eq!(ended.wait(99), Some(LONGEST));
        let at_once = again(503, "gateway-queue-full", Some("0"));
        assert_eq!(seconds(&at_once, 99), Some(1));
        let full = again(507, "gateway-journal-full", Some("10"));
        let waits: Vec<_> = (0..)
            .map_while(|troubles| seconds(&full, troubles))
            .collect();
        assert_eq!(waits, [10, 10, 10, 10, 10, 15, 15, 15]);
        for may_have_arrived in [false, true] {
            let why = "the connection broke".to_owned();
            let silence = NoReply {
                may_have_arrived,
                why,
            };
            let HandOver::Again(lost) = judge(2, Err(silence)) else {
                panic!("a row without a reply is handed over again");
            };
            assert_eq!(lost.may_be_accepted, may_have_arrived);
            let waits: Vec<_> = (0..)
                .map_while(|troubles| seconds(&lost, troubles))
                .collect();
            assert_eq!(waits, WAITS);
        }
    }
}
