//! Pure. What is recorded, and the fields of its line.
//!
//! Fields that are unknown are left out. No event has a token, a key or a body.

use super::chain::AuditKey;
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::sync::Arc;

/// The most subjects in one record. The number of all of them stands beside.
const MOST_SUBJECTS: usize = 100;
/// The longest text in a record, in bytes; what is longer is cut.
const LONGEST: usize = 1024;

/// How people and things appear in records.
#[derive(Clone, Debug)]
pub enum SubjectForm {
    /// By name.
    Plain,
    /// By a pseudonym under the key of the log. Paths, which may have names in them, are left out.
    Hashed(AuditKey),
}

/// An event.
#[derive(Clone, Debug)]
pub enum AuditEvent {
    /// The process began to serve.
    Start {
        /// The version of the program.
        version: &'static str,
    },
    /// The process is about to end.
    Stop,
    /// Events could not be recorded.
    Lost {
        /// How many.
        count: u64,
    },
    /// A write is about to be sent, alone or in this batch.
    Intent(AuditedRequest, Option<String>),
    /// A write has ended.
    Write(AuditedRequest, AuditedEnd),
    /// A client may not do what it asked for, or its key is no longer accepted.
    Rejected {
        /// The type of the error.
        error: &'static str,
        /// The name of the client.
        client: Option<Arc<str>>,
        /// The id of its key.
        key: Option<Box<str>>,
        /// The operation, if it is known.
        operation: Option<Arc<str>>,
        /// The method of the request.
        method: String,
        /// The path of the request, without its query.
        path: String,
        /// The address that it came from.
        peer: Option<IpAddr>,
        /// The id of the request.
        request_id: Option<String>,
    },
    /// An operator changed something, or tried to.
    Operator {
        /// The method of the request.
        method: String,
        /// The path of the request, with its query.
        target: String,
        /// The status of the response; 0 if the operator hung up before.
        status: u16,
        /// The address that it came from; `None` for the socket.
        peer: Option<IpAddr>,
    },
    /// The configuration was read again.
    Reload {
        /// The number of problems. If there are any, nothing has changed.
        problems: usize,
        /// What has changed.
        changed: Vec<String>,
        /// The keys that are accepted from now on: the client and the id.
        keys_added: Vec<String>,
        /// The keys that are no longer accepted.
        keys_removed: Vec<String>,
        /// The number of clients.
        clients: usize,
    },
    /// The state of a held token has changed.
    Token {
        /// The name of the token.
        name: Arc<str>,
        /// What has happened to it.
        state: &'static str,
    },
}

/// A write as it was asked for.
#[derive(Clone, Debug, Default)]
pub struct AuditedRequest {
    /// The operation.
    pub operation: Arc<str>,
    /// The method.
    pub method: Arc<str>,
    /// The path, without the query.
    pub path: Arc<str>,
    /// What the write acts on, such as `person:a@example.com`.
    pub subjects: Vec<String>,
    /// The name of the client.
    pub client: Option<Arc<str>>,
    /// The name that a trusted peer gave.
    pub caller: Option<Arc<str>>,
    /// The address that the request came from.
    pub peer: Option<IpAddr>,
    /// The hash of the credential.
    pub credential: String,
    /// The id of the request.
    pub request_id: Option<Arc<str>>,
    /// The id of a durable write.
    pub write_id: Option<String>,
    /// The SHA-256 of the body.
    pub body_sha256: Option<[u8; 32]>,
}

/// How a write ended.
#[derive(Clone, Debug, Default)]
pub struct AuditedEnd {
    /// In one word.
    pub outcome: &'static str,
    /// The status of the API's response.
    pub status: Option<u16>,
    /// The type of the gateway's own error.
    pub error: Option<&'static str>,
    /// How often it was sent.
    pub attempts: u32,
    /// The batch in which it was sent last.
    pub batch: Option<String>,
}

impl AuditEvent {
    /// All kinds, as records have them.
    pub const KINDS: [&'static str; 9] = [
        "start", "stop", "lost", "intent", "write", "rejected", "operator", "reload", "token",
    ];

    /// Returns the kind of the record.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Stop => "stop",
            Self::Lost { .. } => "lost",
            Self::Intent(..) => "intent",
            Self::Write(..) => "write",
            Self::Rejected { .. } => "rejected",
            Self::Operator { .. } => "operator",
            Self::Reload { .. } => "reload",
            Self::Token { .. } => "token",
        }
    }

    /// Returns the fields of the record, besides those of the chain.
    pub(super) fn fields(&self, form: &SubjectForm) -> Map<String, Value> {
        let path = |path: &str| match form {
            SubjectForm::Plain => Value::from(cut(path)),
            SubjectForm::Hashed(_) => Value::Null,
        };
        let fields = match self {
            Self::Start { version } => json!({ "version": version }),
            Self::Stop => json!({}),
            Self::Lost { count } => json!({ "count": count }),
            Self::Intent(request, batch) => {
                let mut fields = request.fields(form);
                fields["batch"] = json!(batch);
                fields
            }
            Self::Write(request, end) => {
                let mut fields = request.fields(form);
                fields["outcome"] = json!(end.outcome);
                fields["status"] = json!(end.status);
                fields["error"] = json!(end.error);
                fields["attempts"] = json!(end.attempts);
                fields["batch"] = json!(end.batch);
                fields
            }
            Self::Rejected {
                error,
                client,
                key,
                operation,
                method,
                path: of,
                peer,
                request_id,
            } => json!({
                "error": error,
                "client": client.as_deref(),
                "key": key,
                "operation": operation.as_deref(),
                "method": cut(method),
                "path": path(of),
                "peer": peer,
                "request_id": request_id,
            }),
            Self::Operator {
                method,
                target,
                status,
                peer,
            } => json!({
                "method": cut(method),
                // A query may name the path of what is purged, and so a person.
                "target": match form {
                    SubjectForm::Plain => cut(target),
                    SubjectForm::Hashed(_) => cut(target.split('?').next().unwrap_or_default()),
                },
                "status": status,
                "peer": peer,
            }),
            Self::Reload {
                problems,
                changed,
                keys_added,
                keys_removed,
                clients,
            } => json!({
                "problems": problems,
                "changed": changed,
                "keys_added": keys_added,
                "keys_removed": keys_removed,
                "clients": clients,
            }),
            Self::Token { name, state } => json!({ "token": &**name, "state": state }),
        };
        let Value::Object(mut fields) = fields else {
            return Map::new();
        };
        fields.retain(|_, value| !value.is_null());
        fields
    }

    /// Returns roughly how many bytes the event takes while it waits.
    pub(super) fn weight(&self) -> usize {
        let of = |request: &AuditedRequest| {
            let subjects = request.subjects.iter();
            let subjects: usize = subjects.map(|name| name.len() + size_of::<String>()).sum();
            request.path.len() + subjects
        };
        let own = match self {
            Self::Intent(request, _) | Self::Write(request, _) => of(request),
            Self::Rejected { method, path, .. } => method.len() + path.len(),
            Self::Operator { method, target, .. } => method.len() + target.len(),
            Self::Reload {
                changed,
                keys_added,
                keys_removed,
                ..
            } => {
                let all = [changed, keys_added, keys_removed].into_iter().flatten();
                all.map(|text| text.len() + size_of::<String>()).sum()
            }
            Self::Start { .. } | Self::Stop | Self::Lost { .. } | Self::Token { .. } => 0,
        };
        size_of::<Self>() + own
    }
}

impl AuditedRequest {
    fn fields(&self, form: &SubjectForm) -> Value {
        let subjects = self.subjects.iter().take(MOST_SUBJECTS);
        let subjects: Vec<String> = match form {
            SubjectForm::Plain => subjects.map(|name| cut(name).to_owned()).collect(),
            SubjectForm::Hashed(key) => subjects.map(|name| key.pseudonym(name)).collect(),
        };
        let path = match form {
            SubjectForm::Plain => Some(cut(&self.path)),
            SubjectForm::Hashed(_) => None,
        };
        let digest = self.body_sha256.map(|digest| {
            let digits = digest.iter().map(|byte| format!("{byte:02x}"));
            digits.collect::<String>()
        });
        json!({
            "client": self.client.as_deref(),
            "caller": self.caller.as_deref(),
            "peer": self.peer,
            "credential": &self.credential,
            "request_id": self.request_id.as_deref().map(cut),
            "write_id": &self.write_id,
            "operation": &*self.operation,
            "method": cut(&self.method),
            "path": path,
            "subjects": subjects,
            "subject_count": self.subjects.len(),
            "body_sha256": digest,
        })
    }
}

/// Returns the beginning of a text.
fn cut(text: &str) -> &str {
    let end = (0..=LONGEST.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(subjects: usize) -> AuditEvent {
        let request = AuditedRequest {
            operation: "deleteUsers".into(),
            method: "DELETE".into(),
            path: "/users/a@example.com".into(),
            subjects: (0..subjects)
                .map(|n| format!("person:{n}@example.com"))
                .collect(),
            client: Some("hr-sync".into()),
            body_sha256: Some([0xab; 32]),
            ..AuditedRequest::default()
        };
        let end = AuditedEnd {
            outcome: "succeeded",
            status: Some(200),
            attempts: 2,
            ..AuditedEnd::default()
        };
        AuditEvent::Write(request, end)
    }

    #[test]
    fn a_write_has_who_what_and_how_it_ended() {
        let fields = Value::from(write(2).fields(&SubjectForm::Plain));
        let expected = json!({
            "client": "hr-sync", "credential": "", "operation": "deleteUsers", "method": "DELETE",
            "path": "/users/a@example.com", "subject_count": 2,
            "subjects": ["person:0@example.com", "person:1@example.com"],
            "body_sha256": "ab".repeat(32), "outcome": "succeeded", "status": 200, "attempts": 2,
        });
        assert_eq!(fields, expected);
    }

    #[test]
    fn hashed_records_name_nobody_and_can_be_searched() {
        let key = AuditKey::new(&[1; 32]);
        let fields = Value::from(write(1).fields(&SubjectForm::Hashed(key.clone())));
        assert!(!fields.to_string().contains("example.com"), "{fields}");
        assert_eq!(fields["subjects"][0], key.pseudonym("person:0@example.com"));
    }

    #[test]
    fn a_record_has_bounds() {
        let fields = write(1_000).fields(&SubjectForm::Plain);
        assert_eq!(fields["subjects"].as_array().unwrap().len(), MOST_SUBJECTS);
        assert_eq!(fields["subject_count"], 1_000);
        assert!(write(1_000).weight() > 20_000);
        let long = AuditEvent::Operator {
            method: "POST".into(),
            target: "/é".repeat(LONGEST),
            status: 200,
            peer: None,
        };
        let fields = long.fields(&SubjectForm::Plain);
        let target = fields["target"].as_str().unwrap();
        assert!(target.len() <= LONGEST && target.len() > LONGEST - 4);
    }
}
