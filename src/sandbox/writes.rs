//! Pure. The writes of users, invites and groups: their checks, changes and responses.

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;

use super::call::{
    Call, Concluded, ListCheck, check, email, group, group_answer, named, ok, permission, strings,
    user,
};
use super::request::{ApiError, json, quoted};
use super::world::{Group, MOST_GROUPS, MOST_THINGS, Permission, World};

const SUCCESS: &str = r#"{"status":"SUCCESS"}"#;
/// The most permissions of one user or group. More are rejected, so that responses stay bounded.
const MOST_PERMISSIONS: usize = 500;

/// Carries out a write, or returns `None` if the operation is not one of these.
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

/// Returns emails as they are compared.
fn lower_case(emails: Vec<String>) -> Vec<String> {
    emails.iter().map(|email| email.to_lowercase()).collect()
}

fn exists(known: bool, what: &str, name: &str) -> Result<(), ApiError> {
    let missing = || ApiError::missing(what, name);
    known.then_some(()).ok_or_else(missing)
}

type Written = Result<Concluded, ApiError>;

/// Returns the permissions of a request and the part of them that takes effect.
fn permissions(call: &Call<'_>) -> Result<(Vec<Permission>, ListCheck), ApiError> {
    let body = json(call.body)?;
    let wrong = || ApiError::invalid("permissions", "permissions must be a list");
    let inputs = body["permissions"].as_array().ok_or_else(wrong)?;
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

/// Returns whether the permissions of a write take effect. A replacement by nothing does, too.
fn conclude_permissions(
    part: ListCheck,
    subject: (&str, &str),
    permissions: &[Permission],
) -> Concluded {
    let (id, kind) = (quoted(subject.0), subject.1);
    let policy = |(number, permission): (usize, &Permission)| {
        let members = permission.members();
        format!(
            r#"{{{members},"policyId":"policy-{number}","subjectId":{id},"subjectType":"{kind}"}}"#
        )
    };
    let permissions: Vec<String> = permissions.iter().enumerate().map(policy).collect();
    let success = ok(format!(r#"{{"permissions":[{}]}}"#, permissions.join(",")));
    let (changed, result) = part.conclude(success);
    (changed || result.is_ok(), result)
}

fn user_permissions(world: &mut World, call: &Call<'_>) -> Written {
    let before = user(world, call.id())?.clone();
    let (given, part) = permissions(call)?;
    let after = combine(call, &before.permissions, given)?;
    if part.takes_effect() {
        world.put_user(call.id(), &before.email, after.clone());
    }
    Ok(conclude_permissions(part, (call.id(), "user"), &after))
}

fn group_permissions(world: &mut World, call: &Call<'_>) -> Written {
    let mut changed = group(world, call.id())?.clone();
    let (given, part) = permissions(call)?;
    changed.permissions = combine(call, &changed.permissions, given)?;
    let after = changed.permissions.clone();
    if part.takes_effect() {
        world.put_group(call.id(), changed);
    }
    Ok(conclude_permissions(part, (call.id(), "group"), &after))
}

fn create_invites(world: &mut World, call: &Call<'_>) -> Written {
    let body = json(call.body)?;
    let wrong = || ApiError::invalid("invites", "invites must be a list of objects with an email");
    let inputs = body["invites"]
        .as_array()
        .filter(|list| !list.is_empty())
        .ok_or_else(wrong)?;
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
    let invites = Arc::make_mut(&mut world.invites);
    for email in &emails[..part.effective.min(emails.len())] {
        invites.insert(email.to_lowercase(), (*email).to_owned());
    }
    let emails: Vec<String> = emails.into_iter().map(quoted).collect();
    Ok(part.conclude((
        StatusCode::CREATED,
        format!(r#"{{"emails":[{}]}}"#, emails.join(",")),
    )))
}

fn delete_invites(world: &mut World, call: &Call<'_>) -> Written {
    let emails = lower_case(named(call, "emails")?);
    let part = check(call, &emails, String::clone, |email| {
        let known = world.invites.contains_key(email);
        exists(known, "invite", email)
    });
    for email in emails.iter().take(part.effective) {
        world.remove_invite(email);
    }
    Ok(part.conclude(ok(SUCCESS.to_owned())))
}

fn delete_users(world: &mut World, call: &Call<'_>) -> Written {
    let ids = named(call, "userIds")?;
    let part = check(call, &ids, String::clone, |id| user(world, id).map(drop));
    for id in ids.iter().take(part.effective) {
        world.remove_user(id);
    }
    Ok(part.conclude(ok(SUCCESS.to_owned())))
}

/// Creates a group, or renames one.
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
    let (status, id, mut group) = match existing {
        Some((id, group)) => (StatusCode::OK, id, group),
        None if world.groups.len() >= MOST_GROUPS => {
            return Err(ApiError::invalid(
                "name",
                "the sandbox holds no more groups",
            ));
        }
        None => (StatusCode::CREATED, world.new_id("group"), Group::default()),
    };
    name.clone_into(&mut group.name);
    let answer = group_answer(status, &id, &group);
    world.put_group(&id, group);
    Ok((true, Ok(answer)))
}

fn delete_group(world: &mut World, call: &Call<'_>) -> Written {
    group(world, call.id())?;
    Arc::make_mut(&mut world.groups).remove(call.id());
    Ok((true, Ok(ok(SUCCESS.to_owned()))))
}

/// Adds people to a group (POST) or replaces its people (PUT).
fn put_members(world: &mut World, call: &Call<'_>) -> Written {
    let mut changed = group(world, call.id())?.clone();
    let body = json(call.body)?;
    let emails = lower_case(strings(&body, "emails")?);
    let part = check(call, &emails, String::clone, |email| {
        let known = world.users.by_email.contains_key(email) || world.invites.contains_key(email);
        exists(known, "user or invite", email)
    });
    if call.name.starts_with("replace") && part.takes_effect() {
        changed.members.clear();
        changed.invites.clear();
    }
    for email in emails.iter().take(part.effective) {
        world.join(&mut changed, email);
    }
    if changed.members.len() + changed.invites.len() > MOST_GROUPS {
        return Err(ApiError::invalid(
            "emails",
            "the sandbox holds no larger groups",
        ));
    }
    let answer = group_answer(StatusCode::OK, call.id(), &changed);
    world.put_group(call.id(), changed);
    let (changed, result) = part.conclude(answer);
    Ok((changed || result.is_ok(), result))
}

fn remove_members(world: &mut World, call: &Call<'_>) -> Written {
    let mut changed = group(world, call.id())?.clone();
    let emails = lower_case(named(call, "emails")?);
    let part = check(call, &emails, String::clone, |email| {
        let within = changed.members.contains(email) || changed.invites.contains(email);
        exists(within, "member", email)
    });
    for email in emails.iter().take(part.effective) {
        changed.members.remove(email);
        changed.invites.remove(email);
    }
    world.put_group(call.id(), changed);
    Ok(part.conclude(ok(SUCCESS.to_owned())))
}
