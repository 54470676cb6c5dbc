//! The metrics as Prometheus would read them.

use super::World;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::service::Service;
use segment_gateway::admin::{Access, Admin};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// Metric, labels, value.
pub type Sample = (String, Vec<(String, String)>, f64);

/// The samples of a text in Prometheus' form.
pub fn samples(text: &str) -> Vec<Sample> {
    let mut all = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').expect("a sample");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.trim_end_matches('}').split("\",");
        let labels = labels.filter_map(|pair| pair.split_once("=\""));
        let labels = labels.map(|(name, value)| (name.into(), value.trim_end_matches('"').into()));
        let value = value.parse().expect("a number");
        all.push((name.to_owned(), labels.collect(), value));
    }
    all
}

/// Every metric of a text in Prometheus' form, with the names of its labels.
pub fn exported(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, labels, _) in samples(text) {
        let names = labels.into_iter().map(|(name, _)| name);
        all.entry(name).or_default().extend(names);
    }
    all
}

/// What a gateway shows at `/metrics`.
pub async fn metrics(world: &World) -> String {
    let (status, text) = shown(world, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    text
}

/// What a gateway shows operators at this path.
pub async fn shown(world: &World, path: &str) -> (StatusCode, String) {
    operator(world, Method::GET, path, true).await
}

/// What it answers an operator who asks with this method, with or without the header that changes
/// need.
pub async fn operator(
    world: &World,
    method: Method,
    path: &str,
    means_it: bool,
) -> (StatusCode, String) {
    let mut ask = Request::builder().method(method).uri(path);
    if means_it {
        ask = ask.header("x-gateway-admin", "1");
    }
    let ask = ask.body(Empty::<Bytes>::new()).expect("a request");
    operators(world, ask).await
}

/// The same for a request of any kind.
pub async fn operators(world: &World, mut ask: Request<Empty<Bytes>>) -> (StatusCode, String) {
    let access = Access {
        loopback: true,
        ..Access::default()
    };
    let access = Arc::new(access.into());
    let admin = Admin::new(world.gateway.clone(), access, "http://sandbox");
    let host = "localhost".parse().expect("a host");
    ask.headers_mut().insert("host", host);
    let service = admin.connected(SocketAddr::from(([127, 0, 0, 1], 1)).into());
    let answer = service.call(ask).await.expect("an answer");
    let status = answer.status();
    let body = answer.into_body().collect().await.expect("a body");
    let text = String::from_utf8(body.to_bytes().to_vec()).expect("text");
    (status, text)
}
