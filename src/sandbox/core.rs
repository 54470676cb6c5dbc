//! Pure. The whole simulated API without its connections: the response and the effect of a request
//! that arrives at an instant.
//!
//! A request is judged in this order: balancer, token, operation, limit, content. So a rejected
//! request has no effect, and an invalid one still counts against the limit.

use std::collections::{HashMap, HashSet};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::{StatusCode, header};

use super::call::{Call, Outcome};
use super::count::Counter;
use super::dice::Dice;
use super::fate::{Fate, Mishap};
use super::generic;
use super::log::{Arrival, By, Count, Effect, Log, shortened};
use super::operations::{OPERATIONS, Operation, Params, find};
use super::reply::{self, Answer};
use super::request::{Problem, Query};
use super::spec::{Faults, SandboxSpec};
use super::window::Verdict;
use super::world::{Changed, History, World};
use super::{reads, writes};

/// The most different tokens accepted if any token is.
const MOST_TOKENS: usize = 10_000;
/// The state of a sandbox.
pub(super) struct Core {
    pub(super) spec: SandboxSpec,
    pub(super) faults: Faults,
    pub(super) history: History,
    pub(super) log: Log,
    dice: Dice,
    tokens: HashMap<String, u32>,
    /// The tokens that are no longer accepted.
    pub(super) revoked: HashSet<String>,
    counters: HashMap<(u32, usize), Counter>,
    start: Moment,
}

/// One instant on two clocks.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    /// The instant on the clock for decisions.
    pub(super) now: Instant,
    /// The instant on the clock for people and headers.
    pub(super) wall: SystemTime,
}

/// A request whose body has been read.
pub(super) struct Request {
    /// Everything but the body.
    pub(super) head: Parts,
    /// The body.
    pub(super) body: Bytes,
}

/// A response, and the facts to log about it.
struct Handled {
    answer: Answer,
    count: Count,
    effect: Effect,
    token: u32,
    version: Option<u64>,
}

impl Handled {
    fn uncounted(answer: Answer) -> Self {
        Self {
            answer,
            count: Count::Uncounted,
            effect: Effect::Nothing,
            token: 0,
            version: None,
        }
    }
}

impl Core {
    /// Creates a sandbox that begins at `start`.
    pub(super) fn new(spec: SandboxSpec, start: Moment) -> Self {
        let world = World::populated(spec.seed, spec.users, spec.groups);
        Self {
            faults: spec.faults,
            revoked: HashSet::new(),
            history: History::new(world, spec.replication_lag),
            log: Log::default(),
            dice: Dice::new(spec.seed.wrapping_add(1)),
            tokens: HashMap::new(),
            counters: HashMap::new(),
            start,
            spec,
        }
    }

    /// Returns the instant of the beginning.
    pub(super) fn start(&self) -> Instant {
        self.start.now
    }

    /// Draws the fate of the next request.
    pub(super) fn fate(&mut self) -> Fate {
        Fate::draw(&mut self.dice, &self.spec, &self.faults)
    }

    /// Compresses the response to a read and adds a validator, if so configured.
    fn finish_read(&self, request: &Request, answer: &mut Answer) {
        let head = &request.head;
        if head.method != http::Method::GET || answer.status() != StatusCode::OK {
            return;
        }
        if self.spec.gzip {
            reply::compress(answer, &head.headers);
        }
        if self.spec.validators {
            reply::validate(answer, &head.headers);
        }
    }

    /// Counts a request, applies it, logs it and responds to it.
    pub(super) fn arrive(&mut self, at: Moment, request: &Request, fate: &Fate) -> Answer {
        let path = request.head.uri.path();
        let found = find(request.head.method.as_str(), path);
        let operation = found.as_ref().map(|(number, _)| &OPERATIONS[*number]);
        let mut handled = self.handle(at, request, fate, found.as_ref());
        let version = handled
            .version
            .unwrap_or_else(|| self.history.current().version);
        reply::add_common(&mut handled.answer, version, at.wall);
        self.finish_read(request, &mut handled.answer);
        let target = request
            .head
            .uri
            .path_and_query()
            .map_or(path, |target| target.as_str());
        self.log.note(Arrival {
            index: 0,
            at: at.now,
            by: By::Gateway,
            token: handled.token,
            operation: operation.map_or("unknown", |operation| operation.name),
            method: request.head.method.as_str().into(),
            target: shortened(target.as_bytes()),
            body: shortened(&request.body),
            status: handled.answer.status().as_u16(),
            count: handled.count,
            effect: handled.effect,
            version,
        });
        handled.answer
    }

    fn handle(
        &mut self,
        at: Moment,
        request: &Request,
        fate: &Fate,
        found: Option<&(usize, Params)>,
    ) -> Handled {
        if let Some(Mishap::Balancer(status)) = fate.mishap {
            return Handled::uncounted(reply::balancer(status));
        }
        // From here on every response is the API's: with an envelope, in the requested media type.
        let media = reply::media_type(&request.head.headers);
        let Some(token) = self.token(request) else {
            return Handled::uncounted(reply::failure(&unauthorized(), media));
        };
        let Some((number, params)) = found else {
            let problem = Problem::missing("path", request.head.uri.path());
            return Handled {
                token,
                ..Handled::uncounted(reply::failure(&problem, media))
            };
        };
        // Counted before its content is read, as the API does.
        let verdict = self.count(at.now, token, *number);
        let wait = match fate.mishap {
            _ if !verdict.admitted => Some((Count::Refused, verdict.until_next)),
            Some(Mishap::Throttled(wait)) => Some((Count::Injected, wait)),
            _ => None,
        };
        if let Some((count, wait)) = wait {
            let answer = reply::throttled(verdict.consumed, wait, media);
            return Handled {
                answer,
                count,
                effect: Effect::Nothing,
                token,
                version: None,
            };
        }
        let broken = || reply::failure(&internal(), media);
        let mut handled = Handled {
            answer: broken(),
            count: Count::Admitted,
            effect: Effect::Nothing,
            token,
            version: None,
        };
        // A fault before the effect skips the operation; one after it replaces only the response.
        if fate.mishap != Some(Mishap::Before) {
            let (outcome, effect, version) =
                self.perform(at.now, &OPERATIONS[*number], params, request);
            (handled.effect, handled.version) = (effect, Some(version));
            handled.answer = match outcome {
                Ok((status, data)) => reply::success(status, &data, media),
                Err(problem) => reply::failure(&problem, media),
            };
        }
        if fate.mishap == Some(Mishap::After) {
            handled.answer = broken();
        }
        if handled.answer.status().is_success() {
            reply::add_rate(&mut handled.answer, &verdict, at.wall);
        }
        handled
    }

    /// Returns the number of the request's token, if it is accepted (RFC 6750, section 2.1).
    fn token(&mut self, request: &Request) -> Option<u32> {
        let value = request
            .head
            .headers
            .get(header::AUTHORIZATION)?
            .to_str()
            .ok()?;
        let (scheme, token) = value.split_once(' ')?;
        let token = token.trim();
        let known = match &self.spec.tokens {
            Some(tokens) => tokens.iter().any(|known| known == token),
            None => true,
        };
        let known = known && !self.revoked.contains(token);
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || !known {
            return None;
        }
        if let Some(number) = self.tokens.get(token) {
            return Some(*number);
        }
        if self.tokens.len() >= MOST_TOKENS {
            return None;
        }
        let number = u32::try_from(self.tokens.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        self.tokens.insert(token.to_owned(), number);
        Some(number)
    }

    /// Counts a request, after those of other users since the last one.
    fn count(&mut self, now: Instant, token: u32, number: usize) -> Verdict {
        let operation = &OPERATIONS[number];
        let (spec, start) = (&self.spec, self.start);
        let counter = self.counters.entry((token, number)).or_insert_with(|| {
            let salt = u64::from(token) << 32 | number as u64;
            Counter::new(spec, operation, salt, start, now)
        });
        counter.count(now, |at, verdict| {
            self.log.note(others_arrival(at, token, operation, verdict));
        })
    }

    fn perform(
        &mut self,
        now: Instant,
        operation: &Operation,
        params: &Params,
        request: &Request,
    ) -> (Outcome, Effect, u64) {
        let query = Query::parse(request.head.uri.query().unwrap_or_default());
        let path = request.head.uri.path();
        let call = Call {
            name: operation.name,
            params,
            query: &query,
            body: &request.body,
            lists: self.spec.lists,
        };
        // Reads see the state with its replication lag; writes see the present one.
        if operation.method == "GET" {
            let world = self.history.seen(now);
            let outcome = reads::read(world, &call)
                .unwrap_or_else(|| generic::read(world, operation, path, &call));
            return (outcome, Effect::Nothing, world.version);
        }
        let (changed, outcome) = self.history.write(now, |world| {
            writes::write(world, &call)
                .unwrap_or_else(|| generic::write(world, operation, path, &call))
        });
        let effect = if changed == Changed::Something {
            Effect::Applied
        } else {
            Effect::Nothing
        };
        (outcome, effect, self.history.current().version)
    }
}

fn others_arrival(at: Instant, token: u32, operation: &Operation, verdict: Verdict) -> Arrival {
    Arrival {
        index: 0,
        at,
        by: By::Other,
        token,
        operation: operation.name,
        method: operation.method.into(),
        target: operation.template.into(),
        body: "".into(),
        status: if verdict.admitted { 200 } else { 429 },
        count: if verdict.admitted {
            Count::Admitted
        } else {
            Count::Refused
        },
        effect: Effect::Nothing,
        version: 0,
    }
}

fn unauthorized() -> Problem {
    let message = "The token is missing or not accepted.".to_owned();
    Problem {
        status: StatusCode::UNAUTHORIZED.as_u16(),
        kind: "UnauthorizedError",
        message,
        field: None,
    }
}

fn internal() -> Problem {
    let message = "Something went wrong (an injected fault).".to_owned();
    Problem {
        status: StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
        kind: "InternalServerError",
        message,
        field: None,
    }
}
