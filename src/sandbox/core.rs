//! Pure. The whole simulated API without its connections: what a request that arrives at a moment
//! is answered, and what it changes.
//!
//! A request is judged in this order: balancer, token, operation, limit, its own content. So a
//! refused one has no effect, and one that is wrong is charged all the same.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::{StatusCode, header};

use super::dice::Dice;
use super::fate::{Fate, Mishap};
use super::generic;
use super::iam::{self, Call};
use super::log::{Arrival, By, Count, Effect, Log, shortened};
use super::operations::{OPERATIONS, Operation, Params, find};
use super::reply::{self, Answer};
use super::request::{Problem, Query};
use super::spec::{Faults, SandboxSpec};
use super::window::{Verdict, Window};
use super::world::{Changed, History, World};

/// How many different tokens are accepted where any is.
const MOST_TOKENS: usize = 10_000;
/// How many arrivals of others are simulated at once, after a long time without a request.
const MOST_OTHERS: u32 = 10_000;

/// The state of a sandbox.
pub(super) struct Core {
    pub(super) spec: SandboxSpec,
    pub(super) faults: Faults,
    pub(super) history: History,
    pub(super) log: Log,
    dice: Dice,
    tokens: HashMap<String, u32>,
    counters: HashMap<(u32, usize), Counter>,
    start: Moment,
}

/// One instant on both clocks.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    /// On the clock by which everything is decided.
    pub(super) now: Instant,
    /// On the clock that people and headers use.
    pub(super) wall: SystemTime,
}

/// A request whose body has been read.
pub(super) struct Request {
    /// Everything but the body.
    pub(super) head: Parts,
    /// The body.
    pub(super) body: Bytes,
}

/// The window of one (token, operation), and who else uses it.
struct Counter {
    window: Window,
    others: Option<Others>,
}

/// A Poisson process of other users' requests.
struct Others {
    dice: Dice,
    mean: Duration,
    next: Instant,
}

/// What an answer is made of, and what is noted of it.
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
    /// A sandbox that begins at `start`.
    pub(super) fn new(spec: SandboxSpec, start: Moment) -> Self {
        let world = World::populated(spec.seed, spec.users, spec.groups);
        Self {
            faults: spec.faults,
            history: History::new(world, spec.replication_lag),
            log: Log::default(),
            dice: Dice::new(spec.seed.wrapping_add(1)),
            tokens: HashMap::new(),
            counters: HashMap::new(),
            start,
            spec,
        }
    }

    /// When it began.
    pub(super) fn start(&self) -> Instant {
        self.start.now
    }

    /// Draws the fate of the next request.
    pub(super) fn fate(&mut self) -> Fate {
        Fate::draw(&mut self.dice, &self.spec, &self.faults)
    }

    /// Counts a request, lets it take effect, notes it and answers it.
    pub(super) fn arrive(&mut self, at: Moment, request: &Request, fate: &Fate) -> Answer {
        let path = request.head.uri.path();
        let found = find(request.head.method.as_str(), path);
        let operation = found.as_ref().map(|(number, _)| &OPERATIONS[*number]);
        let mut handled = self.handle(at, request, fate, found.as_ref());
        let version = handled
            .version
            .unwrap_or_else(|| self.history.current().version);
        reply::add_common(&mut handled.answer, version, at.wall);
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

    /// The number of the request's token, if it is accepted (RFC 6750 section 2.1).
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

    /// Counts a request, after those that others have made since the last one.
    fn count(&mut self, now: Instant, token: u32, number: usize) -> Verdict {
        let operation = &OPERATIONS[number];
        let (spec, start) = (&self.spec, self.start);
        let counter = self.counters.entry((token, number)).or_insert_with(|| {
            let (limit, per) = limit(spec, operation);
            let window = Window::new(spec.window, limit, per, boundary(start, per));
            let salt = u64::from(token) << 32 | number as u64;
            Counter {
                window,
                others: Others::new(spec, salt, now),
            }
        });
        if let Some(others) = &mut counter.others {
            others.catch_up(now, |at| {
                let verdict = counter.window.count(at);
                self.log.note(others_arrival(at, token, operation, verdict));
            });
        }
        counter.window.count(now)
    }

    fn perform(
        &mut self,
        now: Instant,
        operation: &Operation,
        params: &Params,
        request: &Request,
    ) -> (iam::Outcome, Effect, u64) {
        let query = Query::parse(request.head.uri.query().unwrap_or_default());
        let path = request.head.uri.path();
        let call = Call {
            name: operation.name,
            params,
            query: &query,
            body: &request.body,
            lists: self.spec.lists,
        };
        if operation.method == "GET" {
            let world = self.history.seen(now);
            let outcome = iam::read(world, &call)
                .unwrap_or_else(|| generic::read(world, operation, path, &call));
            return (outcome, Effect::Nothing, world.version);
        }
        let (changed, outcome) = self.history.write(now, |world| {
            iam::write(world, &call)
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

impl Others {
    /// The others of one window, or none. Their chances are the window's own.
    fn new(spec: &SandboxSpec, salt: u64, now: Instant) -> Option<Self> {
        if !spec.other_users.is_finite() || spec.other_users <= 0.0 {
            return None;
        }
        let seconds = 60.0 / spec.other_users / f64::from(spec.time_scale.max(1));
        let mean = Duration::try_from_secs_f64(seconds)
            .ok()?
            .clamp(Duration::from_micros(1), Duration::from_secs(86_400));
        let mut dice = Dice::new(spec.seed ^ salt.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let next = now + dice.gap(mean);
        Some(Self { dice, mean, next })
    }

    /// Lets everything happen that others have done up to `now`; after a long time only the latest
    /// part of it.
    fn catch_up(&mut self, now: Instant, mut happen: impl FnMut(Instant)) {
        let most = self.mean * MOST_OTHERS;
        if now.saturating_duration_since(self.next) > most {
            self.next = now.checked_sub(most).unwrap_or(now);
        }
        while self.next <= now {
            happen(self.next);
            self.next += self.dice.gap(self.mean);
        }
    }
}

/// The limit of an operation and the length of its window.
fn limit(spec: &SandboxSpec, operation: &Operation) -> (u32, Duration) {
    let default = if operation.method == "GET" {
        spec.default_reads
    } else {
        spec.default_writes
    };
    let (limit, per) = operation
        .limit
        .unwrap_or((default, Duration::from_secs(60)));
    (limit, per / spec.time_scale.max(1))
}

/// An instant at which an aligned window of this length begins, near the start.
fn boundary(start: Moment, per: Duration) -> Instant {
    let since = start
        .wall
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let into = since.as_nanos() % per.as_nanos().max(1);
    let left = per.as_nanos().saturating_sub(into);
    start.now + Duration::from_nanos(u64::try_from(left).unwrap_or(0))
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
