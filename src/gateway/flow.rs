//! The life of one request, top to bottom: edge → route → plan → read, write or pass → reply.
//!
//! In [shadow mode](crate::shadow): edge → route → forwarded at once → reply.

use crate::buffer::Buffer;
use crate::cache::reason::Bypass;
use crate::credential::{self, Credential};
use crate::error::GatewayError;
use crate::exchange::body::Body;
use crate::exchange::body_memory::Taken;
use crate::exchange::cache_status::CacheStatus;
use crate::exchange::error_response;
use crate::exchange::ids::Ids;
use crate::exchange::priority;
use crate::exchange::{callers, edge};
use crate::gateway::Gateway;
use crate::gateway::record::{Asker, Watch};
use crate::journal::WriteId;
use crate::limit::budgets::Standing;
use crate::limit::turns::{Caller, Urgency};
use crate::metrics::Outcome;
use crate::route::names;
use crate::route::pattern::Params;
use crate::route::policy::{Effect, Operation};
use crate::shadow::verdict::Foreseen;
use crate::write::durable::Ended;
use crate::write::retry::Written;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, request};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Any error of a layer.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The address of the connection, put into the request by the server.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Put into the request by the server where its framing could be read in two ways.
#[derive(Clone, Copy, Debug)]
pub struct AmbiguousFraming;

/// What a caller asks for, with all that the gateway needs to carry it out.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) operation: Arc<Operation>,
    pub(crate) params: Params,
    pub(crate) method: Method,
    pub(crate) target: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What the body takes of the memory of all bodies.
    pub(crate) room: Option<Arc<Taken>>,
    /// How far it has come, for those who tell about it.
    pub(crate) progress: Arc<Progress>,
    /// What names it.
    pub(crate) ids: Ids,
    pub(crate) credential: Credential,
    pub(crate) caller: Caller,
    pub(crate) accepted: Instant,
    /// How long it may wait for its budget.
    pub(crate) patience: Duration,
    /// Among those of its caller that wait for the same budget.
    pub(crate) urgency: Urgency,
    /// A field asks the API to treat it as another method.
    pub(crate) overridden: bool,
}

impl Ask {
    pub(crate) fn query(&self) -> Option<&str> {
        self.target.query()
    }

    pub(crate) fn document(&self) -> names::Body<'_> {
        names::Body::new(&self.body)
    }

    /// Whether it names no credential, although its operation is for nobody without one.
    pub(crate) fn lacks_credential(&self) -> bool {
        self.operation.needs_credential() && !credential::is_named(&self.headers)
    }

    /// Bytes kept while it waits, roughly.
    pub(crate) fn weight(&self) -> usize {
        let fields: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum();
        self.body.len() + self.target.as_str().len() + fields + 512
    }
}

/// Where the time of a request went.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timing {
    /// Waiting for lanes and budgets, 429s and lost connections included.
    pub(crate) queued: Duration,
    /// From leaving to the head of the answer.
    pub(crate) upstream: Duration,
    /// 429s that the caller did not see.
    pub(crate) throttled: u32,
    /// How many writes travelled together; 0 if it travelled alone.
    pub(crate) merged: usize,
    /// Whether it left at all.
    pub(crate) left: bool,
    progress: Arc<Progress>,
}

impl Timing {
    /// That of a request which has just been accepted.
    pub(crate) fn of(ask: &Ask) -> Self {
        Self {
            progress: ask.progress.clone(),
            ..Self::default()
        }
    }

    pub(crate) fn left(&mut self, now: Instant, accepted: Instant) {
        self.queued = now.saturating_duration_since(accepted);
        self.left = true;
        self.progress.0.lock().left = Some((self.queued, self.throttled));
    }
}

/// How far a request has come. It is known to whoever tells about the request, even if there is no
/// reply to say it.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<Seen>);

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// How long it had waited and how often it had been refused by a 429 when it last left.
    left: Option<(Duration, u32)>,
    looked: Option<Stretch>,
    ready: Option<Instant>,
}

/// From when to when.
pub(crate) type Stretch = (Instant, Instant);

impl Progress {
    /// How long it had waited and how often it had been refused by a 429 when it last left for the
    /// API; nothing as long as it has not left.
    pub(crate) fn seen(&self) -> Option<(Duration, u32)> {
        self.0.lock().left
    }

    /// It was looked for in the cache.
    pub(crate) fn looked(&self, stretch: Stretch) {
        self.0.lock().looked = Some(stretch);
    }

    /// Since this instant nothing but its budget keeps it; the first time counts.
    pub(crate) fn ready(&self, since: Option<Instant>) {
        let mut seen = self.0.lock();
        seen.ready = seen.ready.or(since);
    }

    /// When it was looked for in the cache, and since when nothing but its budget kept it.
    pub(crate) fn times(&self) -> (Option<Stretch>, Option<Instant>) {
        let seen = self.0.lock();
        (seen.looked, seen.ready)
    }
}

/// An answer, and what is to be told about it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) response: Response<Body>,
    pub(crate) outcome: Outcome,
    pub(crate) cache: Option<CacheStatus>,
    pub(crate) timing: Timing,
    /// The budget that an attempt of its own drew on.
    pub(crate) standing: Option<Standing>,
    /// Whether the operation's budget is to be shown where no attempt of its own did draw on it.
    pub(crate) shows_budget: bool,
    /// The type of the gateway's own error.
    pub(crate) error: Option<&'static str>,
    /// What would have become of it, in shadow mode.
    pub(crate) shadow: Option<Box<Foreseen>>,
    /// The durable write that it is about.
    pub(crate) write_id: Option<WriteId>,
}

impl Reply {
    fn new(response: Response<Body>, outcome: Outcome) -> Self {
        Self {
            response,
            outcome,
            cache: None,
            timing: Timing::default(),
            standing: None,
            shows_budget: matches!(outcome, Outcome::Joined | Outcome::Expired),
            error: None,
            shadow: None,
            write_id: None,
        }
    }

    /// The same, about a durable write.
    pub(crate) fn of_write(self, id: WriteId) -> Self {
        Self {
            write_id: Some(id),
            ..self
        }
    }

    /// From the store.
    pub(crate) fn hit(response: Response<Body>) -> Self {
        Self {
            cache: Some(CacheStatus::hit()),
            ..Self::new(response, Outcome::Hit)
        }
    }

    /// From the store, although it is stale.
    pub(crate) fn stale(response: Response<Body>, cache: CacheStatus) -> Self {
        Self {
            cache: Some(cache),
            shows_budget: true,
            ..Self::new(response, Outcome::Stale)
        }
    }

    /// From a fetch.
    pub(crate) fn read(
        response: Response<Body>,
        outcome: Outcome,
        cache: CacheStatus,
        timing: Timing,
        standing: Option<Standing>,
    ) -> Self {
        Self {
            cache: Some(cache),
            timing,
            standing,
            ..Self::new(response, outcome)
        }
    }

    /// The API's own answer to a write.
    pub(crate) fn written(written: Written, mut timing: Timing) -> Self {
        timing.upstream = written.took;
        Self {
            timing,
            standing: written.standing,
            ..Self::new(written.response, Outcome::Written)
        }
    }

    /// The API's answer to a write that travelled with others.
    pub(crate) fn merged(
        response: Response<Bytes>,
        timing: Timing,
        standing: Option<Standing>,
    ) -> Self {
        Self {
            timing,
            standing,
            ..Self::new(response.map(Body::held), Outcome::Written)
        }
    }

    /// The API's own answer to a write, from the journal.
    pub(crate) fn recorded(response: Response<Body>, ended: &Ended) -> Self {
        let timing = Timing {
            queued: ended.queued,
            upstream: ended.upstream,
            throttled: ended.throttled,
            merged: ended.merged,
            left: true,
            progress: Arc::default(),
        };
        Self {
            timing,
            standing: ended.standing.clone(),
            ..Self::new(response, Outcome::Written)
        }
    }

    /// The same, of a write that another request asked for before.
    pub(crate) fn from_journal(response: Response<Body>) -> Self {
        Self::new(response, Outcome::Replayed)
    }

    /// Where to ask what has become of a write.
    pub(crate) fn deferred(response: Response<Body>) -> Self {
        Self {
            shows_budget: true,
            ..Self::new(response, Outcome::Deferred)
        }
    }

    /// The API's answer as it came, whatever it is.
    pub(crate) fn as_it_came(response: Response<Body>, effect: Effect, timing: Timing) -> Self {
        let (outcome, cache) = match effect {
            Effect::Read => (Outcome::Passed, Some(CacheStatus::bypass(Bypass::Shadow))),
            Effect::Write => (Outcome::Written, None),
        };
        Self {
            cache,
            timing,
            ..Self::new(response, outcome)
        }
    }

    /// The same, with what would have become of the request otherwise.
    pub(crate) fn in_shadow(self, foreseen: Foreseen) -> Self {
        Self {
            shadow: Some(Box::new(foreseen)),
            ..self
        }
    }

    /// From one of the gateway's own resources.
    pub(crate) fn own(response: Response<Body>) -> Self {
        Self::new(response, Outcome::Own)
    }

    /// A 429 that could not be waited out within the deadline.
    pub(crate) fn throttled(response: Response<Bytes>, timing: Timing) -> Self {
        Self {
            timing,
            ..Self::new(response.map(Body::held), Outcome::Expired)
        }
    }

    /// An error of the gateway's own.
    pub(crate) fn error(error: &GatewayError) -> Self {
        let outcome = match error {
            GatewayError::QueueExpired { .. } => Outcome::Expired,
            GatewayError::OutcomeUnknown { .. } => Outcome::Unknown,
            GatewayError::UpstreamUnreachable { .. }
            | GatewayError::UpstreamTimeout
            | GatewayError::UpstreamBroken
            | GatewayError::UpstreamUnreadable(_)
            | GatewayError::Internal => Outcome::Failed,
            _ => Outcome::Refused,
        };
        let write_id = match error {
            GatewayError::WritePending { id, .. } => id.parse().ok(),
            _ => None,
        };
        Self {
            write_id,
            error: Some(error.kind()),
            shows_budget: error.concerns_budget(),
            ..Self::new(error_response::error(error), outcome)
        }
    }
}

impl Gateway {
    /// Answers one request, whatever happens; the answer is counted under exactly one outcome.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let mut watch = Watch::new(self, Asker::of(self, &request));
        let reply = match self.carry_out(request, &mut watch).await {
            Ok(reply) => reply,
            Err(error) => Reply::error(&error),
        };
        watch.finish(reply)
    }

    /// Answers a request that a layer turned away; it is told about like any other.
    pub(crate) fn turn_away(&self, asker: Asker, error: &GatewayError) -> Response<Body> {
        Watch::new(self, asker).finish(Reply::error(error))
    }

    async fn carry_out<B>(
        &self,
        request: Request<B>,
        watch: &mut Watch,
    ) -> Result<Reply, GatewayError>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        edge::check(&request)?;
        if request.extensions().get::<AmbiguousFraming>().is_some() {
            return Err(GatewayError::BadRequest(edge::AMBIGUOUS_LENGTH));
        }
        if edge::is_own(request.uri().path()) {
            let (head, _) = request.into_parts();
            return Box::pin(self.own(&head.method, &head.uri, &head.headers)).await;
        }
        let (head, body) = request.into_parts();
        let mut ask = self.understand(head, watch.accepted())?;
        ask.ids = watch.ids().clone();
        watch.understood(&ask);
        if ask.lacks_credential() && self.shadow.is_none() {
            return Err(GatewayError::NoCredential);
        }
        // Boxed is whatever a hit does not need: what is left is small, and is moved through the
        // layers around with each request.
        if !body.is_end_stream() {
            let (body, room) = Box::pin(self.collect(body, ask.caller.peer)).await?;
            (ask.body, ask.room) = (body, Some(Arc::new(room)));
        }
        if let Some(shadow) = &self.shadow {
            return Ok(Box::pin(self.forward_at_once(shadow, ask)).await);
        }
        match ask.operation.effect {
            Effect::Write => Box::pin(self.write(ask)).await,
            Effect::Read => self.read(ask).await,
        }
    }

    /// Which operation it is, who asks, with which credential, and how long it may wait.
    pub(crate) fn understand(
        &self,
        head: request::Parts,
        accepted: Instant,
    ) -> Result<Ask, GatewayError> {
        let (settings, table) = (self.settings.get(), self.table.get());
        let peer = head.extensions.get::<Peer>();
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        let caller = callers::identify(&head.headers, peer, &settings.trusted)?;
        let target = edge::target(head.uri);
        let overridden = edge::overrides_method(&head.headers);
        let matched = table.find(&head.method, target.path());
        let mut operation = matched.operation;
        if overridden && operation.effect == Effect::Read {
            operation = table.unmatched_write();
        }
        let patience = match operation.effect {
            Effect::Write => &settings.write_patience,
            Effect::Read => &settings.read_patience,
        };
        Ok(Ask {
            patience: patience.of(&head.headers),
            urgency: priority::urgency(&head.headers),
            credential: self.hasher.credential(&head.headers),
            params: matched.params,
            method: head.method,
            headers: head.headers,
            body: Bytes::new(),
            room: None,
            progress: Arc::default(),
            ids: Ids::default(),
            operation,
            target,
            caller,
            accepted,
            overridden,
        })
    }

    /// Reads the body, which a layer outside bounds in time. One that is announced to be too large
    /// is not read at all.
    async fn collect<B>(&self, body: B, peer: IpAddr) -> Result<(Bytes, Taken), GatewayError>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let most = self.settings.get().largest_body;
        let too_large = |bytes: usize| bytes > most;
        if too_large(usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX)) {
            return Err(GatewayError::BodyTooLarge(most));
        }
        let mut room = self.bodies.nothing(peer);
        let (mut first, mut all) = (Bytes::new(), Buffer::new(0));
        let mut body = pin!(body);
        while let Some(frame) = body.as_mut().frame().await {
            let Ok(data) = frame.map_err(|error| broken(error.into()))?.into_data() else {
                continue;
            };
            if too_large(first.len() + all.len() + data.len()) {
                return Err(GatewayError::BodyTooLarge(most));
            }
            room.grow(data.len())?;
            // Most bodies come in one piece, which need not be copied.
            if first.is_empty() && all.is_empty() {
                first = data;
            } else {
                all.push(&std::mem::take(&mut first));
                all.push(&data);
            }
        }
        let whole = if all.is_empty() { first } else { all.freeze() };
        Ok((whole, room))
    }
}

/// Why a body ended before its end.
fn broken(error: BoxError) -> GatewayError {
    if is::<tower_http::timeout::TimeoutError>(error.as_ref()) {
        GatewayError::BodyTimeout
    } else {
        GatewayError::BadRequest("The body broke off or is malformed")
    }
}

/// Whether the error or one of its causes is an `E`.
fn is<E: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<E>())
}
