//! Pure. What the operations have in common: what they are asked, how lists are checked, and how
//! what is named is found.
//!
//! A list is applied element by element. Where one element is wrong, either nothing is applied or
//! what stood before it ([`ListMode`]); the API promises neither, so clients must bear both.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use http::StatusCode;
use serde_json::Value;

use super::operations::Params;
use super::request::{Problem, Query};
use super::world::{Changed, Grant, Group, ROLES, User, World};

/// How many resources one permission may name.
const MOST_RESOURCES: usize = 100;
const RESOURCE_TYPES: [&str; 5] = ["FUNCTION", "SOURCE", "SPACE", "WAREHOUSE", "WORKSPACE"];
/// What becomes of a list of which one element is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListMode {
    /// The error refuses all of it.
    #[default]
    Whole,
    /// The elements before the wrong one take effect, then the error is answered.
    Partly,
}

/// What an operation is asked.
pub(super) struct Call<'a> {
    /// The operation's name.
    pub(super) name: &'static str,
    /// The values of the path's parameters.
    pub(super) params: &'a Params,
    /// The decoded query.
    pub(super) query: &'a Query,
    /// The body as it came.
    pub(super) body: &'a [u8],
    /// What becomes of a list of which one element is wrong.
    pub(super) lists: ListMode,
}

/// A successful answer: its status and the JSON of `data`.
pub(super) type Success = (StatusCode, String);
/// The answer of an operation.
pub(super) type Outcome = Result<Success, Problem>;

impl ListMode {
    /// The word used on the command line: `whole` or `partly`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Partly => "partly",
        }
    }
}

impl fmt::Display for ListMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ListMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Whole, Self::Partly]
            .into_iter()
            .find(|mode| mode.as_str() == text);
        known.ok_or_else(|| format!("found {text:?}, expected whole or partly"))
    }
}

impl Call<'_> {
    /// The first parameter of the path: the id of a user or group.
    pub(super) fn id(&self) -> &str {
        self.params.first().map_or("", String::as_str)
    }
}

/// 200 with this `data`.
pub(super) fn ok(data: String) -> Success {
    (StatusCode::OK, data)
}

/// The user with an id.
pub(super) fn user<'a>(world: &'a World, id: &str) -> Result<&'a User, Problem> {
    match world.users.by_id.get(id) {
        Some(user) => Ok(user),
        None if (1..=255).contains(&id.chars().count()) => Err(Problem::missing("user", id)),
        None => Err(Problem::invalid(
            "userId",
            "userId must have 1 to 255 characters",
        )),
    }
}

/// The group with an id.
pub(super) fn group<'a>(world: &'a World, id: &str) -> Result<&'a Group, Problem> {
    world
        .groups
        .get(id)
        .map(|group| &**group)
        .ok_or_else(|| Problem::missing("user group", id))
}

/// A group as the answer.
pub(super) fn group_answer(status: StatusCode, id: &str, group: &Group) -> Success {
    (status, format!(r#"{{"userGroup":{}}}"#, group.json(id)))
}

/// How many elements of a list take effect, and the error that the rest is answered with.
pub(super) struct Part {
    /// The elements before this one.
    pub(super) effective: usize,
    /// Why not all of them.
    pub(super) error: Option<Problem>,
}

impl Part {
    /// What a write came to whose effective elements have been applied.
    pub(super) fn conclude(self, success: Success) -> (Changed, Outcome) {
        let changed = if self.effective > 0 {
            Changed::Something
        } else {
            Changed::Nothing
        };
        (changed, self.error.map_or(Ok(success), Err))
    }
}

/// Checks a list against the state before it, and that no element is repeated.
pub(super) fn check<T>(
    call: &Call<'_>,
    items: &[T],
    name: impl Fn(&T) -> String,
    valid: impl Fn(&T) -> Result<(), Problem>,
) -> Part {
    let mut seen = HashSet::new();
    for (place, item) in items.iter().enumerate() {
        let name = name(item);
        let repeated = || Problem::invalid("body", format!("{name:?} is repeated in the list"));
        let unique = if seen.insert(name.clone()) {
            Ok(())
        } else {
            Err(repeated())
        };
        if let Err(problem) = unique.and_then(|()| valid(item)) {
            let effective = if call.lists == ListMode::Whole {
                0
            } else {
                place
            };
            return Part {
                effective,
                error: Some(problem),
            };
        }
    }
    Part {
        effective: items.len(),
        error: None,
    }
}

/// The strings of a list in the body.
pub(super) fn strings(body: &Value, field: &str) -> Result<Vec<String>, Problem> {
    let wrong = || Problem::invalid(field, format!("{field} must be a list of strings"));
    let items = body[field].as_array().ok_or_else(wrong)?;
    items
        .iter()
        .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
        .collect()
}

/// The elements of a list in the query, at least one.
pub(super) fn named(call: &Call<'_>, field: &str) -> Result<Vec<String>, Problem> {
    let items = call.query.list(field);
    if items.is_empty() {
        return Err(Problem::invalid(field, format!("{field} is missing")));
    }
    Ok(items)
}

/// Whether a text may be an email address.
pub(super) fn email(text: &str) -> Result<(), Problem> {
    let plausible = text.len() <= 320
        && text
            .split_once('@')
            .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
    if plausible {
        Ok(())
    } else {
        Err(Problem::invalid(
            "email",
            format!("{text:?} is not an email address"),
        ))
    }
}

/// One permission of a request.
pub(super) fn grant(input: &Value) -> Result<Grant, Problem> {
    let wrong =
        |field: &str, message: &str| Problem::invalid(&format!("permissions.{field}"), message);
    let role = input["roleId"]
        .as_str()
        .ok_or_else(|| wrong("roleId", "roleId must be a string"))?;
    if !ROLES.iter().any(|(id, _)| *id == role) {
        return Err(Problem::missing("role", role));
    }
    let list = input["resources"]
        .as_array()
        .ok_or_else(|| wrong("resources", "resources must be a list"))?;
    let resource = |item: &Value| {
        let (id, kind) = (item["id"].as_str()?, item["type"].as_str()?);
        RESOURCE_TYPES
            .contains(&kind)
            .then(|| (id.to_owned(), kind.to_owned()))
    };
    let list = list.iter().take(MOST_RESOURCES + 1);
    let resources: Option<Vec<_>> = list.map(resource).collect();
    let resources = resources
        .ok_or_else(|| wrong("resources", "each resource needs an id and a known type"))?;
    if resources.len() > MOST_RESOURCES {
        return Err(wrong("resources", "a permission may name 100 resources"));
    }
    Ok(Grant {
        role: role.to_owned(),
        resources,
    })
}
