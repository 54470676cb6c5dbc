//! Pure. All other operations: a store of JSON objects by path, which returns the right envelopes.
//!
//! An object that a POST creates can be read, listed, changed and deleted below its path. A
//! resource that no operation creates (catalogues, usage, settings) always exists, with the
//! requested id.

use std::fmt::Write as _;
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value};

use super::call::{Call, Outcome};
use super::operations::Operation;
use super::request::{Page, Problem, json};
use super::world::{Changed, World};

/// The most objects stored.
const MOST_STORED: usize = 2_000;
/// The largest stored object, in bytes.
const MOST_BYTES: usize = 16 * 1024;

/// Responds to any read.
pub(super) fn read(world: &World, operation: &Operation, path: &str, call: &Call<'_>) -> Outcome {
    if operation.name == "getWorkspace" {
        let workspace = r#"{"id":"workspace-1","name":"Sandbox","slug":"sandbox"}"#;
        return Ok((StatusCode::OK, format!(r#"{{"workspace":{workspace}}}"#)));
    }
    if operation.name == "echo" {
        return echo(call);
    }
    let noun = camel(operation.noun());
    if operation.paged || operation.name.starts_with("list") {
        let page = Page::read(call.query, call.body)?;
        let items: Vec<&str> = children(world, path).collect();
        return Ok((
            StatusCode::OK,
            page.render(&noun, items.len(), items.iter()),
        ));
    }
    let name = if operation.names_one() {
        singular(&noun)
    } else {
        &noun
    };
    let thing = existing(world, operation, path)?;
    Ok((StatusCode::OK, format!(r#"{{"{name}":{thing}}}"#)))
}

/// Carries out any write.
pub(super) fn write(
    world: &mut World,
    operation: &Operation,
    path: &str,
    call: &Call<'_>,
) -> (Changed, Outcome) {
    let result = match operation.method {
        "DELETE" => delete(world, operation, path),
        "POST" => create(world, operation, path, call),
        _ => change(world, operation, path, call),
    };
    match result {
        Ok(success) => (Changed::Something, Ok(success)),
        Err(problem) => (Changed::Nothing, Err(problem)),
    }
}

/// Returns what the request asks for: a message, a status or an error.
fn echo(call: &Call<'_>) -> Outcome {
    let asked = |name| call.query.get(name).is_some_and(|value| value == "true");
    let message = call.query.get("message").unwrap_or_default();
    let problem = |status: u16, kind| Problem {
        status,
        kind,
        message: message.to_owned(),
        field: None,
    };
    if asked("triggerUnexpectedError") {
        return Err(problem(500, "UnexpectedError"));
    }
    if asked("triggerError") || asked("triggerMultipleErrors") {
        return Err(problem(422, "EchoError"));
    }
    let status = match call.query.get("statusCode") {
        None => 200,
        Some(text) => text
            .parse()
            .ok()
            .filter(|status| (200..=599).contains(status))
            .ok_or_else(|| {
                Problem::invalid("statusCode", "statusCode must be a number from 200 to 599")
            })?,
    };
    if status >= 300 {
        return Err(problem(status, "EchoError"));
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    Ok((status, format!(r#"{{"message":{}}}"#, Value::from(message))))
}

/// Returns the objects directly below a path.
fn children<'a>(world: &'a World, path: &str) -> impl Iterator<Item = &'a str> {
    let below = format!("{path}/");
    let length = below.len();
    world
        .things
        .range(below.clone()..)
        .take_while(move |(key, _)| key.starts_with(&below))
        .filter(move |(key, _)| !key[length..].contains('/'))
        .map(|(_, thing)| &**thing)
}

fn last_segment(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Returns the object at a path, or an invented one if no operation creates it.
fn existing(world: &World, operation: &Operation, path: &str) -> Result<Arc<str>, Problem> {
    match world.things.get(path) {
        Some(thing) => Ok(Arc::clone(thing)),
        None if operation.names_one() && operation.is_creatable() => {
            Err(Problem::missing("resource", last_segment(path)))
        }
        None if operation.names_one() => {
            Ok(format!(r#"{{"id":{}}}"#, Value::from(last_segment(path))).into())
        }
        None => Ok("{}".into()),
    }
}

fn delete(
    world: &mut World,
    operation: &Operation,
    path: &str,
) -> Result<(StatusCode, String), Problem> {
    existing(world, operation, path)?;
    if world.things.contains_key(path) {
        Arc::make_mut(&mut world.things).remove(path);
    }
    Ok((StatusCode::OK, r#"{"status":"SUCCESS"}"#.to_owned()))
}

fn create(
    world: &mut World,
    operation: &Operation,
    path: &str,
    call: &Call<'_>,
) -> Result<(StatusCode, String), Problem> {
    let mut members = object(call)?;
    let noun = camel(operation.noun());
    let name = singular(&noun);
    let id = world.new_id(name);
    members.insert("id".to_owned(), Value::from(id.as_str()));
    let data = format!(
        r#"{{"{name}":{}}}"#,
        store(world, &format!("{path}/{id}"), members)?
    );
    let is_new = operation.name.starts_with("create");
    Ok((
        if is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        },
        data,
    ))
}

/// Replaces an object (PUT) or merges into it member by member (PATCH). The id stays.
fn change(
    world: &mut World,
    operation: &Operation,
    path: &str,
    call: &Call<'_>,
) -> Result<(StatusCode, String), Problem> {
    let before = existing(world, operation, path)?;
    let before: Map<String, Value> = serde_json::from_str(&before).unwrap_or_default();
    let id = before.get("id").cloned();
    let mut members = if operation.method == "PATCH" {
        before
    } else {
        Map::new()
    };
    members.extend(object(call)?);
    if let Some(id) = id {
        members.insert("id".to_owned(), id);
    }
    let noun = camel(operation.noun());
    let name = if operation.names_one() {
        singular(&noun)
    } else {
        &noun
    };
    Ok((
        StatusCode::OK,
        format!(r#"{{"{name}":{}}}"#, store(world, path, members)?),
    ))
}

fn object(call: &Call<'_>) -> Result<Map<String, Value>, Problem> {
    if call.body.is_empty() {
        return Ok(Map::new());
    }
    match json(call.body)? {
        Value::Object(members) => Ok(members),
        _ => Ok(Map::new()),
    }
}

fn store(world: &mut World, path: &str, members: Map<String, Value>) -> Result<Arc<str>, Problem> {
    let thing: Arc<str> = Value::Object(members).to_string().into();
    let is_full = world.things.len() >= MOST_STORED && !world.things.contains_key(path);
    if is_full || thing.len() > MOST_BYTES {
        return Err(Problem::invalid(
            "body",
            "the sandbox holds no more or no larger resources",
        ));
    }
    Arc::make_mut(&mut world.things).insert(path.to_owned(), Arc::clone(&thing));
    Ok(thing)
}

/// Converts `reverse-etl-models` to `reverseEtlModels`.
fn camel(noun: &str) -> String {
    let mut out = String::with_capacity(noun.len());
    for (place, word) in noun.split('-').enumerate() {
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if place > 0 => {
                _ = write!(out, "{}{}", first.to_ascii_uppercase(), letters.as_str())
            }
            _ => out.push_str(word),
        }
    }
    out
}

fn singular(noun: &str) -> &str {
    noun.strip_suffix('s').unwrap_or(noun)
}
