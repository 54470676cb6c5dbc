//! Pure. The writes of users, invites and groups: their checks, changes and responses.
//!
//! Each write first checks everything against the state before it, then changes the state, then
//! renders the response. An error from the checks of the whole request leaves the state as it was.
//! A wrong element of a list is different: with `ListMode::Partly` the elements before it still
//! take effect, and the response is the error nevertheless. A client must therefore never conclude
//! from a 4xx that nothing changed.
//!
//! A write reports whether it changed anything, because only then does the version of the state
//! grow. Tests judge the age of responses by that version, so a change that is not reported would
//! hide a stale response. Reporting one that changed nothing is harmless.
//!
//! Emails are compared in lower case. The bounds keep the sandbox small and are not the API's.

use std::sync::Arc;

use serde_json::Value;

use super::call::{
    Call, Concluded, ListCheck, check, email, group, named, permission, strings, user,
};
use super::request::{ApiError, json, quoted};
use super::world::{Group, MOST_GROUPS, MOST_THINGS, Permission, World};

/// The `data` of a response that has nothing else to say.
const SUCCESS: &str = r#"{"status":"SUCCESS"}"#;
/// The most permissions of one user or group. More are rejected, so that responses stay bounded.
const MOST_PERMISSIONS: usize = 500;

/// Carries out a write, or returns `None` if the operation is not one of these.
///
/// An error from a check becomes a response without a change.
pub(super) fn write(world: &mut World, call: &Call<'_>) -> Option<Concluded> {
    let result = match call.name {
        "addPermissionsToUser" | "replacePermissionsForUser" => user_permissions(world, call),
        "createInvites" => create_invites(world, call),
        "deleteInvites" => delete_invites(world, call),
        "deleteUsers" => delete_users(world, call),
        "createUserGroup" | "updateUserGroup" => name_group(world, call),
        "deleteUserGroup" => delete_group(world, call),
        "addPermissionsToUserGroup" | "replacePermissionsForUserGroup" => {
            group_permissions(world, call)
        }
        "addUsersToUserGroup" | "replaceUsersInUserGroup" => put_members(world, call),
        "removeUsersFromUserGroup" => remove_members(world, call),
        _ => return None,
    };
    Some(result.unwrap_or_else(|problem| (false, Err(problem))))
}

/// Returns emails in the form in which they are compared and stored.
fn lower_case(emails: Vec<String>) -> Vec<String> {
    emails.iter().map(|email| email.to_lowercase()).collect()
}

/// Returns a 404 for a thing that is not known.
fn exists(known: bool, what: &str, name: &str) -> Result<(), ApiError> {
    let missing = || ApiError::missing(what, name);
    known.then_some(()).ok_or_else(missing)
}

/// The conclusion of a write, or the error of a check that precedes every change.
type Written = Result<Concluded, ApiError>;

/// Returns the permissions of a request and the part of them that takes effect.
///
/// Each element is parsed twice, once to find the first wrong one and once for its value. Two equal
/// elements count as repeated.
fn permissions(call: &Call<'_>) -> Result<(Vec<Permission>, ListCheck), ApiError> {
    let body = json(call.body)?;
    let wrong = || ApiError::invalid("permissions", "permissions must be a list");
    let inputs = body["permissions"].as_array().ok_or_else(wrong)?;
    // An element is named by its JSON, as a permission has no id of its own.
    let part = check(call, inputs, Value::to_string, |input| {
        permission(input).map(drop)
    });
    let permissions = inputs
        .iter()
        .take(part.effective)
        .filter_map(|input| permission(input).ok())
        .collect();
    Ok((permissions, part))
}

/// Returns the permissions after a POST, which adds, or a PUT, which replaces.
///
/// A POST adds even what is there already. Repeating it therefore doubles permissions, which shows
/// tests that a write was sent twice.
fn combine(
    call: &Call<'_>,
    before: &[Permission],
    given: Vec<Permission>,
) -> Result<Vec<Permission>, ApiError> {
    let mut after = if call.name.starts_with("add") {
        before.to_vec()
    } else {
        Vec::new()
    };
    after.extend(given);
    if after.len() > MOST_PERMISSIONS {
        return Err(ApiError::invalid(
            "permissions",
            format!("more than {MOST_PERMISSIONS} permissions"),
        ));
    }
    Ok(after)
}

/// Returns the response with all permissions after a write to a user or group, and whether they
/// changed. A replacement by nothing takes effect, too.
fn conclude_permissions(
    call: &Call<'_>,
    part: ListCheck,
    kind: &str,
    permissions: &[Permission],
) -> Concluded {
    let id = quoted(call.id());
    let policy = |(number, permission): (usize, &Permission)| {
        let members = permission.members();
        format!(
            r#"{{{members},"policyId":"policy-{number}","subjectId":{id},"subjectType":"{kind}"}}"#
        )
    };
    let permissions: Vec<String> = permissions.iter().enumerate().map(policy).collect();
    let success = call.ok(format!(r#"{{"permissions":[{}]}}"#, permissions.join(",")));
    // Without an effective element, a list that is right is an empty one, and it may have replaced
    // something.
    let (changed, result) = part.conclude(success);
    (changed || result.is_ok(), result)
}

/// Adds permissions to a user, or replaces them.
fn user_permissions(world: &mut World, call: &Call<'_>) -> Written {
    let before = user(world, call.id())?.clone();
    let (given, part) = permissions(call)?;
    // A list that becomes too long is rejected as a whole, in either mode.
    let after = combine(call, &before.permissions, given)?;
    // Not skipped for an empty list: a replacement by nothing removes all permissions.
    if part.takes_effect() {
        world.put_user(call.id(), &before.email, after.clone());
    }
    Ok(conclude_permissions(call, part, "user", &after))
}

/// Adds permissions to a group, or replaces them.
fn group_permissions(world: &mut World, call: &Call<'_>) -> Written {
    let mut changed = group(world, call.id())?.clone();
    let (given, part) = permissions(call)?;
    changed.permissions = combine(call, &changed.permissions, given)?;
    let after = changed.permissions.clone();
    if part.takes_effect() {
        world.put_group(call.id(), changed);
    }
    Ok(conclude_permissions(call, part, "group", &after))
}

/// Invites people by email. An email may be invited once, and not at all if it is a user's. The
/// permissions of an invite are checked but not kept.
fn create_invites(world: &mut World, call: &Call<'_>) -> Written {
    let body = json(call.body)?;
    let wrong = || ApiError::invalid("invites", "invites must be a list of objects with an email");
    let inputs = body["invites"]
        .as_array()
        .filter(|list| !list.is_empty())
        .ok_or_else(wrong)?;
    // An element without an email has an empty address, which the check then rejects.
    let address = |input: &Value| input["email"].as_str().unwrap_or_default().to_lowercase();
    let part = check(call, inputs, address, |input| {
        let known = address(input);
        email(&known)?;
        if world.invites.contains_key(&known) || world.users.by_email.contains_key(&known) {
            return Err(ApiError::invalid(
                "email",
                format!("{known:?} is already invited or a user"),
            ));
        }
        match &input["permissions"] {
            Value::Null => Ok(()),
            Value::Array(list) => list.iter().try_for_each(|item| permission(item).map(drop)),
            _ => Err(ApiError::invalid(
                "permissions",
                "permissions must be a list",
            )),
        }
    });
    // Checked before the first change, so that a full sandbox applies nothing.
    if world.invites.len() + part.effective > MOST_THINGS {
        return Err(ApiError::invalid(
            "invites",
            "the sandbox holds no more invites",
        ));
    }
    let emails: Vec<&str> = inputs
        .iter()
        .filter_map(|input| input["email"].as_str())
        .collect();
    // The key is what later requests are compared with. The value is shown in lists, as the caller
    // wrote it.
    let invites = Arc::make_mut(&mut world.invites);
    // Every effective element has an email, so the first ones of both lists belong together.
    for email in &emails[..part.effective.min(emails.len())] {
        invites.insert(email.to_lowercase(), (*email).to_owned());
    }
    let emails: Vec<String> = emails.into_iter().map(quoted).collect();
    let success = call.ok(format!(r#"{{"emails":[{}]}}"#, emails.join(",")));
    Ok(part.conclude(success))
}

/// Withdraws invites, and with them the memberships of the invited people.
fn delete_invites(world: &mut World, call: &Call<'_>) -> Written {
    let emails = lower_case(named(call, "emails")?);
    let part = check(call, &emails, String::clone, |email| {
        let known = world.invites.contains_key(email);
        exists(known, "invite", email)
    });
    // An effective element exists, as `check` has just found, so nothing below can fail.
    for email in emails.iter().take(part.effective) {
        world.remove_invite(email);
    }
    Ok(part.conclude(call.ok(SUCCESS.to_owned())))
}

/// Removes users from the workspace and from all groups.
fn delete_users(world: &mut World, call: &Call<'_>) -> Written {
    let ids = named(call, "userIds")?;
    let part = check(call, &ids, String::clone, |id| user(world, id).map(drop));
    for id in ids.iter().take(part.effective) {
        world.remove_user(id);
    }
    Ok(part.conclude(call.ok(SUCCESS.to_owned())))
}

/// Creates a group, or renames one. The two differ by the parameter in the path.
///
/// Names need not be unique, so a repeated creation makes a second group with another id. Like
/// repeated permissions, this reveals a write that was sent twice.
fn name_group(world: &mut World, call: &Call<'_>) -> Written {
    let existing = match call.params.first() {
        Some(id) => Some((id.clone(), group(world, id)?.clone())),
        None => None,
    };
    let body = json(call.body)?;
    let name = body["name"]
        .as_str()
        .filter(|name| (1..=255).contains(&name.chars().count()));
    let name = name
        .ok_or_else(|| ApiError::invalid("name", "name must be a string of 1 to 255 characters"))?;
    // Nothing has changed so far. An id is taken only once the request is known to be right.
    let (id, mut group) = match existing {
        Some(existing) => existing,
        None if world.groups.len() >= MOST_GROUPS => {
            return Err(ApiError::invalid(
                "name",
                "the sandbox holds no more groups",
            ));
        }
        None => (world.new_id("group"), Group::default()),
    };
    // Renaming keeps members, invites and permissions.
    name.clone_into(&mut group.name);
    // Rendered first, because the world takes the group over.
    let answer = call.ok_group(&id, &group);
    world.put_group(&id, group);
    Ok((true, Ok(answer)))
}

/// Deletes a group. Its members stay users, and its invites stay invites.
fn delete_group(world: &mut World, call: &Call<'_>) -> Written {
    group(world, call.id())?;
    Arc::make_mut(&mut world.groups).remove(call.id());
    Ok((true, Ok(call.ok(SUCCESS.to_owned()))))
}

/// Adds people to a group (POST) or replaces its people (PUT). Each must be a user or invited.
///
/// A person who is in the group already is no error, so adding is idempotent here, unlike adding
/// permissions.
fn put_members(world: &mut World, call: &Call<'_>) -> Written {
    let mut changed = group(world, call.id())?.clone();
    let body = json(call.body)?;
    let emails = lower_case(strings(&body, "emails")?);
    let part = check(call, &emails, String::clone, |email| {
        let known = world.users.by_email.contains_key(email) || world.invites.contains_key(email);
        exists(known, "user or invite", email)
    });
    // All changes are made to a copy of the group. An error below discards the copy.
    if call.name.starts_with("replace") && part.takes_effect() {
        changed.members.clear();
        changed.invites.clear();
    }
    for email in emails.iter().take(part.effective) {
        world.join(&mut changed, email);
    }
    // Checked after the change, because people who are in the group already do not add to its size.
    if changed.members.len() + changed.invites.len() > MOST_GROUPS {
        return Err(ApiError::invalid(
            "emails",
            "the sandbox holds no larger groups",
        ));
    }
    let answer = call.ok_group(call.id(), &changed);
    world.put_group(call.id(), changed);
    // As with permissions, a replacement by nobody takes effect without an effective element.
    let (changed, result) = part.conclude(answer);
    Ok((changed || result.is_ok(), result))
}

/// Removes people from a group. A person who is not in it is an error, so that a repeated removal
/// shows.
fn remove_members(world: &mut World, call: &Call<'_>) -> Written {
    let mut changed = group(world, call.id())?.clone();
    let emails = lower_case(named(call, "emails")?);
    let part = check(call, &emails, String::clone, |email| {
        // Invited people count as members, as in the group's `memberCount`.
        let within = changed.members.contains(email) || changed.invites.contains(email);
        exists(within, "member", email)
    });
    for email in emails.iter().take(part.effective) {
        changed.members.remove(email);
        changed.invites.remove(email);
    }
    world.put_group(call.id(), changed);
    Ok(part.conclude(call.ok(SUCCESS.to_owned())))
}
