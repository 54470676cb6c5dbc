//! Pure. The reads of users, invites, groups and roles.

use std::sync::Arc;

use super::call::{ApiResult, Call, group, user};
use super::request::{Page, quoted};
use super::world::{Group, ROLES, World};

/// Carries out a read, or returns `None` if the operation is not one of these.
pub(super) fn read(world: &World, call: &Call<'_>) -> Option<ApiResult> {
    let id = call.id();
    let outcome = match call.name {
        "listUsers" => {
            let users = &world.users.by_id;
            page(
                call,
                "users",
                users.len(),
                users.values().map(|user| user.json.as_str()),
            )
        }
        "getUser" => user(world, id).map(|user| call.ok(format!(r#"{{"user":{}}}"#, user.json))),
        "listUserGroupsFromUser" => user(world, id).and_then(|user| {
            let groups = world
                .groups
                .iter()
                .filter(|(_, group)| group.members.contains(&user.email));
            let short = |(id, group): (&String, &Arc<Group>)| {
                format!(r#"{{"id":{},"name":{}}}"#, quoted(id), quoted(&group.name))
            };
            let groups: Vec<String> = groups.map(short).collect();
            page(call, "groups", groups.len(), groups.iter())
        }),
        "listInvites" => {
            let invites = &world.invites;
            page(
                call,
                "invites",
                invites.len(),
                invites.values().map(|email| quoted(email)),
            )
        }
        "listUserGroups" => {
            let groups = world.groups.iter().map(|(id, group)| group.json(id));
            page(call, "userGroups", world.groups.len(), groups)
        }
        "getUserGroup" => group(world, id).map(|group| call.ok_group(id, group)),
        "listUsersFromUserGroup" => group(world, id).and_then(|group| {
            let ids = group
                .members
                .iter()
                .filter_map(|email| world.users.by_email.get(email));
            let users = ids
                .filter_map(|id| world.users.by_id.get(id))
                .map(|user| user.json.as_str());
            page(call, "users", group.members.len(), users)
        }),
        "listInvitesFromUserGroup" => group(world, id).and_then(|group| {
            page(
                call,
                "emails",
                group.invites.len(),
                group.invites.iter().map(|email| quoted(email)),
            )
        }),
        "listRoles" => {
            let role = |(id, name): &(&str, &str)| {
                format!(r#"{{"id":"{id}","name":"{name}","description":"What a {name} may do."}}"#)
            };
            page(call, "roles", ROLES.len(), ROLES.iter().map(role))
        }
        _ => return None,
    };
    Some(outcome)
}

fn page<T: AsRef<str>>(
    call: &Call<'_>,
    name: &str,
    total: usize,
    items: impl Iterator<Item = T>,
) -> ApiResult {
    let page = Page::read(call.query, call.body)?;
    Ok(call.ok(page.render(name, total, items)))
}
