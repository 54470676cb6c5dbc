//! Pure. Who has to act on an error of the gateway, and what to do: the live page says it beside
//! each kind of rejection.
//!
//! The texts are for operators. Callers get a message of their own in the response, and
//! `docs/errors.md` has the details.

/// Who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The Segment API.
    Api,
    /// Callers, who ask for too much or for the wrong thing.
    Callers,
    /// Other programs that use the same tokens.
    OtherPrograms,
    /// The gateway or its host.
    Gateway,
    /// The operator, who paused something or replaced a token.
    Operator,
}

impl Cause {
    /// Returns the name on the page.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Api => "Segment API",
            Self::Callers => "Callers",
            Self::OtherPrograms => "Other programs",
            Self::Gateway => "Gateway",
            Self::Operator => "Operator",
        }
    }
}

/// Returns who has to act on an error of the gateway, by its type, and what to do.
#[expect(clippy::too_many_lines, reason = "a table, one text per error")]
pub(super) fn advice(kind: &str) -> (Cause, &'static str) {
    use Cause::{Api, Callers, Gateway, Operator};
    match kind {
        "gateway-bad-request" | "gateway-method-refused" | "gateway-method-not-allowed" => (
            Callers,
            "Correct the request. The response says what is wrong.",
        ),
        "gateway-head-too-large" => (
            Callers,
            "Send a smaller head, or raise server.header_bytes.",
        ),
        "gateway-body-too-large" => (Callers, "Send less, or raise server.body_bytes."),
        "gateway-not-found" => (Callers, "Correct the path."),
        "gateway-wrong-listener" => (Callers, "Open the page on the address of admin.listen."),
        "gateway-no-credential" | "gateway-unauthorized" => (Callers, "Send a bearer token."),
        "gateway-key-unknown" => (Callers, "Send a key of the file callers.clients_file."),
        "gateway-key-expired" => (
            Callers,
            "Make a new key with `segment-gateway key new`, and hand it over.",
        ),
        "gateway-key-required" => (Callers, "Send a key of the gateway in place of the token."),
        "gateway-not-allowed" => (
            Callers,
            "The client lacks the right. Add the operation to its `may`, or correct the caller.",
        ),
        "gateway-head-timeout" | "gateway-body-timeout" => {
            (Callers, "The caller sends too slowly.")
        }
        "gateway-caller-quota" => (
            Callers,
            "The caller exceeds callers.rate. Slow it down, or raise it.",
        ),
        "gateway-queue-wait" | "gateway-queue-expired" => (
            Callers,
            "Demand exceeds the budget. Spread the requests, defer writes, or wait longer.",
        ),
        "gateway-queue-full" => (Callers, "The queue is full. Look below who fills it."),
        "gateway-not-cached" => (
            Callers,
            "The caller accepts stored responses only. None is stored.",
        ),
        "gateway-key-reused" => (Callers, "Use a new Idempotency-Key for another request."),
        "gateway-write-pending" => (
            Callers,
            "The write continues. Send it again with the same key.",
        ),
        "gateway-write-cancelled" | "gateway-given-up" | "gateway-write-sent" => (
            Callers,
            "Ask for the state of the write. Nothing has to be done here.",
        ),
        "gateway-token-refused" => (
            Operator,
            "The API rejects the token. Replace it: in its file, or by rebinding its writes.",
        ),
        "gateway-draining" => (
            Gateway,
            "The gateway is stopping. Callers may send it again.",
        ),
        "gateway-overloaded" => (
            Gateway,
            "Too many requests at once. Raise server.connections.",
        ),
        "gateway-journal-full" => (
            Operator,
            "The disk of state.directory is full. Free space; no restart is needed.",
        ),
        "gateway-too-many-ended" => (
            Operator,
            "Too many durable writes ended within an hour. Raise journal.ended_writes or ended_bytes.",
        ),
        "gateway-audit-unavailable" => (
            Gateway,
            "The audit log cannot be written: make room on the disk of audit.file.",
        ),
        "gateway-journal-broken" => (
            Gateway,
            "The disk does not accept writes. The log says why.",
        ),
        "gateway-internal" => (
            Gateway,
            "A bug. Report what the log has under the request id.",
        ),
        "gateway-upstream-unreachable" => (Api, "Check DNS, the proxy and the network."),
        "gateway-upstream-timeout" => (
            Api,
            "The API did not respond in time. Check its status page.",
        ),
        "gateway-upstream-broken" => (Api, "The response of the API broke off."),
        "gateway-outcome-unknown" => (
            Api,
            "The write may have taken effect. Read before you send it again.",
        ),
        "gateway-answer-lost" => (
            Gateway,
            "The write took effect. Its response could not be kept.",
        ),
        _ => (Gateway, "See docs/errors.md."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_error_has_an_advice() {
        let other = advice("").1;
        let mut kinds = 0;
        let rows = include_str!("../../docs/errors.md").lines();
        let named = rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next());
        for kind in named.filter(|kind| kind.starts_with("gateway-")) {
            kinds += 1;
            assert_ne!(advice(kind).1, other, "{kind}");
        }
        assert!(kinds > 30, "{kinds}");
    }
}
