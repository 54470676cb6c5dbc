//! Pure. The common parts of the operations: the call, the check of lists, and the look-up of ids.
//!
//! A list is applied element by element. If one element is wrong, either nothing is applied or the
//! elements before it are ([`ListMode`]). The API promises neither, so clients must cope with both.
//!
//! The checks here read the state and never change it. Their errors say what the API says: 404 for
//! a thing that does not exist, 422 for a part of the request that has the wrong form.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use http::StatusCode;
use serde_json::Value;

use super::operations::PathValues;
use super::request::{ApiError, Query};
use super::world::{Group, Permission, ROLES, User, World};

/// The most resources that one permission may name.
const MOST_RESOURCES: usize = 100;
/// The types of resources that a permission may name.
const RESOURCE_TYPES: [&str; 5] = ["FUNCTION", "SOURCE", "SPACE", "WAREHOUSE", "WORKSPACE"];
/// The treatment of a list with a wrong element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListMode {
    /// The whole list is rejected.
    #[default]
    Whole,
    /// The elements before the wrong one take effect, then the error is returned.
    Partly,
}

/// The input of an operation.
pub(super) struct Call<'a> {
    /// The name of the operation.
    pub(super) name: &'static str,
    /// The status of the operation's success.
    pub(super) success: StatusCode,
    /// The values of the path's parameters.
    pub(super) params: &'a PathValues,
    /// The decoded query.
    pub(super) query: &'a Query,
    /// The body as received.
    pub(super) body: &'a [u8],
    /// The treatment of a list with a wrong element.
    pub(super) lists: ListMode,
}

/// A successful response: its status and the JSON of `data`.
pub(super) type Success = (StatusCode, String);
/// The response of an operation.
pub(super) type ApiResult = Result<Success, ApiError>;
/// Whether a write changed the state, at least in part, and its response. Both may be the case at
/// once: part of a list took effect, and the response is an error.
pub(super) type Concluded = (bool, ApiResult);

impl ListMode {
    /// Returns the word for the command line: `whole` or `partly`.
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
    /// Returns the first parameter of the path: the id of a user or group.
    pub(super) fn id(&self) -> &str {
        self.params.first().map_or("", String::as_str)
    }

    /// Returns the operation's success with this `data`.
    pub(super) fn ok(&self, data: String) -> Success {
        (self.success, data)
    }

    /// Returns the operation's success with a group.
    pub(super) fn ok_group(&self, id: &str, group: &Group) -> Success {
        self.ok(format!(r#"{{"userGroup":{}}}"#, group.json(id)))
    }
}

/// Returns the user with an id.
///
/// An id of a possible length that is unknown is missing. Any other id is wrong by itself.
pub(super) fn user<'a>(world: &'a World, id: &str) -> Result<&'a User, ApiError> {
    match world.users.by_id.get(id) {
        Some(user) => Ok(user),
        None if (1..=255).contains(&id.chars().count()) => Err(ApiError::missing("user", id)),
        None => Err(ApiError::invalid(
            "userId",
            "userId must have 1 to 255 characters",
        )),
    }
}

/// Returns the group with an id.
pub(super) fn group<'a>(world: &'a World, id: &str) -> Result<&'a Group, ApiError> {
    world
        .groups
        .get(id)
        .map(|group| &**group)
        .ok_or_else(|| ApiError::missing("user group", id))
}

/// The number of elements that take effect, and the error for the rest.
pub(super) struct ListCheck {
    /// The number of elements before the wrong one.
    pub(super) effective: usize,
    /// The error, if not all elements take effect.
    pub(super) error: Option<ApiError>,
}

impl ListCheck {
    /// Returns whether anything is to be applied: some elements, or a list that is right and empty.
    pub(super) fn takes_effect(&self) -> bool {
        self.error.is_none() || self.effective > 0
    }

    /// Returns the result of a write after its effective elements were applied.
    ///
    /// The caller must have applied exactly `effective` elements.
    pub(super) fn conclude(self, success: Success) -> Concluded {
        (self.effective > 0, self.error.map_or(Ok(success), Err))
    }
}

/// Checks a list against the state before it, and for repeated elements.
///
/// `name` identifies an element, `valid` checks it. No element sees the effect of an earlier one,
/// so repeats must be found here: two equal elements would each be valid. The check ends at the
/// first wrong element.
pub(super) fn check<T>(
    call: &Call<'_>,
    items: &[T],
    name: impl Fn(&T) -> String,
    valid: impl Fn(&T) -> Result<(), ApiError>,
) -> ListCheck {
    let mut seen = HashSet::new();
    for (place, item) in items.iter().enumerate() {
        let name = name(item);
        // The repeat is the wrong element, not the first occurrence.
        let checked = if seen.insert(name.clone()) {
            valid(item)
        } else {
            let message = format!("{name:?} is repeated in the list");
            Err(ApiError::invalid("body", message))
        };
        if let Err(error) = checked {
            return ListCheck {
                effective: match call.lists {
                    ListMode::Whole => 0,
                    ListMode::Partly => place,
                },
                error: Some(error),
            };
        }
    }
    ListCheck {
        effective: items.len(),
        error: None,
    }
}

/// Returns the strings of a list in the body.
pub(super) fn strings(body: &Value, field: &str) -> Result<Vec<String>, ApiError> {
    let wrong = || ApiError::invalid(field, format!("{field} must be a list of strings"));
    let items = body[field].as_array().ok_or_else(wrong)?;
    items
        .iter()
        .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
        .collect()
}

/// Returns the elements of a list in the query. There must be at least one.
pub(super) fn named(call: &Call<'_>, field: &str) -> Result<Vec<String>, ApiError> {
    let items = call.query.list(field);
    if items.is_empty() {
        return Err(ApiError::invalid(field, format!("{field} is missing")));
    }
    Ok(items)
}

/// Checks that a text may be an email address.
///
/// An address has at most 320 bytes: 64, an at sign, and 255 (RFC 5321, section 4.5.3.1).
pub(super) fn email(text: &str) -> Result<(), ApiError> {
    let plausible = text.len() <= 320
        && text
            .split_once('@')
            .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
    if plausible {
        Ok(())
    } else {
        Err(ApiError::invalid(
            "email",
            format!("{text:?} is not an email address"),
        ))
    }
}

/// Parses one permission of a request.
///
/// The role must exist. The resources need not: the sandbox knows none.
pub(super) fn permission(input: &Value) -> Result<Permission, ApiError> {
    let wrong =
        |field: &str, message: &str| ApiError::invalid(&format!("permissions.{field}"), message);
    let role = input["roleId"]
        .as_str()
        .ok_or_else(|| wrong("roleId", "roleId must be a string"))?;
    if !ROLES.iter().any(|(id, _)| *id == role) {
        return Err(ApiError::missing("role", role));
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
    // One more than the bound shows that it is exceeded, without reading a longer list.
    let list = list.iter().take(MOST_RESOURCES + 1);
    let resources: Option<Vec<_>> = list.map(resource).collect();
    let resources = resources
        .ok_or_else(|| wrong("resources", "each resource needs an id and a known type"))?;
    if resources.len() > MOST_RESOURCES {
        return Err(wrong("resources", "a permission may name 100 resources"));
    }
    Ok(Permission {
        role: role.to_owned(),
        resources,
    })
}
