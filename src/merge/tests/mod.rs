use super::*;
use crate::route::{Operation, Table};
use bytes::Bytes;
use http::{Request, Response};
use std::sync::{Arc, LazyLock};

mod batching;
mod driver;
mod model;
mod outcomes;
mod property;
mod requests;

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let loaded = crate::config::load(None, std::iter::empty()).unwrap();
    loaded.table(1).unwrap()
});

/// A request, and what it is made of.
#[derive(Clone, Debug)]
struct Member {
    request: Request<Bytes>,
    parts: Parts,
}

/// The operation of a request, merged whatever the table says.
fn operation(request: &Request<Bytes>) -> Operation {
    let found = TABLE.find(request.method(), request.uri().path()).operation;
    let mut operation = (*found).clone();
    if let Some(merge) = operation.merge.as_mut().map(Arc::make_mut) {
        merge.enabled = true;
    }
    operation
}

/// `METHOD target`, with a JSON body unless it is empty.
fn request(line: &str, body: &str) -> Request<Bytes> {
    let (method, target) = line.split_once(' ').unwrap();
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header("authorization", "Bearer T");
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    request.body(Bytes::from(body.to_owned())).unwrap()
}

fn parts(request: &Request<Bytes>) -> Option<Parts> {
    Parts::of(&operation(request), request)
}

fn member(line: &str, body: &str) -> Member {
    let request = request(line, body);
    let parts = parts(&request).unwrap();
    Member { request, parts }
}

/// `METHOD target body`.
fn shown(request: &Request<Bytes>) -> String {
    let body = std::str::from_utf8(request.body()).unwrap();
    let line = format!("{} {} {body}", request.method(), request.uri());
    line.trim_end().to_owned()
}

fn answer(status: u16, body: &str) -> Response<Bytes> {
    let answer = Response::builder()
        .status(status)
        .header("content-type", "application/json");
    answer.body(Bytes::from(body.to_owned())).unwrap()
}
