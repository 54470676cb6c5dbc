//! Pure. The whole simulated API without its connections: the response and the effect of a request
//! that arrives at an instant.
//!
//! A request is judged in this order: balancer, token, operation, limit, content. So a rejected
//! request has no effect, and an invalid one still counts against the limit.
//!
//! Everything happens under one lock, at the one instant that the caller passes. Instants must not
//! go back from call to call, or windows and replication lag would be wrong. With one seed, the
//! same requests in the same order and at the same instants get the same responses.
//!
//! Connections, delays and lost responses are up to `serve.rs`, which has the plan of a request
//! drawn before the request arrives here.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{StatusCode, header};

use super::call::{ApiResult, Call};
use super::count::{Counter, Moment};
use super::faults::{FaultPlan, InjectedFault};
use super::generic;
use super::log::{Arrival, ArrivalLog, By, CountResult, shortened};
use super::operations::{ApiOperation, OPERATIONS, PathValues, find};
use super::rate_window::LimitDecision;
use super::reply::{self, ApiResponse};
use super::request::{ApiError, Query};
use super::rng::Rng;
use super::spec::{Faults, SandboxSpec};
use super::world::{World, WorldHistory};
use super::{reads, writes};

/// The most different tokens accepted if any token is.
const MOST_TOKENS: usize = 10_000;

/// The state of a sandbox.
pub(super) struct Core {
    /// The options at the start. Only the faults and the accepted tokens change later.
    pub(super) spec: SandboxSpec,
    /// The faults of the next requests. Tests and `/_sandbox/faults` change them.
    pub(super) faults: Faults,
    /// The workspace that all tokens share.
    pub(super) history: WorldHistory,
    /// The latest arrivals, in the order in which they were judged. Tests compare them with what
    /// the gateway meant to send.
    pub(super) log: ArrivalLog,
    /// Draws the plans. Separate from the sequence that made the population, so that the number of
    /// users does not change the faults.
    rng: Rng,
    /// The tokens seen so far, numbered from 1. Logs show the number, never the token.
    tokens: HashMap<String, u32>,
    /// The accepted tokens; `None` accepts any. Tests and `/_sandbox/tokens` change them.
    pub(super) accepted: Option<HashSet<String>>,
    /// The tokens that are rejected even so.
    pub(super) revoked: HashSet<String>,
    /// The count of each token and operation, made at the first request of that operation with that
    /// token.
    counters: HashMap<(u32, usize), Counter>,
    /// The beginning on both clocks, to which aligned windows and logged times refer.
    start: Moment,
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
    /// The response, still without the headers that all responses have.
    response: ApiResponse,
    /// Whether the limit was charged.
    count: CountResult,
    /// Whether the state changed, at least in part.
    applied: bool,
    /// The number of the token; 0 if none was accepted.
    token: u32,
    /// The version of the state that the operation saw or left; `None` if it was not carried out.
    version: Option<u64>,
}

impl Handled {
    /// Returns a rejection before the operation, which changes nothing.
    fn rejected(response: ApiResponse, count: CountResult, token: u32) -> Self {
        Self {
            response,
            count,
            applied: false,
            token,
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
            accepted: spec.tokens.clone().map(HashSet::from_iter),
            revoked: HashSet::new(),
            history: WorldHistory::new(world, spec.replication_lag),
            log: ArrivalLog::default(),
            rng: Rng::new(spec.seed.wrapping_add(1)),
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

    /// Draws the plan of the next request.
    pub(super) fn plan(&mut self) -> FaultPlan {
        FaultPlan::draw(&mut self.rng, &self.spec, &self.faults)
    }

    /// Compresses the response to a read and adds a validator, if so configured.
    fn finish_read(&self, request: &Request, response: &mut ApiResponse) {
        let head = &request.head;
        if head.method != http::Method::GET || response.status() != StatusCode::OK {
            return;
        }
        // Compression comes first: the validator belongs to the bytes that are sent (RFC 9110,
        // section 8.8.3.3).
        if self.spec.gzip {
            reply::compress(response, &head.headers);
        }
        if self.spec.validators {
            reply::validate(response, &head.headers);
        }
    }

    /// Counts a request, applies it, logs it and responds to it.
    ///
    /// The request takes effect here, whatever becomes of its response.
    pub(super) fn arrive(
        &mut self,
        at: Moment,
        request: &Request,
        plan: &FaultPlan,
    ) -> ApiResponse {
        let path = request.head.uri.path();
        let found = find(request.head.method.as_str(), path);
        let operation = found.as_ref().map(|(number, _)| &OPERATIONS[*number]);
        let mut handled = self.handle(at, request, plan, found.as_ref());
        let version = handled
            .version
            .unwrap_or_else(|| self.history.current().version);
        reply::add_common(&mut handled.response, version, at.wall);
        self.finish_read(request, &mut handled.response);
        let target = request.head.uri.path_and_query();
        let target = target.map_or(path, |target| target.as_str());
        // Logged after the effect and before the response. A test that has a response therefore
        // finds its arrival.
        self.log.note(Arrival {
            index: 0,
            at: at.now,
            by: By::Gateway,
            token: handled.token,
            operation: operation.map_or("unknown", |operation| operation.name),
            method: request.head.method.as_str().into(),
            target: shortened(target.as_bytes()),
            body: shortened(&request.body),
            status: handled.response.status().as_u16(),
            count: handled.count,
            applied: handled.applied,
            version,
        });
        handled.response
    }

    /// Judges a request in the order that the module names.
    ///
    /// Each rejection ends it early, with what is known by then. Only a request that passes them
    /// all can have an effect.
    fn handle(
        &mut self,
        at: Moment,
        request: &Request,
        plan: &FaultPlan,
        found: Option<&(usize, PathValues)>,
    ) -> Handled {
        if let Some(InjectedFault::Balancer(status)) = plan.fault {
            return Handled::rejected(reply::balancer(status), CountResult::Uncounted, 0);
        }
        // From here on every response is the API's: with an envelope, in the requested media type.
        let media = reply::media_type(&request.head.headers);
        let Some(token) = self.token(request) else {
            let error = ApiError::new(
                401,
                "UnauthorizedError",
                "The token is missing or not accepted.",
            );
            return Handled::rejected(reply::failure(&error, media), CountResult::Uncounted, 0);
        };
        // An unknown path has no limit, so it is not counted.
        let Some((number, params)) = found else {
            let error = ApiError::missing("path", request.head.uri.path());
            return Handled::rejected(reply::failure(&error, media), CountResult::Uncounted, token);
        };
        // Counted before its content is read, as the API does.
        let decision = self.count(at.now, token, *number);
        // The real limit goes before an injected 429, so that the log never calls an overrun a
        // fault.
        let wait = match plan.fault {
            _ if !decision.admitted => Some((CountResult::Refused, decision.until_next)),
            Some(InjectedFault::Throttled(wait)) => Some((CountResult::Injected, wait)),
            _ => None,
        };
        if let Some((count, wait)) = wait {
            let response = reply::throttled(decision.consumed, wait, media);
            return Handled::rejected(response, count, token);
        }
        // Both kinds of 500 look alike to the client, which cannot know whether its write took
        // effect.
        let internal = ApiError::new(
            500,
            "InternalServerError",
            "Something went wrong (an injected fault).",
        );
        let internal = reply::failure(&internal, media);
        // A fault before the effect skips the operation; one after it replaces only the response.
        if plan.fault == Some(InjectedFault::Before) {
            return Handled::rejected(internal, CountResult::Admitted, token);
        }
        let (applied, result, version) =
            self.perform(at.now, &OPERATIONS[*number], params, request);
        let mut response = match result {
            _ if plan.fault == Some(InjectedFault::After) => internal,
            Ok((status, data)) => reply::success(status, &data, media),
            Err(error) => reply::failure(&error, media),
        };
        // Failures carry no rate headers. A client has to cope without them.
        if response.status().is_success() {
            reply::add_rate(&mut response, &decision, at.wall);
        }
        Handled {
            response,
            count: CountResult::Admitted,
            applied,
            token,
            version: Some(version),
        }
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
        let accepted = self.accepted.as_ref();
        let is_accepted = accepted.is_none_or(|tokens| tokens.contains(token));
        let is_bearer = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty();
        if !is_bearer || !is_accepted || self.revoked.contains(token) {
            return None;
        }
        if let Some(number) = self.tokens.get(token) {
            return Some(*number);
        }
        // The number of tokens is bounded, because each has counters of its own. Beyond the bound a
        // new token is rejected like a wrong one.
        if self.tokens.len() >= MOST_TOKENS {
            return None;
        }
        let number = self.tokens.len() as u32 + 1;
        self.tokens.insert(token.to_owned(), number);
        Some(number)
    }

    /// Counts a request, after those of other users since the last one.
    fn count(&mut self, now: Instant, token: u32, number: usize) -> LimitDecision {
        let operation = &OPERATIONS[number];
        let (spec, start) = (&self.spec, self.start);
        let counter = self.counters.entry((token, number)).or_insert_with(|| {
            // Gives each counter its own sequence of other users' requests.
            let salt = u64::from(token) << 32 | number as u64;
            Counter::new(spec, operation, salt, start, now)
        });
        counter.count(now, |at, decision| {
            self.log
                .note(others_arrival(at, token, operation, decision));
        })
    }

    /// Carries out an operation. Returns whether it changed the state, its result, and the version
    /// of the state that it saw or left.
    fn perform(
        &mut self,
        now: Instant,
        operation: &ApiOperation,
        params: &PathValues,
        request: &Request,
    ) -> (bool, ApiResult, u64) {
        let query = Query::parse(request.head.uri.query().unwrap_or_default());
        let path = request.head.uri.path();
        let call = Call {
            name: operation.name,
            success: operation.success,
            params,
            query: &query,
            body: &request.body,
            lists: self.spec.lists,
        };
        // Reads see the state with its replication lag; writes see the present one.
        // The lag can show a caller an older state than its own last write made. The gateway's
        // settle time exists for this.
        if operation.method == "GET" {
            let world = self.history.seen(now);
            let result = reads::read(world, &call)
                .unwrap_or_else(|| generic::read(world, operation, path, &call));
            return (false, result, world.version);
        }
        // A write with known semantics comes first; the generic store takes the rest.
        let (applied, result) = self.history.write(now, |world| {
            writes::write(world, &call)
                .unwrap_or_else(|| generic::write(world, operation, path, &call))
        });
        (applied, result, self.history.current().version)
    }
}

/// Returns the log entry for a request of another user of the token. It occupies the limit and has
/// no effect.
fn others_arrival(
    at: Instant,
    token: u32,
    operation: &ApiOperation,
    decision: LimitDecision,
) -> Arrival {
    Arrival {
        index: 0,
        at,
        by: By::Other,
        token,
        operation: operation.name,
        method: operation.method.into(),
        target: operation.template.into(),
        body: "".into(),
        status: if decision.admitted { 200 } else { 429 },
        count: if decision.admitted {
            CountResult::Admitted
        } else {
            CountResult::Refused
        },
        applied: false,
        version: 0,
    }
}
