//! Pure. All other operations: a store of JSON objects by path, which returns the right envelopes.
//!
//! An object that a POST creates can be read, listed, changed and deleted below its path. A
//! resource that no operation creates (catalogues, usage, settings) always exists, with the
//! requested id.
//!
//! The store does not check bodies, references or uniqueness. A POST always creates, even to a path
//! such as `…/preview`, and a repeated POST creates a second object with an id of its own. So tests
//! can tell whether a write was carried out once or twice.
//!
//! The envelope is derived from the path: its last literal segment, in camel case, is the plural
//! name. Where the API's own name differs, the sandbox returns another member than the API does.

use std::fmt::Write as _;
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value};

use super::call::{ApiResult, Call, Concluded};
use super::operations::ApiOperation;
use super::request::{ApiError, Page, json};
use super::world::World;

/// The most objects stored.
const MOST_STORED: usize = 2_000;
/// The largest stored object, in bytes.
const MOST_BYTES: usize = 16 * 1024;

/// Responds to any read.
///
/// The order matters: the first two operations have responses of their own, lists have pages, and
/// all others return one object.
pub(super) fn read(
    world: &World,
    operation: &ApiOperation,
    path: &str,
    call: &Call<'_>,
) -> ApiResult {
    if operation.name == "getWorkspace" {
        let workspace = r#"{"id":"workspace-1","name":"Sandbox","slug":"sandbox"}"#;
        return Ok(call.ok(format!(r#"{{"workspace":{workspace}}}"#)));
    }
    if operation.name == "echo" {
        return echo(call);
    }
    if operation.paged || operation.name.starts_with("list") {
        let page = Page::read(call.query, call.body)?;
        let items: Vec<&str> = children(world, path).collect();
        let data = page.render(&camel(operation.noun()), items.len(), items.iter());
        return Ok(call.ok(data));
    }
    let name = member(operation);
    let thing = existing(world, operation, path)?;
    Ok(call.ok(format!(r#"{{"{name}":{thing}}}"#)))
}

/// Carries out any write. The method decides what is done. A result without an error counts as a
/// change, even if the object is as before.
pub(super) fn write(
    world: &mut World,
    operation: &ApiOperation,
    path: &str,
    call: &Call<'_>,
) -> Concluded {
    let result = match operation.method {
        "DELETE" => delete(world, operation, path, call),
        "POST" => create(world, operation, path, call),
        _ => change(world, operation, path, call),
    };
    (result.is_ok(), result)
}

/// Returns what the request asks for: a message, a status or an error. The delay that it may ask
/// for as well is up to `serve.rs`.
fn echo(call: &Call<'_>) -> ApiResult {
    let asked = |name| call.query.get(name).is_some_and(|value| value == "true");
    let message = call.query.get("message").unwrap_or_default();
    let problem = |status, kind| ApiError::new(status, kind, message);
    if asked("triggerUnexpectedError") {
        return Err(problem(500, "UnexpectedError"));
    }
    if asked("triggerError") || asked("triggerMultipleErrors") {
        return Err(problem(422, "EchoError"));
    }
    let status = match call.query.get("statusCode") {
        None => call.success,
        Some(text) => text
            .parse()
            .ok()
            .filter(|status: &StatusCode| (200..=599).contains(&status.as_u16()))
            .ok_or_else(|| {
                ApiError::invalid("statusCode", "statusCode must be a number from 200 to 599")
            })?,
    };
    // A status that is no success needs the envelope of errors.
    if !status.is_success() {
        return Err(problem(status.as_u16(), "EchoError"));
    }
    Ok((status, format!(r#"{{"message":{}}}"#, Value::from(message))))
}

/// Returns the objects directly below a path.
///
/// The keys are sorted, so everything below the path is one range. Deeper descendants are skipped.
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

/// Returns the id in a path that names one object.
fn last_segment(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Returns the object at a path, or an invented one if no operation creates it.
///
/// An object that some operation creates must have been created, otherwise it is missing. A path
/// that names no object of a collection, such as one for settings, begins as an empty object.
fn existing(world: &World, operation: &ApiOperation, path: &str) -> Result<Arc<str>, ApiError> {
    match world.things.get(path) {
        Some(thing) => Ok(Arc::clone(thing)),
        None if operation.names_one() && operation.is_creatable() => {
            Err(ApiError::missing("resource", last_segment(path)))
        }
        None if operation.names_one() => {
            Ok(format!(r#"{{"id":{}}}"#, Value::from(last_segment(path))).into())
        }
        None => Ok("{}".into()),
    }
}

/// Deletes one object; those below it stay. An invented object can be deleted as often as one
/// likes.
fn delete(world: &mut World, operation: &ApiOperation, path: &str, call: &Call<'_>) -> ApiResult {
    existing(world, operation, path)?;
    if world.things.contains_key(path) {
        Arc::make_mut(&mut world.things).remove(path);
    }
    Ok(call.ok(r#"{"status":"SUCCESS"}"#.to_owned()))
}

/// Creates an object below a path, under an id that was not given before. An `id` in the body is
/// ignored.
fn create(world: &mut World, operation: &ApiOperation, path: &str, call: &Call<'_>) -> ApiResult {
    let mut members = object(call)?;
    let noun = camel(operation.noun());
    let name = singular(&noun);
    let id = world.new_id(name);
    members.insert("id".to_owned(), Value::from(id.as_str()));
    let thing = store(world, &format!("{path}/{id}"), members)?;
    Ok(call.ok(format!(r#"{{"{name}":{thing}}}"#)))
}

/// Replaces an object (PUT) or merges into it member by member (PATCH). The id stays.
fn change(world: &mut World, operation: &ApiOperation, path: &str, call: &Call<'_>) -> ApiResult {
    let before = existing(world, operation, path)?;
    let before: Map<String, Value> = serde_json::from_str(&before).unwrap_or_default();
    // A body cannot rename an object: its path would no longer agree with its id.
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
    let (name, thing) = (member(operation), store(world, path, members)?);
    Ok(call.ok(format!(r#"{{"{name}":{thing}}}"#)))
}

/// Returns the members of the body; none if there is no body.
fn object(call: &Call<'_>) -> Result<Map<String, Value>, ApiError> {
    if call.body.is_empty() {
        return Ok(Map::new());
    }
    match json(call.body)? {
        Value::Object(members) => Ok(members),
        _ => Ok(Map::new()),
    }
}

/// Stores an object and returns its JSON. Both bounds are errors of the request, so that a long
/// test fails visibly instead of growing.
fn store(world: &mut World, path: &str, members: Map<String, Value>) -> Result<Arc<str>, ApiError> {
    let thing: Arc<str> = Value::Object(members).to_string().into();
    // Replacing an object is possible even in a full store.
    let is_full = world.things.len() >= MOST_STORED && !world.things.contains_key(path);
    if is_full || thing.len() > MOST_BYTES {
        return Err(ApiError::invalid(
            "body",
            "the sandbox holds no more or no larger resources",
        ));
    }
    Arc::make_mut(&mut world.things).insert(path.to_owned(), Arc::clone(&thing));
    Ok(thing)
}

/// Converts `reverse-etl-models` to `reverseEtlModels`.
///
/// Nouns of one word stay as they are.
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

/// Returns the member of `data` that holds what the operation names.
///
/// An operation on one object gets the singular, one on a collection the plural.
fn member(operation: &ApiOperation) -> String {
    let noun = camel(operation.noun());
    match operation.names_one() {
        true => singular(&noun).to_owned(),
        false => noun,
    }
}

/// Returns a noun without its last `s`. Enough for the nouns of the API's paths.
fn singular(noun: &str) -> &str {
    noun.strip_suffix('s').unwrap_or(noun)
}
