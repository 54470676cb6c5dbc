//! Pure. What the gateway says to a caller about an error: what happened and what to do.

use super::{Denial, GatewayError, Waited};
use std::fmt;

impl GatewayError {
    /// Returns what happened and what to do, for the caller.
    pub fn message(&self) -> String {
        let varies = match self {
            Self::BadRequest(text)
            | Self::UpstreamUnreadable(text)
            | Self::NotAllowed(text)
            | Self::UpstreamUnreachable { message: text, .. } => (*text).to_owned(),
            Self::HeadTooLarge(limit) | Self::BodyTooLarge(limit) => limit.to_string(),
            Self::QueueWait { estimate, .. } => estimate.as_secs_f64().ceil().to_string(),
            Self::OutcomeUnknown { waited, .. } => waited.why().to_owned(),
            Self::WritePending { id, .. } => id.clone(),
            Self::AnswerLost(status) => status.to_string(),
            Self::Denied(denial) => denial.to_string(),
            _ => String::new(),
        };
        self.text().replacen("{}", &varies, 1)
    }

    /// Returns the text of the message; `{}` stands for what varies.
    #[rustfmt::skip] // a table
    #[expect(clippy::too_many_lines, reason = "a table, one text per error")]
    fn text(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "{}. Nothing was sent to the API.",
            Self::NoCredential =>
                "This operation needs a token: send `Authorization: Bearer <token>`. Nothing was \
                sent to the API.",
            Self::KeyUnknown | Self::KeyRevoked(_) =>
                "This gateway does not accept the key: it is not known, was removed, or is \
                incomplete, or no keys are in use. Nothing was sent to the API. Check the whole \
                key, or ask the operator of the gateway for another.",
            Self::KeyExpired(_) =>
                "The key has expired. Nothing was sent to the API. Ask the operator of the \
                gateway for a new one.",
            Self::KeyRequired =>
                "This gateway accepts no tokens of the API, only keys of its own. Send \
                `Authorization: Bearer sgw_…` with the key that its operator gives you. Nothing \
                was sent to the API. A token that went to the wrong place should be replaced.",
            Self::Denied(_) => "{}. Nothing was sent to the API.",
            Self::NotFound =>
                "No such resource of the gateway. Paths under /_gateway/ are never forwarded to \
                the API.",
            Self::WrongListener =>
                "This is the listener for callers. The pages for operators (/, /metrics, /livez, \
                /readyz, /status, /cache, /log, /writes) are on the listener that admin.listen \
                names, 127.0.0.1:8081 by default. Nothing was sent to the API.",
            Self::MethodRefused =>
                "CONNECT and TRACE are not accepted. Send the request to the API's own operations.",
            Self::HeadTimeout =>
                "The head of the request did not arrive in time. Nothing was sent to the API; \
                send the request again.",
            Self::BodyTimeout =>
                "The body did not arrive in time. Nothing was sent to the API; send the request \
                again.",
            Self::BodyTooLarge(_) =>
                "The body is larger than {} bytes. Send less at a time, or raise \
                server.body_bytes of the gateway. Nothing was sent to the API.",
            Self::HeadTooLarge(_) =>
                "The head of the request is larger than {} bytes, or has more than 100 fields. \
                Send less, or raise server.header_bytes of the gateway. Nothing was sent to the \
                API.",

            Self::CallerQuota { .. } =>
                "This caller exceeds its quota. Nothing was sent to the API; wait for Retry-After.",
            Self::QueueWait { .. } =>
                "The budget of this operation is in use: the wait would be about {} s, longer \
                than this request may wait. Nothing was sent to the API; send the request again \
                after Retry-After, or allow a longer wait with 'Prefer: wait=N'.",
            Self::QueueFull { .. } =>
                "The queue of this budget is full. Nothing was sent to the API; send the request \
                again after Retry-After.",
            Self::QueueExpired { .. } =>
                "The deadline of the request passed in the queue. It was not carried out; it is \
                safe to send it again.",
            Self::Draining =>
                "The gateway is stopping. Nothing was sent to the API; send the request again.",
            Self::Overloaded =>
                "The gateway has reached a configured bound. Nothing was sent to the API; send \
                the request again.",
            Self::AuditUnavailable =>
                "The gateway records each write in its audit log before it sends it, and cannot do \
                so now; its log says why. Nothing was sent to the API; send the request again \
                after Retry-After.",
            Self::NotCached =>
                "Nothing that the request accepts is stored, and 'only-if-cached' forbids a \
                request to the API. Send it again without that directive.",

            Self::UpstreamUnreachable { .. } => "{} It is safe to send the request again.",
            Self::UpstreamTimeout =>
                "The API did not respond in time. It was a read; it is safe to send it again.",
            Self::UpstreamBroken =>
                "The API's response broke off or does not match the request. It was a read; it is \
                safe to send it again.",
            Self::UpstreamUnreadable(_) =>
                "{}. It was a read; it is safe to send it again. If it ends like this again, \
                check what stands between the gateway and the API.",
            Self::OutcomeUnknown { may_retry: true, .. } =>
                "The write was sent, but {}. It may or may not have taken effect; it is safe to \
                send it again.",
            Self::OutcomeUnknown { may_retry: false, .. } =>
                "The write was sent, but {}. It may or may not have taken effect: read the \
                current state before you send it again.",

            Self::TokenRefused =>
                "The API does not accept this token (401), so the gateway rejects the write; it \
                asks again after some seconds. Nothing was kept; send it with a valid token.",
            Self::HeldTokenRefused { .. } =>
                "The API does not accept the token that the gateway holds (401). Your key is not \
                the cause. The operator of the gateway must replace that token; send the request \
                again later.",
            Self::Unauthorized =>
                "Only the token that sent a write can see it: send the same Authorization.",
            Self::NotAllowed(_) => "This resource of the gateway accepts only {}.",
            Self::WriteCancelled =>
                "This write was cancelled before it was sent, and will not be carried out. To \
                send it after all, use another Idempotency-Key.",
            Self::GivenUp =>
                "The API rejected this write's token (401) for a day. The write was not carried \
                out; send it again with a valid token.",
            Self::WriteSent =>
                "The write has been sent to the API or has ended. It can no longer be cancelled.",
            Self::KeyReused =>
                "Another request used this Idempotency-Key first. Nothing was sent to the API; \
                use a new key for a new request.",
            Self::AnswerLost(_) =>
                "The API responded to the write with {}, but the body was lost or is too long to \
                keep. Do not send the write again; read the current state.",
            Self::WritePending { .. } =>
                "The write is accepted and continues. Send the same request with the same \
                Idempotency-Key again after Retry-After to get its result; it is not carried out \
                twice. GET /_gateway/writes/{} shows its state.",
            Self::JournalBroken =>
                "The gateway cannot store writes; its log says why. Nothing was sent to the API. \
                Without `Prefer: respond-async` and Idempotency-Key the write passes, but is not \
                durable.",
            Self::JournalFull =>
                "The gateway's disk has no room for a write. Nothing was sent to the API. Without \
                `Prefer: respond-async` and Idempotency-Key the write passes, but is not durable.",
            Self::TooManyEnded =>
                "As many writes of this token, or of all, have ended within the last hour as the \
                gateway can remember, and it does not forget an Idempotency-Key earlier. Nothing \
                was sent to the API; send the write again after Retry-After, or send it without \
                `Prefer: respond-async` and Idempotency-Key.",

            Self::Internal =>
                "The gateway failed to handle this request. Its log has more under this \
                X-Request-Id.",
        }
    }
}

impl fmt::Display for Denial {
    /// Writes what is denied and what to do, without a full stop.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operation { client, operation } => write!(
                f,
                "The client `{client}` may not use the operation `{operation}`; the operator of \
                 the gateway can allow it"
            ),
            Self::NoToken { client } => write!(
                f,
                "The gateway holds no token for the client `{client}`; send the key as \
                 `X-Gateway-Key`, beside a token of your own in `Authorization`"
            ),
            Self::Certificate => f.write_str(
                "The certificate of this connection stands for another client than the key, or \
                 for several; use the key and the certificate of one client",
            ),
        }
    }
}

impl Waited {
    /// Returns the words for the caller of a write, after "The write was sent, but".
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
