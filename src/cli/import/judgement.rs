//! Pure. What a reply means for the row that was handed over.
//!
//! Promises that a row is handed over again only where that is safe: the gateway rejected it before
//! it had any effect, or knows its `Idempotency-Key`. A reply that shows that writes are not
//! deferred ends the import, because the next rows would go through at once.

use super::reply::GatewayReply;
use super::result::{RowOutcome, RowResult};
use crate::journal::WriteId;

/// What a reply to a row means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HandOver {
    /// The gateway has the write, and carries it out later.
    Accepted(WriteId),
    /// The outcome of the row is known, perhaps from an earlier run.
    Ended(RowResult),
    /// The row is to be handed over again.
    Again {
        /// Whether the gateway said that it is only a matter of time.
        is_patient: bool,
        /// Whether the row may have taken effect.
        may_be_sent: bool,
    },
    /// The token is not accepted. Other rows would get the same reply.
    TokenRefused,
    /// The row went through at once: here writes are not deferred.
    NotDeferred(RowResult),
}

/// Judges the reply to a row.
pub(super) fn judge(reply: &GatewayReply) -> HandOver {
    let by_status = |reply: &GatewayReply| match reply.status {
        ..400 => RowOutcome::Succeeded,
        400..500 => RowOutcome::Failed,
        _ => RowOutcome::Unknown,
    };
    let ended = |outcome| HandOver::Ended(RowResult::of_reply(outcome, reply));
    let again = |is_patient, may_be_sent| HandOver::Again {
        is_patient,
        may_be_sent,
    };
    if let (202, true, Some(id)) = (reply.status, reply.is_deferred, reply.write) {
        return HandOver::Accepted(id);
    }
    // The order matters: keys mean nothing to a gateway in shadow mode.
    if reply.is_shadowed {
        return HandOver::NotDeferred(RowResult::of_reply(by_status(reply), reply));
    }
    if reply.is_replayed {
        return ended(by_status(reply));
    }
    match (reply.error().kind.as_str(), reply.status) {
        // A token of the gateway's own, which its operator replaces.
        ("gateway-token-refused", 503) => again(true, false),
        (
            "gateway-token-refused"
            | "gateway-no-credential"
            | "gateway-unauthorized"
            | "gateway-key-unknown"
            | "gateway-key-expired"
            | "gateway-key-required"
            | "gateway-not-allowed",
            _,
        ) => HandOver::TokenRefused,
        ("gateway-outcome-unknown" | "gateway-answer-lost", _) => ended(RowOutcome::Unknown),
        ("gateway-write-cancelled", _) => ended(RowOutcome::Refused),
        ("gateway-given-up", _) => ended(RowOutcome::Failed),
        // A matter of time: of the quota, the queue, or what is remembered of ended writes.
        (
            "gateway-caller-quota"
            | "gateway-queue-full"
            | "gateway-queue-wait"
            | "gateway-queue-expired"
            | "gateway-too-many-ended"
            | "gateway-draining"
            | "gateway-overloaded",
            _,
        ) => again(true, false),
        ("gateway-write-pending", _) => again(true, true),
        ("gateway-head-timeout" | "gateway-body-timeout", _) => again(false, false),
        (kind, 400..500) if kind.starts_with("gateway-") => ended(RowOutcome::Refused),
        // No room on its disk, or a broken journal: perhaps not for long.
        ("gateway-journal-full" | "gateway-journal-broken", _) => again(false, false),
        // Of the gateway, or of what stands in front of it: the key makes another try safe.
        (_, 429) => again(false, false),
        (_, 500..) => again(false, true),
        _ => HandOver::NotDeferred(RowResult::of_reply(by_status(reply), reply)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::import::reply::tests::{ID, reply};

    #[test]
    fn a_reply_says_whether_to_try_again() {
        let path = format!("/_gateway/writes/{ID}");
        let location = ("location", &*path);
        let deferred = [location, ("preference-applied", "respond-async")];
        let accepted = judge(&reply(202, &deferred, ""));
        assert_eq!(accepted, HandOver::Accepted(ID.parse().unwrap()));
        for (status, kind) in [
            (401, "gateway-token-refused"),
            (401, "gateway-key-expired"),
            (403, "gateway-not-allowed"),
        ] {
            let refused = judge(&reply(status, &[], kind));
            assert_eq!(refused, HandOver::TokenRefused, "{kind}");
        }
        for (status, kind, is_patient, may_be_sent) in [
            (429, "gateway-caller-quota", true, false),
            (503, "gateway-queue-full", true, false),
            (503, "gateway-draining", true, false),
            (503, "gateway-token-refused", true, false),
            (507, "gateway-too-many-ended", true, false),
            (503, "gateway-write-pending", true, true),
            (507, "gateway-journal-full", false, false),
            (503, "gateway-journal-broken", false, false),
            (408, "gateway-body-timeout", false, false),
            (500, "gateway-internal", false, true),
            (502, "", false, true),
            (429, "RequestError", false, false),
        ] {
            let expected = HandOver::Again {
                is_patient,
                may_be_sent,
            };
            assert_eq!(judge(&reply(status, &[], kind)), expected, "{kind}");
        }
    }

    #[test]
    fn a_reply_says_how_a_row_ended() {
        use RowOutcome::{Failed, Refused, Succeeded, Unknown};
        let replayed = &[("idempotency-replayed", "true")][..];
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
            let expected = HandOver::Ended(RowResult::of_reply(outcome, &reply));
            assert_eq!(judge(&reply), expected, "{reply:?}");
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
            let expected = HandOver::NotDeferred(RowResult::of_reply(outcome, &reply));
            assert_eq!(judge(&reply), expected, "{reply:?}");
        }
    }
}
