//! Pure. What is known of one operation of the API: plain data, read by every other layer.

use http::Method;
use std::sync::Arc;
use std::time::Duration;

/// A rate: `limit` requests in any half-open window of length `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// L, at least 1.
    pub limit: u32,
    /// W, more than zero.
    pub window: Duration,
}

/// The budget that an operation draws on. Operations that name one budget share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetSpec {
    /// The name in the route table; the operation's own name unless it names another.
    pub name: Arc<str>,
    /// The rate to begin with.
    pub rate: Rate,
    /// Whether the API documents this rate. A documented limit is a ceiling that answers may only
    /// lower; an undocumented one is corrected both ways.
    pub documented: bool,
}

/// What a request does to the upstream, by its method (RFC 9110, section 9.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A safe method.
    Read,
    /// An unsafe method.
    Write,
}

/// Where the values of a template come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// No placeholder: the template is a whole name.
    Literal,
    /// One value: a path parameter, percent-decoded.
    Path(Box<str>),
    /// One value for each element of a list in the query string, in any documented spelling.
    Query(Box<str>),
    /// One value for each string found by following these members of a JSON body, through arrays
    /// wherever there are any.
    Body(Vec<Box<str>>),
}

/// A name with at most one placeholder, e.g. `user:{path.userId}`: a tag or an order key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTemplate {
    /// What stands before the placeholder (`user:`), or the whole name.
    pub prefix: Box<str>,
    /// What fills it.
    pub source: Source,
}

impl NameTemplate {
    /// What stands before the first colon of its names.
    pub fn class(&self) -> &str {
        self.prefix.split(':').next().unwrap_or(&self.prefix)
    }

    /// Whether both may stand for one name.
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

/// How answers of a read are cached. Without a time to live it is what the API says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CachePolicy {
    /// Time to live of a success.
    pub ttl: Option<Duration>,
    /// The data that the answer depends on. Where none is declared, any write may change it.
    pub tags: Vec<NameTemplate>,
    /// Whose word counts.
    pub directives: Directives,
    /// How long a stale answer may be shown while a new one is fetched.
    pub stale_while_revalidate: Option<Duration>,
    /// How long a stale answer may be shown when the API fails.
    pub stale_if_error: Option<Duration>,
    /// How long a stale answer may be shown when the budget is spent.
    pub stale_if_limited: Option<Duration>,
    /// Percent of the time since its last change that an answer without any lifetime is believed
    /// for; 0 is not at all.
    pub heuristic_percent: u32,
}

/// Whose word on caching counts where the API and the route table both say something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Directives {
    /// The shorter time of both, and what the API forbids is forbidden.
    #[default]
    Shorter,
    /// The API's, and the route's where the API says nothing.
    Upstream,
    /// The route's alone.
    Operator,
}

/// What a write changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touches {
    /// Nothing is declared: every cached answer is doubted.
    Everything,
    /// These tags; an explicit empty list says that no cached answer depends on it.
    Tags(Vec<NameTemplate>),
}

/// Where the elements of a write are, each of which could be asked for by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elements {
    /// A list in the query string, in any documented spelling.
    Query(Box<str>),
    /// A list that is a member of the JSON body.
    Body {
        /// The member.
        list: Box<str>,
        /// The member of each element that names it; without one the whole element does.
        name: Option<Box<str>>,
    },
}

/// How waiting writes of one operation may travel as one. The API applies such a list as a whole or
/// not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergePolicy {
    /// Whether they do.
    pub enabled: bool,
    /// Where their elements are.
    pub elements: Elements,
    /// Elements are named by email addresses, which are compared as order keys are
    /// ([`names::person`](super::names::person)).
    pub people: bool,
    /// The most elements of a dispatch.
    pub most: usize,
    /// The list in the `data` of the answer that repeats the elements; without one the answer is
    /// the same to all.
    pub echoes: Option<Box<str>>,
}

/// One operation of the API, or one of the two that stand for every path that matches none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The API's name for it, e.g. `getUser`: the label of metrics and logs.
    pub name: Arc<str>,
    /// Position in the table, dense from 0: an index for pre-resolved metrics.
    pub index: usize,
    /// The method, or `None` for the two unmatched operations, and where the path is another
    /// spelling of the template's.
    pub method: Option<Method>,
    /// The path template, e.g. `/users/{userId}`.
    pub template: Box<str>,
    /// Read or write.
    pub effect: Effect,
    /// The budget it draws on.
    pub budget: BudgetSpec,
    /// `Some` where answers may be stored.
    pub cache: Option<CachePolicy>,
    /// What a write touches; `Tags(vec![])` for a read.
    pub touches: Touches,
    /// Order keys of a write, e.g. `person:{body.emails}`.
    pub order: Vec<NameTemplate>,
    /// Classes of order keys (`person`) that a write of this operation keeps apart: it waits for
    /// every earlier write with a key of the class, and the later ones wait for it.
    pub barrier: Vec<Box<str>>,
    /// Query parameters that are lists, e.g. `emails`; every other name is a scalar.
    pub lists: Vec<Box<str>>,
    /// `Some` for a write that can be merged with others of its kind.
    pub merge: Option<Arc<MergePolicy>>,
}

impl Operation {
    /// Whether a write of this operation may change what that one shows. `None`: nothing is
    /// declared, so that it may change what any shows.
    pub fn may_change(&self, shows: &Self) -> Option<bool> {
        let Touches::Tags(touched) = &self.touches else {
            return None;
        };
        let depends = shows.cache.as_ref().map_or(&[][..], |cache| &cache.tags);
        let met = |tag: &NameTemplate| depends.iter().any(|other| other.meets(tag));
        // Its target is changed as well, whatever the tags say.
        Some(touched.iter().any(met) || may_be_one_path(&self.template, &shows.template))
    }

    /// Whether a repetition after an unknown outcome cannot do more than the first
    /// (PUT and DELETE; RFC 9110, section 9.2.2).
    pub fn is_idempotent(&self, method: &Method) -> bool {
        matches!(self.effect, Effect::Read) || matches!(*method, Method::PUT | Method::DELETE)
    }

    /// Whether it is not even asked for without a credential: a write, which could only be refused,
    /// and a read whose answers the table keeps for each credential (it gives them a time to live,
    /// or tags). The API itself answers the other reads.
    pub fn needs_credential(&self) -> bool {
        let is_kept = |cache: &CachePolicy| cache.ttl.is_some() || !cache.tags.is_empty();
        self.effect == Effect::Write || self.cache.as_ref().is_some_and(is_kept)
    }
}

/// Whether both templates may stand for one path.
fn may_be_one_path(a: &str, b: &str) -> bool {
    let is_parameter = |segment: &str| segment.starts_with('{');
    let (a, b) = (a.split('/'), b.split('/'));
    let mut pairs = a.clone().zip(b.clone());
    a.count() == b.count() && pairs.all(|(a, b)| a == b || is_parameter(a) || is_parameter(b))
}
