//! Every rule of HTTP caching (RFC 9111 and what belongs to it) as an exchange through the whole
//! stack: what the API answers, who asks for what and when, and what each of them sees.
//!
//! A row names its rule and runs in a world of its own, whose clock moves only where the row says
//! so. Where a row does not say otherwise the API is asked once for each answer that `Cache-Status`
//! says was forwarded, and not at all for one that it does not; the last answer of the API is
//! repeated for ever.

use crate::support::scripted::{Script, Seen, Step, field};
use crate::support::{Answer, Setup, WALL, World, request, with};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use segment_gateway::sandbox::SandboxSpec;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::sleep;

mod broken;
mod codings;
mod invalidation;
mod lifetimes;
mod poisoning;
mod ranges;
mod renewals;
mod requests;
mod routes;
mod selecting;
mod staleness;
mod storing;
mod telling;
mod validation;

/// An operation without a time to live: the answers' own word alone counts.
const LABELS: &str = "/labels";
/// One whose answers live for 60 s by the route table.
const USERS: &str = "/users";
/// Another one, of which no write to users says anything; 300 s.
const ROLES: &str = "/roles";
/// A path that the route table does not know.
const UNKNOWN: &str = "/v9/x";
/// A write that makes lists of users stale, and whatever has no tags.
const WRITE: &str = "/users/u/permissions";

/// An instant so many seconds after the beginning of a row, as fields have it.
fn date(seconds: i64) -> String {
    httpdate::fmt_http_date(instant(seconds))
}

/// The same instant.
fn instant(seconds: i64) -> SystemTime {
    let start = SystemTime::UNIX_EPOCH + WALL;
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        start - distance
    } else {
        start + distance
    }
}

/// An answer of the API with this status and these fields, each as `name: value`. It is JSON unless
/// a field says otherwise, or it has no content.
fn says<S: AsRef<str>>(status: u16, fields: &[S]) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
    for field in fields {
        let (name, value) = split(field.as_ref());
        answer.headers_mut().append(name, value);
    }
    if !matches!(status, 100..=199 | 204 | 304) {
        let kind = answer.headers_mut().entry("content-type");
        kind.or_insert(HeaderValue::from_static("application/json"));
    }
    answer
}

/// One of 200.
fn ok<S: AsRef<str>>(fields: &[S]) -> Response<Bytes> {
    says(200, fields)
}

/// The same answer with this body.
fn body(answer: Response<Bytes>, body: impl Into<Bytes>) -> Response<Bytes> {
    answer.map(|_| body.into())
}

/// The body that the n-th answer has if its row gives it none.
fn nth_body(n: usize) -> String {
    format!("answer {n}")
}

fn split(field: &str) -> (HeaderName, HeaderValue) {
    let (name, value) = field.split_once(':').expect("a field");
    let name = name.parse().expect("a field name");
    let value = HeaderValue::from_str(value.trim()).expect("a field value");
    (name, value)
}

fn has(headers: &HeaderMap, field: &str) -> bool {
    let (name, value) = split(field);
    headers.get_all(name).iter().any(|found| *found == value)
}

/// One exchange.
struct Exchange {
    rule: String,
    routes: Option<String>,
    api: Vec<Step>,
    target: &'static str,
    acts: Vec<Act>,
}

/// What happens in it.
enum Act {
    Wait(Duration),
    Ask(Box<Ask>),
}

/// A request, and what is to be seen of it.
struct Ask {
    method: Method,
    target: String,
    token: &'static str,
    authorization: Option<&'static str>,
    fields: Vec<String>,
    expect: Expect,
}

/// What a reader sees, and what the API saw of it.
#[derive(Default)]
struct Expect {
    status: Option<u16>,
    cache: Option<String>,
    has: Vec<String>,
    lacks: Vec<&'static str>,
    body: Option<Bytes>,
    is_error: Option<&'static str>,
    asked: Option<usize>,
    api_method: Option<Method>,
    api_saw: Vec<String>,
    api_did_not_see: Vec<&'static str>,
}

/// An exchange that shows this rule.
fn rule(rule: impl Into<String>) -> Exchange {
    Exchange {
        rule: rule.into(),
        routes: None,
        api: Vec::new(),
        target: LABELS,
        acts: Vec::new(),
    }
}

impl Exchange {
    /// Whatever follows asks for this target.
    fn on(mut self, target: &'static str) -> Self {
        self.target = target;
        self
    }

    /// The next answer of the API. One without a body gets one that says which answer it is.
    fn api(self, mut answer: Response<Bytes>) -> Self {
        let nth = nth_body(self.api.len() + 1);
        if answer.body().is_empty() && !matches!(answer.status().as_u16(), 204 | 205 | 304) {
            answer = body(answer, nth);
        }
        self.step(Step::Answer(answer))
    }

    /// The same, after some seconds.
    fn api_late(self, seconds: u64, answer: Response<Bytes>) -> Self {
        let mut after = self.api(answer);
        if let Some(Step::Answer(answer)) = after.api.pop() {
            let delay = Duration::from_secs(seconds);
            after.api.push(Step::Later(delay, answer));
        }
        after
    }

    /// What the API does next.
    fn step(mut self, step: Step) -> Self {
        self.api.push(step);
        self
    }

    /// The route of the list of users with these lines instead of its time.
    fn users(self, lines: &str) -> Self {
        const LIST: &str = "path = \"/users\"\ncache = \"60s\"\n";
        self.route(LIST, &format!("path = \"/users\"\n{lines}\n"))
            .on(USERS)
    }

    /// The route of the list of labels with these lines more.
    fn labels(self, lines: &str) -> Self {
        const LIST: &str = "method = \"GET\"\npath = \"/labels\"\n";
        self.route(LIST, &format!("{LIST}{lines}\n")).on(LABELS)
    }

    /// The route table with this text in place of that.
    fn route(mut self, old: &str, new: &str) -> Self {
        let embedded = include_str!("../../../config/segment.toml");
        let routes = self.routes.as_deref().unwrap_or(embedded);
        assert!(routes.contains(old), "{old}");
        self.routes = Some(routes.replace(old, new));
        self
    }

    fn wait(mut self, seconds: u64) -> Self {
        self.acts.push(Act::Wait(Duration::from_secs(seconds)));
        self
    }

    /// Somebody asks for the target.
    fn get(self) -> Self {
        self.ask(Method::GET)
    }

    fn head(self) -> Self {
        self.ask(Method::HEAD)
    }

    fn ask(self, method: Method) -> Self {
        let target = self.target;
        self.ask_for(method, target)
    }

    fn ask_for(mut self, method: Method, target: impl Into<String>) -> Self {
        self.acts.push(Act::Ask(Box::new(Ask {
            method,
            target: target.into(),
            token: "a",
            authorization: None,
            fields: Vec::new(),
            expect: Expect::default(),
        })));
        self
    }

    fn last(mut self, change: impl FnOnce(&mut Ask)) -> Self {
        match self.acts.last_mut() {
            Some(Act::Ask(ask)) => change(ask),
            _ => panic!("nobody asks: {}", self.rule),
        }
        self
    }

    /// The request has this field.
    fn with(self, field: impl Into<String>) -> Self {
        self.last(|ask| ask.fields.push(field.into()))
    }

    /// It is another token's.
    fn by(self, token: &'static str) -> Self {
        self.last(|ask| ask.token = token)
    }

    /// Its `Authorization` says this; nothing says that it has none.
    fn authorized_by(self, authorization: &'static str) -> Self {
        self.last(|ask| ask.authorization = Some(authorization))
    }

    /// `Cache-Status` says this, without name and key.
    fn sees(self, cache: impl Into<String>) -> Self {
        self.last(|ask| ask.expect.cache = Some(cache.into()))
    }

    /// The answer comes from the store, fresh for so many seconds.
    fn hit(self, ttl: u64) -> Self {
        self.sees(format!("hit; ttl={ttl}"))
    }

    /// Nothing was stored; now something is.
    fn stored(self) -> Self {
        self.sees("fwd=uri-miss; stored")
    }

    /// What was stored is stale; something newer is stored now.
    fn renewed(self) -> Self {
        self.sees("fwd=stale; stored")
    }

    /// The API has confirmed what is stored.
    fn confirmed(self) -> Self {
        self.sees("fwd=stale; fwd-status=304; stored")
    }

    /// The answer has this status; without a word it is 200.
    fn status(self, status: u16) -> Self {
        self.last(|ask| ask.expect.status = Some(status))
    }

    /// The answer has this field.
    fn has(self, field: impl Into<String>) -> Self {
        self.last(|ask| ask.expect.has.push(field.into()))
    }

    /// The answer has no such field.
    fn lacks(self, name: &'static str) -> Self {
        self.last(|ask| ask.expect.lacks.push(name))
    }

    fn age(self, seconds: u64) -> Self {
        self.has(format!("age: {seconds}"))
    }

    /// The body of the n-th answer of the API.
    fn shows(self, n: usize) -> Self {
        self.body(nth_body(n))
    }

    fn body(self, body: impl Into<Bytes>) -> Self {
        self.last(|ask| ask.expect.body = Some(body.into()))
    }

    /// An error of the gateway's own, of this type.
    fn error(self, status: u16, kind: &'static str) -> Self {
        self.status(status)
            .last(|ask| ask.expect.is_error = Some(kind))
    }

    /// `only-if-cached` was refused (RFC 9111, section 5.2.1.7).
    fn not_cached(self) -> Self {
        self.sees("detail=gateway-not-cached")
            .error(504, "gateway-not-cached")
    }

    /// So many requests reached the API because of this one, also behind it.
    fn asked(self, requests: usize) -> Self {
        self.last(|ask| ask.expect.asked = Some(requests))
    }

    /// The last request that reached the API had this field.
    fn api_saw(self, field: impl Into<String>) -> Self {
        self.last(|ask| ask.expect.api_saw.push(field.into()))
    }

    /// It had no such field.
    fn api_did_not_see(self, name: &'static str) -> Self {
        self.last(|ask| ask.expect.api_did_not_see.push(name))
    }

    /// It had this method.
    fn api_method(self, method: Method) -> Self {
        self.last(|ask| ask.expect.api_method = Some(method))
    }

    /// Carries it out; what is not as it should be.
    async fn carry_out(&self) -> Vec<String> {
        let api = self.api.clone();
        let script = Script::new(move |_, n| match api.get(n).or(api.last()) {
            Some(step) => step.clone(),
            None => Step::Close,
        });
        let mut setup = Setup::new(SandboxSpec::default());
        setup.routes.clone_from(&self.routes);
        let world = script.world_of(setup);
        let mut problems = Vec::new();
        for (nth, act) in self.acts.iter().enumerate() {
            match act {
                Act::Wait(time) => {
                    sleep(*time).await;
                    settled().await;
                }
                Act::Ask(ask) => {
                    let found = ask.carry_out(&world, &script).await;
                    let found = found.into_iter();
                    let place = format!("{}, act {}", self.rule, nth + 1);
                    problems.extend(found.map(|problem| format!("{place}: {problem}")));
                }
            }
        }
        problems
    }
}

impl Ask {
    async fn carry_out(&self, world: &Arc<World>, script: &Script) -> Vec<String> {
        let before = script.count();
        let mut plain = request(self.method.clone(), &self.target, self.token, "");
        match self.authorization {
            None => {}
            Some("") => drop(plain.headers_mut().remove("authorization")),
            Some(value) => {
                let value = HeaderValue::from_static(value);
                plain.headers_mut().insert("authorization", value);
            }
        }
        let ask = self.fields.iter().fold(plain, |ask, field| {
            let (name, value) = field.split_once(':').expect("a field");
            with(ask, name, value.trim())
        });
        let answer = world.send(ask).await;
        settled().await;
        let seen = script.seen();
        let asked = seen.len() - before;
        let mut problems = self.expect.of_reader(&answer);
        problems.extend(self.expect.of_api(asked, seen.last()));
        if !problems.is_empty() {
            let (status, cache) = (answer.status, answer.header("cache-status"));
            problems.push(format!("  it was {status}, {cache}, {:?}", answer.body));
        }
        problems
    }
}

/// Lets whatever goes on behind an answer take its course, as far as it takes no time.
async fn settled() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

impl Expect {
    fn of_reader(&self, answer: &Answer) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |is: bool, what: String| {
            if !is {
                problems.push(what);
            }
        };
        let status = self.status.unwrap_or(200);
        check(answer.status == status, format!("status {status}"));
        if let Some(cache) = &self.cache {
            let whole = format!("segment-gateway; {cache}");
            check(answer.cache_status() == whole, format!("sees {cache}"));
        }
        for field in &self.has {
            let (name, _) = split(field);
            let found: Vec<_> = answer.headers.get_all(name).iter().collect();
            check(
                has(&answer.headers, field),
                format!("{field}, not {found:?}"),
            );
        }
        for name in &self.lacks {
            let found = answer.headers.get(*name);
            check(found.is_none(), format!("no {name}, not {found:?}"));
        }
        if let Some(body) = &self.body {
            check(answer.body == body, format!("body {body:?}"));
        }
        if let Some(kind) = self.is_error {
            check(answer.error_type() == kind, format!("error {kind}"));
        }
        problems
    }

    fn of_api(&self, asked: usize, seen: Option<&Seen>) -> Vec<String> {
        let mut problems = Vec::new();
        let told = self
            .cache
            .as_ref()
            .map(|cache| usize::from(cache.starts_with("fwd=") && !cache.contains("; collapsed")));
        if let Some(expected) = self.asked.or(told)
            && asked != expected
        {
            problems.push(format!("the API is asked {expected} times, not {asked}"));
        }
        let none = HeaderMap::new();
        let headers = seen.map_or(&none, |seen| &seen.headers);
        for field in self.api_saw.iter().filter(|field| !has(headers, field)) {
            problems.push(format!("the API sees {field}"));
        }
        for name in &self.api_did_not_see {
            if let Some(found) = headers.get(*name) {
                problems.push(format!("the API sees no {name}, not {found:?}"));
            }
        }
        if let Some(method) = &self.api_method
            && seen.is_none_or(|seen| seen.method != *method)
        {
            problems.push(format!("the API sees a {method}"));
        }
        problems
    }
}

/// Carries out every row and asserts that all of them are as they should be.
async fn hold(rows: impl IntoIterator<Item = Exchange>) {
    let mut problems = Vec::new();
    for row in rows {
        problems.extend(row.carry_out().await);
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}
