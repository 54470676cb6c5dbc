//! Pure. A small model of the API: sets of invites, users and members, and lists applied whole or up
//! to their first wrong element.

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

/// How a list is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The first wrong element refuses all of it.
    Whole,
    /// What stands before the first wrong element takes effect.
    Partly,
}

/// The state. Emails are known in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct World {
    pub(super) invites: BTreeSet<String>,
    /// Emails by id.
    pub(super) users: BTreeMap<String, String>,
    pub(super) group: BTreeSet<String>,
}

/// Items on a page of a list.
const PAGE: usize = 2;

impl World {
    /// Why an element is wrong, as a status; `Ok(false)` if it is in effect already.
    fn check(&self, kind: Kind, element: &str) -> Result<bool, u16> {
        let invited = self.invites.contains(element);
        let user = self.users.values().any(|email| email == element);
        match kind {
            _ if element.starts_with("bad") => Err(422),
            Kind::Invite if invited || user => Err(409),
            Kind::Uninvite if !invited => Err(404),
            Kind::DeleteUsers if !self.users.contains_key(element) => Err(404),
            Kind::Join if !invited && !user => Err(404),
            Kind::Leave if !self.group.contains(element) => Err(404),
            Kind::Join => Ok(!self.group.contains(element)),
            _ => Ok(true),
        }
    }

    /// Whether what the element asks for is so already.
    fn is_so(&self, kind: Kind, element: &str) -> bool {
        let user = |email| self.users.values().any(|known| known == email);
        match kind {
            Kind::Invite => self.invites.contains(element) || user(element),
            Kind::Uninvite => !self.invites.contains(element),
            Kind::DeleteUsers => !self.users.contains_key(element),
            Kind::Join => self.group.contains(element),
            Kind::Leave => !self.group.contains(element),
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

    /// Applies a list; the error is a status. If `lenient`, what is so already is not wrong.
    pub(super) fn apply(
        &mut self,
        kind: Kind,
        elements: &[String],
        mode: Mode,
        lenient: bool,
    ) -> Result<(), u16> {
        let before = self.clone();
        let wrong = elements.iter().enumerate().find_map(|(at, element)| {
            let passes = lenient && !element.starts_with("bad") && before.is_so(kind, element);
            let status = before.check(kind, element).err()?;
            (!passes).then_some((at, status))
        });
        let end = match (wrong, mode) {
            (None, _) => elements.len(),
            (Some(_), Mode::Whole) => 0,
            (Some((at, _)), Mode::Partly) => at,
        };
        for element in &elements[..end] {
            if !before.is_so(kind, element) {
                self.take_effect(kind, element);
            }
        }
        wrong.map_or(Ok(()), |(_, status)| Err(status))
    }

    /// Answers a request as the API does.
    pub(super) fn answer(&mut self, request: &Request<Bytes>, mode: Mode) -> Response<Bytes> {
        let line = format!("{} {}", request.method(), request.uri().path());
        let query = request.uri().query().unwrap_or_default();
        let body = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
        let (kind, written) = match line.as_str() {
            "POST /invites" => (Kind::Invite, strings(&body["invites"], Some("email"))),
            "DELETE /invites" => (Kind::Uninvite, list(query, "emails")),
            "DELETE /users" => (Kind::DeleteUsers, list(query, "userIds")),
            "POST /groups/g/users" => (Kind::Join, strings(&body["emails"], None)),
            "DELETE /group/g/users" => (Kind::Leave, list(query, "emails")),
            _ => return self.read(&line, query),
        };
        let elements: Vec<String> = written.iter().map(|text| text.to_lowercase()).collect();
        let distinct: BTreeSet<_> = elements.iter().collect();
        if distinct.len() < elements.len() || elements.is_empty() {
            return answer(422, r#"{"errors":[{"type":"ValidationError"}]}"#);
        }
        match self.apply(kind, &elements, mode, false) {
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

    fn read(&self, line: &str, query: &str) -> Response<Bytes> {
        let is_user = |email: &&String| self.users.values().any(|known| known == *email);
        let user = |email: &String| json!({ "email": email });
        let text = |email: &String| json!(email);
        let (name, items): (_, Vec<Value>) = match line {
            "GET /invites" => ("invites", self.invites.iter().map(text).collect()),
            "GET /users" => ("users", self.users.values().map(user).collect()),
            "GET /groups/g/users" => {
                let users = self.group.iter().filter(is_user);
                ("users", users.map(user).collect())
            }
            "GET /groups/g/invites" => {
                let invited = self.group.iter().filter(|email| !is_user(email));
                ("emails", invited.map(text).collect())
            }
            "GET /groups/g" => return answer(200, &json!({ "data": self.group() }).to_string()),
            other => panic!("{other}"),
        };
        let cursor = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("pagination.cursor="));
        let from: usize = cursor.map_or(0, |cursor| cursor.parse().unwrap());
        let page: Vec<_> = items.iter().skip(from).take(PAGE).collect();
        let next = (from + PAGE < items.len()).then(|| (from + PAGE).to_string());
        let pagination = json!({ "next": next, "totalEntries": items.len() });
        let body = json!({ "data": { name: page, "pagination": pagination } });
        answer(200, &body.to_string())
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
