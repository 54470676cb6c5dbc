//! The status of each operation's success. The operations are those of the gateway's route table,
//! which the sandbox does not read.

use http::StatusCode;

use super::*;
use crate::sandbox::operations::{OPERATIONS, find};

/// The operations that the vendor's SDKs describe with 201. All others have 200.
const CREATED: [&str; 8] = [
    "addConnectionFromSourceToWarehouse",
    "createCredential",
    "createInvites",
    "createLabel",
    "createProfilesWarehouse",
    "createReverseEtlModel",
    "createSource",
    "createWarehouse",
];

const INVITED: &str = "new@x.y";

/// Returns the query and the body with which an operation succeeds.
fn input(name: &str, method: &str) -> (&'static str, String) {
    let people = json!({ "emails": ["user-00001@example.com"] }).to_string();
    match name {
        "createInvites" => ("", invites(&["other@x.y"])),
        "deleteInvites" => ("?emails.0=new%40x.y", String::new()),
        "deleteUsers" => ("?userIds.0=user-00001", String::new()),
        "addUsersToUserGroup" | "replaceUsersInUserGroup" => ("", people),
        "removeUsersFromUserGroup" => ("?emails.0=new%40x.y", String::new()),
        _ if name.contains("Permissions") => ("", GRANT.to_owned()),
        _ if matches!(method, "GET" | "DELETE") => ("", String::new()),
        _ => ("", r#"{"name":"N"}"#.to_owned()),
    }
}

/// Returns a path of the template under which everything exists that the operation needs.
async fn existing(sandbox: &Arc<Sandbox>, template: &str) -> String {
    let path = template
        .replace("{userId}", "user-00001")
        .replace("/groups/{userGroupId}/", "/groups/group-00001/")
        .replace("/group/{userGroupId}/", "/group/group-00001/");
    let mut path: Vec<&str> = path.split('/').collect();
    for part in &mut path {
        if part.starts_with('{') && !template.ends_with(*part) {
            *part = "x";
        }
    }
    let path = path.join("/");
    let Some((parent, _)) = path.rsplit_once("/{") else {
        return path;
    };
    // What another operation creates must be created first; anything else exists.
    if find("POST", parent).is_none() {
        return format!("{parent}/x");
    }
    let created = call(sandbox, "POST", parent, r#"{"name":"N"}"#).await;
    let created = &created.json()["data"];
    let thing = created.as_object().and_then(|data| data.values().next());
    let id = thing.and_then(|thing| thing["id"].as_str());
    format!("{parent}/{}", id.unwrap_or_else(|| panic!("{created}")))
}

#[tokio::test(start_paused = true)]
async fn every_operation_of_the_route_table_succeeds_with_the_status_of_the_api() {
    let table: toml::Table = include_str!("../../../config/segment.toml")
        .parse()
        .unwrap();
    let operations = table["operations"].as_table().unwrap();
    assert_eq!(operations.len(), OPERATIONS.len());
    for name in CREATED {
        assert!(operations.contains_key(name), "{name}");
    }
    for (name, facts) in operations {
        let text = |key: &str| facts[key].as_str().unwrap();
        let (method, template) = (text("method"), text("path"));
        let sandbox = sandbox(SandboxSpec {
            users: 2,
            groups: 1,
            ..SandboxSpec::default()
        });
        // An invited member of the group.
        call(&sandbox, "POST", "/invites", &invites(&[INVITED])).await;
        let people = json!({ "emails": [INVITED] }).to_string();
        call(&sandbox, "POST", "/groups/group-00001/users", &people).await;
        let path = existing(&sandbox, template).await;
        let (query, body) = input(name, method);
        let reply = call(&sandbox, method, &format!("{path}{query}"), &body).await;
        let expected = match CREATED.contains(&name.as_str()) {
            true => StatusCode::CREATED,
            false => StatusCode::OK,
        };
        assert_eq!(reply.status, expected, "{name}: {:?}", reply.body);
        let arrival = sandbox.arrivals().pop().unwrap();
        assert_eq!(arrival.operation, name, "{method} {path}");
    }
}
