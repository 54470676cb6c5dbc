//! Pure. A reply of the gateway, and the parts of it that an import needs.
//!
//! Whatever a server sends is a reply: what cannot be read is absent, and judged as that.

use crate::journal::WriteId;
use http::HeaderMap;
use serde_json::Value;
use std::time::Duration;

/// The most characters of a message that are kept.
const LONGEST_MESSAGE: usize = 300;

/// The parts of a reply that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GatewayReply {
    pub(super) status: u16,
    /// The write that the gateway has accepted and carries out later.
    pub(super) deferred: Option<WriteId>,
    /// An earlier request under the same key got this reply.
    pub(super) is_replayed: bool,
    /// The gateway only reports what it would do.
    pub(super) is_shadowed: bool,
    /// When to come back.
    pub(super) retry_after: Option<Duration>,
    /// The error in the body.
    pub(super) error: ErrorText,
    /// The body, as JSON or else as text.
    pub(super) body: Value,
}

impl GatewayReply {
    /// Takes the parts of a reply.
    pub(super) fn new(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let applied = text("preference-applied").unwrap_or_default();
        let is_deferred = status == 202 && applied.contains("respond-async");
        let write = text("location").and_then(|path| path.rsplit('/').next()?.parse().ok());
        let seconds = text("retry-after").and_then(|seconds| seconds.parse().ok());
        let body = match body {
            [] => Value::Null,
            body => serde_json::from_slice(body)
                .unwrap_or_else(|_| String::from_utf8_lossy(body).into()),
        };
        Self {
            status,
            deferred: write.filter(|_| is_deferred),
            is_replayed: text("idempotency-replayed") == Some("true"),
            is_shadowed: headers.contains_key("x-gateway-shadow"),
            retry_after: seconds.map(Duration::from_secs),
            error: ErrorText::of(&body),
            body,
        }
    }

    /// Returns the reply in a few words, for a message.
    pub(super) fn in_words(&self) -> String {
        self.error.in_words(Some(self.status))
    }
}

/// The reason for which there is no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoReply {
    /// Whether the gateway may have got the request.
    pub(super) may_have_arrived: bool,
    /// What happened, as the end of a sentence about the gateway.
    pub(super) why: String,
}

/// The type and the message of an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ErrorText {
    pub(super) kind: String,
    pub(super) message: String,
}

impl ErrorText {
    /// Returns the first error of a body in the API's envelope, or else the beginning of the body.
    pub(super) fn of(body: &Value) -> Self {
        let first = &body["errors"][0];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let message = match (first, body) {
            (Value::Null, Value::Null) => String::new(),
            (Value::Null, Value::String(text)) => text.clone(),
            (Value::Null, other) => other.to_string(),
            (first, _) => text(&first["message"]),
        };
        Self {
            kind: text(&first["type"]),
            message: one_line(&message),
        }
    }

    /// Returns the error behind its status, as a part of a sentence.
    pub(super) fn in_words(&self, status: Option<u16>) -> String {
        let status = status.map(|status| status.to_string()).unwrap_or_default();
        let parts = [&*status, &*self.kind, self.message.trim_end_matches('.')];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join(" ")
    }
}

/// Returns a text as one line of bounded length.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let mut line = words.join(" ");
    if let Some((end, _)) = line.char_indices().nth(LONGEST_MESSAGE) {
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use http::HeaderValue;
    use serde_json::json;

    pub(in super::super) const ID: &str = "0192f0c1-2a3b-7c4d-8e5f-012345678901";

    /// A reply with these fields, and with an error of this type unless that is empty.
    pub(in super::super) fn reply(
        status: u16,
        fields: &[(&'static str, &str)],
        kind: &str,
    ) -> GatewayReply {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let body = match kind {
            "" => json!({ "data": {} }),
            kind => json!({ "errors": [{ "type": kind, "message": "why" }] }),
        };
        GatewayReply::new(status, &headers, body.to_string().as_bytes())
    }

    #[test]
    fn the_parts_of_a_reply_are_found() {
        let path = format!("/_gateway/writes/{ID}");
        let fields = [
            ("location", &*path),
            ("preference-applied", "respond-async"),
            ("retry-after", "7"),
        ];
        let found = reply(202, &fields, "");
        assert!(!found.is_replayed && !found.is_shadowed);
        assert_eq!(found.deferred, ID.parse().ok());
        for (status, fields) in [(201, &fields[..]), (202, &fields[..1]), (202, &fields[1..])] {
            assert_eq!(reply(status, fields, "").deferred, None, "{fields:?}");
        }
        assert_eq!(found.retry_after, Some(Duration::from_secs(7)));
        let bare = GatewayReply::new(503, &HeaderMap::new(), b"<html>no\nroom</html>");
        assert_eq!(bare.in_words(), "503 <html>no room</html>");
        assert_eq!(
            GatewayReply::new(200, &HeaderMap::new(), b"").in_words(),
            "200"
        );
        let date = reply(
            503,
            &[("retry-after", "Mon, 30 Nov 2026 10:00:00 GMT")],
            "x",
        );
        assert_eq!(date.retry_after, None);
        assert_eq!(date.in_words(), "503 x why");
    }

    #[test]
    fn a_message_is_one_short_line() {
        assert_eq!(one_line(" a\r\n\tb\u{1b}[0m "), "a b [0m");
        let long = one_line(&"é".repeat(LONGEST_MESSAGE + 1));
        assert_eq!(long.chars().count(), LONGEST_MESSAGE + 1);
        assert!(long.ends_with('…'));
    }
}
