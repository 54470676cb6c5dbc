//! What the gateway itself refuses or could not do, whose fault it was, and whether the request
//! may be sent again.
//!
//! `exchange/error_response.rs` alone turns these into status codes and bodies. An outcome that is
//! unknown is never folded into a failure: it has its own variant, and only that one says "sent".

use std::time::Duration;

/// Who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The caller's request.
    Caller,
    /// The API or the way to it.
    Upstream,
    /// This gateway or its configuration.
    Gateway,
}

/// An error of the gateway's own. [`GatewayError::was_sent`] says which of them mean that something
/// was sent upstream.
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
        /// Who returns after this is admitted if nothing new came.
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
    /// A write was sent and no answer of its own came: it may or may not have taken effect.
    OutcomeUnknown {
        /// Why not.
        waited: Waited,
        /// Whether a repetition cannot do more than the first (PUT and DELETE).
        may_retry: bool,
    },
    /// The API could not be reached; nothing was sent.
    UpstreamUnreachable {
        /// What failed and what to do.
        message: &'static str,
        /// Whether time ran out.
        waited: Waited,
    },
    /// A read was not answered in time.
    UpstreamTimeout,
    /// A read's connection was lost, or its answer was malformed.
    UpstreamBroken,
    /// A read was answered in a way that cannot be read, for this reason.
    UpstreamUnreadable(&'static str),
    /// A read wanted nothing that has to be asked for, and nothing is stored for it.
    NotCached,
    /// Another request came before under the same `Idempotency-Key`.
    KeyReused,
    /// A durable write was accepted and has not ended, and its caller's time is up.
    WritePending {
        /// When it has probably ended.
        retry_after: Duration,
        /// Whether an attempt has left.
        sent: bool,
        /// The write's id.
        id: String,
    },
    /// The write was taken back before it left.
    WriteCancelled,
    /// The write has left or ended: it cannot be taken back.
    WriteLeft,
    /// The API answered with this status, but the body of the answer was lost.
    AnswerLost(u16),
    /// There is no room to keep a write.
    JournalFull,
    /// As many writes have ended lately as can be remembered, and none of them may be forgotten
    /// yet.
    TooManyEnded,
    /// The API has answered this credential with 401, or did so a moment ago.
    TokenRefused,
    /// Writes cannot be kept.
    JournalBroken,
    /// The API refused its credential for as long as a write waits for another.
    GivenUp,
    /// One of the gateway's own resources was asked for without a credential.
    Unauthorized,
    /// A write, or a read of what is cached for each credential, names no credential.
    NoCredential,
    /// A page of operators, which are on a listener of their own.
    WrongListener,
    /// One of the gateway's own resources does not know the method; these it knows.
    NotAllowed(&'static str),
    /// A bug; the log has more.
    Internal,
}

/// How waiting for an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Time ran out.
    TooLong,
    /// The connection was lost.
    InVain,
    /// The answer cannot be read.
    Unreadable,
    /// The API refused the list in which it was sent, and it was not sent again in time.
    Divided,
    /// The API answered the batch in which it was sent, but not what became of it.
    Unattributed,
    /// An attempt may have taken effect, and the API refused the next one.
    RetryRefused,
    /// The journal has no answer to it.
    Unrecorded,
}

impl Waited {
    /// For the caller of a write, after "The write was sent, but".
    fn why(self) -> &'static str {
        match self {
            Self::TooLong => "the API did not respond in time",
            Self::InVain => "the connection was lost before the response arrived",
            Self::Unreadable => "the API's response could not be read (see the gateway's log)",
            Self::Divided => {
                "in a list that the API refused, and it could not be sent again in time"
            }
            Self::Unattributed => {
                "the API's response to the batch that contained it does not say what became of this \
                 write"
            }
            Self::RetryRefused => {
                "the outcome of its first attempt is unknown, and the API refused the retry"
            }
            Self::Unrecorded => "no response is recorded that says what became of it",
        }
    }
}

impl GatewayError {
    /// The `type` member of the error's envelope, also its name in metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "gateway-bad-request",
            Self::MethodRefused => "gateway-method-refused",
            Self::NotFound => "gateway-not-found",
            Self::HeadTooLarge(_) => "gateway-head-too-large",
            Self::HeadTimeout => "gateway-head-timeout",
            Self::BodyTooLarge(_) => "gateway-body-too-large",
            Self::BodyTimeout => "gateway-body-timeout",
            Self::CallerQuota { .. } => "gateway-caller-quota",
            Self::QueueWait { .. } => "gateway-queue-wait",
            Self::QueueFull { .. } => "gateway-queue-full",
            Self::QueueExpired { .. } => "gateway-queue-expired",
            Self::Draining => "gateway-draining",
            Self::Overloaded => "gateway-overloaded",
            Self::OutcomeUnknown { .. } => "gateway-outcome-unknown",
            Self::UpstreamUnreachable { .. } => "gateway-upstream-unreachable",
            Self::UpstreamTimeout => "gateway-upstream-timeout",
            Self::UpstreamBroken | Self::UpstreamUnreadable(_) => "gateway-upstream-broken",
            Self::NotCached => "gateway-not-cached",
            Self::KeyReused => "gateway-key-reused",
            Self::WritePending { .. } => "gateway-write-pending",
            Self::WriteCancelled => "gateway-write-cancelled",
            Self::WriteLeft => "gateway-write-left",
            Self::AnswerLost(_) => "gateway-answer-lost",
            Self::JournalFull => "gateway-journal-full",
            Self::TooManyEnded => "gateway-too-many-ended",
            Self::TokenRefused => "gateway-token-refused",
            Self::JournalBroken => "gateway-journal-broken",
            Self::GivenUp => "gateway-given-up",
            Self::Unauthorized => "gateway-unauthorized",
            Self::NoCredential => "gateway-no-credential",
            Self::WrongListener => "gateway-wrong-listener",
            Self::NotAllowed(_) => "gateway-method-not-allowed",
            Self::Internal => "gateway-internal",
        }
    }

    /// Who has to act.
    pub fn blame(&self) -> Blame {
        match self {
            Self::BadRequest(_)
            | Self::MethodRefused
            | Self::NotFound
            | Self::HeadTooLarge(_)
            | Self::BodyTooLarge(_)
            | Self::BodyTimeout
            | Self::HeadTimeout
            | Self::CallerQuota { .. }
            | Self::NotCached
            | Self::KeyReused
            | Self::WriteCancelled
            | Self::WriteLeft
            | Self::GivenUp
            | Self::TokenRefused
            | Self::Unauthorized
            | Self::NoCredential
            | Self::WrongListener
            | Self::NotAllowed(_) => Blame::Caller,
            Self::OutcomeUnknown { .. }
            | Self::UpstreamUnreachable { .. }
            | Self::UpstreamTimeout
            | Self::UpstreamBroken
            | Self::UpstreamUnreadable(_)
            | Self::AnswerLost(_) => Blame::Upstream,
            Self::QueueWait { .. }
            | Self::QueueFull { .. }
            | Self::QueueExpired { .. }
            | Self::Draining
            | Self::Overloaded
            | Self::WritePending { .. }
            | Self::JournalFull
            | Self::TooManyEnded
            | Self::JournalBroken
            | Self::Internal => Blame::Gateway,
        }
    }

    /// Whether the same request may be sent again without risk.
    pub fn may_retry(&self) -> bool {
        match self {
            Self::OutcomeUnknown { may_retry, .. } => *may_retry,
            Self::BadRequest(_)
            | Self::MethodRefused
            | Self::NotFound
            | Self::HeadTooLarge(_)
            | Self::BodyTooLarge(_)
            | Self::KeyReused
            | Self::WriteCancelled
            | Self::WriteLeft
            | Self::AnswerLost(_)
            | Self::GivenUp
            | Self::TokenRefused
            | Self::Unauthorized
            | Self::NoCredential
            | Self::WrongListener
            | Self::NotAllowed(_)
            | Self::Internal => false,
            _ => true,
        }
    }

    /// Whether the request, or part of it, may have reached the API.
    pub fn was_sent(&self) -> bool {
        matches!(
            self,
            Self::WritePending { sent: true, .. }
                | Self::AnswerLost(_)
                | Self::OutcomeUnknown { .. }
                | Self::UpstreamTimeout
                | Self::UpstreamBroken
                | Self::UpstreamUnreadable(_)
                | Self::Internal
        )
    }

    /// Whether the budget of the operation had a part in it: how that stands is worth showing.
    pub fn concerns_budget(&self) -> bool {
        match self {
            Self::QueueWait { .. }
            | Self::QueueFull { .. }
            | Self::QueueExpired { .. }
            | Self::OutcomeUnknown { .. }
            | Self::UpstreamUnreachable { .. }
            | Self::UpstreamTimeout
            | Self::UpstreamBroken
            | Self::UpstreamUnreadable(_)
            | Self::WritePending { .. }
            | Self::AnswerLost(_) => true,
            Self::BadRequest(_)
            | Self::MethodRefused
            | Self::NotFound
            | Self::HeadTooLarge(_)
            | Self::BodyTooLarge(_)
            | Self::BodyTimeout
            | Self::HeadTimeout
            | Self::CallerQuota { .. }
            | Self::NotCached
            | Self::Draining
            | Self::Overloaded
            | Self::KeyReused
            | Self::WriteCancelled
            | Self::WriteLeft
            | Self::JournalFull
            | Self::TooManyEnded
            | Self::JournalBroken
            | Self::GivenUp
            | Self::TokenRefused
            | Self::Unauthorized
            | Self::NoCredential
            | Self::WrongListener
            | Self::NotAllowed(_)
            | Self::Internal => false,
        }
    }

    /// When to come back, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::CallerQuota { retry_after }
            | Self::QueueWait { retry_after, .. }
            | Self::QueueFull { retry_after }
            | Self::QueueExpired { retry_after }
            | Self::WritePending { retry_after, .. } => Some(*retry_after),
            Self::JournalFull | Self::JournalBroken => Some(Duration::from_secs(10)),
            Self::TooManyEnded => Some(Duration::from_secs(60)),
            Self::Draining | Self::Overloaded => Some(Duration::from_secs(1)),
            Self::UpstreamUnreachable { .. } => Some(Duration::from_secs(5)),
            _ => None,
        }
    }

    /// For the caller: what happened and what to do.
    pub fn message(&self) -> String {
        match self {
            Self::BadRequest(why) => format!("{why}. Nothing was sent to the API."),
            Self::MethodRefused => "CONNECT and TRACE are not accepted. Send the request to \
                the API's own operations."
                .into(),
            Self::NotFound => "No such resource of the gateway. Paths under /_gateway/ are never \
                forwarded to the API."
                .into(),
            Self::HeadTooLarge(limit) => format!(
                "The head of the request is larger than {limit} bytes, or has more than 100 fields. \
                Send less, or raise server.header_bytes of the gateway. Nothing was sent to the API."
            ),
            Self::BodyTooLarge(limit) => format!(
                "The body is larger than {limit} bytes. Send less at a time, or raise \
                server.body_bytes of the gateway. Nothing was sent to the API."
            ),
            Self::HeadTimeout | Self::BodyTimeout => self.message_of_timeout().into(),
            Self::CallerQuota { .. } => {
                "This caller exceeds its quota. Nothing was sent to the API; \
                wait for Retry-After."
                    .into()
            }
            Self::QueueWait { estimate, .. } => format!(
                "The budget of this operation is in use: the wait would be about {} s, longer \
                than this request may wait. Nothing was sent to the API; send the request again after \
                Retry-After, or allow a longer wait with 'Prefer: wait=N'.",
                estimate.as_secs_f64().ceil()
            ),
            Self::QueueFull { .. } => {
                "The queue of this budget is full. Nothing was sent to the API; \
                send the request again after Retry-After."
                    .into()
            }
            Self::QueueExpired { .. } => {
                "The deadline of the request passed in the queue. It was not \
                carried out; it is safe to send it again."
                    .into()
            }
            Self::OutcomeUnknown { waited, may_retry } => format!(
                "The write was sent, but {}. It may or may not have taken effect{}",
                waited.why(),
                if *may_retry {
                    "; it is safe to send it again."
                } else {
                    ": read the current state before you send it again."
                }
            ),
            Self::UpstreamUnreachable { .. }
            | Self::UpstreamTimeout
            | Self::UpstreamBroken
            | Self::UpstreamUnreadable(_) => self.message_of_upstream(),
            Self::NotCached
            | Self::Draining
            | Self::Overloaded
            | Self::KeyReused
            | Self::WritePending { .. }
            | Self::WriteCancelled
            | Self::WriteLeft
            | Self::AnswerLost(_)
            | Self::JournalFull
            | Self::TooManyEnded
            | Self::JournalBroken
            | Self::GivenUp
            | Self::TokenRefused
            | Self::Unauthorized
            | Self::NoCredential
            | Self::WrongListener
            | Self::NotAllowed(_) => self.message_of_own(),
            Self::Internal => "The gateway failed to handle this request. Its log has more under \
                this X-Request-Id."
                .into(),
        }
    }

    /// The message for a request that did not arrive in time.
    fn message_of_timeout(&self) -> &'static str {
        match self {
            Self::HeadTimeout => {
                "The head of the request did not arrive in time. Nothing was sent to the API; send \
                the request again."
            }
            _ => {
                "The body did not arrive in time. Nothing was sent to the API; send the request \
                again."
            }
        }
    }

    /// What is said where the API did not answer as it should.
    fn message_of_upstream(&self) -> String {
        match self {
            Self::UpstreamUnreachable { message, .. } => {
                format!("{message} It is safe to send the request again.")
            }
            Self::UpstreamTimeout => "The API did not respond in time. It was a read; it is safe \
                to send it again."
                .into(),
            Self::UpstreamBroken => {
                "The API's response broke off or does not match the request. It \
                was a read; it is safe to send it again."
                    .into()
            }
            Self::UpstreamUnreadable(why) => format!(
                "{why}. It was a read; it is safe to send it again. If it ends like this again, \
                check what stands between the gateway and the API."
            ),
            _ => String::new(),
        }
    }

    /// What is said about writes that outlast a crash, and about credentials.
    fn message_of_own(&self) -> String {
        match self {
            Self::WrongListener => {
                "This is the listener for callers. The pages for operators (/, /metrics, /livez, /readyz, /status, /cache, /log, /writes) are on \
                the listener that admin.listen names, 127.0.0.1:8081 by default. Nothing was sent \
                to the API."
                    .into()
            }
            Self::NotCached => "Nothing that the request accepts is stored, and 'only-if-cached' \
                forbids a request to the API. Send it again without that directive."
                .into(),
            Self::Draining => "The gateway is stopping. Nothing was sent to the API; send the \
                request again."
                .into(),
            Self::Overloaded => "The gateway has reached a configured bound. Nothing was sent to the \
                API; send the request again."
                .into(),
            Self::KeyReused => {
                "Another request used this Idempotency-Key first. Nothing was sent to the API; use a new \
                key for a new request."
                    .into()
            }
            Self::WritePending { id, .. } => format!(
                "The write is accepted and continues. Send the same request with the same \
                Idempotency-Key again after Retry-After to get its result; it is not carried out \
                twice. GET /_gateway/writes/{id} shows its state."
            ),
            Self::WriteCancelled => "This write was cancelled before it was sent, and will not be \
                carried out. To send it after all, use another Idempotency-Key."
                .into(),
            Self::WriteLeft => "The write has been sent to the API or has ended. It can no longer be \
                cancelled."
                .into(),
            Self::AnswerLost(status) => format!(
                "The API responded to the write with {status}, but the body was lost or is too long to \
                keep. Do not send the write again; read the current state."
            ),
            Self::JournalFull => "The gateway's disk has no room for a write. Nothing was sent to the \
                API. Without `Prefer: respond-async` and Idempotency-Key the write passes, but is not \
                durable."
                .into(),
            Self::TooManyEnded => "As many writes of this token, or of all, have ended within the \
                last hour as the gateway can remember, and it does not forget an Idempotency-Key \
                earlier. Nothing was sent to the API; send the write again after Retry-After, or send it \
                without `Prefer: respond-async` and Idempotency-Key."
                .into(),
            Self::TokenRefused => "The API does not accept this token (401), so the gateway rejects the \
                write; it asks again after some seconds. Nothing was kept; send it with a valid token."
                .into(),
            Self::JournalBroken => "The gateway cannot store writes; its log says why. Nothing was sent \
                to the API. Without `Prefer: respond-async` and Idempotency-Key the write passes, but \
                is not durable."
                .into(),
            Self::GivenUp => {
                "The API rejected this write's token (401) for a day. The write was not carried out; send \
                it again with a valid token."
                    .into()
            }
            Self::Unauthorized => "Only the token that sent a write can see it: send the same \
                Authorization."
                .into(),
            Self::NoCredential => "This operation needs a token: send `Authorization: Bearer <token>`. \
                Nothing was sent to the API."
                .into(),
            Self::NotAllowed(allowed) => {
                format!("This resource of the gateway accepts only {allowed}.")
            }
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sent_may_have_taken_effect() {
        let unknown = GatewayError::OutcomeUnknown {
            waited: Waited::TooLong,
            may_retry: false,
        };
        assert!(unknown.was_sent() && !unknown.may_retry());
        assert!(unknown.message().contains("may or may not"));
        let wait = GatewayError::QueueWait {
            estimate: Duration::from_millis(1_200),
            retry_after: Duration::from_secs(2),
        };
        assert!(!wait.was_sent() && wait.may_retry());
        assert!(wait.message().contains("about 2 s"));
    }
}
