//! Pure. What is shown of a write for as long as it is remembered: its method and path, what it
//! acted on, who asked, and under which request id. Neither its body nor its credential.
//!
//! ```text
//! version (1) | method, path, caller, request id, names, each behind its length
//! ```

use crate::caller::Caller;
use crate::write::durable::fields::{Reader, Writer};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

/// The bounds of what is kept in memory and logged: the number of names, and the bytes of a name or
/// a path.
const SHORT: usize = 8;
const SHORT_BYTES: usize = 128;
/// The most names in a document.
const SHOWN: usize = 100;

/// The summary of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The method.
    pub(super) method: Method,
    /// The path, without its query.
    pub(super) path: String,
    /// The order keys: what it acts on, for example `person:a@example.com`.
    pub(super) elements: Vec<String>,
    /// The number of all names, if some of them have been left out.
    pub(super) count: usize,
    /// The address of the caller, with its name, if it has one.
    pub(super) caller: String,
    /// The id of the request.
    pub(super) request_id: Option<String>,
}

impl Summary {
    /// Summarizes a request that acts on these names.
    pub(super) fn of(
        (method, path): (&Method, &str),
        mut names: Vec<String>,
        caller: &Caller,
        request_id: Option<&str>,
    ) -> Self {
        names.sort_unstable();
        names.dedup();
        let name = caller.name.as_deref().map(|name| format!("{name}@"));
        Self {
            method: method.clone(),
            path: path.to_owned(),
            count: names.len(),
            elements: names,
            caller: format!("{}{}", name.unwrap_or_default(), caller.principal),
            request_id: request_id.map(str::to_owned),
        }
    }

    /// Returns the summary with a few short names, as memory and the log have room for.
    pub(super) fn shortened(&self) -> Self {
        let elements = self.elements.iter().take(SHORT);
        Self {
            path: cut(&self.path),
            elements: elements.map(|name| cut(name)).collect(),
            ..self.clone()
        }
    }

    /// Returns what it acts on, for a line of the log.
    pub(super) fn named(&self) -> String {
        let more = self.count.saturating_sub(self.elements.len());
        let names = self.elements.join(", ");
        match more {
            0 => names,
            more => format!("{names} and {more} more"),
        }
    }

    /// Adds the summary to a document about the write.
    pub(super) fn add_to(&self, write: &mut Value) {
        write["method"] = json!(self.method.as_str());
        write["path"] = json!(self.path);
        let shown = self.elements.iter().take(SHOWN);
        write["elements"] = shown.map(String::as_str).collect();
        write["elementCount"] = json!(self.count);
        write["caller"] = json!(self.caller);
        write["requestId"] = json!(self.request_id);
    }

    /// Returns its bytes for the journal.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Writer::new(256);
        out.field(self.method.as_str().as_bytes());
        out.field(self.path.as_bytes());
        out.field(self.caller.as_bytes());
        out.field(self.request_id.as_deref().unwrap_or_default().as_bytes());
        out.field(self.elements.len().to_string().as_bytes());
        for name in &self.elements {
            out.field(name.as_bytes());
        }
        out.end(&Bytes::new())
    }

    /// Reads the bytes of a summary; `None` if they are of another version, damaged or empty.
    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let mut reader = Reader::new(bytes)?;
        let method = Method::from_bytes(reader.field()?).ok()?;
        let mut text = || Some(std::str::from_utf8(reader.field()?).ok()?.to_owned());
        let (path, caller, request_id) = (text()?, text()?, text()?);
        let count = text()?.parse().ok()?;
        let elements: Option<Vec<String>> = (0..count).map(|_| text()).collect();
        Some(Self {
            method,
            path,
            elements: elements?,
            count,
            caller,
            request_id: (!request_id.is_empty()).then_some(request_id),
        })
    }
}

/// Returns the beginning of a text.
fn cut(text: &str) -> String {
    if text.len() <= SHORT_BYTES {
        return text.to_owned();
    }
    let end = (0..=SHORT_BYTES)
        .rev()
        .find(|at| text.is_char_boundary(*at));
    format!("{}…", text.get(..end.unwrap_or(0)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Principal;
    use proptest::prelude::*;

    fn summary(elements: usize) -> Summary {
        let names = (0..elements).map(|n| format!("person:{n:03}@example.com"));
        let caller = Caller {
            principal: Principal::Peer("10.0.0.1".parse().unwrap()),
            name: Some("billing".into()),
        };
        Summary::of(
            (&Method::POST, "/invites"),
            names.collect(),
            &caller,
            Some("r-1"),
        )
    }

    #[test]
    fn what_is_kept_is_what_was_told() {
        for elements in [0, 1, 50] {
            let summary = summary(elements);
            assert_eq!(Summary::decode(&summary.encode()), Some(summary));
        }
        assert_eq!(
            Summary::decode(&Bytes::new()),
            None,
            "an older write has none"
        );
    }

    #[test]
    fn a_line_of_the_log_has_few_and_short_names() {
        let one = summary(1);
        assert_eq!(one.named(), "person:000@example.com");
        assert_eq!(one.shortened(), one);
        let many = summary(50).shortened();
        assert_eq!((many.elements.len(), many.count), (SHORT, 50));
        assert!(many.named().ends_with("person:007@example.com and 42 more"));
        let long = Summary {
            path: "/é".repeat(SHORT_BYTES),
            ..one
        };
        let path = long.shortened().path;
        assert!(path.ends_with('…') && path.len() <= SHORT_BYTES + '…'.len_utf8());
    }

    #[test]
    fn a_document_has_who_asked_for_what() {
        let mut write = json!({ "state": "unknown" });
        summary(101).add_to(&mut write);
        assert_eq!(write["elements"].as_array().unwrap().len(), SHOWN);
        write["elements"] = Value::Null;
        let expected = json!({
            "state": "unknown", "method": "POST", "path": "/invites", "elements": null,
            "elementCount": 101, "caller": "billing@10.0.0.1", "requestId": "r-1",
        });
        assert_eq!(write, expected);
    }

    proptest! {
        #[test]
        fn damaged_bytes_do_no_harm(at in 0usize..100, to in any::<u8>()) {
            let mut bytes = summary(3).encode().to_vec();
            let place = at % bytes.len();
            bytes[place] = to;
            let _ = Summary::decode(&bytes.into());
        }
    }
}
