//! Pure. A small model of the API: sets of invites, users and members, and lists applied as a whole
//! or not at all.

use super::*;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What a write asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Invite,
    Uninvite,
    DeleteUsers,
    Join,
    Leave,
}

/// The state. Emails are known in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct World {
    pub(super) invites: BTreeSet<String>,
    /// Emails by id.
    pub(super) users: BTreeMap<String, String>,
    pub(super) group: BTreeSet<String>,
}

impl World {
    /// Why an element is wrong, as a status.
    fn check(&self, kind: Kind, element: &str) -> Result<(), u16> {
        let invited = self.invites.contains(element);
        let user = self.users.values().any(|email| email == element);
        match kind {
            _ if element.starts_with("bad") => Err(422),
            Kind::Invite if invited || user => Err(409),
            Kind::Uninvite if !invited => Err(404),
            Kind::DeleteUsers if !self.users.contains_key(element) => Err(404),
            Kind::Join if !invited && !user => Err(404),
            Kind::Leave if !self.group.contains(element) => Err(404),
            _ => Ok(()),
        }
    }

    fn take_effect(&mut self, kind: Kind, element: &str) {
        match kind {
            Kind::Invite => drop(self.invites.insert(element.to_owned())),
            Kind::Uninvite => {
                self.invites.remove(element);
                self.group.remove(element);
            }
            Kind::DeleteUsers => {
                if let Some(email) = self.users.remove(element) {
                    self.group.remove(&email);
                }
            }
            Kind::Join => drop(self.group.insert(element.to_owned())),
            Kind::Leave => drop(self.group.remove(element)),
        }
    }

    /// Applies a list; the error is a status.
    pub(super) fn apply(&mut self, kind: Kind, elements: &[String]) -> Result<(), u16> {
        for element in elements {
            self.check(kind, element)?;
        }
        for element in elements {
            self.take_effect(kind, element);
        }
        Ok(())
    }

    /// Answers a request as the API does.
    pub(super) fn answer(&mut self, request: &Request<Bytes>) -> Response<Bytes> {
        let line = format!("{} {}", request.method(), request.uri().path());
        let query = request.uri().query().unwrap_or_default();
        let body = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
        let (kind, written) = match line.as_str() {
            "POST /invites" => (Kind::Invite, strings(&body["invites"], Some("email"))),
            "DELETE /invites" => (Kind::Uninvite, list(query, "emails")),
            "DELETE /users" => (Kind::DeleteUsers, list(query, "userIds")),
            "POST /groups/g/users" => (Kind::Join, strings(&body["emails"], None)),
            "DELETE /group/g/users" => (Kind::Leave, list(query, "emails")),
            other => panic!("{other}"),
        };
        let elements: Vec<String> = written.iter().map(|text| text.to_lowercase()).collect();
        let distinct: BTreeSet<_> = elements.iter().collect();
        if distinct.len() < elements.len() || elements.is_empty() {
            return answer(422, r#"{"errors":[{"type":"ValidationError"}]}"#);
        }
        match self.apply(kind, &elements) {
            Ok(()) => {
                let (status, data) = self.success(kind, &written);
                answer(status, &json!({ "data": data }).to_string())
            }
            Err(status) => answer(status, r#"{"errors":[{"type":"RequestError"}]}"#),
        }
    }

    /// Status and data of a success.
    pub(super) fn success(&self, kind: Kind, written: &[String]) -> (u16, Value) {
        match kind {
            Kind::Invite => (201, json!({ "emails": written })),
            Kind::Join => (200, self.group()),
            _ => (200, json!({ "status": "SUCCESS" })),
        }
    }

    /// The group as it is shown.
    pub(super) fn group(&self) -> Value {
        json!({ "userGroup": { "id": "g", "memberCount": self.group.len() } })
    }
}

fn strings(list: &Value, member: Option<&str>) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    let name = |item: &Value| match member {
        Some(member) => item[member].as_str().unwrap().to_owned(),
        None => item.as_str().unwrap().to_owned(),
    };
    list.map(name).collect()
}

/// A list of the query, in any of the documented spellings.
fn list(query: &str, name: &str) -> Vec<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut next = 0;
    let values = pairs.map(|(key, value)| {
        let decode = |text| percent_decode_str(text).decode_utf8().unwrap().into_owned();
        let (key, value) = (decode(key), decode(value));
        let known = [
            name.to_owned(),
            format!("{name}.{next}"),
            format!("{name}[{next}]"),
        ];
        assert!(known.contains(&key), "{key}");
        next += 1;
        value
    });
    values.collect()
}
