//! The gateway's own errors: what it refuses or could not do, and what each means to the caller.
//!
//! One row of [`GatewayError::facts`] per error holds its `type`, its status code, whether anything
//! was sent and whether the request may be sent again. Everything else reads that row: responses,
//! metrics, the access log and the test of `docs/errors.md`.
//!
//! An outcome that is unknown is never folded into a failure: it has a variant of its own. This
//! file decides nothing: which error a request ends in is decided where it ends.

mod message;

use crate::metrics::Outcome;
use http::StatusCode;
use std::sync::Arc;
use std::time::Duration;

/// An error of the gateway's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayError {
    /// The request is malformed, ambiguous or of a form that is not accepted.
    BadRequest(&'static str),
    /// CONNECT and TRACE.
    MethodRefused,
    /// Paths under `/_gateway/` are the gateway's own, and this one does not exist.
    NotFound,
    /// The head is larger than this many bytes, or has too many fields.
    HeadTooLarge(usize),
    /// The head did not arrive in time.
    HeadTimeout,
    /// The body is larger than this many bytes.
    BodyTooLarge(usize),
    /// The body did not arrive in time.
    BodyTimeout,
    /// The caller's own quota is spent.
    CallerQuota {
        /// When one more request will be accepted.
        retry_after: Duration,
    },
    /// The estimated wait for a budget ends after the caller's deadline.
    QueueWait {
        /// The estimated wait.
        estimate: Duration,
        /// When the request is admitted if nothing new arrives.
        retry_after: Duration,
    },
    /// A bound of the queue is reached.
    QueueFull {
        /// See `QueueWait`.
        retry_after: Duration,
    },
    /// The deadline passed in the queue.
    QueueExpired {
        /// When to come back.
        retry_after: Duration,
    },
    /// The gateway is stopping.
    Draining,
    /// Too many requests or budgets at once.
    Overloaded,
    /// A write was sent and has no response: it may or may not have taken effect.
    OutcomeUnknown {
        /// How the wait for its response ended.
        waited: Waited,
        /// Whether a retry has no further effect (PUT and DELETE).
        may_retry: bool,
    },
    /// The API could not be reached; nothing was sent.
    UpstreamUnreachable {
        /// What failed and what to do.
        message: &'static str,
        /// Whether time ran out.
        waited: Waited,
    },
    /// A read had no response in time.
    UpstreamTimeout,
    /// A read's connection was lost, or its response was malformed.
    UpstreamBroken,
    /// A read's response cannot be read, for this reason.
    UpstreamUnreadable(&'static str),
    /// A read with `only-if-cached`, and nothing suitable is stored.
    NotCached,
    /// Another request came before under the same `Idempotency-Key`.
    KeyReused,
    /// A durable write was accepted and continues, and its caller's time is up.
    WritePending {
        /// When it has probably ended.
        retry_after: Duration,
        /// Whether an attempt was sent.
        sent: bool,
        /// The write's id.
        id: String,
    },
    /// The write was cancelled before it was sent.
    WriteCancelled,
    /// The write was sent or has ended: it can no longer be cancelled.
    WriteSent,
    /// The API responded to a write with this status, but the body was lost.
    AnswerLost(u16),
    /// The journal has no room for a write.
    JournalFull,
    /// As many writes have ended lately as can be remembered, and none may be forgotten yet.
    TooManyEnded,
    /// The API has answered this credential with 401, or did so a moment ago.
    TokenRefused,
    /// The API has answered a token that the gateway holds with 401. Its caller can do nothing.
    HeldTokenRefused {
        /// Whether this request was sent.
        sent: bool,
    },
    /// The journal cannot store writes.
    JournalBroken,
    /// The audit log has to record a write before it is sent, and cannot.
    AuditUnavailable,
    /// The API rejected the credential of a write for as long as one waits for another.
    GivenUp,
    /// A resource of the gateway was asked for without the credential that it needs.
    Unauthorized,
    /// A write, or a read of what is cached for each credential, names no credential.
    NoCredential,
    /// The key is not known, or not accepted here. Nothing tells why.
    KeyUnknown,
    /// The key was valid and has expired.
    KeyExpired(KnownKey),
    /// An operator has revoked the key. Its sender hears the same as of an unknown one.
    KeyRevoked(KnownKey),
    /// A token of the caller's own, where only keys are accepted.
    KeyRequired,
    /// The client is known, and may not do this.
    Denied(Denial),
    /// A page for operators, asked for on the listener for callers.
    WrongListener,
    /// A resource of the gateway does not know the method; these it knows.
    NotAllowed(&'static str),
    /// A bug; the log has more.
    Internal,
}

/// A key that is known and not accepted, for the record of its rejection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// The name of the client.
    pub client: Arc<str>,
    /// The id of the key, which is no secret.
    pub id: Box<str>,
}

/// What a client may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Use an operation.
    Operation {
        /// The name of the client.
        client: Arc<str>,
        /// The operation to which it has no right.
        operation: Arc<str>,
    },
    /// Send its key alone, because the gateway holds no token for it.
    NoToken {
        /// The name of the client.
        client: Arc<str>,
    },
    /// Use the certificate of another client, or one that stands for several.
    Certificate,
}

/// How the wait for a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Time ran out.
    TooLong,
    /// The connection was lost.
    InVain,
    /// The response cannot be read.
    Unreadable,
    /// The API refused the list in which the write was sent, and no retry was in time.
    Divided,
    /// The API's response to the batch does not say what became of the write.
    Unattributed,
    /// An attempt may have taken effect, and the API refused the next one.
    RetryRefused,
    /// The journal has no response.
    Unrecorded,
}

impl Waited {
    /// Returns the status code of an error in which a wait ended so.
    fn status(self) -> u16 {
        match self {
            Self::TooLong | Self::Divided => 504,
            Self::InVain
            | Self::Unreadable
            | Self::Unattributed
            | Self::RetryRefused
            | Self::Unrecorded => 502,
        }
    }
}

/// What an error means to whoever handles or reports it.
#[derive(Clone, Copy, Debug)]
pub struct ErrorFacts {
    /// The `type` member of the error's envelope, also its name in metrics and logs.
    pub kind: &'static str,
    /// The status code of the response.
    pub status: StatusCode,
    /// Whether the same request may be sent again without risk.
    pub may_retry: bool,
    /// When to come back, where that is known.
    pub retry_after: Option<Duration>,
    /// Whether the request, or part of it, may have reached the API.
    pub sent: bool,
    /// How the metrics count the request.
    pub outcome: Outcome,
    /// Whether the response shows how the budget of the operation stands.
    pub shows_budget: bool,
    /// Whether the connection is closed after the response. After a malformed request the next
    /// bytes may be the rest of it, and connections beyond the bound exist only to deliver this
    /// error.
    pub closes: bool,
}

/// What a row says besides type and status. Without any, nothing was sent, and the same request
/// must not be sent again.
enum Fact {
    Retry,
    RetryAfter(Duration),
    Sent,
    Counts(Outcome),
    ShowsBudget,
    Closes,
}

fn row(kind: &'static str, status: u16, more: &[Fact]) -> ErrorFacts {
    let mut facts = ErrorFacts {
        kind,
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        may_retry: false,
        retry_after: None,
        sent: false,
        outcome: Outcome::Refused,
        shows_budget: false,
        closes: false,
    };
    for fact in more {
        match *fact {
            Fact::Retry => facts.may_retry = true,
            Fact::RetryAfter(wait) => {
                facts.may_retry = true;
                facts.retry_after = Some(wait);
            }
            Fact::Sent => facts.sent = true,
            Fact::Counts(outcome) => facts.outcome = outcome,
            Fact::ShowsBudget => facts.shows_budget = true,
            Fact::Closes => facts.closes = true,
        }
    }
    facts
}

impl GatewayError {
    /// Returns the row of this error.
    #[rustfmt::skip] // a table
    pub fn facts(&self) -> ErrorFacts {
        use Fact::{Closes, Counts, Retry, RetryAfter, Sent, ShowsBudget};
        use Outcome::{Expired, Failed, Unknown};
        let seconds = Duration::from_secs;
        match self {
            // The request is not acceptable.
            Self::BadRequest(_) => row("gateway-bad-request", 400, &[Closes]),
            Self::NoCredential => row("gateway-no-credential", 401, &[]),
            Self::KeyUnknown | Self::KeyRevoked(_) => row("gateway-key-unknown", 401, &[]),
            Self::KeyExpired(_) => row("gateway-key-expired", 401, &[]),
            Self::KeyRequired => row("gateway-key-required", 401, &[]),
            Self::Denied(_) => row("gateway-not-allowed", 403, &[]),
            Self::NotFound => row("gateway-not-found", 404, &[]),
            Self::WrongListener => row("gateway-wrong-listener", 404, &[]),
            Self::MethodRefused => row("gateway-method-refused", 405, &[Closes]),
            Self::HeadTimeout => row("gateway-head-timeout", 408, &[Retry, Closes]),
            Self::BodyTimeout => row("gateway-body-timeout", 408, &[Retry, Closes]),
            Self::BodyTooLarge(_) => row("gateway-body-too-large", 413, &[Closes]),
            Self::HeadTooLarge(_) => row("gateway-head-too-large", 431, &[Closes]),

            // A limit is reached.
            Self::CallerQuota { retry_after } =>
                row("gateway-caller-quota", 429, &[RetryAfter(*retry_after)]),
            Self::QueueWait { retry_after, .. } =>
                row("gateway-queue-wait", 503, &[RetryAfter(*retry_after), ShowsBudget]),
            Self::QueueFull { retry_after } =>
                row("gateway-queue-full", 503, &[RetryAfter(*retry_after), ShowsBudget]),
            Self::QueueExpired { retry_after } => row(
                "gateway-queue-expired", 503,
                &[RetryAfter(*retry_after), Counts(Expired), ShowsBudget],
            ),
            Self::Draining => row("gateway-draining", 503, &[RetryAfter(seconds(1)), Closes]),
            Self::Overloaded => row("gateway-overloaded", 503, &[RetryAfter(seconds(1)), Closes]),
            Self::AuditUnavailable =>
                row("gateway-audit-unavailable", 503, &[RetryAfter(seconds(10))]),
            // RFC 9111, section 5.2.1.7.
            Self::NotCached => row("gateway-not-cached", 504, &[Retry]),

            // The API or the way to it failed.
            Self::UpstreamUnreachable { waited, .. } => row(
                "gateway-upstream-unreachable", waited.status(),
                &[RetryAfter(seconds(5)), Counts(Failed), ShowsBudget],
            ),
            Self::UpstreamTimeout =>
                row("gateway-upstream-timeout", 504, &[Retry, Sent, Counts(Failed), ShowsBudget]),
            Self::UpstreamBroken | Self::UpstreamUnreadable(_) =>
                row("gateway-upstream-broken", 502, &[Retry, Sent, Counts(Failed), ShowsBudget]),
            Self::OutcomeUnknown { waited, may_retry } => ErrorFacts {
                may_retry: *may_retry,
                ..row(
                    "gateway-outcome-unknown", waited.status(),
                    &[Sent, Counts(Unknown), ShowsBudget],
                )
            },

            // A durable write.
            Self::TokenRefused => row("gateway-token-refused", 401, &[]),
            Self::HeldTokenRefused { sent } => ErrorFacts {
                status: StatusCode::SERVICE_UNAVAILABLE,
                may_retry: true,
                retry_after: Some(seconds(10)),
                sent: *sent,
                ..Self::TokenRefused.facts()
            },
            Self::Unauthorized => row("gateway-unauthorized", 401, &[]),
            Self::NotAllowed(_) => row("gateway-method-not-allowed", 405, &[]),
            Self::WriteCancelled => row("gateway-write-cancelled", 409, &[]),
            Self::GivenUp => row("gateway-given-up", 409, &[]),
            Self::WriteSent => row("gateway-write-sent", 409, &[]),
            Self::KeyReused => row("gateway-key-reused", 422, &[]),
            Self::AnswerLost(_) => row("gateway-answer-lost", 502, &[Sent, ShowsBudget]),
            Self::WritePending { retry_after, sent, .. } => ErrorFacts {
                sent: *sent,
                ..row("gateway-write-pending", 503, &[RetryAfter(*retry_after), ShowsBudget])
            },
            Self::JournalBroken => row("gateway-journal-broken", 503, &[RetryAfter(seconds(10))]),
            Self::JournalFull => row("gateway-journal-full", 507, &[RetryAfter(seconds(10))]),
            Self::TooManyEnded => row("gateway-too-many-ended", 507, &[RetryAfter(seconds(60))]),

            // A bug.
            Self::Internal => row("gateway-internal", 500, &[Sent, Counts(Failed)]),
        }
    }
}

#[cfg(test)]
mod tests;
