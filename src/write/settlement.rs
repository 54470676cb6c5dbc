//! Pure. What the end of a write settles: which cached answers are no longer believed from then on.
//!
//! One decision for held, durable, batched and shadowed writes. It promises that a write which may
//! have changed something settles all that it may have changed, and that a refused one takes
//! nothing from callers whom it cannot concern (RFC 9111, section 4.4, asks for non-error answers
//! only).
//!
//! An end is that of one dispatch. A write that takes several is settled after each of them.

use crate::cache::Invalidation;
use crate::cache::fence::Tag;
use crate::credential::{self, Credential};
use crate::exchange::request::RequestContext;
use crate::route::names;
use crate::route::policy::Touches;
use crate::write::{element_count, locations};
use http::{HeaderMap, StatusCode};
use std::sync::Arc;

/// What is known of the target of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Its route declares tags, and all of them could be read from the request.
    Named,
    /// Its route declares no tags, or they could not be read, or a field asks for another method.
    Unnamed,
    /// Its path matches no route.
    Unmatched,
}

/// What is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Nothing has changed.
    Nothing,
    /// What the credential was shown.
    Credential,
    /// The tags of the operation, and the paths of the request and of its answer.
    Named,
    /// Everything: the floor is raised.
    Everything,
}

/// Returns what the end of a write settles. `status` is that of its answer, `None` if its outcome
/// is unknown; `may_be_partial` is explained at [`Affected`]; `is_credential_named` says whether it
/// was sent with a credential.
pub fn extent(
    status: Option<StatusCode>,
    scope: Scope,
    may_be_partial: bool,
    is_credential_named: bool,
) -> Extent {
    match (status.map(|status| status.as_u16()), scope) {
        (Some(429), _) => Extent::Nothing,
        // The API does not know the caller, and does nothing for it. What the credential was shown
        // is invalidated by the attempt that gets the 401, for reads and writes alike: see
        // [`unauthorized`](crate::cache::unauthorized).
        (Some(401), _) => Extent::Nothing,
        // Nothing is there, or nothing that may be written.
        (Some(403 | 404 | 405 | 415), Scope::Unmatched) => Extent::Nothing,
        (Some(403 | 404 | 405 | 415), _) if !may_be_partial => Extent::Nothing,
        (Some(400..=499), Scope::Unmatched) if is_credential_named => Extent::Credential,
        (Some(400..=499), Scope::Unmatched) => Extent::Nothing,
        // An answer that may hide an effect, or a list that may have been applied in part.
        (_, Scope::Named) => Extent::Named,
        (_, Scope::Unnamed | Scope::Unmatched) => Extent::Everything,
    }
}

/// What a write may change, as far as the cache needs to know it.
#[derive(Clone, Debug)]
pub struct Affected {
    /// What is known of its target.
    pub scope: Scope,
    /// The tags of its route; empty unless the scope is [`Scope::Named`].
    pub tags: Vec<Tag>,
    /// Its path first, then what its answers name.
    pub paths: Vec<Arc<str>>,
    /// Whether a part of it may have taken effect although the API refuses it: it names several
    /// elements, or is batched, or an earlier attempt may have taken effect.
    pub may_be_partial: bool,
    /// The credential that it is sent with, if any.
    pub credential: Option<Credential>,
}

impl Affected {
    /// Returns what a write may change: anything, if its names cannot be read.
    pub(crate) fn of(context: &RequestContext) -> Self {
        let tags = match &context.operation.touches {
            Touches::Tags(templates) if !context.overridden => names::expand(
                templates,
                &context.params,
                context.query(),
                &context.document(),
            )
            .ok(),
            _ => None,
        };
        let scope = match tags {
            Some(_) => Scope::Named,
            // Under the method that a field asks for, it may be the path of some route.
            None if context.operation.method.is_none() && !context.overridden => Scope::Unmatched,
            None => Scope::Unnamed,
        };
        Self {
            scope,
            tags: tags.into_iter().flatten().map(Tag::new).collect(),
            paths: vec![context.target.path().into()],
            may_be_partial: context.overridden
                || element_count::may_be_several(context.query(), &context.body),
            credential: credential::is_named(&context.headers).then_some(context.credential),
        }
    }

    /// Adds that a part of it may have taken effect, for a reason outside the request.
    pub fn partial_if(mut self, is_partial: bool) -> Self {
        self.may_be_partial |= is_partial;
        self
    }

    /// Adds the paths that an answer names (RFC 9111, section 4.4), by references at `authority`.
    pub fn also_named_by(&mut self, answer: &HeaderMap, authority: &str) {
        let target = self.paths.first().map_or("/", |target| target);
        let named = locations::named(answer, target, authority);
        self.paths.extend(named);
    }

    /// Returns what an end with this status invalidates; see [`extent`].
    pub fn invalidation(&self, status: Option<StatusCode>) -> Option<Invalidation> {
        let is_credential_named = self.credential.is_some();
        match extent(status, self.scope, self.may_be_partial, is_credential_named) {
            Extent::Nothing => None,
            Extent::Credential => self
                .credential
                .map(|credential| Invalidation::Credential(*credential.bytes())),
            Extent::Named => Some(Invalidation::Named {
                tags: self.tags.clone(),
                paths: self.paths.clone(),
            }),
            Extent::Everything => Some(Invalidation::Everything),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::send::may_land_later;
    use Extent::{Credential, Everything, Named, Nothing};

    const SCOPES: [Scope; 3] = [Scope::Named, Scope::Unnamed, Scope::Unmatched];

    fn extents(status: u16) -> [Extent; 3] {
        let status = (status != 0).then(|| StatusCode::from_u16(status).unwrap());
        SCOPES.map(|scope| extent(status, scope, true, true))
    }

    #[test]
    fn a_refusal_of_one_element_settles_nothing() {
        for status in 100..=599 {
            let whole = StatusCode::from_u16(status).ok();
            let expected = match status {
                403 | 404 | 405 | 415 => [Nothing; 3],
                _ => extents(status),
            };
            let found = SCOPES.map(|scope| extent(whole, scope, false, true));
            assert_eq!(found, expected, "{status}");
        }
        assert_eq!(
            SCOPES.map(|scope| extent(None, scope, false, true)),
            extents(0)
        );
    }

    #[test]
    fn what_each_end_settles() {
        // By a route with tags, by one without, by none. Without a status it is unknown.
        let whole = [Named, Everything, Everything];
        let table: [(&[u16], [Extent; 3]); 6] = [
            (&[0], whole),
            (&[200, 201, 202, 204, 207, 301, 303, 304], whole),
            (&[500, 501, 502, 503, 504, 599], whole),
            (&[401, 429], [Nothing; 3]),
            (&[403, 404, 405, 415], [Named, Everything, Nothing]),
            (
                &[400, 402, 406, 408, 409, 410, 411, 412, 413, 422, 451, 499],
                [Named, Everything, Credential],
            ),
        ];
        for (statuses, expected) in table {
            for status in statuses {
                assert_eq!(extents(*status), expected, "{status}");
            }
        }
    }

    #[test]
    fn nobody_has_been_shown_anything() {
        for status in 100..=599 {
            let status = StatusCode::from_u16(status).ok();
            for scope in SCOPES {
                let found = extent(status, scope, true, false);
                let named = extent(status, scope, true, true);
                let expected = match named {
                    Credential => Nothing,
                    other => other,
                };
                assert_eq!(found, expected, "{status:?} {scope:?}");
            }
        }
    }

    #[test]
    fn what_fails_there_may_still_land() {
        let later = |status| may_land_later(StatusCode::from_u16(status).ok());
        assert!(may_land_later(None) && later(500) && later(504));
        assert!(!later(200) && !later(303) && !later(404) && !later(422));
    }
}
