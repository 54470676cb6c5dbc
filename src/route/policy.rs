//! Pure. The properties of one operation of the API: plain data that every other layer reads.
//! Nothing here decides about a request.

use http::Method;
use std::sync::Arc;
use std::time::Duration;

/// A rate: at most `limit` requests in any half-open window of length `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// L, at least 1.
    pub limit: u32,
    /// W, more than zero.
    pub window: Duration,
}

/// The budget that an operation uses. Operations that name the same budget share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetSpec {
    /// The name in the route table. By default the name of the operation.
    pub name: Arc<str>,
    /// The initial rate.
    pub rate: Rate,
    /// Whether the API documents this rate. Responses can only lower a documented limit. They
    /// correct an undocumented one in both directions.
    pub documented: bool,
}

/// The effect of a request on the upstream, by its method (RFC 9110, section 9.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A safe method.
    Read,
    /// An unsafe method.
    Write,
}

impl Effect {
    /// The effect of a method. Unknown methods are writes.
    pub fn of(method: &Method) -> Self {
        match *method {
            Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE => Self::Read,
            _ => Self::Write,
        }
    }
}

/// The source of the values of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// No placeholder: the template is a complete name.
    Literal,
    /// A path parameter, percent-decoded: one value.
    Path(Box<str>),
    /// A list in the query string, in any documented spelling: one value for each element.
    Query(Box<str>),
    /// Members of a JSON body, followed through arrays wherever they occur: one value for each
    /// string.
    Body(Vec<Box<str>>),
}

/// A name with at most one placeholder, such as `user:{path.userId}`. The template of a tag or an
/// order key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTemplate {
    /// The text before the placeholder (`user:`), or the complete name.
    pub prefix: Box<str>,
    /// The source of the placeholder's value.
    pub source: Source,
}

impl NameTemplate {
    /// The part of its names before the first colon.
    pub fn class(&self) -> &str {
        self.prefix.split(':').next().unwrap_or(&self.prefix)
    }

    /// Whether both templates may give the same name.
    fn meets(&self, other: &Self) -> bool {
        let (a, b) = (&*self.prefix, &*other.prefix);
        match (&self.source, &other.source) {
            (Source::Literal, Source::Literal) => a == b,
            (Source::Literal, _) => a.starts_with(b),
            (_, Source::Literal) => b.starts_with(a),
            _ => a.starts_with(b) || b.starts_with(a),
        }
    }
}

/// The caching of an operation's responses. Without a time to live, the API decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CachePolicy {
    /// The time to live of a success.
    pub ttl: Option<Duration>,
    /// The data on which a response depends. If none is declared, any write may change it.
    pub tags: Vec<NameTemplate>,
    /// The rule for conflicting times.
    pub directives: Directives,
    /// How long a stale response may be served during its refresh.
    pub stale_while_revalidate: Option<Duration>,
    /// How long a stale response may be served when the API fails.
    pub stale_if_error: Option<Duration>,
    /// How long a stale response may be served when the budget is exhausted.
    pub stale_if_limited: Option<Duration>,
    /// The heuristic lifetime of a response without any other, in percent of the time since its
    /// last change. 0 disables it.
    pub heuristic_percent: u32,
}

/// The rule that applies where both the API and the route table state a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Directives {
    /// The shorter time. What the API forbids stays forbidden.
    #[default]
    Shorter,
    /// The API's time. The route's applies where the API states none.
    Upstream,
    /// Only the route's time.
    Operator,
}

/// The data that a write changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touches {
    /// Nothing is declared: every cached response is invalidated.
    Everything,
    /// These tags. An explicit empty list means that no cached response depends on the write.
    Tags(Vec<NameTemplate>),
}

/// The place of the elements of a write. Each element could be sent in a request of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elements {
    /// A list in the query string, in any documented spelling.
    Query(Box<str>),
    /// A list that is a member of the JSON body.
    Body {
        /// The name of the member.
        list: Box<str>,
        /// The member of each element that identifies it. Without one, the whole element does.
        name: Option<Box<str>>,
    },
}

/// How queued writes of one operation are batched. The API applies such a list as a whole or not at
/// all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergePolicy {
    /// Whether batching is enabled.
    pub enabled: bool,
    /// The place of the elements.
    pub elements: Elements,
    /// Whether email addresses identify the elements. They are compared as in order keys
    /// ([`names::person`](super::names::person)).
    pub people: bool,
    /// The largest number of elements in a batch.
    pub most: usize,
    /// The list in the `data` of a response that repeats the elements. Without one, every member of
    /// the batch gets the same response.
    pub echoes: Option<Box<str>>,
}

/// One operation of the API, or one of the two for paths that match none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The API's name, such as `getUser`. A label of metrics and logs.
    pub name: Arc<str>,
    /// The position in the table, dense from 0. Serves as an index, for example of pre-resolved
    /// metrics.
    pub index: usize,
    /// The method. `None` for the two unmatched operations, and for a path that spells the template
    /// differently.
    pub method: Option<Method>,
    /// The path template, such as `/users/{userId}`.
    pub template: Box<str>,
    /// Whether the operation reads or writes.
    pub effect: Effect,
    /// The budget that the operation uses.
    pub budget: BudgetSpec,
    /// The caching of responses. `None` if they are not stored.
    pub cache: Option<CachePolicy>,
    /// The tags that a write touches. `Tags(vec![])` for a read.
    pub touches: Touches,
    /// The order keys of a write, such as `person:{body.emails}`.
    pub order: Vec<NameTemplate>,
    /// The classes of order keys (`person`) against which a write is a barrier. It waits for every
    /// earlier write with a key of the class, and later ones wait for it.
    pub barrier: Vec<Box<str>>,
    /// The query parameters that are lists, such as `emails`. All others are scalars.
    pub lists: Vec<Box<str>>,
    /// The batching of a write. `None` if it cannot be batched.
    pub merge: Option<Arc<MergePolicy>>,
}

impl Operation {
    /// Whether a write of this operation may change what `shows` returns. `None` if nothing is
    /// declared: the write may then change anything.
    pub fn may_change(&self, shows: &Self) -> Option<bool> {
        let Touches::Tags(touched) = &self.touches else {
            return None;
        };
        let depends = shows.cache.as_ref().map_or(&[][..], |cache| &cache.tags);
        let met = |tag: &NameTemplate| depends.iter().any(|other| other.meets(tag));
        // A write changes its target, whatever the tags say.
        Some(touched.iter().any(met) || may_be_one_path(&self.template, &shows.template))
    }

    /// Whether a retry after an unknown outcome does no more than the first attempt (PUT and
    /// DELETE; RFC 9110, section 9.2.2). Always true for a read.
    pub fn is_idempotent(&self, method: &Method) -> bool {
        matches!(self.effect, Effect::Read) || matches!(*method, Method::PUT | Method::DELETE)
    }

    /// Whether a request without a credential is rejected before it is sent. True for a write,
    /// which the API could only reject, and for a read whose responses are stored per credential
    /// because the table gives them a time to live or tags. The API itself responds to other reads.
    pub fn needs_credential(&self) -> bool {
        let is_kept = |cache: &CachePolicy| cache.ttl.is_some() || !cache.tags.is_empty();
        self.effect == Effect::Write || self.cache.as_ref().is_some_and(is_kept)
    }
}

/// Whether both templates may match the same path.
fn may_be_one_path(a: &str, b: &str) -> bool {
    let is_parameter = |segment: &str| segment.starts_with('{');
    let (a, b) = (a.split('/'), b.split('/'));
    let mut pairs = a.clone().zip(b.clone());
    a.count() == b.count() && pairs.all(|(a, b)| a == b || is_parameter(a) || is_parameter(b))
}
