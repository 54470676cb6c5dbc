//! A response with the facts to report about it.

use crate::cache::cache_status::CacheStatus;
use crate::cache::reason::Bypass;
use crate::error::GatewayError;
use crate::exchange::body::Body;
use crate::exchange::error_response;
use crate::exchange::timing::Timing;
use crate::journal::WriteId;
use crate::limit::budgets::BudgetStatus;
use crate::metrics::Outcome;
use crate::route::policy::Effect;
use bytes::Bytes;
use http::Response;
use http::header::HeaderValue;

/// A response with the facts to report about it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) response: Response<Body>,
    pub(crate) outcome: Outcome,
    pub(crate) cache: Option<CacheStatus>,
    pub(crate) timing: Timing,
    /// The status of the budget that its own attempt used.
    pub(crate) standing: Option<BudgetStatus>,
    /// Whether to show the operation's budget although no attempt of its own used it.
    pub(crate) shows_budget: bool,
    /// The type of the gateway's own error.
    pub(crate) error: Option<&'static str>,
    /// In shadow mode, the value of the header that says how the gateway would have responded.
    pub(crate) shadow: Option<HeaderValue>,
    /// The id of the durable write that the response is about.
    pub(crate) write_id: Option<WriteId>,
}

impl Reply {
    pub(crate) fn new(response: Response<Body>, outcome: Outcome) -> Self {
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

    /// Adds the id of a durable write.
    pub(crate) fn of_write(self, id: WriteId) -> Self {
        Self {
            write_id: Some(id),
            ..self
        }
    }

    /// A hit.
    pub(crate) fn hit(response: Response<Body>) -> Self {
        Self {
            cache: Some(CacheStatus::hit()),
            ..Self::new(response, Outcome::Hit)
        }
    }

    /// A stale response from the store.
    pub(crate) fn stale(response: Response<Body>, cache: CacheStatus) -> Self {
        Self {
            cache: Some(cache),
            shows_budget: true,
            ..Self::new(response, Outcome::Stale)
        }
    }

    /// The response of a fetch.
    pub(crate) fn read(
        response: Response<Body>,
        outcome: Outcome,
        cache: CacheStatus,
        timing: Timing,
        standing: Option<BudgetStatus>,
    ) -> Self {
        Self {
            cache: Some(cache),
            timing,
            standing,
            ..Self::new(response, outcome)
        }
    }

    /// The recorded response of a write that an earlier request sent.
    pub(crate) fn from_journal(response: Response<Body>) -> Self {
        Self::new(response, Outcome::Replayed)
    }

    /// A 202 with the link to a deferred write's outcome.
    pub(crate) fn deferred(response: Response<Body>) -> Self {
        Self {
            shows_budget: true,
            ..Self::new(response, Outcome::Deferred)
        }
    }

    /// The API's response in shadow mode, unchanged.
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

    /// Adds the header of shadow mode.
    pub(crate) fn in_shadow(self, foreseen: HeaderValue) -> Self {
        Self {
            shadow: Some(foreseen),
            ..self
        }
    }

    /// The response of one of the gateway's own resources.
    pub(crate) fn own(response: Response<Body>) -> Self {
        Self::new(response, Outcome::Own)
    }

    /// A 429 of the API that could not be waited out before the deadline.
    pub(crate) fn throttled(response: Response<Bytes>, timing: Timing) -> Self {
        Self {
            timing,
            ..Self::new(response.map(Body::held), Outcome::Expired)
        }
    }

    /// An error of the gateway itself.
    pub(crate) fn error(error: &GatewayError) -> Self {
        let facts = error.facts();
        let write_id = match error {
            GatewayError::WritePending { id, .. } => id.parse().ok(),
            _ => None,
        };
        Self {
            write_id,
            error: Some(facts.kind),
            shows_budget: facts.shows_budget,
            ..Self::new(error_response::error(error), facts.outcome)
        }
    }
}
