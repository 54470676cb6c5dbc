//! Pure. Why a response did not come from the store, and why one was not stored.
//!
//! Each reason has one label for metrics, logs and `Cache-Status`, so that an operator who reads a
//! label in one place finds it in the others.

/// The reason why a request is not cacheable. The variants are in order of precedence: if several
/// apply, the first is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bypass {
    /// The method is neither GET nor HEAD, or it is HEAD and no response to GET is known to be
    /// stored.
    Method,
    /// Without `Authorization` the response cannot be attributed to a credential.
    NoCredential,
    /// The responses of the operation are not cached.
    Uncached,
    /// The request has a `Cookie`, which is not part of the key.
    Cookie,
    /// `Connection` names a field that would be part of the key but is not forwarded.
    Connection,
    /// The request wants a part of a response, and no such response is known to be stored.
    Range,
    /// The request has a condition that caches cannot evaluate (`If-Match`), or another condition
    /// while no response is known to be stored.
    Conditional,
    /// The request forbids storing its response (RFC 9111, section 5.2.1.5).
    NoStore,
    /// The query has no canonical form.
    Query,
    /// The dependencies of the response cannot be named, so writes to them would go unnoticed.
    Names,
    /// The gateway runs in shadow mode, which serves nothing from the store.
    Shadow,
}

impl Bypass {
    /// Every reason, for the labels of metrics.
    pub const ALL: [Self; 11] = [
        Self::Method,
        Self::NoCredential,
        Self::Uncached,
        Self::Cookie,
        Self::Connection,
        Self::Range,
        Self::Conditional,
        Self::NoStore,
        Self::Query,
        Self::Names,
        Self::Shadow,
    ];

    /// The reason as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::NoCredential => "no-credential",
            Self::Uncached => "uncached",
            Self::Cookie => "cookie",
            Self::Connection => "connection",
            Self::Range => "range",
            Self::Conditional => "conditional",
            Self::NoStore => "request-no-store",
            Self::Query => "query",
            Self::Names => "names",
            Self::Shadow => "shadow",
        }
    }
}

/// The reason why a response did not come from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Miss {
    /// Nothing is stored under the key.
    Absent,
    /// The response stored under the key was chosen by other request fields (`Vary`).
    Variant,
    /// The stored response is past its lifetime, or must be validated before each use.
    Expired,
    /// The fetch of the stored response began before the last write to its dependencies.
    Fenced,
    /// The request demands a new response.
    Reload,
    /// A settle time is in progress, so the response is neither stored nor shared.
    Settling,
    /// Too many fetches are in flight, so the response is neither stored nor shared.
    TooManyFetches,
    /// Writes overtook two fetches that the reader joined, so it fetched alone.
    FencedTwice,
    /// The fetch that the reader joined returned a response that must not be shared.
    NotShared,
    /// The fetch that the reader joined was queued for its budget, and the reader does not wait.
    NotWaiting,
    /// The request is not cacheable.
    Bypass(Bypass),
}

impl Miss {
    /// The reason as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Variant => "variant",
            Self::Expired => "expired",
            Self::Fenced => "fenced",
            Self::Reload => "reload",
            Self::Settling => "settling",
            Self::TooManyFetches => "too-many-fetches",
            Self::FencedTwice => "fenced-twice",
            Self::NotShared => "not-shared",
            Self::NotWaiting => "not-waiting",
            Self::Bypass(bypass) => bypass.as_str(),
        }
    }

    /// Every reason, for the labels of metrics.
    pub fn all() -> impl Iterator<Item = Self> {
        [
            Self::Absent,
            Self::Variant,
            Self::Expired,
            Self::Fenced,
            Self::Reload,
            Self::Settling,
            Self::TooManyFetches,
            Self::FencedTwice,
            Self::NotShared,
            Self::NotWaiting,
        ]
        .into_iter()
        .chain(Bypass::ALL.map(Self::Bypass))
    }
}

/// The reason why a response was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreRefusal {
    /// Responses with this status are not stored.
    Status,
    /// The response is partial.
    Partial,
    /// The response has `no-store`.
    NoStore,
    /// The response has `no-cache` and no validator to revalidate with.
    NoCache,
    /// The response sets a cookie.
    SetCookie,
    /// The response varies by everything, or by too many fields.
    Vary,
    /// The media type is not one of the API's, so something in front of the API may have answered.
    MediaType,
    /// The content coding is not supported.
    ContentEncoding,
    /// The body is too large, as received or decoded.
    TooLarge,
    /// Other responses occupy the memory for buffered bodies.
    NoRoom,
    /// The response was past its lifetime on receipt.
    Expired,
    /// Neither the API nor the route gives the response a lifetime.
    NoLifetime,
    /// The response has `must-understand`, and the gateway does not implement the caching rules of
    /// its status.
    NotUnderstood,
    /// A write to a dependency ended after the fetch began.
    Fenced,
    /// A dependency is in its settle time.
    Settling,
    /// A newer fetch of the same key took the place of this one.
    Superseded,
    /// The body is not in the coding that its header names.
    Undecodable,
    /// The response has trailers, or another property that a stored copy would lose.
    Unsuitable,
}

impl StoreRefusal {
    /// Whether the rejection follows from the response itself. Such a response shows what readers
    /// should get from now on; an error, a page of something in front of the API, or a response
    /// that was received amid writes, does not.
    pub const fn is_of_the_answer(self) -> bool {
        !matches!(
            self,
            Self::Status
                | Self::MediaType
                | Self::NoRoom
                | Self::Fenced
                | Self::Settling
                | Self::Superseded
        )
    }

    /// The reason as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Partial => "partial",
            Self::NoStore => "no-store",
            Self::NoCache => "no-cache",
            Self::SetCookie => "set-cookie",
            Self::Vary => "vary",
            Self::MediaType => "media-type",
            Self::ContentEncoding => "content-encoding",
            Self::TooLarge => "too-large",
            Self::NoRoom => "no-room",
            Self::Expired => "expired",
            Self::NoLifetime => "no-lifetime",
            Self::NotUnderstood => "not-understood",
            Self::Fenced => "fenced",
            Self::Settling => "settling",
            Self::Superseded => "superseded",
            Self::Undecodable => "undecodable",
            Self::Unsuitable => "unsuitable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn labels_are_distinct() {
        let labels: HashSet<_> = Miss::all().map(Miss::as_str).collect();
        assert_eq!(labels.len(), Miss::all().count());
    }
}
